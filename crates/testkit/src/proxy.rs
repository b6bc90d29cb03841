use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use connectord_sample::runtime;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// In order: the peers read an end of file.
    Fin,
    /// By a reset: the peers get an error.
    Rst,
}

/// Which way octets go through a [`FaultProxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the server to the client.
    ToClient,
    /// From the client to the server.
    ToServer,
}

/// What goes wrong in one direction of a connection; by default nothing does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    cut_after: Option<(u64, Cut)>,
    stall_after: Option<u64>,
    drip: Option<(usize, Duration)>,
    delay: Duration,
}

impl Fault {
    /// Octets pass as they come.
    pub fn none() -> Self {
        Self::default()
    }

    /// Exactly `octets` pass, then both sides of the connection are cut.
    ///
    /// A reset is held back for 20 ms, so that what passed is read and not thrown away with it.
    pub fn cut_after(mut self, octets: u64, cut: Cut) -> Self {
        self.cut_after = Some((octets, cut));
        self
    }

    /// Exactly `octets` pass, then no more, and the connection stays open.
    pub fn stall_after(mut self, octets: u64) -> Self {
        self.stall_after = Some(octets);
        self
    }

    /// Every octet is sent by itself. What the other side reads at once may still be several; for certainty
    /// [`drip`](Self::drip).
    pub fn octet_by_octet(self) -> Self {
        self.drip(1, Duration::ZERO)
    }

    /// At most `octets` (at least 1) are sent at a time, then nothing for `every`.
    pub fn drip(mut self, octets: usize, every: Duration) -> Self {
        self.drip = Some((octets.max(1), every));
        self
    }

    /// Every octet arrives that much later than it was sent. Octets wait in a queue: a delay makes round trips long but
    /// does not make the line slow.
    pub fn delay(mut self, by: Duration) -> Self {
        self.delay = by;
        self
    }
}

/// What goes wrong with one connection; by default nothing does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// From the server to the client.
    pub to_client: Fault,
    /// From the client to the server.
    pub to_server: Fault,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Only what the client receives goes wrong.
    pub fn to_client(fault: Fault) -> Self {
        Self { to_client: fault, ..Self::default() }
    }

    /// Only what the server receives goes wrong.
    pub fn to_server(fault: Fault) -> Self {
        Self { to_server: fault, ..Self::default() }
    }

    /// Both directions are late by half of `round_trip`.
    pub fn round_trip(round_trip: Duration) -> Self {
        let fault = Fault::none().delay(round_trip / 2);
        Self { to_client: fault, to_server: fault }
    }
}

/// A TCP proxy on 127.0.0.1 in front of any server, which cuts, stalls, drips and delays as it is told.
///
/// ```
/// use std::io::{Read, Write};
/// use connectord_testkit::{Cut, Fault, FaultProxy, Faults};
///
/// let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let proxy = FaultProxy::start(server.local_addr()?);
/// proxy.set(Faults::to_client(Fault::none().cut_after(4, Cut::Fin)));
/// let mut client = std::net::TcpStream::connect(proxy.address())?;
/// server.accept()?.0.write_all(b"+OK ready\r\n")?;
/// let mut received = Vec::new();
/// client.read_to_end(&mut received)?;
/// assert_eq!(received, b"+OK ");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    faults: Mutex<(Faults, VecDeque<Faults>)>,
    refuses: AtomicBool,
    connections: AtomicUsize,
    to_client: AtomicU64,
    to_server: AtomicU64,
    open: Mutex<Vec<Weak<watch::Sender<Option<Cut>>>>>,
}

impl FaultProxy {
    /// Listens on a free port and forwards every connection to `target`, without faults until [`set`](Self::set).
    pub fn start(target: SocketAddr) -> Self {
        let (listener, address) = runtime::listen(0);
        let shared = Arc::new(Shared {
            target,
            faults: Mutex::default(),
            refuses: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            to_client: AtomicU64::new(0),
            to_server: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let task = runtime::handle().spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The faults of every connection made from now on.
    pub fn set(&self, faults: Faults) {
        locked(&self.shared.faults).0 = faults;
    }

    /// The faults of one connection, the next that has none queued before; after it [`set`](Self::set) holds again.
    pub fn next(&self, faults: Faults) {
        locked(&self.shared.faults).1.push_back(faults);
    }

    /// While true, every new connection is reset at once.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Ends every connection that is open.
    pub fn cut_all(&self, cut: Cut) {
        for connection in locked(&self.shared.open).drain(..).filter_map(|c| c.upgrade()) {
            connection.send_replace(Some(cut));
        }
    }

    /// Connections accepted so far, with those refused.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Octets passed on so far in one direction, over all connections.
    pub fn octets(&self, direction: Direction) -> u64 {
        self.shared.counter(direction).load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut_all(Cut::Rst);
    }
}

impl Shared {
    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToClient => &self.to_client,
            Direction::ToServer => &self.to_server,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        if shared.refuses.load(Ordering::SeqCst) {
            let _ = client.set_zero_linger();
            continue;
        }
        let faults = {
            let mut faults = locked(&shared.faults);
            faults.1.pop_front().unwrap_or(faults.0)
        };
        let cut = Arc::new(watch::Sender::new(None));
        let mut open = locked(&shared.open);
        open.retain(|connection| connection.strong_count() > 0);
        open.push(Arc::downgrade(&cut));
        tokio::spawn(forward(client, faults, cut, Arc::clone(&shared)));
    }
}

async fn forward(client: TcpStream, faults: Faults, cut: Arc<watch::Sender<Option<Cut>>>, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(shared.target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let up = pump(from_client, to_server, faults.to_server, Direction::ToServer, &cut, &shared);
    let down = pump(from_server, to_client, faults.to_client, Direction::ToClient, &cut, &shared);
    tokio::join!(up, down);
}

/// Carries one direction until its end of file, a cut of either direction, or an error.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: Fault,
    direction: Direction,
    cut: &watch::Sender<Option<Cut>>,
    shared: &Shared,
) {
    let mut cuts = cut.subscribe();
    let reason = tokio::select! {
        reason = cuts.wait_for(Option::is_some) => reason.ok().and_then(|cut| *cut),
        () = carry(&mut from, &mut to, fault, direction, cut, shared) => None,
    };
    // A cut that this direction made itself is not seen above, as its own branch ended first.
    let reason = reason.or_else(|| *cut.borrow());
    match reason {
        Some(Cut::Rst) => {
            sleep(Duration::from_millis(20)).await;
            let _ = to.as_ref().set_zero_linger();
            // Dropped, this half would end in order what is to be reset.
            to.forget();
        }
        Some(Cut::Fin) => {
            let _ = to.shutdown().await;
            // Closing with octets unread would send a reset.
            let mut discard = [0; 8192];
            let _ =
                timeout(Duration::from_secs(5), async { while from.read(&mut discard).await.is_ok_and(|n| n > 0) {} })
                    .await;
        }
        None => {
            let _ = to.shutdown().await;
        }
    }
}

/// Octets that were read and wait for their time.
struct Queued {
    due: Instant,
    octets: Vec<u8>,
}

/// Longest queue of a delayed direction, in octets; a reader that does not read stops the writer only beyond it.
const MAX_QUEUED: usize = 64 << 20;

async fn carry(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    fault: Fault,
    direction: Direction,
    cut: &watch::Sender<Option<Cut>>,
    shared: &Shared,
) {
    let mut queue: VecDeque<Queued> = VecDeque::new();
    let (mut queued, mut read, mut passed) = (0, 0_u64, 0_u64);
    let limit = fault.cut_after.map_or(u64::MAX, |(octets, _)| octets).min(fault.stall_after.unwrap_or(u64::MAX));
    let mut buffer = vec![0; 64 << 10];
    let mut ended = false;
    loop {
        if let Some((octets, how)) = fault.cut_after
            && passed >= octets
        {
            cut.send_replace(Some(how));
            return;
        }
        if ended && queue.is_empty() {
            return;
        }
        let room = usize::try_from((limit - read).min(buffer.len() as u64)).expect("at most the buffer");
        let may_read = !ended && room > 0 && queued < MAX_QUEUED;
        let due = queue.front().map(|first| first.due);
        if !may_read && due.is_none() {
            // Stalled: until the other direction, or somebody outside, ends the connection.
            return std::future::pending().await;
        }
        tokio::select! {
            biased;
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let Queued { octets, .. } = queue.pop_front().expect("it has a first");
                queued -= octets.len();
                let (size, pause) = fault.drip.unwrap_or((usize::MAX, Duration::ZERO));
                for chunk in octets.chunks(size) {
                    if to.write_all(chunk).await.is_err() {
                        return cut_short(cut);
                    }
                    passed += chunk.len() as u64;
                    shared.counter(direction).fetch_add(chunk.len() as u64, Ordering::SeqCst);
                    if fault.drip.is_some() {
                        if pause.is_zero() { tokio::task::yield_now().await } else { sleep(pause).await }
                    }
                }
            }
            result = from.read(&mut buffer[..room]), if may_read => match result {
                Ok(0) => ended = true,
                Ok(n) => {
                    read += n as u64;
                    queued += n;
                    queue.push_back(Queued { due: Instant::now() + fault.delay, octets: buffer[..n].to_vec() });
                }
                Err(_) => return cut_short(cut),
            },
        }
    }
}

/// A peer was reset: so is the other.
fn cut_short(cut: &watch::Sender<Option<Cut>>) {
    cut.send_replace(Some(Cut::Rst));
}
