//! A file with every key in it, read to the whole value; and a file with nothing but what is required.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use connectord_account::{
    Account, Check, CredentialSource, Folder, Oversize, Protocol, ProxySettings, Removal, Retention, Start,
};
use connectord_config::*;
use connectord_engine::Ambiguous;
use connectord_filter as filter;
use connectord_net::{Timeouts, TlsVersion};
use connectord_notices::{Kind, Policy};
use connectord_wire::Security;

const WHOLE: &str = r#"
[state]
url = "sqlite:///var/lib/connectord/state.db"
key_file = "key"

[trail]
keep_for = "30d"

[log]
to = "syslog"
level = "debug"

[notices]
mail_to = ["postmaster@example.org", "ann"]
delivery = "files"
mail_from = "connectord@example.org"
to_users = true
command = ["/usr/local/bin/tell", "-q"]
webhook = "https://hooks.example.org/T0/B1"
webhook_token_file = "hook.token"
after = "12h"
leave_out = ["well", "changed"]
per_hour = 3

[users]
source = "system"
[users.groups]
Sales = ["alice", "bob"]

[schedule]
concurrency = 50
per_host = 2
idle_per_host = 0
jitter = "20%"
quiet = "22:00-06:00"

[timeouts]
connect = "5s"
silence = "2m"
minimum_rate = 1
rate_window = "10s"
session = "1h"

[tls]
ca_file = "ca.pem"
minimum = "1.3"

[process]
user = "connectord"

[filter]
on_virus = "notice"
[filter.rules]
mark_at = "filter"

[quarantine]
keep_for = "1d"

[delivery]
type = "lmtp"
address = "unix:/run/dovecot/lmtp"
connections = 2
timeout = "1m"
hello = "mx.example.org"
ambiguous = "park"

[delivery.files]
type = "maildir"
path = "mail/{domain}/{local}"
create = false
reserve = "10%"
quota = false
hostname = "mx"
check_existing = "always"
disk_timeout = "10s"

[delivery.relay]
type = "smtp"
host = "Relay.example.org"
security = "starttls"
username = "ann"
password_file = "/etc/relay"
ca_file = "/etc/relay.pem"

[delivery.old]
type = "mbox"
path = "/var/mail/{user}"
lock_timeout = "1s"
stale_lock = "1h"
reserve = "0"

[delivery.lda]
type = "command"
program = "/usr/lib/dovecot/dovecot-lda"
arguments = ["-d", "{user}"]
run_as = "vmail"
timeout = "1m"
concurrency = 3
from_line = true
search_path = "/bin"
ambiguous = "redeliver"

[[account]]
address = "Info@Example.org"
protocol = "imap"
security = "starttls"
host = "IMAP.example.org"
port = 1143
username = "info"
password_command = ["pass", "mail/info"]
deliver_to = ["carol", "@sales", "alice"]
recipient = "{user}@example.org"
delivery = "files"
check_every = "1h 30m"
delete = "7d"
delete_by = "move:Done"
folders = ["inbox", "Lists/*", "\\junk"]
start = "now"
enabled = false
max_message_size = "25 MiB"
oversize = "skip"
mark_seen = true
antispam = false
antivirus = false
ca_file = "private.pem"
pin = "SHA256:9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08"
proxy = "socks5://ann:p%40ss@127.0.0.1:1080"
trusted_relays = ["Provider.test"]
mechanisms = ["scram-sha-256", "PLAIN"]
initial_response = false
connections = 3
removals_per_session = 10

[[account]]
address = "b@example.org"
protocol = "pop3"
host = "pop.example.org"
password = "hünter2"
deliver_to = "bob"
delete = "age:30d"
check_every = "never"
"#;

#[test]
fn every_key_arrives() {
    let config = Config::parse(WHOLE, "c.toml", Path::new("/etc/c")).unwrap_or_else(|problems| panic!("{problems}"));
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let template = |text: &str| text.parse::<connectord_delivery::Template>().unwrap();
    let info = Account {
        security: Security::StartTls,
        username: "info".into(),
        credential: CredentialSource::Command(vec!["pass".into(), "mail/info".into()]),
        mechanisms: vec!["SCRAM-SHA-256".into(), "PLAIN".into()],
        deliver_to: vec!["carol".into(), "alice".into(), "bob".into()],
        recipient: "{user}@example.org".into(),
        delivery: Some("files".into()),
        check: Check::Every(minutes(90)),
        retention: Retention::AfterDelivery(minutes(7 * 24 * 60)),
        removal: Removal::MoveTo("Done".into()),
        folders: vec![Folder::Name("INBOX".into()), Folder::Pattern("Lists/*".into()), Folder::Role("\\Junk".into())],
        enabled: false,
        start: Start::FromNowOn,
        max_message_octets: Some(25 << 20),
        oversize: Oversize::Skip,
        mark_seen: true,
        antispam: Some(false),
        antivirus: Some(false),
        ca_file: Some("/etc/c/private.pem".into()),
        pins: vec!["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()],
        proxy: Some(ProxySettings {
            socks5: true,
            endpoint: "127.0.0.1:1080".parse().unwrap(),
            login: Some(("ann".into(), "p@ss".into())),
        }),
        trusted_relays: Some(vec!["provider.test".into()]),
        removals_per_session: 10,
        connections: Some(3),
        initial_response: false,
        ..Account::new("info@example.org", Protocol::Imap, "imap.example.org:1143".parse().unwrap(), "carol")
    };
    let b = Account {
        credential: CredentialSource::Password("hünter2".into()),
        check: Check::Never,
        retention: Retention::ByAge(minutes(30 * 24 * 60)),
        ..Account::new("b@example.org", Protocol::Pop3, "pop.example.org:995".parse().unwrap(), "bob")
    };
    let deliveries = BTreeMap::from([
        (
            "files".to_owned(),
            DeliverySettings::Maildir(MaildirSettings {
                path: template("/etc/c/mail/{domain}/{local}"),
                create: false,
                reserve: Reserve { octets: u64::MAX, percent: 10 },
                quota: false,
                hostname: Some("mx".into()),
                check_existing_always: true,
                disk_timeout: Duration::from_secs(10),
            }),
        ),
        (
            "relay".to_owned(),
            DeliverySettings::Smtp(SmtpSettings {
                endpoint: "relay.example.org:587".parse().unwrap(),
                security: Security::StartTls,
                login: Some(SmtpLogin { username: "ann".into(), password: PasswordSource::File("/etc/relay".into()) }),
                ca_file: Some("/etc/relay.pem".into()),
                connections: 8,
                timeout: minutes(1),
                hello: None,
                ambiguous: Ambiguous::Redeliver,
            }),
        ),
        (
            "old".to_owned(),
            DeliverySettings::Mbox(MboxSettings {
                path: template("/var/mail/{user}"),
                lock_timeout: Duration::from_secs(1),
                stale_lock: minutes(60),
                reserve: Reserve { octets: 0, percent: 100 },
            }),
        ),
        (
            "lda".to_owned(),
            DeliverySettings::Command(CommandSettings {
                program: "/usr/lib/dovecot/dovecot-lda".into(),
                arguments: vec![template("-d"), template("{user}")],
                run_as: Some("vmail".into()),
                timeout: minutes(1),
                concurrency: 3,
                from_line: true,
                search_path: "/bin".into(),
                ambiguous: Ambiguous::Redeliver,
            }),
        ),
    ]);
    let site = filter::Policy { on_virus: filter::OnVirus::Notice, ..filter::Policy::default() };
    let expected = Config {
        state: StateSettings {
            database: Some("/var/lib/connectord/state.db".into()),
            key_file: Some("/etc/c/key".into()),
        },
        log: LogSettings { to: LogTarget::Syslog, level: LogLevel::Debug },
        admin: None,
        saved: SavedSettings::default(),
        trail: TrailSettings { keep_for: Some(minutes(30 * 24 * 60)) },
        default_delivery: Some(DeliverySettings::Lmtp(LmtpSettings {
            address: Listen::Unix("/run/dovecot/lmtp".into()),
            connections: 2,
            timeout: minutes(1),
            hello: Some("mx.example.org".into()),
            ambiguous: Ambiguous::Park,
        })),
        deliveries,
        // tests/filters.rs has all that can be in them.
        filters: FilterSettings { policy: site.clone(), ..FilterSettings::default() },
        quarantine: QuarantineSettings { keep_for: minutes(24 * 60), ..QuarantineSettings::default() },
        policies: BTreeMap::from([
            ("info@example.org".into(), filter::Policy { antispam: false, antivirus: false, ..site.clone() }),
            ("b@example.org".into(), site),
        ]),
        users: UserSettings {
            source: UserSource::System,
            groups: BTreeMap::from([("sales".into(), vec!["alice".into(), "bob".into()])]),
        },
        schedule: ScheduleSettings {
            concurrency: 50,
            per_host: 2,
            idle_per_host: 0,
            jitter: 0.2,
            quiet: Some(QuietHours { from_minute: 1320, to_minute: 360 }),
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            silence: minutes(2),
            minimum_rate: 1,
            rate_window: Duration::from_secs(10),
            session: Some(minutes(60)),
        },
        tls: TlsSettings { ca_file: Some("/etc/c/ca.pem".into()), minimum: TlsVersion::Tls13 },
        notices: NoticeSettings {
            mail_to: vec!["postmaster@example.org".into(), "ann".into()],
            delivery: Some("files".into()),
            mail_from: Some("connectord@example.org".into()),
            to_users: true,
            command: vec!["/usr/local/bin/tell".into(), "-q".into()],
            webhook: Some("https://hooks.example.org/T0/B1".into()),
            webhook_token_file: Some("/etc/c/hook.token".into()),
            policy: Policy { after: minutes(12 * 60), leave_out: [Kind::Well, Kind::Changed].into(), per_hour: 3 },
        },
        process: ProcessSettings { user: Some("connectord".into()) },
        accounts: vec![info, b],
        warnings: vec![],
    };
    assert_eq!(config, expected);
    assert_eq!(config.account("INFO@example.org"), config.accounts.first());
    assert_eq!(config.delivery(Some("old")).map(DeliverySettings::kind), Some("mbox"));
}

#[test]
fn an_empty_file_is_a_configuration_of_defaults() {
    let config = Config::parse("", "c.toml", Path::new("/")).unwrap();
    assert_eq!((config.accounts.len(), config.default_delivery, config.warnings.len()), (0, None, 0));
    assert_eq!((config.schedule, config.timeouts), (ScheduleSettings::default(), Timeouts::default()));
}

#[test]
fn no_secret_is_in_the_debug_form() {
    let config = Config::parse(WHOLE, "c.toml", Path::new("/")).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("hünter2") && !shown.contains("p@ss"));
}
