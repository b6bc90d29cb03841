use crate::{ChannelBinding, Credential, Mechanism, Proof};

/// What keeps others from reading the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS with a verified peer.
    Tls,
    /// Nothing, and the administrator wrote that passwords may travel readable (or the server is on loopback).
    NoneAccepted,
    /// Nothing: only mechanisms that do not show the secret.
    None,
}

/// What may be used to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Mechanisms permitted by name; `None` (the default) permits all that the other rules allow.
    pub allowed: Option<Vec<Mechanism>>,
    /// What keeps others from reading along.
    pub protection: Protection,
}

impl Policy {
    /// Permits every mechanism that is safe under this protection.
    pub fn new(protection: Protection) -> Self {
        Self { allowed: None, protection }
    }
}

/// Which of the offered mechanisms to try, in this order: strongest first.
///
/// - `-PLUS` only with a channel binding; mechanisms that show the password never without TLS unless
///   [`Protection::NoneAccepted`]; tokens only as `OAUTHBEARER` and `XOAUTH2`, and passwords never there; unknown names are
///   passed over; what cannot carry an authorization identity is left out when there is one.
/// - Under TLS, `PLAIN` and `LOGIN` come before `CRAM-MD5`: TLS hides the password already, while a server can check
///   `CRAM-MD5` only for users whose password it stores readable, though it offers the mechanism to all.
///
/// An empty answer means that no login is possible: say what was offered and what the policy permits.
pub fn choose<S: AsRef<str>>(
    offered: &[S],
    credential: &Credential,
    policy: &Policy,
    channel_binding: &ChannelBinding,
) -> Vec<Mechanism> {
    let mut chosen: Vec<Mechanism> = offered
        .iter()
        .filter_map(|name| Mechanism::parse(name.as_ref()))
        .filter(|mechanism| policy.allowed.as_ref().is_none_or(|allowed| allowed.contains(mechanism)))
        .filter(|mechanism| suits(*mechanism, credential))
        .filter(|mechanism| !mechanism.binds_channel() || *channel_binding != ChannelBinding::None)
        .filter(|mechanism| !mechanism.reveals_secret() || policy.protection != Protection::None)
        .collect();
    let cram_last = policy.protection == Protection::Tls;
    chosen.sort_by_key(|mechanism| (!(cram_last && *mechanism == Mechanism::CramMd5), *mechanism));
    chosen.dedup();
    chosen.reverse();
    chosen
}

/// Whether the mechanism can prove with what the credential holds.
pub(crate) fn suits(mechanism: Mechanism, credential: &Credential) -> bool {
    // In XOAUTH2 the one name it has is the mailbox to open (Microsoft, shared mailboxes).
    let carries_identity = !matches!(mechanism, Mechanism::Login | Mechanism::CramMd5);
    let proves = match credential.proof {
        Proof::Password { .. } => {
            !matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer | Mechanism::External)
        }
        Proof::Token { .. } => matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer),
        Proof::External => mechanism == Mechanism::External,
    };
    proves && (carries_identity || credential.authorization_identity.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mechanism::*;

    const OFFERED: [&str; 13] = [
        "PLAIN",
        "login",
        "NTLM",
        "CRAM-MD5",
        "SCRAM-SHA-1",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256-PLUS",
        "XOAUTH2",
        "OAUTHBEARER",
        "EXTERNAL",
        "GSSAPI",
        "PLAIN",
    ];

    fn chosen(credential: &Credential, protection: Protection, binding: &ChannelBinding) -> Vec<Mechanism> {
        choose(&OFFERED, credential, &Policy::new(protection), binding)
    }

    #[test]
    fn a_password_goes_strongest_first_and_bound_only_with_a_binding() {
        let ann = Credential::password("ann", "x");
        let exporter = ChannelBinding::Exporter(vec![1; 32]);
        assert_eq!(
            chosen(&ann, Protection::Tls, &exporter),
            [ScramSha256Plus, ScramSha1Plus, ScramSha256, ScramSha1, Plain, Login, CramMd5]
        );
        assert_eq!(
            chosen(&ann, Protection::Tls, &ChannelBinding::None),
            [ScramSha256, ScramSha1, Plain, Login, CramMd5]
        );
    }

    #[test]
    fn without_encryption_the_password_itself_is_sent_only_if_that_was_accepted() {
        let ann = Credential::password("ann", "x");
        assert_eq!(chosen(&ann, Protection::None, &ChannelBinding::None), [ScramSha256, ScramSha1, CramMd5]);
        assert_eq!(
            chosen(&ann, Protection::NoneAccepted, &ChannelBinding::None),
            [ScramSha256, ScramSha1, CramMd5, Plain, Login]
        );
        assert_eq!(choose(&["PLAIN"], &ann, &Policy::new(Protection::None), &ChannelBinding::None), []);
    }

    #[test]
    fn a_token_is_never_sent_as_a_password_nor_a_password_as_a_token() {
        let ann = Credential::token("ann", "ya29");
        assert_eq!(chosen(&ann, Protection::Tls, &ChannelBinding::None), [OAuthBearer, XOAuth2]);
        assert_eq!(chosen(&ann, Protection::None, &ChannelBinding::None), []);
        assert_eq!(chosen(&Credential::external(), Protection::Tls, &ChannelBinding::None), [External]);
    }

    #[test]
    fn a_shared_mailbox_is_opened_only_by_mechanisms_that_can_name_it() {
        let ann = Credential::password("ann", "x").on_behalf_of("info");
        assert_eq!(chosen(&ann, Protection::Tls, &ChannelBinding::None), [ScramSha256, ScramSha1, Plain]);
    }

    #[test]
    fn what_the_administrator_did_not_allow_is_not_chosen() {
        let policy = Policy { allowed: Some(vec![Login, Plain]), protection: Protection::Tls };
        let ann = Credential::password("ann", "x");
        assert_eq!(choose(&OFFERED, &ann, &policy, &ChannelBinding::None), [Plain, Login]);
    }
}
