//! Octets to values: total functions without recursion.

pub(crate) mod command;
pub(crate) mod data;
pub(crate) mod fetch;
pub(crate) mod lex;
pub(crate) mod response;
pub(crate) mod search;

/// Reads a UIDVALIDITY; what no server may send is made into what can be remembered.
///
/// It names a generation and means nothing else, so all that counts is that the same digits give the same value. Some
/// servers count milliseconds and pass 32 bits (seen by NeoMutt's users, 2023, github.com/neomutt/neomutt/issues/3830;
/// GreenMail, 2018, github.com/jstedfast/MailKit/issues/723): both halves are folded into one. SmarterMail (2015,
/// github.com/jstedfast/MailKit/issues/150) and others (2026, github.com/modern-email/defects/issues/52) send 0: that is
/// taken as the highest.
pub(crate) fn uid_validity(digits: &[u8]) -> Option<crate::UidValidity> {
    let [a, b, c, d, e, f, g, h] = number(digits.trim_ascii())?.to_be_bytes();
    let folded = u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes([e, f, g, h]);
    crate::UidValidity::new(if folded == 0 { u32::MAX } else { folded })
}

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
