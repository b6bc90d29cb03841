//! Questions to the daemon, and its answers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connectord_config::build::{BuildError, state_directory};
use connectord_config::{Config, Problems};
use serde_json::Value;

use crate::cli::Options;

/// Where the configuration is when nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/connectord/connectord.toml";

/// Longest wait for the next line of an answer: a test of an account takes up to a minute, after a check that is under way.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) const USAGE: u8 = 64;
pub(crate) const UNAVAILABLE: u8 = 69;
pub(crate) const IO: u8 = 74;
pub(crate) const TEMP_FAIL: u8 = 75;
pub(crate) const CONFIG: u8 = 78;

/// Why there is no answer, or not the one that was wished for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Password(#[from] connectord::password::Error),
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("no daemon answers at {path}: {error}")]
    NoDaemon { path: String, error: std::io::Error },
    #[error("the daemon's answer broke off: {0}")]
    Broken(String),
    #[error("{}", sentence(.refused))]
    Refused { refused: Value, exit: u8 },
}

impl Error {
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Password(connectord::password::Error::None(_)) => USAGE,
            Self::Password(_) => IO,
            Self::Config(_) | Self::Build(_) => CONFIG,
            Self::NoDaemon { .. } => UNAVAILABLE,
            Self::Broken(_) => TEMP_FAIL,
            Self::Refused { exit, .. } => *exit,
        }
    }

    /// What to do, on a line of its own.
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            Self::NoDaemon { .. } => Some("Do: connectord serve, or name its configuration with --config".to_owned()),
            Self::Refused { refused, .. } => refused["hint"].as_str().map(|hint| format!("hint: {hint}")),
            _ => None,
        }
    }
}

/// What was refused: each mistake on a line of its own when there are several.
fn sentence(refused: &Value) -> String {
    let problems = refused["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |problem: &Value| problem["sentence"].as_str().unwrap_or_default().to_owned();
    match problems {
        [] | [_] => line(refused),
        several => several.iter().map(line).collect::<Vec<_>>().join("\nconnectorctl: "),
    }
}

/// The socket of a daemon.
pub(crate) struct Daemon(PathBuf);

impl Daemon {
    pub(crate) fn find(options: &Options) -> Result<Self, Error> {
        if let Some(path) = &options.socket {
            return Ok(Self(path.clone()));
        }
        let config = Config::read(options.config.as_deref().unwrap_or_else(|| Path::new(DEFAULT_CONFIG)))?;
        Ok(Self(state_directory(&config)?.join("control.sock")))
    }

    /// Asks about accounts; the lines of the answer, and what to exit with.
    pub(crate) fn ask(&mut self, mut request: Value) -> Result<(Vec<Value>, u8), Error> {
        request["do"] = "account".into();
        let no_daemon = |error| Error::NoDaemon { path: self.0.display().to_string(), error };
        let broken = |error: std::io::Error| Error::Broken(error.to_string());
        let mut stream = UnixStream::connect(&self.0).map_err(no_daemon)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
        stream.write_all(format!("{request}\n").as_bytes()).map_err(broken)?;
        let (mut lines, mut refused) = (Vec::new(), None);
        for line in BufReader::new(stream).lines() {
            let line = line.map_err(broken)?;
            let mut line: Value = serde_json::from_str(&line).map_err(|error| Error::Broken(error.to_string()))?;
            if let Some(error) = line["error"].as_str() {
                return Err(Error::Usage(error.to_owned()));
            }
            if let Some(exit) = line["exit"].as_u64() {
                let exit = u8::try_from(exit).unwrap_or(IO);
                return match refused {
                    Some(refused) => Err(Error::Refused { refused, exit }),
                    None => Ok((lines, exit)),
                };
            }
            match line.get_mut("refused") {
                Some(what) => refused = Some(what.take()),
                None => lines.push(line),
            }
        }
        Err(Error::Broken("it ended early; is this user the one that the daemon runs as?".to_owned()))
    }
}
