//! `[filter]`, `[quarantine]`, and what accounts say otherwise: what is written, what it means, and what is said about it.

mod common;

use std::time::Duration;

use common::{faults, parse, warnings, with_account};
use connectord_config::*;
use connectord_filter::attachment::Class;
use connectord_filter::{
    Condition, Exhausted, Kind, OnFailure, OnSpam, OnTooLarge, OnVirus, Policy, Rule, Rules, Ruling, Thresholds,
};
use connectord_filters::command::{Meaning, Output};
use connectord_filters::spamassassin::User;
use connectord_mail::relay::{Profile, Results};

/// The filters of a text that is right.
fn chain(text: &str) -> Vec<FilterEntry> {
    parse(text).unwrap_or_else(|problems| panic!("{problems}")).filters.chain
}

fn names(text: &str) -> Vec<String> {
    chain(text).into_iter().map(|entry| entry.name).collect()
}

/// An account with these further lines, and an Rspamd.
fn with_rspamd(lines: &str) -> String {
    with_account(&format!("{lines}\n[filter.rspamd]\n"))
}

#[test]
fn a_table_alone_asks_the_filter_where_it_usually_is() {
    let chain = chain("[filter.rspamd]\n[filter.clamav]\n[filter.spamassassin]\n");
    let local = |port: u16| format!("127.0.0.1:{port}").parse().unwrap();
    let expected = [
        FilterEntry {
            name: "rspamd".into(),
            filter: FilterKind::Rspamd(RspamdSettings {
                worker: HttpSettings {
                    url: FilterUrl::Tcp { endpoint: local(11_333), tls: false },
                    password: None,
                    ca_file: None,
                },
                settings_id: None,
                controller: None,
            }),
            at_once: 8,
            max_octets: Some(50 << 20),
        },
        FilterEntry {
            name: "clamav".into(),
            filter: FilterKind::Clamav(ClamavSettings { address: Listen::Unix("/run/clamav/clamd.ctl".into()) }),
            at_once: 8,
            max_octets: Some(25 << 20),
        },
        FilterEntry {
            name: "spamassassin".into(),
            filter: FilterKind::SpamAssassin(SpamAssassinSettings {
                address: Listen::Tcp(local(783)),
                user: User::Unsaid,
            }),
            at_once: 4,
            max_octets: Some(500 << 10),
        },
    ];
    assert_eq!(chain, expected);
}

#[test]
fn filters_are_asked_in_the_order_of_the_file() {
    assert_eq!(
        names(
            "[filter.spamassassin]\n[filter.rules]\nblock_from = \"x.test\"\n[filter.command.z]\nprogram = \"/z\"\n\
             [filter.command.a]\nprogram = \"/a\"\n[filter.clamav]\n[filter.rspamd]\n"
        ),
        ["spamassassin", "rules", "command.z", "command.a", "clamav", "rspamd"]
    );
    assert_eq!(names("[filter]\nrspamd.at_once = 2\nclamav = {}\n"), ["rspamd", "clamav"]);
    // What is part of the policy asks nobody.
    assert_eq!(names("[filter.rules]\nmark_at = 5\n"), [""; 0]);
}

#[test]
fn every_key_of_every_filter_arrives() {
    let text = r#"
        [filter.rspamd]
        url = "https://rspamd.test:443/"
        password_command = ["pass", "rspamd"]
        settings_id = "mail"
        ca_file = "ca.pem"
        at_once = 16
        max_size = "1 MiB"
        [filter.rspamd.controller]
        url = "unix:run/controller.sock"
        password_env = "RSPAMD"
        [filter.clamav]
        address = "[::1]:3310"
        at_once = 3
        max_size = "2 MiB"
        [filter.spamassassin]
        address = "unix:/run/spamd"
        user = "{recipient}"
        at_once = 5
        max_size = "3 MiB"
        [filter.command.bogo-filter]
        program = "bin/bogofilter"
        arguments = ["-e"]
        looks_for = "rules"
        exit_clean = [0, 1]
        exit_spam = 99
        exit_later = 7
        exit_virus = 8
        exit_discard = [9]
        output = "header"
        run_as = "bogo"
        search_path = "/bin"
        at_once = 6
        max_size = "4 MiB"
    "#;
    let (password, ca_file) =
        (Some(PasswordSource::Command(vec!["pass".into(), "rspamd".into()])), Some("/etc/c/ca.pem".into()));
    let url = FilterUrl::Tcp { endpoint: "rspamd.test:443".parse().unwrap(), tls: true };
    let expected = [
        FilterEntry {
            name: "rspamd".into(),
            filter: FilterKind::Rspamd(RspamdSettings {
                worker: HttpSettings { url, password, ca_file },
                settings_id: Some("mail".into()),
                controller: Some(HttpSettings {
                    url: FilterUrl::Unix("/etc/c/run/controller.sock".into()),
                    password: Some(PasswordSource::Environment("RSPAMD".into())),
                    ca_file: None,
                }),
            }),
            at_once: 16,
            max_octets: Some(1 << 20),
        },
        FilterEntry {
            name: "clamav".into(),
            filter: FilterKind::Clamav(ClamavSettings { address: Listen::Tcp("[::1]:3310".parse().unwrap()) }),
            at_once: 3,
            max_octets: Some(2 << 20),
        },
        FilterEntry {
            name: "spamassassin".into(),
            filter: FilterKind::SpamAssassin(SpamAssassinSettings {
                address: Listen::Unix("/run/spamd".into()),
                user: User::Recipient,
            }),
            at_once: 5,
            max_octets: Some(3 << 20),
        },
        FilterEntry {
            name: "command.bogo-filter".into(),
            filter: FilterKind::Command(FilterCommandSettings {
                kind: Kind::Rules,
                program: "/etc/c/bin/bogofilter".into(),
                arguments: vec!["-e".into()],
                meanings: [
                    (0, Meaning::Clean),
                    (1, Meaning::Clean),
                    (99, Meaning::Spam),
                    (100, Meaning::Reject),
                    (7, Meaning::Later),
                    (8, Meaning::Virus),
                    (9, Meaning::Discard),
                ]
                .into(),
                output: Output::Header,
                run_as: Some("bogo".into()),
                search_path: "/bin".into(),
            }),
            at_once: 6,
            max_octets: Some(4 << 20),
        },
    ];
    assert_eq!(chain(text), expected);
}

#[test]
fn every_rule_arrives() {
    let text = r#"
        [filter.rules]
        allow_from = ["ann@example.org", ".example.net"]
        allow_to = "postmaster@example.org"
        block_from = "*@*.spam.test"
        blocked_attachments = ["executable", "macro"]
        blocked_extensions = ["iso", ".ONE"]
        max_parts = 10
        max_depth = 4
        max_entries = 20
        max_ratio = 30
        max_unpacked = "1 GiB"
        max_names = "1 MiB"
        at_once = 2
        [[filter.rules.rule]]
        header = ["List-Id: *<dev.example.org>*", "Precedence: list"]
        then = "folder:Lists.dev"
        [[filter.rules.rule]]
        larger_than = "20 MiB"
        smaller_than = "30 MiB"
        attached = ["archive"]
        then = "block"
        reason = "too large an archive"
        [[filter.rules.rule]]
        header = "Subject: [test]*"
        then = "discard"
    "#;
    let pattern = |text: &str| text.parse().unwrap();
    let header = |name: &str, value: &str| Condition::Header { name: name.into(), value: value.into() };
    let rules = Rules {
        allow_from: vec![pattern("ann@example.org"), pattern(".example.net")],
        allow_to: vec![pattern("postmaster@example.org")],
        block_from: vec![pattern("*@*.spam.test")],
        blocked_classes: vec![Class::Executable, Class::Macro],
        blocked_extensions: vec!["iso".into(), "one".into()],
        rules: vec![
            Rule {
                when: vec![header("List-Id", "*<dev.example.org>*"), header("Precedence", "list")],
                then: Ruling::Folder("Lists.dev".into()),
            },
            Rule {
                when: vec![
                    Condition::LargerThan(20 << 20),
                    Condition::SmallerThan(30 << 20),
                    Condition::Attached(Class::Archive),
                ],
                then: Ruling::Block("too large an archive".into()),
            },
            Rule { when: vec![header("Subject", "[test]*")], then: Ruling::Discard("rule 3".into()) },
        ],
    };
    let limits = connectord_filter::attachment::Limits {
        parts: 10,
        depth: 4,
        entries: 20,
        ratio: 30,
        unpacked_octets: 1 << 30,
        name_octets: 1 << 20,
    };
    let entry = FilterEntry {
        name: "rules".into(),
        filter: FilterKind::Rules(RulesSettings { rules, limits }),
        at_once: 2,
        max_octets: None,
    };
    assert_eq!(chain(text), [entry]);
}

const POLICY: &str = "antispam = false\nantivirus = false\non_spam = \"folder:Junk\"\non_reject = \"discard\"\n\
                      on_virus = \"notice\"\non_failure = \"deliver\"\non_too_large = \"quarantine\"\npostpone = false\n\
                      postpone_for = \"5m\"\npostpone_times = 7\non_postponed = \"park\"\nfilter_attempts = 3\n";

const MARKS: &str = "mark_at = 4.5\nreject_at = 12\nsubject_prefix = \"[SPAM] \"\n";

fn policy() -> Policy {
    Policy {
        antispam: false,
        antivirus: false,
        on_spam: OnSpam::Folder("Junk".into()),
        on_reject: OnSpam::Discard,
        on_virus: OnVirus::Notice,
        on_failure: OnFailure::Deliver,
        on_too_large: OnTooLarge::Quarantine,
        thresholds: Thresholds { mark_at: Some(4_500), reject_at: Some(12_000) },
        subject_prefix: Some("[SPAM]".into()),
        postpone: false,
        postponements: 7,
        postpone_for: Duration::from_secs(300),
        exhausted: Exhausted::Park,
        attempts: 3,
    }
}

#[test]
fn a_site_says_what_follows_and_an_account_may_say_otherwise() {
    let site = format!("[filter]\ntimeout = \"30s\"\n{POLICY}[filter.rules]\n{MARKS}[filter.rspamd]\n");
    let config = parse(&with_account(&format!("trusted_relays = []\n{site}"))).unwrap();
    assert_eq!((&config.filters.policy, config.filters.timeout), (&policy(), Duration::from_secs(30)));
    assert_eq!(config.policy(&config.accounts[0]), &policy());

    let config = parse(&with_rspamd(&format!("trusted_relays = []\n{POLICY}{MARKS}"))).unwrap();
    assert_eq!(config.filters.policy, Policy::default());
    assert_eq!(config.policies["a@x"], policy());

    // What an account does not say is the site's, and it can take back what the site says.
    let back = "on_spam = \"mark\"\nmark_at = \"filter\"\nsubject_prefix = \"\"\ntrusted_relays = []\n";
    let config = parse(&with_account(&format!("{back}{site}"))).unwrap();
    let expected = Policy {
        on_spam: OnSpam::Mark,
        thresholds: Thresholds { mark_at: None, reject_at: Some(12_000) },
        subject_prefix: None,
        ..policy()
    };
    assert_eq!(config.policies["a@x"], expected);
}

#[test]
fn a_policy_is_written_in_known_words() {
    assert_eq!(
        faults(
            "[filter]\non_spam = \"junk\"\non_reject = \"folder:\"\non_virus = \"mark\"\non_failure = \"open\"\n\
             postpone_for = \"1s\"\n[filter.rules]\nmark_at = \"six\"\nreject_at = 1e9\nsubject_prefix = 7\n"
        ),
        [
            "2:11: on_spam must be \"mark\", \"folder:NAME\", \"quarantine\" or \"discard\", not \"junk\"",
            "3:13: on_reject must be \"mark\", \"folder:NAME\", \"quarantine\" or \"discard\", not \"folder:\"",
            "4:12: on_virus must be \"quarantine\", \"notice\" or \"discard\", not \"mark\"",
            "5:14: on_failure must be \"keep\" or \"deliver\", not \"open\"",
            "6:16: postpone_for must be a time such as \"15m\" or \"1h 30m\", from 10s to 2d, not \"1s\"",
            "8:11: mark_at must be a number of points such as 6.5, or \"filter\", not \"six\"",
            "9:13: reject_at must be a number of points such as 6.5, or \"filter\", not 1e9",
            "10:18: subject_prefix must be text in quotes, or \"\" for none, not 7",
        ]
    );
    // A message is not put off for longer than a filter's greylist remembers it.
    let waits = |time: &str| faults(&format!("[filter]\npostpone_for = \"{time}\"\n"));
    assert_eq!(warnings("[filter]\npostpone_for = \"2d\"\n[filter.rspamd]\n"), [""; 0]);
    assert_eq!(
        waits("49h"),
        ["2:16: postpone_for must be a time such as \"15m\" or \"1h 30m\", from 10s to 2d, not \"49h\""]
    );
    assert_eq!(
        faults("[filter.rspamd]\n[filter]\non_spam = \"folder:.Junk\"\nsubject_prefix = \"x\"\nmark_at = 5\n"),
        [
            "3:11: on_spam: the folder \".Junk\" begins with a dot | write \"folder:Junk\": a Maildir gets it as .Junk",
            "4:1: \"subject_prefix\" belongs to [filter.rules], not to [filter]",
            "5:1: \"mark_at\" belongs to [filter.rules], not to [filter]",
        ]
    );
    assert_eq!(
        warnings("[filter.rules]\nmark_at = 15\nreject_at = 6.5\n"),
        ["2:1: mark_at (15) is above reject_at (6.5): nothing is marked that is not refused"]
    );
}

#[test]
fn an_unknown_filter_is_shown_with_the_nearest_known_one() {
    let unknown = |text: &str| faults(text).remove(0);
    assert!(
        unknown("[filter.clamv]\n").starts_with("1:9: unknown key \"clamv\" in [filter]; did you mean \"clamav\"?")
    );
    assert!(
        unknown("[filter.spamd]\n")
            .starts_with("1:9: unknown key \"spamd\" in [filter]; did you mean \"spamassassin\"?")
    );
    assert!(unknown("[filter.rules]\nwhitelist = []\n").contains("did you mean \"allow_from\"?"));
    assert!(unknown("[filter.clamav]\nsocket = \"x\"\n").contains("known: address, at_once, max_size"));
}

#[test]
fn a_filter_without_a_use_is_told() {
    assert_eq!(
        warnings("[filter]\non_spam = \"mark\"\n"),
        ["1:1: [filter] names no filter: mail is not checked | write [filter.rspamd] or [filter.clamav], for instance"]
    );
    assert_eq!(
        faults(&with_account("antispam = true\nantivirus = true\n")),
        [
            "11:1: antispam = true, but there is no antispam filter: mail would go unchecked | write [filter.rspamd] or \
             [filter.spamassassin], or remove antispam",
            "12:1: antivirus = true, but there is no antivirus filter: mail would go unchecked | write [filter.clamav], or \
             remove antivirus",
        ]
    );
    assert_eq!(
        faults(&with_account("antispam = true\n[filter.clamav]\n")).len(),
        1,
        "an antivirus filter is no antispam filter"
    );
    assert_eq!(warnings(&with_account("antispam = false\nantivirus = false")), [""; 0]);
    let both = "antispam = true\nantivirus = true\n[filter.command.x]\nprogram = \"/x\"\nlooks_for = \"both\"\n";
    assert_eq!(warnings(&with_account(both)), [""; 0]);
}

#[test]
fn where_a_filter_listens_is_a_url_or_an_address() {
    for url in ["rspamd", "ftp://h:1", "http://h", "http://h:0", "unix:", "http://h:1/checkv2", "http://a@h:1"] {
        assert_eq!(
            faults(&format!("[filter.rspamd]\nurl = {url:?}\n")),
            [format!("2:7: url must be \"http://host:port\", \"https://host:port\" or \"unix:/path\", not {url:?}")]
        );
    }
    assert_eq!(
        faults("[filter.clamav]\naddress = \"/run/clamd\"\n[filter.spamassassin]\nuser = \"{user}\"\n"),
        [
            "2:11: address must be \"host:port\" or \"unix:/path\", not \"/run/clamd\"",
            "4:8: user: \"{user}\" is no user; \"{recipient}\" is the only place",
        ]
    );
    assert_eq!(faults("[filter.rspamd]\nca_file = \"x\"\n"), ["2:1: ca_file has no effect without https:// in url"]);
}

#[test]
fn a_password_of_a_filter_is_kept_as_others_are() {
    let url = "[filter.rspamd]\nurl = \"http://rspamd.test:11333\"\n";
    assert_eq!(
        warnings(&format!("{url}password = \"hunter2\"\n")),
        ["2:7: the password for rspamd.test:11333 travels readable for others | write https://…"]
    );
    assert_eq!(warnings(url), [""; 0]);
    assert_eq!(
        faults("[filter.rspamd.controller]\npassword = \"hunter2\"\npassword_env = \"X\"\n"),
        ["2:1: the password is given in several ways: password_env and password"]
    );
    let shown = parse("[filter.rspamd]\npassword = \"hunter2\"\nurl = 7\n").unwrap_err().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    let config = parse("[filter.rspamd]\npassword = \"hunter2\"\n").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn an_exit_status_has_one_meaning() {
    let command = |lines: &str| faults(&format!("[filter.command.x]\nprogram = \"/x\"\n{lines}"));
    assert_eq!(
        command("exit_spam = [1, 256]\nexit_reject = \"1\"\n"),
        [
            "3:13: exit_spam must be an exit status from 0 to 255 or a list of them, not a list",
            "4:15: exit_reject must be an exit status from 0 to 255 or a list of them, not \"1\"",
        ]
    );
    assert_eq!(command("exit_spam = [1, 2]\nexit_virus = 2\n"), ["4:14: the exit status 2 has two meanings"]);
    assert_eq!(command("exit_discard = 1\n"), ["3:1: exit_discard is heard only with looks_for = \"rules\""]);
    assert_eq!(
        faults("[filter.command]\nx = 1\n[filter.command.\"a b\"]\nprogram = \"a\"\n"),
        [
            "2:1: a filter command needs a name and a table of its own | write [filter.command.NAME]",
            "3:17: the name of a filter command has letters, digits, \"-\" and \"_\", at most 48",
            "4:11: program must be a path: no search is made for it",
        ]
    );
}

#[test]
fn a_rule_is_whole() {
    let rules = |lines: &str| faults(&format!("[filter.rules]\n{lines}"));
    assert_eq!(
        rules(
            "allow_from = [\"*\", \"a b\"]\nblocked_attachments = [\"exectuable\", \"x\"]\nblocked_extensions = [\"tar.gz\"]\n"
        ),
        [
            "2:15: allow_from: \"*\" is no pattern for addresses: it would fit everybody; expected for example \
             \"ann@example.org\", \"example.org\", \".example.org\" or \"*@*.example.org\"",
            "2:20: allow_from: \"a b\" is no pattern for addresses: it has white space or a character that no address has; \
             expected for example \"ann@example.org\", \"example.org\", \".example.org\" or \"*@*.example.org\"",
            "3:24: blocked_attachments: \"exectuable\" is no class of attachments; did you mean \"executable\"? known: \
             executable, archive, macro, encrypted, bomb",
            "3:38: blocked_attachments: \"x\" is no class of attachments; known: executable, archive, macro, encrypted, bomb",
            "4:23: blocked_extensions: \"tar.gz\" is no extension such as \"iso\"",
        ]
    );
    assert_eq!(
        rules(
            "[[filter.rules.rule]]\nthen = \"folder:.X\"\n[[filter.rules.rule]]\nheader = [\"Subject\", \"a b: c\"]\n"
        ),
        [
            "2:1: the rule has no condition: it would fit every message | write header, larger_than, smaller_than or attached",
            "3:8: then: the folder \".X\" begins with a dot | write \"folder:X\": a Maildir gets it as .X",
            "4:1: [[filter.rules.rule]] lacks \"then\" | write then = …, \"folder:NAME\", \"keep\", \"allow\", \"block\" or \
             \"discard\"",
            "5:11: header: \"Subject\" is no field with a value; expected for example \"Subject: *invoice*\"",
            "5:22: header: \"a b: c\" is no field with a value; expected for example \"Subject: *invoice*\"",
        ]
    );
    assert_eq!(
        rules("[filter.rules.rule]\nthen = \"keep\"\n"),
        ["2:15: rules are a list | write [[filter.rules.rule]] with two brackets"]
    );
}

#[test]
fn a_quarantine_has_its_limits() {
    let settings = |text: &str| parse(text).unwrap().quarantine;
    assert_eq!(settings(""), QuarantineSettings::default());
    assert_eq!(
        settings(
            "[quarantine]\npath = \"q\"\nkeep_for = \"2w\"\nmax_size = \"10 GiB\"\nmax_messages = 5\nreport = \"daily\"\n\
             disk_timeout = \"5s\""
        ),
        QuarantineSettings {
            path: Some("/etc/c/q".into()),
            keep_for: Duration::from_secs(14 * 86_400),
            max_octets: 10 << 30,
            max_messages: 5,
            report: true,
            disk_timeout: Duration::from_secs(5),
        }
    );
    assert_eq!(settings("[quarantine]\nkeep_for = \"forever\"").keep_for, Duration::ZERO);
    assert_eq!(
        faults("[quarantine]\nkeep_for = \"1h\"\nreport = \"weekly\"\n"),
        [
            "2:12: keep_for must be a time from 1d on such as \"30d\", or \"forever\", not \"1h\"",
            "3:10: report must be \"daily\" or \"never\", not \"weekly\"",
        ]
    );
}

/// Relays of the account with these further lines.
fn relays_of(lines: &str) -> connectord_mail::Relays {
    relays(&parse(&with_account(lines)).unwrap_or_else(|problems| panic!("{problems}")).accounts[0])
}

#[test]
fn whom_to_trust_is_written_known_or_nobody() {
    assert_eq!(relays_of(""), connectord_mail::Relays::default());
    let text = with_account("").replace("host = \"h\"", "host = \"imap.gmail.com\"");
    let account = &parse(&text).unwrap().accounts[0];
    assert_eq!(relays(account), Profile::named("gmail").unwrap().relays());
    let text = with_account("trusted_relays = []").replace("host = \"h\"", "host = \"imap.gmail.com\"");
    assert_eq!(relays(&parse(&text).unwrap().accounts[0]), connectord_mail::Relays::default());

    let several =
        relays_of("trusted_relays = [\"Fastmail\", \"provider.test\", \".intern\", \"198.51.100.0/24\", \"slot*\"]");
    assert!(
        several.is_host("mx4.messagingengine.com")
            && several.is_host("mx.provider.test")
            && several.is_host("mx.intern")
    );
    assert!(several.is_inside("198.51.100.7".parse().unwrap()) && !several.is_inside("192.0.2.1".parse().unwrap()));
    assert!(several.gaps && several.results == Results::Above);
    assert_eq!(relays_of("trusted_relays = \"yandex\"").results, Results::Below);
}

#[test]
fn whom_to_trust_is_a_provider_a_domain_or_addresses() {
    assert_eq!(
        faults(&with_account("trusted_relays = [\"gmial\", \"b c\", \"0.0.0.0/0\", \"192.0.2.0/40\", \"*\"]")),
        [
            "11:19: trusted_relays: \"gmial\" is neither a provider known here nor a domain; did you mean \"gmail\"? known: \
             gmail, outlook, gmx, ionos, yahoo, icloud, fastmail, proton, yandex | a domain of one word is written \".gmial\"",
            "11:28: trusted_relays: \"b c\" is neither a domain nor an address or range of addresses: it has a character that \
             no domain has; expected for example \"provider.example\" or \"192.0.2.0/24\"",
            "11:35: trusted_relays: \"0.0.0.0/0\" is neither a domain nor an address or range of addresses: it would trust \
             everybody; expected for example \"provider.example\" or \"192.0.2.0/24\"",
            "11:48: trusted_relays: \"192.0.2.0/40\" is neither a domain nor an address or range of addresses: the prefix is \
             longer than the address; expected for example \"provider.example\" or \"192.0.2.0/24\"",
            "11:64: trusted_relays: \"*\" is neither a domain nor an address or range of addresses: it would trust everybody; \
             expected for example \"provider.example\" or \"192.0.2.0/24\"",
        ]
    );
    assert_eq!(
        warnings(&with_account("trusted_relays = [\"192.0.2.0/24\"]")),
        ["11:18: trusted_relays names addresses alone: nobody's Received fields are believed | add a domain of the \
             provider's hosts"]
    );
}

#[test]
fn every_known_provider_is_in_the_reference() {
    let page = reference();
    for profile in connectord_mail::relay::PROFILES {
        assert!(page.contains(&format!("`{}`", profile.name)), "{}", profile.name);
    }
}

#[test]
fn a_filter_that_will_not_learn_the_client_is_told_once() {
    let unknown = |others: &str| {
        format!(
            "5:1: this account{others} has no trusted_relays: the antispam filter does not learn who handed messages over, and \
             looks neither for SPF nor at lists of addresses | connectord relays ADDRESS proposes whom to trust; \
             trusted_relays = [] says that nobody is"
        )
    };
    let second = "[[account]]\naddress = \"b@x\"\nprotocol = \"imap\"\nhost = \"i\"\ndeliver_to = \"ann\"\npassword_file = \"pw\"";
    assert_eq!(warnings(&with_rspamd("")), [unknown("")]);
    assert_eq!(warnings(&with_rspamd(second)), [unknown(" and another one")]);
    for fine in ["trusted_relays = []", "trusted_relays = \"provider.test\"", "antispam = false"] {
        assert_eq!(warnings(&with_rspamd(fine)), [""; 0], "{fine}");
    }
    assert_eq!(warnings(&with_account("[filter.clamav]\n")), [""; 0]);
    assert_eq!(warnings(&with_rspamd("").replace("host = \"h\"", "host = \"imap.gmx.net\"")), [""; 0]);
}
