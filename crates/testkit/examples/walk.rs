//! The walk over all system calls, in full or in part; `connectord_testkit::walk` says what it does.
//!
//! ```text
//! cargo run --release -p connectord-testkit --example walk -- [--protocol imap|pop3] [--mode MODE] [--delete VALUE]
//!     [--reader] [--twice] [--tls] [--from N] [--step K] [--point N --times K] [--jobs N] [--binary PATH]
//! ```
//!
//! A mode is `kill`, `kill-after`, `eio`, `enospc`, `full`, `short`, `term`, or `fail` for the four in the middle.
//! Without `--binary` the program is built first. What goes wrong is on stderr; the table is on stdout, and the exit
//! status is 1 unless every promise was kept.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    panic!("the walk needs ptrace and the registers of Linux on x86_64");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use std::path::PathBuf;
    use std::process::{Command, ExitCode};

    use connectord_testkit::walk::{Figures, Mode, Options, Points, Protocol, Walk};

    struct Wishes {
        protocols: Vec<Protocol>,
        modes: Vec<Mode>,
        delete: String,
        reader: bool,
        twice: bool,
        tls: bool,
        jobs: usize,
        points: Points,
        binary: Option<PathBuf>,
    }

    pub(super) fn main() -> ExitCode {
        let wishes = read(std::env::args().skip(1)).unwrap_or_else(|wrong| {
            eprintln!("{wrong}");
            std::process::exit(64);
        });
        let binary = wishes.binary.unwrap_or_else(build);
        let mut table = vec![Figures::HEAD.to_owned()];
        let mut clean = true;
        for protocol in wishes.protocols {
            let mut options = Options::new(&binary, protocol);
            options.delete.clone_from(&wishes.delete);
            (options.reader, options.twice, options.tls) = (wishes.reader, wishes.twice, wishes.tls);
            (options.jobs, options.progress) = (wishes.jobs, true);
            let walk = Walk::start(options);
            for mode in &wishes.modes {
                let figures = walk.run(*mode, wishes.points);
                clean &= figures.is_clean();
                eprintln!("{figures}");
                table.push(figures.to_string());
                table.extend(figures.wrong.iter().map(|wrong| format!("    {wrong}")));
            }
        }
        println!("delete {}, reader {}, twice {}, tls {}", wishes.delete, wishes.reader, wishes.twice, wishes.tls);
        println!("{}", table.join("\n"));
        if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Wishes, String> {
        let mut wishes = Wishes {
            protocols: vec![Protocol::Imap, Protocol::Pop3],
            modes: Mode::ALL.to_vec(),
            delete: "immediately".to_owned(),
            reader: false,
            twice: false,
            tls: false,
            jobs: 2,
            points: Points::From { from: 1, step: 1 },
            binary: None,
        };
        let (mut from, mut step, mut point, mut times) = (1, 1, None, 20);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text:?} is no number: {e}"));
            match name.as_str() {
                "--protocol" => {
                    wishes.protocols = match value()?.as_str() {
                        "imap" => vec![Protocol::Imap],
                        "pop3" => vec![Protocol::Pop3],
                        other => return Err(format!("no protocol {other:?}; known: imap, pop3")),
                    }
                }
                "--mode" => {
                    wishes.modes = match value()?.as_str() {
                        "fail" => vec![Mode::Eio, Mode::Enospc, Mode::Full, Mode::Short],
                        other => vec![Mode::named(other).ok_or_else(|| {
                            let known = Mode::ALL.map(Mode::name).join(", ");
                            format!("no mode {other:?}; known: fail, {known}")
                        })?],
                    }
                }
                "--delete" => wishes.delete = value()?,
                "--reader" => wishes.reader = true,
                "--twice" => wishes.twice = true,
                "--tls" => wishes.tls = true,
                "--from" => from = number(value()?)?,
                "--step" => step = number(value()?)?,
                "--point" => point = Some(number(value()?)?),
                "--times" => times = number(value()?)?,
                "--jobs" => wishes.jobs = usize::try_from(number(value()?)?).unwrap_or(usize::MAX).min(64),
                "--binary" => wishes.binary = Some(value()?.into()),
                other => return Err(format!("unknown argument {other:?}; the head of examples/walk.rs has them all")),
            }
        }
        wishes.points = match point {
            Some(point) => Points::Again { point, times },
            None => Points::From { from, step },
        };
        Ok(wishes)
    }

    /// Builds the program as this one was built, and returns where it is.
    fn build() -> PathBuf {
        let here = std::env::current_exe().expect("a running program has a path");
        // …/release/examples/walk
        let target = here.ancestors().nth(2).expect("cargo puts examples two levels below its target directory");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "-p", "connectord", "--bin", "connectord"]);
        if target.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.status().expect("cargo runs this program, so it is there");
        assert!(built.success(), "connectord could not be built");
        target.join("connectord")
    }
}
