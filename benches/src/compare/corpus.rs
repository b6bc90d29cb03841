//! The mail that all programs retrieve: the same on every machine, made once and kept.
//!
//! A message is one file in a Maildir's form, owned by the user `mail`; mailboxes of the server are hard links to these files.
//! It starts with `X-Bench-Id:`, by which it is known again whatever fields a program puts in front of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::Done;

/// What a set of messages is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 2,000 messages of 98 MB: median 10 kB, a long tail to 1.5 MB, every fifth with an attachment.
    Mixed,
    /// Letters of 1 to 10 kB.
    Letters,
    /// Notes of half a kB, for mailboxes in which numbers matter and octets do not.
    Notes,
    /// Messages of 50 MB.
    Large,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Letters => "letters",
            Self::Notes => "notes",
            Self::Large => "large",
        }
    }

    /// The body of message `n` has about this many octets.
    fn size(self, random: &mut Random) -> usize {
        match self {
            Self::Mixed => match random.below(1000) {
                0..500 => 1_500 + random.below(8_500),
                500..800 => 10_000 + random.below(30_000),
                800..950 => 40_000 + random.below(160_000),
                950..994 => 200_000 + random.below(400_000),
                _ => 600_000 + random.below(900_000),
            },
            Self::Letters => 600 + random.below(9_400),
            Self::Notes => 100 + random.below(300),
            Self::Large => 50_000_000,
        }
    }
}

/// The first `count` messages of a kind, in the cache below `root`; made if they are not there.
pub(crate) fn messages(root: &Path, kind: Kind, count: usize) -> Done<Vec<PathBuf>> {
    let directory = root.join("corpus").join(kind.name());
    fs::create_dir_all(&directory)?;
    let (user, group) = mail_user()?;
    let mut paths = Vec::with_capacity(count);
    for n in 0..count {
        // Dovecot numbers messages in the order of their names.
        let path = directory.join(format!("{}.M{n:09}P1.bench", 1_767_225_600 + n));
        if !path.exists() {
            let temporary = directory.join(format!("new.{}", std::process::id()));
            File::create(&temporary)?.write_all(&message(kind, n))?;
            chown(&temporary, Some(user), Some(group))?;
            fs::rename(&temporary, &path)?;
        }
        paths.push(path);
    }
    Ok(paths)
}

/// User and group `mail`, to whom the server's files belong.
pub(crate) fn mail_user() -> Done<(u32, u32)> {
    let user = nix::unistd::User::from_name("mail")?.ok_or("there is no user mail")?;
    Ok((user.uid.as_raw(), user.gid.as_raw()))
}

/// The field by which a message is known again.
pub(crate) const ID: &[u8] = b"X-Bench-Id: ";

fn message(kind: Kind, n: usize) -> Vec<u8> {
    let mut random = Random::new(n as u64 + 1_000_003 * kind as u64);
    let minutes = n % (60 * 24 * 28);
    let date = format!("{} Jan 2026 {:02}:{:02}:00 +0000", 1 + minutes / 1440, minutes / 60 % 24, minutes % 60);
    let name = kind.name();
    let mut out = format!(
        "X-Bench-Id: {name}.{n}\n\
         Return-Path: <sender{n}@example.net>\n\
         Received: from mail.example.net (mail.example.net [192.0.2.{}])\n\
         \tby mx.provider.test (Postfix) with ESMTPS id {:016X}\n\
         \tfor <info@example.org>; {date}\n\
         Message-ID: <{name}.{n}.{:016x}@example.net>\n\
         Date: {date}\n\
         From: Sender <sender{n}@example.net>\n\
         To: info@example.org\n\
         Subject: {} {} {n}\n\
         MIME-Version: 1.0\n",
        random.below(250),
        random.next(),
        random.next(),
        random.word(),
        random.word(),
    )
    .into_bytes();
    let size = kind.size(&mut random);
    let attached = matches!(kind, Kind::Mixed | Kind::Letters) && n % 5 == 3;
    let end = out.len() + size;
    if attached {
        out.extend_from_slice(
            b"Content-Type: multipart/mixed; boundary=\"=_bench\"\n\n--=_bench\nContent-Type: text/plain\n\n\
              See the attachment.\n\n--=_bench\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\
              Content-Disposition: attachment; filename=\"report.pdf\"\n\n",
        );
        while out.len() < end {
            out.extend((0..76).map(|_| BASE64[random.below(64)]));
            out.push(b'\n');
        }
        out.extend_from_slice(b"\n--=_bench--\n");
    } else {
        out.extend_from_slice(b"Content-Type: text/plain\n\n");
        while out.len() < end {
            // Some lines start with a dot, which POP3 doubles; some paragraphs end.
            match random.below(64) {
                0 => out.push(b'.'),
                1..8 => out.push(b'\n'),
                _ => {}
            }
            let line = out.len() + 50 + random.below(22);
            while out.len() < line {
                out.extend_from_slice(random.word().as_bytes());
                out.push(b' ');
            }
            out.pop();
            out.push(b'\n');
        }
    }
    out
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const WORDS: &[&str] = &[
    "account", "and", "at", "before", "by", "calendar", "delivery", "for", "invoice", "is", "it", "later", "letter",
    "list", "mail", "meeting", "month", "of", "offer", "on", "once", "order", "please", "project", "reply", "report",
    "see", "server", "some", "table", "the", "time", "to", "tomorrow", "we", "week", "with", "you", "yours",
];

/// xorshift64*: no quality is needed but that it is the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// The high half is the better one.
    fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 33) as usize) % limit
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }
}
