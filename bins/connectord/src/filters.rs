//! Whether filters work: each is asked for its version and shown the sample that it must find (EICAR, GTUBE).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectord::figures::octets;
use connectord_config::Config;
use connectord_config::build::{Builder, quarantine_directory};
use connectord_engine::Exit;
use connectord_filter::{Filter, Kind, OnFailure, Probe, Unchecked, Why};
use connectord_net::Connector;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::Error;
use crate::say;

/// How long a filter has to be probed.
const WITHIN: Duration = Duration::from_secs(60);

/// A filter that is still silent so long after its time was over is given up.
const GRACE: Duration = Duration::from_secs(2);

/// Probes all filters of the configuration side by side, and says what was found, in the file's order.
pub(crate) async fn probe_all(config: &Config) -> Result<Exit, Error> {
    let chain = Builder::new(Connector::new(), "filter-probe").chain(config).await?;
    let mut running = JoinSet::new();
    for (place, filter) in chain.filters.iter().enumerate() {
        let filter = Arc::clone(filter);
        running.spawn(async move { (place, probe(&*filter).await) });
    }
    let mut probes: Vec<_> = running.join_all().await;
    probes.sort_by_key(|(place, _)| *place);
    let mut exit = Exit::Ok;
    for ((_, (probe, took)), filter) in probes.into_iter().zip(&chain.filters) {
        let (text, one) = sentence(&**filter, probe, took, config.filters.policy.on_failure);
        say::out_as_is(&text);
        exit = exit.worst(one);
    }
    Ok(exit)
}

/// Whether a filter works: a remark when it answers and does not find what it must.
pub(crate) async fn probed(filter: &dyn Filter, deadline: Instant) -> Result<Option<String>, String> {
    match filter.probe(deadline).await {
        Ok(Probe { found_test_sample: Some(false), .. }) => Ok(Some("it does not find its test sample".to_owned())),
        Ok(_) => Ok(None),
        Err(trouble) => Err(trouble.to_string()),
    }
}

async fn probe(filter: &dyn Filter) -> (Result<Probe, Unchecked>, Duration) {
    let began = Instant::now();
    let probe = timeout(WITHIN + GRACE, filter.probe(began + WITHIN)).await.unwrap_or_else(|_| {
        Err(Unchecked::new(Why::TimedOut, format!("no answer within {} s", (WITHIN + GRACE).as_secs())))
    });
    (probe, began.elapsed())
}

fn sentence(
    filter: &dyn Filter,
    probe: Result<Probe, Unchecked>,
    took: Duration,
    on_failure: OnFailure,
) -> (String, Exit) {
    let name = filter.describe();
    let sample = match filter.kind() {
        Kind::Antivirus => "the test virus (EICAR)",
        _ => "the test spam (GTUBE)",
    };
    let (version, found) = match probe {
        Ok(Probe { version, found_test_sample }) => (version, found_test_sample),
        Err(trouble) => {
            let meanwhile = match on_failure {
                OnFailure::Keep => "mail stays on the servers until it does",
                OnFailure::Deliver => "mail is delivered unchecked until it does",
            };
            let (hint, exit) = match trouble.why {
                Why::Misconfigured => ("", Exit::Config),
                Why::Unavailable | Why::TimedOut => ("does it run, and listen there? ", Exit::Unavailable),
                _ => ("", Exit::Unavailable),
            };
            return (format!("FAIL  {name}: {trouble}\n      hint: {hint}{meanwhile}\n"), exit);
        }
    };
    let version = if version.is_empty() { "it answers".to_owned() } else { version };
    let took = took.as_millis();
    match found {
        Some(true) => (format!("ok    {name}: {version}, finds {sample}, {took} ms\n"), Exit::Ok),
        None => (format!("ok    {name}: {version}, {took} ms\n"), Exit::Ok),
        Some(false) => {
            let hint = match filter.kind() {
                Kind::Antivirus => "it has no signatures yet; freshclam fetches them",
                _ => "its own rules do not work, or its settings switch them off",
            };
            (format!("FAIL  {name}: {version}, but it does not find {sample}\n      hint: {hint}\n"), Exit::Config)
        }
    }
}

/// Says so when the quarantine may grow beyond what is free on its disk.
pub(crate) fn look_for_room(config: &Config, state: &Path) {
    let directory = quarantine_directory(config, state);
    let Some(disk) = directory.ancestors().find_map(|path| rustix::fs::statvfs(path).ok()) else { return };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let files = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    let used: u64 = files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    let growth = config.quarantine.max_octets.saturating_sub(used);
    if free < growth {
        say::out(format_args!(
            "~     quarantine: it may grow by {}, and {} has {} free; lower max_size of [quarantine], or give it another path",
            octets(growth),
            directory.display(),
            octets(free)
        ));
    }
}
