//! What a program costs: a small copy of ourselves runs it, waits, and asks the kernel.
//!
//! It must be small: between fork and exec a child counts its parent's memory as its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::Done;

/// Commands that together are one run of one program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Program and arguments of each.
    pub(crate) commands: Vec<Vec<String>>,
    /// How many run at once, at least 1.
    pub(crate) parallel: usize,
    /// Set for all of them.
    pub(crate) environment: Vec<(String, String)>,
    /// Exit codes that mean success beside 0.
    pub(crate) also_good: Vec<i32>,
}

impl Plan {
    pub(crate) fn one(command: Vec<String>) -> Self {
        Self { commands: vec![command], parallel: 1, ..Self::default() }
    }
}

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// From the first start to the last end, in seconds.
    pub(crate) wall: f64,
    /// User and system time of all processes, in seconds.
    pub(crate) cpu: f64,
    /// Peak resident set of the largest process, in MiB.
    pub(crate) rss: f64,
}

/// Longest run of one program; then it is killed, and the run failed.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs the plan; what the programs print goes to the file `log`.
pub(crate) fn run(plan: &Plan, log: &Path) -> Done<Cost> {
    let mut spec = format!("{}\n", plan.parallel.max(1));
    spec += &plan.also_good.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
    spec.push('\n');
    for command in &plan.commands {
        spec += &command.join("\t");
        spec.push('\n');
    }
    let output = File::create(log)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["exec"])
        .envs(plan.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(output)
        .process_group(0)
        .spawn()?;
    child.stdin.take().ok_or("no standard input")?.write_all(spec.as_bytes())?;
    let mut stdout = child.stdout.take().ok_or("no standard output")?;
    let began = Instant::now();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > PATIENCE {
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            child.wait()?;
            return Err(format!("no end after {} s", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = reader.join().map_err(|_| "the reader of a run's figures panicked")?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    if !status.success() || numbers.len() != 3 {
        let log = std::fs::read(log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(800)..]).into_owned();
        return Err(format!("{:?} failed:\n{text}{tail}", plan.commands.first().map(|c| &c[0])).into());
    }
    Ok(Cost { wall: numbers[0], cpu: numbers[1], rss: numbers[2] })
}

/// `connectord-compare exec`: runs what standard input says and prints wall time, CPU and peak memory.
pub(crate) fn exec() -> Done<()> {
    let mut spec = String::new();
    std::io::stdin().read_to_string(&mut spec)?;
    let mut lines = spec.lines();
    let parallel: usize = lines.next().and_then(|line| line.parse().ok()).ok_or("no number of processes")?;
    let good: Vec<i32> = lines.next().unwrap_or_default().split(' ').filter_map(|code| code.parse().ok()).collect();
    let next = Mutex::new(lines);
    let failed = Mutex::new(String::new());
    let before = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let began = Instant::now();
    let work = || {
        loop {
            let Some(line) = next.lock().ok().and_then(|mut lines| lines.next()) else { return };
            let mut words = line.split('\t');
            let Some(program) = words.next() else { return };
            let status = Command::new(program).args(words).stdin(Stdio::null()).stdout(Stdio::null()).status();
            let problem = match status {
                Ok(status) if status.code().is_some_and(|code| code == 0 || good.contains(&code)) => continue,
                Ok(status) => format!("{line} ended with {status}\n"),
                Err(error) => format!("{line}: {error}\n"),
            };
            if let Ok(mut failed) = failed.lock() {
                failed.push_str(&problem);
            }
        }
    };
    if parallel == 1 {
        work();
    } else {
        std::thread::scope(|scope| (0..parallel).for_each(|_| drop(scope.spawn(work))));
    }
    let wall = began.elapsed().as_secs_f64();
    let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let failed = failed.into_inner().unwrap_or_default();
    if !failed.is_empty() {
        return Err(failed.into());
    }
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cpu = seconds(after.user_time()) + seconds(after.system_time())
        - seconds(before.user_time())
        - seconds(before.system_time());
    println!("{wall:.6} {cpu:.6} {:.3}", after.max_rss() as f64 / 1024.0);
    Ok(())
}
