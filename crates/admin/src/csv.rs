//! Accounts as CSV (RFC 4180): read with a dry run and a reason for each refused line, written without secrets.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use crate::app::Ask;
use crate::backend::{AccountQuery, Entered, Refusal, Saving, Secret, Settings};
use crate::entered::{problems, secret_problem};
use crate::escape;

/// Columns in the order they are written. `secret` is read and never written.
const COLUMNS: [&str; 12] = [
    "address",
    "protocol",
    "security",
    "host",
    "port",
    "username",
    "deliver_to",
    "check",
    "delete",
    "folders",
    "enabled",
    "note",
];

/// Lines at most.
const LINES: usize = 10_000;

/// Lines that are seen to at once: each may wait for a server. As few as no provider minds.
const AT_ONCE: usize = 8;

/// What becomes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Add,
    Update,
    Same,
    /// The field and the problem, a key below `problem.`.
    Refused(String, String),
}

impl Outcome {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Same => "same",
            Self::Refused(..) => "refused",
        }
    }
}

/// One line of the file.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) address: String,
    pub(crate) outcome: Outcome,
}

/// The head of an export.
pub(crate) fn head() -> String {
    format!("{}\r\n", COLUMNS.join(","))
}

/// One account of an export.
pub(crate) fn line(settings: &Settings) -> String {
    let mut fields: HashMap<_, _> = settings.fields().into_iter().collect();
    // A line for each only where one has a semicolon in its name: people read and write these files.
    let folders = match settings.folders.iter().any(|folder| folder.contains(';')) {
        true => settings.folders.iter().map(|folder| format!("{folder}\n")).collect(),
        false => settings.folders.join(";"),
    };
    fields.insert("folders", folders);
    let values: Vec<String> = COLUMNS.iter().map(|column| escape::csv(&fields[column])).collect();
    format!("{}\r\n", values.join(","))
}

/// Reads records; `None` when a quote does not end.
pub(crate) fn records(text: &str) -> Option<Vec<Vec<String>>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Spreadsheets of half of Europe write semicolons.
    let first = text.lines().next().unwrap_or("");
    let comma = if first.matches(';').count() > first.matches(',').count() { ';' } else { ',' };
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            '\r' if !quoted => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            c if c == comma && !quoted => record.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return None;
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records.retain(|record| record.iter().any(|field| !field.is_empty()));
    Some(records)
}

/// Settings and secret of a record, over what is there or the defaults.
pub(crate) fn entered(columns: &[String], record: &[String], before: &Settings) -> Result<Entered, (String, String)> {
    let mut settings = before.clone();
    let mut secret = None;
    for (column, value) in columns.iter().zip(record) {
        let value = value.strip_prefix('\'').filter(|rest| escape::is_formula(rest)).unwrap_or(value);
        let wrong = |problem: &str| (column.clone(), problem.to_owned());
        match (column.as_str(), value) {
            ("secret" | "password", value) => secret = Secret::entered(value.to_owned()),
            (_, "") => {}
            ("address", value) => settings.address = value.to_owned(),
            ("protocol", value) => settings.protocol = value.to_lowercase().parse().map_err(|_| wrong("no_choice"))?,
            ("security", value) => settings.security = value.to_lowercase().parse().map_err(|_| wrong("no_choice"))?,
            ("host", value) => settings.host = value.to_owned(),
            ("port", value) => settings.port = Some(value.parse().map_err(|_| wrong("no_port"))?),
            ("username", value) => settings.username = value.to_owned(),
            ("deliver_to", value) => {
                settings.deliver_to = value.split([',', ';']).map(|user| user.trim().to_owned()).collect()
            }
            ("check", value) => settings.check = value.parse().map_err(|_| wrong("no_minutes"))?,
            ("delete", value) => settings.delete = value.parse().map_err(|_| wrong("no_days"))?,
            ("folders", value) => {
                let folders = value.split(if value.contains('\n') { '\n' } else { ';' }).map(str::trim);
                settings.folders = folders.filter(|folder| !folder.is_empty()).map(str::to_owned).collect();
            }
            ("enabled", value) => settings.enabled = matches!(value, "yes" | "true" | "1"),
            ("note", value) => settings.note = value.to_owned(),
            _ => return Err(wrong("no_field")),
        }
    }
    Ok(Entered { settings, secret })
}

/// Reads accounts; with `dry` it only says what would become of each line.
///
/// An address that is there already is updated. One line that is refused stops no other.
///
/// # Errors
/// A key below `import.`, when nothing can be read at all; then nothing was done.
pub(crate) async fn import(ask: &Ask, text: &str, dry: bool, untested: bool) -> Result<Vec<Line>, &'static str> {
    let mut records = records(text).ok_or("open_quote")?.into_iter();
    let columns: Vec<String> =
        records.next().ok_or("empty")?.into_iter().map(|name| name.trim().to_lowercase()).collect();
    if !["address", "host", "deliver_to"].iter().all(|needed| columns.iter().any(|column| column == needed)) {
        return Err("columns");
    }
    let records: Vec<_> = records.collect();
    if records.len() > LINES {
        return Err("too_many");
    }
    let columns = &columns;
    let lines = stream::iter(records.into_iter().enumerate()).map(|(index, record)| async move {
        let outcome = one(ask, columns, &record, dry, untested).await;
        let address = columns
            .iter()
            .position(|column| column == "address")
            .and_then(|at| record.get(at))
            .cloned()
            .unwrap_or_default();
        Line { number: index + 2, address, outcome }
    });
    Ok(lines.buffered(AT_ONCE).collect().await)
}

async fn one(ask: &Ask, columns: &[String], record: &[String], dry: bool, untested: bool) -> Outcome {
    let refused = |field: &str, problem: &str| Outcome::Refused(field.to_owned(), problem.to_owned());
    if record.len() != columns.len() {
        return refused("", "columns");
    }
    let address = columns.iter().position(|column| column == "address").map_or("", |at| record[at].as_str());
    let there = match find(ask, address).await {
        Ok(there) => there,
        Err(error) => return refused("", &error.to_string()),
    };
    let before = there.as_ref().map(|account| (account.settings.clone(), account.secret.set));
    let start = before.as_ref().map(|(settings, _)| settings.clone()).unwrap_or_default();
    let entered = match entered(columns, record, &start) {
        Ok(entered) => entered,
        Err((field, problem)) => return Outcome::Refused(field, problem),
    };
    let wrong = problems(&entered.settings).into_iter().chain(secret_problem(&entered, before.as_ref())).next();
    if let Some(problem) = wrong {
        return Outcome::Refused(problem.field, problem.problem);
    }
    let (outcome, done) = match there {
        Some(account) if account.place.is_some() => return refused("address", "from_file"),
        Some(account) if account.settings == entered.settings && entered.secret.is_none() => return Outcome::Same,
        _ if dry => return if before.is_some() { Outcome::Update } else { Outcome::Add },
        Some(account) => {
            let saving = Saving { if_match: Some(account.row.etag.clone()), untested, ..Saving::default() };
            (Outcome::Update, ask.app.backend.update(&ask.by.caller, &account.row.id, entered, saving).await)
        }
        None => {
            let saving = Saving { untested, ..Saving::default() };
            (Outcome::Add, ask.app.backend.create(&ask.by.caller, entered, saving).await.map(drop))
        }
    };
    match done {
        Ok(()) => outcome,
        Err(Refusal::Fields(wrong)) => match wrong.into_iter().next() {
            Some(problem) => Outcome::Refused(problem.field, problem.problem),
            None => refused("", "no_choice"),
        },
        Err(Refusal::TestFailed(_)) => refused("", "test_failed"),
        Err(Refusal::Duplicate { .. }) => refused("", "duplicate"),
        Err(Refusal::Changed { .. }) => refused("", "changed"),
        Err(other) => refused("", &other.to_string()),
    }
}

/// The account with this address, case aside.
async fn find(ask: &Ask, address: &str) -> Result<Option<crate::backend::Account>, Refusal> {
    let query = AccountQuery { text: address.to_owned(), limit: 200, ..AccountQuery::default() };
    let (rows, _) = ask.app.backend.accounts(&query).await?;
    match rows.items.into_iter().find(|row| row.address.eq_ignore_ascii_case(address)) {
        Some(row) => ask.app.backend.account(&row.id).await.map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::{line, records};
    use crate::backend::Settings;

    #[test]
    fn quotes_line_ends_and_semicolons_are_read() {
        let read = records("\u{feff}a;b\r\n\"x;\"\"y\"\"\n2\";z\r\n\r\n").expect("read");
        assert_eq!(read, [vec!["a", "b"], vec!["x;\"y\"\n2", "z"]]);
        assert_eq!(records("a,\"b"), None);
        assert_eq!(records("").map(|read| read.len()), Some(0));
    }

    #[test]
    fn what_is_written_is_read_back_and_holds_no_formula() {
        let settings = Settings { address: "=cmd()".into(), note: "x,\"y\"\nz;".into(), ..Settings::default() };
        assert!(line(&settings).starts_with("\"'=cmd()\","));
        let folders = vec!["a;b".into(), "c".into()];
        for settings in [
            settings,
            Settings { username: "'=cmd()".into(), note: "\n\ty".into(), ..Settings::default() },
            Settings { folders, note: "''@".into(), ..Settings::default() },
        ] {
            let read = records(&line(&settings)).expect("read");
            let columns: Vec<String> = super::COLUMNS.iter().map(|name| (*name).to_owned()).collect();
            let back = super::entered(&columns, &read[0], &Settings::default()).expect("settings");
            assert_eq!(back.settings, settings);
        }
    }
}
