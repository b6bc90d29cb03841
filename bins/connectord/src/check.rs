//! `connectord check`: the configuration, and with `--online` every login.

use std::path::PathBuf;
use std::sync::Arc;

use connectord_config::build::BuildError;
use connectord_engine::{Exit, Job, Mode, Quiet};
use connectord_store::StoreError;
use tracing::level_filters::LevelFilter;

use crate::cli::Check;
use crate::error::Error;
use crate::fetch::run_all;
use crate::logging::{Colour, Settings};
use crate::setup;

pub(crate) async fn check(path: Option<PathBuf>, options: Check, colour: Colour) -> Result<Exit, Error> {
    let config = setup::read_config(path)?;
    let plural = if config.accounts.len() == 1 { "" } else { "s" };
    println!("ok    configuration: {} account{plural}, {} warnings", config.accounts.len(), config.warnings.len());
    if !options.online {
        return Ok(Exit::Ok);
    }
    let errors = Settings { level: LevelFilter::ERROR, colour, ..Settings::default() };
    let _log = setup::start_log(&errors)?;
    // A running daemon keeps its state; a look at the servers needs none of it.
    let scratch = scratch_directory()?;
    let parts = match setup::build(&config, Arc::new(Quiet)).await {
        Err(Error::Build(BuildError::State(StoreError::Locked { .. }))) => {
            setup::build_in(&config, &scratch, Arc::new(Quiet)).await?
        }
        other => other?,
    };
    let named = |job: &&Job| {
        options.accounts.is_empty() || options.accounts.iter().any(|name| name.eq_ignore_ascii_case(job.address()))
    };
    let jobs: Vec<Job> = parts.jobs.iter().filter(named).cloned().collect();
    let mode = Mode { by_hand: true, dry_run: true };
    let reports = run_all(Arc::clone(&parts.site), jobs, &config, mode).await;
    let mut exit = Exit::Ok;
    for (address, report) in &reports {
        match &report.error {
            None => println!("ok    {address}: {} messages, {} new, {} to remove", report.listed, report.new, report.due),
            Some(error) => {
                println!("FAIL  {address}: {}", chain(error));
                if let Some(hint) = error.hint() {
                    println!("      hint: {hint}");
                }
            }
        }
        exit = exit.worst(report.exit());
    }
    parts.store.close().await;
    // Left to the system's cleaning if it cannot be removed now.
    let _ = std::fs::remove_dir_all(&scratch);
    Ok(exit)
}

fn scratch_directory() -> Result<PathBuf, Error> {
    let path = std::env::temp_dir().join(format!("connectord-check-{}", std::process::id()));
    std::fs::create_dir(&path).map_err(Error::io(format!("cannot make {}", path.display())))?;
    Ok(path)
}

/// An error with what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
