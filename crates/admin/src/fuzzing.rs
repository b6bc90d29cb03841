//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use crate::backend::Settings;
use crate::{csv, entered};

/// Any text is a list of accounts or none; of each line the settings are read or the field is named that is wrong, no
/// secret is shown, and what is well is written so that it is read as the same and no spreadsheet calculates it.
pub fn csv_import(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(records) = csv::records(&text) else { return };
    let Some((head, rest)) = records.split_first() else { return };
    assert!(records.iter().map(Vec::len).sum::<usize>() <= text.len() + records.len());
    let columns: Vec<String> = head.iter().map(|name| name.trim().to_lowercase()).collect();
    for record in rest.iter().filter(|record| record.len() == columns.len()) {
        let read = match csv::entered(&columns, record, &Settings::default()) {
            Ok(read) => read,
            Err((field, _)) => {
                assert!(columns.contains(&field), "{field:?}");
                continue;
            }
        };
        if let Some(secret) = &read.secret {
            let others = columns.iter().zip(record).filter(|(name, _)| !matches!(&***name, "secret" | "password"));
            let stands_elsewhere = others.into_iter().any(|(_, value)| value.contains(secret.expose()));
            // Shorter ones are part of what is printed anyway.
            let told = secret.expose().len() >= 32 && format!("{read:?}").contains(secret.expose());
            assert!(!told || stands_elsewhere);
        }
        if entered::problems(&read.settings).is_empty() {
            comes_back(&read.settings);
        }
    }
}

fn comes_back(settings: &Settings) {
    let written = csv::records(&(csv::head() + &csv::line(settings))).expect("quotes are closed");
    let [columns, record] = &written[..] else { panic!("{} lines", written.len()) };
    assert_eq!(columns.len(), record.len());
    assert!(record.iter().all(|field| !field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])), "{record:?}");
    let read = csv::entered(columns, record, &Settings::default()).expect("what is written is read");
    assert_eq!((read.settings, read.secret.is_none()), (settings.clone(), true));
}
