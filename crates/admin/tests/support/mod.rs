//! A page that is served in this process, and a client that knows its cookie.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses a part of it")]

pub mod sample;

use std::net::SocketAddr;
use std::sync::Arc;

use connectord_admin::*;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use sample::{HOSTILE, Sample};

pub const PASSWORD: &str = "correct horse battery";

/// A page on a free port of loopback.
pub struct Served {
    pub address: SocketAddr,
    pub sample: Arc<Sample>,
    pub keep: Arc<MemoryKeep>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), ServeError>>>,
}

pub fn options() -> Options {
    // Hashing as cheap as Argon2 can, so that a hundred tests on two cores are not about hashing.
    Options { argon2: argon2::Params::new(64, 1, 1, None).expect("small"), own_accounts: true, ..Options::default() }
}

pub async fn serve_sample(sample: Sample) -> Served {
    serve_with(sample, options()).await
}

pub async fn serve_with(sample: Sample, options: Options) -> Served {
    let (sample, keep) = (Arc::new(sample), Arc::new(MemoryKeep::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let (backend, kept): (Arc<dyn Backend>, Arc<dyn Keep>) = (sample.clone(), keep.clone());
    let task = tokio::spawn(async move {
        serve(Listener::Tcp(listener), backend, kept, options, async { drop(stopped.await) }).await
    });
    Served { address, sample, keep, stop: Some(stop), task: Some(task) }
}

impl Served {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops and waits for the end.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.task.take().expect("once").await.expect("no panic").expect("served");
    }

    /// Somebody who followed an invitation.
    pub async fn somebody(&self, name: &str, role: Role, user: Option<&str>) -> Client {
        let link =
            invite(self.keep.as_ref(), Some(name.to_owned()), role, user.map(str::to_owned)).await.expect("kept");
        let mut client = self.nobody();
        let answer = client.post(&link.path, &[("password", PASSWORD)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        client
    }

    pub async fn admin(&self) -> Client {
        self.somebody("root", Role::Admin, None).await
    }

    /// Somebody without a cookie.
    pub fn nobody(&self) -> Client {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client");
        Client {
            http,
            base: self.origin(),
            cookie: String::new(),
            form_token: String::new(),
            language: "en".to_owned(),
        }
    }

    /// A token of the API.
    pub async fn token(&self, role: &str) -> String {
        let name = format!("{role}-{}", self.keep.list("token/", 1000).await.expect("kept").len());
        let mut admin = self.admin().await;
        let page = admin.form("/settings/tokens", &[("name", &name), ("role", role)]).await;
        let from = page.text.find("cd_").expect("a token");
        page.text[from..from + 67].to_owned()
    }
}

pub struct Answered {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answered {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

/// A browser without a window: it keeps its cookie, sends `Origin`, and follows nothing.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub base: String,
    pub cookie: String,
    pub form_token: String,
    pub language: String,
}

impl Client {
    pub async fn send(&mut self, request: reqwest::RequestBuilder) -> Answered {
        let answer = request.header("accept-language", &self.language).send().await.expect("an answer");
        for cookie in answer.headers().get_all("set-cookie") {
            let cookie = cookie.to_str().expect("text").split(';').next().expect("a pair");
            if cookie.starts_with("connectord=") || cookie.starts_with("__Host-") {
                self.cookie = cookie.to_owned();
            }
        }
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answered { status, headers, text: answer.text().await.expect("a body") }
    }

    pub async fn get(&mut self, path: &str) -> Answered {
        let request = self.http.get(format!("{}{path}", self.base)).header("cookie", &self.cookie);
        self.send(request).await
    }

    /// A form without a token.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answered {
        let body = url_encoded(fields);
        let request =
            self.http.post(format!("{}{path}", self.base)).header("cookie", &self.cookie).header("origin", &self.base);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        self.send(request).await
    }

    /// A form of our own page.
    pub async fn form(&mut self, path: &str, fields: &[(&str, &str)]) -> Answered {
        if self.form_token.is_empty() {
            let page = self.get("/me").await.text;
            let from = page.find("name=\"form_token\" value=\"").expect("a form") + 25;
            self.form_token = page[from..from + 64].to_owned();
        }
        let token = self.form_token.clone();
        let mut fields = fields.to_vec();
        fields.push(("form_token", &token));
        self.post(path, &fields).await
    }
}

/// A call of the API by token.
pub async fn call(served: &Served, token: &str, method: &str, path: &str, body: Option<serde_json::Value>) -> Answered {
    call_with(served, token, method, path, body, &[]).await
}

pub async fn call_with(
    served: &Served,
    token: &str,
    method: &str,
    path: &str,
    body: Option<serde_json::Value>,
    headers: &[(&str, &str)],
) -> Answered {
    let mut client = served.nobody();
    let method = method.to_uppercase().parse().expect("a method");
    let mut request = client.http.request(method, served.url(path)).header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    client.send(request).await
}

pub fn url_encoded(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// A good form of an account.
pub fn good_form() -> Vec<(&'static str, &'static str)> {
    vec![
        ("address", "new@example.org"),
        ("secret", "s3cret-of-mine"),
        ("deliver_to", "anna"),
        ("protocol", "imap"),
        ("security", "tls"),
        ("host", "imap.new.example"),
        ("folders", "INBOX"),
        ("antispam", "1"),
        ("antivirus", "1"),
        ("key", "k1"),
        ("enabled", "1"),
    ]
}

/// A good body of an account.
pub fn good_json() -> serde_json::Value {
    serde_json::json!({ "address": "api@example.org", "host": "imap.api.example", "deliver_to": ["anna"], "secret": "s3cret-of-mine" })
}
