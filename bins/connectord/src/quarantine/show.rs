//! What is shown of messages that are held: strangers wrote most of it, and no terminal obeys it.

use std::fmt::Write;

use connectord_filter::{Answer, Verdict};
use connectord_quarantine::Details;
use connectord_wire::Escaped;
use serde_json::{Value, json};

/// Longest text in a line, in characters.
const MAX_LINE: usize = 300;

/// Most symbols, header fields and attachments on a page for people.
const MAX_ROWS: usize = 60;

/// A row as JSON on a line, with no character that a terminal would obey: within strings JSON has another way to write
/// each, and nowhere else they stand.
pub(super) fn json_line(row: &Value) -> String {
    let text = row.to_string();
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        let mut utf8 = [0; 4];
        let is_plain = c == '\\' || Escaped::text(c.encode_utf8(&mut utf8)).to_string().chars().eq([c]);
        if is_plain {
            line.push(c);
            continue;
        }
        let mut utf16 = [0; 2];
        for unit in c.encode_utf16(&mut utf16) {
            // Writing to a String does not fail.
            let _ = write!(line, "\\u{unit:04x}");
        }
    }
    line.push('\n');
    line
}

/// All that is known of a message.
pub(super) fn details(mut row: Value, details: &Details) -> Value {
    row["reason"] = json!(details.reason);
    row["mailbox"] = json!(details.mailbox);
    row["reverse_path"] = json!(details.reverse_path);
    row["arrived"] = json!(details.entry.arrived_at.map(|at| at.to_string()));
    row["viruses"] = json!(details.viruses);
    row["answers"] = details.answers.iter().map(answer).collect();
    row["header"] = details.fields.iter().map(|(name, value)| json!([name, value])).collect();
    row["attachments"] = details
        .attachments
        .iter()
        .map(|attachment| {
            let classes = attachment.classes.iter().map(|(class, why)| format!("{class} ({why})")).collect::<Vec<_>>();
            let entries: Vec<_> = attachment.entries.iter().take(1000).collect();
            json!({
                "name": attachment.name, "type": attachment.content_type, "size": attachment.size_octets,
                "classes": classes, "entries": entries,
            })
        })
        .collect();
    row["attachments_trouble"] = json!(details.attachments_trouble);
    row["release"] = details.release.iter().map(|(user, step)| json!({"user": user, "step": step})).collect();
    row
}

fn answer(answer: &Answer) -> Value {
    match &answer.verdict {
        Verdict::Found(finding) => json!({
            "filter": answer.filter, "action": finding.action.name(), "milli_score": finding.milli_score,
            "milli_required": finding.milli_required, "viruses": finding.viruses, "text": finding.text,
            "symbols": finding.symbols.iter().map(|symbol| json!([symbol.name, symbol.milli_score])).collect::<Vec<_>>(),
        }),
        Verdict::Unchecked(trouble) => json!({"filter": answer.filter, "unchecked": trouble.text}),
    }
}

/// A row for people.
pub(super) fn text(row: &Value) -> String {
    if let Some(total) = row["total"].as_u64() {
        return summary(row, total);
    }
    if let Some(problem) = row["problem"].as_str() {
        return format!("! {}: {}\n", shown(&row["file"]), Escaped::text(problem));
    }
    if let Some(error) = row["refused"].as_str() {
        return format!("{}: {}\n", shown(&row["id"]), line_of(error));
    }
    if row["messages"].is_u64() {
        return told(row);
    }
    match row["verb"].as_str() {
        Some("discard") => format!("{}: is gone\n", shown(&row["id"])),
        Some("release") => released(row),
        Some("show") => page(row),
        _ => listed(row),
    }
}

fn summary(row: &Value, total: u64) -> String {
    let (shown, offset) = (row["shown"].as_u64().unwrap_or(0), row["offset"].as_u64().unwrap_or(0));
    if total == 0 {
        return "nothing is held\n".to_owned();
    }
    if shown == total {
        return format!("{total} held\n");
    }
    let more = if offset + shown < total { format!("; --offset {} shows more", offset + shown) } else { String::new() };
    format!("{shown} of {total} held{more}\n")
}

fn listed(row: &Value) -> String {
    let releasing = if row["releasing"] == true { ", being released" } else { "" };
    format!(
        "{}  {:<5}  {} for {}\n    from {}\n    subject {}\n    {}, {}, since {}{releasing}\n",
        shown(&row["id"]),
        shown(&row["kind"]),
        shown(&row["account"]),
        shown(&row["users"]),
        shown(&row["from"]),
        shown(&row["subject"]),
        shown(&row["reason"]),
        size(&row["size"]),
        shown(&row["held"])
    )
}

fn told(row: &Value) -> String {
    let (user, messages) = (shown(&row["user"]), &row["messages"]);
    match row["sent"].as_bool() {
        None => format!("{user}: would be told of {messages}\n"),
        Some(true) => format!("{user}: was told of {messages}\n"),
        Some(false) => format!("{user}: cannot be told: {}\n", shown(&row["detail"])),
    }
}

fn released(row: &Value) -> String {
    let id = shown(&row["id"]);
    let mut text = String::new();
    for copy in row["copies"].as_array().into_iter().flatten() {
        let what = if copy["delivered"] == true { "delivered" } else { "NOT delivered" };
        let again = match copy["uncertain_attempts"].as_u64() {
            Some(times @ 1..) => format!(", and may have arrived {times} times before"),
            _ => String::new(),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{id}: {what} to {}: {}{again}", shown(&copy["user"]), shown(&copy["detail"]));
    }
    match &row["taught"] {
        Value::Bool(true) => text.push_str(&format!("{id}: the filter has learnt that it is no spam\n")),
        Value::String(error) => {
            text.push_str(&format!("{id}: the filter has not learnt from it: {}\n", line_of(error)))
        }
        _ => {}
    }
    if row["done"] == false {
        text.push_str(&format!("{id}: stays until all have it; release it again\n"));
    }
    text
}

/// All that is known of a message, a line each.
fn page(row: &Value) -> String {
    let mut page = format!("{}\n", shown(&row["id"]));
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() && value != "null" {
            page.push_str(&format!("    {name:<12}{value}\n"));
        }
    };
    line("held as", &shown(&row["kind"]));
    line("reason", &shown(&row["reason"]));
    line("viruses", &shown(&row["viruses"]));
    line("account", &shown(&row["account"]));
    line("mailbox", &shown(&row["mailbox"]));
    line("for", &format!("{} ({})", shown(&row["users"]), shown(&row["destination"])));
    line("size", &size(&row["size"]));
    line("arrived", &shown(&row["arrived"]));
    line("held", &shown(&row["held"]));
    line("sender", &shown(&row["reverse_path"]));
    for release in array(&row["release"]) {
        line("release", &format!("{}: {}", shown(&release["user"]), shown(&release["step"])));
    }
    for answer in array(&row["answers"]) {
        line("filter", &verdict(answer));
    }
    for attachment in array(&row["attachments"]).take(MAX_ROWS) {
        line("attached", &attached(attachment));
    }
    line("attached", &shown(&row["attachments_trouble"]));
    for field in array(&row["header"]).take(MAX_ROWS) {
        line("header", &format!("{}: {}", shown(&field[0]), shown(&field[1])));
    }
    page
}

fn verdict(answer: &Value) -> String {
    let name = shown(&answer["filter"]);
    if let Some(trouble) = answer["unchecked"].as_str() {
        return format!("{name}: not checked: {}", line_of(trouble));
    }
    let mut text = format!("{name}: {}", shown(&answer["action"]));
    if let Some(score) = answer["milli_score"].as_i64() {
        text.push_str(&format!(", score {}", points(score)));
        if let Some(required) = answer["milli_required"].as_i64() {
            text.push_str(&format!(" of {}", points(required)));
        }
    }
    let viruses = shown(&answer["viruses"]);
    if !viruses.is_empty() {
        text.push_str(&format!(", viruses {viruses}"));
    }
    if let Some(said) = answer["text"].as_str() {
        text.push_str(&format!(", {}", line_of(said)));
    }
    for symbol in array(&answer["symbols"]).take(MAX_ROWS) {
        // Without one it adds nothing, or the filter does not tell.
        let score = symbol[1].as_i64().filter(|score| *score != 0).map(points).unwrap_or_default();
        text.push_str(&format!("\n                  {score:>8}  {}", shown(&symbol[0])));
    }
    text
}

fn attached(attachment: &Value) -> String {
    let name = match attachment["name"].as_str() {
        Some(name) => line_of(name),
        None => "without a name".to_owned(),
    };
    let mut text = format!("{name}, {}, {}", shown(&attachment["type"]), size(&attachment["size"]));
    let classes = shown(&attachment["classes"]);
    if !classes.is_empty() {
        text.push_str(&format!(", {classes}"));
    }
    let count = array(&attachment["entries"]).count();
    if count > 0 {
        text.push_str(&format!(", with {count} files inside"));
    }
    text
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A value on one line.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => line_of(text),
        Value::Array(values) => line_of(&values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn line_of(text: &str) -> String {
    let escaped = Escaped::text(text).to_string();
    let mut line: String = escaped.chars().take(MAX_LINE).collect();
    if line.len() < escaped.len() {
        line.push('…');
    }
    line
}

fn size(octets: &Value) -> String {
    format!("{} octets", octets.as_u64().unwrap_or(0))
}

fn points(milli: i64) -> String {
    let sign = if milli < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", milli.unsigned_abs() / 1000, milli.unsigned_abs() % 1000)
}
