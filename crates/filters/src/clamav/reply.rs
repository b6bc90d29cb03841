use connectord_filter::{Unchecked, Why};
use connectord_wire::Address;

use crate::text::shown;

/// Longest answer that is read, in octets: with `AllMatchScan` there may be many lines.
pub(crate) const MAX_REPLY: usize = 64 * 1024;

/// Most names of viruses that are taken.
const MAX_VIRUSES: usize = 100;

/// What clamd says of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Clean,
    /// Names, escaped; at least one.
    Infected(Vec<String>),
    Failed {
        why: Why,
        /// Its words, escaped.
        text: String,
    },
}

/// What is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// It ends in the middle of a line.
    Cut,
    /// It is none of the known forms.
    Unknown,
}

impl NoReply {
    pub(crate) fn of(self, peer: &Address, answer: &[u8]) -> Unchecked {
        let answer = shown(answer);
        match self {
            Self::Cut => {
                let text = format!("{peer} closed the connection in the middle of its answer \"{answer}\"");
                Unchecked::new(Why::Unavailable, text)
            }
            Self::Unknown => {
                let text = format!("{peer} answered \"{answer}\"; expected a line with OK, FOUND or ERROR");
                Unchecked::new(Why::Rubbish, text)
            }
        }
    }
}

impl Reply {
    /// Reads all lines, each ended by NUL as we ask by `z`; some proxies end them by LF.
    ///
    /// One line that is not understood makes the whole answer unusable, unless another one names a virus.
    pub(crate) fn parse(answer: &[u8]) -> Result<Self, NoReply> {
        let is_end = |octet: &u8| matches!(octet, 0 | b'\n');
        if !answer.last().is_some_and(is_end) {
            return Err(NoReply::Cut);
        }
        let (mut viruses, mut exceeded, mut failed, mut clean, mut unknown) = (Vec::new(), None, None, false, false);
        for line in answer.split(is_end).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_suffix(b" FOUND").and_then(name) {
                let name = shown(name);
                if name.starts_with("Heuristics.Limits.Exceeded") {
                    exceeded = Some(name);
                } else if viruses.len() < MAX_VIRUSES && !viruses.contains(&name) {
                    viruses.push(name);
                }
            } else if line.ends_with(b" ERROR") || line == b"ERROR" {
                failed = Some(line);
            } else if line == b"OK" || line.ends_with(b": OK") {
                clean = true;
            } else if line.starts_with(b"UNKNOWN COMMAND") || line == b"COMMAND READ TIMED OUT" {
                failed = Some(line);
            } else {
                unknown = true;
            }
        }
        if !viruses.is_empty() {
            return Ok(Self::Infected(viruses));
        }
        if let Some(line) = failed {
            return Ok(Self::Failed { why: why(line), text: shown(line) });
        }
        if let Some(name) = exceeded {
            return Ok(Self::Failed { why: Why::TooLarge, text: format!("{name} FOUND") });
        }
        if clean && !unknown { Ok(Self::Clean) } else { Err(NoReply::Unknown) }
    }
}

/// `stream: Eicar-Test-Signature(44d8…:68)` names Eicar-Test-Signature.
fn name(found: &[u8]) -> Option<&[u8]> {
    let name = &found[found.windows(2).position(|pair| pair == b": ")? + 2..];
    let end = name.ends_with(b")").then(|| memchr::memrchr(b'(', name)).flatten().filter(|at| *at > 0);
    Some(&name[..end.unwrap_or(name.len())])
}

/// What sort of trouble an `ERROR` line tells (clamd 1.4: `session.c`, `scanner.c`, and `cl_strerror`).
fn why(line: &[u8]) -> Why {
    let line = String::from_utf8_lossy(line).to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if says(&["size limit exceeded", "limits exceeded"]) {
        Why::TooLarge
    } else if says(&["memory", "temporary", "create", "write", "no space", "database", "reload", "read timed out"]) {
        Why::Unavailable
    } else if says(&["unknown command"]) {
        Why::Misconfigured
    } else {
        Why::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(why: Why, text: &str) -> Result<Reply, NoReply> {
        Ok(Reply::Failed { why, text: text.into() })
    }

    #[test]
    fn each_answer_of_clamd_is_understood() {
        let infected = |names: &[&str]| Ok(Reply::Infected(names.iter().map(|name| (*name).to_owned()).collect()));
        for (answer, expected) in [
            (&b"stream: OK\0"[..], Ok(Reply::Clean)),
            (b"stream: OK\n", Ok(Reply::Clean)),
            (b"stream: Eicar-Test-Signature FOUND\0", infected(&["Eicar-Test-Signature"])),
            (b"1: stream: Win.Test(44d88612:68) FOUND\0", infected(&["stream: Win.Test"])),
            (b"stream: A FOUND\0stream: B FOUND\0stream: A FOUND\0", infected(&["A", "B"])),
            (b"stream: A FOUND\0stream: Can't allocate memory ERROR\0", infected(&["A"])),
            (b"INSTREAM size limit exceeded. ERROR\0", failed(Why::TooLarge, "INSTREAM size limit exceeded. ERROR")),
            (
                b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0",
                failed(Why::TooLarge, "Heuristics.Limits.Exceeded.MaxFileSize FOUND"),
            ),
            (
                b"stream: Can't create temporary file ERROR\0",
                failed(Why::Unavailable, "stream: Can't create temporary file ERROR"),
            ),
            (b"stream: Time limit reached ERROR\0", failed(Why::Failed, "stream: Time limit reached ERROR")),
            (b"UNKNOWN COMMAND\0", failed(Why::Misconfigured, "UNKNOWN COMMAND")),
            (b"stream: OK\0stream: maybe\0", Err(NoReply::Unknown)),
            (b"HTTP/1.1 400 Bad Request\r\n", Err(NoReply::Unknown)),
            (b"OK FOUND\0", Err(NoReply::Unknown)),
            (b"stream: O", Err(NoReply::Cut)),
            (b"stream: OK", Err(NoReply::Cut)),
            (b"", Err(NoReply::Cut)),
            (b"\0", Err(NoReply::Unknown)),
        ] {
            assert_eq!(Reply::parse(answer), expected, "{}", shown(answer));
        }
    }

    #[test]
    fn a_name_from_a_hostile_server_is_inert() {
        let Ok(Reply::Infected(names)) = Reply::parse(b"stream: \x1b[2J\r\xff FOUND\0") else { panic!() };
        assert_eq!(names, [r"\x1b[2J\r\xff"]);
    }
}
