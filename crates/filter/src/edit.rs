use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use connectord_mail::head::Field;
use connectord_mail::relay::Origin;
use connectord_mail::{Body, Head, LineEnds};

use crate::{Answer, HeaderChange, Kind, Policy, Verdict};

/// Fields that only filters here write: those that come with a message are taken out.
///
/// `X-Spam` and the like only where antispam filters are asked; else they may be the provider's, and somebody's Sieve
/// script may rely on them.
pub const OUR_FIELDS: &[&str] = &["X-Connectord-Filter", "X-Connectord-Unchecked", "X-Connectord-Folder"];

/// The fields of the verdict that clients and Sieve scripts read.
const SPAM_FIELDS: &[&str] =
    &["X-Spam", "X-Spam-Flag", "X-Spam-Status", "X-Spam-Level", "X-Spam-Score", "X-Spam-Action"];

/// Most symbols in a trace field.
const MAX_SYMBOLS: usize = 50;

/// Most header changes that one message may get from filters.
const MAX_CHANGES: usize = 100;

/// Most forged Authentication-Results fields that are told apart from others; where there are more, none stays.
const MAX_FORGED: usize = 50;

/// The field of which it matters who wrote it.
const RESULTS: &str = "Authentication-Results";

/// Longest value of an added field, in octets.
const MAX_VALUE: usize = 4096;

/// Longest line that is written, in octets without its end (RFC 5322 §2.1.1 wants 78).
const MAX_LINE: usize = 78;

/// How the header of a message is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Fields to put in front, name and value.
    pub add: Vec<(String, String)>,
    /// Fields to take out; a number other than 0 takes that one of its name alone, from 1 from the top or from -1 from
    /// the bottom.
    pub remove: Vec<(String, i32)>,
    /// Put in front of the subject, if it is not there already.
    pub subject_prefix: Option<String>,
    /// A new subject.
    pub subject: Option<String>,
}

impl Edits {
    /// What the answers ask for, whatever is decided: one trace field for each filter, removal of those that came with
    /// the message, and the filters' own changes.
    pub(crate) fn for_answers(policy: &Policy, answers: &[Answer]) -> Self {
        let mut edits = Self::default();
        let answers: Vec<_> = answers.iter().filter(|answer| policy.wants(answer.kind)).collect();
        edits.remove.extend(OUR_FIELDS.iter().map(|name| ((*name).to_owned(), 0)));
        if answers.iter().any(|answer| matches!(answer.kind, Kind::Antispam | Kind::Both)) {
            edits.remove.extend(SPAM_FIELDS.iter().map(|name| ((*name).to_owned(), 0)));
        }
        for answer in &answers {
            edits.add.push(("X-Connectord-Filter".to_owned(), trace(answer)));
            if let Verdict::Unchecked(trouble) = &answer.verdict {
                edits.add.push(("X-Connectord-Unchecked".to_owned(), format!("{}: {}", answer.filter, trouble.text)));
            }
        }
        let findings = answers.iter().filter_map(|answer| match &answer.verdict {
            Verdict::Found(finding) => Some(&finding.headers),
            Verdict::Unchecked(_) => None,
        });
        for change in findings.flatten().take(MAX_CHANGES) {
            match change {
                HeaderChange::Add { name, value } if may_be_added(name) => {
                    edits.add.push((name.clone(), value.clone()))
                }
                HeaderChange::Remove { name, nth } if may_be_removed(name, *nth) => {
                    edits.remove.push((name.clone(), *nth))
                }
                _ => {}
            }
        }
        edits
    }

    /// The same, and the Authentication-Results fields that are forged are taken out (RFC 8601 §5). `origins` are those of
    /// the message's [envelope](connectord_mail::Envelope::origins).
    #[must_use]
    pub fn without_forged(mut self, origins: &[Origin]) -> Self {
        let forged = || (1..).zip(origins).filter(|(_, origin)| **origin == Origin::Forged).map(|(nth, _)| nth);
        let gone = if forged().count() > MAX_FORGED { vec![0] } else { forged().collect() };
        self.remove.splice(0..0, gone.into_iter().map(|nth| (RESULTS.to_owned(), nth)));
        self
    }

    /// Marks as spam.
    pub(crate) fn mark_spam(&mut self, policy: &Policy) {
        self.add.push(("X-Spam".to_owned(), "Yes".to_owned()));
        self.add.push(("X-Spam-Flag".to_owned(), "YES".to_owned()));
        self.subject_prefix.clone_from(&policy.subject_prefix);
    }

    /// The same without what marks a message as spam, for one that a person says is none: no `X-Spam` fields, and its own
    /// subject. What was checked by whom stays, and so do all removals of fields that came with it.
    #[must_use]
    pub fn without_marks(&self) -> Self {
        let is_subject = |name: &str| name.eq_ignore_ascii_case("Subject");
        let is_mark = |name: &str| name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("X-Spam"));
        Self {
            add: self.add.iter().filter(|(name, _)| !is_mark(name) && !is_subject(name)).cloned().collect(),
            // A filter that writes the subject anew takes the old one out.
            remove: self.remove.iter().filter(|(name, _)| !is_subject(name)).cloned().collect(),
            subject_prefix: None,
            subject: None,
        }
    }

    /// The changed message: octets to put in front of it, with CRLF, behind the other trace fields; and the body, which
    /// is the same one when nothing in it changes.
    ///
    /// `head` is the header of `body`, as [`Head::of`] finds it at its front. A field of which a name is not allowed is
    /// left out; values are folded, and made inert.
    pub fn apply(&self, head: Head<'_>, body: Arc<dyn Body>) -> (Bytes, Arc<dyn Body>) {
        let mut front = Vec::new();
        let mut subject_seen = false;
        for (name, value) in self.add.iter().filter(|(name, _)| is_name(name)) {
            // A filter that writes the subject anew (it took out the old one) is no way around the prefix.
            if name.eq_ignore_ascii_case("Subject") && !subject_seen {
                subject_seen = true;
                write_field(&mut front, name, &self.prefixed(value));
                continue;
            }
            write_field(&mut front, name, value);
        }
        // How many of the name there are from here to the end, where it is counted from there; else how many there were.
        let mut counts: Vec<i32> =
            self.remove.iter().map(|(name, nth)| if *nth < 0 { count(head, name) } else { 0 }).collect();
        let mut kept = Vec::with_capacity(head.octets().len() + 64);
        let mut changed = false;
        let mut end = 0;
        let start = head.octets().as_ptr() as usize;
        for field in head.every_field() {
            // What is between fields (an mbox `From ` line, rubbish) stays where it is.
            let at = field.octets.as_ptr() as usize - start;
            kept.extend_from_slice(&head.octets()[end..at]);
            end = at + field.octets.len();
            let mut gone = false;
            for ((name, nth), count) in self.remove.iter().zip(&mut counts) {
                if field.is(name) {
                    match *nth {
                        0 => gone = true,
                        nth if nth < 0 => {
                            gone |= nth == -*count;
                            *count -= 1;
                        }
                        nth => {
                            *count += 1;
                            gone |= nth == *count;
                        }
                    }
                }
            }
            if gone {
                changed = true;
                continue;
            }
            if field.is("Subject") && !subject_seen {
                subject_seen = true;
                if let Some(subject) = self.new_subject(field.octets, field.value) {
                    changed = true;
                    if body.line_feeds().is_some() {
                        // What is written anew has the line ends of the rest.
                        let mut line_ends = LineEnds::default();
                        line_ends.push(&subject, &mut kept);
                        line_ends.finish(&mut kept);
                    } else {
                        kept.extend_from_slice(&subject);
                    }
                    continue;
                }
            }
            kept.extend_from_slice(field.octets);
        }
        if !subject_seen && let Some(subject) = self.subject.as_ref().or(self.subject_prefix.as_ref()) {
            write_field(&mut front, "Subject", &encoded(subject));
        }
        if !changed {
            return (front.into(), body);
        }
        kept.extend_from_slice(&head.octets()[end..]);
        (front.into(), Arc::new(Edited::new(head, kept, body)))
    }

    /// A subject that a filter wrote, behind the prefix.
    fn prefixed(&self, subject: &str) -> String {
        let prefix = encoded(self.subject_prefix.as_deref().unwrap_or_default());
        if prefix.is_empty() || subject.starts_with(&prefix) {
            subject.to_owned()
        } else {
            format!("{prefix} {subject}")
        }
    }

    fn new_subject(&self, octets: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let line_end: &[u8] = match octets {
            [.., b'\r', b'\n'] => b"\r\n",
            [.., b'\n'] => b"\n",
            _ => b"",
        };
        let colon = memchr::memchr(b':', octets)?;
        let mut field = octets[..=colon].to_vec();
        // Folded as the rest of the header is.
        let encoded = |text: &str| match line_end {
            b"\n" => encoded(text).replace("\r\n", "\n"),
            _ => encoded(text),
        };
        if let Some(subject) = &self.subject {
            field.push(b' ');
            field.extend_from_slice(encoded(subject).as_bytes());
            field.extend_from_slice(line_end);
            return Some(field);
        }
        let prefix = encoded(self.subject_prefix.as_deref().filter(|prefix| !prefix.trim().is_empty())?);
        if value.starts_with(prefix.as_bytes()) {
            return None;
        }
        field.push(b' ');
        field.extend_from_slice(prefix.as_bytes());
        field.push(b' ');
        // The original with its folds, as it was.
        field.extend_from_slice(octets[colon + 1..].trim_ascii_start());
        if value.is_empty() {
            field.extend_from_slice(line_end);
        }
        Some(field)
    }
}

/// A message as a filter sees it that may believe its header: of the fields by which a host tells what it found out about
/// the sender (Authentication-Results, Received-SPF) only the provider's own Authentication-Results are left.
pub(crate) fn as_believed(head: Head<'_>, origins: &[Origin], body: &Arc<dyn Body>) -> Arc<dyn Body> {
    let mut origins = origins.iter();
    let mut is_unbelieved =
        |field: &Field<'_>| field.is("Received-SPF") || field.is(RESULTS) && origins.next() != Some(&Origin::Provider);
    let start = head.octets().as_ptr() as usize;
    let (mut kept, mut end, mut changed) = (Vec::with_capacity(head.octets().len()), 0, false);
    for field in head.every_field().filter(|field| is_unbelieved(field)) {
        let at = field.octets.as_ptr() as usize - start;
        kept.extend_from_slice(&head.octets()[end..at]);
        end = at + field.octets.len();
        changed = true;
    }
    if !changed {
        return Arc::clone(body);
    }
    kept.extend_from_slice(&head.octets()[end..]);
    Arc::new(Edited::new(head, kept, Arc::clone(body)))
}

/// A body whose header was changed; the rest is read from the original.
pub struct Edited {
    head: Bytes,
    skipped: u64,
    line_feeds: Option<u64>,
    body: Arc<dyn Body>,
}

impl Edited {
    fn new(old: Head<'_>, new: Vec<u8>, body: Arc<dyn Body>) -> Self {
        let skipped = old.octets().len() as u64;
        let line_feeds = body.line_feeds().map(|line_feeds| {
            let count = |octets: &[u8]| memchr::memchr_iter(b'\n', octets).count() as u64;
            line_feeds.saturating_sub(count(old.octets())) + count(&new)
        });
        Self { head: new.into(), skipped, line_feeds, body }
    }
}

impl Body for Edited {
    fn size_octets(&self) -> u64 {
        self.head.len() as u64 + self.body.size_octets().saturating_sub(self.skipped)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.head.len() as u64;
        if offset < length {
            return self.head.read_at(offset, buffer);
        }
        self.body.read_at(offset - length + self.skipped, buffer)
    }

    fn line_feeds(&self) -> Option<u64> {
        self.line_feeds
    }
}

/// What one filter said, as a trace field: `rspamd; checked; action="add header"; score=6.500/15.000; symbols=...`.
fn trace(answer: &Answer) -> String {
    let Verdict::Found(finding) = &answer.verdict else { return format!("{}; unchecked", answer.filter) };
    let mut trace = format!("{}; checked; action=\"{}\"", answer.filter, finding.action.name());
    if let Some(score) = finding.milli_score {
        trace.push_str(&format!("; score={}", points(score)));
        if let Some(required) = finding.milli_required {
            trace.push_str(&format!("/{}", points(required)));
        }
    }
    if !finding.viruses.is_empty() {
        trace.push_str(&format!("; virus={}", finding.viruses.iter().take(20).cloned().collect::<Vec<_>>().join(",")));
    }
    if !finding.symbols.is_empty() {
        let symbol = |symbol: &crate::Symbol| match symbol.milli_score {
            // It adds nothing, or the filter does not tell.
            0 => symbol.name.clone(),
            score => format!("{}({})", symbol.name, points(score)),
        };
        let symbols: Vec<_> = finding.symbols.iter().take(MAX_SYMBOLS).map(symbol).collect();
        trace.push_str(&format!("; symbols={}", symbols.join(", ")));
    }
    trace
}

/// Thousandths of a point as points: `6.500`.
pub(crate) fn points(milli: i32) -> String {
    let sign = if milli < 0 { "-" } else { "" };
    let milli = milli.unsigned_abs();
    format!("{sign}{}.{:03}", milli / 1000, milli % 1000)
}

/// Writes a field with CRLF, folded at spaces; a value cannot end it.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    let clean: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end =
        clean.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_VALUE).last().unwrap_or(0);
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let mut line = name.len() + 1;
    for word in clean[..end].split(' ').filter(|word| !word.is_empty()) {
        if line + 1 + word.len() > MAX_LINE && line > name.len() + 1 {
            out.extend_from_slice(b"\r\n\t");
            line = 1;
        } else {
            out.push(b' ');
            line += 1;
        }
        // A word longer than a line may be is cut where a character ends (RFC 5322 §2.1.1: 998).
        let mut rest = word;
        while rest.len() > 900 {
            let cut = (0..=900).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(900);
            out.extend_from_slice(&rest.as_bytes()[..cut]);
            out.extend_from_slice(b"\r\n\t");
            rest = &rest[cut..];
        }
        out.extend_from_slice(rest.as_bytes());
        line += rest.len();
    }
    out.extend_from_slice(b"\r\n");
}

/// A text for a subject: as it is when it is plain ASCII, else as encoded words (RFC 2047 §2).
pub(crate) fn encoded(text: &str) -> String {
    let clean: String = text.chars().take(900).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.trim();
    if clean.is_ascii() && !clean.contains("=?") {
        return clean.to_owned();
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for c in clean.chars() {
        // 45 octets make 60 letters; with the rest 72, under the 75 that are allowed.
        if word.len() + c.len_utf8() > 45 {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let words: Vec<_> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    words.join("\r\n ")
}

fn count(head: Head<'_>, name: &str) -> i32 {
    i32::try_from(head.every_field().filter(|field| field.is(name)).count()).unwrap_or(i32::MAX)
}

fn is_name(name: &str) -> bool {
    // RFC 5322 §3.6.8.
    !name.is_empty() && name.len() <= 76 && name.bytes().all(|o| (0x21..=0x7e).contains(&o) && o != b':')
}

/// A filter may add what it likes, except for what others here rely on.
fn may_be_added(name: &str) -> bool {
    let reserved =
        ["Received", "Return-Path", "Delivered-To", "X-Connectord-Id", "X-Connectord-Account", "X-Connectord-Attempt"];
    is_name(name) && !reserved.iter().chain(OUR_FIELDS).any(|known| name.eq_ignore_ascii_case(known))
}

/// A filter may take out what it likes, except for what tells where a message was, and what ends loops. It does not see
/// all Authentication-Results, so that its numbers are not ours.
fn may_be_removed(name: &str, nth: i32) -> bool {
    let reserved = ["Received", "X-Connectord-Account", "From", "Date", "Message-ID"];
    let is_numbered = nth != 0 && name.eq_ignore_ascii_case(RESULTS);
    is_name(name) && !is_numbered && !reserved.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body whose CRLF have become LF.
    struct Plain(&'static [u8]);

    impl Body for Plain {
        fn size_octets(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            Bytes::from_static(self.0).read_at(offset, buffer)
        }

        fn line_feeds(&self) -> Option<u64> {
            Some(count_lf(self.0))
        }
    }

    fn count_lf(octets: &[u8]) -> u64 {
        memchr::memchr_iter(b'\n', octets).count() as u64
    }

    #[test]
    fn a_body_with_plain_line_ends_keeps_them_and_knows_how_many_there_are() {
        let text: &[u8] = b"X-Spam: No\nSubject: hello\nOdd: a\r\n\nbody\n";
        let subject = Some("Gr\u{fc}\u{df}e ".repeat(12));
        let edits = Edits { remove: vec![("X-Spam".into(), 0)], subject, ..Edits::default() };
        let (_, body) = edits.apply(Head::of(text), Arc::new(Plain(text)));
        let mut octets = vec![0; usize::try_from(body.size_octets()).unwrap()];
        let mut at = 0;
        while at < octets.len() {
            at += body.read_at(at as u64, &mut octets[at..]).unwrap();
        }
        assert_eq!(body.line_feeds(), Some(count_lf(&octets)));
        let head = octets.strip_suffix(b"Odd: a\r\n\nbody\n").expect("what was not changed is as it was");
        assert!(count_lf(head) > 1 && !head.contains(&b'\r'), "{:?}", String::from_utf8_lossy(head));
        let (_, body) = edits.apply(Head::of(text), Arc::new(Bytes::from_static(text)));
        assert_eq!(body.line_feeds(), None);
    }
}
