use connectord_store::StoreError;
use rusqlite::ErrorCode;

/// What a job on a connection can end with, before it is said during what.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite's answer.
    Sql(rusqlite::Error),
    /// Ours.
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// In the words of the contract.
    pub(crate) fn during(self, during: &'static str) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Sql(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full { during },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Corrupt { during, text: error.to_string() }
            }
            _ => StoreError::Failed { during, text: error.to_string() },
        }
    }

    /// Whether the operating system failed below SQLite, a failed fsync above all: what the connection believes about
    /// its files may be wrong then, so it is opened anew.
    pub(super) fn distrusts_connection(&self) -> bool {
        matches!(self, Self::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure))
    }
}

/// The failure of a commit, as each of those hears it whose changes were in it.
pub(super) fn shared(error: &StoreError, during: &'static str) -> StoreError {
    match error.clone() {
        StoreError::Full { .. } => StoreError::Full { during },
        StoreError::Corrupt { text, .. } => StoreError::Corrupt { during, text },
        StoreError::Failed { text, .. } => StoreError::Failed { during, text },
        other => other,
    }
}
