//! One check of an IMAP account: mailbox by mailbox, by UID only.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use connectord_account::{Check, Decision, Entry, Finding, Folder, Key, Ledger, Listed, Oversize, Planner, Removal, Retention, Scope, Start, State};
use connectord_imap::{
    Body, CommandId, Completion, Event, FetchItems, Flag, Flags, MailboxName, Options, Refusal, Role, Section, Selected,
    Session, Uid, UidSearch, UidSet,
};
use connectord_mail::{Fingerprint, Head, UnixTime};
use connectord_net::Driver;
use connectord_store::{MailboxRow, Mark, MessageName, MessageRef};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::login::log_in;
use crate::pipeline::{Incoming, Item, Pipeline, QUEUE};
use crate::pop3::{believe_absence, defer_or_park};
use crate::run::{Run, stopped};
use crate::spool::Collector;
use crate::trouble::RunError;
use crate::{Job, Progress, Site};

/// All UIDs are compared at least this often, not only those above the mark.
const FULL_LISTING_EVERY: Duration = Duration::from_secs(86_400);

/// IDLE is renewed this often: RFC 2177 asks for less than 29 minutes, many gateways forget a silent line after 10.
const RENEW_IDLE: Duration = Duration::from_secs(9 * 60);

/// A listening account is checked this often all the same: servers exist that forget to tell.
const POLL_ANYWAY: Duration = Duration::from_secs(30 * 60);

/// Messages asked for at a time.
const FETCH_AT_ONCE: usize = 500;

type Connection = Driver<Session>;

/// A connection that is logged in and has been idle since its last check.
pub(crate) struct Kept {
    driver: Connection,
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

/// Runs the check: retrieval and delivery side by side.
pub(crate) async fn check(run: &Run<'_>, kept: &mut Option<Kept>) -> Result<(), RunError> {
    let listens = run.job.account.check == Check::Idle;
    let mut driver = match kept.take() {
        Some(kept) => kept.driver,
        None => connect(run).await?,
    };
    let pipeline = Pipeline::new(run);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let retrieval = async {
        let mut imap = ImapRun { run, pipeline: &pipeline, queue: sender, driver: &mut driver };
        imap.mailboxes().await
    };
    let (retrieved, delivered) = tokio::join!(retrieval, pipeline.deliver(receiver));
    delivered?;
    retrieved?;
    if listens && !run.mode.by_hand && !run.mode.dry_run {
        *kept = Some(Kept { driver });
        return Ok(());
    }
    log_out(run, driver).await;
    Ok(())
}

async fn connect(run: &Run<'_>) -> Result<Connection, RunError> {
    run.tell(Progress::Connecting { server: &run.server });
    let mut options = Options::default();
    options.security = run.job.account.security;
    let machine = Session::new(options);
    let mut driver = run.or_stop(Driver::connect(&run.site.connector, &run.job.route, machine)).await?;
    run.or_stop(log_in(&mut driver, run.job)).await?;
    run.tell(Progress::LoggedIn { tls: driver.tls().map(|tls| tls.version) });
    Ok(driver)
}

/// LOGOUT, as a courtesy: everything is settled, so an error says nothing.
async fn log_out(run: &Run<'_>, mut driver: Connection) {
    let logout = driver.machine().logout();
    let goodbye = async {
        while let Ok(event) = run.or_stop(driver.next()).await {
            if matches!(event, Event::Done { command, .. } if command == logout) {
                break;
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(5), goodbye).await.is_err() {
        debug!(account = run.job.address(), "no answer to LOGOUT");
    }
    driver.shutdown().await;
}

impl Kept {
    /// Waits in IDLE until there is a reason to check; where the server has no IDLE, until it is time.
    pub(crate) async fn wait(&mut self, site: &Site, job: &Job, asked: &Notify, stop: &watch::Receiver<bool>) -> Wake {
        let poll = tokio::time::sleep(POLL_ANYWAY);
        tokio::pin!(poll);
        let mut stop = stop.clone();
        site.observer.progress(job.address(), Progress::Listening);
        loop {
            let renew = tokio::time::sleep(RENEW_IDLE);
            let idle = self.idle();
            let wake = tokio::select! {
                wake = idle => Some(wake),
                () = asked.notified() => Some(Wake::Asked),
                () = stopped(&mut stop) => Some(Wake::Stopped),
                () = &mut poll => Some(Wake::Poll),
                () = renew => None,
            };
            match wake {
                Some(Wake::Lost) => return Wake::Lost,
                Some(Wake::Stopped) => return Wake::Stopped,
                wake => {
                    // The answer to DONE, and to a NOOP, shows that somebody is still there.
                    if !self.leave_idle().await {
                        return Wake::Lost;
                    }
                    if let Some(wake) = wake {
                        return wake;
                    }
                }
            }
        }
    }

    async fn idle(&mut self) -> Wake {
        if !self.driver.machine().capabilities().has("IDLE") {
            return std::future::pending().await;
        }
        let idle = self.driver.machine().idle();
        loop {
            match self.driver.next().await {
                Ok(Event::Exists(_) | Event::Expunged | Event::Vanished(_)) => return Wake::Changed,
                Ok(Event::Done { command, .. }) if command == idle => return Wake::Changed,
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

struct ImapRun<'a> {
    run: &'a Run<'a>,
    pipeline: &'a Pipeline<'a>,
    queue: mpsc::Sender<Item>,
    driver: &'a mut Connection,
}

/// A message to retrieve.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    generation: u16,
    attempt: u32,
}

/// What is to be done in one mailbox.
#[derive(Default)]
struct Work {
    messages: u64,
    wanted: HashMap<Uid, Wanted>,
    due: Vec<Uid>,
    /// Evidence of absence: all of the mailbox, its count agreeing.
    complete: bool,
    /// No message that was there can have been overlooked.
    covers_all: bool,
}

impl ImapRun<'_> {
    /// All configured mailboxes; one that is refused does not keep the others from being checked.
    async fn mailboxes(&mut self) -> Result<(), RunError> {
        let mut first_error = None;
        for name in self.resolve().await? {
            match self.mailbox(&name).await {
                Err(error @ RunError::Mailbox { .. }) => {
                    warn!(account = self.run.job.address(), %error, "a mailbox cannot be checked");
                    first_error.get_or_insert(error);
                }
                other => other?,
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// The mailboxes that names, patterns and roles stand for, each once, in the order of the configuration.
    async fn resolve(&mut self) -> Result<Vec<MailboxName>, RunError> {
        let mut names: Vec<MailboxName> = Vec::new();
        let folders = &self.run.job.account.folders;
        for folder in folders {
            let (pattern, role) = match folder {
                Folder::Name(name) => {
                    let name = MailboxName::new(name).map_err(|error| self.refused(name, error.to_string(), false))?;
                    names.push(name);
                    continue;
                }
                Folder::Pattern(pattern) => (pattern.as_str(), None),
                Folder::Role(role) => {
                    let parsed = Role::parse(role);
                    ("*", Some(parsed.ok_or_else(|| self.refused(role, "no such role".into(), false))?))
                }
            };
            let command = self.driver.machine().list_special_use("", pattern);
            let mut found = Vec::new();
            let result = self
                .finish(command, |event| {
                    if let Event::Listed(listed) = event
                        && listed.is_selectable()
                        && role.is_none_or(|role| listed.roles().any(|has| has == role))
                    {
                        found.push(listed.name);
                    }
                })
                .await?;
            result.map_err(|refusal| self.refused(pattern, refusal.to_string(), false))?;
            names.extend(found);
        }
        let mut once = Vec::new();
        for name in names {
            if !once.contains(&name) {
                once.push(name);
            }
        }
        Ok(once)
    }

    fn refused(&self, mailbox: &str, refusal: String, temporary: bool) -> RunError {
        RunError::Mailbox { server: self.run.server.clone(), mailbox: mailbox.to_owned(), refusal, temporary }
    }

    /// Reads events until a command is finished, and shows the others to `see`.
    async fn finish(
        &mut self,
        command: CommandId,
        mut see: impl FnMut(Event),
    ) -> Result<Result<Completion, Refusal>, RunError> {
        loop {
            match self.run.or_stop(self.driver.next()).await? {
                Event::Done { command: done, result } if done == command => return self.pause_wanted(result),
                Event::Alert(text) => {
                    let text = connectord_wire::Escaped::text(&text).to_string();
                    warn!(account = self.run.job.address(), text, "the server wants this to be read");
                }
                event => see(event),
            }
        }
    }

    /// A refusal that asks for a pause concerns the account, not the command.
    fn pause_wanted(
        &self,
        result: Result<Completion, Refusal>,
    ) -> Result<Result<Completion, Refusal>, RunError> {
        use connectord_imap::ResponseCode;
        if let Err(refusal) = &result {
            let wait = crate::trouble::suggested_pause(&refusal.text);
            let throttled = matches!(refusal.code, Some(ResponseCode::OverQuota | ResponseCode::Limit));
            if wait.is_some() || throttled {
                let server = self.run.server.clone();
                return Err(RunError::Throttled { server, refusal: refusal.to_string(), wait });
            }
        }
        Ok(result)
    }

    async fn mailbox(&mut self, name: &MailboxName) -> Result<(), RunError> {
        let run = self.run;
        let text = name.to_string();
        let selected = self.open(name, &text).await?;
        if selected.no_uid_sticky {
            return Err(self.refused(&text, "its UIDs change with every session (UIDNOTSTICKY)".into(), false));
        }
        let validity = selected.uid_validity.number();
        let mut mailbox = run.site.store.open_mailbox(run.lease, &text, validity).await?;
        let entries = run.site.store.ledger(mailbox.id).await?;
        let now = run.site.clock.now();
        let first = mailbox.first_listed.is_none();
        let predecessors = if first { self.predecessors(&mailbox).await? } else { Vec::new() };
        let mut planner = Planner::new(Ledger::new(entries.clone()), run.rules(), now);
        let mut work = self.list(&mut planner, &mailbox, &selected, &entries, now).await?;

        if first && run.job.account.start == Start::FromNowOn && predecessors.is_empty() {
            return self.baseline(&mut mailbox, &selected, work, now).await;
        }
        if !predecessors.is_empty() && !work.wanted.is_empty() {
            self.recognise(&mailbox, &predecessors, &mut work).await?;
        }
        self.too_large(&mailbox, &mut work).await?;
        run.tally.listed(run, &text, work.messages, work.wanted.len() as u64, work.due.len() as u64);
        if run.mode.dry_run {
            return Ok(());
        }
        let before = mailbox.clone();
        if work.complete {
            let gone = match planner.finish(Scope::Complete) {
                Finding::Nothing => Vec::new(),
                Finding::Gone(gone) => {
                    mailbox.absence = None;
                    gone
                }
                Finding::MassAbsence { gone, known } => believe_absence(run, &mut mailbox, gone, known, now),
            };
            mailbox.first_listed.get_or_insert(now);
            mailbox.last_listed = Some(now);
            run.site.store.record_listing(run.lease, &mailbox, &gone, Mark::Done).await?;
        }
        self.retrieve(&before, &work).await?;
        self.flush().await?;
        // Everything below was looked at and has its row: what could not be had is pending.
        if let Some(uid_next) = selected.uid_next.filter(|_| work.covers_all) {
            mailbox.uid_next = uid_next.number();
            run.site.store.record_listing(run.lease, &mailbox, &[], Mark::Done).await?;
        }
        let due = std::mem::take(&mut work.due);
        self.finish_delivered(&mailbox, due).await
    }

    /// SELECT where something will be changed, else EXAMINE.
    async fn open(&mut self, name: &MailboxName, text: &str) -> Result<Selected, RunError> {
        let account = &self.run.job.account;
        let writes = account.retention != Retention::Never || account.mark_seen;
        let command = if writes && !self.run.mode.dry_run {
            self.driver.machine().select(name)
        } else {
            self.driver.machine().examine(name)
        };
        let mut selected = None;
        let result = self
            .finish(command, |event| {
                if let Event::Selected(found) = event {
                    selected = Some(found);
                }
            })
            .await?;
        match (result, selected) {
            (Ok(_), Some(selected)) => Ok(selected),
            (Ok(_), None) => Err(self.refused(text, "the server did not say what it opened".into(), true)),
            (Err(refusal), _) => {
                use connectord_imap::ResponseCode;
                let temporary = matches!(
                    refusal.code,
                    Some(ResponseCode::Unavailable | ResponseCode::InUse | ResponseCode::ServerBug)
                );
                Err(self.refused(text, refusal.to_string(), temporary))
            }
        }
    }

    /// The same mailbox under earlier UIDVALIDITYs, with what is known of its messages.
    async fn predecessors(&mut self, mailbox: &MailboxRow) -> Result<Vec<(MailboxRow, Vec<Entry>)>, RunError> {
        let store = &self.run.site.store;
        let mut found = Vec::new();
        for row in store.mailboxes(self.run.account.id).await? {
            if row.name == mailbox.name && row.id != mailbox.id && row.first_listed.is_some() {
                let entries = store.ledger(row.id).await?;
                found.push((row, entries));
            }
        }
        Ok(found)
    }

    /// What is there, and what to do with it. With nothing new no listing is asked for.
    async fn list(
        &mut self,
        planner: &mut Planner,
        mailbox: &MailboxRow,
        selected: &Selected,
        entries: &[Entry],
        now: UnixTime,
    ) -> Result<Work, RunError> {
        let run = self.run;
        let stale = mailbox.last_listed.is_none_or(|last| now < last || now.since(last) >= FULL_LISTING_EVERY);
        let unsettled = entries.iter().any(|entry| entry.state == State::Removing);
        let failed = run.account.health.failures > 0;
        let full = mailbox.uid_next == 0 || stale || unsettled || failed || mailbox.absence.is_some();
        let search = match (full, selected.uid_next) {
            (true, _) | (_, None) => Some(UidSearch::all()),
            (false, Some(next)) if next.number() == mailbox.uid_next => None,
            (false, Some(_)) => Uid::new(mailbox.uid_next).map(UidSearch::since),
        };
        let whole = search.as_ref().is_some_and(|search| search.from.is_none());
        let mut work = Work { messages: u64::from(selected.exists), ..Work::default() };
        let mut counted = 0u64;
        let mut changed = false;
        if let Some(search) = search {
            let command = self.driver.machine().uid_search(search);
            let result = self
                .finish(command, |event| match event {
                    Event::Found(uids) => {
                        counted += uids.len();
                        uids.iter().for_each(|uid| work.see(planner, uid));
                    }
                    Event::Exists(_) | Event::Expunged | Event::Vanished(_) => changed = true,
                    _ => {}
                })
                .await?;
            result.map_err(|refusal| self.refused(&mailbox.name, refusal.to_string(), true))?;
        }
        // Only a whole listing whose count agrees, with nothing moving meanwhile, is evidence of absence.
        work.complete = whole && !changed && counted == u64::from(selected.exists);
        work.covers_all = !whole || changed || counted >= u64::from(selected.exists);
        if !whole {
            // What was not listed is as it was: pending messages and due removals are found by their rows.
            for entry in entries {
                if let Key::Uid(uid) = entry.key
                    && matches!(entry.state, State::Pending | State::Delivered | State::Removing)
                    && uid < mailbox.uid_next
                    && let Some(uid) = Uid::new(uid)
                {
                    work.see(planner, uid);
                }
            }
        }
        if run.job.account.removal == Removal::MarkSeen {
            work.due.retain(|uid| {
                planner.ledger().get(Key::Uid(uid.number())).is_none_or(|entry| entry.state != State::Done)
            });
        }
        Ok(work)
    }

    /// "Only what comes from now on": one complete listing, one commit.
    async fn baseline(
        &mut self,
        mailbox: &mut MailboxRow,
        selected: &Selected,
        work: Work,
        now: UnixTime,
    ) -> Result<(), RunError> {
        let run = self.run;
        run.tally.listed(run, &mailbox.name, work.messages, 0, 0);
        if !work.complete {
            return Err(self.refused(&mailbox.name, "its listing is not complete".into(), true));
        }
        if run.mode.dry_run {
            return Ok(());
        }
        let keys: Vec<(Key, u16)> = work.wanted.keys().map(|uid| (Key::Uid(uid.number()), 0)).collect();
        mailbox.first_listed = Some(now);
        mailbox.last_listed = Some(now);
        mailbox.uid_next = selected.uid_next.map_or(0, Uid::number);
        Ok(run.site.store.record_listing(run.lease, mailbox, &keys, Mark::Skipped).await?)
    }

    /// The mailbox was renumbered: messages that were delivered under their old UIDs are recognised by their headers,
    /// before anything is retrieved again.
    async fn recognise(
        &mut self,
        mailbox: &MailboxRow,
        predecessors: &[(MailboxRow, Vec<Entry>)],
        work: &mut Work,
    ) -> Result<(), RunError> {
        let run = self.run;
        let heads = self.heads(work.wanted.keys().copied().collect()).await?;
        let mut known: HashMap<(u64, u64), Vec<(MessageRef, Fingerprint)>> = HashMap::new();
        for (row, entries) in predecessors {
            for entry in entries.iter().filter(|entry| entry.state != State::Done) {
                let message = MessageRef { mailbox: row.id, key: entry.key, generation: entry.generation };
                let print = entry.fingerprint;
                known.entry((print.head, print.ident)).or_default().push((message, print));
            }
        }
        let before = predecessors.iter().filter_map(|(row, _)| row.last_listed).max();
        let mut adopted = Vec::new();
        let mut skipped = Vec::new();
        for (uid, (print, date)) in heads {
            let key = Key::Uid(uid.number());
            // Each row is used once: two identical messages are two messages.
            if let Some((from, old)) = known.get_mut(&(print.head, print.ident)).and_then(Vec::pop) {
                adopted.push((from, MessageRef { mailbox: mailbox.id, key, generation: 0 }, old));
                work.wanted.remove(&uid);
            } else if run.job.account.start == Start::FromNowOn && date.is_some() && date <= before {
                skipped.push((key, 0));
                work.wanted.remove(&uid);
            }
        }
        warn!(
            account = run.job.address(), mailbox = %connectord_wire::Escaped::text(&mailbox.name),
            recognised = adopted.len(), new = work.wanted.len(),
            "the server renumbered this mailbox (UIDVALIDITY changed); known messages were recognised by their headers"
        );
        if !run.mode.dry_run {
            run.site.store.adopt(run.lease, &adopted).await?;
            run.site.store.mark(run.lease, mailbox.id, &skipped, Mark::Skipped).await?;
        }
        Ok(())
    }

    /// Fingerprint and arrival of messages, by their headers only.
    async fn heads(&mut self, uids: UidSet) -> Result<Vec<(Uid, (Fingerprint, Option<UnixTime>))>, RunError> {
        let items = FetchItems { internal_date: true, body: Some(Section::Header), ..FetchItems::default() };
        let mut found = Vec::new();
        for chunk in chunks(&uids, FETCH_AT_ONCE) {
            let command = self.driver.machine().uid_fetch(&chunk, items);
            let mut head = Vec::new();
            let result = self
                .finish(command, |event| match event {
                    Event::BodyStart { .. } => head.clear(),
                    Event::Body(octets) => {
                        let room = connectord_mail::head::MAX_HEAD.saturating_sub(head.len());
                        head.extend_from_slice(&octets[..octets.len().min(room)]);
                    }
                    Event::Fetched(fetched) => {
                        if let (Some(uid), true, Body::Octets(_)) = (fetched.uid, fetched.asked, fetched.body) {
                            let date = fetched.internal_date.map(|date| UnixTime(date.unix_seconds));
                            found.push((uid, (Fingerprint::new(Head::of(&head), 0), date)));
                        }
                    }
                    _ => {}
                })
                .await?;
            if let Err(refusal) = result {
                warn!(account = self.run.job.address(), %refusal, "headers cannot be compared");
            }
        }
        Ok(found)
    }

    /// Parks or skips messages over the limit, by the sizes the server tells.
    async fn too_large(&mut self, mailbox: &MailboxRow, work: &mut Work) -> Result<(), RunError> {
        let run = self.run;
        let Some(limit) = run.job.account.max_message_octets else { return Ok(()) };
        let uids: UidSet = work.wanted.keys().copied().collect();
        let mut large = Vec::new();
        for chunk in chunks(&uids, 5000) {
            let command = self.driver.machine().uid_fetch(&chunk, FetchItems { size: true, ..FetchItems::default() });
            let result = self
                .finish(command, |event| {
                    if let Event::Fetched(fetched) = event
                        && let (Some(uid), Some(size)) = (fetched.uid, fetched.size)
                        && size > limit
                    {
                        large.push((uid, size));
                    }
                })
                .await?;
            result.map_err(|refusal| self.refused(&mailbox.name, refusal.to_string(), true))?;
        }
        let now = run.site.clock.now();
        for (uid, size) in large {
            let Some(wanted) = work.wanted.remove(&uid) else { continue };
            if run.mode.dry_run {
                continue;
            }
            let message = reference(mailbox, uid, wanted.generation);
            match run.job.account.oversize {
                Oversize::Skip => {
                    let skipped = [(message.key, message.generation)];
                    run.site.store.mark(run.lease, mailbox.id, &skipped, Mark::Skipped).await?;
                }
                Oversize::Park => {
                    let reason = format!("message of {size} octets exceeds the limit of {limit}");
                    run.site.store.park(run.lease, message, &name(uid), size, &reason, now).await?;
                    run.tally.parked(run, &reason);
                }
            }
        }
        Ok(())
    }

    /// Retrieves what is wanted; what the server did not give is put off.
    async fn retrieve(&mut self, mailbox: &MailboxRow, work: &Work) -> Result<(), RunError> {
        let uids: UidSet = work.wanted.keys().copied().collect();
        for chunk in chunks(&uids, FETCH_AT_ONCE) {
            let mut missing: HashSet<Uid> = chunk.iter().collect();
            let refusal = self.fetch(mailbox, &chunk, work, &mut missing).await?;
            let one_by_one = refusal.is_some() && missing.len() > 1;
            for uid in missing {
                let mut left = HashSet::from([uid]);
                let mut reason = refusal.as_ref().map(ToString::to_string);
                if one_by_one {
                    // One that cannot be had must not hide the others of its command.
                    let alone = UidSet::range(uid, uid);
                    reason = self.fetch(mailbox, &alone, work, &mut left).await?.map(|refusal| refusal.to_string());
                }
                if !left.is_empty() {
                    self.put_off(mailbox, work, uid, reason).await?;
                }
            }
        }
        Ok(())
    }

    async fn put_off(
        &mut self,
        mailbox: &MailboxRow,
        work: &Work,
        uid: Uid,
        reason: Option<String>,
    ) -> Result<(), RunError> {
        let run = self.run;
        let Some(wanted) = work.wanted.get(&uid) else { return Ok(()) };
        // Exchange and others answer OK and send nothing for a message they cannot read.
        let reason = reason.unwrap_or_else(|| "the server answered without sending the message".into());
        let message = reference(mailbox, uid, wanted.generation);
        defer_or_park(run, message, &name(uid), wanted.attempt, None, &reason, run.site.clock.now()).await
    }

    /// One UID FETCH; takes what came whole out of `missing`.
    async fn fetch(
        &mut self,
        mailbox: &MailboxRow,
        uids: &UidSet,
        work: &Work,
        missing: &mut HashSet<Uid>,
    ) -> Result<Option<Refusal>, RunError> {
        let run = self.run;
        let items = FetchItems { internal_date: true, body: Some(Section::Whole), ..FetchItems::default() };
        let command = self.driver.machine().uid_fetch(uids, items);
        let mut collector: Option<Collector> = None;
        loop {
            match run.or_stop(self.driver.next()).await? {
                Event::BodyStart { section: Section::Whole, .. } => collector = Some(run.site.spool.collect(false)),
                Event::Body(octets) => {
                    if let Some(collector) = &mut collector {
                        run.tally.octets(run, octets.len() as u64);
                        collector.push(octets).await.map_err(RunError::Spool)?;
                    }
                }
                Event::Fetched(fetched) => {
                    let (Some(uid), Some(collector)) = (fetched.uid, collector.take()) else { continue };
                    let whole = matches!(fetched.body, Body::Octets(octets) if octets == collector.size_octets());
                    let Some(wanted) = work.wanted.get(&uid).filter(|_| whole && missing.remove(&uid)) else {
                        continue;
                    };
                    run.tally.retrieved(run);
                    let collected = collector.finish().await.map_err(RunError::Spool)?;
                    let arrived = fetched.internal_date.map(|date| UnixTime(date.unix_seconds));
                    let (key, on_server) = (Key::Uid(uid.number()), uid.number().to_string());
                    let (generation, attempt) = (wanted.generation, wanted.attempt);
                    let incoming =
                        Incoming::new(run, mailbox, key, generation, attempt, on_server, arrived, collected);
                    // A closed queue means that the delivery has failed; its error is the one that counts.
                    self.queue.send(Item::Message(Box::new(incoming))).await.map_err(|_| RunError::Stopped)?;
                }
                Event::Done { command: done, result } if done == command => {
                    return Ok(self.pause_wanted(result)?.err());
                }
                Event::UidValidityChanged(_) => {
                    return Err(self.refused(&mailbox.name, "it was renumbered while it was open".into(), true));
                }
                _ => {}
            }
        }
    }

    /// Waits until everything handed over is settled.
    async fn flush(&mut self) -> Result<(), RunError> {
        let (answer, settled) = oneshot::channel();
        self.queue.send(Item::Flush(answer)).await.map_err(|_| RunError::Stopped)?;
        self.run.or_stop(async { settled.await.map_err(|_| RunError::Stopped) }).await
    }

    /// After the deliveries: marks seen what is to be marked, and removes what is due.
    async fn finish_delivered(&mut self, mailbox: &MailboxRow, mut due: Vec<Uid>) -> Result<(), RunError> {
        let run = self.run;
        let account = &run.job.account;
        let done: Vec<Uid> = self
            .pipeline
            .take_done()
            .into_iter()
            .filter_map(|message| match message.key {
                Key::Uid(uid) if message.mailbox == mailbox.id => Uid::new(uid),
                _ => None,
            })
            .collect();
        if account.mark_seen && !done.is_empty() {
            let uids: UidSet = done.iter().copied().collect();
            let command = self.driver.machine().uid_store_add_flags(&uids, &flags(Flag::Seen));
            if let Err(refusal) = self.finish(command, |_| {}).await? {
                warn!(account = run.job.address(), %refusal, "messages cannot be marked seen");
            }
        }
        let at_once = match account.retention {
            Retention::Immediately => true,
            Retention::AfterDelivery(span) => span.is_zero(),
            Retention::Never | Retention::ByAge(_) => false,
        };
        if at_once && run.removals_allowed {
            due.extend(done);
        }
        due.sort_unstable();
        due.dedup();
        for batch in due.chunks(account.removals_per_session.max(1) as usize) {
            self.remove(mailbox, batch).await?;
        }
        Ok(())
    }

    /// Removes one batch: committed first, then asked for.
    async fn remove(&mut self, mailbox: &MailboxRow, uids: &[Uid]) -> Result<(), RunError> {
        let run = self.run;
        let names: Vec<(Key, u16)> = uids.iter().map(|uid| (Key::Uid(uid.number()), 0)).collect();
        let set: UidSet = uids.iter().copied().collect();
        run.site.store.mark(run.lease, mailbox.id, &names, Mark::Removing).await?;
        let result = match &run.job.account.removal {
            Removal::MarkSeen => {
                let command = self.driver.machine().uid_store_add_flags(&set, &flags(Flag::Seen));
                let result = self.finish(command, |_| {}).await?.map(|_| ());
                if result.is_ok() {
                    // Kept by policy: nothing is left to do for them.
                    run.site.store.mark(run.lease, mailbox.id, &names, Mark::Done).await?;
                    return Ok(());
                }
                result
            }
            Removal::Expunge => self.expunge(&set).await?,
            Removal::MoveTo(folder) => {
                let target =
                    MailboxName::new(folder).map_err(|error| self.refused(folder, error.to_string(), false))?;
                self.move_to(&set, &target).await?
            }
            Removal::Trash => {
                let target = self.trash().await?;
                self.move_to(&set, &target).await?
            }
        };
        match result {
            Ok(()) => run.tally.removed(run, uids.len() as u64),
            Err(refusal) => {
                warn!(account = run.job.address(), %refusal, "removals were refused; they are tried again later");
                let retry_at = run.site.clock.now().plus(Duration::from_secs(3600));
                run.site.store.mark(run.lease, mailbox.id, &names, Mark::Kept { retry_at }).await?;
            }
        }
        Ok(())
    }

    /// \Deleted and UID EXPUNGE. Without UIDPLUS a plain EXPUNGE would destroy what other clients have marked, so it is
    /// sent only when everything that is marked is ours.
    async fn expunge(&mut self, uids: &UidSet) -> Result<Result<(), Refusal>, RunError> {
        let command = self.driver.machine().uid_store_add_flags(uids, &flags(Flag::Deleted));
        if let Err(refusal) = self.finish(command, |_| {}).await? {
            return Ok(Err(refusal));
        }
        let capabilities = self.driver.machine().capabilities();
        if capabilities.has("UIDPLUS") || capabilities.has_rev2() {
            let command = self.driver.machine().uid_expunge(uids);
            return Ok(self.finish(command, |_| {}).await?.map(|_| ()));
        }
        let marked = UidSearch { with: flags(Flag::Deleted), ..UidSearch::all() };
        let command = self.driver.machine().uid_search(marked);
        let mut foreign = 0u64;
        let searched = self
            .finish(command, |event| {
                if let Event::Found(found) = event {
                    foreign += found.iter().filter(|uid| !uids.contains(*uid)).count() as u64;
                }
            })
            .await?;
        if let Err(refusal) = searched {
            return Ok(Err(refusal));
        }
        if foreign > 0 {
            warn!(
                account = self.run.job.address(),
                foreign,
                "messages are marked deleted but not expunged: the server has no UIDPLUS, and other clients have marked messages too"
            );
            return Ok(Ok(()));
        }
        let command = self.driver.machine().expunge();
        Ok(self.finish(command, |_| {}).await?.map(|_| ()))
    }

    /// MOVE, or COPY and the removal of the originals where the server has no MOVE.
    async fn move_to(&mut self, uids: &UidSet, target: &MailboxName) -> Result<Result<(), Refusal>, RunError> {
        let capabilities = self.driver.machine().capabilities();
        if capabilities.has("MOVE") || capabilities.has_rev2() {
            let command = self.driver.machine().uid_move(uids, target);
            return Ok(self.finish(command, |_| {}).await?.map(|_| ()));
        }
        let command = self.driver.machine().uid_copy(uids, target);
        if let Err(refusal) = self.finish(command, |_| {}).await? {
            return Ok(Err(refusal));
        }
        self.expunge(uids).await
    }

    /// The mailbox with the role \Trash.
    async fn trash(&mut self) -> Result<MailboxName, RunError> {
        let command = self.driver.machine().list_special_use("", "*");
        let mut trash = None;
        let listed = self
            .finish(command, |event| {
                if let Event::Listed(listed) = event
                    && listed.roles().any(|role| role == Role::Trash)
                {
                    trash.get_or_insert(listed.name);
                }
            })
            .await?;
        listed.map_err(|refusal| self.refused("\\Trash", refusal.to_string(), false))?;
        let missing = "no mailbox has the role \\Trash; use delete_by = \"move:FOLDER\"";
        trash.ok_or_else(|| self.refused("\\Trash", missing.into(), false))
    }
}

impl Work {
    fn see(&mut self, planner: &mut Planner, uid: Uid) {
        match planner.see(Listed::new(Key::Uid(uid.number()))) {
            Decision::Retrieve { attempt, generation } => {
                self.wanted.insert(uid, Wanted { generation, attempt });
            }
            Decision::Remove { .. } => self.due.push(uid),
            Decision::Compare { .. } | Decision::TooLarge { .. } | Decision::Ambiguous | Decision::Leave => {}
        }
    }
}

fn reference(mailbox: &MailboxRow, uid: Uid, generation: u16) -> MessageRef {
    MessageRef { mailbox: mailbox.id, key: Key::Uid(uid.number()), generation }
}

fn name(uid: Uid) -> MessageName {
    MessageName { on_server: uid.number().to_string(), ..MessageName::default() }
}

fn flags(flag: Flag) -> Flags {
    [flag].into_iter().collect()
}

/// Splits a set into sets of at most `most` messages.
fn chunks(uids: &UidSet, most: usize) -> Vec<UidSet> {
    let all: Vec<Uid> = uids.iter().collect();
    all.chunks(most).map(|chunk| chunk.iter().copied().collect()).collect()
}
