use std::path::Path;

use tokio::process::Command;

/// A local user that a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(nix::unistd::User);

/// Why a program cannot run as a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The system could not say whether there is one.
    #[error("{error} (during looking up user {name})")]
    Unanswered {
        /// The user's name.
        name: String,
        /// What the system said.
        error: nix::Error,
    },
    /// There is none of this name.
    #[error("run_as: there is no user {name}")]
    Missing {
        /// The user's name.
        name: String,
    },
    /// We are not root, and not that user.
    #[error("run_as: only root can run a command as {name}")]
    Forbidden {
        /// The user's name.
        name: String,
    },
}

impl User {
    /// Looks a user up, and whether we may run programs as them.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn find(name: &str) -> Result<Self, UserError> {
        let user = nix::unistd::User::from_name(name)
            .map_err(|error| UserError::Unanswered { name: name.to_owned(), error })?
            .ok_or_else(|| UserError::Missing { name: name.to_owned() })?;
        let own = nix::unistd::Uid::effective();
        if own.is_root() || own == user.uid {
            return Ok(Self(user));
        }
        Err(UserError::Forbidden { name: name.to_owned() })
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The user's home.
    pub fn home(&self) -> &Path {
        &self.0.dir
    }

    pub(crate) fn become_it(&self, program: &mut Command) {
        if self.0.uid != nix::unistd::Uid::effective() {
            // As root this also drops the supplementary groups.
            program.gid(self.0.gid.as_raw()).uid(self.0.uid.as_raw());
        }
    }
}
