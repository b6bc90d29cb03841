use connectord_mail::Status;

/// Why a parcel was not delivered, told so that [the engine](crate) can decide what follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What sort of failure it is; decides between trying again, parking and holding.
    pub kind: FailureKind,
    /// The destination's enhanced status code, when it gave one.
    pub status: Option<Status>,
    /// What happened, during what, and what the destination said; escaped already.
    pub text: String,
}

/// The sorts of failure, by whom they concern and whether time mends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// This message, for now: a 4xx answer, exit status 75.
    Transient,
    /// This message, for good: a 5xx answer, exit status 65 or 67. It is parked, never bounced.
    Permanent,
    /// The recipient's mailbox is full.
    OverQuota,
    /// The recipient does not exist here (any more). The account is held; nobody else gets its mail.
    NoUser,
    /// The destination cannot be reached or is not there: nothing is wrong with the message.
    Unavailable,
    /// No room on the disk.
    DiskFull,
    /// The destination is configured wrongly: a person must act.
    Misconfigured,
}

impl Failure {
    /// A failure without a status code.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, status: None, text: text.into() }
    }

    /// The same with the destination's status code.
    #[must_use]
    pub fn with_status(self, status: Option<Status>) -> Self {
        Self { status, ..self }
    }
}
