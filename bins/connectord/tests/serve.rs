//! The daemon, as an administrator meets it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Installation, Socks5, Sums, account, account_of, at_dovecot, dovecot_account, light, wait_until};
use connectord_testkit::{Certificates, Dovecot, DovecotOptions, Fault, FaultProxy, Faults, Service, corpus};
use nix::sys::signal::Signal;

fn start() -> Dovecot {
    Dovecot::start(DovecotOptions::new().user("ann", "secret").user("bob", "secret"))
}

const BY_HAND: &str = "check_every = \"never\"\n";

#[test]
fn it_checks_at_once_takes_orders_and_ends_within_seconds() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(20, 1));
    dovecot.seed("bob", "INBOX", &corpus::messages(20, 2));
    let here = Installation::trusting(dovecot.certificates());
    let bob = account_of("bob", "pop3", "tls", dovecot.port(Service::Pop3s));
    here.configure(&format!("{}{bob}", dovecot_account(&dovecot, Service::Imaps)));
    let mut daemon = here.serve();
    for account in ["ann", "bob"] {
        daemon.wait_for(&[" run ", &format!("account={account}@example.org"), "delivered=20", "status=done"]);
    }
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "ann");
    here.mail("bob").must_equal(&at_dovecot(&dovecot, Service::Pop3s, "bob", "INBOX"), "bob");
    assert_eq!(daemon.lines(&["delivery", "to=<ann>", "status=delivered"]), 20, "{}", daemon.stderr());

    // One state, one daemon.
    let second = here.run(&["serve"]);
    assert_eq!(second.code, Some(75), "{second}");
    assert!(second.stderr.contains("another connectord holds the state"), "{second}");

    // What a command wants goes to the daemon.
    dovecot.seed("ann", "INBOX", &corpus::messages(3, 3));
    let dry = here.run(&["fetch", "--json", "--dry-run", "ann@example.org"]);
    assert_eq!((dry.code, dry.number("new"), dry.number("delivered")), (Some(0), 3, 0), "{dry}");
    let fetched = here.run(&["fetch", "--json", "ANN@example.org"]);
    assert_eq!((fetched.code, fetched.counts()), (Some(0), (3, 3, 0)), "{fetched}");
    let all = here.run(&["fetch"]);
    let lines: Vec<_> = all.stdout.lines().map(str::to_owned).collect();
    let line =
        |account: &str, listed| format!("ok {account}@example.org: {listed} listed, 0 new, 0 delivered, 0 removed");
    assert_eq!((all.code, lines), (Some(0), vec![line("ann", 23), line("bob", 20)]), "{all}");
    let parked = here.run(&["parked", "list"]);
    assert_eq!((parked.code, parked.stdout.as_str()), (Some(0), ""), "{parked}");
    let online = here.run(&["check", "--online"]);
    assert_eq!(online.code, Some(0), "{online}");

    let (resident, most) = daemon.memory_kib().unwrap();
    eprintln!("idle daemon with two accounts: {} MiB resident, at most {} MiB", resident / 1024, most / 1024);
    let asked = Instant::now();
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(!here.path("state/control.sock").exists());
    // It remembers what it did.
    let counts: Vec<u64> = here.fetch_well().reports().iter().map(|r| r["retrieved"].as_u64().unwrap()).collect();
    assert_eq!(counts, [0, 0]);
}

#[test]
fn as_root_it_becomes_the_configured_user_who_reads_the_configuration_again() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(2, 1));
    let here = Installation::new();
    let mail = nix::unistd::User::from_name("mail").unwrap().unwrap();
    for path in [here.path("mail"), here.home("ann"), here.home("bob"), here.path("var")] {
        std::fs::create_dir_all(&path).unwrap();
        chown(path, Some(mail.uid.as_raw()), Some(mail.gid.as_raw())).unwrap();
    }
    let write = |more: &str| {
        let text = format!(
            "[state]\nurl = \"sqlite:{}\"\n[process]\nuser = \"mail\"\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\n{}{more}",
            here.path("var/state/state.db").display(),
            here.path("mail/{user}/Maildir").display(),
            account("pop3", "none", dovecot.port(Service::Pop3)),
        );
        here.write_configuration(&text);
        chown(here.configuration(), Some(0), Some(mail.gid.as_raw())).unwrap();
        std::fs::set_permissions(here.configuration(), PermissionsExt::from_mode(0o640)).unwrap();
    };
    write("");
    let mut daemon = here.serve();
    daemon.wait_for(&[" run ", "delivered=2"]);
    write(&account_of("bob", "pop3", "none", dovecot.port(Service::Pop3)));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(&["the configuration was read again", "accounts=2"]);
    let mut made = here.files("ann");
    made.extend(["var/state", "var/state/state.db", "var/state/control.sock"].map(|name| here.path(name)));
    for path in made {
        let file = path.metadata().unwrap();
        let (owner, mode) = ((file.uid(), file.gid()), file.mode() & 0o077);
        assert_eq!((owner, mode), ((mail.uid.as_raw(), mail.gid.as_raw()), 0), "{}", path.display());
    }
    assert_eq!(daemon.lines(&["running as root"]), 0, "{}", daemon.stderr());
    // root is heard all the same.
    daemon.wait_for(&[" run ", "account=bob@example.org", "status=done"]);
    assert_eq!(here.fetch().code, Some(0));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn two_hundred_accounts_are_checked_side_by_side() {
    let dovecot = Dovecot::start(DovecotOptions::new().users(200));
    let here = Installation::trusting(dovecot.certificates());
    let mut accounts = String::new();
    for n in 0..200 {
        let user = format!("user{n}");
        dovecot.seed(&user, "INBOX", &[light(n)]);
        here.add_home(&user);
        let (protocol, service) = if n % 2 == 0 { ("imap", Service::Imaps) } else { ("pop3", Service::Pop3s) };
        accounts += &account_of(&user, protocol, "tls", dovecot.port(service));
    }
    let path = here.path("mail/{user}/Maildir");
    here.configure_with(
        &format!("[schedule]\nper_host = 20\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", path.display()),
        &accounts,
    );
    let began = Instant::now();
    let daemon = here.serve();
    wait_until("200 runs", || daemon.lines(&[" run ", "delivered=1", "status=done"]) == 200);
    let (resident, most) = daemon.memory_kib().unwrap();
    eprintln!("200 accounts: {:.1?}, {} MiB resident, at most {} MiB", began.elapsed(), resident / 1024, most / 1024);
    for n in 0..200 {
        let user = format!("user{n}");
        let service = if n % 2 == 0 { Service::Imaps } else { Service::Pop3s };
        here.mail(&user).must_equal(&at_dovecot(&dovecot, service, &user, "INBOX"), &user);
    }
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn with_idle_new_mail_arrives_within_seconds() {
    let dovecot = start();
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&format!("{}idle = true\n", dovecot_account(&dovecot, Service::Imaps)));
    let mut daemon = here.serve();
    daemon.wait_for(&[" run ", "status=done"]);
    for n in 1..=3 {
        // Let it go to sleep first.
        std::thread::sleep(Duration::from_millis(300));
        let sent = Instant::now();
        dovecot.deliver("ann", b"Subject: news\n\nnow\n");
        wait_until("the news", || here.files("ann").len() == n);
        eprintln!("IDLE: new mail was there after {:?}", sent.elapsed());
    }
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "what came");
    // Listening does not keep it from ending.
    let asked = Instant::now();
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

#[test]
fn a_command_reaches_an_account_that_listens() {
    let dovecot = start();
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&format!("{}idle = true\n", dovecot_account(&dovecot, Service::Imaps)));
    let mut daemon = here.serve();
    daemon.wait_for(&[" run ", "status=done"]);
    std::thread::sleep(Duration::from_millis(300));
    dovecot.seed("ann", "INBOX", &corpus::messages(2, 1));
    let fetched = here.fetch();
    // It may have been told of them before.
    assert!(matches!(fetched.code, Some(0 | 75)), "{fetched}");
    wait_until("both", || here.files("ann").len() == 2);
}

#[test]
fn sighup_takes_changes_in_and_a_broken_configuration_changes_nothing() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(5, 1));
    dovecot.seed("bob", "INBOX", &corpus::messages(5, 2));
    let here = Installation::trusting(dovecot.certificates());
    let ann = dovecot_account(&dovecot, Service::Imaps);
    here.configure(&ann);
    let mut daemon = here.serve();
    daemon.wait_for(&[" run ", "account=ann@example.org", "delivered=5"]);

    let good = std::fs::read_to_string(here.configuration()).unwrap();
    here.write_configuration(&good.replace("deliver_to", "delivr_to"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(&["the old one stays in force", "delivr_to"]);
    dovecot.seed("ann", "INBOX", &corpus::messages(1, 3));

    let bob = account_of("bob", "pop3", "tls", dovecot.port(Service::Pop3s));
    here.configure(&format!("{ann}{bob}"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(&["the configuration was read again", "accounts=2"]);
    daemon.wait_for(&[" run ", "account=bob@example.org", "delivered=5"]);
    // An account that did not change is not checked again for that.
    assert_eq!(daemon.lines(&[" run ", "account=ann@example.org"]), 1, "{}", daemon.stderr());

    // Mail goes where the new configuration says, also that of accounts that did not change.
    let moved = format!("[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", here.path("mail/{user}/Moved").display());
    here.configure_with(&moved, &format!("{ann}{bob}"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_times(2, &["the configuration was read again", "accounts=2"]);
    wait_until("the new place", || common::files(&here.home("ann").join("Moved")).len() == 1);
    assert_eq!(here.files("ann").len(), 5);

    // An account that is gone leaves its mail alone.
    here.configure(&bob);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(&["the account is configured no more", "ann@example.org"]);
    let unknown = here.run(&["fetch", "--json", "ann@example.org"]);
    assert_eq!(unknown.code, Some(64), "{unknown}");
    assert_eq!((here.files("ann").len(), dovecot.messages("ann", "INBOX").len()), (5, 6));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn a_change_counts_at_once_also_in_the_middle_of_a_check() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(50, 1));
    let proxy = FaultProxy::start(dovecot.address(Service::Imaps));
    proxy.set(Faults::to_client(Fault::none().stall_after(100_000)));
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&account("imap", "tls", proxy.port()));
    let mut daemon = here.serve();
    daemon.wait_for(&["delivery", "status=delivered"]);
    // By hand it is not waited for: somebody else is at it.
    let busy = here.fetch();
    assert_eq!((busy.code, &busy.report()["cause"]), (Some(75), &"in_use".into()), "{busy}");
    here.configure(&dovecot_account(&dovecot, Service::Imaps));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(&[" run ", &format!("127.0.0.1:{}", dovecot.port(Service::Imaps)), "status=done"]);
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "after the change");
}

#[test]
fn regular_mail_goes_where_the_new_configuration_says() {
    let dovecot = start();
    let here = Installation::trusting(dovecot.certificates());
    let ann = format!("{}idle = true\n", dovecot_account(&dovecot, Service::Imaps));
    here.configure(&ann);
    let mut daemon = here.serve();
    daemon.wait_for(&[" run ", "status=done"]);
    let moved = format!("[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", here.path("mail/{user}/Moved").display());
    here.configure_with(&moved, &ann);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(&["the configuration was read again"]);
    std::thread::sleep(Duration::from_millis(500));
    dovecot.deliver("ann", b"Subject: news\n\nnow\n");
    wait_until("the news in the new place", || {
        assert_eq!(here.files("ann").len(), 0, "it went to the old place");
        common::files(&here.home("ann").join("Moved")).len() == 1
    });
}

#[test]
fn in_quiet_hours_nothing_is_checked_unless_by_hand() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(2, 1));
    let here = Installation::trusting(dovecot.certificates());
    // Neither begins nor ends within the hour.
    let quiet = if jiff::Zoned::now().hour() < 22 { "00:00-23:59" } else { "12:00-11:59" };
    let path = here.path("mail/{user}/Maildir");
    let tables =
        format!("[schedule]\nquiet = \"{quiet}\"\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", path.display());
    here.configure_with(&tables, &dovecot_account(&dovecot, Service::Imaps));
    let daemon = here.serve();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((daemon.lines(&[" run "]), here.files("ann").len()), (0, 0), "{}", daemon.stderr());
    assert_eq!(here.fetch_well().counts(), (2, 2, 0));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn while_the_local_user_is_gone_the_account_is_held_and_it_resumes_by_itself() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(3, 1));
    dovecot.seed("bob", "INBOX", &corpus::messages(1, 9));
    let here = Installation::trusting(dovecot.certificates());
    let soon = "check_every = \"10s\"\n";
    let bob = account_of("bob", "imap", "tls", dovecot.port(Service::Imaps));
    here.configure(&format!(
        "{}delete = \"immediately\"\n{soon}{bob}{soon}",
        dovecot_account(&dovecot, Service::Imaps)
    ));
    let mut daemon = here.serve();
    daemon.wait_for(&[" run ", "account=ann@example.org", "removed=3"]);
    daemon.wait_for(&[" run ", "account=bob@example.org", "delivered=1"]);
    // The user is renamed away, with the mail; more mail comes.
    let away = here.path("away");
    std::fs::rename(here.home("ann"), &away).unwrap();
    dovecot.seed("ann", "INBOX", &corpus::messages(2, 2));
    let held = here.run(&["fetch", "--json", "ann@example.org"]);
    assert_eq!((held.code, &held.report()["cause"]), (Some(78), &"user_gone".into()), "{held}");
    daemon.wait_for_times(2, &[" run ", "account=ann@example.org", "there is no local user ann"]);
    assert_eq!(dovecot.messages("ann", "INBOX").len(), 2);
    assert!(!here.home("ann").exists());
    std::fs::rename(&away, here.home("ann")).unwrap();
    daemon.wait_for(&[" run ", "account=ann@example.org", "removed=2"]);
    assert_eq!((here.files("ann").len(), here.files("bob").len()), (5, 1));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn a_server_that_falls_silent_blocks_neither_the_others_nor_the_end() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(5, 1));
    dovecot.seed("bob", "INBOX", &corpus::messages(5, 2));
    let proxy = FaultProxy::start(dovecot.address(Service::Imaps));
    proxy.set(Faults::to_client(Fault::none().stall_after(9000)));
    let here = Installation::trusting(dovecot.certificates());
    let bob = account_of("bob", "pop3", "tls", dovecot.port(Service::Pop3s));
    // Not even where only one place is free at the host.
    let tables = format!(
        "[schedule]\nper_host = 2\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\n",
        here.path("mail/{user}/Maildir").display()
    );
    here.configure_with(&tables, &format!("{}{bob}", account("imap", "tls", proxy.port())));
    let mut daemon = here.serve();
    daemon.wait_for(&[" run ", "account=bob@example.org", "delivered=5"]);
    let asked = Instant::now();
    daemon.signal(Signal::SIGTERM);
    let ended = daemon.wait(Duration::from_secs(30));
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}: {ended}", asked.elapsed());
    // The next start goes on where this one was.
    proxy.set(Faults::none());
    let fetched = here.fetch();
    assert_eq!(fetched.code, Some(0), "{fetched}");
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "after the restart");
}

#[test]
fn a_server_that_was_down_and_a_password_that_was_wrong_can_be_tried_by_hand_at_once() {
    let mut dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(2, 1));
    let here = Installation::trusting(dovecot.certificates());
    let password = here.path("password");
    let set = |text: &str| {
        std::fs::write(&password, text).unwrap();
        std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    };
    set("wrong\n");
    let from_file = format!("password_file = \"{}\"", password.display());
    here.configure(&dovecot_account(&dovecot, Service::Imaps).replace("password = \"secret\"", &from_file));
    let mut daemon = here.serve();
    daemon.wait_for(&[" run ", "login refused by 127.0.0.1"]);
    assert_eq!(here.fetch().code, Some(77));
    set("secret\n");
    assert_eq!(here.fetch_well().counts(), (2, 2, 0));
    dovecot.kill();
    let down = here.fetch();
    assert_eq!((down.code, &down.report()["cause"]), (Some(69), &"no_answer".into()), "{down}");
    dovecot.restart();
    assert_eq!(here.fetch_well().counts(), (0, 0, 0));
    assert!(!daemon.stderr().contains("secret"));
    assert!(daemon.is_running());
}

#[test]
fn a_socks5_proxy_resolves_the_name_and_carries_the_mail() {
    let certificates = Certificates::with_names(&["imap.example.test"]);
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret").certificates(&certificates));
    dovecot.seed("ann", "INBOX", &corpus::messages(10, 1));
    let proxy = Socks5::start(dovecot.address(Service::Imaps));
    let here = Installation::trusting(&certificates);
    let account = account("imap", "tls", 993).replace("127.0.0.1", "imap.example.test");
    here.configure(&format!("{account}proxy = \"socks5://eve:p%40ss@127.0.0.1:{}\"\n", proxy.port()));
    assert_eq!(here.fetch_well().counts(), (10, 10, 0));
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "through the proxy");
    assert_eq!(*proxy.asked(), ["eve:p@ss imap.example.test:993"]);
}

#[test]
fn a_log_that_nobody_reads_does_not_stop_the_mail() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(400, 1));
    let here = Installation::trusting(dovecot.certificates());
    here.configure(&dovecot_account(&dovecot, Service::Imaps));
    // The pipe is full after 64 KiB, and nobody empties it.
    let mut command = common::command(&here.path(""));
    let command = command.arg("--config").arg(here.configuration()).args(["fetch", "--quiet"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut status = None;
    wait_until("its end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    here.mail("ann").must_equal(&at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"), "with a full log");
}

/// The socket of the system's log, where it has none.
struct Syslog(UnixDatagram);

impl Syslog {
    const PATH: &str = "/dev/log";

    fn bind() -> Option<Self> {
        match UnixDatagram::unbound().unwrap().connect(Self::PATH) {
            Ok(()) => return None,
            // Left behind by one that ended.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(Self::PATH).unwrap(),
            Err(_) => {}
        }
        Some(Self(UnixDatagram::bind(Self::PATH).unwrap()))
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(Self::PATH);
    }
}

#[test]
fn syslog_gets_lines_of_the_facility_mail() {
    let Some(syslog) = Syslog::bind() else {
        eprintln!("this machine has a syslog of its own, which is left in peace");
        return;
    };
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(1, 1));
    let here = Installation::trusting(dovecot.certificates());
    let tables = format!(
        "[log]\nto = \"syslog\"\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\n",
        here.path("mail/{user}/Maildir").display()
    );
    here.configure_with(&tables, &dovecot_account(&dovecot, Service::Imaps));
    let fetched = here.fetch();
    let mut lines = Vec::new();
    syslog.0.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 9000];
    while let Ok(length) = syslog.0.recv(&mut buffer) {
        lines.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(fetched.code, Some(0), "{fetched}");
    let ours: Vec<&String> = lines.iter().filter(|line| line.contains("ann@example.org")).collect();
    assert_eq!(ours.len(), 2, "{lines:#?}");
    // <22> is facility mail, severity info.
    assert!(ours.iter().all(|line| line.starts_with("<22>") && line.contains(" connectord[")), "{ours:#?}");
    assert!(ours[0].contains("]: delivery account=") && ours[0].contains("status=delivered"), "{ours:#?}");
    assert!(ours[1].contains("]: run account=") && ours[1].contains("delivered=1"), "{ours:#?}");
}

#[test]
fn two_accounts_into_one_maildir_and_each_message_of_each_once() {
    let dovecot = start();
    dovecot.seed("ann", "INBOX", &corpus::messages(40, 1));
    dovecot.seed("bob", "INBOX", &corpus::messages(40, 1));
    let here = Installation::trusting(dovecot.certificates());
    let bob = account_of("bob", "imap", "tls", dovecot.port(Service::Imaps))
        .replace("deliver_to = \"bob\"", "deliver_to = \"ann\"");
    here.configure(&format!("{}{BY_HAND}{bob}{BY_HAND}", dovecot_account(&dovecot, Service::Imaps)));
    let mut daemon = here.serve();
    let fetched = here.fetch();
    assert_eq!(fetched.code, Some(0), "{fetched}");
    daemon.wait_for_times(80, &["delivery", "status=delivered"]);
    let mut both = Sums::default();
    both.extend(at_dovecot(&dovecot, Service::Imaps, "ann", "INBOX"));
    both.extend(at_dovecot(&dovecot, Service::Imaps, "bob", "INBOX"));
    here.mail("ann").must_equal(&both, "the same mail from two accounts is in the Maildir twice");
}
