//! What a configuration file says, entry by entry with its line, to be shown to people: secrets left out.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest value that is shown, in characters.
const MAX_VALUE: usize = 500;

/// Most entries that are shown.
const MAX_ENTRIES: usize = 2_000;

/// One entry of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key with those of its tables, such as `delivery.path`.
    pub key: String,
    /// Its value as TOML; `***` for what is or holds a secret.
    pub value: String,
    /// Its line, from 1.
    pub line: u32,
}

/// What a file says, but for its accounts, which have lists of their own; in the file's order, at most 2,000 entries.
///
/// A text that is no TOML says nothing.
///
/// ```
/// let entries = connectord_config::entries("[log]\nlevel = \"debug\"\n");
/// assert_eq!((entries[0].key.as_str(), entries[0].value.as_str(), entries[0].line), ("log.level", "\"debug\"", 2));
/// ```
pub fn entries(text: &str) -> Vec<Entry> {
    let Ok(root) = DeTable::parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    let lines = Lines::of(text);
    for (key, value) in root.get_ref().iter().filter(|(key, _)| key.get_ref() != "account") {
        walk(key.get_ref(), key, value, &lines, &mut found);
    }
    found.sort_by_key(|entry| entry.line);
    found
}

/// The line of each account of a file, by its address in lower case.
pub fn account_lines(text: &str) -> HashMap<String, u32> {
    let Ok(root) = DeTable::parse(text) else { return HashMap::new() };
    let Some(DeValue::Array(accounts)) = root.get_ref().get("account").map(Spanned::get_ref) else {
        return HashMap::new();
    };
    let lines = Lines::of(text);
    let line = |account: &Spanned<DeValue<'_>>| {
        let DeValue::Table(table) = account.get_ref() else { return None };
        let address = table.get("address")?;
        Some((address.get_ref().as_str()?.to_lowercase(), lines.at(address.span().start)))
    };
    accounts.iter().filter_map(line).collect()
}

fn walk(
    path: &str,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    lines: &Lines,
    found: &mut Vec<Entry>,
) {
    if found.len() >= MAX_ENTRIES {
        return;
    }
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table.iter() {
                walk(&format!("{path}.{}", key.get_ref()), key, value, lines, found);
            }
        }
        DeValue::Array(list) if list.iter().any(|item| matches!(item.get_ref(), DeValue::Table(_))) => {
            for (place, item) in list.iter().enumerate() {
                walk(&format!("{path}.{}", place + 1), key, item, lines, found);
            }
        }
        plain => {
            let shown = if is_secret(path, plain) { "***".to_owned() } else { show(plain) };
            found.push(Entry { key: path.to_owned(), value: shown, line: lines.at(key.span().start) });
        }
    }
}

/// Whether a value is a secret, or may hold one: a program's arguments and the userinfo of a URL may.
fn is_secret(path: &str, value: &DeValue<'_>) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    let named = ["password", "secret", "token", "webhook"].contains(&name)
        || (name.contains("password") && name.ends_with("_command"));
    named || value.as_str().is_some_and(|text| text.contains("://") && text.contains('@'))
}

fn show(value: &DeValue<'_>) -> String {
    let text = match value {
        DeValue::String(text) => toml::Value::String(text.to_string()).to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(list) => {
            let items: Vec<String> = list.iter().take(100).map(|item| show(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(_) => "{…}".to_owned(),
    };
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of an octet, from 1.
    fn at(&self, octet: usize) -> u32 {
        u32::try_from(self.0.partition_point(|end| *end < octet) + 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_among_the_entries_of_a_file() {
        let text = "[delivery]\ntype = \"smtp\"\nhost = \"h\"\npassword = \"hunter2\"\n\
                    [notices]\nwebhook = \"https://h/hunter2\"\ncommand = [\"/bin/x\", \"y\"]\n\
                    [filter.rspamd]\nurl = \"http://me:hunter2@h\"\npassword_command = [\"echo\", \"hunter2\"]\n\
                    [filter.rspamd.controller]\npassword = \"hunter2\"\n\
                    [[filter.rules.rule]]\nthen = \"keep\"\n\
                    [[account]]\naddress = \"Ann@x\"\npassword = \"hunter2\"\n";
        let found = entries(text);
        assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
        let of =
            |key: &str| found.iter().find(|entry| entry.key == key).map(|entry| (entry.value.as_str(), entry.line));
        assert_eq!(of("delivery.password"), Some(("***", 4)));
        assert_eq!(of("delivery.host"), Some(("\"h\"", 3)));
        assert_eq!(of("notices.command"), Some(("[\"/bin/x\", \"y\"]", 7)));
        assert_eq!(of("filter.rules.rule.1.then"), Some(("\"keep\"", 14)));
        assert!(found.iter().all(|entry| !entry.key.starts_with("account")));
        assert_eq!(account_lines(text), HashMap::from([("ann@x".to_owned(), 16)]));
        assert_eq!((entries("= x"), account_lines("account = 1").len()), (Vec::new(), 0));
    }
}
