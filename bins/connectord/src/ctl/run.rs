//! A check as it goes on: what changed between two looks at an account.

use std::time::Duration;

use connectord::figures::{about, count, rate};
use connectord::look::{Look, RED};
use connectord::table::{Cell, Column};
use serde_json::{Value, json};

use crate::out::{Out, clock, millis, number, text, word};

/// Characters of a full bar.
const BAR: u64 = 20;

/// What was last seen of an account.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    steps: Vec<(String, String)>,
    progress: Value,
    is_running: bool,
    /// The last good check and the cause, once it was looked at: with them a check is known that nobody saw.
    outcome: Option<(Value, Value)>,
}

impl Watched {
    /// What is new in `row`, as events of `watch`: steps, tallies, and that it is done.
    pub(crate) fn changes(&mut self, row: &Value, at: &Value) -> Vec<Value> {
        let event = |name: &str, more: Value| {
            let mut event = json!({ "at": at, "account": row["address"], "event": name });
            if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
                event.extend(more);
            }
            event
        };
        let mut events = Vec::new();
        let is_running = row["activity"] == "checking";
        let progress = &row["progress"];
        let is_another = progress["done"].as_u64() < self.progress["done"].as_u64();
        let outcome = (row["last_ok"].clone(), row["cause"]["tries"].clone());
        let is_unseen = !self.is_running
            && !matches!(row["activity"].as_str(), Some("checking" | "queued"))
            && self.outcome.as_ref().is_some_and(|before| *before != outcome);
        if (self.is_running && (!is_running || is_another)) || is_unseen {
            let (done, tally) = (&self.progress["done"], &self.progress["tally"]);
            let cause = if is_running { &Value::Null } else { &row["cause"] };
            events.push(event("done", json!({ "done": done, "tally": tally, "cause": cause })));
            (self.steps, self.progress) = (Vec::new(), Value::Null);
        }
        if is_running {
            for step in progress["steps"].as_array().into_iter().flatten() {
                let key = ["name", "state"].map(|name| step[name].as_str().unwrap_or_default().to_owned());
                let key = key.into();
                if !self.steps.contains(&key) {
                    self.steps.push(key);
                    let parts = json!({
                        "step": step["name"], "state": step["state"], "result": step["result"], "ms": step["ms"],
                        "cause": step["cause"],
                    });
                    events.push(event("step", parts));
                }
            }
            if !progress.is_null() && progress["done"] != self.progress["done"] {
                let parts = json!({
                    "done": progress["done"], "total": progress["total"], "bytes": progress["octets"],
                    "rate_bytes_s": progress["rate_octets_s"], "eta_s": progress["eta_s"],
                });
                events.push(event("tally", parts));
            }
            self.progress.clone_from(progress);
        }
        (self.is_running, self.outcome) = (is_running, Some(outcome));
        events
    }
}

/// An event as a line; none for what only begins.
pub(crate) fn line(event: &Value, is_one_of_many: bool, look: Look) -> Option<String> {
    let whose = if is_one_of_many { format!("{}  ", text(&event["account"])) } else { String::new() };
    let what = match (event["event"].as_str()?, event["state"].as_str()) {
        ("step", Some("waits" | "runs" | "not_reached")) => return None,
        ("step", state) => {
            let mark = if state == Some("failed") { look.paint(RED, "! ") } else { String::new() };
            let ms = if event["ms"].is_null() { String::new() } else { format!(" ({})", millis(&event["ms"])) };
            format!("{mark}{}: {}{ms}", word(&event["step"]), text(&event["result"]))
        }
        ("tally", _) => figures(event, look, false),
        _ => done(event, look),
    };
    Some(format!("{}  {whose}{what}", clock(&event["at"])))
}

/// `done: 1,240 retrieved, 1,238 delivered, 17 spam`, or why it did not end well.
fn done(event: &Value, look: Look) -> String {
    if !event["cause"].is_null() {
        return format!("{}did not end well: {}", look.paint(RED, "! "), text(&event["cause"]["sentence"]));
    }
    let mut parts = Vec::new();
    if event["done"].is_u64() {
        parts.push(format!("{} retrieved", number(&event["done"])));
    }
    for tick in event["tally"].as_array().into_iter().flatten().filter(|tick| tick["count"].as_u64() > Some(0)) {
        parts.push(format!("{} {}", number(&tick["count"]), word(&tick["state"])));
    }
    match parts.is_empty() {
        true => "done".to_owned(),
        false => format!("done: {}", parts.join(", ")),
    }
}

/// `[####....]  560 of 1,240   1.8 MB/s   about 2 min`; no bar where the total is not known.
fn figures(of: &Value, look: Look, has_bar: bool) -> String {
    let total = of["total"].as_u64();
    let done = of["done"].as_u64().unwrap_or_default();
    let mut parts = Vec::new();
    match total {
        Some(total) if has_bar => {
            parts.push(format!("{}  {} of {}", bar(done, total, look), count(done), count(total)))
        }
        Some(total) => parts.push(format!("{} of {}", count(done), count(total))),
        None => parts.push(format!("{} so far", count(done))),
    }
    let either = |names: [&str; 2]| names.iter().find_map(|name| of[*name].as_u64());
    parts.extend(either(["rate_octets_s", "rate_bytes_s"]).map(rate));
    parts.extend(of["eta_s"].as_u64().map(|seconds| about(Duration::from_secs(seconds))));
    parts.join("   ")
}

fn bar(done: u64, total: u64, look: Look) -> String {
    let full = match total {
        0 => BAR,
        total => u64::try_from(u128::from(done.min(total)) * u128::from(BAR) / u128::from(total)).unwrap_or(BAR),
    };
    let (begin, there, missing, end) = if look.utf8 { ("", "▓", "░", "") } else { ("[", "#", ".", "]") };
    let times = |sign: &str, n: u64| sign.repeat(usize::try_from(n).unwrap_or_default());
    format!("{begin}{}{}{end}", times(there, full), times(missing, BAR - full))
}

/// The line that is drawn again and again while an account is checked.
pub(crate) fn bar_line(row: &Value, look: Look) -> Option<String> {
    let progress = &row["progress"];
    (row["activity"] == "checking" && progress["done"].is_u64()).then(|| figures(progress, look, true))
}

/// The columns of all that runs.
pub(crate) const BOARD: &[Column] =
    &[Column::always("  ADDRESS"), Column::text("PROGRESS"), Column::number("RATE"), Column::text("LEFT")];

pub(crate) fn board_row(row: &Value, out: Out) -> Vec<Cell> {
    let address = text(&row["address"]);
    let progress = &row["progress"];
    if row["activity"] != "checking" {
        let (state, how) = match row["cause"].is_null() {
            true => ("ok", "done".to_owned()),
            false => (row["health"].as_str().unwrap_or_default(), word(&row["cause"]["code"])),
        };
        return vec![out.state(state, &address), Cell::plain(how)];
    }
    let done = progress["done"].as_u64().unwrap_or_default();
    let so_far = match progress["total"].as_u64() {
        Some(total) => format!("{}  {} of {}", bar(done, total, out.look), count(done), count(total)),
        None => format!("{} so far", count(done)),
    };
    let rate = progress["rate_octets_s"].as_u64().map_or_else(|| "-".to_owned(), rate);
    let left = progress["eta_s"].as_u64().map(|seconds| about(Duration::from_secs(seconds))).unwrap_or_default();
    vec![out.state("checking", &address), Cell::plain(so_far), Cell::plain(rate), Cell::plain(left)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(activity: &str, done: u64) -> Value {
        let step = json!({"name": "connection", "state": "ok", "result": "pop.isp.test:995\u{1b}[2J", "ms": 84, "cause": null});
        let tally = [json!({"state": "delivered", "count": done}), json!({"state": "spam", "count": 0})];
        let progress = json!({
            "steps": [step], "done": done, "total": 1240, "octets": 1, "rate_octets_s": 1_800_000, "eta_s": 95, "tally": tally,
        });
        let progress = if activity == "checking" { progress } else { Value::Null };
        json!({"address": "old@isp.test", "activity": activity, "cause": null, "last_ok": "x", "progress": progress})
    }

    fn shown(events: &[Value]) -> Vec<String> {
        events.iter().filter_map(|event| line(event, false, Look::default())).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut watched = Watched::default();
        let at = json!("");
        assert_eq!(watched.changes(&row("idle", 0), &at), Vec::<Value>::new());
        let begun = watched.changes(&row("checking", 560), &at);
        let lines = ["  connection: pop.isp.test:995\\x1b[2J (84 ms)", "  560 of 1,240   1.8 MB/s   about 2 min"];
        assert_eq!(shown(&begun), lines);
        assert_eq!(watched.changes(&row("checking", 560), &at), Vec::<Value>::new());
        let ended = watched.changes(&row("idle", 0), &at);
        assert_eq!(shown(&ended), ["  done: 560 retrieved, 560 delivered"]);
        assert_eq!(watched.changes(&row("idle", 0), &at), Vec::<Value>::new());
    }

    #[test]
    fn a_check_that_nobody_saw_running_has_ended_too() {
        let mut watched = Watched::default();
        watched.changes(&row("idle", 0), &json!(""));
        let mut later = row("idle", 0);
        later["last_ok"] = "y".into();
        assert_eq!(shown(&watched.changes(&later, &json!(""))), ["  done"]);
    }

    #[test]
    fn one_check_after_another_ends_the_first() {
        let mut watched = Watched::default();
        watched.changes(&row("checking", 900), &json!(""));
        let events = watched.changes(&row("checking", 3), &json!(""));
        assert_eq!((&events[0]["event"], &events[0]["done"]), (&json!("done"), &json!(900)));
        assert_eq!(events.len(), 3, "the steps of the second are told anew");
    }

    #[test]
    fn a_bar_has_a_total_and_an_end() {
        assert_eq!(
            bar_line(&row("checking", 560), Look::default()).as_deref(),
            Some("[#########...........]  560 of 1,240   1.8 MB/s   about 2 min")
        );
        let mut unknown = row("checking", 560);
        unknown["progress"]["total"] = Value::Null;
        assert!(bar_line(&unknown, Look::default()).is_some_and(|line| line.starts_with("560 so far")));
        assert_eq!(bar(9, 0, Look::default()), "[####################]");
        assert_eq!(bar(u64::MAX, 3, Look { utf8: true, colour: false }), "▓".repeat(20));
    }
}
