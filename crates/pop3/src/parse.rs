//! The parsers: one line in, a value or a refusal out; total, linear and tolerant where real servers are sloppy.
//!
//! They take a line without its line end; framing and its limit are [`connectord_wire::Inbox::line`]'s.

mod capability;
mod command;
mod listing;
mod reply;

pub use capability::capability;
pub(crate) use command::is_mechanism;
pub use command::{Auth, Command, CommandError, command};
pub use listing::{Unreadable, announced_octets, size, stat, unique_id};
pub use reply::{Reply, Status, reply};

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64 with or without its padding: some servers leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes a SASL challenge or response; `None` when it is not base64. White space around it does not count.
///
/// ```
/// assert_eq!(connectord_pop3::parse::base64(b"AHRlc3Q= "), Some(b"\0test".to_vec()));
/// ```
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text.trim_ascii()).ok()
}
