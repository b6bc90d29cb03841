//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::logging::Colour;

/// Checks external POP3 and IMAP accounts and delivers their mail to local users.
///
/// Exit status: 0 all well, 64 usage, 65 a message was parked, 69 a server is unavailable, 74 disk or state, 75 try again
/// later, 77 login refused, 78 configuration; with several accounts the worst one counts.
#[derive(Debug, Parser)]
#[command(name = "connectord", version, max_term_width = 100)]
pub(crate) struct Options {
    /// Configuration file [default: /etc/connectord/connectord.toml]
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Whether to use colour
    #[arg(long, value_enum, default_value_t = Colour::Auto, global = true)]
    pub(crate) color: Colour,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon: check all accounts regularly, or when their servers say so
    ///
    /// SIGHUP reads the configuration again; SIGTERM ends it within seconds, and finished work is kept.
    Serve,
    /// Check accounts once, now, with progress, then exit
    ///
    /// Back-off and login holds do not apply to a check by hand. A running daemon that holds the state is asked to do it.
    Fetch(Fetch),
    /// Check the configuration, and with --online try every filter and log in everywhere
    Check(Check),
    /// Messages that are in trouble: look at them, try them again, deliver them anyway, leave them alone, or remove them
    #[command(subcommand)]
    Parked(Parked),
    /// Messages that filters kept back: look at them, release them, discard them, tell their users
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Propose whose Received fields an account may believe, from the headers of its newest messages
    ///
    /// Nothing is believed by that: what is proposed is to be read, and to be written into the configuration.
    Relays(Relays),
    /// The memory of what was fetched
    #[command(subcommand)]
    State(State),
    /// Show the whole thing on this machine, with sample servers and sample mail
    Demo(Demo),
    /// Print what a shell needs to complete the command line
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

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    #[arg(
        value_name = "ADDRESS|URL",
        help = "Addresses of accounts in the configuration [default: all], or one URL: \
                imaps://user@host[:port][/mailbox], pop3s://… (imap:// and pop3:// require STARTTLS)"
    )]
    pub(crate) accounts: Vec<String>,
    /// Say what would be retrieved and removed, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// One JSON object per account on standard output instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) url: UrlOptions,
}

/// What only counts for `fetch URL`.
#[derive(Debug, Args)]
#[command(next_help_heading = "With a URL")]
pub(crate) struct UrlOptions {
    /// Maildir that the mail goes to; made if its parent directory is there
    #[arg(long, value_name = "MAILDIR")]
    pub(crate) to: Option<PathBuf>,
    /// What happens to the remote copies: never, immediately, or how long after delivery, such as 7d
    #[arg(long, value_name = "WHEN", default_value = "never")]
    pub(crate) delete: String,
    /// Read the password from the first line of this file [default: CONNECTORD_PASSWORD, else a prompt]
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long, conflicts_with = "password_file")]
    pub(crate) password_stdin: bool,
    /// PEM file of a further certificate authority to trust
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Fingerprint of the server's certificate or key, sha256:…
    #[arg(long, value_name = "PIN")]
    pub(crate) pin: Option<String>,
    /// Directory of the memory of what was fetched [default: $STATE_DIRECTORY or ~/.local/state/connectord]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Try every filter with a sample that it must find, log in to every account, list it, and see whether its users exist;
    /// nothing is retrieved or changed
    #[arg(long)]
    pub(crate) online: bool,
    /// Send a test notice by every way that `[notices]` names, and say what became of it
    #[arg(long)]
    pub(crate) notice: bool,
    /// Addresses of accounts to try with --online [default: all]
    #[arg(value_name = "ADDRESS")]
    pub(crate) accounts: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Relays {
    /// Address of the account
    #[arg(value_name = "ADDRESS")]
    pub(crate) account: String,
    /// How many of its newest messages are looked at
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) messages: u32,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Parked {
    /// List parked messages, with their reasons
    List {
        /// Of this account only
        account: Option<String>,
        /// Also those that wait for another attempt, or to be removed
        #[arg(long)]
        pending: bool,
        /// One JSON object per message
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of messages, and how far each has come for whom
    Show(Chosen),
    /// Try messages again at the next check, as if for the first time
    Retry(Chosen),
    /// Deliver messages at the next check whatever parked them: a mail loop, their size, too many attempts
    Deliver(Chosen),
    /// Leave messages alone for good; their remote copies stay
    Skip(Chosen),
    /// Remove messages from the server at the next check though not everybody has them
    Delete {
        #[command(flatten)]
        chosen: Chosen,
        /// Yes, they are to be gone for good
        #[arg(long)]
        yes: bool,
    },
}

/// Which messages in trouble.
#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// Their numbers, as `list` shows them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) ids: Vec<String>,
    /// All parked messages of the account that --account names
    #[arg(long, requires = "account")]
    pub(crate) all: bool,
    /// With --all: the account
    #[arg(long, value_name = "ADDRESS", requires = "all")]
    pub(crate) account: Option<String>,
    /// One JSON object per message
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// List what is held, the newest first
    List(Listing),
    /// Show all that is known of messages, without their content
    Show {
        #[command(flatten)]
        which: Which,
        /// The message itself, as it came, on standard output, which must not be a terminal
        #[arg(long)]
        raw: bool,
        /// The message itself, as it came, into a new file that only you can read
        #[arg(long, value_name = "FILE", conflicts_with = "raw")]
        output: Option<PathBuf>,
    },
    /// Deliver messages to those who would have got them, and hold them no longer
    Release {
        #[command(flatten)]
        which: Which,
        /// As spam: with the subject's prefix and the X-Spam fields that they would have got
        #[arg(long)]
        marked: bool,
        /// Also those with viruses
        #[arg(long)]
        infected: bool,
        /// Tell the filter that learns that they are no spam
        #[arg(long, conflicts_with = "marked")]
        teach: bool,
    },
    /// Remove messages for good
    Discard {
        #[command(flatten)]
        which: Which,
        /// Yes, they are to be gone for good
        #[arg(long)]
        yes: bool,
    },
    /// Tell users by mail what was held for them since they were last told
    Report {
        /// This user only [default: all for whom something is held]
        #[arg(long)]
        user: Option<String>,
        /// Say who would be told, and tell nobody
        #[arg(long)]
        dry_run: bool,
        /// One JSON object per user
        #[arg(long)]
        json: bool,
    },
}

/// Which messages in the quarantine are listed.
#[derive(Debug, Args)]
pub(crate) struct Listing {
    /// Of this account only
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) account: Option<String>,
    /// For this local user only
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// With this text in sender, subject or reason only
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// With viruses, spam without, or held for other reasons
    #[arg(long, value_enum)]
    pub(crate) kind: Option<Kind>,
    /// Most messages
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub(crate) limit: usize,
    /// How many of the newest are left out
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) offset: usize,
    /// One JSON object per message; the last line says how many there are
    #[arg(long)]
    pub(crate) json: bool,
}

/// What messages are held as.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    Virus,
    Spam,
    Other,
}

/// Which messages in the quarantine.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Their names, as `list` shows them, or enough of the beginning
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// One JSON object per message
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Write a copy of the state, as of one moment, into a new file; a running daemon goes on meanwhile
    Backup {
        /// The file; it must not exist
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Directory for everything the demonstration makes [default: a new one below the system's directory for such]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// End after the first round instead of going on receiving
    #[arg(long)]
    pub(crate) once: bool,
}
