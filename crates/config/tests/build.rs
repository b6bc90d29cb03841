//! What is built from a file, and what stays over a reload.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::with_account;
use connectord_account::CredentialSource;
use connectord_config::Config;
use connectord_config::build::Builder;
use connectord_config::saved::account_from;
use connectord_filter::{Kind, OnSpam};
use connectord_net::Connector;

fn config(filters: &str) -> Config {
    Config::parse(&with_account(filters), "c.toml", Path::new("/")).unwrap_or_else(|problems| panic!("{problems}"))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn the_chain_is_what_the_file_says() {
    let mut builder = Builder::new(Connector::new(), "test");
    let chain = run(builder.chain(&config(
        "[filter.clamav]\naddress = \"h:1\"\nat_once = 3\nmax_size = 7\n[filter.command.bogo]\nprogram = \"/x\"\n\
         looks_for = \"both\"\n[filter.rules]\nblock_from = \"x.test\"\n[filter.rspamd]\nurl = \"https://h:2\"\n\
         [filter.spamassassin]\naddress = \"unix:/s\"\n",
    )))
    .unwrap();
    let found: Vec<_> =
        chain.filters.iter().map(|filter| (filter.name().to_owned(), filter.describe(), filter.kind())).collect();
    let expected = [
        ("clamav", "clamav:h:1", Kind::Antivirus),
        ("command.bogo", "command:/x", Kind::Both),
        ("rules", "rules", Kind::Rules),
        ("rspamd", "rspamd:https://h:2", Kind::Antispam),
        ("spamassassin", "spamassassin:unix:/s", Kind::Antispam),
    ];
    assert_eq!(found, expected.map(|(name, what, kind)| (name.to_owned(), what.to_owned(), kind)));
    let limits = chain.filters[0].limits();
    assert_eq!((limits.at_once, limits.max_octets), (3, Some(7)));
}

#[test]
fn a_filter_whose_settings_did_not_change_stays_the_same_over_a_reload() {
    let mut builder = Builder::new(Connector::new(), "test");
    let before = run(builder.chain(&config("[filter.rspamd]\n[filter.clamav]\n"))).unwrap().filters;
    let after = run(builder.chain(&config("[filter.clamav]\n[filter.rspamd]\nat_once = 2\n"))).unwrap().filters;
    assert!(Arc::ptr_eq(&before[1], &after[0]) && !Arc::ptr_eq(&before[0], &after[1]));
    let slower = run(builder.chain(&config("[filter]\ntimeout = \"5s\"\n[filter.clamav]\n"))).unwrap().filters;
    assert!(!Arc::ptr_eq(&after[0], &slower[0]));
}

#[test]
fn a_password_that_was_changed_in_its_file_makes_another_filter() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = config(&format!("[filter.rspamd]\npassword_file = {:?}\n", file.path().display().to_string()));
    let mut builder = Builder::new(Connector::new(), "test");
    let empty = run(builder.chain(&config)).unwrap_err().to_string();
    assert!(
        empty.starts_with("password of the filter rspamd: ") && empty.contains("has an empty first line"),
        "{empty}"
    );
    std::fs::write(file.path(), "one\n").unwrap();
    let one = run(builder.chain(&config)).unwrap().filters;
    let same = run(builder.chain(&config)).unwrap().filters;
    std::fs::write(file.path(), "two\n").unwrap();
    let two = run(builder.chain(&config)).unwrap().filters;
    assert!(Arc::ptr_eq(&one[0], &same[0]) && !Arc::ptr_eq(&one[0], &two[0]));
}

#[test]
fn the_job_of_a_saved_account_has_its_own_policy_and_relays() {
    let config = config("trusted_relays = []\n[filter]\non_spam = \"folder:Junk\"\n[filter.rspamd]\n");
    let settings = "protocol = \"imap\"\nhost = \"h\"\ndeliver_to = \"ann\"\non_spam = \"quarantine\"\n\
                    trusted_relays = \"relay.test\"\n";
    let saved = account_from(&config, "b@x", &settings.parse().unwrap(), true, CredentialSource::Password("p".into()));
    let mut builder = Builder::new(Connector::new(), "test");
    let jobs = run(builder.jobs_of(&config, &[saved.unwrap()])).unwrap();
    let job = jobs[0].as_ref().unwrap();
    assert_eq!(job.policy.on_spam, OnSpam::Quarantine);
    assert!(job.relays.is_host("mx.relay.test"));
}

#[test]
fn a_job_has_the_policy_and_the_relays_of_its_account() {
    let config = config("on_spam = \"discard\"\ntrusted_relays = \"provider.test\"\n[filter.rspamd]\n");
    let jobs = run(Builder::new(Connector::new(), "test").jobs(&config)).unwrap();
    assert_eq!(jobs[0].policy.on_spam, OnSpam::Discard);
    assert!(jobs[0].relays.is_host("mx.provider.test"));
}
