//! Tokens that cannot be guessed, and what is kept of them.

use sha2::{Digest, Sha256};

/// 256 random bits in hexadecimal digits.
///
/// # Errors
/// When the system has no randomness to give.
pub(crate) fn fresh() -> Result<String, getrandom::Error> {
    let mut octets = [0; 32];
    getrandom::fill(&mut octets)?;
    Ok(hex(&octets))
}

/// What is kept of a token: its SHA-256. The token is random, so nothing slower is needed.
pub(crate) fn digest(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

pub(crate) fn hex(octets: &[u8]) -> String {
    use std::fmt::Write;
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // Writing to a String never fails.
        let _ = write!(text, "{octet:02x}");
        text
    })
}
