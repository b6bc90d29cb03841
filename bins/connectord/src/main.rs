//! connectord: checks external POP3 and IMAP accounts and delivers their mail to local users.
//!
//! Glue: the command line, and the parts put together. What it does is in the libraries.

mod accounts;
mod check;
mod cli;
mod control;
mod demo;
mod error;
mod fetch;
mod filters;
mod logging;
mod one;
mod page;
mod parked;
mod process;
mod progress;
mod quarantine;
mod relays;
mod serve;
mod setup;
mod state;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use connectord::{manual, password, say};
use connectord_engine::Exit;

use crate::cli::{Command, Options};

fn main() -> ExitCode {
    manual::complete(Options::command);
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Nothing is left to do if even that cannot be printed.
            let _ = error.print();
            let code = if error.use_stderr() { Exit::Usage.code() } else { 0 };
            return ExitCode::from(code);
        }
    };
    process::prepare();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::err(format_args!("connectord: cannot start: {error}"));
            return ExitCode::from(Exit::Io.code());
        }
    };
    let result = runtime.block_on(run(options));
    // A thread may hang in a dead resolver or on a dead disk; nothing is lost by not waiting for it.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    let exit = result.unwrap_or_else(|error| {
        error.print();
        error.exit()
    });
    ExitCode::from(exit.code())
}

async fn run(options: Options) -> Result<Exit, error::Error> {
    let (config, colour) = (options.config, options.color);
    match options.command {
        Command::Serve => serve::serve(config, colour).await,
        Command::Fetch(fetch) => fetch::fetch(config, fetch, colour).await,
        Command::Check(check) => check::check(config, check, colour).await,
        Command::Parked(parked) => parked::parked(config, parked).await,
        Command::Quarantine(quarantine) => quarantine::quarantine(config, quarantine).await,
        Command::Relays(options) => relays::relays(config, options).await,
        Command::State(state) => state::state(config, state).await,
        Command::Demo(demo) => demo::demo(demo).await,
        Command::Completion { shell } => {
            let script = manual::completion(shell, "connectord");
            say::out_as_is(&script.map_err(error::Error::io("no script can be written"))?);
            Ok(Exit::Ok)
        }
        Command::Man { directory } => {
            let name = format!("cannot write manual pages to {}", directory.display());
            manual::pages(Options::command(), &directory).map_err(error::Error::io(name))?;
            Ok(Exit::Ok)
        }
    }
}
