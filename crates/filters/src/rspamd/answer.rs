//! Reads Rspamd's answer to `/checkv2`.

mod ordered;

use connectord_filter::{Action, Finding, HeaderChange, Symbol};
use serde::Deserialize;

use crate::text::{milli, shown};
use ordered::{Many, Ordered};

/// Most symbols that are taken.
const MAX_SYMBOLS: usize = 200;

/// Most header changes that are taken.
const MAX_CHANGES: usize = 100;

/// What is no answer: where and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// Not the JSON that was expected.
    #[error("{0}")]
    Json(String),
    /// It says that it failed.
    #[error("it failed at the message")]
    Failed,
    /// Neither an action nor an error.
    #[error("expected an action")]
    NoAction,
}

/// What is taken of an answer; all else is passed over, without being kept.
#[derive(Deserialize)]
struct Raw {
    action: Option<String>,
    score: Option<f64>,
    required_score: Option<f64>,
    #[serde(default)]
    symbols: Ordered<RawSymbol>,
    subject: Option<String>,
    #[serde(default)]
    messages: Ordered<Text>,
    #[serde(default)]
    milter: Milter,
    error: Option<String>,
}

#[derive(Deserialize)]
struct RawSymbol {
    score: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Milter {
    add_headers: Ordered<Many<Added>>,
    remove_headers: Ordered<Many<i64>>,
}

/// A value, or a value with the place where it is to stand.
#[derive(Deserialize)]
#[serde(untagged)]
enum Added {
    Value(String),
    Placed { value: String, order: Option<i64> },
}

/// A text, or something else, which is not of interest.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Other(serde::de::IgnoredAny),
}

/// Reads an answer.
pub(crate) fn parse(octets: &[u8]) -> Result<Finding, NoAnswer> {
    // Symbols' options may quote a message's octets.
    let text = String::from_utf8_lossy(octets);
    let raw: Raw = serde_json::from_str(&text).map_err(|error| NoAnswer::Json(shown(error.to_string().as_bytes())))?;
    let Some(action) = raw.action else {
        return Err(if raw.error.is_some() { NoAnswer::Failed } else { NoAnswer::NoAction });
    };
    let milli_score = raw.score.and_then(milli);
    let milli_required = raw.required_score.and_then(milli);
    let text = raw.messages.0.iter().find_map(|(name, text)| match text {
        Text::Text(text) if name == "smtp_message" => Some(shown(text.as_bytes())),
        _ => None,
    });
    let (action, text) = action_of(&action, milli_score, milli_required, text);
    let symbol = |(name, symbol): (String, RawSymbol)| {
        let milli_score = symbol.score.and_then(milli).unwrap_or(0);
        Symbol { name: shown(name.as_bytes()), milli_score }
    };
    Ok(Finding {
        action,
        milli_score,
        milli_required,
        symbols: raw.symbols.0.into_iter().take(MAX_SYMBOLS).map(symbol).collect(),
        headers: changes(raw.milter),
        subject: raw.subject.filter(|_| action == Action::RewriteSubject),
        text,
        ..Finding::default()
    })
}

/// What Rspamd says instead of an answer: `{"error":"invalid command"}`.
pub(crate) fn error(octets: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Failed {
        error: String,
    }
    serde_json::from_slice::<Failed>(octets).ok().map(|failed| shown(failed.error.as_bytes()))
}

fn action_of(
    name: &str,
    milli_score: Option<i32>,
    milli_required: Option<i32>,
    text: Option<String>,
) -> (Action, Option<String>) {
    if let Some(action) = Action::parse(name) {
        return (action, text);
    }
    // What it was is told to people, who may have written it themselves.
    let text = text.or_else(|| Some(format!("action \"{}\"", shown(name.as_bytes()))));
    let name = name.trim().to_ascii_lowercase();
    let action = match name.as_str() {
        "accept" => Action::NoAction,
        "discard" | "quarantine" => Action::Reject,
        _ if milli_score.zip(milli_required).is_some_and(|(score, required)| score >= required) => Action::Reject,
        _ => Action::NoAction,
    };
    (action, text)
}

/// Fields to take out, and those to add, in the order in which they stand from the top.
///
/// `order` is that of a milter's "insert at": the place from the top. Those without one, or with a negative one, are
/// for the end of the header there; here everything stands in front, they below the others.
fn changes(milter: Milter) -> Vec<HeaderChange> {
    let removed = milter.remove_headers.0.into_iter().flat_map(|(name, places)| {
        places.0.into_iter().map(move |nth| HeaderChange::Remove {
            name: name.clone(),
            nth: i32::try_from(nth).unwrap_or(if nth < 0 { i32::MIN } else { i32::MAX }),
        })
    });
    let mut added: Vec<_> = milter
        .add_headers
        .0
        .into_iter()
        .flat_map(|(name, values)| {
            values.0.into_iter().map(move |added| match added {
                Added::Value(value) => (None, HeaderChange::Add { name: name.clone(), value }),
                Added::Placed { value, order } => (order, HeaderChange::Add { name: name.clone(), value }),
            })
        })
        .collect();
    added.sort_by_key(|(order, _)| order.filter(|order| *order >= 0).unwrap_or(i64::MAX));
    removed.chain(added.into_iter().map(|(_, change)| change)).take(MAX_CHANGES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str, value: &str) -> HeaderChange {
        HeaderChange::Add { name: name.into(), value: value.into() }
    }

    #[test]
    fn an_answer_of_the_real_one_is_read() {
        // Rspamd 3.4.
        let answer = br#"{"is_skipped":false,"score":7.900000,"required_score":15.0,"action":"add header","symbols":{
            "MISSING_TO":{"name":"MISSING_TO","score":2.0,"metric_score":2.0,"description":"To header is missing"},
            "ARC_NA":{"name":"ARC_NA","score":0.0,"options":["\ud83d\ude00"]},
            "MIME_GOOD":{"name":"MIME_GOOD","score":-0.100000}},
            "messages":{"smtp_message":"Try again later","other":[1,2]},"message-id":"undef","time_real":0.104149,
            "milter":{"remove_headers":{"X-Spam":0}}}"#;
        let finding = parse(answer).unwrap();
        let symbol = |name: &str, milli_score| Symbol { name: name.into(), milli_score };
        assert_eq!(
            finding,
            Finding {
                action: Action::AddHeader,
                milli_score: Some(7900),
                milli_required: Some(15_000),
                symbols: vec![symbol("MISSING_TO", 2000), symbol("ARC_NA", 0), symbol("MIME_GOOD", -100)],
                headers: vec![HeaderChange::Remove { name: "X-Spam".into(), nth: 0 }],
                text: Some("Try again later".into()),
                ..Finding::default()
            }
        );
    }

    #[test]
    fn every_action_is_read_and_what_a_site_calls_its_own_counts_by_its_score() {
        let action = |name: &str, score: i32| {
            let answer = format!(r#"{{"action":"{name}","score":{score},"required_score":15,"subject":"new"}}"#);
            let finding = parse(answer.as_bytes()).unwrap();
            (finding.action, finding.subject.is_some(), finding.text)
        };
        for (name, expected) in [
            ("no action", Action::NoAction),
            ("greylist", Action::Greylist),
            ("add header", Action::AddHeader),
            ("rewrite subject", Action::RewriteSubject),
            ("soft reject", Action::SoftReject),
            ("reject", Action::Reject),
        ] {
            assert_eq!(action(name, 1), (expected, expected == Action::RewriteSubject, None));
        }
        let told = |name: &str| Some(format!("action \"{name}\""));
        assert_eq!(action("discard", 1), (Action::Reject, false, told("discard")));
        assert_eq!(action("quarantine", 1), (Action::Reject, false, told("quarantine")));
        assert_eq!(action("accept", 99), (Action::NoAction, false, told("accept")));
        assert_eq!(action("ours", 14), (Action::NoAction, false, told("ours")));
        assert_eq!(action("ours", 15), (Action::Reject, false, told("ours")));
    }

    #[test]
    fn fields_to_add_and_to_take_out_come_in_every_form() {
        let answer = br#"{"action":"no action","milter":{
            "remove_headers":{"X-A":1,"X-B":[-1,2],"X-Big":99999999999},
            "add_headers":{
                "X-Plain":"plain",
                "X-List":["one","two"],
                "X-Last":{"value":"last","order":-1},
                "X-Second":{"value":"second","order":1},
                "X-First":[{"value":"first","order":0},{"value":"third","order":2}]}}}"#;
        let remove = |name: &str, nth| HeaderChange::Remove { name: name.into(), nth };
        assert_eq!(
            parse(answer).unwrap().headers,
            [
                remove("X-A", 1),
                remove("X-B", -1),
                remove("X-B", 2),
                remove("X-Big", i32::MAX),
                add("X-First", "first"),
                add("X-Second", "second"),
                add("X-First", "third"),
                add("X-Plain", "plain"),
                add("X-List", "one"),
                add("X-List", "two"),
                add("X-Last", "last"),
            ]
        );
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        for answer in ["", "pong", "[]", "{}", r#"{"action":null}"#, r#"{"action":"reject""#, r#"{"error":"x"}"#] {
            assert!(parse(answer.as_bytes()).is_err(), "{answer}");
        }
        let deep = format!(r#"{{"action":"reject","x":{}"#, "[".repeat(100_000));
        assert!(parse(deep.as_bytes()).is_err());
        assert_eq!(error(br#"{"error":"invalid\ncommand"}"#).as_deref(), Some(r"invalid\ncommand"));
    }

    #[test]
    fn an_answer_of_many_symbols_is_bounded() {
        let symbols: Vec<_> = (0..5000).map(|n| format!(r#""S{n}":{{"score":{n}}}"#)).collect();
        let answer = format!(r#"{{"action":"reject","score":1e300,"symbols":{{{}}}}}"#, symbols.join(","));
        let finding = parse(answer.as_bytes()).unwrap();
        assert_eq!(finding.symbols.len(), MAX_SYMBOLS);
        assert_eq!(finding.milli_score, Some(i32::MAX));
    }
}
