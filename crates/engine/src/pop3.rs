//! One check of a POP3 account: list, plan, retrieve, remove; in several sessions when there is much to remove.

use std::collections::{HashMap, HashSet};

use connectord_account::{Decision, Entry, Finding, Key, Ledger, Listed, Oversize, Planner, Retention, Scope, Start, State};
use connectord_mail::{Fingerprint, Head, UnixTime};
use connectord_net::Driver;
use connectord_pop3::{Event, InitialResponse, MessageNumber, Options, Retrieval, Session, Uidl};
use connectord_store::{Absence, MailboxRow, Mark, MessageName, MessageRef};
use connectord_wire::Escaped;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::Progress;
use crate::login::log_in;
use crate::pipeline::{Incoming, Item, Pipeline, QUEUE};
use crate::run::Run;
use crate::spool::Collector;
use crate::trouble::{MAX_ATTEMPTS, RunError};

/// Sessions in one check, at most; what is left then waits for the next check.
const MAX_SESSIONS: usize = 200;

/// Runs the check: retrieval and delivery side by side.
pub(crate) async fn check(run: &Run<'_>) -> Result<(), RunError> {
    let pipeline = Pipeline::new(run);
    for _ in 0..MAX_SESSIONS {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let retrieval = async {
            // The sender is dropped with the session, which ends the delivery.
            let mut session = Pop3Run { run, pipeline: &pipeline, queue: sender };
            session.session().await
        };
        let (retrieved, delivered) = tokio::join!(retrieval, pipeline.deliver(receiver));
        delivered?;
        if retrieved? == More::No {
            break;
        }
    }
    Ok(())
}

/// Whether another session is needed.
#[derive(PartialEq, Eq)]
enum More {
    Yes,
    No,
}

struct Pop3Run<'a> {
    run: &'a Run<'a>,
    pipeline: &'a Pipeline<'a>,
    queue: mpsc::Sender<Item>,
}

type Connection = Driver<Session>;

/// A message to look at or retrieve.
#[derive(Clone, Debug)]
struct Candidate {
    number: MessageNumber,
    /// How it is named; `None` while only its content can name it.
    key: Option<Key>,
    uidl: Option<Uidl>,
    generation: u16,
    attempt: u32,
    /// It was gone and its name is listed again.
    compare: bool,
    size_octets: Option<u64>,
}

/// A message to remove.
#[derive(Clone, Copy, Debug)]
struct Due {
    number: MessageNumber,
    key: Key,
    generation: u16,
    verify: bool,
}

/// What the listing says.
#[derive(Default)]
struct Listing {
    messages: u64,
    candidates: Vec<Candidate>,
    due: Vec<Due>,
    /// The terminator came, every line could be read, and the count is the server's own.
    complete: bool,
    /// All keys listed, for "only what comes from now on".
    keys: Vec<(Key, u16)>,
}

impl Pop3Run<'_> {
    async fn session(&mut self) -> Result<More, RunError> {
        let run = self.run;
        run.tell(Progress::Connecting { server: &run.server });
        let mut options = Options::default();
        options.security = run.job.account.security;
        if !run.job.account.initial_response {
            options.initial_response = InitialResponse::Separately;
        }
        let machine = Session::new(options);
        let mut driver = run.or_stop(Driver::connect(&run.site.connector, &run.job.route, machine)).await?;
        run.or_stop(log_in(&mut driver, run.job)).await?;
        run.tell(Progress::LoggedIn { tls: driver.tls().map(|tls| tls.version) });

        let mut mailbox = run.site.store.open_mailbox(run.lease, "", 0).await?;
        let entries = run.site.store.ledger(mailbox.id).await?;
        let now = run.site.clock.now();
        let rules = connectord_account::Rules { keys_recur: mailbox.keys_recur, ..run.rules() };
        let mut planner = Planner::new(Ledger::new(entries.clone()), rules, now);
        let mut listing = self.list(&mut driver, &mut planner).await?;

        if run.job.account.start == Start::FromNowOn && mailbox.first_listed.is_none() {
            return self.baseline(driver, &mut mailbox, listing, now).await;
        }
        let mut known = Known::new(&entries, planner.missing());
        let unseen = known.unlisted.len();
        let active = entries.iter().filter(|entry| entry.state != State::Done).count();
        let renumbered = unseen > 0 && unseen * 2 > active && !listing.candidates.is_empty();
        let unnamed = listing.candidates.iter().any(|candidate| candidate.key.is_none() || candidate.compare);
        let adopted =
            if renumbered || unnamed { self.recognise(&mut driver, &mailbox, &mut known, &mut listing).await? } else { 0 };
        self.verify(&mut driver, &entries, &mut listing).await?;

        let new = listing.candidates.len() as u64;
        run.tally.listed(run, "", listing.messages, new, listing.due.len() as u64);
        if run.mode.dry_run {
            self.quit(driver).await?;
            return Ok(More::No);
        }
        let fresh = mailbox.clone();
        self.record_listing(&mut mailbox, &planner, &known, &listing, adopted, now).await?;

        let limit = run.job.account.removals_per_session.max(1) as usize;
        let removes_at_once = run.job.account.retention == Retention::Immediately && run.removals_allowed;
        let mut more = More::No;
        if removes_at_once && listing.candidates.len() > limit {
            listing.candidates.truncate(limit);
            more = More::Yes;
        }
        if listing.due.len() > limit {
            listing.due.truncate(limit);
            more = More::Yes;
        }
        let retrieved = self.retrieve(&mut driver, &fresh, &mut known, &listing.candidates).await?;
        self.flush().await?;
        let removed = self.remove(driver, &mut mailbox, &listing.due, &retrieved).await?;
        // Without progress another session would do the same again.
        Ok(if removed == 0 { More::No } else { more })
    }

    /// UIDL, and STAT where its count is needed; LIST only if sizes decide.
    async fn list(&mut self, driver: &mut Connection, planner: &mut Planner) -> Result<Listing, RunError> {
        let run = self.run;
        let with_sizes = run.job.account.max_message_octets.is_some();
        driver.machine().stat();
        driver.machine().uidl();
        if with_sizes {
            driver.machine().list();
        }
        let mut listing = Listing { complete: true, ..Listing::default() };
        let mut announced = None;
        let mut first_seen: HashMap<Key, usize> = HashMap::new();
        let mut doubles: HashSet<Key> = HashSet::new();
        let mut sizes: HashMap<MessageNumber, u64> = HashMap::new();
        loop {
            match run.or_stop(driver.next()).await? {
                Event::Stat { messages, .. } => announced = Some(messages),
                Event::StatRefused(refusal) => {
                    warn!(account = run.job.address(), %refusal, "STAT refused");
                }
                Event::UniqueId { number, uidl } => {
                    listing.messages += 1;
                    let key = key_of(uidl.octets());
                    match planner.see(Listed::new(key)) {
                        Decision::Retrieve { attempt, generation } => {
                            if let Some(earlier) = first_seen.insert(key, listing.candidates.len()) {
                                // Twice in one listing: neither is named by it.
                                let earlier: &mut Candidate = &mut listing.candidates[earlier];
                                earlier.key = None;
                                listing.candidates.push(Candidate::unnamed(number));
                                continue;
                            }
                            listing.keys.push((key, generation));
                            let mut candidate = Candidate::named(number, key, uidl);
                            (candidate.attempt, candidate.generation) = (attempt, generation);
                            listing.candidates.push(candidate);
                        }
                        Decision::Compare { generation } => {
                            let mut candidate = Candidate::named(number, key, uidl);
                            (candidate.compare, candidate.generation) = (true, generation);
                            listing.candidates.push(candidate);
                        }
                        Decision::Remove { generation, verify } => {
                            // The shorter an id, the sooner a server uses it again.
                            let short = uidl.octets().len() < 10 && uidl.octets().iter().all(u8::is_ascii_digit);
                            listing.due.push(Due { number, key, generation, verify: verify || short });
                        }
                        Decision::Ambiguous => {
                            doubles.insert(key);
                            listing.candidates.push(Candidate::unnamed(number));
                        }
                        Decision::TooLarge { .. } | Decision::Leave => {}
                    }
                }
                Event::UniqueIdUnreadable { number, line } => {
                    warn!(account = run.job.address(), line = %Escaped(&line), "a unique-id cannot be read");
                    listing.messages += 1;
                    match number {
                        Some(number) => listing.candidates.push(Candidate::unnamed(number)),
                        None => listing.complete = false,
                    }
                }
                Event::UniqueIdsEnd { .. } if !with_sizes => break,
                Event::UniqueIdsRefused(_) => {
                    // No UIDL at all: every message is named by its content.
                    let count = announced.unwrap_or(0);
                    listing.messages = u64::from(count);
                    listing.complete = announced.is_some();
                    listing.candidates = (1..=count).filter_map(MessageNumber::new).map(Candidate::unnamed).collect();
                    if !with_sizes {
                        break;
                    }
                }
                Event::Size { number, octets } => {
                    sizes.insert(number, octets);
                }
                Event::SizesEnd { .. } | Event::SizesRefused(_) => break,
                _ => {}
            }
        }
        // RFC 1939 §5: STAT counts what the listing names.
        listing.complete &= announced.is_none_or(|count| u64::from(count) == listing.messages);
        for due in &mut listing.due {
            due.verify |= doubles.contains(&due.key);
        }
        for candidate in &mut listing.candidates {
            candidate.size_octets = sizes.get(&candidate.number).copied();
        }
        Ok(listing)
    }

    /// "Only what comes from now on": one complete listing, one commit.
    async fn baseline(
        &mut self,
        driver: Connection,
        mailbox: &mut MailboxRow,
        listing: Listing,
        now: UnixTime,
    ) -> Result<More, RunError> {
        let run = self.run;
        run.tally.listed(run, "", listing.messages, 0, 0);
        let refused = |refusal: &str| RunError::Mailbox {
            server: run.server.clone(),
            mailbox: "INBOX".into(),
            refusal: refusal.into(),
            temporary: false,
        };
        if listing.candidates.iter().any(|candidate| candidate.key.is_none()) {
            return Err(refused("it has no unique-ids, which start = \"now\" needs"));
        }
        if !listing.complete {
            return Err(refused("its listing is not complete"));
        }
        if !run.mode.dry_run {
            mailbox.first_listed = Some(now);
            mailbox.last_listed = Some(now);
            run.site.store.record_listing(run.lease, mailbox, &listing.keys, Mark::Skipped).await?;
        }
        self.quit(driver).await?;
        Ok(More::No)
    }

    /// Compares the headers of messages whose names say nothing with those of known ones, before anything is retrieved.
    async fn recognise(
        &mut self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        known: &mut Known,
        listing: &mut Listing,
    ) -> Result<usize, RunError> {
        let run = self.run;
        let numbers: Vec<MessageNumber> = listing.candidates.iter().map(|candidate| candidate.number).collect();
        let heads = self.heads(driver, &numbers).await?;
        let rules = run.rules();
        let now = run.site.clock.now();
        let mut adopted = Vec::new();
        let mut kept = Vec::new();
        for mut candidate in std::mem::take(&mut listing.candidates) {
            let Some(fingerprint) = heads.get(&candidate.number) else {
                kept.push(candidate);
                continue;
            };
            if candidate.compare {
                let key = candidate.key.expect("only named ones are compared");
                if known.is(key, fingerprint) {
                    continue;
                }
                candidate.compare = false;
                candidate.generation = candidate.generation.saturating_add(1);
                kept.push(candidate);
                continue;
            }
            let Some(entry) = known.take_matching(fingerprint) else {
                kept.push(candidate);
                continue;
            };
            match candidate.key {
                Some(key) => {
                    let from = MessageRef { mailbox: mailbox.id, key: entry.key, generation: entry.generation };
                    let to = MessageRef { mailbox: mailbox.id, key, generation: candidate.generation };
                    adopted.push((from, to, entry.fingerprint));
                }
                None => {
                    // Known by its content: what is due for it, is due now, and was verified just now.
                    let mut planner = Planner::new(Ledger::new(vec![entry]), rules, now);
                    match planner.see(Listed::new(entry.key)) {
                        Decision::Retrieve { .. } => kept.push(candidate),
                        Decision::Remove { generation, .. } => {
                            listing.due.push(Due { number: candidate.number, key: entry.key, generation, verify: false });
                        }
                        _ => {}
                    }
                }
            }
        }
        listing.candidates = kept;
        if !adopted.is_empty() && !run.mode.dry_run {
            warn!(
                account = run.job.address(),
                recognised = adopted.len(),
                "the server gives other unique-ids to messages that are known; they were recognised by their headers"
            );
            run.site.store.adopt(run.lease, &adopted).await?;
        }
        Ok(adopted.len())
    }

    /// Compares headers before removals whose names may mean other messages by now.
    async fn verify(
        &mut self,
        driver: &mut Connection,
        entries: &[Entry],
        listing: &mut Listing,
    ) -> Result<(), RunError> {
        let doubtful: Vec<MessageNumber> =
            listing.due.iter().filter(|due| due.verify).map(|due| due.number).collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        let heads = self.heads(driver, &doubtful).await?;
        let known: HashMap<(Key, u16), Fingerprint> =
            entries.iter().map(|entry| ((entry.key, entry.generation), entry.fingerprint)).collect();
        let mut due = Vec::new();
        for candidate in std::mem::take(&mut listing.due) {
            if !candidate.verify {
                due.push(candidate);
                continue;
            }
            let expected = known.get(&(candidate.key, candidate.generation));
            match (heads.get(&candidate.number), expected) {
                (Some(found), Some(expected)) if found.same_message(expected) => due.push(candidate),
                // Another message under a name that was used before: it is new.
                (Some(_), Some(_)) => listing.candidates.push(Candidate {
                    number: candidate.number,
                    key: Some(candidate.key),
                    uidl: None,
                    generation: candidate.generation.saturating_add(1),
                    attempt: 1,
                    compare: false,
                    size_octets: None,
                }),
                // Without TOP it cannot be told: nothing is removed on a guess.
                _ => {}
            }
        }
        listing.due = due;
        Ok(())
    }

    /// The fingerprints of messages by TOP; those the server refuses are missing.
    async fn heads(
        &mut self,
        driver: &mut Connection,
        numbers: &[MessageNumber],
    ) -> Result<HashMap<MessageNumber, Fingerprint>, RunError> {
        let run = self.run;
        for number in numbers {
            driver.machine().top(*number, 0);
        }
        let mut heads = HashMap::new();
        let mut left = numbers.len();
        let mut head = Vec::new();
        while left > 0 {
            match run.or_stop(driver.next()).await? {
                Event::BodyStart { .. } => head.clear(),
                Event::Body(octets) => {
                    let room = connectord_mail::head::MAX_HEAD.saturating_sub(head.len());
                    head.extend_from_slice(&octets[..octets.len().min(room)]);
                }
                Event::BodyEnd { number, kind: Retrieval::Top, .. } => {
                    heads.insert(number, Fingerprint::new(Head::of(&head), 0));
                    left -= 1;
                }
                Event::RetrieveRefused { kind: Retrieval::Top, .. } => left -= 1,
                _ => {}
            }
        }
        Ok(heads)
    }

    /// Commits what the listing says about messages that are gone.
    async fn record_listing(
        &mut self,
        mailbox: &mut MailboxRow,
        planner: &Planner,
        known: &Known,
        listing: &Listing,
        adopted: usize,
        now: UnixTime,
    ) -> Result<(), RunError> {
        let run = self.run;
        if !listing.complete {
            return Ok(());
        }
        let missing = |gone: Vec<(Key, u16)>| -> Vec<(Key, u16)> {
            gone.into_iter().filter(|(key, _)| !known.used.contains(key)).collect()
        };
        let gone = match planner.finish(Scope::Complete) {
            Finding::Nothing => Vec::new(),
            Finding::Gone(gone) => {
                mailbox.absence = None;
                missing(gone)
            }
            Finding::MassAbsence { gone, known: count } => {
                let gone = missing(gone);
                if adopted > 0 && gone.len() * 2 <= count {
                    mailbox.absence = None;
                    gone
                } else {
                    believe_absence(run, mailbox, gone, count, now)
                }
            }
        };
        mailbox.first_listed.get_or_insert(now);
        mailbox.last_listed = Some(now);
        run.site.store.record_listing(run.lease, mailbox, &gone, Mark::Done).await?;
        Ok(())
    }

    /// Retrieves messages and hands them to the delivery; says which number each had.
    async fn retrieve(
        &mut self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        known: &mut Known,
        candidates: &[Candidate],
    ) -> Result<HashMap<(Key, u16), MessageNumber>, RunError> {
        let run = self.run;
        let mut waiting: HashMap<MessageNumber, &Candidate> = HashMap::new();
        for candidate in candidates {
            if self.too_large(mailbox, candidate).await? {
                continue;
            }
            driver.machine().retr(candidate.number);
            waiting.insert(candidate.number, candidate);
        }
        let mut numbers = HashMap::new();
        let mut collector: Option<Collector> = None;
        while !waiting.is_empty() {
            match run.or_stop(driver.next()).await? {
                Event::BodyStart { number, kind: Retrieval::Whole, .. } => {
                    let unnamed = waiting.get(&number).is_none_or(|candidate| candidate.key.is_none());
                    collector = Some(run.site.spool.collect(unnamed));
                }
                Event::Body(octets) => {
                    if let Some(collector) = &mut collector {
                        run.tally.octets(run, octets.len() as u64);
                        collector.push(octets).await.map_err(RunError::Spool)?;
                    }
                }
                Event::BodyEnd { number, kind: Retrieval::Whole, .. } => {
                    let (Some(collector), Some(candidate)) = (collector.take(), waiting.remove(&number)) else {
                        continue;
                    };
                    run.tally.retrieved(run);
                    if let Some(name) = self.hand_over(mailbox, known, candidate, collector).await? {
                        numbers.insert(name, number);
                    }
                }
                Event::RetrieveRefused { number, kind: Retrieval::Whole, refusal } => {
                    if let Some(candidate) = waiting.remove(&number) {
                        self.put_off(mailbox, candidate, &refusal.to_string()).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(numbers)
    }

    /// Parks or skips a message over the limit.
    async fn too_large(&self, mailbox: &MailboxRow, candidate: &Candidate) -> Result<bool, RunError> {
        let run = self.run;
        let (Some(limit), Some(size)) = (run.job.account.max_message_octets, candidate.size_octets) else {
            return Ok(false);
        };
        let Some(key) = candidate.key.filter(|_| size > limit) else { return Ok(false) };
        let now = run.site.clock.now();
        match run.job.account.oversize {
            Oversize::Skip => {
                let skipped = [(key, candidate.generation)];
                run.site.store.mark(run.lease, mailbox.id, &skipped, Mark::Skipped).await?;
            }
            Oversize::Park => {
                let message = MessageRef { mailbox: mailbox.id, key, generation: candidate.generation };
                let reason = format!("message of {size} octets exceeds the limit of {limit}");
                run.site.store.park(run.lease, message, &candidate.name(), size, &reason, now).await?;
                run.tally.parked(run, &reason);
            }
        }
        Ok(true)
    }

    /// Gives a whole message to the delivery, unless its content shows that it is known.
    async fn hand_over(
        &mut self,
        mailbox: &MailboxRow,
        known: &mut Known,
        candidate: &Candidate,
        collector: Collector,
    ) -> Result<Option<(Key, u16)>, RunError> {
        let collected = collector.finish().await.map_err(RunError::Spool)?;
        let mut generation = candidate.generation;
        let key = match (candidate.key, collected.digest) {
            (Some(key), _) => key,
            (None, digest) => match known.name_content(&digest.unwrap_or_default()) {
                Some(key) => key,
                None => return Ok(None),
            },
        };
        if candidate.compare {
            // TOP was refused, so only now it can be told.
            let found = Fingerprint::new(Head::of(&collected.head), collected.body.size_octets());
            if known.is(key, &found) {
                return Ok(None);
            }
            generation = generation.saturating_add(1);
        }
        let on_server = candidate.uidl.as_ref().map_or_else(|| candidate.number.to_string(), Uidl::to_string);
        let attempt = candidate.attempt;
        let incoming =
            Incoming::new(self.run, mailbox, key, generation, attempt, on_server, None, collected);
        // A closed queue means that the delivery has failed; its error is the one that counts.
        self.queue.send(Item::Message(Box::new(incoming))).await.map_err(|_| RunError::Stopped)?;
        Ok(Some((key, generation)))
    }

    /// A message that the server does not give: later again, then parked.
    async fn put_off(&self, mailbox: &MailboxRow, candidate: &Candidate, refusal: &str) -> Result<(), RunError> {
        let run = self.run;
        let now = run.site.clock.now();
        let Some(key) = candidate.key else {
            run.tally.deferred(run);
            warn!(account = run.job.address(), refusal, "a message cannot be retrieved");
            return Ok(());
        };
        let message = MessageRef { mailbox: mailbox.id, key, generation: candidate.generation };
        defer_or_park(run, message, &candidate.name(), candidate.attempt, candidate.size_octets, refusal, now).await
    }

    /// Waits until everything handed over is settled.
    async fn flush(&mut self) -> Result<(), RunError> {
        let (answer, settled) = oneshot::channel();
        self.queue.send(Item::Flush(answer)).await.map_err(|_| RunError::Stopped)?;
        self.run.or_stop(async { settled.await.map_err(|_| RunError::Stopped) }).await
    }

    /// Removes what is due: committed, marked by DELE, and asked for by QUIT. Says how many the server confirmed.
    async fn remove(
        &mut self,
        mut driver: Connection,
        mailbox: &mut MailboxRow,
        due: &[Due],
        retrieved: &HashMap<(Key, u16), MessageNumber>,
    ) -> Result<u64, RunError> {
        let run = self.run;
        let now = run.site.clock.now();
        let mut removals: HashMap<MessageNumber, (Key, u16)> =
            due.iter().map(|due| (due.number, (due.key, due.generation))).collect();
        let at_once = match run.job.account.retention {
            Retention::Immediately => true,
            Retention::AfterDelivery(span) => span.is_zero(),
            Retention::Never | Retention::ByAge(_) => false,
        };
        for message in self.pipeline.take_done() {
            let name = (message.key, message.generation);
            if let Some(number) = retrieved.get(&name).filter(|_| at_once && run.removals_allowed) {
                removals.insert(*number, name);
            }
        }
        if removals.is_empty() {
            self.quit(driver).await?;
            return Ok(0);
        }
        let names: Vec<(Key, u16)> = removals.values().copied().collect();
        run.site.store.mark(run.lease, mailbox.id, &names, Mark::Removing).await?;
        for number in removals.keys() {
            driver.machine().dele(*number);
        }
        let (mut marked, mut refused) = (0, Vec::new());
        while marked + refused.len() < removals.len() {
            match run.or_stop(driver.next()).await? {
                Event::Deleted { .. } => marked += 1,
                Event::DeleteRefused { number, refusal } => {
                    warn!(account = run.job.address(), %refusal, "a removal was refused; it is tried again later");
                    refused.extend(removals.get(&number).copied());
                }
                _ => {}
            }
        }
        if !refused.is_empty() {
            let retry_at = now.plus(std::time::Duration::from_secs(3600));
            run.site.store.mark(run.lease, mailbox.id, &refused, Mark::Kept { retry_at }).await?;
        }
        let confirmed = self.quit(driver).await;
        match confirmed {
            Ok(true) => {
                run.tally.removed(run, marked as u64);
                Ok(marked as u64)
            }
            Ok(false) => {
                self.distrust_keys(mailbox).await?;
                Ok(0)
            }
            Err(error) => {
                self.distrust_keys(mailbox).await?;
                Err(error)
            }
        }
    }

    /// The answer to a removal was lost or was no: later removals compare headers first.
    async fn distrust_keys(&self, mailbox: &mut MailboxRow) -> Result<(), RunError> {
        mailbox.keys_recur = true;
        let run = self.run;
        Ok(run.site.store.record_listing(run.lease, mailbox, &[], Mark::Done).await?)
    }

    /// QUIT; whether the server said yes.
    async fn quit(&self, mut driver: Connection) -> Result<bool, RunError> {
        driver.machine().quit();
        let run = self.run;
        loop {
            match run.or_stop(driver.next()).await {
                Ok(Event::Goodbye { refusal: None }) => break,
                Ok(Event::Goodbye { refusal: Some(refusal) }) => {
                    warn!(account = run.job.address(), %refusal, "QUIT was refused; the next listing tells what is gone");
                    driver.shutdown().await;
                    return Ok(false);
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        driver.shutdown().await;
        Ok(true)
    }
}

/// A mass absence is believed the third time, a day later.
pub(crate) fn believe_absence(
    run: &Run<'_>,
    mailbox: &mut MailboxRow,
    gone: Vec<(Key, u16)>,
    known: usize,
    now: UnixTime,
) -> Vec<(Key, u16)> {
    let absence = mailbox.absence.map_or(Absence { times: 1, since: now }, |seen| Absence {
        times: seen.times.saturating_add(1),
        since: seen.since,
    });
    if absence.times >= 3 && now.since(absence.since) >= std::time::Duration::from_secs(86_400) {
        mailbox.absence = None;
        return gone;
    }
    warn!(
        account = run.job.address(),
        mailbox = %Escaped::text(&mailbox.name), missing = gone.len(), known,
        "most known messages are missing from the listing; nothing is concluded until it has been so for a day"
    );
    mailbox.absence = Some(absence);
    Vec::new()
}

/// A message that cannot be retrieved: later again with back-off, parked after too many attempts.
pub(crate) async fn defer_or_park(
    run: &Run<'_>,
    message: MessageRef,
    name: &MessageName,
    attempt: u32,
    size_octets: Option<u64>,
    reason: &str,
    now: UnixTime,
) -> Result<(), RunError> {
    if attempt >= MAX_ATTEMPTS {
        let reason = format!("{reason} (attempt {attempt})");
        run.site.store.park(run.lease, message, name, size_octets.unwrap_or(0), &reason, now).await?;
        run.tally.parked(run, &reason);
        return Ok(());
    }
    let retry_at = now.plus(connectord_account::backoff(attempt, crate::site::random()));
    run.site.store.defer(run.lease, message, name, retry_at, reason, now).await?;
    run.tally.deferred(run);
    warn!(account = run.job.address(), uid = name.on_server, reason, attempt, "a message cannot be retrieved yet");
    Ok(())
}

impl Candidate {
    fn named(number: MessageNumber, key: Key, uidl: Uidl) -> Self {
        Self { key: Some(key), uidl: Some(uidl), ..Self::unnamed(number) }
    }

    fn unnamed(number: MessageNumber) -> Self {
        Self { number, key: None, uidl: None, generation: 0, attempt: 1, compare: false, size_octets: None }
    }

    fn name(&self) -> MessageName {
        let on_server = self.uidl.as_ref().map_or_else(|| self.number.to_string(), Uidl::to_string);
        MessageName { on_server, ..MessageName::default() }
    }
}

fn key_of(octets: &[u8]) -> Key {
    let digest = Sha256::digest(octets);
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    Key::Digest(key)
}

/// What is known of messages that the listing does not name: each row is used once.
struct Known {
    unlisted: Vec<Entry>,
    all: HashMap<Key, Entry>,
    used: HashSet<Key>,
    /// How often each content was seen in this session.
    contents: HashMap<[u8; 32], u32>,
}

impl Known {
    fn new<'a>(entries: &[Entry], unlisted: impl Iterator<Item = &'a Entry>) -> Self {
        Self {
            unlisted: unlisted.copied().collect(),
            all: entries.iter().map(|entry| (entry.key, *entry)).collect(),
            used: HashSet::new(),
            contents: HashMap::new(),
        }
    }

    /// Takes a known message with this fingerprint out.
    fn take_matching(&mut self, fingerprint: &Fingerprint) -> Option<Entry> {
        let at = self.unlisted.iter().position(|entry| {
            entry.fingerprint.same_message(fingerprint) && !self.used.contains(&entry.key)
        })?;
        let entry = self.unlisted.swap_remove(at);
        self.used.insert(entry.key);
        Some(entry)
    }

    /// Whether the message known as `key` has this fingerprint.
    fn is(&self, key: Key, fingerprint: &Fingerprint) -> bool {
        self.all.get(&key).is_some_and(|entry| entry.fingerprint.same_message(fingerprint))
    }

    /// Names a message by its content; two identical messages are two messages. `None` when it is known already.
    fn name_content(&mut self, digest: &[u8; 32]) -> Option<Key> {
        let occurrence = self.contents.entry(*digest).or_insert(0);
        let mut named = digest.to_vec();
        named.extend_from_slice(&occurrence.to_be_bytes());
        *occurrence += 1;
        let key = key_of(&named);
        self.used.insert(key);
        match self.all.get(&key) {
            Some(entry) if entry.state != State::Pending => None,
            _ => Some(key),
        }
    }
}
