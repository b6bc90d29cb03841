//! Who asks, and what they may do.

use serde::{Deserialize, Serialize};

use crate::backend::{UnknownWord, words};

words! {
    /// What somebody may do; each may do what those before may.
    Role {
        /// Sees and manages the accounts of one local user.
        Own = "own",
        /// Sees everything that is no secret.
        Read = "read",
        /// Checks, stops, retries, releases.
        Operate = "operate",
        /// Adds, edits and deletes; people, tokens, what servers said.
        Admin = "admin",
    }
}

/// How somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// With a name and a password, in a browser.
    Session,
    /// With an API token.
    Token,
    /// With the user id of the process at the other end of the Unix socket.
    Socket,
}

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name, as the audit has it.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// How they proved it.
    pub via: Via,
    /// With [`Role::Own`]: the local user whose accounts these are.
    pub user: Option<String>,
}

impl Caller {
    /// Whether this one may do what `role` may. Own accounts are no part of that ladder: see [`owns`](Self::owns).
    pub fn may(&self, role: Role) -> bool {
        self.role >= role
    }

    /// Whether an account, message or held message for these local users is theirs to see.
    ///
    /// One that is delivered to others too is not: its settings are not one person's.
    pub fn owns(&self, deliver_to: &[String]) -> bool {
        match (&self.user, self.role) {
            (Some(user), Role::Own) => deliver_to.len() == 1 && deliver_to[0] == *user,
            (None, Role::Own) => false,
            _ => true,
        }
    }
}

/// A person who signs in, as kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) role: Role,
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Argon2id, as a PHC string.
    pub(crate) password: String,
    /// Sessions carry it; a new password makes it another, which ends them.
    pub(crate) generation: u64,
    pub(crate) created: crate::At,
}

#[cfg(test)]
mod tests {
    use super::{Caller, Role, Via};

    #[test]
    fn an_account_for_others_too_is_not_ones_own() {
        let anna = Caller { name: "a".into(), role: Role::Own, via: Via::Session, user: Some("anna".into()) };
        assert!(anna.owns(&["anna".into()]));
        assert!(!anna.owns(&["anna".into(), "bob".into()]) && !anna.owns(&["Anna".into()]) && !anna.owns(&[]));
        assert!(!Caller { user: None, ..anna }.owns(&[String::new()]));
    }
}
