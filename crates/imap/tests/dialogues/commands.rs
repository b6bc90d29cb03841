//! Everything between login and logout but FETCH.

use connectord_imap::{
    Completion, Error, Event, Flag, Flags, Listed, MailboxName, MailboxStatus, Namespace, Refusal, ResponseCode, Role,
    Section, Selected, Session, Status, StatusItem, Uid, UidSearch, UidSet, UidValidity,
};
use connectord_imap::{FetchItems, NameEncoding};
use connectord_wire::Machine;

use super::script::{Script, Seen, plain, sent};

fn name(text: &str) -> MailboxName {
    MailboxName::from_wire(text.as_bytes(), NameEncoding::Utf8)
}

fn set(text: &str) -> UidSet {
    UidSet::parse(text.as_bytes(), 100_000).unwrap()
}

fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}

/// Events and errors, with `Done` reduced to its result.
#[derive(Debug, PartialEq)]
enum Is {
    Event(Event),
    Done(Result<Completion, Refusal>),
    Failed(Error),
}

fn events(seen: Vec<Seen>) -> Vec<Is> {
    seen.into_iter()
        .filter_map(|seen| match seen {
            Seen::Event(Event::Done { result, .. }) => Some(Is::Done(result)),
            Seen::Event(event) => Some(Is::Event(event)),
            Seen::Failed(error) => Some(Is::Failed(error)),
            _ => None,
        })
        .collect()
}

fn transmitted(seen: &[Seen]) -> String {
    seen.iter().filter_map(|seen| if let Seen::Sent(text) = seen { Some(text.as_str()) } else { None }).collect()
}

fn ok(codes: impl Into<Vec<ResponseCode>>, text: &str) -> Is {
    Is::Done(Ok(Completion { codes: codes.into(), text: text.into() }))
}

fn listed(attributes: &[&str], delimiter: Option<char>, text: &str) -> Is {
    let attributes = attributes.iter().map(|attribute| (*attribute).to_owned()).collect();
    Is::Event(Event::Listed(Listed { name: name(text), delimiter, attributes }))
}

fn selected(uid_validity: u32, uid_next: u32, exists: u32) -> Selected {
    Selected {
        uid_validity: UidValidity::new(uid_validity).unwrap(),
        uid_next: Uid::new(uid_next),
        exists,
        read_only: false,
        permanent_flags: None,
        no_uid_sticky: false,
        highest_modseq: None,
    }
}

#[test]
fn the_sample_connection_of_rfc_9051_section_8() {
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY STARTTLS AUTH=SCRAM-SHA-256 LOGINDISABLED IMAP4rev2] IMAP4rev2 Service Ready\r\n")
        .call(|session| session.authenticate("SCRAM-SHA-256", Some("n,,n=user,r=rOprNGfwEbeRWgbNEkqO".into())))
        .server("+ cj1yT3ByTkdmd0ViZVJXZ2JORWtxTyVodllEcFdVYTJSYVRDQWZ1eEZJbGopaE5sRiRrMCxzPVcyMlphSjBTTlk3c29Fc1VFamI2Z1E9PSxpPTQwOTY=\r\n")
        .call(|session| session.respond("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into()))
        .server("+ dj02cnJpVFJCaTIzV3BSUi93dHVwK21NaFVaVW4vZEI1bkxUSlJzamw5NUc0PQ==\r\n")
        .call(|session| session.respond("".into()))
        .server("C1 OK SCRAM-SHA-256 authentication successful\r\n")
        .server("* CAPABILITY IMAP4rev2\r\nC2 OK\r\n")
        .call(|session| session.select(&MailboxName::inbox()))
        .server(
            "* 18 EXISTS\r\n* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* OK [UIDVALIDITY 3857529045] UIDs valid\r\n\
             * LIST () \"/\" INBOX (\"OLDNAME\" (\"inbox\"))\r\nC3 OK [READ-WRITE] SELECT completed\r\n",
        )
        .call(|session| session.uid_fetch(&set("12"), FetchItems { body: Some(Section::Header), ..Default::default() }))
        .server(
            "* 12 FETCH (FLAGS (\\Seen) BODY[HEADER] {342}\r\n\
             Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\nFrom: Terry Gray <gray@cac.washington.edu>\r\n\
             Subject: IMAP4rev2 WG mtg summary and minutes\r\nTo: imap@cac.washington.edu\r\n\
             cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n\
             Message-Id: <B27397-0100000@cac.washington.edu>\r\nMIME-Version: 1.0\r\n\
             Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\n UID 12)\r\nC4 OK FETCH completed\r\n",
        )
        .call(|session| session.uid_store_add_flags(&set("12"), &Flags::from([Flag::Deleted])))
        .server("* 12 FETCH (FLAGS (\\Seen \\Deleted))\r\nC5 OK +FLAGS completed\r\n")
        .call(Session::logout)
        .server("* BYE IMAP4rev2 server terminating connection\r\nC6 OK LOGOUT completed\r\n")
        .run();
    assert_eq!(
        transmitted(&seen),
        "C1 AUTHENTICATE SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=\r\n\
         Yz1iaXdzLHI9ck9wck5HZndFYmVSV2diTkVrcU8laHZZRHBXVWEyUmFUQ0FmdXhGSWxqKWhObEYkazA=\r\n\r\nC2 CAPABILITY\r\n\
         C3 SELECT \"INBOX\"\r\nC4 UID FETCH 12 (UID BODY.PEEK[HEADER])\r\nC5 UID STORE 12 +FLAGS.SILENT (\\Deleted)\r\n\
         C6 LOGOUT\r\n"
    );
    let events = events(seen);
    let Some(Is::Event(Event::LoginOffered(offer))) = events.first() else { panic!("{events:?}") };
    assert!(!offer.login && offer.sasl_ir);
    assert_eq!(events[4], Is::Event(Event::Selected(selected(3857529045, 0, 18))));
    assert_eq!(events[5], ok([ResponseCode::ReadWrite], "SELECT completed"));
    let Is::Event(Event::BodyStart { uid: None, section: Section::Header, octets: 342 }) = &events[6] else {
        panic!("{events:?}")
    };
    let Is::Event(Event::Fetched(fetched)) = &events[9] else { panic!("{events:?}") };
    assert_eq!((fetched.uid, fetched.asked), (Some(uid(12)), true));
    assert_eq!(events[10], ok([], "FETCH completed"));
    assert_eq!(events[12..], [ok([], "+FLAGS completed"), ok([], "LOGOUT completed")]);
}

#[test]
fn mailboxes_are_listed_with_roles_literals_and_strange_names() {
    // RFC 6154 §5.1 and what Dovecot, Exchange, Courier and Gmail send.
    let seen = Script::logged_in("IMAP4rev1 SPECIAL-USE LIST-EXTENDED")
        .call(|session| session.list_special_use("", "*"))
        .server(
            "* LIST (\\Marked \\Drafts) \"/\" MyDrafts\r\n* list (\\NoSelect) NIL {7}\r\nA \"b\\c)\r\n\
             * LIST () \".\" \"INBOX.Entw&APw-rfe\"\r\n* LIST () \"\\\\\" \"a\\\"b\" (CHILDINFO (\"SUBSCRIBED\"))\r\n\
             * LIST (\\Junk) \"/\" [Gmail]/Spam\r\n* LIST () \"/\" \"caf\u{e9}\"\r\nC2 OK done\r\n",
        )
        .run_logged_in();
    assert_eq!(seen[0], sent("C2 LIST \"\" \"*\" RETURN (SPECIAL-USE)\r\n"));
    let raw = MailboxName::from_wire("café".as_bytes(), NameEncoding::Utf7);
    let events = events(seen);
    let Is::Event(Event::Listed(first)) = &events[0] else { panic!() };
    assert_eq!((first.roles().collect::<Vec<_>>(), first.is_selectable()), (vec![Role::Drafts], true));
    assert_eq!(
        events,
        [
            listed(&["\\marked", "\\drafts"], Some('/'), "MyDrafts"),
            listed(&["\\noselect"], None, "A \"b\\c)"),
            listed(&[], Some('.'), "INBOX.Entwürfe"),
            listed(&[], Some('\\'), "a\"b"),
            listed(&["\\junk"], Some('/'), "[Gmail]/Spam"),
            Is::Event(Event::Listed(Listed { name: raw, delimiter: Some('/'), attributes: vec![] })),
            ok([], "done"),
        ]
    );
}

#[test]
fn a_special_use_listing_is_a_plain_one_where_that_is_all_there_is() {
    let seen =
        Script::logged_in("IMAP4rev1 SPECIAL-USE").call(|session| session.list_special_use("", "%")).run_logged_in();
    assert_eq!(seen, [sent("C2 LIST \"\" \"%\"\r\n")]);
}

#[test]
fn a_listing_that_cannot_be_read_is_told_and_an_endless_one_refused() {
    let mut options = plain();
    options.max_mailboxes = 2;
    let seen = Script::logged_in_with(options, "IMAP4rev1")
        .call(|session| session.list("", "*"))
        .server("* LIST nonsense\r\n* LIST () \"/\" \"a\r\n")
        .server("* LIST () \"/\" a\r\n* LIST () \"/\" b\r\n* LIST () \"/\" c\r\n")
        .run_logged_in();
    assert_eq!(
        events(seen),
        [
            Is::Event(Event::Unparsed("List nonsense".into())),
            Is::Event(Event::Unparsed("List () \"/\" \"a".into())),
            listed(&[], Some('/'), "a"),
            listed(&[], Some('/'), "b"),
            listed(&[], Some('/'), "c"),
            Is::Failed(Error::TooManyMailboxes { limit: 2 }),
        ]
    );
}

#[test]
fn namespaces_of_rfc_2342() {
    let space = |prefix, delimiter| Namespace { prefix: name(prefix), delimiter };
    for (line, personal, other, shared) in [
        ("((\"\" \"/\")) NIL NIL", vec![space("", Some('/'))], vec![], vec![]),
        (
            "((\"INBOX.\" \".\")) NIL ((\"Public Folders/\" \"/\")(\"#news.\" \".\"))",
            vec![space("INBOX.", Some('.'))],
            vec![],
            vec![space("Public Folders/", Some('/')), space("#news.", Some('.'))],
        ),
        (
            "((\"\" \"/\")(\"#mh/\" \"/\" \"X-PARAM\" (\"FLAG1\" \"FLAG2\"))) ((\"~\" NIL)) NIL",
            vec![space("", Some('/')), space("#mh/", Some('/'))],
            vec![space("~", None)],
            vec![],
        ),
    ] {
        let seen = Script::logged_in("IMAP4rev1 NAMESPACE")
            .call(Session::namespace)
            .server(format!("* NAMESPACE {line}\r\nC2 OK x\r\n"))
            .run_logged_in();
        let namespaces = connectord_imap::Namespaces { personal, other, shared };
        assert_eq!(events(seen), [Is::Event(Event::Namespaces(namespaces)), ok([], "x")]);
    }
}

#[test]
fn status_commands_are_sent_together() {
    // RFC 9051 §6.3.11.
    let seen = Script::logged_in("IMAP4rev1 STATUS=SIZE")
        .call(|session| {
            session.status(&name("blurdybloop"), &[StatusItem::UidNext, StatusItem::Messages, StatusItem::Deleted])
        })
        .call(|session| session.status(&MailboxName::inbox(), &[StatusItem::Size]))
        .server("* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292 X 1)\r\nC2 OK x\r\n")
        .server("* STATUS {5}\r\ninbox (SIZE 8589934592 UNSEEN 99999999999)\r\nC3 OK y\r\n")
        .run_logged_in();
    // The second one is called for after the first was sent.
    assert_eq!(transmitted(&seen), "C2 STATUS \"blurdybloop\" (UIDNEXT MESSAGES)\r\nC3 STATUS \"INBOX\" (SIZE)\r\n");
    let none = MailboxStatus {
        mailbox: MailboxName::inbox(),
        messages: None,
        uid_next: None,
        uid_validity: None,
        unseen: None,
        deleted: None,
        size: None,
        highest_modseq: None,
    };
    let first =
        MailboxStatus { mailbox: name("blurdybloop"), messages: Some(231), uid_next: Uid::new(44292), ..none.clone() };
    assert_eq!(
        events(seen),
        [
            Is::Event(Event::MailboxStatus(first)),
            ok([], "x"),
            Is::Event(Event::MailboxStatus(MailboxStatus { size: Some(8589934592), ..none })),
            ok([], "y"),
        ]
    );
}

#[test]
fn selecting_tells_what_must_be_known_and_waits_for_nothing_else() {
    // RFC 3501 §6.3.1, then §6.3.2 with what RFC 7162 and 4315 add; the second mailbox has no UIDVALIDITY.
    let seen = Script::logged_in("IMAP4rev1")
        .call(|session| {
            session.select(&MailboxName::inbox());
            session.examine(&name("blurdybloop"));
            session.noop();
        })
        .server(
            "* 172 EXISTS\r\n* 1 RECENT\r\n* OK [UNSEEN 12] Message 12 is first unseen\r\n* OK [UIDVALIDITY 3857529045] UIDs valid\r\n\
             * OK [UIDNEXT 4392] Predicted next UID\r\n* FLAGS (\\Answered \\Flagged)\r\n\
             * OK [PERMANENTFLAGS (\\Deleted \\Seen \\*)] Limited\r\nC2 OK [READ-WRITE] SELECT completed\r\n",
        )
        .server(
            "* 5 EXISTS\r\n* OK [CLOSED] before\r\n* 17 EXISTS\r\n* OK [UIDVALIDITY 7]\r\n* NO [UIDNOTSTICKY] no\r\n\
             * OK [HIGHESTMODSEQ 715194045007]\r\nC3 OK [READ-ONLY] EXAMINE completed\r\n",
        )
        .server("* OK [UIDVALIDITY 7] same\r\n* OK [UIDVALIDITY 8] new\r\nC4 OK x\r\n")
        .call(|session| session.select(&name("x")))
        .server("* 3 EXISTS\r\nC5 OK done\r\n")
        .run_logged_in();
    assert_eq!(seen[0], sent("C2 SELECT \"INBOX\"\r\n"));
    assert_eq!(
        events(seen),
        [
            Is::Event(Event::Selected(Selected {
                permanent_flags: Some(Flags::from([Flag::Deleted, Flag::Seen, Flag::Any])),
                ..selected(3857529045, 4392, 172)
            })),
            ok([ResponseCode::ReadWrite], "SELECT completed"),
            Is::Event(Event::Selected(Selected {
                read_only: true,
                no_uid_sticky: true,
                highest_modseq: Some(715194045007),
                ..selected(7, 0, 17)
            })),
            ok([ResponseCode::ReadOnly], "EXAMINE completed"),
            Is::Event(Event::UidValidityChanged(UidValidity::new(8).unwrap())),
            ok([], "x"),
            Is::Done(Err(Refusal { command: "SELECT", status: Status::Incomplete, code: None, text: "done".into() })),
        ]
    );
}

#[test]
fn a_search_goes_together_with_the_select_of_its_mailbox_and_is_refused_with_it() {
    let script = |answers: &str| {
        Script::logged_in("IMAP4rev1 ESEARCH")
            .call(|session| {
                session.select(&MailboxName::inbox());
                session.uid_search(UidSearch::all());
                session.noop();
            })
            .server(answers)
            .run_logged_in()
    };
    let seen = script(
        "* 2 EXISTS\r\n* OK [UIDVALIDITY 7]\r\n* OK [UIDNEXT 9]\r\nC2 OK open\r\n* 3 EXISTS\r\n\
         * ESEARCH (TAG \"C3\") UID ALL 1:2,9\r\nC3 OK found\r\n",
    );
    let both = "C2 SELECT \"INBOX\"\r\nC3 UID SEARCH RETURN (ALL) ALL\r\n";
    assert_eq!(seen[0], sent(both));
    let found = Is::Event(Event::Found(UidSet::parse(b"1:2,9", 9).unwrap()));
    let selected = Is::Event(Event::Selected(selected(7, 9, 2)));
    // Nothing else goes before the mailbox is open.
    let noop = seen.iter().position(|seen| *seen == sent("C4 NOOP\r\n"));
    assert!(noop > seen.iter().position(|seen| matches!(seen, Seen::Event(Event::Selected(_)))), "{seen:?}");
    assert_eq!(events(seen), [selected, ok([], "open"), Is::Event(Event::Exists(3)), found, ok([], "found")]);

    let seen = script("C2 NO no such mailbox\r\nC3 BAD nothing is open\r\nC4 OK x\r\n");
    assert_eq!(seen[0], sent(both));
    let refused =
        |command, status, text: &str| Is::Done(Err(Refusal { command, status, code: None, text: text.into() }));
    let selecting = refused("SELECT", Status::No, "no such mailbox");
    assert_eq!(events(seen), [selecting, refused("UID SEARCH", Status::Bad, "nothing is open"), ok([], "x")]);
}

#[test]
fn a_search_finds_a_hundred_thousand_uids_in_one_line() {
    let all = (0..100_000).map(|n| uid(1_000_000 + 2 * n)).collect::<UidSet>();
    let numbers: Vec<_> = all.iter().map(|uid| uid.to_string()).collect();
    for (capabilities, command, line) in [
        ("IMAP4rev1", "C2 UID SEARCH ALL\r\n", format!("* SEARCH {}\r\n", numbers.join(" "))),
        (
            "IMAP4rev1 ESEARCH",
            "C2 UID SEARCH RETURN (ALL) ALL\r\n",
            format!("* ESEARCH (TAG \"C2\") UID ALL {}\r\n", numbers.join(",")),
        ),
    ] {
        let seen = Script::logged_in(capabilities)
            .call(|session| session.uid_search(UidSearch::all()))
            .server(line)
            .server("C2 OK x\r\n")
            .run_logged_in();
        assert_eq!(seen[0], sent(command));
        let mut found = UidSet::new();
        for seen in &seen[1..seen.len() - 1] {
            let Seen::Event(Event::Found(uids)) = seen else { panic!("{seen:?}") };
            assert!(uids.ranges().len() <= 1000);
            uids.ranges().for_each(|(first, last)| found.insert_range(first, last));
        }
        assert_eq!(found, all);
    }
}

#[test]
fn a_search_upwards_does_not_find_the_last_message_below() {
    let search = || UidSearch {
        from: Some(uid(10)),
        with: Flags::from([Flag::Flagged]),
        without: [Flag::Deleted, Flag::Keyword("$J".into())].into(),
    };
    let seen = Script::logged_in("IMAP4rev1")
        .call(move |session| session.uid_search(search()))
        .call(|session| session.uid_search(UidSearch::since(uid(10))))
        .server("* SEARCH 9\r\nC2 OK x\r\n")
        .server("* search\r\nC3 OK y\r\n* SEARCH 77\r\n")
        .run_logged_in();
    assert_eq!(
        transmitted(&seen),
        "C2 UID SEARCH UID 10:* FLAGGED UNDELETED UNKEYWORD $J\r\nC3 UID SEARCH UID 10:*\r\n"
    );
    assert_eq!(events(seen), [ok([], "x"), ok([], "y")]);
}

#[test]
fn a_search_that_lies_ends_the_session() {
    let mut options = plain();
    options.max_messages = 1000;
    let script = |line: &str| {
        let seen = Script::logged_in_with(options.clone(), "IMAP4rev1 ESEARCH")
            .call(|session| session.uid_search(UidSearch::all()))
            .server(line)
            .run_logged_in();
        events(seen)
    };
    assert_eq!(script("* ESEARCH UID ALL 1:4294967295\r\n"), [Is::Failed(Error::TooManyMessages { limit: 1000 })]);
    let again = format!("* SEARCH{}\r\n", " 7".repeat(20_000));
    let error = Is::Failed(Error::TooManyMessages { limit: 1000 });
    assert_eq!(script(&again), [error]);
    let expected = "UIDs found by a search";
    let during = "searching a mailbox";
    let error = Error::Syntax { expected, during, found: b"4294967296".to_vec() };
    assert_eq!(script("* SEARCH 4294967296\r\n"), [Is::Failed(error)]);
}

#[test]
fn messages_are_flagged_removed_moved_and_copied() {
    // RFC 4315 §2.1 and §4, RFC 6851 §3.3 and §4.3.
    let seen = Script::logged_in("IMAP4rev1 UIDPLUS MOVE")
        .call(|session| {
            session.uid_store_add_flags(&set("3000:3002"), &Flags::from([Flag::Deleted, Flag::Seen]));
            session.uid_expunge(&set("3000:3002"));
            session.uid_move(&set("42:69"), &name("foo"));
            session.uid_copy(&set("304,319:320"), &name("Entwürfe"));
            session.expunge();
        })
        .server("* 1 FETCH (UID 3000 FLAGS (\\Seen \\Deleted))\r\nC2 OK a\r\n* 3 EXPUNGE\r\n* 3 EXPUNGE\r\nC3 OK b\r\n")
        .server("* OK [COPYUID 432432 42:69 1202:1229]\r\n* 22 EXPUNGE\r\nC4 OK c\r\n")
        .server("C5 OK [COPYUID 38505 304,319:320 3956:3958] d\r\n* VANISHED 405,407\r\n* 2 EXISTS\r\nC6 OK e\r\n")
        .run_logged_in();
    assert_eq!(
        transmitted(&seen),
        "C2 UID STORE 3000:3002 +FLAGS.SILENT (\\Seen \\Deleted)\r\nC3 UID EXPUNGE 3000:3002\r\n\
         C4 UID MOVE 42:69 \"foo\"\r\nC5 UID COPY 304,319:320 \"Entw&APw-rfe\"\r\nC6 EXPUNGE\r\n"
    );
    let copied = |validity, from, to| ResponseCode::CopyUid {
        uid_validity: UidValidity::new(validity).unwrap(),
        from: set(from),
        to: set(to),
    };
    let flags = Flags::from([Flag::Deleted, Flag::Seen]);
    assert_eq!(
        events(seen),
        [
            Is::Event(Event::FlagsChanged { uid: Some(uid(3000)), flags }),
            ok([], "a"),
            Is::Event(Event::Expunged),
            Is::Event(Event::Expunged),
            ok([], "b"),
            Is::Event(Event::Expunged),
            ok([copied(432432, "42:69", "1202:1229")], "c"),
            ok([copied(38505, "304,319:320", "3956:3958")], "d"),
            Is::Event(Event::Vanished(set("405,407"))),
            Is::Event(Event::Exists(2)),
            ok([], "e"),
        ]
    );
}

#[test]
fn what_is_not_offered_is_refused_here_in_its_turn() {
    let seen = Script::logged_in("IMAP4rev1")
        .call(|session| {
            session.noop();
            session.uid_expunge(&set("1"));
            session.uid_move(&set("1"), &name("x"));
            session.idle();
            session.unselect();
            session.namespace();
        })
        .server("C2 OK x\r\n")
        .run_logged_in();
    let refused =
        |command| Is::Done(Err(Refusal { command, status: Status::NotOffered, code: None, text: String::new() }));
    let names = ["UID EXPUNGE", "UID MOVE", "IDLE", "UNSELECT", "NAMESPACE"];
    assert_eq!(events(seen), std::iter::once(ok([], "x")).chain(names.map(refused)).collect::<Vec<_>>());
}

#[test]
fn idle_tells_changes_until_it_is_ended() {
    // RFC 2177 §3; Dovecot sends the first line of the second part every two minutes.
    let seen = Script::logged_in("IMAP4rev1 IDLE")
        .call(Session::idle)
        .call(Session::noop)
        .server("* 4 EXISTS\r\n+ idling\r\n")
        .server(
            "* OK Still here\r\n* 2 EXPUNGE\r\n* 3 EXISTS\r\n* 3 RECENT\r\n* 1 FETCH (FLAGS (\\Seen))\r\n+ again\r\n",
        )
        .call(Session::idle_done)
        .server("C2 OK IDLE terminated\r\nC3 OK x\r\n")
        .run_logged_in();
    assert_eq!(transmitted(&seen), "C2 IDLE\r\nDONE\r\nC3 NOOP\r\n");
    assert_eq!(
        events(seen),
        [
            Is::Event(Event::Exists(4)),
            Is::Event(Event::Idling),
            Is::Event(Event::Expunged),
            Is::Event(Event::Exists(3)),
            Is::Event(Event::FlagsChanged { uid: None, flags: Flags::from([Flag::Seen]) }),
            ok([], "IDLE terminated"),
            ok([], "x"),
        ]
    );
}

#[test]
fn idle_can_be_ended_before_it_begins_and_refused() {
    let seen = Script::logged_in("IMAP4rev1 IDLE")
        .call(|session| {
            session.idle();
            session.idle_done();
        })
        .server("+\r\nC2 OK x\r\n")
        .call(Session::idle)
        .server("C3 NO not now\r\n")
        .call(Session::idle_done)
        .run_logged_in();
    assert_eq!(transmitted(&seen), "C2 IDLE\r\nDONE\r\nC3 IDLE\r\n");
    let refusal = Refusal { command: "IDLE", status: Status::No, code: None, text: "not now".into() };
    assert_eq!(events(seen), [ok([], "x"), Is::Done(Err(refusal))]);
}

#[test]
fn silence_counts_only_while_something_is_owed() {
    let mut session = Session::new(plain());
    let feed = |session: &mut Session, octets: &str| {
        session.receive(octets.as_bytes());
        while !matches!(session.poll(std::time::Instant::now()), Ok(connectord_wire::Step::NeedInput)) {}
        (session.awaiting(), session.phase())
    };
    assert!(session.awaiting());
    assert_eq!(feed(&mut session, "* OK [CAPABILITY IMAP4rev1] x\r\n"), (false, "waiting for the caller to log in"));
    session.login("u", &"p".into());
    assert_eq!(feed(&mut session, "* OK x\r\n"), (true, "logging in"));
    assert_eq!(feed(&mut session, "C1 OK [CAPABILITY IDLE] x\r\n"), (false, "waiting for the caller's commands"));
    session.idle();
    assert_eq!(feed(&mut session, "* OK x\r\n"), (true, "waiting for the end of IDLE"));
    assert_eq!(feed(&mut session, "+ go\r\n"), (false, "waiting for the end of IDLE"));
    assert_eq!(feed(&mut session, "* 1 EX"), (true, "waiting for the end of IDLE"));
    assert_eq!(feed(&mut session, "ISTS\r\n"), (false, "waiting for the end of IDLE"));
    session.idle_done();
    assert_eq!(feed(&mut session, "* OK x\r\n"), (true, "waiting for the end of IDLE"));
}

#[test]
fn bye_ends_the_session_anywhere_but_after_logout() {
    let bye = || Error::Bye {
        code: Some(ResponseCode::Unavailable),
        text: "going down".into(),
        during: "waiting for the answer to NOOP",
    };
    let seen = Script::logged_in("IMAP4rev1")
        .call(Session::noop)
        .server("* 3 EXISTS\r\n* BYE [UNAVAILABLE] going down\r\nC2 OK x\r\n")
        .run_logged_in();
    assert_eq!(events(seen), [Is::Event(Event::Exists(3)), Is::Failed(bye())]);
    for last in ["* BYE x\r\n", "", "* BYE x\r\nC2 OK\r\n"] {
        let seen = Script::logged_in("IMAP4rev1").call(Session::logout).server(last).close().run_logged_in();
        assert_eq!(events(seen), [Is::Done(Ok(Completion::default()))]);
    }
    let seen = Script::logged_in("IMAP4rev1").call(Session::noop).close().run_logged_in();
    assert_eq!(events(seen), [Is::Failed(Error::Closed { during: "waiting for the answer to NOOP" })]);
}

#[test]
fn who_was_refused_can_log_out_past_what_waits() {
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY IMAP4rev1] x\r\n")
        .call(|session| session.list("", "*"))
        .call(Session::logout)
        .server("* BYE\r\nC1 OK\r\n")
        .run();
    assert_eq!(transmitted(&seen), "C1 LOGOUT\r\n");
}

#[test]
fn alerts_reach_the_caller() {
    // Gmail: "[ALERT] Please log in via your web browser".
    let seen = Script::logged_in("IMAP4rev1")
        .call(Session::noop)
        .server("* OK [ALERT] disk\r\nC2 NO [alert] full\r\n")
        .run_logged_in();
    let refusal = Refusal { command: "NOOP", status: Status::No, code: Some(ResponseCode::Alert), text: "full".into() };
    assert_eq!(
        events(seen),
        [Is::Event(Event::Alert("disk".into())), Is::Event(Event::Alert("full".into())), Is::Done(Err(refusal))]
    );
}

#[test]
fn what_is_unknown_is_passed_over_by_its_structure() {
    let seen = Script::logged_in("IMAP4rev1")
        .call(Session::noop)
        .server(
            "* X-NEWS (a \"b)\" {4}\r\n)\r\n( (c)) ~{2}\r\nxy z\r\n* 7 X-THING\r\n* \r\n\r\n*\r\n* METADATA \"\" (/x {3}\r\nabc)\r\n\
             *  3  EXISTS\n* OK {5}\r\n* LSUB () NIL x\r\n* STATUS x (MESSAGES 1)\r\nC2 OK x\r\n",
        )
        .run_logged_in();
    assert_eq!(events(seen), [Is::Event(Event::Exists(3)), ok([], "x")]);
}

#[test]
fn every_limit_is_an_error_and_no_allocation() {
    let mut options = plain();
    (options.max_line, options.max_literal, options.max_untagged) = (200, 50, 3);
    let during = "listing mailboxes";
    let script = |line: String| {
        let seen = Script::logged_in_with(options.clone(), "IMAP4rev1")
            .call(|session| session.list("", "*"))
            .server(line)
            .run_logged_in();
        events(seen).pop().unwrap()
    };
    let long = "x".repeat(300);
    assert_eq!(script(format!("* {long}")), Is::Failed(Error::LineTooLong { limit: 200, during }));
    let error = Error::LiteralTooLong { octets: 51, limit: 50, during };
    assert_eq!(script("* LIST () \"/\" {51}\r\n".into()), Is::Failed(error));
    let part = format!(" {{50}}\r\n{}", "y".repeat(50));
    let Is::Failed(Error::LiteralTooLong { limit: 250, .. }) = script(format!("* LIST{}", part.repeat(9))) else {
        panic!()
    };
    assert_eq!(script("* 1 EXISTS\r\n".repeat(4)), Is::Failed(Error::TooManyUntagged { limit: 3, during }));
    let error = Error::UnknownTag { tag: b"C99".to_vec(), during };
    assert_eq!(script("C99 OK x\r\n".into()), Is::Failed(error));
}
