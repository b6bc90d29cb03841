//! The programs compared, each with the settings that make it fastest among those that lose no mail.
//!
//! All keep the mail on the server, verify its certificate, deliver into one Maildir for each account, add no field where
//! they can be told so, and print no line for each message.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Done;
use crate::measure::Plan;
use crate::server::own_all;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Imaps,
    Pop3s,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Imaps => "imaps",
            Self::Pop3s => "pop3s",
        }
    }
}

/// What a program is to do.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// Their passwords are `secret`, their mailbox is INBOX.
    pub(crate) users: &'a [String],
    pub(crate) ca: &'a Path,
    /// A directory of the program's own, for configuration, state and mail.
    pub(crate) directory: &'a Path,
    /// Whether only what was not fetched before counts; for programs that must be told.
    pub(crate) only_new: bool,
    /// Whether what is there at the first check counts as fetched; for connectord.
    pub(crate) start_now: bool,
    /// How many accounts at once, when there are several.
    pub(crate) parallel: usize,
    /// Connections to one IMAP mailbox, for connectord; 0 is its default.
    pub(crate) connections: usize,
}

impl Job<'_> {
    /// Where the mail of a user goes.
    pub(crate) fn maildir(&self, user: &str) -> PathBuf {
        self.directory.join("mail").join(user)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Program {
    Connectord,
    /// connectord with `connections = 4`.
    Wide,
    Mbsync,
    Mpop,
    Fdm,
    Fetchmail,
    Getmail,
}

impl Program {
    pub(crate) const ALL: [Self; 6] =
        [Self::Connectord, Self::Mbsync, Self::Mpop, Self::Fdm, Self::Fetchmail, Self::Getmail];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connectord => "connectord",
            Self::Wide => "connectord, 4 connections",
            Self::Mbsync => "mbsync",
            Self::Mpop => "mpop",
            Self::Fdm => "fdm",
            Self::Fetchmail => "fetchmail",
            Self::Getmail => "getmail6",
        }
    }

    pub(crate) fn speaks(self, protocol: Protocol) -> bool {
        match self {
            Self::Mbsync | Self::Wide => protocol == Protocol::Imaps,
            Self::Mpop => protocol == Protocol::Pop3s,
            _ => true,
        }
    }

    /// Writes the configuration, and makes the directories that the program wants to find.
    pub(crate) fn prepare(self, job: &Job<'_>) -> Done<Plan> {
        fs::create_dir_all(job.directory.join("mail"))?;
        match self {
            Self::Connectord => connectord(job),
            Self::Wide => connectord(&Job { connections: 4, ..job.clone() }),
            Self::Mbsync => mbsync(job),
            Self::Mpop => mpop(job),
            Self::Fdm => fdm(job),
            Self::Fetchmail => fetchmail(job),
            Self::Getmail => getmail(job),
        }
    }
}

/// The program that is measured; `CONNECTORD` names it.
pub(crate) fn connectord_path() -> String {
    std::env::var("CONNECTORD").unwrap_or_else(|_| "connectord".to_owned())
}

fn connectord(job: &Job<'_>) -> Done<Plan> {
    let directory = job.directory.display();
    let mut text = format!(
        "[log]\nlevel = \"warn\"\n[state]\nurl = \"sqlite://{directory}/state.db\"\n[users]\nsource = \"any\"\n\
         [delivery]\ntype = \"maildir\"\npath = \"{directory}/mail/{{user}}\"\n[tls]\nca_file = \"{}\"\n\
         [schedule]\nconcurrency = {parallel}\nper_host = {parallel}\n",
        job.ca.display(),
        parallel = job.parallel.max(8),
    );
    let protocol = if job.protocol == Protocol::Imaps { "imap" } else { "pop3" };
    for user in job.users {
        text += &format!(
            "[[account]]\naddress = \"{user}\"\nprotocol = \"{protocol}\"\nhost = \"localhost\"\nport = {}\n\
             password = \"secret\"\ndeliver_to = \"{user}\"\n",
            job.port
        );
        if job.connections > 0 {
            text += &format!("connections = {}\n", job.connections);
        }
        if job.start_now {
            text += "start = \"now\"\n";
        }
    }
    let file = write(job, "connectord.toml", &text)?;
    Ok(Plan::one(vec![connectord_path(), "--config".into(), file, "fetch".into(), "--quiet".into()]))
}

/// isync: commands are pipelined without a limit, files fsynced; both are its defaults.
fn mbsync(job: &Job<'_>) -> Done<Plan> {
    let directory = job.directory.display();
    fs::create_dir_all(job.directory.join("state"))?;
    let mut commands = Vec::new();
    for user in job.users {
        let text = format!(
            "IMAPAccount a\nHost localhost\nPort {}\nUser {user}\nPass secret\nSSLType IMAPS\nSystemCertificates no\n\
             CertificateFile {}\nTimeout 300\n\nIMAPStore far\nAccount a\n\nMaildirStore near\nPath {directory}/mail/\n\
             Inbox {directory}/mail/{user}\n\nChannel c\nFar :far:INBOX\nNear :near:INBOX\nSync PullNew\nCreate Near\n\
             SyncState {directory}/state/{user}.\n",
            job.port,
            job.ca.display(),
        );
        let file = write(job, &format!("mbsyncrc.{user}"), &text)?;
        commands.push(["mbsync", "-q", "-c", &file, "c"].map(str::to_owned).to_vec());
    }
    Ok(Plan { commands, parallel: job.parallel, ..Plan::default() })
}

/// Pipelining is switched on, not left to detection.
fn mpop(job: &Job<'_>) -> Done<Plan> {
    let directory = job.directory.display();
    let mut text = format!(
        "defaults\nhost localhost\nport {}\ntls on\ntls_starttls off\ntls_trust_file {}\npipelining on\nkeep on\n\
         received_header off\ntimeout 300\nauth user\n",
        job.port,
        job.ca.display(),
    );
    let mut commands = Vec::new();
    for user in job.users {
        make_maildir(&job.maildir(user))?;
        text += &format!(
            "account {user}\nuser {user}\npassword secret\nuidls_file {directory}/uidls.{user}\n\
             delivery maildir {}\n",
            job.maildir(user).display()
        );
    }
    let file = write(job, "mpoprc", &text)?;
    for user in job.users {
        commands.push(["mpop", "-q", "-C", &file, user].map(str::to_owned).to_vec());
    }
    Ok(Plan { commands, parallel: job.parallel, ..Plan::default() })
}

/// One process fetches, another delivers; over IMAP it knows new mail by the flag `\Seen` only.
fn fdm(job: &Job<'_>) -> Done<Plan> {
    // The process that fetches becomes the user _fdm, and keeps its cache and its temporary files there.
    fs::set_permissions(job.directory, fs::Permissions::from_mode(0o777))?;
    let mut commands = Vec::new();
    for user in job.users {
        make_maildir(&job.maildir(user))?;
        let only = match (job.only_new, job.protocol) {
            (false, _) => String::new(),
            (true, Protocol::Imaps) => "new-only".into(),
            (true, Protocol::Pop3s) => format!("new-only cache \"{}/cache.{user}\"", job.directory.display()),
        };
        let text = format!(
            "set no-received\nset verify-certificates\nset maximum-size 200M\nset lock-file \"{}/lock.{user}\"\n\
             set queue-high 50\nset timeout 300\n\
             account \"a\" {} server \"localhost\" port {} user \"{user}\" pass \"secret\" {only} keep\n\
             action \"m\" maildir \"{}\"\nmatch all action \"m\"\n",
            job.directory.display(),
            job.protocol.name(),
            job.port,
            job.maildir(user).display(),
        );
        let file = write(job, &format!("fdm.{user}"), &text)?;
        commands.push(["fdm", "-q", "-u", "root", "-f", &file, "fetch"].map(str::to_owned).to_vec());
    }
    let environment = vec![
        ("SSL_CERT_FILE".to_owned(), job.ca.display().to_string()),
        ("TMPDIR".to_owned(), job.directory.display().to_string()),
    ];
    Ok(Plan { commands, parallel: job.parallel, environment, also_good: Vec::new() })
}

/// It needs a program that delivers; ours does as little as can be. `fastuidl 1` finds the first new message by halving.
fn fetchmail(job: &Job<'_>) -> Done<Plan> {
    let ours = std::env::current_exe()?;
    let mut commands = Vec::new();
    for user in job.users {
        make_maildir(&job.maildir(user))?;
        let (protocol, extra) = match (job.protocol, job.only_new) {
            (Protocol::Imaps, false) => ("IMAP", "fetchall"),
            (Protocol::Imaps, true) => ("IMAP", ""),
            (Protocol::Pop3s, false) => ("POP3", "fetchall"),
            (Protocol::Pop3s, true) => ("POP3", "uidl fastuidl 1"),
        };
        let (uidl, extra) = match extra.strip_prefix("uidl ") {
            Some(extra) => ("uidl", extra),
            None => ("", extra),
        };
        let text = format!(
            "set idfile \"{directory}/ids.{user}\"\nset pidfile \"{directory}/pid.{user}\"\nset invisible\nset no bouncemail\n\
             poll localhost protocol {protocol} service {} {uidl} timeout 300 user \"{user}\" password \"secret\" ssl sslcertck \
             sslcertfile \"{}\" keep {extra} no rewrite no mimedecode mda \"{} deliver {}\"\n",
            job.port,
            job.ca.display(),
            ours.display(),
            job.maildir(user).display(),
            directory = job.directory.display(),
        );
        let file = write(job, &format!("fetchmailrc.{user}"), &text)?;
        commands.push(["fetchmail", "--silent", "--nosyslog", "-f", &file].map(str::to_owned).to_vec());
    }
    let environment = vec![("FETCHMAILHOME".to_owned(), job.directory.display().to_string())];
    // 1: there was no mail.
    Ok(Plan { commands, parallel: job.parallel, environment, also_good: vec![1] })
}

/// It delivers nothing as root: it runs as `mail`. A message's own process that ends early is waited for until the
/// timeout (6.18): a short one lets such a run fail soon.
fn getmail(job: &Job<'_>) -> Done<Plan> {
    let directory = job.directory.display().to_string();
    let retriever = if job.protocol == Protocol::Imaps { "SimpleIMAPSSLRetriever" } else { "SimplePOP3SSLRetriever" };
    let mut commands = Vec::new();
    for user in job.users {
        make_maildir(&job.maildir(user))?;
        let text = format!(
            "[retriever]\ntype = {retriever}\nserver = localhost\nport = {}\nusername = {user}\npassword = secret\n\
             ca_certs = {}\ntimeout = 60\n[destination]\ntype = Maildir\npath = {}/\n\
             [options]\nread_all = false\ndelete = false\nreceived = false\ndelivered_to = false\nverbose = 0\n",
            job.port,
            job.ca.display(),
            job.maildir(user).display(),
        );
        let file = write(job, &format!("getmailrc.{user}"), &text)?;
        let as_mail = ["setpriv", "--reuid=mail", "--regid=mail", "--clear-groups"];
        let command = ["getmail", "--quiet", "--getmaildir", &directory, "--rcfile", &file];
        commands.push(as_mail.into_iter().chain(command).map(str::to_owned).collect());
    }
    own_all(job.directory)?;
    Ok(Plan { commands, parallel: job.parallel, ..Plan::default() })
}

fn write(job: &Job<'_>, name: &str, text: &str) -> Done<String> {
    let path = job.directory.join(name);
    fs::write(&path, text)?;
    // They hold passwords, and most programs insist.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path.display().to_string())
}

pub(crate) fn make_maildir(path: &Path) -> Done<()> {
    for name in ["cur", "new", "tmp"] {
        fs::create_dir_all(path.join(name))?;
    }
    Ok(())
}
