use std::sync::Arc;
use std::time::{Duration, Instant};

use connectord_filter::{Unchecked, Why};
use connectord_mail::Body;

use super::answer::error;
use super::request::Sender;
use super::{ControllerOptions, refused, server};
use crate::OptionsError;
use crate::http::{Client, Outgoing};
use crate::pieces::Pieces;
use crate::until::Until;

/// Longest answer, in octets.
const MAX_ANSWER: usize = 64 * 1024;

/// Rspamd's controller: teaches it what a person says of a message.
pub struct Controller {
    client: Client,
    sender: Sender,
    timeout: Duration,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// No spam.
    Ham,
    /// Spam.
    Spam,
}

/// What became of a lesson.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was learned.
    Now,
    /// It was learned before, as the same.
    Before,
    /// It was not learned, and is nothing to be learned from; Rspamd's words, escaped.
    Not(String),
}

impl Controller {
    /// A controller; nothing is connected yet.
    ///
    /// # Errors
    /// When the password cannot be sent, or TLS is wanted over a Unix socket.
    pub fn new(options: ControllerOptions) -> Result<Self, OptionsError> {
        let server = server(options.address, options.tls, options.connect, options.connector)?;
        Ok(Self {
            client: Client::new(server, 1, MAX_ANSWER),
            sender: Sender::new(options.password, None, None)?,
            timeout: options.timeout,
        })
    }

    /// What it is and where: `rspamd:http://127.0.0.1:11334`.
    pub fn describe(&self) -> String {
        format!("rspamd:{}", self.client.name())
    }

    /// Has Rspamd learn what a message is. Safe to repeat.
    ///
    /// # Errors
    /// As of a check: [`Why::Misconfigured`] for a wrong password, [`Why::Unavailable`] and [`Why::TimedOut`] for a
    /// controller that is down or hangs, [`Why::Failed`] with Rspamd's words when it could not learn.
    pub async fn learn(&self, what: Learn, message: Arc<dyn Body>, deadline: Instant) -> Result<Learned, Unchecked> {
        let path = match what {
            Learn::Ham => "/learnham",
            Learn::Spam => "/learnspam",
        };
        let until = Until::new(deadline, self.timeout);
        let make = || {
            let body = Outgoing::message(Pieces::new(Arc::clone(&message)));
            self.sender.post(path, &self.client.host(), body)
        };
        let answer = self.client.ask(make, until).await?;
        let said = error(&answer.octets).unwrap_or_else(|| answer.reason.clone());
        match answer.status.as_u16() {
            // Which status this has depends on the version: 404 with 3.4 of 2022, 208 with later ones.
            _ if said.contains("already learned") => Ok(Learned::Before),
            200 => Ok(Learned::Now),
            208 => Ok(Learned::Before),
            // "contains less tokens than required": with a body, which this status has none of.
            204 => Ok(Learned::Not(answer.reason)),
            status if answer.status.is_success() => {
                let text = format!("{} answered {status} \"{said}\"", self.client.name());
                Err(Unchecked::new(Why::Rubbish, text))
            }
            _ => Err(refused(&self.client.name(), "port 11334 is its controller's", &answer)),
        }
    }
}
