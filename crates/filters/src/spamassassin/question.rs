use connectord_filter::Message;
use connectord_mail::MethodResult;
use connectord_mail::relay::{Client, Handoff};

/// The request for a message of so many octets behind `front`.
pub(super) fn symbols(user: Option<&str>, front: &[u8], size: u64) -> Vec<u8> {
    let length = front.len() as u64 + size;
    let user = user.map(|user| format!("User: {user}\r\n")).unwrap_or_default();
    let mut request = format!("SYMBOLS SPAMC/1.5\r\nContent-length: {length}\r\n{user}\r\n").into_bytes();
    request.extend_from_slice(front);
    request
}

/// What only the copy for spamd begins with: what the provider found out, and above all who handed the message over.
/// Nothing when that is unknown.
pub(super) fn front(message: &Message) -> Vec<u8> {
    let Client::Known(client) = &message.envelope.client else { return Vec::new() };
    let mut front = String::new();
    for field in &message.envelope.authentication {
        // Outlook.com leaves its name out, which its own host has.
        let id = word(&field.authserv_id).or_else(|| word(&client.by)).unwrap_or("localhost");
        for result in &field.results {
            front += &found(id, result);
        }
    }
    front += &handoff(message, client);
    front.into_bytes()
}

/// One thing that the provider found out, as a field of its own: SpamAssassin passes over the whole of a field in which it
/// does not understand a word, and providers write words of their own.
fn found(id: &str, result: &MethodResult) -> String {
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'-');
    if !is_plain(&result.method) || !is_plain(&result.result) {
        return String::new();
    }
    let mut field = format!("Authentication-Results: {id};\r\n\t{}={}", result.method, result.result);
    let known: &[&str] = match &*result.method {
        "spf" => &["smtp.mailfrom", "smtp.mfrom", "smtp.helo"],
        "dkim" => &["header.d", "header.i", "header.s"],
        "dmarc" => &["header.from"],
        "iprev" => &["policy.iprev"],
        "auth" => &["smtp.auth"],
        _ => &[],
    };
    for name in known {
        // One that would have to be quoted is left out, as is one with "=", which SpamAssassin takes for a name's end.
        let is_bare = |value: &&str| {
            value.len() <= 255 && value.bytes().all(|o| o.is_ascii_alphanumeric() || b"@.-_+/:".contains(&o))
        };
        if let Some(value) = result.property(name).filter(is_bare) {
            field += &format!(" {name}={value}");
        }
    }
    field + "\r\n"
}

/// A Received field for the hand-off, in Postfix' form, which SpamAssassin knows best.
///
/// The reverse-path stands in a comment, as Exim writes it: SpamAssassin believes that one before any other field, while
/// one forged X-Envelope-From below would make it believe none.
fn handoff(message: &Message, client: &Handoff) -> String {
    let helo = client.helo.as_deref().and_then(word).unwrap_or("unknown");
    // Unless the provider looks it up in both directions a name is the client's own word.
    let name = client.name.as_deref().filter(|_| client.name_confirmed).and_then(word).unwrap_or("unknown");
    let by = word(&client.by).unwrap_or("localhost");
    // "A" behind a protocol's name makes SpamAssassin trust the client; it is only for those who logged in.
    let protocol = match (client.tls.is_some(), client.authenticated) {
        (false, false) => "ESMTP",
        (true, false) => "ESMTPS",
        (false, true) => "ESMTPA",
        (true, true) => "ESMTPSA",
    };
    let sender = message.envelope.reverse_path.as_deref().filter(|path| is_plain(path));
    let sender = sender.map(|path| format!("\r\n\t(envelope-from <{path}>)")).unwrap_or_default();
    let date = message.envelope.received_at.map(|at| format!("; {at}")).unwrap_or_default();
    let (address, id) = (client.address, message.id);
    format!(
        "Received: from {helo} ({name} [{address}])\r\n\tby {by} (Postfix) with {protocol} id {id}{sender}{date}\r\n"
    )
}

/// A host name or address literal that can stand in a Received field.
fn word(text: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    (!text.is_empty() && text.len() <= 255 && text.chars().all(plain)).then_some(text)
}

/// A path that ends neither the comment nor the field.
fn is_plain(path: &str) -> bool {
    !path.is_empty() && !path.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '(' | ')' | '<' | '>'))
}
