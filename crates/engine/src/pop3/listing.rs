//! UIDL, and STAT and LIST where they are of use: what is there, and what to do with it.

use connectord_account::{Decision, Key, Ledger, Planner, Rules, Start, Verify};
use connectord_mail::UnixTime;
use connectord_pop3::{Event, MessageNumber, Refusal, ResponseCode};
use connectord_store::{MailboxRow, Mark, MessageRef, Quiet};
use connectord_wire::Escaped;
use tracing::warn;

use super::lines::{Lines, MOST_NEW, MOST_PASSED_OVER, Sorted};
use super::{Candidate, Connection, Due, More, Pop3Run};
use crate::mailbox::Wanted;
use crate::run::Run;
use crate::trouble::RunError;

/// Up to so many new messages are asked for their sizes one by one.
const ONE_BY_ONE: usize = 50;

/// With more new messages than this after a listing that repeats itself, what is known is read as a whole.
pub(super) const MANY_NEW: usize = 10_000;

/// Lines of one listing that cannot be read and are logged.
const LOGGED: u64 = 10;

/// What the listing says.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) messages: u64,
    pub(super) candidates: Vec<Candidate>,
    pub(super) due: Vec<Due>,
    /// The terminator came, every line could be read, and where anything is missing the count is the server's own.
    pub(super) complete: bool,
    /// A unique-id was named more than once.
    pub(super) doubles: bool,
    /// There is more to compare than one session does.
    pub(super) put_off: bool,
    /// There are more new messages than one session deals with.
    pub(super) left: bool,
    /// All keys listed that were not known, for "only what comes from now on".
    keys: Vec<(Key, u16)>,
    /// Known messages that had been missing from an earlier listing.
    pub(super) returned: Vec<(Key, u16)>,
    /// Names the whole listing and counts it, when nothing is odd about it.
    pub(super) digest: Option<([u8; 16], u32)>,
    /// When something may be due about the known messages about which nothing is to be done now; `None`: never.
    pub(super) quiet_until: Option<UnixTime>,
}

/// What came in answer to UIDL.
#[derive(Default)]
struct Told {
    /// By STAT.
    announced: Option<u32>,
    messages: u64,
    /// Lines that do not even say which message they are about.
    unreadable: u64,
    /// Lines with a unique-id that cannot be read.
    odd: u64,
}

impl Pop3Run<'_> {
    /// Asks what is there, and compares it with what is known: with the last listing first, when nothing was due about
    /// that, and with the ledger only when it is another.
    pub(super) async fn list(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        quiet: Option<Quiet>,
        rules: Rules,
    ) -> Result<(Planner, Listing), RunError> {
        let run = self.run;
        let baseline = run.job.account.start == Start::FromNowOn && mailbox.first_listed.is_none();
        let sorted = || Sorted::new(if baseline { MOST_PASSED_OVER } else { MOST_NEW });
        let (mut lines, mut sorted, mut known, begin) = (Lines::new(quiet), sorted(), None, sorted);
        let mut told = self.ask(driver, mailbox, &mut lines, &mut sorted, &mut known).await?;
        let mut quiet = quiet.filter(|_| lines.repeats() && known.is_none());
        if quiet.is_some() {
            // All that is known and not gone was in that listing. What is new must be new indeed.
            let keys = lines.keys();
            if keys.len() > MANY_NEW || !run.site.store.entries(mailbox.id, &keys).await?.is_empty() {
                quiet = None;
            }
        }
        if quiet.is_none() && lines.forgot() {
            (lines, sorted, known) = (Lines::new(None), begin(), None);
            told = self.ask(driver, mailbox, &mut lines, &mut sorted, &mut known).await?;
        }
        let mut ledger = match (known, quiet) {
            (Some(ledger), _) => ledger,
            (None, Some(_)) => Ledger::without_fingerprints(),
            (None, None) => run.site.store.packed_ledger(mailbox.id, false).await?,
        };
        let digest = lines.digest();
        lines.sort(&mut ledger, &mut sorted);
        drop(lines);
        sorted.end(&mut ledger);
        let planner = Planner::new(ledger, rules, run.now);
        let mut listing = Listing { messages: told.messages, digest, ..Listing::default() };
        listing.quiet_until = quiet.and_then(|quiet| quiet.until);
        listing.complete = told.unreadable == 0 && !sorted.ambiguous;
        listing.left = sorted.left;
        listing.plan(run, mailbox, &planner, sorted, baseline);
        if listing.complete && told.announced.is_none() && planner.missing().next().is_some() {
            // RFC 1939 §5: STAT counts what the listing names. Only to say that something is gone is it of use.
            told.announced = self.count(driver).await?;
            listing.complete = told.announced.is_some();
        }
        listing.complete &= told.announced.is_none_or(|announced| u64::from(announced) == listing.messages);
        self.sizes(driver, &mut listing).await?;
        Ok((planner, listing))
    }

    /// UIDL, with STAT before it when the listing is the first.
    async fn ask(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        lines: &mut Lines,
        sorted: &mut Sorted,
        known: &mut Option<Ledger>,
    ) -> Result<Told, RunError> {
        let run = self.run;
        let mut told = Told::default();
        let counts = mailbox.first_listed.is_none();
        if counts {
            driver.machine().stat();
        }
        driver.machine().uidl();
        loop {
            match run.or_stop(driver.next()).await? {
                Event::Stat { messages, .. } => told.announced = Some(messages),
                Event::StatRefused(refusal) | Event::UniqueIdsRefused(refusal) if will_pass(&refusal) => {
                    return Err(self.not_now(&refusal));
                }
                Event::StatRefused(refusal) => {
                    warn!(account = run.job.address(), %refusal, "STAT refused");
                    // Nothing may be concluded: it counts as another number.
                    told.unreadable += 1;
                }
                Event::UniqueId { number, uidl } => {
                    told.messages += 1;
                    lines.push(number, Some(&uidl));
                }
                Event::UniqueIdUnreadable { number, line } => {
                    if told.odd < LOGGED {
                        warn!(account = run.job.address(), line = %Escaped(&line), "a unique-id cannot be read");
                    }
                    told.odd += 1;
                    told.messages += 1;
                    match number {
                        Some(number) => lines.push(number, None),
                        None => {
                            told.unreadable += 1;
                            lines.unreadable();
                        }
                    }
                }
                Event::UniqueIdsEnd { .. } => return Ok(told),
                Event::UniqueIdsRefused(_) => {
                    // No UIDL at all: every message is named by its content.
                    let counted = match told.announced {
                        None if !counts => self.count(driver).await?,
                        announced => announced,
                    };
                    told.announced = counted;
                    told.messages = counted.unwrap_or(0).into();
                    // One more than one session deals with says that there are more.
                    (1..=counted.unwrap_or(0))
                        .filter_map(MessageNumber::new)
                        .take(MOST_PASSED_OVER + 1)
                        .for_each(|number| lines.push(number, None));
                    return Ok(told);
                }
                _ => {}
            }
            if lines.are_many() && lines.may_repeat() {
                lines.forget();
            } else if lines.are_many() {
                let ledger = match known.take() {
                    Some(ledger) => ledger,
                    None => run.site.store.packed_ledger(mailbox.id, false).await?,
                };
                lines.sort(known.insert(ledger), sorted);
            }
        }
    }

    /// How many messages there are, by STAT; `None` when it is refused.
    async fn count(&self, driver: &mut Connection) -> Result<Option<u32>, RunError> {
        driver.machine().stat();
        loop {
            match self.run.or_stop(driver.next()).await? {
                Event::Stat { messages, .. } => return Ok(Some(messages)),
                Event::StatRefused(refusal) if will_pass(&refusal) => return Err(self.not_now(&refusal)),
                Event::StatRefused(refusal) => {
                    warn!(account = self.run.job.address(), %refusal, "STAT refused");
                    return Ok(None);
                }
                _ => {}
            }
        }
    }

    fn not_now(&self, refusal: &Refusal) -> RunError {
        RunError::Mailbox {
            server: self.run.server.clone(),
            mailbox: "INBOX".into(),
            refusal: refusal.to_string(),
            temporary: true,
        }
    }

    /// The sizes of what may be retrieved, where a limit decides about it.
    async fn sizes(&self, driver: &mut Connection, listing: &mut Listing) -> Result<(), RunError> {
        let run = self.run;
        if run.job.account.max_message_octets.is_none() || listing.candidates.is_empty() {
            return Ok(());
        }
        let mut left = 1;
        if listing.candidates.len() <= ONE_BY_ONE {
            left = listing.candidates.len();
            listing.candidates.iter().for_each(|candidate| driver.machine().list_one(candidate.number));
        } else {
            driver.machine().list();
        }
        // In the order of their numbers.
        listing.candidates.sort_by_key(|candidate| candidate.number);
        while left > 0 {
            match run.or_stop(driver.next()).await? {
                Event::Size { number, octets } => {
                    let found = listing.candidates.binary_search_by_key(&number, |candidate| candidate.number);
                    if let Some(candidate) = found.ok().and_then(|at| listing.candidates.get_mut(at)) {
                        candidate.size_octets = Some(octets);
                    }
                    left -= usize::from(listing.candidates.len() <= ONE_BY_ONE);
                }
                Event::SizeRefused { .. } => left -= 1,
                Event::SizeUnreadable { .. } => left -= usize::from(listing.candidates.len() <= ONE_BY_ONE),
                Event::SizesEnd { .. } | Event::SizesRefused(_) => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }

    /// "Only what comes from now on": one complete listing, one commit.
    pub(super) async fn baseline(
        &self,
        driver: Connection,
        mailbox: &mut MailboxRow,
        listing: Listing,
    ) -> Result<More, RunError> {
        let run = self.run;
        run.tally.listed(run, "", listing.messages, 0, 0);
        let refused = |refusal: &str| RunError::Mailbox {
            server: run.server.clone(),
            mailbox: "INBOX".into(),
            refusal: refusal.into(),
            temporary: false,
        };
        if listing.left {
            let most = format!("it names more than {MOST_PASSED_OVER} messages, more than start = \"now\" passes over");
            return Err(refused(&most));
        }
        if listing.candidates.iter().any(|candidate| candidate.key.is_none()) {
            return Err(refused("it has no unique-ids, which start = \"now\" needs"));
        }
        if !listing.complete {
            return Err(refused("its listing is not complete"));
        }
        if !run.mode.dry_run {
            mailbox.first_listed = Some(run.now);
            mailbox.last_listed = Some(run.now);
            run.site.store.record_listing(run.lease, mailbox, &listing.keys, Mark::Skipped).await?;
        }
        self.leave(driver).await;
        Ok(More::No)
    }
}

impl Listing {
    fn plan(&mut self, run: &Run<'_>, mailbox: &MailboxRow, planner: &Planner, mut sorted: Sorted, baseline: bool) {
        self.doubles = sorted.doubles;
        self.candidates.extend(std::mem::take(&mut sorted.unnamed).into_iter().map(Candidate::unnamed));
        for new in std::mem::take(&mut sorted.new) {
            if baseline {
                self.keys.push((new.key, 0));
                continue;
            }
            let wanted = Wanted::new(0);
            self.candidates.push(Candidate { wanted, ..Candidate::named(new.number, new.key, Some(new.uidl)) });
        }
        for (number, entry) in planner.ledger().named() {
            let Some(number) = MessageNumber::new(number) else { continue };
            let key = entry.key;
            let mut candidate = || Candidate::named(number, key, sorted.uidls.remove(&number));
            match planner.decide(&entry) {
                Decision::Retrieve { attempt, generation } => {
                    self.keys.push((key, generation));
                    let wanted = Wanted::of(Some(entry), generation, attempt);
                    if !run.waits_for_room(MessageRef { mailbox: mailbox.id, key, generation }) {
                        self.candidates.push(Candidate { wanted, ..candidate() });
                    }
                }
                Decision::Compare { generation } => {
                    self.candidates.push(Candidate { compare: true, wanted: Wanted::new(generation), ..candidate() });
                }
                Decision::Remove { generation, verify } => {
                    let short = sorted.is_short(number);
                    let verify = if short { verify.max(Verify::Header) } else { verify };
                    self.due.push(Due { number, key, generation, verify, short });
                }
                Decision::Ambiguous | Decision::TooLarge { .. } | Decision::Leave => {
                    let due = planner.due_at(&entry);
                    self.quiet_until = self.quiet_until.into_iter().chain(due).min();
                }
            }
        }
        self.candidates.sort_by_key(|candidate| candidate.number);
        self.due.sort_by_key(|due| due.number);
    }
}

/// Whether the server says that it refuses for now, and not that it knows no such command (RFC 2449 §8, RFC 3206 §4).
fn will_pass(refusal: &Refusal) -> bool {
    use ResponseCode::{InUse, LoginDelay, SysPerm, SysTemp};
    matches!(refusal.code, Some(InUse | LoginDelay(_) | SysTemp | SysPerm))
}
