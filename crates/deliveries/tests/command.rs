//! What a delivery command gets, and what its end means.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectord_deliveries::command::{Command, Options};
use connectord_delivery::{Delivery, FailureKind, Outcome, Parcel, RecallRow, Recalled, Recipient};
use connectord_mail::{DeliveryId, Identity, UnixTime};

fn recipient() -> Recipient {
    Recipient { user: "ann".into(), address: "ann@example.org".into() }
}

fn parcel() -> Parcel {
    let id = DeliveryId::new(Identity { account: "a@b", mailbox: "", uid_validity: 0, key: b"1", generation: 0 });
    Parcel {
        id,
        message: id,
        recipient: recipient(),
        reverse_path: "s@x; rm -rf /".into(),
        trace: Bytes::from_static(b"Received: here\r\n"),
        body: Arc::new(Bytes::from_static(b"A: b\r\n\r\nbody\r\n")),
        arrived_at: Some(UnixTime(0)),
        folder: None,
        attempt: 2,
    }
}

/// A shell script as command; `$1` is the recipient's address.
fn script(text: &str, change: impl FnOnce(&mut Options)) -> Command {
    let arguments = ["-c", text, "sh", "{address}"].map(|text| text.parse().unwrap());
    let mut options = Options::new("/bin/sh", arguments.to_vec());
    change(&mut options);
    Command::new(options)
}

async fn run(command: &Command) -> Outcome {
    command.prepare(vec![parcel()]).await.complete().await.remove(0)
}

fn kind(outcome: &Outcome) -> (FailureKind, &str) {
    match outcome {
        Outcome::Failed(failure) => (failure.kind, &failure.text),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_message_the_arguments_and_the_environment_are_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let text =
        format!("(cat; echo \"$1\"; env | grep -v ^PWD | grep -v ^SHLVL | grep -v ^_= | sort) > {}", out.display());
    let outcome = run(&script(&text, |options| options.from_line = true)).await;
    assert_eq!(outcome, Outcome::Delivered { detail: "/bin/sh: exit status 0".into() });
    let wanted = format!(
        "From s@x;_rm_-rf_/ Thu Jan  1 00:00:00 1970\nReturn-Path: <s@x; rm -rf />\nDelivered-To: ann@example.org\n\
         Received: here\nA: b\n\nbody\nann@example.org\nACCOUNT=ann\nCONNECTORD_ATTEMPT=2\nCONNECTORD_ID={}\nHOME=/\n\
         LOGNAME=ann\nPATH=/usr/local/bin:/usr/bin:/bin\nRECIPIENT=ann@example.org\nSENDER=s@x; rm -rf /\nUSER=ann\n",
        parcel().id
    );
    assert_eq!(fs::read_to_string(out).unwrap(), wanted);
}

#[tokio::test]
async fn exit_statuses_are_sysexits() {
    for (code, wanted) in [
        (1, FailureKind::Transient),
        (64, FailureKind::Transient),
        (65, FailureKind::Permanent),
        (67, FailureKind::Permanent),
        (73, FailureKind::Transient),
        (75, FailureKind::Transient),
        (77, FailureKind::Permanent),
        (127, FailureKind::Transient),
    ] {
        let outcome = run(&script(&format!("exit {code}"), |_| {})).await;
        assert_eq!(kind(&outcome).0, wanted, "{code}");
    }
    let outcome = run(&script("kill -SEGV $$", |_| {})).await;
    assert_eq!(kind(&outcome).0, FailureKind::Transient);
}

#[tokio::test]
async fn what_it_says_is_kept_short_and_escaped() {
    let outcome = run(&script("printf 'no such\\033[2J user\\n' >&2; exit 67", |_| {})).await;
    let Outcome::Failed(failure) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.text, r#"/bin/sh: exit status: 67: "no such\x1b[2J user""#);
    assert_eq!(failure.status.unwrap().to_string(), "5.1.1");
    let outcome = run(&script("head -c 10000000 /dev/zero | tr '\\0' x; exit 75", |_| {})).await;
    assert!(kind(&outcome).1.len() < 1200);
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let text = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let since = Instant::now();
    let outcome = run(&script(&text, |options| options.timeout = Duration::from_secs(1))).await;
    assert_eq!(kind(&outcome).0, FailureKind::Transient);
    assert!(since.elapsed() < Duration::from_secs(30));
    assert_gone(&pid).await;
}

#[tokio::test]
async fn giving_up_a_run_kills_the_program_and_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let text = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let command = script(&text, |_| {});
    let prepared = command.prepare(vec![parcel()]).await;
    assert!(tokio::time::timeout(Duration::from_secs(2), prepared.complete()).await.is_err());
    assert_gone(&pid).await;
}

async fn assert_gone(pid: &Path) {
    let pid: u32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    for _ in 0..100 {
        // A zombie is dead; whoever inherited it may be slow to wait for it.
        if state().is_empty() || state().contains(") Z ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("process {pid} is alive");
}

#[tokio::test]
async fn a_child_that_keeps_the_outputs_open_holds_nothing_up() {
    let since = Instant::now();
    let outcome = run(&script("sleep 20 & exit 0", |_| {})).await;
    assert!(matches!(outcome, Outcome::Delivered { .. }));
    assert!(since.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn nothing_starts_before_the_second_step() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("started");
    let command = script(&format!("touch {}", file.display()), |_| {});
    drop(command.prepare(vec![parcel()]).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!file.exists());
    let rows = vec![RecallRow { recipient: recipient(), note: None }];
    assert_eq!(command.recall(rows).await, [Recalled::Unknown]);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_mistake_in_the_configuration() {
    let missing = Command::new(Options::new("/no/such/program", Vec::new()));
    assert_eq!(kind(&run(&missing).await).0, FailureKind::Misconfigured);
    assert_eq!(missing.probe(&recipient()).await.unwrap_err().kind, FailureKind::Misconfigured);
    let nobody = script("exit 0", |options| options.run_as = Some("no-such-user-here".into()));
    assert_eq!(kind(&run(&nobody).await).0, FailureKind::Misconfigured);
    assert!(script("exit 0", |_| {}).probe(&recipient()).await.is_ok());
}

#[tokio::test]
async fn as_root_it_runs_as_another_user_without_roots_groups() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let outcome = run(&script("test \"$(id -u)/$(id -G)/$HOME\" = \"65534/65534/$(getent passwd nobody | cut -d: -f6)\" || exit 65; cat > /dev/null", |options| {
        options.run_as = Some("nobody".into());
    }))
    .await;
    assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
}
