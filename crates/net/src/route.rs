use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use connectord_wire::{Endpoint, Secret, Security};
use rustls::pki_types::CertificateDer;

use crate::Reach;

/// Where to connect, and how.
///
/// ```
/// use connectord_net::Route;
/// use connectord_wire::Security;
/// let mut route = Route::new("imap.example.org:993".parse()?, Security::Tls);
/// route.tls.pins.push("sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The server; its name is what the certificate must be for.
    pub endpoint: Endpoint,
    /// What must be encrypted.
    pub security: Security,
    /// Whom to trust.
    pub tls: TlsSettings,
    /// Through which proxy; default none.
    pub proxy: Option<Proxy>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// From which of our addresses; servers are then tried only by addresses of its family. Default any.
    pub local_address: Option<IpAddr>,
    /// Which addresses may be connected to, the server's or the proxy's; default all.
    pub reach: Reach,
}

impl Route {
    /// Directly, with default trust and times.
    pub fn new(endpoint: Endpoint, security: Security) -> Self {
        Self {
            endpoint,
            security,
            tls: TlsSettings::default(),
            proxy: None,
            timeouts: Timeouts::default(),
            local_address: None,
            reach: Reach::Anywhere,
        }
    }
}

/// Whom to trust, and which protocol versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// Further trusted certificates (of authorities, or a server's own), beside the system's.
    pub roots: Vec<CertificateDer<'static>>,
    /// When not empty, the server's certificate or key must have one of these fingerprints, and nothing else about it
    /// counts: not its names, its dates or who signed it.
    pub pins: Vec<Pin>,
    /// Oldest protocol version accepted; default TLS 1.2.
    pub minimum_version: TlsVersion,
    /// The name the certificate must be for, when it is not the endpoint's host; also sent as SNI.
    pub server_name: Option<String>,
}

/// A TLS protocol version. Older ones are not spoken (RFC 8996).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// SHA-256 of a certificate or of its public key (the SubjectPublicKeyInfo); one value is compared with both.
///
/// Read from `sha256:` with 64 hexadecimal digits, colons between them allowed, or with 44 characters of base64; written as
/// `sha256:` with lower-case digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

/// A text that is no [`Pin`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected sha256: and 64 hexadecimal digits or 44 characters of base64")]
pub struct PinError;

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let (kind, value) = text.split_once([':', '/']).ok_or(PinError)?;
        if !kind.eq_ignore_ascii_case("sha256") {
            return Err(PinError);
        }
        let digits: Vec<u8> = value.bytes().filter(|octet| *octet != b':').collect();
        if digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit) {
            let mut pin = [0; 32];
            for (octet, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
                let pair = std::str::from_utf8(pair).map_err(|_| PinError)?;
                *octet = u8::from_str_radix(pair, 16).map_err(|_| PinError)?;
            }
            return Ok(Self(pin));
        }
        // `sha256//` as curl writes it; a digest may begin with a slash itself.
        let decode =
            |value: &str| STANDARD.decode(value).or_else(|_| STANDARD_NO_PAD.decode(value)).ok()?.try_into().ok();
        decode(value).or_else(|| decode(value.strip_prefix('/')?)).map(Self).ok_or(PinError)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A proxy between us and the server. The proxy resolves the server's name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// SOCKS version 5 (RFC 1928, RFC 1929).
    Socks5 {
        /// Where it listens.
        endpoint: Endpoint,
        /// What it wants to know.
        auth: Option<ProxyAuth>,
    },
    /// HTTP CONNECT (RFC 9110 §9.3.6).
    Http {
        /// Where it listens.
        endpoint: Endpoint,
        /// What it wants to know, sent as `Basic`.
        auth: Option<ProxyAuth>,
    },
}

impl Proxy {
    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Socks5 { endpoint, .. } | Self::Http { endpoint, .. } => endpoint,
        }
    }
}

/// Name and password for a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAuth {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How long to wait for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For everything up to a usable connection: resolving, dialling, proxy and TLS together; a STARTTLS handshake gets
    /// the same again. Default 20 s.
    pub connect: Duration,
    /// How long nothing may come while the server owes us something; default 60 s.
    pub silence: Duration,
    /// A peer that owes us something and sends fewer octets per second than this counts as silent; default 100.
    pub minimum_rate: u32,
    /// Over how long the rate is measured; default 30 s.
    pub rate_window: Duration,
    /// Longest life of a connection; default none.
    pub session: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            minimum_rate: 100,
            rate_window: Duration::from_secs(30),
            session: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_from_every_form_people_paste() {
        let pin = Pin(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        let colons: Vec<String> = pin.0.iter().map(|octet| format!("{octet:02X}")).collect();
        for text in [
            pin.to_string(),
            format!("SHA256:{}", colons.join(":")),
            format!("sha256:{}", STANDARD.encode(pin.0)),
            format!("sha256//{}", STANDARD.encode(pin.0)),
            format!("sha256:{}", STANDARD_NO_PAD.encode(pin.0)),
        ] {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
        // A slash is a digit of base64, too.
        let slashes = Pin([0xFF; 32]);
        for before in ["sha256:", "sha256/", "sha256//"] {
            assert_eq!(format!("{before}{}", STANDARD.encode(slashes.0)).parse(), Ok(slashes), "{before}");
        }
        for text in ["", "sha256:", "sha1:00", "sha256:zz", &pin.to_string()[..70], "sha256"] {
            assert_eq!(text.parse::<Pin>(), Err(PinError), "{text}");
        }
    }
}
