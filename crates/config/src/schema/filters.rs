//! The tables of filters, of what follows from what they find, and of the quarantine.

use super::IfAbsent::{Required, Value, Words};
use super::{
    DAY, DISK_TIMEOUT, Key, Kind, MINUTE, PASSWORD, PASSWORD_COMMAND, PASSWORD_ENV, PASSWORD_FILE, RUN_AS, SEARCH_PATH,
    Schema, key,
};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// The key of a site's policy as an account has it.
pub(super) const fn of_account(site: Key) -> Key {
    Key { default: Words("as in `[filter]`"), ..site }
}

/// The same of what stands in `[filter.rules]`.
pub(super) const fn of_account_rules(site: Key) -> Key {
    Key { default: Words("as in `[filter.rules]`"), ..site }
}

pub(super) const ANTISPAM: Key =
    key("antispam", Kind::Flag, Value("true"), "Whether antispam filters look at messages, where one is configured.");

pub(super) const ANTIVIRUS: Key =
    key("antivirus", Kind::Flag, Value("true"), "Whether antivirus filters look at messages, where one is configured.");

const SPAM_GOES: Kind = Kind::Form("\"mark\", \"folder:NAME\", \"quarantine\" or \"discard\"");

pub(super) const ON_SPAM: Key = key(
    "on_spam",
    SPAM_GOES,
    Value("\"mark\""),
    "What becomes of spam. `\"mark\"`: delivered with `X-Spam: Yes` and the subject prefix. `\"folder:Junk\"`: the same, into \
     the Maildir++ folder `.Junk`; other destinations get the field `X-Connectord-Folder` for Sieve. `\"quarantine\"`: kept \
     back. `\"discard\"`: away.",
);

pub(super) const ON_REJECT: Key = key(
    "on_reject",
    SPAM_GOES,
    Value("\"quarantine\""),
    "The same for what a filter would refuse (Rspamd's `reject`) and for what a rule blocks.",
);

pub(super) const ON_VIRUS: Key = key(
    "on_virus",
    Kind::Choice(&[
        ("quarantine", "kept back until somebody releases it"),
        ("notice", "kept back, and a notice is delivered in its place"),
        ("discard", "away"),
    ]),
    Value("\"quarantine\""),
    "What becomes of a message with a virus.",
);

pub(super) const ON_FAILURE: Key = key(
    "on_failure",
    Kind::Choice(&[
        ("keep", "it stays on the server and is tried again"),
        ("deliver", "it is delivered, marked with `X-Connectord-Unchecked`"),
    ]),
    Value("\"keep\""),
    "What becomes of a message that a filter could not look at, because it is down for instance.",
);

pub(super) const ON_TOO_LARGE: Key = key(
    "on_too_large",
    Kind::Choice(&[
        ("deliver", "it is delivered, marked with `X-Connectord-Unchecked`"),
        ("quarantine", "kept back until somebody releases it"),
    ]),
    Value("\"deliver\""),
    "What becomes of a message that is too large for a filter.",
);

pub(super) const POSTPONE: Key = key(
    "postpone",
    Kind::Flag,
    Value("true"),
    "Whether a filter's soft reject, such as that of Rspamd's greylist, puts a message off: it stays on the server for a \
     while.",
);

pub(super) const POSTPONE_FOR: Key = key(
    "postpone_for",
    Kind::Duration(10, 2 * DAY),
    Value("\"10m\""),
    "For how long each time; longer than the filter's greylist, which takes 5 minutes with Rspamd.",
);

pub(super) const POSTPONE_TIMES: Key =
    key("postpone_times", Kind::Integer(0, 100), Value("3"), "How often one message is put off.");

pub(super) const ON_POSTPONED: Key = key(
    "on_postponed",
    Kind::Choice(&[("deliver", "it is delivered, marked as spam"), ("park", "it waits for a person")]),
    Value("\"deliver\""),
    "What becomes of a message that has been put off that often.",
);

pub(super) const FILTER_ATTEMPTS: Key = key(
    "filter_attempts",
    Kind::Integer(1, 1_000),
    Value("10"),
    "How often a message is tried of which it may be the fault that a filter fails; then it is parked.",
);

const POINTS: Kind = Kind::Form("a number of points such as 6.5, or \"filter\"");

pub(super) const MARK_AT: Key = key(
    "mark_at",
    POINTS,
    Value("\"filter\""),
    "From how many points of an antispam filter on a message is spam; `\"filter\"`: where the filter says so.",
);

pub(super) const REJECT_AT: Key = key(
    "reject_at",
    POINTS,
    Value("\"filter\""),
    "From how many points on it is as if refused; `\"filter\"`: where the filter says so.",
);

pub(super) const SUBJECT_PREFIX: Key = key(
    "subject_prefix",
    Kind::Form("text in quotes, or \"\" for none"),
    Value("\"\""),
    "Put in front of the subject of spam, with a space behind it, such as `\"[SPAM]\"`.",
);

const fn at_once(default: &'static str) -> Key {
    key("at_once", Kind::Integer(1, 1_000), Value(default), "How many messages it looks at at a time.")
}

const fn max_size(default: super::IfAbsent) -> Key {
    key(
        "max_size",
        Kind::Size(1, TIB),
        default,
        "Largest message that it is given; what becomes of a larger one is `on_too_large`.",
    )
}

pub(crate) const FILTER: Schema = Schema {
    title: "[filter]",
    doc: "What becomes of what filters find, for all accounts; nearly every key can be set for one account too. Filters are \
          `[filter.rspamd]`, `[filter.clamav]`, `[filter.spamassassin]`, `[filter.command.NAME]` and `[filter.rules]`: each \
          that is there is asked, side by side, and none is without its table. Nothing is discarded unless it says so here. \
          The [guide](guide.md#spam-and-viruses) shows how to begin.",
    keys: &[
        key("rspamd", Kind::Table("a table, [filter.rspamd]"), Words("none"), "An Rspamd to ask."),
        key("clamav", Kind::Table("a table, [filter.clamav]"), Words("none"), "A clamd to ask."),
        key("spamassassin", Kind::Table("a table, [filter.spamassassin]"), Words("none"), "A spamd to ask."),
        key(
            "command",
            Kind::Table("a table, [filter.command.NAME] for each program"),
            Words("none"),
            "Programs to ask, by names of one's own.",
        ),
        key(
            "rules",
            Kind::Table("a table, [filter.rules]"),
            Words("none"),
            "Thresholds, lists, blocked attachments and rules of one's own.",
        ),
        ANTISPAM,
        ANTIVIRUS,
        ON_SPAM,
        ON_REJECT,
        ON_VIRUS,
        ON_FAILURE,
        ON_TOO_LARGE,
        POSTPONE,
        POSTPONE_FOR,
        POSTPONE_TIMES,
        ON_POSTPONED,
        FILTER_ATTEMPTS,
        key(
            "timeout",
            Kind::Duration(1, 60 * MINUTE),
            Value("\"2m\""),
            "How long a filter may look at one message; what comes of one that has not answered by then is `on_failure`.",
        ),
    ],
};

pub(crate) const RSPAMD: Schema = Schema {
    title: "[filter.rspamd]",
    doc: "Rspamd's HTTP interface. It is told who handed the message to the provider as far as `trusted_relays` of the \
          account reach, and never that it came from this machine.",
    keys: &[
        key("url", HTTP_URL, Value("\"http://127.0.0.1:11333\""), "Where its normal worker (or its proxy) listens."),
        PASSWORD_FILE,
        PASSWORD_COMMAND,
        PASSWORD_ENV,
        PASSWORD,
        key("settings_id", Kind::Text, Words("none"), "Which of Rspamd's settings apply, by their id."),
        CA_FILE,
        key(
            "controller",
            Kind::Table("a table, [filter.rspamd.controller]"),
            Words("none"),
            "Its controller, which learns that a message is no spam when it is released from the quarantine.",
        ),
        at_once("8"),
        max_size(Value("\"50 MiB\"")),
    ],
};

const CA_FILE: Key = key(
    "ca_file",
    Kind::Path,
    Words("none"),
    "With `https://`: PEM file of certificate authorities trusted beside the system's and those of `[tls]`.",
);

const HTTP_URL: Kind = Kind::Form("\"http://host:port\", \"https://host:port\" or \"unix:/path\"");

pub(crate) const CONTROLLER: Schema = Schema {
    title: "[filter.rspamd.controller]",
    doc: "",
    keys: &[
        key("url", HTTP_URL, Value("\"http://127.0.0.1:11334\""), "Where Rspamd's controller listens."),
        PASSWORD_FILE,
        PASSWORD_COMMAND,
        PASSWORD_ENV,
        PASSWORD,
        CA_FILE,
    ],
};

pub(crate) const CLAMAV: Schema = Schema {
    title: "[filter.clamav]",
    doc: "clamd of ClamAV, by `INSTREAM`: it needs no access to any file of ours.",
    keys: &[
        key(
            "address",
            Kind::Form("\"host:port\" or \"unix:/path\""),
            Value("\"unix:/run/clamav/clamd.ctl\""),
            "Where it listens.",
        ),
        at_once("8"),
        max_size(Value("\"25 MiB\"")),
    ],
};

pub(crate) const SPAMASSASSIN: Schema = Schema {
    title: "[filter.spamassassin]",
    doc: "spamd of SpamAssassin. Received fields that are believed reach it as the message's own.",
    keys: &[
        key("address", Kind::Form("\"host:port\" or \"unix:/path\""), Value("\"127.0.0.1:783\""), "Where it listens."),
        key(
            "user",
            Kind::Text,
            Words("the one that spamd runs as"),
            "Whose settings and Bayes database apply; `\"{recipient}\"`: the first recipient's.",
        ),
        at_once("4"),
        max_size(Value("\"500 KiB\"")),
    ],
};

const fn exit(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    key(name, Kind::Statuses, Value(default), doc)
}

pub(crate) const FILTER_COMMAND: Schema = Schema {
    title: "[filter.command.NAME]",
    doc: "A program that gets each message on its standard input; its exit status says what it found. 75 is trouble that \
          passes; one that no key names is trouble too: then the message was not looked at. No shell is used. Its \
          environment has `SENDER`, `RECIPIENT`, `ACCOUNT`, `CONNECTORD_ID`, and what is known of `CLIENT_ADDRESS`, \
          `CLIENT_NAME` and `CLIENT_HELO`.",
    keys: &[
        key("program", Kind::Path, Required, "The program."),
        key("arguments", Kind::Words, Value("[]"), "Its arguments."),
        key(
            "looks_for",
            Kind::Choice(&[
                ("spam", "asked where `antispam` is on"),
                ("viruses", "asked where `antivirus` is on"),
                ("both", "asked where either is on"),
                ("rules", "always asked; it may discard"),
            ]),
            Value("\"spam\""),
            "Which switch asks for it.",
        ),
        exit("exit_clean", "0", "Exit statuses that mean: nothing found."),
        exit("exit_spam", "[]", "Exit statuses that mean: spam."),
        exit("exit_reject", "[99, 100]", "Exit statuses that mean: to be refused; then `on_reject` counts."),
        exit("exit_later", "[]", "Exit statuses that mean: come back later, as a soft reject."),
        exit("exit_virus", "[]", "Exit statuses that mean: a virus; the first line that it writes is its name."),
        exit("exit_discard", "[]", "Exit statuses that mean: away with it; only with `looks_for = \"rules\"`."),
        key(
            "output",
            Kind::Choice(&[
                ("ignored", "nothing, but for the names of viruses and the words of errors"),
                ("header", "a header, or a message: fields that are not there as they are replace those of their name"),
            ]),
            Value("\"ignored\""),
            "What is made of its standard output.",
        ),
        RUN_AS,
        SEARCH_PATH,
        at_once("4"),
        max_size(Words("no limit")),
    ],
};

pub(crate) const RULES: Schema = Schema {
    title: "[filter.rules]",
    doc: "What needs nobody else. Addresses are written `\"ann@example.org\"`, `\"example.org\"` (that domain), \
          `\".example.org\"` (all below it), or with `*` for any letters. The first that fits decides, in this order: \
          `block_from`, blocked attachments, rules, `allow_from`, `allow_to`.",
    keys: &[
        MARK_AT,
        REJECT_AT,
        SUBJECT_PREFIX,
        key(
            "allow_from",
            Kind::Texts,
            Value("[]"),
            "Senders whose mail is no spam. Not heard when the provider says that the sender is forged. Viruses are viruses.",
        ),
        key("allow_to", Kind::Texts, Value("[]"), "Recipients whose mail is no spam."),
        key("block_from", Kind::Texts, Value("[]"), "Senders whose mail is blocked: it goes as `on_reject` says."),
        key(
            "blocked_attachments",
            Kind::Texts,
            Value("[]"),
            "Classes of attachments that are blocked: `\"executable\"` (programs, scripts, and what starts some), \
             `\"archive\"` (archives and disk images), `\"macro\"` (office documents with macros), `\"encrypted\"` (archives \
             nobody can look into), `\"bomb\"` (archives that say to hold far more than they can). By name and by content; \
             names in zip archives count too.",
        ),
        key(
            "blocked_extensions",
            Kind::Texts,
            Value("[]"),
            "Further extensions of attachments that are blocked, such as `\"iso\"`; also in zip archives.",
        ),
        key(
            "rule",
            Kind::Table("[[filter.rules.rule]], once for each rule"),
            Words("none"),
            "Rules of one's own, in order; see `[[filter.rules.rule]]`.",
        ),
        key("max_parts", Kind::Integer(1, 100_000), Value("1000"), "Most parts of a message that are looked at."),
        key("max_depth", Kind::Integer(1, 1_000), Value("32"), "Deepest nesting of parts that is looked at."),
        key(
            "max_entries",
            Kind::Integer(1, 1_000_000),
            Value("10000"),
            "Most entries of one archive that are looked at; with more it is a `bomb`.",
        ),
        key(
            "max_ratio",
            Kind::Integer(2, 1_000_000),
            Value("200"),
            "How many times its size an archive may say to hold, from 1 MiB on; with more it is a `bomb`.",
        ),
        key(
            "max_unpacked",
            Kind::Size(MIB, TIB),
            Value("\"4 GiB\""),
            "How much an archive may say to hold; with more it is a `bomb`. Nothing is unpacked.",
        ),
        key(
            "max_names",
            Kind::Size(1_024, 1 << 30),
            Value("\"4 MiB\""),
            "How much room the names of entries of archives take in memory, for each message.",
        ),
        at_once("4"),
    ],
};

pub(crate) const RULE: Schema = Schema {
    title: "[[filter.rules.rule]]",
    doc: "What is done with messages for which all conditions hold; at least one condition must be there.",
    keys: &[
        key(
            "header",
            Kind::Texts,
            Words("any"),
            "A header field and its whole value, `*` for any text, case aside: `\"Subject: *invoice*\"`. Of a list all must \
             be there.",
        ),
        key("larger_than", Kind::Size(0, TIB), Words("any"), "The message is larger."),
        key("smaller_than", Kind::Size(1, TIB), Words("any"), "The message is smaller."),
        key(
            "attached",
            Kind::Texts,
            Words("any"),
            "Classes of which something is attached, as in `blocked_attachments`.",
        ),
        key(
            "then",
            Kind::Form("\"folder:NAME\", \"keep\", \"allow\", \"block\" or \"discard\""),
            Required,
            "What is done. `\"folder:NAME\"`: into a folder, if it is no spam. `\"keep\"`, `\"allow\"`: no spam, whatever \
             filters say. `\"block\"`: as `on_reject` says. `\"discard\"`: away.",
        ),
        key("reason", Kind::Text, Words("the rule's number"), "What the log and the quarantine give as the reason."),
    ],
};

pub(crate) const QUARANTINE: Schema = Schema {
    title: "[quarantine]",
    doc: "Where messages are kept back, as durable as a delivery, until somebody releases them or their time is over: \
          `connectord quarantine`.",
    keys: &[
        key(
            "path",
            Kind::Path,
            Words("`quarantine` beside the state"),
            "The directory; made when its parent directory is there, for its owner only.",
        ),
        key(
            "keep_for",
            Kind::Form("a time from 1d on such as \"30d\", or \"forever\""),
            Value("\"30d\""),
            "How long messages stay; then they are removed.",
        ),
        key(
            "max_size",
            Kind::Size(MIB, 1 << 50),
            Value("\"1 GiB\""),
            "How much it may hold. While it is full, messages that should go there stay on the server, and the log says so.",
        ),
        key("max_messages", Kind::Integer(1, 10_000_000), Value("100000"), "How many messages it may hold."),
        key(
            "report",
            Kind::Choice(&[("daily", "once a day, when there is something new"), ("never", "never")]),
            Value("\"never\""),
            "When users are told by mail what is kept back for them.",
        ),
        Key { default: Value("\"2m\""), ..DISK_TIMEOUT },
    ],
};
