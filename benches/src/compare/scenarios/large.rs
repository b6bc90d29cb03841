//! Messages of 50 MB, one and ten at once: what counts is memory.

use super::first::service;
use super::{Bench, Entrant};
use crate::Done;
use crate::corpus::{self, Kind};
use crate::programs::{Job, Program, Protocol};
use crate::server;
use crate::table::{Row, Table};
use crate::verify;

const QUICK: &[Program] = &[Program::Connectord, Program::Mbsync, Program::Mpop, Program::Fdm];
const OURS: &[Program] = &[Program::Connectord];

pub(super) fn one(bench: &Bench, name: &str, protocol: Protocol) -> Done<Table> {
    let rows = measure(bench, protocol, 1, QUICK, bench.runs(1, 3))?;
    Ok(Table { scenario: name.to_owned(), about: "One message of 50 MB.".to_owned(), rows })
}

pub(super) fn ten(bench: &Bench, name: &str, protocol: Protocol) -> Done<Table> {
    let rows = measure(bench, protocol, 10, OURS, bench.runs(1, 3))?;
    let about = "Ten accounts with a message of 50 MB each, all at once; of the peers one process runs for each, and the peak is \
        that of one.";
    Ok(Table { scenario: name.to_owned(), about: about.to_owned(), rows })
}

fn measure(bench: &Bench, protocol: Protocol, accounts: usize, quick: &[Program], runs: usize) -> Done<Vec<Row>> {
    let messages = corpus::messages(&bench.cache, Kind::Large, accounts)?;
    let users: Vec<String> = (0..accounts).map(|n| format!("user{n}")).collect();
    let dovecot = server::start(&users);
    for (user, message) in users.iter().zip(messages.chunks(1)) {
        server::seed(&dovecot, user, message)?;
    }
    let entrants = bench.programs(protocol, quick);
    Ok(bench.in_turn(&entrants, runs, |entrant| {
        let Entrant::Program(program) = entrant else { return Err("no limit here".into()) };
        let directory = bench.fresh(entrant.name())?;
        let job = Job {
            protocol,
            port: dovecot.port(service(protocol)),
            users: &users,
            ca: dovecot.certificates().ca_file(),
            directory: &directory,
            only_new: false,
            start_now: false,
            parallel: accounts,
            connections: 0,
        };
        let cost = bench.measure(&program.prepare(&job)?, entrant.name())?;
        for (user, message) in users.iter().zip(messages.chunks(1)) {
            verify::maildir(&job.maildir(user), message)?;
        }
        bench.done_with(&directory)?;
        Ok((cost, None))
    }))
}
