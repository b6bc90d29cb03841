//! `connectorctl status`: whether all is well, on one page.

use std::collections::BTreeMap;

use connectord::look::DIM;
use connectord::say;
use connectord_wire::Escaped;
use serde_json::{Value, json};

use crate::api::Api;
use crate::ask::Daemon;
use crate::cli::Options;
use crate::error::{CONFIG, Error, TEMP_FAIL};
use crate::out::{Out, clock, distance, json_text, millis, number, text};
use crate::show::mark;

pub(crate) async fn status(options: &Options, check: bool, out: Out) -> Result<u8, Error> {
    let answer = Api::find(options)?.get("/api/v1/overview", &vec![("hours", "1".to_owned())]).await;
    let status = match answer {
        Ok(overview) => of_overview(&overview),
        // A daemon without an API, such as a demonstration's, knows its accounts nevertheless.
        Err(Error::NoDaemon { .. }) if options.url.is_none() => {
            let (lines, _) = Daemon::find(options)?.ask(json!({"verb": "list"}))?;
            of_accounts(&lines.iter().map(|line| &line["item"]).collect::<Vec<_>>())
        }
        Err(error) => return Err(error),
    };
    match out.json {
        true => say::out(json_text(&status)),
        false => say::out_as_is(&page(&status, out)),
    }
    let is_any = |health: &str| status["accounts"][health].as_u64() > Some(0);
    Ok(match (check, is_any("action"), is_any("delayed")) {
        (true, true, _) => CONFIG,
        (true, false, true) => TEMP_FAIL,
        _ => 0,
    })
}

/// The overview of the API, in the words of this command.
fn of_overview(overview: &Value) -> Value {
    let cause = |line: &Value| {
        json!({
            "code": line["cause"]["code"], "host": line["host"], "accounts": line["accounts"],
            "sentence": line["cause"]["sentence"], "since": line["since"], "next": line["next"],
            "health": if line["needs_action"] == true { "action" } else { "delayed" },
            "address": line["account"][1],
        })
    };
    let parts = |names: [&str; 3]| names.map(|name| (name.to_owned(), overview[name].clone()));
    let now: serde_json::Map<String, Value> = parts(["checking", "queued", "listening"]).into_iter().collect();
    json!({
        "version": overview["version"], "machine": overview["machine"], "since": overview["since"],
        "accounts": overview["accounts"], "now": now,
        "today": {
            "delivered": overview["today"]["delivered"], "spam": overview["today"]["spam"],
            "quarantined": overview["today"]["quarantined"],
        },
        "quarantine": overview["quarantine"], "parked": overview["parked"], "health": overview["health"],
        "causes": overview["causes"].as_array().into_iter().flatten().map(cause).collect::<Vec<_>>(),
    })
}

/// All accounts counted, and what is unwell by its cause and server.
fn of_accounts(items: &[&Value]) -> Value {
    let count = |health: &str| items.iter().filter(|item| item["health"] == health).count();
    let mut causes: BTreeMap<(String, String), Vec<&Value>> = BTreeMap::new();
    for item in items.iter().filter(|item| item["cause"].is_object()) {
        let key = [&item["cause"]["code"], &item["host"]].map(|value| value.as_str().unwrap_or_default().to_owned());
        let [code, host] = key;
        causes.entry((code, host)).or_default().push(item);
    }
    let cause = |((code, host), items): ((String, String), Vec<&Value>)| {
        let first = items[0];
        json!({
            "code": code, "host": host, "accounts": items.len(), "sentence": first["cause"]["sentence"],
            "remedy": first["cause"]["remedy"], "since": first["cause"]["since"], "next": first["next"],
            "health": first["health"], "address": if items.len() == 1 { first["address"].clone() } else { Value::Null },
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "accounts": {
            "total": items.len(), "ok": count("ok"), "delayed": count("delayed"), "action": count("action"),
            "new": count("new"), "off": count("off"),
        },
        "causes": causes.into_iter().map(cause).collect::<Vec<_>>(),
    })
}

fn page(status: &Value, out: Out) -> String {
    let mut page = String::new();
    if status["since"].is_string() {
        let up = distance(&status["since"]).unwrap_or_default();
        let now = clock(&jiff::Timestamp::now().to_string().into());
        page.push_str(&format!(
            "connectord {} on {}, up {up}   {now}\n",
            text(&status["version"]),
            text(&status["machine"])
        ));
    }
    let accounts = &status["accounts"];
    let words = [("ok", "ok"), ("delayed", "delayed"), ("action", "need action"), ("new", "new"), ("off", "off")];
    let counts = words.map(|(name, word)| format!("{} {word}", number(&accounts[name])));
    page.push_str(&format!("Accounts   {}   {}\n", number(&accounts["total"]), counts.join("   ")));
    if status["now"].is_object() {
        let [checking, queued, listening] =
            ["checking", "queued", "listening"].map(|name| number(&status["now"][name]));
        page.push_str(&format!("Now        {checking} checking   {queued} queued   {listening} listening\n"));
        let [delivered, spam, quarantined] =
            ["delivered", "spam", "quarantined"].map(|name| number(&status["today"][name]));
        let parked = number(&status["parked"]);
        page.push_str(&format!(
            "Today      {delivered} delivered, {spam} as spam   {quarantined} quarantined   {parked} parked\n"
        ));
        let part = |part: &Value| {
            let latency =
                if part["latency_ms"].is_null() { String::new() } else { format!(" {}", millis(&part["latency_ms"])) };
            let mark = match part["state"].as_str().unwrap_or_default() {
                "down" => "!",
                "note" => "~",
                _ if out.look.utf8 => "✓",
                _ => "ok",
            };
            format!("{mark} {}{latency}", text(&part["name"]))
        };
        let parts: Vec<String> = status["health"].as_array().into_iter().flatten().map(part).collect();
        page.push_str(&format!("Health     {}\n", parts.join("   ")));
    }
    for (health, title) in [("action", "NEEDS ACTION"), ("delayed", "HEALS BY ITSELF")] {
        let causes = status["causes"].as_array().into_iter().flatten().filter(|cause| cause["health"] == health);
        let causes: Vec<&Value> = causes.collect();
        if causes.is_empty() {
            continue;
        }
        page.push_str(&format!("{}\n", out.look.paint(DIM, title)));
        for cause in causes {
            let whom = match cause["address"].as_str() {
                Some(address) => Escaped::text(address).to_string(),
                None => format!("{} accounts at {}", number(&cause["accounts"]), text(&cause["host"])),
            };
            page.push_str(&format!("{} {whom}: {}\n", mark(health), text(&cause["sentence"])));
            page.push_str(&match cause["address"].as_str() {
                Some(address) => format!("    connectorctl account show {}\n", Escaped::text(address)),
                None => format!("    connectorctl account list --cause {}\n", text(&cause["code"])),
            });
        }
    }
    page
}
