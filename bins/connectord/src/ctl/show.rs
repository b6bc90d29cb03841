//! Accounts as people read them: tables and sentences, every foreign text escaped.

use connectord::figures::count;
use connectord::table::{Cell, Column, Table};
use connectord_wire::Escaped;
use serde_json::Value;

use crate::out::{Out, distance, text};

/// What stands before a line.
pub(crate) fn mark(health: &str) -> &'static str {
    match health {
        "action" => "!",
        "delayed" => "~",
        _ => " ",
    }
}

const ACCOUNTS: &[Column] = &[
    Column::text("  STATE"),
    Column::always("ADDRESS"),
    Column::text("FOR"),
    Column::text("SERVER"),
    Column::text("LAST OK"),
    Column::text("NEXT"),
];

/// The accounts, a line each.
pub(crate) fn table(items: &[&Value], total: usize, out: Out) -> String {
    let mut table = Table::new(ACCOUNTS);
    for item in items {
        let or = |found: Option<String>, else_: &str| found.unwrap_or_else(|| else_.to_owned());
        let mut row = vec![out.state(item["health"].as_str().unwrap_or_default(), &text(&item["health"]))];
        row.extend(["address", "deliver_to", "host"].map(|name| Cell::plain(text(&item[name]))));
        row.push(Cell::plain(or(distance(&item["last_ok"]), "never")));
        row.push(Cell::plain(or(distance(&item["next"]), "-")));
        table.row(row);
    }
    let mut page = table.text(out.width, out.look);
    if items.len() < total {
        page.push_str(&format!("{} of {} accounts match\n", count(items.len() as u64), count(total as u64)));
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
