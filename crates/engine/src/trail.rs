//! What is taken down of each message, for people to look up. Nothing here waits or fails, and nothing depends on it.

use std::sync::{Arc, PoisonError};

use connectord_account::Key;
use connectord_filter::attachment::decode_words;
use connectord_filter::{Answer, Verdict};
use connectord_mail::relay::Client;
use connectord_mail::{DeliveryId, Envelope, Head, Identity, UnixTime, head};
use connectord_store::{About, MailboxRow, MessageName, MessageRef, TrailEntry, TrailKey, TrailName, TrailStep, What};
use connectord_wire::Escaped;

use crate::run::Run;

/// Octets of a header field that are looked at.
const MAX_FIELD: usize = 600;

/// A mailbox of which messages are taken down.
#[derive(Clone)]
pub(crate) struct Place {
    account: Arc<str>,
    mailbox: Arc<str>,
    uid_validity: u32,
    opened: UnixTime,
    users: Arc<[String]>,
}

impl Run<'_> {
    /// From here on messages of this mailbox can be taken down.
    pub(crate) fn opened(&self, mailbox: &MailboxRow) {
        if !self.site.trail.is_on() {
            return;
        }
        let place = Place {
            account: self.job.address().into(),
            mailbox: mailbox.name.as_str().into(),
            uid_validity: mailbox.uid_validity,
            opened: self.site.clock.now(),
            users: self.job.recipients.iter().map(|to| to.user.clone()).collect(),
        };
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(mailbox.id, place);
    }

    /// A message was retrieved whole.
    pub(crate) fn take_down_retrieved(
        &self,
        message: MessageRef,
        id: DeliveryId,
        head: Head<'_>,
        name: &MessageName,
        octets: u64,
    ) {
        let Some(place) = self.place(message) else { return };
        let now = self.site.clock.now();
        let shown = |field: &str| {
            let field = head.fields().find(|known: &head::Field<'_>| known.is(field));
            let value = field.map(|field| field.unfolded()).unwrap_or_default();
            text(&value[..value.len().min(MAX_FIELD)])
        };
        let about = About {
            delivery: id,
            on_server: name.on_server.clone(),
            subject: shown("Subject"),
            from: shown("From"),
            message_id: name.message_id.clone(),
            users: Arc::clone(&place.users),
            octets,
            seen_at: place.opened,
        };
        let mut steps = vec![TrailStep::new(now, What::Retrieved, "", "")];
        // Where nobody is trusted nothing is known, and nothing has to be looked for.
        if !self.job.relays.hosts.is_empty() {
            let handed_over = match Envelope::recover_trusting(head, &self.job.relays).client {
                Client::Known(handoff) => {
                    let name = handoff.name.or(handoff.helo).unwrap_or_default();
                    (handoff.address.to_string(), Escaped::text(&name).to_string())
                }
                Client::Unknown(why) => (String::new(), why.to_string()),
            };
            steps.push(TrailStep::new(now, What::Relay, handed_over.0, handed_over.1));
        }
        self.record(place, message, now, Some(about), steps);
    }

    /// Filters have looked at a message.
    pub(crate) fn take_down_filtered(&self, message: MessageRef, answers: &[Answer], spam: bool, reason: &str) {
        let Some(place) = self.place(message) else { return };
        let now = self.site.clock.now();
        let mut steps: Vec<TrailStep> = answers.iter().map(|answer| filtered(now, answer)).collect();
        if spam {
            steps.push(TrailStep::new(now, What::Spam, "", Escaped::text(reason).to_string()));
        }
        if !steps.is_empty() {
            self.record(place, message, now, None, steps);
        }
    }

    /// These things happened to a message just now: what, to whom, and words about it.
    pub(crate) fn take_down(&self, message: MessageRef, steps: &[(What, &str, &str)]) {
        self.take_down_unread(message, None, steps);
    }

    /// The same of a message that may not have been retrieved: what it is called and its size, as far as is known.
    pub(crate) fn take_down_unread(
        &self,
        message: MessageRef,
        known: Option<(&MessageName, u64)>,
        steps: &[(What, &str, &str)],
    ) {
        let Some(place) = self.place(message) else { return };
        let now = self.site.clock.now();
        let about = known.map(|(name, octets)| {
            let key = message.key.octets();
            let identity = Identity {
                account: &place.account,
                mailbox: &place.mailbox,
                uid_validity: place.uid_validity,
                key: &key,
                generation: message.generation,
            };
            About {
                delivery: DeliveryId::new(identity),
                on_server: name.on_server.clone(),
                subject: text(name.subject.as_bytes()),
                from: text(name.from.as_bytes()),
                message_id: name.message_id.clone(),
                users: Arc::clone(&place.users),
                octets,
                seen_at: place.opened,
            }
        });
        let step = |(what, who, detail): &(What, &str, &str)| {
            TrailStep::new(now, *what, Escaped::text(who).to_string(), Escaped::text(detail).to_string())
        };
        self.record(place, message, now, about, steps.iter().map(step).collect());
    }

    /// Messages are gone from the server, by its word.
    pub(crate) fn take_down_removed(&self, mailbox: &MailboxRow, names: &[(Key, u16)]) {
        for (key, generation) in names {
            let message = MessageRef { mailbox: mailbox.id, key: *key, generation: *generation };
            self.take_down(message, &[(What::Removed, "", "")]);
        }
    }

    fn place(&self, message: MessageRef) -> Option<Place> {
        if !self.site.trail.is_on() {
            return None;
        }
        self.places.lock().unwrap_or_else(PoisonError::into_inner).get(&message.mailbox).cloned()
    }

    fn record(&self, place: Place, message: MessageRef, at: UnixTime, about: Option<About>, steps: Vec<TrailStep>) {
        let Place { account, mailbox, uid_validity, opened, .. } = place;
        let mut steps = steps;
        if about.is_some() {
            steps.insert(0, TrailStep::new(opened, What::Seen, "", ""));
        }
        let key = TrailKey { account, mailbox, uid_validity, key: message.key, generation: message.generation };
        self.site.trail.record(TrailEntry { name: TrailName::Key(key), at, about: about.map(Box::new), steps });
    }
}

/// A field's value for people: decoded, and harmless.
fn text(value: &[u8]) -> String {
    Escaped::text(&decode_words(&String::from_utf8_lossy(value))).to_string()
}

fn filtered(now: UnixTime, answer: &Answer) -> TrailStep {
    let step = |detail: String| TrailStep::new(now, What::Filter, answer.filter.as_str(), detail);
    match &answer.verdict {
        Verdict::Unchecked(unchecked) => step(format!("unchecked: {unchecked}")),
        Verdict::Found(found) if !found.viruses.is_empty() => {
            step(Escaped::text(&found.viruses.join(", ")).to_string())
        }
        Verdict::Found(found) => {
            let detail = found.text.as_deref().unwrap_or_else(|| found.action.name());
            let (milli_score, milli_limit) = (found.milli_score, found.milli_required);
            TrailStep { milli_score, milli_limit, ..step(Escaped::text(detail).to_string()) }
        }
    }
}
