//! Parcels that travel together.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use connectord_delivery::{Failure, FailureKind, Note, Parcel};
use connectord_lmtp::Address;
use connectord_mail::{Body, DeliveryId};

use super::link::Begun;
use crate::pool::{DISK_TIMEOUT, SPOOL};
use crate::{DiskPool, trouble};

/// How much of a message is in memory at once, in octets.
pub(crate) const PIECE: usize = 64 * 1024;

/// What MAIL FROM and RCPT TO say.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) reverse_path: Address,
    pub(crate) recipients: Vec<Address>,
    pub(crate) size_octets: Option<u64>,
}

/// One message for one or more of a batch's parcels.
pub(crate) struct Transaction {
    pub(crate) envelope: Envelope,
    /// Index in the batch of each recipient's parcel.
    pub(crate) parcels: Vec<usize>,
    message: DeliveryId,
    trace: Bytes,
    body: Arc<dyn Body>,
}

/// The address of a parcel's recipient.
pub(crate) fn recipient(address: &str) -> Result<Address, Failure> {
    let wrong = |what: String| Failure::new(FailureKind::Misconfigured, format!("recipient {address:?}: {what}"));
    match Address::parse(address) {
        Ok(address) if address.is_null() => Err(wrong("empty address".to_owned())),
        Ok(address) => Ok(address),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Puts parcels into as few transactions as there are messages, and names those that cannot be sent at all.
///
/// A reverse-path that cannot travel becomes the null one: it comes from the message, which shall arrive in any case.
pub(crate) fn group(batch: &[Parcel]) -> (Vec<Transaction>, Vec<(usize, Failure)>) {
    let (mut transactions, mut unsendable) = (Vec::<Transaction>::new(), Vec::new());
    for (index, parcel) in batch.iter().enumerate() {
        let address = match recipient(&parcel.recipient.address) {
            Ok(address) => address,
            Err(failure) => {
                unsendable.push((index, failure));
                continue;
            }
        };
        let reverse_path = Address::parse(&parcel.reverse_path).unwrap_or_default();
        let same = transactions.iter_mut().find(|t| t.takes(parcel, &reverse_path, &address));
        if let Some(transaction) = same {
            transaction.envelope.recipients.push(address);
            transaction.parcels.push(index);
            continue;
        }
        let size_octets = Some(parcel.body.crlf_octets().saturating_add(parcel.trace.len() as u64));
        transactions.push(Transaction {
            envelope: Envelope { reverse_path, recipients: vec![address], size_octets },
            parcels: vec![index],
            message: parcel.message,
            trace: parcel.trace.clone(),
            body: parcel.body.clone(),
        });
    }
    (transactions, unsendable)
}

impl Transaction {
    /// Whether the parcel is the same octets from the same sender for somebody else. Addresses that need SMTPUTF8 stay
    /// apart from those that do not: a server without it can still deliver to these.
    fn takes(&self, parcel: &Parcel, reverse_path: &Address, recipient: &Address) -> bool {
        self.message == parcel.message
            && self.envelope.reverse_path == *reverse_path
            && self.trace == parcel.trace
            && Arc::ptr_eq(&self.body, &parcel.body)
            && !self.envelope.recipients.contains(recipient)
            && self.envelope.recipients.iter().all(|other| other.is_ascii() == recipient.is_ascii())
    }

    /// All its parcels fail alike.
    pub(crate) fn fail(&self, failure: &Failure, notes: &mut [Option<Result<Option<Note>, Failure>>]) {
        for parcel in &self.parcels {
            notes[*parcel] = Some(Err(failure.clone()));
        }
    }

    /// Writes down what the recipients were answered; returns the accepted ones, or `None` when there are none.
    pub(crate) fn note(&self, begun: Begun, notes: &mut [Option<Result<Option<Note>, Failure>>]) -> Option<Vec<usize>> {
        let results = match begun {
            Begun::Answered(results) => results,
            Begun::SenderRefused(failure) => {
                self.fail(&failure, notes);
                return None;
            }
        };
        let mut accepted = Vec::new();
        for (index, result) in results.into_iter().enumerate() {
            if result.is_ok() {
                accepted.push(index);
            }
            notes[self.parcels[index]] = Some(result.map(|()| None));
        }
        (!accepted.is_empty()).then_some(accepted)
    }

    /// The message from its first octet on.
    pub(crate) fn pieces(&self) -> Pieces {
        Pieces { trace: self.trace.clone(), body: self.body.clone(), offset: 0 }
    }
}

/// Reads a message: the fields in front, then the body.
pub(crate) struct Pieces {
    trace: Bytes,
    body: Arc<dyn Body>,
    offset: u64,
}

impl Pieces {
    /// The next piece, at most 64 KiB; empty at the end of the message.
    ///
    /// # Errors
    /// What the storage says, or that the body is shorter than it was said to be: a message cut short is never ended.
    pub(crate) async fn next(&mut self) -> io::Result<Bytes> {
        if self.body.as_slice().is_some() || self.is_in_memory() {
            return self.next_blocking();
        }
        let (body, offset) = (self.body.clone(), self.offset);
        let piece = DiskPool::shared().run(SPOOL, DISK_TIMEOUT, move || read(body.as_ref(), offset)).await;
        let lost = |lost| io::Error::other(trouble::lost("reading the message", SPOOL, lost).text);
        let piece = piece.map_err(lost)??;
        self.offset += piece.len() as u64;
        Ok(piece)
    }

    /// As [`Pieces::next`], on this thread.
    pub(crate) fn next_blocking(&mut self) -> io::Result<Bytes> {
        if !self.trace.is_empty() {
            return Ok(self.trace.split_to(PIECE.min(self.trace.len())));
        }
        if self.is_in_memory() {
            return Ok(Bytes::new());
        }
        let piece = read(self.body.as_ref(), self.offset)?;
        self.offset += piece.len() as u64;
        Ok(piece)
    }

    /// Whether the next piece, or the end, needs no reading.
    fn is_in_memory(&self) -> bool {
        !self.trace.is_empty() || self.offset >= self.body.size_octets()
    }
}

fn read(body: &dyn Body, offset: u64) -> io::Result<Bytes> {
    let left = body.size_octets().saturating_sub(offset);
    let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
    let count = body.read_at(offset, &mut piece)?;
    if count == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "message is shorter than it was said to be"));
    }
    piece.truncate(count);
    Ok(piece.into())
}
