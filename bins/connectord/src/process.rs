//! What the process makes of itself before and after it knows its configuration.

use connectord_config::ProcessSettings;

use crate::error::Error;

/// As early as possible: no core with secrets in it, files for us alone, as many open files as we may have.
pub(crate) fn prepare() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Each is a precaution or a convenience; a system that refuses one is no reason not to deliver mail.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
}

/// How many files this process may have open; nothing when as many as it likes.
pub(crate) fn open_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Becomes the configured user, if there is one and we are root. Call before any file of the state is opened.
pub(crate) fn become_user(settings: &ProcessSettings) -> Result<(), Error> {
    use nix::unistd::{Group, User, getuid, initgroups, setresgid, setresuid};
    let Some(name) = &settings.user else { return Ok(()) };
    let wrong = |text: String| Error::Usage(format!("[process] user = {name:?}: {text}"));
    let user = User::from_name(name).map_err(|error| wrong(error.to_string()))?;
    let user = user.ok_or_else(|| wrong("there is no such user".into()))?;
    if getuid() == user.uid {
        return Ok(());
    }
    if !getuid().is_root() {
        return Err(wrong(format!("only root can become another user, and this process is user {}", getuid())));
    }
    let group = Group::from_gid(user.gid).ok().flatten().map_or(user.gid, |group| group.gid);
    let c_name = std::ffi::CString::new(name.as_str()).map_err(|error| wrong(error.to_string()))?;
    let refused = |error: nix::Error| wrong(error.to_string());
    // In this order: whoever has given up the user cannot change the groups any more.
    initgroups(&c_name, group).map_err(refused)?;
    setresgid(group, group, group).map_err(refused)?;
    setresuid(user.uid, user.uid, user.uid).map_err(refused)?;
    if setresuid(nix::unistd::Uid::from_raw(0), nix::unistd::Uid::from_raw(0), nix::unistd::Uid::from_raw(0)).is_ok() {
        return Err(wrong("the way back to root is still open".into()));
    }
    Ok(())
}

/// Whether we run as root, which works and is better avoided.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
