//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use connectord_filter::HeaderChange;
use connectord_mail::Head;

use crate::{clamav, command, rspamd, spamassassin};

/// Any octets are an answer of Rspamd or are not, and what is taken of one is bounded and inert.
pub fn rspamd_answer(data: &[u8]) {
    let Ok(finding) = rspamd::parse(data) else { return };
    assert!(finding.symbols.len() <= 200 && finding.headers.len() <= 100);
    assert!(finding.viruses.is_empty() && finding.ruling.is_none());
    let names = finding.symbols.iter().map(|symbol| &symbol.name);
    assert!(names.chain(&finding.text).all(|text| is_inert(text)));
}

/// Any octets are a reply of clamd or are not; one that is cut anywhere is never "clean".
pub fn clamd_reply(data: &[u8]) {
    if let Ok(clamav::Reply::Infected(viruses)) = clamav::Reply::parse(data) {
        assert!(!viruses.is_empty() && viruses.len() <= 100 && viruses.iter().all(|virus| is_inert(virus)));
    }
    if let Some((last, rest)) = data.split_last()
        && !matches!(rest.last(), None | Some(0 | b'\n'))
        && matches!(last, 0 | b'\n')
    {
        assert!(clamav::Reply::parse(rest).is_err());
    }
}

/// Any octets are a reply of spamd or are not; what is taken of one is bounded and inert.
pub fn spamd_reply(data: &[u8]) {
    if let Ok(spamassassin::Reply::Judged { rules, .. }) = spamassassin::Reply::parse(data) {
        assert!(rules.len() <= 200 && rules.iter().all(|rule| is_inert(rule)));
    }
}

/// Whatever a program writes beside a message, what it changes of the header is bounded and inert, leaves alone what tells
/// where the message was, and is nothing when it only repeats the message.
///
/// The message and the output are parted by the first NUL.
pub fn command_output(data: &[u8]) {
    let at = memchr::memchr(0, data).unwrap_or(data.len());
    let (message, output) = (Head::of(&data[..at]), data.get(at + 1..).unwrap_or_default());
    let changes = command::changes(message, output);
    assert!(changes.len() <= 200);
    for change in &changes {
        let (name, value) = match change {
            HeaderChange::Add { name, value } => (name, &**value),
            HeaderChange::Remove { name, .. } => (name, ""),
        };
        assert!(!["Received", "From", "Message-ID"].iter().any(|kept| kept.eq_ignore_ascii_case(name)));
        assert!(value.len() <= 3 * 4096 && !value.chars().any(char::is_control), "{value:?}");
    }
    assert_eq!(command::changes(message, &data[..at]), []);
}

fn is_inert(text: &str) -> bool {
    text.len() < 4096 && !text.chars().any(char::is_control)
}
