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
        if read.secret.is_some() {
            let hide = |(name, value): (&String, &String)| match &**name {
                "secret" | "password" => "another".to_owned(),
                _ => value.clone(),
            };
            let hidden: Vec<String> = columns.iter().zip(record).map(hide).collect();
            let hidden = csv::entered(&columns, &hidden, &Settings::default()).expect("any secret is one");
            assert_eq!(format!("{read:?}"), format!("{hidden:?}"), "it shows what the secret is");
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
