//! A large mailbox of which nearly all is known: nothing new, and ten new.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connectord_testkit::Dovecot;

use super::first::service;
use super::{Bench, Entrant, limit_plan};
use crate::Done;
use crate::corpus::{self, Kind};
use crate::line::Line;
use crate::measure::{self, Plan};
use crate::programs::{Job, Program, Protocol, make_maildir};
use crate::server;
use crate::table::{Row, Table};
use crate::verify;

const KNOWN: usize = 20_000;
const NEW: usize = 10;

const QUICK: &[Program] = &[Program::Connectord, Program::Mbsync, Program::Mpop, Program::Fdm];

pub(super) fn nothing_new(bench: &Bench, name: &str, protocol: Protocol) -> Done<Table> {
    let rows = measure(bench, protocol, QUICK, (KNOWN, 0), bench.runs(10, 20))?;
    let about = format!("{KNOWN} messages are known and nothing is new; one command, its start included.");
    Ok(Table { scenario: name.to_owned(), about, rows })
}

pub(super) fn few_new(bench: &Bench, name: &str, protocol: Protocol) -> Done<Table> {
    let rows = measure(bench, protocol, QUICK, (KNOWN, NEW), bench.runs(5, 10))?;
    let about =
        format!("{KNOWN} messages are known and {NEW} letters of 1 to 10 kB are new; one command, its start included.");
    Ok(Table { scenario: name.to_owned(), about, rows })
}

/// Every entrant has a mailbox of its own: some programs know new mail by the flag `\Seen`, which they set.
fn user(entrant: &Entrant) -> String {
    match entrant {
        Entrant::Program(program) => program.name().to_owned(),
        Entrant::Limit(..) => "limit".to_owned(),
    }
}

/// Checks of mailboxes with `known` messages, to which `new` are added before each.
pub(super) fn measure(
    bench: &Bench,
    protocol: Protocol,
    quick: &[Program],
    (known, new): (usize, usize),
    runs: usize,
) -> Done<Vec<Row>> {
    let limit = match protocol {
        Protocol::Imaps => format!("imap --messages {new}"),
        Protocol::Pop3s => format!("pop3 --uidl --messages {new}"),
    };
    let mut entrants = bench.programs(protocol, quick);
    let mut homes: HashMap<String, PathBuf> = HashMap::new();
    for entrant in &entrants {
        let Entrant::Program(program) = entrant else { continue };
        homes.insert(user(entrant), state(bench, *program, protocol, known)?);
    }
    let any = match homes.values().next() {
        Some(home) => home.clone(),
        None => state(bench, Program::Connectord, protocol, known)?,
    };
    entrants.extend(bench.limits(&[("log in, look, read", limit)]));
    let users: Vec<String> = entrants.iter().map(user).collect();
    let dovecot = server::start(&users);
    let line = Line::start(dovecot.address(service(protocol)), Duration::ZERO)?;
    for user in &users {
        let home = homes.get(user).unwrap_or(&any);
        dovecot.folder(user, "INBOX");
        server::copy_tree(&home.join("server"), &dovecot.maildir(user))?;
        if homes.contains_key(user) {
            server::copy_tree(&home.join("local"), &bench.work.join(user))?;
        }
    }
    let more = corpus::messages(&bench.cache, Kind::Letters, new * (runs + 2))?;
    let mut round: HashMap<String, usize> = HashMap::new();
    let mut once = |entrant: &Entrant, port: u16| {
        let user = user(entrant);
        let round = round.entry(entrant.name().to_owned()).or_default();
        let fresh = &more[*round * new..(*round + 1) * new];
        *round += 1;
        add(&dovecot, &user, fresh, *round)?;
        let users = [user.clone()];
        let directory = bench.work.join(&user);
        let job = job(protocol, port, &users, &dovecot, &directory);
        match entrant {
            Entrant::Program(program) => {
                let plan = program.prepare(&job)?;
                let before = verify::names(&job.maildir(&user))?;
                let cost = bench.measure(&plan, entrant.name())?;
                verify::added(&job.maildir(&user), &before, fresh)?;
                Ok(cost)
            }
            Entrant::Limit(_, words) => {
                let ca = dovecot.certificates().ca_file().display().to_string();
                let plan = limit_plan(words, &[("--port", port.to_string()), ("--ca", ca), ("--users", user)])?;
                bench.measure(&plan, entrant.name())
            }
        }
    };
    let direct = dovecot.port(service(protocol));
    for entrant in &entrants {
        once(entrant, direct).map_err(|error| format!("{}: {error}", entrant.name()))?;
    }
    let mut rows = bench.in_turn(&entrants, runs, |entrant| Ok((once(entrant, direct)?, None)));
    // Once more, through a line that counts.
    for (entrant, row) in entrants.iter().zip(&mut rows) {
        line.take();
        match once(entrant, line.port()) {
            Ok(_) => row.passed = Some(line.take()),
            Err(error) => row.failure = Some(format!("through the line that counts: {error}")),
        }
    }
    // Another series begins with other directories.
    for user in homes.keys() {
        bench.done_with(&bench.work.join(user))?;
    }
    Ok(rows)
}

fn add(dovecot: &Dovecot, user: &str, messages: &[PathBuf], round: usize) -> Done<()> {
    let new = dovecot.maildir(user).join("new");
    for (n, message) in messages.iter().enumerate() {
        // Behind all that are there.
        server::link(message, &new.join(format!("1800000000.M{:09}P1.new", round * 1_000_000 + n)))?;
    }
    Ok(())
}

fn job<'a>(protocol: Protocol, port: u16, users: &'a [String], dovecot: &'a Dovecot, directory: &'a Path) -> Job<'a> {
    let ca = dovecot.certificates().ca_file();
    Job { protocol, port, users, ca, directory, only_new: true, start_now: false, parallel: 1, connections: 0 }
}

/// A directory with `server` (the Maildir of a server's user) and `local` (all that the program has) after the program
/// fetched `count` notes; made if it is not there, or was made by another connectord.
fn state(bench: &Bench, program: Program, protocol: Protocol, count: usize) -> Done<PathBuf> {
    let version = match program {
        Program::Connectord => format!("-{}", fs::metadata(crate::programs::connectord_path())?.len()),
        _ => String::new(),
    };
    let home = bench.cache.join(format!("known-{count}"));
    fs::create_dir_all(&home)?;
    let path = home.join(format!("{}-{}{version}", program.name(), protocol.name()));
    // Only one of several runs makes it.
    let lock = File::create(home.join(format!("{}.lock", program.name())))?;
    lock.lock()?;
    if path.join("local").exists() {
        return Ok(path);
    }
    eprintln!("  {} fetches {count} notes by {} beforehand; this is kept", program.name(), protocol.name());
    let notes = corpus::messages(&bench.cache, Kind::Notes, count)?;
    let user = program.name().to_owned();
    let dovecot = server::start(std::slice::from_ref(&user));
    server::seed(&dovecot, &user, &notes)?;
    // In memory if possible: nobody measures this.
    let memory = Path::new("/dev/shm");
    let beside = bench.work.clone();
    let place = tempfile::tempdir_in(if memory.is_dir() { memory } else { &beside })?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    let users = [user.clone()];
    let job = job(protocol, dovecot.port(service(protocol)), &users, &dovecot, place.path());
    if program != Program::Mbsync {
        make_maildir(&job.maildir(&user))?;
    }
    let plan: Plan = program.prepare(&job)?;
    measure::run(&plan, &bench.work.join("beforehand.log"))?;
    verify::maildir(&job.maildir(&user), &notes)?;
    let making = home.join(format!("making-{}", std::process::id()));
    server::copy_tree(&dovecot.maildir(&user), &making.join("server"))?;
    server::copy_tree(place.path(), &making.join("local"))?;
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::rename(making, &path)?;
    Ok(path)
}
