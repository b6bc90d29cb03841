//! The house stands: levels, arrows, purity, lints.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::process::Command;

use connectord_testkit::house;

#[test]
fn every_member_keeps_the_rules_of_its_level() {
    let root = house::workspace();
    let mut faults = house::workspace_faults(&root);
    let members = house::members(&root);
    assert!(members.len() > 15, "only {} members were read", members.len());
    faults.extend(members.iter().flat_map(house::Member::faults));
    assert!(faults.is_empty(), "the house does not stand:\n{}", faults.join("\n"));
}

#[test]
fn no_source_file_switches_the_lints_of_purity_off() {
    let root = house::workspace();
    let mut faults = Vec::new();
    for (name, level) in house::LEVELS {
        let folder = root.join("crates").join(name).join("src");
        if *level <= 2 && folder.exists() {
            look_for(&folder, &["disallowed_methods", "disallowed_types"], &mut faults);
        }
    }
    assert!(faults.is_empty(), "a pure crate allows itself what its clippy.toml forbids:\n{}", faults.join("\n"));
}

fn look_for(folder: &Path, words: &[&str], faults: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            look_for(&path, words, faults);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("fuzzing.rs") {
            // Properties and tests need some instant, and only a clock gives one.
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            faults.extend(words.iter().filter(|w| code.contains(**w)).map(|w| format!("{}: {w}", path.display())));
        }
    }
}

#[test]
fn what_is_published_says_which_version_it_depends_on() {
    let manifest = std::fs::read_to_string(house::workspace().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let workspace = manifest["workspace"].as_table().unwrap();
    let version = &workspace["package"]["version"];
    for (name, level) in house::LEVELS {
        if let Some(dependency) = workspace["dependencies"].get(format!("connectord-{name}")) {
            assert_eq!(dependency.get("version"), Some(version), "{name}, level {level}");
        }
    }
}

#[test]
fn every_test_that_the_book_names_is_there() {
    let root = house::workspace();
    let mut functions = String::new();
    for folder in ["crates", "bins", "benches"] {
        gather(&root.join(folder), &mut functions);
    }
    let is_there = |name: &str| ["(", "<"].iter().any(|end| functions.contains(&format!("fn {name}{end}")));
    let mut missing = Vec::new();
    for page in std::fs::read_dir(root.join("docs")).unwrap().flatten().map(|entry| entry.path()) {
        let Ok(text) = std::fs::read_to_string(&page) else { continue };
        // Four words joined by underscores are the name of a test; a table may shorten it with dots.
        let quoted = text.split('`').skip(1).step_by(2);
        let is_name = |name: &&str| {
            name.matches('_').count() >= 3
                && name.bytes().all(|o| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'_')
        };
        missing.extend(
            quoted.filter(is_name).filter(|name| !is_there(name)).map(|name| format!("{}: {name}", page.display())),
        );
    }
    assert!(missing.is_empty(), "tests that are named and not there:\n{}", missing.join("\n"));
}

fn gather(folder: &Path, functions: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, functions);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            functions.extend(text.lines().filter(|line| line.contains("fn ")).map(|line| format!("{line}\n")));
        }
    }
}

/// What a pure crate must not do, and the path that clippy names when it does.
const PLANTED: &[(&str, &str)] = &[
    ("pub fn now() -> std::time::Instant { std::time::Instant::now() }", "std::time::Instant::now"),
    ("pub fn file() { let _ = std::fs::read(\"x\"); }", "std::fs::read"),
    ("pub fn socket() { let _ = std::net::TcpStream::connect(\"localhost:1\"); }", "std::net::TcpStream"),
    ("pub fn environment() { let _ = std::env::var(\"HOME\"); }", "std::env::var"),
    ("pub fn process() { let _ = std::process::Command::new(\"true\"); }", "std::process::Command"),
];

#[test]
fn clippy_refuses_each_impurity_planted_in_a_pure_crate() {
    let crates = house::workspace().join("crates");
    let planted = tempfile::tempdir().unwrap();
    std::fs::create_dir(planted.path().join("src")).unwrap();
    std::fs::copy(crates.join("wire/clippy.toml"), planted.path().join("clippy.toml")).unwrap();
    std::fs::write(
        planted.path().join("Cargo.toml"),
        "[package]\nname = \"planted\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n",
    )
    .unwrap();
    let clippy = |source: &str| {
        std::fs::write(planted.path().join("src/lib.rs"), source).unwrap();
        let output = Command::new(env!("CARGO"))
            .args(["clippy", "--offline", "--quiet", "--", "-D", "warnings"])
            .current_dir(planted.path())
            .env("CARGO_TARGET_DIR", planted.path().join("target"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };

    let (clean, said) = clippy("pub fn add(a: u32, b: u32) -> u32 { a.wrapping_add(b) }\n");
    assert!(clean, "clippy refused a pure function: {said}");
    for (source, path) in PLANTED {
        let (clean, said) = clippy(&format!("{source}\n"));
        assert!(!clean && said.contains("disallowed") && said.contains(path), "{path} got through: {said}");
    }
}

#[test]
fn every_pure_crate_has_the_same_list_of_what_is_disallowed() {
    let crates = house::workspace().join("crates");
    let model = std::fs::read_to_string(crates.join("wire/clippy.toml")).unwrap();
    for (name, level) in house::LEVELS {
        let folder = crates.join(name);
        if *level <= 2 && folder.exists() {
            assert_eq!(std::fs::read_to_string(folder.join("clippy.toml")).unwrap(), model, "{name} differs from wire");
        }
    }
}
