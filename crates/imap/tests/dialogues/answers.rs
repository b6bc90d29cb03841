//! What a server's side writes, a session reads.

use connectord_imap::encode::{Answer, Condition, Dialect, encode_answer};
use connectord_imap::{
    Body, Completion, Event, FetchItems, Fetched, Flag, Flags, InternalDate, Listed, MailboxName, MailboxStatus,
    Namespace, Namespaces, ResponseCode, Section, StatusItem, Uid, UidSearch, UidSet, UidValidity,
};

use super::script::{Script, Seen};

fn answer(answer: Answer) -> Vec<u8> {
    encode_answer(&answer, Dialect::default())
}

fn set(text: &str) -> UidSet {
    UidSet::parse(text.as_bytes(), 100).unwrap()
}

#[test]
fn answers_are_read_as_they_were_meant() {
    let name = |text: &str| MailboxName::new(text).unwrap();
    let listed = Listed { name: name("Entwürfe \"&\""), delimiter: Some('\\'), attributes: vec!["\\drafts".into()] };
    let raw =
        Listed { name: MailboxName::from_wire(b"a\r\n\xff", Default::default()), delimiter: None, attributes: vec![] };
    let namespaces = Namespaces {
        personal: vec![Namespace { prefix: name("INBOX."), delimiter: Some('.') }],
        other: vec![],
        shared: vec![
            Namespace { prefix: name("a"), delimiter: None },
            Namespace { prefix: name("b"), delimiter: Some('/') },
        ],
    };
    let status = MailboxStatus {
        mailbox: name("ü"),
        messages: Some(1),
        uid_next: Uid::new(2),
        uid_validity: UidValidity::new(3),
        unseen: Some(4),
        deleted: Some(5),
        size: Some(6),
        highest_modseq: Some(7),
    };
    let fetched = Fetched {
        uid: Uid::new(7),
        asked: true,
        size: Some(3),
        internal_date: InternalDate::parse(b"17-Jul-1996 02:44:25 -0700"),
        flags: Some(Flags::from([Flag::Seen])),
        body: Body::Octets(3),
    };
    let code = ResponseCode::CopyUid { uid_validity: UidValidity::new(9).unwrap(), from: set("7"), to: set("8:9") };
    let done = Answer::Status {
        tag: Some("C7".into()),
        condition: Condition::Ok,
        code: Some(code.clone()),
        text: "done".into(),
    };
    let id = vec![("name".to_owned(), "Dovecot \"2\"".to_owned())];
    let answers = [
        Answer::Listed(listed.clone()),
        Answer::Listed(raw.clone()),
        Answer::Namespaces(namespaces.clone()),
        Answer::MailboxStatus(status.clone()),
        Answer::Search(set("1:3,7")),
        Answer::ExtendedSearch("C5".into(), set("8:9")),
        Answer::ExtendedSearch("C5".into(), UidSet::new()),
        Answer::Id(id.clone()),
        Answer::Exists(3),
        Answer::Expunged,
        Answer::Fetched(fetched.clone(), Some(b"a\r\n".to_vec())),
        done,
    ];
    let seen = Script::logged_in("IMAP4rev1 NAMESPACE")
        .call(|session| {
            session.list("", "*");
            session.namespace();
            session.status(&MailboxName::inbox(), &[StatusItem::Messages]);
            session.uid_search(UidSearch::all());
            session.uid_fetch(&set("7"), FetchItems { body: Some(Section::Whole), ..Default::default() });
            session.uid_copy(&set("7"), &MailboxName::inbox());
        })
        .server(answers.map(answer).concat())
        .run_logged_in();
    let events: Vec<_> =
        seen.into_iter().filter_map(|seen| if let Seen::Event(event) = seen { Some(event) } else { None }).collect();
    let Some((Event::Done { result, .. }, events)) = events.split_last() else { panic!("{events:?}") };
    assert_eq!(*result, Ok(Completion { codes: vec![code], text: "done".into() }));
    assert_eq!(
        events,
        [
            Event::Listed(listed),
            Event::Listed(raw),
            Event::Namespaces(namespaces),
            Event::MailboxStatus(status),
            Event::Found(set("1:3,7")),
            Event::Found(set("8:9")),
            Event::ServerId(id),
            Event::Exists(3),
            Event::Expunged,
            Event::BodyStart { uid: Uid::new(7), section: Section::Whole, octets: 3 },
            Event::Body("a\r\n".into()),
            Event::BodyEnd,
            Event::Fetched(fetched),
        ]
    );
}

#[test]
fn every_code_is_read_as_it_was_written() {
    let number = UidValidity::new(5).unwrap();
    let mut codes = vec![
        ResponseCode::Capability(["IMAP4REV1"].into_iter().collect()),
        ResponseCode::UidValidity(number),
        ResponseCode::UidNext(Uid::new(6).unwrap()),
        ResponseCode::PermanentFlags(Flags::from([Flag::Any, Flag::Keyword("a]".into())])),
        ResponseCode::HighestModSeq(u64::MAX),
        ResponseCode::AppendUid { uid_validity: number, uids: set("1:2") },
        ResponseCode::Other("X-NEW".into()),
    ];
    codes.extend([
        ResponseCode::Unseen,
        ResponseCode::ReadOnly,
        ResponseCode::TryCreate,
        ResponseCode::Unavailable,
        ResponseCode::Throttled,
    ]);
    for code in codes {
        let tagged = Answer::Status {
            tag: Some("C2".into()),
            condition: Condition::Ok,
            code: Some(code.clone()),
            text: "x".into(),
        };
        let seen =
            Script::logged_in("IMAP4rev1").call(connectord_imap::Session::noop).server(answer(tagged)).run_logged_in();
        let Seen::Event(Event::Done { result, .. }) = &seen[1] else { panic!("{seen:?}") };
        assert_eq!(*result, Ok(Completion { codes: vec![code], text: "x".into() }));
    }
}
