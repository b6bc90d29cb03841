//! What each failure means: who is concerned, how long to wait, what to say. Decided here and nowhere else, by matches
//! without a wildcard arm over our own errors, so that a new one does not compile until somebody has decided.

use std::time::Duration;

use connectord_account::{backoff, login_hold};
use connectord_delivery::{Failure, FailureKind};
use connectord_filter::{QuarantineError, Unchecked, Why};
use connectord_mail::UnixTime;
use connectord_net as net;
use connectord_sasl::CredentialError;
use connectord_store::{Health, Hold, Settled, StoreError};
use connectord_wire::Blame;

use crate::{Ambiguous, LoginRefusal};

/// A message that has failed this often is parked.
pub(crate) const MAX_ATTEMPTS: u32 = 10;

/// How long a message waits whose recipient has no room, or is gone.
const WITHOUT_ROOM: Duration = Duration::from_secs(3600);

/// How soon filters that were down are asked again: before any connection, so that it costs the server nothing.
const FILTERS_AGAIN: Duration = Duration::from_secs(60);

/// Why a run ended before its work was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The connection, or the POP3 session on it.
    #[error(transparent)]
    Pop3(#[from] net::Error<connectord_pop3::Error>),
    /// The connection, or the IMAP session on it.
    #[error(transparent)]
    Imap(#[from] net::Error<connectord_imap::Error>),
    /// The server refused the login.
    #[error("login refused by {server}: {refusal}")]
    Login {
        /// The server.
        server: String,
        /// What it said.
        refusal: LoginRefusal,
    },
    /// Nothing the server offers may be used to log in.
    #[error(
        "no way to log in to {server}: it offers {offered}, which the credential or the configuration does not allow"
    )]
    NoMechanism {
        /// The server.
        server: String,
        /// What it offers.
        offered: String,
    },
    /// The exchange broke the mechanism's rules.
    #[error("login to {server} ended: {error}")]
    Sasl {
        /// The server.
        server: String,
        /// What was wrong.
        error: connectord_sasl::Error,
    },
    /// There is no credential now.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The server refused something that the whole mailbox needs.
    #[error("{server}: mailbox {mailbox:?}: {refusal}")]
    Mailbox {
        /// The server.
        server: String,
        /// The mailbox.
        mailbox: String,
        /// What it said, escaped.
        refusal: String,
        /// Whether it says that this will pass.
        temporary: bool,
    },
    /// The server asks for a pause.
    #[error("{server} asks for a pause: {refusal}")]
    Throttled {
        /// The server.
        server: String,
        /// What it said, escaped.
        refusal: String,
        /// How long, if it says so.
        wait: Option<Duration>,
    },
    /// The destination cannot take mail now.
    #[error("{destination}: {failure}")]
    Destination {
        /// The destination.
        destination: String,
        /// What it said.
        failure: Failure,
    },
    /// A local user does not exist.
    #[error("there is no local user {user}: {reason}")]
    UserGone {
        /// The user.
        user: String,
        /// How that is known.
        reason: String,
    },
    /// A filter cannot look at messages now, and none is delivered unchecked.
    #[error("filter {filter}: {trouble}")]
    Filter {
        /// The filter.
        filter: String,
        /// What it said.
        trouble: Unchecked,
        /// It answers a ping all the same: only the next message shows whether it works again, and that costs the server a
        /// retrieval.
        is_there: bool,
    },
    /// The quarantine cannot say what it holds.
    #[error(transparent)]
    Quarantine(QuarantineError),
    /// Our own state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The spool for large bodies.
    #[error("cannot keep a message while it is retrieved")]
    Spool(#[source] std::io::Error),
    /// We were told to stop.
    #[error("stopped")]
    Stopped,
}

/// Whom a failure concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// One mailbox of the account; its others are not concerned.
    Mailbox,
    /// This account.
    Account,
    /// All accounts at the same server.
    Host,
    /// All accounts with the same destination.
    Destination,
    /// Everything: our disk, our state, or our being told to stop.
    Us,
}

/// Why an account is not well, as a code for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The name does not resolve.
    NameUnknown,
    /// Its address is one that accounts like this one do not connect to.
    AddressRefused,
    /// No connection, or nothing came.
    NoAnswer,
    /// TLS could not be had or trusted.
    Tls,
    /// STARTTLS is required and not offered.
    TlsNotOffered,
    /// The server speaks against its protocol.
    Protocol,
    /// Login refused.
    LoginRefused,
    /// No credential.
    NoCredential,
    /// Somebody else has the mailbox open.
    InUse,
    /// The server asks for a pause.
    Throttled,
    /// A mailbox is not there or not readable.
    Folder,
    /// The local user does not exist.
    UserGone,
    /// The destination does not take mail.
    DestinationDown,
    /// The recipient's mailbox is full.
    MailboxFull,
    /// A filter cannot look at messages.
    FilterDown,
    /// The quarantine cannot be asked.
    QuarantineDown,
    /// Our disk is full.
    DiskFull,
    /// Our state cannot be used.
    State,
    /// Something is configured wrongly.
    Configuration,
    /// We were told to stop.
    Stopped,
}

impl Cause {
    /// Every one.
    pub const ALL: [Self; 20] = [
        Self::NameUnknown,
        Self::AddressRefused,
        Self::NoAnswer,
        Self::Tls,
        Self::TlsNotOffered,
        Self::Protocol,
        Self::LoginRefused,
        Self::NoCredential,
        Self::InUse,
        Self::Throttled,
        Self::Folder,
        Self::UserGone,
        Self::DestinationDown,
        Self::MailboxFull,
        Self::FilterDown,
        Self::QuarantineDown,
        Self::DiskFull,
        Self::State,
        Self::Configuration,
        Self::Stopped,
    ];

    /// The one with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }

    /// The code, as in the API and in logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::NameUnknown => "name_unknown",
            Self::AddressRefused => "address_refused",
            Self::NoAnswer => "no_answer",
            Self::Tls => "tls",
            Self::TlsNotOffered => "tls_not_offered",
            Self::Protocol => "protocol",
            Self::LoginRefused => "login_refused",
            Self::NoCredential => "no_credential",
            Self::InUse => "in_use",
            Self::Throttled => "throttled",
            Self::Folder => "folder_gone",
            Self::UserGone => "user_gone",
            Self::DestinationDown => "destination_down",
            Self::MailboxFull => "mailbox_full",
            Self::FilterDown => "filter_down",
            Self::QuarantineDown => "quarantine_down",
            Self::DiskFull => "disk_full",
            Self::State => "state",
            Self::Configuration => "configuration",
            Self::Stopped => "stopped",
        }
    }
}

/// Exit statuses (sysexits.h), the worse the later in [`Exit::worst`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exit {
    /// 0
    #[default]
    Ok,
    /// 75: try again later.
    TempFail,
    /// 69: a server is unavailable.
    Unavailable,
    /// 65: bad data: a message was parked.
    Data,
    /// 77: login refused.
    NoPermission,
    /// 78: configuration.
    Config,
    /// 74: our disk or state.
    Io,
    /// 64: wrong use of the command line.
    Usage,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 64,
            Self::Data => 65,
            Self::Unavailable => 69,
            Self::Io => 74,
            Self::TempFail => 75,
            Self::NoPermission => 77,
            Self::Config => 78,
        }
    }

    /// Of two, the one that asks more of a person.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        let rank = |exit: Self| match exit {
            Self::Ok => 0,
            Self::TempFail => 1,
            Self::Unavailable => 2,
            Self::Data => 3,
            Self::NoPermission => 4,
            Self::Config => 5,
            Self::Io => 6,
            Self::Usage => 7,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// What follows from a failed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Why.
    pub cause: Cause,
    /// Who is concerned.
    pub scope: Scope,
    /// What a one-shot command ends with.
    pub exit: Exit,
    /// How long to wait.
    pub(crate) wait: Wait,
}

/// How long to wait after a failed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Longer with each failure in a row.
    Backoff,
    /// As after a refused login.
    Login,
    /// This long, as the server wishes.
    Exactly(Hold, Duration),
    /// Until the next regular check: what is missing may be back by then.
    Regular(Hold),
    /// The same, and no longer than this: asking again costs the server nothing.
    Soon(Hold, Duration),
    /// Not at all.
    None,
}

impl RunError {
    /// What follows from it.
    pub fn trouble(&self) -> Trouble {
        let trouble = |cause, scope, exit, wait| Trouble { cause, scope, exit, wait };
        match self {
            Self::Pop3(error) => connection(error, pop3_session),
            Self::Imap(error) => connection(error, imap_session),
            Self::Login { refusal, .. } => refusal.trouble(),
            Self::NoMechanism { .. } => trouble(Cause::LoginRefused, Scope::Account, Exit::NoPermission, Wait::Login),
            Self::Sasl { error, .. } => match error.blame() {
                Blame::Credentials => trouble(Cause::LoginRefused, Scope::Account, Exit::NoPermission, Wait::Login),
                _ => trouble(Cause::Protocol, Scope::Account, Exit::Unavailable, Wait::Backoff),
            },
            Self::Credential(CredentialError::Unavailable { temporary: true, .. }) => {
                trouble(Cause::NoCredential, Scope::Account, Exit::TempFail, Wait::Backoff)
            }
            Self::Credential(_) => trouble(Cause::NoCredential, Scope::Account, Exit::Config, Wait::Backoff),
            Self::Mailbox { temporary, .. } => {
                let exit = if *temporary { Exit::TempFail } else { Exit::Config };
                // The other mailboxes are well, and wait no longer than ever.
                trouble(Cause::Folder, Scope::Mailbox, exit, Wait::Regular(Hold::Backoff))
            }
            Self::Throttled { wait, .. } => {
                let wait = wait.map_or(Wait::Backoff, |wait| Wait::Exactly(Hold::Throttled, wait));
                trouble(Cause::Throttled, Scope::Account, Exit::TempFail, wait)
            }
            Self::Destination { failure, .. } => match failure.kind {
                FailureKind::Transient | FailureKind::Permanent | FailureKind::Unavailable => {
                    trouble(Cause::DestinationDown, Scope::Destination, Exit::TempFail, Wait::Backoff)
                }
                FailureKind::OverQuota => {
                    trouble(Cause::MailboxFull, Scope::Account, Exit::TempFail, Wait::Regular(Hold::Destination))
                }
                FailureKind::NoUser => {
                    trouble(Cause::UserGone, Scope::Account, Exit::Config, Wait::Regular(Hold::UserGone))
                }
                FailureKind::DiskFull => {
                    trouble(Cause::DiskFull, Scope::Us, Exit::TempFail, Wait::Regular(Hold::Destination))
                }
                FailureKind::Misconfigured | _ => {
                    trouble(Cause::Configuration, Scope::Destination, Exit::Config, Wait::Regular(Hold::Destination))
                }
            },
            Self::UserGone { .. } => {
                trouble(Cause::UserGone, Scope::Account, Exit::Config, Wait::Regular(Hold::UserGone))
            }
            Self::Filter { trouble: it, is_there, .. } => {
                let exit = if it.why == Why::Misconfigured { Exit::Config } else { Exit::TempFail };
                let wait =
                    if *is_there { Wait::Regular(Hold::Filter) } else { Wait::Soon(Hold::Filter, FILTERS_AGAIN) };
                trouble(Cause::FilterDown, Scope::Us, exit, wait)
            }
            Self::Quarantine(_) => {
                trouble(Cause::QuarantineDown, Scope::Us, Exit::TempFail, Wait::Soon(Hold::Filter, FILTERS_AGAIN))
            }
            Self::Store(StoreError::Busy) => trouble(Cause::InUse, Scope::Account, Exit::TempFail, Wait::None),
            Self::Store(StoreError::Full { .. }) => trouble(Cause::DiskFull, Scope::Us, Exit::TempFail, Wait::Backoff),
            Self::Store(_) => trouble(Cause::State, Scope::Us, Exit::Io, Wait::Backoff),
            Self::Spool(_) => trouble(Cause::DiskFull, Scope::Us, Exit::TempFail, Wait::Backoff),
            Self::Stopped => trouble(Cause::Stopped, Scope::Us, Exit::TempFail, Wait::None),
        }
    }

    /// Whether the server was silent or too slow: more patience may help.
    fn is_silence(&self) -> bool {
        let is = |wait: &net::Wait| matches!(wait, net::Wait::Silence | net::Wait::Rate { .. });
        match self {
            Self::Pop3(net::Error::TimedOut { wait, .. }) | Self::Imap(net::Error::TimedOut { wait, .. }) => is(wait),
            _ => false,
        }
    }

    /// What a person can do about it, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pop3(net::Error::Tls { problem, .. }) | Self::Imap(net::Error::Tls { problem, .. }) => problem.hint(),
            Self::Pop3(net::Error::Resolve { problem: net::ResolveProblem::OutOfReach { .. }, .. })
            | Self::Imap(net::Error::Resolve { problem: net::ResolveProblem::OutOfReach { .. }, .. }) => {
                Some("[saved] networks in the configuration file says where saved accounts may connect".into())
            }
            Self::Login { refusal, .. } => refusal.hint(),
            Self::NoMechanism { .. } => Some(
                "without encryption only mechanisms that hide the password are used; see `security` and `mechanisms`"
                    .into(),
            ),
            Self::UserGone { .. } => Some(
                "nothing is retrieved or removed for this account until the user is back; see `deliver_to` and [users]"
                    .into(),
            ),
            Self::Filter { .. } => Some(
                "nothing is retrieved until the filter is back, as no message is delivered unchecked; see `on_failure`"
                    .into(),
            ),
            Self::Store(StoreError::Locked { .. }) => {
                Some("a running connectord holds the state; stop it, or use another [state] url".into())
            }
            _ => None,
        }
    }
}

fn connection<E>(error: &net::Error<E>, session: impl FnOnce(&E) -> Trouble) -> Trouble {
    let trouble = |cause, exit| Trouble { cause, scope: Scope::Host, exit, wait: Wait::Backoff };
    match error {
        net::Error::Resolve { problem: net::ResolveProblem::OutOfReach { .. }, .. } => {
            Trouble { scope: Scope::Account, ..trouble(Cause::AddressRefused, Exit::Config) }
        }
        net::Error::Resolve { .. } => trouble(Cause::NameUnknown, Exit::Unavailable),
        net::Error::Tls { .. } => Trouble { scope: Scope::Host, ..trouble(Cause::Tls, Exit::Unavailable) },
        net::Error::Session(error) => session(error),
        _ => trouble(Cause::NoAnswer, Exit::Unavailable),
    }
}

fn pop3_session(error: &connectord_pop3::Error) -> Trouble {
    if let connectord_pop3::Error::GreetingRefused(refusal) = error {
        // Nobody has shown a credential yet, whatever the code.
        return LoginRefusal::of_pop3_server(refusal).map_or_else(|| by_blame(Blame::Server), |it| it.trouble());
    }
    by_blame(error.blame())
}

fn imap_session(error: &connectord_imap::Error) -> Trouble {
    if let connectord_imap::Error::Bye { code, text, .. } = error
        && let Some(refusal) = LoginRefusal::of_imap_server(code.as_ref(), text, error.to_string())
    {
        return refusal.trouble();
    }
    by_blame(error.blame())
}

fn by_blame(blame: Blame) -> Trouble {
    let trouble = |cause, exit| Trouble { cause, scope: Scope::Account, exit, wait: Wait::Backoff };
    match blame {
        Blame::Server | Blame::Limit => trouble(Cause::Protocol, Exit::Unavailable),
        Blame::Incompatible => trouble(Cause::TlsNotOffered, Exit::Unavailable),
        Blame::Credentials => Trouble { wait: Wait::Login, ..trouble(Cause::LoginRefused, Exit::NoPermission) },
        Blame::Caller | _ => trouble(Cause::State, Exit::Io),
    }
}

/// An error in words, with what caused it.
///
/// ```
/// let inner = std::io::Error::other("no room");
/// assert_eq!(connectord_engine::chain(&inner), "no room");
/// ```
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Microsoft 365 (2024): `Request is throttled. Suggested Backoff Time: 299961 milliseconds`. At most a day is obeyed.
pub(crate) fn suggested_pause(text: &str) -> Option<Duration> {
    let lower = text.to_ascii_lowercase();
    let (_, rest) = lower.split_once("backoff time:")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).take(9).collect();
    let wait = Duration::from_millis(digits.parse().ok()?);
    Some(wait.min(Duration::from_secs(86_400)))
}

/// How long silence is borne after it cut `silences` checks in a row: twice as long each time, up to ten minutes.
pub(crate) fn patience(timeouts: &net::Timeouts, silences: u32) -> net::Timeouts {
    let longer = |span: Duration| {
        let most = Duration::from_secs(600).max(span);
        span.saturating_mul(1u32.checked_shl(silences).filter(|_| silences < 16).unwrap_or(u32::MAX)).min(most)
    };
    net::Timeouts { silence: longer(timeouts.silence), rate_window: longer(timeouts.rate_window), ..timeouts.clone() }
}

/// How an account is doing after a failed run: failures counted, and not before when it is checked again.
pub(crate) fn after_failure(
    health: &Health,
    error: &RunError,
    now: UnixTime,
    regular: Duration,
    random: u64,
) -> Health {
    let trouble = error.trouble();
    if trouble.wait == Wait::None {
        // Stopped by us: that is no failure of the account's.
        return Health { last_check: Some(now), ..health.clone() };
    }
    let failures = health.failures.saturating_add(1);
    let refusals =
        if trouble.wait == Wait::Login { health.login_refusals.saturating_add(1) } else { health.login_refusals };
    let silences = if error.is_silence() { health.silences.saturating_add(1) } else { 0 };
    let (hold, wait) = match trouble.wait {
        Wait::Backoff => (Some(Hold::Backoff), backoff(failures, random)),
        Wait::Login => (Some(Hold::Login), login_hold(refusals)),
        Wait::Exactly(hold, wait) => (Some(hold), wait),
        Wait::Regular(hold) => (Some(hold), regular.min(Duration::from_secs(3600))),
        Wait::Soon(hold, most) => (Some(hold), regular.min(most)),
        Wait::None => unreachable!("returned above"),
    };
    Health {
        failures,
        login_refusals: refusals,
        silences,
        last_check: Some(now),
        next_check: Some(now.plus(wait)),
        hold,
        error: Some(error.to_string()),
        ..health.clone()
    }
}

/// What follows from a failed delivery of one message: the `attempt` that failed counts from 1; the destination `works`
/// if it took another message at the same time.
pub(crate) fn after_delivery(failure: &Failure, attempt: u32, works: bool, now: UnixTime, random: u64) -> Settled {
    let reason = failure.text.clone();
    let later = |wait, counts| Settled::Deferred { retry_at: now.plus(wait), reason: failure.text.clone(), counts };
    match failure.kind {
        FailureKind::Permanent => Settled::Parked { reason },
        FailureKind::Transient => message_failed(reason, attempt, later(backoff(attempt, random), true)),
        FailureKind::Unavailable if works => message_failed(reason, attempt, later(backoff(attempt, random), true)),
        // Nothing is wrong with the message, and much with the recipient: it is not retrieved again at every check.
        FailureKind::OverQuota | FailureKind::NoUser => later(WITHOUT_ROOM, false),
        // Nothing is wrong with the message: it waits as long as it takes.
        FailureKind::Unavailable | FailureKind::DiskFull | FailureKind::Misconfigured | _ => {
            later(Duration::ZERO, false)
        }
    }
}

/// What follows when a message cannot be kept back: nothing is wrong with it, and it is not retrieved again at every check.
pub(crate) fn after_quarantine(error: &QuarantineError, now: UnixTime) -> Settled {
    Settled::Deferred { retry_at: now.plus(WITHOUT_ROOM), reason: error.to_string(), counts: false }
}

/// As [`after_unknown`], or as the destination's owner wants it.
pub(crate) fn after_doubt(ambiguous: Ambiguous, reason: &str, attempt: u32, now: UnixTime, random: u64) -> Settled {
    match ambiguous {
        Ambiguous::Redeliver => after_unknown(reason, attempt, now, random),
        Ambiguous::Park => Settled::Doubtful { reason: format!("it may have been delivered: {reason}") },
    }
}

/// What follows when nobody knows whether a message arrived: it is sent again, marked as a further attempt, but not for
/// ever, as each attempt may be another copy.
pub(crate) fn after_unknown(reason: &str, attempt: u32, now: UnixTime, random: u64) -> Settled {
    let again = Settled::Uncertain { retry_at: now.plus(backoff(attempt, random)), reason: reason.to_owned() };
    message_failed(reason.to_owned(), attempt, again)
}

fn message_failed(reason: String, attempt: u32, again: Settled) -> Settled {
    if attempt >= MAX_ATTEMPTS { Settled::Parked { reason: format!("{reason} (attempt {attempt})") } } else { again }
}

/// Whether a failed delivery concerns all other messages of the account too, so that the run ends.
pub(crate) fn stops_the_run(failure: &Failure, works: bool) -> bool {
    match failure.kind {
        FailureKind::Transient | FailureKind::Permanent => false,
        FailureKind::OverQuota | FailureKind::Unavailable => !works,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggested_pause_is_obeyed_up_to_a_day() {
        assert_eq!(
            suggested_pause("Request is throttled. Suggested Backoff Time: 299961 milliseconds"),
            Some(Duration::from_millis(299_961))
        );
        assert_eq!(suggested_pause("Backoff time: 999999999999 ms"), Some(Duration::from_secs(86_400)));
        assert_eq!(suggested_pause("go away"), None);
    }

    #[test]
    fn silence_is_borne_twice_as_long_each_time_up_to_ten_minutes() {
        let silent = || {
            RunError::Pop3(net::Error::TimedOut {
                peer: "s".into(),
                during: "receiving the greeting",
                after: Duration::from_secs(60),
                wait: net::Wait::Silence,
            })
        };
        let mut health = Health::default();
        let timeouts = net::Timeouts::default();
        let waits: Vec<u64> = (0..6)
            .map(|_| {
                let borne = patience(&timeouts, health.silences).silence.as_secs();
                health = after_failure(&health, &silent(), UnixTime(0), Duration::from_secs(900), 0);
                borne
            })
            .collect();
        assert_eq!(waits, [60, 120, 240, 480, 600, 600]);
        assert_eq!(patience(&timeouts, u32::MAX).silence.as_secs(), 600);
        let refused = RunError::Login { server: "s".into(), refusal: LoginRefusal::credentials("no".into()) };
        assert_eq!(after_failure(&health, &refused, UnixTime(0), Duration::from_secs(900), 0).silences, 0);
    }

    #[test]
    fn a_refused_login_is_not_retried_like_a_dead_line() {
        let refused = RunError::Login { server: "s".into(), refusal: LoginRefusal::credentials("no".into()) };
        let day = Duration::from_secs(86_400);
        let mut health = Health::default();
        let waits: Vec<i64> = (0..4)
            .map(|_| {
                health = after_failure(&health, &refused, UnixTime(0), day, 0);
                health.next_check.unwrap().0
            })
            .collect();
        assert_eq!(waits, [3600, 4 * 3600, 86_400, 86_400]);
        assert_eq!(health.hold, Some(Hold::Login));
        let silent = RunError::Pop3(net::Error::Session(connectord_pop3::Error::Closed { during: "x" }));
        let after = after_failure(&Health::default(), &silent, UnixTime(0), day, 0);
        assert_eq!((after.hold, after.next_check), (Some(Hold::Backoff), Some(UnixTime(60))));
    }

    #[test]
    fn only_a_permanent_refusal_or_too_many_attempts_park_a_message() {
        let settled = |kind, attempt| after_delivery(&Failure::new(kind, "x"), attempt, false, UnixTime(5), 0);
        assert!(matches!(settled(FailureKind::Permanent, 1), Settled::Parked { .. }));
        assert!(matches!(settled(FailureKind::Transient, 1), Settled::Deferred { counts: true, .. }));
        assert!(matches!(settled(FailureKind::Transient, MAX_ATTEMPTS), Settled::Parked { .. }));
        for kind in [FailureKind::OverQuota, FailureKind::NoUser, FailureKind::Unavailable, FailureKind::DiskFull] {
            assert!(matches!(settled(kind, 500), Settled::Deferred { counts: false, .. }));
        }
        // Where others arrive, it is the message.
        let own = |attempt| after_delivery(&Failure::new(FailureKind::Unavailable, "x"), attempt, true, UnixTime(5), 0);
        assert!(matches!(
            (own(1), own(MAX_ATTEMPTS)),
            (Settled::Deferred { counts: true, .. }, Settled::Parked { .. })
        ));
    }

    #[test]
    fn an_unanswered_delivery_is_not_repeated_for_ever() {
        assert_eq!(
            after_unknown("cut", 1, UnixTime(5), 0),
            Settled::Uncertain { retry_at: UnixTime(65), reason: "cut".into() }
        );
        assert!(matches!(after_unknown("cut", MAX_ATTEMPTS, UnixTime(5), 0), Settled::Parked { .. }));
    }
}
