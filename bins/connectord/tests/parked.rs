//! Messages in trouble, and what a person does about them, with and without a daemon.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{Installation, Outcome, dovecot_account, wait_until};
use connectord_testkit::{Dovecot, DovecotOptions, Service, corpus};

const LIMIT: &str = "max_message_size = \"100 kB\"\n";

fn start(large: usize) -> Dovecot {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    let messages: Vec<_> =
        (0..large).map(|n| corpus::large(200_000, n as u64)).chain([corpus::large(1000, 99)]).collect();
    dovecot.seed("ann", "INBOX", &messages);
    dovecot
}

fn ids(list: &Outcome) -> Vec<String> {
    list.reports().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_person_looks_at_them_and_has_them_delivered_left_alone_or_removed() {
    for service in [Service::Imaps, Service::Pop3s] {
        let dovecot = start(4);
        let here = Installation::trusting(dovecot.certificates());
        here.configure(&format!("{}{LIMIT}", dovecot_account(&dovecot, service)));
        let first = here.fetch();
        assert_eq!((first.code, first.number("delivered"), first.number("parked")), (Some(65), 1, 4), "{first}");
        let ids = ids(&here.run(&["parked", "list", "--json"]));
        assert_eq!(ids.len(), 4);

        let shown = here.run(&["parked", "show", &ids[0], &ids[1]]);
        assert_eq!(shown.code, Some(0), "{shown}");
        for part in
            [&ids[0], &ids[1], "ann@example.org", "exceeds the limit", "message-id", "from", "subject", "parked"]
        {
            assert!(shown.stdout.contains(part), "{part}: {shown}");
        }
        let details = here.run(&["parked", "show", &ids[2], "--json"]).report();
        assert!(
            !details["from"].as_str().unwrap().is_empty() && details["size"].as_u64().unwrap() > 100_000,
            "{details}"
        );

        let unsure = here.run(&["parked", "delete", &ids[2]]);
        assert_eq!(unsure.code, Some(64), "{unsure}");
        assert!(unsure.stderr.contains(&ids[2]) && unsure.stderr.contains("--yes"), "{unsure}");
        let unknown = here.run(&["parked", "deliver", "999.1.0", &ids[0]]);
        assert_eq!(unknown.code, Some(64), "{unknown}");
        assert!(unknown.stdout.contains("999.1.0: there is no such message in trouble; see"), "{unknown}");
        assert!(unknown.stdout.contains(&format!("{}: is delivered at the next check", ids[0])), "{unknown}");
        let skip = here.run(&["parked", "skip", &ids[1], "--json"]).report();
        assert_eq!((skip["id"].as_str(), skip["done"].as_bool()), (Some(&*ids[1]), Some(true)));
        let delete = here.run(&["parked", "delete", "--yes", &ids[2]]);
        assert_eq!(
            (delete.code, delete.stdout),
            (Some(0), format!("{}: is removed from the server at the next check\n", ids[2]))
        );
        let pending = here.run(&["parked", "list", "--pending"]);
        assert!(pending.stdout.contains("deleting"), "{pending}");
        let rest = here.run(&["parked", "retry", "--account", "ann@example.org", "--all"]);
        assert_eq!((rest.code, rest.stdout), (Some(0), format!("{}: is tried again at the next check\n", ids[3])));

        let second = here.fetch();
        assert_eq!((second.code, second.counts()), (Some(0), (2, 2, 1)), "{second}");
        assert!(second.stderr.contains("removed at a person's word"), "{second}");
        here.fetch_well();
        assert_eq!((here.files("ann").len(), dovecot.messages("ann", "INBOX").len()), (3, 4));
        assert_eq!(here.run(&["parked", "list", "--pending"]).stdout, "");
    }
}

#[test]
fn what_is_said_to_a_running_daemon_happens_soon() {
    let dovecot = start(3);
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&format!("{}{LIMIT}check_every = \"never\"\n", dovecot_account(&dovecot, Service::Imaps)));
    let daemon = here.serve();
    let first = here.fetch();
    assert_eq!((first.number("delivered"), first.number("parked")), (1, 3), "{first}");
    let ids = ids(&here.run(&["parked", "list", "--json"]));
    let shown = here.run(&["parked", "show", "--account", "ann@example.org", "--all", "--json"]);
    assert_eq!((shown.code, shown.reports().len()), (Some(0), 3), "{shown}");
    assert_eq!(here.run(&["parked", "deliver", &ids[0]]).code, Some(0));
    wait_until("it is done", || here.files("ann").len() == 2);
    assert_eq!(here.run(&["parked", "delete", "--yes", &ids[1]]).code, Some(0));
    wait_until("it is done", || dovecot.messages("ann", "INBOX").len() == 3);
    assert_eq!(here.run(&["parked", "retry", &ids[2]]).code, Some(0));
    wait_until("it is done", || here.files("ann").len() == 3);
    let unknown = here.run(&["parked", "retry", &ids[2]]);
    assert_eq!(unknown.code, Some(64), "{unknown}");
    let ended = daemon.stop();
    assert!(ended.stderr.contains("a person decided about a message"), "{ended}");
}
