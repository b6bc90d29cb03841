//! What the tests of the reader share.

#![allow(dead_code)]

use std::path::Path;

use connectord_config::{Config, Problems};

/// A whole file with one account; `account` is appended to it.
pub(crate) fn with_account(account: &str) -> String {
    format!(
        "[delivery]\ntype = \"maildir\"\npath = \"/mail/{{user}}\"\n\n[[account]]\naddress = \"a@x\"\nprotocol = \"imap\"\n\
         host = \"h\"\ndeliver_to = \"ann\"\npassword_file = \"pw\"\n{account}\n"
    )
}

pub(crate) fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, "c.toml", Path::new("/etc/c"))
}

/// What is wrong, each as `line:column: message`, with its hint.
pub(crate) fn faults(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(config) => panic!("nothing is wrong with {text}\n{config:?}"),
        Err(problems) => problems.problems.iter().map(short).collect(),
    }
}

/// The warnings of a text that is right, in the same form.
pub(crate) fn warnings(text: &str) -> Vec<String> {
    parse(text).unwrap_or_else(|problems| panic!("{problems}")).warnings.iter().map(short).collect()
}

fn short(problem: &connectord_config::Problem) -> String {
    let place = problem.place.expect("every problem has a place");
    let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!(" | {hint}"));
    format!("{}:{}: {}{hint}", place.line, place.column, problem.message)
}
