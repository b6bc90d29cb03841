//! One check of an IMAP account: mailbox by mailbox, by UID only.

mod ahead;
mod calm;
mod compare;
mod further;
mod kept;
mod line;
mod listing;
mod puller;
mod remove;
mod retrieve;
mod supply;
mod wants;

use std::time::Duration;

use connectord_account::{Check, Finding, Folder, Key, Removal, Retention, Scope, Start};
use connectord_imap::{
    CommandId, Completion, Event, Flag, Flags, MailboxName, Options, Refusal, Role, Selected, Session, Uid, UidSearch,
    UidSet,
};
use connectord_net::Driver;
use connectord_store::{MailboxRow, Mark, MessageName, MessageRef};
use tracing::{debug, warn};

use self::ahead::Ahead;
pub(crate) use self::kept::{Kept, Wake};
use self::line::{Access, Connection};
use self::listing::listing_is_due;
use self::retrieve::beside;
use crate::login::log_in;
use crate::mailbox::believe_absence;
use crate::pipeline::{Pipeline, Queue};
use crate::quiet::still_quiet;
use crate::run::Run;
use crate::trouble::RunError;
use crate::{Job, Progress};

/// How long the server may take to read LOGOUT.
const LOGOUT_WITHIN: Duration = Duration::from_secs(5);

/// Runs the check: retrieval and delivery side by side.
pub(crate) async fn check(run: &Run<'_>, kept: Option<&mut Option<Kept>>) -> Result<(), RunError> {
    let listens = run.job.account.check == Check::Idle && !run.mode.dry_run;
    let (mut driver, keep) = match kept {
        Some(kept) => (kept.take().map(Kept::into_connection), listens.then_some(kept)),
        None => (None, None),
    };
    let ahead = Ahead::new(run);
    let others = if driver.is_none() { ahead.open() } else { Vec::new() };
    let check = async {
        let mut connection = match driver.take() {
            Some(connection) => {
                run.take_place().await?;
                connection
            }
            None => connect(run).await?,
        };
        ahead.may_log_in();
        let pipeline = Pipeline::new(run);
        let listening = keep.is_some();
        let (connection_ref, ahead) = (&mut connection, &ahead);
        let changed = pipeline
            .beside(|queue| {
                let retrieved_from = Vec::new();
                let mut imap = ImapRun {
                    run,
                    pipeline: &pipeline,
                    queue,
                    driver: connection_ref,
                    ahead,
                    known: Vec::new(),
                    open: None,
                    listened: None,
                    retrieved_from,
                };
                async move {
                    imap.mailboxes().await?;
                    ahead.close().await;
                    if listening { imap.listen().await } else { Ok(false) }
                }
            })
            .await?;
        match keep {
            Some(keep) => *keep = Some(Kept::new(connection, changed)),
            None => log_out(run, connection).await,
        }
        Ok(())
    };
    beside(check, others).await
}

/// The first connection of a check.
async fn connect(run: &Run<'_>) -> Result<Connection, RunError> {
    run.tell(Progress::Connecting { server: &run.server });
    let driver = dial(run).await?;
    run.tell(Progress::LoggedIn { tls: driver.tls().map(|tls| tls.version) });
    run.take_place().await?;
    Ok(driver)
}

/// A connection that is logged in.
async fn dial(run: &Run<'_>) -> Result<Connection, RunError> {
    let mut driver = reach(run).await?;
    enter(run, &mut driver).await?;
    Ok(driver)
}

/// A connection that is not logged in.
async fn reach(run: &Run<'_>) -> Result<Connection, RunError> {
    run.or_stop(Driver::connect(&run.site.connector, &run.route(), session(run.job))).await
}

/// A session as this account has it.
pub(crate) fn session(job: &Job) -> Session {
    let mut options = Options::default();
    options.security = job.account.security;
    // NetEase (163.com, 126.com, 2021) opens no mailbox for who does not say who it is.
    options.id = vec![
        ("name".to_owned(), "connectord".to_owned()),
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    Session::new(options)
}

async fn enter(run: &Run<'_>, driver: &mut Connection) -> Result<(), RunError> {
    run.or_stop(log_in(driver, &run.site.logins, run.site.clock.now(), run.job)).await
}

/// LOGOUT, as a courtesy: everything is settled, and nothing depends on the answer (RFC 9051 §6.1.3), so it is not waited
/// for.
async fn log_out(run: &Run<'_>, mut driver: Connection) {
    driver.machine().logout();
    let said = tokio::time::timeout(LOGOUT_WITHIN, run.or_stop(driver.flush())).await;
    if !matches!(said, Ok(Ok(()))) {
        debug!(account = run.job.address(), "the server did not hear LOGOUT");
    }
    driver.shutdown().await;
}

struct ImapRun<'a> {
    run: &'a Run<'a>,
    pipeline: &'a Pipeline<'a>,
    queue: Queue,
    driver: &'a mut Connection,
    ahead: &'a Ahead<'a>,
    /// The mailboxes of this account as they were before this check.
    known: Vec<MailboxRow>,
    open: Option<Opened>,
    /// The first mailbox and its UIDNEXT when it was listed: there IDLE listens.
    listened: Option<(MailboxName, Option<Uid>)>,
    /// The mailboxes of this check.
    retrieved_from: Vec<MailboxName>,
}

/// The mailbox that is open.
struct Opened {
    name: MailboxName,
    /// How many messages it has now, as far as the server has told.
    present: u32,
    /// Messages came since it was opened.
    grown: bool,
}

impl Opened {
    fn notice(&mut self, event: &Event) {
        match event {
            // Servers tell the number also when it has not changed.
            Event::Exists(count) => {
                self.grown |= *count > self.present;
                self.present = *count;
            }
            Event::Expunged => self.present = self.present.saturating_sub(1),
            Event::Vanished(uids) => {
                let gone = u32::try_from(uids.len()).unwrap_or(u32::MAX);
                self.present = self.present.saturating_sub(gone);
            }
            _ => {}
        }
    }
}

impl ImapRun<'_> {
    /// All configured mailboxes; one that is refused does not keep the others from being checked.
    async fn mailboxes(&mut self) -> Result<(), RunError> {
        let mut first_error = None;
        let mut tell = |run: &Run<'_>, error: RunError| {
            warn!(account = run.job.address(), %error, "a mailbox cannot be checked");
            first_error.get_or_insert(error);
        };
        let mut names: Vec<MailboxName> = Vec::new();
        for folder in &self.run.job.account.folders {
            match self.resolve(folder).await {
                Ok(found) => found.into_iter().for_each(|name| {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }),
                Err(error @ RunError::Mailbox { .. }) => tell(self.run, error),
                Err(error) => return Err(error),
            }
        }
        let target = match self.removal_target(&names).await {
            Ok(target) => target,
            Err(error @ RunError::Mailbox { .. }) => {
                tell(self.run, error);
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(target) = target {
            // What was moved there was delivered, and would be delivered again as a new message.
            let before = names.len();
            names.retain(|name| *name != target);
            if names.len() < before {
                warn!(
                    account = self.run.job.address(), mailbox = %target,
                    "removed messages are moved to this mailbox, so nothing is retrieved from it"
                );
            }
        }
        self.retrieved_from.clone_from(&names);
        self.known = self.run.site.store.mailboxes(self.run.account.id).await?;
        for name in names {
            match self.mailbox(&name).await {
                Err(error @ RunError::Mailbox { .. }) => tell(self.run, error),
                other => other?,
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// The mailboxes that a name, a pattern or a role stands for.
    async fn resolve(&mut self, folder: &Folder) -> Result<Vec<MailboxName>, RunError> {
        let (pattern, role) = match folder {
            Folder::Name(name) => return Ok(vec![self.named(name)?]),
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
        Ok(found)
    }

    fn named(&self, name: &str) -> Result<MailboxName, RunError> {
        MailboxName::new(name).map_err(|error| self.refused(name, error.to_string(), false))
    }

    fn refused(&self, mailbox: &str, refusal: String, temporary: bool) -> RunError {
        line::refused(self.run, mailbox, refusal, temporary)
    }

    /// Where removed messages go, if one of these mailboxes could be it.
    async fn removal_target(&mut self, names: &[MailboxName]) -> Result<Option<MailboxName>, RunError> {
        let account = &self.run.job.account;
        match &account.removal {
            _ if account.retention == Retention::Never => Ok(None),
            Removal::MoveTo(folder) => Ok(Some(self.named(folder)?)),
            Removal::Trash if *names != [MailboxName::inbox()] => self.trash().await.map(Some),
            Removal::Trash | Removal::Expunge | Removal::MarkSeen => Ok(None),
        }
    }

    /// Reads events until a command is finished, and shows the others to `see`.
    async fn finish(
        &mut self,
        command: CommandId,
        mut see: impl FnMut(Event),
    ) -> Result<Result<Completion, Refusal>, RunError> {
        let open = &mut self.open;
        line::finish(self.run, self.driver, command, |event| {
            if let Some(open) = open {
                open.notice(&event);
            }
            see(event);
        })
        .await
    }

    /// Opens a mailbox, and searches it in the same breath where a listing is due in any case.
    async fn open(&mut self, name: &MailboxName, text: &str) -> Result<(Selected, Option<CommandId>), RunError> {
        let last = self.known.iter().filter(|row| row.name == text).max_by_key(|row| row.last_listed);
        let search = last.is_none_or(|row| listing_is_due(self.run, row)).then(UidSearch::all);
        let access = self.access();
        self.open = None;
        let (selected, searching) = line::open(self.run, self.driver, name, access, search).await?;
        self.open = Some(Opened { name: name.clone(), present: selected.exists, grown: false });
        Ok((selected, searching))
    }

    async fn mailbox(&mut self, name: &MailboxName) -> Result<(), RunError> {
        let run = self.run;
        let text = name.to_string();
        let (selected, searching) = self.open(name, &text).await?;
        if selected.no_uid_sticky {
            return Err(self.refused(&text, "its UIDs change with every session (UIDNOTSTICKY)".into(), false));
        }
        self.listened.get_or_insert_with(|| (name.clone(), selected.uid_next));
        let validity = selected.uid_validity.number();
        let mut mailbox = run.site.store.open_mailbox(run.lease, &text, validity).await?;
        run.opened(&mailbox);
        let predecessors = self.predecessors(&mailbox).await?;
        let rules = run.rules();
        let whole = searching.is_some() || !predecessors.is_empty() || listing_is_due(run, &mailbox);
        let quiet = still_quiet(&mailbox, &rules, run.now)
            .filter(|_| !whole && selected.uid_next.map(Uid::number) >= Some(mailbox.uid_next));
        if quiet.is_some() && selected.uid_next.map(Uid::number) == Some(mailbox.uid_next) {
            run.tally.listed(run, &text, selected.exists.into(), 0, 0);
            return Ok(());
        }
        mailbox.quiet = None;
        let ledger = match quiet {
            Some(_) => None,
            None => Some(run.site.store.packed_ledger(mailbox.id, false).await?),
        };
        let (planner, mut work) = self.list(&mailbox, &selected, searching, whole, ledger).await?;

        if mailbox.first_listed.is_none() && run.job.account.start == Start::FromNowOn && predecessors.is_empty() {
            return self.baseline(&mut mailbox, &selected, work).await;
        }
        if !predecessors.is_empty() && !work.wanted.is_empty() {
            self.recognise(&mailbox, &predecessors, &mut work).await?;
        } else if predecessors.iter().any(|(_, entries)| !entries.is_empty()) && mailbox.first_listed.is_none() {
            listing::renumbered(run, &mailbox, &predecessors, 0, 0);
        }
        self.announced_sizes(&mailbox, &mut work).await?;
        run.tally.listed(run, &text, work.messages, work.wanted.len(), (work.due.len() + work.doubtful.len()) as u64);
        if run.mode.dry_run {
            return Ok(());
        }
        let before = mailbox.clone();
        if work.complete {
            if !work.returned.is_empty() {
                let kept = Mark::Kept { retry_at: run.now };
                run.site.store.mark(run.lease, mailbox.id, &work.returned, kept).await?;
            }
            let gone = match planner.finish(Scope::Complete) {
                Finding::Nothing => Vec::new(),
                Finding::Gone(gone) => {
                    mailbox.absence = None;
                    gone
                }
                Finding::MassAbsence { gone, known } => believe_absence(run, &mut mailbox, gone, known),
            };
            mailbox.last_listed = Some(run.now);
            run.site.store.record_listing(run.lease, &mailbox, &gone, Mark::Done).await?;
        }
        self.compare(&mailbox, &mut work).await?;
        self.retrieve(name, &before, &selected, planner.ledger(), &work).await?;
        self.queue.flush(run).await?;
        // Everything below was looked at and has its row: what could not be had is pending.
        let reached = selected.uid_next.filter(|_| work.covers_all).map_or(mailbox.uid_next, Uid::number);
        if reached != mailbox.uid_next || work.complete && mailbox.first_listed.is_none() {
            mailbox.uid_next = reached;
            if work.complete {
                mailbox.first_listed.get_or_insert(run.now);
            }
            run.site.store.record_listing(run.lease, &mailbox, &[], Mark::Done).await?;
        }
        let due = std::mem::take(&mut work.due);
        self.finish_delivered(&mailbox, due).await?;
        mailbox.quiet = self.calm(&mailbox, &selected, &planner, &work, quiet).await?;
        if mailbox.quiet.is_some() {
            run.remember_listing(&mailbox);
        }
        Ok(())
    }

    /// SELECT, also where nothing will be changed: Courier (5.0.13, 2026) keeps the UIDs that it gives out only if the mailbox
    /// was SELECTed. After EXAMINE the next message to come may get the UID of one that was delivered, and never be seen.
    fn access(&self) -> Access {
        if self.run.mode.dry_run { Access::Read } else { Access::Write }
    }

    /// Sees to it that the first mailbox is open, where IDLE is to listen; whether something came since it was listed, of
    /// which IDLE would not tell.
    async fn listen(&mut self) -> Result<bool, RunError> {
        let Some((name, listed)) = self.listened.take() else { return Ok(false) };
        if self.open.as_ref().is_none_or(|open| open.name != name) {
            let (selected, _) = line::open(self.run, self.driver, &name, self.access(), None).await?;
            return Ok(selected.uid_next != listed);
        }
        // What came while it was open is told at the end of a command (RFC 9051 §5.2).
        let noop = self.driver.machine().noop();
        let _ = self.finish(noop, |_| {}).await?;
        Ok(self.open.as_ref().is_some_and(|open| open.grown))
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

/// Splits messages into sets of at most `most`.
fn chunks(uids: &[Uid], most: usize) -> Vec<UidSet> {
    uids.chunks(most).map(|chunk| chunk.iter().copied().collect()).collect()
}
