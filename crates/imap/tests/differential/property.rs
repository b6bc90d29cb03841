//! One server response, read by us and by imap-codec and imap-proto: what two of us accept must mean the same.
//!
//! The fuzz target and the replay of its corpus include this file, so it uses public items only.

use std::collections::BTreeSet;
use std::time::Instant;

use connectord_imap::{
    Body, Error, Event, FetchItems, Fetched, Flag, Flags, Listed, MailboxName, MailboxStatus, NameEncoding, Options,
    ResponseCode, Section, Session, StatusItem, Uid, UidSearch, UidSet, UidValidity,
};
use connectord_wire::{Machine, Security, Step};
use imap_codec::decode::Decoder;
use imap_codec::imap_types::core::NString;
use imap_codec::imap_types::extensions::uidplus;
use imap_codec::imap_types::fetch::MessageDataItem;
use imap_codec::imap_types::flag::{FlagFetch, FlagPerm};
use imap_codec::imap_types::mailbox::Mailbox;
use imap_codec::imap_types::response::{Code, Data, Response, Status, StatusBody, StatusKind};
use imap_codec::imap_types::status::StatusDataItem;

/// Octets of an EXISTS that follows each response: who sees it has found the end of the response where the other did.
const BEHIND: &[u8] = b"* 4242 EXISTS\r\n";

/// How many responses another crate read, and how many of them we did.
#[allow(dead_code, reason = "the fuzz target and the replay do not count")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) by_another: u32,
    pub(crate) by_both: u32,
}

/// What another crate takes a response for, in our types; `None` in a field: not compared.
enum Meaning {
    /// A status response; rewritten to be the answer to a command of ours.
    Status {
        condition: Condition,
        code: Option<ResponseCode>,
        text: Option<String>,
    },
    Listed {
        attributes: Vec<String>,
        delimiter: Option<char>,
        name: Vec<u8>,
    },
    MailboxStatus(MailboxStatus),
    Search(BTreeSet<u32>),
    Fetch(Fetch),
    Exists(u32),
    Expunged,
    Vanished(BTreeSet<u32>),
    Capabilities(BTreeSet<String>),
    Bye,
    /// Something that we pass over.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Ok,
    No,
    Bad,
}

#[derive(Debug, Default)]
struct Fetch {
    uid: Option<u32>,
    /// A UID that was named twice and differently.
    contradicts_itself: bool,
    /// What is not there may also not have been understood.
    is_vague: bool,
    size: Option<u64>,
    date: Option<String>,
    flags: Option<Flags>,
    /// The first: its octets, or NIL.
    body: Option<Option<Vec<u8>>>,
}

/// Compares the readings of everything in `data` that another crate takes for a response.
///
/// # Panics
/// When a response means one thing to us and another to another crate.
pub(crate) fn same_meaning(data: &[u8]) -> Read {
    let mut read = Read::default();
    if let Ok((rest, response)) = imap_codec::ResponseCodec::default().decode(data) {
        compare(&mut read, &data[..data.len() - rest.len()], codec(response), "imap-codec");
    }
    // imap-proto 0.17 panics where what follows a code is not ASCII: it cuts the text one octet behind the bracket.
    let harms_proto = data.windows(2).any(|pair| pair[0] == b']' && !pair[1].is_ascii());
    if !harms_proto && let Ok((rest, response)) = imap_proto::Response::parse(data) {
        compare(&mut read, &data[..data.len() - rest.len()], proto(data, response), "imap-proto");
    }
    read
}

fn compare(read: &mut Read, octets: &[u8], meaning: Meaning, whose: &str) {
    let Some(octets) = octets.strip_suffix(b"\r\n") else { return };
    let octets = &[octets, b"\r\n"].concat()[..];
    read.by_another += 1;
    let shown = octets.escape_ascii();
    if let Meaning::Status { condition, code, text } = meaning {
        let Some(ours) = as_our_answer(octets) else { return };
        read.by_both += 1;
        assert_eq!(ours.0, condition, "{whose}: {shown}");
        if let Some(code) = code {
            assert_eq!(ours.1, Some(code), "{whose}: {shown}");
        }
        if let Some(text) = text {
            assert_eq!(ours.2, text.trim(), "{whose}: {shown}");
        }
        return;
    }
    let (events, failed, session) = run(octets);
    if matches!(meaning, Meaning::Bye) {
        read.by_both += 1;
        assert!(matches!(failed, Some(Error::Bye { .. })), "{whose}: {failed:?}: {shown}");
        return;
    }
    if failed.is_some() || events.iter().any(|event| matches!(event, Event::Unparsed(_))) {
        return;
    }
    read.by_both += 1;
    let Some((Event::Exists(4242), events)) = events.split_last() else {
        panic!("{whose} sees another end of the response: {events:?}: {shown}")
    };
    match meaning {
        Meaning::Listed { attributes, delimiter, name } => {
            let [Event::Listed(listed)] = events else { panic!("{whose}: {events:?}: {shown}") };
            let mut ours = listed.clone();
            ours.attributes.sort();
            let name = MailboxName::from_wire(&name, NameEncoding::Utf7);
            assert_eq!(ours, Listed { name, delimiter, attributes }, "{whose}: {shown}");
        }
        Meaning::MailboxStatus(status) => assert_eq!(events, [Event::MailboxStatus(status)], "{whose}: {shown}"),
        Meaning::Search(uids) => {
            let mut found = BTreeSet::new();
            for event in events {
                let Event::Found(uids) = event else { panic!("{whose}: {event:?}: {shown}") };
                found.extend(uids.iter().map(Uid::number));
            }
            assert_eq!(found, uids, "{whose}: {shown}");
        }
        Meaning::Fetch(fetch) => compare_fetch(events, &fetch, &format!("{whose}: {shown}")),
        Meaning::Exists(count) => assert_eq!(events, [Event::Exists(count)], "{whose}: {shown}"),
        Meaning::Expunged => assert_eq!(events, [Event::Expunged], "{whose}: {shown}"),
        Meaning::Vanished(uids) => {
            let [Event::Vanished(ours)] = events else { panic!("{whose}: {events:?}: {shown}") };
            assert_eq!(ours.iter().map(Uid::number).collect::<BTreeSet<_>>(), uids, "{whose}: {shown}");
        }
        Meaning::Capabilities(names) => {
            let ours: BTreeSet<String> = session.capabilities().iter().map(str::to_owned).collect();
            assert_eq!(ours, names, "{whose}: {shown}");
        }
        Meaning::Other | Meaning::Status { .. } | Meaning::Bye => {}
    }
}

fn compare_fetch(events: &[Event], theirs: &Fetch, shown: &str) {
    assert!(!theirs.contradicts_itself, "two UIDs are one message: {shown}");
    let octets: Vec<u8> = events
        .iter()
        .flat_map(|event| if let Event::Body(octets) = event { &octets[..] } else { &[] })
        .copied()
        .collect();
    let ours =
        events.iter().find_map(|event| if let Event::Fetched(fetched) = event { Some(fetched.clone()) } else { None });
    let flags = events.iter().find_map(|event| match event {
        Event::FlagsChanged { uid, flags } => Some(Fetched {
            uid: *uid,
            asked: true,
            size: None,
            internal_date: None,
            flags: Some(flags.clone()),
            body: Body::Absent,
        }),
        _ => None,
    });
    let Some(ours) = ours.or(flags) else {
        assert!(theirs.size.is_none() && theirs.body.is_none() && theirs.flags.is_none(), "{theirs:?}: {shown}");
        return;
    };
    let uid = ours.uid.map(Uid::number);
    assert!(uid == theirs.uid || (theirs.is_vague && theirs.uid.is_none()), "{uid:?} {theirs:?}: {shown}");
    // imap-codec takes a negative size for 0, we for none.
    let is_alike = ours.size == theirs.size || (ours.size.is_none() && theirs.size == Some(0));
    assert!(is_alike || (theirs.is_vague && theirs.size.is_none()), "{ours:?} {theirs:?}: {shown}");
    assert!(ours.flags == theirs.flags || (theirs.is_vague && theirs.flags.is_none()), "{ours:?} {theirs:?}: {shown}");
    if let (Some(ours), Some(theirs)) = (&ours.internal_date, &theirs.date) {
        assert_eq!(ours.unix_seconds.to_string(), *theirs, "{shown}");
    }
    let body = match ours.body {
        Body::Absent => None,
        Body::Nil => Some(None),
        Body::Octets(count) => {
            assert_eq!(count, octets.len() as u64, "{shown}");
            Some(Some(octets))
        }
        body => panic!("{body:?}: {shown}"),
    };
    assert!(body == theirs.body || (theirs.is_vague && theirs.body.is_none()), "{body:?} {theirs:?}: {shown}");
}

/// A session with every kind of command in flight, fed with a response and with [`BEHIND`].
fn run(octets: &[u8]) -> (Vec<Event>, Option<Error>, Session) {
    let mut session = logged_in();
    let all = UidSet::parse(b"1:4294967295", 1).expect("a set");
    session.list("", "*");
    session.status(&MailboxName::inbox(), &[StatusItem::Messages]);
    session.uid_search(UidSearch::all());
    session.uid_fetch(
        &all,
        FetchItems { size: true, internal_date: true, body: Some(Section::Whole), ..FetchItems::default() },
    );
    let _ = drain(&mut session);
    session.receive(octets);
    session.receive(BEHIND);
    let (events, failed) = drain(&mut session);
    (events, failed, session)
}

fn logged_in() -> Session {
    let mut options = Options::default();
    options.security = Security::None;
    options.allow_preauth = true;
    let mut session = Session::new(options);
    session.receive(b"* PREAUTH [CAPABILITY IMAP4rev1] x\r\n");
    let _ = drain(&mut session);
    session
}

#[allow(clippy::disallowed_methods, reason = "poll wants an instant, and this session never looks at it")]
fn drain(session: &mut Session) -> (Vec<Event>, Option<Error>) {
    let mut events = Vec::new();
    loop {
        match session.poll(Instant::now()) {
            Ok(Step::NeedInput) => return (events, None),
            Ok(Step::Event(event)) => events.push(event),
            Ok(_) => {}
            Err(error) => return (events, Some(error)),
        }
    }
}

/// What a status response says when it answers a NOOP of ours.
fn as_our_answer(octets: &[u8]) -> Option<(Condition, Option<ResponseCode>, String)> {
    let mut session = logged_in();
    session.noop();
    let _ = drain(&mut session);
    let behind_tag = octets.iter().position(|octet| *octet == b' ')?;
    session.receive(&[b"C1", &octets[behind_tag..], BEHIND].concat());
    let (events, failed) = drain(&mut session);
    if failed.is_some() {
        return None;
    }
    assert_eq!(events.last(), Some(&Event::Exists(4242)), "{}", octets.escape_ascii());
    events.into_iter().find_map(|event| match event {
        Event::Done { result: Ok(done), .. } => Some((Condition::Ok, done.codes.into_iter().next(), done.text)),
        Event::Done { result: Err(refusal), .. } => {
            let condition = if refusal.status == connectord_imap::Status::No { Condition::No } else { Condition::Bad };
            Some((condition, refusal.code, refusal.text))
        }
        _ => None,
    })
}

fn upper<T: ToString>(names: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    names.into_iter().map(|name| name.to_string().to_ascii_uppercase()).collect()
}

fn flags<T: ToString>(flags: impl IntoIterator<Item = T>) -> Flags {
    flags.into_iter().filter_map(|flag| Flag::parse(flag.to_string().as_bytes())).collect()
}

fn codec_flags(found: &[FlagFetch<'_>]) -> Flags {
    flags(found.iter().map(|flag| match flag {
        FlagFetch::Flag(flag) => flag.to_string(),
        FlagFetch::Recent => "\\Recent".to_owned(),
    }))
}

fn codec_permanent_flags(found: &[FlagPerm<'_>]) -> Flags {
    flags(found.iter().map(|flag| match flag {
        FlagPerm::Flag(flag) => flag.to_string(),
        FlagPerm::Asterisk => "\\*".to_owned(),
    }))
}

fn set(numbers: impl IntoIterator<Item = (u32, u32)>) -> UidSet {
    let mut set = UidSet::new();
    for (first, last) in numbers {
        if let (Some(first), Some(last)) = (Uid::new(first.min(last)), Uid::new(first.max(last))) {
            set.insert_range(first, last);
        }
    }
    set
}

fn no_numbers(mailbox: MailboxName) -> MailboxStatus {
    // The struct may grow fields: start from one that is read.
    let mut session = logged_in();
    session.status(&MailboxName::inbox(), &[StatusItem::Messages]);
    let _ = drain(&mut session);
    session.receive(b"* STATUS x ()\r\n");
    let status = drain(&mut session).0.into_iter().find_map(|event| match event {
        Event::MailboxStatus(status) => Some(status),
        _ => None,
    });
    MailboxStatus { mailbox, ..status.expect("an empty STATUS is read") }
}

fn codec(response: Response<'_>) -> Meaning {
    let data = match response {
        Response::CommandContinuationRequest(_) => return Meaning::Other,
        Response::Status(Status::Bye(_)) => return Meaning::Bye,
        Response::Status(Status::Untagged(body)) => return codec_status(body),
        Response::Status(Status::Tagged(tagged)) => return codec_status(tagged.body),
        Response::Data(data) => data,
    };
    match data {
        Data::Capability(names) => Meaning::Capabilities(upper(names.as_ref())),
        Data::List { items, delimiter, mailbox } => {
            let mut attributes: Vec<_> = items.iter().map(|item| item.to_string().to_ascii_lowercase()).collect();
            attributes.sort();
            Meaning::Listed {
                attributes,
                delimiter: delimiter.map(|delimiter| delimiter.inner()),
                name: name(&mailbox),
            }
        }
        Data::Status { mailbox, items } => {
            let mut status = no_numbers(MailboxName::from_wire(&name(&mailbox), NameEncoding::Utf7));
            for item in items.iter() {
                match item {
                    StatusDataItem::Messages(count) => status.messages = Some(*count),
                    StatusDataItem::UidNext(uid) => status.uid_next = Uid::new(uid.get()),
                    StatusDataItem::UidValidity(number) => status.uid_validity = UidValidity::new(number.get()),
                    StatusDataItem::Unseen(count) => status.unseen = Some(*count),
                    StatusDataItem::Deleted(count) => status.deleted = Some(*count),
                    _ => {}
                }
            }
            Meaning::MailboxStatus(status)
        }
        Data::Search(numbers) => Meaning::Search(numbers.into_iter().map(|number| number.get()).collect()),
        Data::Exists(count) => Meaning::Exists(count),
        Data::Expunge(_) => Meaning::Expunged,
        Data::Fetch { items, .. } => Meaning::Fetch(codec_fetch(items.as_ref())),
        _ => Meaning::Other,
    }
}

fn name(mailbox: &Mailbox<'_>) -> Vec<u8> {
    match mailbox {
        Mailbox::Inbox => b"INBOX".to_vec(),
        Mailbox::Other(other) => other.inner().as_ref().to_vec(),
    }
}

fn codec_fetch(items: &[MessageDataItem<'_>]) -> Fetch {
    let mut fetch = Fetch::default();
    let octets = |data: &NString<'_>| data.0.as_ref().map(|text| text.as_ref().to_vec());
    for item in items {
        match item {
            MessageDataItem::Uid(uid) => fetch.uid(uid.get()),
            MessageDataItem::Rfc822Size(size) => fetch.size = Some(u64::from(*size)),
            MessageDataItem::InternalDate(date) => fetch.date = Some(date.as_ref().timestamp().to_string()),
            MessageDataItem::Flags(found) => fetch.flags = Some(codec_flags(found)),
            MessageDataItem::BodyExt { section: None, origin: None, data } | MessageDataItem::Rfc822(data) => {
                fetch.body.get_or_insert_with(|| octets(data));
            }
            _ => {}
        }
    }
    fetch
}

impl Fetch {
    fn uid(&mut self, uid: u32) {
        self.contradicts_itself |= self.uid.is_some_and(|before| before != uid);
        self.uid = Some(uid);
    }
}

fn codec_status(body: StatusBody<'_>) -> Meaning {
    let condition = match body.kind {
        StatusKind::Ok => Condition::Ok,
        StatusKind::No => Condition::No,
        StatusKind::Bad => Condition::Bad,
    };
    let (text, has_code) = (body.text.as_ref().to_owned(), body.code.is_some());
    let code = body.code.and_then(|code| match code {
        Code::Alert => Some(ResponseCode::Alert),
        Code::Capability(names) => Some(ResponseCode::Capability(upper(names.as_ref()).into_iter().collect())),
        Code::PermanentFlags(found) => Some(ResponseCode::PermanentFlags(codec_permanent_flags(&found))),
        Code::ReadOnly => Some(ResponseCode::ReadOnly),
        Code::ReadWrite => Some(ResponseCode::ReadWrite),
        Code::TryCreate => Some(ResponseCode::TryCreate),
        Code::UidNext(uid) => Uid::new(uid.get()).map(ResponseCode::UidNext),
        Code::UidValidity(number) => UidValidity::new(number.get()).map(ResponseCode::UidValidity),
        Code::Unseen(_) => Some(ResponseCode::Unseen),
        Code::OverQuota => Some(ResponseCode::OverQuota),
        Code::UidNotSticky => Some(ResponseCode::UidNotSticky),
        Code::AppendUid { uid_validity, uid } => UidValidity::new(uid_validity.get())
            .map(|uid_validity| ResponseCode::AppendUid { uid_validity, uids: set([(uid.get(), uid.get())]) }),
        Code::CopyUid { uid_validity, source, destination } => UidValidity::new(uid_validity.get())
            .map(|uid_validity| ResponseCode::CopyUid { uid_validity, from: uids(&source), to: uids(&destination) }),
        _ => None,
    });
    // Where one reads a code and the other takes it for text, or ends it at another bracket, the texts differ; and it
    // writes dots where there is no text.
    let is_compared = text != "..." && (code.is_some() || !(has_code || text.trim_start().starts_with('[')));
    Meaning::Status { condition, code, text: is_compared.then_some(text) }
}

fn uids(uids: &uidplus::UidSet) -> UidSet {
    set(uids.0.as_ref().iter().map(|element| match element {
        uidplus::UidElement::Single(uid) => (uid.get(), uid.get()),
        uidplus::UidElement::Range(first, last) => (first.get(), last.get()),
    }))
}

fn proto(data: &[u8], response: imap_proto::Response<'_>) -> Meaning {
    use imap_proto::{AttributeValue, MailboxDatum, NameAttribute, Response, Status};
    // It leaves the backslashes in quoted strings, where RFC 3501 §9 takes them out.
    let is_escaped = data.windows(2).any(|pair| matches!(pair, b"\\\"" | b"\\\\"));
    // And what is not UTF-8 it replaces.
    let is_text = std::str::from_utf8(data).is_ok();
    match response {
        Response::Fetch(..) | Response::MailboxData(_) if is_escaped => Meaning::Other,
        Response::MailboxData(MailboxDatum::List(_)) | Response::Capabilities(_) if !is_text => Meaning::Other,
        Response::Capabilities(names) => Meaning::Capabilities(names.iter().map(proto_capability).collect()),
        Response::Data { status: Status::Bye, .. } => Meaning::Bye,
        Response::Data { status, outcome } | Response::Done { status, outcome, .. } => {
            let condition = match status {
                Status::Ok => Condition::Ok,
                Status::No => Condition::No,
                Status::Bad => Condition::Bad,
                Status::PreAuth | Status::Bye => return Meaning::Other,
            };
            let text = outcome.information.map(|text| text.into_owned()).unwrap_or_default();
            // It drops the octet behind a code, whatever that is.
            let is_compared = is_text && outcome.code.is_none() && !text.trim_start().starts_with('[');
            let text = is_compared.then_some(text);
            Meaning::Status { condition, code: outcome.code.and_then(proto_code), text }
        }
        Response::Expunge(_) => Meaning::Expunged,
        Response::Vanished { uids, .. } => Meaning::Vanished(uids.into_iter().flatten().collect()),
        Response::Fetch(_, attributes) => {
            // What it does not understand, a number behind a CR for one, is an unknown item to it.
            let is_vague = attributes.iter().any(|attribute| matches!(attribute, AttributeValue::Unknown));
            let mut fetch = Fetch { is_vague, ..Fetch::default() };
            for attribute in attributes {
                match attribute {
                    AttributeValue::Uid(uid) => fetch.uid(uid),
                    AttributeValue::Rfc822Size(size) => fetch.size = Some(u64::from(size)),
                    AttributeValue::Flags(found) => fetch.flags = Some(flags(found)),
                    AttributeValue::BodySection { section: None, index: None, data } | AttributeValue::Rfc822(data) => {
                        fetch.body.get_or_insert_with(|| data.map(|octets| octets.into_owned()));
                    }
                    _ => {}
                }
            }
            Meaning::Fetch(fetch)
        }
        // LSUB is the same to it.
        Response::MailboxData(MailboxDatum::List(_)) if !data[2..].starts_with(b"LIST") => Meaning::Other,
        Response::MailboxData(MailboxDatum::List(list)) => {
            let mut attributes: Vec<_> = list
                .name_attributes
                .iter()
                .map(|attribute| match attribute {
                    NameAttribute::NoInferiors => "\\noinferiors".to_owned(),
                    NameAttribute::NoSelect => "\\noselect".to_owned(),
                    NameAttribute::Extension(name) => name.to_ascii_lowercase(),
                    known => format!("\\{known:?}").to_ascii_lowercase(),
                })
                .collect();
            attributes.sort();
            let delimiter = list.delimiter.and_then(|delimiter| delimiter.chars().next());
            Meaning::Listed { attributes, delimiter, name: list.name.as_bytes().to_vec() }
        }
        Response::MailboxData(MailboxDatum::Search(numbers)) => Meaning::Search(numbers.into_iter().collect()),
        Response::MailboxData(MailboxDatum::Exists(count)) => Meaning::Exists(count),
        _ => Meaning::Other,
    }
}

fn proto_capability(capability: &imap_proto::Capability<'_>) -> String {
    match capability {
        imap_proto::Capability::Imap4rev1 => "IMAP4REV1".to_owned(),
        imap_proto::Capability::Auth(name) => format!("AUTH={}", name.to_ascii_uppercase()),
        imap_proto::Capability::Atom(name) => name.to_ascii_uppercase(),
    }
}

fn proto_code(code: imap_proto::ResponseCode<'_>) -> Option<ResponseCode> {
    use imap_proto::ResponseCode as Code;
    match code {
        Code::Alert => Some(ResponseCode::Alert),
        Code::Capabilities(names) => Some(ResponseCode::Capability(names.iter().map(proto_capability).collect())),
        Code::HighestModSeq(number) => Some(ResponseCode::HighestModSeq(number)),
        Code::PermanentFlags(found) => Some(ResponseCode::PermanentFlags(flags(found))),
        Code::ReadOnly => Some(ResponseCode::ReadOnly),
        Code::ReadWrite => Some(ResponseCode::ReadWrite),
        Code::TryCreate => Some(ResponseCode::TryCreate),
        Code::UidNext(uid) => Uid::new(uid).map(ResponseCode::UidNext),
        Code::UidValidity(number) => UidValidity::new(number).map(ResponseCode::UidValidity),
        Code::Unseen(_) => Some(ResponseCode::Unseen),
        Code::UidNotSticky => Some(ResponseCode::UidNotSticky),
        _ => None,
    }
}
