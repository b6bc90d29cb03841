//! Results as a Markdown table and as tab-separated values.

use std::fmt::Write;

use crate::line::Passed;
use crate::measure::Cost;

/// What one entrant did in one scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) entrant: String,
    pub(crate) kind: Kind,
    pub(crate) costs: Vec<Cost>,
    pub(crate) passed: Option<Passed>,
    /// Why it has no figures, or fewer.
    pub(crate) failure: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Peer,
    Ours,
    Limit,
}

/// The limits that connectord is held against; the others are there to be compared with these.
const BINDING: &[&str] =
    &["transfer alone", "disk alone, 16 threads", "log in, look, read", "null client, mail thrown away"];

/// One scenario with its rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) scenario: String,
    pub(crate) about: String,
    pub(crate) rows: Vec<Row>,
}

impl Row {
    pub(crate) fn wall(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.wall))
    }

    pub(crate) fn cpu(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.cpu))
    }

    pub(crate) fn rss(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.rss))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

impl Table {
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("### {}\n\n{}\n\n", self.scenario, self.about);
        out += "| program | wall s (min to max) | connectord is faster by | CPU s | peak MiB | octets to client | to server | turns |\n";
        out += "|---|--:|--:|--:|--:|--:|--:|--:|\n";
        let ours = self.rows.iter().find(|row| row.kind == Kind::Ours && !row.costs.is_empty()).map(Row::wall);
        for row in &self.rows {
            let name = if row.kind == Kind::Limit { format!("*{}*", row.entrant) } else { row.entrant.clone() };
            if row.costs.is_empty() {
                let failure = row.failure.as_deref().unwrap_or("no run").replace(['\n', '|'], " ");
                let _ = writeln!(out, "| {name} | failed: {failure} | | | | | | |");
                continue;
            }
            let walls = row.costs.iter().map(|cost| cost.wall);
            let (least, most) = (walls.clone().fold(f64::INFINITY, f64::min), walls.fold(0.0, f64::max));
            let ratio = ours
                .filter(|_| row.kind != Kind::Ours)
                .map_or(String::new(), |ours| format!("{:.2}", row.wall() / ours));
            let (to_client, to_server, turns) =
                row.passed.map_or((String::new(), String::new(), String::new()), |passed| {
                    (thousands(passed.to_client), thousands(passed.to_server), passed.turns.to_string())
                });
            let _ = writeln!(
                out,
                "| {name} | {} ({} to {}) | {ratio} | {} | {:.1} | {to_client} | {to_server} | {turns} |",
                seconds(row.wall()),
                seconds(least),
                seconds(most),
                seconds(row.cpu()),
                row.rss()
            );
            if let Some(failure) = &row.failure {
                let _ = writeln!(out, "| {name} | one run failed: {} | | | | | | |", failure.replace(['\n', '|'], " "));
            }
        }
        out.push('\n');
        out + &self.summary()
    }

    /// connectord beside the best peer and the limits, in words.
    fn summary(&self) -> String {
        let measured = || self.rows.iter().filter(|row| !row.costs.is_empty());
        let Some(ours) = measured().find(|row| row.kind == Kind::Ours) else { return String::new() };
        let mut out = String::new();
        let peers = || measured().filter(|row| row.kind == Kind::Peer);
        if let Some(best) = peers().min_by(|a, b| a.wall().total_cmp(&b.wall())) {
            let _ = write!(out, "connectord is {:.2} times as fast as {}", best.wall() / ours.wall(), best.entrant);
            if let Some(frugal) = peers().min_by(|a, b| a.cpu().total_cmp(&b.cpu())) {
                let _ =
                    write!(out, " and needs {:.2} times the CPU time of {}", ours.cpu() / frugal.cpu(), frugal.entrant);
            }
            out += ". ";
        }
        let limits: Vec<&Row> = measured().filter(|row| BINDING.contains(&row.entrant.as_str())).collect();
        if let Some(slowest) = limits.iter().max_by(|a, b| a.wall().total_cmp(&b.wall())) {
            let cpu: f64 = limits.iter().map(|row| row.cpu()).sum();
            let _ = write!(
                out,
                "It takes {:.2} times as long as the limit ({}), and {:.2} times the CPU time of {}.",
                ours.wall() / slowest.wall(),
                slowest.entrant,
                ours.cpu() / cpu,
                if limits.len() > 1 { "all limits together" } else { "it" }
            );
        }
        if out.is_empty() { out } else { out.trim_end().to_owned() + "\n\n" }
    }

    /// A line for each run.
    pub(crate) fn tsv(&self) -> String {
        let mut out = String::new();
        for row in &self.rows {
            for (run, cost) in row.costs.iter().enumerate() {
                let passed = row.passed.unwrap_or_default();
                let _ = writeln!(
                    out,
                    "{}\t{}\t{run}\t{:.6}\t{:.6}\t{:.3}\t{}\t{}\t{}\t{}",
                    self.scenario,
                    row.entrant,
                    cost.wall,
                    cost.cpu,
                    cost.rss,
                    passed.to_client,
                    passed.to_server,
                    passed.turns,
                    passed.connections
                );
            }
        }
        out
    }
}

/// Heading of [`Table::tsv`].
pub(crate) const TSV: &str =
    "scenario\tprogram\trun\twall_s\tcpu_s\tpeak_mib\tto_client_octets\tto_server_octets\tturns\tconnections\n";

fn seconds(value: f64) -> String {
    match value {
        value if value < 0.1 => format!("{value:.4}"),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
