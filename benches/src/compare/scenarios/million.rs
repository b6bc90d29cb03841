//! A mailbox with a million messages, all of them known: the check's time and memory.
//!
//! Dovecot with a million files is slow by itself, so the server is the small one of `connectord-sample`, in this process; what
//! it needs is in every figure, also in the limit's.

use connectord_sample::servers::{ImapServer, Mailbox, Message, Pop3Server, ServerOptions};
use connectord_testkit::Certificates;

use super::{Bench, Entrant, limit_plan};
use crate::Done;
use crate::programs::{Job, Program, Protocol};
use crate::table::Table;
use crate::verify;

const MESSAGES: usize = 1_000_000;
const USER: &str = "ann";

enum Server {
    Imap(ImapServer),
    Pop3(Pop3Server),
}

impl Server {
    fn mailbox(&self) -> Mailbox {
        match self {
            Self::Imap(server) => server.mailbox(USER),
            Self::Pop3(server) => server.mailbox(USER),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Imap(server) => server.port(),
            Self::Pop3(server) => server.port(),
        }
    }
}

pub(super) fn million(bench: &Bench, name: &str, protocol: Protocol) -> Done<Table> {
    let certificates = Certificates::new();
    let options = ServerOptions::new().user(USER, "secret").tls(certificates.server_config());
    let server = match protocol {
        Protocol::Imaps => Server::Imap(ImapServer::try_start(options)?),
        Protocol::Pop3s => Server::Pop3(Pop3Server::try_start(options)?),
    };
    let mailbox = server.mailbox();
    for _ in 0..MESSAGES {
        mailbox.add(Message::new(*b"Subject: x\n\nx\n"));
    }
    let users = [USER.to_owned()];
    let directory = bench.fresh("connectord")?;
    let ca = certificates.ca_file();
    let job = Job {
        protocol,
        port: server.port(),
        users: &users,
        ca,
        directory: &directory,
        only_new: true,
        start_now: true,
        parallel: 1,
        connections: 0,
    };
    let ours = Program::Connectord.prepare(&job)?;
    crate::programs::make_maildir(&job.maildir(USER))?;
    // It takes what is there as known, and retrieves nothing.
    let first = bench.measure(&ours, "first")?;
    let mut entrants = bench.programs(protocol, &[Program::Connectord]);
    entrants.retain(|entrant| matches!(entrant, Entrant::Program(Program::Connectord)));
    let limit = match protocol {
        Protocol::Imaps => "imap",
        Protocol::Pop3s => "pop3 --uidl",
    };
    entrants.extend(bench.limits(&[("log in, look, read", limit.to_owned())]));
    let rows = bench.in_turn(&entrants, bench.runs(3, 5), |entrant| {
        let cost = match entrant {
            Entrant::Program(_) => bench.measure(&ours, entrant.name())?,
            Entrant::Limit(_, words) => {
                let ca = ca.display().to_string();
                let more = [("--port", server.port().to_string()), ("--ca", ca), ("--users", USER.to_owned())];
                bench.measure(&limit_plan(words, &more)?, entrant.name())?
            }
        };
        verify::maildir(&job.maildir(USER), &[])?;
        Ok((cost, None))
    });
    let about = format!(
        "A million messages are known and nothing is new; the server is a small one of ours. The first check, with `start = \"now\"`, took \
         {:.1} s and {:.0} MiB.",
        first.wall, first.rss
    );
    Ok(Table { scenario: name.to_owned(), about, rows })
}
