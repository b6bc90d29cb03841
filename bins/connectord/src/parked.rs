//! `connectord parked`: messages in trouble.

use std::path::PathBuf;

use connectord_account::{Key, State};
use connectord_config::build::{BuildError, open_state, state_directory};
use connectord_engine::Exit;
use connectord_store::{AccountId, MailboxId, MessageRef, ParkedRow, Store, StoreError};
use connectord_wire::Escaped;
use serde_json::{Value, json};

use crate::cli::Parked;
use crate::error::Error;
use crate::{control, process, say, setup};

pub(crate) async fn parked(path: Option<PathBuf>, options: Parked) -> Result<Exit, Error> {
    let config = setup::read_config(path)?;
    process::become_user(&config.process)?;
    let state = state_directory(&config)?;
    let request = match &options {
        Parked::List { account, pending, .. } => {
            json!({"do": "parked", "verb": "list", "account": account, "pending": pending})
        }
        Parked::Retry { ids } => json!({"do": "parked", "verb": "retry", "ids": ids}),
        Parked::Skip { ids } => json!({"do": "parked", "verb": "skip", "ids": ids}),
    };
    let as_json = matches!(options, Parked::List { json: true, .. });
    let show = |row: &Value| if as_json { say::out(row) } else { say::out(sentence(row)) };
    match open_state(&state) {
        Ok(store) => {
            let rows = answer(&store, &request).await.map_err(Error::Usage)?;
            rows.iter().for_each(show);
            store.close().await;
            Ok(Exit::Ok)
        }
        Err(BuildError::State(StoreError::Locked { .. })) => control::ask(&state, &request, show).await,
        Err(error) => Err(error.into()),
    }
}

/// Does what a request says, on the state itself.
pub(crate) async fn answer(store: &dyn Store, request: &Value) -> Result<Vec<Value>, String> {
    let failed = |error: StoreError| error.to_string();
    let ids = || request["ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    match request["verb"].as_str().unwrap_or_default() {
        "list" => {
            let account = match request["account"].as_str() {
                Some(address) => Some(account(store, address).await?),
                None => None,
            };
            let pending = request["pending"].as_bool().unwrap_or(false);
            let rows = store.troubled(account, pending).await.map_err(failed)?;
            Ok(rows.iter().map(row).collect())
        }
        verb @ ("retry" | "skip") => {
            let mut answers = Vec::new();
            for id in ids() {
                let message = parse_id(id).ok_or_else(|| format!("{id:?} is no number of a parked message"))?;
                let found = match verb {
                    "retry" => store.retry(message).await,
                    _ => store.skip(message).await,
                };
                let found = found.map_err(failed)?;
                answers.push(json!({"id": id, "done": found, "verb": verb}));
            }
            Ok(answers)
        }
        other => Err(format!("unknown verb {other:?}")),
    }
}

async fn account(store: &dyn Store, address: &str) -> Result<AccountId, String> {
    let accounts = store.accounts().await.map_err(|error| error.to_string())?;
    let found = accounts.iter().find(|row| row.address.eq_ignore_ascii_case(address));
    found.map(|row| row.id).ok_or_else(|| format!("there is no account {address}"))
}

fn row(row: &ParkedRow) -> Value {
    json!({
        "id": id_of(row.message), "account": row.account, "mailbox": row.mailbox,
        "state": if row.state == State::Parked { "parked" } else { "pending" },
        "on_server": row.name.on_server, "message_id": row.name.message_id, "from": row.name.from,
        "subject": row.name.subject, "size": row.size_octets, "reason": row.reason,
        "since": row.since.to_string(), "attempts": row.attempts,
    })
}

fn sentence(row: &Value) -> String {
    let text = |name: &str| Escaped::text(row[name].as_str().unwrap_or_default()).to_string();
    if let Some(done) = row["done"].as_bool() {
        let id = text("id");
        return match (done, row["verb"].as_str()) {
            (false, _) => format!("{id}: there is no such message in trouble"),
            (true, Some("retry")) => format!("{id}: is tried again at the next check"),
            (true, _) => format!("{id}: is left alone; its remote copy stays"),
        };
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

/// `7.42.0` for UIDs, `7.<32 hexadecimal digits>.0` for digests.
fn id_of(message: MessageRef) -> String {
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
