/// Why the store did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the state open.
    #[error("the state in {path} is in use by another process{}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// Where the state is.
        path: String,
        /// Who has it, when it can be told.
        pid: Option<u32>,
    },
    /// The account is being worked on by somebody else.
    #[error("the account is being checked already")]
    Busy,
    /// The lease under which the change was asked for is not valid any more; nothing was changed.
    #[error("the lease of the account was lost")]
    LeaseLost,
    /// What was to be added is there already; nothing was changed.
    #[error("it is there already")]
    Exists,
    /// What was to be changed is not what it was any more; nothing was changed.
    #[error("it was {} meanwhile{}", if .last.is_some() { "changed" } else { "deleted" },
        .last.as_ref().map(|last| format!(", by {} at {}", last.by, last.at)).unwrap_or_default())]
    Changed {
        /// Who changed it last, and when; `None` when it is gone.
        last: Option<crate::Stamp>,
    },
    /// The state was written by a newer version of this program.
    #[error("the state has schema {found}, this version knows up to {known}; use the newer connectord")]
    NewerSchema {
        /// What is there.
        found: u32,
        /// What is understood.
        known: u32,
    },
    /// The disk is full; nothing was changed.
    #[error("no room on the disk for the state ({during})")]
    Full {
        /// What was being done.
        during: &'static str,
    },
    /// The state is damaged.
    #[error("the state is damaged: {text} ({during}); restore a backup of it, or move it away to begin anew")]
    Corrupt {
        /// What was being done.
        during: &'static str,
        /// What the back end says.
        text: String,
    },
    /// The back end failed; whether the change happened is unknown until it is read back.
    #[error("the state could not be used: {text} ({during})")]
    Failed {
        /// What was being done.
        during: &'static str,
        /// What the back end says.
        text: String,
    },
    /// The store has been closed.
    #[error("the state has been closed")]
    Closed,
}
