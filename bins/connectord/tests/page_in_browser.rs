//! The page of the running daemon in a real browser: from the first link to the first message, two who edit, and servers that mean harm.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../../crates/admin/tests/support/browser.rs"]
#[allow(dead_code, unreachable_pub, reason = "another crate's tests use the rest")]
mod browser;
mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use browser::{Browser, ENTER, TAB};
use common::{Daemon, Installation, Web, free_port, wait_until};
use connectord_testkit::servers::{ImapServer, ServerOptions};
use connectord_testkit::{Dovecot, DovecotOptions, Service, corpus};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const PASSPHRASE: &str = "correct horse battery";
const PASSWORD: &str = "wide open window";

/// A window of the browser, driven from a test that waits.
struct Window {
    runtime: Runtime,
    browser: Option<Browser>,
}

impl Window {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let browser = Some(runtime.block_on(Browser::open()));
        Self { runtime, browser }
    }

    fn browser(&self) -> &Browser {
        self.browser.as_ref().unwrap()
    }

    fn go(&self, url: &str) {
        self.runtime.block_on(self.browser().go(url));
    }

    fn keys(&self, keys: &str) {
        self.runtime.block_on(self.browser().keys(keys));
    }

    fn script(&self, script: &str) -> Value {
        self.runtime.block_on(self.browser().script(script))
    }

    fn until(&self, what: &str, script: &str) {
        self.runtime.block_on(self.browser().until(what, script));
    }

    fn text(&self) -> String {
        self.runtime.block_on(self.browser().text("return document.body.innerText"))
    }

    /// Puts values into fields, by their ids.
    fn fill(&self, fields: &[(&str, &str)]) {
        for (id, value) in fields {
            self.script(&format!("document.getElementById({}).value = {}", json!(id), json!(value)));
        }
    }

    fn complaints(&self) -> Vec<String> {
        self.runtime.block_on(self.browser().complaints())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if let Some(browser) = self.browser.take().filter(|_| !std::thread::panicking()) {
            self.runtime.block_on(browser.close());
        }
    }
}

/// A daemon with its page, mail to Maildirs.
fn serve(here: &Installation) -> (Daemon, u16) {
    let path = here.path("mail/{user}/Maildir");
    serve_with(here, &format!("[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", path.display()))
}

fn serve_with(here: &Installation, delivery: &str) -> (Daemon, u16) {
    let port = free_port();
    let tables = format!(
        "[admin]\nlisten = \"127.0.0.1:{port}\"\n[saved]\nnetworks = \"127.0.0.1\"\nports = \"1024-65535\"\n{delivery}"
    );
    here.configure_with(&tables, "");
    (here.serve(), port)
}

/// Opens the first link and becomes the administrator, with the keyboard.
fn first_start(window: &Window, here: &Installation) {
    let link = std::fs::read_to_string(here.path("state/first-start")).unwrap();
    window.go(link.trim());
    window.keys(&format!("anna{TAB}{PASSPHRASE}{ENTER}"));
    window.until("signed in", "document.querySelector('nav.rail')");
}

#[test]
fn from_the_first_link_to_the_first_delivered_message_in_a_browser() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", PASSWORD));
    dovecot.seed("ann", "INBOX", &corpus::messages(30, 1));
    let here = Installation::trusting(dovecot.certificates());
    let (_daemon, port) = serve(&here);
    let window = Window::open();
    first_start(&window, &here);
    window.until("led to the first account", "location.pathname === '/accounts/new'");
    let server = dovecot.port(Service::Imaps).to_string();
    let fields = [
        ("address", "ann@example.org"),
        ("host", "127.0.0.1"),
        ("port", &server),
        ("username", "ann"),
        ("deliver_to", "ann"),
    ];
    window.fill(&fields);
    // The wrong password first: each step is shown, up to the one that fails, and nothing is lost.
    window.fill(&[("secret", "notthisone")]);
    window.script("document.querySelector('#test-button').click()");
    window.until("the login failed", "document.querySelector('#test [role=alert]')");
    assert!(window.text().contains("127.0.0.1 refused the user name or password."), "{}", window.text());
    assert_eq!(window.script("return document.querySelectorAll('#test .s-ok').length"), 4);
    window.fill(&[("secret", PASSWORD)]);
    window.script("document.querySelector('#test-button').click()");
    window.until("all is well", "document.querySelector('#test').innerText.includes('Everything works.')");
    window.script("document.querySelector('.form-end .main').click()");
    window.until("saved", "/^[/]accounts[/][0-9]+$/.test(location.pathname)");
    assert!(window.text().contains("Added. The first check runs now."), "{}", window.text());
    // What moves comes without a reload.
    window.until("the end of the check", "document.querySelector('#account-live').innerText.includes('All is well') || document.querySelector('#account-live .b-ok')");
    wait_until("thirty messages", || here.files("ann").len() == 30);
    window.go(&format!("http://127.0.0.1:{port}/messages"));
    window.until("the messages", "document.querySelectorAll('main tbody tr').length >= 30");
    window.go(&format!("http://127.0.0.1:{port}/"));
    assert_eq!(window.complaints(), Vec::<String>::new());
}

#[test]
fn of_two_who_edit_an_account_the_second_sees_what_the_first_did_and_chooses() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", PASSWORD));
    let here = Installation::trusting(dovecot.certificates());
    let (_daemon, port) = serve(&here);
    let mut local = Web::beside(&here.path("state"));
    let settings = json!({
        "address": "ann@example.org", "host": "127.0.0.1", "port": dovecot.port(Service::Imaps), "username": "ann",
        "deliver_to": ["ann"], "secret": PASSWORD,
    });
    let id = local.call("POST", "/accounts", settings, &[]).expect(201).json()["id"].as_str().unwrap().to_owned();
    let window = Window::open();
    first_start(&window, &here);
    window.go(&format!("http://127.0.0.1:{port}/accounts/{id}/settings"));
    // Meanwhile somebody else changes the interval and the note.
    let path = format!("/accounts/{id}");
    let mut theirs = local.ask(&path)["settings"].clone();
    theirs["check"] = json!("5m");
    theirs["note"] = json!("their note");
    local.call("PUT", &path, theirs, &[("if-match", "*")]).expect(200);
    window.fill(&[("note", "my note")]);
    window.script("document.querySelector('.form-end .main').click()");
    window.until(
        "the conflict",
        "document.title.startsWith('Changed meanwhile') || document.body.innerText.includes('their note')",
    );
    let shown = window.text();
    assert!(shown.contains("my note") && shown.contains("their note") && shown.contains("uid 0"), "{shown}");
    // Mine is chosen where I changed something; theirs stays where I did not.
    window.script("document.querySelector('main form .main').click()");
    window.until("saved", &format!("location.pathname === '/accounts/{id}'"));
    let saved = local.ask(&path);
    assert_eq!((&saved["settings"]["note"], &saved["settings"]["check"]), (&json!("my note"), &json!("5m")), "{saved}");
}

/// What may come from outside: markup, a template's braces, a terminal's escapes, a change of direction, a forged line.
const EVIL: &str = "<img src=x onerror=alert(1)>'{{7*7}}<script>alert(2)</script>\u{1b}[31m\u{202e}\u{7}";

/// What nothing must hold: markup that would be obeyed, characters that a terminal or a reader obeys.
fn harmful(text: &str) -> Option<&'static str> {
    ["<img src=x", "<script>alert", "\u{1b}", "\u{202e}", "\u{7}"].into_iter().find(|part| text.contains(part))
}

/// What a server answers to each line of one connection; `""` is asked for the greeting.
type Answers = Box<dyn FnMut(&str) -> String + Send>;

/// Listens as long as the test runs.
fn listen(connection: impl Fn() -> Answers + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut answers = connection();
            std::thread::spawn(move || converse(stream, &mut answers));
        }
    });
    port
}

fn converse(mut stream: TcpStream, answer: &mut Answers) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = Vec::new();
    stream.write_all(answer("").as_bytes())?;
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        stream.write_all(answer(String::from_utf8_lossy(&line).trim_end()).as_bytes())?;
    }
}

/// An LMTP server that says so much, and refuses every other message.
fn lmtp() -> u16 {
    let count = Arc::new(AtomicU32::new(0));
    listen(move || {
        let (count, mut body) = (Arc::clone(&count), false);
        Box::new(move |line| {
            if body {
                body = line != ".";
                return match (body, count.load(Ordering::SeqCst) % 2) {
                    (true, _) => String::new(),
                    (false, refused) => {
                        count.fetch_add(1, Ordering::SeqCst);
                        let code = if refused == 0 { "550 5.7.1" } else { "250 2.0.0" };
                        format!("{code} {EVIL}\r\n")
                    }
                };
            }
            match line.split(' ').next().unwrap_or_default().to_uppercase().as_str() {
                "" => format!("220 here {EVIL}\r\n"),
                "LHLO" => "250 here\r\n".to_owned(),
                "DATA" => {
                    body = true;
                    "354 go on\r\n".to_owned()
                }
                _ => format!("250 2.0.0 {EVIL}\r\n"),
            }
        })
    })
}

/// An IMAP server that refuses the login, with a greeting.
fn refusing() -> u16 {
    listen(|| {
        Box::new(|line| {
            let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
            match command.split(' ').next().unwrap_or_default().to_uppercase().as_str() {
                "" if tag.is_empty() => format!("* OK [CAPABILITY IMAP4rev1] {EVIL}\r\n"),
                "CAPABILITY" => format!("* CAPABILITY IMAP4rev1\r\n{tag} OK done\r\n"),
                "LOGIN" => format!("{tag} NO [AUTHENTICATIONFAILED] {EVIL}\r\n"),
                "LOGOUT" => format!("* BYE {EVIL}\r\n{tag} OK done\r\n"),
                _ => format!("{tag} BAD {EVIL}\r\n"),
            }
        })
    })
}

#[test]
fn what_servers_senders_and_destinations_say_is_neither_obeyed_nor_shown_raw() {
    let here = Installation::new();
    let (_daemon, port) =
        serve_with(&here, &format!("[delivery]\ntype = \"lmtp\"\naddress = \"127.0.0.1:{}\"\n", lmtp()));
    let server = ImapServer::start(ServerOptions::new().user("ann", PASSWORD));
    for folder in ["INBOX", EVIL] {
        for number in 0..2 {
            let message = format!(
                "From: {EVIL} <eve@x.test>\r\nSubject: {number} {EVIL}\r\nMessage-ID: <{number}{EVIL}@x>\r\n\r\n{EVIL}\r\n"
            );
            server.mailbox_named("ann", folder).add(message.into_bytes());
        }
    }
    let window = Window::open();
    first_start(&window, &here);
    let mut local = Web::beside(&here.path("state"));
    let account = |user: &str, port: u16, more: Value| {
        let mut settings = json!({
            "address": format!("{user}@example.org"), "host": "127.0.0.1", "port": port, "security": "none", "username": user,
            "deliver_to": ["ann"], "secret": PASSWORD, "folders": ["INBOX"], "note": EVIL.replace(char::is_control, ""),
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let all = json!({"folders": ["*"]});
    let good =
        local.call("POST", "/accounts?untested=true", account("ann", server.port(), all), &[]).expect(201).json();
    let bad =
        local.call("POST", "/accounts?untested=true", account("bob", refusing(), json!({})), &[]).expect(201).json();
    let tested =
        local.call("POST", "/tests", json!({"settings": account("eve", refusing(), json!({}))}), &[]).expect(200).text;
    assert!(harmful(&tested).is_none() && tested.contains("login_refused"), "{tested}");
    wait_until("a parked message, a delivered one, and a refused login", || {
        let overview = local.ask("/overview");
        overview["parked"].as_u64() > Some(0)
            && overview["accounts"]["action"].as_u64() > Some(0)
            && local.ask("/messages?state=delivered")["total"].as_u64() > Some(0)
    });
    let (good, bad) = (good["id"].as_str().unwrap(), bad["id"].as_str().unwrap());
    let message = local.ask("/messages?state=delivered")["items"][0]["id"].as_str().unwrap().to_owned();
    let parked = local.ask("/messages?state=parked")["items"][0]["id"].as_str().unwrap().to_owned();

    let mut paths = vec!["/".to_owned()];
    let plain = [
        "accounts",
        "users",
        "messages",
        "quarantine",
        "parked",
        "log",
        "settings",
        "settings/people",
        "settings/tokens",
        "settings/audit",
        "me",
    ];
    paths.extend(plain.map(|path| format!("/{path}")));
    for id in [good, bad] {
        paths.extend(["", "/settings", "/runs", "/messages"].map(|part| format!("/accounts/{id}{part}")));
    }
    paths.extend([&message, &parked].map(|id| format!("/messages/{id}")));
    for path in &paths {
        window.go(&format!("http://127.0.0.1:{port}{path}"));
        // An alert would make every further command fail.
        let drawn = window.script("return document.querySelectorAll('img, script:not([src])').length");
        assert_eq!(drawn, 0, "{path}");
        let source = window.script("return document.documentElement.outerHTML");
        let source = source.as_str().unwrap();
        assert_eq!(harmful(source), None, "{path}");
    }
    window.go(&format!("http://127.0.0.1:{port}/parked"));
    // It is there all the same, as text.
    assert!(window.text().contains("<img src=x onerror=alert(1)>"), "{}", window.text());
    assert_eq!(window.complaints(), Vec::<String>::new());

    let asked = [
        "/overview",
        "/accounts",
        "/users",
        "/messages",
        "/quarantine",
        "/parked",
        "/log?limit=1000",
        "/installation",
        "/health",
        "/audit",
    ];
    let mut asked: Vec<String> = asked.map(str::to_owned).to_vec();
    for id in [good, bad] {
        asked.extend(["", "/runs"].map(|part| format!("/accounts/{id}{part}")));
    }
    asked.extend([&message, &parked].map(|id| format!("/messages/{id}")));
    for path in &asked {
        let answer = local.call("GET", path, Value::Null, &[]).expect(200).text;
        assert_eq!(harmful(&answer), None, "{path}: {answer}");
    }
}
