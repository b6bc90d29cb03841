//! The gate: who a request comes from, and whether it may be what it says.

mod keep;
mod limit;
mod origin;
mod password;
mod random;
mod session;

pub use keep::{Keep, KeepError, MemoryKeep};
pub use session::{Invitation, StartLink};

pub(crate) use limit::Limits;
pub(crate) use origin::{Origins, Refused};
pub(crate) use password::Passwords;
pub(crate) use random::{digest, fresh};
pub(crate) use session::{Gate, Prolong, SignInError, SignedIn, TokenRecord, invite, tidy, valid_name};
