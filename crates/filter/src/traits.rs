use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connectord_mail::{Body, DeliveryId, Envelope, Head};

use crate::{Unchecked, Verdict};

/// Something that looks at messages and says what it found.
///
/// Methods are called concurrently for many messages, at most [`Limits::at_once`] at a time. A filter changes nothing
/// and decides nothing: it answers, and [`crate::Policy`] decides.
#[async_trait]
pub trait Filter: Send + Sync {
    /// Its name in the configuration and in trace headers: letters, digits, `-`, `_` and `.`; at most 64 octets.
    fn name(&self) -> &str;

    /// What it is and where, for `filter=` in the log: `rspamd:http://127.0.0.1:11333`.
    fn describe(&self) -> String;

    /// Which of the account's switches asks for it.
    fn kind(&self) -> Kind;

    /// How much it bears.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Looks at one message. Never fails as a call: what went wrong is [`Verdict::Unchecked`], with whether time mends it.
    ///
    /// Every wait inside ends at [`Message::deadline`]; the caller drops the future some time after it, and a filter that
    /// is dropped leaves nothing behind. Nothing it read of the message is kept.
    async fn check(&self, message: &Message) -> Verdict;

    /// Whether it works, for `connectord check --online`; with a test sample where the filter knows one (EICAR, GTUBE).
    ///
    /// # Errors
    /// As [`Verdict::Unchecked`] would tell it.
    async fn probe(&self, deadline: Instant) -> Result<Probe, Unchecked>;

    /// Whether it is there at all, the cheapest way there is: asked when it failed at a message, to tell a filter that
    /// is down or hangs from a message that it cannot bear. Without a way to ask, it is there.
    ///
    /// # Errors
    /// As [`Verdict::Unchecked`] would tell it.
    async fn ping(&self, deadline: Instant) -> Result<(), Unchecked> {
        let _ = deadline;
        Ok(())
    }

    /// How it has been doing, for whoever watches over the site; filters that keep no count say nothing.
    fn health(&self) -> Health {
        Health::default()
    }
}

/// How a filter has been doing since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Messages it is looking at now.
    pub running: usize,
    /// Messages that wait for it.
    pub waiting: usize,
    /// Messages that it looked at.
    pub checked: u64,
    /// Messages that it did not look at, whatever the reason.
    pub failed: u64,
    /// When it last looked at a message to the end.
    pub last_answer: Option<Instant>,
    /// How long that took.
    pub last_took: Option<Duration>,
    /// Its last trouble, and when. It has passed when `last_answer` is later.
    pub last_trouble: Option<(Instant, Unchecked)>,
}

impl Health {
    /// The trouble it is in: its last one, unless it has answered since.
    pub fn trouble(&self) -> Option<&Unchecked> {
        let (at, trouble) = self.last_trouble.as_ref()?;
        self.last_answer.is_none_or(|answer| answer < *at).then_some(trouble)
    }
}

/// Which of the account's switches asks for a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `antispam`.
    Antispam,
    /// `antivirus`.
    Antivirus,
    /// Both: a filter that looks for either.
    Both,
    /// Always asked: allow and block lists and the site's own rules.
    Rules,
}

/// How much a filter bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most messages at a time; default 8.
    pub at_once: usize,
    /// Largest message it is given, in octets; a larger one is [`crate::Why::TooLarge`] without asking. Default: any.
    pub max_octets: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { at_once: 8, max_octets: None }
    }
}

/// What a filter is given: one message for one account's recipients.
#[derive(Clone)]
pub struct Message {
    /// Identity of the message, the same on every attempt.
    pub id: DeliveryId,
    /// The account's address.
    pub account: String,
    /// Envelope recipients here, as the destination is told them.
    pub recipients: Vec<String>,
    /// The envelope as it was recovered: reverse-path, client and the provider's own findings, where they are known.
    /// A client that is not known is not known: no filter is told 127.0.0.1 in its place.
    pub envelope: Envelope,
    /// The header's octets with the empty line, at most 256 KiB.
    pub head: Bytes,
    /// The whole message as it is on the server, header included; read by pieces.
    pub body: Arc<dyn Body>,
    /// When every wait for this message must have ended.
    pub deadline: Instant,
}

impl Message {
    /// The header, to be scanned.
    pub fn head(&self) -> Head<'_> {
        Head::of(&self.head)
    }

    /// The body for a filter that may believe what the header says of the sender: without Received-SPF, and of all
    /// Authentication-Results only with the provider's own. Anybody can write the others.
    pub fn as_believed(&self) -> Arc<dyn Body> {
        crate::edit::as_believed(self.head(), &self.envelope.origins, &self.body)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("account", &self.account)
            .field("size_octets", &self.body.size_octets())
            .finish_non_exhaustive()
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The server's name and version as it gives them; escaped.
    pub version: String,
    /// Whether the test sample was found; `None` when there is none for this filter.
    pub found_test_sample: Option<bool>,
}
