//! Keeps what the page shows up to date, and tells those who look at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connectord_admin::Event;
use connectord_store::Store;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::warn;

use super::Page;
use super::roster;
use super::witness::Happened;

/// What happens within so much time is told together.
const PAUSE: Duration = Duration::from_millis(200);

/// Of so many accounts each is read by itself; of more, all at once.
const FEW: usize = 32;

/// How often parts of the installation are tried; those that are down sooner.
const PARTS: Duration = Duration::from_secs(300);
const PARTS_DOWN: Duration = Duration::from_secs(30);

/// Who waits for the accounts to be read.
pub(super) struct Reading {
    turn: Semaphore,
    wanted: AtomicU64,
    done: AtomicU64,
}

impl Default for Reading {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), wanted: AtomicU64::new(0), done: AtomicU64::new(0) }
    }
}

impl Page {
    /// Runs until the daemon stops.
    pub(crate) async fn watch(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let work = async {
            let mut known = self.accounts.known.clone();
            let mut parts_due = Instant::now();
            // What ended is told once more: a moment later the account has gone on to what it does next.
            let mut again = Vec::new();
            loop {
                let due = if again.is_empty() { parts_due } else { parts_due.min(Instant::now() + 4 * PAUSE) };
                tokio::select! {
                    () = self.witness.happens() => {}
                    changed = known.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.read_accounts().await;
                    }
                    () = tokio::time::sleep_until(due) => {}
                }
                tokio::time::sleep(PAUSE).await;
                let happened = self.witness.take();
                let asked = happened.parts;
                self.tell(std::mem::take(&mut again));
                again = self.take_in(happened).await;
                if Instant::now() >= parts_due || (asked && parts_due > Instant::now() + PARTS_DOWN) {
                    let well = self.look_at_parts().await;
                    parts_due = Instant::now() + if well { PARTS } else { PARTS_DOWN };
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Reads all accounts anew and tells what changed.
    pub(super) async fn read_accounts(&self) {
        let wanted = self.reading.wanted.fetch_add(1, Ordering::AcqRel) + 1;
        // Never closed: the page holds it.
        let _turn = self.reading.turn.acquire().await.expect("the semaphore is not closed");
        if self.reading.done.load(Ordering::Acquire) >= wanted {
            // A reading that began after this was asked for has ended meanwhile: many who wait are served by one.
            return;
        }
        let until = self.reading.wanted.load(Ordering::Acquire);
        let known = Arc::clone(&self.accounts.known.borrow());
        match self.roster.read(&self.accounts.store, &known).await {
            Ok(gone) => {
                for id in gone {
                    let _ = self.events.send(Event::Gone { id: id.0.to_string() });
                }
                let _ = self.events.send(Event::Overview);
            }
            Err(error) => warn!(%error, "accounts cannot be read for the page"),
        }
        self.reading.done.store(until, Ordering::Release);
    }

    /// Takes in what happened; answers whose check ended.
    async fn take_in(&self, happened: Happened) -> Vec<String> {
        let store = &self.accounts.store;
        if !happened.finished.is_empty() {
            let rows = match happened.finished.len() {
                0..=FEW => {
                    let mut rows = Vec::new();
                    for address in &happened.finished {
                        rows.push(store.open_account(address).await);
                    }
                    rows.into_iter().collect()
                }
                _ => store.accounts().await,
            };
            match rows {
                Ok(rows) => self.roster.set_health(rows),
                Err(error) => warn!(%error, "how accounts are doing cannot be read for the page"),
            }
        }
        if happened.parked {
            self.read_parked().await;
        }
        self.tell(happened.moved);
        happened.finished.into_iter().collect()
    }

    /// Reads how many messages are parked.
    pub(super) async fn read_parked(&self) {
        match roster::parked(&self.accounts.store).await {
            Ok(parked) => {
                for id in self.roster.set_parked(&parked) {
                    let _ = self.events.send(Event::Account { id: id.0.to_string() });
                }
            }
            Err(error) => warn!(%error, "parked messages cannot be read for the page"),
        }
    }

    /// Tells those who look that accounts moved.
    fn tell(&self, moved: impl IntoIterator<Item = String>) {
        let mut any = false;
        for entry in moved.into_iter().filter_map(|address| self.roster.of_address(&address)) {
            any = true;
            // Nobody may be there to hear it.
            let _ = self.events.send(Event::Account { id: entry.id.0.to_string() });
        }
        if any {
            let _ = self.events.send(Event::Overview);
        }
    }
}
