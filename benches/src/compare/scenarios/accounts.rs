//! Many accounts with a few new messages each.

use connectord_testkit::Service;

use super::{Bench, Entrant, limit_plan};
use crate::Done;
use crate::corpus::{self, Kind};
use crate::programs::{Job, Program, Protocol};
use crate::server;
use crate::table::{Row, Table};
use crate::verify;

const ACCOUNTS: usize = 200;
const EACH: usize = 10;
/// Sessions at once, for every entrant.
const AT_ONCE: usize = 20;

const QUICK: &[Program] = &[Program::Connectord, Program::Mpop];

pub(super) fn accounts(bench: &Bench, name: &str) -> Done<Table> {
    let rows = measure(bench, QUICK, ACCOUNTS, bench.runs(3, 5))?;
    let about = format!(
        "{ACCOUNTS} accounts of one POP3S server with {EACH} new letters of 1 to 10 kB each, {AT_ONCE} sessions at once. connectord is one \
         process; of the peers one runs for each account, {AT_ONCE} at a time, and their peak is that of one."
    );
    Ok(Table { scenario: name.to_owned(), about, rows })
}

pub(super) fn measure(bench: &Bench, quick: &[Program], accounts: usize, runs: usize) -> Done<Vec<Row>> {
    let letters = corpus::messages(&bench.cache, Kind::Letters, accounts * EACH)?;
    let users: Vec<String> = (0..accounts).map(|n| format!("user{n}")).collect();
    let dovecot = server::start(&users);
    for (user, letters) in users.iter().zip(letters.chunks(EACH)) {
        server::seed(&dovecot, user, letters)?;
    }
    let port = dovecot.port(Service::Pop3s);
    let ca = dovecot.certificates().ca_file();
    let null = |words: &[String]| {
        let more = [("--port", port.to_string()), ("--ca", ca.display().to_string()), ("--users", users.join(","))];
        limit_plan(words, &more)
    };
    let words = format!("pop3 --uidl --messages {EACH} --parallel {AT_ONCE}");
    let mut entrants = bench.programs(Protocol::Pop3s, quick);
    let limit = Entrant::limit("null client, mail thrown away", &words);
    if let Entrant::Limit(_, words) = &limit {
        // Dovecot makes its indexes.
        bench.measure(&null(words)?, "warm")?;
    }
    entrants.extend(bench.limits(&[(limit.name(), words)]));
    Ok(bench.in_turn(&entrants, runs, |entrant| {
        let directory = bench.fresh(entrant.name())?;
        let cost = match entrant {
            Entrant::Program(program) => {
                let job = Job {
                    protocol: Protocol::Pop3s,
                    port,
                    users: &users,
                    ca,
                    directory: &directory,
                    only_new: true,
                    start_now: false,
                    parallel: AT_ONCE,
                    connections: 0,
                };
                let cost = bench.measure(&program.prepare(&job)?, entrant.name())?;
                for (user, letters) in users.iter().zip(letters.chunks(EACH)) {
                    verify::maildir(&job.maildir(user), letters)?;
                }
                cost
            }
            Entrant::Limit(_, words) => bench.measure(&null(words)?, entrant.name())?,
        };
        bench.done_with(&directory)?;
        Ok((cost, None))
    }))
}
