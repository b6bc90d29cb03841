//! Errors that end a command: printed here, once, with their whole chain and what to do about them.

use std::fmt::Write;

use connectord_config::Problems;
use connectord_config::build::BuildError;
use connectord_config::url::UrlError;
use connectord_engine::Exit;
use connectord_store::StoreError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Quarantine(#[from] connectord_quarantine::OpenError),
    #[error("the log cannot be started")]
    Log(#[from] crate::logging::Error),
    #[error(transparent)]
    Password(#[from] connectord::password::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{text}")]
    Io { text: String, source: std::io::Error },
    #[error("{0}")]
    Unavailable(String),
}

impl Error {
    pub(crate) fn io(text: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let text = text.into();
        |source| Self::Io { text, source }
    }

    pub(crate) fn print(&self) {
        let mut text = format!("connectord: {self}");
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            // Writing to a String does not fail.
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        if let Some(hint) = self.hint() {
            let _ = write!(text, "\nhint: {hint}");
        }
        crate::say::err(text);
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(StoreError::Locked { .. }) | Self::Build(BuildError::State(StoreError::Locked { .. })) => {
                Some("another connectord holds the state; stop it, or give this one another [state] url")
            }
            Self::Store(StoreError::Corrupt { .. }) | Self::Build(BuildError::State(StoreError::Corrupt { .. })) => {
                Some("write check_existing = \"always\" into a Maildir [delivery] first, and nothing comes twice")
            }
            Self::Build(BuildError::State(StoreError::NewerSchema { .. })) => {
                Some("a newer connectord has written the state; use that one")
            }
            _ => None,
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Config,
            Self::Url(_) | Self::Usage(_) | Self::Password(connectord::password::Error::None(_)) => Exit::Usage,
            Self::Store(StoreError::Locked { .. })
            | Self::Build(BuildError::State(StoreError::Locked { .. }))
            | Self::Quarantine(connectord_quarantine::OpenError::Locked { .. }) => Exit::TempFail,
            Self::Build(BuildError::State(_))
            | Self::Store(_)
            | Self::Quarantine(_)
            | Self::Io { .. }
            | Self::Log(_)
            | Self::Password(_) => Exit::Io,
            Self::Build(_) => Exit::Config,
            Self::Unavailable(_) => Exit::TempFail,
        }
    }
}
