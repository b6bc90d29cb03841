//! Notices to a web address: a POST of JSON.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use connectord_engine::chain;
use connectord_wire::Escaped;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode, Url};
use tokio::io::AsyncReadExt;

/// Longest token, in octets.
const MAX_TOKEN: u64 = 4096;

/// Longest wait for a connection, and for the answer after that.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(20);

/// A web address that is told.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    url: Url,
    token_file: Option<PathBuf>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({})", self.name())
    }
}

/// Why a web address was not told.
pub(crate) struct Untold {
    pub(crate) text: String,
    pub(crate) again: bool,
}

impl Webhook {
    /// Makes the client; connects to nobody. Certificates are verified by the system's authorities and those in `roots`
    /// (PEM).
    ///
    /// # Errors
    /// What is wrong with the address or the certificates.
    pub fn new(url: &str, token_file: Option<PathBuf>, roots: Option<&[u8]>) -> Result<Self, String> {
        let url: Url = url.parse().map_err(|error| format!("webhook: not a URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("webhook: the URL must not hold a password; see webhook_token_file".into());
        }
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err("webhook: expected https://host/path".into());
        }
        let mut client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(CONNECT + ANSWER)
            // A token is for one server only.
            .redirect(Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .user_agent(concat!("connectord/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = roots {
            let roots = Certificate::from_pem_bundle(pem).map_err(|error| format!("webhook: certificates: {error}"))?;
            client = client.tls_certs_merge(roots);
        }
        let client =
            client.build().map_err(|error| format!("webhook: no client: {}", Escaped::text(&chain(&error))))?;
        Ok(Self { client, url, token_file })
    }

    /// Server and port: paths of such addresses are often secrets.
    pub(crate) fn name(&self) -> String {
        format!("{}://{}", self.url.scheme(), self.url.authority().rsplit('@').next().unwrap_or_default())
    }

    pub(crate) async fn give(&self, json: &str) -> Result<(), Untold> {
        let name = self.name();
        let untold = |text: String, again| Untold { text: format!("{name}: {text}"), again };
        let mut request =
            self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(json.to_owned());
        if let Some(path) = &self.token_file {
            let token = read_token(path).await.map_err(|text| untold(text, true))?;
            request = request.header(AUTHORIZATION, token);
        }
        let answer = request
            .send()
            .await
            .map_err(|error| untold(Escaped::text(&chain(&error.without_url())).to_string(), true))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let again =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let moved = if status.is_redirection() { "; redirections are not followed" } else { "" };
        Err(untold(format!("answered {status}{moved}"), again))
    }
}

async fn read_token(path: &std::path::Path) -> Result<HeaderValue, String> {
    let shown = Escaped(path.as_os_str().as_encoded_bytes()).to_string();
    let read = async {
        let mut octets = Vec::new();
        tokio::fs::File::open(path).await?.take(MAX_TOKEN).read_to_end(&mut octets).await?;
        Ok::<_, std::io::Error>(octets)
    };
    let octets = tokio::time::timeout(CONNECT, read)
        .await
        .map_err(|_| format!("token file {shown} could not be read within {} s", CONNECT.as_secs()))?
        .map_err(|error| format!("token file {shown} cannot be read: {error}"))?;
    let line = octets.split(|octet| *octet == b'\n').next().unwrap_or_default().trim_ascii();
    let mut token = HeaderValue::from_bytes(&[b"Bearer ", line].concat())
        .map_err(|_| format!("token file {shown} holds octets that cannot be sent"))?;
    if line.is_empty() {
        return Err(format!("token file {shown} is empty"));
    }
    token.set_sensitive(true);
    Ok(token)
}
