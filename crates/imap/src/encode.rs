//! Commands and responses to octets. A command with a literal that the server must agree to first comes out in pieces.

mod answer;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connectord_wire::Secret;

use crate::{FetchItems, Flag, Flags, MailboxName, NameEncoding, Section, StatusItem, UidSearch, UidSet};

pub use answer::{Answer, Condition, encode_answer};

/// A client's command (RFC 9051 §6), as far as retrieval needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// CAPABILITY.
    Capability,
    /// NOOP.
    Noop,
    /// LOGOUT.
    Logout,
    /// STARTTLS.
    StartTls,
    /// LOGIN.
    Login {
        /// User name, UTF-8.
        user: String,
        /// Password.
        password: Secret,
    },
    /// AUTHENTICATE.
    Authenticate {
        /// The mechanism, in upper case.
        mechanism: String,
        /// The initial response, not encoded (RFC 4959).
        initial: Option<Secret>,
    },
    /// ENABLE (RFC 5161).
    Enable(Vec<String>),
    /// ID (RFC 2971).
    Id(Vec<(String, String)>),
    /// LIST.
    List {
        /// What the pattern is relative to; mostly empty.
        reference: MailboxName,
        /// With `*` and `%`.
        pattern: MailboxName,
        /// With `RETURN (SPECIAL-USE)` (RFC 6154 §5).
        special_use: bool,
    },
    /// NAMESPACE (RFC 2342).
    Namespace,
    /// STATUS.
    Status {
        /// Which mailbox.
        mailbox: MailboxName,
        /// What to tell.
        items: Vec<StatusItem>,
    },
    /// SELECT, or EXAMINE when read-only.
    Select {
        /// Which mailbox.
        mailbox: MailboxName,
        /// EXAMINE.
        read_only: bool,
    },
    /// CLOSE.
    Close,
    /// UNSELECT (RFC 3691).
    Unselect,
    /// EXPUNGE.
    Expunge,
    /// UID EXPUNGE (RFC 4315).
    UidExpunge(UidSet),
    /// UID SEARCH.
    UidSearch {
        /// For what.
        search: UidSearch,
        /// With `RETURN (ALL)` (RFC 4731).
        extended: bool,
    },
    /// UID FETCH.
    UidFetch {
        /// Of which messages.
        uids: UidSet,
        /// What.
        items: FetchItems,
    },
    /// UID STORE +FLAGS.SILENT.
    UidStore {
        /// Of which messages.
        uids: UidSet,
        /// Which flags to add.
        flags: Flags,
    },
    /// UID COPY.
    UidCopy {
        /// Which messages.
        uids: UidSet,
        /// Where to.
        mailbox: MailboxName,
    },
    /// UID MOVE (RFC 6851).
    UidMove {
        /// Which messages.
        uids: UidSet,
        /// Where to.
        mailbox: MailboxName,
    },
    /// IDLE (RFC 2177).
    Idle,
}

impl Command {
    /// The command's name, as refusals show it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Capability => "CAPABILITY",
            Self::Noop => "NOOP",
            Self::Logout => "LOGOUT",
            Self::StartTls => "STARTTLS",
            Self::Login { .. } => "LOGIN",
            Self::Authenticate { .. } => "AUTHENTICATE",
            Self::Enable(_) => "ENABLE",
            Self::Id(_) => "ID",
            Self::List { .. } => "LIST",
            Self::Namespace => "NAMESPACE",
            Self::Status { .. } => "STATUS",
            Self::Select { read_only: true, .. } => "EXAMINE",
            Self::Select { .. } => "SELECT",
            Self::Close => "CLOSE",
            Self::Unselect => "UNSELECT",
            Self::Expunge => "EXPUNGE",
            Self::UidExpunge(_) => "UID EXPUNGE",
            Self::UidSearch { .. } => "UID SEARCH",
            Self::UidFetch { .. } => "UID FETCH",
            Self::UidStore { .. } => "UID STORE",
            Self::UidCopy { .. } => "UID COPY",
            Self::UidMove { .. } => "UID MOVE",
            Self::Idle => "IDLE",
        }
    }
}

/// Which literals the server takes without being asked first (RFC 7888).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Literals {
    /// None.
    #[default]
    Synchronizing,
    /// LITERAL-: up to 4,096 octets.
    Minus,
    /// LITERAL+: any.
    Plus,
}

/// How a server wants to be spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// How mailbox names are written; with [`NameEncoding::Utf8`] quoted strings may have UTF-8.
    pub names: NameEncoding,
    /// Which literals it takes.
    pub literals: Literals,
}

/// Writes a command. All pieces but the first may be sent only after a continuation request.
///
/// ```
/// use connectord_imap::encode::{Command, Dialect, encode};
/// let login = Command::Login { user: "ann".into(), password: "pässword".into() };
/// let pieces = encode("A1", &login, Dialect::default());
/// assert_eq!(pieces, [b"A1 LOGIN \"ann\" {9}\r\n".to_vec(), "pässword\r\n".as_bytes().to_vec()]);
/// ```
pub fn encode(tag: &str, command: &Command, dialect: Dialect) -> Vec<Vec<u8>> {
    let mut out = Encoder { dialect, is_server: false, pieces: vec![format!("{tag} {}", command.name()).into_bytes()] };
    out.arguments(command);
    out.text("\r\n");
    out.pieces
}

struct Encoder {
    dialect: Dialect,
    /// A server sends literals without asking.
    is_server: bool,
    pieces: Vec<Vec<u8>>,
}

impl Encoder {
    fn arguments(&mut self, command: &Command) {
        match command {
            Command::Capability
            | Command::Noop
            | Command::Logout
            | Command::StartTls
            | Command::Namespace
            | Command::Close
            | Command::Unselect
            | Command::Expunge
            | Command::Idle => {}
            Command::Login { user, password } => {
                self.string(user.as_bytes());
                self.string(password.expose());
            }
            Command::Authenticate { mechanism, initial } => {
                self.word(mechanism);
                match initial {
                    // RFC 4959 §3: an empty initial response is a lone "=".
                    Some(initial) if initial.is_empty() => self.word("="),
                    Some(initial) => self.word(&STANDARD.encode(initial.expose())),
                    None => {}
                }
            }
            Command::Enable(names) => names.iter().for_each(|name| self.word(name)),
            Command::Id(fields) if fields.is_empty() => self.word("NIL"),
            Command::Id(fields) => {
                self.text(" (");
                for (at, (name, value)) in fields.iter().enumerate() {
                    self.string_at(name.as_bytes(), at == 0);
                    self.string(value.as_bytes());
                }
                self.text(")");
            }
            Command::List { reference, pattern, special_use } => {
                self.mailbox(reference);
                self.mailbox(pattern);
                if *special_use {
                    self.word("RETURN (SPECIAL-USE)");
                }
            }
            Command::Status { mailbox, items } => {
                self.mailbox(mailbox);
                let items: Vec<_> = items.iter().map(|item| status_item(*item)).collect();
                self.word(&format!("({})", items.join(" ")));
            }
            Command::Select { mailbox, .. } => self.mailbox(mailbox),
            Command::UidExpunge(uids) => self.word(&uids.to_string()),
            Command::UidSearch { search, extended } => {
                if *extended {
                    self.word("RETURN (ALL)");
                }
                self.word(&search_keys(search).join(" "));
            }
            Command::UidFetch { uids, items } => {
                self.word(&uids.to_string());
                self.word(&format!("({})", fetch_items(items).join(" ")));
            }
            Command::UidStore { uids, flags } => {
                self.word(&uids.to_string());
                self.word(&format!("+FLAGS.SILENT {flags}"));
            }
            Command::UidCopy { uids, mailbox } | Command::UidMove { uids, mailbox } => {
                self.word(&uids.to_string());
                self.mailbox(mailbox);
            }
        }
    }

    fn last(&mut self) -> &mut Vec<u8> {
        self.pieces.last_mut().expect("starts with one piece and only gets more")
    }

    fn text(&mut self, text: &str) {
        self.last().extend_from_slice(text.as_bytes());
    }

    fn word(&mut self, word: &str) {
        self.text(" ");
        self.text(word);
    }

    fn mailbox(&mut self, name: &MailboxName) {
        self.string(&name.to_wire(self.dialect.names));
    }

    fn string(&mut self, octets: &[u8]) {
        self.string_at(octets, false);
    }

    /// Quoted where that is allowed, else a literal: RFC 9051 §4.3 has neither CR, LF, NUL nor, before UTF-8 was
    /// enabled, 8-bit octets in quoted strings.
    fn string_at(&mut self, octets: &[u8], first: bool) {
        if !first {
            self.text(" ");
        }
        let is_utf8 = self.dialect.names == NameEncoding::Utf8 && std::str::from_utf8(octets).is_ok();
        let is_quotable = |octet: &u8| matches!(octet, b' '..=b'~') || (is_utf8 && *octet >= 0x80);
        if octets.len() <= 1000 && octets.iter().all(is_quotable) {
            let piece = self.last();
            piece.push(b'"');
            for octet in octets {
                if matches!(octet, b'"' | b'\\') {
                    piece.push(b'\\');
                }
                piece.push(*octet);
            }
            piece.push(b'"');
            return;
        }
        let waits = match self.dialect.literals {
            _ if self.is_server => true,
            Literals::Synchronizing => true,
            Literals::Minus => octets.len() > 4096,
            Literals::Plus => false,
        };
        self.text(&format!("{{{}{}}}\r\n", octets.len(), if waits { "" } else { "+" }));
        if waits {
            self.pieces.push(Vec::new());
        }
        self.last().extend_from_slice(octets);
    }
}

pub(crate) fn status_item(item: StatusItem) -> &'static str {
    match item {
        StatusItem::Messages => "MESSAGES",
        StatusItem::UidNext => "UIDNEXT",
        StatusItem::UidValidity => "UIDVALIDITY",
        StatusItem::Unseen => "UNSEEN",
        StatusItem::Deleted => "DELETED",
        StatusItem::Size => "SIZE",
        StatusItem::HighestModSeq => "HIGHESTMODSEQ",
    }
}

/// Neither ENVELOPE nor BODYSTRUCTURE: Domino puts parentheses around the one, GMX breaks the other of mail whose MIME is
/// broken (both 2019).
fn fetch_items(items: &FetchItems) -> Vec<&'static str> {
    let mut words = vec!["UID"];
    if items.size {
        words.push("RFC822.SIZE");
    }
    if items.internal_date {
        words.push("INTERNALDATE");
    }
    if items.flags {
        words.push("FLAGS");
    }
    match items.body {
        // Never RFC822: iCloud answers that with OK and no body (2024, docs/quirks.md).
        Some(Section::Whole) => words.push("BODY.PEEK[]"),
        Some(Section::Header) => words.push("BODY.PEEK[HEADER]"),
        None => {}
    }
    words
}

/// No parentheses: hMailServer finds everything behind one (2016).
fn search_keys(search: &UidSearch) -> Vec<String> {
    let mut keys = Vec::new();
    if let Some(from) = search.from {
        keys.push(format!("UID {from}:*"));
    }
    keys.extend(search.with.iter().map(|flag| search_key(flag, "")));
    keys.extend(search.without.iter().map(|flag| search_key(flag, "UN")));
    if keys.is_empty() {
        keys.push("ALL".into());
    }
    keys
}

fn search_key(flag: &Flag, un: &str) -> String {
    match flag {
        Flag::Keyword(name) => format!("{un}KEYWORD {name}"),
        // RFC 3501 §6.4.4: the opposite of RECENT is OLD.
        Flag::Recent if un.is_empty() => "RECENT".into(),
        Flag::Recent => "OLD".into(),
        system => format!("{un}{}", system.to_string().trim_start_matches('\\').to_ascii_uppercase()),
    }
}
