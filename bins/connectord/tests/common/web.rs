//! Somebody at the page of a daemon: a browser without a window, and a program with a token.

use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::runtime::Runtime;

/// What people sign in with.
pub(crate) const PASSPHRASE: &str = "correct horse battery";

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One who asks. It keeps its cookie or has a token, and follows nothing.
pub(crate) struct Web {
    runtime: Runtime,
    http: reqwest::Client,
    base: String,
    cookie: String,
    token: String,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Panics when it is another status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

impl Web {
    fn with(http: reqwest::ClientBuilder, base: String) -> Self {
        let http = http.redirect(reqwest::redirect::Policy::none()).no_proxy().timeout(Duration::from_secs(120));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, http: http.build().unwrap(), base, cookie: String::new(), token: String::new() }
    }

    /// At a port of this machine.
    pub(crate) fn at(port: u16) -> Self {
        Self::with(reqwest::Client::builder(), format!("http://127.0.0.1:{port}"))
    }

    /// At the socket beside a state.
    pub(crate) fn beside(state: &Path) -> Self {
        Self::with(reqwest::Client::builder().unix_socket(state.join("api.sock")), "http://localhost".to_owned())
    }

    /// The same page, as nobody yet.
    pub(crate) fn another(&self) -> Self {
        Self::with(reqwest::Client::builder(), self.base.clone())
    }

    /// The same page, as a program with a token of the one who signed in.
    pub(crate) fn program(&mut self, role: &str) -> Self {
        let page = self.form("/settings/tokens", "/settings/tokens", &[("name", "test"), ("role", role)]).expect(200);
        let from = page.text.find("cd_").unwrap();
        Self { token: page.text[from..from + 67].to_owned(), ..self.another() }
    }

    /// Opens the first link that a daemon has written, and becomes the administrator.
    pub(crate) fn first_start(&mut self, state: &Path) {
        let link = std::fs::read_to_string(state.join("first-start")).unwrap();
        let path =
            link.trim().strip_prefix(&self.base).unwrap_or_else(|| panic!("{link} is not of {}", self.base)).to_owned();
        self.get(&path).expect(200);
        self.post(&path, &[("name", "anna"), ("password", PASSPHRASE)]).expect(303);
    }

    pub(crate) fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        self.post("/sign-in", &[("name", name), ("password", password)])
    }

    fn send(&mut self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request).unwrap()
    }

    fn try_send(&mut self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let mut request = request.header("accept-language", "en");
        if !self.cookie.is_empty() {
            request = request.header("cookie", &self.cookie);
        }
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let answer = self.runtime.block_on(async {
            let answer = request.send().await?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Ok::<_, reqwest::Error>(Answer { status, headers, text: answer.text().await? })
        })?;
        for cookie in answer.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
            if cookie.starts_with("connectord=") {
                self.cookie = cookie.to_owned();
            }
        }
        Ok(answer)
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        let request = self.http.get(format!("{}{path}", self.base));
        self.send(request)
    }

    fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let encoded = |text: &str| text.bytes().map(|octet| format!("%{octet:02x}")).collect::<String>();
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let request = self.http.post(format!("{}{path}", self.base)).header("origin", &self.base);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body.join("&"));
        self.send(request)
    }

    /// Sends the form of a page.
    pub(crate) fn form(&mut self, page: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.get(page).expect(200).text;
        let from = page.find("name=\"form_token\" value=\"").unwrap_or_else(|| panic!("no form: {page}")) + 25;
        let token = page[from..from + 64].to_owned();
        self.post(path, &[fields, &[("form_token", &token)]].concat())
    }

    /// Asks the API; with these fields of the head.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: Value, head: &[(&str, &str)]) -> Answer {
        let request = self.request(method, path, &body, head);
        self.send(request)
    }

    /// The same; nothing when the daemon went away meanwhile.
    pub(crate) fn try_call(&mut self, method: &str, path: &str, body: Value, head: &[(&str, &str)]) -> Option<Answer> {
        let request = self.request(method, path, &body, head);
        self.try_send(request).ok()
    }

    fn request(&self, method: &str, path: &str, body: &Value, head: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}/api/v1{path}", self.base));
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        request
    }

    /// What the API answers to a question.
    #[track_caller]
    pub(crate) fn ask(&mut self, path: &str) -> Value {
        self.call("GET", path, Value::Null, &[]).expect(200).json()
    }
}
