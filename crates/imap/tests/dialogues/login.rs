//! From the greeting to the login.

use super::script::{Script, Seen, plain, sent};
use connectord_imap::{Capabilities, Error, Event, LoginOffer, Options, Refusal, ResponseCode, Session, Status};
use connectord_wire::{Blame, Machine, Security};

fn options(security: Security) -> Options {
    let mut options = Options::default();
    options.security = security;
    options
}

fn caps(names: &str) -> Capabilities {
    names.split(' ').collect()
}

fn offer(mechanisms: &[&str], login: bool, encrypted: bool, names: &str) -> Seen {
    Seen::Event(Event::LoginOffered(LoginOffer {
        mechanisms: mechanisms.iter().map(|name| (*name).to_owned()).collect(),
        login,
        encrypted,
        sasl_ir: names.contains("SASL-IR"),
        capabilities: caps(names),
    }))
}

fn logged_in(names: &str) -> Seen {
    Seen::Event(Event::LoggedIn { capabilities: caps(names) })
}

fn refused(command: &'static str, status: Status, code: Option<ResponseCode>, text: &str) -> Seen {
    Seen::Event(Event::LoginRefused(Refusal { command, status, code, text: text.into() }))
}

#[test]
fn starttls_forgets_what_was_learnt_in_plaintext() {
    // RFC 9051 §6.2.1, in its second half.
    let seen = Script::new(options(Security::StartTls))
        .server("* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=EVIL] hi\r\n")
        .server("* OK [ALERT] from anybody\r\nC1 OK [ALERT] Begin TLS negotiation now\r\n")
        .server("* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nC2 OK done\r\n")
        .run();
    assert_eq!(
        seen,
        [
            sent("C1 STARTTLS\r\n"),
            Seen::StartTls,
            sent("C2 CAPABILITY\r\n"),
            offer(&["PLAIN"], true, true, "IMAP4rev1 AUTH=PLAIN"),
        ]
    );
}

#[test]
fn who_does_not_say_what_it_can_do_after_starttls_can_do_nothing() {
    let seen = Script::new(options(Security::StartTls))
        .server("* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=EVIL] hi\r\n")
        .server("C1 OK go\r\n")
        .server("C2 BAD what\r\n")
        .run();
    let nothing = LoginOffer {
        mechanisms: vec![],
        login: true,
        encrypted: true,
        sasl_ir: false,
        capabilities: Capabilities::default(),
    };
    assert_eq!(seen[3..], [Seen::Event(Event::LoginOffered(nothing))]);
}

#[test]
fn plaintext_behind_the_starttls_answer_is_an_attack() {
    // CVE-2020-14954, and what NO STARTTLS (2021) found in many clients.
    let injected = "* CAPABILITY AUTH=EVIL\r\n";
    let mut session = Session::new(options(Security::StartTls));
    session.receive(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n");
    let _ = session.poll(std::time::Instant::now()).unwrap();
    session.receive(format!("C1 OK go\r\n{injected}").as_bytes());
    assert_eq!(session.poll(std::time::Instant::now()), Err(Error::PlaintextAfterStartTls { octets: injected.len() }));
}

#[test]
fn without_starttls_nothing_is_sent_in_plaintext() {
    for (greeting, error) in [
        ("* OK [CAPABILITY IMAP4rev1] hi\r\n", Error::NotOffered { what: "STARTTLS" }),
        ("* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n", Error::PreauthBeforeTls),
    ] {
        let seen = Script::new(options(Security::StartTls)).server(greeting).run();
        assert_eq!(seen, [Seen::Failed(error)]);
    }
    let seen = Script::new(options(Security::StartTls))
        .server("* OK [CAPABILITY STARTTLS] hi\r\n")
        .server("C1 NO [ALERT] not today\r\n")
        .run();
    let refusal =
        Refusal { command: "STARTTLS", status: Status::No, code: Some(ResponseCode::Alert), text: "not today".into() };
    assert_eq!(refusal.to_string(), "STARTTLS refused: \"NO [ALERT] not today\"");
    let error = Error::StartTlsRefused(refusal);
    assert_eq!(error.blame(), Blame::Incompatible);
    assert_eq!(seen, [sent("C1 STARTTLS\r\n"), Seen::Failed(error)]);
}

#[test]
fn preauth_is_a_login_only_by_option() {
    let script = |options| Script::new(options).server("* PREAUTH hi\r\n");
    assert_eq!(script(options(Security::Tls)).run(), [Seen::Failed(Error::Preauth)]);
    let mut allowing = options(Security::Tls);
    allowing.allow_preauth = true;
    assert_eq!(
        script(allowing).server("* CAPABILITY IMAP4rev1\r\nC1 OK\r\n").run(),
        [sent("C1 CAPABILITY\r\n"), logged_in("IMAP4rev1")]
    );
}

#[test]
fn a_greeting_must_be_a_greeting() {
    let bye = Error::Bye { code: None, text: "busy".into(), during: "receiving the greeting" };
    assert_eq!(Script::new(plain()).server("* BYE busy\r\n").run(), [Seen::Failed(bye)]);
    for line in ["HTTP/1.1 400 Bad Request", "+OK POP3", "220 smtp", "* 3 EXISTS", "", "C1 OK x", "* SEARCH 1"] {
        let seen = Script::new(plain()).server(format!("{line}\r\n")).run();
        let found = line.as_bytes().to_vec();
        let error = Error::Syntax { expected: "a greeting", during: "receiving the greeting", found };
        assert_eq!(seen, [Seen::Failed(error)]);
    }
    let closed = Error::Closed { during: "receiving the greeting" };
    assert_eq!(Script::new(plain()).server("* OK half").close().run(), [Seen::Failed(closed)]);
}

#[test]
fn a_refused_login_leaves_the_connection_usable() {
    let seen = Script::new(options(Security::Tls))
        .server("* ok ready\r\n")
        .server("* capability imap4rev1 auth=plain\r\nC1 OK x\r\n")
        .call(|session| session.login("ann", &"wrong".into()))
        .server("C2 NO [AUTHENTICATIONFAILED] Authentication failed.\r\n")
        .call(|session| session.authenticate("plain", Some("\0ann\0right".into())))
        .server("+\r\n")
        .server("* CAPABILITY IMAP4rev1 IDLE\r\nC3 OK in\r\n")
        .run();
    assert_eq!(
        seen,
        [
            sent("C1 CAPABILITY\r\n"),
            offer(&["PLAIN"], true, true, "imap4rev1 auth=plain"),
            sent("C2 LOGIN \"ann\" \"wrong\"\r\n"),
            refused("LOGIN", Status::No, Some(ResponseCode::AuthenticationFailed), "Authentication failed."),
            sent("C3 AUTHENTICATE PLAIN\r\nAGFubgByaWdodA==\r\n"),
            logged_in("IMAP4rev1 IDLE"),
        ]
    );
}

#[test]
fn an_initial_response_is_sent_at_once_where_offered() {
    // RFC 4959 §5, its examples: with one, and with an empty one.
    let script = |mechanism: &'static str, initial: &'static str| {
        Script::new(plain())
            .server("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=EXTERNAL] hi\r\n")
            .call(move |session| session.authenticate(mechanism, Some(initial.into())))
    };
    let seen = script("PLAIN", "\0test\0test").server("C1 OK [CAPABILITY IMAP4rev1] Success\r\n").run();
    assert_eq!(seen[1..], [sent("C1 AUTHENTICATE PLAIN AHRlc3QAdGVzdA==\r\n"), logged_in("IMAP4rev1")]);
    let seen = script("EXTERNAL", "").server("C1 BAD no\r\n").run();
    assert_eq!(seen[1..], [sent("C1 AUTHENTICATE EXTERNAL =\r\n"), refused("AUTHENTICATE", Status::Bad, None, "no")]);
}

#[test]
fn challenges_are_answered_or_cancelled() {
    // RFC 3501 §6.2.2 has such an exchange; Gmail answers a bad token with a challenge that wants an empty answer.
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY IMAP4rev1 AUTH=CRAM-MD5] hi\r\n")
        .call(|session| session.authenticate("CRAM-MD5", None))
        .server("+ PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2U+\r\n")
        .call(|session| session.respond("tim b913a602".into()))
        .server("+ eyJzIjo0fQ\r\n")
        .call(|session| session.respond("".into()))
        .server("+\r\n")
        .call(Session::cancel_sasl)
        .server("C1 BAD cancelled\r\n")
        .run();
    assert_eq!(
        seen[1..],
        [
            sent("C1 AUTHENTICATE CRAM-MD5\r\n"),
            Seen::Event(Event::Challenge(b"<1896.697170952@postoffice>".to_vec())),
            sent("dGltIGI5MTNhNjAy\r\n"),
            Seen::Event(Event::Challenge(b"{\"s\":4}".to_vec())),
            sent("\r\n"),
            Seen::Event(Event::Challenge(Vec::new())),
            sent("*\r\n"),
            refused("AUTHENTICATE", Status::Bad, None, "cancelled"),
        ]
    );
}

#[test]
fn what_cannot_be_quoted_is_sent_as_a_literal_the_way_the_server_takes_it() {
    let script = |names: &str| {
        Script::new(plain())
            .server(format!("* OK [CAPABILITY {names}] hi\r\n"))
            .call(|session| session.login("a\"b\\c", &"pä\r\n".into()))
    };
    // RFC 7888 §4 and §5.
    for names in ["IMAP4rev1 LITERAL+", "IMAP4rev1 LITERAL-"] {
        let seen = script(names).server("C1 OK [CAPABILITY IMAP4rev1] in\r\n").run();
        assert_eq!(seen[1..], [sent("C1 LOGIN \"a\\\"b\\\\c\" {5+}\r\npä\r\n\r\n"), logged_in("IMAP4rev1")]);
    }
    let seen = script("IMAP4rev1").server("+ go\r\n").server("C1 OK [CAPABILITY IMAP4rev1] in\r\n").run();
    assert_eq!(seen[1..], [sent("C1 LOGIN \"a\\\"b\\\\c\" {5}\r\npä\r\n\r\n"), logged_in("IMAP4rev1")]);
    // Refused before the literal was sent: the password stays here.
    let seen = script("IMAP4rev1")
        .server("C1 NO too long\r\n")
        .call(|session| session.authenticate("PLAIN", None))
        .server("+ \r\n")
        .run();
    assert_eq!(
        seen[1..],
        [
            sent("C1 LOGIN \"a\\\"b\\\\c\" {5}\r\n"),
            refused("LOGIN", Status::No, None, "too long"),
            sent("C2 AUTHENTICATE PLAIN\r\n"),
            Seen::Event(Event::Challenge(Vec::new())),
        ]
    );
}

#[test]
fn extensions_are_enabled_in_the_same_breath_as_the_first_command() {
    let mut options = plain();
    options.id = vec![("name".into(), "connectord".into())];
    let seen = Script::new(options)
        .server("* OK [CAPABILITY IMAP4rev1] hi\r\n")
        .call(|session| session.login("u", &"p".into()))
        .call(|session| session.list("", "*"))
        .server("C1 OK [CAPABILITY IMAP4rev1 IMAP4rev2 ENABLE UTF8=ACCEPT ID] in\r\n")
        .server("* ENABLED IMAP4rev2 UTF8=ACCEPT\r\nC2 OK\r\n* ID (\"NAME\" \"Dovecot\" \"os\" NIL)\r\nC3 OK\r\n")
        .server("* LIST () \"/\" \"Entwürfe & mehr\"\r\nC4 OK\r\n")
        .run();
    assert_eq!(
        seen[3],
        sent("C2 ENABLE IMAP4rev2 UTF8=ACCEPT\r\nC3 ID (\"name\" \"connectord\")\r\nC4 LIST \"\" \"*\"\r\n")
    );
    let fields = [("name", "Dovecot"), ("os", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(seen[4], Seen::Event(Event::ServerId(fields.into())));
    let Seen::Event(Event::Listed(listed)) = &seen[5] else { panic!("{seen:?}") };
    assert_eq!(listed.name.as_text(), Some("Entwürfe & mehr"));
}

#[test]
fn a_name_that_enable_would_change_waits_for_it() {
    let seen = Script::new(plain())
        .server("* OK [CAPABILITY IMAP4rev1] hi\r\n")
        .call(|session| session.login("u", &"p".into()))
        .call(|session| session.examine(&connectord_imap::MailboxName::new("ü").unwrap()))
        .server("C1 OK [CAPABILITY IMAP4rev1 ENABLE UTF8=ACCEPT] in\r\n")
        .server("* ENABLED UTF8=ACCEPT\r\nC2 OK\r\n")
        .run();
    assert_eq!(seen[3..], [sent("C2 ENABLE UTF8=ACCEPT\r\nC3 EXAMINE \"ü\"\r\n")]);
    assert_eq!(seen.len(), 4);
}

#[test]
fn nothing_is_enabled_that_was_not_asked_for() {
    let seen = Script::logged_in("IMAP4rev1")
        .server("* ENABLED UTF8=ACCEPT\r\n")
        .call(|session| session.select(&connectord_imap::MailboxName::new("ü").unwrap()))
        .run_logged_in();
    assert_eq!(seen, [sent("C2 SELECT \"&APw-\"\r\n")]);
}

#[test]
fn logins_that_were_not_offered_are_the_callers_fault() {
    let misuses: [&dyn Fn(&mut Session); 5] = [
        &|session| session.login("u", &"p\0".into()),
        &|session| session.authenticate("PLAIN\r\nX", None),
        &|session| session.respond("x".into()),
        &|session| {
            session.list("a\r\nb", "*");
        },
        &|session| {
            session.login("u", &"p".into());
            session.login("u", &"p".into());
        },
    ];
    for misuse in misuses {
        let mut session = Session::new(plain());
        session.receive(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n");
        let _ = session.poll(std::time::Instant::now()).unwrap();
        misuse(&mut session);
        let error = session.poll(std::time::Instant::now()).unwrap_err();
        assert_eq!(error.blame(), Blame::Caller, "{error}");
    }
}

#[test]
fn a_login_in_progress_is_confidential_and_shows_no_secret() {
    let mut session = Session::new(plain());
    session.receive(b"* OK [CAPABILITY IMAP4rev1] hi\r\n");
    let _ = session.poll(std::time::Instant::now()).unwrap();
    assert!(!session.confidential());
    session.login("u", &"hunter2".into());
    assert!(session.confidential());
    assert!(!format!("{session:?}").contains("hunter2"));
    let _ = session.poll(std::time::Instant::now()).unwrap();
    session.receive(b"C1 NO no\r\n");
    let _ = session.poll(std::time::Instant::now()).unwrap();
    assert!(!session.confidential());
}
