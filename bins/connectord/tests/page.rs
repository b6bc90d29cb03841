//! The page and the API of the running daemon: what people do there happens, and is there after a restart.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{Daemon, Installation, Web, at_dovecot, free_port, wait_until};
use connectord_testkit::{Dovecot, DovecotOptions, Service, corpus};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What nothing may ever show.
const PASSWORD: &str = "wide open window";

/// A daemon with its page, and a server with two users.
struct Here {
    dovecot: Dovecot,
    here: Installation,
    daemon: Daemon,
    port: u16,
}

impl Here {
    fn new() -> Self {
        Self::with("", "")
    }

    /// With these tables and accounts in the file too.
    fn with(tables: &str, accounts: &str) -> Self {
        let dovecot = Dovecot::start(DovecotOptions::new().user("ann", PASSWORD).user("bob", PASSWORD));
        let here = Installation::trusting(dovecot.certificates());
        let port = free_port();
        configure(&here, port, tables, accounts);
        let daemon = here.serve();
        Self { dovecot, here, daemon, port }
    }

    fn state(&self) -> PathBuf {
        self.here.path("state")
    }

    /// The first administrator, in a browser.
    fn admin(&self) -> Web {
        let mut web = Web::at(self.port);
        web.first_start(&self.state());
        web
    }

    /// Root at this machine.
    fn local(&self) -> Web {
        Web::beside(&self.state())
    }

    /// An account at the server.
    fn settings(&self, user: &str) -> Value {
        json!({
            "address": format!("{user}@example.org"), "host": "127.0.0.1", "port": self.dovecot.port(Service::Imaps),
            "username": user, "deliver_to": [user], "secret": PASSWORD,
        })
    }

    /// Adds an account; its id.
    #[track_caller]
    fn add(&self, web: &mut Web, user: &str) -> String {
        let made = web.call("POST", "/accounts", self.settings(user), &[]).expect(201).json();
        made["id"].as_str().unwrap().to_owned()
    }

    /// Waits until an account was checked well.
    #[track_caller]
    fn wait_until_well(web: &mut Web, id: &str) {
        wait_until("a check that ended well", || {
            let account = web.ask(&format!("/accounts/{id}"));
            account["health"] == "ok" && account["activity"] == "idle"
        });
    }
}

fn configure(here: &Installation, port: u16, tables: &str, accounts: &str) {
    let path = here.path("mail/{user}/Maildir");
    let all = format!(
        "[admin]\nlisten = \"127.0.0.1:{port}\"\n[saved]\nnetworks = \"127.0.0.1\"\nports = \"1024-65535\"\n{tables}[delivery]\n\
         type = \"maildir\"\npath = \"{}\"\n",
        path.display()
    );
    here.configure_with(&all, accounts);
}

#[test]
fn from_the_first_link_to_the_first_delivered_message() {
    let it = Here::new();
    it.dovecot.seed("ann", "INBOX", &corpus::messages(12, 1));
    let mut web = Web::at(it.port);
    // Nobody can sign in, and nothing is to be seen.
    assert_eq!(web.get("/accounts").expect(303).header("location"), "/sign-in?next=%2Faccounts");
    let link = it.state().join("first-start");
    assert_eq!(std::fs::metadata(&link).unwrap().permissions().mode() & 0o777, 0o600);
    web.first_start(&it.state());

    let port = it.dovecot.port(Service::Imaps).to_string();
    let fields = |password: &'static str| {
        vec![
            ("address", "ann@example.org"),
            ("protocol", "imap"),
            ("security", "tls"),
            ("host", "127.0.0.1"),
            ("port", port.as_str()),
            ("username", "ann"),
            ("secret", password),
            ("deliver_to", "ann"),
            ("folders", "INBOX"),
            ("antispam", "1"),
            ("antivirus", "1"),
        ]
    };
    // A test of the connection changes nothing.
    let tested = web.form("/accounts/new", "/accounts/test", &fields(PASSWORD)).expect(200).text;
    assert!(tested.contains("Everything works.") && tested.contains("12 messages"), "{tested}");
    assert_eq!(web.ask("/accounts")["total"], 0);
    // A wrong password is refused, with the reason; what was typed is still there, but for the password.
    let refused = web.form("/accounts/new", "/accounts", &fields("notthisone")).expect(422).text;
    assert!(refused.contains("refused the user name or password."), "{refused}");
    assert!(refused.contains("value=\"ann@example.org\"") && !refused.contains("notthisone"), "{refused}");
    assert_eq!(web.ask("/accounts")["total"], 0);

    let added = web.form("/accounts/new", "/accounts", &fields(PASSWORD)).expect(303);
    let place = added.header("location").to_owned();
    let id = place.strip_prefix("/accounts/").unwrap().strip_suffix("?done=added").unwrap().to_owned();
    Here::wait_until_well(&mut web, &id);
    it.here.mail("ann").must_equal(&at_dovecot(&it.dovecot, Service::Imaps, "ann", "INBOX"), "ann");

    let page = web.get(&place).expect(200).text;
    assert!(page.contains("Added. The first check runs now.") && page.contains("ann@example.org"), "{page}");
    let runs = web.ask(&format!("/accounts/{id}/runs"));
    assert_eq!((&runs["items"][0]["delivered"], &runs["items"][0]["cause"]), (&json!(12), &Value::Null), "{runs}");
    wait_until("twelve messages in the trail", || web.ask("/messages?limit=5")["total"] == 12);
    let page = web.ask("/messages?limit=5");
    assert_eq!(page["items"].as_array().unwrap().len(), 5);
    let message = page["items"][0].clone();
    assert_eq!(
        (&message["state"], &message["deliver_to"], &message["account"]),
        (&json!("delivered"), &json!(["ann"]), &json!(id))
    );
    let trail = web.ask(&format!("/messages/{}", message["id"].as_str().unwrap()));
    let steps: Vec<&str> = trail["trail"].as_array().unwrap().iter().filter_map(|step| step["what"].as_str()).collect();
    assert!(steps.starts_with(&["seen", "retrieved"]) && steps.contains(&"delivered"), "{trail}");
    assert_eq!(web.ask(&format!("/messages?account={id}&q=no+such+words+anywhere"))["total"], 0);
    assert_eq!(web.ask("/accounts")["items"][0]["today"], 12);
    let overview = web.ask("/overview");
    assert_eq!(
        (&overview["today"]["delivered"], &overview["hours"][23]["delivered"]),
        (&json!(12), &json!(12)),
        "{overview}"
    );
    assert_eq!((&overview["accounts"]["ok"], &overview["accounts"]["total"]), (&json!(1), &json!(1)), "{overview}");
    let metrics = web.get("/metrics").expect(200).text;
    assert!(metrics.contains("connectord_accounts{health=\"ok\"} 1"), "{metrics}");
    assert_eq!(Web::at(it.port).get("/healthz").expect(200).text, "ok\n");
    assert_eq!(Web::at(it.port).get("/readyz").expect(200).text, "ready\n");

    // Every page is there, and none shows the password.
    for path in [
        "/",
        "/accounts",
        "/users",
        "/messages",
        "/quarantine",
        "/parked",
        "/log",
        "/settings",
        "/settings/people",
        "/settings/audit",
        "/me",
    ] {
        assert!(!web.get(path).expect(200).text.contains(PASSWORD), "{path}");
    }
    let audit = web.ask("/audit");
    let first: Vec<&str> = audit["items"].as_array().unwrap().iter().filter_map(|line| line["what"].as_str()).collect();
    assert!(first.contains(&"account.create") && first.contains(&"person.create"), "{audit}");
}

#[test]
fn accounts_are_changed_tested_switched_and_deleted_by_the_api() {
    let it = Here::with("", "");
    let mut web = it.admin();
    let mut api = web.program("admin");
    let id = it.add(&mut api, "ann");
    Here::wait_until_well(&mut api, &id);

    // The same key makes the same account; another one with the same mailbox is refused.
    let mut bob = it.settings("bob");
    let key = [("idempotency-key", "one")];
    let first = api.call("POST", "/accounts", bob.clone(), &key).expect(201).json();
    let again = api.call("POST", "/accounts", bob.clone(), &key).expect(201).json();
    assert_eq!(first["id"], again["id"]);
    bob["address"] = json!("other@example.org");
    let double = api.call("POST", "/accounts?untested=true", bob.clone(), &[]).expect(409).json();
    assert_eq!((&double["account"], &double["address"]), (&first["id"], &json!("bob@example.org")));
    let taken = api.call("POST", "/accounts", it.settings("ann"), &[]).expect(409).json();
    assert_eq!(taken["account"], json!(id));

    // Of two who edit the same version the second is told what is there now.
    let path = format!("/accounts/{id}");
    let shown = api.call("GET", &path, Value::Null, &[]).expect(200);
    let etag = shown.header("etag").to_owned();
    let mut settings = shown.json()["settings"].clone();
    settings["check"] = json!("5m");
    settings["note"] = json!("calls on Mondays");
    let matching = [("if-match", etag.as_str())];
    let saved = api.call("PUT", &path, settings.clone(), &matching).expect(200).json();
    assert_eq!((&saved["settings"]["check"], &saved["settings"]["note"]), (&json!("5m"), &json!("calls on Mondays")));
    settings["check"] = json!("7m");
    let late = api.call("PUT", &path, settings.clone(), &matching).expect(412).json();
    assert_eq!(late["current"]["settings"]["check"], "5m");

    // A login that does not work changes nothing, unless somebody insists.
    let current = [("if-match", "*")];
    settings["secret"] = json!("wrong");
    let failed = api.call("PUT", &path, settings.clone(), &current).expect(422).json();
    let steps = failed["test"]["steps"].as_array().unwrap();
    let login = steps.iter().find(|step| step["name"] == "login").unwrap();
    assert_eq!((&login["state"], &login["cause"]["code"]), (&json!("failed"), &json!("login_refused")), "{failed}");
    assert_eq!(api.ask(&path)["settings"]["check"], "5m");
    api.call("PUT", &format!("{path}?untested=true"), settings.clone(), &current).expect(200);
    wait_until("the refused login", || api.ask(&path)["health"] == "action");
    let ill = api.ask("/overview");
    assert_eq!(ill["causes"][0]["cause"]["code"], "login_refused", "{ill}");
    assert_eq!(api.ask("/accounts?state=action&cause=login_refused")["total"], 1);
    settings["secret"] = json!(PASSWORD);
    api.call("PUT", &path, settings.clone(), &current).expect(200);
    Here::wait_until_well(&mut api, &id);

    // A server of somebody else's gets no stored password; a name that stays is told so.
    let mut elsewhere = settings.clone();
    elsewhere.as_object_mut().unwrap().remove("secret");
    elsewhere["port"] = json!(1);
    let again = api.call("PUT", &path, elsewhere.clone(), &current).expect(422).json();
    assert_eq!((&again["fields"][0]["field"], &again["fields"][0]["problem"]), (&json!("secret"), &json!("again")));
    let mut renamed = settings.clone();
    renamed["address"] = json!("ann2@example.org");
    let fixed = api.call("PUT", &path, renamed, &current).expect(422).json();
    assert_eq!(fixed["fields"][0]["problem"], "fixed", "{fixed}");

    // A test of a draft, and of an account with its stored password.
    let test = api.call("POST", "/tests", json!({"settings": it.settings("ann")}), &[]).expect(200).json();
    assert_eq!(
        (&test["ok"], &test["messages"], &test["folders"][0]),
        (&json!(true), &json!(0), &json!("INBOX")),
        "{test}"
    );
    settings.as_object_mut().unwrap().remove("secret");
    let test = api.call("POST", "/tests", json!({"id": id, "settings": settings}), &[]).expect(200).json();
    assert_eq!(test["ok"], true, "{test}");
    assert_eq!(api.ask(&path)["folders_there"][0], "INBOX");

    // Checked at once, one and all.
    it.dovecot.seed("ann", "INBOX", &corpus::messages(2, 2));
    assert_eq!(api.call("POST", &format!("{path}/check"), Value::Null, &[]).expect(200).json()["count"], 1);
    wait_until("two messages", || it.here.files("ann").len() == 2);
    it.dovecot.seed("bob", "INBOX", &corpus::messages(3, 3));
    let all = json!({"filter": {}});
    assert_eq!(api.call("POST", "/check", all.clone(), &[]).expect(200).json()["count"], 2);
    wait_until("three messages", || it.here.files("bob").len() == 3);
    assert_eq!(api.call("POST", "/stop", all, &[]).expect(200).status, 200);

    // Switched off and on, and gone; delivered mail stays.
    assert_eq!(api.call("POST", &format!("{path}/disable"), Value::Null, &[]).expect(200).json()["count"], 1);
    assert_eq!(api.ask(&path)["health"], "off");
    assert_eq!(api.ask("/accounts?state=off")["total"], 1);
    assert_eq!(api.call("POST", &format!("{path}/check"), Value::Null, &[]).expect(200).json()["count"], 0);
    api.call("POST", &format!("{path}/enable"), Value::Null, &[]).expect(200);
    Here::wait_until_well(&mut api, &id);
    api.call("DELETE", &path, Value::Null, &[("if-match", "\"1\"")]).expect(412);
    api.call("DELETE", &path, Value::Null, &current).expect(204);
    api.call("GET", &path, Value::Null, &[]).expect(404);
    assert_eq!(it.here.files("ann").len(), 2);

    // Users with their accounts, the file, the log.
    let users = api.ask("/users");
    let user = |name: &str| {
        users["items"].as_array().unwrap().iter().find(|user| user["name"] == name).unwrap()["accounts"]["total"]
            .clone()
    };
    assert_eq!((user("ann"), user("bob")), (json!(0), json!(1)), "{users}");
    let file = api.ask("/installation");
    let entry = file["entries"].as_array().unwrap().iter().find(|entry| entry["key"] == "admin.listen").unwrap();
    assert_eq!(entry["value"], json!(format!("\"127.0.0.1:{}\"", it.port)), "{file}");
    let log = api.ask("/log?account=bob@example.org&limit=1000");
    assert!(
        log["items"].as_array().unwrap().iter().any(|line| line["text"].as_str().unwrap().contains("delivered=3")),
        "{log}"
    );
    assert!(api.ask("/health")["items"].as_array().unwrap().iter().all(|part| part["state"] != "down"));
    assert!(!format!("{}{log}{users}{file}", api.ask("/audit")).contains(PASSWORD));
}

#[test]
fn csv_adds_and_updates_accounts_and_says_why_a_line_is_refused() {
    let it = Here::new();
    let mut api = it.admin().program("admin");
    let port = it.dovecot.port(Service::Imaps);
    let csv = format!(
        "address,secret,host,port,username,deliver_to\nann@example.org,{PASSWORD},127.0.0.1,{port},ann,ann\n\
         bob@example.org,{PASSWORD},127.0.0.1,{port},bob,bob\nbroken@example.org,x,not a host,{port},x,ann\n"
    );
    let outcomes = |api: &mut Web, csv: &str, dry: bool| -> Vec<String> {
        let lines = api.call("POST", "/import", json!({"csv": csv, "dry_run": dry}), &[]).expect(200).json();
        lines["lines"].as_array().unwrap().iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(outcomes(&mut api, &csv, true), ["add", "add", "refused"]);
    assert_eq!(api.ask("/accounts")["total"], 0);
    assert_eq!(outcomes(&mut api, &csv, false), ["add", "add", "refused"]);
    assert_eq!(api.ask("/accounts")["total"], 2);
    let update = "address,host,deliver_to,check\nann@example.org,127.0.0.1,ann,9m\nbob@example.org,127.0.0.1,bob,15m\n";
    assert_eq!(outcomes(&mut api, update, false), ["update", "same"]);
    assert_eq!(api.ask("/accounts?q=ann")["items"][0]["deliver_to"], json!(["ann"]));
}

#[test]
fn what_is_held_and_parked_is_settled_on_the_page() {
    let rules = "[filter.rules]\n[[filter.rules.rule]]\nheader = \"Subject: hold me*\"\nthen = \"block\"\n";
    let it = Here::with(rules, "");
    for (subject, size) in [("hold me please", 10), ("hold me no longer", 10), ("large", 3_000_000), ("plain", 10)] {
        let text = format!(
            "From: eve@x.test\r\nSubject: {subject}\r\nMessage-ID: <{size}{subject}@x>\r\n\r\n{}\r\n",
            "x ".repeat(size / 2)
        );
        it.dovecot.deliver("ann", text.as_bytes());
    }
    let mut api = it.admin().program("admin");
    let mut settings = it.settings("ann");
    settings["max_megabytes"] = json!(1);
    let id = api.call("POST", "/accounts", settings, &[]).expect(201).json()["id"].as_str().unwrap().to_owned();
    Here::wait_until_well(&mut api, &id);
    assert_eq!(it.here.files("ann").len(), 1);

    let held = api.ask("/quarantine?user=ann");
    assert_eq!(held["total"], 2, "{held}");
    let named = |subject: &str| {
        let found = held["items"].as_array().unwrap().iter().find(|held| held["subject"] == subject).unwrap();
        found["id"].as_str().unwrap().to_owned()
    };
    let (one, other) = (named("hold me please"), named("hold me no longer"));
    let detail = api.ask(&format!("/quarantine/{one}"));
    assert_eq!((&detail["from"], &detail["there"]), (&json!("eve@x.test"), &json!(true)), "{detail}");
    let octets = api.call("GET", &format!("/quarantine/{one}/message"), Value::Null, &[]).expect(200).text;
    assert!(octets.contains("Subject: hold me please\r\n"), "{octets}");
    assert_eq!(api.call("POST", "/quarantine/release", json!({"ids": [one]}), &[]).expect(200).json()["count"], 1);
    wait_until("the released message", || it.here.files("ann").len() == 2);
    assert_eq!(api.call("POST", "/quarantine/discard", json!({"ids": [other]}), &[]).expect(200).json()["count"], 1);
    assert_eq!(api.ask("/quarantine")["total"], 0);
    api.call("POST", "/quarantine/discard", json!({"ids": [other]}), &[]).expect(422);

    let parked = api.ask("/parked");
    assert_eq!((&parked["total"], &parked["items"][0]["subject"]), (&json!(1), &json!("large")), "{parked}");
    assert_eq!(api.ask(&format!("/accounts/{id}"))["parked"], 1);
    assert_eq!(api.ask(&format!("/accounts/{id}"))["cause"]["code"], "parked");
    let ids = json!({"ids": [parked["items"][0]["id"]]});
    assert_eq!(api.call("POST", "/parked/anyway", ids, &[]).expect(200).json()["count"], 1);
    wait_until("the large message", || it.here.files("ann").len() == 3);
    wait_until("nothing is parked", || api.ask(&format!("/accounts/{id}"))["parked"] == 0);
}

#[test]
fn people_tokens_and_sessions_are_there_after_a_restart_and_a_power_cut() {
    let mut it = Here::new();
    let mut web = it.admin();
    let mut api = web.program("read");
    let id = it.add(&mut web_api(&mut web), "ann");
    Here::wait_until_well(&mut api, &id);
    let state = it.state();
    assert_eq!(it.daemon.stop().code, Some(0));
    assert!(!state.join("api.sock").exists(), "the socket went with the daemon");
    it.daemon = it.here.serve();
    assert!(!it.state().join("first-start").exists(), "nobody needs a first link");
    web.get("/accounts").expect(200);
    assert_eq!(api.ask("/accounts")["total"], 1);
    it.daemon.signal(Signal::SIGKILL);
    it.daemon = it.here.serve();
    web.get("/accounts").expect(200);
    assert_eq!(api.ask("/me")["role"], "read");
    let mut other = web.another();
    other.sign_in("anna", "wrong wrong wrong").expect(401);
    other.sign_in("anna", "correct horse battery").expect(303);
    let audit = web.ask("/audit").to_string();
    assert!(audit.contains("sign_in.refused") && audit.contains("token.create"), "{audit}");
}

/// The API in a browser's session.
fn web_api(web: &mut Web) -> Web {
    web.program("admin")
}

#[test]
fn an_account_that_was_answered_for_is_there_whenever_the_daemon_is_killed() {
    let mut it = Here::new();
    let mut api = it.admin().program("admin");
    let mut acknowledged: Vec<String> = Vec::new();
    let template = it.settings("ann");
    for round in 0..4 {
        let saving = std::thread::scope(|threads| {
            let saving = threads.spawn(|| {
                let mut saved = Vec::new();
                for number in 0..40 {
                    let mut settings = template.clone();
                    let address = format!("r{round}n{number}@example.org");
                    settings["address"] = json!(address);
                    settings["username"] = json!(address);
                    settings["enabled"] = json!(false);
                    match api.try_call(
                        "POST",
                        "/accounts?untested=true",
                        settings,
                        &[("idempotency-key", address.as_str())],
                    ) {
                        Some(answer) if answer.status == 201 => saved.push(address),
                        Some(answer) => panic!("{} {}", answer.status, answer.text),
                        None => break,
                    }
                }
                saved
            });
            it.daemon.wait_for_times(round + 3, &["a saved account was changed"]);
            it.daemon.signal(Signal::SIGKILL);
            saving.join().unwrap()
        });
        assert!(!saving.is_empty());
        acknowledged.extend(saving);
        it.daemon = it.here.serve();
        let listed = all_addresses(&mut api);
        for address in &acknowledged {
            assert!(listed.contains(address), "{address} was answered for and is gone");
        }
        // Who asks again with the same key gets the same account, also the one whose answer was lost.
        for address in listed.iter().filter(|address| address.starts_with(&format!("r{round}"))) {
            let mut settings = it.settings("ann");
            settings["address"] = json!(address);
            settings["username"] = json!(address);
            settings["enabled"] = json!(false);
            api.call("POST", "/accounts?untested=true", settings, &[("idempotency-key", address.as_str())]).expect(201);
        }
        assert_eq!(all_addresses(&mut api).len(), listed.len());
    }
}

fn all_addresses(api: &mut Web) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = api.ask(&format!("/accounts?limit=200{after}"));
        all.extend(page["items"].as_array().unwrap().iter().map(|row| row["address"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

#[test]
fn whoever_is_root_at_the_machine_needs_no_token_on_the_socket_beside_the_state() {
    let it = Here::new();
    let socket = it.state().join("api.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut local = it.local();
    assert_eq!(local.ask("/me")["role"], "admin");
    // Another first link, which works, while nobody can sign in.
    let link =
        local.call("POST", "/first-start", Value::Null, &[]).expect(201).json()["link"].as_str().unwrap().to_owned();
    assert!(link.starts_with(&format!("http://127.0.0.1:{}/start/", it.port)), "{link}");
    std::fs::write(it.state().join("first-start"), &link).unwrap();
    let mut web = it.admin();
    local.call("POST", "/first-start", Value::Null, &[]).expect(409);
    web.program("admin").call("POST", "/first-start", Value::Null, &[]).expect(403);
    // What a proxy passed on is not root.
    local.call("GET", "/me", Value::Null, &[("x-forwarded-for", "192.0.2.1")]).expect(401);
}

#[test]
fn without_a_page_the_socket_answers_all_the_same() {
    let here = Installation::new();
    here.configure("");
    let daemon = here.serve();
    let mut local = Web::beside(&here.path("state"));
    assert_eq!(local.ask("/accounts")["total"], 0);
    assert!(!here.path("state/first-start").exists());
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn a_place_that_is_taken_is_told_and_nothing_runs() {
    let here = Installation::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    configure(&here, port, "", "");
    let refused = here.run(&["serve"]);
    assert_eq!(refused.code, Some(74), "{refused}");
    let told = format!("[admin] listen: cannot listen on 127.0.0.1:{port}: Address already in use");
    assert!(refused.stderr.contains(&told), "{refused}");
    // The state is free again.
    drop(taken);
    assert_eq!(here.serve().stop().code, Some(0));
}

#[test]
fn another_place_in_the_file_is_told_to_need_a_restart_and_the_page_goes_on() {
    let mut it = Here::new();
    let mut web = it.admin();
    configure(&it.here, free_port(), "", "");
    it.daemon.signal(Signal::SIGHUP);
    it.daemon.wait_for(&["WARN", "[admin] is another one in the file"]);
    web.get("/").expect(200);
    assert_eq!(it.daemon.stop().code, Some(0));
}

#[test]
fn accounts_of_the_file_are_shown_with_their_line_and_changed_there() {
    let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
    let here = Installation::trusting(dovecot.certificates());
    configure(&here, free_port(), "", &common::dovecot_account(&dovecot, Service::Imaps));
    let _daemon = here.serve();
    let mut local = Web::beside(&here.path("state"));
    let listed = local.ask("/accounts?source=file");
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    Here::wait_until_well(&mut local, &id);
    let shown = local.ask(&format!("/accounts/{id}"));
    let text = std::fs::read_to_string(here.configuration()).unwrap();
    let line = text.lines().position(|line| line.starts_with("address = ")).unwrap() + 1;
    assert_eq!(shown["place"], json!(format!("connectord.toml, line {line}")), "{shown}");
    local.call("PUT", &format!("/accounts/{id}"), shown["settings"].clone(), &[("if-match", "*")]).expect(403);
    local.call("DELETE", &format!("/accounts/{id}"), Value::Null, &[]).expect(403);
    local.call("POST", &format!("/accounts/{id}/disable"), Value::Null, &[]).expect(403);
    assert_eq!(local.call("POST", &format!("/accounts/{id}/check"), Value::Null, &[]).expect(200).json()["count"], 1);
}
