//! A message on its way from the retrieval to its delivery.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use connectord_account::Key;
use connectord_mail::{Body, DeliveryId, Envelope, Fingerprint, Head, Identity, UnixTime, head};
use connectord_store::{MailboxRow, MessageName, MessageRef};
use connectord_wire::Escaped;
use tokio::sync::OwnedSemaphorePermit;

use super::fate::Fate;
use crate::mailbox::Wanted;
use crate::run::Run;
use crate::spool::Collected;

/// A message that was retrieved whole.
pub(crate) struct Incoming {
    pub(crate) message: MessageRef,
    pub(crate) mailbox: String,
    pub(crate) attempt: u32,
    /// A person wants it delivered whatever speaks against it.
    pub(crate) anyway: bool,
    /// What is known of the message that its header says it is, since the server gave it another name.
    pub(crate) adopted: Option<Fingerprint>,
    /// Nothing is known of the mailbox: the state may have been lost, so the destination looks before it writes.
    pub(crate) look_first: bool,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) arrived_at: Option<UnixTime>,
    pub(crate) reverse_path: Option<String>,
    pub(crate) name: MessageName,
    pub(crate) loops: usize,
    pub(crate) id: DeliveryId,
    /// Until the parcels have it.
    pub(super) body: Option<Arc<dyn Body>>,
    /// Fields that filters put in front of it, with CRLF.
    pub(super) front: Bytes,
    /// The folder that filters want it in.
    pub(super) folder: Option<String>,
    /// What becomes of it.
    pub(super) fate: Fate,
    /// What filters say of it, in words; empty when nothing is to be said.
    pub(super) verdict: String,
    pub(crate) size_octets: u64,
    pub(crate) began: Instant,
    /// Another one was asked for on the same connection.
    pub(crate) more: bool,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl Incoming {
    /// Reads what is needed from the header.
    #[allow(clippy::too_many_arguments, reason = "called by the two protocols only")]
    pub(crate) fn new(
        run: &Run<'_>,
        mailbox: &MailboxRow,
        key: Key,
        wanted: Wanted,
        on_server: String,
        arrived_at: Option<UnixTime>,
        collected: Collected,
    ) -> Self {
        let header = Head::of(&collected.head);
        let envelope = Envelope::recover(header);
        let Wanted { generation, attempt, anyway, adopted, .. } = wanted;
        let identity = Identity {
            account: run.job.address(),
            mailbox: &mailbox.name,
            uid_validity: mailbox.uid_validity,
            key: &key.octets(),
            generation,
        };
        let message = MessageRef { mailbox: mailbox.id, key, generation };
        let (id, name) = (DeliveryId::new(identity), name_of(header, on_server));
        run.take_down_retrieved(message, id, header, &name, collected.size_octets);
        Self {
            message,
            mailbox: mailbox.name.clone(),
            attempt,
            anyway,
            adopted,
            look_first: mailbox.first_listed.is_none(),
            fingerprint: collected.seen.fingerprint,
            arrived_at: arrived_at.or(envelope.received_at),
            reverse_path: envelope.reverse_path,
            name,
            loops: connectord_mail::loops(header, run.job.address()),
            id,
            size_octets: collected.size_octets,
            body: Some(collected.body),
            front: Bytes::new(),
            folder: None,
            fate: Fate::Deliver,
            verdict: String::new(),
            began: Instant::now(),
            more: false,
            room: None,
        }
    }
}

/// What people recognise a message by.
pub(crate) fn name_of(header: Head<'_>, on_server: String) -> MessageName {
    let shown = |field: &str| {
        let field = header.fields().find(|f: &head::Field<'_>| f.is(field));
        let value = field.map(|field| field.unfolded()).unwrap_or_default();
        Escaped(&value[..value.len().min(200)]).to_string()
    };
    MessageName { on_server, message_id: shown("Message-ID"), from: shown("From"), subject: shown("Subject") }
}
