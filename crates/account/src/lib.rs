//! The model of an external mail account, and the decisions about it as functions from values to values.
//!
//! Nothing here connects, reads a file or asks for the time: `now` is an argument.
//!
//! | item | what it is for |
//! |---|---|
//! | [`Account`] | everything that is configured for one external account |
//! | [`Retention`], [`Removal`] | what happens to the remote copy, and when |
//! | [`Ledger`], [`Entry`], [`State`] | what is known about the messages of one mailbox |
//! | [`Planner`] | says of each listed message what to do with it |
//! | [`backoff`], [`login_hold`] | how long to wait after failures |
//!
//! ```
//! use std::time::Duration;
//! use connectord_account::{Decision, Entry, Key, Ledger, Listed, Planner, Retention, Rules, State};
//! use connectord_mail::UnixTime;
//!
//! let delivered = Entry { delivered_at: UnixTime(1_000), ..Entry::new(Key::Uid(7), State::Delivered) };
//! let rules = Rules { retention: Retention::AfterDelivery(Duration::from_secs(3600)), ..Rules::default() };
//! let mut planner = Planner::new(Ledger::new(vec![delivered]), rules, UnixTime(2_000));
//! assert_eq!(planner.see(Listed::new(Key::Uid(7))), Decision::Leave);
//! assert_eq!(planner.see(Listed::new(Key::Uid(8))), Decision::Retrieve { attempt: 1, generation: 0 });
//! ```

mod backoff;
mod ledger;
mod model;
mod plan;

pub use backoff::{backoff, login_hold};
pub use ledger::{Entry, Key, Ledger, Named, State};
pub use model::{
    Account, Check, CredentialSource, Folder, Oversize, Protocol, ProxySettings, Removal, Retention, Start,
};
pub use plan::{Decision, Finding, Listed, Planner, Rules, Scope, Verify};
