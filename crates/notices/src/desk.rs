//! The task that hears how checks end, remembers what it told, and gives notices. It is nowhere in the way of a check.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use connectord_engine::{Cause, Clock, Job};
use connectord_mail::UnixTime;
use connectord_store::{ParkedRow, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use crate::bundle::Bundle;
use crate::inbox::Inbox;
use crate::mail::{Down, MESSAGE_ID, Reader};
use crate::matter::{Event, Matter, ParkedMessage, Subject};
use crate::watch::{Place, Policy, Watch};
use crate::ways::Ways;
use crate::words::Notice;

/// How long further matters are waited for once there is one, so that what comes together is told together.
const GATHER: Duration = Duration::from_secs(60);

/// How often it is looked for what has lasted long enough.
const TICK: Duration = Duration::from_secs(60);

/// Waits between attempts to give a notice.
const RETRIES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];

/// The same in a command that somebody waits for.
const RETRIES_ONCE: [Duration; 1] = [Duration::from_secs(2)];

/// Most mails to local users in an hour; whoever is left out hears of it with the next reminder.
const USER_MAILS: usize = 1_000;

const HOUR: Duration = Duration::from_secs(3600);

/// Key of what was sent in the last hour.
const SENT: &str = "sent";

/// What a configuration says about notices, and about whom they are.
#[derive(Debug)]
pub struct Setup {
    /// What is told, and how soon.
    pub policy: Policy,
    /// Where it goes.
    pub ways: Ways,
    /// This machine's name.
    pub machine: String,
    /// All accounts: where each belongs, and who gets its mail.
    accounts: BTreeMap<String, (Place, Vec<Reader>)>,
}

impl Setup {
    /// Notices about these accounts; `jobs` are all that are configured, also those that are not checked now.
    pub fn new(policy: Policy, ways: Ways, machine: impl Into<String>, jobs: &[Job]) -> Self {
        let account = |job: &Job| {
            let place = Place {
                host: job.account.endpoint.host().to_owned(),
                destination: job.destination.clone(),
                users: job.recipients.iter().map(|recipient| recipient.user.clone()).collect(),
            };
            let reader =
                |recipient: &_| Reader { recipient: Clone::clone(recipient), delivery: Arc::clone(&job.delivery) };
            (job.address().to_owned(), (place, job.recipients.iter().map(reader).collect()))
        };
        // Who is switched off is not in trouble.
        let accounts = jobs.iter().filter(|job| job.account.enabled).map(account).collect();
        Self { policy, ways, machine: machine.into(), accounts }
    }

    fn places(&self) -> BTreeMap<String, Place> {
        self.accounts.iter().map(|(address, (place, _))| (address.clone(), place.clone())).collect()
    }

    /// A notice for somebody who wants to see whether notices arrive.
    pub fn test(&self, now: UnixTime) -> Bundle {
        let matter = Matter { event: Event::Test, subject: Subject::State, accounts: Vec::new() };
        Bundle::new(random(), &self.machine, now, vec![Notice::of(&matter)])
    }

    /// What local users hear: each of their own accounts only.
    fn for_users(&self, matters: &[Matter], id: u64, now: UnixTime) -> Vec<(&Reader, Bundle)> {
        let mut mine: BTreeMap<(&str, &str), (&Reader, Vec<&str>)> = BTreeMap::new();
        for (address, (_, readers)) in &self.accounts {
            for reader in readers {
                let known = |told: &Reader| told.recipient == reader.recipient;
                if self.ways.mail_to.iter().any(known) {
                    continue;
                }
                let key = (reader.recipient.address.as_str(), reader.recipient.user.as_str());
                mine.entry(key).or_insert_with(|| (reader, Vec::new())).1.push(address);
            }
        }
        let concerned: Vec<(&Matter, BTreeSet<&str>)> = matters
            .iter()
            .filter(|matter| concerns_users(matter))
            .map(|matter| (matter, matter.accounts.iter().map(String::as_str).collect()))
            .collect();
        let mut mails = Vec::new();
        for (reader, mine) in mine.into_values() {
            let part = |(matter, all): &(&Matter, BTreeSet<&str>)| {
                let accounts: Vec<String> = mine
                    .iter()
                    .filter(|address| all.contains(**address))
                    .map(|address| (*address).to_owned())
                    .collect();
                if accounts.is_empty() {
                    return None;
                }
                let (event, subject) = (matter.event.clone(), matter.subject.clone());
                Some(Notice::of(&Matter { event, subject, accounts }))
            };
            let notices: Vec<Notice> = concerned.iter().filter_map(part).collect();
            if !notices.is_empty() {
                mails.push((reader, Bundle::new(id, &self.machine, now, notices)));
            }
        }
        mails
    }
}

/// Whether it is something for the people whose mail it is; the rest is the administrator's.
fn concerns_users(matter: &Matter) -> bool {
    let cause = match &matter.event {
        Event::Trouble(trouble) | Event::Reminder(trouble) => Some(trouble.cause),
        Event::Well { cause, .. } => Some(*cause),
        _ => None,
    };
    match &matter.subject {
        Subject::Account(_) | Subject::Host(_) => true,
        Subject::User(_) => cause != Some(Cause::UserGone),
        Subject::Destination(_) | Subject::Filters | Subject::Disk | Subject::State => false,
    }
}

/// What was sent in the last hour, as it is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Sent {
    notices: Vec<i64>,
    user_mails: Vec<(i64, usize)>,
    /// Notices in a row that nobody got, and when the last one was tried.
    #[serde(default)]
    failed: u32,
    #[serde(default)]
    failed_at: i64,
}

impl Sent {
    fn forget(&mut self, now: UnixTime) {
        // What lies ahead was written by a clock that was wrong.
        let recent = |at: i64| at <= now.0 && now.since(UnixTime(at)) < HOUR;
        self.notices.retain(|at| recent(*at));
        self.user_mails.retain(|(at, _)| recent(*at));
    }

    /// Whether a notice that nobody got is to wait: a quarter of an hour, longer each time, up to four hours.
    fn pauses(&self, now: UnixTime) -> bool {
        let pause = HOUR / 4 * 2u32.saturating_pow(self.failed.saturating_sub(1).min(4));
        self.failed > 0 && self.failed_at <= now.0 && now.since(UnixTime(self.failed_at)) < pause
    }
}

/// Tells people.
pub struct Desk {
    inbox: Arc<Inbox>,
    store: Arc<dyn Store>,
    clock: Clock,
    gather: Duration,
    tick: Duration,
    watch: Watch,
    sent: Sent,
    /// Whether it was said already that nothing can be remembered.
    forgetful: bool,
}

impl Desk {
    /// With what earlier processes have told. A memory that cannot be read is logged and counts as empty.
    pub async fn open(inbox: Arc<Inbox>, store: Arc<dyn Store>, clock: Clock) -> Self {
        let remembered = store.notices().await.unwrap_or_else(|error| {
            warn!(%error, "what was told before cannot be read");
            Vec::new()
        });
        let sent = remembered.iter().find(|(key, _)| key == SENT);
        let sent = sent.and_then(|(_, text)| serde_json::from_str(text).ok()).unwrap_or_default();
        let watch = Watch::new(Policy::default(), remembered);
        Self { inbox, store, clock, gather: GATHER, tick: TICK, watch, sent, forgetful: false }
    }

    /// With another rhythm: how long matters are gathered before they are told (default one minute), and how often it is
    /// looked for what has lasted long enough (default one minute).
    #[must_use]
    pub fn with_rhythm(self, gather: Duration, tick: Duration) -> Self {
        Self { gather, tick, ..self }
    }

    /// Tells people until `stop` turns true; then it ends at once. What was not told by then is told after the next start.
    pub async fn run(mut self, mut setup: watch::Receiver<Arc<Setup>>, mut stop: watch::Receiver<bool>) {
        let mut current = Arc::clone(&setup.borrow_and_update());
        self.watch.configure(current.policy.clone(), current.places());
        let mut gather_until = None;
        loop {
            let matters = self.look().await;
            let now = Instant::now();
            if matters.is_empty() {
                gather_until = None;
            } else if now >= *gather_until.get_or_insert(now + self.gather) && self.may_send(&current) {
                gather_until = None;
                let giving = self.give(&current, matters, &RETRIES);
                tokio::select! {
                    biased;
                    () = stopped(&mut stop) => break,
                    () = giving => {}
                }
            }
            // What may not be sent yet is looked at again with the next tick.
            let wake =
                gather_until.filter(|until| *until > now).map_or(now + self.tick, |until| until.min(now + self.tick));
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                changed = setup.changed() => {
                    if changed.is_err() {
                        // Nobody can change it any more.
                        tokio::select! {
                            () = stopped(&mut stop) => break,
                            () = sleep_until(wake) => {}
                        }
                    } else {
                        current = Arc::clone(&setup.borrow_and_update());
                        self.watch.configure(current.policy.clone(), current.places());
                    }
                }
                () = self.inbox.arrived() => {
                    // Many checks end at once: what they found is remembered in one commit.
                    tokio::select! {
                        () = stopped(&mut stop) => break,
                        () = sleep_until(now + SETTLE.min(self.tick)) => {}
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
        self.look().await;
    }

    /// For a command that checks once: hears how its checks ended and tells what is due, within `most`.
    pub async fn once(mut self, setup: &Setup, most: Duration) {
        self.watch.configure(setup.policy.clone(), setup.places());
        let matters = self.look().await;
        if matters.is_empty() || !self.may_send(setup) {
            return;
        }
        if timeout(most, self.give(setup, matters, &RETRIES_ONCE)).await.is_err() {
            warn!("not all notices could be given within {} s; those are given by the next check", most.as_secs());
        }
    }

    /// Takes what has come, and says what is due.
    async fn look(&mut self) -> Vec<Matter> {
        for (address, (finding, at)) in self.inbox.take() {
            self.watch.observe(&address, &finding, at);
        }
        let now = self.clock.now();
        self.watch.tidy(now);
        self.remember(Vec::new()).await;
        self.watch.due(now)
    }

    fn may_send(&mut self, setup: &Setup) -> bool {
        let now = self.clock.now();
        self.sent.forget(now);
        !self.sent.pauses(now) && self.sent.notices.len() < setup.policy.per_hour.max(1) as usize
    }

    async fn give(&mut self, setup: &Setup, matters: Vec<Matter>, waits: &[Duration]) {
        let now = self.clock.now();
        let mut tell = Vec::with_capacity(matters.len());
        let mut silent = Vec::new();
        for matter in matters {
            match self.with_parked(matter).await {
                Ok(matter) => tell.push(matter),
                Err(matter) => silent.push(matter),
            }
        }
        if !tell.is_empty() {
            for matter in tell.iter().filter(|_| self.sent.failed == 0) {
                let notice = Notice::of(matter);
                let Notice { event, subject, title, count, .. } = notice;
                warn!(target: "connectord::mail", event, subject, title, accounts = count, "notice");
            }
            let id = random();
            let notices = tell.iter().map(Notice::of).collect();
            let bundle = Bundle::new(id, &setup.machine, now, notices);
            let users = if setup.ways.to_users { setup.for_users(&tell, id, now) } else { Vec::new() };
            let (all, some) = tokio::join!(setup.ways.give(&bundle, waits), self.tell_users(setup, users, waits));
            if !all && !some {
                // It is not told, so it is due again.
                self.sent.failed = self.sent.failed.saturating_add(1);
                self.sent.failed_at = now.0;
                tell.clear();
            } else {
                self.sent.failed = 0;
                self.sent.notices.push(now.0);
            }
        }
        self.watch.told(&tell, now);
        self.watch.told(&silent, now);
        let sent = serde_json::to_string(&self.sent).ok();
        self.remember(vec![(SENT.to_owned(), sent)]).await;
    }

    /// Whether anybody got it, or there is nobody who should.
    async fn tell_users(&mut self, setup: &Setup, users: Vec<(&Reader, Bundle)>, waits: &[Duration]) -> bool {
        let before: usize = self.sent.user_mails.iter().map(|(_, count)| count).sum();
        let room = USER_MAILS.saturating_sub(before).min(users.len());
        if room < users.len() {
            warn!(
                left_out = users.len() - room,
                "more than {USER_MAILS} mails to users in an hour; the rest is not sent"
            );
        }
        let (mut down, mut any) = (Down::default(), users.is_empty() && setup.ways.is_empty());
        for (reader, bundle) in users.iter().take(room) {
            any |= setup.ways.mail(bundle, reader, waits, &mut down).await;
        }
        if room > 0 {
            self.sent.user_mails.push((self.clock.now().0, room));
        }
        any
    }

    /// Looks up which messages were parked; an error when there is nothing to be told of them after all.
    async fn with_parked(&self, matter: Matter) -> Result<Matter, Matter> {
        let (Event::Parked { .. }, Subject::Account(address)) = (&matter.event, &matter.subject) else {
            return Ok(matter);
        };
        let rows = async {
            let account = self.store.open_account(address).await?;
            self.store.troubled(Some(account.id), false).await
        };
        let rows = match rows.await {
            Ok(rows) => rows,
            Err(error) => {
                warn!(%error, account = address, "parked messages cannot be listed for a notice");
                return Ok(matter);
            }
        };
        // A notice that came back and was parked is nothing to give notice of.
        let ours = |row: &ParkedRow| row.name.message_id.trim_start_matches('<').starts_with(MESSAGE_ID);
        let mut rows: Vec<ParkedRow> = rows.into_iter().filter(|row| !ours(row)).collect();
        if rows.is_empty() {
            return Err(matter);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.since));
        let count = rows.len();
        let messages = rows.into_iter().take(10).map(|row| ParkedMessage {
            from: row.name.from,
            subject: row.name.subject,
            reason: row.reason,
        });
        Ok(Matter { event: Event::Parked { messages: messages.collect(), count }, ..matter })
    }

    async fn remember(&mut self, also: Vec<(String, Option<String>)>) {
        let mut changes = self.watch.changes();
        let ours = changes.len();
        changes.extend(also);
        if changes.is_empty() {
            return;
        }
        match self.store.record_notices(&changes).await {
            Ok(()) => self.forgetful = false,
            Err(error) => {
                if !self.forgetful {
                    warn!(%error, "what was told cannot be remembered; it may be told again after a restart");
                }
                self.forgetful = true;
                self.watch.unremembered(&changes[..ours]);
            }
        }
    }
}

/// How long further findings are waited for before they are remembered.
const SETTLE: Duration = Duration::from_secs(2);

/// Resolves when the switch is on, and never when nobody holds the switch any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
