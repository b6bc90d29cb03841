use connectord_filter::Message;
use connectord_mail::relay::Client;

/// The request for a message of so many octets behind `front`.
pub(super) fn symbols(user: Option<&str>, front: &[u8], size: u64) -> Vec<u8> {
    let length = front.len() as u64 + size;
    let user = user.map(|user| format!("User: {user}\r\n")).unwrap_or_default();
    let mut request = format!("SYMBOLS SPAMC/1.5\r\nContent-length: {length}\r\n{user}\r\n").into_bytes();
    request.extend_from_slice(front);
    request
}

/// A Received field for the hand-off, in Postfix' form, which SpamAssassin knows best; nothing when the client is unknown.
///
/// The reverse-path stands in a comment, as Exim writes it: SpamAssassin believes that one before any other field, while
/// one forged X-Envelope-From below would make it believe none.
pub(super) fn handoff(message: &Message) -> Vec<u8> {
    let Client::Known(client) = &message.envelope.client else { return Vec::new() };
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
    .into_bytes()
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
