//! Private servers of Cyrus, Courier and pymap do what their documentation says.

use connectord_testkit::{Courier, Cyrus, Message, Pymap};

const ANN: &[(&str, &str)] = &[("ann", "secret"), ("bob", "other")];

fn letter(subject: &str) -> Message {
    Message::new(format!("From: ben@example.net\nSubject: {subject}\n\nbody\n"))
}

#[test]
fn cyrus_takes_mail_by_append_and_behind_its_back() {
    let cyrus = Cyrus::start(ANN);
    cyrus.say("ann", &["CREATE Work"]);
    let odd = Message::new("Subject: odd\n\na\0b\n");
    let appended = cyrus.append("ann", "Work", &[letter("one").flag("\\Seen"), odd.clone()]);
    assert_eq!(appended, [Ok(()), Err("NO Message contains NUL characters".to_owned())]);
    cyrus.place("ann", "Work", &[letter("two"), odd]);
    cyrus.place("ann", "INBOX", &[letter("three")]);
    let said = cyrus.say("ann", &["EXAMINE Work", "UID FETCH 1:* (FLAGS RFC822.SIZE)", "EXAMINE INBOX"]);
    let said = said.join("\n");
    assert!(said.contains("* 3 EXISTS") && said.contains("* 1 EXISTS") && said.contains("\\Seen"), "{said}");
}

#[test]
fn courier_serves_what_is_in_its_maildirs() {
    let courier = Courier::start(ANN);
    courier.seed("ann", "INBOX", &[letter("one"), letter("two").flag("\\Seen")]);
    courier.seed("ann", "Work", &[letter("three")]);
    // EXAMINE does not write down the UIDs and the UIDVALIDITY that it tells.
    courier.say("ann", &["SELECT INBOX"]);
    let said = courier.say("ann", &["EXAMINE INBOX", "EXAMINE INBOX.Work"]).join("\n");
    assert!(said.contains("* 2 EXISTS") && said.contains("* 1 EXISTS"), "{said}");
    let validity = |courier: &Courier| courier.say("ann", &["STATUS INBOX (UIDVALIDITY)"]).join("");
    let before = validity(&courier);
    courier.change_uid_validity("ann", "INBOX");
    assert_ne!(validity(&courier), before);
    assert_eq!(courier.messages("ann", "Work").len(), 1);
}

#[test]
fn pymap_serves_what_is_in_its_maildirs() {
    let pymap = Pymap::start(ANN);
    assert_eq!(pymap.append("ann", "INBOX", &[letter("one")]), [Ok(())]);
    pymap.seed("ann", "INBOX", &[letter("two")]);
    let said = pymap.say("ann", &["EXAMINE INBOX"]).join("\n");
    assert!(said.contains("* 2 EXISTS"), "{said}");
    assert_eq!(pymap.messages("ann", "INBOX").len(), 2);
}
