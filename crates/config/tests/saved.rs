//! Accounts that are kept in the state are read as those of the file are, and told by key.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;

use connectord_account::CredentialSource;
use connectord_config::Config;
use connectord_config::saved::{
    FieldProblem, Settings, account_from, fields, is_same_mail, settings_from_text, settings_of, settings_to_text,
};

const FILE: &str = r#"
    [delivery]
    type = "maildir"
    path = "/m/{user}"
    [delivery.lists]
    type = "maildir"
    path = "/lists/{user}"
    [users]
    groups = { sales = ["alice", "bob"] }
"#;

fn file() -> Config {
    Config::parse(FILE, "connectord.toml", Path::new("/etc")).unwrap()
}

fn sealed() -> CredentialSource {
    CredentialSource::Sealed { account: 7, record: vec![1, 2, 3] }
}

fn settings(text: &str) -> Settings {
    settings_from_text(text).unwrap()
}

const WELL: &str = "protocol = \"imap\"\nhost = \"imap.example.org\"\ndeliver_to = \"@sales\"\n";

fn problems(text: &str) -> Vec<FieldProblem> {
    account_from(&file(), "info@example.org", &settings(text), true, sealed()).unwrap_err()
}

fn problem(text: &str) -> FieldProblem {
    let mut problems = problems(&format!("{WELL}{text}"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn it_says_the_same_as_in_the_file() {
    let more = "port = 143\nusername = \"Info\"\ncheck_every = \"5m\"\ndelete = \"7d\"\ndelivery = \"lists\"\n\
                folders = [\"INBOX\", \"\\\\Junk\"]\n";
    let text = format!("{WELL}{more}");
    let read = account_from(&file(), "Info@Example.org", &settings(&text), false, sealed()).unwrap();
    let account = format!("[[account]]\naddress = \"Info@Example.org\"\npassword = \"x\"\nenabled = false\n{text}");
    let of_file = Config::parse(&format!("{FILE}{account}"), "c.toml", Path::new("/etc")).unwrap();
    let mut wanted = of_file.accounts[0].clone();
    wanted.credential = sealed();
    assert_eq!(read.account, wanted);
    assert_eq!(read.warnings, []);
}

#[test]
fn its_policy_and_its_relays_are_read_as_in_the_file() {
    let filters = "[filter]\non_spam = \"folder:Junk\"\nfilter_attempts = 7\n[filter.clamav]\n[filter.rspamd]\n";
    let parse = |text: &str| Config::parse(text, "c.toml", Path::new("/etc")).unwrap();
    let read = |text: &str| account_from(&parse(&format!("{FILE}{filters}")), "a@x", &settings(text), true, sealed());
    let more = "antivirus = false\non_spam = \"quarantine\"\nmark_at = 4.5\non_failure = \"deliver\"\n\
                postpone_for = \"5m\"\ntrusted_relays = [\"gmx\", \"relay.test\"]\n";
    let text = format!("{WELL}{more}");
    let saved = read(&text).unwrap();
    let of_file = parse(&format!("{FILE}{filters}[[account]]\naddress = \"a@x\"\npassword = \"x\"\n{text}"));
    assert_eq!(saved.policy, of_file.policies["a@x"]);
    assert_ne!(saved.policy, of_file.filters.policy);
    assert_eq!(saved.account.trusted_relays, of_file.accounts[0].trusted_relays);
    assert_eq!(saved.warnings, []);
    // What it does not say is the site's; nobody who hands its mail over is known then, which is told.
    let silent = read(WELL).unwrap();
    assert_eq!(silent.policy, of_file.filters.policy);
    assert!(silent.warnings[0].what.contains("trusted_relays"), "{:?}", silent.warnings);
    // Without a filter mail would pass unchecked.
    let unchecked = problem("antispam = true\n");
    assert_eq!(unchecked.key.as_deref(), Some("antispam"));
    assert!(unchecked.what.contains("there is no antispam filter"), "{unchecked}");
    assert_eq!(problem("on_spam = \"folder:.Junk\"\n").key.as_deref(), Some("on_spam"));
}

#[test]
fn each_mistake_is_told_with_its_key() {
    let told: Vec<_> = problems("protocol = \"imap4\"\ndeliver_too = \"ann\"\nport = 0\n")
        .into_iter()
        .map(|problem| (problem.key.unwrap(), problem.nearest.unwrap_or_default()))
        .collect();
    let wanted = [("deliver_to", ""), ("deliver_too", "deliver_to"), ("host", ""), ("port", ""), ("protocol", "imap")];
    assert_eq!(told, wanted.map(|(key, nearest)| (key.to_owned(), nearest.to_owned())));

    assert_eq!(problem("delivery = \"list\"").what, "there is no [delivery.list]; did you mean \"lists\"?");
    assert_eq!(problem("port = \"993\"").what, "port must be a whole number from 1 to 65535, not \"993\"");
    assert_eq!(problem("folders = [\"a\", 1]").key.as_deref(), Some("folders"));
    assert_eq!(problem("idle = true\ncheck_every = \"5m\"").key.as_deref(), Some("check_every"));
    assert_eq!(problem("username = \"a\\nb\"").key.as_deref(), Some("username"));
}

#[test]
fn nothing_that_runs_programs_or_reads_files_here_can_be_saved() {
    for (key, value) in [
        ("password_command", "[\"sh\", \"-c\", \"id\"]"),
        ("password_file", "\"/etc/shadow\""),
        ("password_env", "\"HOME\""),
        ("ca_file", "\"/etc/shadow\""),
        ("proxy", "\"socks5://ann:hunter2@proxy:1080\""),
    ] {
        let problem = problem(&format!("{key} = {value}"));
        assert_eq!(problem.key.as_deref(), Some(key));
        assert!(problem.what.ends_with("only the file may"), "{problem:?}");
        assert!(!format!("{problem:?}").contains("hunter2"));
        assert!(fields().iter().all(|field| field.name != key));
    }
    // Nor what would be kept readable, or beside the settings.
    for key in ["password = \"hunter2\"", "enabled = true", "address = \"other@x\""] {
        let told = problem(key);
        assert!(key.starts_with(told.key.as_deref().unwrap()) && !format!("{told:?}").contains("hunter2"), "{told:?}");
    }
}

#[test]
fn ports_that_are_not_for_mail_need_the_file_s_word() {
    let problem = problem("port = 25");
    assert_eq!(problem.key.as_deref(), Some("port"));
    assert_eq!(problem.what, "port 25 is none of POP3 and IMAP: 110, 143, 993, 995");
    let file = format!("{FILE}[saved]\nports = [\"25\", \"1024-2047\"]\nnetworks = \"10.0.0.0/8\"\n");
    let file = Config::parse(&file, "connectord.toml", Path::new("/etc")).unwrap();
    for (port, allowed) in [(25, true), (993, true), (1024, true), (2047, true), (2048, false), (22, false)] {
        let settings = settings(&format!("{WELL}port = {port}\n"));
        assert_eq!(account_from(&file, "a@b", &settings, true, sealed()).is_ok(), allowed, "{port}");
    }
    let wrong = "[saved]\nports = [\"0\", \"9-7\", \"x\"]\nnetworks = \"10/8\"\n";
    assert_eq!(Config::parse(wrong, "c.toml", Path::new("/")).unwrap_err().problems.len(), 4);
}

#[test]
fn an_account_without_a_password_is_told_so() {
    let read = account_from(&file(), "info@example.org", &settings(WELL), true, CredentialSource::Missing);
    let told: Vec<_> = read.unwrap_err().into_iter().map(|problem| problem.key.unwrap()).collect();
    assert_eq!(told, ["password"]);
}

#[test]
fn settings_become_text_and_come_back() {
    let table =
        settings(&format!("{WELL}folders = [\"a\", \"b\"]\nidle = true\nport = 7\nusername = \"\\u0001\\\"\"\n"));
    assert_eq!(settings(&settings_to_text(&table)), table);
    // Any table that serialises, and no other.
    assert_eq!(settings_of(&table), Ok(table));
    assert!(settings_of(&"text").is_err());
}

#[test]
fn the_same_mail_is_known_whatever_its_case() {
    let read =
        |address: &str, text: &str| account_from(&file(), address, &settings(text), true, sealed()).unwrap().account;
    let one = read("info@example.org", &format!("{WELL}username = \"Info\"\n"));
    let upper = WELL.replace("imap.example.org", "IMAP.Example.ORG");
    assert!(is_same_mail(&one, &read("other", &format!("{upper}username = \"INFO\"\n"))));
    for other in [
        "username = \"other\"\n",
        "username = \"info\"\ndelivery = \"lists\"\n",
        "username = \"info\"\nfolders = [\"Other\"]\n",
    ] {
        assert!(!is_same_mail(&one, &read("other", &format!("{WELL}{other}"))), "{other}");
    }
}
