use connectord_wire::Security;

/// Limits and policies of one session.
///
/// Whatever the server can make grow has its bound here: memory per session stays within about
/// `2 * max_line + max_literal`, one read buffer, and what the caller leaves in queues. Nothing is kept of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// What must be encrypted; default [`Security::Tls`]. With `StartTls` nothing but CAPABILITY and STARTTLS is sent
    /// before TLS.
    pub security: Security,
    /// Longest line outside literals, in octets with its line end; default 65,536. Below 8,192 honest servers are refused
    /// (RFC 7162 §4). SEARCH and ESEARCH answers are read piece by piece and may be longer.
    pub max_line: usize,
    /// Longest literal that is no message (a mailbox name, something in a response that nobody knows), and all literals
    /// of one response together, in octets; default 65,536. The lines of one response together, outside of messages,
    /// are at most this and `max_line`.
    pub max_literal: usize,
    /// Deepest nesting of parentheses; default 32. ENVELOPE and BODYSTRUCTURE, which are not asked for, nest deepest.
    pub max_nesting: u32,
    /// Most mailboxes in one listing; default 100,000.
    pub max_mailboxes: u32,
    /// Most messages one search may find, or answers one fetch may get; default 10,000,000.
    pub max_messages: u32,
    /// Longest body that is handed out, in octets; default none. A longer one is read and dropped, and
    /// [`Body::TooLong`](crate::Body::TooLong) says so: the other messages of the same command go on.
    pub max_message_octets: Option<u64>,
    /// Most responses in a row that nobody asked for; default 100,000. IDLE on a busy mailbox sends many.
    pub max_untagged: u32,
    /// Whether a PREAUTH greeting counts as logged in; default false, because it makes the server and not the
    /// credentials decide who we are. Never with STARTTLS.
    pub allow_preauth: bool,
    /// What ID tells the server (RFC 2971), such as `("name", "connectord")`; default nothing, then ID is not sent. At
    /// most 30 fields of at most 30 and 1,024 octets are sent. NetEase (163.com, 126.com) refuses SELECT without it.
    pub id: Vec<(String, String)>,
    /// Whether IMAP4rev2 is enabled when offered beside IMAP4rev1 (RFC 9051 §6.3.1); default true.
    pub enable_rev2: bool,
    /// Whether UTF8=ACCEPT is enabled when offered (RFC 6855); default true: without it a server may change messages
    /// with UTF-8 in the header, or hide them.
    pub enable_utf8: bool,
    /// Most commands in flight; default 8, at least 1. More hides no more latency, and some servers stop reading.
    pub window_commands: usize,
    /// Most octets of commands in flight, beyond the first command; default 4,096, which every socket buffer holds.
    pub window_octets: usize,
    /// Longest text of a UID set in one command, in octets; default 1,000 (RFC 2683 §3.2.1.5). A longer set is sent as
    /// several commands: Outlook.com hangs up at long ones (2016), Exchange answers `BAD Command Error. 10` (2019).
    pub max_set_octets: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            security: Security::Tls,
            max_line: 65_536,
            max_literal: 65_536,
            max_nesting: 32,
            max_mailboxes: 100_000,
            max_messages: 10_000_000,
            max_message_octets: None,
            max_untagged: 100_000,
            allow_preauth: false,
            id: Vec::new(),
            enable_rev2: true,
            enable_utf8: true,
            window_commands: 8,
            window_octets: 4096,
            max_set_octets: 1000,
        }
    }
}
