use std::fmt;
use std::time::Duration;

use connectord_store::Hold;
use connectord_wire::Blame;

use crate::reason::APP_PASSWORD;
use crate::trouble::{Cause, Exit, Scope, Trouble, Wait, suggested_pause};

/// Why a server did not let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRefusal {
    pub(super) text: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Credentials,
    InUse,
    Delayed(Option<Duration>),
    Temporary,
}

impl LoginRefusal {
    pub(crate) fn credentials(text: String) -> Self {
        Self { text, kind: Kind::Credentials }
    }

    fn in_use(text: String) -> Self {
        Self { text, kind: Kind::InUse }
    }

    fn delayed(text: String, seconds: Option<u32>) -> Self {
        Self { text, kind: Kind::Delayed(seconds.map(|seconds| Duration::from_secs(u64::from(seconds).min(86_400)))) }
    }

    fn temporary(text: String) -> Self {
        Self { text, kind: Kind::Temporary }
    }

    /// What a POP3 refusal says about the server rather than the credentials, at the greeting or at the login.
    pub(crate) fn of_pop3_server(refusal: &connectord_pop3::Refusal) -> Option<Self> {
        use connectord_pop3::ResponseCode;
        let text = refusal.to_string();
        if let Some(wait) = suggested_pause(&text) {
            return Some(Self { text, kind: Kind::Delayed(Some(wait)) });
        }
        Some(match &refusal.code {
            Some(ResponseCode::InUse) => Self::in_use(text),
            Some(ResponseCode::LoginDelay(seconds)) => Self::delayed(text, *seconds),
            Some(ResponseCode::SysTemp | ResponseCode::SysPerm) => Self::temporary(text),
            // Without a code words alone tell a locked maildrop from a wrong password.
            None if refusal.command != "greeting" && refusal.blame() == Blame::Server => Self::in_use(text),
            _ => return None,
        })
    }

    pub(super) fn of_pop3(refusal: &connectord_pop3::Refusal) -> Self {
        Self::of_pop3_server(refusal).unwrap_or_else(|| Self::credentials(refusal.to_string()))
    }

    /// What an IMAP response code or text says about the server rather than the credentials, at the greeting, at the login
    /// or in a BYE; `shown` is what is shown of it.
    pub(crate) fn of_imap_server(
        code: Option<&connectord_imap::ResponseCode>,
        text: &str,
        shown: String,
    ) -> Option<Self> {
        use connectord_imap::ResponseCode;
        if let Some(wait) = suggested_pause(text) {
            return Some(Self { text: shown, kind: Kind::Delayed(Some(wait)) });
        }
        Some(match code? {
            ResponseCode::Unavailable | ResponseCode::ServerBug => Self::temporary(shown),
            ResponseCode::InUse => Self::in_use(shown),
            ResponseCode::Limit | ResponseCode::OverQuota | ResponseCode::Throttled => Self::delayed(shown, None),
            _ => return None,
        })
    }

    pub(super) fn of_imap(refusal: &connectord_imap::Refusal) -> Self {
        let shown = refusal.to_string();
        Self::of_imap_server(refusal.code.as_ref(), &refusal.text, shown)
            .unwrap_or_else(|| Self::credentials(refusal.to_string()))
    }

    /// With what the server said inside the exchange: OAuth's error.
    pub(super) fn with_reason(mut self, reason: &str) -> Self {
        self.text.push_str(&format!(", after it said \"{reason}\""));
        self
    }

    pub(crate) fn is_credentials(&self) -> bool {
        self.kind == Kind::Credentials
    }

    pub(crate) fn trouble(&self) -> Trouble {
        let trouble = |cause, exit, wait| Trouble { cause, scope: Scope::Account, exit, wait };
        match self.kind {
            Kind::Credentials => trouble(Cause::LoginRefused, Exit::NoPermission, Wait::Login),
            Kind::InUse => {
                trouble(Cause::InUse, Exit::TempFail, Wait::Exactly(Hold::Backoff, Duration::from_secs(120)))
            }
            Kind::Delayed(Some(wait)) => {
                trouble(Cause::Throttled, Exit::TempFail, Wait::Exactly(Hold::Throttled, wait))
            }
            Kind::Delayed(None) => trouble(Cause::Throttled, Exit::TempFail, Wait::Backoff),
            Kind::Temporary => trouble(Cause::NoAnswer, Exit::TempFail, Wait::Backoff),
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let lower = self.text.to_ascii_lowercase();
        match self.kind {
            Kind::Credentials if APP_PASSWORD.iter().any(|words| lower.contains(words)) => {
                Some("the provider wants an app password here, not the password of the mailbox".into())
            }
            // GMX and web.de refuse the right password until POP3 and IMAP are switched on, and again after long disuse (2017).
            Kind::Credentials => {
                Some("check user name and password; some providers need an app password or IMAP/POP switched on".into())
            }
            Kind::InUse | Kind::Delayed(_) | Kind::Temporary => None,
        }
    }
}

impl fmt::Display for LoginRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use connectord_imap as imap;
    use connectord_pop3 as pop3;

    use super::*;
    use crate::trouble::RunError;
    use connectord_net as net;

    const REFUSED: (Cause, Wait) = (Cause::LoginRefused, Wait::Login);
    const SERVER: (Cause, Wait) = (Cause::NoAnswer, Wait::Backoff);
    const BROKEN: (Cause, Wait) = (Cause::Protocol, Wait::Backoff);
    const PAUSE: (Cause, Wait) = (Cause::Throttled, Wait::Backoff);
    const IN_USE: (Cause, Wait) = (Cause::InUse, Wait::Exactly(Hold::Backoff, Duration::from_secs(120)));

    const fn delay(millis: u64) -> (Cause, Wait) {
        (Cause::Throttled, Wait::Exactly(Hold::Throttled, Duration::from_millis(millis)))
    }

    fn meaning(trouble: Trouble) -> (Cause, Wait) {
        (trouble.cause, trouble.wait)
    }

    #[test]
    fn each_response_code_of_pop3_is_obeyed_at_the_greeting_and_at_the_login() {
        use pop3::ResponseCode::{Auth, InUse, LoginDelay, Other, SysPerm, SysTemp};
        let table = [
            (Some(Auth), "no", BROKEN, REFUSED),
            (Some(SysTemp), "database down", SERVER, SERVER),
            (Some(SysPerm), "mailbox broken", SERVER, SERVER),
            (Some(InUse), "another session", IN_USE, IN_USE),
            (Some(LoginDelay(Some(90))), "minimum time", delay(90_000), delay(90_000)),
            (Some(LoginDelay(Some(999_999_999))), "minimum time", delay(86_400_000), delay(86_400_000)),
            (Some(LoginDelay(None)), "minimum time", PAUSE, PAUSE),
            (Some(Other("X".into())), "no", BROKEN, REFUSED),
            (None, "authentication failed", BROKEN, REFUSED),
            (None, "unable to lock maildrop", BROKEN, IN_USE),
            (None, "throttled. Suggested Backoff Time: 299961 milliseconds", delay(299_961), delay(299_961)),
        ];
        for (code, text, at_greeting, at_login) in table {
            let refusal =
                |command| pop3::Refusal { command, code: code.clone(), text: text.as_bytes().to_vec().into() };
            let greeting = net::Error::Session(pop3::Error::GreetingRefused(refusal("greeting")));
            assert_eq!(meaning(RunError::Pop3(greeting).trouble()), at_greeting, "greeting {code:?} {text}");
            for command in ["PASS", "AUTH"] {
                let login = LoginRefusal::of_pop3(&refusal(command));
                assert_eq!(meaning(login.trouble()), at_login, "{command} {code:?} {text}");
            }
        }
    }

    #[test]
    fn each_response_code_of_imap_is_obeyed_in_a_bye_and_at_the_login() {
        use imap::ResponseCode::{
            AuthenticationFailed, AuthorizationFailed, Expired, InUse, Limit, OverQuota, ServerBug, Throttled,
            Unavailable,
        };
        let table = [
            (Some(AuthenticationFailed), "no", BROKEN, REFUSED),
            (Some(AuthorizationFailed), "no", BROKEN, REFUSED),
            (Some(Expired), "no", BROKEN, REFUSED),
            (Some(Unavailable), "user database down", SERVER, SERVER),
            (Some(ServerBug), "oops", SERVER, SERVER),
            (Some(InUse), "locked", IN_USE, IN_USE),
            (Some(Limit), "too many connections", PAUSE, PAUSE),
            (Some(OverQuota), "bandwidth", PAUSE, PAUSE),
            (Some(Throttled), "slow down", PAUSE, PAUSE),
            (None, "no", BROKEN, REFUSED),
            (None, "Request is throttled. Suggested Backoff Time: 1000 milliseconds", delay(1000), delay(1000)),
            (Some(Unavailable), "Suggested Backoff Time: 2000 milliseconds", delay(2000), delay(2000)),
        ];
        for (code, text, in_bye, at_login) in table {
            for during in ["the greeting", "SELECT", "UID FETCH"] {
                let bye = imap::Error::Bye { code: code.clone(), text: text.into(), during };
                let met = RunError::Imap(net::Error::Session(bye)).trouble();
                assert_eq!(meaning(met), in_bye, "BYE {code:?} {text}");
            }
            let refusal =
                imap::Refusal { command: "LOGIN", status: imap::Status::No, code: code.clone(), text: text.into() };
            assert_eq!(meaning(LoginRefusal::of_imap(&refusal).trouble()), at_login, "LOGIN {code:?} {text}");
        }
    }

    #[test]
    fn a_refused_login_hints_at_what_providers_switch_off() {
        // GMX (2017): the same words as for a wrong password.
        for (text, hint) in [
            ("NO [AUTHENTICATIONFAILED] authentication failed", "switched on"),
            ("NO Application-specific password required", "app password"),
        ] {
            let refusal = LoginRefusal::credentials(text.into());
            assert!(refusal.hint().is_some_and(|said| said.contains(hint)), "{text}: {:?}", refusal.hint());
        }
        assert_eq!(LoginRefusal::in_use("IN USE".into()).hint(), None);
    }

    #[test]
    fn what_oauth_says_is_said() {
        let refusal = LoginRefusal::credentials("\"NO no\"".into()).with_reason("{\"status\":\"401\"}");
        assert_eq!(refusal.to_string(), "\"NO no\", after it said \"{\"status\":\"401\"}\"");
    }
}
