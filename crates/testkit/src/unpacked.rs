//! Servers whose packages conflict with Dovecot's: `./test` unpacks them instead of installing them.

use std::path::{Path, PathBuf};

/// Where `./test` unpacks them.
const PLACE: &str = "/var/cache/connectord-tests";

/// The folder of one server, as if it were `/`; panics when it was never unpacked: a skipped test is not a passed one.
pub(crate) fn root(name: &str) -> PathBuf {
    let root = Path::new(PLACE).join(name);
    assert!(
        root.join("packages").exists(),
        "{} is missing; run ./test once as root: it unpacks {name}",
        root.display()
    );
    root
}

/// What the dynamic linker needs to find the libraries of an unpacked server, as `LD_LIBRARY_PATH`.
pub(crate) fn libraries(root: &Path) -> String {
    let mut folders = Vec::new();
    for above in [root.join("usr/lib"), root.join("lib")] {
        let entries = std::fs::read_dir(&above).into_iter().flatten().flatten().map(|entry| entry.path());
        folders.extend(entries.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")));
        folders.push(above);
    }
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":")
}
