use connectord_wire::Security;

/// Limits and policies of a session; change the fields of [`Options::default`].
///
/// ```
/// let mut options = connectord_pop3::Options::default();
/// options.max_message_octets = Some(50_000_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// What must be encrypted; default [`Security::Tls`]: the caller has done the handshake before the greeting.
    pub security: Security,
    /// Longest accepted reply or listing line, in octets with its line end; default 65,536, at least 512 (RFC 2449 §4).
    ///
    /// Far above the standard, since several servers put whole explanations into `-ERR`. Memory per session is at most this
    /// plus one read buffer. Lines of a message have no limit.
    pub max_line: usize,
    /// Most messages a listing or STAT may tell of; default 10,000,000. More is [`crate::Error::TooManyMessages`].
    pub max_messages: u32,
    /// Longest accepted unique-id, in octets; default 1024 (and never more than [`crate::Uidl::MAX_OCTETS`]), where RFC 1939
    /// §7 says 70. A longer one is told as [`crate::Event::UniqueIdUnreadable`].
    pub max_uidl: usize,
    /// Most lines in an answer to CAPA; default 256: real servers send about ten.
    pub max_capabilities: usize,
    /// Most octets of one message after unstuffing; default `None`: the caller decides by LIST what to retrieve, and stops by
    /// dropping the session. More is [`crate::Error::MessageTooLong`].
    pub max_message_octets: Option<u64>,
    /// Whether commands are sent before the answers to earlier ones have come; default as offered.
    pub pipelining: Pipelining,
    /// Most commands in flight when pipelining; default 512, at least 1.
    ///
    /// It is refilled by halves: the answers to the other half, some 2.5 MB of usual messages, keep a line of 500 Mbit/s and
    /// 40 ms busy meanwhile.
    pub window_commands: usize,
    /// Most octets of commands in flight when pipelining; default 6000, and always one command.
    ///
    /// What is in flight must fit into the server's socket buffers, or a server that waits for us to read and we who wait for
    /// it to read stand still together (RFC 2449 §6.6).
    pub window_octets: usize,
    /// Where the initial response of a SASL mechanism goes; default into the AUTH line if it is short enough.
    pub initial_response: InitialResponse,
    /// Whether to ask for UTF-8 mode; default as offered: without it a server must hide or rewrite messages with
    /// internationalized header fields (RFC 6856 §2).
    pub utf8: Utf8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            security: Security::Tls,
            max_line: 65_536,
            max_messages: 10_000_000,
            max_uidl: crate::Uidl::MAX_OCTETS,
            max_capabilities: 256,
            max_message_octets: None,
            pipelining: Pipelining::AsOffered,
            window_commands: 512,
            window_octets: 6000,
            initial_response: InitialResponse::InCommand,
            utf8: Utf8::AsOffered,
        }
    }
}

/// Whether commands are sent before the answers to earlier ones have come (RFC 2449 §6.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pipelining {
    /// When the server lists PIPELINING; the default.
    #[default]
    AsOffered,
    /// One command at a time, for a server that offers it and loses answers.
    Never,
}

/// Where the initial response of a SASL mechanism goes (RFC 5034 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InitialResponse {
    /// Into the AUTH line when that has at most 255 octets, else as the answer to the first challenge; the default.
    #[default]
    InCommand,
    /// Always as the answer to the first challenge: the only form that Microsoft documents for XOAUTH2 over POP3.
    Separately,
}

/// Whether to ask for UTF-8 mode (RFC 6856).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Utf8 {
    /// When the server lists UTF8; a refusal is no error. The default.
    #[default]
    AsOffered,
    /// Never.
    Never,
}
