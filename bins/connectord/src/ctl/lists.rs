//! The lists of the API as tables.

use connectord::table::{Cell, Column};
use serde_json::Value;

use crate::out::{List, Out, clock, distance, millis, number, or_dash, score, size, text, word};

fn plain<const N: usize>(cells: [String; N]) -> Vec<Cell> {
    cells.into_iter().map(Cell::plain).collect()
}

fn age(at: &Value) -> String {
    or_dash(distance(at).unwrap_or_default())
}

/// A subject; one that is missing is not an empty cell.
pub(crate) fn subject(value: &Value) -> String {
    let subject = text(value);
    if subject.is_empty() { "(no subject)".to_owned() } else { subject }
}

/// What became of a message, and its score where that is why.
pub(crate) fn message_state(message: &Value) -> String {
    let state = format!("{} {}", word(&message["state"]), score(&message["score"]));
    state.trim_end().to_owned()
}

/// Why a message is held.
pub(crate) fn why(held: &Value) -> String {
    let why = format!("{} {} {}", word(&held["why"]), text(&held["name"]), score(&held["score"]));
    why.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) const USERS: List = List {
    path: "/api/v1/users",
    of: "users",
    empty: "No local user is known, or none matches.",
    columns: &[
        Column::always("  USER"),
        Column::number("ACCOUNTS"),
        Column::number("NEED ACTION"),
        Column::number("DELAYED"),
        Column::number("TODAY"),
        Column::text(""),
    ],
    row: |user, out| {
        let counts = &user["accounts"];
        let is_gone = user["here"] == false;
        let health = match (counts["action"].as_u64(), counts["delayed"].as_u64()) {
            (Some(1..), _) => "action",
            (_, Some(1..)) => "delayed",
            _ => "",
        };
        let mut cells = vec![out.state(if is_gone { "action" } else { health }, &text(&user["name"]))];
        let counts = [&counts["total"], &counts["action"], &counts["delayed"], &user["today"]];
        cells.extend(counts.map(|count| Cell::plain(number(count))));
        cells.push(Cell::plain(if is_gone { "gone here" } else { "" }));
        cells
    },
};

pub(crate) const MESSAGES: List = List {
    path: "/api/v1/messages",
    of: "messages",
    empty: "No message matches.",
    columns: &[
        Column::always("ID"),
        Column::always("TIME"),
        Column::text("STATE"),
        Column::text("FOR"),
        Column::text("FROM"),
        Column::cut("SUBJECT"),
    ],
    row: |message, _| {
        plain([
            text(&message["id"]),
            clock(&message["at"]),
            message_state(message),
            text(&message["deliver_to"]),
            or_dash(text(&message["from"])),
            subject(&message["subject"]),
        ])
    },
};

pub(crate) const QUARANTINE: List = List {
    path: "/api/v1/quarantine",
    of: "messages",
    empty: "Nothing is held. What would come here: messages with a virus, much spam, or what a rule keeps back.",
    columns: &[
        Column::always("ID"),
        Column::text("AGE"),
        Column::text("FOR"),
        Column::text("WHY"),
        Column::text("FROM"),
        Column::cut("SUBJECT"),
    ],
    row: |held, _| {
        plain([
            text(&held["id"]),
            age(&held["held_at"]),
            text(&held["deliver_to"]),
            why(held),
            or_dash(text(&held["from"])),
            subject(&held["subject"]),
        ])
    },
};

pub(crate) const PARKED: List = List {
    path: "/api/v1/parked",
    of: "messages",
    empty: "Nothing is parked.",
    columns: &[
        Column::always("ID"),
        Column::text("AGE"),
        Column::text("FOR"),
        Column::text("ACCOUNT"),
        Column::number("SIZE"),
        Column::number("TRIES"),
        Column::cut("WHY"),
    ],
    row: |parked, _| {
        plain([
            text(&parked["id"]),
            age(&parked["at"]),
            text(&parked["deliver_to"]),
            text(&parked["address"]),
            size(&parked["octets"]),
            number(&parked["tries"]),
            text(&parked["reason"]),
        ])
    },
};

pub(crate) const TOKENS: List = List {
    path: "/api/v1/tokens",
    of: "tokens",
    empty: "No token was made yet: connectorctl token create NAME --role read",
    columns: &[
        Column::always("NAME"),
        Column::always("ID"),
        Column::text("ROLE"),
        Column::text("USER"),
        Column::text("MADE"),
        Column::text("BY"),
    ],
    row: |token, _| {
        plain([
            text(&token["name"]),
            text(&token["id"]).chars().take(12).collect(),
            text(&token["role"]),
            or_dash(text(&token["user"])),
            clock(&token["created"]),
            text(&token["by"]),
        ])
    },
};

pub(crate) const PEOPLE: List = List {
    path: "/api/v1/people",
    of: "people",
    empty: "Nobody can sign in yet: connectorctl token first-start",
    columns: &[Column::always("NAME"), Column::text("ROLE"), Column::text("USER"), Column::text("SINCE")],
    row: |person, _| {
        plain([text(&person["name"]), text(&person["role"]), or_dash(text(&person["user"])), clock(&person["created"])])
    },
};

pub(crate) const AUDIT: List = List {
    path: "/api/v1/audit",
    of: "lines",
    empty: "Nothing was done yet.",
    columns: &[
        Column::always("TIME"),
        Column::always("WHO"),
        Column::text("WHAT"),
        Column::text("ABOUT"),
        Column::cut("DETAIL"),
    ],
    row: |audit, _| {
        let texts = ["who", "what", "subject", "detail"].map(|name| or_dash(text(&audit[name])));
        [clock(&audit["at"])].into_iter().chain(texts).map(Cell::plain).collect()
    },
};

/// Parts of the installation.
pub(crate) const HEALTH: &[Column] =
    &[Column::always("  PART"), Column::text("STATE"), Column::number("ANSWERED IN"), Column::cut("DETAIL")];

pub(crate) fn part(part: &Value, out: Out) -> Vec<Cell> {
    let state = part["state"].as_str().unwrap_or_default();
    let cells = [text(&part["state"]), millis(&part["latency_ms"]), text(&part["detail"])];
    let mut row = vec![out.state(state, &text(&part["name"]))];
    row.extend(cells.map(Cell::plain));
    row
}
