//! `connectorctl account`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use crate::complete::addresses;

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// All accounts and how they are doing
    List {
        /// Only those of these local users
        #[arg(long = "for", value_name = "USER", value_delimiter = ',')]
        local: Vec<String>,
        /// Only those that are unwell for this cause
        #[arg(long, value_name = "CODE")]
        cause: Option<String>,
    },
    /// Everything about an account, but its password
    Show(Chosen),
    /// Add an account: it is tested, saved, and checked at once
    Add {
        #[command(flatten)]
        draft: Draft,
        /// Switched off for now
        #[arg(long)]
        disabled: bool,
    },
    /// Change an account; if the test fails, it stays as it was
    Edit {
        #[arg(add = ArgValueCompleter::new(addresses))]
        address: String,
        #[command(flatten)]
        settings: SettingOptions,
        #[command(flatten)]
        new_password: NewPassword,
        /// Only if it still is this version, as `show` says
        #[arg(long, value_name = "VERSION")]
        etag: Option<String>,
        /// Save it whatever speaks against it: a failed test, or mail that would come twice
        #[arg(long)]
        anyway: bool,
    },
    /// Remove an account; delivered mail stays
    Remove {
        #[arg(add = ArgValueCompleter::new(addresses))]
        address: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Only if it still is this version, as `show` says
        #[arg(long, value_name = "VERSION")]
        etag: Option<String>,
    },
    /// Switch an account on
    Enable(Chosen),
    /// Switch an account off; nothing of it is forgotten
    Disable(Chosen),
    /// Test the way to an account, step by step; nothing is retrieved
    Test(Chosen),
    /// Test an account that is not there, as `add` would
    TestNew(Draft),
    /// Check an account now
    CheckNow(Chosen),
    /// Who changed what, the newest first
    Changes {
        /// Of this account only
        #[arg(add = ArgValueCompleter::new(addresses))]
        address: Option<String>,
        /// Most lines
        #[arg(long, default_value_t = 50)]
        most: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Chosen {
    #[arg(add = ArgValueCompleter::new(addresses))]
    pub(crate) address: String,
}

/// An account to be.
#[derive(Debug, Args)]
pub(crate) struct Draft {
    pub(crate) address: String,
    /// pop3 or imap
    #[arg(long)]
    pub(crate) protocol: Option<String>,
    #[command(flatten)]
    pub(crate) settings: SettingOptions,
    #[command(flatten)]
    pub(crate) password: PasswordOptions,
    /// Save it whatever speaks against it: a failed test, or mail that would come twice
    #[arg(long)]
    pub(crate) anyway: bool,
}

/// The keys of `[[account]]`: the common ones, and `--set` for all.
#[derive(Debug, Args)]
pub(crate) struct SettingOptions {
    /// The server's name or address
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The server's port
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// tls, starttls or none
    #[arg(long)]
    pub(crate) security: Option<String>,
    /// The name to log in with [default: the address]
    #[arg(long)]
    pub(crate) username: Option<String>,
    /// The local users who get the mail
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    pub(crate) deliver_to: Vec<String>,
    /// How long after a check the next one comes, such as 15m
    #[arg(long, value_name = "TIME")]
    pub(crate) check_every: Option<String>,
    /// What happens to the remote copies: never, immediately, or how long after delivery
    #[arg(long, value_name = "WHEN")]
    pub(crate) delete: Option<String>,
    /// Any key of an account in the file, such as folders=["INBOX","Archive"]; can be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Take a key away: its default holds again
    #[arg(long, value_name = "KEY")]
    pub(crate) unset: Vec<String>,
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub(crate) struct PasswordOptions {
    /// Read the password from the first line of this file [default: CONNECTORD_PASSWORD, else a prompt]
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long, conflicts_with = "password_file")]
    pub(crate) password_stdin: bool,
    /// Read the password from the first line that this program prints; its arguments are divided at spaces
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["password_file", "password_stdin"])]
    pub(crate) password_command: Option<String>,
}

/// A new password, for an account that has one.
#[derive(Debug, Args)]
pub(crate) struct NewPassword {
    /// Give it a new password: from CONNECTORD_PASSWORD, else a prompt
    #[arg(long)]
    pub(crate) password: bool,
    #[command(flatten)]
    pub(crate) from: PasswordOptions,
}

impl NewPassword {
    pub(crate) fn is_given(&self) -> bool {
        let PasswordOptions { password_file, password_stdin, password_command } = &self.from;
        self.password || password_file.is_some() || *password_stdin || password_command.is_some()
    }
}
