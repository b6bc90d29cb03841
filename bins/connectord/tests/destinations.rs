//! Destinations that take a message and do not say so, kills in that moment, and recipients that are refused: what may
//! come twice is little, and marked.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;
#[path = "common/keeper.rs"]
mod keeper;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Installation, Sums, account, account_of, dovecot_account, light, wait_until, with_lf, without_trace};
use connectord_testkit::servers::{ImapServer, ServerOptions};
use connectord_testkit::{Dovecot, DovecotOptions, Service};
use keeper::{Dot, Keeper, Kept, Speaks};
use nix::sys::signal::Signal;

const MESSAGES: usize = 12;

/// What may be in flight at a destination that cannot be asked.
const IN_FLIGHT: usize = 8;

/// Rounds of kills at random moments: few, or as many as `CONNECTORD_ROUNDS` says.
fn rounds(few: usize) -> usize {
    std::env::var("CONNECTORD_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(few)
}

/// A mailbox of `ann` with so many messages.
fn source(messages: usize) -> ImapServer {
    let server = ImapServer::start(ServerOptions::new().user("ann", "secret"));
    for n in 0..messages {
        server.mailbox("ann").add(light(n));
    }
    server
}

fn from(server: &ImapServer) -> String {
    account("imap", "none", server.port())
}

fn to(keeper: &Keeper, speaks: Speaks) -> String {
    match speaks {
        Speaks::Lmtp => format!("[delivery]\ntype = \"lmtp\"\naddress = \"127.0.0.1:{}\"\n", keeper.port()),
        Speaks::Smtp => {
            let port = keeper.port();
            format!("[delivery]\ntype = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"none\"\n")
        }
    }
}

/// What is on the server, as it is kept behind our fields: with an end of the last line, without which LMTP and SMTP
/// send nothing.
fn expected(server: &ImapServer) -> Vec<Vec<u8>> {
    let ended = |mut octets: Vec<u8>| {
        octets.extend(if octets.ends_with(b"\n") { &b""[..] } else { b"\n" });
        octets
    };
    server.mailbox("ann").messages().into_iter().map(|message| ended(with_lf(&message.octets))).collect()
}

/// Checks by hand, which wait for nothing, until one ends well.
fn fetch_until_well(here: &Installation) -> usize {
    for n in 1..=8 {
        let outcome = here.fetch();
        if outcome.code == Some(0) {
            return n;
        }
        assert!(matches!(outcome.code, Some(69 | 75)), "{outcome}");
    }
    panic!("eight checks in a row did not end well");
}

/// Every message was kept, whole; what came again says so, under the same id. Returns how many came again.
#[track_caller]
fn all_kept(kept: &[Kept], expected: &[Vec<u8>], what: &str) -> usize {
    let mut by_id: BTreeMap<&str, Vec<&Kept>> = BTreeMap::new();
    kept.iter().for_each(|kept| by_id.entry(&kept.id).or_default().push(kept));
    let firsts = Sums::of(by_id.values().map(|copies| without_trace(&copies[0].octets)));
    firsts.must_equal(&Sums::of(expected.iter().cloned()), what);
    for (id, copies) in &by_id {
        for (n, copy) in copies.iter().enumerate() {
            assert_eq!(without_trace(&copy.octets), without_trace(&copies[0].octets), "{what}: {id}");
            let attempt = copy.attempt.unwrap_or(1);
            // The first copy that came may be of a later attempt; the others say that they are not the first.
            assert!(n == 0 || attempt as usize > n, "{what}: copy {n} of {id} says attempt {attempt}");
        }
    }
    kept.len() - by_id.len()
}

fn dots(speaks: Speaks) -> Vec<usize> {
    match speaks {
        Speaks::Lmtp => (1..=MESSAGES).collect(),
        // The pipeline before the dot is the same.
        Speaks::Smtp => vec![1, 7, MESSAGES],
    }
}

#[test]
fn a_server_that_takes_a_message_and_dies_costs_only_what_was_in_flight_and_that_is_marked() {
    for speaks in [Speaks::Lmtp, Speaks::Smtp] {
        let mut all = Vec::new();
        for dot in dots(speaks) {
            let what = format!("{speaks:?}, died at dot {dot}");
            let (server, keeper, here) = (source(MESSAGES), Keeper::start(speaks), Installation::new());
            here.configure_with(&to(&keeper, speaks), &from(&server));
            keeper.at_dot(dot, Dot::Die);
            fetch_until_well(&here);
            let again = all_kept(&keeper.kept(), &expected(&server), &what);
            assert!((1..=IN_FLIGHT).contains(&again), "{what}: {again} came again");
            assert_eq!(here.fetch_well().counts(), (0, 0, 0), "{what}");
            all.push(again);
        }
        eprintln!("{speaks:?}: the server died at each of {} dots; came again: {all:?}, lost: 0", all.len());
    }
}

#[test]
fn killed_between_the_dot_and_its_answer_at_most_what_was_in_flight_comes_again_and_says_so() {
    for speaks in [Speaks::Lmtp, Speaks::Smtp] {
        let mut all = Vec::new();
        for dot in dots(speaks) {
            let what = format!("{speaks:?}, killed at dot {dot}");
            let (server, keeper, here) = (source(MESSAGES), Keeper::start(speaks), Installation::new());
            here.configure_with(&to(&keeper, speaks), &from(&server));
            keeper.at_dot(dot, Dot::Hang);
            let running = here.start_fetch();
            keeper.wait_for(dot);
            running.signal(Signal::SIGKILL);
            running.wait(Duration::from_secs(10));
            let outcome = here.fetch_well();
            assert!(outcome.stderr.contains("may come twice"), "{what}: {outcome}");
            let again = all_kept(&keeper.kept(), &expected(&server), &what);
            assert!((1..=IN_FLIGHT).contains(&again), "{what}: {again} came again");
            assert_eq!(here.fetch_well().counts(), (0, 0, 0), "{what}");
            all.push(again);
        }
        eprintln!("{speaks:?}: killed at each of {} dots; came again: {all:?}, lost: 0", all.len());
    }
}

#[test]
fn killed_at_random_moments_dovecot_gets_every_message_and_what_comes_twice_says_so() {
    const MANY: usize = 60;
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "x"));
    let server = source(MANY);
    let (mut kills, mut again, rounds) = (0, 0, rounds(3));
    for round in 0..rounds {
        dovecot.expunge("ann", "INBOX", dovecot.messages("ann", "INBOX").len());
        let here = Installation::new();
        let address = format!("unix:{}", dovecot.lmtp_socket().display());
        here.configure_with(&format!("[delivery]\ntype = \"lmtp\"\naddress = \"{address}\"\n"), &from(&server));
        // Several times on the way, each time a little later than some delivery.
        for n in 0..5 {
            let before = dovecot.messages("ann", "INBOX").len();
            let mut running = here.start_fetch();
            wait_until("a delivery or the end", || {
                !running.is_running() || common::files(&dovecot.maildir("ann")).len() > before
            });
            std::thread::sleep(Duration::from_millis(((round * 7 + n * 13) % 40) as u64));
            if !running.is_running() {
                break;
            }
            running.signal(Signal::SIGKILL);
            running.wait(Duration::from_secs(10));
            kills += 1;
        }
        fetch_until_well(&here);
        assert_eq!(here.fetch_well().counts(), (0, 0, 0));
        let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut stored = Sums::default();
        for message in dovecot.messages("ann", "INBOX") {
            // Dovecot's own fields come first.
            let at = message.windows(24).position(|octets| octets == b"Received: from 127.0.0.1").unwrap();
            let (trace, rest) = common::Trace::split(&message[at..]);
            let copies = copies.entry(trace.id).or_default();
            if copies.is_empty() {
                stored.add(&with_lf(rest));
            }
            copies.extend([trace.attempt.unwrap_or_default()]);
        }
        stored.must_equal(&Sums::of(expected(&server).into_iter()), &format!("round {round}"));
        for (id, attempts) in copies {
            let attempts_told: BTreeSet<_> = attempts.iter().collect();
            assert_eq!(attempts_told.len(), attempts.len(), "{id}: copies with the same number: {attempts:?}");
            again += attempts.len() - 1;
        }
    }
    eprintln!("Dovecot by LMTP: {rounds} rounds, {kills} kills, {MANY} messages each; lost: 0, came again: {again}");
    assert!(again <= kills * IN_FLIGHT);
}

#[test]
fn two_states_on_one_maildir_killed_again_and_again_deliver_everything_once_and_leave_nothing_behind() {
    const EACH: usize = 150;
    let ann = ImapServer::start(ServerOptions::new().user("ann", "secret"));
    let bob = ImapServer::start(ServerOptions::new().user("bob", "secret"));
    let (one, other, rounds) = (Installation::new(), Installation::new(), rounds(3));
    one.configure(&format!("{}delete = \"immediately\"\n", from(&ann)));
    let path = one.path("mail/{user}/Maildir").display().to_string();
    let account = account_of("bob", "imap", "none", bob.port()).replace("deliver_to = \"bob\"", "deliver_to = \"ann\"");
    other.configure_with(
        &format!("[delivery]\ntype = \"maildir\"\npath = \"{path}\"\n"),
        &format!("{account}delete = \"immediately\"\n"),
    );
    let (mut kills, mut expected, mut next) = (0, Sums::default(), 0);
    for round in 0..rounds {
        for _ in 0..EACH {
            for (server, user) in [(&ann, "ann"), (&bob, "bob")] {
                expected.add(&with_lf(&light(next).octets));
                server.mailbox(user).add(light(next));
                next += 1;
            }
        }
        let mut running = [one.start_fetch(), other.start_fetch()];
        for n in 0..3 {
            std::thread::sleep(Duration::from_millis(((round * 31 + n * 67) % 130 + 60) as u64));
            let (nth, here) = if (round + n) % 2 == 0 { (0, &one) } else { (1, &other) };
            if running[nth].is_running() {
                running[nth].signal(Signal::SIGKILL);
                kills += 1;
            }
            // It holds the lock of its state until it has ended.
            wait_until("the end of a killed one", || !running[nth].is_running());
            running[nth] = here.start_fetch();
        }
        for running in running {
            let outcome = running.wait(Duration::from_secs(60));
            assert!(matches!(outcome.code, Some(0 | 75)), "round {round}: {outcome}");
        }
    }
    for here in [&one, &other, &one] {
        here.fetch_well();
    }
    one.mail("ann").must_equal(&expected, &format!("after {kills} kills"));
    assert_eq!((ann.mailbox("ann").len(), bob.mailbox("bob").len()), (0, 0));
    eprintln!(
        "two states, one Maildir: {rounds} rounds, {kills} kills, {next} messages; lost: 0, twice: 0, left in tmp/: 0"
    );
}

/// A program that writes the message down, the name being its id and attempt; while `slow` is there it takes its time
/// before.
fn writer(here: &Installation) -> String {
    let (script, got) = (here.path("deliver"), here.path("got"));
    std::fs::create_dir_all(&got).unwrap();
    let (slow, started, got) = (here.path("slow"), here.path("started"), got.display().to_string());
    let (slow, started) = (slow.display(), started.display());
    // The second process shows that children are ended, too.
    let text = format!(
        "if [ -e {slow} ]; then (echo $$ > {started}; sleep 3; cat > {got}/late.$CONNECTORD_ID) & wait; fi\n\
         cat > {got}/$CONNECTORD_ID.$CONNECTORD_ATTEMPT\n"
    );
    std::fs::write(&script, text).unwrap();
    format!("[delivery]\ntype = \"command\"\nprogram = \"/bin/sh\"\narguments = [\"{}\"]\n", script.display())
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn killed_while_a_command_runs_the_command_and_its_children_are_ended_and_the_message_comes_once() {
    let (server, here) = (source(3), Installation::new());
    here.configure_with(&writer(&here), &from(&server));
    std::fs::write(here.path("slow"), "").unwrap();
    let running = here.start_fetch();
    wait_until("the command's start", || here.path("started").exists());
    let killed = Instant::now();
    running.signal(Signal::SIGKILL);
    running.wait(Duration::from_secs(10));
    std::fs::remove_file(here.path("slow")).unwrap();
    let outcome = here.fetch_well();
    assert!(outcome.stderr.contains("may come twice"), "{outcome}");
    let got = names(&here.path("got"));
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(got.iter().any(|name| name.ends_with(".2")), "{got:?}");
    // The killed one would have written by now.
    std::thread::sleep(Duration::from_secs(5).saturating_sub(killed.elapsed()));
    assert_eq!(names(&here.path("got")), got);
}

#[test]
fn one_refused_recipient_of_several_repeats_nothing_for_the_others() {
    for speaks in [Speaks::Lmtp, Speaks::Smtp] {
        let (server, keeper, here) = (source(5), Keeper::start(speaks), Installation::new());
        let three = from(&server).replace("deliver_to = \"ann\"", "deliver_to = [\"ann\", \"bob\", \"cid\"]");
        here.configure_with(&to(&keeper, speaks), &format!("{three}delete = \"immediately\"\n"));
        keeper.refuse("bob", Some("452 4.2.2 over quota"));
        for _ in 0..3 {
            let outcome = here.fetch();
            assert!(matches!(outcome.code, Some(0 | 75)), "{speaks:?}: {outcome}");
        }
        let of = |kept: &[Kept], user: &str| kept.iter().filter(|k| k.recipients.iter().any(|r| r == user)).count();
        let kept = keeper.kept();
        assert_eq!((of(&kept, "ann"), of(&kept, "bob"), of(&kept, "cid")), (5, 0, 5), "{speaks:?}");
        assert_eq!(server.mailbox("ann").len(), 5, "{speaks:?}: not everybody has them");
        keeper.refuse("bob", None);
        here.fetch_well();
        let kept = keeper.kept();
        assert_eq!((of(&kept, "ann"), of(&kept, "bob"), of(&kept, "cid")), (5, 5, 5), "{speaks:?}");
        assert!(kept.iter().all(|kept| kept.attempt.is_none()), "{speaks:?}: nothing was uncertain");
        assert_eq!(server.mailbox("ann").len(), 0, "{speaks:?}");
    }
}

#[test]
fn dovecots_user_over_quota_gets_the_mail_later_and_the_others_get_it_once() {
    let quota = "mail_plugins = quota\nplugin {\n quota = maildir:User quota\n quota_grace = 0\n quota_rule = *:storage=40K\n}\n\
        protocol lmtp {\n mail_plugins = quota sieve\n}";
    let users = DovecotOptions::new().user("ann", "x").user("bob", "x").user("cid", "x");
    let dovecot = Dovecot::start(users.extra(quota));
    let fill = format!("Subject: fill\n\n{}", "a line of text to fill the mailbox up to its quota\n".repeat(780));
    dovecot.deliver("bob", fill.as_bytes());
    let (server, here) = (source(6), Installation::new());
    let three = from(&server).replace("deliver_to = \"ann\"", "deliver_to = [\"ann\", \"bob\", \"cid\"]");
    let address = format!("unix:{}", dovecot.lmtp_socket().display());
    here.configure_with(&format!("[delivery]\ntype = \"lmtp\"\naddress = \"{address}\"\n"), &three);
    let count = |user: &str| dovecot.messages(user, "INBOX").len();
    for _ in 0..3 {
        let outcome = here.fetch();
        assert!(matches!(outcome.code, Some(0 | 75)), "{outcome}");
        assert_eq!((count("ann"), count("bob"), count("cid")), (6, 1, 6), "{outcome}");
    }
    dovecot.expunge("bob", "INBOX", 1);
    dovecot.doveadm(&["quota", "recalc", "-u", "bob"]);
    here.fetch_well();
    assert_eq!((count("ann"), count("bob"), count("cid")), (6, 6, 6));
    assert_eq!(here.fetch_well().counts(), (0, 0, 0));
}

#[test]
fn a_mail_loop_ends_after_three_rounds_and_is_parked() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    dovecot.seed("ann", "INBOX", &[light(0)]);
    let here = Installation::trusting(dovecot.certificates());
    // What is fetched from the mailbox goes back into it.
    let address = format!("unix:{}", dovecot.lmtp_socket().display());
    let account = format!("{}delete = \"immediately\"\n", dovecot_account(&dovecot, Service::Imaps));
    here.configure_with(&format!("[delivery]\ntype = \"lmtp\"\naddress = \"{address}\"\n"), &account);
    let mut delivered = 0;
    for n in 0.. {
        assert!(n < 8, "it goes on for ever");
        let outcome = here.fetch();
        delivered += outcome.number("delivered");
        if outcome.number("delivered") == 0 {
            assert_eq!(outcome.code, Some(65), "{outcome}");
            break;
        }
    }
    assert_eq!(delivered, 3);
    // The last copy stays, and is parked with its reason.
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 1);
    let parked = here.run(&["parked", "list"]);
    assert!(parked.stdout.contains("mail loop"), "{parked}");
    assert_eq!(here.fetch().counts(), (0, 0, 0));
}

#[test]
fn a_refused_message_is_parked_and_nobody_gets_a_bounce() {
    for speaks in [Speaks::Lmtp, Speaks::Smtp] {
        let (server, keeper, here) = (source(0), Keeper::start(speaks), Installation::new());
        let mail = |field: &str| format!("{field}From: eve@example.net\r\nSubject: x\r\n\r\nbody\r\n");
        let fields =
            ["Return-Path: <eve@example.net>\r\n", "Return-Path: <eve@example.net>\r\n", "Return-Path: <>\r\n", ""];
        for field in fields {
            server.mailbox("ann").add(mail(field).into_bytes());
        }
        here.configure_with(&to(&keeper, speaks), &from(&server));
        keeper.at_dot(1, Dot::Refuse);
        let outcome = here.fetch();
        assert_eq!((outcome.code, outcome.number("parked")), (Some(65), 1), "{speaks:?}: {outcome}");
        assert_eq!(here.fetch().counts(), (0, 0, 0), "{speaks:?}");
        let kept = keeper.kept();
        assert_eq!(kept.len(), 3, "{speaks:?}: {kept:?}");
        assert!(kept.iter().all(|kept| kept.recipients == ["ann"]), "{speaks:?}: a bounce? {kept:?}");
        let mut senders: Vec<_> = kept.iter().map(|kept| kept.sender.as_str()).collect();
        senders.sort();
        // One of the four was refused; where nobody is named, nobody would get a bounce of the destination's either.
        assert!(senders == ["", "", "eve@example.net"] || senders == ["", "eve@example.net", "eve@example.net"]);
        assert_eq!(server.mailbox("ann").len(), 4, "{speaks:?}");
    }
}
