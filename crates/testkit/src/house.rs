//! The house's rules, read from the manifests: which crate is on which level, which arrows are allowed, what a pure crate may
//! depend on, and that its `clippy.toml` keeps clocks, files, sockets, processes and the environment out.
//!
//! Each check returns what is wrong as sentences, so that a test shows all of it at once and planted faults can be compared.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Every crate's level, by its name without `connectord-`. A crate imports only from lower levels.
///
/// Programs are above all. `testkit` and `benches` are not in the list: they are for tests, and may import anything.
/// Nor is `sample`, which is [free](FREE).
pub const LEVELS: &[(&str, u8)] = &[
    ("wire", 0),
    ("mail", 0),
    ("sasl", 1),
    ("account", 1),
    ("filter", 1),
    ("delivery", 1),
    ("store", 2),
    ("pop3", 2),
    ("imap", 2),
    ("lmtp", 2),
    ("net", 3),
    ("process", 3),
    ("stores", 3),
    ("filters", 4),
    ("deliveries", 4),
    ("quarantine", 4),
    ("setup", 4),
    ("migrate", 4),
    ("engine", 5),
    ("admin", 6),
    ("notices", 6),
    ("config", 7),
];

/// Crates that stand beside the levels: they import none of ours, and only programs and what is for tests import them.
///
/// `sample` has servers and mail for demonstrations. On a level, any crate above could come to lean on a server that
/// keeps mail in memory and panics when it is told to; in `testkit`, the program that shows a demonstration could not use it.
pub const FREE: &[&str] = &["sample"];

/// Level of what is in `bins/`.
const PROGRAM: u8 = 8;

/// The highest level without I/O.
const HIGHEST_PURE: u8 = 2;

/// What the pure crates may depend on, besides each other.
const PURE_DEPENDENCIES: &[&str] = &[
    "async-trait",
    "base64",
    "bytes",
    "hmac",
    "md-5",
    "memchr",
    "nom",
    "pbkdf2",
    "serde",
    "sha1",
    "sha2",
    "subtle",
    "thiserror",
    "zeroize",
];

/// What the `clippy.toml` of a pure crate must disallow, as methods or as types.
const IMPURE: &[&str] = &[
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::sleep",
    "std::thread::spawn",
    "std::fs::read",
    "std::fs::write",
    "std::fs::File",
    "std::fs::OpenOptions",
    "std::env::var",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os::unix::net::UnixStream",
    "std::process::Command",
];

/// One member of the workspace, as its manifest describes it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its folder below the workspace, such as `crates/wire`.
    pub folder: String,
    /// Its manifest.
    pub manifest: Table,
    /// Its `clippy.toml`, if it has one of its own.
    pub clippy: Option<Table>,
}

/// The workspace that this crate is built in.
///
/// # Panics
/// When no folder above this crate's has a manifest with `[workspace]`.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|folder| {
            std::fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("[workspace]"))
        })
        .unwrap_or_else(|| panic!("no workspace above {}", env!("CARGO_MANIFEST_DIR")))
        .to_path_buf()
}

/// Reads all members of the workspace at `root`.
///
/// # Panics
/// When a manifest or a `clippy.toml` cannot be read or is no TOML.
pub fn members(root: &Path) -> Vec<Member> {
    let manifest = read(&root.join("Cargo.toml"));
    let folders = manifest.get("workspace").and_then(|w| w.get("members")).and_then(Value::as_array);
    let folders = folders.unwrap_or_else(|| panic!("{}/Cargo.toml has no list of members", root.display()));
    folders
        .iter()
        .filter_map(Value::as_str)
        .map(|folder| {
            let path = root.join(folder);
            let clippy = path.join("clippy.toml");
            Member {
                folder: folder.to_owned(),
                manifest: read(&path.join("Cargo.toml")),
                clippy: clippy.exists().then(|| read(&clippy)),
            }
        })
        .collect()
}

fn read(path: &Path) -> Table {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{} is no TOML: {e}", path.display()))
}

impl Member {
    /// A member from the texts of its files.
    ///
    /// # Panics
    /// When a text is no TOML.
    pub fn new(folder: &str, manifest: &str, clippy: Option<&str>) -> Self {
        let parse = |text: &str| text.parse().unwrap_or_else(|e| panic!("a file of {folder} is no TOML: {e}"));
        Self { folder: folder.to_owned(), manifest: parse(manifest), clippy: clippy.map(parse) }
    }

    /// All that is wrong with this member.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.name_faults();
        faults.extend(self.arrow_faults());
        faults.extend(self.purity_faults());
        faults.extend(self.lint_faults());
        faults
    }

    fn name(&self) -> &str {
        self.manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str).unwrap_or_default()
    }

    /// Tests and benchmarks may import anything.
    fn is_for_tests(&self) -> bool {
        matches!(self.folder.as_str(), "crates/testkit" | "benches")
    }

    fn is_free(&self) -> bool {
        self.folder.strip_prefix("crates/").is_some_and(|short| FREE.contains(&short))
    }

    fn level(&self) -> Option<u8> {
        if self.folder.starts_with("bins/") {
            return Some(PROGRAM);
        }
        self.folder.strip_prefix("crates/").and_then(level)
    }

    fn name_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(short) = self.folder.strip_prefix("crates/")
            && self.name() != format!("connectord-{short}")
        {
            faults.push(format!("{} is called {:?}, expected \"connectord-{short}\"", self.folder, self.name()));
        }
        if self.level().is_none() && !self.is_for_tests() && !self.is_free() {
            faults.push(format!(
                "{} is on no level: give it one in house::LEVELS and in the architecture page",
                self.folder
            ));
        }
        faults
    }

    /// An arrow goes down, never up and never sideways.
    fn arrow_faults(&self) -> Vec<String> {
        if self.is_free() {
            return self.weights();
        }
        let Some(from) = self.level() else { return Vec::new() };
        let mut faults = Vec::new();
        for dependency in self.dependencies(&["dependencies", "build-dependencies"]) {
            let Some(short) = dependency.strip_prefix("connectord-") else { continue };
            match level(short) {
                Some(to) if to < from => {}
                Some(to) => faults.push(format!("{} (level {from}) depends on {dependency} (level {to})", self.folder)),
                None if short == "testkit" => {
                    faults
                        .push(format!("{} depends on {dependency}, which is for [dev-dependencies] only", self.folder));
                }
                None if FREE.contains(&short) && from == PROGRAM => {}
                None if FREE.contains(&short) => faults
                    .push(format!("{} depends on {dependency}, which is for programs and tests only", self.folder)),
                None => faults.push(format!("{} depends on {dependency}, which is on no level", self.folder)),
            }
        }
        faults
    }

    /// What keeps a free crate from being free.
    fn weights(&self) -> Vec<String> {
        let ours = self.dependencies(&["dependencies", "build-dependencies"]).into_iter();
        let ours = ours.filter(|dependency| dependency.starts_with("connectord-"));
        ours.map(|dependency| format!("{} is free but depends on {dependency}", self.folder)).collect()
    }

    fn purity_faults(&self) -> Vec<String> {
        if self.level().is_none_or(|level| level > HIGHEST_PURE) {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for dependency in self.dependencies(&["dependencies", "build-dependencies"]) {
            if !dependency.starts_with("connectord-") && !PURE_DEPENDENCIES.contains(&dependency.as_str()) {
                faults.push(format!("{} is pure but depends on {dependency}", self.folder));
            }
        }
        let Some(clippy) = &self.clippy else {
            faults.push(format!("{} is pure but has no clippy.toml that keeps it so", self.folder));
            return faults;
        };
        let disallowed: BTreeSet<&str> = ["disallowed-methods", "disallowed-types"]
            .iter()
            .filter_map(|key| clippy.get(*key)?.as_array())
            .flatten()
            .filter_map(|entry| entry.as_str().or_else(|| entry.get("path")?.as_str()))
            .collect();
        for path in IMPURE.iter().filter(|path| !disallowed.contains(*path)) {
            faults.push(format!("{} is pure but its clippy.toml does not disallow {path}", self.folder));
        }
        faults
    }

    /// Lints come from the workspace, where unsafe code is forbidden.
    fn lint_faults(&self) -> Vec<String> {
        let lints = self.manifest.get("lints").and_then(Value::as_table);
        let inherits = lints.is_some_and(|lints| lints.get("workspace").and_then(Value::as_bool) == Some(true));
        if inherits && lints.is_some_and(|lints| lints.len() == 1) {
            return Vec::new();
        }
        vec![format!("{} does not take its lints from the workspace alone", self.folder)]
    }

    /// Names of packages, also those renamed and those for one platform only.
    fn dependencies(&self, kinds: &[&str]) -> Vec<String> {
        let mut tables: Vec<&Table> = vec![&self.manifest];
        let targets = self.manifest.get("target").and_then(Value::as_table);
        tables.extend(targets.into_iter().flat_map(|targets| targets.values()).filter_map(Value::as_table));
        let mut names = Vec::new();
        for dependencies in tables.iter().flat_map(|t| kinds.iter().filter_map(|kind| t.get(*kind)?.as_table())) {
            for (key, value) in dependencies {
                names.push(value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned());
            }
        }
        names
    }
}

/// What is wrong with the workspace's own manifest: unsafe code must be forbidden for all.
pub fn workspace_faults(root: &Path) -> Vec<String> {
    let manifest = read(&root.join("Cargo.toml"));
    let lint = manifest.get("workspace").and_then(|w| w.get("lints")?.get("rust")?.get("unsafe_code")?.as_str());
    if lint == Some("forbid") { Vec::new() } else { vec!["the workspace does not forbid unsafe code".to_owned()] }
}

fn level(short: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == short).map(|(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: &str = include_str!("../../wire/clippy.toml");

    fn manifest(name: &str, dependencies: &str) -> String {
        format!("[package]\nname = \"connectord-{name}\"\n[dependencies]\n{dependencies}\n[lints]\nworkspace = true\n")
    }

    fn faults(name: &str, dependencies: &str) -> Vec<String> {
        Member::new(&format!("crates/{name}"), &manifest(name, dependencies), Some(PURE)).faults()
    }

    #[test]
    fn an_arrow_down_is_allowed() {
        assert_eq!(faults("imap", "connectord-wire.workspace = true\nnom.workspace = true"), [""; 0]);
        assert_eq!(faults("engine", "connectord-net.workspace = true\ntokio.workspace = true"), [""; 0]);
    }

    #[test]
    fn an_arrow_up_is_refused() {
        let expected = ["crates/wire (level 0) depends on connectord-imap (level 2)"];
        assert_eq!(faults("wire", "connectord-imap.workspace = true"), expected);
    }

    #[test]
    fn an_arrow_to_the_side_is_refused() {
        let expected = ["crates/imap (level 2) depends on connectord-pop3 (level 2)"];
        assert_eq!(faults("imap", "connectord-pop3 = { path = \"../pop3\" }"), expected);
    }

    #[test]
    fn a_new_name_or_a_platform_does_not_hide_an_arrow() {
        let expected = ["crates/net (level 3) depends on connectord-engine (level 5)"];
        assert_eq!(faults("net", "motor = { package = \"connectord-engine\", path = \"../engine\" }"), expected);
        assert_eq!(faults("net", "[target.'cfg(unix)'.dependencies]\nconnectord-engine.workspace = true"), expected);
        assert_eq!(faults("net", "[build-dependencies]\nconnectord-engine.workspace = true"), expected);
    }

    #[test]
    fn tests_may_use_the_testkit_and_nothing_else_may() {
        assert_eq!(faults("net", "[dev-dependencies]\nconnectord-testkit.workspace = true"), [""; 0]);
        let expected = ["crates/net depends on connectord-testkit, which is for [dev-dependencies] only"];
        assert_eq!(faults("net", "connectord-testkit.workspace = true"), expected);
    }

    #[test]
    fn a_free_crate_is_for_programs_and_tests_and_imports_none_of_ours() {
        assert_eq!(faults("sample", "tokio.workspace = true"), [""; 0]);
        assert_eq!(faults("testkit", "connectord-sample.workspace = true"), [""; 0]);
        let program = "[package]\nname = \"connectord\"\n[dependencies]\nconnectord-sample.workspace = true\n\
                       [lints]\nworkspace = true\n";
        assert_eq!(Member::new("bins/connectord", program, None).faults(), [""; 0]);
        let expected = ["crates/engine depends on connectord-sample, which is for programs and tests only"];
        assert_eq!(faults("engine", "connectord-sample.workspace = true"), expected);
        let expected = ["crates/sample is free but depends on connectord-wire"];
        assert_eq!(faults("sample", "connectord-wire.workspace = true"), expected);
    }

    #[test]
    fn an_impure_dependency_of_a_pure_crate_is_refused() {
        assert_eq!(faults("pop3", "tokio.workspace = true"), ["crates/pop3 is pure but depends on tokio"]);
        assert_eq!(faults("store", "getrandom.workspace = true"), ["crates/store is pure but depends on getrandom"]);
    }

    #[test]
    fn a_pure_crate_without_its_clippy_file_is_refused() {
        let text = manifest("mail", "");
        let expected = ["crates/mail is pure but has no clippy.toml that keeps it so"];
        assert_eq!(Member::new("crates/mail", &text, None).faults(), expected);
        let lean = PURE.replace("std::time::Instant::now\"", "std::time::Instant::later\"");
        let expected = ["crates/mail is pure but its clippy.toml does not disallow std::time::Instant::now"];
        assert_eq!(Member::new("crates/mail", &text, Some(&lean)).faults(), expected);
    }

    #[test]
    fn lints_of_its_own_are_refused() {
        let text = "[package]\nname = \"connectord-net\"\n[lints.rust]\nunsafe_code = \"allow\"\n";
        let expected = ["crates/net does not take its lints from the workspace alone"];
        assert_eq!(Member::new("crates/net", text, None).faults(), expected);
    }

    #[test]
    fn a_crate_without_a_level_is_refused() {
        let expected = ["crates/new is on no level: give it one in house::LEVELS and in the architecture page"];
        assert_eq!(faults("new", ""), expected);
    }
}
