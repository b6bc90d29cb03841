/// Longest name that is compared, in octets; what is longer is near to nothing.
const MAX_LENGTH: usize = 64;

/// What people write, coming from other programs, and what it is called here.
const SYNONYMS: [(&str, &str); 33] = [
    ("cafile", "ca_file"),
    ("email", "address"),
    ("fingerprint", "pin"),
    ("folder", "folders"),
    ("hostname", "host"),
    ("interval", "check_every"),
    ("keep", "delete"),
    ("local_user", "deliver_to"),
    ("login", "username"),
    ("mailbox", "folders"),
    ("mailboxes", "folders"),
    ("name", "address"),
    ("passwd", "password"),
    ("password_eval", "password_command"),
    ("passwordeval", "password_command"),
    ("poll", "check_every"),
    ("retention", "delete"),
    ("server", "host"),
    ("ssl", "security"),
    ("starttls", "security"),
    ("tls", "security"),
    ("to", "deliver_to"),
    ("user", "username"),
    ("accounts", "account"),
    ("deliveries", "delivery"),
    ("filters", "filter"),
    ("logging", "log"),
    ("timeout", "timeouts"),
    ("blacklist", "block_from"),
    ("clamd", "clamav"),
    ("spamd", "spamassassin"),
    ("trusted_networks", "trusted_relays"),
    ("whitelist", "allow_from"),
];

/// The known name that was most likely meant, if any is near.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > MAX_LENGTH {
        return None;
    }
    let name = name.to_lowercase().replace('-', "_");
    let synonym = SYNONYMS.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours);
    if let Some(ours) = synonym.and_then(|ours| known.iter().find(|known| **known == ours)) {
        return Some(ours);
    }
    let bound = (name.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|known| (distance(&name, &known.to_lowercase()), *known))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many characters must be put in, taken out, replaced or swapped with their neighbour (Levenshtein, restricted Damerau).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_single_mistakes() {
        let pairs = [("kitten", "sitting"), ("", "abc"), ("abc", "abc"), ("levle", "level"), ("ab", "ba"), ("abc", "")];
        assert_eq!(pairs.map(|(a, b)| distance(a, b)), [3, 3, 0, 1, 1, 3]);
    }

    #[test]
    fn a_name_is_near_by_spelling_or_by_custom_and_otherwise_not_at_all() {
        let known = ["address", "delete", "delete_by", "host", "password", "username"];
        assert_eq!(nearest("delet", &known), Some("delete"));
        assert_eq!(nearest("Delete-By", &known), Some("delete_by"));
        assert_eq!(nearest("user", &known), Some("username"));
        assert_eq!(nearest("passwort", &known), Some("password"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest(&"x".repeat(100_000), &known), None);
    }
}
