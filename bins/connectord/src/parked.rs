//! `connectord parked`: messages in trouble.

use std::path::PathBuf;

use connectord_account::{Key, State};
use connectord_config::build::{BuildError, open_state, state_directory};
use connectord_engine::{Clock, Exit};
use connectord_mail::UnixTime;
use connectord_store::{
    AccountId, MailboxId, MessageRef, NoTrail, ParkedDelivery, ParkedRow, Recorder, Step, Store, StoreError,
    TrailEntry, TrailKey, TrailName, TrailStep, What,
};
use connectord_wire::Escaped;
use serde_json::{Value, json};
use tracing::info;

use crate::cli::{Chosen, Parked};
use crate::error::Error;
use crate::logging::{Colour, Target};
use crate::{control, process, say, setup};

pub(crate) async fn parked(path: Option<PathBuf>, options: Parked) -> Result<Exit, Error> {
    let config = setup::read_config(path)?;
    process::become_user(&config.process)?;
    let state = state_directory(&config)?;
    let (verb, chosen) = match &options {
        Parked::List { .. } => ("list", None),
        Parked::Show(chosen) => ("show", Some(chosen)),
        Parked::Retry(chosen) => ("retry", Some(chosen)),
        Parked::Deliver(chosen) => ("deliver", Some(chosen)),
        Parked::Skip(chosen) => ("skip", Some(chosen)),
        Parked::Delete { chosen, yes: true } => ("delete", Some(chosen)),
        Parked::Delete { chosen, yes: false } => {
            let which = match &chosen.account {
                Some(account) => format!("all parked messages of {account}"),
                None => chosen.ids.join(", "),
            };
            return Err(Error::Usage(format!(
                "{which}: would be removed from the server for good, and not everybody has them; say --yes if that is so"
            )));
        }
    };
    let (request, as_json) = match (&options, chosen) {
        (Parked::List { account, pending, json }, _) => {
            (json!({"do": "parked", "verb": verb, "account": account, "pending": pending}), *json)
        }
        (_, Some(Chosen { ids, account, json, .. })) => {
            (json!({"do": "parked", "verb": verb, "ids": ids, "account": account}), *json)
        }
        (_, None) => unreachable!("every other verb is about chosen messages"),
    };
    let show = |row: &Value| if as_json { say::out(row) } else { say::out(sentence(row)) };
    match open_state(&state) {
        Ok(store) => {
            // What a person decides is told in the log; on a terminal the answer says the same.
            let settings = setup::log_settings(&config, Colour::Auto);
            let _log = match settings.target {
                Target::Stderr => None,
                _ => Some(setup::start_log(&settings)?),
            };
            let now = Clock::system().now();
            let answer = answer(&store, &NoTrail, now, &request).await.map_err(Error::Usage);
            store.close().await;
            let answer = answer?;
            answer.rows.iter().for_each(show);
            Ok(answer.exit)
        }
        Err(BuildError::State(StoreError::Locked { .. })) => control::ask(&state, &request, show).await,
        Err(error) => Err(error.into()),
    }
}

/// What is said to a request.
pub(crate) struct Answer {
    /// A line each.
    pub(crate) rows: Vec<Value>,
    /// Accounts that are to be checked soon, if anybody can.
    pub(crate) check: Vec<String>,
    pub(crate) exit: Exit,
}

/// Does what a request says, on the state itself.
pub(crate) async fn answer(
    store: &dyn Store,
    trail: &dyn Recorder,
    now: UnixTime,
    request: &Value,
) -> Result<Answer, String> {
    let failed = |error: StoreError| error.to_string();
    let of = match request["account"].as_str() {
        Some(address) => Some(account(store, address).await?),
        None => None,
    };
    let verb = request["verb"].as_str().unwrap_or_default();
    if verb == "list" {
        let pending = request["pending"].as_bool().unwrap_or(false);
        let rows = store.troubled(of, pending).await.map_err(failed)?;
        return Ok(Answer { rows: rows.iter().map(row).collect(), check: Vec::new(), exit: Exit::Ok });
    }
    if !["show", "retry", "deliver", "skip", "delete"].contains(&verb) {
        return Err(format!("unknown verb {verb:?}"));
    }
    let chosen = chosen(store, request, of).await?;
    let mut answer = Answer { rows: Vec::new(), check: Vec::new(), exit: Exit::Ok };
    for (id, known) in chosen {
        let Some(known) = known else {
            answer.rows.push(json!({"id": id, "verb": verb, "done": false}));
            answer.exit = Exit::Usage;
            continue;
        };
        if verb == "show" {
            answer.rows.push(details(&known));
            continue;
        }
        let done = match verb {
            "retry" => store.retry(known.message).await,
            "deliver" => store.deliver(known.message).await,
            "skip" => store.skip(known.message).await,
            _ => store.delete(known.message).await,
        };
        let done = done.map_err(failed)?;
        answer.rows.push(json!({"id": id, "verb": verb, "done": done, "account": known.account}));
        if !done {
            answer.exit = Exit::Usage;
            continue;
        }
        info!(
            target: "connectord::mail",
            account = known.account, mailbox = %Escaped::text(&known.mailbox), uid = %known.name.on_server,
            message_id = %known.name.message_id, size = known.size_octets, decision = verb,
            detail = %Escaped::text(&known.reason), "a person decided about a message"
        );
        take_down(store, trail, now, &known, verb).await.map_err(failed)?;
        if verb != "skip" && !answer.check.contains(&known.account) {
            answer.check.push(known.account);
        }
    }
    Ok(answer)
}

/// A person's decision about a message, for the trail.
async fn take_down(
    store: &dyn Store,
    trail: &dyn Recorder,
    at: UnixTime,
    known: &ParkedRow,
    verb: &str,
) -> Result<(), StoreError> {
    let what = if verb == "skip" { What::Skipped } else { What::Retried };
    if !trail.is_on() {
        return Ok(());
    }
    let accounts = store.accounts().await?;
    let Some(account) = accounts.iter().find(|row| row.address == known.account) else { return Ok(()) };
    let MessageRef { mailbox, key, generation } = known.message;
    let mailboxes = store.mailboxes(account.id).await?;
    let Some(mailbox) = mailboxes.iter().find(|row| row.id == mailbox) else { return Ok(()) };
    let name = TrailName::Key(TrailKey {
        account: known.account.as_str().into(),
        mailbox: mailbox.name.as_str().into(),
        uid_validity: mailbox.uid_validity,
        key,
        generation,
    });
    let steps = vec![TrailStep::new(at, what, "", format!("a person decided: {verb}"))];
    trail.record(TrailEntry { name, at, about: None, steps });
    Ok(())
}

/// The messages that a request names, or all parked ones of an account.
async fn chosen(
    store: &dyn Store,
    request: &Value,
    of: Option<AccountId>,
) -> Result<Vec<(String, Option<ParkedRow>)>, String> {
    let rows = store.troubled(of, true).await.map_err(|error| error.to_string())?;
    if of.is_some() {
        let parked = rows.into_iter().filter(|row| row.state == State::Parked);
        return Ok(parked.map(|row| (id_of(row.message), Some(row))).collect());
    }
    let mut chosen: Vec<(String, Option<ParkedRow>)> = Vec::new();
    for id in request["ids"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let message = parse_id(id)
            .ok_or_else(|| format!("{id:?} is no number of a parked message; `connectord parked list` shows them"))?;
        if chosen.iter().all(|(known, _)| known != id) {
            chosen.push((id.to_owned(), rows.iter().find(|row| row.message == message).cloned()));
        }
    }
    Ok(chosen)
}

async fn account(store: &dyn Store, address: &str) -> Result<AccountId, String> {
    let accounts = store.accounts().await.map_err(|error| error.to_string())?;
    let found = accounts.iter().find(|row| row.address.eq_ignore_ascii_case(address));
    found.map(|row| row.id).ok_or_else(|| format!("there is no account {address}"))
}

fn row(row: &ParkedRow) -> Value {
    json!({
        "id": id_of(row.message), "account": row.account, "mailbox": row.mailbox,
        "state": match row.state {
            State::Parked => "parked",
            State::Discarding => "deleting",
            _ => "pending",
        },
        "on_server": row.name.on_server, "message_id": row.name.message_id, "from": row.name.from,
        "subject": row.name.subject, "size": row.size_octets, "reason": row.reason,
        "since": row.since.to_string(), "attempts": row.attempts, "anyway": row.anyway,
    })
}

/// All that is known of a message.
fn details(known: &ParkedRow) -> Value {
    let delivery = |delivery: &ParkedDelivery| {
        let step = match delivery.step {
            Step::Waiting => "waiting",
            Step::Staged(_) => "staged",
            Step::Delivering { .. } => "delivering",
            Step::Delivered => "delivered",
            Step::Parked => "parked",
        };
        json!({
            "destination": delivery.destination, "user": delivery.user, "step": step,
            "uncertain_attempts": delivery.uncertain_attempts,
        })
    };
    let mut details = row(known);
    details["deliveries"] = known.deliveries.iter().map(delivery).collect();
    details
}

fn sentence(row: &Value) -> String {
    let text = |name: &str| Escaped::text(row[name].as_str().unwrap_or_default()).to_string();
    if let Some(done) = row["done"].as_bool() {
        let id = text("id");
        return match (done, row["verb"].as_str().unwrap_or_default()) {
            (false, _) => {
                format!("{id}: there is no such message in trouble; see `connectord parked list --pending`")
            }
            (true, "retry") => format!("{id}: is tried again at the next check"),
            (true, "deliver") => format!("{id}: is delivered at the next check, whatever parked it"),
            (true, "delete") => format!("{id}: is removed from the server at the next check"),
            (true, _) => format!("{id}: is left alone; its remote copy stays"),
        };
    }
    if row["deliveries"].is_array() {
        return page(row);
    }
    format!(
        "{}  {}  {}  {}\n    from {}, subject {}, since {}, {} attempts",
        text("id"),
        text("state"),
        text("account"),
        text("reason"),
        text("from"),
        text("subject"),
        text("since"),
        row["attempts"]
    )
}

/// All that is known of a message, a line each.
fn page(row: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => Escaped::text(text).to_string(),
        other => other.to_string(),
    };
    let mut page = text(&row["id"]);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            page.push_str(&format!("\n    {name:<12}{value}"));
        }
    };
    line("account", &text(&row["account"]));
    line("mailbox", &text(&row["mailbox"]));
    line("on server", &text(&row["on_server"]));
    line("message-id", &text(&row["message_id"]));
    line("from", &text(&row["from"]));
    line("subject", &text(&row["subject"]));
    line("size", &format!("{} octets", row["size"]));
    line("state", &format!("{}, since {}", text(&row["state"]), text(&row["since"])));
    line("reason", &text(&row["reason"]));
    line("attempts", &text(&row["attempts"]));
    if row["anyway"] == true {
        line("wish", "to be delivered anyway");
    }
    for delivery in row["deliveries"].as_array().into_iter().flatten() {
        let mut step = text(&delivery["step"]);
        if let Some(attempts @ 1..) = delivery["uncertain_attempts"].as_u64() {
            step.push_str(&format!(", may have arrived {attempts} times"));
        }
        line("for", &format!("{} ({}): {step}", text(&delivery["user"]), text(&delivery["destination"])));
    }
    page
}

/// `7.42.0` for UIDs, `7.<32 hexadecimal digits>.0` for digests.
pub(crate) fn id_of(message: MessageRef) -> String {
    let key = match message.key {
        Key::Uid(uid) => uid.to_string(),
        Key::Digest(digest) => digest.iter().map(|octet| format!("{octet:02x}")).collect(),
    };
    format!("{}.{key}.{}", message.mailbox.0, message.generation)
}

fn parse_id(text: &str) -> Option<MessageRef> {
    let mut parts = text.split('.');
    let (mailbox, key, generation) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let key = if key.len() == 32 && key.is_ascii() {
        let mut digest = [0; 16];
        for (octet, at) in digest.iter_mut().zip((0..32).step_by(2)) {
            *octet = u8::from_str_radix(&key[at..at + 2], 16).ok()?;
        }
        Key::Digest(digest)
    } else {
        Key::Uid(key.parse().ok()?)
    };
    Some(MessageRef { mailbox: MailboxId(mailbox.parse().ok()?), key, generation: generation.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_messages_read_back() {
        for key in [Key::Uid(7), Key::Digest([0xab; 16])] {
            let message = MessageRef { mailbox: MailboxId(3), key, generation: 2 };
            assert_eq!(parse_id(&id_of(message)), Some(message));
        }
        for text in ["", "1", "1.2", "1.2.3.4", "x.2.3", "1.zz.0"] {
            assert_eq!(parse_id(text), None, "{text}");
        }
    }
}
