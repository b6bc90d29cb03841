//! Compares connectord with other mail retrievers and with what is possible at all: the same mail, the same Dovecot, TLS,
//! one after the other in turn, everything checked. `benches/compare` builds and starts it.
//!
//! | module | what is there |
//! |---|---|
//! | `scenarios` | what is measured, and how it is set up |
//! | `programs` | connectord and its peers, with their settings |
//! | `limits` | minimal clients and writers: what cannot be beaten without leaving something out |
//! | `line`, `load` | a line with a round trip of 40 ms; a disk that others use, too |
//! | `corpus`, `server` | the mail, and a Dovecot that has it |
//! | `measure`, `verify`, `table` | what a run costs, whether it was right, and how it is shown |

mod corpus;
mod limits;
mod line;
mod load;
mod measure;
mod options;
mod programs;
mod scenarios;
mod server;
mod svg;
mod table;
mod verify;

use std::process::ExitCode;

use options::Words;

/// A result whose error is for a person.
type Done<T> = Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
benches/compare quick|full|plot [SCENARIO…] [options]

  quick           the scenarios of the issue with few runs, for a few minutes
  full            all of them, all peers, more runs
  plot            cost against work, as docs/performance-*.svg
  SCENARIO        only those whose names start so: first-imaps, first-pop3s, busy-imaps, busy-pop3s, line-imaps,
                  line-pop3s, nothing-new-imaps, nothing-new-pop3s, few-new-imaps, few-new-pop3s, accounts,
                  large-one, large-ten, million

  --runs N        runs of each program in each scenario
  --only A,B      only these: connectord, mbsync, mpop, fdm, fetchmail, getmail6, limit
  --messages N    messages of the first, busy and line scenarios
  --connections N connections that connectord may use for an IMAP mailbox [default: its own default]
  --work DIR      where the corpus is kept and mail is written [default: /var/cache/connectord-benches]
  --into PAGE     the results are put into this page, between its marks
  --docs DIR      where plot writes [default: docs]; --most N leaves out what is larger
  --out NAME      NAME.md and NAME.tsv are written besides the table on standard output

CONNECTORD names the connectord to measure; without it one is built.
";

fn main() -> ExitCode {
    let mut words = Words::new(std::env::args().skip(1));
    let result = match words.next().as_deref() {
        Some("exec") => measure::exec(),
        Some("limit") => limits::main(&mut words),
        Some("deliver") => limits::deliver(&mut words),
        Some("load") => load::main(&mut words),
        Some("quick") => scenarios::main(&mut words, false),
        Some("full") => scenarios::main(&mut words, true),
        Some("plot") => scenarios::plot(&mut words),
        _ => {
            print!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
