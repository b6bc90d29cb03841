//! The daemon's REST API: over its socket, or over https where it is elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use connectord_net::{Connector, Route, Stream, Timeouts};
use connectord_wire::{Endpoint, Escaped, Secret, Security};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::ask::Daemon;
use crate::cli::Options;
use crate::error::Error;

/// Longest wait for an answer: the daemon gives itself 60 s where servers are tried, and then says that it is late.
const PATIENCE: Duration = Duration::from_secs(90);

/// Longest silence of a stream of events, which says each 15 s that it is still there.
const SILENCE: Duration = Duration::from_secs(60);

/// Longest answer that is taken whole, in octets; lists come in pages of at most 200.
const MAX_ANSWER: usize = 16 << 20;

/// Items that are asked for at once.
pub(crate) const PAGE: u64 = 200;

/// Parameters of an address.
pub(crate) type Query = Vec<(&'static str, String)>;

/// Where the API is, and who asks.
pub(crate) struct Api {
    place: Place,
    token: Option<Secret>,
}

enum Place {
    Socket(PathBuf),
    Url { endpoint: Endpoint, security: Security },
}

impl Api {
    pub(crate) fn find(options: &Options) -> Result<Self, Error> {
        let place = match &options.url {
            Some(url) => place(url)?,
            None => Place::Socket(Daemon::find(options)?.api()),
        };
        let variable = std::env::var("CONNECTORD_TOKEN").ok().filter(|token| !token.is_empty());
        let token = match (&options.token_file, variable) {
            (Some(file), _) => {
                let source = connectord::password::Source { file: Some(file), ..Default::default() };
                Some(connectord::password::password(source, "the API")?)
            }
            (None, variable) => variable.map(Secret::from),
        };
        Ok(Self { place, token })
    }

    /// As a person reads it.
    fn name(&self) -> String {
        match &self.place {
            Place::Socket(path) => path.display().to_string(),
            Place::Url { endpoint, security: Security::None } => format!("http://{endpoint}"),
            Place::Url { endpoint, .. } => format!("https://{endpoint}"),
        }
    }

    async fn connect(&self) -> Result<Stream, Error> {
        let connector = Connector::new();
        let connected = match &self.place {
            Place::Socket(path) => connector.connect_unix(path, &Timeouts::default()).await,
            Place::Url { endpoint, security } => connector.connect(&Route::new(endpoint.clone(), *security)).await,
        };
        connected.map_err(|error| Error::NoDaemon { place: self.name(), error: connectord_engine::chain(&error) })
    }

    /// Sends a request over a connection of its own; an answer that is a refusal is an error.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Error> {
        let broken = |error: hyper::Error| Error::Broken(connectord_engine::chain(&error));
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // What it ends with is what the answer ends with.
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let mut request = Request::new(Full::new(body.map(Value::to_string).map(Bytes::from).unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| Error::Usage(format!("{}: {error}", Escaped::text(path))))?;
        let host = match &self.place {
            Place::Socket(_) => "localhost".to_owned(),
            Place::Url { endpoint, .. } => endpoint.to_string(),
        };
        let headers = request.headers_mut();
        let field = |text: &str| HeaderValue::from_str(text).map_err(|error| Error::Usage(error.to_string()));
        headers.insert(HOST, field(&host)?);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("connectorctl/", env!("CARGO_PKG_VERSION"))));
        // The words of this program are English.
        headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            let bearer = Secret::new([b"Bearer ", token.expose()].concat());
            let not_one = |_| Error::Usage("the token holds octets that cannot be sent".into());
            let mut value = HeaderValue::from_bytes(bearer.expose()).map_err(not_one)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let sent = timeout(PATIENCE, sender.send_request(request)).await;
        let response = sent.map_err(|_| late(&self.name(), PATIENCE))?.map_err(broken)?;
        let status = response.status();
        let mut answer = Answer { response, name: self.name(), heard: Instant::now(), _driver: driver };
        if status.is_success() {
            return Ok(answer);
        }
        let octets = answer.whole().await?;
        let problem = serde_json::from_slice(&octets).unwrap_or(Value::Null);
        Err(Error::Problem(match problem {
            Value::Object(_) => problem,
            _ => serde_json::json!({ "status": status.as_u16() }),
        }))
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let octets = self.send(method, path, body).await?.whole().await?;
        if octets.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&octets).map_err(|error| Error::Broken(format!("it is no JSON: {error}")))
    }

    pub(crate) async fn get(&self, path: &str, query: &Query) -> Result<Value, Error> {
        self.json(Method::GET, &address(path, query), None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.json(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        self.json(Method::DELETE, path, None).await.map(drop)
    }

    /// An answer that is read piece by piece.
    pub(crate) async fn pieces(&self, path: &str, query: &Query) -> Result<Answer, Error> {
        self.send(Method::GET, &address(path, query), None).await
    }

    /// The id of the account with this address, case aside.
    pub(crate) async fn id_of(&self, wanted: &str) -> Result<String, Error> {
        let mut query: Query = vec![("q", wanted.to_owned()), ("limit", PAGE.to_string())];
        loop {
            let page = self.get("/api/v1/accounts", &query).await?;
            let mut items = page["items"].as_array().into_iter().flatten();
            let is_it = |item: &&Value| item["address"].as_str().is_some_and(|it| it.eq_ignore_ascii_case(wanted));
            if let Some(id) = items.find(is_it).and_then(|item| item["id"].as_str()) {
                return Ok(id.to_owned());
            }
            let Some(next) = page["next"].as_str() else {
                return Err(Error::Usage(format!("there is no account {}", Escaped::text(wanted))));
            };
            query.retain(|(name, _)| *name != "after");
            query.push(("after", next.to_owned()));
        }
    }
}

/// An answer, and the connection that it comes over.
pub(crate) struct Answer {
    response: Response<Incoming>,
    name: String,
    /// When something came last.
    heard: Instant,
    _driver: JoinSet<()>,
}

impl Answer {
    /// What comes next; `None` at the end. Nothing is lost when it is no longer awaited.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout_at(self.heard + SILENCE, self.response.body_mut().frame()).await;
            let Some(frame) = frame.map_err(|_| late(&self.name, SILENCE))? else { return Ok(None) };
            self.heard = Instant::now();
            let frame = frame.map_err(|error| Error::Broken(connectord_engine::chain(&error)))?;
            // What is no data is a trailer.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    async fn whole(&mut self) -> Result<Vec<u8>, Error> {
        let mut octets = Vec::new();
        while let Some(piece) = self.next().await? {
            if octets.len() + piece.len() > MAX_ANSWER {
                return Err(Error::Broken(format!("it has more than {MAX_ANSWER} octets")));
            }
            octets.extend_from_slice(&piece);
        }
        Ok(octets)
    }
}

fn late(name: &str, patience: Duration) -> Error {
    Error::Broken(format!("nothing came from {name} for {} s (waiting for an answer)", patience.as_secs()))
}

/// A token travels readable over plain http: only to this machine.
fn place(url: &str) -> Result<Place, Error> {
    let wrong = |why: &str| Error::Usage(format!("--url {}: {why}", Escaped::text(url)));
    let (security, rest, port) = match url.split_once("://") {
        Some(("https", rest)) => (Security::Tls, rest, 443),
        Some(("http", rest)) => (Security::None, rest, 80),
        _ => return Err(wrong("https://NAME is expected, or http://127.0.0.1:PORT")),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err(wrong("it has more than a name and a port; the API lives below no path"));
    }
    let endpoint: Endpoint = authority
        .parse()
        .or_else(|_| format!("{authority}:{port}").parse())
        .map_err(|_| wrong("it names no host that could be connected to"))?;
    let is_here = endpoint.host().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if security == Security::None && !is_here {
        return Err(wrong("a token travels readable over http; https is needed for anything but 127.0.0.1 and [::1]"));
    }
    Ok(Place::Url { endpoint, security })
}

fn address(path: &str, query: &Query) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

/// One part of a path, whatever it holds (RFC 3986 §2.1).
pub(crate) fn segment(text: &str) -> String {
    let octet = |octet: u8| match octet {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(octet).to_string(),
        // A dot too: `..` would be another address.
        octet => format!("%{octet:02X}"),
    };
    text.bytes().map(octet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        for url in
            ["https://mail.example.org", "https://mail.example.org:8443/", "http://127.0.0.1:8025", "http://[::1]:80"]
        {
            assert!(place(url).is_ok(), "{url}");
        }
        let refused = [
            "http://mail.example.org",
            "http://127.0.0.1.example.org",
            "http://127.0.0.1@example.org",
            "https://example.org/connectord",
            "ftp://example.org",
            "https://",
            "mail.example.org",
        ];
        for url in refused {
            assert!(matches!(place(url), Err(Error::Usage(_))), "{url}");
        }
    }

    #[test]
    fn a_part_of_a_path_leads_nowhere_else() {
        assert_eq!(segment("../people/a b?c#d"), "%2E%2E%2Fpeople%2Fa%20b%3Fc%23d");
        assert_eq!(address("/api/v1/log", &vec![("q", "a&b=ü".to_owned())]), "/api/v1/log?q=a%26b%3D%C3%BC");
    }
}
