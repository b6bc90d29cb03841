//! What is written of a message: a copy of [`Held`] in values that are read and written as JSON, each of them bounded.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use connectord_filter as filter;
use connectord_filter::{Held, HeldFor};
use connectord_mail::{Body, DeliveryId, Head, UnixTime};
use serde::{Deserialize, Serialize};

/// Longest text that is kept of anything but a header field's value, in octets.
const MAX_TEXT: usize = 8 * 1024;

/// Longest value of a header field that is to be added, in octets: no longer one is written.
const MAX_VALUE: usize = 4096;

/// Longest From and Subject that are kept for lists, in octets.
const MAX_SHOWN: usize = 1000;

/// Most answers, viruses, symbols of one answer, and header changes that are kept.
const MAX_ITEMS: usize = 500;

/// All that is known of a message that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) id: String,
    /// Counts up with each message that is kept.
    pub(crate) serial: u64,
    pub(crate) account: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) mailbox: String,
    pub(crate) destination: String,
    /// User and address.
    pub(crate) recipients: Vec<(String, String)>,
    pub(crate) reverse_path: Option<String>,
    pub(crate) arrived_at: Option<UnixTime>,
    pub(crate) held_at: UnixTime,
    pub(crate) reason: String,
    pub(crate) spam: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) viruses: Vec<String>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) edits: Edits,
    /// In base64.
    pub(crate) trace: String,
    /// As [`Body::line_feeds`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) line_feeds: Option<u64>,
    /// The header field, unfolded.
    pub(crate) from: String,
    /// The header field, unfolded.
    pub(crate) subject: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    filter: String,
    #[serde(with = "Kind")]
    kind: filter::Kind,
    verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Found(Box<Finding>),
    Unchecked {
        #[serde(with = "Why")]
        why: filter::Why,
        text: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Finding {
    #[serde(with = "Action")]
    action: filter::Action,
    milli_score: Option<i32>,
    milli_required: Option<i32>,
    /// Name, and thousandths of a point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    symbols: Vec<(String, i32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    viruses: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderChange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ruling: Option<Ruling>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeaderChange {
    Add(String, String),
    Remove(String, i32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ruling {
    Allow(String),
    Block(String),
    Folder(String),
    Discard(String),
    Keep,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edits {
    add: Vec<(String, String)>,
    remove: Vec<(String, i32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "filter::Kind", rename_all = "snake_case")]
enum Kind {
    Antispam,
    Antivirus,
    Both,
    Rules,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "filter::Why", rename_all = "snake_case")]
enum Why {
    Unavailable,
    TimedOut,
    Rubbish,
    Failed,
    Refused,
    TooLarge,
    Misconfigured,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "filter::Action", rename_all = "snake_case")]
#[allow(clippy::enum_variant_names, reason = "the names are those of the other type")]
enum Action {
    NoAction,
    Greylist,
    AddHeader,
    RewriteSubject,
    SoftReject,
    Reject,
}

impl Header {
    /// What is written of a message whose header is `head`.
    pub(crate) fn of(held: &Held, serial: u64, head: Head<'_>) -> Self {
        let field = |name: &str| {
            let field = head.fields().find(|field| field.is(name));
            field.map(|field| cut(&String::from_utf8_lossy(&field.unfolded()), MAX_SHOWN)).unwrap_or_default()
        };
        Self {
            id: held.id.to_string(),
            serial,
            account: text(&held.account),
            mailbox: text(&held.mailbox),
            destination: text(&held.destination),
            recipients: held.recipients.iter().map(|to| (text(&to.user), text(&to.address))).collect(),
            reverse_path: held.reverse_path.as_deref().map(text),
            arrived_at: held.arrived_at,
            held_at: held.held_at,
            reason: text(&held.reason),
            spam: held.spam,
            viruses: texts(&held.viruses),
            answers: held.answers.iter().take(MAX_ITEMS).map(Answer::of).collect(),
            edits: Edits::of(&held.edits),
            trace: STANDARD.encode(&held.trace),
            line_feeds: held.body.line_feeds(),
            from: field("From"),
            subject: field("Subject"),
        }
    }

    /// The same in few octets, for a message of which filters said more than is ever read: what is decided stays.
    pub(crate) fn shortened(mut self) -> Self {
        self.answers.clear();
        self.viruses.truncate(20);
        self.edits.add.truncate(100);
        self.edits.remove.truncate(100);
        self
    }

    /// The identity, if it is one.
    pub(crate) fn id(&self) -> Option<DeliveryId> {
        DeliveryId::parse(&self.id)
    }

    /// The message again; `None` when the identity or the trace is none.
    pub(crate) fn held(&self, body: Arc<dyn Body>) -> Option<Held> {
        Some(Held {
            id: self.id()?,
            account: self.account.clone(),
            mailbox: self.mailbox.clone(),
            destination: self.destination.clone(),
            recipients: self
                .recipients
                .iter()
                .map(|(user, address)| HeldFor { user: user.clone(), address: address.clone() })
                .collect(),
            reverse_path: self.reverse_path.clone(),
            arrived_at: self.arrived_at,
            held_at: self.held_at,
            reason: self.reason.clone(),
            spam: self.spam,
            viruses: self.viruses.clone(),
            answers: self.answers.iter().map(Answer::value).collect(),
            edits: self.edits.value(),
            trace: STANDARD.decode(&self.trace).ok()?.into(),
            body,
        })
    }
}

impl Answer {
    fn of(answer: &filter::Answer) -> Self {
        let verdict = match &answer.verdict {
            filter::Verdict::Found(finding) => Verdict::Found(Box::new(Finding::of(finding))),
            filter::Verdict::Unchecked(trouble) => Verdict::Unchecked { why: trouble.why, text: text(&trouble.text) },
        };
        Self { filter: text(&answer.filter), kind: answer.kind, verdict }
    }

    fn value(&self) -> filter::Answer {
        let verdict = match &self.verdict {
            Verdict::Found(finding) => filter::Verdict::Found(finding.value()),
            Verdict::Unchecked { why, text } => filter::Verdict::Unchecked(filter::Unchecked::new(*why, text.clone())),
        };
        filter::Answer { filter: self.filter.clone(), kind: self.kind, verdict }
    }
}

impl Finding {
    fn of(finding: &filter::Finding) -> Self {
        let symbol = |symbol: &filter::Symbol| (text(&symbol.name), symbol.milli_score);
        let change = |change: &filter::HeaderChange| match change {
            filter::HeaderChange::Add { name, value } => HeaderChange::Add(text(name), cut(value, MAX_VALUE)),
            filter::HeaderChange::Remove { name, nth } => HeaderChange::Remove(text(name), *nth),
        };
        Self {
            action: finding.action,
            milli_score: finding.milli_score,
            milli_required: finding.milli_required,
            symbols: finding.symbols.iter().take(MAX_ITEMS).map(symbol).collect(),
            viruses: texts(&finding.viruses),
            headers: finding.headers.iter().take(MAX_ITEMS).map(change).collect(),
            subject: finding.subject.as_deref().map(text),
            text: finding.text.as_deref().map(text),
            ruling: finding.ruling.as_ref().map(|ruling| match ruling {
                filter::Ruling::Allow(why) => Ruling::Allow(text(why)),
                filter::Ruling::Block(why) => Ruling::Block(text(why)),
                filter::Ruling::Folder(folder) => Ruling::Folder(text(folder)),
                filter::Ruling::Discard(why) => Ruling::Discard(text(why)),
                filter::Ruling::Keep => Ruling::Keep,
            }),
        }
    }

    fn value(&self) -> filter::Finding {
        let symbol =
            |(name, milli_score): &(String, i32)| filter::Symbol { name: name.clone(), milli_score: *milli_score };
        let change = |change: &HeaderChange| match change {
            HeaderChange::Add(name, value) => filter::HeaderChange::Add { name: name.clone(), value: value.clone() },
            HeaderChange::Remove(name, nth) => filter::HeaderChange::Remove { name: name.clone(), nth: *nth },
        };
        filter::Finding {
            action: self.action,
            milli_score: self.milli_score,
            milli_required: self.milli_required,
            symbols: self.symbols.iter().map(symbol).collect(),
            viruses: self.viruses.clone(),
            headers: self.headers.iter().map(change).collect(),
            subject: self.subject.clone(),
            text: self.text.clone(),
            ruling: self.ruling.as_ref().map(|ruling| match ruling.clone() {
                Ruling::Allow(why) => filter::Ruling::Allow(why),
                Ruling::Block(why) => filter::Ruling::Block(why),
                Ruling::Folder(folder) => filter::Ruling::Folder(folder),
                Ruling::Discard(why) => filter::Ruling::Discard(why),
                Ruling::Keep => filter::Ruling::Keep,
            }),
        }
    }
}

impl Edits {
    fn of(edits: &filter::Edits) -> Self {
        let add = |(name, value): &(String, String)| (text(name), cut(value, MAX_VALUE));
        Self {
            add: edits.add.iter().take(MAX_ITEMS).map(add).collect(),
            remove: edits.remove.iter().take(MAX_ITEMS).map(|(name, nth)| (text(name), *nth)).collect(),
            subject_prefix: edits.subject_prefix.as_deref().map(text),
            subject: edits.subject.as_deref().map(text),
        }
    }

    fn value(&self) -> filter::Edits {
        filter::Edits {
            add: self.add.clone(),
            remove: self.remove.clone(),
            subject_prefix: self.subject_prefix.clone(),
            subject: self.subject.clone(),
        }
    }
}

fn texts(of: &[String]) -> Vec<String> {
    of.iter().take(MAX_ITEMS).map(|item| text(item)).collect()
}

fn text(of: &str) -> String {
    cut(of, MAX_TEXT)
}

/// The beginning, to the end of a character.
pub(crate) fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::*;

    fn answer() -> impl Strategy<Value = filter::Answer> {
        let action = (0usize..6).prop_map(|at| {
            use filter::Action::{AddHeader, Greylist, NoAction, Reject, RewriteSubject, SoftReject};
            [NoAction, Greylist, AddHeader, RewriteSubject, SoftReject, Reject][at]
        });
        let change =
            (any::<String>(), any::<String>(), any::<i32>(), any::<bool>()).prop_map(|(name, value, nth, add)| {
                if add { filter::HeaderChange::Add { name, value } } else { filter::HeaderChange::Remove { name, nth } }
            });
        let ruling = (0usize..5, any::<String>()).prop_map(|(at, text)| match at {
            0 => filter::Ruling::Allow(text),
            1 => filter::Ruling::Block(text),
            2 => filter::Ruling::Folder(text),
            3 => filter::Ruling::Discard(text),
            _ => filter::Ruling::Keep,
        });
        let symbol = (any::<String>(), any::<i32>());
        let symbol = symbol.prop_map(|(name, milli_score)| filter::Symbol { name, milli_score });
        let texts = (option::of(any::<String>()), option::of(any::<String>()), vec(any::<String>(), 0..3));
        let scores = (option::of(any::<i32>()), option::of(any::<i32>()));
        let finding = (action, scores, texts, vec(symbol, 0..4), vec(change, 0..4), option::of(ruling)).prop_map(
            |(action, (milli_score, milli_required), (subject, text, viruses), symbols, headers, ruling)| {
                filter::Finding {
                    action,
                    milli_score,
                    milli_required,
                    symbols,
                    viruses,
                    headers,
                    subject,
                    text,
                    ruling,
                }
            },
        );
        let why = (0usize..7).prop_map(|at| {
            use filter::Why::{Failed, Misconfigured, Refused, Rubbish, TimedOut, TooLarge, Unavailable};
            [Unavailable, TimedOut, Rubbish, Failed, Refused, TooLarge, Misconfigured][at]
        });
        let verdict = prop_oneof![
            finding.prop_map(filter::Verdict::Found),
            (why, any::<String>())
                .prop_map(|(why, text)| filter::Verdict::Unchecked(filter::Unchecked::new(why, text))),
        ];
        let kind = (0usize..4).prop_map(|at| {
            use filter::Kind::{Antispam, Antivirus, Both, Rules};
            [Antispam, Antivirus, Both, Rules][at]
        });
        (any::<String>(), kind, verdict).prop_map(|(filter, kind, verdict)| filter::Answer { filter, kind, verdict })
    }

    fn held() -> impl Strategy<Value = Held> {
        let edits = (
            vec((any::<String>(), any::<String>()), 0..3),
            vec((any::<String>(), any::<i32>()), 0..3),
            option::of(any::<String>()),
            option::of(any::<String>()),
        );
        let texts = (any::<String>(), any::<String>(), any::<String>(), any::<String>(), option::of(any::<String>()));
        let times = (option::of(any::<i64>()), any::<i64>(), any::<bool>());
        let lists = (vec((any::<String>(), any::<String>()), 0..3), vec(any::<String>(), 0..3), vec(answer(), 0..3));
        let octets = (vec(any::<u8>(), 0..60), vec(any::<u8>(), 0..300), any::<u64>());
        (edits, texts, times, lists, octets).prop_map(|(edits, texts, times, lists, (trace, body, key))| Held {
            id: DeliveryId::new(connectord_mail::Identity {
                account: "a",
                mailbox: "",
                uid_validity: 0,
                key: &key.to_be_bytes(),
                generation: 0,
            }),
            account: texts.0,
            mailbox: texts.1,
            destination: texts.2,
            reason: texts.3,
            reverse_path: texts.4,
            recipients: lists.0.into_iter().map(|(user, address)| HeldFor { user, address }).collect(),
            arrived_at: times.0.map(UnixTime),
            held_at: UnixTime(times.1),
            spam: times.2,
            viruses: lists.1,
            answers: lists.2,
            edits: filter::Edits { add: edits.0, remove: edits.1, subject_prefix: edits.2, subject: edits.3 },
            trace: trace.into(),
            body: Arc::new(bytes::Bytes::from(body)),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_of_a_message_is_read_again(held in held(), serial in any::<u64>(), cut in any::<prop::sample::Index>()) {
            let body = held.body.as_slice().unwrap().to_vec();
            let header = Header::of(&held, serial, Head::of(&body));
            let mut file = crate::file::front(&header, body.len() as u64).unwrap();
            file.extend_from_slice(&body);
            let mut digest = <sha2::Sha256 as sha2::Digest>::new();
            sha2::Digest::update(&mut digest, &body);
            file.extend_from_slice(crate::file::trailer(digest).as_bytes());
            crate::fuzzing::quarantine_file(&file);
            let octets = bytes::Bytes::from(file.clone());
            let opened = crate::file::open(&octets).unwrap();
            let mut seen = Vec::new();
            let whole = crate::file::verify(&octets, &opened, |piece| { seen.extend_from_slice(piece); Ok(()) });
            prop_assert_eq!((whole, &seen), (Ok(()), &body));
            prop_assert_eq!(&opened.header, &header);
            let again = opened.header.held(Arc::clone(&held.body)).unwrap();
            prop_assert_eq!(
                (again.id, &again.account, &again.mailbox, &again.destination, &again.recipients, &again.reverse_path),
                (held.id, &held.account, &held.mailbox, &held.destination, &held.recipients, &held.reverse_path)
            );
            prop_assert_eq!(
                (again.arrived_at, again.held_at, &again.reason, again.spam, &again.viruses, &again.trace),
                (held.arrived_at, held.held_at, &held.reason, held.spam, &held.viruses, &held.trace)
            );
            prop_assert_eq!((&again.answers, &again.edits), (&held.answers, &held.edits));

            // Cut off anywhere, or with one octet changed, it is not taken for whole.
            let at = cut.index(file.len());
            crate::fuzzing::quarantine_file(&file[..at]);
            prop_assert!(crate::file::open(&bytes::Bytes::copy_from_slice(&file[..at])).is_err());
            file[at] ^= 0x20;
            crate::fuzzing::quarantine_file(&file);
            let changed = bytes::Bytes::from(file);
            let whole = crate::file::open(&changed).and_then(|opened| crate::file::verify(&changed, &opened, |_| Ok(())));
            prop_assert!(whole.is_err());
        }
    }

    #[test]
    fn more_than_anybody_reads_is_cut_and_the_message_kept_all_the_same() {
        let symbol = filter::Symbol { name: "\u{1}".repeat(MAX_TEXT), milli_score: 1 };
        let finding = filter::Finding { symbols: vec![symbol; 2000], ..filter::Finding::default() };
        let answer =
            filter::Answer { filter: "f".into(), kind: filter::Kind::Both, verdict: filter::Verdict::Found(finding) };
        let mut held = held().new_tree(&mut proptest::test_runner::TestRunner::deterministic()).unwrap().current();
        held.answers = vec![answer];
        let header = Header::of(&held, 1, Head::of(b""));
        assert_eq!(crate::file::front(&header, 0), None);
        assert!(crate::file::front(&header.shortened(), 0).is_some());
    }
}
