//! Octets to values: total functions without recursion.

pub(crate) mod command;
pub(crate) mod data;
pub(crate) mod fetch;
pub(crate) mod lex;
pub(crate) mod response;
pub(crate) mod search;

/// Reads decimal digits; `None` for none, for anything else, and past 64 bits.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, octet| {
        let digit = char::from(*octet).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}
