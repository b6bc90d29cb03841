//! The command line of connectorctl.

mod account;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use clap_complete::engine::ArgValueCompleter;
use connectord::look::Colour;

pub(crate) use self::account::{Account, Chosen, Draft, PasswordOptions, SettingOptions};
use crate::complete::addresses;

/// Looks after a running connectord: its accounts, what became of messages, what is held, who may sign in.
///
/// It asks the daemon by the sockets beside its state, as root or as the daemon's own user, or with a token from elsewhere.
///
/// Passwords and tokens are never arguments: they come from a prompt, a file, a program, the environment or standard input, and
/// no answer has a password.
///
/// Exit status: 0 well, 64 usage, 65 bad data or there already, 69 no server or no daemon, 74 disk or state, 75 changed
/// meanwhile or try again later, 77 login or permission refused, 78 configuration.
#[derive(Debug, Parser)]
#[command(name = "connectorctl", version, max_term_width = 100)]
pub(crate) struct Options {
    /// Configuration file of the daemon, which says where its state is [default: /etc/connectord/connectord.toml]
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// The directory of the daemon's sockets, or its control.sock, instead of what the configuration leads to
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// A daemon elsewhere, by the https address of its page (http on this machine only); not for `account`
    #[arg(long, value_name = "URL", global = true, conflicts_with = "socket")]
    pub(crate) url: Option<String>,
    /// Read the token for the API from the first line of this file [default: CONNECTORD_TOKEN, else none]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// JSON instead of tables and sentences
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Whether to use colour
    #[arg(long, value_enum, default_value_t = Colour::Auto, global = true)]
    pub(crate) color: Colour,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Whether all is well, and what is not, by cause
    Status {
        /// End as the worst account deserves: 75 what heals itself, 78 what needs a person
        #[arg(long)]
        check: bool,
    },
    /// Accounts
    #[command(subcommand)]
    Account(Box<Account>),
    /// Watch what runs, live; with an address until its check has ended
    Watch {
        /// This account only
        #[arg(add = ArgValueCompleter::new(addresses))]
        address: Option<String>,
        /// Check it now
        #[arg(long, requires = "address")]
        now: bool,
    },
    /// Check all accounts now, or some; starts are spread, so that no provider sees all logins at once
    CheckAll(Selection),
    /// Stop checks that run, and forget those that wait
    Stop {
        /// Of these accounts
        #[arg(required_unless_present = "all", conflicts_with = "all", add = ArgValueCompleter::new(addresses))]
        addresses: Vec<String>,
        /// Of all accounts
        #[arg(long)]
        all: bool,
    },
    /// The log
    Log {
        /// Go on with what is logged from now on
        #[arg(long, short)]
        follow: bool,
        /// Of this account only
        #[arg(long, value_name = "ADDRESS", add = ArgValueCompleter::new(addresses))]
        account: Option<String>,
        /// Of this level or worse
        #[arg(long, value_enum, default_value_t = Level::Info)]
        level: Level,
        /// With this text only
        #[arg(long)]
        text: Option<String>,
        /// How many of the last lines
        #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
        lines: u64,
    },
    /// Local users and their accounts
    Users {
        /// With this text in the name only
        text: Option<String>,
        /// Only those with accounts, or without
        #[arg(long, value_enum)]
        with_accounts: Option<YesNo>,
        #[command(flatten)]
        paging: Paging,
    },
    /// What became of messages, the newest first
    Messages {
        /// With this text in sender, recipient, subject or message-id only
        text: Option<String>,
        /// Of this account only
        #[arg(long, value_name = "ADDRESS", add = ArgValueCompleter::new(addresses))]
        account: Option<String>,
        /// For this local user only
        #[arg(long = "for", value_name = "USER")]
        user: Option<String>,
        /// In this state only
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Of so many days only
        #[arg(long, value_enum)]
        since: Option<Since>,
        #[command(flatten)]
        paging: Paging,
    },
    /// One message, and all that became of it
    Message {
        /// Its ID, as `messages` shows it
        id: String,
    },
    /// Messages that filters kept back
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Messages that are in trouble
    #[command(subcommand)]
    Parked(Parked),
    /// Add and update accounts from CSV; the first line names the columns
    Import {
        /// The file; - is standard input
        file: PathBuf,
        /// Say what would become of each line, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Save accounts whose connection does not work, without testing them
        #[arg(long)]
        untested: bool,
    },
    /// All accounts as CSV, without secrets
    Export,
    /// Tokens of the API, and the first sign-in
    #[command(subcommand)]
    Token(Token),
    /// People who sign in to the page
    #[command(subcommand)]
    Person(Person),
    /// Who did what, the newest first
    Audit {
        #[command(flatten)]
        paging: Paging,
    },
    /// Try filters, destinations and state now; ends with 69 when one is down
    Health,
    /// Print what a shell needs to complete the command line, addresses of accounts among it
    Completion {
        /// bash, zsh or fish
        shell: Shell,
    },
    /// Write the manual pages, one for each command, into a directory
    Man {
        /// It is made if it is missing
        directory: PathBuf,
    },
}

/// Which accounts; all when nothing is said.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Only those in this state
    #[arg(long, value_enum)]
    pub(crate) state: Option<Health>,
    /// Only those for this local user
    #[arg(long = "for", value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Only those at servers with this in their name
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Only those that are unwell for this cause
    #[arg(long, value_name = "CODE")]
    pub(crate) cause: Option<String>,
}

/// How much of a long list.
#[derive(Debug, Args)]
pub(crate) struct Paging {
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub(crate) most: u64,
    /// All, however many
    #[arg(long, conflicts_with = "most")]
    pub(crate) all: bool,
    /// Go on where an earlier answer ended: its `next`
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
}

/// Words that the API knows by the same name.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
        pub(crate) enum $name { $(#[value(name = $word)] $variant),+ }

        impl $name {
            /// As the API has it.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    )+};
}

words! {
    /// How an account is.
    Health { New "new", Ok "ok", Delayed "delayed", Action "action", Off "off" }
    /// How bad a line of the log is.
    Level { Error "error", Warn "warn", Info "info", Debug "debug" }
    /// Whether.
    YesNo { Yes "yes", No "no" }
    /// What became of a message.
    State {
        Waiting "waiting", Retrieved "retrieved", Filtered "filtered", Held "held", Delivered "delivered", Spam "spam",
        Quarantined "quarantined", Parked "parked", Discarded "discarded", Skipped "skipped", Removed "removed",
        MaybeTwice "maybe_twice",
    }
    /// Of how many days.
    Since { Day "1d", Week "7d", Month "30d" }
    /// Why a message is held.
    Why { Virus "virus", Spam "spam", Attachment "attachment", Rule "rule" }
    /// What somebody may do.
    Role { Own "own", Read "read", Operate "operate", Admin "admin" }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// List what is held, the newest first
    List {
        /// With this text in sender, recipient or subject only
        text: Option<String>,
        /// For this local user only
        #[arg(long = "for", value_name = "USER")]
        user: Option<String>,
        /// Held for this reason only
        #[arg(long, value_enum)]
        why: Option<Why>,
        #[command(flatten)]
        paging: Paging,
    },
    /// All that is known of one message, without its content
    Show {
        /// Its ID, as `list` shows it
        id: String,
        /// The message itself, as it came, into a new file that only you can read
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Deliver messages without a new scan, and hold them no longer
    Release {
        /// Their IDs, as `list` shows them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Tell the filter that learns that they are no spam
        #[arg(long)]
        learn: bool,
    },
    /// Discard our copies for good
    Discard {
        /// Their IDs, as `list` shows them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Parked {
    /// List parked messages, with their reasons
    List {
        /// With this text in sender, subject or address only
        text: Option<String>,
        /// For this local user only
        #[arg(long = "for", value_name = "USER")]
        user: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Try messages again at the next check
    Retry(Ids),
    /// Retrieve messages at the next check whatever parked them
    Anyway(Ids),
    /// Leave messages there for good
    Skip(Ids),
}

/// Which messages.
#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// Their IDs, as `list` shows them
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// Somebody, and what they may do.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// 1 to 64 letters, digits, dots, hyphens
    pub(crate) name: String,
    /// own: accounts of one local user; read: everything that is no secret; operate: also check, stop, retry, release; admin: all
    #[arg(long, value_enum)]
    pub(crate) role: Role,
    /// The local user, for the role own
    #[arg(long)]
    pub(crate) user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List tokens, without themselves
    List,
    /// Make a token; it is shown this once
    Create(Named),
    /// Remove a token: nothing gets in with it any more
    Revoke {
        /// Its name, or enough of its ID's beginning
        token: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Make another one-time link for the first administrator, while nobody can sign in
    FirstStart,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Person {
    /// List people
    List,
    /// Make a one-time link for somebody to choose a passphrase with; also for one who forgot it
    Invite(Named),
    /// Remove somebody, and their sessions
    Remove {
        /// The name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}
