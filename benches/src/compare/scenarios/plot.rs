//! Cost against work, so that a bend is seen.

use std::path::PathBuf;

use super::{Bench, accounts, first, known};
use crate::Done;
use crate::options::Words;
use crate::programs::{Program, Protocol};
use crate::svg::{Chart, Series};
use crate::table::{Kind, Row, TSV, Table};

const OURS: &[Program] = &[Program::Connectord];
const OURS_AND_MPOP: &[Program] = &[Program::Connectord, Program::Mpop];

/// `connectord-compare plot [known] [new] [accounts] [--runs N] [--most N] --docs DIR`.
pub(crate) fn main(words: &mut Words) -> Done<()> {
    let bench = Bench::new(words, false)?;
    let docs = PathBuf::from(words.value("--docs")?.unwrap_or_else(|| "docs".to_owned()));
    let most = words.number("--most")?.unwrap_or(usize::MAX);
    let mut wanted = Vec::new();
    while let Some(word) = words.next() {
        wanted.push(word);
    }
    words.end()?;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let up_to = |works: &[usize]| works.iter().copied().filter(|work| *work <= most).collect::<Vec<_>>();
    let mut plots = Vec::new();
    if is_wanted("known") {
        let mut plot = Plot::new("known", "A check with nothing new", "messages known");
        for protocol in [Protocol::Imaps, Protocol::Pop3s] {
            for work in up_to(&[100, 1_000, 5_000, 20_000]) {
                let rows = known::measure(&bench, protocol, OURS_AND_MPOP, (work, 0), bench.runs(7, 7))?;
                plot.add(protocol, work, rows);
            }
        }
        plots.push(plot);
    }
    if is_wanted("new") {
        let mut plot = Plot::new("new", "A first retrieval of small messages", "messages new");
        for protocol in [Protocol::Imaps, Protocol::Pop3s] {
            for work in up_to(&[10, 100, 1_000, 10_000]) {
                plot.add(protocol, work, first::notes(&bench, protocol, OURS, work, bench.runs(3, 3))?);
            }
        }
        plots.push(plot);
    }
    if is_wanted("accounts") {
        let mut plot = Plot::new("accounts", "Accounts with ten new letters each", "accounts");
        for work in up_to(&[10, 50, 200, 1_000]) {
            plot.add(Protocol::Pop3s, work, accounts::measure(&bench, OURS_AND_MPOP, work, bench.runs(3, 3))?);
        }
        plots.push(plot);
    }
    bench.end()?;
    for plot in plots {
        let path = docs.join(format!("performance-{}", plot.name));
        std::fs::write(path.with_extension("tsv"), format!("{TSV}{}", plot.tsv))?;
        std::fs::write(path.with_extension("svg"), plot.chart.svg())?;
        println!("{}", path.with_extension("svg").display());
    }
    Ok(())
}

struct Plot {
    name: &'static str,
    chart: Chart,
    tsv: String,
}

impl Plot {
    fn new(name: &'static str, title: &str, work: &str) -> Self {
        let chart =
            Chart { title: title.to_owned(), across: work.to_owned(), up: "seconds".to_owned(), series: Vec::new() };
        Self { name, chart, tsv: String::new() }
    }

    /// One point for each entrant.
    fn add(&mut self, protocol: Protocol, work: usize, rows: Vec<Row>) {
        for row in rows.iter().filter(|row| !row.costs.is_empty()) {
            let name = format!("{} {}", row.entrant, protocol.name());
            let dashed = row.kind == Kind::Limit;
            let at = self.chart.series.iter().position(|series| series.name == name);
            let at = at.unwrap_or_else(|| {
                self.chart.series.push(Series { name, dashed, points: Vec::new() });
                self.chart.series.len() - 1
            });
            self.chart.series[at].points.push((work as f64, row.wall()));
        }
        let scenario = format!("{}-{}-{work}", self.name, protocol.name());
        self.tsv += &Table { scenario, about: String::new(), rows }.tsv();
    }
}
