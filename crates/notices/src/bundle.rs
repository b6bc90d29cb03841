use connectord_mail::UnixTime;
use serde::Serialize;

use crate::words::{Notice, rfc3339};

/// Notices that one bundle lists; the others are counted.
pub(crate) const LISTED: usize = 50;

/// What is sent at once: one notice, or a digest of several.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bundle {
    /// Sixteen hexadecimal digits: the same for each attempt and each way.
    pub id: String,
    /// This machine.
    pub machine: String,
    /// When it was made, RFC 3339 in UTC.
    pub at: String,
    /// The notices, at most 50.
    pub notices: Vec<Notice>,
    /// How many more there would have been.
    pub more: usize,
    #[serde(skip)]
    made: UnixTime,
}

impl Bundle {
    pub(crate) fn new(id: u64, machine: &str, made: UnixTime, mut notices: Vec<Notice>) -> Self {
        let more = notices.len().saturating_sub(LISTED);
        notices.truncate(LISTED);
        Self { id: format!("{id:016x}"), machine: machine.to_owned(), at: rfc3339(made), notices, more, made }
    }

    pub(crate) fn made(&self) -> UnixTime {
        self.made
    }

    /// As a program gets it: one JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and lists of them are JSON")
    }

    /// The subject of a mail.
    pub fn title(&self) -> String {
        match &self.notices[..] {
            [one] if self.more == 0 => format!("connectord: {}", one.title),
            several => {
                let count = several.len() + self.more;
                let well = several.iter().filter(|notice| notice.event == "well").count();
                if well == count {
                    format!("connectord: {count} well again")
                } else {
                    format!("connectord: {count} notices")
                }
            }
        }
    }

    /// The text of a mail, lines ended by LF.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let ([one], 0) = (&self.notices[..], self.more) {
            text.push_str(&one.paragraph());
        } else {
            for notice in &self.notices {
                text.push_str(&format!("* {}\n\n{}\n", notice.title, notice.paragraph()));
            }
            if self.more > 0 {
                text.push_str(&format!("and {} more: see the log, or connectord check --online\n", self.more));
            }
        }
        text.push_str(&format!("\n-- \nconnectord on {}. Nobody reads answers to this mail.\n", self.machine));
        text
    }
}
