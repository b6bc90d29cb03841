//! Reports: users are told by mail what is held for them, once.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use connectord_delivery::{
    Delivery, Failure, FailureKind, Note as DeliveryNote, Outcome, Parcel, RecallRow, Recalled, Recipient,
};
use connectord_filter::QuarantineError;
use connectord_mail::{DeliveryId, Identity, UnixTime};
use connectord_wire::Escaped;
use serde::{Deserialize, Serialize};

use crate::directory::{DirectoryQuarantine, Inner};
use crate::index::{Entry, Sort};

/// Name of the file that says what users were told about.
pub(crate) const FILE: &str = "reports";

/// Largest such file that is read, in octets.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Most messages that one report names.
const MAX_ENTRIES: usize = 200;

/// Longest value in a report, in characters.
const MAX_VALUE: usize = 150;

/// How long a day is for a report: one that is looked for each hour comes at about the same time.
const DAY: Duration = Duration::from_secs(24 * 3600 - 1800);

/// Longest wait for a destination to take one.
const DEADLINE: Duration = Duration::from_secs(120);

/// Sends reports.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// This machine's name, in the From and the Message-ID.
    pub machine: String,
    /// The time.
    pub now: UnixTime,
    /// Only to this user.
    pub user: Option<String>,
    /// Say who would be told, and tell nobody.
    pub dry_run: bool,
}

/// A report to one user by one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The local user.
    pub user: String,
    /// Name of the destination.
    pub destination: String,
    /// How many messages it is about.
    pub messages: usize,
    /// What the destination says; nothing for a report that is not sent because nobody wanted it sent.
    pub outcome: Option<Result<String, Failure>>,
}

/// What users were told about, by destination and user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// When reports were last looked for.
    #[serde(default)]
    at: Option<UnixTime>,
    #[serde(default)]
    users: BTreeMap<String, BTreeMap<String, User>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct User {
    /// Up to the message of this serial number, itself included.
    #[serde(default)]
    told: u64,
    /// A report that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<Begun>,
    /// Earlier attempts that may have arrived, at this report.
    #[serde(default)]
    uncertain: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    up_to: u64,
    /// What the destination noted, in base64.
    note: Option<String>,
}

impl DirectoryQuarantine {
    /// Whether the last reports are a day ago.
    pub fn report_is_due(&self, now: UnixTime) -> bool {
        let told = self.0.told();
        // A clock that went backwards makes one report too many, rather than none for years.
        told.at.is_none_or(|at| now < at || now.since(at) >= DAY)
    }

    /// Tells each user by mail what was held for them since they were last told, through the destination that the messages
    /// would have gone to. Whom nothing is held for hears nothing.
    ///
    /// What was told is remembered before and after each delivery: a report is not repeated where the destination can tell
    /// whether it arrived. A report that fails comes again with the next call.
    ///
    /// # Errors
    /// [`QuarantineError`] when what was told cannot be read or written down.
    pub async fn report(
        &self,
        reporter: &Reporter,
        destination: impl Fn(&str) -> Option<Arc<dyn Delivery>>,
    ) -> Result<Vec<Report>, QuarantineError> {
        let _turn = self.0.reports.lock().await;
        let mut told = self.0.on_disk("reading what users were told", |inner| Ok(inner.told())).await?;
        let mut reports = Vec::new();
        for ((destination_name, user), (address, entries)) in self.0.to_tell(&told, reporter.user.as_deref()) {
            let mut report = Report {
                user: user.clone(),
                destination: destination_name.clone(),
                messages: entries.len(),
                outcome: None,
            };
            if !reporter.dry_run {
                report.outcome = Some(match destination(&destination_name) {
                    Some(delivery) => {
                        let recipient = Recipient { user, address };
                        let mut course = Course { inner: &self.0, told: &mut told, delivery: &*delivery, reporter };
                        course.tell(&destination_name, recipient, &entries).await?
                    }
                    None => {
                        let text = format!("there is no destination {}", Escaped::text(&destination_name));
                        Err(Failure::new(FailureKind::Misconfigured, text))
                    }
                });
            }
            reports.push(report);
        }
        if !reporter.dry_run && reporter.user.is_none() {
            told.at = Some(reporter.now);
            self.0.remember_told(&told).await?;
        }
        Ok(reports)
    }
}

impl DirectoryQuarantine {
    /// Finds out what became of reports that a crash cut short.
    pub(crate) async fn recover_reports(
        &self,
        destination: &(impl Fn(&str) -> Option<Arc<dyn Delivery>> + ?Sized),
        now: UnixTime,
    ) -> Result<(), QuarantineError> {
        let _turn = self.0.reports.lock().await;
        let mut told = self.0.on_disk("reading what users were told", |inner| Ok(inner.told())).await?;
        let begun = |(name, users): (&String, &BTreeMap<String, User>)| -> Vec<(String, String)> {
            let begun = users.iter().filter(|(_, user)| user.begun.is_some());
            begun.map(|(user, _)| (name.clone(), user.clone())).collect()
        };
        for (name, user) in told.users.iter().flat_map(begun).collect::<Vec<_>>() {
            let Some(delivery) = destination(&name) else { continue };
            let reporter = Reporter { machine: String::new(), now, user: None, dry_run: false };
            let recipient = Recipient { address: user.clone(), user };
            let mut course = Course { inner: &self.0, told: &mut told, delivery: &*delivery, reporter: &reporter };
            // Whoever does not answer now is asked again before the next report.
            let _ = course.settle(&name, &recipient).await?;
        }
        Ok(())
    }
}

type ToTell = BTreeMap<(String, String), (String, Vec<Entry>)>;

impl Inner {
    /// Who has not heard of what, oldest first. What is told is bounded when it is written.
    fn to_tell(&self, told: &Told, only: Option<&str>) -> ToTell {
        let mut all = ToTell::new();
        let index = self.index();
        let mut entries: Vec<_> = index.all().collect();
        entries.reverse();
        for entry in entries {
            for (user, address) in &entry.recipients {
                let known = told.users.get(&entry.destination).and_then(|users| users.get(user));
                if only.is_some_and(|only| only != user) || known.is_some_and(|known| entry.serial <= known.told) {
                    continue;
                }
                let key = (entry.destination.clone(), user.clone());
                let (latest, entries) = all.entry(key).or_default();
                latest.clone_from(address);
                entries.push(entry.clone());
            }
        }
        all
    }

    /// What users were told; nothing when that cannot be read: they hear once more of all that is held.
    fn told(&self) -> Told {
        let mut octets = Vec::new();
        let read = match self.dir.open_file(FILE) {
            Ok(file) => file.take(MAX_FILE).read_to_end(&mut octets),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Told::default(),
            Err(error) => Err(error),
        };
        match read
            .map_err(|error| error.to_string())
            .and_then(|_| serde_json::from_slice::<Told>(&octets).map_err(|error| error.to_string()))
        {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(%error, "what users were told of the quarantine cannot be read; they hear of all of it once more");
                Told::default()
            }
        }
    }

    /// The highest serial number that anybody was told of: no later message may have it.
    pub(crate) fn highest_told(&self) -> u64 {
        let told = self.told();
        let users = told.users.values().flat_map(BTreeMap::values);
        users.map(|user| user.told.max(user.begun.as_ref().map_or(0, |begun| begun.up_to))).max().unwrap_or(0)
    }

    async fn remember_told(self: &Arc<Self>, told: &Told) -> Result<(), QuarantineError> {
        let octets = serde_json::to_vec(told).expect("strings, numbers and maps of strings are always JSON");
        let during = "noting what users were told";
        self.on_disk(during, move |inner| {
            inner.dir.replace(FILE, &inner.part(FILE), &octets).map_err(|error| inner.trouble(during, &error))
        })
        .await
    }
}

/// A report under way.
struct Course<'a> {
    inner: &'a Arc<Inner>,
    told: &'a mut Told,
    delivery: &'a dyn Delivery,
    reporter: &'a Reporter,
}

impl Course<'_> {
    /// Tells one user; what became of one that was begun earlier is found out first.
    async fn tell(
        &mut self,
        destination: &str,
        recipient: Recipient,
        entries: &[Entry],
    ) -> Result<Result<String, Failure>, QuarantineError> {
        if let Err(failure) = self.settle(destination, &recipient).await? {
            return Ok(Err(failure));
        }
        let mut user = self.user(destination, &recipient).clone();
        let entries: Vec<_> = entries.iter().filter(|entry| entry.serial > user.told).collect();
        let Some(up_to) = entries.iter().map(|entry| entry.serial).max() else { return Ok(Ok("told earlier".into())) };
        let parcel = self.parcel(&recipient, &entries, up_to, user.uncertain);
        let prepare = self.delivery.prepare(vec![parcel]);
        let Ok(prepared) = tokio::time::timeout(DEADLINE, prepare).await else { return Ok(Err(self.late())) };
        let note = match prepared.notes().first() {
            Some(Ok(note)) => note.clone(),
            Some(Err(failure)) => return Ok(Err(failure.clone())),
            None => return Ok(Err(Failure::new(FailureKind::Transient, "the destination prepared nothing"))),
        };
        user.begun = Some(Begun { up_to, note: note.as_ref().map(|note| STANDARD.encode(&note.0)) });
        self.remember(destination, &recipient, &user).await?;
        let complete = prepared.complete();
        let Ok(outcomes) = tokio::time::timeout(DEADLINE, complete).await else { return Ok(Err(self.late())) };
        user.begun = None;
        let outcome = match outcomes.into_iter().next() {
            Some(Outcome::Delivered { detail }) => {
                user = User { told: up_to, ..User::default() };
                Ok(detail)
            }
            Some(Outcome::Unknown(failure)) => {
                user.uncertain += 1;
                Err(failure)
            }
            Some(Outcome::Failed(failure)) => Err(failure),
            _ => Err(Failure::new(FailureKind::Transient, "the destination does not say what became of it")),
        };
        self.remember(destination, &recipient, &user).await?;
        self.delivery.settled(note.as_slice()).await;
        Ok(outcome)
    }

    /// Finds out what became of a report that was begun.
    async fn settle(
        &mut self,
        destination: &str,
        recipient: &Recipient,
    ) -> Result<Result<(), Failure>, QuarantineError> {
        let mut user = self.user(destination, recipient).clone();
        let Some(begun) = user.begun.take() else { return Ok(Ok(())) };
        match self.recall(recipient, &begun).await {
            Ok(Recall::Arrived) => user = User { told: begun.up_to, ..User::default() },
            Ok(Recall::Absent) => {}
            Ok(Recall::Unknown) => user.uncertain += 1,
            Err(failure) => return Ok(Err(failure)),
        }
        self.remember(destination, recipient, &user).await?;
        Ok(Ok(()))
    }

    fn user(&mut self, destination: &str, recipient: &Recipient) -> &mut User {
        let users = self.told.users.entry(destination.to_owned()).or_default();
        users.entry(recipient.user.clone()).or_default()
    }

    async fn remember(&mut self, destination: &str, to: &Recipient, user: &User) -> Result<(), QuarantineError> {
        self.user(destination, to).clone_from(user);
        self.inner.remember_told(self.told).await
    }

    async fn recall(&self, recipient: &Recipient, begun: &Begun) -> Result<Recall, Failure> {
        let note = begun.note.as_ref().and_then(|note| STANDARD.decode(note).ok()).map(DeliveryNote);
        let row = RecallRow { recipient: recipient.clone(), note };
        match tokio::time::timeout(DEADLINE, self.delivery.recall(vec![row])).await.map(|all| all.into_iter().next()) {
            Ok(Some(Recalled::Delivered { .. })) => Ok(Recall::Arrived),
            Ok(Some(Recalled::Absent)) => Ok(Recall::Absent),
            Ok(Some(Recalled::Wait(failure))) => Err(failure),
            Ok(_) => Ok(Recall::Unknown),
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> Failure {
        let text =
            format!("{} did not answer within {} s (during a report)", self.delivery.describe(), DEADLINE.as_secs());
        Failure::new(FailureKind::Unavailable, text)
    }

    fn parcel(&self, recipient: &Recipient, entries: &[&Entry], up_to: u64, uncertain: u32) -> Parcel {
        let id = DeliveryId::new(Identity {
            account: "connectord-quarantine-report",
            mailbox: &recipient.user,
            uid_validity: 0,
            key: &up_to.to_be_bytes(),
            generation: 0,
        });
        let text = text(entries, &self.reporter.machine);
        Parcel {
            id,
            message: id,
            recipient: recipient.clone(),
            // Nobody gets a bounce of it.
            reverse_path: String::new(),
            trace: Bytes::new(),
            body: Arc::new(Bytes::from(message(&text, entries.len(), id, recipient, self.reporter))),
            arrived_at: Some(self.reporter.now),
            folder: None,
            attempt: uncertain.saturating_add(1),
        }
    }
}

enum Recall {
    Arrived,
    Absent,
    Unknown,
}

/// The report as a message: plain text in base64, so that nothing of it can be anything else.
fn message(text: &str, count: usize, id: DeliveryId, to: &Recipient, reporter: &Reporter) -> Vec<u8> {
    let machine = machine(&reporter.machine);
    let plural = if count == 1 { "message is" } else { "messages are" };
    let mut message = format!(
        "From: connectord@{machine}\r\nTo: {}\r\nDate: {}\r\nSubject: {count} {plural} held back\r\n\
         Message-ID: <connectord-quarantine.{id}@{machine}>\r\nAuto-Submitted: auto-generated\r\nPrecedence: bulk\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        address(&to.address, machine),
        reporter.now
    );
    for line in STANDARD.encode(text).as_bytes().chunks(76) {
        message.extend(line.iter().map(|octet| char::from(*octet)));
        message.push_str("\r\n");
    }
    message.into_bytes()
}

fn text(entries: &[&Entry], machine: &str) -> String {
    let (these, are) = if entries.len() == 1 { ("This message", "is") } else { ("These messages", "are") };
    let mut text = format!(
        "{these} for you {are} held back by the mail filters of {}. Nobody else reads them, and they are removed some time \
         later. Ask the administrator for one that you want, by the letters in front of it.\n",
        inert(machine)
    );
    for entry in entries.iter().take(MAX_ENTRIES) {
        let what = match entry.sort() {
            Sort::Virus => "VIRUS",
            Sort::Spam => "spam",
            Sort::Other => "held",
        };
        text.push_str(&format!(
            "\n{}\n  {what}, {}, {} octets, for {}\n  From:    {}\n  Subject: {}\n  Reason:  {}\n",
            entry.id,
            entry.held_at,
            entry.size_octets,
            inert(&entry.account),
            inert(&entry.from),
            inert(&entry.subject),
            inert(&entry.reason)
        ));
    }
    if entries.len() > MAX_ENTRIES {
        text.push_str(&format!("\nAnd {} more.\n", entries.len() - MAX_ENTRIES));
    }
    text
}

/// On one line, of bounded length, and with nothing that a mail program would follow.
fn inert(text: &str) -> String {
    let escaped = Escaped::text(text).to_string();
    let mut shown: String = escaped.chars().take(MAX_VALUE).collect();
    if shown.len() < escaped.len() {
        shown.push('…');
    }
    // Mail programs make links of these.
    shown.replace("://", ":/ /").replace("www.", "www .")
}

/// A name that can stand behind an `@`.
fn machine(name: &str) -> &str {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !name.is_empty() && name.chars().all(fine) { name } else { "localhost" }
}

/// The address for a header field; a group without members where it would be none.
fn address(address: &str, machine: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.@".contains(c);
    match address.matches('@').count() {
        0 if !address.is_empty() && address.chars().all(fine) => format!("{address}@{machine}"),
        1 if address.chars().all(fine) => address.to_owned(),
        _ => "undisclosed-recipients:;".to_owned(),
    }
}
