//! SEARCH and ESEARCH answers, octet by octet: 100,000 UIDs in one line need no line of that length in memory.

use crate::uid::parse_range;
use crate::{Uid, UidSet};

/// Most ranges handed out at once.
const CHUNK: usize = 1000;
/// Most numbers and ranges in what is handed out at once; they may be one and the same.
const MAX_WORDS: u64 = 10_000;
/// Longest word that is no set of UIDs; a correlator's tag is one.
const MAX_WORD: usize = 1024;
/// Most octets of one answer that are neither UIDs nor what parts them: as long as any other line may be.
const MAX_SKIPPED: usize = 65_536;

/// Whether a response is the answer to a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `* SEARCH`; the octets up to its arguments.
    Search(usize),
    /// `* ESEARCH`; the octets up to its arguments.
    Extended(usize),
    /// Something else.
    Other,
}

/// Tells by its first octets what a response is; `None` when more are needed.
pub(crate) fn kind(octets: &[u8]) -> Option<Kind> {
    let Some(rest) = octets.strip_prefix(b"*") else {
        return if octets.is_empty() { None } else { Some(Kind::Other) };
    };
    let spaces = rest.iter().take_while(|octet| **octet == b' ').count();
    let word = &rest[spaces..];
    let letters = word.iter().take_while(|octet| octet.is_ascii_alphabetic()).count();
    let is_open = letters == word.len() && letters <= b"ESEARCH".len() && spaces < 64;
    let used = 1 + spaces + letters;
    match word[..letters].to_ascii_uppercase().as_slice() {
        _ if is_open => None,
        b"SEARCH" if spaces > 0 => Some(Kind::Search(used)),
        b"ESEARCH" if spaces > 0 => Some(Kind::Extended(used)),
        _ => Some(Kind::Other),
    }
}

/// Reads the arguments of a SEARCH or ESEARCH answer.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    is_extended: bool,
    /// Only with UID are the numbers of an ESEARCH UIDs.
    is_uid: bool,
    depth: u32,
    expect: Expect,
    word: Vec<u8>,
    set: UidSet,
    words: u64,
    /// Words before the last chunk was handed out.
    counted: u64,
    /// Octets that said nothing.
    skipped: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A number (SEARCH), or a return name (ESEARCH).
    Next,
    /// A set of UIDs; `true`: in it, behind a comma.
    Set(bool),
    /// The value of another return name.
    Value,
}

/// What came of the octets so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// UIDs; there may be more.
    Found(UidSet),
    /// The line is over.
    End,
    /// More octets are needed.
    NeedInput,
    /// No number where one must be, or a word without an end.
    Malformed(Vec<u8>),
}

impl Search {
    pub(crate) fn new(is_extended: bool) -> Self {
        let expect = Expect::Next;
        Self {
            is_extended,
            is_uid: false,
            depth: 0,
            expect,
            word: Vec::new(),
            set: UidSet::new(),
            words: 0,
            counted: 0,
            skipped: 0,
        }
    }

    /// How many numbers and ranges there were so far.
    pub(crate) fn words(&self) -> u64 {
        self.words
    }

    /// Takes octets off the front of `input`; says how many, and what came of them.
    pub(crate) fn next(&mut self, input: &[u8]) -> (usize, Progress) {
        for (at, octet) in input.iter().enumerate() {
            let is_in_set = self.depth == 0 && (!self.is_extended || matches!(self.expect, Expect::Set(_)));
            if !is_in_set || (self.word.is_empty() && !octet.is_ascii_digit()) {
                self.skipped += 1;
                if self.skipped > MAX_SKIPPED {
                    return (at, Progress::Malformed(std::mem::take(&mut self.word)));
                }
            }
            match octet {
                b'\n' => {
                    if !self.end_word(b'\n') {
                        return (at, Progress::Malformed(std::mem::take(&mut self.word)));
                    }
                    if self.set.is_empty() {
                        return (at + 1, Progress::End);
                    }
                    // The line end is taken next time.
                    self.expect = Expect::Next;
                    return (at, Progress::Found(std::mem::take(&mut self.set)));
                }
                b' ' | b'\r' | b'\t' | b',' | b'(' | b')' => {
                    if !self.end_word(*octet) {
                        return (at, Progress::Malformed(std::mem::take(&mut self.word)));
                    }
                    match octet {
                        b'(' => self.depth = self.depth.saturating_add(1),
                        b')' => {
                            self.depth = self.depth.saturating_sub(1);
                            if self.depth == 0 && self.expect == Expect::Value {
                                self.expect = Expect::Next;
                            }
                        }
                        _ => {}
                    }
                    if self.set.ranges().len() >= CHUNK
                        || (self.words - self.counted >= MAX_WORDS && !self.set.is_empty())
                    {
                        self.counted = self.words;
                        return (at + 1, Progress::Found(std::mem::take(&mut self.set)));
                    }
                }
                octet if self.word.len() < MAX_WORD => self.word.push(*octet),
                _ => return (at, Progress::Malformed(std::mem::take(&mut self.word))),
            }
        }
        (input.len(), Progress::NeedInput)
    }

    /// Decides what the word before `delimiter` was; false when it cannot be there.
    fn end_word(&mut self, delimiter: u8) -> bool {
        if self.word.is_empty() || self.depth > 0 {
            self.word.clear();
            return true;
        }
        let is_set = !self.is_extended || matches!(self.expect, Expect::Set(_));
        if is_set {
            let Some((low, high)) = parse_range(&self.word) else { return false };
            self.words = self.words.saturating_add(1);
            let is_wanted = !self.is_extended || self.is_uid;
            if let (Some(low), Some(high), true) = (Uid::new(low), Uid::new(high), is_wanted) {
                self.set.insert_range(low, high);
            }
            if self.is_extended {
                self.expect = if delimiter == b',' { Expect::Set(true) } else { Expect::Next };
            }
        } else if self.expect == Expect::Next {
            let word = self.word.to_ascii_uppercase();
            self.expect = match word.as_slice() {
                b"UID" => {
                    self.is_uid = true;
                    Expect::Next
                }
                b"ALL" => Expect::Set(false),
                _ => Expect::Value,
            };
        } else if delimiter != b',' {
            self.expect = Expect::Next;
        }
        self.word.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(is_extended: bool, line: &str) -> Result<String, Vec<u8>> {
        let (mut search, mut input, mut found) = (Search::new(is_extended), line.as_bytes(), UidSet::new());
        loop {
            let (used, progress) = search.next(input);
            input = &input[used..];
            match progress {
                Progress::Found(set) => set.iter().for_each(|uid| found.insert(uid)),
                Progress::End => return Ok(found.to_string()),
                Progress::Malformed(word) => return Err(word),
                Progress::NeedInput => panic!("no line end"),
            }
        }
    }

    #[test]
    fn plain_answers_are_numbers_and_perhaps_a_modseq() {
        assert_eq!(search(false, "\r\n"), Ok("".into()));
        assert_eq!(search(false, "  2 84 882 \r\n"), Ok("2,84,882".into()));
        assert_eq!(search(false, " 2 5 6 7 (MODSEQ 917162500)\n"), Ok("2,5:7".into()));
        assert_eq!(search(false, " 2 0\r\n"), Err(b"0".to_vec()));
        assert_eq!(search(false, " 4294967296\r\n"), Err(b"4294967296".to_vec()));
    }

    #[test]
    fn extended_answers_count_only_as_uids() {
        // RFC 4731 §3.1, §4.
        assert_eq!(
            search(true, " (TAG \"A283\") UID MIN 7 MAX 3800 ALL 17,900:901 COUNT 3\r\n"),
            Ok("17,900:901".into())
        );
        assert_eq!(search(true, " (TAG \"A283\") ALL 2,10:11\r\n"), Ok("".into()));
        assert_eq!(search(true, " (TAG \"A283\")\r\n"), Ok("".into()));
        assert_eq!(search(true, " (TAG \"a\") UID ADDTO (0 32,3) ALL 4:2 MODSEQ 9\r\n"), Ok("2:4".into()));
        assert_eq!(search(true, " UID ALL x\r\n"), Err(b"x".to_vec()));
        assert_eq!(search(true, " UID ALL 1:*\r\n"), Err(b"1:*".to_vec()));
    }

    #[test]
    fn what_is_no_uid_is_bounded_and_uids_are_not() {
        let uids = "7 ".repeat(200_000);
        assert_eq!(search(false, &format!(" {uids}\r\n")), Ok("7".into()));
        for (is_extended, endless) in [(false, " "), (false, "("), (true, " (a a"), (true, " X y"), (true, ",")] {
            assert_eq!(search(is_extended, &endless.repeat(70_000)).map_err(|_| ()), Err(()), "{endless:?}");
        }
    }

    #[test]
    fn a_response_is_told_by_its_first_octets() {
        assert_eq!(kind(b"* SEARCH 1"), Some(Kind::Search(8)));
        assert_eq!(kind(b"*  esearch\r"), Some(Kind::Extended(10)));
        for early in [&b""[..], b"*", b"* ", b"* SEA", b"* SEARCH", b"* OK"] {
            assert_eq!(kind(early), None, "{early:?}");
        }
        for other in [&b"* OK x"[..], b"* SEARCHED 1", b"*SEARCH 1", b"+ x", b"* 1 EXISTS"] {
            assert_eq!(kind(other), Some(Kind::Other), "{other:?}");
        }
    }
}
