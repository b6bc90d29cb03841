//! What ended a check, as a code with the values that a sentence about it speaks of.

use connectord_account::CredentialSource;
use connectord_net::{self as net, TlsProblem};
use connectord_sasl::CredentialError;
use connectord_store::Reason;

use crate::trouble::Cause;
use crate::{Job, LoginRefusal, RunError};

/// Words of a refused login that wants an app password.
pub(crate) const APP_PASSWORD: [&str; 4] =
    ["app password", "application-specific", "app-specific", "invalidsecondfactor"];

/// Words of a refused login of a mailbox that mail programs may not use. GMX and web.de say `POP3/IMAP is disabled`,
/// Gmail `not enabled for IMAP use`.
const ACCESS_OFF: [&str; 5] =
    ["imap is disabled", "pop is disabled", "pop3 is disabled", "not enabled for", "imap access is disabled"];

/// Words of a server that takes no passwords. Microsoft 365 (2022): `Basic authentication is disabled`.
const OAUTH_NEEDED: [&str; 2] = ["basic authentication is disabled", "basicauthblocked"];

impl RunError {
    /// The same as values. The code says more than [`Cause`] where people have different things to do: which certificate
    /// trouble it is, what sort of password is wanted.
    pub fn reason(&self, job: &Job) -> Reason {
        let endpoint = &job.account.endpoint;
        let users: Vec<&str> = job.recipients.iter().map(|to| to.user.as_str()).collect();
        let reason = Reason::new(self.code(job)).with("host", endpoint.host()).with("port", endpoint.port());
        let (reason, said) = match self {
            Self::Login { refusal, .. } => (reason, refusal.to_string()),
            Self::Mailbox { mailbox, refusal, .. } => (reason.with("folder", mailbox), refusal.clone()),
            Self::Throttled { refusal, .. } => (reason, refusal.clone()),
            Self::Destination { destination, failure } => {
                (reason.with("part", destination).with("user", users.join(", ")), failure.text.clone())
            }
            Self::UserGone { user, reason: said } => (reason.with("user", user), said.clone()),
            Self::Filter { filter, trouble, .. } => (reason.with("part", filter), trouble.text.clone()),
            Self::Quarantine(error) => (reason.with("part", "quarantine"), error.to_string()),
            _ => (reason, crate::chain(self)),
        };
        reason.said(said)
    }

    fn code(&self, job: &Job) -> &'static str {
        match self {
            Self::Pop3(net::Error::Tls { problem, .. }) | Self::Imap(net::Error::Tls { problem, .. }) => tls(problem),
            Self::Login { refusal, .. } if refusal.is_credentials() => login(refusal),
            Self::Credential(CredentialError::Unavailable { temporary: false, .. })
                if matches!(job.account.credential, CredentialSource::Sealed { .. }) =>
            {
                "key_unreadable"
            }
            // A server that hangs up has no words to be wrong.
            Self::Pop3(net::Error::Session(connectord_pop3::Error::Closed { .. }))
            | Self::Imap(net::Error::Session(connectord_imap::Error::Closed { .. })) => Cause::NoAnswer.code(),
            _ => match self.trouble().cause {
                Cause::Protocol => "wrong_protocol",
                cause => cause.code(),
            },
        }
    }
}

fn tls(problem: &TlsProblem) -> &'static str {
    match problem {
        TlsProblem::Expired { .. } | TlsProblem::NotYetValid { .. } => "tls_expired",
        TlsProblem::OtherName { .. } | TlsProblem::ServerName { .. } => "tls_other_name",
        TlsProblem::UnknownIssuer { .. }
        | TlsProblem::SelfSigned { .. }
        | TlsProblem::AuthorityAsServer { .. }
        | TlsProblem::Revoked { .. }
        | TlsProblem::Unusable { .. }
        | TlsProblem::PinMismatch { .. }
        | TlsProblem::NoRoots
        | TlsProblem::Roots { .. } => "tls_unknown_issuer",
        TlsProblem::NotTls => "wrong_protocol",
        TlsProblem::OldProtocol | TlsProblem::Refused { .. } => "tls_not_offered",
        _ => "no_answer",
    }
}

fn login(refusal: &LoginRefusal) -> &'static str {
    let said = refusal.to_string().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
    if says(&APP_PASSWORD) {
        "app_password"
    } else if says(&ACCESS_OFF) {
        "access_off"
    } else if says(&OAUTH_NEEDED) {
        "oauth_needed"
    } else {
        Cause::LoginRefused.code()
    }
}
