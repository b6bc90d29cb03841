//! What real servers do that the standards do not say, or forbid. `docs/quirks.md` lists each with its source; here is the
//! server's side of it.

use connectord_imap::{
    Body, Capabilities, Completion, Error, Event, FetchItems, Fetched, Flags, Refusal, ResponseCode, Section, Session,
    Status, StatusItem, Uid, UidSearch, UidSet, UidValidity,
};
use connectord_imap::{MailboxName, Options};
use connectord_wire::Security;

use super::script::{Script, Seen, plain, sent};

fn set(text: &str) -> UidSet {
    UidSet::parse(text.as_bytes(), 1000).unwrap()
}

fn whole() -> FetchItems {
    FetchItems { size: true, internal_date: true, body: Some(Section::Whole), ..FetchItems::default() }
}

fn events(script: &Script) -> Vec<Event> {
    let seen = script.run_logged_in();
    seen.into_iter().filter_map(|seen| if let Seen::Event(event) = seen { Some(event) } else { None }).collect()
}

fn results(script: &Script) -> Vec<Result<Completion, Refusal>> {
    let result = |event| if let Event::Done { result, .. } = event { Some(result) } else { None };
    events(script).into_iter().filter_map(result).collect()
}

fn refused(command: &'static str, status: Status, code: Option<ResponseCode>, text: &str) -> Refusal {
    Refusal { command, status, code, text: text.into() }
}

#[test]
fn icloud_sends_no_body_for_rfc822_and_is_not_asked_for_it() {
    let script = Script::logged_in("IMAP4rev1").call(|session| session.uid_fetch(&set("1"), whole()));
    let [Seen::Sent(command)] = &script.run_logged_in()[..] else { panic!() };
    assert!(command.contains("BODY.PEEK[]") && !command.replace("RFC822.SIZE", "").contains("RFC822"), "{command}");
}

#[test]
fn exchange_answers_ok_for_a_message_it_cannot_convert_and_sends_nothing() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.uid_fetch(&set("20004"), whole()))
        .server("C2 OK FETCH completed.\r\n");
    assert_eq!(events(&script).len(), 1, "only that the command is done");
    assert!(results(&script)[0].is_ok());
}

#[test]
fn exchange_lets_in_whom_it_does_not_connect() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.examine(&MailboxName::inbox()))
        .server("C2 BAD User is authenticated but not connected.\r\n* BYE Connection closed. 14\r\n");
    let text = "User is authenticated but not connected.";
    assert_eq!(results(&script), [Err(refused("EXAMINE", Status::Bad, None, text))]);
    let Some(Seen::Failed(Error::Bye { .. })) = script.run_logged_in().pop() else { panic!() };
}

#[test]
fn yahoo_cannot_give_some_messages_and_gives_the_others_of_the_same_command() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.uid_fetch(&set("7:9"), whole()))
        .server("* 1 FETCH (UID 7 BODY[] {1}\r\na)\r\n")
        .server("C2 NO [UNAVAILABLE] UID FETCH Server error while fetching messages\r\n")
        .call(|session| session.uid_search(UidSearch::all()))
        .server("C3 NO [SERVERBUG] UID SEARCH Server error - Please try again later\r\n");
    let fetched = |event: &Event| matches!(event, Event::Fetched(Fetched { body: Body::Octets(1), .. }));
    assert_eq!(events(&script).iter().filter(|event| fetched(event)).count(), 1);
    let fetch = "UID FETCH Server error while fetching messages";
    let search = "UID SEARCH Server error - Please try again later";
    assert_eq!(
        results(&script),
        [
            Err(refused("UID FETCH", Status::No, Some(ResponseCode::Unavailable), fetch)),
            Err(refused("UID SEARCH", Status::No, Some(ResponseCode::ServerBug), search)),
        ]
    );
}

#[test]
fn sizes_of_exchange_are_wrong_and_the_literal_counts() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.uid_fetch(&set("13"), whole()))
        .server("* 1 FETCH (UID 13 RFC822.SIZE 19189 BODY[] {6}\r\nHi\r\n\r\n)\r\nC2 OK FETCH completed.\r\n");
    let [Event::BodyStart { octets: 6, .. }, Event::Body(body), Event::BodyEnd, Event::Fetched(fetched), _] =
        &events(&script)[..]
    else {
        panic!("{:?}", events(&script))
    };
    assert_eq!((&body[..], fetched.size, fetched.body), (&b"Hi\r\n\r\n"[..], Some(19189), Body::Octets(6)));
}

#[test]
fn dominos_dates_of_nothing_are_no_dates() {
    let script = Script::logged_in("IMAP4rev1").call(|session| session.uid_fetch(&set("1"), whole())).server(
        "* 1 FETCH (UID 1 INTERNALDATE \"00-Jan-0000 00:00:00 +0000\" BODY[] {1}\r\nx)\r\nC2 OK FETCH completed\r\n",
    );
    let events = events(&script);
    let fetched =
        events.iter().find_map(|event| if let Event::Fetched(fetched) = event { Some(fetched) } else { None });
    assert_eq!(fetched.map(|fetched| (&fetched.internal_date, fetched.body)), Some((&None, Body::Octets(1))));
}

#[test]
fn a_literal_whose_length_is_wrong_as_of_domino_ends_the_session_before_the_message_is_whole() {
    for body in ["{3}\r\nabcd)", "{5}\r\nabcd)", "{4}\r\nabcd", "{3}\r\nabc\r\n"] {
        let script = Script::logged_in("IMAP4rev1")
            .call(|session| session.uid_fetch(&set("1"), whole()))
            .server(format!("* 1 FETCH (UID 1 BODY[] {body}\r\nC2 OK FETCH complete\r\n"))
            .close();
        let seen = script.run_logged_in();
        assert!(matches!(seen.last(), Some(Seen::Failed(Error::Syntax { .. }))), "{body}: {seen:?}");
        assert!(!seen.iter().any(|seen| matches!(seen, Seen::Event(Event::Fetched(_)))), "{body}: {seen:?}");
    }
}

#[test]
fn dominos_delimiter_is_a_backslash_and_its_root_has_no_name() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.list("", "*"))
        .server("* LIST (\\Noselect) \"\\\\\" \"\"\r\n* LIST () \"\\\\\" Sent\\Old\r\nC2 OK LIST completed\r\n");
    let [Event::Listed(root), Event::Listed(old), _] = &events(&script)[..] else { panic!("{:?}", events(&script)) };
    assert_eq!((root.delimiter, root.name.as_text(), root.is_selectable()), (Some('\\'), Some(""), false));
    assert_eq!((old.delimiter, old.name.as_text()), (Some('\\'), Some("Sent\\Old")));
}

#[test]
fn davmail_keeps_the_connection_alive_with_spaces() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| {
            session.select(&MailboxName::inbox());
            session.uid_search(UidSearch::all());
        })
        .server("*  1688 EXISTS\r\n* OK [UIDVALIDITY 1]\r\nC2 OK [READ-WRITE] SELECT completed\r\n")
        .server("*          SEARCH 7\r\nC3 OK SEARCH completed\r\n");
    let events = events(&script);
    let Event::Selected(selected) = &events[0] else { panic!("{events:?}") };
    assert_eq!(selected.exists, 1688);
    assert_eq!(events[2], Event::Found(set("7")));
}

#[test]
fn davmail_writes_its_capabilities_in_upper_case_and_has_no_uidplus() {
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY IMAP4REV1 AUTH=LOGIN MOVE SPECIAL-USE] IMAP4rev1 DavMail 5.5.1-3299 server ready\r\n")
        .call(|session| session.login("ann", &"secret".into()))
        .server("C1 OK Authenticated\r\n* CAPABILITY IMAP4REV1 AUTH=LOGIN MOVE SPECIAL-USE\r\nC2 OK CAPABILITY completed\r\n")
        .call(|session| session.uid_expunge(&set("1")))
        .run();
    let Some(Seen::Event(Event::Done { result: Err(refusal), .. })) = seen.last() else { panic!("{seen:?}") };
    assert_eq!(refusal.status, Status::NotOffered);
    let Seen::Event(Event::LoggedIn { capabilities }) = &seen[2] else { panic!("{seen:?}") };
    assert!(capabilities.has_rev1() && capabilities.has("MOVE"));
}

#[test]
fn who_answers_body_for_rfc822_or_rfc822_for_body_is_understood() {
    for name in ["BODY[]", "body[]", "RFC822"] {
        let script = Script::logged_in("IMAP4rev1")
            .call(|session| session.uid_fetch(&set("175"), whole()))
            .server(format!("* 19 FETCH (UID 175 {name} {{3}}\r\nabc)\r\nC2 OK x\r\n"));
        assert!(events(&script).contains(&Event::Body("abc".into())), "{name}");
    }
}

#[test]
fn tencent_puts_a_space_before_the_closing_parenthesis() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.uid_fetch(&set("19436"), FetchItems { size: true, ..FetchItems::default() }))
        .server("* 11487 FETCH (UID 19436 RFC822.SIZE 7 )\r\n* 11488 FETCH (UID 19437 )\r\nC2 OK x\r\n");
    let [Event::Fetched(fetched), Event::Done { result: Ok(_), .. }] = &events(&script)[..] else { panic!() };
    assert_eq!((fetched.uid, fetched.size), (Uid::new(19436), Some(7)));
}

#[test]
fn tencent_wants_ascending_sets() {
    let backwards: UidSet = [9u32, 3, 8, 1].into_iter().filter_map(Uid::new).collect();
    let script = Script::logged_in("IMAP4rev1")
        .call(move |session| session.uid_fetch(&backwards, FetchItems { size: true, ..FetchItems::default() }));
    assert_eq!(script.run_logged_in(), [sent("C2 UID FETCH 1,3,8:9 (UID RFC822.SIZE)\r\n")]);
}

#[test]
fn outlook_com_gets_no_long_command_and_no_number_that_it_did_not_name() {
    // It hangs up at a long FETCH, and refuses a range of sequence numbers that ends behind the last message.
    let many: UidSet = (1..5000u32).step_by(2).filter_map(Uid::new).collect();
    let asked = many.clone();
    let mut script = Script::logged_in("IMAP4rev1")
        .call(move |session| session.uid_fetch(&asked, FetchItems { size: true, ..FetchItems::default() }));
    for number in 2..40 {
        script = script.server(format!("C{number} OK FETCH completed.\r\n"));
    }
    let seen = script.run_logged_in();
    let sent = |seen: &Seen| if let Seen::Sent(text) = seen { Some(text.clone()) } else { None };
    let sent: String = seen.iter().filter_map(sent).collect();
    let mut named = Vec::new();
    for line in sent.lines() {
        assert!(line.len() < 1100, "{line}");
        let set = line.split(' ').nth(3).unwrap();
        assert!(line.split_once(' ').unwrap().1.starts_with("UID FETCH ") && !set.contains('*'), "{line}");
        named.extend(UidSet::parse(set.as_bytes(), 5000).unwrap().iter());
    }
    assert_eq!(named, many.iter().collect::<Vec<_>>());
}

#[test]
fn a_lone_backslash_is_an_attribute_like_others() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.list("", "*"))
        .server("* LIST (\\HasChildren \\) \".\" \"Archive\"\r\nC2 OK Completed\r\n");
    let [Event::Listed(listed), _] = &events(&script)[..] else { panic!() };
    assert_eq!((listed.name.as_text(), listed.is_selectable()), (Some("Archive"), true));
}

#[test]
fn status_answers_of_exchange_and_netease_are_read() {
    // A space behind the list, and a list of nothing.
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.status(&MailboxName::inbox(), &[StatusItem::Messages]))
        .server("* STATUS INBOX (MESSAGES 0) \r\n* STATUS \"INBOX\" ()\r\n* STATUS INBOX (MESSAGES 3 )\r\nC2 OK x\r\n");
    let messages = |event: &Event| if let Event::MailboxStatus(status) = event { Some(status.messages) } else { None };
    assert_eq!(events(&script).iter().filter_map(messages).collect::<Vec<_>>(), [Some(0), None, Some(3)]);
}

#[test]
fn gmail_leaves_the_text_out_behind_a_code() {
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.select(&MailboxName::inbox()))
        .server("* OK [UIDVALIDITY 1]\r\n* OK [HIGHESTMODSEQ 13189]\r\n* 1 EXISTS\r\nC2 OK [READ-WRITE]\r\n");
    let Event::Selected(selected) = &events(&script)[0] else { panic!() };
    assert_eq!((selected.highest_modseq, selected.exists), (Some(13189), 1));
    let code = Some(ResponseCode::Alert);
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY IMAP4rev1] Gimap ready\r\n")
        .call(|session| session.login("ann", &"secret".into()))
        .server("C1 NO [ALERT] Too many simultaneous connections. (Failure)\r\n")
        .run();
    let text = "Too many simultaneous connections. (Failure)";
    assert_eq!(seen.last(), Some(&Seen::Event(Event::LoginRefused(refused("LOGIN", Status::No, code, text)))));
}

#[test]
fn a_continuation_without_a_space_is_one() {
    // public-inbox and, Rust's imap crate says, Gmail.
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\r\n")
        .call(|session| session.authenticate("PLAIN", Some("\0a\0b".into())))
        .server("+\r\nC1 OK [CAPABILITY IMAP4rev1] in\r\n")
        .run();
    assert_eq!(seen[1], sent("C1 AUTHENTICATE PLAIN\r\nAGEAYg==\r\n"));
    assert!(matches!(seen[2], Seen::Event(Event::LoggedIn { .. })));
}

#[test]
fn zoho_tells_of_the_mailbox_before_it_agrees_to_idle() {
    let script = Script::logged_in("IMAP4rev1 IDLE")
        .call(Session::idle)
        .server("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* 7 EXISTS\r\n* 0 RECENT\r\n+ idling\r\n")
        .call(Session::idle_done)
        .server("C2 OK IDLE terminated\r\n");
    let done = Event::Done { command: events_last_command(&script), result: Ok(ok("IDLE terminated")) };
    assert_eq!(events(&script), [Event::Exists(7), Event::Idling, done]);
}

fn ok(text: &str) -> Completion {
    Completion { codes: Vec::new(), text: text.into() }
}

fn events_last_command(script: &Script) -> connectord_imap::CommandId {
    let command = |event| if let Event::Done { command, .. } = event { Some(command) } else { None };
    events(script).into_iter().filter_map(command).last().expect("a command is done")
}

#[test]
fn proton_and_cyrus_tell_of_other_messages_in_the_middle_of_an_answer() {
    // Proton Mail Bridge: flags of a message that was not asked for. Cyrus (Fastmail): of one beyond EXISTS.
    let script = Script::logged_in("IMAP4rev1")
        .call(|session| session.uid_fetch(&set("1:2"), FetchItems { size: true, ..FetchItems::default() }))
        .server("* 1 FETCH (UID 1 RFC822.SIZE 8938)\r\n* 51868 FETCH (FLAGS (NonJunk) UID 51958)\r\n")
        .server(
            "* 919 FETCH (FLAGS (\\Recent) UID 919)\r\n* 919 EXISTS\r\n* 2 FETCH (UID 2 RFC822.SIZE 9)\r\nC2 OK x\r\n",
        );
    let events = events(&script);
    let asked = |event: &&Event| matches!(event, Event::Fetched(Fetched { asked: true, .. }));
    assert_eq!(events.iter().filter(asked).count(), 2);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::FlagsChanged { .. })).count(), 2);
    assert_eq!(events.len(), 6, "{events:?}");
}

#[test]
fn cyrus_answers_an_extended_search_with_a_plain_one() {
    let script = Script::logged_in("IMAP4rev1 ESEARCH")
        .call(|session| session.uid_search(UidSearch::all()))
        .server("* SEARCH 4 5 9\r\nC2 OK Completed\r\n");
    assert_eq!(events(&script)[0], Event::Found(set("4:5,9")));
}

#[test]
fn hmailserver_is_asked_for_no_criterion_it_gets_wrong() {
    // Its NOT DELETED behind parentheses finds everything; a search of ours has flags and UIDs only, and no parentheses.
    let search = UidSearch {
        from: Uid::new(7),
        with: Flags::from([connectord_imap::Flag::Flagged]),
        without: Flags::from([connectord_imap::Flag::Deleted]),
    };
    let script = Script::logged_in("IMAP4rev1").call(move |session| session.uid_search(search.clone()));
    assert_eq!(script.run_logged_in(), [sent("C2 UID SEARCH UID 7:* FLAGGED UNDELETED\r\n")]);
}

#[test]
fn mail_de_refuses_id_and_the_session_goes_on() {
    let mut options = plain();
    options.id = vec![("name".into(), "connectord".into())];
    let seen = Script::logged_in_with(options, "IMAP4rev1 ID")
        .server("C2 BAD invalid command\r\n")
        .call(Session::noop)
        .server("C3 OK x\r\n")
        .run_logged_in();
    assert_eq!(seen[..2], [sent("C2 ID (\"name\" \"connectord\")\r\nC3 NOOP\r\n"), seen[1].clone()]);
    assert!(matches!(seen[1], Seen::Event(Event::Done { result: Ok(_), .. })), "{seen:?}");
}

#[test]
fn a_uidvalidity_that_no_server_may_send_still_names_a_generation() {
    for (said, expected) in [("0", u32::MAX), ("1666390893380", 1_666_390_893_380u64 as u32 ^ 387), ("17", 17)] {
        let script = Script::logged_in("IMAP4rev1")
            .call(|session| {
                session.select(&MailboxName::inbox());
                session.status(&MailboxName::new("x").unwrap(), &[StatusItem::UidValidity]);
            })
            .server(format!("* 0 EXISTS\r\n* OK [UIDVALIDITY {said}] UIDs valid\r\nC2 OK done\r\n"))
            .server(format!("* STATUS x (UIDVALIDITY {said})\r\nC3 OK x\r\n"));
        let events = events(&script);
        let Event::Selected(selected) = &events[0] else { panic!("{events:?}") };
        assert_eq!(Some(selected.uid_validity), UidValidity::new(expected), "{said}");
        let Event::MailboxStatus(status) = &events[2] else { panic!("{events:?}") };
        assert_eq!(status.uid_validity, UidValidity::new(expected), "{said}");
    }
}

#[test]
fn a_server_that_can_log_nobody_in_in_plaintext_says_so_and_is_believed() {
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] x\r\n")
        .call(|session| session.login("ann", &"secret".into()))
        .run();
    let Some(Seen::Failed(Error::Misuse { .. })) = seen.last() else { panic!("{seen:?}") };
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Sent(_))), "{seen:?}");
}

#[test]
fn a_hint_to_another_server_is_not_followed() {
    // "Why TLS is better without STARTTLS" (2021), section on redirects: BYE and NO with REFERRAL (RFC 2221).
    let mut options = Options::default();
    options.security = Security::StartTls;
    let seen = Script::new(options).server("* BYE [REFERRAL imap://evil.example/] try there\r\n").run();
    let [Seen::Failed(Error::Bye { code, .. })] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(*code, Some(ResponseCode::Other("REFERRAL".into())));
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY IMAP4rev1] x\r\n")
        .call(|session| session.login("ann", &"secret".into()))
        .server("C1 NO [REFERRAL imap://ann;AUTH=*@evil.example/] try there\r\n")
        .run();
    let refusal = refused("LOGIN", Status::No, Some(ResponseCode::Other("REFERRAL".into())), "try there");
    assert_eq!(seen.last(), Some(&Seen::Event(Event::LoginRefused(refusal))));
}

#[test]
fn capabilities_without_end_end_the_session() {
    let mut options = plain();
    options.max_untagged = 3;
    for line in ["* CAPABILITY IMAP4rev1\r\n", "* ENABLED X\r\n", "* SEARCH\r\n", "* ESEARCH UID\r\n", "+ go on\r\n"] {
        let seen = Script::logged_in_with(options.clone(), "IMAP4rev1")
            .call(|session| session.uid_search(UidSearch::all()))
            .server(line.repeat(4))
            .run_logged_in();
        let during = "searching a mailbox";
        assert_eq!(seen.last(), Some(&Seen::Failed(Error::TooManyUntagged { limit: 3, during })), "{line}");
    }
}

#[test]
fn a_hundred_thousand_parentheses_are_refused_at_the_thirty_third() {
    for start in ["* 1 FETCH (UID 7 X ", "* LIST ", "* X-THING ", "* NAMESPACE "] {
        let mut session = Script::logged_in("IMAP4rev1 NAMESPACE").call(|session| {
            session.list("", "*");
            session.namespace();
            session.uid_fetch(&set("7"), whole())
        });
        session = session.server(format!("{start}{}\r\n", "(".repeat(60_000)));
        let seen = session.run_logged_in();
        assert!(matches!(seen.last(), Some(Seen::Failed(Error::NestedTooDeep { limit: 32, .. }))), "{start}: {seen:?}");
    }
    // In a line that is longer than a line may be.
    let seen = Script::logged_in("IMAP4rev1").call(Session::noop).server("(".repeat(100_000)).run_logged_in();
    assert!(matches!(seen.last(), Some(Seen::Failed(Error::LineTooLong { .. }))));
}

#[test]
fn a_response_without_end_is_bounded_whatever_it_is_made_of() {
    let endless = "{0}\r\n X-MORE ".repeat(20_000);
    for start in ["* 1 FETCH (UID 7 X ", "* X-THING ", "* LIST () \"/\" ", "* ID ("] {
        let script = Script::logged_in("IMAP4rev1")
            .call(|session| {
                session.list("", "*");
                session.uid_fetch(&set("7"), whole())
            })
            .server(format!("{start}{endless}"));
        let seen = script.run_logged_in();
        assert!(matches!(seen.last(), Some(Seen::Failed(Error::LiteralTooLong { .. }))), "{start}: {:?}", seen.last());
    }
    for octets in [u64::from(u32::MAX), 1 << 31, u64::MAX - 1] {
        let script =
            Script::logged_in("IMAP4rev1").call(Session::noop).server(format!("* X-THING {{{octets}}}\r\nabc"));
        let limit = 2 * 65_536;
        let Some(Seen::Failed(Error::LiteralTooLong { limit: of, .. })) = script.run_logged_in().pop() else {
            panic!()
        };
        assert_eq!(of, limit);
    }
}

#[test]
fn names_of_mailboxes_are_what_they_are() {
    let script = Script::logged_in("IMAP4rev1").call(|session| session.list("", "*")).server(
        "* LIST () \"/\" \"a\\\"b\\\\c\"\r\n* LIST () \"/\" {7}\r\n{3}\r\n()\r\n* LIST () NIL \"Entw&APw-rfe\"\r\n\
         * LIST () \".\" iNbOx\r\n* list (\\noselect) \"/\" Gr\u{fc}n\r\n* LIST () \"/\" \"&Jjo!\"\r\n* LIST () \"/\" NIL\r\n\
         * LIST () \"/\" 2024\r\nC2 OK x\r\n",
    );
    let name = |event: &Event| {
        if let Event::Listed(listed) = event { Some(listed.name.to_wire(Default::default())) } else { None }
    };
    let names: Vec<_> = events(&script).iter().filter_map(name).collect();
    let expected: [&[u8]; 8] =
        [b"a\"b\\c", b"{3}\r\n()", b"Entw&APw-rfe", b"INBOX", "Gr\u{fc}n".as_bytes(), b"&Jjo!", b"NIL", b"2024"];
    assert_eq!(names, expected);
}

#[test]
fn a_backslash_makes_one_octet_plain_also_above_ascii() {
    let script = Script::logged_in("IMAP4rev1").call(|session| session.list("", "*")).server(
        [&b"* LIST () \"/\" \"a\\\xe9\\\"b\"\r\n* LIST (\\Junk) \"/\" \"a\\\x8d\r\n"[..], b"C2 OK x\r\n"].concat(),
    );
    let seen = script.run_logged_in();
    let name = MailboxName::from_wire(b"a\xe9\"b", Default::default());
    assert!(matches!(&seen[1], Seen::Event(Event::Listed(listed)) if listed.name == name), "{seen:?}");
    // The second has no end.
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Event(Event::Listed(listed)) if listed.name != name)));
}

#[test]
fn a_preauth_greeting_under_tls_is_refused_and_says_why() {
    let seen = Script::new(Options::default()).server("* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n").run();
    assert_eq!(seen, [Seen::Failed(Error::Preauth)]);
    assert_eq!(Capabilities::default().iter().count(), 0);
}
