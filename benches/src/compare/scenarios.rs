//! What is measured: the choice of scenarios, and how entrants take turns.

mod accounts;
mod first;
mod known;
mod large;
mod million;
mod plot;

pub(crate) use plot::main as plot;

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Done;
use crate::line::Passed;
use crate::measure::{self, Cost, Plan};
use crate::options::Words;
use crate::programs::{Program, Protocol};
use crate::table::{Kind, Row, TSV, Table};

/// What the command line asks for, and where things are.
pub(crate) struct Bench {
    pub(crate) full: bool,
    runs: Option<usize>,
    only: Vec<String>,
    pub(crate) messages: Option<usize>,
    pub(crate) connections: usize,
    /// Kept from run to run: the corpus and the state of each program.
    pub(crate) cache: PathBuf,
    /// Of this run only.
    pub(crate) work: PathBuf,
    /// Directories that were made in it.
    made: Cell<usize>,
}

/// Who takes part: a program, or a limit.
#[derive(Clone, Debug)]
pub(crate) enum Entrant {
    Program(Program),
    /// Its name in the table, and the words after `limit`.
    Limit(String, Vec<String>),
}

impl Entrant {
    pub(crate) fn limit(name: &str, words: &str) -> Self {
        Self::Limit(name.to_owned(), words.split(' ').map(str::to_owned).collect())
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Program(program) => program.name(),
            Self::Limit(name, _) => name,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Program(Program::Connectord | Program::Wide) => Kind::Ours,
            Self::Program(_) => Kind::Peer,
            Self::Limit(..) => Kind::Limit,
        }
    }
}

/// `connectord-compare quick|full …`.
pub(crate) fn main(words: &mut Words, full: bool) -> Done<()> {
    let bench = Bench::new(words, full)?;
    let (out, into) = (words.value("--out")?, words.value("--into")?);
    let mut wanted = Vec::new();
    while let Some(word) = words.next() {
        wanted.push(word);
    }
    words.end()?;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.starts_with(word.as_str()));
    let mut tables = Vec::new();
    for (name, scenario) in SCENARIOS {
        if !is_wanted(name) {
            continue;
        }
        let began = Instant::now();
        match scenario(&bench, name) {
            Ok(table) => {
                println!("{}", table.markdown());
                tables.push(table);
            }
            Err(error) => println!("### {name}\n\nfailed: {error}\n"),
        }
        eprintln!("{name} took {:.0} s", began.elapsed().as_secs_f64());
    }
    if tables.is_empty() {
        return Err("no scenario was measured".into());
    }
    bench.end()?;
    let out = out.map_or_else(|| bench.cache.join("last"), PathBuf::from);
    let markdown: String = tables.iter().map(Table::markdown).collect();
    let tsv: String = tables.iter().map(Table::tsv).collect();
    if let Some(page) = into {
        fs::write(&page, between_marks(&fs::read_to_string(&page)?, &markdown)?)?;
    }
    fs::write(out.with_extension("md"), markdown)?;
    fs::write(out.with_extension("tsv"), format!("{TSV}{tsv}"))?;
    eprintln!("written: {0}.md, {0}.tsv", out.display());
    Ok(())
}

/// The page with its results replaced.
fn between_marks(page: &str, results: &str) -> Done<String> {
    const BEGIN: &str = "<!-- results begin -->\n";
    const END: &str = "<!-- results end -->";
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no mark where results begin")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no mark where results end")?;
    Ok(format!("{before}{BEGIN}\n{results}{END}{after}"))
}

type Scenario = fn(&Bench, &str) -> Done<Table>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("first-imaps", |bench, name| first::first(bench, name, Protocol::Imaps)),
    ("first-pop3s", |bench, name| first::first(bench, name, Protocol::Pop3s)),
    ("busy-imaps", |bench, name| first::busy(bench, name, Protocol::Imaps)),
    ("busy-pop3s", |bench, name| first::busy(bench, name, Protocol::Pop3s)),
    ("line-imaps", |bench, name| first::line(bench, name, Protocol::Imaps)),
    ("line-pop3s", |bench, name| first::line(bench, name, Protocol::Pop3s)),
    ("nothing-new-imaps", |bench, name| known::nothing_new(bench, name, Protocol::Imaps)),
    ("nothing-new-pop3s", |bench, name| known::nothing_new(bench, name, Protocol::Pop3s)),
    ("few-new-imaps", |bench, name| known::few_new(bench, name, Protocol::Imaps)),
    ("few-new-pop3s", |bench, name| known::few_new(bench, name, Protocol::Pop3s)),
    ("accounts-pop3s", accounts::accounts),
    ("large-one-imaps", |bench, name| large::one(bench, name, Protocol::Imaps)),
    ("large-one-pop3s", |bench, name| large::one(bench, name, Protocol::Pop3s)),
    ("large-ten-imaps", |bench, name| large::ten(bench, name, Protocol::Imaps)),
    ("large-ten-pop3s", |bench, name| large::ten(bench, name, Protocol::Pop3s)),
    ("million-imaps", |bench, name| million::million(bench, name, Protocol::Imaps)),
    ("million-pop3s", |bench, name| million::million(bench, name, Protocol::Pop3s)),
];

impl Bench {
    pub(crate) fn new(words: &mut Words, full: bool) -> Done<Self> {
        let cache = PathBuf::from(words.value("--work")?.ok_or("no --work; start benches/compare")?);
        fs::create_dir_all(cache.join("runs"))?;
        let work = tempfile::Builder::new().prefix("run-").tempdir_in(cache.join("runs"))?.keep();
        // Some programs give up being root.
        fs::set_permissions(&work, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            full,
            runs: words.number("--runs")?,
            only: words
                .value("--only")?
                .unwrap_or_default()
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            messages: words.number("--messages")?,
            connections: words.number("--connections")?.unwrap_or(0),
            cache,
            work,
            made: Cell::new(0),
        })
    }

    pub(crate) fn runs(&self, quick: usize, full: usize) -> usize {
        self.runs.unwrap_or(if self.full { full } else { quick }).max(1)
    }

    /// Those of the programs that speak the protocol and were not excluded; the slow ones only when asked for by name or
    /// in full.
    pub(crate) fn programs(&self, protocol: Protocol, quick: &[Program]) -> Vec<Entrant> {
        let programs = Program::ALL.into_iter().filter(|program| program.speaks(protocol));
        let taken = |program: &Program| match self.only.is_empty() {
            true => self.full || quick.contains(program),
            false => self.only.iter().any(|name| program.name() == name),
        };
        programs.filter(taken).map(Entrant::Program).collect()
    }

    pub(crate) fn limits(&self, limits: &[(&str, String)]) -> Vec<Entrant> {
        if self.only.is_empty() || self.only.iter().any(|name| name == "limit") {
            limits.iter().map(|(name, words)| Entrant::limit(name, words)).collect()
        } else {
            Vec::new()
        }
    }

    /// An empty directory for one entrant, that none was before.
    pub(crate) fn fresh(&self, name: &str) -> Done<PathBuf> {
        let path = self.unused(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn unused(&self, name: &str) -> PathBuf {
        self.made.set(self.made.get() + 1);
        self.work.join(format!("{}-{}", self.made.get(), name.replace([' ', ',', '/'], "-")))
    }

    /// Empties the files of a directory that was measured, and gives its name free.
    ///
    /// They are not removed before all is measured: for minutes ext4 steps over every inode that was freed lately when it
    /// looks for another, and what comes next would pay for that.
    pub(crate) fn done_with(&self, directory: &Path) -> Done<()> {
        let spent = self.unused("spent");
        fs::rename(directory, &spent)?;
        empty_files(&spent)
    }

    /// Removes what runs have left that ended more than an hour ago, and leaves the files of this one, which are empty, to
    /// a later run: whoever measures may do so again at once.
    pub(crate) fn end(&self) -> Done<()> {
        for entry in fs::read_dir(self.cache.join("runs"))? {
            let path = entry?.path();
            let Ok(spent) = fs::metadata(path.join(SPENT)) else { continue };
            if spent.modified()?.elapsed().is_ok_and(|ago| ago > Duration::from_secs(3600)) {
                fs::remove_dir_all(&path)?;
            }
        }
        empty_files(&self.work)?;
        fs::write(self.work.join(SPENT), "")?;
        Ok(())
    }

    /// Runs a plan when the file system has nothing left to write from before.
    pub(crate) fn measure(&self, plan: &Plan, name: &str) -> Done<Cost> {
        rustix::fs::syncfs(File::open(&self.work)?)?;
        measure::run(plan, &self.work.join(format!("{}.log", name.replace([' ', ',', '/'], "-"))))
    }

    /// All entrants in turn, `runs` times; another one begins each time.
    pub(crate) fn in_turn(
        &self,
        entrants: &[Entrant],
        runs: usize,
        mut once: impl FnMut(&Entrant) -> Done<(Cost, Option<Passed>)>,
    ) -> Vec<Row> {
        let mut rows: Vec<Row> = entrants
            .iter()
            .map(|entrant| Row { entrant: entrant.name().to_owned(), kind: entrant.kind(), ..Row::default() })
            .collect();
        for run in 0..runs {
            for n in 0..entrants.len() {
                let n = (n + run) % entrants.len();
                eprint!("\r\x1b[K  run {} of {runs}: {}", run + 1, entrants[n].name());
                let _ = std::io::stderr().flush();
                match once(&entrants[n]) {
                    Ok((cost, passed)) => {
                        rows[n].costs.push(cost);
                        rows[n].passed = passed.or(rows[n].passed);
                    }
                    Err(error) => rows[n].failure = Some(error.to_string()),
                }
            }
        }
        eprint!("\r\x1b[K");
        rows
    }
}

/// A file in a run's directory: the run is over.
const SPENT: &str = "spent";

fn empty_files(directory: &Path) -> Done<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            empty_files(&entry.path())?;
        } else if kind.is_file() && entry.metadata()?.nlink() == 1 {
            // What has another name is the corpus.
            File::options().write(true).truncate(true).open(entry.path())?;
        }
    }
    Ok(())
}

/// The command that runs a limit.
pub(crate) fn limit_plan(words: &[String], more: &[(&str, String)]) -> Done<Plan> {
    let mut command = vec![std::env::current_exe()?.display().to_string(), "limit".to_owned()];
    command.extend(words.iter().cloned());
    for (name, value) in more {
        command.push((*name).to_owned());
        command.push(value.clone());
    }
    Ok(Plan::one(command))
}

/// Octets of these files.
pub(crate) fn octets(files: &[PathBuf]) -> Done<u64> {
    files.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
}

/// A file with the size of each message, one a line.
pub(crate) fn sizes(files: &[PathBuf], to: &Path) -> Done<String> {
    let mut text = String::new();
    for file in files {
        text += &format!("{}\n", fs::metadata(file)?.len());
    }
    fs::write(to, text)?;
    Ok(to.display().to_string())
}
