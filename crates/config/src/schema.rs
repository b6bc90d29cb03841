//! What the file may say, as tables: the reader checks by them, and the reference page is written from them.

mod filters;

use std::ops::RangeInclusive;

pub(crate) use filters::{CLAMAV, CONTROLLER, FILTER, FILTER_COMMAND, QUARANTINE, RSPAMD, RULE, RULES, SPAMASSASSIN};
use filters::{of_account, of_account_rules};

use crate::values::show_duration;

/// One table of the file.
pub(crate) struct Schema {
    /// As it is written: `[schedule]`.
    pub(crate) title: &'static str,
    /// What it is for, as Markdown.
    pub(crate) doc: &'static str,
    /// Its keys, the important ones first.
    pub(crate) keys: &'static [Key],
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: IfAbsent,
    /// What it does, as Markdown.
    pub(crate) doc: &'static str,
}

/// What holds when a key is not there.
#[derive(Clone, Copy)]
pub(crate) enum IfAbsent {
    /// It must be there.
    Required,
    /// This value, as TOML.
    Value(&'static str),
    /// Something that takes words.
    Words(&'static str),
}

/// What a key's value may be.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Any text without control characters, not empty.
    Text,
    /// A text that is never shown.
    Secret,
    /// A path; relative ones start at the file's directory.
    Path,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer(i64, i64),
    /// A time, with its bounds in seconds.
    Duration(u64, u64),
    /// A size in octets, with its bounds.
    Size(u64, u64),
    /// A part of one, up to this many per cent.
    Fraction(u8),
    /// One of these words; what each means.
    Choice(&'static [(&'static str, &'static str)]),
    /// A text or a list of texts.
    Texts,
    /// An exit status or a list of them.
    Statuses,
    /// A list of texts: a program and its arguments, or arguments.
    Words,
    /// A text with a form of its own, in words.
    Form(&'static str),
    /// A table of its own.
    Table(&'static str),
    /// A known key that this version refuses, and why.
    NotYet(&'static str),
}

impl Schema {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Kind {
    /// What is allowed, to follow "must be".
    pub(crate) fn allowed(self) -> String {
        match self {
            Self::Text | Self::Secret => "text in quotes".to_owned(),
            Self::Path => "a path in quotes".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Duration(min, max) => format!("a time such as \"15m\" or \"1h 30m\", from {}", seconds(min..=max)),
            Self::Size(min, max) => format!("a size such as \"25 MiB\", from {min} to {max} octets"),
            Self::Fraction(max) => format!("a part such as 0.1 or \"10%\", at most {max}%"),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                match words.split_last() {
                    Some((last, [])) => last.clone(),
                    Some((last, others)) => format!("{} or {last}", others.join(", ")),
                    None => "nothing".to_owned(),
                }
            }
            Self::Texts => "text in quotes or a list of texts".to_owned(),
            Self::Statuses => "an exit status from 0 to 255 or a list of them".to_owned(),
            Self::Words => "a list of texts, such as [\"program\", \"argument\"]".to_owned(),
            Self::Form(words) => words.to_owned(),
            Self::Table(words) => words.to_owned(),
            Self::NotYet(_) => "left out".to_owned(),
        }
    }
}

fn seconds(range: RangeInclusive<u64>) -> String {
    let show = |seconds: &u64| show_duration(std::time::Duration::from_secs(*seconds));
    format!("{} to {}", show(range.start()), show(range.end()))
}

const fn key(name: &'static str, kind: Kind, default: IfAbsent, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

use self::IfAbsent::{Required, Value, Words};

const DAY: u64 = 86_400;
const MINUTE: u64 = 60;

/// What stands outside of all tables.
pub(crate) const ROOT: Schema = Schema {
    title: "the file",
    doc: "",
    keys: &[
        key("account", Kind::Table("[[account]], once for each account"), Words("none"), "The external accounts."),
        key("delivery", Kind::Table("a table, [delivery] or [delivery.NAME]"), Words("none"), "Where mail goes."),
        key("users", Kind::Table("a table, [users]"), Words("none"), "Who is a local user."),
        key("state", Kind::Table("a table, [state]"), Words("none"), "What is remembered."),
        key("trail", Kind::Table("a table, [trail]"), Words("none"), "What became of each message."),
        key("log", Kind::Table("a table, [log]"), Words("none"), "What is told."),
        key("schedule", Kind::Table("a table, [schedule]"), Words("none"), "When and how many."),
        key("timeouts", Kind::Table("a table, [timeouts]"), Words("none"), "How long."),
        key("tls", Kind::Table("a table, [tls]"), Words("none"), "Whom to trust."),
        key("process", Kind::Table("a table, [process]"), Words("none"), "What the process becomes."),
        key("notices", Kind::Table("a table, [notices]"), Words("none"), "Who is told."),
        key("admin", Kind::Table("a table, [admin]"), Words("none"), "The page and the API."),
        key("saved", Kind::Table("a table, [saved]"), Words("none"), "What saved accounts may do."),
        key("filter", Kind::Table("a table, [filter]"), Words("none"), "Antispam and antivirus."),
        key("quarantine", Kind::Table("a table, [quarantine]"), Words("none"), "What is kept back."),
    ],
};

pub(crate) const STATE: Schema = Schema {
    title: "[state]",
    doc: "What was fetched is remembered in a database. Losing it means fetching again what is still on the servers.",
    keys: &[
        key(
            "url",
            Kind::Form("\"sqlite:\" and a path, such as \"sqlite:///var/lib/connectord/state.db\""),
            Words("`state.db` in `$STATE_DIRECTORY`, else in `~/.local/state/connectord`"),
            "The database; it must be called `state.db`. PostgreSQL comes with a later version.",
        ),
        key(
            "key_file",
            Kind::Path,
            Words("the credential `connectord.key` of systemd, else `key` beside the database"),
            "The key that seals the passwords of accounts that are kept in the state; made at the first start. A line is a key, \
             64 hexadecimal digits: the first one seals, all of them open. Without it a backup of the state holds no password \
             that anybody could read, and a lost key means typing them again.",
        ),
    ],
};

pub(crate) const TRAIL: Schema = Schema {
    title: "[trail]",
    doc: "What became of each message, to be looked up: `trail.db` beside the state, some 700 octets for each. Nothing depends on it: \
          no message waits for it, a power failure may take its last second, and a damaged file is set aside and begun anew. A \
          backup of the state does not hold it.",
    keys: &[key(
        "keep_for",
        Kind::Form("a time from 1d on such as \"90d\", or \"off\""),
        Value("\"90d\""),
        "How long it is remembered what became of a message. With `\"off\"` nothing is, from the next start on, and there are no \
         figures over time.",
    )],
};

pub(crate) const LOG: Schema = Schema {
    title: "[log]",
    doc: "",
    keys: &[
        key(
            "to",
            Kind::Choice(&[
                ("stderr", "standard error"),
                ("syslog", "the system's log, facility mail"),
                ("journald", "the systemd journal, with fields"),
            ]),
            Value("\"stderr\""),
            "Where log lines go.",
        ),
        key(
            "level",
            Kind::Choice(&[
                ("error", "something was stopped"),
                ("warn", "someone should look"),
                ("info", "a line for each message and each run"),
                ("debug", "for developers"),
                ("trace", "the dialogues with the servers, passwords hidden"),
            ]),
            Value("\"info\""),
            "How much is logged.",
        ),
    ],
};

pub(crate) const NOTICES: Schema = Schema {
    title: "[notices]",
    doc: "Who is told when something is not well for long, and when it is well again. Without this table the log alone. \
          Each way that is set gets every notice; [the guide](guide.md#being-told) says what is told and how often.",
    keys: &[
        key(
            "mail_to",
            Kind::Texts,
            Words("nobody"),
            "Who gets every notice by mail: a mail address or a local user, or a list of them.",
        ),
        key(
            "delivery",
            Kind::Text,
            Words("`[delivery]`"),
            "The destination that this mail goes to, by its name: `\"NAME\"` of `[delivery.NAME]`.",
        ),
        key(
            "mail_from",
            Kind::Text,
            Words("`connectord` at this machine"),
            "The sender: a mail address, or a name at this machine. Nobody reads answers to it.",
        ),
        key(
            "to_users",
            Kind::Flag,
            Value("false"),
            "Whether the local users of an account get the notices about it by mail too, by the account's destination.",
        ),
        key(
            "command",
            Kind::Words,
            Words("none"),
            "A program and its arguments; no shell. It gets every notice as JSON on its standard input and has 30 s.",
        ),
        key(
            "webhook",
            Kind::Form("a URL such as \"https://example.org/hook\""),
            Words("none"),
            "A web address that gets every notice as JSON by POST. Where the URL itself is a secret, `chmod 600` this file.",
        ),
        key(
            "webhook_token_file",
            Kind::Path,
            Words("none"),
            "A file whose first line is sent to the web address as `Authorization: Bearer`, read at each notice.",
        ),
        key(
            "after",
            Kind::Duration(MINUTE, 30 * DAY),
            Value("\"24h\""),
            "How long a trouble that usually mends itself must last. What a person must mend is told after an hour, if that \
             is sooner.",
        ),
        key(
            "leave_out",
            Kind::Texts,
            Words("nothing"),
            "What is not told: `\"failing\"` (a server, a login, a mailbox there), `\"delivery\"` (a destination, a local \
             user), `\"disk\"`, `\"parked\"`, `\"changed\"` (a mailbox changed as a whole), `\"well\"`, `\"reminder\"`.",
        ),
        key(
            "per_hour",
            Kind::Integer(1, 1_000),
            Value("10"),
            "Most notices in an hour; what comes beyond waits and is told together.",
        ),
    ],
};

pub(crate) const ADMIN: Schema = Schema {
    title: "[admin]",
    doc: "The web page and the REST API. Without this table there is no page; the API answers all the same on the Unix socket \
          `api.sock` beside the state, to root and to connectord's own user. [The page](admin.md) says more.",
    keys: &[
        key(
            "listen",
            Kind::Form("\"host:port\" or \"unix:/path\""),
            Required,
            "Where the page and the API listen, such as `127.0.0.1:8025` or `unix:/run/connectord/admin.sock`. Other addresses \
             than loopback only with `public_url` and `behind_proxy`. A change needs a restart.",
        ),
        key(
            "public_url",
            Kind::Form("\"https://NAME\", without a path"),
            Words("none"),
            "Where people reach the page, when a reverse proxy is in front. A change needs a restart.",
        ),
        key(
            "behind_proxy",
            Kind::Flag,
            Value("false"),
            "Whether a reverse proxy is in front: its `X-Forwarded-For` is then believed. A change needs a restart.",
        ),
        key(
            "own_accounts",
            Kind::Flag,
            Value("false"),
            "Whether administrators can invite people to see and manage only their own accounts. A change needs a restart.",
        ),
    ],
};

pub(crate) const SAVED: Schema = Schema {
    title: "[saved]",
    doc: "What holds for accounts that are kept in the state (`connectorctl account add`), beside what holds for all: who may \
          save accounts must not be able to look around in the network of this machine with them. Accounts of this file \
          connect wherever they say.",
    keys: &[
        key(
            "networks",
            Kind::Texts,
            Value("[]"),
            "Networks that they may connect to beside the public internet, such as `\"192.168.0.0/16\"` or `\"127.0.0.1\"`.",
        ),
        key(
            "ports",
            Kind::Texts,
            Value("[]"),
            "Ports that they may connect to beside 110, 143, 993 and 995, such as `\"1993\"` or `\"2000-2999\"`.",
        ),
    ],
};

pub(crate) const USERS: Schema = Schema {
    title: "[users]",
    doc: "An account whose local user does not exist is held: nothing is fetched for it, and nobody else gets its mail.",
    keys: &[
        key(
            "source",
            Kind::Choice(&[
                ("delivery", "the destination is asked; for a Maildir its parent directory must be there"),
                ("system", "the system's user database"),
                ("list", "`list` and nobody else"),
                ("any", "nobody: every name is a user"),
            ]),
            Value("\"delivery\""),
            "Who is asked whether a user exists.",
        ),
        key("list", Kind::Texts, Words("none"), "The users, with `source = \"list\"`."),
        key(
            "groups",
            Kind::Table("a table, [users.groups], with a list of users for each name"),
            Words("none"),
            "Groups for `deliver_to`: with `sales = [\"alice\", \"bob\"]`, `\"@sales\"` stands for both.",
        ),
    ],
};

pub(crate) const SCHEDULE: Schema = Schema {
    title: "[schedule]",
    doc: "",
    keys: &[
        key(
            "concurrency",
            Kind::Integer(1, 10_000),
            Value("20"),
            "How many accounts are checked at once, from the login on; up to 256 may be connecting meanwhile.",
        ),
        key(
            "per_host",
            Kind::Integer(1, 1_000),
            Value("8"),
            "How many of them on one host. With idle_per_host it stays below the 20 connections that mail servers commonly \
             accept from one address; some hosters accept 4.",
        ),
        key("idle_per_host", Kind::Integer(0, 10_000), Value("10"), "How many idle connections are kept to one host."),
        key(
            "jitter",
            Kind::Fraction(50),
            Value("0.1"),
            "By which part of its length an interval may be longer, at random, so that accounts do not gather.",
        ),
        key(
            "quiet",
            Kind::Form("two times of the day such as \"22:00-06:00\""),
            Words("none"),
            "When nothing is checked regularly, in local time. Checks by hand are made all the same.",
        ),
    ],
};

pub(crate) const TIMEOUTS: Schema = Schema {
    title: "[timeouts]",
    doc: "An account that was cut for silence gets twice the time at its next check, up to 10 minutes.",
    keys: &[
        key(
            "connect",
            Kind::Duration(1, 10 * MINUTE),
            Value("\"20s\""),
            "For everything up to a usable connection: resolving, dialling, proxy and TLS together.",
        ),
        key(
            "silence",
            Kind::Duration(1, 60 * MINUTE),
            Value("\"60s\""),
            "How long nothing may come while the server owes something.",
        ),
        key(
            "minimum_rate",
            Kind::Integer(0, 1_000_000),
            Value("100"),
            "A server that owes something and sends fewer octets a second than this counts as silent.",
        ),
        key("rate_window", Kind::Duration(1, 60 * MINUTE), Value("\"30s\""), "Over how long that rate is measured."),
        key("session", Kind::Duration(10, 7 * DAY), Words("none"), "Longest life of a connection."),
    ],
};

pub(crate) const TLS: Schema = Schema {
    title: "[tls]",
    doc: "Certificates are always verified. A server with a certificate of its own gets a `pin` or a `ca_file` in its account.",
    keys: &[
        key(
            "ca_file",
            Kind::Path,
            Words("none"),
            "PEM file of certificate authorities trusted beside the system's, for all accounts.",
        ),
        key(
            "minimum",
            Kind::Choice(&[("1.2", "TLS 1.2 and later"), ("1.3", "TLS 1.3 only")]),
            Value("\"1.2\""),
            "Oldest version of TLS accepted.",
        ),
    ],
};

pub(crate) const PROCESS: Schema = Schema {
    title: "[process]",
    doc: "",
    keys: &[key(
        "user",
        Kind::Text,
        Words("stay"),
        "The user to become when started as root. Without it root works on, with a warning.",
    )],
};

/// The words of `type` in `[delivery]`, and the table of each.
pub(crate) const DELIVERIES: [(&str, &Schema); 5] =
    [("maildir", &MAILDIR), ("lmtp", &LMTP), ("smtp", &SMTP), ("mbox", &MBOX), ("command", &COMMAND)];

const TYPE: Key = key(
    "type",
    Kind::Choice(&[
        ("maildir", "a Maildir for each user"),
        ("lmtp", "an LMTP server, such as Dovecot's"),
        ("smtp", "an SMTP server"),
        ("mbox", "an mbox file for each user"),
        ("command", "a program for each message"),
    ]),
    Required,
    "What kind of destination it is.",
);

const RESERVE: Key = key(
    "reserve",
    Kind::Form("a size, a percentage or both, such as \"1 GiB, 5%\""),
    Value("\"1 GiB, 5%\""),
    "Free space that mail never takes; of two values the smaller counts. Retrieval pauses while less is free.",
);

const TIMEOUT: Key = key(
    "timeout",
    Kind::Duration(1, 60 * MINUTE),
    Value("\"60s\""),
    "Longest wait for an answer. That to a whole message is waited for 10 minutes: whoever gives up earlier delivers twice.",
);

const HELLO: Key =
    key("hello", Kind::Text, Words("the system's host name"), "The name we introduce ourselves by in LHLO or EHLO.");

const CONNECTIONS: Key = key("connections", Kind::Integer(1, 100), Value("8"), "Most connections at once.");

const DISK_TIMEOUT: Key =
    key("disk_timeout", Kind::Duration(1, 60 * MINUTE), Value("\"5m\""), "Longest wait for the disk.");

const RUN_AS: Key =
    key("run_as", Kind::Text, Words("our own user"), "Local user it runs as; only root can change users.");

const SEARCH_PATH: Key =
    key("search_path", Kind::Text, Value("\"/usr/local/bin:/usr/bin:/bin\""), "`PATH` of the program.");

const AMBIGUOUS: Key = key(
    "ambiguous",
    Kind::Choice(&[
        ("redeliver", "it is delivered again, marked as a further attempt: it may come twice"),
        ("park", "it is parked, and a person says what to do"),
    ]),
    Value("\"redeliver\""),
    "What becomes of a message whose delivery was cut short when it may have arrived already.",
);

/// What `[delivery]` may hold while its type is not known.
pub(crate) const DELIVERY: Schema = Schema {
    title: "[delivery]",
    doc: "Where mail goes: `[delivery]` for accounts that name no destination, `[delivery.NAME]` for those with \
          `delivery = \"NAME\"`. In `path`, `arguments` and an account's `recipient`, `{user}` stands for the local user, \
          `{address}` for the recipient's address, `{local}` and `{domain}` for its parts.",
    keys: &[TYPE],
};

pub(crate) const MAILDIR: Schema = Schema {
    title: "[delivery] with type = \"maildir\"",
    doc: "Exactly once: after a crash each message is there, and there once.",
    keys: &[
        TYPE,
        key(
            "path",
            Kind::Form("a path such as \"/var/vmail/{user}/Maildir\""),
            Required,
            "The directory that holds `cur`, `new` and `tmp`.",
        ),
        key(
            "create",
            Kind::Flag,
            Value("true"),
            "Whether a Maildir that is not there is made when its parent directory is. Nothing is made above it.",
        ),
        RESERVE,
        key("quota", Kind::Flag, Value("true"), "Whether limits in a Maildir++ `maildirsize` file are kept."),
        key("hostname", Kind::Text, Words("the system's"), "Name of this host in file names."),
        key(
            "check_existing",
            Kind::Choice(&[
                ("repeats", "only at a repeated attempt"),
                ("always", "for every message: after the state was lost, or restored from an old backup"),
            ]),
            Value("\"repeats\""),
            "When an earlier copy is searched for before writing.",
        ),
        DISK_TIMEOUT,
    ],
};

pub(crate) const LMTP: Schema = Schema {
    title: "[delivery] with type = \"lmtp\"",
    doc: "",
    keys: &[
        TYPE,
        key(
            "address",
            Kind::Form("\"host:port\" or \"unix:/path\""),
            Required,
            "Where it listens, such as `unix:/run/dovecot/lmtp` or `127.0.0.1:24`.",
        ),
        CONNECTIONS,
        TIMEOUT,
        HELLO,
        AMBIGUOUS,
    ],
};

pub(crate) const SMTP: Schema = Schema {
    title: "[delivery] with type = \"smtp\"",
    doc: "",
    keys: &[
        TYPE,
        key("host", Kind::Text, Required, "The server's name or address."),
        key(
            "port",
            Kind::Integer(1, 65_535),
            Words("465 with `tls`, 587 with `starttls`, 25 with `none`"),
            "Its port.",
        ),
        key("security", SECURITY, Value("\"tls\""), "What must be encrypted."),
        key("username", Kind::Text, Words("no login"), "The name to log in with."),
        PASSWORD_FILE,
        PASSWORD_COMMAND,
        PASSWORD_ENV,
        PASSWORD,
        key("ca_file", Kind::Path, Words("none"), "PEM file of further trusted certificate authorities."),
        CONNECTIONS,
        TIMEOUT,
        HELLO,
        AMBIGUOUS,
    ],
};

pub(crate) const MBOX: Schema = Schema {
    title: "[delivery] with type = \"mbox\"",
    doc: "Form mboxrd, with `fcntl` lock and lock file.",
    keys: &[
        TYPE,
        key("path", Kind::Form("a path such as \"/var/mail/{user}\""), Required, "The file."),
        RESERVE,
        key("lock_timeout", Kind::Duration(1, 60 * MINUTE), Value("\"30s\""), "Longest wait for the locks."),
        key(
            "stale_lock",
            Kind::Duration(1, 7 * DAY),
            Value("\"5m\""),
            "Age from which another program's lock file counts as left behind.",
        ),
    ],
};

pub(crate) const COMMAND: Schema = Schema {
    title: "[delivery] with type = \"command\"",
    doc: "The message comes on standard input; the exit code says what became of it (`sysexits.h`). No shell is used.",
    keys: &[
        TYPE,
        key("program", Kind::Path, Required, "The program, such as `/usr/lib/dovecot/dovecot-lda`."),
        key("arguments", Kind::Words, Value("[]"), "Its arguments, such as `[\"-d\", \"{user}\"]`."),
        RUN_AS,
        key(
            "timeout",
            Kind::Duration(1, 60 * MINUTE),
            Value("\"5m\""),
            "Longest run; then its process group is killed.",
        ),
        key("concurrency", Kind::Integer(1, 1_000), Value("8"), "How many run at once."),
        key("from_line", Kind::Flag, Value("false"), "Whether a `From ` line comes first, as some old programs want."),
        SEARCH_PATH,
        AMBIGUOUS,
    ],
};

const SECURITY: Kind = Kind::Choice(&[
    ("tls", "encrypted from the first octet"),
    ("starttls", "begins readable and must turn encrypted before anything else happens"),
    ("none", "never encrypted: password and mail travel readable"),
]);

const PASSWORD_FILE: Key = key(
    "password_file",
    Kind::Path,
    Words("none"),
    "A file whose first line is the password, at most 4 KiB; read whenever it is needed.",
);

const PASSWORD_COMMAND: Key = key(
    "password_command",
    Kind::Words,
    Words("none"),
    "A program and its arguments, run whenever the password is needed, without a shell, for 30 s at most; the first line it \
     prints is the password.",
);

const PASSWORD_ENV: Key =
    key("password_env", Kind::Text, Words("none"), "The environment variable that holds the password.");

const PASSWORD: Key = key(
    "password",
    Kind::Secret,
    Words("none"),
    "The password itself; the file must then be readable by its owner only.",
);

pub(crate) const ACCOUNT: Schema = Schema {
    title: "[[account]]",
    doc: "An external account, one table each. Exactly one of `password_file`, `password_command`, `password_env` and \
          `password` says where the password comes from.",
    keys: &[
        key("address", Kind::Text, Required, "The account's unique name, case aside; usually its address."),
        key("protocol", Kind::Choice(&[("pop3", "POP3"), ("imap", "IMAP")]), Required, "How mail is retrieved."),
        key("host", Kind::Text, Required, "The server's name or address."),
        key(
            "deliver_to",
            Kind::Texts,
            Required,
            "The local user, or a list of them, each of whom gets a copy; `\"@NAME\"` is a group of `[users.groups]`.",
        ),
        key("username", Kind::Text, Words("the address"), "The name to log in with."),
        PASSWORD_FILE,
        PASSWORD_COMMAND,
        PASSWORD_ENV,
        PASSWORD,
        key(
            "oauth2",
            Kind::NotYet(
                "OAuth2 sign-in is not in this version yet; a program that prints an access token works: \
                 password_command, with mechanisms = [\"XOAUTH2\"]",
            ),
            Words("none"),
            "OAuth2 sign-in.",
        ),
        key("security", SECURITY, Value("\"tls\""), "What must be encrypted."),
        key(
            "port",
            Kind::Integer(1, 65_535),
            Words("995 and 993 with `tls`, 110 and 143 otherwise"),
            "The server's port.",
        ),
        key("delivery", Kind::Text, Words("`[delivery]`"), "The destination, `[delivery.NAME]`."),
        key(
            "recipient",
            Kind::Form("a text such as \"{user}@example.org\""),
            Value("\"{user}\""),
            "The envelope recipient, for LMTP, SMTP and commands.",
        ),
        key(
            "check_every",
            Kind::Form("a time from 10s to 366d such as \"15m\", or \"never\""),
            Value("\"15m\""),
            "How long after a check the next one comes; `\"never\"`: only by hand.",
        ),
        key(
            "idle",
            Kind::Flag,
            Value("false"),
            "Wait for the server to tell of new mail (IMAP, one folder), and look every half hour anyway. Not together with \
             `check_every`.",
        ),
        key(
            "delete",
            Kind::Form(
                "\"never\", \"immediately\", a time after delivery such as \"7d\", or an age such as \"age:30d\"",
            ),
            Value("\"never\""),
            "When remote copies of delivered messages go: `\"7d\"` counts from the delivery, also for messages of earlier \
             runs; `\"age:30d\"` from the arrival at the provider.",
        ),
        key(
            "delete_by",
            Kind::Form("\"expunge\", \"trash\", \"seen\" or \"move:FOLDER\""),
            Value("\"expunge\""),
            "How they go; POP3 only knows `expunge`. For Gmail use `trash`: there EXPUNGE only archives.",
        ),
        key(
            "folders",
            Kind::Texts,
            Value("[\"INBOX\"]"),
            "IMAP mailboxes: names, patterns with `*` or `%`, or roles such as `\"\\\\Junk\"`.",
        ),
        key(
            "start",
            Kind::Choice(&[("all", "all that is there"), ("now", "only what comes from now on")]),
            Value("\"all\""),
            "Which messages count at the first check.",
        ),
        key("enabled", Kind::Flag, Value("true"), "Whether the account is checked at all."),
        key(
            "note",
            Kind::Text,
            Words("none"),
            "Whatever is worth knowing about it; shown with the account, and nothing else.",
        ),
        key(
            "max_message_size",
            Kind::Size(1, 1 << 40),
            Words("no limit"),
            "Larger messages are not retrieved. Units: `KiB`, `MiB`, `GiB` (powers of 1,024), `kB`, `MB`, `GB`; a number alone is octets.",
        ),
        key(
            "oversize",
            Kind::Choice(&[
                ("park", "shown, and retrieved when a person says so"),
                ("skip", "left on the server without a word"),
            ]),
            Value("\"park\""),
            "What becomes of larger messages.",
        ),
        key("mark_seen", Kind::Flag, Value("false"), "Whether retrieved messages are marked as read (IMAP)."),
        of_account(filters::ANTISPAM),
        of_account(filters::ANTIVIRUS),
        of_account(filters::ON_SPAM),
        of_account(filters::ON_REJECT),
        of_account(filters::ON_VIRUS),
        of_account(filters::ON_FAILURE),
        of_account(filters::ON_TOO_LARGE),
        of_account_rules(filters::MARK_AT),
        of_account_rules(filters::REJECT_AT),
        of_account_rules(filters::SUBJECT_PREFIX),
        of_account(filters::POSTPONE),
        of_account(filters::POSTPONE_FOR),
        of_account(filters::POSTPONE_TIMES),
        of_account(filters::ON_POSTPONED),
        of_account(filters::FILTER_ATTEMPTS),
        key(
            "ca_file",
            Kind::Path,
            Words("none"),
            "PEM file of further certificate authorities trusted for this account.",
        ),
        key(
            "pin",
            Kind::Texts,
            Words("none"),
            "Fingerprints of the server's certificate or key, `\"sha256:…\"` with 64 hexadecimal digits or 44 characters of \
             base64. With one, no authority is asked.",
        ),
        key(
            "proxy",
            Kind::Form("\"socks5://[user:password@]host:port\" or \"http://[user:password@]host:port\""),
            Words("none"),
            "The way to the server, when it is not direct.",
        ),
        key(
            "trusted_relays",
            Kind::Texts,
            Words("what is known of the server's provider, else nobody"),
            "Whose `Received` fields are believed, so that filters learn who handed a message to the provider: names of \
             providers that are known here (`gmail`, `outlook`, `gmx`, `ionos`, `yahoo`, `icloud`, `fastmail`, `proton`, `yandex`), domains of the provider's own hosts, and addresses or ranges of \
             addresses inside it. `[]`: nobody. `connectord relays ADDRESS` proposes what to write; the \
             [guide](guide.md#who-handed-it-over) says what it is for.",
        ),
        key(
            "mechanisms",
            Kind::Texts,
            Value("[]"),
            "SASL mechanisms that may be used; none: whatever is safe, the strongest first. With only `XOAUTH2` and \
             `OAUTHBEARER` the password is an access token.",
        ),
        key(
            "connections",
            Kind::Integer(1, 16),
            Words("what the provider is known to allow, else `1`"),
            "IMAP: how many connections retrieve at once when there is much to retrieve; a long line carries more with \
             several. Fewer are used when the server or `per_host` does not let more in.",
        ),
        key(
            "initial_response",
            Kind::Flag,
            Value("true"),
            "POP3: whether the first response goes into the `AUTH` line; off for servers that refuse it.",
        ),
        key(
            "removals_per_session",
            Kind::Integer(1, 100_000),
            Value("500"),
            "After how many removals a POP3 session ends and a new one begins, so that a cut line loses few of them; IMAP: \
             after how many an EXPUNGE is sent.",
        ),
    ],
};

/// All tables, in the order of the reference page.
pub(crate) const ALL: [&Schema; 27] = [
    &ACCOUNT,
    &DELIVERY,
    &MAILDIR,
    &LMTP,
    &SMTP,
    &MBOX,
    &COMMAND,
    &FILTER,
    &RSPAMD,
    &CONTROLLER,
    &CLAMAV,
    &SPAMASSASSIN,
    &FILTER_COMMAND,
    &RULES,
    &RULE,
    &QUARANTINE,
    &USERS,
    &SCHEDULE,
    &TIMEOUTS,
    &TLS,
    &NOTICES,
    &LOG,
    &STATE,
    &TRAIL,
    &PROCESS,
    &ADMIN,
    &SAVED,
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;

    const ACCOUNT_BASE: &str = "[[account]]\naddress = \"a@x\"\nprotocol = \"imap\"\nhost = \"h\"\ndeliver_to = \"ann\"\npassword_file = \"pw\"\n";

    /// A right file up to the end of a table with this schema, and that table's required keys.
    fn base(schema: &Schema) -> String {
        let maildir = "[delivery]\ntype = \"maildir\"\npath = \"/mail/{user}\"\n";
        match schema.title {
            "[[account]]" => format!("{maildir}{ACCOUNT_BASE}"),
            "[delivery]" => "[delivery]\n".to_owned(),
            "[admin]" => "[admin]\nlisten = \"127.0.0.1:1\"\n".to_owned(),
            "[filter.command.NAME]" => "[filter.command.x]\nprogram = \"/bin/p\"\n".to_owned(),
            "[[filter.rules.rule]]" => "[[filter.rules.rule]]\nlarger_than = 1\nthen = \"keep\"\n".to_owned(),
            title => match DELIVERIES.iter().find(|(_, delivery)| delivery.title == title) {
                Some(("maildir", _)) => maildir.to_owned(),
                Some(("lmtp", _)) => "[delivery]\ntype = \"lmtp\"\naddress = \"h:24\"\n".to_owned(),
                Some(("smtp", _)) => "[delivery]\ntype = \"smtp\"\nhost = \"h\"\n".to_owned(),
                Some(("mbox", _)) => "[delivery]\ntype = \"mbox\"\npath = \"/mail/{user}\"\n".to_owned(),
                Some((kind, _)) => format!("[delivery]\ntype = \"{kind}\"\nprogram = \"/bin/p\"\n"),
                None => format!("{title}\n"),
            },
        }
    }

    fn parse(text: &str) -> Result<Config, crate::Problems> {
        Config::parse(text, "c.toml", Path::new("/"))
    }

    #[test]
    fn the_documented_default_is_what_an_absent_key_means() {
        let mut tried = 0;
        for schema in ALL {
            for key in schema.keys {
                let Value(value) = key.default else { continue };
                let without = base(schema);
                let with = format!("{without}{} = {value}\n", key.name);
                assert_eq!(parse(&with).unwrap(), parse(&without).unwrap(), "{} {}", schema.title, key.name);
                tried += 1;
            }
        }
        assert!(tried > 40, "{tried}");
    }

    #[test]
    fn every_key_of_every_table_is_read() {
        for schema in ALL.into_iter().chain([&ROOT]) {
            for Key { name, kind, .. } in schema.keys {
                let start = if schema.title == ROOT.title { String::new() } else { base(schema) };
                let text: String = start
                    .lines()
                    .filter(|line| !line.starts_with(&format!("{name} = ")))
                    .fold(String::new(), |text, line| text + line + "\n");
                let problems = parse(&format!("{text}{name} = 1979-05-27\n")).unwrap_err().problems;
                let expected = match kind {
                    Kind::NotYet(why) => (*why).to_owned(),
                    kind => format!("{name} must be {}, not a date", kind.allowed()),
                };
                let found = problems.iter().filter(|problem| problem.message == expected).count();
                assert_eq!(found, 1, "{} {name}: {problems:?}", schema.title);
            }
        }
    }

    #[test]
    fn every_required_key_is_missed() {
        for schema in ALL {
            for Key { name, .. } in schema.keys.iter().filter(|key| matches!(key.default, Required)) {
                let text: String = base(schema)
                    .lines()
                    .filter(|line| {
                        !line.starts_with(&format!("{name} = ")) && (*line != "type = \"maildir\"" || *name != "type")
                    })
                    .fold(String::new(), |text, line| text + line + "\n");
                // A table of which only the head is left is no destination yet.
                let text = if schema.title == DELIVERY.title { format!("{text}path = \"/\"\n") } else { text };
                let problems = parse(&text).unwrap_err().problems;
                let lacks = format!("lacks \"{name}\"");
                assert!(problems.iter().any(|p| p.message.ends_with(&lacks)), "{} {name}: {problems:?}", schema.title);
            }
        }
    }
}
