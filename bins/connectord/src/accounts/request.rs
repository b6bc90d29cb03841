//! What the control socket is asked about accounts, and what it answers: JSON objects, a line each.

use connectord_engine::Exit;
use connectord_store::{ChangeId, SavedAccounts};
use connectord_wire::Secret;
use serde_json::{Value, json};

use super::{Accounts, Done, Doubts, Draft, Edit, Refusal, settings_from_json, view};

/// Most lines of the record of changes in one answer.
const MOST_CHANGES: u64 = 1_000;

/// Does what a request says, for `who`; the lines of the answer, and what to exit with.
pub(crate) async fn answer(accounts: &Accounts, who: &str, request: &Value) -> (Vec<Value>, Exit) {
    match act(accounts, who, request).await {
        Ok(answer) => answer,
        Err(refusal) => (vec![json!({"refused": refusal.json()})], refusal.exit()),
    }
}

async fn act(accounts: &Accounts, who: &str, request: &Value) -> Result<(Vec<Value>, Exit), Refusal> {
    let address = || {
        let missing = || Refusal::Request("which account?".to_owned());
        request["address"].as_str().filter(|address| !address.is_empty()).ok_or_else(missing)
    };
    let doubts = if request["anyway"] == true { Doubts::PassedOver } else { Doubts::Heeded };
    let well = |line: Value| Ok((vec![line], Exit::Ok));
    match request["verb"].as_str().unwrap_or_default() {
        "list" => {
            let items = accounts.list().await?;
            Ok((items.into_iter().map(|item| json!({"item": item})).collect(), Exit::Ok))
        }
        "show" => well(json!({"item": accounts.show(address()?).await?})),
        "add" => {
            let (settings, _) = settings_from_json(&request["settings"])?;
            let enabled = request["enabled"].as_bool().unwrap_or(true);
            let draft = Draft { address: address()?.to_owned(), settings, enabled, password: password(request)? };
            well(done("added", accounts.add(who, draft, doubts).await?))
        }
        "edit" => {
            let (set, unset) = settings_from_json(&request["settings"])?;
            let (enabled, version) = (request["enabled"].as_bool(), version(request)?);
            let edit = Edit { set, unset, enabled, password: password(request)?, version };
            well(done("changed", accounts.edit(who, address()?, edit, doubts).await?))
        }
        verb @ ("enable" | "disable") => {
            let saved = accounts.switch(who, address()?, verb == "enable").await?;
            well(json!({"done": verb, "address": saved.address, "etag": saved.version.to_string()}))
        }
        "remove" => {
            let address = address()?;
            accounts.delete(who, address, version(request)?).await?;
            well(json!({"done": "removed", "address": address}))
        }
        "test" => {
            let found = if request["settings"].is_object() {
                let (settings, _) = settings_from_json(&request["settings"])?;
                let address = address()?.to_owned();
                accounts
                    .test_draft(Draft { address, settings, enabled: true, password: password(request)? }, &|_, _, _| {})
                    .await?
            } else {
                accounts.test(address()?).await?
            };
            let exit = match found.failure() {
                Some(_) => Refusal::Trial(Box::new(found.clone())).exit(),
                None => Exit::Ok,
            };
            Ok((vec![json!({"test": view::trial(&found)})], exit))
        }
        "check-now" => {
            let address = address()?;
            if accounts.check_now(address).await? {
                well(json!({"done": "asked", "address": address}))
            } else {
                Err(Refusal::Request(format!("{address} is switched off, or cannot be run")))
            }
        }
        "changes" => {
            let about = request["address"].as_str().map(str::to_lowercase);
            let before = request["before"].as_i64().map(ChangeId);
            let most = request["most"].as_u64().unwrap_or(50).clamp(1, MOST_CHANGES);
            let most = usize::try_from(most).unwrap_or_default();
            let lines = accounts.store.changes(about.as_deref(), before, most).await?;
            let line = |row: connectord_store::ChangeRow| {
                let change = row.change;
                json!({"change": {"id": row.id, "at": view::time(change.stamp.at), "who": change.stamp.by,
                    "what": change.what, "about": change.about, "before": change.before, "after": change.after}})
            };
            Ok((lines.into_iter().map(line).collect(), Exit::Ok))
        }
        other => Err(Refusal::Request(format!("unknown verb {other:?}"))),
    }
}

fn done(what: &str, done: Done) -> Value {
    let warnings: Vec<Value> = done
        .warnings
        .iter()
        .map(|warning| json!({"key": warning.key, "sentence": warning.what, "hint": warning.hint}))
        .collect();
    json!({
        "done": what, "address": done.saved.address, "id": done.saved.id.0, "etag": done.saved.version.to_string(),
        "test": done.trial.as_ref().map(view::trial), "warnings": warnings,
    })
}

fn password(request: &Value) -> Result<Option<Secret>, Refusal> {
    match &request["password"] {
        Value::Null => Ok(None),
        Value::String(text) if !text.is_empty() && text.len() <= 4096 && !text.contains(['\0', '\r', '\n']) => {
            Ok(Some(Secret::from(text.as_str())))
        }
        _ => {
            let text = "a password has 1 to 4096 octets, and neither line ends nor NUL";
            Err(Refusal::Request(text.to_owned()))
        }
    }
}

/// The version that was looked at, as it was shown.
fn version(request: &Value) -> Result<Option<u64>, Refusal> {
    match &request["etag"] {
        Value::Null => Ok(None),
        Value::String(text) => {
            text.parse().map(Some).map_err(|_| Refusal::Request(format!("{text:?} is no version of an account")))
        }
        other => Err(Refusal::Request(format!("{other} is no version of an account"))),
    }
}
