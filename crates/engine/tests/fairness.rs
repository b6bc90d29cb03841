//! Many accounts of one slow host beside others, in virtual time: nobody starves.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod light;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::wrappers::{Scripted, delivered};
use connectord_account::{Check, Protocol};
use connectord_delivery::Delivery;
use connectord_engine::{Job, Limits, Observer, Progress, Scheduler};
use connectord_net::{Connector, Route};
use connectord_wire::{Endpoint, Security};
use light::Light;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::sync::watch;

const SLOW_HOST: &str = "slow.example";

/// Counts the checks of each account.
#[derive(Default)]
struct Checks(Mutex<BTreeMap<String, usize>>);

impl Observer for Checks {
    fn progress(&self, account: &str, progress: Progress<'_>) {
        if let Progress::Finished(report) = progress {
            assert!(report.error.is_none(), "{:?}", report.error);
            *self.0.lock().unwrap().entry(account.to_owned()).or_default() += 1;
        }
    }
}

/// A POP3 server without mail that takes its time.
async fn serve(stream: DuplexStream, answer_after: Duration) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"+OK ready\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        tokio::time::sleep(answer_after).await;
        let answer: &[u8] = match line.as_str() {
            "CAPA" => b"+OK\r\nUSER\r\nUIDL\r\n.\r\n",
            "STAT" => b"+OK 0 0\r\n",
            "UIDL" | "LIST" => b"+OK\r\n.\r\n",
            _ => b"+OK\r\n",
        };
        write.write_all(answer).await?;
        if line == "QUIT" {
            return Ok(());
        }
    }
    Ok(())
}

fn connector() -> Connector {
    Connector::with_dialer(|endpoint| {
        let (near, far) = tokio::io::duplex(4096);
        let answer_after = Duration::from_millis(if endpoint.host() == SLOW_HOST { 500 } else { 50 });
        tokio::spawn(serve(far, answer_after));
        Ok(near)
    })
}

fn job(here: &Light, name: String, host: &str, delivery: &Arc<Scripted>) -> Job {
    let endpoint = Endpoint::new(host, 110).unwrap();
    let mut job = here.job(Protocol::Pop3, 110, |account| {
        account.address = name;
        account.endpoint = endpoint.clone();
        account.check = Check::Every(Duration::from_secs(60));
    });
    job.route = Route::new(endpoint, Security::None);
    job.delivery = Arc::clone(delivery) as Arc<dyn Delivery>;
    job
}

#[tokio::test(start_paused = true)]
async fn two_hundred_accounts_of_a_slow_host_take_turns_and_keep_no_other_account_waiting() {
    let checks = Arc::new(Checks::default());
    let here = Light::with(connector(), checks.clone());
    let delivery = Scripted::new(8, |_| delivered());
    let slow = (0..200).map(|number| job(&here, format!("slow{number}@example.org"), SLOW_HOST, &delivery));
    let quick = (0..20)
        .map(|number| job(&here, format!("quick{number}@example.org"), &format!("h{}.example", number / 4), &delivery));
    let jobs = slow.chain(quick).collect();
    let scheduler = Scheduler::new(here.site.clone(), Limits::default());
    let (_jobs, watched) = watch::channel(jobs);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(async move { scheduler.run(watched, stopped).await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    let count = |who: &str| -> Vec<usize> {
        let counts = checks.0.lock().unwrap();
        counts.iter().filter(|(name, _)| name.starts_with(who)).map(|(_, count)| *count).collect()
    };
    // The slow host has hardly begun.
    assert!(count("slow").len() < 100 && count("quick") == [1; 20], "{:?} {:?}", count("slow"), count("quick"));
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let (slow, quick) = (count("slow"), count("quick"));
    // Every minute, and up to a tenth more.
    assert!(quick.iter().all(|count| (17..=21).contains(count)), "{quick:?}");
    // As many as its four places allow, each account as often as any other.
    let (least, most) = (slow.iter().min().unwrap(), slow.iter().max().unwrap());
    assert!(slow.len() == 200 && *least > 3 && most - least <= 1, "{slow:?}");
    stop.send_replace(true);
    running.await.unwrap();
}
