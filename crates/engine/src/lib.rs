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
//! | connect and log in | `login`, `logins` |
//! | list, plan, retrieve, remove | `pop3`, `imap` |
//! | what a listing proves, what a message that cannot be had becomes | `mailbox` |
//! | what a message is recognised by | `skim` |
//! | collect a body within the memory budget | `spool` |
//! | prepare, commit, complete, commit | `pipeline` |
//! | after a crash | `recover` |
//! | what a failure means | `trouble` |
//! | a test of the way, step by step | `trial` |

//!
//! # One account, once
//!
//! ```
//! use std::sync::Arc;
//!
//! use connectord_account::{Account, Protocol};
//! use connectord_delivery::{Failure, Presence, Recipient};
//! use connectord_deliveries::maildir::{Maildir, Options};
//! use connectord_engine::{Board, Clock, Filters, Job, Logins, Mode, Quiet, Site, Spool, Users, run};
//! use connectord_net::{Connector, Route};
//! use connectord_sasl::{Credential, StaticCredentials};
//! use connectord_store::{NoTrail, memory::MemoryStore};
//! use connectord_testkit::servers::{ImapServer, ServerOptions};
//! use connectord_wire::Security;
//!
//! /// Leaves it to the destination who exists.
//! struct AskDestination;
//!
//! #[async_trait::async_trait]
//! impl Users for AskDestination {
//!     async fn presence(&self, _user: &str) -> Result<Option<Presence>, Failure> { Ok(None) }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = ImapServer::start(ServerOptions::new().user("ann", "secret"));
//! server.mailbox("ann").add("Subject: hello\n\nHow are you?\n");
//!
//! let home = tempfile::tempdir()?;
//! let site = Site {
//!     store: Arc::new(MemoryStore::new()),
//!     connector: Connector::new(),
//!     spool: Spool::new(home.path().into(), 64 << 20),
//!     hostname: "mail.example.org".into(),
//!     clock: Clock::system(),
//!     logins: Logins::default(),
//!     users: Arc::new(AskDestination),
//!     observer: Arc::new(Quiet),
//!     filters: Filters::none(),
//!     board: Board::default(),
//!     trail: Arc::new(NoTrail),
//! };
//! let endpoint: connectord_wire::Endpoint = server.address().to_string().parse()?;
//! let mut account = Account::new("ann@example.org", Protocol::Imap, endpoint.clone(), "ann");
//! account.security = Security::None;
//! let maildir = format!("{}/{{user}}", home.path().display()).parse()?;
//! let job = Job {
//!     account: Arc::new(account),
//!     credentials: Arc::new(StaticCredentials::new(Credential::password("ann", "secret"))),
//!     route: Route::new(endpoint, Security::None),
//!     destination: "default".into(),
//!     delivery: Arc::new(Maildir::new(Options::new(maildir, "example"))),
//!     recipients: vec![Recipient { user: "ann".into(), address: "ann".into() }],
//!     ambiguous: connectord_engine::Ambiguous::Redeliver,
//!     policy: connectord_filter::Policy::default(),
//!     relays: connectord_mail::Relays::default(),
//! };
//! let (_switch, stop) = tokio::sync::watch::channel(false);
//! let report = run(&site, &job, Mode::default(), stop).await;
//! assert_eq!((report.delivered, report.error.is_none()), (1, true));
//! assert_eq!(std::fs::read_dir(home.path().join("ann/new"))?.count(), 1);
//! # Ok(())
//! # }
//! ```

#![allow(clippy::result_large_err, reason = "a check ends with at most one error")]

mod board;
mod change;
mod filters;
mod headers;
mod host;
mod imap;
mod job;
mod log;
mod login;
mod logins;
mod mailbox;
mod observer;
mod pipeline;
mod pop3;
mod quiet;
mod reason;
mod recover;
mod run;
mod schedule;
mod site;
mod skim;
mod spool;
mod tally;
mod trail;
mod trial;
mod trouble;

pub use board::{AccountNow, Activity, Board, CheckNow};
pub use change::{Change, ChangeKind};
pub use filters::Filters;
pub use headers::headers;
pub use job::{Ambiguous, Job};
pub use login::LoginRefusal;
pub use logins::Logins;
pub use observer::{Observer, Progress, Quiet};
pub use recover::sweep;
pub use run::{Mode, Report, run};
pub use schedule::{BETWEEN_STARTS, Limits, Scheduler};
pub use site::{Clock, Site, Users};
pub use spool::Spool;
pub use trial::{SeeStep, Trial, TrialOutcome, TrialStep, trial, trial_watched};
pub use trouble::{Cause, Exit, RunError, Scope, Trouble, chain};
