//! UIDL, STAT and LIST: what is there, and what to do with it.

use std::collections::HashMap;

use connectord_account::{Decision, Key, Listed, Planner, Verify};
use connectord_pop3::{Event, MessageNumber, Refusal, ResponseCode, Uidl};
use connectord_store::{MailboxRow, Mark, MessageRef};
use connectord_wire::Escaped;
use tracing::warn;

use super::{Candidate, Connection, Due, More, Pop3Run, key_of};
use crate::mailbox::Wanted;
use crate::run::Run;
use crate::trouble::RunError;

/// What the listing says.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) messages: u64,
    pub(super) candidates: Vec<Candidate>,
    pub(super) due: Vec<Due>,
    /// The terminator came, every line could be read, and the count is the server's own.
    pub(super) complete: bool,
    /// A unique-id was named more than once.
    pub(super) doubles: bool,
    /// There is more to compare than one session does.
    pub(super) put_off: bool,
    /// All keys listed that were not known, for "only what comes from now on".
    keys: Vec<(Key, u16)>,
    /// Known messages that had been missing from an earlier listing.
    pub(super) returned: Vec<(Key, u16)>,
}

/// The lines as they came.
#[derive(Default)]
struct Lines {
    lines: Vec<(MessageNumber, Option<Uidl>)>,
    sizes: HashMap<MessageNumber, u64>,
    announced: Option<u32>,
    /// Lines that do not even say which message they are about.
    unreadable: u64,
}

impl Pop3Run<'_> {
    /// UIDL, and STAT for its count; LIST only if sizes decide.
    pub(super) async fn list(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        planner: &mut Planner,
    ) -> Result<Listing, RunError> {
        let lines = self.ask(driver).await?;
        let mut listing = Listing { messages: lines.lines.len() as u64 + lines.unreadable, ..Listing::default() };
        // RFC 1939 §5: STAT counts what the listing names.
        listing.complete = lines.unreadable == 0 && lines.announced.map(u64::from) == Some(listing.messages);

        let mut of_number: HashMap<MessageNumber, u32> = HashMap::new();
        let mut of_key: HashMap<Key, u32> = HashMap::new();
        for (number, uidl) in &lines.lines {
            *of_number.entry(*number).or_default() += 1;
            if let Some(uidl) = uidl {
                *of_key.entry(key_of(uidl.octets())).or_default() += 1;
            }
        }
        for (number, uidl) in lines.lines {
            let size_octets = lines.sizes.get(&number).copied();
            match of_number.get_mut(&number) {
                Some(1) => {}
                Some(0) | None => continue,
                Some(times) => {
                    // Named twice by number: neither line says what it is called.
                    *times = 0;
                    listing.complete = false;
                    listing.candidates.push(Candidate { size_octets, ..Candidate::unnamed(number) });
                    continue;
                }
            }
            let Some(uidl) = uidl else {
                listing.candidates.push(Candidate { size_octets, ..Candidate::unnamed(number) });
                continue;
            };
            let key = key_of(uidl.octets());
            if of_key[&key] > 1 {
                // Twice in one listing: none of them is named by it, a known one neither.
                listing.doubles = true;
                listing.candidates.push(Candidate { size_octets, ..Candidate::unnamed(number) });
                continue;
            }
            let candidate = Candidate { size_octets, ..Candidate::named(number, key, uidl) };
            listing.plan(self.run, mailbox, planner, key, candidate);
        }
        Ok(listing)
    }

    async fn ask(&self, driver: &mut Connection) -> Result<Lines, RunError> {
        let run = self.run;
        let with_sizes = run.job.account.max_message_octets.is_some();
        driver.machine().stat();
        driver.machine().uidl();
        if with_sizes {
            driver.machine().list();
        }
        let mut lines = Lines::default();
        loop {
            match run.or_stop(driver.next()).await? {
                Event::Stat { messages, .. } => lines.announced = Some(messages),
                Event::StatRefused(refusal) | Event::UniqueIdsRefused(refusal) if will_pass(&refusal) => {
                    return Err(RunError::Mailbox {
                        server: run.server.clone(),
                        mailbox: "INBOX".into(),
                        refusal: refusal.to_string(),
                        temporary: true,
                    });
                }
                Event::StatRefused(refusal) => {
                    warn!(account = run.job.address(), %refusal, "STAT refused");
                }
                Event::UniqueId { number, uidl } => lines.lines.push((number, Some(uidl))),
                Event::UniqueIdUnreadable { number, line } => {
                    warn!(account = run.job.address(), line = %Escaped(&line), "a unique-id cannot be read");
                    match number {
                        Some(number) => lines.lines.push((number, None)),
                        None => lines.unreadable += 1,
                    }
                }
                Event::UniqueIdsEnd { .. } if !with_sizes => return Ok(lines),
                Event::UniqueIdsRefused(_) => {
                    // No UIDL at all: every message is named by its content.
                    let count = lines.announced.unwrap_or(0);
                    lines.lines = (1..=count).filter_map(MessageNumber::new).map(|number| (number, None)).collect();
                    if !with_sizes {
                        return Ok(lines);
                    }
                }
                Event::Size { number, octets } => {
                    lines.sizes.insert(number, octets);
                }
                Event::SizesEnd { .. } | Event::SizesRefused(_) => return Ok(lines),
                _ => {}
            }
        }
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
        self.quit(driver).await?;
        Ok(More::No)
    }
}

/// The shorter an id, the sooner a server uses it again.
pub(super) fn is_short(uidl: &Uidl) -> bool {
    uidl.octets().len() < 10 && uidl.octets().iter().all(u8::is_ascii_digit)
}

impl Listing {
    fn plan(&mut self, run: &Run<'_>, mailbox: &MailboxRow, planner: &mut Planner, key: Key, mut candidate: Candidate) {
        match planner.see(Listed::new(key)) {
            Decision::Retrieve { attempt, generation } => {
                let known = planner.ledger().get(key);
                self.keys.push((key, generation));
                candidate.wanted = Wanted::of(known, generation, attempt);
                if known.is_none() || !run.waits_for_room(MessageRef { mailbox: mailbox.id, key, generation }) {
                    self.candidates.push(candidate);
                }
            }
            Decision::Compare { generation } => {
                candidate.compare = true;
                candidate.wanted.generation = generation;
                self.candidates.push(candidate);
            }
            Decision::Remove { generation, verify } => {
                let doubtful = candidate.uidl.as_ref().is_some_and(is_short);
                let verify = if doubtful { verify.max(Verify::Header) } else { verify };
                self.due.push(Due { number: candidate.number, key, generation, verify, short: doubtful });
            }
            Decision::Ambiguous | Decision::TooLarge { .. } | Decision::Leave => {}
        }
    }
}

/// Whether the server says that it refuses for now, and not that it knows no such command (RFC 2449 §8, RFC 3206 §4).
fn will_pass(refusal: &Refusal) -> bool {
    use ResponseCode::{InUse, LoginDelay, SysPerm, SysTemp};
    matches!(refusal.code, Some(InUse | LoginDelay(_) | SysTemp | SysPerm))
}
