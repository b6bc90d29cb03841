//! Lines that break, kills, and full disks: every message arrives, and arrives once.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Installation, account, at_dovecot, dovecot_account, light, wait_until};
use connectord_testkit::{Cut, Dovecot, DovecotOptions, Fault, FaultProxy, Faults, Message, Service, corpus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BOTH: [(Service, &str); 2] = [(Service::Pop3s, "pop3"), (Service::Imaps, "imap")];

fn start() -> Dovecot {
    Dovecot::start(DovecotOptions::new().user("ann", "secret"))
}

#[test]
fn over_a_line_that_breaks_again_and_again_everything_arrives_once_and_is_removed() {
    let dovecot = start();
    for (service, protocol) in BOTH {
        let messages: Vec<Message> = (0..200).map(light).chain(corpus::messages(20, 1)).collect();
        dovecot.seed("ann", "INBOX", &messages);
        let expected = at_dovecot(&dovecot, service, "ann", "INBOX");
        let proxy = FaultProxy::start(dovecot.address(service));
        let here = Installation::trusting(dovecot.certificates());
        here.configure(&format!("{}delete = \"immediately\"\n", account(protocol, "tls", proxy.port())));
        let mut broken = 0;
        for n in 0u64.. {
            assert!(n < 60, "{} messages are left at the server", dovecot.messages("ann", "INBOX").len());
            // After some octets from the server or to it, in order or by a reset.
            let how = if n % 2 == 0 { Cut::Fin } else { Cut::Rst };
            let fault = match n % 3 {
                0 => Faults::to_client(Fault::none().cut_after(20_000 + n * 9_973, how)),
                1 => Faults::to_server(Fault::none().cut_after(600 + n * 60, how)),
                _ => Faults::to_client(Fault::none().cut_after(4_000 + n * 30_011, how)),
            };
            proxy.set(fault);
            let outcome = here.fetch();
            assert!(matches!(outcome.code, Some(0 | 69 | 75)), "{protocol} {n}: {outcome}");
            broken += u32::from(outcome.code != Some(0));
            if dovecot.messages("ann", "INBOX").is_empty() {
                break;
            }
        }
        assert!(broken > 3, "the line broke {broken} times only");
        proxy.set(Faults::none());
        assert_eq!(here.fetch_well().counts(), (0, 0, 0));
        here.mail("ann").must_equal(&expected, &format!("{protocol} after {broken} broken lines"));
    }
}

#[test]
fn killed_again_and_again_everything_arrives_once_and_is_removed() {
    let dovecot = start();
    for (service, protocol) in BOTH {
        dovecot.seed("ann", "INBOX", &(0..1500).map(light).collect::<Vec<_>>());
        let expected = at_dovecot(&dovecot, service, "ann", "INBOX");
        let here = Installation::trusting(dovecot.certificates());
        here.configure(&format!("{}delete = \"immediately\"\n", dovecot_account(&dovecot, service)));
        let mut kills = 0;
        for n in 0u64..12 {
            let mut running = here.start_fetch();
            let until = Instant::now() + Duration::from_millis(150 + n * 37 % 350);
            while running.is_running() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !running.is_running() {
                break;
            }
            running.signal(Signal::SIGKILL);
            running.wait(Duration::from_secs(10));
            kills += 1;
        }
        here.fetch_well();
        eprintln!("{protocol}: killed {kills} times on the way");
        assert_eq!(here.fetch_well().counts(), (0, 0, 0));
        here.mail("ann").must_equal(&expected, &format!("{protocol} after {kills} kills"));
        assert_eq!(dovecot.messages("ann", "INBOX").len(), 0, "{protocol}");
    }
}

#[test]
fn a_second_command_beside_a_first_one_asks_to_try_again_later() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(50, 1));
    let proxy = FaultProxy::start(dovecot.address(Service::Imaps));
    proxy.set(Faults::to_client(Fault::none().stall_after(100_000)));
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&account("imap", "tls", proxy.port()));
    let first = here.start_fetch();
    first.wait_for_line("status=delivered");
    let second = here.fetch();
    assert_eq!(second.code, Some(75), "{second}");
    assert!(second.stderr.contains("is in use"), "{second}");
    first.signal(Signal::SIGINT);
    let ended = first.wait(Duration::from_secs(10));
    assert_eq!(ended.code, Some(75), "{ended}");
    proxy.set(Faults::none());
    here.fetch_well();
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "in the end");
}

#[test]
fn outputs_that_take_nothing_stop_neither_a_command_nor_the_daemon() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(5, 1));
    let here = Installation::trusting(dovecot.certificates());
    // It has a warning to tell before the log is there.
    let path = here.path("mail/{user}/Maildir");
    let tables =
        format!("[admin]\nlisten = \"127.0.0.1:1\"\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", path.display());
    here.configure_with(&tables, &dovecot_account(&dovecot, Service::Imaps));
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let command = |verb: &str| {
        let mut command = common::command(&here.path(""));
        command.arg("--config").arg(here.configuration()).arg(verb).stdin(Stdio::null()).stdout(full()).stderr(full());
        command
    };
    assert_eq!(command("check").status().unwrap().code(), Some(0));
    assert_eq!(command("fetch").status().unwrap().code(), Some(0));
    assert_eq!(here.files("ann").len(), 5);
    dovecot.seed("ann", "INBOX", &corpus::messages(5, 2));
    let mut daemon = command("serve").spawn().unwrap();
    wait_until("mail by the daemon", || here.files("ann").len() == 10);
    let pid = Pid::from_raw(daemon.id().try_into().unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    assert_eq!(here.fetch().code, Some(0));
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

#[test]
fn when_the_disk_is_full_nothing_is_retrieved_and_it_goes_on_when_there_is_room() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(5, 1));
    let here = Installation::trusting(dovecot.certificates());
    let account = format!("{}delete = \"immediately\"\n", dovecot_account(&dovecot, Service::Imaps));
    let path = here.path("mail/{user}/Maildir").display().to_string();
    let tables = format!("[delivery]\ntype = \"maildir\"\npath = \"{path}\"\nreserve = \"900 GiB\"\n");
    here.configure_with(&tables, &account);
    let full = here.fetch();
    assert_eq!(
        (full.code, &full.report()["cause"], full.counts()),
        (Some(75), &"disk_full".into(), (0, 0, 0)),
        "{full}"
    );
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 5);
    here.configure(&account);
    assert_eq!(here.fetch_well().counts(), (5, 5, 5));
}

#[test]
fn when_the_quota_is_used_up_mail_waits_at_the_server() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &(0..10).map(light).collect::<Vec<_>>());
    let expected = at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX");
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&format!("{}delete = \"immediately\"\n", dovecot_account(&dovecot, Service::Imaps)));
    for sub in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(here.maildir("ann").join(sub)).unwrap();
    }
    let limit = here.maildir("ann").join("maildirsize");
    std::fs::write(&limit, "12000S\n0 0\n").unwrap();
    let full = here.fetch();
    assert_eq!(full.code, Some(75), "{full}");
    assert!(full.stderr.contains("the mailbox is over its quota"), "{full}");
    let had = here.files("ann").len();
    assert!((1..10).contains(&had), "{had}: {full}");
    assert!(dovecot.messages("ann", "INBOX").len() >= 10 - had, "{full}");
    std::fs::write(&limit, "10000000S\n0 0\n").unwrap();
    here.fetch_well();
    here.mail("ann").must_equal(&expected, "when there was room again");
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 0);
}

#[test]
fn a_lost_state_fetches_again_and_delivers_nothing_twice_into_a_maildir() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(30, 1));
    for (service, _) in BOTH {
        let here = Installation::trusting(dovecot.certificates());
        here.configure(&dovecot_account(&dovecot, service));
        here.fetch_well();
        std::fs::remove_dir_all(here.path("state")).unwrap();
        let again = here.fetch_well();
        assert_eq!(again.number("retrieved"), 30, "{again}");
        here.mail("ann").must_equal(&at_dovecot(&dovecot, service, "ann", "INBOX"), "after the state was lost");
    }
}
