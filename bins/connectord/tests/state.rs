//! The state backed up, restored, moved, damaged, and taken away; stops and reloads in every phase.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;
#[path = "common/keeper.rs"]
mod keeper;

use std::net::TcpListener;
use std::os::unix::fs::{FileExt, chown};
use std::time::{Duration, Instant};

use common::{Installation, Outcome, Sums, account, dovecot_account, light, wait_until, with_lf};
use connectord_testkit::servers::{ImapServer, Misbehaviour, ServerOptions};
use connectord_testkit::{Dovecot, DovecotOptions, Fault, FaultProxy, Faults, Message, Service};
use keeper::{Dot, Keeper, Speaks};
use nix::sys::signal::Signal;

fn source(messages: usize) -> ImapServer {
    let server = ImapServer::start(ServerOptions::new().user("ann", "secret"));
    add(&server, 0..messages);
    server
}

fn add(server: &ImapServer, numbers: std::ops::Range<usize>) {
    for n in numbers {
        server.mailbox("ann").add(light(n));
    }
}

/// As a Maildir has these messages behind our fields.
fn expected(numbers: std::ops::Range<usize>) -> Sums {
    Sums::of(numbers.map(|n| with_lf(&light(n).octets)))
}

fn from(server: &ImapServer) -> String {
    account("imap", "none", server.port())
}

fn looking_first(here: &Installation) -> String {
    let path = here.path("mail/{user}/Maildir").display().to_string();
    format!("[delivery]\ntype = \"maildir\"\npath = \"{path}\"\ncheck_existing = \"always\"\n")
}

#[track_caller]
fn back_up(here: &Installation, name: &str) {
    let outcome = here.run(&["state", "backup", here.path(name).to_str().unwrap()]);
    assert_eq!(outcome.code, Some(0), "{outcome}");
}

/// Puts a backup in the place of the state.
fn restore(here: &Installation, name: &str) {
    std::fs::remove_dir_all(here.path("state")).unwrap();
    std::fs::create_dir(here.path("state")).unwrap();
    std::fs::copy(here.path(name), here.path("state/state.db")).unwrap();
}

#[test]
fn an_old_backup_loses_nothing_repeats_nothing_into_a_maildir_and_removals_go_on() {
    for delete in ["never", "immediately"] {
        let (server, here) = (source(20), Installation::new());
        let account = format!("{}delete = \"{delete}\"\ncheck_every = \"never\"\n", from(&server));
        here.configure(&account);
        let daemon = here.serve();
        assert_eq!(here.fetch_well().number("delivered"), 20);
        // While it runs.
        back_up(&here, "backup.db");
        let again = here.run(&["state", "backup", here.path("backup.db").to_str().unwrap()]);
        assert_eq!(again.code, Some(74), "an existing file is never replaced: {again}");
        add(&server, 20..40);
        assert_eq!(here.fetch_well().number("delivered"), 20);
        assert_eq!(daemon.stop().code, Some(0));

        restore(&here, "backup.db");
        here.configure_with(&looking_first(&here), &account);
        add(&server, 40..45);
        here.fetch_well();
        here.mail("ann").must_equal(&expected(0..45), &format!("delete = {delete:?}"));
        let left = if delete == "never" { 45 } else { 0 };
        assert_eq!(server.mailbox("ann").len(), left, "delete = {delete:?}");

        // What the backup knows nothing of may be removed when it was met in a complete listing, and not without.
        here.configure_with(&looking_first(&here), &account.replace("delete = \"never\"", "delete = \"immediately\""));
        assert_eq!(here.fetch_well().number("delivered"), 0);
        assert_eq!(server.mailbox("ann").len(), 0, "delete = {delete:?}");
        here.mail("ann").must_equal(&expected(0..45), &format!("delete = {delete:?}, in the end"));
        // Without a daemon the command does it itself.
        back_up(&here, "second.db");
        assert!(!here.path("second.db.part").exists());
    }
}

#[test]
fn moved_to_another_machine_nothing_comes_again_and_what_was_under_way_is_finished() {
    let (server, here) = (source(10), Installation::new());
    here.configure(&from(&server));
    here.fetch_well();
    // Killed on the way, then moved with everything: other paths.
    add(&server, 10..200);
    let running = here.start_fetch();
    running.wait_for_line("status=delivered");
    running.signal(Signal::SIGKILL);
    running.wait(Duration::from_secs(10));
    let there = Installation::new();
    for name in ["state", "mail"] {
        let _ = std::fs::remove_dir_all(there.path(name));
        std::fs::rename(here.path(name), there.path(name)).unwrap();
    }
    drop(here);
    there.configure_with(&looking_first(&there), &from(&server));
    there.fetch_well();
    there.mail("ann").must_equal(&expected(0..200), "after the move");
    assert_eq!(there.fetch_well().counts(), (0, 0, 0));
}

/// What a command says when the state cannot be used.
#[track_caller]
fn refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(74), "{outcome}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part:?} is not said: {outcome}");
    }
}

#[test]
fn a_state_that_is_newer_damaged_or_not_writable_is_told_with_a_remedy_and_no_mail_is_touched() {
    let (server, here) = (source(5), Installation::new());
    here.configure(&from(&server));
    here.fetch_well();
    let state = here.path("state/state.db");
    let good = std::fs::read(&state).unwrap();
    let write = |at: u64, octets: &[u8]| {
        std::fs::write(&state, &good).unwrap();
        std::fs::File::options().write(true).open(&state).unwrap().write_all_at(octets, at).unwrap();
    };
    add(&server, 5..8);

    // user_version is in the file's header (SQLite's file format, 1.3).
    write(60, &9999u32.to_be_bytes());
    refused(&here.fetch(), &["schema 9999", "newer connectord"]);

    // Not a database at all; the first page.
    write(0, b"nothing that SQLite knows");
    refused(&here.fetch(), &["damaged", "restore a backup", "check_existing"]);

    // Each page but the first, in turn: told, or nothing that was read.
    let pages = good.len() / 4096;
    let mut told = 0;
    let mail = here.files("ann");
    for page in 1..pages {
        // What came before the damage was met is unknown to the state that is put back here.
        here.files("ann")
            .iter()
            .filter(|file| !mail.contains(file))
            .for_each(|file| std::fs::remove_file(file).unwrap());
        write(page as u64 * 4096, &[0xa5; 4096]);
        let outcome = here.fetch();
        if outcome.code == Some(0) {
            continue;
        }
        told += 1;
        assert_eq!(outcome.code, Some(74), "page {page}: {outcome}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("damaged") && said.contains("restore a backup"), "page {page}: {outcome}");
    }
    eprintln!("{told} of {} damaged pages were met", pages - 1);
    assert!(told > 0);

    // With the backup back all is well, whatever was done meanwhile.
    std::fs::write(&state, &good).unwrap();
    here.configure_with(&looking_first(&here), &from(&server));
    here.fetch_well();
    here.mail("ann").must_equal(&expected(0..8), "in the end");
}

#[test]
fn a_state_directory_without_write_permission_is_told() {
    let (server, here) = (source(3), Installation::new());
    let mail = nix::unistd::User::from_name("mail").unwrap().unwrap();
    std::fs::create_dir_all(here.path("var/state")).unwrap();
    chown(here.home("ann"), Some(mail.uid.as_raw()), Some(mail.gid.as_raw())).unwrap();
    let text = format!(
        "[state]\nurl = \"sqlite:{}\"\n[process]\nuser = \"mail\"\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\n{}",
        here.path("var/state/state.db").display(),
        here.path("mail/{user}/Maildir").display(),
        from(&server),
    );
    here.write_configuration(&text);
    chown(here.configuration(), None, Some(mail.gid.as_raw())).unwrap();
    std::fs::set_permissions(here.configuration(), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    refused(&here.fetch(), &["Permission denied"]);
    assert_eq!(here.files("ann").len(), 0);
    chown(here.path("var/state"), Some(mail.uid.as_raw()), Some(mail.gid.as_raw())).unwrap();
    here.fetch_well();
    assert_eq!(here.files("ann").len(), 3);
}

#[test]
fn a_state_that_is_removed_under_a_running_daemon_loses_nothing_and_doubles_nothing() {
    let (server, here) = (source(10), Installation::new());
    here.configure(&format!("{}check_every = \"never\"\n", from(&server)));
    let daemon = here.serve();
    assert_eq!(here.fetch_well().number("delivered"), 10);
    std::fs::remove_dir_all(here.path("state")).unwrap();
    add(&server, 10..20);
    // It can no longer be asked: it cannot be found, and neither can another one get in its way.
    let other = here.fetch();
    assert!(other.code.is_some(), "{other}");
    let ended = daemon.stop();
    assert!(ended.code.is_some(), "{ended}");
    here.fetch_well();
    here.mail("ann").must_equal(&expected(0..20), "after the state was removed");
    assert_eq!(here.fetch_well().counts(), (0, 0, 0));
}

/// A daemon in some phase of its work; what it leaves; and how many messages it must have finished.
struct Phase {
    name: &'static str,
    here: Installation,
    /// A part of a log line, or nothing: then `ready` says it.
    ready: Box<dyn Fn(&common::Daemon) -> bool + Send>,
    finished: usize,
    _held: Box<dyn std::any::Any + Send>,
}

fn misbehaving(hang_at: &str) -> ImapServer {
    let server = source(3);
    server.misbehave(Misbehaviour { hang_at: Some(hang_at.into()), ..Misbehaviour::default() });
    server
}

fn phases() -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut add = |name, here: Installation, finished, ready: Box<dyn Fn(&common::Daemon) -> bool + Send>, held| {
        phases.push(Phase { name, here, ready, finished, _held: held });
    };

    let (here, silent) = (Installation::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    here.configure(&account("imap", "none", silent.local_addr().unwrap().port()));
    let accepted = silent.try_clone().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let connections = std::sync::Mutex::new(Vec::new());
    let ready = Box::new(move |_: &common::Daemon| {
        let mut connections = connections.lock().unwrap();
        connections.extend(accepted.accept().ok());
        !connections.is_empty()
    });
    add("connecting to a silent server", here, 0, ready, Box::new(silent));

    for (name, hang_at) in [("logging in", "AUTHENTICATE"), ("listing", "UID SEARCH")] {
        let (here, server) = (Installation::new(), misbehaving(hang_at));
        here.configure(&from(&server));
        let counted = move |server: &ImapServer| {
            let counters = server.counters();
            if hang_at == "UID SEARCH" { counters.logins > 0 } else { counters.connections > 0 }
        };
        let server = std::sync::Arc::new(server);
        let asked = server.clone();
        add(name, here, 0, Box::new(move |_| counted(&asked)), Box::new(server));
    }

    let (here, server) = (Installation::new(), source(3));
    let large = [&light(3).octets[..], &b"a line of a large body, which takes its time\n".repeat(450_000)].concat();
    server.mailbox("ann").add(Message::new(large));
    let proxy = FaultProxy::start(server.address());
    proxy.set(Faults::to_client(Fault::none().stall_after(5_000_000)));
    here.configure(&account("imap", "none", proxy.port()));
    let ready = Box::new(|daemon: &common::Daemon| daemon.lines(&["status=delivered"]) == 3);
    add("in a body of 20 MB", here, 3, ready, Box::new((server, proxy)));

    let (here, server, keeper) = (Installation::new(), source(3), Keeper::start(Speaks::Lmtp));
    keeper.at_dot(3, Dot::Hang);
    let lmtp = format!("[delivery]\ntype = \"lmtp\"\naddress = \"127.0.0.1:{}\"\n", keeper.port());
    here.configure_with(&lmtp, &from(&server));
    let asked = keeper.clone();
    add("at an LMTP dot", here, 0, Box::new(move |_| asked.kept().len() == 3), Box::new((server, keeper)));

    let (here, server) = (Installation::new(), source(1));
    let started = here.path("started");
    let script = here.path("deliver");
    std::fs::write(&script, format!("touch {}\nexec sleep 600\n", started.display())).unwrap();
    let command =
        format!("[delivery]\ntype = \"command\"\nprogram = \"/bin/sh\"\narguments = [\"{}\"]\n", script.display());
    here.configure_with(&command, &from(&server));
    add("in a command", here, 0, Box::new(move |_| started.exists()), Box::new(server));

    let (here, server) = (Installation::new(), source(3));
    let path = here.path("mail/{user}/Maildir").display().to_string();
    let full = format!("[delivery]\ntype = \"maildir\"\npath = \"{path}\"\nreserve = \"900 GiB\"\n");
    here.configure_with(&full, &from(&server));
    let ready = Box::new(|daemon: &common::Daemon| daemon.lines(&["no room at"]) > 0);
    add("while the disk is full", here, 0, ready, Box::new(server));

    let (here, server) = (Installation::new(), source(3));
    here.configure(&format!("{}idle = true\n", from(&server)));
    let ready = Box::new(|daemon: &common::Daemon| daemon.lines(&[" run ", "delivered=3"]) > 0);
    add("while it listens", here, 3, ready, Box::new(server));
    phases
}

#[test]
fn told_to_stop_in_any_phase_it_ends_within_seconds_and_keeps_what_is_finished() {
    std::thread::scope(|scope| {
        for phase in phases() {
            scope.spawn(move || {
                // Whole, with the servers in it.
                let phase = phase;
                let daemon = phase.here.serve();
                wait_until(phase.name, || (phase.ready)(&daemon));
                let asked = Instant::now();
                let ended = daemon.stop();
                eprintln!("{}: ended after {:.1} s", phase.name, asked.elapsed().as_secs_f32());
                assert_eq!(ended.code, Some(0), "{}: {ended}", phase.name);
                // 10 s for what is in flight; the rest is for a machine that has other things to do.
                assert!(asked.elapsed() < Duration::from_secs(25), "{}: {:?}", phase.name, asked.elapsed());
                assert_eq!(phase.here.files("ann").len(), phase.finished, "{}: {ended}", phase.name);
                assert!(!phase.here.path("state/state.db-wal").exists(), "{}: not closed", phase.name);
            });
        }
    });
}

#[test]
fn a_command_that_is_told_to_stop_in_any_phase_asks_to_try_again_later() {
    std::thread::scope(|scope| {
        // The disk that is full and the connection that listens do not keep a command.
        for phase in phases().into_iter().filter(|phase| !phase.name.starts_with("while")) {
            scope.spawn(move || {
                let phase = phase;
                let running = phase.here.start_fetch();
                wait_until(phase.name, || (phase.ready)(&running));
                running.signal(Signal::SIGTERM);
                let ended = running.wait(Duration::from_secs(30));
                assert_eq!(ended.code, Some(75), "{}: {ended}", phase.name);
                assert_eq!(phase.here.files("ann").len(), phase.finished, "{}: {ended}", phase.name);
            });
        }
    });
}

#[test]
fn a_configuration_read_again_and_again_while_mail_comes_disturbs_nothing() {
    let (server, here) = (source(300), Installation::new());
    here.configure(&format!("{}delete = \"immediately\"\n", from(&server)));
    let mut daemon = here.serve();
    let mut hangups = 0;
    while daemon.lines(&[" run ", "status="]) == 0 {
        daemon.signal(Signal::SIGHUP);
        hangups += 1;
        assert!(hangups < 4000 && daemon.is_running(), "{}", daemon.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon.wait_for(&[" run ", "delivered=300", "removed=300", "status=done"]);
    daemon.wait_for_line("the configuration was read again");
    assert_eq!(daemon.stop().code, Some(0));
    here.mail("ann").must_equal(&expected(0..300), &format!("after {hangups} times"));
    assert_eq!(server.mailbox("ann").len(), 0);
}

#[test]
fn what_another_client_marked_deleted_is_never_expunged_by_us() {
    for with_uidplus in [true, false] {
        // Dovecot says what it can; a client believes that.
        let without = "imap_capability = IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE\n";
        let options = DovecotOptions::new().user("ann", "secret");
        let dovecot = Dovecot::start(if with_uidplus { options } else { options.extra(without) });
        let large =
            |n: usize| [&light(n).octets[..], &b"a line of a message that is too large\n".repeat(3000)].concat();
        let small: Vec<Message> = (0..10).map(light).collect();
        dovecot.seed("ann", "INBOX", &small);
        // Too large for us, and the other client has marked it.
        dovecot.seed("ann", "INBOX", &[Message::new(large(10)).flag("\\Deleted")]);
        let here = Installation::trusting(dovecot.certificates());
        let account = format!(
            "{}delete = \"immediately\"\nmax_message_size = \"50 KiB\"\n",
            dovecot_account(&dovecot, Service::Imaps)
        );
        here.configure(&account);
        let outcome = here.fetch();
        assert_eq!(outcome.number("delivered"), 10, "{outcome}");
        let left = dovecot.messages("ann", "INBOX");
        assert!(left.contains(&large(10)), "another client's message was destroyed: {outcome}");
        if with_uidplus {
            assert_eq!((outcome.number("removed"), left.len()), (10, 1), "{outcome}");
            continue;
        }
        assert_eq!((outcome.number("removed"), left.len()), (0, 11), "{outcome}");
        assert!(
            outcome.stderr.contains("the server has no UIDPLUS, and other clients have marked messages too"),
            "{outcome}"
        );
        // When the other client has made up its mind, ours go: a refused removal waits for an hour, so it is said here by
        // the messages that remain marked.
        dovecot.doveadm(&["flags", "remove", "-u", "ann", "\\Deleted", "mailbox", "INBOX", "larger", "50k"]);
        here.fetch();
        let left = dovecot.messages("ann", "INBOX");
        assert!(left.contains(&large(10)), "another client's message was destroyed");
        eprintln!("without UIDPLUS {} messages are left when nothing else is marked any more", left.len());
    }
}
