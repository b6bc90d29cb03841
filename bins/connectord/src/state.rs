//! `connectord state`: the memory of what was fetched.

use std::fs::File;
use std::path::{Path, PathBuf};

use connectord_config::build::{BuildError, open_state, state_directory};
use connectord_engine::Exit;
use connectord_store::StoreError;
use connectord_stores::sqlite::SqliteStore;
use serde_json::json;

use crate::cli::State;
use crate::error::Error;
use crate::{control, process, say, setup};

pub(crate) async fn state(path: Option<PathBuf>, options: State) -> Result<Exit, Error> {
    let State::Backup { file } = options;
    // The daemon, which may do it, has another working directory.
    let file = std::path::absolute(&file).map_err(Error::io(format!("no path for {}", file.display())))?;
    let config = setup::read_config(path)?;
    process::become_user(&config.process)?;
    let state = state_directory(&config)?;
    let exit = match open_state(&state) {
        Ok(store) => {
            let done = backup(&store, &file).await;
            store.close().await;
            done.map_err(Error::Store)?;
            Exit::Ok
        }
        Err(BuildError::State(StoreError::Locked { .. })) => {
            let request = json!({"do": "backup", "to": file.to_string_lossy()});
            control::ask(&state, &request, |line| {
                if let Some(failed) = line["failed"].as_str() {
                    say::err(format_args!("connectord: {failed}"));
                }
            })
            .await?
        }
        Err(error) => return Err(error.into()),
    };
    if exit == Exit::Ok {
        say::out(format_args!("{} is a copy of the state", file.display()));
    }
    Ok(exit)
}

/// Writes a copy of the state into a file that must not exist; on an error there is none.
pub(crate) async fn backup(store: &SqliteStore, file: &Path) -> Result<(), StoreError> {
    let during = "writing a backup";
    let failed = |error: std::io::Error| StoreError::Failed { during, text: format!("{}: {error}", file.display()) };
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    // What an interrupted backup left.
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    if file.symlink_metadata().is_ok() {
        return Err(failed(std::io::Error::other("there is a file already, and it stays: name another one")));
    }
    if let Err(error) = store.backup(&part).await {
        // It is incomplete; what stays is removed by the next one.
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    std::fs::rename(&part, file).map_err(failed)?;
    let above = file.parent().unwrap_or_else(|| Path::new("/"));
    File::open(above).and_then(|directory| directory.sync_all()).map_err(failed)
}
