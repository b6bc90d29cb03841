//! Runs accounts: schedule, run, pipeline, and the one place that decides what each failure means.
//!
//! This crate knows only traits: it has no configuration file, no database and no destination of its own. It is given a
//! [`Site`] (what all accounts share) and [`Job`]s (one per account), and runs them once ([`run`]) or for good
//! ([`Scheduler`]).
//!
//! The journey of a message, and where each part of it is:
//!
//! | step | module |
//! |---|---|
//! | due account, lease, holds | [`schedule`](Scheduler), `run` |
//! | connect and log in | `login` |
//! | list, plan, retrieve, remove | `pop3`, `imap` |
//! | what a listing proves, what a message that cannot be had becomes | `mailbox` |
//! | collect a body within the memory budget | `spool` |
//! | prepare, commit, complete, commit | `pipeline` |
//! | after a crash | `recover` |
//! | what a failure means | `trouble` |

#![allow(clippy::result_large_err, reason = "a check ends with at most one error")]

mod imap;
mod job;
mod log;
mod login;
mod mailbox;
mod observer;
mod pipeline;
mod pop3;
mod recover;
mod run;
mod schedule;
mod site;
mod spool;
mod tally;
mod trouble;

pub use job::Job;
pub use login::LoginRefusal;
pub use observer::{Observer, Progress, Quiet};
pub use recover::sweep;
pub use run::{Mode, Report, run};
pub use schedule::{Limits, Scheduler};
pub use site::{Clock, Site, Users};
pub use spool::Spool;
pub use trouble::{Cause, Exit, RunError, Scope, Trouble};
