//! The first retrieval of a mailbox: on a quiet disk, on a busy one, through a long line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use connectord_testkit::{Dovecot, Service};

use super::{Bench, Entrant, limit_plan, octets, sizes};
use crate::Done;
use crate::corpus::{self, Kind};
use crate::line::Line;
use crate::load::{self, Load};
use crate::programs::{Job, Program, Protocol};
use crate::server;
use crate::table::{Row, Table};
use crate::verify;

/// The fastest peers; the others take minutes.
const QUICK: &[Program] = &[Program::Connectord, Program::Mbsync, Program::Mpop, Program::Fdm];
const PIPELINING: &[Program] = &[Program::Connectord, Program::Mbsync, Program::Mpop];

/// Half of what is written here is the round trip of the line.
const ROUND_TRIP: Duration = Duration::from_millis(40);

const USER: &str = "ann";

pub(super) fn first(bench: &Bench, name: &str, protocol: Protocol) -> Done<Table> {
    let setting = Setting { quick: QUICK, disk: true, runs: bench.runs(3, 5), ..Setting::new(bench, protocol) };
    setting.run(name, "A mailbox is retrieved for the first time, over loopback, by a quiet disk")
}

pub(super) fn busy(bench: &Bench, name: &str, protocol: Protocol) -> Done<Table> {
    let setting =
        Setting { quick: QUICK, disk: true, busy: true, runs: bench.runs(1, 3), ..Setting::new(bench, protocol) };
    setting.run(name, &format!("The same while the disk is busy: {}", load::WHAT))
}

pub(super) fn line(bench: &Bench, name: &str, protocol: Protocol) -> Done<Table> {
    let messages = bench.messages.unwrap_or(1000);
    let runs = bench.runs(3, 5);
    let setting = Setting { quick: PIPELINING, line: true, runs, messages, ..Setting::new(bench, protocol) };
    setting.run(name, "A mailbox is retrieved for the first time through a line with a round trip of 40 ms")
}

/// For the plot: notes, so that their number is what costs.
pub(super) fn notes(
    bench: &Bench,
    protocol: Protocol,
    quick: &[Program],
    messages: usize,
    runs: usize,
) -> Done<Vec<Row>> {
    let setting = Setting { quick, runs, messages, kind: Kind::Notes, ..Setting::new(bench, protocol) };
    Ok(setting.run("", "")?.rows)
}

struct Setting<'a> {
    bench: &'a Bench,
    kind: Kind,
    protocol: Protocol,
    quick: &'a [Program],
    disk: bool,
    busy: bool,
    line: bool,
    runs: usize,
    messages: usize,
}

impl<'a> Setting<'a> {
    fn new(bench: &'a Bench, protocol: Protocol) -> Self {
        let messages = bench.messages.unwrap_or(2000);
        Self {
            bench,
            kind: Kind::Mixed,
            protocol,
            quick: QUICK,
            disk: false,
            busy: false,
            line: false,
            runs: 1,
            messages,
        }
    }

    fn run(&self, name: &str, about: &str) -> Done<Table> {
        let bench = self.bench;
        let messages = corpus::messages(&bench.cache, self.kind, self.messages)?;
        let dovecot = server::start(&[USER.to_owned()]);
        server::seed(&dovecot, USER, &messages)?;
        let direct = dovecot.port(service(self.protocol));
        let line =
            Line::start(dovecot.address(service(self.protocol)), if self.line { ROUND_TRIP } else { Duration::ZERO })?;
        let port = if self.line { line.port() } else { direct };

        let count = messages.len();
        let mut limits = match self.protocol {
            Protocol::Imaps => vec![
                ("transfer alone", format!("imap --messages {count}")),
                ("transfer alone, 4 connections", format!("imap --messages {count} --connections 4")),
            ],
            Protocol::Pop3s => vec![("transfer alone", format!("pop3 --messages {count}"))],
        };
        // Dovecot makes its index and reads the files once.
        let warm = limit_plan(&words(&limits[0].1), &connection(direct, &dovecot))?;
        bench.measure(&warm, "warm")?;
        let sizes = sizes(&messages, &bench.work.join("sizes"))?;
        if self.disk {
            limits.push(("disk alone, 16 threads", format!("disk --threads 16 --sizes {sizes}")));
            limits.push(("disk alone, one after the other", format!("disk --threads 1 --sizes {sizes}")));
            limits.push(("disk alone, syncfs for 250 each", format!("disk --syncfs --sizes {sizes}")));
        }
        let mut entrants = bench.programs(self.protocol, self.quick);
        // Through a long line several connections carry more.
        let ours = |entrant: &Entrant| matches!(entrant, Entrant::Program(Program::Connectord));
        if self.line
            && self.protocol == Protocol::Imaps
            && let Some(at) = entrants.iter().position(ours)
        {
            entrants.insert(at + 1, Entrant::Program(Program::Wide));
        }
        entrants.extend(bench.limits(&limits));
        let rows = bench.in_turn(&entrants, self.runs, |entrant| {
            let directory = bench.fresh(entrant.name())?;
            line.take();
            let load = if self.busy { Some(Load::start(&bench.work.join("load"))?) } else { None };
            let cost = match entrant {
                Entrant::Program(program) => {
                    let users = [USER.to_owned()];
                    let job = Job {
                        protocol: self.protocol,
                        port,
                        users: &users,
                        ca: dovecot.certificates().ca_file(),
                        directory: &directory,
                        only_new: false,
                        start_now: false,
                        parallel: 1,
                        connections: bench.connections,
                    };
                    let cost = bench.measure(&program.prepare(&job)?, entrant.name())?;
                    drop(load);
                    verify::maildir(&job.maildir(USER), &messages)?;
                    cost
                }
                Entrant::Limit(_, words) => {
                    bench.measure(&self.limit(words, port, &dovecot, &directory)?, entrant.name())?
                }
            };
            bench.done_with(&directory)?;
            Ok((cost, self.line.then(|| line.take())))
        });
        let about = format!("{about}: {count} messages, {:.1} MB.", octets(&messages)? as f64 / 1e6);
        Ok(Table { scenario: name.to_owned(), about, rows })
    }

    fn limit(&self, words: &[String], port: u16, dovecot: &Dovecot, directory: &Path) -> Done<crate::measure::Plan> {
        match words[0].as_str() {
            "disk" => limit_plan(words, &[("--to", directory.join("Maildir").display().to_string())]),
            _ => limit_plan(words, &connection(port, dovecot)),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn connection(port: u16, dovecot: &Dovecot) -> [(&'static str, String); 3] {
    let ca: PathBuf = dovecot.certificates().ca_file().to_owned();
    [("--port", port.to_string()), ("--ca", ca.display().to_string()), ("--users", USER.to_owned())]
}

pub(super) fn service(protocol: Protocol) -> Service {
    match protocol {
        Protocol::Imaps => Service::Imaps,
        Protocol::Pop3s => Service::Pop3s,
    }
}
