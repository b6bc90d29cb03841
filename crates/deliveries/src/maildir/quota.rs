use std::io::{self, Read};

use super::disk::{DiskDir, DiskFile};
use super::names;

/// Longest `maildirsize` that is read; programs rewrite it beyond 5,120 octets.
const MAX_FILE: u64 = 64 * 1024;

/// Limits and use of a Maildir++ mailbox, from its `maildirsize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) max_octets: Option<u64>,
    pub(super) max_messages: Option<u64>,
    pub(super) octets: i64,
    pub(super) messages: i64,
}

impl Quota {
    /// Reads `maildirsize`; `None` where there is none, or none that can be read: then nobody keeps a quota this way.
    pub(super) fn read(maildir: &dyn DiskDir) -> Option<Self> {
        let file = maildir.open_file("maildirsize").ok()?;
        let mut text = String::new();
        Reading(file).take(MAX_FILE).read_to_string(&mut text).ok()?;
        Self::parse(&text)
    }

    /// The first line is `1000000S,1000C`, each of the others `<octets> <messages>` to be summed up.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let mut quota = Self::default();
        for limit in first.trim().split(',') {
            let value = |unit| limit.trim().strip_suffix(unit)?.parse().ok().filter(|value| *value > 0);
            quota.max_octets = value('S').or(quota.max_octets);
            quota.max_messages = value('C').or(quota.max_messages);
        }
        for line in rest.lines() {
            let mut words = line.split_ascii_whitespace().map(str::parse::<i64>);
            let (Some(Ok(octets)), Some(Ok(messages))) = (words.next(), words.next()) else { continue };
            quota.octets = quota.octets.saturating_add(octets);
            quota.messages = quota.messages.saturating_add(messages);
        }
        (quota.max_octets.is_some() || quota.max_messages.is_some()).then_some(quota)
    }

    /// Counts one more message in, if there is room for it.
    pub(super) fn take(&mut self, size_octets: u64) -> bool {
        let octets = self.octets.saturating_add(i64::try_from(size_octets).unwrap_or(i64::MAX));
        let messages = self.messages.saturating_add(1);
        let within = |used: i64, max: Option<u64>| max.is_none_or(|max| u64::try_from(used).unwrap_or(0) <= max);
        let fits = within(octets, self.max_octets) && within(messages, self.max_messages);
        if fits {
            (self.octets, self.messages) = (octets, messages);
        }
        fits
    }

    /// The same with what is really there: readers are slow to correct `maildirsize`, and nobody should wait for that.
    pub(super) fn recounted(self, maildir: &dyn DiskDir) -> io::Result<Self> {
        let mut sum = Self { octets: 0, messages: 0, ..self };
        let mut folders = Vec::new();
        maildir.each_name(&mut |name| {
            if name.starts_with(b".") && name != b".Trash" {
                folders.extend(String::from_utf8(name.to_vec()));
            }
        })?;
        sum.count(maildir);
        for folder in folders {
            if let Ok(folder) = maildir.open_dir(&folder) {
                sum.count(&*folder);
            }
        }
        Ok(sum)
    }

    fn count(&mut self, maildir: &dyn DiskDir) {
        for part in ["cur", "new"] {
            let Ok(part) = maildir.open_dir(part) else { continue };
            // What cannot be listed is not counted; the worst is a message too many.
            let _ = part.each_name(&mut |name| {
                // Maildir++: messages marked as deleted are not counted.
                let flags = memchr::memmem::find(name, b":2,").map_or(&[][..], |at| &name[at + 3..]);
                if flags.contains(&b'T') || name.starts_with(b".") {
                    return;
                }
                let stated =
                    || part.open_file(std::str::from_utf8(name).ok()?).ok()?.stat().ok().map(|s| s.size_octets);
                let size = names::size_of(name).or_else(stated).unwrap_or(0);
                self.octets = self.octets.saturating_add(i64::try_from(size).unwrap_or(i64::MAX));
                self.messages = self.messages.saturating_add(1);
            });
        }
    }
}

/// Adds delivered messages to `maildirsize`, in one write as Maildir++ says.
pub(super) fn append(maildir: &dyn DiskDir, sizes: &[u64]) -> io::Result<()> {
    let lines: String = sizes.iter().map(|size| format!("{size} 1\n")).collect();
    maildir.open_append("maildirsize")?.write(lines.as_bytes())?;
    Ok(())
}

struct Reading(Box<dyn DiskFile>);

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_lines_are_summed() {
        let quota = Quota::parse("1000S,3C\n  400 1\n300 1\n-100 -1\nnoise\n").unwrap();
        assert_eq!(quota, Quota { max_octets: Some(1000), max_messages: Some(3), octets: 600, messages: 1 });
        let mut left = quota;
        assert_eq!([400, 1, 0, 0].map(|size| left.take(size)), [true, false, true, false]);
        assert_eq!(Quota::parse(""), None);
        assert_eq!(Quota::parse("0S\n1 1\n"), None);
        assert_eq!(Quota::parse("10C").unwrap().max_messages, Some(10));
    }
}
