use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

/// Feeds every file of `fuzz/corpus/<name>/` to a property, as a test of its own: an input that once broke something is a
/// regression test for ever, and needs neither nightly Rust nor a fuzzer.
///
/// ```no_run
/// connectord_testkit::replay!(dot_stuffing, connectord_wire::fuzzing::dot_stuffing);
/// ```
///
/// The test has the name of the corpus, and fails also when the folder is missing or empty.
#[macro_export]
macro_rules! replay {
    ($name:ident, $property:path) => {
        #[test]
        fn $name() {
            $crate::replay_corpus(stringify!($name), $property);
        }
    };
}

/// What [`replay!`](crate::replay!) calls.
///
/// # Panics
/// When the folder is missing or empty, or when the property panics; the file is named on standard error.
pub fn replay_corpus(name: &str, property: impl Fn(&[u8])) {
    let folder = crate::house::workspace().join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("the corpus of {name} cannot be read: {}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {name} is empty: {}", folder.display());
    for file in files {
        let data = std::fs::read(&file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| property(&data))) {
            eprintln!("{name} does not hold for {}", file.display());
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the corpus of no_such_target cannot be read")]
    fn a_missing_folder_is_a_failure() {
        replay_corpus("no_such_target", |_| {});
    }
}
