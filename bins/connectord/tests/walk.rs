//! A sample of the walk over all system calls: the program is killed, calls fail, it is told to stop; every message comes
//! once. `connectord_testkit::walk` says how, and how to walk over all of them.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn the_walk_over_system_calls_needs_linux_on_x86_64() {
    eprintln!("nothing was shown: the walk needs ptrace and the registers of Linux on x86_64");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use std::path::PathBuf;
    use std::process::Command;

    use connectord_testkit::walk::{Figures, Mode, Options, Points, Protocol, Walk};

    /// Some points of each mode, spread over the whole run.
    #[track_caller]
    fn sample(protocol: Protocol, change: impl FnOnce(&mut Options), modes: &[(Mode, u64)]) {
        let mut options = Options::new(env!("CARGO_BIN_EXE_connectord"), protocol);
        change(&mut options);
        let walk = Walk::start(options);
        let figures: Vec<Figures> = modes.iter().map(|(mode, count)| walk.run(*mode, Points::About(*count))).collect();
        eprintln!("{}", Figures::HEAD);
        figures.iter().for_each(|figures| eprintln!("{figures}"));
        for (figures, (_, count)) in figures.iter().zip(modes) {
            assert!(figures.is_clean(), "a promise was broken: {:#?}", figures.wrong);
            assert!(figures.points * 2 >= *count, "most of the points were never reached: {figures:?}");
        }
    }

    #[test]
    fn the_server_is_asked_to_remove_nothing_that_is_not_durable_here() {
        for protocol in [Protocol::Imap, Protocol::Pop3] {
            let order = Walk::start(Options::new(env!("CARGO_BIN_EXE_connectord"), protocol)).order();
            assert_eq!(order.faults, [""; 0], "{protocol:?}");
            assert!(order.delivered == 8 && order.asked > 0, "{protocol:?}: {order:?}");
        }
    }

    const ALL: [(Mode, u64); 7] = [
        (Mode::Kill, 25),
        (Mode::KillAfter, 20),
        (Mode::Eio, 20),
        (Mode::Enospc, 8),
        (Mode::Full, 6),
        (Mode::Short, 6),
        (Mode::Term, 8),
    ];

    #[test]
    fn whichever_call_is_the_last_or_fails_each_message_comes_once_by_imap() {
        sample(Protocol::Imap, |_| {}, &ALL);
    }

    #[test]
    fn whichever_call_is_the_last_or_fails_each_message_comes_once_by_pop3() {
        sample(Protocol::Pop3, |_| {}, &ALL);
    }

    #[test]
    fn whichever_call_is_the_last_or_fails_each_message_comes_once_though_a_reader_takes_it_away() {
        let modes = [(Mode::Kill, 12), (Mode::KillAfter, 12), (Mode::Eio, 20)];
        sample(Protocol::Imap, |options| options.reader = true, &modes);
    }

    #[test]
    fn killed_at_any_call_and_again_each_message_comes_once_and_stays_at_the_server() {
        let change = |options: &mut Options| (options.delete, options.twice) = ("never".into(), true);
        sample(Protocol::Pop3, change, &[(Mode::Kill, 10), (Mode::KillAfter, 10)]);
    }

    /// The program, which does something to `ann`'s first new message when it runs again.
    fn sinner(directory: &tempfile::TempDir, name: &str, sin: &str) -> PathBuf {
        let script = format!(
            "#!/bin/sh\n[ -e ran ] || {{ : > ran; exec {program} \"$@\"; }}\n{program} \"$@\" || exit\n\
             cd mail/ann/Maildir/new && set -- * && {sin}\nexit 0\n",
            program = env!("CARGO_BIN_EXE_connectord")
        );
        let (text, path) = (directory.path().join(format!("{name}.sh")), directory.path().join(name));
        std::fs::write(&text, script).expect("a script in a directory of our own");
        // Written by us, another test's child might still have it open when it is to start.
        let installed = Command::new("install").args(["-m", "755"]).args([&text, &path]).status();
        assert!(installed.is_ok_and(|status| status.success()), "cannot install {}", path.display());
        path
    }

    #[test]
    fn a_program_that_loses_doubles_damages_or_leaves_something_behind_is_noticed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let found = |name: &str, sin: &str| {
            let walk = Walk::start(Options::new(sinner(&directory, name, sin), Protocol::Imap));
            let figures = walk.run(Mode::Kill, Points::Again { point: 1500, times: 1 });
            assert!(!figures.is_clean() && figures.wrong.len() == 1, "{figures:?}");
            [figures.lost, figures.duplicated, figures.corrupted, figures.stuck, figures.other]
        };
        let once = |name: &str, sin: &str| found(name, &format!("mkdir \"$OLDPWD/once\" && {sin}"));
        assert_eq!(once("loses", "rm \"$1\""), [1, 0, 0, 0, 0]);
        assert_eq!(once("doubles", "cp \"$1\" twin"), [0, 1, 0, 0, 0]);
        assert_eq!(once("damages", "echo >> \"$1\""), [0, 0, 1, 0, 0]);
        assert_eq!(once("litters", ": > ../tmp/litter"), [0, 0, 0, 0, 1]);
        // It never says that it is done.
        assert_eq!(found("fails", "exit 75"), [0, 0, 0, 1, 0]);
    }
}
