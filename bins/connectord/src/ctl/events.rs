//! Server-sent events, as far as the daemon sends them: `event`, `data`, comments (WHATWG HTML §9.2.6).

/// Longest event that is taken, in octets.
const MAX_EVENT: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Such as `account` or `log`.
    pub(crate) name: String,
    /// JSON.
    pub(crate) data: String,
}

/// An event has no end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {MAX_EVENT} octets")]
pub(crate) struct TooLong;

/// Takes events out of a stream, however it is cut.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    line: Vec<u8>,
    event: Event,
}

impl Reader {
    /// The events that are complete with these octets.
    pub(crate) fn feed(&mut self, octets: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        let mut rest = octets;
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            self.keep(&rest[..end])?;
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            events.extend(self.line(&String::from_utf8_lossy(&line)));
        }
        self.keep(rest)?;
        Ok(events)
    }

    fn keep(&mut self, octets: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.event.data.len() + octets.len() > MAX_EVENT {
            return Err(TooLong);
        }
        self.line.extend_from_slice(octets);
        Ok(())
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment has an empty name.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": still here\n\nid: 1\nevent: log\ndata: {\"a\":1}\n\nevent: account\r\ndata:x\r\ndata: \xc3\xbc\r\n\r\nevent: no\n\n";

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
        let all = vec![event("log", "{\"a\":1}"), event("account", "x\nü")];
        for cut in 0..=STREAM.len() {
            let mut reader = Reader::default();
            let mut events = reader.feed(&STREAM[..cut]).unwrap();
            events.extend(reader.feed(&STREAM[cut..]).unwrap());
            assert_eq!(events, all, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        for endless in [&b"data: xxxxxxxxxxxxxxxxxxxxxxxxx"[..], b"data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"] {
            let mut reader = Reader::default();
            let fed = (0..100_000).find_map(|_| reader.feed(endless).err());
            assert_eq!(fed, Some(TooLong));
        }
    }
}
