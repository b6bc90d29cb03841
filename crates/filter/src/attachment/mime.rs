//! The parts of a message, line by line as it passes (RFC 2045, 2046).

use super::names::{main_value, parameter};
use super::sniff::Sniffer;
use super::{Attachment, Inspection, Limits, names};
use connectord_mail::Head;

/// Longest line that is put together; of a longer one the rest is content without boundaries.
const MAX_LINE: usize = 4096;

/// Most octets of one part's header that are read.
const MAX_HEAD: usize = 64 * 1024;

/// Decoded octets that are collected before they are looked at: lines are short, and looking has its price.
const PENDING: usize = 16 * 1024;

/// Longest boundary that is known (RFC 2046 §5.1.1: 70; some write more).
const MAX_BOUNDARY: usize = 200;

pub(super) struct Walker {
    limits: Limits,
    found: Inspection,
    /// Boundaries of the multiparts that are open, the innermost last.
    boundaries: Vec<Vec<u8>>,
    line: Vec<u8>,
    /// The line was begun in an earlier block and is content already.
    inside_line: bool,
    state: State,
    parts: usize,
    /// Nesting by messages, which have no boundary.
    messages: usize,
    /// Octets of entries' names so far.
    names: usize,
}

enum State {
    /// In a header.
    Head(Vec<u8>),
    /// In the content of a part that is looked at.
    Content(Box<Part>),
    /// Between parts: what is no part of any (preamble, epilogue).
    Nothing,
}

struct Part {
    attachment: Attachment,
    decoder: Decoder,
    pending: Vec<u8>,
    sniffer: Sniffer,
}

enum Decoder {
    Plain,
    Base64 { group: [u8; 4], filled: usize },
    Quoted,
}

impl Walker {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            found: Inspection { attachments: Vec::new(), complete: true },
            boundaries: Vec::new(),
            line: Vec::new(),
            inside_line: false,
            state: State::Head(Vec::new()),
            parts: 0,
            messages: 0,
            names: 0,
        }
    }

    pub(super) fn push(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            let (piece, ends) = match memchr::memchr(b'\n', octets) {
                Some(at) => (&octets[..=at], true),
                None => (octets, false),
            };
            let room = MAX_LINE.saturating_sub(self.line.len());
            let piece = &piece[..piece.len().min(room.max(1))];
            let ends = ends && piece.ends_with(b"\n");
            octets = &octets[piece.len()..];
            self.line.extend_from_slice(piece);
            if ends || self.line.len() >= MAX_LINE {
                let line = std::mem::take(&mut self.line);
                self.line(&line);
                self.inside_line = !ends;
                self.line = line;
                self.line.clear();
            }
        }
    }

    pub(super) fn finish(mut self) -> Inspection {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.line(&line);
        }
        if let State::Head(head) = &mut self.state {
            let head = std::mem::take(head);
            self.begin(&head);
        }
        self.end_part();
        self.found
    }

    fn line(&mut self, line: &[u8]) {
        if !self.inside_line && line.starts_with(b"--") && self.boundary(line) {
            return;
        }
        match &mut self.state {
            State::Head(head) => {
                let empty = !self.inside_line && matches!(line, b"\n" | b"\r\n");
                if head.len() + line.len() <= MAX_HEAD {
                    head.extend_from_slice(line);
                }
                if empty {
                    let head = std::mem::take(head);
                    self.begin(&head);
                }
            }
            State::Content(part) => part.push(line),
            State::Nothing => {}
        }
    }

    /// Whether the line is a boundary of a multipart that is open, and what follows from that.
    fn boundary(&mut self, line: &[u8]) -> bool {
        let text = line[2..].trim_ascii_end();
        let closing = text.strip_suffix(b"--");
        // An inner multipart may have been left unclosed; the outer one's boundary ends it too.
        let open = self.boundaries.iter().rposition(|known| text == &known[..] || closing == Some(&known[..]));
        let Some(level) = open else { return false };
        let closes = text != &self.boundaries[level][..];
        if let State::Head(head) = &mut self.state {
            let head = std::mem::take(head);
            self.begin(&head);
        }
        self.end_part();
        self.boundaries.truncate(level + 1);
        if closes {
            self.boundaries.truncate(level);
            self.state = State::Nothing;
        } else {
            self.next_part();
        }
        true
    }

    fn next_part(&mut self) {
        self.parts += 1;
        self.state = if self.parts > self.limits.parts {
            self.found.complete = false;
            State::Nothing
        } else {
            State::Head(Vec::new())
        };
    }

    /// A header is complete: what follows it.
    fn begin(&mut self, head: &[u8]) {
        let head = Head::of(head);
        let content_type = head.field("Content-Type").unwrap_or(b"text/plain");
        let kind = main_value(content_type);
        let encoding = main_value(head.field("Content-Transfer-Encoding").unwrap_or_default());
        if kind.starts_with("multipart/")
            && let Some(boundary) =
                parameter(content_type, "boundary").filter(|b| !b.is_empty() && b.len() <= MAX_BOUNDARY)
        {
            if self.boundaries.len() + self.messages >= self.limits.depth {
                self.found.complete = false;
            } else {
                self.boundaries.push(boundary.trim_end().as_bytes().to_vec());
            }
            self.state = State::Nothing;
            return;
        }
        if kind == "message/rfc822" && matches!(&*encoding, "" | "7bit" | "8bit" | "binary") {
            if self.boundaries.len() + self.messages >= self.limits.depth {
                self.found.complete = false;
                self.state = State::Nothing;
            } else {
                self.messages += 1;
                self.next_part();
            }
            return;
        }
        let name = head
            .field("Content-Disposition")
            .and_then(|value| parameter(value, "filename"))
            .or_else(|| parameter(content_type, "name"))
            .map(|name| names::base(&name))
            .filter(|name| !name.is_empty());
        let mut attachment = Attachment { name, content_type: kind, ..Attachment::default() };
        if let Some((class, extension)) = attachment.name.as_deref().and_then(names::class) {
            attachment.add(class, &format!("name: .{extension}"));
        }
        let decoder = match &*encoding {
            "base64" => Decoder::Base64 { group: [0; 4], filled: 0 },
            "quoted-printable" => Decoder::Quoted,
            _ => Decoder::Plain,
        };
        self.state = State::Content(Box::new(Part {
            attachment,
            decoder,
            pending: Vec::new(),
            sniffer: Sniffer::new(self.limits),
        }));
    }

    fn end_part(&mut self) {
        if let State::Content(mut part) = std::mem::replace(&mut self.state, State::Nothing) {
            if let Decoder::Base64 { group, filled } = &mut part.decoder {
                end_group(*group, filled, &mut part.pending);
            }
            let Part { mut attachment, pending, mut sniffer, .. } = *part;
            sniffer.push(&pending);
            sniffer.finish(&mut attachment);
            self.names += attachment.entries.iter().map(String::len).sum::<usize>();
            if self.names > self.limits.name_octets {
                attachment.entries.clear();
                self.found.complete = false;
            }
            if attachment.name.is_some() || !attachment.classes.is_empty() {
                self.found.attachments.push(attachment);
            }
        }
    }
}

impl Part {
    fn push(&mut self, line: &[u8]) {
        match &mut self.decoder {
            Decoder::Plain => self.pending.extend_from_slice(line),
            Decoder::Quoted => self.pending.extend(quoted_printable(line)),
            // Octets that are no base64 are passed over, as mail programs do (RFC 2045 §6.8).
            Decoder::Base64 { group, filled } => {
                for octet in line {
                    let value = BASE64[usize::from(*octet)];
                    if value < 64 {
                        group[*filled] = value;
                        *filled += 1;
                        if *filled == 4 {
                            self.pending.extend_from_slice(&joined(*group));
                            *filled = 0;
                        }
                    } else if *octet == b'=' {
                        end_group(*group, filled, &mut self.pending);
                    }
                }
            }
        }
        if self.pending.len() >= PENDING {
            self.sniffer.push(&self.pending);
            self.pending.clear();
        }
    }
}

/// What is left of a group of four letters: at padding, or at the end where that was forgotten.
fn end_group(mut group: [u8; 4], filled: &mut usize, out: &mut Vec<u8>) {
    if *filled >= 2 {
        group[*filled..].fill(0);
        out.extend_from_slice(&joined(group)[..*filled - 1]);
    }
    *filled = 0;
}

fn joined(group: [u8; 4]) -> [u8; 3] {
    [group[0] << 2 | group[1] >> 4, group[1] << 4 | group[2] >> 2, group[2] << 6 | group[3]]
}

/// What each octet stands for in base64; 64 and more for none.
const BASE64: [u8; 256] = {
    let mut table = [255; 256];
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut at = 0;
    while at < 64 {
        table[letters[at] as usize] = at as u8;
        at += 1;
    }
    table
};

fn quoted_printable(line: &[u8]) -> Vec<u8> {
    let (text, end) = match line {
        [text @ .., b'\r', b'\n'] => (text, &b"\r\n"[..]),
        [text @ .., b'\n'] => (text, &b"\n"[..]),
        text => (text, &b""[..]),
    };
    let soft = text.trim_ascii_end().ends_with(b"=");
    let text = if soft { text.trim_ascii_end().strip_suffix(b"=").unwrap_or(text) } else { text };
    let hex = |o: u8| (o as char).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(line.len());
    let mut rest = text;
    while let [octet, after @ ..] = rest {
        if *octet == b'='
            && let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(*octet);
            rest = after;
        }
    }
    if !soft {
        out.extend_from_slice(end);
    }
    out
}
