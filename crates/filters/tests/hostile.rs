//! Servers that are down, hang, stop in the middle, or talk rubbish: no filter takes their silence for an answer.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Does, Fake, HAM, message, tcp, unchecked};
use connectord_filter::{Filter, Verdict, Why};
use connectord_filters::clamav::{self, Clamav};
use connectord_filters::rspamd::{self, Rspamd};
use connectord_filters::spamassassin::{self, SpamAssassin};
use connectord_wire::Address;

/// A whole and clean answer for each, in the order of [`filters`].
const CLEAN: [&[u8]; 3] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 56\r\n\r\n{\"action\":\"no action\",\"score\":0.5,\"required_score\":15.0}",
    b"stream: OK\0",
    b"SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\nSpam: False ; 0.5 / 5.0\r\n\r\nRULE\n",
];

fn filters(address: &Address) -> [Arc<dyn Filter>; 3] {
    let mut rspamd = rspamd::Options::new(address.clone());
    let mut clamav = clamav::Options::new(address.clone());
    let mut spamd = spamassassin::Options::new(address.clone());
    (rspamd.at_once, clamav.at_once, spamd.at_once) = (2, 2, 2);
    [
        Arc::new(Rspamd::new("rspamd".into(), rspamd).unwrap()),
        Arc::new(Clamav::new("clamav".into(), clamav).unwrap()),
        Arc::new(SpamAssassin::new("spamd".into(), spamd).unwrap()),
    ]
}

/// The verdicts of all three of servers that do this, each for its protocol.
async fn verdicts(does: impl Fn(usize) -> Does) -> [Verdict; 3] {
    let mut verdicts = Vec::new();
    for protocol in 0..3 {
        let fake = Fake::start(does(protocol)).await;
        let filter = filters(&tcp(fake.address)).into_iter().nth(protocol).unwrap();
        verdicts.push(filter.check(&message(HAM)).await);
        // Nothing is left behind: only a connection that can be used again is kept.
        drop(filter);
        fake.is_alone().await;
    }
    verdicts.try_into().unwrap()
}

fn why(verdict: &Verdict) -> Why {
    unchecked(verdict.clone()).why
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_counts_also_an_octet_at_a_time() {
    for verdict in verdicts(|protocol| Does::Answer(CLEAN[protocol].to_vec())).await {
        assert!(matches!(&verdict, Verdict::Found(finding) if finding.viruses.is_empty()), "{verdict:?}");
    }
    for verdict in verdicts(|protocol| Does::Drip(CLEAN[protocol].to_vec())).await {
        assert!(matches!(verdict, Verdict::Found(_)), "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_unavailable() {
    let fake = Fake::start(Does::Hang).await;
    let address = tcp(fake.address);
    drop(fake);
    for filter in filters(&address).into_iter().chain(filters(&"unix:/nonexistent/socket".parse().unwrap())) {
        let trouble = unchecked(filter.check(&message(HAM)).await);
        assert_eq!(trouble.why, Why::Unavailable, "{trouble}");
        assert_eq!(filter.ping(Instant::now() + common::PATIENCE).await.unwrap_err().why, Why::Unavailable);
        assert_eq!(filter.health().trouble(), Some(&trouble));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_left_at_the_deadline() {
    for protocol in 0..3 {
        let fake = Fake::start(Does::Hang).await;
        let filter = filters(&tcp(fake.address)).into_iter().nth(protocol).unwrap();
        // More than sockets buffer, so that sending hangs, too.
        let mut message = message([HAM.as_bytes(), &b"line\r\n".repeat(80_000)].concat());
        message.deadline = Instant::now() + Duration::from_millis(300);
        let trouble = unchecked(filter.check(&message).await);
        assert_eq!(trouble.why, Why::TimedOut, "{trouble}");
        assert!(trouble.text.contains("has not answered within"), "{trouble}");
        assert_eq!(filter.ping(Instant::now() + Duration::from_millis(200)).await.unwrap_err().why, Why::TimedOut);
        fake.is_alone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_is_no_answer() {
    for (protocol, clean) in CLEAN.iter().enumerate() {
        for cut in 0..clean.len() {
            let fake = Fake::start(Does::Answer(clean[..cut].to_vec())).await;
            let filter = filters(&tcp(fake.address)).into_iter().nth(protocol).unwrap();
            let trouble = unchecked(filter.check(&message(HAM)).await);
            assert_eq!(trouble.why, Why::Unavailable, "{protocol} {cut} {trouble}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_not_believed() {
    for rubbish in
        [&b"\x00\x01\xff\xfe\x1b[2J\n\n"[..], b"220 mail.example.org ESMTP\r\n", b"OK FOUND\r\nmaybe\r\n\r\n"]
    {
        let verdicts = verdicts(|_| Does::Answer(rubbish.to_vec())).await;
        assert_eq!([why(&verdicts[0]), why(&verdicts[2])], [Why::Rubbish; 2]);
        assert_eq!(why(&verdicts[1]), Why::Rubbish, "{:?}", verdicts[1]);
    }
    let http = |status: &str, body: &str| {
        let length = body.len();
        Does::Answer(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
    };
    for (answer, expected) in [
        (http("200 OK", "<html>"), Why::Rubbish),
        (http("200 OK", "{}"), Why::Rubbish),
        (http("200 OK", r#"{"action":"no action","score":"much"}"#), Why::Rubbish),
        (http("302 Found", ""), Why::Rubbish),
        (http("403 Unauthorized", ""), Why::Misconfigured),
        (http("404 Not found", ""), Why::Misconfigured),
        (http("500 invalid command", r#"{"error":"invalid command"}"#), Why::Failed),
        (http("503 Service Unavailable", ""), Why::Unavailable),
    ] {
        let fake = Fake::start(answer).await;
        let trouble = unchecked(filters(&tcp(fake.address))[0].check(&message(HAM)).await);
        assert_eq!(trouble.why, expected, "{trouble}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_left() {
    let first: [&[u8]; 3] =
        [b"HTTP/1.1 200 OK\r\n\r\n{\"action\":\"no action\",\"x\":[", b"stream: ", b"SPAMD/1.1 0 EX_OK\r\nSpam: "];
    let verdicts_of_bodies = verdicts(|protocol| Does::Endless(first[protocol].to_vec(), b"1,".repeat(10_000))).await;
    assert_eq!(verdicts_of_bodies.each_ref().map(why), [Why::Rubbish; 3]);
    let heads = verdicts(|_| Does::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(10_000))).await;
    assert_eq!(heads.each_ref().map(why), [Why::Rubbish; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_messages_are_asked_at_a_time() {
    for (protocol, clean) in CLEAN.iter().enumerate() {
        let fake = Fake::start(Does::Later(Duration::from_millis(30), clean.to_vec())).await;
        let filter = filters(&tcp(fake.address)).into_iter().nth(protocol).unwrap();
        let mut checks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let filter = filter.clone();
            checks.spawn(async move { filter.check(&message(HAM)).await });
        }
        while let Some(verdict) = checks.join_next().await {
            assert!(matches!(verdict.unwrap(), Verdict::Found(_)));
        }
        // A connection that is over may not be known to be so there when the next one comes.
        assert!(fake.most.load(Ordering::SeqCst) <= 4, "{}", fake.most.load(Ordering::SeqCst));
        let health = filter.health();
        assert_eq!((health.checked, health.failed, health.running, health.waiting), (10, 0, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_given_up_leaves_nothing_behind() {
    for protocol in 0..3 {
        let fake = Fake::start(Does::Hang).await;
        let filter = filters(&tcp(fake.address)).into_iter().nth(protocol).unwrap();
        let checking = filter.clone();
        let check = tokio::spawn(async move { checking.check(&message(HAM)).await });
        while fake.most.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        check.abort();
        assert!(check.await.unwrap_err().is_cancelled());
        fake.is_alone().await;
        let health = filter.health();
        assert_eq!((health.running, health.waiting, health.failed), (0, 0, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_server_keeps_open_is_used_again_and_one_that_it_closed_is_not() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(listener.local_addr().unwrap());
    // Two requests on the first connection; when the third comes it closes without a word.
    let server = tokio::spawn(async move {
        for requests in [2, 1] {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..requests {
                let mut request = Vec::new();
                while !request.ends_with(b"the river?\r\n") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0, "another connection than expected");
                }
                stream.write_all(CLEAN[0]).await.unwrap();
            }
            if requests == 2 {
                assert!(stream.read_buf(&mut Vec::new()).await.unwrap() > 0);
            }
        }
    });
    let [filter, ..] = filters(&address);
    for _ in 0..3 {
        assert!(matches!(filter.check(&message(HAM)).await, Verdict::Found(_)));
    }
    server.await.unwrap();
}
