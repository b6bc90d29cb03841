use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use connectord_filter::{Kind, Policy, Rules, attachment};
use connectord_filters::command::{Meaning, Output};
use connectord_filters::spamassassin::User;
use connectord_wire::Endpoint;

use super::{Listen, PasswordSource};

/// `[filter]`: who looks at messages, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterSettings {
    /// The filters, in the file's order.
    pub chain: Vec<FilterEntry>,
    /// How long each has for one message; default 2 min.
    pub timeout: Duration,
    /// What follows for accounts that say nothing else.
    pub policy: Policy,
}

impl Default for FilterSettings {
    fn default() -> Self {
        Self { chain: Vec::new(), timeout: Duration::from_secs(120), policy: Policy::default() }
    }
}

impl FilterSettings {
    /// Whether some filter looks for spam.
    pub fn looks_for_spam(&self) -> bool {
        self.chain.iter().any(|entry| matches!(entry.kind(), Kind::Antispam | Kind::Both))
    }

    /// Whether some filter looks for viruses.
    pub fn looks_for_viruses(&self) -> bool {
        self.chain.iter().any(|entry| matches!(entry.kind(), Kind::Antivirus | Kind::Both))
    }
}

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterEntry {
    /// `rspamd`, `clamav`, `spamassassin`, `rules` or `command.NAME`.
    pub name: String,
    /// What it is.
    pub filter: FilterKind,
    /// How many messages it looks at at a time, at least 1; default 8 for Rspamd and ClamAV, else 4.
    pub at_once: usize,
    /// Largest message it is given, in octets; default 50 MiB for Rspamd, 25 MiB for ClamAV, 500 KiB for SpamAssassin,
    /// else any.
    pub max_octets: Option<u64>,
}

impl FilterEntry {
    /// Which of the account's switches asks for it.
    pub fn kind(&self) -> Kind {
        match &self.filter {
            FilterKind::Rspamd(_) | FilterKind::SpamAssassin(_) => Kind::Antispam,
            FilterKind::Clamav(_) => Kind::Antivirus,
            FilterKind::Command(settings) => settings.kind,
            FilterKind::Rules(_) => Kind::Rules,
        }
    }
}

/// The kinds of filters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterKind {
    /// `[filter.rspamd]`.
    Rspamd(RspamdSettings),
    /// `[filter.clamav]`.
    Clamav(ClamavSettings),
    /// `[filter.spamassassin]`.
    SpamAssassin(SpamAssassinSettings),
    /// `[filter.command.NAME]`.
    Command(FilterCommandSettings),
    /// `[filter.rules]`, but for what is part of the policy.
    Rules(RulesSettings),
}

/// Rspamd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RspamdSettings {
    /// Its worker, which looks at messages.
    pub worker: HttpSettings,
    /// Which of its settings apply.
    pub settings_id: Option<String>,
    /// Its controller, which learns.
    pub controller: Option<HttpSettings>,
}

/// A server that is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where it listens.
    pub url: FilterUrl,
    /// Its password, when it wants one.
    pub password: Option<PasswordSource>,
    /// With TLS: PEM file of further trusted certificate authorities.
    pub ca_file: Option<PathBuf>,
}

/// Where an HTTP server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterUrl {
    /// `http://host:port`, or with `tls` `https://host:port`.
    Tcp {
        /// Host and port.
        endpoint: Endpoint,
        /// Whether it is encrypted.
        tls: bool,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

/// clamd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClamavSettings {
    /// Where it listens.
    pub address: Listen,
}

/// spamd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpamAssassinSettings {
    /// Where it listens.
    pub address: Listen,
    /// Whose settings apply.
    pub user: User,
}

/// A program that looks at messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterCommandSettings {
    /// What it looks for.
    pub kind: Kind,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What its exit statuses mean.
    pub meanings: BTreeMap<u8, Meaning>,
    /// What is made of its output.
    pub output: Output,
    /// Local user it runs as; `None`: ours.
    pub run_as: Option<String>,
    /// `PATH` of the program; default `/usr/local/bin:/usr/bin:/bin`.
    pub search_path: String,
}

/// The built-in rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesSettings {
    /// Lists, blocked attachments, rules.
    pub rules: Rules,
    /// How far attachments are looked at.
    pub limits: attachment::Limits,
}

/// `[quarantine]`: where messages are kept back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineSettings {
    /// The directory; `None`: `quarantine` beside the state.
    pub path: Option<PathBuf>,
    /// How long messages stay; default 30 days; zero is for ever.
    pub keep_for: Duration,
    /// How much it may hold, in octets; default 1 GiB.
    pub max_octets: u64,
    /// How many messages it may hold; default 100,000.
    pub max_messages: usize,
    /// Whether users are told by mail, once a day, what is kept back for them; default true.
    pub report: bool,
    /// Longest wait for the disk; default 2 min.
    pub disk_timeout: Duration,
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        Self {
            path: None,
            keep_for: Duration::from_secs(30 * 86_400),
            max_octets: 1 << 30,
            max_messages: 100_000,
            report: false,
            disk_timeout: Duration::from_secs(120),
        }
    }
}
