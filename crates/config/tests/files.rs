//! What the file's own permissions and the files it names have to be.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use connectord_config::{Config, Problems};

const WITH_PASSWORD: &str = "[delivery]\ntype = \"maildir\"\npath = \"/mail/{user}\"\n[[account]]\naddress = \"a\"\n\
                             protocol = \"imap\"\nhost = \"h\"\ndeliver_to = \"ann\"\npassword = \"hunter2\"\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }
}

fn messages(result: Result<Config, Problems>) -> Vec<String> {
    result
        .unwrap_err()
        .problems
        .iter()
        .map(|p| format!("{:?} {} | {:?}", p.place.map(|p| p.line), p.message, p.hint))
        .collect()
}

#[test]
fn a_file_with_a_password_is_refused_when_others_can_read_it() {
    let folder = Folder::new();
    for mode in [0o644, 0o604] {
        let path = folder.write("c.toml", WITH_PASSWORD.as_bytes(), mode);
        let is_root = path.metadata().unwrap().uid() == 0;
        let mended = if is_root && mode == 0o644 { "640" } else { "600" };
        assert_eq!(
            messages(Config::read(&path)),
            [format!(
                "Some(9) this is secret, and others can read the file (mode {mode:04o}) | {:?}",
                Some(format!("chmod {mended} {}", path.display()))
            )]
        );
        let shown = Config::read(&path).unwrap_err().to_string();
        assert!(shown.contains("password = ***") && !shown.contains("hunter2"), "{shown}");
    }
    assert!(Config::read(folder.write("c.toml", WITH_PASSWORD.as_bytes(), 0o600)).is_ok());
}

#[test]
fn a_file_without_a_password_may_be_read_but_not_written_by_all() {
    let folder = Folder::new();
    assert!(Config::read(folder.write("c.toml", b"[log]\n", 0o644)).is_ok());
    let path = folder.write("c.toml", b"[log]\n", 0o646);
    assert_eq!(
        messages(Config::read(&path)),
        [format!(
            "None everybody can write this file (mode 0646) | {:?}",
            Some(format!("chmod o-w {}", path.display()))
        )]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_without_a_place() {
    let folder = Folder::new();
    let missing = folder.0.path().join("none.toml");
    assert_eq!(
        Config::read(&missing).unwrap_err().to_string(),
        format!("{}: cannot be read: No such file or directory (os error 2)", missing.display())
    );
    let latin1 = folder.write("c.toml", b"[log]\n# caf\xe9\n", 0o600);
    assert_eq!(Config::read(&latin1).unwrap_err().to_string(), format!("{}: is not UTF-8 in line 2", latin1.display()));
}

#[test]
fn files_that_are_named_are_looked_at_from_the_files_folder() {
    let folder = Folder::new();
    folder.write("open", b"x", 0o644);
    folder.write("closed", b"x", 0o600);
    let account = |file: &str| {
        let text = WITH_PASSWORD.replace("password = \"hunter2\"", &format!("password_file = \"{file}\""));
        let config = Config::read(folder.write("c.toml", text.as_bytes(), 0o600)).unwrap();
        config.warnings.iter().map(|w| format!("{} | {:?}", w.message, w.hint)).collect::<Vec<_>>()
    };
    let at = |name: &str| folder.0.path().join(name).display().to_string();
    assert_eq!(account("closed"), Vec::<String>::new());
    let mended = if Path::new(&at("open")).metadata().unwrap().uid() == 0 { "640" } else { "600" };
    assert_eq!(
        account("open"),
        [format!(
            "password_file: others can read {} (mode 0644) | {:?}",
            at("open"),
            Some(format!("chmod {mended} {}", at("open")))
        )]
    );
    assert_eq!(
        account("none"),
        [format!("password_file: {} cannot be read now: No such file or directory (os error 2) | None", at("none"))]
    );
}
