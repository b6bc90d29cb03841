//! A private mailutils does what its documentation says.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use connectord_testkit::{Mailutils, Message, Service};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// Says all of it, after TLS, and reads to the end of the connection.
fn talk(mailutils: &Mailutils, service: Service, starttls: Option<&str>, lines: &str) -> String {
    let stream = TcpStream::connect(mailutils.address(service)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    if let Some(command) = starttls {
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        (&stream).write_all(command.as_bytes()).unwrap();
        answers.read_line(&mut line).unwrap();
    }
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::clone(&mailutils.certificates().client_config()), name).unwrap();
    let mut stream = StreamOwned::new(tls, stream);
    stream.write_all(lines.as_bytes()).unwrap();
    let mut said = Vec::new();
    // It ends without a close_notify.
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

#[test]
fn both_protocols_take_a_login_with_tls_and_show_the_mail() {
    let mailutils = Mailutils::start(&[("ann@example.org", "se:cret"), ("ben@example.net", "other")]);
    mailutils.seed("ann@example.org", &[Message::new("Subject: one\n\nbody\n"), Message::new("Subject: two\n\n.x\n")]);
    let pop3 = "USER ann@example.org\r\nPASS se:cret\r\nSTAT\r\nRETR 2\r\nQUIT\r\n";
    for (service, starttls) in [(Service::Pop3s, None), (Service::Pop3, Some("STLS\r\n"))] {
        let said = talk(&mailutils, service, starttls, pop3);
        assert!(said.contains("\r\n+OK 2 42\r\n") && said.contains("\r\n..x\r\n.\r\n"), "{said}");
    }
    let imap = "a LOGIN ben@example.net other\r\nb EXAMINE INBOX\r\nc LOGOUT\r\n";
    assert!(talk(&mailutils, Service::Imaps, None, imap).contains("* 0 EXISTS\r\n"));
    let imap = "a LOGIN ann@example.org se:cret\r\nb EXAMINE INBOX\r\nc UID FETCH 1:* BODY.PEEK[]\r\nd LOGOUT\r\n";
    let said = talk(&mailutils, Service::Imap, Some("s STARTTLS\r\n"), imap);
    assert!(said.contains("* 2 EXISTS\r\n") && said.contains("Subject: one\r\n"), "{said}");
    assert_eq!(mailutils.messages("ann@example.org").len(), 2);
    let refused = talk(&mailutils, Service::Imaps, None, "a LOGIN ann@example.org wrong\r\nc LOGOUT\r\n");
    assert!(refused.contains("a NO "), "{refused}");
}
