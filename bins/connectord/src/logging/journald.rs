//! Entries of the systemd journal, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use std::path::Path;
use std::time::UNIX_EPOCH;

use super::record::Record;
use super::syslog::Datagrams;
use super::text::{body_with_severity, cut, severity};
use super::writer::{Refused, Sink};

/// The journal's socket.
pub(crate) const SOCKET: &str = "/run/systemd/journal/socket";

/// Longest entry, in octets: far above any record, well below the usual limit of a datagram (208 KiB).
const MAX_ENTRY: usize = 128 * 1024;

/// Room kept for the fields that every entry has, and for a field's name and length.
const RESERVE: usize = 256;

/// One datagram per entry.
pub(crate) struct Journald {
    socket: Datagrams,
    max: usize,
}

impl Journald {
    pub(crate) fn new(path: impl AsRef<Path>) -> Self {
        Self { socket: Datagrams::new(path.as_ref()), max: MAX_ENTRY }
    }
}

impl Sink for Journald {
    fn encode(&self, record: &Record) -> Vec<u8> {
        let mut entry = Vec::with_capacity(2 * record.octets());
        field(&mut entry, "PRIORITY", &severity(record.level).to_string());
        field(&mut entry, "SYSLOG_FACILITY", "2");
        field(&mut entry, "SYSLOG_IDENTIFIER", "connectord");
        field(&mut entry, "SYSLOG_PID", &std::process::id().to_string());
        if let Ok(since) = record.at.duration_since(UNIX_EPOCH) {
            field(&mut entry, "SYSLOG_TIMESTAMP", &since.as_secs().to_string());
        }
        // The message is the whole line: it is all that journalctl shows, and what is handed on to syslog.
        let message = cut(body_with_severity(record), self.max.saturating_sub(RESERVE) / 2);
        field(&mut entry, "MESSAGE", &message);
        field(&mut entry, "TARGET", record.target);
        for (name, value) in &record.fields {
            let room = self.max.saturating_sub(entry.len() + RESERVE);
            if let Some(name) = name_of(name)
                && room > 0
            {
                field(&mut entry, &name, &cut(value.clone(), room));
            }
        }
        entry
    }

    fn send(&mut self, octets: &[u8]) -> Result<usize, Refused> {
        self.socket.send(octets, &mut self.max)
    }
}

/// `NAME=value`, or with its length when the value has more than one line.
fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// Names have capitals, digits and underscores, start with a letter and are at most 64 long; those that mean something
/// to the journal are not for our values.
fn name_of(name: &str) -> Option<String> {
    let upper = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let name: String = upper.skip_while(|c| !c.is_ascii_alphabetic()).take(50).collect();
    let taken = ["MESSAGE", "MESSAGE_ID", "PRIORITY", "TARGET", "ERRNO", "UNIT", "USER_UNIT"];
    let reserved = taken.contains(&name.as_str())
        || ["SYSLOG_", "CODE_", "OBJECT_", "COREDUMP_"].iter().any(|prefix| name.starts_with(prefix));
    match (name.is_empty(), reserved) {
        (true, _) => None,
        (false, true) => Some(format!("CONNECTORD_{name}")),
        (false, false) => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::Level;

    use super::*;

    fn record() -> Record {
        Record {
            at: UNIX_EPOCH + Duration::from_secs(1_796_067_060),
            level: Level::INFO,
            target: "connectord::mail",
            message: "delivery".into(),
            fields: vec![("account", "a@example.org".into()), ("message_id", "<1@x>".into()), ("from", String::new())],
        }
    }

    #[test]
    fn an_entry_has_the_line_and_each_value() {
        let entry = String::from_utf8(Journald::new("/nowhere").encode(&record())).unwrap();
        let pid = std::process::id();
        assert_eq!(
            entry,
            format!(
                "PRIORITY=6\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=connectord\nSYSLOG_PID={pid}\n\
                 SYSLOG_TIMESTAMP=1796067060\nMESSAGE=delivery account=a@example.org message_id=<1@x> from=<>\n\
                 TARGET=connectord::mail\nACCOUNT=a@example.org\n\
                 CONNECTORD_MESSAGE_ID=<1@x>\nFROM=\n"
            )
        );
    }

    #[test]
    fn a_value_of_several_lines_comes_with_its_length() {
        let mut entry = Vec::new();
        field(&mut entry, "DETAIL", "a\nPRIORITY=0");
        assert_eq!(entry, b"DETAIL\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n");
    }

    #[test]
    fn names_are_what_the_journal_takes() {
        let named = |name| name_of(name);
        assert_eq!(named("message_id").as_deref(), Some("CONNECTORD_MESSAGE_ID"));
        assert_eq!(named("delay_ms").as_deref(), Some("DELAY_MS"));
        assert_eq!(named("_pid").as_deref(), Some("PID"));
        assert_eq!(named("http.status").as_deref(), Some("HTTP_STATUS"));
        assert_eq!(named("priority").as_deref(), Some("CONNECTORD_PRIORITY"));
        assert_eq!(named("1"), None);
    }

    #[test]
    fn an_entry_is_never_longer_than_its_maximum() {
        let fields = vec![("detail", "ü".repeat(2000)), ("error", "x".repeat(4000)), ("status", "failed".into())];
        let record = Record { fields, ..record() };
        for max in [512, 600, 1000, 4000, 8000, 20_000] {
            let entry = Journald { max, ..Journald::new("/nowhere") }.encode(&record);
            assert!(entry.len() <= max, "{} > {max}", entry.len());
        }
    }
}
