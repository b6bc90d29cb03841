//! One message, without I/O.
//!
//! This crate does not decode MIME, opens no file and reads no clock. A message is octets; what is read from them is
//! read tolerantly, and nothing here changes an octet of a body.
//!
//! | item | what it is for |
//! |---|---|
//! | [`Body`] | a message's octets, read piece by piece wherever they are |
//! | [`head`], [`Head`] | header scan: where the header ends, which fields it has |
//! | [`Fingerprint`] | recognises a message whose server has given it another identity |
//! | [`DeliveryId`] | the identity of one message, the same on every attempt |
//! | [`Envelope`] | reverse-path, date, client and the provider's findings, recovered from the header |
//! | [`Received`], [`AuthenticationResults`] | what these fields say, whoever wrote them |
//! | [`relay`], [`Relays`] | whose fields are believed: the walk to the host that handed the message over |
//! | [`Trace`] | the header fields put in front at delivery |
//! | [`LineEnds`] | CRLF to LF by blocks |
//! | [`Status`] | enhanced status codes (RFC 3463) |
//! | [`UnixTime`] | seconds since 1970, and RFC 5322 dates |
//!
//! ```
//! use connectord_mail::{Fingerprint, Head};
//! let message = b"Message-ID: <1@example.org>\r\nSubject: hi\r\n\r\nbody";
//! let head = Head::of(message);
//! assert_eq!(head.field("subject"), Some(&b"hi"[..]));
//! assert_eq!(head.octets().len(), 44);
//! let known = Fingerprint::new(head, message.len() as u64);
//! assert!(known.same_header(&Fingerprint::new(Head::of(message), 48)));
//! ```

mod body;
mod date;
mod envelope;
mod fingerprint;
#[doc(hidden)]
pub mod fuzzing;
pub mod head;
mod id;
mod line_ends;
pub mod received;
pub mod relay;
mod results;
mod status;
mod trace;
mod wild;

pub use body::{Body, Digested};
pub use date::UnixTime;
pub use envelope::Envelope;
pub use fingerprint::{BodyDigest, Fingerprint, names_its_message};
pub use head::Head;
pub use id::{DeliveryId, Identity};
pub use line_ends::LineEnds;
pub use received::Received;
pub use relay::Relays;
pub use results::{AuthenticationResults, MethodResult};
pub use status::Status;
pub use trace::{Trace, loops};
pub use wild::matches as matches_wild;
