//! `connectord check`: the configuration, and with `--online` every filter and every login.

use std::path::PathBuf;
use std::sync::Arc;

use connectord_config::Config;
use connectord_config::build::{BuildError, Builder, state_directory};
use connectord_engine::{Clock, Exit, Mode, Quiet};
use connectord_net::Connector;
use connectord_store::StoreError;
use serde_json::Value;
use tracing::level_filters::LevelFilter;

use crate::cli::Check;
use crate::error::Error;
use crate::fetch::{chosen, run_all};
use crate::logging::{Colour, Settings};
use crate::{control, filters, process, say, setup};

pub(crate) async fn check(path: Option<PathBuf>, options: Check, colour: Colour) -> Result<Exit, Error> {
    let config = setup::read_config(path)?;
    process::become_user(&config.process)?;
    let plural = if config.accounts.len() == 1 { "" } else { "s" };
    let warnings = if config.warnings.len() == 1 { "warning" } else { "warnings" };
    say::out(format_args!(
        "ok    configuration: {} account{plural}, {} {warnings}",
        config.accounts.len(),
        config.warnings.len()
    ));
    let mut exit = if options.notice { test_notice(&config).await? } else { Exit::Ok };
    if !options.online {
        return Ok(exit);
    }
    exit = exit.worst(filters::probe_all(&config).await?);
    if !config.filters.chain.is_empty() {
        filters::look_for_room(&config, &state_directory(&config)?);
    }
    let errors = Settings { level: LevelFilter::ERROR, colour, ..Settings::default() };
    let _log = setup::start_log(&errors)?;
    let parts = match setup::build(&config, Arc::new(Quiet)).await {
        Err(Error::Build(BuildError::State(StoreError::Locked { .. }))) => {
            // The daemon has the state: it looks for us.
            let request = control::fetch_request(&options.accounts, true);
            let state = state_directory(&config)?;
            let asked = control::ask(&state, &request, |line| {
                if let Some(report) = line.get("report") {
                    say::out_as_is(&sentence(report));
                }
            });
            return Ok(exit.worst(asked.await?));
        }
        other => other?,
    };
    let jobs = chosen(parts.jobs(), &options.accounts).map_err(Error::Usage)?;
    let mode = Mode { by_hand: true, dry_run: true };
    let reports = run_all(Arc::clone(&parts.site), jobs, &config, mode).await;
    for (address, report) in &reports {
        say::out_as_is(&sentence(&control::report_json(address, report)));
        exit = exit.worst(report.exit());
    }
    parts.close().await;
    Ok(exit)
}

/// Sends a notice by every way, whoever holds the state.
async fn test_notice(config: &Config) -> Result<Exit, Error> {
    let mut builder = Builder::new(Connector::new(), "notice-test");
    let jobs = builder.jobs(config).await?;
    let setup = builder.notices(config, &jobs).await?;
    let tried = setup.ways.try_all(&setup.test(Clock::system().now())).await;
    if tried.is_empty() {
        say::out("-     notices: nobody is told: [notices] names no mail_to, command or webhook");
    }
    let mut exit = Exit::Ok;
    for (way, result) in tried {
        match result {
            Ok(()) => say::out(format_args!("ok    notice by {way}")),
            Err(error) => {
                say::out(format_args!("FAIL  notice by {way}: {error}"));
                exit = Exit::Unavailable;
            }
        }
    }
    Ok(exit)
}

/// What a look at an account brought, in a line or two.
fn sentence(report: &Value) -> String {
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    let text = |name: &str| report[name].as_str().unwrap_or_default();
    if report["error"].is_null() {
        let (listed, new, due) = (number("listed"), number("new"), number("due"));
        return format!("ok    {}: {listed} messages, {new} new, {due} to remove\n", text("account"));
    }
    let hint = report["hint"].as_str().map(|hint| format!("      hint: {hint}\n")).unwrap_or_default();
    format!("FAIL  {}: {}\n{hint}", text("account"), text("error"))
}
