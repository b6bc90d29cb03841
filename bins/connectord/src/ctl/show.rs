//! Answers as people read them: tables and sentences, every foreign text escaped.

use std::collections::BTreeMap;

use connectord_wire::Escaped;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Escaped, so that it can do nothing to a terminal.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => Escaped::text(text).to_string(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => Escaped::text(&other.to_string()).to_string(),
    }
}

/// What stands before a line.
fn mark(health: &str) -> &'static str {
    match health {
        "action" => "!",
        "delayed" => "~",
        _ => " ",
    }
}

/// How long ago or ahead, in the largest unit that says enough.
fn distance(at: &Value) -> Option<String> {
    let at: Timestamp = at.as_str()?.parse().ok()?;
    let seconds = (Timestamp::now().as_second() - at.as_second()).abs();
    Some(match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    })
}

/// The accounts, a line each.
pub(crate) fn table(items: &[&Value], total: usize) -> String {
    let head = ["STATE", "ADDRESS", "FOR", "SERVER", "LAST OK", "NEXT"].map(str::to_owned);
    let mut rows = vec![(" ", head)];
    for item in items {
        let health = item["health"].as_str().unwrap_or_default();
        let or = |found: Option<String>, else_: &str| found.unwrap_or_else(|| else_.to_owned());
        rows.push((
            mark(health),
            [
                text(&item["health"]),
                text(&item["address"]),
                text(&item["deliver_to"]),
                text(&item["host"]),
                or(distance(&item["last_ok"]), "never"),
                or(distance(&item["next"]), "-"),
            ],
        ));
    }
    let width = |column: usize| rows.iter().map(|(_, row)| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut page = String::new();
    for (mark, row) in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        page.push_str(format!("{mark} {}", cells.join("  ")).trim_end());
        page.push('\n');
    }
    if items.len() < total {
        page.push_str(&format!("{} of {total} accounts match\n", items.len()));
    }
    page
}

/// One line of an answer.
pub(crate) fn answer(line: &Value) -> String {
    if let Some(item) = line.get("item") {
        return account(item);
    }
    if let Some(found) = line.get("test").filter(|_| line.get("done").is_none()) {
        return test(found);
    }
    if let Some(change) = line.get("change") {
        return changed(change);
    }
    let mut page = String::new();
    if line["test"].is_object() {
        page.push_str(&test(&line["test"]));
    }
    for warning in line["warnings"].as_array().into_iter().flatten() {
        page.push_str(&format!("warning: {}\n", text(&warning["sentence"])));
    }
    let address = text(&line["address"]);
    page.push_str(&match line["done"].as_str().unwrap_or_default() {
        "added" => format!("{address} is added, and checked now\n"),
        "changed" => format!("{address} is changed, and checked now\n"),
        "enable" => format!("{address} is switched on, and checked now\n"),
        "disable" => format!("{address} is switched off; nothing of it is forgotten\n"),
        "removed" => format!("{address} is removed; delivered mail stays\n"),
        "asked" => format!("{address} is checked now\n"),
        other => format!("{}\n", Escaped::text(other)),
    });
    page
}

fn account(item: &Value) -> String {
    let health = item["health"].as_str().unwrap_or_default();
    let mut page =
        format!("{} -> {}   {} {}\n", text(&item["address"]), text(&item["deliver_to"]), mark(health), health);
    if item["cause"].is_object() {
        page.push_str(&format!("  {}\n", text(&item["cause"]["sentence"])));
        if !item["cause"]["remedy"].is_null() {
            page.push_str(&format!("  {}\n", text(&item["cause"]["remedy"])));
        }
    }
    for problem in item["problems"].as_array().into_iter().flatten().skip(1) {
        page.push_str(&format!("  {}\n", text(&problem["sentence"])));
    }
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            page.push_str(&format!("{name:<11}{value}\n"));
        }
    };
    if item["host"].is_string() {
        let server = format!("{}:{}, {}", text(&item["host"]), item["port"], text(&item["security"]));
        line("Server", server);
    }
    if item["source"] == "file" {
        line("Kept in", "the configuration file: changed there".to_owned());
    } else if item["secret"]["set"] == true {
        line("Password", format!("set {} by {}", text(&item["secret"]["at"]), text(&item["secret"]["by"])));
    } else {
        line("Password", "none".to_owned());
    }
    line("Last OK", distance(&item["last_ok"]).map_or_else(|| "never".to_owned(), |it| format!("{it} ago")));
    line("Next", distance(&item["next"]).map_or_else(|| "-".to_owned(), |it| format!("in {it}")));
    line("Parked", text(&item["parked"]));
    for (key, value) in item["settings"].as_object().into_iter().flatten() {
        line("Setting", format!("{} = {}", Escaped::text(key), Escaped::text(&value.to_string())));
    }
    if item["changed"].is_object() {
        line("Changed", format!("{} by {}", text(&item["changed"]["at"]), text(&item["changed"]["by"])));
        line("Version", text(&item["etag"]));
    }
    page
}

/// A test, a step a line.
fn test(found: &Value) -> String {
    let mut page = String::new();
    let mut missed = Vec::new();
    for step in found["steps"].as_array().into_iter().flatten() {
        let name = text(&step["name"]);
        let state = match step["state"].as_str().unwrap_or_default() {
            "not_reached" => {
                missed.push(name);
                continue;
            }
            "failed" => "FAIL",
            "note" => "note",
            _ => "ok",
        };
        page.push_str(&format!("{state:<5} {name:<11} {} ({} ms)\n", text(&step["result"]), step["ms"]));
        if let Some(remedy) = step["cause"]["remedy"].as_str() {
            page.push_str(&format!("      hint: {}\n", Escaped::text(remedy)));
        }
    }
    if !missed.is_empty() {
        page.push_str(&format!("-     {}: not reached\n", missed.join(", ")));
    }
    page
}

fn changed(change: &Value) -> String {
    let [at, who, what, about] = ["at", "who", "what", "about"].map(|key| text(&change[key]));
    let mut page = format!("{at}  {who}  {what}  {about}\n");
    let lines = |value: &Value| -> Vec<String> {
        value.as_str().unwrap_or_default().lines().map(|line| Escaped::text(line).to_string()).collect()
    };
    let (before, after) = (lines(&change["before"]), lines(&change["after"]));
    for line in before.iter().filter(|line| !after.contains(line)) {
        page.push_str(&format!("  - {line}\n"));
    }
    for line in after.iter().filter(|line| !before.contains(line)) {
        page.push_str(&format!("  + {line}\n"));
    }
    page
}

/// All accounts counted, and what is unwell by its cause and server.
pub(crate) fn status(items: &[&Value]) -> Value {
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

pub(crate) fn status_page(status: &Value) -> String {
    let number = |name: &str| status["accounts"][name].as_u64().unwrap_or_default();
    let mut page = format!(
        "Accounts   {}   {} ok   {} delayed   {} need action   {} new   {} off\n",
        number("total"),
        number("ok"),
        number("delayed"),
        number("action"),
        number("new"),
        number("off")
    );
    for (health, title) in [("action", "NEEDS ACTION"), ("delayed", "HEALS BY ITSELF")] {
        let causes: Vec<&Value> =
            status["causes"].as_array().into_iter().flatten().filter(|cause| cause["health"] == health).collect();
        if causes.is_empty() {
            continue;
        }
        page.push_str(&format!("{title}\n"));
        for cause in causes {
            let whom = match cause["address"].as_str() {
                Some(address) => Escaped::text(address).to_string(),
                None => format!("{} accounts at {}", cause["accounts"], text(&cause["host"])),
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
