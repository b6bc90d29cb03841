//! Accounts that are kept in the state: the same keys as `[[account]]` of the file, read by the same code.

use std::fmt;

use connectord_account::{Account, CredentialSource};
use connectord_filter::Policy;
use connectord_wire::Escaped;
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Config;
use crate::nearest::nearest;
use crate::read::accounts::{Local, Mailbox, account, look_for_destination, mailbox_of, overlap};
use crate::read::relays;
use crate::schema::{self, IfAbsent, Kind};
use crate::section::{Context, Finding, Section, Span};

/// What is configured for a saved account: the keys of `[[account]]`, but `address` and `enabled`, which are kept beside
/// them, and the password.
pub type Settings = toml::Table;

/// Keys that only the file may have, and why: who may save accounts could otherwise run programs of this machine, have its
/// files sent to a server, or reach networks that they must not.
const FILE_ONLY: [(&str, &str); 6] = [
    ("password_command", "a program that runs here"),
    ("password_file", "a file of this machine"),
    ("password_env", "a variable of the daemon"),
    ("ca_file", "a file of this machine"),
    ("oauth2", "a program or a file of this machine"),
    ("proxy", "a machine that connects for us"),
];

/// What is kept beside the settings.
const BESIDE: [&str; 3] = ["address", "enabled", "password"];

/// Something wrong or unlikely about the settings of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The key that it is about; `None` when it is about the whole.
    pub key: Option<String>,
    /// What is wrong, what was expected and what came; holds no secret.
    pub what: String,
    /// What mends it.
    pub hint: Option<String>,
    /// The key or the word that was most likely meant.
    pub nearest: Option<String>,
}

impl FieldProblem {
    fn of(key: &str, what: impl Into<String>) -> Self {
        Self { key: Some(key.to_owned()), what: what.into(), hint: None, nearest: None }
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// An account that was read, and what is allowed but most likely not meant.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadAccount {
    /// What it says, with every default filled in.
    pub account: Account,
    /// What follows from what filters find: its own keys over those of `[filter]`.
    pub policy: Policy,
    /// Most likely not meant.
    pub warnings: Vec<FieldProblem>,
}

/// Takes settings from anything that serialises as a table, such as a JSON object.
///
/// # Errors
/// [`FieldProblem`] for what TOML cannot say: null, above all.
pub fn settings_of(value: &impl Serialize) -> Result<Settings, FieldProblem> {
    toml::Table::try_from(value).map_err(|error| {
        let error = Escaped::text(&error.to_string()).to_string();
        let what = format!("the settings are no table of texts, numbers, lists and truth values: {error}");
        FieldProblem { key: None, what, hint: None, nearest: None }
    })
}

/// Settings as the text that is kept, a key a line.
pub fn settings_to_text(settings: &Settings) -> String {
    // A table of values can always be written.
    toml::to_string(settings).unwrap_or_default()
}

/// Settings from the text that is kept.
///
/// # Errors
/// [`FieldProblem`] when it is none.
pub fn settings_from_text(text: &str) -> Result<Settings, FieldProblem> {
    text.parse::<Settings>().map_err(|error| {
        // Without the line that it is about: what stands there may be anything.
        let what = format!("the saved settings cannot be read: {}", Escaped::text(error.message()));
        FieldProblem { key: None, what, hint: None, nearest: None }
    })
}

/// Reads and checks one account as the file's are, under what the file says about destinations, users and filters.
///
/// `credential` is where its password is; [`CredentialSource::Missing`] is told as a problem with `password`.
///
/// ```
/// use std::path::Path;
/// use connectord_account::CredentialSource;
/// use connectord_config::{Config, saved};
///
/// let file = Config::parse("[delivery]\ntype = \"maildir\"\npath = \"/m/{user}\"", "c.toml", Path::new("/"))?;
/// let settings = "protocol = \"imap\"\nhost = \"imap.example.org\"\ndeliver_too = \"ann\"".parse().unwrap();
/// let password = CredentialSource::Password("secret".into());
/// let problems = saved::account_from(&file, "info@example.org", &settings, true, password).unwrap_err();
/// assert_eq!(problems[1].key.as_deref(), Some("deliver_too"));
/// assert_eq!(problems[1].nearest.as_deref(), Some("deliver_to"));
/// # Ok::<(), connectord_config::Problems>(())
/// ```
///
/// # Errors
/// All that is wrong, each with its key.
pub fn account_from(
    config: &Config,
    address: &str,
    settings: &Settings,
    enabled: bool,
    credential: CredentialSource,
) -> Result<ReadAccount, Vec<FieldProblem>> {
    let mut problems = refused(settings);
    if matches!(credential, CredentialSource::Missing) {
        problems.push(FieldProblem::of("password", "the account has no password"));
    }
    let mut whole = settings.clone();
    whole.retain(|key, _| !problems.iter().any(|problem| problem.key.as_deref() == Some(key)));
    whole.insert("address".to_owned(), address.to_owned().into());
    whole.insert("enabled".to_owned(), enabled.into());
    // The first line stands for the whole: what is missing is missed there.
    let text = format!("# an account\n{}", settings_to_text(&whole));
    let context = Context::new(&text, "", std::path::Path::new("/"), false);
    let (root, errors) = DeTable::parse_recoverable(&text);
    if let Some(error) = errors.first() {
        problems.push(FieldProblem {
            key: None,
            what: Escaped::text(error.message()).to_string(),
            hint: None,
            nearest: None,
        });
        return Err(problems);
    }
    let section = Section::open(&context, &schema::ACCOUNT, root.get_ref(), &(0..0), |_, _| false);
    let local = Local::new(&config.users).with_credential(credential);
    let read = account(section, &local, &config.filters);
    if let Some((account, policy)) = &read {
        relays::look(section, account, policy, &config.filters);
    }
    let known: Vec<&str> = config.deliveries.keys().map(String::as_str).collect();
    look_for_destination(section, config.default_delivery.is_some(), &known);
    let (warnings, wrong): (Vec<_>, Vec<_>) =
        context.findings().into_iter().map(|finding| told(root.get_ref(), finding)).partition(|(warning, _)| *warning);
    let plain = |told: Vec<(bool, FieldProblem)>| told.into_iter().map(|(_, problem)| problem);
    problems.extend(plain(wrong));
    match read {
        Some((account, _)) if !config.saved.allows_port(account.endpoint.port()) => {
            let port = account.endpoint.port();
            let hint = Some("[saved] ports in the configuration file allows others".to_owned());
            let what = format!("port {port} is none of POP3 and IMAP: 110, 143, 993, 995");
            problems.push(FieldProblem { hint, ..FieldProblem::of("port", what) });
            Err(problems)
        }
        Some((account, policy)) if problems.is_empty() => {
            Ok(ReadAccount { account, policy, warnings: plain(warnings).collect() })
        }
        _ => {
            problems.sort_by(|a, b| a.key.cmp(&b.key));
            Err(problems)
        }
    }
}

/// Keys that a saved account must not have.
fn refused(settings: &Settings) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    for (key, why) in FILE_ONLY.iter().filter(|(key, _)| settings.contains_key(*key)) {
        let hint = Some("write such an account into the configuration file".to_owned());
        problems.push(FieldProblem { hint, ..FieldProblem::of(key, format!("{key} names {why}: only the file may")) });
    }
    for key in BESIDE.iter().filter(|key| settings.contains_key(**key)) {
        problems.push(FieldProblem::of(key, format!("{key} is no setting: it is given beside them")));
    }
    problems
}

/// A finding by its key instead of its place.
fn told(table: &DeTable<'_>, finding: Finding) -> (bool, FieldProblem) {
    let Finding { span, message, hint, warning, absent, .. } = finding;
    let key = absent.map(str::to_owned).or_else(|| {
        let stands = |(key, value): &(&Spanned<_>, &Spanned<DeValue<'_>>)| covers(&key.span(), &value.span(), &span);
        table.iter().find(stands).map(|(key, _)| key.get_ref().to_string())
    });
    let meant = key.as_deref().and_then(|key| meant(table, key)).map(str::to_owned);
    (warning, FieldProblem { key, what: message, hint, nearest: meant })
}

fn covers(key: &Span, value: &Span, place: &Span) -> bool {
    (key.start.min(value.start)..key.end.max(value.end)).contains(&place.start)
}

/// What was most likely meant by an unknown key, or by an unknown word of a known one.
fn meant(table: &DeTable<'_>, key: &str) -> Option<&'static str> {
    let Some(known) = schema::ACCOUNT.key(key) else {
        let keys: Vec<&'static str> = schema::ACCOUNT.keys.iter().map(|key| key.name).collect();
        return nearest(key, &keys);
    };
    let Kind::Choice(words) = known.kind else { return None };
    let words: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
    let value = table.get(key)?.get_ref().as_str()?;
    nearest(value, &words).filter(|word| *word != value)
}

/// Whether two accounts would fetch the same mail to the same users: same server, user name (case aside), destination and
/// users, and a folder in common.
pub fn is_same_mail(one: &Account, other: &Account) -> bool {
    mailbox_of(one) == mailbox_of(other) && overlap(&one.folders, &other.folders)
}

/// What is the same for accounts that may fetch the same mail ([`is_same_mail`]), to look them up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MailKey(Mailbox);

impl MailKey {
    /// Of an account.
    pub fn of(account: &Account) -> Self {
        Self(mailbox_of(account))
    }
}

/// One key of `[[account]]`, for who shows or asks for it: the same table that the reader checks by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it may be, in words that follow "must be".
    pub allowed: String,
    /// The words it may be, if it is one of some.
    pub words: Vec<&'static str>,
    /// What holds when it is not there, in words; `None` when it must be there.
    pub default: Option<&'static str>,
    /// What it does, as Markdown.
    pub doc: &'static str,
}

/// The keys that a saved account may have, the important ones first.
pub fn fields() -> Vec<Field> {
    let may = |key: &&schema::Key| {
        !matches!(key.kind, Kind::NotYet(_))
            && !BESIDE.contains(&key.name)
            && !FILE_ONLY.iter().any(|(name, _)| *name == key.name)
    };
    let field = |key: &schema::Key| Field {
        name: key.name,
        allowed: key.kind.allowed(),
        words: match key.kind {
            Kind::Choice(words) => words.iter().map(|(word, _)| *word).collect(),
            _ => Vec::new(),
        },
        default: match key.default {
            IfAbsent::Required => None,
            IfAbsent::Value(value) | IfAbsent::Words(value) => Some(value),
        },
        doc: key.doc,
    };
    schema::ACCOUNT.keys.iter().filter(may).map(field).collect()
}
