use std::io;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// A process group for one run, killed when this is dropped and also when we are killed: nothing of a run that we know
/// nothing of any more acts later.
///
/// Its leader is a shell that waits for the end of a pipe from us. (The other way, a signal at the parent's death, is
/// tied to the thread that started the program, and leaves the program's children.) As long as the leader has not been
/// waited for, nobody else gets the group's number.
pub(crate) struct Group {
    leader: Child,
    /// `None` once released.
    id: Option<Pid>,
}

/// The shell that leads a group.
pub(crate) const GUARD: &str = "/bin/sh";

impl Group {
    pub(crate) fn start() -> io::Result<Self> {
        let leader = Command::new(GUARD)
            .args(["-c", "read -r _; kill -s KILL 0"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()?;
        let id = leader.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { leader, id })
    }

    /// For `setpgid`.
    pub(crate) fn id(&self) -> i32 {
        self.id.map_or(0, |id| id.as_raw_nonzero().get())
    }

    /// Ends the leader alone: what the program left in the background may go on.
    pub(crate) async fn release(&mut self) {
        // The signal comes before the end of the pipe, which would make it kill the others.
        if self.leader.start_kill().is_ok() {
            self.id = None;
            let _ = self.leader.wait().await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.id {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
