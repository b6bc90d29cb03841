//! Sample mail: realistic in size and in what goes wrong with it, and the same for the same seed on every machine.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Message;

/// `count` messages; the same `seed` gives the same messages, and a larger `count` only adds to them.
///
/// Line ends are LF, as in a Maildir. Half of the messages have at most some 10 kB, one in a hundred more than 300 kB, none
/// more than 2 MB. A fifth carries a base64 attachment. Of every hundred, some have 8-bit octets without a declared character
/// set, a NUL, a bare CR, a CRLF among the LF, no final newline, lines that start with dots, a line of 20,000 octets, an empty
/// body, or no header at all. The others have Return-Path, two Received, Message-ID, Date, From, To and Subject.
/// [`Message::received`] is the time of the newest Received, and grows by the minute.
///
/// ```
/// let messages = connectord_sample::corpus::messages(100, 1);
/// assert_eq!(messages, connectord_sample::corpus::messages(100, 1));
/// assert_ne!(messages, connectord_sample::corpus::messages(100, 2));
/// ```
pub fn messages(count: usize, seed: u64) -> Vec<Message> {
    (0..count).map(|n| message(n, seed)).collect()
}

/// The `n`th message of [`messages`], from 0.
pub fn message(n: usize, seed: u64) -> Message {
    let mut random = Random::new(seed, n as u64);
    // 2026-01-01 00:00:00 UTC, and a minute more for each.
    let received = UNIX_EPOCH + Duration::from_secs(1_767_225_600 + 60 * n as u64);
    let oddity = Oddity::of(n, &mut random);
    let mut octets = Vec::new();
    if oddity != Oddity::NoHeader {
        header(n, seed, oddity, &mut random, &mut octets);
    }
    if oddity != Oddity::EmptyBody {
        let size = random.size();
        if n % 5 == 3 && oddity != Oddity::NoHeader {
            attachment(size, &mut random, &mut octets);
        } else {
            text(size, &mut random, &mut octets);
        }
    }
    oddity.apply(&mut random, &mut octets);
    Message::new(octets).received(received)
}

/// One large message, of about `octets` octets: text only, with Message-ID and Date, LF line ends.
pub fn large(octets: usize, seed: u64) -> Message {
    let mut random = Random::new(seed, u64::MAX);
    let mut all = Vec::with_capacity(octets + 1024);
    header(usize::MAX >> 16, seed, Oddity::None, &mut random, &mut all);
    let line = b"All work and no play makes a large message, one line after the other, until it is large\n";
    while all.len() < octets {
        all.extend_from_slice(line);
    }
    Message::new(all)
}

/// What is unusual about a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Oddity {
    None,
    EightBit,
    Nul,
    BareCr,
    Crlf,
    NoFinalNewline,
    Dots,
    LongLine,
    EmptyBody,
    NoHeader,
}

impl Oddity {
    /// The first hundred show each kind, also in a small sample; later ones come by chance.
    fn of(n: usize, random: &mut Random) -> Self {
        match if n < 100 { n as u64 } else { random.below(100) } {
            2 | 12 | 22 | 32 | 42 | 52 => Self::EightBit,
            4 | 34 => Self::Nul,
            5 | 35 => Self::BareCr,
            6 | 36 => Self::Crlf,
            7 | 17 | 37 | 57 => Self::NoFinalNewline,
            9 | 19 | 39 | 59 => Self::Dots,
            11 | 41 => Self::LongLine,
            14 | 44 => Self::EmptyBody,
            15 | 65 => Self::NoHeader,
            _ => Self::None,
        }
    }

    fn apply(self, random: &mut Random, octets: &mut Vec<u8>) {
        match self {
            Self::None | Self::EmptyBody | Self::NoHeader => {}
            Self::EightBit => octets.extend_from_slice(b"Gr\xfc\xdfe aus M\xfcnchen \xe2\x82\xac \xff\xfe\n"),
            Self::Nul => octets.extend_from_slice(b"a\0b\n\0\n"),
            Self::BareCr => octets.extend_from_slice(b"one\rtwo\r\rthree\n"),
            Self::Crlf => octets.extend_from_slice(b"a line with CRLF\r\nand one without\n"),
            Self::Dots => octets.extend_from_slice(b".\n..\n.leading\n...\n. \nend\n.\n"),
            Self::LongLine => {
                octets.extend((0..20_000).map(|_| b'a' + random.below(26) as u8));
                octets.push(b'\n');
            }
            Self::NoFinalNewline => octets.extend_from_slice(b"no newline at the end"),
        }
    }
}

fn header(n: usize, seed: u64, oddity: Oddity, random: &mut Random, out: &mut Vec<u8>) {
    let minutes = n % (60 * 24 * 28);
    let date = format!("{} Jan 2026 {:02}:{:02}:00 +0000", 1 + minutes / 1440, minutes / 60 % 24, minutes % 60);
    let sender = random.pick(&["anna", "ben", "carla", "newsletter", "bounce+x=example.net"]);
    let host = random.pick(&["mail.example.net", "out.example.org", "mx3.example.com"]);
    let id = random.next();
    let subject = match oddity {
        Oddity::EightBit => "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?= =?UTF-8?B?8J+YgA==?=".to_owned(),
        _ => format!("{} {} {n}", random.pick(WORDS), random.pick(WORDS)),
    };
    *out = format!(
        "Return-Path: <{sender}@example.net>\n\
         Received: from {host} ({host} [192.0.2.{}])\n\
         \tby mx.provider.test (Postfix) with ESMTPS id {id:016X}\n\
         \tfor <info@example.org>; {date}\n\
         Received: from [198.51.100.{}] (helo=laptop)\n\
         \tby {host} with esmtpsa; {date}\n\
         Message-ID: <{seed:x}.{n}.{id:x}@{host}>\n\
         Date: {date}\n\
         From: {sender} <{sender}@example.net>\n\
         To: info@example.org\n\
         Subject: {subject}\n\
         X-Long: {}\n",
        random.below(250),
        random.below(250),
        (0..random.below(30)).map(|_| random.pick(WORDS)).collect::<Vec<_>>().join("\n\t"),
    )
    .into_bytes();
    if n % 5 != 3 || oddity == Oddity::EmptyBody {
        out.push(b'\n');
    }
}

/// Lines that bodies are put together from; made once, because a large sample has millions.
struct Lines {
    text: Vec<String>,
    base64: Vec<String>,
}

static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let mut random = Random::new(0, 0);
    let text = (0..997).map(|_| {
        let mut line = random.pick(WORDS).to_owned();
        while line.len() < 60 {
            line.push(' ');
            line += random.pick(WORDS);
        }
        line.push('\n');
        // Some paragraphs end.
        if random.below(8) == 0 {
            line.push('\n');
        }
        line
    });
    let text = text.collect();
    let base64 = (0..997).map(|_| {
        let octets: Vec<u8> = (0..57).map(|_| random.below(256) as u8).collect();
        BASE64_STANDARD.encode(octets) + "\n"
    });
    Lines { text, base64: base64.collect() }
});

fn text(size: usize, random: &mut Random, out: &mut Vec<u8>) {
    fill(&LINES.text, size, random, out);
}

/// Appends at least `size` octets in lines from the pool.
fn fill(pool: &[String], size: usize, random: &mut Random, out: &mut Vec<u8>) {
    let end = out.len() + size;
    while out.len() < end {
        out.extend_from_slice(pool[random.below(pool.len() as u64) as usize].as_bytes());
    }
}

fn attachment(size: usize, random: &mut Random, out: &mut Vec<u8>) {
    let boundary = format!("=_{:016x}", random.next());
    let intro = format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\n\n--{boundary}\n\
         Content-Type: text/plain; charset=us-ascii\n\nSee the attachment.\n\n--{boundary}\n\
         Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment; filename=\"report.pdf\"\n\n"
    );
    out.extend_from_slice(intro.as_bytes());
    fill(&LINES.base64, size, random, out);
    out.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
}

const WORDS: &[&str] = &[
    "account", "and", "at", "before", "by", "calendar", "delivery", "for", "from", "invoice", "is", "it", "later",
    "letter", "list", "mail", "meeting", "month", "of", "offer", "on", "once", "order", "please", "project", "reply",
    "report", "see", "server", "some", "table", "the", "time", "to", "tomorrow", "we", "week", "with", "you", "yours",
];

/// xorshift64*: no quality is needed but that it is the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64, n: u64) -> Self {
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ n.wrapping_add(1).wrapping_mul(0xD1B5_4A32_D192_ED03);
        let mut random = Self(mixed | 1);
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

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    /// Octets of a body: half below 10 kB, the largest 2 MB.
    fn size(&mut self) -> usize {
        let size = match self.below(1000) {
            0..500 => 500 + self.below(9_500),
            500..850 => 10_000 + self.below(20_000),
            850..950 => 30_000 + self.below(70_000),
            950..990 => 100_000 + self.below(200_000),
            990..998 => 300_000 + self.below(300_000),
            _ => 600_000 + self.below(1_400_000),
        };
        size as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_as_described() {
        let messages = messages(1000, 7);
        let mut sizes: Vec<_> = messages.iter().map(|m| m.octets.len()).collect();
        sizes.sort_unstable();
        assert!((6_000..14_000).contains(&sizes[500]), "median {}", sizes[500]);
        assert!(sizes[995] > 250_000 && sizes[999] < 3_000_000, "{:?}", &sizes[990..]);
        let count = |what: &dyn Fn(&[u8]) -> bool| messages.iter().filter(|m| what(&m.octets)).count();
        assert!((150..250).contains(&count(&|m| has(m, b"Content-Transfer-Encoding: base64"))));
        assert!(count(&|m| m.contains(&0)) >= 10);
        assert!(count(&|m| !m.is_ascii()) >= 30);
        assert!(count(&|m| !m.ends_with(b"\n")) >= 20);
        assert!(count(&|m| has(m, b"\n.\n")) >= 20);
        assert!(count(&|m| has(m, b"\r\n")) >= 10);
        assert!(count(&|m| m.split(|o| *o == b'\n').any(|line| line.len() >= 20_000)) >= 10);
        assert!(count(&|m| m.ends_with(b"\n\n") && !has(&m[..m.len() - 1], b"\n\n")) >= 10);
        assert!((950..1000).contains(&count(&|m| has(m, b"\nMessage-ID: <"))));
        let unique: std::collections::BTreeSet<_> = messages.iter().map(|m| &m.octets).collect();
        assert_eq!(unique.len(), 1000);
    }

    fn has(octets: &[u8], what: &[u8]) -> bool {
        memchr::memmem::find(octets, what).is_some()
    }
}
