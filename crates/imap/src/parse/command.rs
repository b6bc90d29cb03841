//! A client's commands from octets: for scripted servers, and to show that what is written can be read again.

use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take, take_while1};
use nom::character::complete::{char, digit1};
use nom::combinator::{all_consuming, map, map_opt, map_res, opt, value, verify};
use nom::multi::{separated_list0, separated_list1};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connectord_wire::Secret;

use super::lex::quoted;
use crate::encode::{Command, status_item};
use crate::{FetchItems, Flag, Flags, MailboxName, NameEncoding, Section, StatusItem, Uid, UidSearch, UidSet};

/// Why octets are no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// More octets must arrive first.
    #[error("the command is not complete")]
    Incomplete,
    /// The client waits for a continuation request before it sends a literal.
    #[error("the client waits for a continuation request")]
    AwaitsContinuation,
    /// Not a command that this crate can write.
    #[error("not a command this client sends")]
    Syntax,
}

/// Reads one command off the front of `input`: its tag, the command, and how many octets it took.
///
/// ```
/// use connectord_imap::encode::Command;
/// use connectord_imap::{NameEncoding, parse_command};
/// let input = b"C7 UID EXPUNGE 1:3\r\nC8 ";
/// let (tag, command, used) = parse_command(input, NameEncoding::Utf7)?;
/// assert_eq!((tag.as_str(), command.name(), used), ("C7", "UID EXPUNGE", 20));
/// # Ok::<(), connectord_imap::CommandError>(())
/// ```
///
/// # Errors
/// [`CommandError`]; after `Syntax` the input is of no use any more.
pub fn parse_command(input: &[u8], names: NameEncoding) -> Result<(String, Command, usize), CommandError> {
    let used = frame(input)?;
    let line = input[..used].strip_suffix(b"\n").unwrap_or(&input[..used]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (_, (tag, command)) =
        all_consuming((tag_word, |input| command(input, names))).parse(line).map_err(|_| CommandError::Syntax)?;
    Ok((tag, command, used))
}

/// How long the command at the front is, its literals included.
fn frame(input: &[u8]) -> Result<usize, CommandError> {
    let mut at = 0;
    loop {
        let end = at + memchr::memchr(b'\n', &input[at..]).ok_or(CommandError::Incomplete)? + 1;
        let line = input[at..end].trim_ascii_end();
        let Some((octets, waits)) = literal_end(line) else { return Ok(end) };
        let length = input.len() - end;
        if length < octets {
            return Err(if waits && length == 0 { CommandError::AwaitsContinuation } else { CommandError::Incomplete });
        }
        at = end + octets;
    }
}

/// `{7}` or `{7+}` at the end of a line.
fn literal_end(line: &[u8]) -> Option<(usize, bool)> {
    let inside = line.strip_suffix(b"}")?;
    let open = memchr::memrchr(b'{', inside)?;
    let count = &inside[open + 1..];
    let digits = count.strip_suffix(b"+").unwrap_or(count);
    let octets = super::number(digits).and_then(|octets| usize::try_from(octets).ok())?;
    Some((octets, digits.len() == count.len()))
}

fn tag_word(input: &[u8]) -> IResult<&[u8], String> {
    terminated(word, char(' ')).parse(input)
}

fn word(input: &[u8]) -> IResult<&[u8], String> {
    let octets = take_while1(|octet: u8| octet.is_ascii_graphic() && !b"(){\"".contains(&octet));
    map_res(octets, |word: &[u8]| String::from_utf8(word.to_vec())).parse(input)
}

fn string(input: &[u8]) -> IResult<&[u8], Vec<u8>> {
    alt((map(quoted, |text| text.into_owned()), literal, map(word, String::into_bytes))).parse(input)
}

fn literal(input: &[u8]) -> IResult<&[u8], Vec<u8>> {
    let count = map_opt(digit1, |digits| super::number(digits).and_then(|count| usize::try_from(count).ok()));
    let line_end = alt((tag("\r\n"), tag("\n")));
    let (input, count) = delimited(char('{'), terminated(count, opt(char('+'))), (char('}'), line_end)).parse(input)?;
    map(take(count), <[u8]>::to_vec).parse(input)
}

fn text(input: &[u8]) -> IResult<&[u8], String> {
    map_res(string, String::from_utf8).parse(input)
}

fn command(input: &[u8], names: NameEncoding) -> IResult<&[u8], Command> {
    let mailbox =
        move |input| map(preceded(char(' '), string), move |name| MailboxName::from_wire(&name, names)).parse(input);
    let word_is = |name: &'static str| {
        move |input| -> IResult<_, _> {
            let behind =
                verify(nom::combinator::rest, |rest: &[u8]| !rest.first().is_some_and(u8::is_ascii_alphanumeric));
            terminated(tag_no_case(name), nom::combinator::peek(behind)).parse(input)
        }
    };
    let simple = alt((
        value(Command::Capability, word_is("CAPABILITY")),
        value(Command::Noop, word_is("NOOP")),
        value(Command::Logout, word_is("LOGOUT")),
        value(Command::StartTls, word_is("STARTTLS")),
        value(Command::Namespace, word_is("NAMESPACE")),
        value(Command::Close, word_is("CLOSE")),
        value(Command::Unselect, word_is("UNSELECT")),
        value(Command::Expunge, word_is("EXPUNGE")),
        value(Command::Idle, word_is("IDLE")),
    ));
    let list = map(
        preceded(word_is("LIST"), (mailbox, mailbox, opt(tag_no_case(" RETURN (SPECIAL-USE)")))),
        |(reference, pattern, special_use)| Command::List { reference, pattern, special_use: special_use.is_some() },
    );
    let status = map(preceded(word_is("STATUS"), (mailbox, preceded(char(' '), status_items))), |(mailbox, items)| {
        Command::Status { mailbox, items }
    });
    let select =
        |name, read_only| map(preceded(word_is(name), mailbox), move |mailbox| Command::Select { mailbox, read_only });
    let uids = |name: &'static str| preceded((word_is("UID"), char(' '), word_is(name), char(' ')), uid_set);
    alt((
        simple,
        login,
        list,
        status,
        select("SELECT", false),
        select("EXAMINE", true),
        map(uids("EXPUNGE"), Command::UidExpunge),
        map((uids("FETCH"), preceded(char(' '), fetch_items)), |(uids, items)| Command::UidFetch { uids, items }),
        map((uids("STORE"), preceded(tag_no_case(" +FLAGS.SILENT "), flags)), |(uids, flags)| Command::UidStore {
            uids,
            flags,
        }),
        map((uids("COPY"), mailbox), |(uids, mailbox)| Command::UidCopy { uids, mailbox }),
        map((uids("MOVE"), mailbox), |(uids, mailbox)| Command::UidMove { uids, mailbox }),
        preceded((word_is("UID"), char(' '), word_is("SEARCH")), search),
    ))
    .parse(input)
}

/// LOGIN, AUTHENTICATE, ENABLE and ID.
fn login(input: &[u8]) -> IResult<&[u8], Command> {
    let login = map(preceded(tag_no_case("LOGIN "), (text, preceded(char(' '), string))), |(user, password)| {
        Command::Login { user, password: Secret::new(password) }
    });
    let initial =
        alt((value(Secret::default(), char('=')), map_res(word, |word| STANDARD.decode(word).map(Secret::new))));
    let authenticate = map(
        preceded(tag_no_case("AUTHENTICATE "), (word, opt(preceded(char(' '), initial)))),
        |(mechanism, initial)| Command::Authenticate { mechanism, initial },
    );
    let enable = map(preceded(tag_no_case("ENABLE "), separated_list1(char(' '), word)), Command::Enable);
    let field = (text, preceded(char(' '), text));
    let fields = alt((
        value(Vec::new(), tag_no_case("NIL")),
        delimited(char('('), separated_list0(char(' '), field), char(')')),
    ));
    alt((login, authenticate, enable, map(preceded(tag_no_case("ID "), fields), Command::Id))).parse(input)
}

fn uid_set(input: &[u8]) -> IResult<&[u8], UidSet> {
    let octets = take_while1(|octet: u8| octet.is_ascii_digit() || matches!(octet, b':' | b','));
    map_opt(octets, |octets: &[u8]| UidSet::parse(octets, usize::MAX).ok()).parse(input)
}

fn flags(input: &[u8]) -> IResult<&[u8], Flags> {
    let flag = map_opt(word, |word| Flag::parse(word.as_bytes()));
    map(delimited(char('('), separated_list0(char(' '), flag), char(')')), |flags| flags.into_iter().collect())
        .parse(input)
}

fn status_items(input: &[u8]) -> IResult<&[u8], Vec<StatusItem>> {
    const ALL: [StatusItem; 7] = [
        StatusItem::Messages,
        StatusItem::UidNext,
        StatusItem::UidValidity,
        StatusItem::Unseen,
        StatusItem::Deleted,
        StatusItem::Size,
        StatusItem::HighestModSeq,
    ];
    let item = map_opt(word, |word| ALL.into_iter().find(|item| word.eq_ignore_ascii_case(status_item(*item))));
    delimited(char('('), separated_list1(char(' '), item), char(')')).parse(input)
}

fn fetch_items(input: &[u8]) -> IResult<&[u8], FetchItems> {
    map_opt(delimited(char('('), separated_list1(char(' '), word), char(')')), |words| {
        let mut items = FetchItems::default();
        for word in words {
            match word.to_ascii_uppercase().as_str() {
                "UID" => {}
                "RFC822.SIZE" => items.size = true,
                "INTERNALDATE" => items.internal_date = true,
                "FLAGS" => items.flags = true,
                "BODY.PEEK[]" => items.body = Some(Section::Whole),
                "BODY.PEEK[HEADER]" => items.body = Some(Section::Header),
                _ => return None,
            }
        }
        Some(items)
    })
    .parse(input)
}

fn search(input: &[u8]) -> IResult<&[u8], Command> {
    let (input, extended) = opt(tag_no_case(" RETURN (ALL)")).parse(input)?;
    let (input, words) = preceded(char(' '), separated_list1(char(' '), word)).parse(input)?;
    let read = || {
        let (mut from, mut with, mut without) = (None, Vec::new(), Vec::new());
        let mut words = words.iter();
        while let Some(key) = words.next() {
            let key = key.to_ascii_uppercase();
            let (name, flags) = match key.strip_prefix("UN") {
                Some(name) => (name, &mut without),
                None => (key.as_str(), &mut with),
            };
            match name {
                "ALL" => {}
                "UID" => {
                    let number = words.next()?.strip_suffix(":*").map(str::as_bytes).and_then(super::number)?;
                    from = Some(u32::try_from(number).ok().and_then(Uid::new)?);
                }
                "OLD" => without.push(Flag::Recent),
                "KEYWORD" => flags.push(Flag::parse(words.next()?.as_bytes())?),
                "SEEN" | "ANSWERED" | "FLAGGED" | "DELETED" | "DRAFT" | "RECENT" => {
                    flags.push(Flag::parse(format!("\\{name}").as_bytes())?);
                }
                _ => return None,
            }
        }
        Some(UidSearch { from, with: with.into_iter().collect(), without: without.into_iter().collect() })
    };
    match read() {
        Some(search) => Ok((input, Command::UidSearch { search, extended: extended.is_some() })),
        None => Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Alt))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::{Dialect, Literals, encode};

    fn name() -> impl Strategy<Value = MailboxName> {
        "[a-zA-Z&üß☺ \"\\\\{}()%*+-]{1,12}".prop_filter_map("a name", |text| MailboxName::new(&text).ok())
    }

    fn set() -> impl Strategy<Value = UidSet> {
        prop::collection::vec(1u32.., 1..9).prop_map(|numbers| numbers.into_iter().filter_map(Uid::new).collect())
    }

    fn some_flags() -> impl Strategy<Value = Flags> {
        let flag = prop_oneof![
            Just(Flag::Seen),
            Just(Flag::Deleted),
            Just(Flag::Flagged),
            Just(Flag::Recent),
            "[a-z$]{1,5}".prop_map(Flag::Keyword),
        ];
        prop::collection::vec(flag, 0..4).prop_map(|flags| flags.into_iter().collect())
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let text = || "[a-zü\"\\\\ \r\n]{0,9}";
        let items =
            (any::<bool>(), any::<bool>(), any::<bool>(), 0..3).prop_map(|(size, internal_date, flags, body)| {
                let body = [None, Some(Section::Whole), Some(Section::Header)][body as usize];
                FetchItems { size, internal_date, flags, body }
            });
        let search = (prop::option::of(1u32..), some_flags(), some_flags(), any::<bool>()).prop_map(
            |(from, with, without, extended)| {
                let search = UidSearch { from: from.and_then(Uid::new), with, without };
                Command::UidSearch { search, extended }
            },
        );
        let plain = vec![
            Command::Capability,
            Command::Noop,
            Command::Logout,
            Command::StartTls,
            Command::Namespace,
            Command::Close,
            Command::Unselect,
            Command::Expunge,
            Command::Idle,
            Command::Enable(vec!["A".into(), "UTF8=ACCEPT".into()]),
        ];
        prop_oneof![
            prop::sample::select(plain),
            (text(), text()).prop_map(|(user, password)| Command::Login { user, password: password.into() }),
            prop::option::of(text()).prop_map(|initial| Command::Authenticate {
                mechanism: "PLAIN".into(),
                initial: initial.map(Secret::from)
            }),
            prop::collection::vec((text(), text()), 0..3).prop_map(Command::Id),
            (name(), name(), any::<bool>()).prop_map(|(reference, pattern, special_use)| Command::List {
                reference,
                pattern,
                special_use
            }),
            name().prop_map(|mailbox| Command::Status { mailbox, items: vec![StatusItem::Size, StatusItem::UidNext] }),
            (name(), any::<bool>()).prop_map(|(mailbox, read_only)| Command::Select { mailbox, read_only }),
            set().prop_map(Command::UidExpunge),
            (set(), items).prop_map(|(uids, items)| Command::UidFetch { uids, items }),
            (set(), some_flags()).prop_map(|(uids, flags)| Command::UidStore { uids, flags }),
            (set(), name()).prop_map(|(uids, mailbox)| Command::UidCopy { uids, mailbox }),
            (set(), name()).prop_map(|(uids, mailbox)| Command::UidMove { uids, mailbox }),
            search,
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(command in any_command(), utf8: bool, literals in 0..3) {
            let names = if utf8 { NameEncoding::Utf8 } else { NameEncoding::Utf7 };
            let literals = [Literals::Synchronizing, Literals::Minus, Literals::Plus][literals as usize];
            let pieces = encode("a1", &command, Dialect { names, literals });
            let octets = pieces.concat();
            let mut part = Vec::new();
            for piece in &pieces[..pieces.len() - 1] {
                part.extend_from_slice(piece);
                prop_assert_eq!(parse_command(&part, names), Err(CommandError::AwaitsContinuation));
            }
            prop_assert_eq!(parse_command(&octets, names), Ok(("a1".to_owned(), command, octets.len())));
        }

        #[test]
        fn any_octets_are_a_command_or_an_error(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_command(&octets, NameEncoding::Utf7);
        }
    }
}
