/// Why options make no filter: what is wrong and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(pub(crate) String);

/// Whether a filter may be called so, as [`connectord_filter::Filter::name`] has it.
pub(crate) fn named(name: String) -> Result<String, OptionsError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(OptionsError(format!(
            "{name:?} is no name of a filter: expected 1 to 64 letters, digits, \"-\", \"_\" and \".\""
        )));
    }
    Ok(name)
}

/// A text that is sent in a line of its own: no control characters, at most 255 octets.
pub(crate) fn sendable(what: &str, text: &str) -> Result<(), OptionsError> {
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err(OptionsError(format!("{what} must have 1 to 255 octets, and no control characters")));
    }
    Ok(())
}
