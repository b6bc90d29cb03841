//! The sample provider: a POP3 and an IMAP server in this process, whose mail outlives it in files.
//!
//! Mailbox, UIDVALIDITY and UIDs are the same at each start, as a real provider's are: that is how a second demonstration
//! in the same directory can show that nothing comes twice.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use connectord_mail::Head;
use connectord_sample::letters::{Desk, Letter, letter};
use connectord_sample::servers::{ImapServer, Mailbox, Pop3Server, ServerOptions};
use connectord_sample::{Certificates, Message, corpus};

use super::place::{Place, put};
use crate::error::Error;

/// One of the mailboxes, and who gets its mail.
pub(super) struct Account {
    pub(super) address: &'static str,
    pub(super) password: &'static str,
    /// Over POP3; else over IMAP.
    pub(super) pop3: bool,
    /// By IDLE; else it is checked every 10 s.
    pub(super) listens: bool,
    pub(super) users: &'static [&'static str],
    desk: Desk,
    /// Messages in it at the start.
    samples: usize,
}

pub(super) const ACCOUNTS: &[Account] = &[
    Account {
        address: "info@shop.example",
        password: "two blue mugs",
        pop3: true,
        listens: false,
        users: &["anna"],
        desk: Desk::Shop,
        samples: 40,
    },
    Account {
        address: "anna@mail.example",
        password: "apple cake",
        pop3: false,
        listens: true,
        users: &["anna"],
        desk: Desk::Person,
        samples: 36,
    },
    Account {
        address: "support@shop.example",
        password: "the lid does not fit",
        pop3: false,
        listens: false,
        users: &["bob", "anna"],
        desk: Desk::Support,
        samples: 24,
    },
];

/// The servers and what is in them.
pub(super) struct Provider {
    ca_pem: String,
    pop3: Pop3Server,
    imap: ImapServer,
    remotes: Vec<Remote>,
}

/// A mailbox, and the files that it is made from at the next start.
struct Remote {
    account: &'static Account,
    mailbox: Mailbox,
    folder: PathBuf,
    /// Message-IDs, oldest first.
    message_ids: Vec<String>,
}

impl Provider {
    /// Starts the servers with the mail of the last time, or with sample mail.
    pub(super) fn start(place: &Place) -> Result<Self, Error> {
        let certificates = Certificates::try_new().map_err(Error::io("cannot make a certificate"))?;
        let ca_pem = std::fs::read_to_string(certificates.ca_file()).map_err(Error::io("cannot read a certificate"))?;
        let options = |pop3| {
            let options = ServerOptions::new().tls(certificates.server_config());
            let users = ACCOUNTS.iter().filter(|account| account.pop3 == pop3);
            users.fold(options, |options, account| options.user(account.address, account.password))
        };
        let failed = || Error::io("cannot start a sample server");
        let pop3 = Pop3Server::try_start(options(true)).map_err(failed())?;
        let imap = ImapServer::try_start(options(false)).map_err(failed())?;
        let mut remotes = Vec::new();
        for account in ACCOUNTS {
            let server = if account.pop3 { &*pop3 } else { &*imap };
            let mailbox = server.mailbox(account.address);
            let mut remote =
                Remote { account, mailbox, folder: place.remote(account.address)?, message_ids: Vec::new() };
            remote.fill()?;
            remotes.push(remote);
        }
        Ok(Self { ca_pem, pop3, imap, remotes })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(super) fn port(&self, account: &Account) -> u16 {
        if account.pop3 { self.pop3.port() } else { self.imap.port() }
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.remotes.iter().map(|remote| remote.message_ids.len()).sum()
    }

    /// Which messages each user has to get: Message-IDs, of one message as often as it is due.
    pub(super) fn due(&self) -> HashMap<(&'static str, String), u64> {
        let mut due = HashMap::new();
        for remote in &self.remotes {
            for user in remote.account.users {
                for message_id in &remote.message_ids {
                    *due.entry((*user, message_id.clone())).or_insert(0) += 1;
                }
            }
        }
        due
    }

    /// A new letter arrives at one of the mailboxes, the `n`th since the start. Returns when, and for how many users.
    pub(super) fn receive(&mut self, n: usize) -> Result<(Letter, Instant, usize), Error> {
        // Every other one goes where somebody listens.
        let at = [1, 2, 1, 0][n % 4];
        let remote = &mut self.remotes[at];
        let number = remote.folder_end()? + 1;
        let now = SystemTime::now();
        let letter = letter(remote.account.desk, number, remote.account.address, now);
        // First kept, then shown: what a client has seen must be there at the next start.
        keep(&remote.file(number), &letter.message)?;
        let arrived = Instant::now();
        remote.add(letter.message.clone());
        Ok((letter, arrived, remote.account.users.len()))
    }
}

impl Remote {
    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number:04}.eml"))
    }

    /// The number of the last file.
    fn folder_end(&self) -> Result<usize, Error> {
        let failed = || Error::io(format!("cannot read {}", self.folder.display()));
        let mut end = 0;
        for entry in self.folder.read_dir().map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".eml")?.parse().ok());
            end = end.max(number.unwrap_or(0));
        }
        Ok(end)
    }

    fn fill(&mut self) -> Result<(), Error> {
        for (number, message) in (1..).zip(samples(self.account)) {
            let file = self.file(number);
            if !file.exists() {
                keep(&file, &message)?;
            }
        }
        for number in 1..=self.folder_end()? {
            let file = self.file(number);
            if file.exists() {
                let failed = || Error::io(format!("cannot read {}", file.display()));
                let octets = std::fs::read(&file).map_err(failed())?;
                let received = file.metadata().and_then(|data| data.modified()).map_err(failed())?;
                self.add(Message::new(octets).received(received));
            } else {
                // Somebody removed it; the others keep their UIDs.
                let uid = self.mailbox.add("");
                self.mailbox.remove(uid);
            }
        }
        Ok(())
    }

    fn add(&mut self, message: Message) {
        self.message_ids.push(message_id(&message.octets));
        self.mailbox.add(message);
    }
}

/// Writes a message; the file's time is when it arrived.
fn keep(path: &Path, message: &Message) -> Result<(), Error> {
    put(path, &message.octets)?;
    let failed = Error::io(format!("cannot write {}", path.display()));
    File::options().write(true).open(path).and_then(|file| file.set_modified(message.received)).map_err(failed)
}

/// What is in a mailbox at the start: two letters in five messages, the others in all sizes and with all that goes wrong.
fn samples(account: &Account) -> Vec<Message> {
    let seed = account.samples as u64;
    // Without a Message-ID it could not be counted.
    let mut others = (0..).map(|n| corpus::message(n, seed)).filter(|message| !message_id(&message.octets).is_empty());
    let mut letters = 0..;
    let mut messages = Vec::new();
    for n in 0..account.samples {
        let at = UNIX_EPOCH + Duration::from_secs(1_767_225_600 + 3600 * n as u64);
        let next = if matches!(n % 5, 0 | 2) { letters.next() } else { None };
        messages.extend(match next {
            Some(number) => Some(letter(account.desk, number, account.address, at).message),
            None => others.next(),
        });
    }
    messages
}

/// The Message-ID, or nothing.
pub(super) fn message_id(octets: &[u8]) -> String {
    let field = Head::of(octets).field("Message-ID").unwrap_or_default();
    String::from_utf8_lossy(field).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn samples_are_many_and_each_can_be_told_from_the_others() {
        let mut ids = BTreeSet::new();
        for account in ACCOUNTS {
            for message in samples(account) {
                assert!(ids.insert(message_id(&message.octets)));
            }
        }
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn mail_is_the_same_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::open(Some(directory.path())).unwrap();
        let mut provider = Provider::start(&place).unwrap();
        provider.receive(0).unwrap();
        provider.receive(1).unwrap();
        let before: Vec<_> = provider.remotes.iter().map(|r| (r.mailbox.uids(), r.mailbox.messages())).collect();
        drop(provider);
        let provider = Provider::start(&place).unwrap();
        let after: Vec<_> = provider.remotes.iter().map(|r| (r.mailbox.uids(), r.mailbox.messages().len())).collect();
        let lengths: Vec<_> = before.iter().map(|(uids, messages)| (uids.clone(), messages.len())).collect();
        assert_eq!(after, lengths);
        for (remote, (_, messages)) in provider.remotes.iter().zip(before) {
            let octets = |messages: Vec<Message>| messages.into_iter().map(|m| m.octets).collect::<Vec<_>>();
            assert_eq!(octets(remote.mailbox.messages()), octets(messages));
        }
        assert_eq!(provider.len(), 102);
    }
}
