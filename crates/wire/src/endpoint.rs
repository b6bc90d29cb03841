use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What must be encrypted. There is no opportunistic value: what is asked for happens or the session ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first octet (RFC 8314 §3); the default.
    #[default]
    Tls,
    /// Plaintext that must turn into TLS before anything else happens (RFC 2595, RFC 9051 §6.2.1).
    StartTls,
    /// No encryption: password and mail travel readable.
    None,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls",
            Self::StartTls => "starttls",
            Self::None => "none",
        })
    }
}

/// A server: a host name or address, and a port.
///
/// ```
/// let endpoint: connectord_wire::Endpoint = "[2001:db8::7]:993".parse()?;
/// assert_eq!((endpoint.host(), endpoint.port()), ("2001:db8::7", 993));
/// assert_eq!(endpoint.to_string(), "[2001:db8::7]:993");
/// # Ok::<(), connectord_wire::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Checks the host: 1 to 253 letters, digits, `-`, `.`, `_`, or an IP address; kept in lower case.
    ///
    /// # Errors
    /// [`EndpointError`] names the first character that no host name has.
    pub fn new(host: &str, port: u16) -> Result<Self, EndpointError> {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.len() > 253 {
            return Err(EndpointError::Length { length: host.len() });
        }
        let is_ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok();
        if let Some((at, found)) =
            host.char_indices().find(|(_, c)| !(c.is_alphanumeric() || matches!(c, '-' | '.' | '_') || is_ipv6))
        {
            return Err(EndpointError::Character { found, at });
        }
        Ok(Self { host: host.to_lowercase(), port })
    }

    /// Name or address, lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::Port)?;
        Self::new(host, port.parse().map_err(|_| EndpointError::Port)?)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// No name, or one that DNS cannot hold.
    #[error("a host name has 1 to 253 characters, this has {length}")]
    Length {
        /// Length found, in octets.
        length: usize,
    },
    /// A character that no host name has.
    #[error("{found:?} at position {at} is not allowed in a host name")]
    Character {
        /// The character.
        found: char,
        /// Where it stands, in octets from the start.
        at: usize,
    },
    /// The part after the last colon is missing or no number from 0 to 65535.
    #[error("expected host:port with a port from 0 to 65535")]
    Port,
}
