//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use std::path::Path;

use connectord_account::CredentialSource;

use crate::{Config, saved, url, values};

/// Any text is a configuration or a list of problems, each with a place inside of it, whose display is inert and bounded;
/// and no password is shown by either.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.split('\n').count();
    let secrets = passwords(&text);
    let findings = match Config::parse(&text, "fuzz.toml", Path::new("/etc/connectord")) {
        Ok(config) => {
            let shown = format!("{config:?}");
            assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
            config.warnings
        }
        Err(problems) => {
            assert!(!problems.problems.is_empty());
            problems.problems
        }
    };
    for finding in &findings {
        let place = finding.place.expect("every problem has a place");
        assert!((1..=lines).contains(&place.line), "{finding}");
        assert!(finding.excerpts.first().is_some_and(|excerpt| excerpt.line == place.line), "{finding}");
        assert!(finding.excerpts.iter().all(|excerpt| excerpt.text.chars().count() <= 164), "{finding}");
        let shown = finding.to_string();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(!finding.message.contains('\n'), "{shown:?}");
        assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
    }
}

/// Passwords that can be told from the rest: plain words on a line `password = "…"` that stand nowhere else.
fn passwords(text: &str) -> Vec<&str> {
    // Within a text of several lines such a line may be anything.
    if text.contains("\"\"\"") || text.contains("'''") {
        return Vec::new();
    }
    let values = text.lines().filter_map(|line| {
        let value = line.trim().strip_prefix("password")?.trim_start().strip_prefix('=')?.trim_start();
        value.strip_prefix('"')?.strip_suffix('"')
    });
    values
        .filter(|value| value.len() >= 8 && value.bytes().all(|octet| octet.is_ascii_alphanumeric()))
        .filter(|value| text.matches(value).count() == 1)
        .collect()
}

/// Any text is no settings, or settings that come back from their own text and are an account or a list of problems, each
/// about a key that is there or could be, and inert.
pub fn saved(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(settings) = saved::settings_from_text(&text) else { return };
    assert_eq!(saved::settings_from_text(&saved::settings_to_text(&settings)).as_ref(), Ok(&settings));
    let file = "[delivery]\ntype = \"maildir\"\npath = \"/m/{user}\"\n";
    let Ok(file) = Config::parse(file, "fuzz.toml", Path::new("/")) else { unreachable!("the file is well") };
    let password = CredentialSource::Sealed { account: 1, record: Vec::new() };
    let findings = match saved::account_from(&file, "a@b", &settings, true, password.clone()) {
        Ok(read) => {
            assert_eq!((read.account.credential, read.account.address.as_str()), (password, "a@b"));
            read.warnings
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            problems
        }
    };
    for finding in &findings {
        assert!(!finding.to_string().chars().any(char::is_control), "{finding:?}");
    }
}

/// A time, size or URL is a value or an error, and a time that was shown is read as the same.
pub fn values(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(time) = values::duration(&text) {
        assert_eq!(values::duration(&values::show_duration(time)), Some(time));
    }
    let _ = (values::size(&text), values::reserve(&text), values::quiet_hours(&text));
    let _ = (url::parse_fetch_url(&text), url::parse_proxy(&text));
}
