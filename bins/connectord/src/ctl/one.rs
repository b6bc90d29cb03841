//! One message, with what became of it.

use std::fmt::Write;

use connectord::look::DIM;
use connectord::say;
use serde_json::Value;

use crate::api::{Api, segment};
use crate::error::Error;
use crate::lists::{message_state, subject, why};
use crate::out::{Out, clock, full, json_text, number, or_dash, size, text};

/// A name and a value, a line each; the value is escaped already.
fn line(page: &mut String, name: &str, value: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(page, "{name:<12}{}", or_dash(value.to_owned()));
}

pub(crate) async fn message(api: &Api, id: &str, out: Out) -> Result<u8, Error> {
    let answer = api.get(&format!("/api/v1/messages/{}", segment(id)), &Vec::new()).await?;
    if out.json {
        say::out(json_text(&answer));
        return Ok(0);
    }
    let message = &answer["message"];
    let mut page = format!("{}\n", subject(&message["subject"]));
    line(&mut page, "State", &message_state(message));
    line(&mut page, "From", &text(&message["from"]));
    line(&mut page, "For", &text(&message["deliver_to"]));
    line(&mut page, "Account", &text(&message["address"]));
    line(&mut page, "Message-ID", &text(&message["message_id"]));
    line(&mut page, "Size", &size(&message["octets"]));
    line(&mut page, "Last", &full(&message["at"]));
    let _ = writeln!(page, "{}", out.look.paint(DIM, "TRAIL"));
    for step in answer["trail"].as_array().into_iter().flatten() {
        let what = match step["what"].as_str().unwrap_or_default() {
            "relay" => "handed over by".to_owned(),
            "seen" | "removed" => format!("{} there", text(&step["what"])),
            _ => text(&step["what"]),
        };
        let shown = format!("{}  {what:<14}  {}", clock(&step["at"]), text(&step["detail"]));
        let _ = writeln!(page, "{}", shown.trim_end());
    }
    say::out_as_is(&page);
    Ok(0)
}

pub(crate) async fn held(api: &Api, id: &str, out: Out) -> Result<u8, Error> {
    let held = api.get(&format!("/api/v1/quarantine/{}", segment(id)), &Vec::new()).await?;
    if out.json {
        say::out(json_text(&held));
        return Ok(0);
    }
    let mut page = format!("{}\n", subject(&held["subject"]));
    line(&mut page, "Why", &why(&held));
    line(&mut page, "From", &text(&held["from"]));
    line(&mut page, "For", &text(&held["deliver_to"]));
    line(&mut page, "Account", &text(&held["address"]));
    line(&mut page, "Handed over", &text(&held["handed_over_by"]));
    line(&mut page, "Size", &size(&held["octets"]));
    line(&mut page, "Held since", &full(&held["held_at"]));
    line(&mut page, "Discarded", &full(&held["expires"]));
    line(&mut page, "There", if held["there"] == true { "the provider still has it" } else { "not any more" });
    let _ = writeln!(page, "{}", out.look.paint(DIM, "HEAD"));
    for field in held["head"].as_array().into_iter().flatten() {
        let _ = writeln!(page, "{}: {}", text(&field[0]), text(&field[1]));
    }
    let symbols = held["symbols"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !symbols.is_empty() {
        let title = format!("SCORES, the heaviest {} of {}", symbols.len(), number(&held["symbols_total"]));
        let _ = writeln!(page, "{}", out.look.paint(DIM, &title));
        for symbol in symbols {
            let _ = writeln!(page, "{:>7}  {}", points(&symbol[1]), text(&symbol[0]));
        }
    }
    say::out_as_is(&page);
    Ok(0)
}

fn points(milli: &Value) -> String {
    format!("{:.1}", milli.as_i64().unwrap_or_default() as f64 / 1000.0)
}
