//! What a shell asks for while somebody types.

use std::ffi::OsStr;
use std::time::Duration;

use clap::Parser;
use clap_complete::engine::CompletionCandidate;

use crate::api::{Api, Query};
use crate::cli::Options;

/// Whoever types waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// Addresses that begin so, as the daemon knows them; none when it cannot be asked.
pub(crate) fn addresses(begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let query: Query = vec![("q", begun.to_owned()), ("limit", "200".to_owned())];
    let ask = async {
        let page = Api::find(&options()).ok()?.get("/api/v1/accounts", &query).await.ok()?;
        let items = page["items"].as_array()?.iter().filter_map(|item| item["address"].as_str());
        // An address that a shell would have to show escaped is none that anybody types.
        let plain = items.filter(|address| address.starts_with(begun) && address.chars().all(|c| c.is_ascii_graphic()));
        Some(plain.map(CompletionCandidate::new).collect::<Vec<_>>())
    };
    let Ok(runtime) = crate::runtime() else { return Vec::new() };
    let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask).await });
    found.ok().flatten().unwrap_or_default()
}

/// The options of the line that is being typed, as far as they say where the daemon is.
fn options() -> Options {
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    let where_ = words
        .windows(2)
        .filter(|pair| matches!(pair[0].as_str(), "--config" | "-c" | "--socket" | "--url" | "--token-file"));
    let asked = ["connectorctl".to_owned()].into_iter().chain(where_.flatten().cloned()).chain(["status".to_owned()]);
    Options::try_parse_from(asked).unwrap_or_else(|_| Options::parse_from(["connectorctl", "status"]))
}
