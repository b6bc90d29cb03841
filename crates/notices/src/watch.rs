//! What is worth telling, and when: decided from how checks end, without a clock, a task or a socket of its own.
//!
//! An account that fails is remembered with its cause. From the causes follow the subjects: five hundred accounts at one
//! dead server are one subject, the server. A subject that has been in trouble long enough is told once, then in
//! reminders that become rarer, and once more when it is well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use connectord_engine::Cause;
use connectord_mail::UnixTime;
use serde::{Deserialize, Serialize};

use crate::matter::{Event, Kind, Matter, Subject, Trouble};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Accounts of one server with the same trouble that make it the server's.
pub(crate) const MANY: usize = 5;

/// Sentences about changes of one account that are kept until they are told.
const MAX_CHANGES: usize = 10;

/// Reminders come so long after the last word: the first after a day, later ones weekly.
const REMIND: [Duration; 4] =
    [DAY, Duration::from_secs(2 * 86_400), Duration::from_secs(4 * 86_400), Duration::from_secs(7 * 86_400)];

/// What is told, and how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long something must have been failing that usually mends itself; default 24 h. What a person must mend is told
    /// after an hour, if that is sooner.
    pub after: Duration,
    /// What is not told.
    pub leave_out: BTreeSet<Kind>,
    /// Most notices an hour to each way, several matters in one notice being one; default 10, at least 1.
    pub per_hour: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { after: DAY, leave_out: BTreeSet::new(), per_hour: 10 }
    }
}

/// Where an account belongs: what its troubles are told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its server's name.
    pub host: String,
    /// Its destination's name.
    pub destination: String,
    /// Its local users.
    pub users: Vec<String>,
}

/// How a check ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// What ended it, when it did not end well.
    pub fault: Option<Fault>,
    /// Whether messages were parked.
    pub parked: bool,
    /// Mailboxes that changed as a whole or whose removals are held, in sentences.
    pub changes: Vec<String>,
}

/// Why a check did not end well.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Why.
    pub cause: Cause,
    /// The local user, when it is about one.
    pub user: Option<String>,
    /// The error, escaped.
    pub error: String,
    /// What a person can do.
    pub hint: Option<String>,
    /// When the account is checked again.
    pub next: Option<UnixTime>,
}

/// An account that fails, as it is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Failing {
    cause: String,
    /// The first failure in a row.
    since: i64,
    /// From when on it counts for this subject: later than `since` when the trouble was somebody else's before.
    from: i64,
    /// The last failed check.
    last: i64,
    /// Failed checks in a row with this cause.
    checks: u32,
    error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

impl Failing {
    fn cause(&self) -> Cause {
        // A later version may have written one that we do not know.
        Cause::from_code(&self.cause).unwrap_or(Cause::Protocol)
    }
}

/// A subject that was told about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    cause: String,
    since: i64,
    /// The last word about it.
    at: i64,
    /// Words about it.
    times: u32,
    /// Accounts concerned, some of them: what is well again.
    accounts: Vec<String>,
}

/// What happened to an account's messages and was not told yet, and when something was told last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct News {
    parked: bool,
    changes: Vec<String>,
    told_parked: Option<i64>,
    told_changes: Option<i64>,
}

impl News {
    fn is_forgotten(&self, now: UnixTime) -> bool {
        let old = |told: Option<i64>| told.is_none_or(|at| now.since(UnixTime(at)) >= DAY);
        !self.parked && self.changes.is_empty() && old(self.told_parked) && old(self.told_changes)
    }
}

/// Knows what was told, and what is to be told.
#[derive(Debug, Default)]
pub struct Watch {
    policy: Policy,
    places: BTreeMap<String, Place>,
    failing: BTreeMap<String, Failing>,
    told: BTreeMap<Subject, Told>,
    news: BTreeMap<String, News>,
    /// When an account of this server was last checked well.
    well_at: BTreeMap<Subject, UnixTime>,
    /// When this server last spoke to one of its accounts in a way that can be understood.
    answered_at: BTreeMap<Subject, UnixTime>,
    dirty: BTreeSet<String>,
}

impl Watch {
    /// From what was remembered, by [`Watch::changes`]; what cannot be read is forgotten.
    pub fn new(policy: Policy, remembered: Vec<(String, String)>) -> Self {
        let mut watch = Self { policy, ..Self::default() };
        for (key, text) in remembered {
            let (kind, name) = key.split_once(' ').unwrap_or((&key, ""));
            let name = name.to_owned();
            let read = match kind {
                "failing" => serde_json::from_str(&text).map(|row| drop(watch.failing.insert(name, row))).is_ok(),
                "news" => serde_json::from_str(&text).map(|row| drop(watch.news.insert(name, row))).is_ok(),
                "told" => match (Subject::parse(&name), serde_json::from_str(&text)) {
                    (Some(subject), Ok(row)) => {
                        watch.told.insert(subject, row);
                        true
                    }
                    _ => false,
                },
                _ => continue,
            };
            if !read {
                watch.dirty.insert(key);
            }
        }
        watch
    }

    /// Takes over a configuration: what is not configured any more is forgotten, and nobody is told that it is well.
    pub fn configure(&mut self, policy: Policy, places: BTreeMap<String, Place>) {
        self.policy = policy;
        self.places = places;
        let places = &self.places;
        let known = |address: &String| places.contains_key(address);
        let dirty = &mut self.dirty;
        self.failing.retain(|address, _| known(address) || !dirty.insert(format!("failing {address}")));
        self.news.retain(|address, _| known(address) || !dirty.insert(format!("news {address}")));
        self.told.retain(|subject, _| {
            let known = match subject {
                Subject::Account(address) => known(address),
                Subject::Host(host) => places.values().any(|place| place.host == *host),
                Subject::Destination(name) => places.values().any(|place| place.destination == *name),
                Subject::User(user) => places.values().any(|place| place.users.contains(user)),
                Subject::Filters | Subject::Disk | Subject::State => true,
            };
            known || !dirty.insert(format!("told {subject}"))
        });
    }

    /// A check has ended.
    pub fn observe(&mut self, address: &str, finding: &Finding, now: UnixTime) {
        let Some(place) = self.places.get(address) else { return };
        if finding.parked || !finding.changes.is_empty() {
            let news = self.news.entry(address.to_owned()).or_default();
            news.parked |= finding.parked;
            for change in &finding.changes {
                if news.changes.len() < MAX_CHANGES && !news.changes.contains(change) {
                    news.changes.push(change.clone());
                }
            }
            self.dirty.insert(format!("news {address}"));
        }
        let host = Subject::Host(place.host.clone());
        if finding.fault.as_ref().is_none_or(|fault| shows_an_answer(fault.cause)) {
            self.answered_at.insert(host.clone(), now);
        }
        let Some(fault) = &finding.fault else {
            self.well_at.insert(host, now);
            if self.failing.remove(address).is_some() {
                self.dirty.insert(format!("failing {address}"));
            }
            return;
        };
        let before = self.failing.get(address);
        let mut failing = Failing {
            cause: fault.cause.code().to_owned(),
            since: before.map_or(now.0, |before| before.since.min(now.0)),
            from: now.0,
            last: now.0,
            checks: 1,
            error: fault.error.clone(),
            hint: fault.hint.clone(),
            user: fault.user.clone(),
            next: fault.next.map(|next| next.0),
        };
        if let Some(before) = before {
            if subject(address, before, place) == subject(address, &failing, place) {
                failing.from = before.from.min(now.0);
            }
            if before.cause == failing.cause {
                failing.checks = before.checks.saturating_add(1);
            }
        }
        self.failing.insert(address.to_owned(), failing);
        self.dirty.insert(format!("failing {address}"));
    }

    /// What is to be told now. Nothing is taken for told before [`Watch::told`] is called.
    pub fn due(&self, now: UnixTime) -> Vec<Matter> {
        let mut due = Vec::new();
        let wanted = |kind: Kind| !self.policy.leave_out.contains(&kind);
        let groups = self.groups();
        for (subject, members) in &groups {
            let Some(trouble) = self.trouble(members) else { continue };
            if !wanted(Kind::of(trouble.cause)) || self.is_well(subject, &groups) {
                continue;
            }
            if self.was_told_of_its_host(subject, trouble.cause) {
                continue;
            }
            let long_enough = self.is_long_enough(members, now);
            let accounts = || members.iter().map(|member| (*member).clone()).collect::<Vec<_>>();
            let matter = |event| Matter { event, subject: subject.clone(), accounts: accounts() };
            match self.told.get(subject) {
                None if long_enough => due.push(matter(Event::Trouble(trouble))),
                None => {}
                Some(told) => {
                    let silent = now.since(UnixTime(told.at));
                    let remind = REMIND[(told.times.saturating_sub(1) as usize).min(REMIND.len() - 1)];
                    if told.cause != trouble.cause.code() && long_enough && silent >= DAY {
                        due.push(matter(Event::Trouble(trouble)));
                    } else if silent >= remind && wanted(Kind::Reminder) {
                        due.push(matter(Event::Reminder(trouble)));
                    }
                }
            }
        }
        for (subject, told) in &self.told {
            if self.is_well(subject, &groups) && wanted(Kind::Well) {
                let cause = Cause::from_code(&told.cause).unwrap_or(Cause::Protocol);
                let event = Event::Well { cause, since: UnixTime(told.since) };
                due.push(Matter { event, subject: subject.clone(), accounts: told.accounts.clone() });
            }
        }
        for (address, news) in &self.news {
            let quiet = |told: Option<i64>| told.is_none_or(|at| now.since(UnixTime(at)) >= DAY || now.0 < at);
            let matter =
                |event| Matter { event, subject: Subject::Account(address.clone()), accounts: vec![address.clone()] };
            if news.parked && wanted(Kind::Parked) && quiet(news.told_parked) {
                // Which they are is looked up when it is told.
                due.push(matter(Event::Parked { messages: Vec::new(), count: 0 }));
            }
            if !news.changes.is_empty() && wanted(Kind::Changed) && quiet(news.told_changes) {
                due.push(matter(Event::Changed(news.changes.clone())));
            }
        }
        due
    }

    /// These were told.
    pub fn told(&mut self, matters: &[Matter], now: UnixTime) {
        for Matter { event, subject, accounts } in matters {
            match event {
                Event::Trouble(trouble) | Event::Reminder(trouble) => {
                    let times = match (event, self.told.get(subject)) {
                        (Event::Reminder(_), Some(told)) => told.times.saturating_add(1),
                        _ => 1,
                    };
                    let told = Told {
                        cause: trouble.cause.code().to_owned(),
                        since: trouble.since.0,
                        at: now.0,
                        times,
                        accounts: accounts.iter().take(50).cloned().collect(),
                    };
                    self.told.insert(subject.clone(), told);
                    self.dirty.insert(format!("told {subject}"));
                }
                Event::Well { .. } => self.close(subject, now),
                Event::Parked { .. } | Event::Changed(_) => {
                    let Subject::Account(address) = subject else { continue };
                    let news = self.news.entry(address.clone()).or_default();
                    if let Event::Changed(_) = event {
                        news.changes.clear();
                        news.told_changes = Some(now.0);
                    } else {
                        news.parked = false;
                        news.told_parked = Some(now.0);
                    }
                    self.dirty.insert(format!("news {address}"));
                }
                Event::Test => {}
            }
        }
    }

    /// Forgets what nobody wants to hear and what is over without a word.
    pub fn tidy(&mut self, now: UnixTime) {
        let leave_out = self.policy.leave_out.clone();
        if leave_out.contains(&Kind::Well) {
            let groups = self.groups();
            let well: Vec<Subject> =
                self.told.keys().filter(|subject| self.is_well(subject, &groups)).cloned().collect();
            for subject in well {
                self.close(&subject, now);
            }
        }
        let dirty = &mut self.dirty;
        for (address, news) in &mut self.news {
            if leave_out.contains(&Kind::Parked) && news.parked {
                news.parked = false;
                dirty.insert(format!("news {address}"));
            }
            if leave_out.contains(&Kind::Changed) && !news.changes.is_empty() {
                news.changes.clear();
                dirty.insert(format!("news {address}"));
            }
        }
        self.news.retain(|address, news| !news.is_forgotten(now) || !dirty.insert(format!("news {address}")));
    }

    /// What changed since the last call, to be remembered: a text for each key, none to forget it.
    pub fn changes(&mut self) -> Vec<(String, Option<String>)> {
        let text = |key: &str| {
            let (kind, name) = key.split_once(' ')?;
            match kind {
                "failing" => self.failing.get(name).and_then(|row| serde_json::to_string(row).ok()),
                "news" => self.news.get(name).and_then(|row| serde_json::to_string(row).ok()),
                "told" => self.told.get(&Subject::parse(name)?).and_then(|row| serde_json::to_string(row).ok()),
                _ => None,
            }
        };
        let changes = self.dirty.iter().map(|key| (key.clone(), text(key))).collect();
        self.dirty.clear();
        changes
    }

    /// The changes could not be remembered: they are tried again.
    pub fn unremembered(&mut self, changes: &[(String, Option<String>)]) {
        self.dirty.extend(changes.iter().map(|(key, _)| key.clone()));
    }

    /// The accounts that fail, by what their trouble is about.
    fn groups(&self) -> BTreeMap<Subject, Vec<&String>> {
        let mut groups: BTreeMap<Subject, Vec<&String>> = BTreeMap::new();
        for (address, failing) in &self.failing {
            let Some(place) = self.places.get(address) else { continue };
            let mut subject = subject(address, failing, place);
            if matches!(subject, Subject::Host(_))
                && self.well_at.get(&subject).is_some_and(|at| failing.from < at.0 && at.0 < failing.last)
            {
                // It failed before and after others got in there: that is not the server's trouble.
                subject = Subject::Account(address.clone());
            }
            groups.entry(subject).or_default().push(address);
        }
        for (host, members) in self.promoted() {
            for member in &members {
                groups.remove(&Subject::Account((*member).clone()));
            }
            groups.entry(Subject::Host(host)).or_default().extend(members);
        }
        let missing: Vec<(String, Vec<&String>)> = self.missing_users();
        for (destination, members) in missing {
            for member in &members {
                if let Some((failing, place)) = self.failing.get(*member).zip(self.places.get(*member)) {
                    groups.remove(&subject(member, failing, place));
                }
            }
            groups.entry(Subject::Destination(destination)).or_default().extend(members);
        }
        groups
    }

    /// Servers at which so many accounts have the same trouble that it is the server's.
    fn promoted(&self) -> Vec<(String, Vec<&String>)> {
        let mut same: BTreeMap<(&str, &str), Vec<(&String, &Failing)>> = BTreeMap::new();
        for (address, failing) in &self.failing {
            let concerns_host = matches!(
                failing.cause(),
                Cause::LoginRefused | Cause::Throttled | Cause::Protocol | Cause::TlsNotOffered | Cause::InUse
            );
            if let Some(place) = self.places.get(address).filter(|_| concerns_host) {
                same.entry((&place.host, &failing.cause)).or_default().push((address, failing));
            }
        }
        same.into_iter()
            .filter(|((host, cause), members)| {
                members.len() >= MANY && (*cause != Cause::LoginRefused.code() || self.refuses_all(host, members))
            })
            .map(|((host, _), members)| (host.to_owned(), members.into_iter().map(|(address, _)| address).collect()))
            .collect()
    }

    /// Five accounts were refused within an hour, and nobody got in since: or it was told so and nobody has got in yet.
    fn refuses_all(&self, host: &str, members: &[(&String, &Failing)]) -> bool {
        let subject = Subject::Host(host.to_owned());
        let well_at = self.well_at.get(&subject).map_or(i64::MIN, |at| at.0);
        if self.told.get(&subject).is_some_and(|told| told.at >= well_at) {
            return true;
        }
        let mut from: Vec<i64> = members.iter().map(|(_, failing)| failing.from).collect();
        from.sort_unstable();
        let hour = HOUR.as_secs() as i64;
        from.windows(MANY).any(|five| five[MANY - 1] - five[0] <= hour && five[0] > well_at)
    }

    /// Destinations of which so many users are missing that it is not the users.
    fn missing_users(&self) -> Vec<(String, Vec<&String>)> {
        let mut missing: BTreeMap<&str, (BTreeSet<&str>, Vec<&String>)> = BTreeMap::new();
        for (address, failing) in self.failing.iter().filter(|(_, failing)| failing.cause() == Cause::UserGone) {
            let Some(place) = self.places.get(address) else { continue };
            let (users, members) = missing.entry(&place.destination).or_default();
            users.extend(failing.user.as_deref().or_else(|| place.users.first().map(String::as_str)));
            members.push(address);
        }
        let many = missing.into_iter().filter(|(_, (users, _))| users.len() >= MANY);
        many.map(|(destination, (_, members))| (destination.to_owned(), members)).collect()
    }

    /// The trouble of a group: that of the member that failed first.
    fn trouble(&self, members: &[&String]) -> Option<Trouble> {
        let members = || members.iter().filter_map(|member| self.failing.get(*member));
        // A destination that is down says more than the users that are missing for it.
        let first = members().min_by_key(|failing| (failing.from, failing.since))?;
        Some(Trouble {
            cause: first.cause(),
            since: UnixTime(first.since),
            error: first.error.clone(),
            hint: first.hint.clone(),
            next: members().filter_map(|failing| failing.next).min().map(UnixTime),
        })
    }

    /// Whether one of them has been failing for as long as its cause asks for.
    fn is_long_enough(&self, members: &[&String], now: UnixTime) -> bool {
        members.iter().filter_map(|member| self.failing.get(*member)).any(|failing| {
            let lasted = now.since(UnixTime(failing.from));
            let soon = HOUR.min(self.policy.after);
            match failing.cause() {
                Cause::DiskFull | Cause::State => true,
                // Said when the second try was refused too; with holds that come after an hour.
                Cause::LoginRefused | Cause::NoCredential => {
                    lasted >= soon && (failing.checks >= 2 || lasted >= 2 * soon)
                }
                Cause::UserGone
                | Cause::MailboxFull
                | Cause::Folder
                | Cause::DestinationDown
                | Cause::FilterDown
                | Cause::QuarantineDown
                | Cause::Configuration => lasted >= soon,
                _ => lasted >= self.policy.after,
            }
        })
    }

    /// Whether its host was told to be in the same trouble: it begins anew when that is over.
    fn was_told_of_its_host(&self, subject: &Subject, cause: Cause) -> bool {
        let Subject::Account(address) = subject else { return false };
        let host = self.places.get(address).map(|place| Subject::Host(place.host.clone()));
        host.and_then(|host| self.told.get(&host)).is_some_and(|told| told.cause == cause.code())
    }

    /// Whether what was told about is over.
    fn is_well(&self, subject: &Subject, groups: &BTreeMap<Subject, Vec<&String>>) -> bool {
        if let Subject::Account(address) = subject {
            // It may fail for another reason now, which is another subject's: that is not well.
            return !self.failing.contains_key(address);
        }
        // Nobody may have asked the server: the disk is full, or its accounts' users are missing.
        if let (Subject::Host(_), Some(told)) = (subject, self.told.get(subject)) {
            let asked = match Cause::from_code(&told.cause) {
                Some(Cause::NameUnknown | Cause::NoAnswer | Cause::Tls) => self.answered_at.get(subject),
                _ => self.well_at.get(subject),
            };
            if asked.is_none_or(|at| at.0 < told.at) {
                return false;
            }
        }
        let Some(members) = groups.get(subject) else { return true };
        // Who was not checked since somebody got in there says nothing. (Of a destination it does: an account without new
        // mail is well whatever the destination does.)
        let well_at = self.well_at.get(subject).filter(|_| matches!(subject, Subject::Host(_)));
        well_at.is_some_and(|well_at| {
            members.iter().all(|member| self.failing.get(*member).is_none_or(|failing| failing.last < well_at.0))
        })
    }

    /// A subject is well: whoever still fails there begins anew.
    fn close(&mut self, subject: &Subject, now: UnixTime) {
        if self.told.remove(subject).is_some() {
            self.dirty.insert(format!("told {subject}"));
        }
        for (address, failing) in &mut self.failing {
            let Some(place) = self.places.get(address) else { continue };
            let concerned = match subject {
                Subject::Host(host) => place.host == *host,
                Subject::Destination(name) => place.destination == *name,
                _ => false,
            };
            if concerned && failing.from < now.0 {
                failing.from = now.0;
                failing.checks = 0;
                self.dirty.insert(format!("failing {address}"));
            }
        }
    }
}

/// Whether the server was reached and understood.
fn shows_an_answer(cause: Cause) -> bool {
    matches!(cause, Cause::LoginRefused | Cause::InUse | Cause::Throttled | Cause::Folder)
}

/// What the trouble of one account is about, others aside.
fn subject(address: &str, failing: &Failing, place: &Place) -> Subject {
    let user = || failing.user.clone().or_else(|| place.users.first().cloned()).unwrap_or_default();
    match failing.cause() {
        Cause::NameUnknown | Cause::NoAnswer | Cause::Tls => Subject::Host(place.host.clone()),
        Cause::DestinationDown | Cause::Configuration => Subject::Destination(place.destination.clone()),
        Cause::UserGone | Cause::MailboxFull => Subject::User(user()),
        // One filter serves all accounts, and whoever mends it is told once.
        Cause::FilterDown | Cause::QuarantineDown => Subject::Filters,
        Cause::DiskFull => Subject::Disk,
        Cause::State => Subject::State,
        _ => Subject::Account(address.to_owned()),
    }
}
