use connectord_filter::Message;
use connectord_mail::Head;
use connectord_mail::relay::{Client, Handoff};
use connectord_wire::Secret;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};

use crate::OptionsError;
use crate::http::Outgoing;
use crate::options::sendable;
use crate::pieces::Pieces;

/// Most recipients that are told.
const MAX_RECIPIENTS: usize = 100;

/// Longest value that is sent, in octets.
const MAX_VALUE: usize = 1024;

/// What is told when nobody told the client's name: Rspamd (3.4) gives 2.5 points to every message without one, which is
/// meant for hosts that have none.
const UNTOLD_NAME: &str = r#"{"symbols_disabled":["HFILTER_HOSTNAME_UNKNOWN"]}"#;

/// Writes requests.
pub(super) struct Sender {
    password: Option<HeaderValue>,
    settings_id: Option<String>,
    host_name: Option<String>,
}

impl Sender {
    pub(super) fn new(
        password: Option<Secret>,
        settings_id: Option<String>,
        host_name: Option<String>,
    ) -> Result<Self, OptionsError> {
        let texts = [("the settings id for Rspamd", &settings_id), ("the host name told to Rspamd", &host_name)];
        for (what, text) in texts {
            text.as_deref().map(|text| sendable(what, text)).transpose()?;
        }
        let password = password.map(|password| {
            let mut value = HeaderValue::from_bytes(password.expose())
                .map_err(|_| OptionsError("the password for Rspamd holds octets that cannot be sent".into()))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { password: password.transpose()?, settings_id, host_name })
    }

    pub(super) fn get(&self, path: &'static str, host: &str) -> Request<Outgoing> {
        self.request(Method::GET, path, host, Outgoing::nothing())
    }

    pub(super) fn post(&self, path: &'static str, host: &str, body: Outgoing) -> Request<Outgoing> {
        self.request(Method::POST, path, host, body)
    }

    /// A message with what is known of its envelope, and nothing that is not.
    pub(super) fn check(&self, host: &str, message: &Message) -> Request<Outgoing> {
        let mut request = self.post("/checkv2", host, Outgoing::message(Pieces::new(message.as_believed())));
        let mut tell = |name, value: &str| add(request.headers_mut(), name, value);
        let mut name = Name::Untold;
        if let Client::Known(client) = &message.envelope.client {
            tell("ip", &client.address.to_string());
            name = name_of(client, message.head());
            let tls = client.tls.as_ref();
            let told = [
                ("helo", client.helo.as_deref()),
                ("tls-version", tls.and_then(|tls| tls.version.as_deref())),
                ("tls-cipher", tls.and_then(|tls| tls.cipher.as_deref())),
            ];
            for (name, value) in told {
                value.into_iter().for_each(|value| tell(name, value));
            }
        }
        match name {
            Name::Is(name) => tell("hostname", name),
            // Settings by id and settings in place exclude each other.
            Name::Untold if self.settings_id.is_none() => tell("settings", UNTOLD_NAME),
            Name::Untold | Name::Missing => {}
        }
        if let Some(path) = &message.envelope.reverse_path {
            tell("from", &format!("<{path}>"));
        }
        for recipient in recipients(message) {
            tell("rcpt", &format!("<{recipient}>"));
        }
        tell("deliver-to", &message.account);
        tell("queue-id", &message.id.to_string());
        for (name, value) in [("settings-id", &self.settings_id), ("mta-name", &self.host_name)] {
            value.as_deref().into_iter().for_each(|value| tell(name, value));
        }
        request
    }

    fn request(&self, method: Method, path: &'static str, host: &str, body: Outgoing) -> Request<Outgoing> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = hyper::Uri::from_static(path);
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(HOST, host);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("connectord/", env!("CARGO_PKG_VERSION"))));
        if let Some(password) = &self.password {
            headers.insert(HeaderName::from_static("password"), password.clone());
        }
        request
    }
}

/// Whom the sender wrote to, as far as that is known: the recipient at the provider. Local users are not among them: Rspamd
/// (3.4) takes an address without a domain for a broken header, which alone is spam, and one that the header does not name for
/// a forged recipient.
fn recipients(message: &Message) -> Vec<&str> {
    let handed_for = match &message.envelope.client {
        Client::Known(client) => client.recipient.as_deref(),
        Client::Unknown(_) => None,
    };
    match handed_for.or(Some(&*message.account)).filter(|address| address.contains('@')) {
        Some(address) => vec![address],
        None => {
            let addresses = message.recipients.iter().map(String::as_str).filter(|address| address.contains('@'));
            addresses.take(MAX_RECIPIENTS).collect()
        }
    }
}

/// What is known of the name of a client's address.
enum Name<'a> {
    /// Looked up in both directions.
    Is(&'a str),
    /// The provider says that it has none.
    Missing,
    /// The provider does not look it up, or not in both directions: then it is the client's own word.
    Untold,
}

fn name_of<'a>(client: &'a Handoff, head: Head<'_>) -> Name<'a> {
    if let Some(name) = &client.name {
        return if client.name_confirmed { Name::Is(name) } else { Name::Untold };
    }
    // Postfix, OpenSMTPD and others write "unknown" in the name's place.
    let field = head.fields().filter(|field| field.is("Received")).nth(client.hops);
    let says_so = field.is_some_and(|field| memchr::memmem::find(field.value, b"unknown").is_some());
    if says_so { Name::Missing } else { Name::Untold }
}

/// What cannot be sent is not known to Rspamd: no part of a message may end a field or a request.
fn add(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if value.is_empty() || value.len() > MAX_VALUE || value.chars().any(char::is_control) {
        return;
    }
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.append(HeaderName::from_static(name), value);
    }
}
