use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;

/// What a server is to have; everything has a default.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    pub(super) users: Vec<(String, String)>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) starttls: Option<Arc<ServerConfig>>,
    pub(super) port: u16,
}

impl ServerOptions {
    /// No user, plaintext, a free port of 127.0.0.1.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more user.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// `count` more users, `user0`, `user1` and so on, all with the password `secret`.
    pub fn users(mut self, count: usize) -> Self {
        self.users.extend((0..count).map(|n| (format!("user{n}"), "secret".to_owned())));
        self
    }

    /// TLS from the first octet.
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Plaintext with STLS or STARTTLS; nobody can log in before it.
    pub fn starttls(mut self, config: Arc<ServerConfig>) -> Self {
        self.starttls = Some(config);
        self
    }

    /// This port of 127.0.0.1 instead of a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
}

/// What a server does wrong on purpose; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misbehaviour {
    /// Every login is refused with this text, such as `[AUTH] no` or `[SYS/TEMP] later`.
    pub refuse_login: Option<String>,
    /// Messages, by UID, that cannot be retrieved.
    pub refuse_retrieve: BTreeSet<u32>,
    /// Messages, by UID, that cannot be removed (DELE, STORE of `\Deleted`, MOVE).
    pub refuse_remove: BTreeSet<u32>,
    /// What happens at POP3's QUIT.
    pub quit: QuitFault,
    /// Every connection is cut after the server has sent so many octets of it; counted from its start, without TLS's own.
    pub close_after_octets: Option<u64>,
    /// Octets that every size in STAT, LIST and RFC822.SIZE is too large, or too small.
    pub size_error: i64,
    /// Every UIDL is the same.
    pub same_uidls: bool,
    /// Bare LF are sent as they are, not as CRLF.
    pub bare_lf: bool,
    /// Capabilities that the server neither announces nor has: `UIDL`, `TOP`, `PIPELINING`, `SASL`, `STLS`; `UIDPLUS`, `MOVE`,
    /// `IDLE`, `LITERAL+`, `SASL-IR`, `NAMESPACE`, `SPECIAL-USE`, `ENABLE`, `ID`, `STARTTLS`, …
    pub without: BTreeSet<String>,
    /// SASL mechanisms that the server offers and refuses as soon as they begin, counted as refused logins.
    pub refused_mechanisms: Vec<String>,
    /// A command that starts so (in any case, without a tag) is never answered.
    pub hang_at: Option<String>,
    /// At a command that starts so (in any case, without a tag) the connection is closed.
    pub close_at: Option<String>,
    /// IMAP: a command that starts so (in any case, without a tag) is done, and the connection is closed instead of the
    /// answer.
    pub close_after: Option<String>,
    /// Messages, by UID, that the server neither lists nor counts, though they are there.
    pub hidden: BTreeSet<u32>,
    /// Messages, by UID, that the server counts and does not name in UIDL or SEARCH.
    pub unlisted: BTreeSet<u32>,
}

/// What goes wrong at POP3's QUIT after DELE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuitFault {
    /// Nothing: the messages are removed, the answer is `+OK`.
    #[default]
    None,
    /// `-ERR`, and nothing was removed.
    RefuseAndKeep,
    /// `-ERR`, though all was removed.
    RefuseButRemove,
    /// No answer, and nothing was removed.
    CloseAndKeep,
    /// No answer, though all was removed.
    CloseButRemove,
}

/// What a server has done so far, over all users and connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Logins that were refused.
    pub refused_logins: u64,
    /// Listings: UIDL without an argument, UID SEARCH, UID FETCH without bodies.
    pub listings: u64,
    /// Bodies sent whole.
    pub retrieved: u64,
    /// Octets of those bodies.
    pub retrieved_octets: u64,
    /// Messages removed by clients.
    pub removed: u64,
}
