//! A private Dovecot does what its documentation says.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use connectord_testkit::{Certificates, Dovecot, DovecotOptions, Message, Service, corpus};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// A line client: what it is told goes out, what comes is read until a line with the wanted start.
struct Client<S: Read + Write>(BufReader<S>);

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn plain(dovecot: &Dovecot, service: Service) -> Client<TcpStream> {
    let stream = TcpStream::connect(dovecot.address(service)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Client(BufReader::new(stream))
}

fn encrypt(stream: TcpStream, certificates: &Certificates) -> Client<Tls> {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(&certificates.client_config()), name).unwrap();
    Client(BufReader::new(StreamOwned::new(connection, stream)))
}

fn tls(dovecot: &Dovecot, service: Service) -> Client<Tls> {
    encrypt(plain(dovecot, service).0.into_inner(), dovecot.certificates())
}

impl<S: Read + Write> Client<S> {
    fn until(&mut self, start: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the server closed after {all:?}");
            all += &line;
            if line.starts_with(start) {
                return all;
            }
        }
    }

    fn say(&mut self, line: &str, start: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.0.get_mut().flush().unwrap();
        self.until(start)
    }
}

fn ann() -> DovecotOptions {
    DovecotOptions::new().user("ann", "pass:wörd")
}

fn uid_validity(client: &mut Client<TcpStream>, mailbox: &str) -> String {
    let status = client.say(&format!("s STATUS {mailbox} (UIDVALIDITY)"), "s OK");
    status.split("UIDVALIDITY ").nth(1).unwrap().split(')').next().unwrap().to_owned()
}

#[test]
fn imap_and_pop3_take_a_login_over_tls_and_after_starttls() {
    let dovecot = Dovecot::start(ann());
    dovecot.seed("ann", "INBOX", &[Message::new("Subject: one\n\nfirst\n"), Message::new("Subject: two\n\n")]);

    let mut imap = tls(&dovecot, Service::Imaps);
    imap.until("* OK");
    imap.say("a LOGIN ann {10+}\r\npass:wörd", "a OK");
    assert!(imap.say("b EXAMINE INBOX", "b OK").contains("* 2 EXISTS\r\n"));
    assert!(imap.say("c UID FETCH 1 BODY.PEEK[]", "c OK").contains("Subject: one\r\n\r\nfirst\r\n"));

    let mut pop3 = tls(&dovecot, Service::Pop3s);
    pop3.until("+OK");
    pop3.say("USER ann", "+OK");
    pop3.say("PASS pass:wörd", "+OK");
    assert_eq!(pop3.say("STAT", "+OK"), "+OK 2 39\r\n");
    pop3.say("QUIT", "+OK");

    let mut imap = plain(&dovecot, Service::Imap);
    imap.until("* OK");
    imap.say("a STARTTLS", "a OK");
    let mut imap = encrypt(imap.0.into_inner(), dovecot.certificates());
    assert!(imap.say("b CAPABILITY", "b OK").contains("AUTH=SCRAM-SHA-256"));

    let mut pop3 = plain(&dovecot, Service::Pop3);
    pop3.until("+OK");
    pop3.say("STLS", "+OK");
    let mut pop3 = encrypt(pop3.0.into_inner(), dovecot.certificates());
    assert!(pop3.say("CAPA", ".").contains("SASL PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256\r\n"));
}

#[test]
fn lmtp_files_as_the_sieve_script_says() {
    let script = "require \"fileinto\"; if header :contains \"Subject\" \"list\" { fileinto \"Lists\"; }";
    let dovecot = Dovecot::start(ann().sieve("ann", script));
    let socket = std::os::unix::net::UnixStream::connect(dovecot.lmtp_socket()).unwrap();
    let mut greeting = String::new();
    BufReader::new(socket).read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("220 localhost "), "{greeting}");
    dovecot.deliver("ann", b"Subject: a list mail\n\n.dot\n");
    dovecot.deliver("ann", b"Subject: to me\n\nhello");
    let lists = dovecot.messages("ann", "Lists");
    assert_eq!(lists.len(), 1);
    assert!(lists[0].ends_with(b"\nSubject: a list mail\n\n.dot\n"), "{:?}", String::from_utf8_lossy(&lists[0]));
    let inbox = dovecot.messages("ann", "INBOX");
    assert_eq!(inbox.len(), 1);
    assert!(inbox[0].ends_with(b"\nSubject: to me\n\nhello\n"));
}

#[test]
fn seeded_mail_keeps_its_order_its_flags_and_its_date() {
    let dovecot = Dovecot::start(ann());
    let messages: Vec<_> = (0..20)
        .map(|n| Message::new(format!("Subject: {n}\n\n")))
        .map(|m| if m.octets.ends_with(b"3\n\n") { m.flag("\\Seen").flag("\\Flagged") } else { m })
        .collect();
    dovecot.seed("ann", "Work/Grüße", &messages);
    let mut imap = plain(&dovecot, Service::Imap);
    imap.until("* OK");
    imap.say("a LOGIN ann {10+}\r\npass:wörd", "a OK");
    imap.say("b EXAMINE \"Work/Gr&APwA3w-e\"", "b OK");
    let fetched = imap.say("c UID FETCH 4 (FLAGS INTERNALDATE BODY.PEEK[HEADER.FIELDS (SUBJECT)])", "c OK");
    assert!(
        fetched.contains("\\Flagged") && fetched.contains("\\Seen") && fetched.contains("Subject: 3\r\n"),
        "{fetched}"
    );
    assert!(fetched.contains("INTERNALDATE \"02-Jan-2026 03:04:05 +0000\""), "{fetched}");
    assert_eq!(dovecot.messages("ann", "Work/Grüße"), messages.iter().map(|m| m.octets.clone()).collect::<Vec<_>>());
}

#[test]
fn another_client_expunges_and_a_restored_backup_changes_the_uid_validity() {
    let dovecot = Dovecot::start(ann());
    let messages: Vec<_> = (0..5).map(|n| Message::new(format!("Subject: {n}\n\n"))).collect();
    dovecot.seed("ann", "INBOX", &messages);
    let mut imap = plain(&dovecot, Service::Imap);
    imap.until("* OK");
    imap.say("a LOGIN ann {10+}\r\npass:wörd", "a OK");
    let before = uid_validity(&mut imap, "INBOX");
    dovecot.expunge("ann", "INBOX", 2);
    assert!(imap.say("b EXAMINE INBOX", "b OK").contains("* 3 EXISTS"));
    assert!(imap.say("c UID SEARCH ALL", "c OK").contains("* SEARCH 3 4 5\r\n"));
    imap.say("d CLOSE", "d OK");
    dovecot.change_uid_validity("ann", "INBOX");
    assert_ne!(uid_validity(&mut imap, "INBOX"), before);
    imap.say("e EXAMINE INBOX", "e OK");
    assert!(imap.say("f UID SEARCH ALL", "f OK").contains("* SEARCH 1 2 3\r\n"));
}

#[test]
fn lines_of_the_callers_win_over_ours() {
    let quota =
        "protocol lmtp {\n mail_plugins = quota\n}\nplugin {\n quota = maildir\n quota_rule = *:storage=1K\n}\n";
    let dovecot = Dovecot::start(ann().extra(quota));
    let large = [b"Subject: large\n\n".as_slice(), &[b'x'; 5000]].concat();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dovecot.deliver("ann", &large)));
    let why = *refused.unwrap_err().downcast::<String>().unwrap();
    assert!(why.contains("552 5.2.2") || why.contains("452 4.2.2"), "{why}");
}

#[test]
fn users_come_and_go_while_it_runs() {
    let mut dovecot = Dovecot::start(ann());
    let login = |dovecot: &Dovecot, user: &str, expected: &str| {
        let mut pop3 = plain(dovecot, Service::Pop3);
        pop3.until("+OK");
        pop3.say(&format!("USER {user}"), "+OK");
        pop3.say("PASS pass:wörd", expected);
    };
    login(&dovecot, "ann", "+OK");
    login(&dovecot, "bob", "-ERR");
    dovecot.add_user("bob", "pass:wörd");
    dovecot.remove_user("ann");
    login(&dovecot, "bob", "+OK");
    login(&dovecot, "ann", "-ERR");
}

#[test]
fn it_can_fall_silent_die_and_come_back_on_the_same_port() {
    let mut dovecot = Dovecot::start(ann());
    dovecot.suspend();
    let silent = TcpStream::connect(dovecot.address(Service::Pop3)).unwrap();
    silent.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!((&silent).read(&mut [0; 1]).is_err(), "a suspended server said something");
    dovecot.resume();
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Client(BufReader::new(silent)).until("+OK");
    dovecot.kill();
    assert!(TcpStream::connect(dovecot.address(Service::Pop3)).is_err());
    dovecot.restart();
    plain(&dovecot, Service::Pop3).until("+OK");
    dovecot.restart();
    plain(&dovecot, Service::Pop3).until("+OK");
}

#[test]
fn two_hundred_accounts_are_logged_in_at_once() {
    let dovecot = Dovecot::start(DovecotOptions::new().users(200));
    let mut clients: Vec<_> = (0..200).map(|_| plain(&dovecot, Service::Imap)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.until("* OK");
        client.say(&format!("a LOGIN user{n} secret"), "a OK");
    }
    for client in &mut clients {
        client.say("b NOOP", "b OK");
    }
}

/// Reads the octets of one literal, and the rest of the response's line.
fn literal<S: Read + Write>(client: &mut Client<S>) -> Vec<u8> {
    let mut line = String::new();
    client.0.read_line(&mut line).unwrap();
    let length =
        line.trim_end().rsplit('{').next().and_then(|n| n.strip_suffix('}')).unwrap_or_else(|| panic!("{line:?}"));
    let mut octets = vec![0; length.parse().unwrap()];
    client.0.read_exact(&mut octets).unwrap();
    client.0.read_line(&mut line).unwrap();
    octets
}

#[test]
fn what_it_sends_is_what_is_on_disk_but_for_line_ends_and_nul() {
    let dovecot = Dovecot::start(ann());
    let messages = corpus::messages(100, 5);
    dovecot.seed("ann", "INBOX", &messages);
    let mut imap = tls(&dovecot, Service::Imaps);
    imap.until("* OK");
    imap.say("a LOGIN ann {10+}\r\npass:wörd", "a OK");
    imap.say("b EXAMINE INBOX", "b OK");
    imap.0.get_mut().write_all(b"c UID FETCH 1:* BODY.PEEK[]\r\n").unwrap();
    for (n, message) in messages.iter().enumerate() {
        assert!(literal(&mut imap) == dovecot.as_sent(Service::Imaps, &message.octets), "message {n} by IMAP");
    }
    imap.until("c OK");

    let mut pop3 = tls(&dovecot, Service::Pop3s);
    pop3.until("+OK");
    pop3.say("USER ann", "+OK");
    pop3.say("PASS pass:wörd", "+OK");
    for (n, message) in messages.iter().enumerate() {
        pop3.say(&format!("RETR {}", n + 1), "+OK");
        let mut expected = dovecot.as_sent(Service::Pop3s, &message.octets);
        if !expected.ends_with(b"\n") {
            expected.extend_from_slice(b"\r\n");
        }
        assert!(dot_data(&mut pop3) == expected, "message {n} by POP3");
    }
}

/// Reads lines up to a lone dot, and takes the stuffing out.
fn dot_data<S: Read + Write>(client: &mut Client<S>) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        client.0.read_until(b'\n', &mut line).unwrap();
        match line.as_slice() {
            b".\r\n" => return all,
            [b'.', rest @ ..] => all.extend_from_slice(rest),
            line => all.extend_from_slice(line),
        }
    }
}

/// Not a test by itself: what `no_server_outlives_a_test_that_was_killed` kills.
const VICTIM: &str = "CONNECTORD_TESTKIT_VICTIM";

#[test]
fn no_server_outlives_a_test_that_was_killed() {
    let name = "no_server_outlives_a_test_that_was_killed";
    if std::env::var_os(VICTIM).is_some() {
        let dovecot = Dovecot::start(ann());
        println!("\nport {}", dovecot.port(Service::Pop3));
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    // What the killed one leaves behind goes with this.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(VICTIM, "1")
        .env("TMPDIR", directory.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let port = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("port ")?.parse::<u16>().ok()).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(std::time::Instant::now() < deadline, "dovecot lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}
