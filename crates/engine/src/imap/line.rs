//! One connection: commands and their ends, and the opening of a mailbox on it.

use connectord_imap::{CommandId, Completion, Event, MailboxName, Refusal, ResponseCode, Selected, Session, UidSearch};
use connectord_net::Driver;
use tracing::warn;

use crate::run::Run;
use crate::trouble::RunError;

pub(super) type Connection = Driver<Session>;

/// How a mailbox is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// SELECT.
    Write,
    /// EXAMINE.
    Read,
}

/// Reads events until a command is finished, and shows the others to `see`.
pub(super) async fn finish(
    run: &Run<'_>,
    driver: &mut Connection,
    command: CommandId,
    mut see: impl FnMut(Event),
) -> Result<Result<Completion, Refusal>, RunError> {
    loop {
        match run.or_stop(driver.next()).await? {
            Event::Done { command: done, result } if done == command => return pause_wanted(run, result),
            Event::Alert(text) => {
                let text = connectord_wire::Escaped::text(&text).to_string();
                warn!(account = run.job.address(), text, "the server wants this to be read");
            }
            // Every UID we know of it is void.
            Event::UidValidityChanged(_) => return Err(renumbered(run)),
            event => see(event),
        }
    }
}

/// Opens a mailbox, and sends a search of it in the same breath where one is wanted whatever the mailbox turns out to
/// be.
pub(super) async fn open(
    run: &Run<'_>,
    driver: &mut Connection,
    name: &MailboxName,
    access: Access,
    search: Option<UidSearch>,
) -> Result<(Selected, Option<CommandId>), RunError> {
    let text = name.to_string();
    let command = match access {
        Access::Write => driver.machine().select(name),
        Access::Read => driver.machine().examine(name),
    };
    let search = search.map(|search| driver.machine().uid_search(search));
    let mut selected = None;
    let result = finish(run, driver, command, |event| {
        if let Event::Selected(found) = event {
            selected = Some(found);
        }
    })
    .await?;
    let error = match (result, selected) {
        (Ok(_), Some(selected)) => return Ok((selected, search)),
        (Ok(_), None) => refused(run, &text, "the server did not say what it opened".into(), true),
        (Err(refusal), _) => {
            let temporary =
                matches!(refusal.code, Some(ResponseCode::Unavailable | ResponseCode::InUse | ResponseCode::ServerBug));
            refused(run, &text, refusal.to_string(), temporary)
        }
    };
    if let Some(search) = search {
        // It is refused as well: nothing is open. Another mailbox may be opened once it has been.
        let _ = finish(run, driver, search, |_| {}).await?;
    }
    Err(error)
}

pub(super) fn refused(run: &Run<'_>, mailbox: &str, refusal: String, temporary: bool) -> RunError {
    RunError::Mailbox { server: run.server.clone(), mailbox: mailbox.to_owned(), refusal, temporary }
}

pub(super) fn renumbered(run: &Run<'_>) -> RunError {
    refused(run, "the open mailbox", "it was renumbered while it was open".into(), true)
}

/// A refusal that asks for a pause concerns the account, not the command.
pub(super) fn pause_wanted(
    run: &Run<'_>,
    result: Result<Completion, Refusal>,
) -> Result<Result<Completion, Refusal>, RunError> {
    if let Err(refusal) = &result {
        let wait = crate::trouble::suggested_pause(&refusal.text);
        let throttled =
            matches!(refusal.code, Some(ResponseCode::OverQuota | ResponseCode::Limit | ResponseCode::Throttled));
        if wait.is_some() || throttled {
            let server = run.server.clone();
            return Err(RunError::Throttled { server, refusal: refusal.to_string(), wait });
        }
    }
    Ok(result)
}
