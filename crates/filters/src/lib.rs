//! The filters that come with connectord: Rspamd, ClamAV, SpamAssassin, a command, and the built-in rules.
//!
//! Nothing here decides what becomes of a message: a filter looks and answers, and [`connectord_filter::Policy`]
//! decides. None changes a message, keeps any of it, or learns from it unasked. A filter that is down, hangs or talks
//! rubbish costs no mail and no memory: each wait ends at the message's deadline or earlier, each answer is bounded,
//! and what went wrong is a [`connectord_filter::Verdict::Unchecked`] that says whether time mends it.
//!
//! Each module has `Options`, `new`, the [`Filter`](connectord_filter::Filter) trait, and `probe` in it.
//!
//! | module | asks | over |
//! |---|---|---|
//! | [`rspamd`] | Rspamd: spam, and what its modules find | HTTP: TCP, TLS, Unix socket |
//! | [`clamav`] | clamd: viruses | TCP, Unix socket |
//! | [`spamassassin`] | spamd: spam | TCP, Unix socket |
//! | [`command`] | a program of the site's own | standard input, exit status |
//! | [`rules`] | nobody: lists, conditions, blocked attachments | a thread |
//!
//! ```
//! use std::sync::Arc;
//! use connectord_filter::{Chain, Filter};
//! use connectord_filters::{clamav, rspamd};
//!
//! let mut options = rspamd::Options::new("127.0.0.1:11333".parse()?);
//! options.at_once = 16;
//! let rspamd = rspamd::Rspamd::new("rspamd".into(), options)?;
//! let clamd = clamav::Options::new("unix:/run/clamav/clamd.ctl".parse()?);
//! let clamav = clamav::Clamav::new("clamav".into(), clamd)?;
//! assert_eq!(rspamd.describe(), "rspamd:http://127.0.0.1:11333");
//! assert_eq!(clamav.describe(), "clamav:unix:/run/clamav/clamd.ctl");
//! let chain = Chain { filters: vec![Arc::new(rspamd), Arc::new(clamav)] };
//! # let _ = chain;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod clamav;
pub mod command;
#[doc(hidden)]
pub mod fuzzing;
mod gauge;
mod http;
mod line;
mod options;
mod pieces;
pub mod rspamd;
pub mod rules;
pub mod spamassassin;
mod text;
mod until;

pub use options::OptionsError;
