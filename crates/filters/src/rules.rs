//! The built-in rules, asked of nobody: lists, conditions, blocked attachments ([`connectord_filter::Rules`]).
//!
//! It unpacks nothing, and looks into no archive but a zip's list of names. Attachments are looked at only when a rule
//! needs it, on a thread, as far as [`Options::limits`] go, and no longer than [`Options::timeout`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_filter::attachment::{self, InspectError, Inspection};
use connectord_filter::{Filter, Health, Kind, Limits, Message, Probe, Rules, Unchecked, Verdict, Why};

use crate::OptionsError;
use crate::gauge::Gauge;
use crate::options::named;
use crate::text::chain;
use crate::until::Until;

/// The rules and how far attachments are looked at. [`Options::new`] has the defaults; every field may be changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The rules.
    pub rules: Rules,
    /// How much of a message is looked at.
    pub limits: attachment::Limits,
    /// For looking at the attachments of a message; default 30 s. Never beyond the message's own deadline.
    pub timeout: Duration,
    /// Most messages whose attachments are looked at at a time, each on a thread; default 4, at least 1.
    pub at_once: usize,
}

impl Options {
    /// Defaults for these rules.
    pub fn new(rules: Rules) -> Self {
        Self { rules, limits: attachment::Limits::default(), timeout: Duration::from_secs(30), at_once: 4 }
    }
}

/// The built-in rules.
///
/// ```
/// use connectord_filter::{Filter, Kind, Rules, attachment::Class};
/// use connectord_filters::rules::{Options, RulesFilter};
/// let rules = Rules { blocked_classes: vec![Class::Executable], ..Rules::default() };
/// let filter = RulesFilter::new("rules".into(), Options::new(rules))?;
/// assert_eq!(filter.kind(), Kind::Rules);
/// # Ok::<(), connectord_filters::OptionsError>(())
/// ```
pub struct RulesFilter {
    name: String,
    options: Options,
    gauge: Gauge,
}

impl RulesFilter {
    /// A filter of this name.
    ///
    /// # Errors
    /// When the name is none.
    pub fn new(name: String, options: Options) -> Result<Self, OptionsError> {
        Ok(Self { name: named(name)?, gauge: Gauge::new(options.at_once), options })
    }

    async fn inspect(&self, message: &Message, until: Until) -> Result<Inspection, Unchecked> {
        let (body, limits) = (Arc::clone(&message.body), self.options.limits);
        let given_up = GivenUp::default();
        let flag = Arc::clone(&given_up.0);
        let look = tokio::task::spawn_blocking(move || {
            attachment::inspect(&*body, limits, &mut || !until.is_over() && !flag.load(Ordering::Relaxed))
        });
        let late = |text: String| Unchecked::new(Why::TimedOut, text);
        match until.within(&self.name, "looking at the attachments", look).await? {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error @ InspectError::Stopped(_))) => Err(late(error.to_string())),
            Ok(Err(error @ InspectError::Read(_))) => Err(Unchecked::new(Why::Failed, chain(&error))),
            Err(lost) => Err(Unchecked::new(Why::Failed, format!("looking at the attachments: {}", chain(&lost)))),
        }
    }
}

/// Tells the thread to stop when nobody waits for it any more.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Filter for RulesFilter {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        "rules".into()
    }

    fn kind(&self) -> Kind {
        Kind::Rules
    }

    fn limits(&self) -> Limits {
        Limits { at_once: self.options.at_once.max(1), max_octets: None }
    }

    async fn check(&self, message: &Message) -> Verdict {
        let rules = &self.options.rules;
        let until = Until::new(message.deadline, self.options.timeout);
        let look = async {
            let attached = if rules.want_attachments() { Some(self.inspect(message, until).await?) } else { None };
            Ok(rules.find(message, attached.as_ref()))
        };
        self.gauge.check(until, &self.name, look).await
    }

    async fn probe(&self, _: Instant) -> Result<Probe, Unchecked> {
        Ok(Probe { version: env!("CARGO_PKG_VERSION").into(), found_test_sample: None })
    }

    fn health(&self) -> Health {
        self.gauge.health()
    }
}
