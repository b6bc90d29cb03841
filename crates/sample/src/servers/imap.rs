mod fetch;
mod parse;
mod selected;

use std::io;
use std::sync::Arc;

use super::pop3::plain;
use super::server::{Mailboxes, Shared, create, locked};
use super::{Mailbox, Misbehaviour};
use crate::Connection;
use parse::Arg;

/// Output is sent when so many octets wait, also if more commands do.
const MAX_WAITING: usize = 256 << 10;

/// All that the server can do after a login; each can be taken away by [`Misbehaviour::without`].
const CAPABILITIES: &[&str] =
    &["LITERAL+", "SASL-IR", "ID", "ENABLE", "NAMESPACE", "IDLE", "UIDPLUS", "MOVE", "UNSELECT", "SPECIAL-USE"];

const FLAGS: &str = "\\Answered \\Flagged \\Deleted \\Seen \\Draft";

/// Serves one connection until LOGOUT or its end.
pub(super) async fn serve(connection: &mut Connection, shared: &Shared) -> io::Result<()> {
    let mut session = Session { shared, out: Vec::new(), mailboxes: None, selected: None };
    let capabilities = session.capabilities(connection, &shared.misbehaviour());
    session.say(&format!("* OK [CAPABILITY {capabilities}] ready"));
    loop {
        if !connection.has_received() || session.out.len() > MAX_WAITING {
            session.flush(connection).await?;
        }
        let Some(command) = session.read(connection).await? else { return Ok(()) };
        let misbehaviour = shared.misbehaviour();
        let (tag, rest) = split(&command);
        let matches = |start: &Option<String>| {
            start.as_ref().is_some_and(|s| rest.get(..s.len()).is_some_and(|r| r.eq_ignore_ascii_case(s.as_bytes())))
        };
        if matches(&misbehaviour.hang_at) {
            session.flush(connection).await?;
            std::future::pending::<()>().await;
        }
        if matches(&misbehaviour.close_at) {
            return session.flush(connection).await;
        }
        let Some(arguments) = parse::arguments(rest).filter(|arguments| !arguments.is_empty()) else {
            session.say(&format!("{tag} BAD that is no command"));
            continue;
        };
        if let (Some("STARTTLS"), Some(config)) = (arguments[0].keyword().as_deref(), &shared.options.starttls)
            && !connection.is_encrypted()
            && !misbehaviour.without.contains("STARTTLS")
        {
            session.say(&format!("{tag} OK begin TLS"));
            session.flush(connection).await?;
            connection.encrypt(Arc::clone(config)).await?;
            continue;
        }
        let answer = session.command(connection, &arguments, &misbehaviour).await?;
        if matches(&misbehaviour.close_after) {
            return Ok(());
        }
        let is_over = matches!(answer, Answer::Over(_));
        session.say(&format!("{tag} {}", answer.text()));
        if is_over {
            return session.flush(connection).await;
        }
    }
}

/// The tag, and what follows it.
fn split(command: &[u8]) -> (String, &[u8]) {
    let at = command.iter().position(|octet| *octet == b' ').unwrap_or(command.len());
    let tag = String::from_utf8_lossy(&command[..at]).into_owned();
    (tag, command.get(at + 1..).unwrap_or_default())
}

/// The tagged response.
enum Answer {
    Ok(String),
    No(String),
    Bad(String),
    /// OK, and the connection ends.
    Over(String),
}

impl Answer {
    fn ok(text: &str) -> Self {
        Self::Ok(text.to_owned())
    }

    fn no(text: &str) -> Self {
        Self::No(text.to_owned())
    }

    fn bad(text: &str) -> Self {
        Self::Bad(text.to_owned())
    }

    fn text(&self) -> String {
        match self {
            Self::Ok(text) | Self::Over(text) => format!("OK {text}"),
            Self::No(text) => format!("NO {text}"),
            Self::Bad(text) => format!("BAD {text}"),
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    out: Vec<u8>,
    mailboxes: Option<Mailboxes>,
    selected: Option<Selected>,
}

/// The mailbox that is open, and what the client was told of it.
struct Selected {
    mailbox: Mailbox,
    uid_validity: u32,
    read_only: bool,
    uids: Vec<u32>,
}

impl Session<'_> {
    fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    async fn flush(&mut self, connection: &mut Connection) -> io::Result<()> {
        connection.send(&std::mem::take(&mut self.out)).await
    }

    /// One command with its literals in it.
    async fn read(&mut self, connection: &mut Connection) -> io::Result<Option<Vec<u8>>> {
        let Some(mut command) = connection.line().await? else { return Ok(None) };
        let mut line = command.clone();
        while let Some((length, waits)) = parse::literal(&line) {
            if length > 1 << 20 {
                return Err(io::Error::other("a literal of more than 1 MiB"));
            }
            if waits {
                self.say("+ go on");
                self.flush(connection).await?;
            }
            command.extend_from_slice(b"\r\n");
            command.extend_from_slice(&connection.octets(length).await?);
            line = connection.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            command.extend_from_slice(&line);
        }
        Ok(Some(command))
    }

    fn capabilities(&self, connection: &Connection, misbehaviour: &Misbehaviour) -> String {
        let mut all = vec!["IMAP4rev1"];
        all.extend(CAPABILITIES);
        if self.shared.options.starttls.is_some() && !connection.is_encrypted() {
            all.extend(["STARTTLS", "LOGINDISABLED"]);
        } else {
            all.push("AUTH=PLAIN");
        }
        all.retain(|name| !misbehaviour.without.contains(*name));
        let refused = misbehaviour.refused_mechanisms.iter().map(|name| format!(" AUTH={name}"));
        all.join(" ") + &refused.collect::<String>()
    }

    async fn command(&mut self, connection: &mut Connection, args: &[Arg], wrong: &Misbehaviour) -> io::Result<Answer> {
        let verb = args[0].keyword().unwrap_or_default();
        let needs = match verb.as_str() {
            "UID" if matches!(args.get(1).and_then(Arg::keyword).as_deref(), Some("MOVE")) => "MOVE",
            "UID" if matches!(args.get(1).and_then(Arg::keyword).as_deref(), Some("EXPUNGE")) => "UIDPLUS",
            verb => verb,
        };
        if wrong.without.contains(needs) {
            return Ok(Answer::bad("unknown command"));
        }
        Ok(match verb.as_str() {
            "CAPABILITY" => {
                let capabilities = self.capabilities(connection, wrong);
                self.say(&format!("* CAPABILITY {capabilities}"));
                Answer::ok("done")
            }
            "NOOP" | "CHECK" => self.news(),
            "ID" => {
                self.say("* ID (\"name\" \"connectord sample server\")");
                Answer::ok("done")
            }
            "LOGOUT" => {
                self.say("* BYE see you");
                Answer::Over("done".to_owned())
            }
            "LOGIN" | "AUTHENTICATE" if self.mailboxes.is_some() => Answer::bad("already logged in"),
            "LOGIN" | "AUTHENTICATE" if self.shared.options.starttls.is_some() && !connection.is_encrypted() => {
                Answer::no("[PRIVACYREQUIRED] not without TLS")
            }
            "LOGIN" => match (args.get(1).and_then(Arg::text), args.get(2).and_then(Arg::text)) {
                (Some(user), Some(password)) => self.log_in(connection, &user, &password, wrong),
                _ => Answer::bad("LOGIN has a user and a password"),
            },
            "AUTHENTICATE" => return self.authenticate(connection, args, wrong).await,
            _ => match self.mailboxes.clone() {
                Some(mailboxes) => return self.authenticated(connection, &verb, args, &mailboxes, wrong).await,
                None => Answer::bad("log in first"),
            },
        })
    }

    fn log_in(&mut self, connection: &Connection, user: &str, password: &str, wrong: &Misbehaviour) -> Answer {
        match self.shared.log_in(user, password) {
            Ok(mailboxes) => {
                self.mailboxes = Some(mailboxes);
                Answer::Ok(format!("[CAPABILITY {}] logged in", self.capabilities(connection, wrong)))
            }
            Err(refusal) => Answer::No(refusal),
        }
    }

    async fn authenticate(
        &mut self,
        connection: &mut Connection,
        args: &[Arg],
        wrong: &Misbehaviour,
    ) -> io::Result<Answer> {
        let mechanism = args.get(1).and_then(Arg::keyword).unwrap_or_default();
        if wrong.refused_mechanisms.contains(&mechanism) {
            self.shared.count(|counters| counters.refused_logins += 1);
        }
        if mechanism != "PLAIN" || wrong.without.contains("AUTH=PLAIN") {
            return Ok(Answer::no("no such mechanism"));
        }
        let response = match args.get(2).and_then(Arg::text) {
            Some(initial) => initial.into_bytes(),
            None => {
                self.say("+ ");
                self.flush(connection).await?;
                connection.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?
            }
        };
        Ok(match plain(&response) {
            Some((user, password)) => self.log_in(connection, &user, &password, wrong),
            None => Answer::bad("that is no PLAIN response"),
        })
    }

    async fn authenticated(
        &mut self,
        connection: &mut Connection,
        verb: &str,
        args: &[Arg],
        mailboxes: &Mailboxes,
        wrong: &Misbehaviour,
    ) -> io::Result<Answer> {
        let name = args.get(1).and_then(Arg::text).unwrap_or_default();
        Ok(match verb {
            "ENABLE" => {
                self.say("* ENABLED");
                Answer::ok("done")
            }
            "NAMESPACE" => {
                self.say("* NAMESPACE ((\"\" \"/\")) NIL NIL");
                Answer::ok("done")
            }
            "LIST" | "LSUB" => self.list(args, mailboxes, wrong),
            "CREATE" => {
                create(mailboxes, &name);
                Answer::ok("made")
            }
            "STATUS" => match find(mailboxes, &name) {
                Some(mailbox) => self.status(&name, &mailbox, args.get(2)),
                None => Answer::no("[NONEXISTENT] no such mailbox"),
            },
            "SELECT" | "EXAMINE" => match find(mailboxes, &name) {
                Some(mailbox) => self.select(mailbox, verb == "EXAMINE"),
                None => {
                    self.selected = None;
                    Answer::no("[NONEXISTENT] no such mailbox")
                }
            },
            _ if self.selected.is_none() => Answer::bad("unknown command, or no mailbox is selected"),
            "CLOSE" | "UNSELECT" => {
                if verb == "CLOSE" {
                    self.expunge(None, wrong);
                }
                self.selected = None;
                Answer::ok("closed")
            }
            "EXPUNGE" => {
                self.expunge(None, wrong);
                self.news()
            }
            "IDLE" => return self.idle(connection).await,
            "UID" => {
                let command = args.get(1).and_then(Arg::keyword).unwrap_or_default();
                match command.as_str() {
                    "SEARCH" => self.search(&args[2..]),
                    "FETCH" => return self.fetch(connection, &args[2..], wrong).await,
                    "STORE" => self.store(&args[2..], wrong),
                    "EXPUNGE" => self.uid_expunge(&args[2..], wrong),
                    "COPY" | "MOVE" => self.copy(&args[2..], mailboxes, command == "MOVE", wrong),
                    _ => Answer::bad("unknown command"),
                }
            }
            _ => Answer::bad("unknown command"),
        })
    }

    fn list(&mut self, args: &[Arg], mailboxes: &Mailboxes, wrong: &Misbehaviour) -> Answer {
        let texts: Vec<_> = args[1..].iter().filter_map(Arg::text).collect();
        let (Some(reference), Some(last)) = (texts.first(), args.get(2)) else {
            return Answer::bad("LIST has a reference and a pattern");
        };
        let patterns: Vec<String> =
            last.elements().iter().filter_map(Arg::text).map(|p| format!("{reference}{p}")).collect();
        if patterns == [""] {
            self.say("* LIST (\\Noselect) \"/\" \"\"");
            return Answer::ok("done");
        }
        let names: Vec<String> = locked(mailboxes).keys().cloned().collect();
        let verb = args[0].keyword().unwrap_or_default();
        for name in names.iter().filter(|name| patterns.iter().any(|pattern| like(pattern.as_bytes(), name.as_bytes())))
        {
            let mut attributes = vec![if names.iter().any(|other| other.starts_with(&format!("{name}/"))) {
                "\\HasChildren"
            } else {
                "\\HasNoChildren"
            }];
            if !wrong.without.contains("SPECIAL-USE") {
                attributes.extend(match name.as_str() {
                    "Trash" => Some("\\Trash"),
                    "Junk" => Some("\\Junk"),
                    "Sent" => Some("\\Sent"),
                    "Drafts" => Some("\\Drafts"),
                    _ => None,
                });
            }
            self.say(&format!("* {verb} ({}) \"/\" {}", attributes.join(" "), quoted(name)));
        }
        Answer::ok("done")
    }

    fn status(&mut self, name: &str, mailbox: &Mailbox, items: Option<&Arg>) -> Answer {
        let state = mailbox.lock();
        let mut values = Vec::new();
        for item in items.map(Arg::elements).unwrap_or_default() {
            let item = item.keyword().unwrap_or_default();
            let value = match item.as_str() {
                "MESSAGES" => state.entries.len() as u64,
                "UIDNEXT" => u64::from(state.uid_next),
                "UIDVALIDITY" => u64::from(state.uid_validity),
                "UNSEEN" => state.entries.values().filter(|entry| !entry.flags.contains("\\Seen")).count() as u64,
                "RECENT" => 0,
                _ => return Answer::bad("unknown item"),
            };
            values.push(format!("{item} {value}"));
        }
        drop(state);
        self.say(&format!("* STATUS {} ({})", quoted(name), values.join(" ")));
        Answer::ok("done")
    }

    fn select(&mut self, mailbox: Mailbox, read_only: bool) -> Answer {
        let state = mailbox.lock();
        let (uid_validity, uid_next) = (state.uid_validity, state.uid_next);
        let wrong = self.shared.misbehaviour();
        let uids: Vec<u32> = state.entries.keys().copied().filter(|uid| !wrong.hidden.contains(uid)).collect();
        drop(state);
        self.say(&format!("* FLAGS ({FLAGS})"));
        self.say(&format!("* OK [PERMANENTFLAGS ({})] flags", if read_only { "" } else { FLAGS }));
        self.say(&format!("* {} EXISTS", uids.len()));
        self.say("* 0 RECENT");
        self.say(&format!("* OK [UIDVALIDITY {uid_validity}] UIDs valid"));
        self.say(&format!("* OK [UIDNEXT {uid_next}] predicted next UID"));
        self.selected = Some(Selected { mailbox, uid_validity, read_only, uids });
        Answer::ok(if read_only { "[READ-ONLY] examined" } else { "[READ-WRITE] selected" })
    }
}

fn find(mailboxes: &Mailboxes, name: &str) -> Option<Mailbox> {
    let name = if name.eq_ignore_ascii_case("INBOX") { "INBOX" } else { name };
    locked(mailboxes).get(name).cloned()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// LIST's patterns (RFC 9051 §6.3.9): `*` is anything, `%` anything within one level.
fn like(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|n| like(rest, &name[n..])),
        Some((b'%', rest)) => {
            let level = name.iter().position(|octet| *octet == b'/').unwrap_or(name.len());
            (0..=level).any(|n| like(rest, &name[n..]))
        }
        Some((octet, rest)) => name.first() == Some(octet) && like(rest, &name[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_a_level_or_not() {
        assert!(like(b"*", b"a/b") && like(b"a/*", b"a/b/c") && like(b"%", b"a") && like(b"%/%", b"a/b"));
        assert!(!like(b"%", b"a/b") && !like(b"a", b"ab") && !like(b"a/%", b"a/b/c"));
    }
}
