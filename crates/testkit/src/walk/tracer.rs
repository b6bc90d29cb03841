//! One run of a program, each of whose system calls may be the one at which something happens.
//!
//! By ptrace(2), which sees all threads at once: `strace --inject` counts each thread for itself, and a library put before
//! the C library misses the calls that Rust code makes by itself.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Mode;
use super::calls::{Call, Kind};
use super::order::Deed;

/// How many calls before the point are kept for the report.
const KEPT: usize = 40;

/// What happens at which call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// Nothing; calls are not even seen.
    Leave,
    /// Nothing; calls are counted.
    Count,
    /// Nothing; what matters for the order of things is written down.
    Watch,
    /// This, at the call of this number, from 1, among those that [`Mode`] is about.
    At(Mode, u64),
}

/// How a run ended, and what was seen of it.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Exit status; `None` when a signal ended it.
    pub(super) code: Option<i32>,
    /// It did not end in time and was killed.
    pub(super) hung: bool,
    /// How many calls each mode is about, for [`Plan::Count`].
    pub(super) counts: HashMap<Mode, u64>,
    /// What was done, for [`Plan::Watch`].
    pub(super) deeds: Vec<Deed>,
    /// The call at which it happened; `None` when the program ended before.
    pub(super) point: Option<String>,
    /// The calls before it.
    pub(super) before: Vec<String>,
    /// From the signal to the end, for [`Mode::Term`].
    pub(super) stopped_after: Option<Duration>,
}

/// What is left to do at a call's end.
enum AtExit {
    /// It took effect, if it succeeded.
    Note(Deed),
    /// It was not made: this is its answer.
    Answer(Errno),
    /// Its third argument was made smaller.
    Restore(u64),
    Kill,
}

/// Runs the program to its end, with its output in the files `stdout` and `stderr` of its directory; at most for
/// `patience`, and for `grace` after it was told to stop.
///
/// The calling thread must have no other child: it waits for whichever stops next. The program cannot outlive it. What is
/// counted begins with the first call after the program's own `execve`, and ends with the process.
pub(super) fn run(command: &Command, plan: Plan, patience: Duration, grace: Duration) -> Run {
    let leader = start(command);
    let (rearm, deadline) = channel();
    let watchdog = std::thread::spawn(move || watch(leader, patience, &deadline));
    let mut tracer = Tracer {
        leader,
        plan,
        grace,
        rearm,
        running: false,
        inside: HashMap::new(),
        recent: VecDeque::new(),
        counted: 0,
        told: None,
        run: Run::default(),
    };
    tracer.follow();
    let Tracer { rearm, mut run, .. } = tracer;
    drop(rearm);
    run.hung = watchdog.join().expect("the watchdog does not panic");
    run
}

/// Starts a shell that becomes the program when it is traced: by safe code alone, without `pre_exec`.
///
/// It says that it is there first, as else its own `execve` might be taken for the program's.
#[allow(clippy::zombie_processes, reason = "the tracer waits for it, with all its threads")]
fn start(command: &Command) -> Pid {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "echo; read -r _; exec \"$@\" </dev/null >stdout 2>stderr", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().expect("a traced program has a directory"));
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = shell.spawn().unwrap_or_else(|e| panic!("cannot start /bin/sh: {e}"));
    let mut stdout = child.stdout.take().expect("standard output is a pipe");
    stdout.read_exact(&mut [0]).unwrap_or_else(|e| panic!("the shell ended before it was traced: {e}"));
    let pid = Pid::from_raw(child.id().try_into().expect("process ids fit in pid_t"));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_EXITKILL
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(pid, options).unwrap_or_else(|e| {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("cannot trace a program of our own (PTRACE_SEIZE: {e}): allow ptrace, such as by docker's --cap-add SYS_PTRACE")
    });
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin.write_all(b"\n").unwrap_or_else(|e| panic!("the shell ended before it was the program: {e}"));
    pid
}

/// Kills the program when its time is over; says whether it did.
fn watch(leader: Pid, patience: Duration, rearm: &Receiver<Duration>) -> bool {
    let mut patience = patience;
    loop {
        match rearm.recv_timeout(patience) {
            Ok(next) => patience = next,
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                let _ = kill(leader, Signal::SIGKILL);
                return true;
            }
        }
    }
}

struct Tracer {
    leader: Pid,
    plan: Plan,
    grace: Duration,
    rearm: Sender<Duration>,
    /// The shell has become the program.
    running: bool,
    /// Threads between a call's entry and its exit, and what is to be done there.
    inside: HashMap<Pid, Option<AtExit>>,
    recent: VecDeque<Call>,
    counted: u64,
    told: Option<Instant>,
    run: Run,
}

impl Tracer {
    fn follow(&mut self) {
        let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(ours)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.leader => {
                    assert!(self.running, "the shell could not start the program and ended with {code}");
                    self.run.code = Some(code);
                    break;
                }
                Ok(WaitStatus::Signaled(pid, ..)) if pid == self.leader => break,
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    self.inside.remove(&pid);
                }
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    if let Some(todo) = self.inside.remove(&pid) {
                        self.exit(pid, todo);
                    } else {
                        self.entry(pid);
                    }
                    self.resume(pid, None);
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    if event == libc::PTRACE_EVENT_EXEC {
                        self.running = true;
                        // The exit of execve itself comes next.
                        self.inside.clear();
                        self.inside.insert(pid, None);
                    }
                    self.resume(pid, None);
                }
                Ok(WaitStatus::Stopped(pid, signal)) => self.resume(pid, Some(signal)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                Err(error) => panic!("cannot wait for the traced program: {error}"),
            }
        }
        self.run.stopped_after = self.told.map(|told| told.elapsed());
    }

    /// Lets a thread go on; it may have been killed meanwhile.
    fn resume(&self, pid: Pid, signal: Option<Signal>) {
        let _ = match self.plan {
            Plan::Leave => ptrace::cont(pid, signal),
            _ if !self.running => ptrace::cont(pid, signal),
            _ => ptrace::syscall(pid, signal),
        };
    }

    fn entry(&mut self, pid: Pid) {
        let Ok(registers) = ptrace::getregs(pid) else { return };
        let call = Call::new(pid, &registers);
        let todo = self.act(&call, registers);
        self.inside.insert(pid, todo);
        if self.run.point.is_none() {
            self.recent.truncate(KEPT);
            self.recent.push_front(call);
        }
    }

    fn act(&mut self, call: &Call, registers: user_regs_struct) -> Option<AtExit> {
        let (mode, at) = match self.plan {
            Plan::Leave => return None,
            Plan::Watch => {
                return match call.deed()? {
                    deed @ (Deed::Wrote(_) | Deed::Asked(_)) => {
                        self.run.deeds.push(deed);
                        None
                    }
                    deed => Some(AtExit::Note(deed)),
                };
            }
            Plan::Count => {
                let kind = call.kind();
                for mode in Mode::ALL.into_iter().filter(|mode| mode.is_about(call, kind)) {
                    *self.run.counts.entry(mode).or_default() += 1;
                }
                return None;
            }
            Plan::At(mode, at) => (mode, at),
        };
        if self.counted >= at && mode != Mode::Full {
            return None;
        }
        let kind = if mode.needs_kind() { call.kind() } else { Kind::default() };
        if !mode.is_about(call, kind) {
            return None;
        }
        self.counted += 1;
        if self.counted < at {
            return None;
        }
        if self.counted == at {
            self.run.point = Some(call.describe());
            self.run.before = self.recent.iter().rev().map(Call::brief).collect();
        }
        self.strike(mode, call.thread, registers)
    }

    fn strike(&mut self, mode: Mode, thread: Pid, mut registers: user_regs_struct) -> Option<AtExit> {
        match mode {
            Mode::Kill => {
                let _ = kill(self.leader, Signal::SIGKILL);
                None
            }
            Mode::KillAfter => Some(AtExit::Kill),
            Mode::Term => {
                self.told = Some(Instant::now());
                let _ = self.rearm.send(self.grace);
                let _ = kill(self.leader, Signal::SIGTERM);
                None
            }
            Mode::Eio | Mode::Enospc | Mode::Full => {
                // No call has this number: it is answered without being made.
                registers.orig_rax = u64::MAX;
                ptrace::setregs(thread, registers).ok()?;
                Some(AtExit::Answer(if mode == Mode::Eio { Errno::EIO } else { Errno::ENOSPC }))
            }
            Mode::Short => {
                let whole = registers.rdx;
                registers.rdx = whole / 2;
                ptrace::setregs(thread, registers).ok()?;
                Some(AtExit::Restore(whole))
            }
        }
    }

    fn exit(&mut self, pid: Pid, todo: Option<AtExit>) {
        let Some(todo) = todo else { return };
        let change = |change: &dyn Fn(&mut user_regs_struct)| {
            if let Ok(mut registers) = ptrace::getregs(pid) {
                change(&mut registers);
                let _ = ptrace::setregs(pid, registers);
            }
        };
        match todo {
            AtExit::Note(deed) => {
                if ptrace::getregs(pid).is_ok_and(|registers| registers.rax.cast_signed() >= 0) {
                    self.run.deeds.push(deed);
                }
            }
            AtExit::Answer(errno) => change(&|registers| registers.rax = i64::from(-(errno as i32)).cast_unsigned()),
            AtExit::Restore(whole) => change(&|registers| registers.rdx = whole),
            AtExit::Kill => {
                let _ = kill(self.leader, Signal::SIGKILL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// Runs a script of the shell, which has only what a test is about among its calls on files that need room.
    fn trace(directory: &tempfile::TempDir, script: &str, plan: Plan, patience: Duration) -> Run {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env_clear().env("PATH", "/usr/bin:/bin").current_dir(directory.path());
        std::thread::scope(|scope| scope.spawn(|| run(&command, plan, patience, patience)).join().expect("no panic"))
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn a_run_that_is_only_counted_does_its_work() {
        let here = directory();
        let run = trace(&here, "echo hello > file; mkdir one; exit 3", Plan::Count, SOON);
        assert_eq!((run.code, run.hung, run.point), (Some(3), false, None));
        // Opened, written; the new directory is made by another process, which is followed, too.
        assert_eq!((run.counts[&Mode::Full], run.counts[&Mode::Short]), (3, 1));
        assert!(run.counts[&Mode::Kill] > run.counts[&Mode::Eio] && run.counts[&Mode::Eio] > 3, "{:?}", run.counts);
        assert!(here.path().join("one").is_dir());
    }

    #[test]
    fn killed_at_a_call_it_is_not_made_and_killed_after_it_it_is() {
        for (mode, made) in [(Mode::Kill, false), (Mode::KillAfter, true)] {
            let mut seen = false;
            for at in 1..10_000 {
                let here = directory();
                let run = trace(&here, "echo > one; echo > two", Plan::At(mode, at), SOON);
                let point = run.point.expect("the file is opened before the end");
                assert_eq!(run.code, None, "{point}");
                if point.starts_with("openat") && point.ends_with("two") {
                    seen = true;
                    assert_eq!(here.path().join("two").exists(), made, "{mode} {point}");
                    break;
                }
                assert!(!here.path().join("two").exists(), "{point}");
            }
            assert!(seen);
        }
    }

    #[test]
    fn a_call_that_fails_is_not_made_and_the_program_is_told() {
        let here = directory();
        let run = trace(&here, "(echo > one) 2>said || echo failed > two", Plan::At(Mode::Enospc, 2), SOON);
        assert!(run.point.is_some_and(|point| point.ends_with("one")));
        assert!(!here.path().join("one").exists());
        assert!(std::fs::read_to_string(here.path().join("said")).is_ok_and(|said| said.contains("No space")));
        assert_eq!(std::fs::read(here.path().join("two")).ok(), Some(b"failed\n".to_vec()));
    }

    #[test]
    fn a_disk_that_is_full_stays_full() {
        let here = directory();
        let run = trace(&here, "echo 1 > one; echo 2 > two; echo 3 > three", Plan::At(Mode::Full, 2), SOON);
        assert!(run.code.is_some_and(|code| code != 0));
        assert_eq!(std::fs::read(here.path().join("one")).ok(), Some(Vec::new()));
        assert!(!here.path().join("two").exists() && !here.path().join("three").exists());
    }

    #[test]
    fn of_a_short_write_the_program_hears_and_may_write_the_rest() {
        let here = directory();
        let plain = trace(&here, "echo hello > file", Plan::Count, SOON);
        let short = trace(&here, "echo hello > file", Plan::At(Mode::Short, 1), SOON);
        assert_eq!((plain.counts[&Mode::Short], short.code), (1, Some(0)));
        assert!(short.point.is_some_and(|point| point.starts_with("write ")));
        assert_eq!(std::fs::read(here.path().join("file")).ok(), Some(b"hello\n".to_vec()));
    }

    #[test]
    fn who_is_told_to_stop_and_does_not_is_killed_and_said_to_hang() {
        let here = directory();
        let stops = trace(&here, "while :; do :; done", Plan::At(Mode::Term, 20), SOON);
        assert_eq!((stops.code, stops.hung, stops.stopped_after.is_some()), (None, false, true));
        let script = "trap '' TERM; while :; do umask > /dev/null; done";
        let hangs = trace(&here, script, Plan::At(Mode::Term, 2000), Duration::from_secs(3));
        assert_eq!((hangs.code, hangs.hung, hangs.stopped_after.is_some()), (None, true, true));
        let hangs = trace(&here, "exec sleep 100", Plan::Leave, Duration::from_secs(1));
        assert_eq!((hangs.code, hangs.hung, hangs.point), (None, true, None));
    }
}
