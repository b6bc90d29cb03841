//! What a notice says: what happened, where the mail is, what comes next, what a person can do.

use connectord_engine::Cause;
use connectord_mail::UnixTime;
use serde::Serialize;

use crate::matter::{Event, Matter, Subject, Trouble};

/// Accounts that a notice names; the others are counted.
const NAMED: usize = 20;

/// What is shown of a server's words, in characters.
const MAX_WORDS: usize = 200;

/// One matter in words, for people and for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// `trouble`, `reminder`, `well`, `parked`, `changed` or `test`.
    pub event: &'static str,
    /// What it is about, such as `account:info@example.org`, `host:imap.example.org`, `destination:default`,
    /// `user:alice`, `disk`.
    pub subject: String,
    /// The cause's code, as in logs; none for `parked`, `changed` and `test`.
    pub cause: Option<&'static str>,
    /// One line without a full stop.
    pub title: String,
    /// Sentences: what happened, where the mail is, what comes next.
    pub text: String,
    /// What a person can do, one sentence or more; may be empty.
    pub remedy: String,
    /// The error as it was, at most 200 characters, escaped already; may be empty.
    pub detail: String,
    /// Since when, RFC 3339 in UTC.
    pub since: Option<String>,
    /// The accounts concerned, at most 20 of them.
    pub accounts: Vec<String>,
    /// How many they are.
    pub count: usize,
}

impl Notice {
    /// A matter in words.
    pub fn of(matter: &Matter) -> Self {
        let mut notice = Self {
            event: matter.event.word(),
            subject: matter.subject.to_string(),
            cause: None,
            title: String::new(),
            text: String::new(),
            remedy: String::new(),
            detail: String::new(),
            since: None,
            accounts: matter.accounts.iter().take(NAMED).cloned().collect(),
            count: matter.accounts.len(),
        };
        match &matter.event {
            Event::Trouble(trouble) => notice.trouble(&matter.subject, trouble, ""),
            Event::Reminder(trouble) => notice.trouble(&matter.subject, trouble, "still: "),
            Event::Well { cause, since } => notice.well(&matter.subject, *cause, *since),
            Event::Parked { messages, count } => {
                let address = &matter.subject;
                let Subject::Account(address) = address else { return notice };
                notice.count = *count;
                notice.title = format!("{} of {address} {} parked", messages_in_words(*count), are(*count));
                notice.text = format!(
                    "{} could not be delivered and {} not tried again. The {} on the server; all other mail goes on.",
                    capital(&messages_in_words(*count)),
                    if *count == 1 { "is" } else { "are" },
                    if *count == 1 { "copy stays" } else { "copies stay" },
                );
                for message in messages {
                    let (from, subject) = (blank(&message.from), blank(&message.subject));
                    notice.text.push_str(&format!("\n  from {from}: {subject}\n    {}", shortened(&message.reason)));
                }
                if *count > messages.len() {
                    notice.text.push_str(&format!("\n  and {} more", count - messages.len()));
                }
                notice.remedy = format!(
                    "see them: connectord parked list {address}; then connectord parked retry or connectord parked skip"
                );
            }
            Event::Changed(changes) => {
                notice.title = format!("{} changed on its server", name(&matter.subject));
                notice.text = format!("{}\nNothing was lost or removed.", changes.join("\n"));
                notice.remedy = "nothing, if the mailbox was moved or emptied on purpose; else ask the provider".into();
            }
            Event::Test => {
                notice.title = "a test".into();
                notice.text = "Somebody asked to see whether notices arrive. This one did.".into();
            }
        }
        notice
    }

    fn trouble(&mut self, subject: &Subject, trouble: &Trouble, before: &str) {
        let Words { title, text, remedy } = words(subject, trouble.cause, self.count);
        self.cause = Some(trouble.cause.code());
        self.title = format!("{before}{title}");
        self.since = Some(rfc3339(trouble.since));
        let here = [Cause::DiskFull, Cause::State, Cause::DestinationDown, Cause::FilterDown, Cause::QuarantineDown];
        let wait = if here.contains(&trouble.cause) {
            "New mail waits on its servers; nothing is lost."
        } else {
            "New mail waits there; nothing is lost."
        };
        self.text = format!("{text} This has been so since {}. {wait}", shown(trouble.since));
        if let Some(next) = trouble.next {
            self.text.push_str(&format!(" It is tried again by itself, next at {}.", shown(next)));
        }
        self.remedy = match &trouble.hint {
            Some(hint) if !remedy.is_empty() => format!("{remedy}; {hint}"),
            Some(hint) => hint.clone(),
            None => remedy,
        };
        self.detail = shortened(&trouble.error);
    }

    fn well(&mut self, subject: &Subject, cause: Cause, since: UnixTime) {
        self.cause = Some(cause.code());
        self.since = Some(rfc3339(since));
        self.title = format!("well again: {}", name(subject));
        let was = words(subject, cause, self.count).title;
        self.text = format!(
            "{} is well again. It was in trouble since {}: {was}. Mail that waited is being retrieved.",
            capital(&name(subject)),
            shown(since)
        );
    }

    /// The notice as lines of a mail.
    pub fn paragraph(&self) -> String {
        let mut text = format!("{}\n", self.text);
        if !self.accounts.is_empty() && (self.count > 1 || !self.subject.starts_with("account:")) {
            text.push_str(&format!("\nAccounts: {}", self.accounts.join(", ")));
            if self.count > self.accounts.len() && self.event != "parked" {
                text.push_str(&format!(" and {} more", self.count - self.accounts.len()));
            }
            text.push('\n');
        }
        if !self.remedy.is_empty() {
            text.push_str(&format!("\nWhat you can do: {}.\n", self.remedy));
        }
        if !self.detail.is_empty() {
            text.push_str(&format!("\nThe error was: {}\n", self.detail));
        }
        text
    }
}

/// How a subject is called in a sentence.
fn name(subject: &Subject) -> String {
    match subject {
        Subject::Account(address) => format!("the account {address}"),
        Subject::Host(host) => format!("the server {host}"),
        Subject::Destination(name) => format!("the destination {name}"),
        Subject::User(user) => format!("delivery to {user}"),
        Subject::Filters => "the filter".into(),
        Subject::Disk => "the disk".into(),
        Subject::State => "the state".into(),
    }
}

struct Words {
    title: String,
    text: String,
    remedy: String,
}

fn words(subject: &Subject, cause: Cause, count: usize) -> Words {
    let who = match subject {
        Subject::Account(address) | Subject::Host(address) | Subject::Destination(address) | Subject::User(address) => {
            address.as_str()
        }
        Subject::Filters | Subject::Disk | Subject::State => "",
    };
    let all = matches!(subject, Subject::Host(_));
    let accounts = if count == 1 { "1 account".to_owned() } else { format!("{count} accounts") };
    let (title, text, remedy) = match cause {
        Cause::NameUnknown => (
            format!("the name {who} is not known"),
            format!("The name {who} cannot be resolved, so {accounts} cannot be checked."),
            "check the server's name in the configuration, and whether this machine can resolve names",
        ),
        Cause::AddressRefused => (
            format!("{who}: its server is in a network that is not allowed"),
            "Accounts that are kept in the state connect to the public internet only. The password was not sent."
                .to_owned(),
            "allow the network in `[saved] networks` of the configuration, or write the account into that file",
        ),
        Cause::NoAnswer if all => (
            format!("{who} does not answer"),
            format!("The server {who} does not answer, so {accounts} cannot be checked."),
            "ask its owner whether it is down; check the port in the configuration, and firewalls between",
        ),
        Cause::NoAnswer => (
            format!("{who}: its server does not answer"),
            format!("The server of {who} does not answer for this account; others there were checked."),
            "see the error below, and ask the provider",
        ),
        Cause::Tls => (
            format!("{who} cannot be trusted"),
            format!("No trusted encrypted connection to {who} can be made, so no password was sent ({accounts})."),
            "if its certificate ended, its owner must renew it; if it is one of its own, see `pin` and `ca_file`",
        ),
        Cause::TlsNotOffered => (
            format!("{who}: encryption is not offered"),
            "The server does not offer the encryption that is required. The password was not sent.".to_owned(),
            "use `security = \"tls\"` and its port, or ask the provider",
        ),
        Cause::Protocol => (
            format!("{who}: the server cannot be understood"),
            "The server broke the rules of its protocol, or ended the connection.".to_owned(),
            "check protocol and port in the configuration; else ask the provider",
        ),
        Cause::LoginRefused if all => (
            format!("{who} refuses all logins"),
            format!(
                "{accounts} at {who} were refused within an hour: that is the server's trouble rather than wrong passwords. \
                 One account after another tries again, and all as soon as one gets in."
            ),
            "wait, or ask the provider; passwords need no change unless all of them were changed",
        ),
        Cause::LoginRefused => (
            format!("{who}: user name or password refused"),
            format!(
                "The server refuses the user name or password of {who}. So that the mailbox is not locked, it is tried \
                 again after 1 hour, 4 hours, then daily, and at once when the password here changes."
            ),
            "enter the right password",
        ),
        Cause::NoCredential => (
            format!("{who}: there is no password"),
            format!("The password of {who} cannot be had here."),
            "see `password_file` or `password_command` of the account",
        ),
        Cause::InUse => (
            format!("{who}: the mailbox is in use"),
            "Another program has the mailbox open all the time.".to_owned(),
            "look for another mail program that keeps it open",
        ),
        Cause::Throttled => (
            format!("{who}: the server asks for a pause"),
            "The server asks for pauses again and again.".to_owned(),
            "check less often (`check`)",
        ),
        Cause::Folder => (
            format!("{who}: a mailbox cannot be read"),
            format!("A mailbox of {who} is not there or cannot be read. Its other mailboxes are checked."),
            "see `folders` of the account",
        ),
        Cause::UserGone if matches!(subject, Subject::Destination(_)) => (
            format!("the users of {who} are missing"),
            format!(
                "So many users are missing at the destination {who} that it is rather the destination ({accounts})."
            ),
            "see whether its file system is mounted and whether it knows its users",
        ),
        Cause::UserGone => (
            format!("there is no local user {who}"),
            format!(
                "There is no local user {who} any more. Nothing is retrieved for {accounts}, and nobody else gets the mail."
            ),
            "bring the user back, or change `deliver_to`",
        ),
        Cause::MailboxFull => (
            format!("the mailbox of {who} here is full"),
            format!("The mailbox of {who} on this machine is full."),
            "make room in it, or raise its quota",
        ),
        Cause::DestinationDown => (
            format!("the destination {who} does not take mail"),
            format!("The destination {who} does not take mail ({accounts})."),
            "see whether the mail server behind it runs",
        ),
        Cause::Configuration => (
            format!("the destination {who} is configured wrongly"),
            format!("The destination {who} cannot be used as it is configured ({accounts})."),
            "see [delivery] in the configuration",
        ),
        Cause::FilterDown => (
            "a filter is down".to_owned(),
            format!(
                "A filter cannot look at mail, and none is delivered unchecked, so nothing more is retrieved ({accounts})."
            ),
            "see whether the filter runs; it goes on by itself then",
        ),
        Cause::QuarantineDown => (
            "the quarantine cannot be used".to_owned(),
            format!("The quarantine cannot say what it holds, so nothing more is retrieved ({accounts})."),
            "see whether its directory can be read",
        ),
        Cause::DiskFull => (
            "the disk is full".to_owned(),
            format!("There is too little room on the disk, so nothing more is retrieved ({accounts})."),
            "make room; it goes on by itself then",
        ),
        Cause::State => (
            "the state cannot be used".to_owned(),
            format!("What was retrieved cannot be remembered, so nothing more is retrieved ({accounts})."),
            "see the log; if the file is damaged, restore a backup",
        ),
        // A cause that came later has its words in the error.
        Cause::Stopped | _ => {
            (format!("{} is in trouble", name(subject)), format!("See the error below ({accounts})."), "")
        }
    };
    Words { title, text, remedy: remedy.to_owned() }
}

fn messages_in_words(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn blank(text: &str) -> &str {
    if text.is_empty() { "(nothing)" } else { text }
}

/// A peer's words, which were escaped already, on one line and bounded.
fn shortened(text: &str) -> String {
    let escaped: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match escaped.char_indices().nth(MAX_WORDS) {
        Some((at, _)) => format!("{}…", &escaped[..at]),
        None => escaped,
    }
}

fn zoned(time: UnixTime, zone: jiff::tz::TimeZone) -> jiff::Zoned {
    jiff::Timestamp::from_second(time.0).unwrap_or_default().to_zoned(zone)
}

/// For people: local time with its offset.
fn shown(time: UnixTime) -> String {
    zoned(time, jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M %:z").to_string()
}

/// For programs.
pub(crate) fn rfc3339(time: UnixTime) -> String {
    jiff::Timestamp::from_second(time.0).unwrap_or_default().to_string()
}
