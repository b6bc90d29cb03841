use std::fmt;

/// A SASL mechanism that this crate speaks, ordered by how much a login reveals: a later one is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// The password in two answers (draft-murchison-sasl-login, obsolete, yet the only one that some servers offer).
    Login,
    /// The password in one answer (RFC 4616).
    Plain,
    /// A keyed MD5 over a challenge (RFC 2195); whoever listens can try passwords against it.
    CramMd5,
    /// An access token, Google's and Microsoft's own form.
    XOAuth2,
    /// An access token (RFC 7628).
    OAuthBearer,
    /// Who the TLS certificate or the socket says we are (RFC 4422 appendix A).
    External,
    /// Salted challenge and response, the server proves itself too (RFC 5802).
    ScramSha1,
    /// The same with SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-1 bound to the TLS connection, so that nobody can stand between (RFC 5802 §6).
    ScramSha1Plus,
    /// SCRAM-SHA-256 bound to the TLS connection (RFC 7677, RFC 9266).
    ScramSha256Plus,
}

impl Mechanism {
    /// All of them, weakest first.
    pub const ALL: [Self; 10] = [
        Self::Login,
        Self::Plain,
        Self::CramMd5,
        Self::XOAuth2,
        Self::OAuthBearer,
        Self::External,
        Self::ScramSha1,
        Self::ScramSha256,
        Self::ScramSha1Plus,
        Self::ScramSha256Plus,
    ];

    /// Recognises the registered name in any case; `None` for what this crate does not speak.
    ///
    /// ```
    /// use connectord_sasl::Mechanism;
    /// assert_eq!(Mechanism::parse("scram-sha-256"), Some(Mechanism::ScramSha256));
    /// assert_eq!(Mechanism::parse("NTLM"), None);
    /// ```
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// The registered name, as it goes over the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "LOGIN",
            Self::Plain => "PLAIN",
            Self::CramMd5 => "CRAM-MD5",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::External => "EXTERNAL",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    /// Whether the client speaks first, so that the response can travel with the command (RFC 4959, RFC 5034 §4).
    pub fn speaks_first(self) -> bool {
        !matches!(self, Self::Login | Self::CramMd5)
    }

    /// Whether the response contains the password or token itself, readable for whoever sees it.
    pub fn reveals_secret(self) -> bool {
        matches!(self, Self::Login | Self::Plain | Self::XOAuth2 | Self::OAuthBearer)
    }

    /// Whether it needs the TLS connection's channel binding.
    pub fn binds_channel(self) -> bool {
        matches!(self, Self::ScramSha1Plus | Self::ScramSha256Plus)
    }

    /// Whether [`Exchange::respond`](crate::Exchange::respond) may compute for as long as a second.
    pub fn is_expensive(self) -> bool {
        matches!(self, Self::ScramSha1 | Self::ScramSha256 | Self::ScramSha1Plus | Self::ScramSha256Plus)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_in_any_case_and_nothing_else_is() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::parse(&mechanism.to_string().to_lowercase()), Some(mechanism));
        }
        for name in ["", "APOP", "NTLM", "DIGEST-MD5", "GSSAPI", "SCRAM-SHA-256-", "PLAIN "] {
            assert_eq!(Mechanism::parse(name), None, "{name}");
        }
    }
}
