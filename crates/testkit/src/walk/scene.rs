//! What the program is to do in each round, and what must have come of it.
//!
//! Account `one` has eight messages for `ann`, account `two` has six for `ann` and `bob`: two accounts meet in one Maildir,
//! and one account has two users. Each round has mailboxes, Maildirs and a state of its own, so that no round leaves
//! anything to another.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Options, Protocol};
use crate::process::Group;
use crate::{Dovecot, DovecotOptions, Service, maildir};

const ACCOUNTS: [&str; 2] = ["one", "two"];
const USERS: [&str; 2] = ["ann", "bob"];

/// Which users the messages of an account go to.
fn recipients(account: &str) -> &'static [&'static str] {
    if account == "one" { &["ann"] } else { &["ann", "bob"] }
}

/// A server, and what is in its mailboxes at the start of each round.
pub(super) struct Scene {
    dovecot: Dovecot,
    _certificates: Group,
    options: Options,
    letters: Vec<Letter>,
    rounds: AtomicU64,
}

/// A message, and in which accounts it lies how often.
struct Letter {
    /// Appears once in the message, near its beginning.
    token: String,
    octets: Vec<u8>,
    copies: [usize; 2],
}

impl Scene {
    pub(super) fn start(options: Options) -> Self {
        // Any name is a user: each round has its own, and Dovecot remembers nothing of earlier ones.
        let anybody = "passdb {\n  driver = static\n  args = password=secret\n}";
        let dovecot = Dovecot::start(DovecotOptions::new().extra(anybody));
        let certificates = guard(dovecot.certificates().ca_file().parent().expect("a file is in a directory"));
        let letters = letters();
        let scene = Self { dovecot, _certificates: certificates, options, letters, rounds: AtomicU64::new(0) };
        let templates = scene.templates();
        maildir::make_directory(&templates);
        for letter in &scene.letters {
            let path = templates.join(&letter.token);
            fs::write(&path, &letter.octets).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
            maildir::own(&path);
        }
        scene
    }

    /// Below Dovecot's directory, which goes with this process whatever becomes of it.
    fn directory(&self) -> PathBuf {
        self.dovecot.configuration().parent().expect("a file is in a directory").to_path_buf()
    }

    fn templates(&self) -> PathBuf {
        self.directory().join("mail/templates")
    }

    fn service(&self) -> Service {
        match (self.options.protocol, self.options.tls) {
            (Protocol::Pop3, false) => Service::Pop3,
            (Protocol::Pop3, true) => Service::Pop3s,
            (Protocol::Imap, false) => Service::Imap,
            (Protocol::Imap, true) => Service::Imaps,
        }
    }

    /// What a Maildir has of a letter, behind the program's own fields.
    fn arrived(&self, letter: &Letter) -> Vec<u8> {
        let sent = self.dovecot.as_sent(self.service(), &letter.octets);
        let mut octets = Vec::with_capacity(sent.len() + 1);
        for (at, octet) in sent.iter().enumerate() {
            if !(*octet == b'\r' && sent.get(at + 1) == Some(&b'\n')) {
                octets.push(*octet);
            }
        }
        // POP3 cannot say that a message has no final line end.
        if self.options.protocol == Protocol::Pop3 && octets.last() != Some(&b'\n') {
            octets.push(b'\n');
        }
        octets
    }

    /// Mailboxes, Maildirs and configuration for one round.
    pub(super) fn place(&self) -> Place<'_> {
        let number = self.rounds.fetch_add(1, Ordering::Relaxed);
        let place = Place { scene: self, directory: self.directory().join(format!("round{number}")), number };
        for (at, account) in ACCOUNTS.iter().enumerate() {
            let mailbox = self.dovecot.folder(&place.login(account), "INBOX");
            for (n, letter) in self.letters.iter().enumerate() {
                for copy in 0..letter.copies[at] {
                    let name = format!("{}.M{n:03}{copy}P1.walk", 1_767_225_600 + n);
                    let target = mailbox.join("new").join(format!("{name},S={}", letter.octets.len()));
                    fs::hard_link(self.templates().join(&letter.token), &target)
                        .unwrap_or_else(|e| panic!("cannot link {}: {e}", target.display()));
                }
            }
        }
        for user in USERS {
            make(&place.directory.join("mail").join(user));
            make(&place.directory.join("kept").join(user));
        }
        place.configure();
        place
    }
}

/// Where one round takes place. Its files go when it is dropped.
pub(super) struct Place<'a> {
    scene: &'a Scene,
    directory: PathBuf,
    number: u64,
}

/// What is wrong after a round, in messages (one for each recipient).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) corrupted: u64,
    pub(super) stuck: u64,
    /// Files in `tmp/`.
    pub(super) left: u64,
    pub(super) details: Vec<String>,
}

impl Place<'_> {
    fn login(&self, account: &str) -> String {
        format!("{account}{}", self.number)
    }

    fn configure(&self) {
        let options = &self.scene.options;
        let path = |name: &str| self.directory.join(name).display().to_string();
        let mut text = format!(
            "[state]\nurl = \"sqlite:{}\"\n[delivery]\ntype = \"maildir\"\npath = \"{}\"\nreserve = \"1 MiB\"\n",
            path("state/state.db"),
            path("mail/{user}/Maildir")
        );
        if options.tls {
            let file = self.scene.dovecot.certificates().ca_file().display();
            text += &format!("[tls]\nca_file = \"{file}\"\n");
        }
        for account in ACCOUNTS {
            text += &format!(
                "[[account]]\naddress = \"{account}@example.org\"\nprotocol = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\n\
                 security = \"{}\"\nusername = \"{}\"\npassword = \"secret\"\nmechanisms = [\"PLAIN\"]\n\
                 deliver_to = {:?}\ndelete = \"{}\"\n",
                if options.protocol == Protocol::Pop3 { "pop3" } else { "imap" },
                self.scene.dovecot.port(self.scene.service()),
                if options.tls { "tls" } else { "none" },
                self.login(account),
                recipients(account),
                options.delete,
            );
        }
        let file = self.directory.join("connectord.toml");
        fs::write(&file, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        // It holds passwords.
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600))
            .unwrap_or_else(|e| panic!("cannot close {}: {e}", file.display()));
    }

    /// A check of all accounts by hand, which passes over holds and waits.
    pub(super) fn fetch(&self) -> Command {
        let mut command = Command::new(&self.scene.options.binary);
        command.arg("--config").arg(self.directory.join("connectord.toml")).args(["fetch", "--json"]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.directory).current_dir(&self.directory);
        command
    }

    pub(super) fn stderr(&self) -> String {
        fs::read(self.directory.join("stderr"))
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// How many messages the last run says that it retrieved.
    pub(super) fn retrieved(&self) -> u64 {
        let reports = fs::read_to_string(self.directory.join("stdout")).unwrap_or_default();
        let number = |line: &str| -> Option<u64> {
            let rest = line.split_once("\"retrieved\":")?.1;
            rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
        };
        reports.lines().map(|line| number(line).unwrap_or(0)).sum()
    }

    /// A mail reader takes away all that is new, to where it is still counted.
    pub(super) fn read_mail(&self) {
        for user in USERS {
            for path in files(&self.maildir(user).join("new")) {
                let kept = self.directory.join("kept").join(user);
                // Two copies of one name are two copies.
                let name = format!("{}.{}", files(&kept).len(), path.file_name().unwrap_or_default().display());
                fs::rename(&path, kept.join(name)).unwrap_or_else(|e| panic!("cannot take {}: {e}", path.display()));
            }
        }
    }

    fn maildir(&self, user: &str) -> PathBuf {
        self.directory.join("mail").join(user).join("Maildir")
    }

    /// How many copies of each letter lie at the server.
    fn at_server(&self, account: &str) -> Vec<usize> {
        let mailbox = self.scene.dovecot.maildir(&self.login(account));
        let mut copies = vec![0; self.scene.letters.len()];
        for path in ["new", "cur"].iter().flat_map(|sub| files(&mailbox.join(sub))) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = name.split_once(".M").and_then(|(_, rest)| rest.get(..3)?.parse::<usize>().ok());
            copies[number.unwrap_or_else(|| panic!("{name} is none of our files"))] += 1;
        }
        copies
    }

    /// Whether everything has arrived as it should, and the mailboxes are as they should be.
    pub(super) fn is_done(&self) -> bool {
        let verdict = self.verdict();
        verdict == Verdict { left: verdict.left, details: verdict.details.clone(), ..Verdict::default() }
    }

    /// Compares each user's mail with what was sent to the accounts.
    pub(super) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let remaining: BTreeMap<_, _> = ACCOUNTS.iter().map(|account| (*account, self.at_server(account))).collect();
        for user in USERS {
            let mut whole = vec![0; self.scene.letters.len()];
            let mut damaged = vec![0; self.scene.letters.len()];
            let places = [self.maildir(user).join("new"), self.maildir(user).join("cur")];
            for path in places.iter().chain([&self.directory.join("kept").join(user)]).flat_map(|place| files(place)) {
                let octets = fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
                match self.recognise(&octets) {
                    Some((n, true)) => whole[n] += 1,
                    Some((n, false)) => damaged[n] += 1,
                    None => {
                        verdict.corrupted += 1;
                        verdict.details.push(format!("{}: no message of ours", path.display()));
                    }
                }
            }
            for (n, letter) in self.scene.letters.iter().enumerate() {
                let of_user = ACCOUNTS.iter().enumerate().filter(|(_, account)| recipients(account).contains(&user));
                let expected: usize = of_user.clone().map(|(at, _)| letter.copies[at]).sum();
                let still_there: usize = of_user.map(|(_, account)| remaining[account][n]).sum();
                let came = whole[n] + damaged[n];
                let missing = expected.saturating_sub(came);
                verdict.corrupted += damaged[n] as u64;
                verdict.duplicated += came.saturating_sub(expected) as u64;
                // What is missing and still at the server may yet come, and did not.
                verdict.stuck += missing.min(still_there) as u64;
                verdict.lost += missing.saturating_sub(still_there) as u64;
                if came != expected || damaged[n] > 0 {
                    verdict.details.push(format!(
                        "{user}: {} came {came} times instead of {expected}, {} of them damaged, {still_there} at the server",
                        letter.token, damaged[n]
                    ));
                }
            }
            let left = files(&self.maildir(user).join("tmp"));
            verdict.left += left.len() as u64;
            verdict.details.extend(left.iter().map(|path| format!("left behind: {}", path.display())));
        }
        for (at, account) in ACCOUNTS.iter().enumerate() {
            let gone = self.scene.options.delete == "immediately";
            for (letter, remaining) in self.scene.letters.iter().zip(&remaining[account]) {
                let expected = if gone { 0 } else { letter.copies[at] };
                if *remaining != expected {
                    // Too few: removed though it was to stay, which is a loss of its own.
                    verdict.stuck += remaining.saturating_sub(expected) as u64;
                    verdict.lost += expected.saturating_sub(*remaining) as u64;
                    let token = &letter.token;
                    verdict
                        .details
                        .push(format!("{account}: {remaining} of {token} at the server instead of {expected}"));
                }
            }
        }
        verdict
    }

    /// Which letter it is, and whether it is as it was sent.
    fn recognise(&self, octets: &[u8]) -> Option<(usize, bool)> {
        let start = &octets[..octets.len().min(8192)];
        let has = |token: &str| start.windows(token.len()).any(|window| window == token.as_bytes());
        let (n, letter) = self.scene.letters.iter().enumerate().find(|(_, letter)| has(&letter.token))?;
        Some((n, without_trace(octets) == Some(&self.scene.arrived(letter))))
    }

    /// What was left of it all, for a report.
    pub(super) fn listing(&self) -> String {
        let mut lines = Vec::new();
        for user in USERS {
            for sub in ["tmp", "new", "cur"] {
                for path in files(&self.maildir(user).join(sub)) {
                    let size = path.metadata().map_or(0, |metadata| metadata.len());
                    lines.push(format!("{user} {sub}/{} {size}", path.file_name().unwrap_or_default().display()));
                }
            }
        }
        lines.join("\n")
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mailboxes = ACCOUNTS.iter().filter_map(|account| {
            let maildir = self.scene.dovecot.maildir(&self.login(account));
            maildir.parent().map(Path::to_path_buf)
        });
        for directory in mailboxes.chain([self.directory.clone()]) {
            // Dovecot may still write an index; the rest goes with Dovecot's directory.
            let _ = fs::remove_dir_all(&directory).or_else(|_| fs::remove_dir_all(&directory));
        }
    }
}

/// Sees to it that a directory goes also when this process is killed, as people do who wait for a long walk.
fn guard(directory: &Path) -> Group {
    let mut idle = Command::new("/bin/sleep");
    idle.arg("2147483647").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Group::spawn(&mut idle, directory)
}

fn make(directory: &Path) {
    fs::create_dir_all(directory).unwrap_or_else(|e| panic!("cannot make {}: {e}", directory.display()));
}

/// Sorted, so that reports are alike; none where there is no directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// A message behind the program's own fields; `None` where they are not in front of it.
fn without_trace(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message;
    loop {
        let end = rest.iter().position(|octet| *octet == b'\n')? + 1;
        let (line, next) = rest.split_at(end);
        rest = next;
        if line.starts_with(b"X-Connectord-Account: ") {
            break;
        }
        if line == b"\n" {
            return None;
        }
    }
    if rest.starts_with(b"X-Connectord-Attempt: ") {
        rest = &rest[rest.iter().position(|octet| *octet == b'\n')? + 1..];
    }
    Some(rest)
}

/// Mail with much of what goes wrong with mail; each as small as it can be, but one.
fn letters() -> Vec<Letter> {
    let token = |n: usize| format!("walk-token-{n:02}");
    let header = |n: usize| {
        format!(
            "Return-Path: <list@example.net>\nMessage-ID: <{}@example.net>\nDate: Thu, 1 Jan 2026 00:00:{n:02} +0000\n\
             From: list@example.net\nTo: info@example.org\nSubject: number {n}\n\n",
            token(n)
        )
        .into_bytes()
    };
    let with = |n: usize, body: &[u8]| [header(n), body.to_vec()].concat();
    let large = b"All work and no play makes a large message, line after line, until it is large\n".repeat(4000);
    let contents: [(Vec<u8>, [usize; 2]); 12] = [
        (with(0, b"a plain one, in both accounts\n"), [1, 1]),
        (with(1, b"Gr\xfc\xdfe aus M\xfcnchen \xe2\x82\xac \xff\xfe\n"), [1, 0]),
        (with(2, b"a\0b\n\0\n"), [1, 0]),
        (with(3, b"no newline at the end"), [1, 0]),
        (with(4, &large), [1, 0]),
        (with(5, b"identical twins\n"), [2, 0]),
        (with(6, b".\n..\n.leading\n...\n. \nend\n.\n"), [1, 0]),
        ([format!("no header, {}\n", token(7)).as_bytes(), b"at all\n"].concat(), [0, 1]),
        (with(8, b""), [0, 1]),
        (with(9, &[b"x".repeat(20_000), b"\n".to_vec()].concat()), [0, 1]),
        (with(10, b"one\rtwo\r\rthree\nCRLF\r\nand not\n"), [0, 1]),
        (with(11, &b"some lines of text, as mail has them\n".repeat(150)), [0, 1]),
    ];
    let letter = |(n, (octets, copies))| Letter { token: token(n), octets, copies };
    contents.into_iter().enumerate().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_at_least_twelve_messages_and_each_kind_is_there() {
        let letters = letters();
        assert_eq!([0, 1].map(|at| letters.iter().map(|letter| letter.copies[at]).sum::<usize>()), [8, 6]);
        assert!(letters.iter().any(|letter| letter.octets.len() > 300_000));
        for letter in &letters {
            let found = letter.octets.windows(letter.token.len()).filter(|window| *window == letter.token.as_bytes());
            assert_eq!(found.count(), 1, "{}", letter.token);
        }
    }

    #[test]
    fn the_programs_own_fields_are_no_part_of_a_message() {
        let trace = b"Return-Path: <a@b>\nDelivered-To: ann\nReceived: from x\n\tby y; now\nX-Connectord-Id: 1\n\
                      X-Connectord-Account: one@example.org\n";
        assert_eq!(without_trace(&[trace, &b"A: b\n\nc"[..]].concat()), Some(&b"A: b\n\nc"[..]));
        let again = [trace, &b"X-Connectord-Attempt: 2\nA: b\n\nc"[..]].concat();
        assert_eq!(without_trace(&again), Some(&b"A: b\n\nc"[..]));
        assert_eq!(without_trace(b"A: b\n\nX-Connectord-Account: c\n"), None);
    }
}
