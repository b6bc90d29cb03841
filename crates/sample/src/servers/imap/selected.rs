//! The commands of the selected state.

use std::io;

use super::super::Misbehaviour;
use super::super::mailbox::State;
use super::super::server::Mailboxes;
use super::fetch::Wanted;
use super::parse::{self, Arg};
use super::{Answer, MAX_WAITING, Session, find};
use crate::Connection;

impl Session<'_> {
    /// Tells what came and went since the client was told last.
    pub(super) fn news(&mut self) -> Answer {
        let wrong = self.shared.misbehaviour();
        let Some(selected) = &mut self.selected else { return Answer::ok("done") };
        let state = selected.mailbox.lock();
        if state.uid_validity != selected.uid_validity {
            drop(state);
            self.say("* BYE the UIDVALIDITY changed");
            return Answer::Over("done".to_owned());
        }
        let mut lines = Vec::new();
        let mut number = 0;
        let old = std::mem::take(&mut selected.uids);
        for uid in &old {
            if state.entries.contains_key(uid) {
                number += 1;
                selected.uids.push(*uid);
            } else {
                lines.push(format!("* {} EXPUNGE", number + 1));
            }
        }
        let last = old.last().map_or(0, |uid| *uid);
        let new = state.entries.range(last.saturating_add(1)..).map(|(uid, _)| *uid);
        let new: Vec<u32> = new.filter(|uid| !wrong.hidden.contains(uid)).collect();
        drop(state);
        selected.uids.extend(&new);
        if !new.is_empty() {
            lines.push(format!("* {} EXISTS", selected.uids.len()));
        }
        for line in lines {
            self.say(&line);
        }
        Answer::ok("done")
    }

    /// Answers `+`, tells of every change at once, and ends at the client's next line, which is DONE.
    pub(super) async fn idle(&mut self, connection: &mut Connection) -> io::Result<Answer> {
        let Some(mailbox) = self.selected.as_ref().map(|selected| selected.mailbox.clone()) else {
            return Ok(Answer::bad("no mailbox is selected"));
        };
        self.say("+ idling");
        let mut changes = mailbox.changes();
        loop {
            if let over @ Answer::Over(_) = self.news() {
                return Ok(over);
            }
            self.flush(connection).await?;
            tokio::select! {
                line = connection.line() => {
                    let line = line?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    return Ok(if line.eq_ignore_ascii_case(b"DONE") { Answer::ok("done") } else { Answer::bad("expected DONE") });
                }
                changed = changes.changed() => changed.map_err(io::Error::other)?,
            }
        }
    }

    pub(super) fn search(&mut self, keys: &[Arg]) -> Answer {
        let Some(selected) = &self.selected else { return Answer::bad("no mailbox is selected") };
        self.shared.count(|counters| counters.listings += 1);
        let state = selected.mailbox.lock();
        let mut found = selected.uids.clone();
        let wrong = self.shared.misbehaviour();
        found.retain(|uid| state.entries.contains_key(uid) && !wrong.unlisted.contains(uid));
        let mut keys = keys.iter();
        while let Some(key) = keys.next() {
            let word = key.keyword().unwrap_or_default();
            let (flag, wanted) = match word.as_str() {
                "ALL" => continue,
                "SEEN" => ("\\Seen", true),
                "UNSEEN" => ("\\Seen", false),
                "DELETED" => ("\\Deleted", true),
                "UNDELETED" => ("\\Deleted", false),
                "FLAGGED" => ("\\Flagged", true),
                "UNFLAGGED" => ("\\Flagged", false),
                "ANSWERED" => ("\\Answered", true),
                "UNANSWERED" => ("\\Answered", false),
                _ => {
                    let set =
                        if word == "UID" { keys.next().and_then(Arg::text).unwrap_or_default() } else { word.clone() };
                    let Some(named) = parse::in_set(&set, &selected.uids) else {
                        return Answer::Bad(format!("unknown search key {word}"));
                    };
                    found.retain(|uid| named.binary_search(uid).is_ok());
                    continue;
                }
            };
            found.retain(|uid| state.entries[uid].flags.contains(flag) == wanted);
        }
        drop(state);
        let found: String = found.iter().map(|uid| format!(" {uid}")).collect();
        self.say(&format!("* SEARCH{found}"));
        self.news()
    }

    pub(super) async fn fetch(
        &mut self,
        connection: &mut Connection,
        args: &[Arg],
        wrong: &Misbehaviour,
    ) -> io::Result<Answer> {
        let (Some(selected), Some(set), Some(items)) = (&self.selected, args.first().and_then(Arg::text), args.get(1))
        else {
            return Ok(Answer::bad("UID FETCH has a set and items"));
        };
        let wanted = match Wanted::parse(items) {
            Ok(wanted) => wanted,
            Err(item) => return Ok(Answer::Bad(format!("unknown item {item}"))),
        };
        let Some(uids) = parse::in_set(&set, &selected.uids) else { return Ok(Answer::bad("that is no set")) };
        let (mailbox, read_only, known) = (selected.mailbox.clone(), selected.read_only, selected.uids.clone());
        if !wanted.is_retrieval() {
            self.shared.count(|counters| counters.listings += 1);
        }
        let mut refused = 0;
        for uid in uids {
            let Some(mut entry) = mailbox.lock().entries.get(&uid).cloned() else { continue };
            if wanted.is_retrieval() && wrong.refuse_retrieve.contains(&uid) {
                refused += 1;
                continue;
            }
            if wanted.marks_seen() && !read_only && entry.flags.insert("\\Seen".to_owned()) {
                mailbox.change(|state| state.entries.get_mut(&uid).map(|e| e.flags.insert("\\Seen".to_owned())));
            }
            let number = known.binary_search(&uid).map_or(0, |at| at + 1);
            wanted.respond(number, uid, &entry, wrong, &mut self.out);
            if wanted.is_retrieval() {
                let octets = entry.sent(wrong.bare_lf).len() as u64;
                self.shared.count(|counters| {
                    counters.retrieved += 1;
                    counters.retrieved_octets += octets;
                });
            }
            if self.out.len() > MAX_WAITING {
                self.flush(connection).await?;
            }
        }
        let news = self.news();
        Ok(if refused > 0 { Answer::no("[SERVERBUG] some of the messages cannot be read") } else { news })
    }

    pub(super) fn store(&mut self, args: &[Arg], wrong: &Misbehaviour) -> Answer {
        let (Some(set), Some(action), Some(flags)) =
            (args.first().and_then(Arg::text), args.get(1).and_then(Arg::keyword), args.get(2))
        else {
            return Answer::bad("UID STORE has a set, an action and flags");
        };
        let Some(selected) = self.selected.as_ref().filter(|selected| !selected.read_only) else {
            return Answer::no("[READ-ONLY] the mailbox was examined");
        };
        let Some(uids) = parse::in_set(&set, &selected.uids) else { return Answer::bad("that is no set") };
        let flags: Vec<String> = flags.elements().iter().filter_map(Arg::text).collect();
        let deletes = flags.iter().any(|flag| flag.eq_ignore_ascii_case("\\Deleted")) && !action.starts_with('-');
        if deletes && uids.iter().any(|uid| wrong.refuse_remove.contains(uid)) {
            return Answer::no("[NOPERM] some of the messages cannot be removed");
        }
        let (known, silent) = (selected.uids.clone(), action.ends_with(".SILENT"));
        let lines = selected.mailbox.change(|state| {
            let mut lines = Vec::new();
            for uid in uids {
                let Some(entry) = state.entries.get_mut(&uid) else { continue };
                match action.chars().next() {
                    Some('+') => entry.flags.extend(flags.iter().cloned()),
                    Some('-') => entry.flags.retain(|flag| !flags.contains(flag)),
                    _ => entry.flags = flags.iter().cloned().collect(),
                }
                let number = known.binary_search(&uid).map_or(0, |at| at + 1);
                let flags: Vec<_> = entry.flags.iter().map(String::as_str).collect();
                lines.push(format!("* {number} FETCH (UID {uid} FLAGS ({}))", flags.join(" ")));
            }
            lines
        });
        if !silent {
            for line in lines {
                self.say(&line);
            }
        }
        self.news()
    }

    pub(super) fn uid_expunge(&mut self, args: &[Arg], wrong: &Misbehaviour) -> Answer {
        let Some(selected) = self.selected.as_ref().filter(|selected| !selected.read_only) else {
            return Answer::no("[READ-ONLY] the mailbox was examined");
        };
        let set = args.first().and_then(Arg::text).unwrap_or_default();
        let Some(uids) = parse::in_set(&set, &selected.uids) else { return Answer::bad("that is no set") };
        self.expunge(Some(&uids), wrong);
        self.news()
    }

    /// Removes what is `\Deleted`, of these (ascending) or of all.
    pub(super) fn expunge(&self, of: Option<&[u32]>, wrong: &Misbehaviour) {
        let Some(selected) = self.selected.as_ref().filter(|selected| !selected.read_only) else { return };
        let goes = |uid: &u32| of.is_none_or(|of| of.binary_search(uid).is_ok()) && !wrong.refuse_remove.contains(uid);
        let removed = selected.mailbox.change(|state| {
            let before = state.entries.len();
            state.entries.retain(|uid, entry| !(entry.flags.contains("\\Deleted") && goes(uid)));
            before - state.entries.len()
        });
        self.shared.count(|counters| counters.removed += removed as u64);
    }

    pub(super) fn copy(&mut self, args: &[Arg], mailboxes: &Mailboxes, moves: bool, wrong: &Misbehaviour) -> Answer {
        let (Some(set), Some(name)) = (args.first().and_then(Arg::text), args.get(1).and_then(Arg::text)) else {
            return Answer::bad("a set and a mailbox are needed");
        };
        let Some(selected) = self.selected.as_ref().filter(|selected| !(moves && selected.read_only)) else {
            return Answer::no("[READ-ONLY] the mailbox was examined");
        };
        let Some(target) = find(mailboxes, &name) else { return Answer::no("[TRYCREATE] no such mailbox") };
        let Some(uids) = parse::in_set(&set, &selected.uids) else { return Answer::bad("that is no set") };
        if moves && uids.iter().any(|uid| wrong.refuse_remove.contains(uid)) {
            return Answer::no("[NOPERM] some of the messages cannot be removed");
        }
        let take = |state: &mut State, uid: &u32| {
            if moves { state.entries.remove(uid) } else { state.entries.get(uid).cloned() }
        };
        let taken: Vec<_> =
            selected.mailbox.change(|state| uids.iter().filter_map(|uid| Some((*uid, take(state, uid)?))).collect());
        let (from, entries): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        if moves {
            self.shared.count(|counters| counters.removed += from.len() as u64);
        }
        let to: Vec<u32> = target.change(|state| entries.into_iter().map(|entry| state.push(entry)).collect());
        let numbers = |uids: &[u32]| uids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        if !from.is_empty() && !wrong.without.contains("UIDPLUS") {
            let code = format!("[COPYUID {} {} {}]", target.uid_validity(), numbers(&from), numbers(&to));
            if !moves {
                return Answer::Ok(format!("{code} copied"));
            }
            // RFC 6851 §4.3: before the EXPUNGE responses, and so not in the tagged one.
            self.say(&format!("* OK {code} moved"));
        }
        self.news()
    }
}
