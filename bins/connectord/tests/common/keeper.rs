//! A small LMTP or SMTP server that keeps what it is sent, and dies or hangs where it is told to.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::with_lf;

/// Which of the two it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Lmtp,
    Smtp,
}

/// What happens at a dot, after the message was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dot {
    /// It is answered.
    Answer,
    /// Every connection ends without an answer: the server died.
    Die,
    /// There is no answer for as long as the connection lasts.
    Hang,
    /// It is refused for good, and nothing is kept.
    Refuse,
}

/// A message as it was kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// `X-Connectord-Id`.
    pub(crate) id: String,
    /// `X-Connectord-Attempt`.
    pub(crate) attempt: Option<u32>,
    /// What MAIL FROM said, without brackets.
    pub(crate) sender: String,
    pub(crate) recipients: Vec<String>,
    /// With LF.
    pub(crate) octets: Vec<u8>,
}

#[derive(Default)]
struct World {
    kept: Vec<Kept>,
    connections: Vec<TcpStream>,
    /// What happens at the dot with this number, from 1; at the others they are answered.
    fault: Option<(usize, Dot)>,
    dots: usize,
    /// Recipients that are refused, and how.
    refused: BTreeMap<String, String>,
}

/// The server; it lives as long as the test's process.
#[derive(Clone)]
pub(crate) struct Keeper {
    address: SocketAddr,
    world: Arc<(Mutex<World>, Condvar)>,
}

impl Keeper {
    pub(crate) fn start(speaks: Speaks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = Self { address: listener.local_addr().unwrap(), world: Arc::default() };
        let keeper = here.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                keeper.lock().connections.push(stream.try_clone().unwrap());
                let keeper = keeper.clone();
                // A client that breaks off is its own affair.
                std::thread::spawn(move || keeper.serve(speaks, stream).ok());
            }
        });
        here
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.0.lock().unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// At the n-th dot from now, from 1, this happens.
    pub(crate) fn at_dot(&self, number: usize, what: Dot) {
        let mut world = self.lock();
        (world.dots, world.fault) = (0, Some((number, what)));
    }

    /// This recipient is refused with this answer; with `None` not any more.
    pub(crate) fn refuse(&self, recipient: &str, answer: Option<&str>) {
        let mut world = self.lock();
        match answer {
            Some(answer) => drop(world.refused.insert(recipient.into(), answer.into())),
            None => drop(world.refused.remove(recipient)),
        }
    }

    pub(crate) fn kept(&self) -> Vec<Kept> {
        self.lock().kept.clone()
    }

    /// Waits up to 20 s until so many messages were kept since the start.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) {
        let (world, changed) = &*self.world;
        let enough = |world: &mut World| world.kept.len() < count;
        let waited = changed.wait_timeout_while(world.lock().unwrap(), Duration::from_secs(20), enough).unwrap();
        assert!(!waited.1.timed_out(), "waited 20 s in vain for {count} messages, {} came", waited.0.kept.len());
    }

    fn serve(&self, speaks: Speaks, stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut out = &stream;
        out.write_all(b"220 keeper\r\n")?;
        let (mut sender, mut recipients) = (String::new(), Vec::new());
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let upper = line.trim_end().to_uppercase();
            let path = || line.split('<').nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default().to_owned();
            match upper.split([' ', ':']).next().unwrap_or_default() {
                "LHLO" | "EHLO" => out.write_all(b"250-keeper\r\n250-PIPELINING\r\n250 8BITMIME\r\n")?,
                "MAIL" => {
                    (sender, recipients) = (path(), Vec::new());
                    out.write_all(b"250 ok\r\n")?;
                }
                "RCPT" => match self.lock().refused.get(&path()) {
                    Some(answer) => out.write_all(format!("{answer}\r\n").as_bytes())?,
                    None => {
                        recipients.push(path());
                        out.write_all(b"250 ok\r\n")?;
                    }
                },
                "DATA" if recipients.is_empty() => out.write_all(b"554 nobody to send to\r\n")?,
                "DATA" => {
                    out.write_all(b"354 go on\r\n")?;
                    let octets = data(&mut lines)?;
                    let answers = if speaks == Speaks::Lmtp { recipients.len() } else { 1 };
                    match self.keep(&sender, &recipients, octets) {
                        Dot::Answer => {}
                        Dot::Refuse => {
                            out.write_all("554 5.6.0 not this one\r\n".repeat(answers).as_bytes())?;
                            continue;
                        }
                        Dot::Die => return Ok(()),
                        Dot::Hang => {
                            let mut rest = Vec::new();
                            lines.read_until(0, &mut rest)?;
                            return Ok(());
                        }
                    }
                    out.write_all("250 kept\r\n".repeat(answers).as_bytes())?;
                }
                "QUIT" => return out.write_all(b"221 bye\r\n"),
                "RSET" | "NOOP" => out.write_all(b"250 ok\r\n")?,
                _ => out.write_all(b"502 what\r\n")?,
            }
        }
    }

    fn keep(&self, sender: &str, recipients: &[String], octets: Vec<u8>) -> Dot {
        let text = String::from_utf8_lossy(&octets).into_owned();
        let header = text.split("\n\n").next().unwrap_or_default();
        let field =
            |name: &str| header.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
        let mut world = self.lock();
        world.dots += 1;
        let dots = world.dots;
        let what = world.fault.filter(|(at, _)| *at == dots).map_or(Dot::Answer, |(_, what)| what);
        if what == Dot::Refuse {
            return what;
        }
        world.kept.push(Kept {
            id: field("X-Connectord-Id").expect("every message carries our id"),
            attempt: field("X-Connectord-Attempt").map(|attempt| attempt.parse().unwrap()),
            sender: sender.to_owned(),
            recipients: recipients.to_vec(),
            octets,
        });
        if what == Dot::Die {
            for connection in world.connections.drain(..) {
                // It may have gone already.
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        self.world.1.notify_all();
        what
    }
}

/// The message up to the dot, without dot-stuffing.
fn data(lines: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(with_lf(&octets));
        }
        octets.extend_from_slice(if line.starts_with(b".") { &line[1..] } else { &line });
    }
}
