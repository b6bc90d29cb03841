use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One message as a server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message itself.
    pub octets: Vec<u8>,
    /// IMAP flags such as `\Seen`; default none.
    pub flags: Vec<String>,
    /// When it arrived: INTERNALDATE, in whole seconds; default 2026-01-02 03:04:05 UTC.
    pub received: SystemTime,
}

impl Message {
    /// A message without flags.
    pub fn new(octets: impl Into<Vec<u8>>) -> Self {
        Self { octets: octets.into(), flags: Vec::new(), received: UNIX_EPOCH + Duration::from_secs(1_767_323_045) }
    }

    /// Adds a flag.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Sets when it arrived.
    pub fn received(mut self, at: SystemTime) -> Self {
        self.received = at;
        self
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<&[u8]> for Message {
    fn from(octets: &[u8]) -> Self {
        Self::new(octets)
    }
}

impl From<Vec<u8>> for Message {
    fn from(octets: Vec<u8>) -> Self {
        Self::new(octets)
    }
}
