//! What untagged responses mean (RFC 9051 §7).

use connectord_wire::{Escaped, Machine};

use super::read::{Gather, Kind};
use super::{Session, State};
use crate::encode::Command;
use crate::parse::data;
use crate::parse::response::{Condition, StatusLine};
use crate::{
    Body, Capabilities, Error, Event, Fetched, Flags, ResponseCode, Selected, Uid, UidSearch, UidSet, UidValidity,
};

/// What a SELECT in flight has told so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selecting {
    read_only: bool,
    exists: u32,
    uid_validity: Option<UidValidity>,
    uid_next: Option<Uid>,
    permanent_flags: Option<Flags>,
    no_uid_sticky: bool,
    highest_modseq: Option<u64>,
}

impl Selecting {
    pub(super) fn new(read_only: bool) -> Self {
        Self { read_only, ..Self::default() }
    }
}

impl Session {
    /// Bounds responses that nothing asked for.
    pub(super) fn count_unasked(&mut self) -> Result<(), Error> {
        self.unasked = self.unasked.saturating_add(1);
        let limit = self.options.max_untagged;
        if self.unasked > limit { Err(Error::TooManyUntagged { limit, during: self.phase() }) } else { Ok(()) }
    }

    pub(super) fn untagged_status(&mut self, status: StatusLine) -> Result<(), Error> {
        if status.condition == Condition::Bye {
            if self.is_in_flight(|command| matches!(command, Command::Logout)) || self.state == State::LoggedOut {
                return Ok(());
            }
            let during = self.phase();
            return Err(Error::Bye { code: status.code, text: status.text, during });
        }
        let is_selecting = self.is_in_flight(|command| matches!(command, Command::Select { .. }));
        let selecting = &mut self.selecting;
        match status.code {
            Some(ResponseCode::Alert) => self.alert(&status.text),
            Some(ResponseCode::Capability(capabilities)) => self.learn(capabilities),
            Some(code @ (ResponseCode::CopyUid { .. } | ResponseCode::AppendUid { .. })) => {
                self.code_of_a_copy(code);
            }
            Some(ResponseCode::UidValidity(new))
                if !is_selecting && self.uid_validity.is_some_and(|old| old != new) =>
            {
                self.uid_validity = Some(new);
                self.events.push_back(Event::UidValidityChanged(new));
            }
            Some(_) if !is_selecting => {}
            Some(ResponseCode::UidValidity(uid_validity)) => selecting.uid_validity = Some(uid_validity),
            Some(ResponseCode::UidNext(uid)) => selecting.uid_next = Some(uid),
            Some(ResponseCode::PermanentFlags(flags)) => selecting.permanent_flags = Some(flags),
            Some(ResponseCode::HighestModSeq(modseq)) => selecting.highest_modseq = Some(modseq),
            Some(ResponseCode::UidNotSticky) => selecting.no_uid_sticky = true,
            Some(ResponseCode::ReadOnly) => selecting.read_only = true,
            // What came before was about the mailbox selected before.
            Some(ResponseCode::Closed) => {
                *selecting = Selecting::new(selecting.read_only);
            }
            _ => {}
        }
        self.count_unasked()
    }

    /// The tagged OK of a SELECT; `Err` when the mailbox has no UIDVALIDITY.
    pub(super) fn selected(&mut self, status: &StatusLine) -> Result<(), ()> {
        let selecting = std::mem::take(&mut self.selecting);
        let uid_validity = selecting.uid_validity.ok_or(())?;
        self.uid_validity = Some(uid_validity);
        let read_only = match status.code {
            Some(ResponseCode::ReadOnly) => true,
            Some(ResponseCode::ReadWrite) => false,
            _ => selecting.read_only,
        };
        self.events.push_back(Event::Selected(Selected {
            uid_validity,
            uid_next: selecting.uid_next,
            exists: selecting.exists,
            read_only,
            permanent_flags: selecting.permanent_flags,
            no_uid_sticky: selecting.no_uid_sticky,
            highest_modseq: selecting.highest_modseq,
        }));
        Ok(())
    }

    pub(super) fn exists(&mut self, count: u32) -> Result<(), Error> {
        if self.is_in_flight(|command| matches!(command, Command::Select { .. })) {
            self.selecting.exists = count;
        } else {
            self.events.push_back(Event::Exists(count));
        }
        self.count_unasked()
    }

    pub(super) fn expunged(&mut self) -> Result<(), Error> {
        self.events.push_back(Event::Expunged);
        // Ten thousand removals asked for are ten thousand answers.
        let is_asked = self.is_in_flight(|command| {
            matches!(command, Command::Expunge | Command::UidExpunge(_) | Command::UidMove { .. })
        });
        if is_asked { Ok(()) } else { self.count_unasked() }
    }

    pub(super) fn enabled(&mut self, names: &Capabilities) {
        if !self.is_in_flight(|command| matches!(command, Command::Enable(_))) {
            return;
        }
        self.enabled = self.enabled.iter().chain(names.iter()).collect();
    }

    /// UIDs of a search in flight.
    pub(super) fn found_uids(&mut self, mut uids: UidSet, words: u64) -> Result<(), Error> {
        let from = self.in_flight.iter().find_map(|sent| match &sent.command {
            Command::UidSearch { search: UidSearch { from, .. }, .. } => *from,
            _ => None,
        });
        // RFC 9051 §6.4.8: `7:*` is `5:7` when 5 is the highest UID.
        if let Some(from) = from {
            uids.remove_below(from);
        }
        self.found = self.found.saturating_add(uids.len());
        let limit = self.options.max_messages;
        // A server that repeats one UID for ever finds no more than one message.
        if self.found.max(words) > u64::from(limit) {
            return Err(Error::TooManyMessages { limit });
        }
        if !uids.is_empty() {
            self.events.push_back(Event::Found(uids));
        }
        Ok(())
    }

    /// A whole response with arguments.
    pub(super) fn gathered(&mut self, gather: Gather, line: &[u8]) -> Result<(), Error> {
        let (tokens, names) = (&gather.tokens, self.names());
        let event = match gather.kind {
            Kind::Skip => return self.count_unasked(),
            Kind::Fetch => return self.fetched(gather, line),
            Kind::List if !self.is_in_flight(|command| matches!(command, Command::List { .. })) => {
                // SELECT in IMAP4rev2 answers with one.
                return self.count_unasked();
            }
            Kind::Status if !self.is_in_flight(|command| matches!(command, Command::Status { .. })) => {
                return self.count_unasked();
            }
            Kind::List => data::listed(tokens, names).map(Event::Listed),
            Kind::Status => data::mailbox_status(tokens, names).map(Event::MailboxStatus),
            Kind::Namespace => data::namespaces(tokens, names).map(Event::Namespaces),
            Kind::Id => data::id(tokens).map(Event::ServerId),
            Kind::Vanished => data::vanished(tokens).map(Event::Vanished),
        };
        let Some(event) = event else { return self.unparsed(gather.kind, line) };
        let is_listed = matches!(event, Event::Listed(_));
        self.events.push_back(event);
        if !is_listed {
            return self.count_unasked();
        }
        self.listed = self.listed.saturating_add(1);
        let limit = self.options.max_mailboxes;
        if self.listed > limit { Err(Error::TooManyMailboxes { limit }) } else { Ok(()) }
    }

    /// Tells of a response that should have been readable.
    pub(super) fn unparsed(&mut self, kind: Kind, line: &[u8]) -> Result<(), Error> {
        if kind != Kind::Skip {
            let shown = Escaped(&super::excerpt(line)).to_string();
            self.events.push_back(Event::Unparsed(format!("{kind:?} {shown}")));
        }
        self.count_unasked()
    }

    fn fetched(&mut self, gather: Gather, line: &[u8]) -> Result<(), Error> {
        if !gather.fetch.is_complete() {
            return Err(self.syntax("the end of a FETCH response", line));
        }
        let (attributes, body) = (gather.fetch.attributes, gather.body);
        let uid = attributes.uid;
        let asked = self.in_flight.iter().find_map(|sent| match &sent.command {
            Command::UidFetch { uids, items } if uid.is_some_and(|uid| uids.contains(uid)) => Some(*items),
            _ => None,
        });
        let is_more_than_flags =
            attributes.size.is_some() || attributes.internal_date.is_some() || body != Body::Absent;
        let is_fetching = self.is_in_flight(|command| matches!(command, Command::UidFetch { .. }));
        // Flags alone are an answer only when nothing but flags was asked for; else they are news.
        let is_answer = match asked {
            Some(items) => is_more_than_flags || !(items.size || items.internal_date || items.body.is_some()),
            None => is_fetching && is_more_than_flags,
        };
        if is_answer {
            self.events.push_back(Event::Fetched(Fetched {
                uid,
                asked: asked.is_some(),
                size: attributes.size,
                internal_date: attributes.internal_date,
                flags: attributes.flags,
                body,
            }));
        } else if let Some(flags) = attributes.flags {
            self.events.push_back(Event::FlagsChanged { uid, flags });
        }
        if asked.is_none() {
            return self.count_unasked();
        }
        self.fetched = self.fetched.saturating_add(1);
        let limit = self.options.max_messages;
        if self.fetched > limit { Err(Error::TooManyMessages { limit }) } else { Ok(()) }
    }
}
