use std::io;

use connectord_wire::Escaped;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::Pin;

/// Why there is no secure connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The certificate's time is over.
    #[error("the server's certificate expired {days} days ago")]
    Expired {
        /// How long ago, in whole days.
        days: u64,
        /// What the server showed.
        received: Fingerprints,
    },
    /// The certificate's time has not come, or our clock is wrong.
    #[error("the server's certificate is valid only in {days} days")]
    NotYetValid {
        /// How far ahead, in whole days.
        days: u64,
        /// What the server showed.
        received: Fingerprints,
    },
    /// The certificate is for other names.
    #[error("the server's certificate is not for {expected} but for {}", names(.presented))]
    OtherName {
        /// The name we asked for.
        expected: String,
        /// The names it has, at most 16, escaped.
        presented: Vec<String>,
        /// What the server showed.
        received: Fingerprints,
    },
    /// No trusted authority signed the certificate.
    #[error("no trusted authority signed the server's certificate ({received})")]
    UnknownIssuer {
        /// What the server showed.
        received: Fingerprints,
    },
    /// The certificate signed itself.
    #[error("the server's certificate is self-signed ({received})")]
    SelfSigned {
        /// What the server showed.
        received: Fingerprints,
    },
    /// An authority's certificate serves as the server's own, as `openssl req -x509` makes it.
    #[error("the server's certificate is one of an authority, not of a server ({received})")]
    AuthorityAsServer {
        /// What the server showed.
        received: Fingerprints,
    },
    /// The authority took the certificate back.
    #[error("the server's certificate was revoked")]
    Revoked {
        /// What the server showed.
        received: Fingerprints,
    },
    /// The certificate cannot be used: damaged, too old a format, a weak signature.
    #[error("the server's certificate cannot be used: {text}")]
    Unusable {
        /// What is wrong with it.
        text: String,
    },
    /// The certificate is not the pinned one.
    #[error("the server's certificate is not the pinned one ({received})")]
    PinMismatch {
        /// What the server showed.
        received: Fingerprints,
    },
    /// The server speaks only versions before TLS 1.2, or before the configured minimum.
    #[error("the server speaks only a TLS version that is too old")]
    OldProtocol,
    /// No agreement on keys and ciphers, or another refusal by the server.
    #[error("the handshake was refused: {text}")]
    Refused {
        /// The alert's or disagreement's name.
        text: String,
    },
    /// What came is no TLS.
    #[error("the server does not speak TLS on this port")]
    NotTls,
    /// The server closed the connection.
    #[error("the server closed the connection during the TLS handshake")]
    Closed,
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {text}")]
    Broken {
        /// The system's words.
        text: String,
    },
    /// There is no trusted authority on this system.
    #[error("this system has no trusted certificate authorities")]
    NoRoots,
    /// A configured authority's certificate cannot be used.
    #[error("a configured authority's certificate cannot be used: {text}")]
    Roots {
        /// What is wrong with it.
        text: String,
    },
    /// The configured name can be in no certificate.
    #[error("\"{name}\" can be in no certificate")]
    ServerName {
        /// The name, escaped.
        name: String,
    },
    /// The stream was not made by a route with STARTTLS, yet the session asks for it.
    #[error("the session asks for TLS on a connection that was made without TLS settings")]
    NotPrepared,
    /// Anything else.
    #[error("{text}")]
    Other {
        /// What the TLS library says.
        text: String,
    },
}

/// SHA-256 fingerprints of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of the whole certificate.
    pub certificate: Pin,
    /// Of its public key, which stays the same when the certificate is renewed with the same key; `None` when the
    /// certificate cannot be parsed.
    pub key: Option<Pin>,
}

impl std::fmt::Display for Fingerprints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "certificate {}", self.certificate)?;
        self.key.map_or(Ok(()), |key| write!(f, ", key {key}"))
    }
}

impl TlsProblem {
    /// What a person can do about it, in one sentence without a full stop.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Expired { .. } => {
                "the server's administrator must renew it, unless this machine's clock is wrong".to_owned()
            }
            Self::NotYetValid { .. } => "check this machine's clock".to_owned(),
            Self::OtherName { presented, .. } => match presented.first() {
                Some(name) => format!("use {name} as the host if that is the same server"),
                None => "ask the provider for the server's right name, or pin the certificate".to_owned(),
            },
            Self::UnknownIssuer { received } => format!(
                "give the authority's certificate as ca_file, or, if you know that this server is the right one, set pin \
                 = \"{}\"",
                received.key.unwrap_or(received.certificate)
            ),
            Self::SelfSigned { received } | Self::AuthorityAsServer { received } => format!(
                "compare the fingerprint on the server itself, then set pin = \"{}\"",
                received.key.unwrap_or(received.certificate)
            ),
            Self::PinMismatch { received } => format!(
                "do not go on unless the server's administrator says that the certificate was replaced; then set pin = \
                 \"{}\"",
                received.key.unwrap_or(received.certificate)
            ),
            Self::OldProtocol | Self::Refused { .. } => {
                "the server needs TLS 1.2 or newer with a modern cipher; ask the provider, or put stunnel in front"
                    .to_owned()
            }
            Self::NotTls => "try security = \"starttls\", or the port for TLS (993 for IMAP, 995 for POP3)".to_owned(),
            Self::NoRoots => "install ca-certificates or set SSL_CERT_FILE".to_owned(),
            Self::Unusable { .. } | Self::Revoked { .. } => {
                "the server's administrator must replace the certificate".to_owned()
            }
            Self::Closed | Self::Broken { .. } => "check that the port is right; else try again later".to_owned(),
            Self::Roots { .. } => "correct ca_file".to_owned(),
            Self::ServerName { .. } => "give the host by its name in DNS".to_owned(),
            Self::NotPrepared | Self::Other { .. } => return None,
        })
    }

    /// What the handshake's I/O error means.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::from_rustls(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Broken { text: error.to_string() },
        }
    }

    fn from_rustls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<Self>() {
                Some(problem) => problem.clone(),
                None => Self::Unusable { text: other.to_string() },
            },
            Error::InvalidCertificate(error) => Self::Unusable { text: Error::from(error.clone()).to_string() },
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::OldProtocol,
            Error::AlertReceived(alert) => Self::Refused { text: format!("{alert:?}") },
            Error::PeerIncompatible(why) => Self::Refused { text: format!("{why:?}") },
            Error::InvalidMessage(_) => Self::NotTls,
            error => Self::Other { text: error.to_string() },
        }
    }

    /// What the verifier's error means.
    pub(super) fn from_certificate(error: Error, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Self {
        let received = Fingerprints::of(certificate);
        let Error::InvalidCertificate(error) = error else { return Self::Other { text: error.to_string() } };
        match error {
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { days: days(not_after, time), received }
            }
            CertificateError::Expired => Self::Expired { days: 0, received },
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { days: days(time, not_before), received }
            }
            CertificateError::NotValidYet => Self::NotYetValid { days: 0, received },
            CertificateError::NotValidForName => {
                Self::OtherName { expected: name.to_str().into_owned(), presented: Vec::new(), received }
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let presented = presented.iter().take(16).map(|name| plain_name(name)).collect();
                Self::OtherName { expected: expected.to_str().into_owned(), presented, received }
            }
            CertificateError::UnknownIssuer if signed_itself(certificate) => Self::SelfSigned { received },
            CertificateError::UnknownIssuer => Self::UnknownIssuer { received },
            CertificateError::Revoked => Self::Revoked { received },
            CertificateError::Other(other)
                if other.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::CaUsedAsEndEntity) =>
            {
                Self::AuthorityAsServer { received }
            }
            CertificateError::Other(other) => Self::Unusable { text: other.0.to_string() },
            error => Self::Unusable { text: Error::from(error).to_string() },
        }
    }
}

fn names(presented: &[String]) -> String {
    if presented.is_empty() { "no name that counts".to_owned() } else { presented.join(", ") }
}

/// rustls writes a name as `DnsName("mail.example.org")`.
fn plain_name(name: &str) -> String {
    let inner = name.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"')).map_or(name, |(inner, _)| inner);
    Escaped::text(inner).to_string()
}

fn signed_itself(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|parsed| parsed.issuer() == parsed.subject())
}

fn days(from: UnixTime, to: UnixTime) -> u64 {
    to.as_secs().saturating_sub(from.as_secs()) / 86_400
}
