//! The in-process servers speak POP3 and IMAP well enough to be retrieved from, and misbehave as told.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use connectord_sample::servers::{Counters, ImapServer, Misbehaviour, Pop3Server, QuitFault, ServerOptions};
use connectord_sample::{Certificates, Message, corpus};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

struct Client<S: Read + Write>(BufReader<S>);

fn connect(address: SocketAddr) -> Client<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Client(BufReader::new(stream))
}

impl Client<TcpStream> {
    fn encrypt(self, certificates: &Certificates) -> Client<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::clone(&certificates.client_config()), name).unwrap();
        Client(BufReader::new(StreamOwned::new(tls, self.0.into_inner())))
    }
}

impl<S: Read + Write> Client<S> {
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).into_owned()
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        self.0.get_mut().flush().unwrap();
    }

    /// Sends a line; all that comes up to the line that starts so, or to the end of the connection.
    fn say(&mut self, line: &str, until: &str) -> String {
        self.send(&format!("{line}\r\n"));
        let mut all = String::new();
        loop {
            let line = self.line();
            all += &line;
            if line.is_empty() || line.starts_with(until) {
                return all;
            }
        }
    }

    fn pop3_login(&mut self) {
        assert_eq!(self.line(), "+OK ready\r\n");
        assert_eq!(self.say("USER ann", "+OK"), "+OK \r\n");
        assert_eq!(self.say("PASS secret", "+OK"), "+OK logged in\r\n");
    }

    fn imap_login(&mut self) {
        assert!(self.line().starts_with("* OK [CAPABILITY IMAP4rev1 LITERAL+ "));
        assert!(self.say("a LOGIN ann \"secret\"", "a OK").starts_with("a OK [CAPABILITY IMAP4rev1 "));
    }
}

fn ann() -> ServerOptions {
    ServerOptions::new().user("ann", "secret")
}

#[test]
fn pop3_lists_retrieves_and_removes_at_quit() {
    let server = Pop3Server::start(ann());
    let mailbox = server.mailbox("ann");
    mailbox.add("Subject: one\n\n.dot\nend");
    mailbox.add("Subject: two\r\n\r\nbody\r\nmore\r\n");
    let mut client = connect(server.address());
    client.pop3_login();
    assert_eq!(client.say("STAT", "+OK"), "+OK 2 53\r\n");
    assert_eq!(client.say("UIDL", "."), "+OK 2 messages\r\n1 6553f10100000001\r\n2 6553f10100000002\r\n.\r\n");
    assert_eq!(client.say("LIST 2", "+OK"), "+OK 2 28\r\n");
    assert_eq!(client.say("TOP 2 1", "."), "+OK 22 octets\r\nSubject: two\r\n\r\nbody\r\n.\r\n");
    assert_eq!(client.say("RETR 1", ".\r"), "+OK 25 octets\r\nSubject: one\r\n\r\n..dot\r\nend\r\n.\r\n");
    client.send("DELE 1\r\nRETR 1\r\nSTAT\r\n");
    assert_eq!([client.line(), client.line()], ["+OK marked\r\n", "-ERR no such message\r\n"]);
    assert_eq!(client.line(), "+OK 1 28\r\n");
    assert_eq!(mailbox.len(), 2);
    assert_eq!([client.say("QUIT", "+OK"), client.line()], ["+OK bye\r\n", ""]);
    assert_eq!(mailbox.uids(), [2]);
    let counters = server.counters();
    let expected =
        Counters { connections: 1, logins: 1, listings: 1, retrieved: 1, retrieved_octets: 25, removed: 1, ..counters };
    assert_eq!(counters, expected);
}

#[test]
fn pop3_takes_auth_plain_after_stls_only() {
    let certificates = Certificates::new();
    let server = Pop3Server::start(ann().starttls(certificates.server_config()));
    let mut client = connect(server.address());
    client.line();
    assert!(client.say("CAPA", ".").contains("\r\nSTLS\r\n"));
    assert_eq!(client.say("AUTH PLAIN AGFubgBzZWNyZXQ=", "-ERR"), "-ERR no such mechanism\r\n");
    assert_eq!(client.say("STLS", "+OK"), "+OK begin TLS\r\n");
    let mut client = client.encrypt(&certificates);
    assert!(client.say("CAPA", ".").contains("\r\nSASL PLAIN\r\n"));
    assert_eq!(client.say("AUTH PLAIN AGFubgB3cm9uZw==", "-ERR"), "-ERR [AUTH] wrong user name or password\r\n");
    assert_eq!(client.say("AUTH PLAIN", "+"), "+ \r\n");
    assert_eq!(client.say("AGFubgBzZWNyZXQ=", "+OK"), "+OK logged in\r\n");
}

#[test]
fn pop3_misbehaves_as_told() {
    let server = Pop3Server::start(ann());
    let mailbox = server.mailbox("ann");
    for n in 1..=3 {
        mailbox.add(Message::new(format!("Subject: {n}\n\n")));
    }
    server.misbehave(Misbehaviour {
        refuse_retrieve: [2].into(),
        refuse_remove: [3].into(),
        quit: QuitFault::RefuseButRemove,
        size_error: -4,
        without: ["UIDL".to_owned()].into(),
        ..Misbehaviour::default()
    });
    let mut client = connect(server.address());
    client.pop3_login();
    assert_eq!(client.say("STAT", "+OK"), "+OK 3 30\r\n");
    assert!(!client.say("CAPA", ".").contains("UIDL"));
    assert_eq!(client.say("UIDL", "-ERR"), "-ERR unknown command\r\n");
    assert_eq!(client.say("RETR 2", "-ERR"), "-ERR [SYS/PERM] the message cannot be read\r\n");
    assert_eq!(client.say("DELE 3", "-ERR"), "-ERR it cannot be removed\r\n");
    client.say("DELE 1", "+OK");
    assert_eq!(client.say("QUIT", "-ERR"), "-ERR some messages were not removed\r\n");
    assert_eq!(client.line(), "");
    assert_eq!(mailbox.uids(), [2, 3]);

    server.misbehave(Misbehaviour { close_after_octets: Some(100), same_uidls: true, ..Misbehaviour::default() });
    let mut client = connect(server.address());
    client.pop3_login();
    assert_eq!(client.say("UIDL", "."), "+OK 2 messages\r\n1 same\r\n2 same\r\n.\r\n");
    let mut rest = String::new();
    client.send("RETR 1\r\nRETR 2\r\n");
    client.0.read_to_string(&mut rest).unwrap();
    // Greeting and login took 32 octets, the listing 35.
    assert_eq!(rest, "+OK 14 octets\r\nSubject: 2\r\n\r\n.\r\n+");

    server.misbehave(Misbehaviour { refuse_login: Some("[SYS/TEMP] later".to_owned()), ..Misbehaviour::default() });
    let mut client = connect(server.address());
    client.line();
    client.say("USER ann", "+OK");
    assert_eq!(client.say("PASS secret", "-ERR"), "-ERR [SYS/TEMP] later\r\n");

    server.misbehave(Misbehaviour { close_at: Some("quit".to_owned()), ..Misbehaviour::default() });
    assert_eq!(client.say("QUIT", "+OK"), "");
}

#[test]
fn imap_lists_fetches_and_expunges_by_uid() {
    let server = ImapServer::start(ann());
    let mailbox = server.mailbox("ann");
    mailbox.add("Subject: one\nX: y\n z\n\nbody\n");
    mailbox.remove(1);
    mailbox.add(Message::new("Subject: two\nX: y\n z\n\nbody\n").flag("\\Flagged"));
    mailbox.add("Subject: three\n\n");
    let mut client = connect(server.address());
    client.imap_login();
    assert_eq!(
        client.say("b LIST \"\" (\"I*\" Trash)", "b "),
        "* LIST (\\HasNoChildren) \"/\" \"INBOX\"\r\n* LIST (\\HasNoChildren \\Trash) \"/\" \"Trash\"\r\nb OK done\r\n"
    );
    assert_eq!(
        client.say("c STATUS inbox (MESSAGES UIDNEXT UIDVALIDITY)", "c "),
        "* STATUS \"inbox\" (MESSAGES 2 UIDNEXT 4 UIDVALIDITY 1700000001)\r\nc OK done\r\n"
    );
    let selected = client.say("d SELECT {5}", "+");
    assert_eq!(selected, "+ go on\r\n");
    assert!(client.say("INBOX", "d ").contains("* 2 EXISTS\r\n"));
    assert_eq!(client.say("e UID SEARCH UID 1:* UNSEEN", "e "), "* SEARCH 2 3\r\ne OK done\r\n");
    assert_eq!(
        client.say("f UID FETCH 2 (FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (X)])", "f "),
        "* 1 FETCH (UID 2 FLAGS (\\Flagged) INTERNALDATE \" 2-Jan-2026 03:04:05 +0000\" RFC822.SIZE 32 \
         BODY[HEADER.FIELDS (X)] {12}\r\nX: y\r\n z\r\n\r\n)\r\nf OK done\r\n"
    );
    assert_eq!(
        client.say("g UID FETCH 3:* BODY.PEEK[]", "g "),
        "* 2 FETCH (UID 3 BODY[] {18}\r\nSubject: three\r\n\r\n)\r\ng OK done\r\n"
    );
    assert_eq!(
        client.say("h UID FETCH 2 (BODY.PEEK[HEADER] BODY.PEEK[]<22.100>)", "h "),
        "* 1 FETCH (UID 2 BODY[HEADER] {26}\r\nSubject: two\r\nX: y\r\n z\r\n\r\n BODY[]<22> {10}\r\n\r\n\r\nbody\r\n)\r\nh OK done\r\n"
    );
    assert_eq!(client.say("i UID STORE 2 +FLAGS.SILENT (\\Deleted)", "i "), "i OK done\r\n");
    assert_eq!(client.say("j UID EXPUNGE 2", "j "), "* 1 EXPUNGE\r\nj OK done\r\n");
    assert_eq!(
        client.say("k UID MOVE 3 Trash", "k "),
        "* OK [COPYUID 1700000002 3 1] moved\r\n* 1 EXPUNGE\r\nk OK done\r\n"
    );
    assert_eq!(client.say("l LOGOUT", "l "), "* BYE see you\r\nl OK done\r\n");
    assert!(mailbox.is_empty());
    assert_eq!(server.mailbox_named("ann", "Trash").messages()[0].octets, b"Subject: three\n\n");
    assert_eq!((server.counters().retrieved, server.counters().removed), (1, 2));
}

#[test]
fn imap_idle_tells_of_what_comes_and_goes() {
    let server = ImapServer::start(ann());
    let mailbox = server.mailbox("ann");
    let mut client = connect(server.address());
    client.imap_login();
    client.say("b EXAMINE INBOX", "b OK");
    assert_eq!(client.say("c IDLE", "+"), "+ idling\r\n");
    mailbox.add("Subject: one\n\n");
    assert_eq!(client.line(), "* 1 EXISTS\r\n");
    mailbox.remove(1);
    assert_eq!(client.line(), "* 1 EXPUNGE\r\n");
    assert_eq!(client.say("DONE", "c "), "c OK done\r\n");
    assert_eq!(client.say("d UID STORE 1 +FLAGS (\\Seen)", "d "), "d NO [READ-ONLY] the mailbox was examined\r\n");
    mailbox.set_uid_validity(77);
    assert_eq!(client.say("e NOOP", "e "), "* BYE the UIDVALIDITY changed\r\ne OK done\r\n");
}

#[test]
fn imap_takes_sasl_after_starttls_only_and_pipelines() {
    let certificates = Certificates::new();
    let server = ImapServer::start(ann().starttls(certificates.server_config()));
    let mut client = connect(server.address());
    assert!(client.line().contains("STARTTLS LOGINDISABLED]"));
    assert!(client.say("a LOGIN ann secret", "a ").starts_with("a NO [PRIVACYREQUIRED]"));
    assert_eq!(client.say("b STARTTLS", "b "), "b OK begin TLS\r\n");
    let mut client = client.encrypt(&certificates);
    client.send(
        "c AUTHENTICATE PLAIN AGFubgBzZWNyZXQ=\r\nd ID NIL\r\ne NAMESPACE\r\nf SELECT {5+}\r\nINBOX\r\ng NOOP\r\n",
    );
    let mut said = String::new();
    while !said.ends_with("g OK done\r\n") {
        said += &client.line();
    }
    assert!(
        said.contains("c OK [CAPABILITY ") && said.contains("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\ne OK"),
        "{said}"
    );
    assert!(said.contains("f OK [READ-WRITE] selected\r\n"), "{said}");
}

#[test]
fn ten_thousand_messages_come_through_tls_as_they_are() {
    let certificates = Certificates::new();
    let server = ImapServer::start(ann().tls(certificates.server_config()));
    let mailbox = server.mailbox("ann");
    let messages = corpus::messages(200, 3);
    for n in 0..10_000 {
        mailbox.add(Message::new(messages[n % 200].octets[..messages[n % 200].octets.len().min(900)].to_vec()));
    }
    let mut client = connect(server.address()).encrypt(&certificates);
    client.imap_login();
    client.say("b EXAMINE INBOX", "b OK");
    client.send("c UID FETCH 1:* BODY.PEEK[]\r\n");
    for n in 1..=10_000 {
        let line = client.line();
        let length =
            line.strip_prefix(&format!("* {n} FETCH (UID {n} BODY[] {{")).and_then(|l| l.strip_suffix("}\r\n"));
        let mut octets = vec![0; length.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()];
        client.0.read_exact(&mut octets).unwrap();
        assert_eq!(client.line(), ")\r\n");
    }
    assert_eq!(client.line(), "c OK done\r\n");
    assert_eq!(server.counters().retrieved, 10_000);
}
