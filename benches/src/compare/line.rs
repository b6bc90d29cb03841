//! A long line without the kernel's help: a proxy that hands every octet on half a round trip later than it came.
//!
//! What it models of TCP: connecting takes a round trip; a connection starts with ten segments in flight and doubles that
//! in each round trip (slow start, RFC 6928) up to a window, after which it carries a window in each round trip. There is
//! no other limit of bandwidth, no loss, and connections do not share anything. With a round trip of zero there is no
//! window either: then it only counts.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::Done;

/// What a connection may have in flight at first, and at most; octets.
const FIRST_WINDOW: usize = 10 * 1460;
/// 2.5 MiB in 40 ms are 65 MB/s.
const LAST_WINDOW: usize = 2_621_440;

/// What went through a line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed {
    pub(crate) to_client: u64,
    pub(crate) to_server: u64,
    /// How often octets for the server followed octets from it: round trips, if they were waited for.
    pub(crate) turns: u64,
    pub(crate) connections: u64,
}

#[derive(Debug, Default)]
struct Counters {
    to_client: AtomicU64,
    to_server: AtomicU64,
    turns: AtomicU64,
    connections: AtomicU64,
}

/// A running line; its threads end with their connections, the listener's with the process.
#[derive(Debug)]
pub(crate) struct Line {
    port: u16,
    counters: Arc<Counters>,
}

impl Line {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start(target: SocketAddr, round_trip: Duration) -> Done<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || connection(&client, target, round_trip, &shared));
            }
        });
        Ok(Self { port, counters })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What has passed since the last call.
    pub(crate) fn take(&self) -> Passed {
        // The last octets are counted by threads that may still be about it.
        thread::sleep(Duration::from_millis(50));
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::SeqCst);
        let counters = &self.counters;
        Passed {
            to_client: take(&counters.to_client),
            to_server: take(&counters.to_server),
            turns: take(&counters.turns),
            connections: take(&counters.connections),
        }
    }
}

fn connection(client: &TcpStream, target: SocketAddr, round_trip: Duration, counters: &Arc<Counters>) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    counters.connections.fetch_add(1, Ordering::SeqCst);
    // The kernel has answered the client's SYN at once: what it sends before a round trip has passed, it could not have.
    let open = Instant::now() + round_trip;
    let heard = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            carry(client, &server, round_trip, open, &|octets| {
                counters.to_server.fetch_add(octets as u64, Ordering::SeqCst);
                if heard.swap(false, Ordering::SeqCst) {
                    counters.turns.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
        carry(&server, client, round_trip, open, &|octets| {
            counters.to_client.fetch_add(octets as u64, Ordering::SeqCst);
            heard.store(true, Ordering::SeqCst);
        });
    });
}

/// One direction: this thread reads and stamps, another hands on when it is time.
fn carry(from: &TcpStream, to: &TcpStream, round_trip: Duration, open: Instant, count: &dyn Fn(usize)) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut to = to;
            for (due, octets) in receive {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&octets).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut from = from;
        let mut window = Window::new(round_trip);
        let mut buffer = vec![0; 128 << 10];
        loop {
            let room = window.room().min(buffer.len());
            let Ok(octets @ 1..) = from.read(&mut buffer[..room]) else { break };
            count(octets);
            let sent = Instant::now().max(open);
            window.sent(sent, octets);
            if send.send((sent + round_trip / 2, buffer[..octets].to_vec())).is_err() {
                break;
            }
        }
        drop(send);
    });
}

/// TCP's windows, as far as they matter here.
struct Window {
    round_trip: Duration,
    size: usize,
    in_flight: usize,
    acknowledged: VecDeque<(Instant, usize)>,
}

impl Window {
    fn new(round_trip: Duration) -> Self {
        let size = if round_trip.is_zero() { usize::MAX } else { FIRST_WINDOW };
        Self { round_trip, size, in_flight: 0, acknowledged: VecDeque::new() }
    }

    /// How many octets may be sent now; waits until it is one at least.
    fn room(&mut self) -> usize {
        loop {
            let now = Instant::now();
            while self.acknowledged.front().is_some_and(|(at, _)| *at <= now)
                && let Some((_, octets)) = self.acknowledged.pop_front()
            {
                self.in_flight -= octets;
                self.size = self.size.saturating_add(octets).min(LAST_WINDOW.max(self.size));
            }
            if self.in_flight < self.size {
                return self.size - self.in_flight;
            }
            if let Some((at, _)) = self.acknowledged.front() {
                thread::sleep(at.saturating_duration_since(now));
            }
        }
    }

    fn sent(&mut self, at: Instant, octets: usize) {
        if self.size < usize::MAX {
            self.in_flight += octets;
            self.acknowledged.push_back((at + self.round_trip, octets));
        }
    }
}
