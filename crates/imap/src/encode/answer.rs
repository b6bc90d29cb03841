use super::{Dialect, Encoder};
use crate::{Capabilities, Fetched, Listed, MailboxStatus, Namespace, Namespaces, ResponseCode, UidSet};

pub use crate::parse::response::Condition;

/// A server's response, as far as retrieval needs it. The client's side of reading it is [`Session`](crate::Session).
///
/// Sequence numbers, which this crate's client does not look at, are written as 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// `+` and its text.
    Continuation(String),
    /// A status response.
    Status {
        /// The command's tag; `None`: untagged.
        tag: Option<String>,
        /// What kind.
        condition: Condition,
        /// The response code.
        code: Option<ResponseCode>,
        /// The words.
        text: String,
    },
    /// CAPABILITY.
    Capability(Capabilities),
    /// ENABLED.
    Enabled(Capabilities),
    /// ID.
    Id(Vec<(String, String)>),
    /// LIST.
    Listed(Listed),
    /// NAMESPACE.
    Namespaces(Namespaces),
    /// STATUS.
    MailboxStatus(MailboxStatus),
    /// SEARCH.
    Search(UidSet),
    /// ESEARCH, for the command with this tag.
    ExtendedSearch(String, UidSet),
    /// EXISTS.
    Exists(u32),
    /// EXPUNGE.
    Expunged,
    /// FETCH; with these octets as the whole message.
    Fetched(Fetched, Option<Vec<u8>>),
}

/// Writes a server's response. Literals are never asked for: servers just send them.
///
/// ```
/// use connectord_imap::encode::{Answer, Dialect, encode_answer};
/// assert_eq!(encode_answer(&Answer::Exists(3), Dialect::default()), b"* 3 EXISTS\r\n");
/// ```
pub fn encode_answer(answer: &Answer, dialect: Dialect) -> Vec<u8> {
    let mut out = Encoder { dialect, is_server: true, pieces: vec![Vec::new()] };
    out.answer(answer);
    out.text("\r\n");
    out.pieces.concat()
}

impl Encoder {
    fn answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Continuation(text) => self.text(&format!("+ {text}")),
            Answer::Status { tag, condition, code, text } => {
                self.text(tag.as_deref().unwrap_or("*"));
                self.word(condition.name());
                if let Some(code) = code {
                    self.word(&code_text(code));
                }
                self.word(text);
            }
            Answer::Capability(capabilities) => self.names("* CAPABILITY", capabilities),
            Answer::Enabled(capabilities) => self.names("* ENABLED", capabilities),
            Answer::Id(fields) => {
                self.text("* ID (");
                for (at, (name, value)) in fields.iter().enumerate() {
                    self.string_at(name.as_bytes(), at == 0);
                    self.string(value.as_bytes());
                }
                self.text(")");
            }
            Answer::Listed(listed) => {
                self.text(&format!("* LIST ({})", listed.attributes.join(" ")));
                self.delimiter(listed.delimiter);
                self.mailbox(&listed.name);
            }
            Answer::Namespaces(namespaces) => {
                self.text("* NAMESPACE");
                for group in [&namespaces.personal, &namespaces.other, &namespaces.shared] {
                    self.namespaces(group);
                }
            }
            Answer::MailboxStatus(status) => self.status(status),
            Answer::Search(uids) => {
                self.text("* SEARCH");
                uids.iter().for_each(|uid| self.word(&uid.to_string()));
            }
            Answer::ExtendedSearch(tag, uids) => {
                self.text(&format!("* ESEARCH (TAG \"{tag}\") UID"));
                if !uids.is_empty() {
                    self.word(&format!("ALL {uids}"));
                }
            }
            Answer::Exists(count) => self.text(&format!("* {count} EXISTS")),
            Answer::Expunged => self.text("* 1 EXPUNGE"),
            Answer::Fetched(fetched, body) => self.fetched(fetched, body.as_deref()),
        }
    }

    fn names(&mut self, start: &str, names: &Capabilities) {
        self.text(start);
        names.iter().for_each(|name| self.word(name));
    }

    fn delimiter(&mut self, delimiter: Option<char>) {
        match delimiter {
            Some(delimiter) => self.string(delimiter.to_string().as_bytes()),
            None => self.word("NIL"),
        }
    }

    fn namespaces(&mut self, group: &[Namespace]) {
        if group.is_empty() {
            return self.word("NIL");
        }
        self.text(" (");
        for namespace in group {
            self.text("(");
            self.string_at(&namespace.prefix.to_wire(self.dialect.names), true);
            self.delimiter(namespace.delimiter);
            self.text(")");
        }
        self.text(")");
    }

    fn status(&mut self, status: &MailboxStatus) {
        self.text("* STATUS");
        self.mailbox(&status.mailbox);
        let items = [
            ("MESSAGES", status.messages.map(u64::from)),
            ("UIDNEXT", status.uid_next.map(|uid| uid.number().into())),
            ("UIDVALIDITY", status.uid_validity.map(|number| number.number().into())),
            ("UNSEEN", status.unseen.map(u64::from)),
            ("DELETED", status.deleted.map(u64::from)),
            ("SIZE", status.size),
            ("HIGHESTMODSEQ", status.highest_modseq),
        ];
        let items: Vec<_> = items.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))).collect();
        self.word(&format!("({})", items.join(" ")));
    }

    fn fetched(&mut self, fetched: &Fetched, body: Option<&[u8]>) {
        let attributes = [
            fetched.uid.map(|uid| format!("UID {uid}")),
            fetched.size.map(|size| format!("RFC822.SIZE {size}")),
            fetched.internal_date.as_ref().map(|date| format!("INTERNALDATE \"{}\"", date.raw)),
            fetched.flags.as_ref().map(|flags| format!("FLAGS {flags}")),
            body.map(|body| format!("BODY[] {{{}}}\r\n", body.len())),
        ];
        let attributes: Vec<_> = attributes.into_iter().flatten().collect();
        self.text(&format!("* 1 FETCH ({}", attributes.join(" ")));
        self.last().extend_from_slice(body.unwrap_or_default());
        self.text(")");
    }
}

fn code_text(code: &ResponseCode) -> String {
    let arguments = match code {
        ResponseCode::Capability(capabilities) => capabilities.iter().collect::<Vec<_>>().join(" "),
        ResponseCode::UidValidity(number) => number.to_string(),
        ResponseCode::UidNext(uid) => uid.to_string(),
        ResponseCode::PermanentFlags(flags) => flags.to_string(),
        ResponseCode::HighestModSeq(modseq) => modseq.to_string(),
        ResponseCode::AppendUid { uid_validity, uids } => format!("{uid_validity} {uids}"),
        ResponseCode::CopyUid { uid_validity, from, to } => format!("{uid_validity} {from} {to}"),
        ResponseCode::Unseen => "1".into(),
        _ => return format!("[{}]", code.name()),
    };
    format!("[{} {arguments}]", code.name())
}
