use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Endpoint, EndpointError};

/// Where a server on this or a near machine listens: `unix:/run/dovecot/lmtp`, `127.0.0.1:24`, `mail.example.org:24`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
    /// Host and TCP port.
    Tcp(Endpoint),
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// `unix:` without an absolute path.
    #[error("expected an absolute path behind unix:")]
    Path,
    /// Neither `unix:` nor host and port.
    #[error("expected unix:/path or host:port: {0}")]
    Endpoint(EndpointError),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.contains('\0') => Ok(Self::Unix(path.into())),
            Some(_) => Err(AddressError::Path),
            None => text.parse().map(Self::Tcp).map_err(AddressError::Endpoint),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(endpoint) => endpoint.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_a_host_with_a_port() {
        for text in ["unix:/run/dovecot/lmtp", "127.0.0.1:24", "[::1]:24", "mail.example.org:24"] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("unix:run/lmtp".parse::<Address>(), Err(AddressError::Path));
        assert_eq!("localhost".parse::<Address>(), Err(AddressError::Endpoint(EndpointError::Port)));
    }
}
