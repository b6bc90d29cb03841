use connectord_wire::Secret;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::{space0, space1, u32};
use nom::combinator::{eof, map_opt, opt};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use crate::MessageNumber;

/// A command of the client (RFC 1939 §5 to §7, RFC 2449 §5, RFC 2595 §4, RFC 5034 §4, RFC 6856 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Which extensions are there?
    Capa,
    /// Turn to TLS.
    Stls,
    /// Turn UTF-8 mode on.
    Utf8,
    /// The user's name.
    User(Box<[u8]>),
    /// The password.
    Pass(Secret),
    /// A SASL login.
    Auth(Box<Auth>),
    /// How many messages, how many octets?
    Stat,
    /// Sizes of all messages or of one.
    List(Option<MessageNumber>),
    /// Unique-ids of all messages or of one.
    Uidl(Option<MessageNumber>),
    /// The whole message.
    Retr(MessageNumber),
    /// Header, and so many lines of the body.
    Top(MessageNumber, u32),
    /// Mark for removal.
    Dele(MessageNumber),
    /// Nothing.
    Noop,
    /// Take all marks away.
    Rset,
    /// Remove what is marked, and end.
    Quit,
}

/// What AUTH carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The mechanism, 1 to 20 letters, digits, `-` and `_` (RFC 4422 §3.1).
    pub mechanism: String,
    /// The initial response, base64 decoded; `Some` and empty is written `=`.
    pub initial: Option<Secret>,
}

impl Command {
    /// The command's word, in upper case.
    pub fn name(&self) -> &'static str {
        self.words().0
    }

    /// Words that complete "timed out while …".
    pub(crate) fn waiting(&self) -> &'static str {
        self.words().1
    }

    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Capa => ("CAPA", "waiting for the answer to CAPA"),
            Self::Stls => ("STLS", "waiting for the answer to STLS"),
            Self::Utf8 => ("UTF8", "waiting for the answer to UTF8"),
            Self::User(_) => ("USER", "waiting for the answer to USER"),
            Self::Pass(_) => ("PASS", "waiting for the answer to PASS"),
            Self::Auth(_) => ("AUTH", "waiting for the answer to AUTH"),
            Self::Stat => ("STAT", "waiting for the answer to STAT"),
            Self::List(_) => ("LIST", "waiting for the answer to LIST"),
            Self::Uidl(_) => ("UIDL", "waiting for the answer to UIDL"),
            Self::Retr(_) => ("RETR", "waiting for the answer to RETR"),
            Self::Top(..) => ("TOP", "waiting for the answer to TOP"),
            Self::Dele(_) => ("DELE", "waiting for the answer to DELE"),
            Self::Noop => ("NOOP", "waiting for the answer to NOOP"),
            Self::Rset => ("RSET", "waiting for the answer to RSET"),
            Self::Quit => ("QUIT", "waiting for the answer to QUIT"),
        }
    }
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The word is not known.
    #[error("unknown command")]
    Unknown,
    /// The command is known, what follows is not what it takes.
    #[error("{command} with arguments it does not take")]
    Arguments {
        /// The command's word.
        command: &'static str,
    },
}

/// Reads a line from a client, for a server or a proxy.
///
/// # Errors
/// [`CommandError`], for a server to say in its `-ERR`.
///
/// ```
/// use connectord_pop3::{MessageNumber, parse::{self, Command}};
/// assert_eq!(parse::command(b"dele 2"), Ok(Command::Dele(MessageNumber::new(2).expect("not zero"))));
/// ```
pub fn command(line: &[u8]) -> Result<Command, CommandError> {
    let (arguments, word) = word(line).map_err(|_| CommandError::Unknown)?;
    let (name, parsed) = match word.to_ascii_uppercase().as_slice() {
        b"CAPA" => ("CAPA", nothing(arguments, Command::Capa)),
        b"STLS" => ("STLS", nothing(arguments, Command::Stls)),
        b"UTF8" => ("UTF8", nothing(arguments, Command::Utf8)),
        b"STAT" => ("STAT", nothing(arguments, Command::Stat)),
        b"NOOP" => ("NOOP", nothing(arguments, Command::Noop)),
        b"RSET" => ("RSET", nothing(arguments, Command::Rset)),
        b"QUIT" => ("QUIT", nothing(arguments, Command::Quit)),
        // Names and passwords may begin and end with spaces: only the first one separates (RFC 1939 §7).
        b"USER" => ("USER", arguments.strip_prefix(b" ").map(|name| Command::User(name.into()))),
        b"PASS" => ("PASS", arguments.strip_prefix(b" ").map(|word| Command::Pass(word.to_vec().into()))),
        b"AUTH" => ("AUTH", auth(arguments)),
        b"LIST" => ("LIST", whole(opt(number), arguments).map(Command::List)),
        b"UIDL" => ("UIDL", whole(opt(number), arguments).map(Command::Uidl)),
        b"RETR" => ("RETR", whole(number, arguments).map(Command::Retr)),
        b"DELE" => ("DELE", whole(number, arguments).map(Command::Dele)),
        b"TOP" => {
            let top = (number, preceded(space1, u32)).map(|(number, lines)| Command::Top(number, lines));
            ("TOP", whole(top, arguments))
        }
        _ => return Err(CommandError::Unknown),
    };
    parsed.ok_or(CommandError::Arguments { command: name })
}

fn word(input: &[u8]) -> IResult<&[u8], &[u8]> {
    take_while1(|octet: u8| octet.is_ascii_alphanumeric()).parse(input)
}

fn number(input: &[u8]) -> IResult<&[u8], MessageNumber> {
    preceded(space1, map_opt(u32, MessageNumber::new)).parse(input)
}

fn whole<'a, T>(
    parser: impl Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
    input: &'a [u8],
) -> Option<T> {
    terminated(parser, (space0, eof)).parse(input).ok().map(|(_, value)| value)
}

fn nothing(arguments: &[u8], command: Command) -> Option<Command> {
    arguments.trim_ascii().is_empty().then_some(command)
}

fn auth(arguments: &[u8]) -> Option<Command> {
    let mechanism = preceded(space1, take_while1(is_mechanism));
    let base64 = take_while1(|octet: u8| octet.is_ascii_graphic());
    let (mechanism, initial) = whole((mechanism, opt(preceded((tag(" "), space0), base64))), arguments)?;
    let initial = match initial {
        None => None,
        Some(b"=") => Some(Secret::default()),
        Some(text) => Some(Secret::new(super::base64(text)?)),
    };
    let mechanism = String::from_utf8(mechanism.to_ascii_uppercase()).ok().filter(|name| name.len() <= 20)?;
    Some(Command::Auth(Box::new(Auth { mechanism, initial })))
}

/// RFC 4422 §3.1.
pub(crate) fn is_mechanism(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_keeps_every_octet_behind_the_first_space() {
        assert_eq!(command(b"PASS  a b "), Ok(Command::Pass(Secret::from(" a b "))));
        assert_eq!(command(b"user "), Ok(Command::User(b"".as_slice().into())));
        assert_eq!(command(b"PASS"), Err(CommandError::Arguments { command: "PASS" }));
    }

    #[test]
    fn arguments_are_checked() {
        for (line, name) in [
            (b"RETR".as_slice(), "RETR"),
            (b"RETR 0", "RETR"),
            (b"RETR 4294967296", "RETR"),
            (b"DELE 1 2", "DELE"),
            (b"TOP 1", "TOP"),
            (b"QUIT now", "QUIT"),
            (b"AUTH", "AUTH"),
            (b"AUTH PLAIN !", "AUTH"),
            (b"AUTH PLAINPLAINPLAINPLAINX", "AUTH"),
        ] {
            assert_eq!(command(line), Err(CommandError::Arguments { command: name }), "{}", line.escape_ascii());
        }
        for line in [b"".as_slice(), b" STAT", b"XTND XMIT", b"\xff"] {
            assert_eq!(command(line), Err(CommandError::Unknown), "{}", line.escape_ascii());
        }
    }
}
