//! Chromium through chromedriver: a WebDriver client of as many commands as the tests need.
//!
//! Written here because a crate for it brings some forty others, and this is a hundred lines over an HTTP client that is there anyway.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

/// One browser at a time: seven of them on two cores make each other's pages late.
static TURN: Semaphore = Semaphore::const_new(1);

/// One window, with a profile of its own.
pub struct Browser {
    _turn: SemaphorePermit<'static>,
    http: reqwest::Client,
    session: String,
    _driver: Child,
    /// Kept open: chromedriver would end at its next word otherwise.
    _output: Lines<BufReader<ChildStdout>>,
    _profile: tempfile::TempDir,
}

pub const ENTER: &str = "\u{e007}";
pub const TAB: &str = "\u{e004}";
pub const ESCAPE: &str = "\u{e00c}";

/// A chromedriver, what it says, and the port it listens on; nothing when it ended.
async fn start_driver() -> Option<(Child, Lines<BufReader<ChildStdout>>, String)> {
    let mut driver = Command::new("chromedriver")
        .args(["--port=0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("chromedriver cannot be started: {e}; apt-get install chromium chromium-driver"));
    let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
    loop {
        let line =
            tokio::time::timeout(Duration::from_secs(120), lines.next_line()).await.expect("chromedriver says nothing");
        let line = line.expect("read")?;
        if let Some((_, port)) = line.rsplit_once("successfully on port ") {
            let port = port.trim_end_matches('.').to_owned();
            return Some((driver, lines, port));
        }
    }
}

impl Browser {
    /// # Panics
    /// When chromedriver or Chromium cannot be started: the packages `chromium` and `chromium-driver` are needed.
    pub async fn open() -> Self {
        let turn = TURN.acquire().await.expect("never closed");
        let mut started = None;
        // The port that it takes may be another's a moment later: then it ends.
        for _ in 0..5 {
            started = start_driver().await;
            if started.is_some() {
                break;
            }
        }
        let (driver, lines, port) = started.expect("chromedriver ended five times");
        let profile = tempfile::tempdir().expect("a folder");
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--lang=en".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments, "binary": "/usr/bin/chromium" },
            "goog:loggingPrefs": { "browser": "ALL" },
            "unhandledPromptBehavior": "ignore",
        } } });
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(300)).build().expect("a client");
        let mut browser = Self {
            _turn: turn,
            http,
            session: format!("http://127.0.0.1:{port}/session"),
            _driver: driver,
            _output: lines,
            _profile: profile,
        };
        let session = browser.call("POST", "", wanted).await;
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().expect("a session"));
        browser
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let request = self.http.request(method.parse().expect("a method"), format!("{}{path}", self.session));
        let request = if method == "GET" {
            request
        } else {
            request.header("content-type", "application/json").body(body.to_string())
        };
        let answer = request.send().await.expect("chromedriver answers").text().await.expect("a body");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert!(answer["value"].get("error").is_none(), "{path}: {}", answer["value"]);
        answer["value"].clone()
    }

    pub async fn go(&self, url: &str) {
        self.call("POST", "/url", json!({ "url": url })).await;
    }

    pub async fn script(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    pub async fn text(&self, script: &str) -> String {
        self.script(script).await.as_str().unwrap_or("").to_owned()
    }

    /// Waits until a script says true.
    pub async fn until(&self, what: &str, script: &str) {
        let waiting = async {
            while self.script(&format!("return !!({script})")).await != json!(true) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(120), waiting).await.is_err() {
            let page = self.text("return location.pathname + ': ' + document.body.innerText").await;
            panic!("two minutes passed without: {what}\n{page}");
        }
    }

    /// Presses keys, as whoever has the focus gets them.
    pub async fn keys(&self, text: &str) {
        let keys: Vec<Value> = text
            .chars()
            .flat_map(|key| {
                [
                    json!({ "type": "keyDown", "value": key.to_string() }),
                    json!({ "type": "keyUp", "value": key.to_string() }),
                ]
            })
            .collect();
        self.call("POST", "/actions", json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys }] })).await;
    }

    /// What has the focus: its id, name or text.
    pub async fn focus(&self) -> String {
        self.text("const e = document.activeElement; return e.id || e.name || e.textContent.trim()").await
    }

    pub async fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call(
            "POST",
            "/goog/cdp/execute",
            json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics }),
        )
        .await;
    }

    /// Whether the system is to be taken for a dark one.
    pub async fn dark(&self, dark: bool) {
        let scheme = json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": [scheme] } });
        self.call("POST", "/goog/cdp/execute", command).await;
    }

    /// What is to be seen in the window now, as WebP.
    pub async fn picture(&self) -> Vec<u8> {
        let params = json!({ "format": "webp", "quality": 60 });
        let command = json!({ "cmd": "Page.captureScreenshot", "params": params });
        let answer = self.call("POST", "/goog/cdp/execute", command).await;
        STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64")
    }

    /// What the browser complained about since the last call: blocked scripts and styles, failed requests.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", "/se/log", json!({ "type": "browser" })).await;
        let told = log.as_array().into_iter().flatten().filter(|entry| entry["level"] != "DEBUG");
        told.map(|entry| entry["message"].as_str().unwrap_or("").to_owned()).collect()
    }

    pub async fn close(self) {
        self.call("DELETE", "", json!({})).await;
    }
}
