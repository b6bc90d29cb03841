//! The program retrieves from a second server, GNU Mailutils, whose habits differ from Dovecot's.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{Installation, Sums, account, with_lf, without_trace};
use connectord_testkit::{Mailutils, Message, Service};

const USER: &str = "ann@example.org";

fn letters() -> Vec<Message> {
    let letter = |n: usize| {
        let head = format!("Message-ID: <{n}@example.net>\nFrom: ben@example.net\nSubject: letter {n}\n");
        let body =
            format!("Dear Ann,\n.\n..dots\nGr\u{fc}\u{df}e {n}\n{}", "another line of the letter\n".repeat(n * 7 % 90));
        Message::new(format!("{head}\n{body}"))
    };
    (0..50).map(letter).collect()
}

#[test]
fn every_letter_arrives_once_by_each_protocol_with_and_without_encryption() {
    let mailutils = Mailutils::start(&[(USER, "secret")]);
    mailutils.seed(USER, &letters());
    let ways = [
        (Service::Pop3, "pop3", "none"),
        (Service::Pop3, "pop3", "starttls"),
        (Service::Pop3s, "pop3", "tls"),
        (Service::Imap, "imap", "none"),
        (Service::Imap, "imap", "starttls"),
        (Service::Imaps, "imap", "tls"),
    ];
    for (service, protocol, security) in ways {
        let here = Installation::trusting(mailutils.certificates());
        // It offers SCRAM and fails at it; in clear nothing is tried after that which shows the password, unless named.
        let named = if (protocol, security) == ("imap", "none") { "mechanisms = [\"PLAIN\"]\n" } else { "" };
        here.configure(&format!("{}{named}", as_ann(protocol, security, mailutils.port(service))));
        let what = format!("{protocol} with {security}");
        let first = here.fetch_well();
        assert_eq!(first.counts(), (50, 50, 0), "{what}: {first}");
        let found =
            here.files("ann").into_iter().map(|file| without_x_uidl(&without_trace(&std::fs::read(file).unwrap())));
        Sums::of(found).must_equal(&Sums::of(letters().iter().map(|letter| with_lf(&letter.octets))), &what);
        let second = here.fetch_well();
        assert_eq!((second.number("listed"), second.counts()), (50, (0, 0, 0)), "{what}: {second}");
    }
}

#[test]
fn what_was_delivered_is_removed_also_without_uidplus() {
    let mailutils = Mailutils::start(&[(USER, "secret")]);
    for (service, protocol) in [(Service::Pop3s, "pop3"), (Service::Imaps, "imap")] {
        mailutils.seed(USER, &letters());
        let here = Installation::trusting(mailutils.certificates());
        here.configure(&format!("{}delete = \"immediately\"\n", as_ann(protocol, "tls", mailutils.port(service))));
        let outcome = here.fetch_well();
        assert_eq!((outcome.number("delivered"), here.files("ann").len()), (50, 50), "{protocol}: {outcome}");
        assert_eq!(mailutils.messages(USER).len(), 0, "{protocol}: {outcome}");
        assert_eq!(here.fetch_well().counts(), (0, 0, 0), "{protocol}");
    }
}

#[test]
fn a_wrong_password_ends_with_77() {
    let mailutils = Mailutils::start(&[(USER, "secret")]);
    for (service, protocol) in [(Service::Pop3s, "pop3"), (Service::Imaps, "imap")] {
        let here = Installation::trusting(mailutils.certificates());
        here.configure(&as_ann(protocol, "tls", mailutils.port(service)).replace("\"secret\"", "\"wrong\""));
        let outcome = here.fetch();
        assert_eq!(
            (outcome.code, &outcome.report()["cause"]),
            (Some(77), &"login_refused".into()),
            "{protocol}: {outcome}"
        );
    }
}

fn as_ann(protocol: &str, security: &str, port: u16) -> String {
    account(protocol, security, port).replace("username = \"ann\"", &format!("username = \"{USER}\""))
}

/// mailutils' pop3d (3.15, 2026) adds an `X-UIDL` field at the end of the header of what it sends, and of what it keeps.
fn without_x_uidl(message: &[u8]) -> Vec<u8> {
    let Some(at) = message.windows(9).position(|window| window == b"\nX-UIDL: ") else { return message.to_vec() };
    let end = message[at + 1..].iter().position(|octet| *octet == b'\n').unwrap() + at + 1;
    [&message[..=at], &message[end + 1..]].concat()
}
