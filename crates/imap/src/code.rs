use crate::{Capabilities, Flags, Uid, UidSet, UidValidity};

/// A response code: the machine-readable part of a status response, in brackets (RFC 9051 §7.1, RFC 5530).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseCode {
    /// The text must be shown to the user.
    Alert,
    /// What the server can do, without having been asked.
    Capability(Capabilities),
    /// The mailbox's UIDVALIDITY.
    UidValidity(UidValidity),
    /// The UID the next message will have or pass.
    UidNext(Uid),
    /// There is an unseen message. Its sequence number is not kept.
    Unseen,
    /// Flags that can be changed for good; with [`Flag::Any`](crate::Flag::Any) new keywords too.
    PermanentFlags(Flags),
    /// The mailbox cannot be changed.
    ReadOnly,
    /// The mailbox can be changed.
    ReadWrite,
    /// Where an APPEND put the message (RFC 4315 §3).
    AppendUid {
        /// UIDVALIDITY of the mailbox it is in now.
        uid_validity: UidValidity,
        /// Its UIDs there.
        uids: UidSet,
    },
    /// Where a COPY or MOVE put the messages (RFC 4315 §3).
    CopyUid {
        /// UIDVALIDITY of the mailbox they are in now.
        uid_validity: UidValidity,
        /// Their UIDs before.
        from: UidSet,
        /// Their UIDs there.
        to: UidSet,
    },
    /// The mailbox does not exist, CREATE would help.
    TryCreate,
    /// Wrong user name or password, or not telling which.
    AuthenticationFailed,
    /// Right password, but no access.
    AuthorizationFailed,
    /// The password is too old.
    Expired,
    /// Only over an encrypted connection.
    PrivacyRequired,
    /// Some part of the server is down; later may do.
    Unavailable,
    /// Somebody else has the mailbox locked.
    InUse,
    /// A limit of the server was reached.
    Limit,
    /// The user is over quota.
    OverQuota,
    /// The server found a bug in itself.
    ServerBug,
    /// The server takes us to have a bug.
    ClientBug,
    /// The user should talk to the administrator.
    ContactAdmin,
    /// No such mailbox.
    NonExistent,
    /// Not allowed.
    NoPerm,
    /// Never possible, whoever asks.
    Cannot,
    /// It exists already.
    AlreadyExists,
    /// Another session removed some of the messages.
    ExpungeIssued,
    /// The mailbox has mailboxes below it.
    HasChildren,
    /// The mailbox's UIDs do not survive the session (RFC 4315 §3).
    UidNotSticky,
    /// The mailbox selected before is closed; what follows is about the next (RFC 9051 §7.1).
    Closed,
    /// The mailbox's highest modification sequence (RFC 7162 §3.1.2.1).
    HighestModSeq(u64),
    /// No modification sequences in this mailbox (RFC 7162 §3.1.2.2).
    NoModSeq,
    /// The server asks for slower work (sent by Yahoo, Gmail and Exchange; no RFC).
    Throttled,
    /// A code this crate does not know, or knows but could not read: its name in upper case.
    Other(String),
}

/// Codes that are a name and nothing else.
pub(crate) const PLAIN: [(&str, ResponseCode); 26] = [
    ("ALERT", ResponseCode::Alert),
    ("UNSEEN", ResponseCode::Unseen),
    ("READ-ONLY", ResponseCode::ReadOnly),
    ("READ-WRITE", ResponseCode::ReadWrite),
    ("TRYCREATE", ResponseCode::TryCreate),
    ("AUTHENTICATIONFAILED", ResponseCode::AuthenticationFailed),
    ("AUTHORIZATIONFAILED", ResponseCode::AuthorizationFailed),
    ("EXPIRED", ResponseCode::Expired),
    ("PRIVACYREQUIRED", ResponseCode::PrivacyRequired),
    ("UNAVAILABLE", ResponseCode::Unavailable),
    ("INUSE", ResponseCode::InUse),
    ("LIMIT", ResponseCode::Limit),
    ("OVERQUOTA", ResponseCode::OverQuota),
    ("SERVERBUG", ResponseCode::ServerBug),
    ("CLIENTBUG", ResponseCode::ClientBug),
    ("CONTACTADMIN", ResponseCode::ContactAdmin),
    ("NONEXISTENT", ResponseCode::NonExistent),
    ("NOPERM", ResponseCode::NoPerm),
    ("CANNOT", ResponseCode::Cannot),
    ("ALREADYEXISTS", ResponseCode::AlreadyExists),
    ("EXPUNGEISSUED", ResponseCode::ExpungeIssued),
    ("HASCHILDREN", ResponseCode::HasChildren),
    ("UIDNOTSTICKY", ResponseCode::UidNotSticky),
    ("CLOSED", ResponseCode::Closed),
    ("NOMODSEQ", ResponseCode::NoModSeq),
    ("THROTTLED", ResponseCode::Throttled),
];

impl ResponseCode {
    /// The code's name in upper case, without its arguments.
    pub fn name(&self) -> &str {
        match self {
            Self::Capability(_) => "CAPABILITY",
            Self::UidValidity(_) => "UIDVALIDITY",
            Self::UidNext(_) => "UIDNEXT",
            Self::PermanentFlags(_) => "PERMANENTFLAGS",
            Self::AppendUid { .. } => "APPENDUID",
            Self::CopyUid { .. } => "COPYUID",
            Self::HighestModSeq(_) => "HIGHESTMODSEQ",
            Self::Other(name) => name,
            plain => PLAIN.iter().find(|(_, code)| code == plain).map_or("", |(name, _)| name),
        }
    }
}
