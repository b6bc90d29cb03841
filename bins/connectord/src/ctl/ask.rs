//! Questions to the daemon by its control socket, and its answers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connectord_config::Config;
use connectord_config::build::state_directory;
use serde_json::Value;

use crate::cli::Options;
use crate::error::{Error, IO};

/// Where the configuration is when nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/connectord/connectord.toml";

/// Longest wait for the next line of an answer: a test of an account takes up to a minute, after a check that is under way.
const PATIENCE: Duration = Duration::from_secs(180);

/// The sockets of a daemon, beside its state.
pub(crate) struct Daemon(PathBuf);

impl Daemon {
    pub(crate) fn find(options: &Options) -> Result<Self, Error> {
        match &options.socket {
            Some(path) if path.is_dir() => return Ok(Self(path.join("control.sock"))),
            Some(path) => return Ok(Self(path.clone())),
            None => {}
        }
        let config = Config::read(options.config.as_deref().unwrap_or_else(|| Path::new(DEFAULT_CONFIG)))?;
        Ok(Self(state_directory(&config)?.join("control.sock")))
    }

    /// Where its API is.
    pub(crate) fn api(&self) -> PathBuf {
        self.0.with_file_name("api.sock")
    }

    /// Asks about accounts; the lines of the answer, and what to exit with.
    pub(crate) fn ask(&mut self, mut request: Value) -> Result<(Vec<Value>, u8), Error> {
        request["do"] = "account".into();
        let no_daemon =
            |error: std::io::Error| Error::NoDaemon { place: self.0.display().to_string(), error: error.to_string() };
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
