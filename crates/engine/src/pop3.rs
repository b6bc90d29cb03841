//! One check of a POP3 account: list, plan, retrieve, remove; in several sessions when there is much to remove.

mod known;
mod lines;
mod listing;
mod remove;
mod retrieve;

use connectord_account::{Decision, Finding, Key, Ledger, Planner, Rules, Scope, Start, Verify};
use connectord_net::Driver;
use connectord_pop3::{InitialResponse, MessageNumber, Options, Session, Uidl};
use connectord_store::{MailboxRow, Mark, MessageName, MessageRef, Quiet};
use sha2::{Digest, Sha256};

use self::known::Known;
use self::listing::{Listing, MANY_NEW};
use crate::login::log_in;
use crate::mailbox::{Wanted, believe_absence, removes_at_once, turn};
use crate::pipeline::{Pipeline, Queue};
use crate::quiet::{quiet, still_quiet};
use crate::run::Run;
use crate::trouble::RunError;
use crate::{Change, ChangeKind, Job, Progress};

/// Sessions in one check, at most; what is left then waits for the next check.
const MAX_SESSIONS: usize = 200;

/// With up to so many new messages it is looked whether they are known ones under new names, as soon as known ones are
/// missing.
const FEW: usize = 100;

/// Runs the check: retrieval and delivery side by side.
pub(crate) async fn check(run: &Run<'_>) -> Result<(), RunError> {
    let pipeline = Pipeline::new(run);
    for session in 0..MAX_SESSIONS {
        if session > 0 {
            // What the last session left unfinished may be listed in this one.
            run.read_unfinished().await?;
            run.read_troubled().await?;
        }
        let more = pipeline
            .beside(|queue| {
                let session = Pop3Run { run, pipeline: &pipeline, queue };
                async move { session.session().await }
            })
            .await?;
        if more == More::No {
            break;
        }
    }
    Ok(())
}

/// A session as this account has it.
pub(crate) fn session(job: &Job) -> Session {
    let mut options = Options::default();
    options.security = job.account.security;
    if !job.account.initial_response {
        options.initial_response = InitialResponse::Separately;
    }
    Session::new(options)
}

/// Whether another session is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

struct Pop3Run<'a> {
    run: &'a Run<'a>,
    pipeline: &'a Pipeline<'a>,
    queue: Queue,
}

type Connection = Driver<Session>;

/// A message to look at or retrieve.
#[derive(Clone, Debug)]
struct Candidate {
    number: MessageNumber,
    /// How it is named; `None` while only its content can name it.
    key: Option<Key>,
    uidl: Option<Uidl>,
    wanted: Wanted,
    /// It was gone and its name is listed again.
    compare: bool,
    /// By the server's word.
    size_octets: Option<u64>,
}

/// A message to remove.
#[derive(Clone, Copy, Debug)]
struct Due {
    number: MessageNumber,
    key: Key,
    generation: u16,
    verify: Verify,
    /// Its unique-id is one that servers use again.
    short: bool,
}

impl Pop3Run<'_> {
    async fn session(&self) -> Result<More, RunError> {
        let run = self.run;
        let recall =
            async { Ok(run.site.store.open_mailbox(run.lease, "", 0).await?).inspect(|mailbox| run.opened(mailbox)) };
        let (mut driver, mut mailbox) = tokio::try_join!(self.connect(), recall)?;
        let rules = Rules { keys_recur: mailbox.keys_recur, ..run.rules() };
        let quiet = still_quiet(&mailbox, &rules, run.now);
        let before = mailbox.clone();
        mailbox.quiet = None;
        let (planner, mut listing) = self.list(&mut driver, &before, quiet, rules).await?;

        if run.job.account.start == Start::FromNowOn && mailbox.first_listed.is_none() {
            return self.baseline(driver, &mut mailbox, listing).await;
        }
        let mut known = self.known(&mailbox, &planner, rules, &mut listing).await?;
        let adopted = self.recognise(&mut driver, &mailbox, &planner, &mut known, &mut listing).await?;
        self.verify(&mut driver, &mailbox, &mut known, &mut listing).await?;

        let new = listing.candidates.len() as u64;
        run.tally.listed(run, "", listing.messages, new, listing.due.len() as u64);
        if run.mode.dry_run {
            self.leave(driver).await;
            return Ok(More::No);
        }
        // Until the first listing has been dealt with, the destination looks before it writes.
        let fresh = mailbox.clone();
        mailbox.keys_recur |= listing.doubles || !listing.returned.is_empty();
        let unnamed = listing.candidates.iter().any(|candidate| candidate.key.is_none());
        let mut gone = false;
        if !unnamed {
            gone = self.record_listing(&before, &mut mailbox, &planner, &known, &listing, adopted).await?;
        }

        let limit = run.job.account.removals_per_session.max(1) as usize;
        let mut more = if listing.put_off || listing.left { More::Yes } else { More::No };
        let ledger = planner.ledger();
        listing.candidates.sort_by_key(|candidate| turn(candidate.key.and_then(|key| ledger.get(key))));
        if removes_at_once(run) && listing.candidates.len() > limit {
            listing.candidates.truncate(limit);
            more = More::Yes;
        }
        if listing.due.len() > limit {
            listing.due.truncate(limit);
            more = More::Yes;
        }
        let retrieved = self.retrieve(&mut driver, &fresh, &mut known, &listing.candidates).await?;
        self.queue.flush(run).await?;
        if unnamed && more == More::No && retrieved.all_came {
            // Only now it is known which messages these were.
            self.record_listing(&before, &mut mailbox, &planner, &known, &listing, adopted).await?;
        }
        if listing.complete && more == More::No && mailbox.first_listed.is_none() {
            mailbox.first_listed = Some(run.now);
            run.site.store.record_listing(run.lease, &mailbox, &[], Mark::Done).await?;
        }
        if more == More::No && !unnamed && !gone && adopted == 0 && retrieved.due.is_empty() {
            mailbox.quiet = self.quiet(&mailbox, &planner, rules, &listing).await?;
        }
        let removed = self.remove(driver, &mut mailbox, &listing.due, &retrieved).await?;
        if listing.complete {
            run.remember_listing(&mailbox);
        }
        // Without progress another session would do the same again.
        let came = listing.left && !retrieved.numbers.is_empty();
        Ok(if removed == 0 && !came { More::No } else { more })
    }

    /// Whether nothing is to be done about this listing as long as it repeats itself; looked at when all that was new has
    /// been dealt with.
    async fn quiet(
        &self,
        mailbox: &MailboxRow,
        planner: &Planner,
        rules: Rules,
        listing: &Listing,
    ) -> Result<Option<Quiet>, RunError> {
        let run = self.run;
        let Some((digest, messages)) = listing.digest else { return Ok(None) };
        let odd = !listing.complete || listing.doubles || !listing.returned.is_empty() || !listing.due.is_empty();
        if odd || mailbox.absence.is_some() || removes_at_once(run) && !listing.candidates.is_empty() {
            return Ok(None);
        }
        let keys: Vec<Key> = listing.candidates.iter().filter_map(|candidate| candidate.key).collect();
        if keys.len() > MANY_NEW {
            return Ok(None);
        }
        let mut until = listing.quiet_until;
        if !keys.is_empty() {
            // What came of those that were new.
            let entries = Ledger::new(run.site.store.entries(mailbox.id, &keys).await?);
            if entries.len() < keys.len() || entries.entries().any(|entry| planner.decide(&entry) != Decision::Leave) {
                return Ok(None);
            }
            until = until.into_iter().chain(entries.entries().filter_map(|entry| planner.due_at(&entry))).min();
        }
        Ok(Some(quiet(messages, digest, until, &rules, run.now)))
    }

    async fn connect(&self) -> Result<Connection, RunError> {
        let run = self.run;
        run.tell(Progress::Connecting { server: &run.server });
        let route = run.route();
        let connected = Driver::connect(&run.site.connector, &route, session(run.job));
        let mut driver = run.or_stop(connected).await?;
        run.or_stop(log_in(&mut driver, &run.site.logins, run.site.clock.now(), run.job)).await?;
        run.tell(Progress::LoggedIn { tls: driver.tls().map(|tls| tls.version) });
        run.take_place().await?;
        Ok(driver)
    }

    /// Commits what the listing says about messages that are gone, or back; whether any are.
    async fn record_listing(
        &self,
        before: &MailboxRow,
        mailbox: &mut MailboxRow,
        planner: &Planner,
        known: &Known,
        listing: &Listing,
        adopted: usize,
    ) -> Result<bool, RunError> {
        let run = self.run;
        if !listing.returned.is_empty() {
            let kept = Mark::Kept { retry_at: run.now };
            run.site.store.mark(run.lease, mailbox.id, &listing.returned, kept).await?;
        }
        let missing = |gone: Vec<(Key, u16)>| -> Vec<(Key, u16)> {
            gone.into_iter().filter(|(key, _)| !known.is_used(*key)).collect()
        };
        let scope = if listing.complete { Scope::Complete } else { Scope::Partial };
        let gone = match planner.finish(scope) {
            Finding::Nothing => Vec::new(),
            Finding::Gone(gone) => {
                mailbox.absence = None;
                missing(gone)
            }
            Finding::MassAbsence { gone, known: count } => {
                let gone = missing(gone);
                if adopted > 0 && gone.len() * 2 <= count || gone.is_empty() {
                    mailbox.absence = None;
                    gone
                } else {
                    believe_absence(run, mailbox, gone, count)
                }
            }
        };
        if listing.complete {
            mailbox.last_listed = Some(run.now);
        }
        if gone.is_empty() && (before.absence, before.keys_recur) == (mailbox.absence, mailbox.keys_recur) {
            // Nothing but the time; it is remembered with the end of the check.
            return Ok(false);
        }
        run.site.store.record_listing(run.lease, mailbox, &gone, Mark::Done).await?;
        Ok(true)
    }
}

/// Says that the server gives known messages other unique-ids.
fn other_ids(run: &Run<'_>, known: usize, missing: usize, recognised: usize, new: usize) {
    let known = known as u64;
    let (missing, recognised, new) = (missing.saturating_sub(recognised) as u64, recognised as u64, new as u64);
    run.tally
        .change(run, Change { kind: ChangeKind::OtherIds, mailbox: String::new(), known, missing, recognised, new });
}

impl Candidate {
    fn named(number: MessageNumber, key: Key, uidl: Option<Uidl>) -> Self {
        Self { key: Some(key), uidl, ..Self::unnamed(number) }
    }

    fn unnamed(number: MessageNumber) -> Self {
        Self { number, key: None, uidl: None, wanted: Wanted::new(0), compare: false, size_octets: None }
    }

    fn name(&self) -> MessageName {
        let on_server = self.uidl.as_ref().map_or_else(|| self.number.to_string(), Uidl::to_string);
        MessageName { on_server, ..MessageName::default() }
    }

    fn message(&self, mailbox: &MailboxRow) -> Option<MessageRef> {
        self.key.map(|key| MessageRef { mailbox: mailbox.id, key, generation: self.wanted.generation })
    }
}

fn key_of(octets: &[u8]) -> Key {
    let digest = Sha256::digest(octets);
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    Key::Digest(key)
}
