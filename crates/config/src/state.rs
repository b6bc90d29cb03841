use std::ffi::OsString;
use std::path::PathBuf;

/// Where the state is when `[state]` says nothing; `variable` is asked for environment variables.
///
/// The first of `$STATE_DIRECTORY` (systemd's; of several directories the first), `$XDG_STATE_HOME/connectord` and
/// `$HOME/.local/state/connectord` that is there and absolute.
///
/// ```
/// let home = |name: &str| (name == "HOME").then(|| "/home/ann".into());
/// assert_eq!(connectord_config::default_state_directory(home), Some("/home/ann/.local/state/connectord".into()));
/// ```
pub fn default_state_directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let path = |name| variable(name).map(PathBuf::from).and_then(absolute);
    let systemd = variable("STATE_DIRECTORY").and_then(|list| {
        let list = list.into_string().ok()?;
        absolute(PathBuf::from(list.split(':').next()?))
    });
    systemd
        .or_else(|| Some(path("XDG_STATE_HOME")?.join("connectord")))
        .or_else(|| Some(path("HOME")?.join(".local/state/connectord")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_comes_first_and_relative_paths_do_not_count() {
        let directory = |variables: &[(&str, &str)]| {
            default_state_directory(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            })
        };
        let home = ("HOME", "/home/ann");
        let several = ("STATE_DIRECTORY", "/var/lib/connectord:/var/lib/other");
        assert_eq!(directory(&[several, home]), Some("/var/lib/connectord".into()));
        assert_eq!(directory(&[("XDG_STATE_HOME", "/state"), home]), Some("/state/connectord".into()));
        assert_eq!(directory(&[("XDG_STATE_HOME", "state"), home]), Some("/home/ann/.local/state/connectord".into()));
        assert_eq!(directory(&[]), None);
    }
}
