//! A connection that listens between two checks.

use std::time::Duration;

use connectord_imap::Event;
use tokio::sync::{Notify, watch};

use super::Connection;
use crate::run::stopped;
use crate::{Job, Progress, Site, site};

/// IDLE is renewed after at most so long: RFC 2177 asks for less than 29 minutes, many gateways forget a silent line after
/// 10. At least after two thirds of it, at random, so that connections that began together do not stay in step.
const RENEW_IDLE: Duration = Duration::from_secs(9 * 60);

/// A listening account is checked after at most so long all the same: servers exist that forget to tell. At least after
/// two thirds of it.
const POLL_ANYWAY: Duration = Duration::from_secs(30 * 60);

/// A connection that is logged in, with a mailbox open, and has been idle since its last check.
///
/// Very many of these wait at once: it is on the heap, so that an account that keeps none has no room for one.
pub(crate) struct Kept {
    driver: Box<Connection>,
    /// Something came during the last check.
    changed: bool,
    /// The server did not let us listen; it is polled.
    refused: bool,
}

/// Why a listening account is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The server said that something changed.
    Changed,
    /// It is time.
    Poll,
    /// Somebody wants it.
    Asked,
    /// The connection is of no use any more.
    Lost,
    /// We are to stop.
    Stopped,
}

impl Kept {
    pub(crate) fn new(driver: Connection, changed: bool) -> Self {
        Self { driver: Box::new(driver), changed, refused: false }
    }

    pub(crate) fn into_connection(self) -> Connection {
        *self.driver
    }

    /// Waits in IDLE until there is a reason to check, at most `most`; where the server has no IDLE, until it is time.
    pub(crate) async fn wait(
        &mut self,
        site: &Site,
        job: &Job,
        asked: &Notify,
        stop: &watch::Receiver<bool>,
        most: Duration,
    ) -> Wake {
        let mut stop = stop.clone();
        site.tell(job.address(), Progress::Listening);
        let listening = self.listen(asked, most);
        tokio::select! {
            biased;
            () = stopped(&mut stop) => Wake::Stopped,
            wake = listening => wake,
        }
    }

    async fn listen(&mut self, asked: &Notify, most: Duration) -> Wake {
        if std::mem::take(&mut self.changed) {
            return Wake::Changed;
        }
        let poll = tokio::time::sleep(at_most(POLL_ANYWAY).min(most));
        tokio::pin!(poll);
        loop {
            let wake = tokio::select! {
                wake = self.idle() => Some(wake),
                () = asked.notified() => Some(Wake::Asked),
                () = &mut poll => Some(Wake::Poll),
                () = tokio::time::sleep(at_most(RENEW_IDLE)) => None,
            };
            match wake {
                Some(Wake::Lost) => return Wake::Lost,
                Some(Wake::Changed) => {
                    // Who has just spoken is there: the first command of the check follows the end of IDLE at once.
                    self.driver.machine().idle_done();
                    return Wake::Changed;
                }
                // The answer to DONE, and to a NOOP, shows that somebody is still there.
                _ if self.leave_idle().await => {}
                _ => {
                    if wake == Some(Wake::Asked) {
                        // Whoever asked gets a check over a new connection.
                        asked.notify_one();
                    }
                    return Wake::Lost;
                }
            }
            if let Some(wake) = wake {
                return wake;
            }
        }
    }

    async fn idle(&mut self) -> Wake {
        if self.refused || !self.driver.machine().offers("IDLE") {
            return std::future::pending().await;
        }
        let idle = self.driver.machine().idle();
        loop {
            match self.driver.next().await {
                Ok(Event::Exists(_) | Event::Expunged | Event::Vanished(_)) => return Wake::Changed,
                Ok(Event::Done { command, .. }) if command == idle => {
                    // Refused, or ended at once: to ask again and again would be no listening.
                    self.refused = true;
                    return std::future::pending().await;
                }
                Ok(_) => {}
                Err(_) => return Wake::Lost,
            }
        }
    }

    /// Ends IDLE if it is on, and makes sure that the server answers.
    async fn leave_idle(&mut self) -> bool {
        self.driver.machine().idle_done();
        let noop = self.driver.machine().noop();
        loop {
            match self.driver.next().await {
                Ok(Event::Done { command, result }) if command == noop => return result.is_ok(),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

/// A time at random, from two thirds of this to all of it.
fn at_most(time: Duration) -> Duration {
    time.mul_f64(1.0 - site::random_share() / 3.0)
}
