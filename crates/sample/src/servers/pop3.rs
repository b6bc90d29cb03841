use std::collections::BTreeSet;
use std::sync::Arc;
use std::{io, iter};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::mailbox::Entry;
use super::server::{Mailboxes, Shared, create};
use super::{Mailbox, Misbehaviour, QuitFault};
use crate::Connection;

/// Output is sent when so many octets wait, also if more commands do.
const MAX_WAITING: usize = 256 << 10;

/// Serves one connection until QUIT or its end.
pub(super) async fn serve(connection: &mut Connection, shared: &Shared) -> io::Result<()> {
    let mut session = Session { shared, out: b"+OK ready\r\n".to_vec(), user: None, maildrop: None };
    loop {
        if !connection.has_received() || session.out.len() > MAX_WAITING {
            connection.send(&std::mem::take(&mut session.out)).await?;
        }
        let Some(line) = connection.line().await? else { return Ok(()) };
        let line = String::from_utf8_lossy(&line).into_owned();
        let misbehaviour = shared.misbehaviour();
        let matches = |start: &Option<String>| start.as_ref().is_some_and(|start| has_prefix(&line, start));
        if matches(&misbehaviour.hang_at) {
            connection.send(&std::mem::take(&mut session.out)).await?;
            std::future::pending::<()>().await;
        }
        if matches(&misbehaviour.close_at) {
            return connection.send(&session.out).await;
        }
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "STLS" => match &shared.options.starttls {
                Some(config) if !connection.is_encrypted() && !misbehaviour.without.contains("STLS") => {
                    session.ok("begin TLS");
                    connection.send(&std::mem::take(&mut session.out)).await?;
                    connection.encrypt(Arc::clone(config)).await?;
                }
                _ => session.err("no TLS here"),
            },
            "AUTH" => session.auth(connection, argument, &misbehaviour).await?,
            "QUIT" => {
                session.quit(misbehaviour.quit);
                return connection.send(&session.out).await;
            }
            verb => session.command(verb, argument, connection.is_encrypted(), &misbehaviour),
        }
    }
}

fn has_prefix(line: &str, start: &str) -> bool {
    line.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start))
}

struct Session<'a> {
    shared: &'a Shared,
    out: Vec<u8>,
    user: Option<String>,
    maildrop: Option<Maildrop>,
}

/// The messages at the time of the login.
struct Maildrop {
    mailbox: Mailbox,
    messages: Vec<(u32, String, Entry)>,
    deleted: BTreeSet<usize>,
}

impl Session<'_> {
    fn ok(&mut self, text: &str) {
        self.out.extend_from_slice(format!("+OK {text}\r\n").as_bytes());
    }

    fn err(&mut self, text: &str) {
        self.out.extend_from_slice(format!("-ERR {text}\r\n").as_bytes());
    }

    fn command(&mut self, verb: &str, argument: &str, encrypted: bool, misbehaviour: &Misbehaviour) {
        match verb {
            "CAPA" => return self.capa(encrypted, misbehaviour),
            "NOOP" => return self.ok(""),
            "USER" | "PASS" if self.maildrop.is_none() => return self.user_pass(verb, argument, encrypted),
            _ => {}
        }
        let Some(maildrop) = &mut self.maildrop else { return self.err("log in first") };
        match verb {
            "STAT" => {
                let (count, octets) = maildrop.total(misbehaviour);
                self.ok(&format!("{count} {octets}"));
            }
            "LIST" | "UIDL" if argument.is_empty() && !misbehaviour.without.contains(verb) => {
                if verb == "UIDL" {
                    self.shared.count(|counters| counters.listings += 1);
                }
                let listed = |n: &usize| verb != "UIDL" || !misbehaviour.unlisted.contains(&maildrop.messages[*n].0);
                let lines: Vec<_> =
                    maildrop.present().filter(listed).map(|n| maildrop.line(verb, n, misbehaviour)).collect();
                self.ok(&format!("{} messages", lines.len()));
                for line in lines {
                    self.out.extend_from_slice(format!("{line}\r\n").as_bytes());
                }
                self.out.extend_from_slice(b".\r\n");
            }
            "LIST" | "UIDL" if !misbehaviour.without.contains(verb) => match maildrop.number(argument) {
                Some(n) => {
                    let line = maildrop.line(verb, n, misbehaviour);
                    self.ok(&line);
                }
                None => self.err("no such message"),
            },
            "RETR" => self.retr(argument, None, misbehaviour),
            "TOP" if !misbehaviour.without.contains("TOP") => match argument.split_once(' ') {
                Some((number, lines)) if lines.parse::<usize>().is_ok() => {
                    self.retr(number, lines.parse().ok(), misbehaviour);
                }
                _ => self.err("TOP has two numbers"),
            },
            "DELE" => match maildrop.number(argument) {
                Some(n) if misbehaviour.refuse_remove.contains(&maildrop.messages[n].0) => {
                    self.err("it cannot be removed")
                }
                Some(n) => {
                    maildrop.deleted.insert(n);
                    self.ok("marked");
                }
                None => self.err("no such message"),
            },
            "RSET" => {
                maildrop.deleted.clear();
                self.ok("");
            }
            _ => self.err("unknown command"),
        }
    }

    fn capa(&mut self, encrypted: bool, misbehaviour: &Misbehaviour) {
        self.ok("capabilities");
        let mut lines = vec!["TOP", "UIDL", "RESP-CODES", "PIPELINING", "AUTH-RESP-CODE", "USER", "SASL PLAIN"];
        if self.shared.options.starttls.is_some() && !encrypted {
            lines.push("STLS");
            lines.retain(|line| !matches!(*line, "USER" | "SASL PLAIN"));
        }
        for line in lines {
            let name = line.split(' ').next().unwrap_or_default();
            if !misbehaviour.without.contains(name) {
                let refused = if name == "SASL" { &misbehaviour.refused_mechanisms[..] } else { &[] };
                let words: Vec<&str> = iter::once(line).chain(refused.iter().map(String::as_str)).collect();
                self.out.extend_from_slice(format!("{}\r\n", words.join(" ")).as_bytes());
            }
        }
        self.out.extend_from_slice(b".\r\n");
    }

    fn user_pass(&mut self, verb: &str, argument: &str, encrypted: bool) {
        if self.shared.options.starttls.is_some() && !encrypted {
            return self.err("not without TLS");
        }
        if verb == "USER" {
            self.user = Some(argument.to_owned());
            return self.ok("");
        }
        match self.user.take() {
            Some(user) => self.log_in(&user, argument),
            None => self.err("USER first"),
        }
    }

    fn log_in(&mut self, user: &str, password: &str) {
        match self.shared.log_in(user, password) {
            Ok(mailboxes) => {
                self.maildrop = Some(Maildrop::open(&mailboxes, &self.shared.misbehaviour()));
                self.ok("logged in");
            }
            // RFC 3206 §4: AUTH is POP3's word for what IMAP calls AUTHENTICATIONFAILED.
            Err(refusal) => self.err(&refusal.replace("[AUTHENTICATIONFAILED]", "[AUTH]")),
        }
    }

    /// RFC 5034: AUTH PLAIN with or without an initial response.
    async fn auth(
        &mut self,
        connection: &mut Connection,
        argument: &str,
        misbehaviour: &Misbehaviour,
    ) -> io::Result<()> {
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        let plaintext = self.shared.options.starttls.is_some() && !connection.is_encrypted();
        if misbehaviour.refused_mechanisms.iter().any(|name| name.eq_ignore_ascii_case(mechanism)) {
            self.shared.count(|counters| counters.refused_logins += 1);
        }
        if !mechanism.eq_ignore_ascii_case("PLAIN") || plaintext || misbehaviour.without.contains("SASL") {
            self.err("no such mechanism");
            return Ok(());
        }
        let mut response = initial.as_bytes().to_vec();
        if response.is_empty() {
            self.out.extend_from_slice(b"+ \r\n");
            connection.send(&std::mem::take(&mut self.out)).await?;
            response = connection.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        match plain(&response) {
            Some((user, password)) => self.log_in(&user, &password),
            None => self.err("that is no PLAIN response"),
        }
        Ok(())
    }

    fn retr(&mut self, number: &str, lines: Option<usize>, misbehaviour: &Misbehaviour) {
        let Some(maildrop) = &self.maildrop else { return };
        let Some(n) = maildrop.number(number) else { return self.err("no such message") };
        let (uid, _, entry) = &maildrop.messages[n];
        if misbehaviour.refuse_retrieve.contains(uid) {
            return self.err("[SYS/PERM] the message cannot be read");
        }
        let octets = Arc::clone(entry.sent(misbehaviour.bare_lf));
        let shown = match lines {
            Some(lines) => top(&octets, lines),
            None => &octets,
        };
        self.ok(&format!("{} octets", shown.len()));
        stuff(shown, &mut self.out);
        if lines.is_none() {
            self.shared.count(|counters| {
                counters.retrieved += 1;
                counters.retrieved_octets += octets.len() as u64;
            });
        }
    }

    fn quit(&mut self, fault: QuitFault) {
        let (answers, removes) = match fault {
            QuitFault::None => (Some("+OK bye\r\n"), true),
            QuitFault::RefuseAndKeep => (Some("-ERR some messages were not removed\r\n"), false),
            QuitFault::RefuseButRemove => (Some("-ERR some messages were not removed\r\n"), true),
            QuitFault::CloseAndKeep => (None, false),
            QuitFault::CloseButRemove => (None, true),
        };
        if let Some(maildrop) = self.maildrop.take().filter(|_| removes) {
            let removed = maildrop.deleted.iter().filter(|n| maildrop.mailbox.remove(maildrop.messages[**n].0)).count();
            self.shared.count(|counters| counters.removed += removed as u64);
        }
        self.out.extend_from_slice(answers.unwrap_or_default().as_bytes());
    }
}

impl Maildrop {
    fn open(mailboxes: &Mailboxes, misbehaviour: &Misbehaviour) -> Self {
        let mailbox = create(mailboxes, "INBOX");
        let state = mailbox.lock();
        let there = state.entries.iter().filter(|(uid, _)| !misbehaviour.hidden.contains(uid));
        let messages = there.map(|(uid, entry)| (*uid, state.uidl(*uid), entry.clone())).collect();
        drop(state);
        Self { mailbox, messages, deleted: BTreeSet::new() }
    }

    fn present(&self) -> impl Iterator<Item = usize> {
        (0..self.messages.len()).filter(|n| !self.deleted.contains(n))
    }

    /// The index of the message that a client calls so.
    fn number(&self, text: &str) -> Option<usize> {
        let n = text.trim().parse::<usize>().ok()?.checked_sub(1)?;
        (n < self.messages.len() && !self.deleted.contains(&n)).then_some(n)
    }

    fn size(&self, n: usize, misbehaviour: &Misbehaviour) -> u64 {
        let size = self.messages[n].2.sent(misbehaviour.bare_lf).len() as u64;
        size.saturating_add_signed(misbehaviour.size_error)
    }

    fn total(&self, misbehaviour: &Misbehaviour) -> (usize, u64) {
        (self.present().count(), self.present().map(|n| self.size(n, misbehaviour)).sum())
    }

    fn line(&self, verb: &str, n: usize, misbehaviour: &Misbehaviour) -> String {
        let value = match verb {
            "LIST" => self.size(n, misbehaviour).to_string(),
            _ if misbehaviour.same_uidls => "same".to_owned(),
            _ => self.messages[n].1.clone(),
        };
        format!("{} {value}", n + 1)
    }
}

/// User and password of a PLAIN response (RFC 4616), from base64.
pub(super) fn plain(base64: &[u8]) -> Option<(String, String)> {
    let response = BASE64_STANDARD.decode(base64).ok()?;
    let mut parts = response.split(|octet| *octet == 0).skip(1);
    let mut next = || String::from_utf8(parts.next()?.to_vec()).ok();
    Some((next()?, next()?))
}

/// The header, the empty line, and so many lines of the body.
fn top(octets: &[u8], lines: usize) -> &[u8] {
    let mut end = 0;
    let mut left = None;
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        if left == Some(0) {
            break;
        }
        end += line.len();
        left = match left {
            None if line == b"\r\n" || line == b"\n" => Some(lines),
            None => None,
            Some(n) => Some(n - 1),
        };
    }
    &octets[..end]
}

/// Sends the octets as they are, but for the dots; not as a client stuffs, which mends line ends.
fn stuff(octets: &[u8], out: &mut Vec<u8>) {
    out.reserve(octets.len() + 16);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !octets.is_empty() && !octets.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_shows_header_and_so_many_lines() {
        let message = b"A: 1\r\nB: 2\r\n\r\none\r\ntwo\r\n";
        assert_eq!(top(message, 0), b"A: 1\r\nB: 2\r\n\r\n");
        assert_eq!(top(message, 1), b"A: 1\r\nB: 2\r\n\r\none\r\n");
        assert_eq!(top(message, 9), message);
        assert_eq!(top(b"no empty line", 0), b"no empty line");
    }

    #[test]
    fn dots_are_doubled_and_the_last_line_is_ended() {
        let mut out = Vec::new();
        stuff(b".\r\n.a\r\nb", &mut out);
        assert_eq!(out, b"..\r\n..a\r\nb\r\n.\r\n");
    }
}
