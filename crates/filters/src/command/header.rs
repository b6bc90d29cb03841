use connectord_filter::HeaderChange;
use connectord_mail::Head;

/// Most fields that are taken of an output.
const MAX_FIELDS: usize = 100;

/// Longest value that is taken, in octets.
const MAX_VALUE: usize = 4096;

/// Fields that tell where a message was and what it is: a filter's output changes none of them.
const KEPT: &[&str] = &["Received", "Return-Path", "Delivered-To", "From", "Date", "Message-ID"];

/// What has to change so that a message with this header has the fields of the output.
///
/// A field stands for all of its name: when the output has as many with the same values as the message, nothing changes;
/// else those of the message go, and those of the output come. What the output does not have stays.
pub(crate) fn changes(head: Head<'_>, output: &[u8]) -> Vec<HeaderChange> {
    let output = Head::of(output);
    let mut names: Vec<String> = Vec::new();
    for field in output.fields() {
        let name = String::from_utf8_lossy(field.name).into_owned();
        let known = names.iter().any(|known| known.eq_ignore_ascii_case(&name));
        if !known && !KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(&name)) {
            names.push(name);
        }
    }
    let mut changes = Vec::new();
    for name in names {
        let values = values(output, &name);
        let old = self::values(head, &name);
        if values == old || changes.len() + values.len() >= MAX_FIELDS {
            continue;
        }
        if !old.is_empty() {
            changes.push(HeaderChange::Remove { name: name.clone(), nth: 0 });
        }
        changes.extend(values.into_iter().map(|value| HeaderChange::Add { name: name.clone(), value }));
    }
    changes
}

fn values(head: Head<'_>, name: &str) -> Vec<String> {
    let value = |unfolded: Vec<u8>| {
        let text = String::from_utf8_lossy(&unfolded[..unfolded.len().min(MAX_VALUE)]);
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
    };
    head.fields().filter(|field| field.is(name)).map(|field| value(field.unfolded())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str, value: &str) -> HeaderChange {
        HeaderChange::Add { name: name.into(), value: value.into() }
    }

    #[test]
    fn fields_of_the_output_replace_those_of_their_name_and_no_others() {
        let message = b"Received: from a by b\r\nSubject: hi\r\nX-Two: 1\r\nX-Two: 2\r\nX-Old: x\r\n\r\nbody\r\n";
        let remove = |name: &str| HeaderChange::Remove { name: name.into(), nth: 0 };
        for (output, expected) in [
            (&b""[..], vec![]),
            (message, vec![]),
            (b"X-New: a\r\n b\r\n", vec![add("X-New", "a b")]),
            (b"subject: [x] hi\n\n", vec![remove("subject"), add("subject", "[x] hi")]),
            (b"X-Two: 1\n", vec![remove("X-Two"), add("X-Two", "1")]),
            (b"X-Two: 1\nX-Two: 2\n", vec![]),
            (b"From: forger\nReceived: no\nMessage-Id: <x>\nX-New: a\x1b\n", vec![add("X-New", "a")]),
            (b"a line that is no field\n", vec![]),
        ] {
            assert_eq!(changes(Head::of(message), output), expected, "{}", String::from_utf8_lossy(output));
        }
    }

    #[test]
    fn an_output_of_many_fields_is_bounded() {
        let output = "X-A: 1\n".repeat(90) + &"X-B: 1\n".repeat(90);
        assert_eq!(changes(Head::of(b""), output.as_bytes()).len(), 90);
    }
}
