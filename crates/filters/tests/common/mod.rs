//! What the tests of all filters share: messages, and servers that misbehave.
#![allow(dead_code, clippy::unwrap_used)] // each test uses its part

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectord_filter::{Filter, Finding, Message, Unchecked, Verdict, battery};
use connectord_mail::{Body, DeliveryId, Envelope, Head, Identity, Relays};
use connectord_wire::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// More than anything takes on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) const HAM: &str = "From: Ann <ann@shop.test>\r\nTo: Bob <bob@example.org>\r\nSubject: lunch\r\n\
    Date: Mon, 30 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@shop.test>\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\r\nShall we meet at noon, as every Monday, in the small place by the river?\r\n";

/// A message that every antispam filter takes for spam.
pub(crate) fn gtube() -> String {
    HAM.replace("Shall we", &["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"].concat())
}

/// A message with the file that every antivirus finds, as an attachment in base64.
pub(crate) fn eicar() -> String {
    let base64 = ["WDVPIVAlQEFQWzRcUFpYNTQoUF4pN0NDKTd9JEVJQ0FSLVNUQU5E", "QVJELUFOVElWSVJVUy1URVNULUZJTEUhJEgrSCo="];
    format!(
        "From: a@shop.test\r\nTo: b@example.org\r\nSubject: invoice\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee there\r\n--b\r\n\
         Content-Type: application/octet-stream; name=\"invoice.com\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"invoice.com\"\r\n\r\n{}\r\n--b--\r\n",
        base64.concat()
    )
}

pub(crate) fn message(octets: impl Into<Bytes>) -> Message {
    let octets = octets.into();
    let head = octets.slice(..Head::of(&octets).octets().len());
    with_body(head, Arc::new(octets))
}

pub(crate) fn with_body(head: Bytes, body: Arc<dyn Body>) -> Message {
    Message {
        id: DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: &head, generation: 0 }),
        account: "bob@example.org".into(),
        recipients: vec!["bob@example.org".into()],
        envelope: Envelope::recover(Head::of(&head)),
        head,
        body,
        deadline: Instant::now() + PATIENCE,
    }
}

/// A message of which the provider's fields are believed.
pub(crate) fn trusting(octets: &str, relays: &Relays) -> Message {
    let mut message = message(octets.to_owned());
    message.envelope = Envelope::recover_trusting(message.head(), relays);
    message
}

pub(crate) async fn found(filter: &dyn Filter, octets: impl Into<Bytes>) -> Finding {
    match filter.check(&message(octets)).await {
        Verdict::Found(finding) => finding,
        Verdict::Unchecked(trouble) => panic!("{}: {:?} {trouble}", filter.describe(), trouble.why),
    }
}

pub(crate) fn unchecked(verdict: Verdict) -> Unchecked {
    match verdict {
        Verdict::Unchecked(trouble) => {
            assert!(!trouble.text.chars().any(char::is_control), "{trouble}");
            trouble
        }
        Verdict::Found(finding) => panic!("it was checked: {finding:?}"),
    }
}

pub(crate) async fn passes_the_battery(filter: &dyn Filter) {
    battery::run(filter, &Instant::now, PATIENCE).await;
    assert_eq!((filter.health().running, filter.health().waiting), (0, 0));
}

pub(crate) fn tcp(address: SocketAddr) -> Address {
    address.to_string().parse().unwrap()
}

/// A server that answers every connection the same way.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    /// Most connections that were served at a time.
    pub(crate) most: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// What it does with a connection, once the first octets have come.
#[derive(Clone)]
pub(crate) enum Does {
    /// Nothing, and it reads nothing more.
    Hang,
    /// Answers, and closes its end.
    Answer(Vec<u8>),
    /// Answers an octet at a time.
    Drip(Vec<u8>),
    /// Answers the first and then the second for ever.
    Endless(Vec<u8>, Vec<u8>),
    /// Answers after a while.
    Later(Duration, Vec<u8>),
}

impl Fake {
    pub(crate) async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let peak = most.clone();
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let (does, count) = (does.clone(), count.clone());
                serving.spawn(async move {
                    let _ = serve(stream, does).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, most, task }
    }

    /// Waits until no socket of this process is connected to it any more.
    pub(crate) async fn is_alone(&self) {
        let port = format!(":{:04X}", self.address.port());
        let is_ours = |line: &str| {
            let mut fields = line.split_whitespace().skip(2);
            // A socket that nobody owns any more has the inode 0.
            fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.nth(6) != Some("0")
        };
        let deadline = Instant::now() + PATIENCE;
        while std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(is_ours) {
            assert!(Instant::now() < deadline, "a connection to it is still open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, does: Does) -> std::io::Result<()> {
    let mut block = vec![0; 64 * 1024];
    let _ = stream.read(&mut block).await?;
    if let Does::Hang = does {
        return std::future::pending().await;
    }
    let (mut from, mut to) = stream.split();
    let answer = async {
        match does {
            Does::Hang => {}
            Does::Answer(octets) => to.write_all(&octets).await?,
            Does::Later(wait, octets) => {
                tokio::time::sleep(wait).await;
                to.write_all(&octets).await?;
            }
            Does::Drip(octets) => {
                for octet in octets {
                    to.write_all(&[octet]).await?;
                    tokio::task::yield_now().await;
                }
            }
            Does::Endless(first, again) => {
                to.write_all(&first).await?;
                while to.write_all(&again).await.is_ok() {}
            }
        }
        to.shutdown().await
    };
    let drain = async {
        let mut block = vec![0; 64 * 1024];
        while let Ok(1..) = from.read(&mut block).await {}
    };
    let (answered, ()) = tokio::join!(answer, drain);
    answered
}

/// A message that stops in its middle until it is told to go on.
pub(crate) struct Halting {
    octets: Bytes,
    reached: std::sync::Mutex<Option<std::sync::mpsc::Sender<()>>>,
    go_on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Halting {
    /// The message, what tells that its middle is reached, and what lets it go on.
    pub(crate) fn message(octets: Bytes) -> (Message, std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<()>) {
        let (reached, is_reached) = std::sync::mpsc::channel();
        let (let_on, go_on) = std::sync::mpsc::channel();
        let head = octets.slice(..Head::of(&octets).octets().len());
        let body = Self { octets, reached: Some(reached).into(), go_on: go_on.into() };
        (with_body(head, Arc::new(body)), is_reached, let_on)
    }
}

impl Body for Halting {
    fn size_octets(&self) -> u64 {
        self.octets.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        if offset >= self.size_octets() / 2
            && let Some(reached) = self.reached.lock().unwrap().take()
        {
            let _ = reached.send(());
            let _ = self.go_on.lock().unwrap().recv_timeout(PATIENCE);
        }
        self.octets.read_at(offset, buffer)
    }
}

/// What the tests do to a real server.
pub(crate) trait Real {
    fn kill(&mut self);
    fn restart(&mut self);
    fn suspend(&self);
    fn resume(&self);
}

macro_rules! real {
    ($($server:ty),*) => {$(
        impl Real for $server {
            fn kill(&mut self) {
                Self::kill(self);
            }
            fn restart(&mut self) {
                Self::restart(self);
            }
            fn suspend(&self) {
                Self::suspend(self);
            }
            fn resume(&self) {
                Self::resume(self);
            }
        }
    )*};
}

real!(connectord_testkit::Rspamd, connectord_testkit::Clamd, connectord_testkit::Spamd);

/// A server that goes down in the middle of a message, stays down, comes back, and hangs: nothing is passed as clean
/// meanwhile, and the filter works again without being made anew.
pub(crate) async fn survives_its_server(filter: Arc<dyn Filter>, server: &mut dyn Real) {
    let long = Bytes::from([HAM.as_bytes(), &b"and so on, and so on, and so on\r\n".repeat(8_000)].concat());
    let (message_in_pieces, reached, go_on) = Halting::message(long);
    let checking = filter.clone();
    let check = tokio::spawn(async move { checking.check(&message_in_pieces).await });
    let reached = tokio::task::spawn_blocking(move || reached.recv_timeout(PATIENCE)).await.unwrap();
    reached.expect("the message is read");
    server.kill();
    go_on.send(()).unwrap();
    let trouble = unchecked(check.await.unwrap());
    assert_eq!(trouble.why, connectord_filter::Why::Unavailable, "{trouble}");

    let trouble = unchecked(filter.check(&message(HAM)).await);
    assert_eq!(trouble.why, connectord_filter::Why::Unavailable, "{trouble}");
    assert!(filter.ping(Instant::now() + PATIENCE).await.is_err());

    server.restart();
    filter.ping(Instant::now() + PATIENCE).await.expect("it is back");
    found(&*filter, HAM).await;
    assert_eq!(filter.health().trouble(), None);

    server.suspend();
    let mut hung = message(HAM);
    hung.deadline = Instant::now() + Duration::from_secs(1);
    let trouble = unchecked(filter.check(&hung).await);
    assert_eq!(trouble.why, connectord_filter::Why::TimedOut, "{trouble}");
    let pinged = filter.ping(Instant::now() + Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(pinged.why, connectord_filter::Why::TimedOut, "{pinged}");
    server.resume();
    found(&*filter, HAM).await;
}
