use crate::Report;

/// Is told how a run goes: progress bars, a page, a test. Called often and from many tasks; must return at once.
pub trait Observer: Send + Sync {
    /// Something happened to an account.
    fn progress(&self, account: &str, progress: Progress<'_>);
}

/// How a run goes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The server is being connected to.
    Connecting {
        /// `host:port`.
        server: &'a str,
    },
    /// Connected and logged in.
    LoggedIn {
        /// TLS version, or none.
        tls: Option<&'a str>,
    },
    /// A mailbox has been listed.
    Listed {
        /// Its name; empty for POP3.
        mailbox: &'a str,
        /// Messages in it.
        messages: u64,
        /// Those to retrieve.
        new: u64,
        /// Those to remove.
        removals: u64,
    },
    /// Octets of bodies came.
    Octets(u64),
    /// A message was retrieved whole.
    Retrieved,
    /// Filters have looked at a message.
    Filtered {
        /// They took it for spam.
        spam: bool,
    },
    /// A message was delivered to one recipient.
    Delivered,
    /// A delivery or retrieval is put off.
    Deferred,
    /// A message was parked.
    Parked,
    /// A message was kept back in the quarantine.
    Quarantined,
    /// A message was discarded, as the configuration says.
    Discarded,
    /// Remote copies were removed.
    Removed(u64),
    /// The server is waited on for new mail.
    Listening,
    /// The run is over.
    Finished(&'a Report),
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn progress(&self, _account: &str, _progress: Progress<'_>) {}
}
