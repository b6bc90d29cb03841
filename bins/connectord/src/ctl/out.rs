//! How answers are shown: as tables and lines that can do nothing to a terminal, or as JSON.

use std::io::{self, Write};
use std::time::Duration;

use connectord::figures::{count, duration, octets};
use connectord::look::{Look, RED, YELLOW, width};
use connectord::say;
use connectord::table::{Cell, Column, Table};
use connectord_wire::{Escaped, is_deceptive};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::api::{Api, PAGE, Query};
use crate::cli::{Options, Paging};
use crate::error::Error;

/// What standard output is, and what was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) json: bool,
    pub(crate) look: Look,
    /// Columns of the terminal, if it is one.
    pub(crate) width: Option<usize>,
}

impl Out {
    pub(crate) fn of(options: &Options) -> Self {
        let out = io::stdout();
        Self { json: options.json, look: Look::of(&out, options.color), width: width(&out) }
    }

    /// A cell that says how something is: a mark, and the word; the mark is there without colour too.
    pub(crate) fn state(self, health: &str, word: &str) -> Cell {
        let (paint, mark) = match health {
            "action" | "down" | "failed" | "error" => (RED, "!"),
            "delayed" | "note" | "warn" => (YELLOW, "~"),
            "ok" => ("", if self.look.utf8 { "✓" } else { " " }),
            "checking" => ("", if self.look.utf8 { "▸" } else { ">" }),
            _ => ("", " "),
        };
        Cell::new(paint, format!("{mark} {word}"))
    }
}

/// Escaped, so that it can do nothing to a terminal.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => Escaped::text(text).to_string(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => Escaped::text(&other.to_string()).to_string(),
    }
}

/// JSON on one line whose texts do nothing to a terminal either.
pub(crate) fn json_text(value: &Value) -> String {
    let mut shown = String::new();
    // Of what is within ASCII the writer of JSON takes care; outside of texts JSON is ASCII.
    for c in value.to_string().chars() {
        match c == '\x7f' || is_deceptive(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}"))),
            false => shown.push(c),
        }
    }
    shown
}

/// A word of ours, read: `maybe_twice` is "maybe twice".
pub(crate) fn word(value: &Value) -> String {
    text(value).replace('_', " ")
}

/// A text, or a dash where there is none: 0, – and never are told apart.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A count, or a dash where nothing was measured.
pub(crate) fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), count)
}

pub(crate) fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), octets)
}

pub(crate) fn millis(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |ms| duration(Duration::from_millis(ms)))
}

/// Thousandths with one decimal: `14.2 of 6.0`.
pub(crate) fn score(score: &Value) -> String {
    let tenths = |milli: &Value| milli.as_i64().map(|milli| milli as f64 / 1000.0);
    match (tenths(&score["milli"]), tenths(&score["limit_milli"])) {
        (Some(score), Some(limit)) => format!("{score:.1} of {limit:.1}"),
        _ => String::new(),
    }
}

fn moment(at: &Value) -> Option<Timestamp> {
    at.as_str()?.parse().ok()
}

/// How long ago or ahead, in the largest unit that says enough.
pub(crate) fn distance(at: &Value) -> Option<String> {
    let seconds = Timestamp::now().as_second().abs_diff(moment(at)?.as_second());
    Some(match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    })
}

/// The clock of this machine: `14:32:05` today, else with the day.
pub(crate) fn clock(at: &Value) -> String {
    let Some(at) = moment(at) else { return text(at) };
    let zone = TimeZone::system();
    let (now, at) = (Timestamp::now().to_zoned(zone.clone()), at.to_zoned(zone));
    let format = if now.date() == at.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    at.strftime(format).to_string()
}

/// Day, clock and zone.
pub(crate) fn full(at: &Value) -> String {
    moment(at)
        .map_or_else(|| text(at), |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string())
}

/// A list of the API.
pub(crate) struct List {
    pub(crate) path: &'static str,
    /// What it is a list of, for "3 of 4,981 messages".
    pub(crate) of: &'static str,
    /// What is said when there is nothing.
    pub(crate) empty: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) row: fn(&Value, Out) -> Vec<Cell>,
}

impl List {
    /// Shows it page by page, so that a list of any length takes the memory of one page.
    pub(crate) async fn show(
        &self,
        api: &Api,
        mut query: Query,
        paging: Option<&Paging>,
        out: Out,
    ) -> Result<u8, Error> {
        let mut left = match paging {
            Some(Paging { all: false, most, .. }) => *most,
            _ => u64::MAX,
        };
        if let Some(after) = paging.and_then(|paging| paging.after.clone()) {
            query.push(("after", after));
        }
        let (mut table, mut shown) = (Table::new(self.columns), 0);
        let (mut next, mut total) = (Value::Null, Value::Null);
        if out.json {
            say::out_as_is("{\"items\":[");
        }
        while left > 0 {
            query.retain(|(name, _)| *name != "limit");
            if paging.is_some() {
                query.push(("limit", left.min(PAGE).to_string()));
            }
            let page = api.get(self.path, &query).await?;
            let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            for item in items {
                if out.json {
                    say::out_as_is(&format!("{}{}", if shown > 0 { "," } else { "" }, json_text(item)));
                } else {
                    table.row((self.row)(item, out));
                }
                shown += 1;
            }
            if !out.json && shown > 0 {
                say::out_as_is(&table.text(out.width, out.look));
            }
            left = left.saturating_sub(items.len() as u64);
            (next, total) = (page["next"].clone(), page["total"].clone());
            let Some(after) = next.as_str().filter(|_| !items.is_empty()) else { break };
            query.retain(|(name, _)| *name != "after");
            query.push(("after", after.to_owned()));
        }
        if out.json {
            let total = if total.is_null() { json!(shown) } else { total };
            say::out_as_is(&format!("],\"next\":{next},\"total\":{total}}}\n"));
        } else if shown == 0 {
            say::out(self.empty);
        } else if !next.is_null() {
            let total = total.as_u64().unwrap_or(shown);
            say::out(format_args!("{} of {} {}; --all shows all", count(shown), count(total), self.of));
        }
        Ok(0)
    }
}

/// Asks on a terminal, elsewhere needs `--yes`.
pub(crate) fn sure(yes: bool, what: &str) -> Result<(), Error> {
    use std::io::{BufRead, IsTerminal};
    if yes {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::Usage(format!("{what}; say --yes if that is so")));
    }
    say::err(format_args!("{what}. Type yes to go on:"));
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if read.is_ok() && line.trim() == "yes" {
        return Ok(());
    }
    Err(Error::Usage("nothing was done".into()))
}

/// Lines at the end of a terminal that are drawn again and again, below those that stay.
pub(crate) struct Screen {
    /// Whether lines can be drawn again.
    pub(crate) redraws: bool,
    drawn: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        use std::io::IsTerminal;
        Self { redraws: io::stdout().is_terminal() && !connectord::look::is_dumb(), drawn: 0 }
    }

    /// Writes lines that stay, and draws the others below; the error of a reader that is gone ends a command without end.
    pub(crate) fn show(&mut self, said: &[String], board: &[String]) -> io::Result<()> {
        let mut text = String::new();
        if self.redraws && self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\r\x1b[J", self.drawn));
        }
        let board = if self.redraws { board } else { &[] };
        for line in said.iter().chain(board) {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = board.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_not_measured_and_never_are_told_apart() {
        assert_eq!([number(&json!(0)), number(&Value::Null), number(&json!(12_408))], ["0", "-", "12,408"]);
        assert_eq!(distance(&Value::Null), None);
        assert_eq!(score(&json!({"milli": 14_200, "limit_milli": 6_000})), "14.2 of 6.0");
        assert_eq!(score(&Value::Null), "");
    }

    #[test]
    fn every_kind_of_value_is_shown_inert() {
        let hostile = "a\u{1b}[2J\u{202e}\n";
        let inert = r"a\x1b[2J\u{202e}\n";
        assert_eq!(text(&json!(hostile)), inert);
        let json = json_text(&json!({ "a": "\u{1b}\u{202e}\u{7f}\u{e0041}ü" }));
        assert_eq!(json, r#"{"a":"\u001b\u202e\u007f\udb40\udc41ü"}"#);
        assert_eq!(text(&json!([hostile, "b"])), format!("{inert}, b"));
        assert!(!text(&json!({ hostile: hostile })).contains(['\u{1b}', '\u{202e}']));
        assert!(!clock(&json!(hostile)).contains('\u{1b}') && !full(&json!(hostile)).contains('\u{1b}'));
    }
}
