//! Checks of whole accounts, POP3 and IMAP, against small servers that can be told to misbehave.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::{Installation, sorted, with_lf};
use connectord_account::{Folder, Oversize, Protocol, Removal, Retention, Start};
use connectord_engine::{Cause, RunError};
use connectord_store::{Hold, Store};
use connectord_testkit::corpus;
use connectord_testkit::servers::{ImapServer, Mailbox, Misbehaviour, Pop3Server, QuitFault, Server, ServerOptions};

const BOTH: [Protocol; 2] = [Protocol::Pop3, Protocol::Imap];

enum Any {
    Pop3(Pop3Server),
    Imap(ImapServer),
}

impl Any {
    fn start(protocol: Protocol) -> Self {
        let options = ServerOptions::new().user("ann", "secret");
        match protocol {
            Protocol::Pop3 => Self::Pop3(Pop3Server::start(options)),
            Protocol::Imap => Self::Imap(ImapServer::start(options)),
        }
    }

    fn server(&self) -> &Server {
        match self {
            Self::Pop3(server) => server,
            Self::Imap(server) => server,
        }
    }

    fn port(&self) -> u16 {
        self.server().port()
    }

    fn mailbox(&self) -> Mailbox {
        self.server().mailbox("ann")
    }

    fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.server().misbehave(misbehaviour);
    }

    fn retrieved(&self) -> u64 {
        self.server().counters().retrieved
    }
}

/// As a server sends them and a Maildir keeps them.
fn on_disk(mailbox: &Mailbox) -> Vec<Vec<u8>> {
    sorted(mailbox.messages().iter().map(|message| as_sent(&message.octets)).collect())
}

fn as_sent(octets: &[u8]) -> Vec<u8> {
    let mut sent = with_lf(octets);
    // POP3 cannot say that a message has no final line end.
    if sent.last().is_some_and(|octet| *octet != b'\n') {
        sent.push(b'\n');
    }
    sent
}

fn fill(mailbox: &Mailbox, count: usize, seed: u64) {
    for message in corpus::messages(count, seed) {
        mailbox.add(message);
    }
}

#[tokio::test]
async fn every_octet_arrives_and_a_second_check_retrieves_nothing() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 60, 1);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |_| {});
        let report = here.run_well(&job).await;
        assert_eq!((report.listed, report.retrieved, report.delivered), (60, 60, 60));
        let mut found = here.mail("ann");
        for message in &mut found {
            *message = as_sent(message);
        }
        assert_eq!(sorted(found), on_disk(&server.mailbox()), "{protocol:?}");
        let report = here.run_well(&job).await;
        assert_eq!((report.retrieved, report.delivered), (0, 0));
        assert_eq!((server.retrieved(), here.files("ann").len(), here.leftovers("ann")), (60, 60, 0));
        // Across a restart of the program too.
        let here = here.restarted().await;
        let job = here.job(protocol, server.port(), |_| {});
        assert_eq!(here.run_well(&job).await.retrieved, 0);
        assert_eq!(here.files("ann").len(), 60);
    }
}

#[tokio::test]
async fn mail_that_comes_later_is_retrieved_and_mail_that_others_remove_is_not_missed() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 10, 2);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |_| {});
        here.run_well(&job).await;
        for uid in server.mailbox().uids().iter().take(5) {
            server.mailbox().remove(*uid);
        }
        fill(&server.mailbox(), 3, 3);
        let report = here.run_well(&job).await;
        assert_eq!((report.retrieved, here.files("ann").len()), (3, 13), "{protocol:?}");
        assert_eq!(here.run_well(&job).await.retrieved, 0);
    }
}

#[tokio::test]
async fn removal_happens_when_it_is_due_and_not_before() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 5, 4);
        let here = Installation::new();
        let week = Duration::from_secs(7 * 86_400);
        let job = here.job(protocol, server.port(), |account| account.retention = Retention::AfterDelivery(week));
        here.run_well(&job).await;
        assert_eq!(server.mailbox().len(), 5);
        for _ in 0..6 {
            here.pass(86_400);
            assert_eq!(here.run_well(&job).await.removed, 0);
        }
        here.pass(86_400);
        assert_eq!(here.run_well(&job).await.removed, 5, "{protocol:?}");
        assert_eq!((server.mailbox().len(), here.files("ann").len()), (0, 5));
        assert_eq!(here.run_well(&job).await.removed, 0);
    }
}

#[tokio::test]
async fn immediate_removal_takes_several_sessions_when_there_is_much_and_loses_nothing() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 25, 5);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| {
            account.retention = Retention::Immediately;
            account.removals_per_session = 10;
        });
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.removed), (25, 25), "{protocol:?}");
        assert_eq!((server.mailbox().len(), here.files("ann").len()), (0, 25));
    }
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_removes_nothing_until_it_is_confirmed() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 5, 6);
        let here = Installation::new();
        let week = Duration::from_secs(7 * 86_400);
        let job = here.job(protocol, server.port(), |account| account.retention = Retention::AfterDelivery(week));
        here.run_well(&job).await;
        here.pass(10 * 365 * 86_400);
        assert_eq!(here.run_well(&job).await.removed, 0);
        here.pass(-10 * 365 * 86_400);
        here.pass(-3600);
        assert_eq!(here.run_well(&job).await.removed, 0);
        assert_eq!(server.mailbox().len(), 5);
    }
}

#[tokio::test]
async fn a_renumbered_mailbox_delivers_nothing_again_and_retrieves_no_body_of_what_is_known() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 40, 7);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |_| {});
        here.run_well(&job).await;
        server.mailbox().set_uid_validity(77);
        fill(&server.mailbox(), 2, 8);
        let report = here.run_well(&job).await;
        assert_eq!(report.delivered, 2, "{protocol:?}");
        assert_eq!(here.files("ann").len(), 42);
        assert_eq!(here.run_well(&job).await.delivered, 0);
        assert!(server.retrieved() <= 43, "{}", server.retrieved());
    }
}

#[tokio::test]
async fn without_usable_unique_ids_messages_are_known_by_their_content() {
    for misbehaviour in [
        Misbehaviour { without: ["UIDL".to_owned()].into(), ..Misbehaviour::default() },
        Misbehaviour { same_uidls: true, ..Misbehaviour::default() },
        Misbehaviour { without: ["UIDL".to_owned(), "TOP".to_owned()].into(), ..Misbehaviour::default() },
    ] {
        let server = Any::start(Protocol::Pop3);
        server.misbehave(misbehaviour.clone());
        fill(&server.mailbox(), 6, 9);
        // Two identical messages are two messages.
        server.mailbox().add("Subject: twin\n\nsame\n");
        server.mailbox().add("Subject: twin\n\nsame\n");
        let here = Installation::new();
        let job = here.job(Protocol::Pop3, server.port(), |_| {});
        assert_eq!(here.run_well(&job).await.delivered, 8, "{misbehaviour:?}");
        assert_eq!(here.run_well(&job).await.delivered, 0, "{misbehaviour:?}");
        fill(&server.mailbox(), 1, 10);
        assert_eq!(here.run_well(&job).await.delivered, 1, "{misbehaviour:?}");
        assert_eq!(here.files("ann").len(), 9);
    }
}

#[tokio::test]
async fn only_what_comes_from_now_on() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 12, 11);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| account.start = Start::FromNowOn);
        assert_eq!(here.run_well(&job).await.retrieved, 0);
        fill(&server.mailbox(), 2, 12);
        assert_eq!(here.run_well(&job).await.delivered, 2, "{protocol:?}");
        assert_eq!(here.run_well(&job).await.delivered, 0);
    }
}

#[tokio::test]
async fn too_large_a_message_is_parked_or_skipped_and_the_others_come() {
    for protocol in BOTH {
        for (oversize, parked) in [(Oversize::Park, 1), (Oversize::Skip, 0)] {
            let server = Any::start(protocol);
            fill(&server.mailbox(), 3, 13);
            server.mailbox().add(corpus::large(3_000_000, 14));
            let here = Installation::new();
            let job = here.job(protocol, server.port(), |account| {
                account.max_message_octets = Some(2_000_000);
                account.oversize = oversize;
            });
            let report = here.run_well(&job).await;
            assert_eq!((report.parked, here.files("ann").len()), (parked, 3), "{protocol:?}");
            let troubled = here.store.troubled(None, true).await.unwrap();
            assert_eq!(troubled.len() as u64, parked);
            assert_eq!(here.run_well(&job).await.parked, 0);
        }
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_retrieved_waits_and_the_others_come() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 6, 15);
        let poison = server.mailbox().uids()[2];
        server.misbehave(Misbehaviour { refuse_retrieve: [poison].into(), ..Misbehaviour::default() });
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| account.retention = Retention::Immediately);
        let report = here.run(&job).await;
        assert_eq!((report.delivered, report.deferred), (5, 1), "{protocol:?} {:?}", report.error);
        assert_eq!(server.mailbox().uids(), [poison]);
        // It is not asked for again at once, but after a while, and then it comes.
        assert_eq!(here.run_well(&job).await.deferred, 0);
        server.misbehave(Misbehaviour::default());
        here.pass(3 * 3600);
        assert_eq!(here.run_well(&job).await.delivered, 1);
        assert_eq!((server.mailbox().len(), here.files("ann").len()), (0, 6));
    }
}

#[tokio::test]
async fn a_lost_or_refused_answer_to_a_removal_delivers_nothing_again() {
    for quit in
        [QuitFault::RefuseAndKeep, QuitFault::RefuseButRemove, QuitFault::CloseAndKeep, QuitFault::CloseButRemove]
    {
        let server = Any::start(Protocol::Pop3);
        fill(&server.mailbox(), 5, 16);
        server.misbehave(Misbehaviour { quit, ..Misbehaviour::default() });
        let here = Installation::new();
        let job = here.job(Protocol::Pop3, server.port(), |account| account.retention = Retention::Immediately);
        here.run(&job).await;
        server.misbehave(Misbehaviour::default());
        here.run_well(&job).await;
        here.run_well(&job).await;
        assert_eq!((server.mailbox().len(), here.files("ann").len()), (0, 5), "{quit:?}");
    }
}

#[tokio::test]
async fn several_users_of_one_account_each_get_the_mail_once() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 7, 17);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| {
            account.deliver_to = vec!["ann".into(), "bob".into()];
            account.retention = Retention::Immediately;
        });
        assert_eq!(here.run_well(&job).await.delivered, 14);
        assert_eq!((here.mail("ann"), here.files("bob").len()), (here.mail("bob"), 7));
        assert_eq!(server.mailbox().len(), 0);
    }
}

#[tokio::test]
async fn while_a_user_is_gone_nothing_is_touched_and_it_goes_on_by_itself() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 3, 18);
        let here = Installation::new();
        let home = here.directory.path().join("mail");
        let away = here.directory.path().join("away");
        std::fs::rename(&home, &away).unwrap();
        let job = here.job(protocol, server.port(), |account| account.retention = Retention::Immediately);
        let report = here.run(&job).await;
        assert!(matches!(report.error, Some(RunError::UserGone { .. } | RunError::Destination { .. })), "{report:?}");
        assert_eq!((server.mailbox().len(), server.server().counters().logins), (3, 0));
        assert!(!home.exists());
        let health = here.store.open_account("ann@example.org").await.unwrap().health;
        assert!(matches!(health.hold, Some(Hold::UserGone | Hold::Destination | Hold::Backoff)), "{health:?}");
        std::fs::rename(&away, &home).unwrap();
        assert_eq!(here.run_well(&job).await.delivered, 3);
    }
}

#[tokio::test]
async fn a_refused_login_is_told_apart_from_a_busy_mailbox() {
    let server = Any::start(Protocol::Pop3);
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    for (text, cause, hold) in [
        ("[AUTH] bad password", Cause::LoginRefused, Hold::Login),
        ("[IN-USE] another session", Cause::InUse, Hold::Backoff),
        ("[LOGIN-DELAY] too soon", Cause::Throttled, Hold::Backoff),
        ("[SYS/TEMP] later", Cause::NoAnswer, Hold::Backoff),
    ] {
        server.misbehave(Misbehaviour { refuse_login: Some(text.into()), ..Misbehaviour::default() });
        let report = here.run(&job).await;
        let trouble = report.error.as_ref().map(RunError::trouble);
        assert_eq!(trouble.map(|trouble| trouble.cause), Some(cause), "{text}: {:?}", report.error);
        let health = here.store.open_account("ann@example.org").await.unwrap().health;
        assert_eq!(health.hold, Some(hold), "{text}");
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing_here_or_there() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 4, 19);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| account.retention = Retention::Immediately);
        let mode = connectord_engine::Mode { by_hand: true, dry_run: true };
        let report = connectord_engine::run(&here.site, &job, mode, here.stop.subscribe()).await;
        assert_eq!((report.new, report.retrieved, report.delivered), (4, 0, 0), "{:?}", report.error);
        assert_eq!((server.mailbox().len(), here.files("ann").len()), (4, 0));
        assert_eq!(here.run_well(&job).await.delivered, 4);
    }
}

#[tokio::test]
async fn removals_by_moving_and_by_marking_leave_the_mail_on_the_server() {
    let server = Any::start(Protocol::Imap);
    fill(&server.mailbox(), 3, 20);
    let trash = server.server().mailbox_named("ann", "Done");
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| {
        account.retention = Retention::Immediately;
        account.removal = Removal::MoveTo("Done".into());
    });
    here.run_well(&job).await;
    assert_eq!((server.mailbox().len(), trash.len(), here.files("ann").len()), (0, 3, 3));

    fill(&server.mailbox(), 2, 21);
    let job = here.job(Protocol::Imap, server.port(), |account| {
        account.retention = Retention::Immediately;
        account.removal = Removal::MarkSeen;
    });
    here.run_well(&job).await;
    let seen = |mailbox: &Mailbox| {
        mailbox.messages().iter().filter(|message| message.flags.iter().any(|flag| flag == "\\Seen")).count()
    };
    assert_eq!((server.mailbox().len(), seen(&server.mailbox())), (2, 2));
    assert_eq!(here.run_well(&job).await.retrieved, 0);
}

#[tokio::test]
async fn seen_is_never_set_unless_asked_for() {
    let server = Any::start(Protocol::Imap);
    fill(&server.mailbox(), 3, 22);
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |_| {});
    here.run_well(&job).await;
    assert!(server.mailbox().messages().iter().all(|message| message.flags.is_empty()));
    let job = here.job(Protocol::Imap, server.port(), |account| account.mark_seen = true);
    fill(&server.mailbox(), 1, 23);
    here.run_well(&job).await;
    let flags: Vec<_> = server.mailbox().messages().iter().map(|message| message.flags.len()).collect();
    assert_eq!(flags, [0, 0, 0, 1]);
}

#[tokio::test]
async fn without_uidplus_nothing_that_others_marked_is_expunged() {
    let server = Any::start(Protocol::Imap);
    server.misbehave(Misbehaviour {
        without: ["UIDPLUS".to_owned(), "MOVE".to_owned(), "IMAP4REV2".to_owned()].into(),
        ..Misbehaviour::default()
    });
    fill(&server.mailbox(), 2, 24);
    let mut marked = corpus::message(1, 25);
    marked.flags = vec!["\\Deleted".into()];
    server.mailbox().add(marked);
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| account.retention = Retention::Immediately);
    here.run_well(&job).await;
    assert_eq!(here.files("ann").len(), 3);
    // All three are ours to remove: the foreign mark was on a message that we delivered too.
    assert_eq!(server.mailbox().len(), 0);
}

#[tokio::test]
async fn folders_by_name_pattern_and_role() {
    let server = Any::start(Protocol::Imap);
    for (name, count) in [("INBOX", 1), ("Work/a", 2), ("Work/b", 3), ("Other", 4)] {
        fill(&server.server().mailbox_named("ann", name), count, 26 + count as u64);
    }
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| {
        account.folders = vec![Folder::Name("INBOX".into()), Folder::Pattern("Work/*".into())];
    });
    assert_eq!(here.run_well(&job).await.delivered, 6);
    assert_eq!(here.run_well(&job).await.delivered, 0);
    let job = here.job(Protocol::Imap, server.port(), |account| {
        account.folders = vec![Folder::Name("Nowhere".into()), Folder::Name("Other".into())];
    });
    let report = here.run(&job).await;
    assert!(matches!(report.error, Some(RunError::Mailbox { .. })), "{:?}", report.error);
    assert_eq!(report.delivered, 4);
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_delivers_only_whole_messages_and_goes_on_later() {
    for protocol in BOTH {
        for cut in [2_000, 20_000, 60_000] {
            let server = Any::start(protocol);
            fill(&server.mailbox(), 20, 31);
            server.misbehave(Misbehaviour { close_after_octets: Some(cut), ..Misbehaviour::default() });
            let here = Installation::new();
            let job = here.job(protocol, server.port(), |account| account.retention = Retention::Immediately);
            here.run(&job).await;
            server.misbehave(Misbehaviour::default());
            here.run_well(&job).await;
            assert_eq!((server.mailbox().len(), here.files("ann").len()), (0, 20), "{protocol:?} after {cut}");
            assert_eq!(here.leftovers("ann"), 0);
        }
    }
}

#[tokio::test]
async fn a_lost_state_delivers_nothing_twice_into_a_maildir() {
    for protocol in BOTH {
        let server = Any::start(protocol);
        fill(&server.mailbox(), 8, 32);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |_| {});
        here.run_well(&job).await;
        here.store.close().await;
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            let _ = std::fs::remove_file(here.directory.path().join("state").join(name));
        }
        let here = here.restarted().await;
        let job = here.job(protocol, server.port(), |_| {});
        here.run_well(&job).await;
        assert_eq!(here.files("ann").len(), 8, "{protocol:?}");
    }
}
