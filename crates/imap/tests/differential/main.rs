//! What imap-codec and imap-proto read as a response, and we too, means the same to all.

mod property;

use proptest::prelude::*;

use property::{Read, same_meaning};

#[test]
fn responses_of_the_standards_are_read_by_all() {
    let mut read = Read::default();
    for response in RESPONSES {
        let one = same_meaning(format!("{response}\r\n").as_bytes());
        assert!(one.by_both > 0, "{response}: {one:?}");
        read.by_another += one.by_another;
        read.by_both += one.by_both;
    }
    assert_eq!(read.by_both, read.by_another, "we read whatever another reads");
}

/// From RFC 3501 §7 and §8, RFC 4315, and with what is legal and rare.
const RESPONSES: [&str; 40] = [
    "* OK IMAP4rev1 server ready",
    "* OK [UNSEEN 17] Message 17 is the first unseen message",
    "* OK [UIDVALIDITY 3857529045] UIDs valid",
    "* OK [UIDNEXT 4294967295] x",
    "* OK [PERMANENTFLAGS (\\Deleted \\Seen $Forwarded \\*)] Limited",
    "* NO [ALERT] Disk is 98% full, please delete unnecessary data",
    "* BAD Disk crash, attempting salvage to a new disk!",
    "* BYE Autologout; idle for too long",
    "a1 OK [READ-WRITE] SELECT completed",
    "a2 OK [READ-ONLY] EXAMINE completed",
    "a3 NO [TRYCREATE] No such mailbox",
    "a4 BAD syntax",
    "a5 OK [APPENDUID 38505 3955] APPEND completed",
    "a6 OK [COPYUID 38505 304,319:320 3956:3958] Done",
    "a7 OK [CAPABILITY IMAP4rev1 AUTH=PLAIN LITERAL+] in",
    "a8 NO [UIDNOTSTICKY] Non-persistent UIDs",
    "* CAPABILITY IMAP4rev1 STARTTLS AUTH=GSSAPI XPIG-LATIN",
    "* LIST (\\Noselect) \"/\" foo",
    "* LIST (\\HasNoChildren \\Marked) NIL \"a b\"",
    "* LIST () \"\\\\\" \"Entw&APw-rfe\"",
    "* LIST () \".\" {4}\r\na\"b\\",
    "* LIST () \"/\" inBOX",
    "* LSUB () \".\" #news.comp.mail.misc",
    "* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292)",
    "* STATUS \"a b\" (UNSEEN 0 UIDVALIDITY 1 RECENT 3)",
    "* SEARCH 2 3 6 4294967295",
    "* SEARCH",
    "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)",
    "* 23 EXISTS",
    "* 5 RECENT",
    "* 44 EXPUNGE",
    "* 23 FETCH (FLAGS (\\Seen) RFC822.SIZE 44827)",
    "* 1 FETCH (UID 7 BODY[] {5}\r\nab)\r\n)",
    "* 1 FETCH (UID 7 RFC822 \"a\\\"b\")",
    "* 1 FETCH (BODY[] NIL UID 4294967295)",
    "* 12 FETCH (INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" UID 1 RFC822.SIZE 4286)",
    "* 12 FETCH (BODY[HEADER] {2}\r\n\r\n UID 3)",
    "* 2 FETCH (UID 3 FLAGS ())",
    "* 1 FETCH (ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) UID 9)",
    "+ idling",
];

/// Octets that make a response another: removed, doubled, or replaced.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (
        any::<prop::sample::Index>(),
        0..4u8,
        prop_oneof![
            Just(b' '),
            Just(b'('),
            Just(b')'),
            Just(b'"'),
            Just(b'\\'),
            Just(b'{'),
            Just(b'}'),
            Just(b'['),
            Just(b']'),
            Just(b'\r'),
            Just(b'\n'),
            Just(b'0'),
            Just(b'9'),
            Just(b'*'),
            any::<u8>(),
        ],
    );
    (prop::sample::select(&RESPONSES[..]), prop::collection::vec(edit, 0..4)).prop_map(|(response, edits)| {
        let mut octets = format!("{response}\r\n").into_bytes();
        for (at, how, octet) in edits {
            let at = at.index(octets.len());
            match how {
                0 => octets.insert(at, octet),
                1 => octets[at] = octet,
                2 => octets.insert(at, octets[at]),
                _ if octets.len() > 3 => drop(octets.remove(at)),
                _ => {}
            }
        }
        octets
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_others_accept_too_means_the_same(octets in mutated()) {
        same_meaning(&octets);
    }

    #[test]
    fn a_body_is_the_same_octets_to_all(body in prop::collection::vec(1u8..=255, 0..60), uid in 1u32..) {
        let octets = [format!("* 1 FETCH (UID {uid} BODY[] {{{}}}\r\n", body.len()).as_bytes(), &body, b")\r\n"].concat();
        let read = same_meaning(&octets);
        // imap-proto is not asked about some of them.
        prop_assert!(read.by_another >= 1 && read.by_both == read.by_another, "{read:?}");
    }
}
