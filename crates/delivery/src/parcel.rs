use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use connectord_mail::{Body, DeliveryId, UnixTime};

/// One message for one recipient.
#[derive(Clone)]
pub struct Parcel {
    /// Identity of this copy, the same on every attempt; names a Maildir file.
    pub id: DeliveryId,
    /// Identity of the message; the same for all its recipients.
    pub message: DeliveryId,
    /// Who gets it.
    pub recipient: Recipient,
    /// The envelope sender without angle brackets; empty is the null reverse-path.
    pub reverse_path: String,
    /// Header fields to put in front, with CRLF; without Return-Path and Delivered-To, which are the destination's.
    pub trace: Bytes,
    /// The message as it is on the server.
    pub body: Arc<dyn Body>,
    /// When the message arrived at the provider (INTERNALDATE, or the newest Received); a Maildir file's time.
    pub arrived_at: Option<UnixTime>,
    /// Folder below the recipient's inbox to file into; `None` is the inbox.
    pub folder: Option<String>,
    /// 1 for the first attempt; more where an earlier one may have arrived.
    pub attempt: u32,
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel")
            .field("id", &self.id)
            .field("recipient", &self.recipient)
            .field("size_octets", &self.body.size_octets())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// A local user and the address mail for them is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Recipient {
    /// The local user, as in `deliver_to`.
    pub user: String,
    /// The envelope recipient, as `recipient` of the configuration makes it; the user where it says nothing.
    pub address: String,
}
