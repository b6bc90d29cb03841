//! One test for each threat of docs/admin.md; each fails without its defence.

use std::time::Duration;

use connectord_admin::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::support::{
    self, PASSWORD, Sample, call, call_with, good_form, good_json, options, serve_sample, serve_with, url_encoded,
};

#[tokio::test]
async fn an_address_that_others_reach_is_not_listened_on_without_a_proxy() {
    let listen = || async { Listener::Tcp(TcpListener::bind("0.0.0.0:0").await.expect("a free port")) };
    let serve = |listener, options| {
        let keep = std::sync::Arc::new(MemoryKeep::default());
        serve(listener, std::sync::Arc::new(Sample::new(0)), keep, options, async {})
    };
    let exposed = serve(listen().await, options()).await;
    assert!(matches!(exposed, Err(ServeError::Exposed(_))), "{exposed:?}");
    let half = Options { behind_proxy: true, ..options() };
    assert!(matches!(serve(listen().await, half).await, Err(ServeError::Exposed(_))));
    let whole = Options { behind_proxy: true, public_url: Some("https://mail.example.org".into()), ..options() };
    serve(listen().await, whole).await.expect("served until shutdown");
    let plain = Options { behind_proxy: true, public_url: Some("http://mail.example.org".into()), ..options() };
    assert!(matches!(serve(listen().await, plain).await, Err(ServeError::PublicUrl(_))));
}

#[tokio::test]
async fn another_sites_page_changes_nothing() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let page = admin.get("/accounts/a3/delete").await.text;
    let from = page.find("name=\"form_token\" value=\"").expect("a form") + 25;
    let token = page[from..from + 64].to_owned();
    let send = |origin: Option<&'static str>, site: Option<&'static str>, token: &str| {
        let body = url_encoded(&[("form_token", token)]);
        let mut request = admin.http.post(served.url("/accounts/a3/delete")).header("cookie", &admin.cookie);
        request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(send(None, None, &token).await, 403, "neither field");
    assert_eq!(send(Some("https://evil.example"), None, &token).await, 403);
    assert_eq!(send(Some("null"), None, &token).await, 403);
    assert_eq!(send(None, Some("cross-site"), &token).await, 403);
    assert_eq!(send(None, Some("same-site"), &token).await, 403);
    assert_eq!(send(None, Some("same-origin"), "").await, 403, "no form token");
    assert_eq!(send(None, Some("same-origin"), &"0".repeat(64)).await, 403, "another form token");
    assert!(served.sample.account("a3").await.is_ok());
    assert_eq!(send(None, Some("same-origin"), &token).await, 303);
    assert!(served.sample.account("a3").await.is_err());
}

#[tokio::test]
async fn a_form_of_another_session_changes_nothing() {
    let served = serve_sample(Sample::new(20)).await;
    let mut one = served.admin().await;
    let mut two = served.somebody("other", Role::Admin, None).await;
    one.get("/me").await;
    two.form("/looks", &[("theme", "dark")]).await;
    one.form_token = two.form_token.clone();
    assert_eq!(one.form("/accounts/a3/delete", &[]).await.status, 403);
}

#[tokio::test]
async fn json_insists_on_its_media_type_and_a_session_on_our_own_page() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let post = |kind: &'static str, origin: String| {
        let request =
            admin.http.post(served.url("/api/v1/check")).header("cookie", &admin.cookie).header("origin", origin);
        request.header("content-type", kind).body(json!({"ids": ["a1"]}).to_string())
    };
    let (form, foreign, ours) = (
        post("text/plain", served.origin()),
        post("application/json", "https://evil.example".into()),
        post("application/json", served.origin()),
    );
    assert_eq!(admin.send(form).await.status, 415);
    assert_eq!(admin.send(foreign).await.status, 403);
    assert_eq!(admin.send(ours).await.status, 200);
}

#[tokio::test]
async fn a_get_changes_nothing() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let before = format!("{:?}", served.sample.accounts(&AccountQuery::default()).await.expect("accounts"));
    let posts = [
        "/accounts/test",
        "/accounts/bulk?act=check&all=1",
        "/accounts/a3/check",
        "/accounts/a3/stop",
        "/accounts/a3/switch",
        "/me/password",
        "/looks?theme=dark",
        "/sign-out",
        "/api/v1/check",
        "/api/v1/stop",
        "/api/v1/accounts/a3/check",
        "/api/v1/quarantine/discard",
    ];
    for path in posts {
        let answer = admin.get(path).await;
        assert!([404, 405].contains(&answer.status), "GET {path}: {}", answer.status);
    }
    admin.get("/quarantine?act=discard&id=q1&sure=1").await;
    admin.get("/accounts/a3/delete").await;
    assert_eq!(format!("{:?}", served.sample.accounts(&AccountQuery::default()).await.expect("accounts")), before);
    assert_eq!(admin.get("/me").await.status, 200, "still signed in");
}

#[tokio::test]
async fn a_foreign_name_that_resolves_to_us_gets_nothing() {
    let served = serve_sample(Sample::new(5)).await;
    let mut admin = served.admin().await;
    for path in ["/", "/api/v1/accounts", "/healthz", "/assets/script.js"] {
        let request = admin.http.get(served.url(path)).header("cookie", &admin.cookie).header("host", "evil.example");
        assert_eq!(admin.send(request).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_session_is_new_at_each_sign_in_and_its_cookie_is_ours_alone() {
    let served = serve_sample(Sample::new(5)).await;
    served.admin().await;
    let mut attacked = served.nobody();
    attacked.cookie = format!("connectord={}", "a".repeat(64));
    let answer = attacked.post("/sign-in", &[("name", "root"), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, 303);
    let cookie = answer.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/"), "{cookie}");
    let first = attacked.cookie.clone();
    assert!(!first.contains(&"a".repeat(64)));
    attacked.post("/sign-in", &[("name", "root"), ("password", PASSWORD)]).await;
    assert_ne!(attacked.cookie, first);
    assert_eq!(first.len(), "connectord=".len() + 64, "256 bits");
    let mut fixed = served.nobody();
    fixed.cookie = format!("connectord={}", "a".repeat(64));
    assert_eq!(fixed.get("/accounts").await.status, 303, "an id that was not given out is none");
}

#[tokio::test]
async fn over_https_the_cookie_is_bound_to_host_and_https() {
    let options = Options { public_url: Some("https://mail.example.org".into()), behind_proxy: true, ..options() };
    let served = serve_with(Sample::new(5), options).await;
    let link = first_start(served.keep.as_ref()).await.expect("kept").expect("nobody yet");
    let mut client = served.nobody();
    let body = url_encoded(&[("name", "root"), ("password", PASSWORD)]);
    let request = client
        .http
        .post(served.url(&link.path))
        .header("host", "mail.example.org")
        .header("origin", "https://mail.example.org");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer = client.send(request).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let cookie = answer.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-connectord=") && cookie.contains("Secure") && !cookie.contains("Domain"),
        "{cookie}"
    );
}

#[tokio::test]
async fn a_new_password_ends_all_other_sessions_and_needs_the_old_one() {
    let served = serve_sample(Sample::new(5)).await;
    let mut here = served.admin().await;
    let mut there = served.nobody();
    there.post("/sign-in", &[("name", "root"), ("password", PASSWORD)]).await;
    assert_eq!(there.get("/me").await.status, 200);
    let wrong = here.form("/me/password", &[("before", "not the old one"), ("password", "another long phrase")]).await;
    assert_eq!(wrong.status, 422);
    assert_eq!(there.get("/me").await.status, 200);
    let changed = here.form("/me/password", &[("before", PASSWORD), ("password", "another long phrase")]).await;
    assert_eq!(changed.status, 303, "{}", changed.text);
    assert_eq!(there.get("/me").await.status, 303);
    assert_eq!(here.get("/me").await.status, 200);
}

#[tokio::test]
async fn signing_out_ends_the_session_at_the_server() {
    let served = serve_sample(Sample::new(5)).await;
    let mut admin = served.admin().await;
    let cookie = admin.cookie.clone();
    admin.form("/sign-out", &[]).await;
    admin.cookie = cookie;
    assert_eq!(admin.get("/me").await.status, 303);
}

#[tokio::test]
async fn guessing_is_slowed_and_tells_nothing_about_names() {
    let served = serve_sample(Sample::new(5)).await;
    served.admin().await;
    let mut client = served.nobody();
    let known = client.post("/sign-in", &[("name", "root"), ("password", "wrong wrong wrong")]).await;
    let unknown = client.post("/sign-in", &[("name", "toor"), ("password", "wrong wrong wrong")]).await;
    assert_eq!((known.status, unknown.status), (401, 401));
    assert_eq!(known.text.replace("root", "NAME"), unknown.text.replace("toor", "NAME"));
    let mut refused = 0;
    for _ in 0..8 {
        refused += u32::from(
            client.post("/sign-in", &[("name", "root"), ("password", "wrong wrong wrong")]).await.status == 429,
        );
    }
    assert!(refused >= 3, "only {refused} were refused");
    assert_eq!(
        client.post("/sign-in", &[("name", "root"), ("password", PASSWORD)]).await.status,
        429,
        "the right one too"
    );
    let words = served.sample.audit_words();
    assert!(words.iter().any(|line| line == "root sign_in.refused"), "{words:?}");
}

#[tokio::test]
async fn the_first_link_works_once_and_looking_at_it_does_not_use_it_up() {
    let served = serve_sample(Sample::new(0)).await;
    let link = first_start(served.keep.as_ref()).await.expect("kept").expect("nobody yet");
    let other = first_start(served.keep.as_ref()).await.expect("kept").expect("nobody yet");
    let mut client = served.nobody();
    for _ in 0..3 {
        assert_eq!(client.get(&link.path).await.status, 200);
    }
    assert_eq!(client.post(&link.path, &[("name", "root"), ("password", "short")]).await.status, 422);
    assert_eq!(client.post(&link.path, &[("name", "root"), ("password", PASSWORD)]).await.status, 303);
    let mut second = served.nobody();
    assert_eq!(second.get(&link.path).await.status, 404);
    assert_eq!(second.post(&link.path, &[("name", "evil"), ("password", PASSWORD)]).await.status, 404);
    assert!(first_start(served.keep.as_ref()).await.expect("kept").is_none());
    // One that was never used is in an old log: it makes no second administrator.
    assert_eq!(second.post(&other.path, &[("name", "evil"), ("password", PASSWORD)]).await.status, 404);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("first-start");
    link.write("http://127.0.0.1:8025", &file).expect("written");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_is_kept_opens_nothing() {
    let served = serve_sample(Sample::new(5)).await;
    let token = served.token("read").await;
    let mut admin = served.nobody();
    admin.post("/sign-in", &[("name", "root"), ("password", PASSWORD)]).await;
    let session = admin.cookie.split_once('=').expect("a pair").1.to_owned();
    let link = invite(served.keep.as_ref(), Some("x".into()), Role::Read, None).await.expect("kept");
    let secret = link.path.rsplit('/').next().expect("a token").to_owned();
    let kept = served.keep.list("", 1000).await.expect("kept");
    let text: String = kept.iter().map(|(key, value)| format!("{key}={}\n", String::from_utf8_lossy(value))).collect();
    assert!(
        text.contains("$argon2id$") && text.contains("session/") && text.contains("token/") && text.contains("start/"),
        "{text}"
    );
    for secret in [PASSWORD, &token, &session, &secret] {
        assert!(!text.contains(secret), "{secret} is kept as it is");
    }
}

#[tokio::test]
async fn a_changed_server_asks_for_the_secret_again() {
    let served = serve_sample(Sample::new(20)).await;
    let token = served.token("admin").await;
    let account = call(&served, &token, "get", "/api/v1/accounts/a3", None).await;
    let etag = account.header("etag").to_owned();
    let mut settings = account.json()["settings"].clone();
    settings["host"] = "evil.example".into();
    let put =
        call_with(&served, &token, "put", "/api/v1/accounts/a3", Some(settings.clone()), &[("if-match", &etag)]).await;
    assert_eq!((put.status, &put.json()["fields"][0]["field"]), (422, &json!("secret")), "{}", put.text);
    let test = call(&served, &token, "post", "/api/v1/tests", Some(json!({"id": "a3", "settings": settings}))).await;
    assert_eq!((test.status, &test.json()["fields"][0]["field"]), (422, &json!("secret")), "{}", test.text);
    let mut admin = served.nobody();
    admin.post("/sign-in", &[("name", "root"), ("password", PASSWORD)]).await;
    let mut form = good_form();
    form.retain(|(name, _)| *name != "secret");
    form.push(("id", "a3"));
    assert_eq!(admin.form("/accounts/test", &form).await.status, 422);
    assert_eq!(admin.form("/accounts/a3/settings", &form).await.status, 422);
}

#[tokio::test]
async fn testing_connections_is_bounded_and_no_operators_business() {
    let served = serve_sample(Sample::new(5)).await;
    let (admin, operator) = (served.token("admin").await, served.token("operate").await);
    let mut settings = good_json();
    let body = json!({ "settings": settings.take() });
    assert_eq!(call(&served, &operator, "post", "/api/v1/tests", Some(body.clone())).await.status, 403);
    let mut refused = 0;
    for _ in 0..14 {
        refused += u32::from(call(&served, &admin, "post", "/api/v1/tests", Some(body.clone())).await.status == 429);
    }
    assert!(refused >= 2, "only {refused} of 14 were refused");
}

#[tokio::test]
async fn what_a_server_said_is_for_administrators() {
    let served = serve_sample(Sample::new(5)).await;
    let (admin, operator) = (served.token("admin").await, served.token("operate").await);
    let seen = |token: String| {
        let served = &served;
        async move { call(served, &token, "get", "/api/v1/accounts/a0", None).await.text }
    };
    assert!(seen(admin).await.contains("AUTHENTICATIONFAILED"));
    assert!(!seen(operator).await.contains("AUTHENTICATIONFAILED"));
    let mut reader = served.somebody("reader", Role::Read, None).await;
    assert!(!reader.get("/accounts/a0").await.text.contains("AUTHENTICATIONFAILED"));
}

#[tokio::test]
async fn every_operation_refuses_those_below_its_role_and_strangers() {
    let served = serve_sample(Sample::new(5)).await;
    let tokens = [("read", served.token("read").await), ("operate", served.token("operate").await)];
    let rank = |role: &str| ["own", "read", "operate", "admin"].iter().position(|known| *known == role);
    let document = openapi();
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let needed = operation["x-role"].as_str().expect("a role");
            let path = path.replace("{id}", "a1").replace("{action}", "skip");
            let body = operation.get("requestBody").map(|_| json!({}));
            assert_eq!(call(&served, "cd_none", method, &path, body.clone()).await.status, 401, "{method} {path}");
            for (role, token) in &tokens {
                if rank(role) < rank(needed) {
                    let answer = call(&served, token, method, &path, body.clone()).await;
                    assert_eq!(answer.status, 403, "{role}: {method} {path}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 15, "only {checked} were refused");
    // Own accounts, and administrators': the handlers decide.
    let reader = &tokens[0].1;
    assert_eq!(call(&served, reader, "post", "/api/v1/accounts", Some(good_json())).await.status, 403);
    assert_eq!(call(&served, reader, "delete", "/api/v1/accounts/a1", None).await.status, 403);
    assert_eq!(call(&served, reader, "post", "/api/v1/accounts/a1/check", None).await.status, 403);
    assert_eq!(call(&served, &tokens[1].1, "post", "/api/v1/accounts/a1/disable", None).await.status, 403);
}

#[tokio::test]
async fn pages_refuse_those_below_their_role() {
    let served = serve_sample(Sample::new(20)).await;
    let mut reader = served.somebody("reader", Role::Read, None).await;
    for path in [
        "/accounts/new",
        "/accounts/a3/settings",
        "/accounts/import",
        "/accounts/export.csv",
        "/settings/people",
        "/settings/tokens",
        "/settings/audit",
        "/quarantine/q1/message.eml",
    ] {
        assert_eq!(reader.get(path).await.status, 403, "{path}");
    }
    for path in [
        "/accounts/a3/check",
        "/accounts/a3/switch",
        "/accounts/a3/delete",
        "/accounts/bulk",
        "/quarantine",
        "/parked",
        "/settings/tokens",
        "/settings/people",
        "/accounts/import",
    ] {
        let answer = reader.form(path, &[("act", "check"), ("all", "1"), ("id", "q1")]).await;
        assert_eq!(answer.status, 403, "{path}");
    }
    let mut operator = served.somebody("operator", Role::Operate, None).await;
    assert_eq!(operator.form("/accounts/a3/check", &[]).await.status, 303);
    assert_eq!(operator.form("/accounts/bulk", &[("act", "off"), ("all", "1")]).await.status, 403);
    assert_eq!(operator.form("/accounts/a3/delete", &[]).await.status, 403);
}

#[tokio::test]
async fn somebody_with_accounts_of_their_own_sees_and_manages_only_these() {
    let served = serve_sample(Sample::new(40)).await;
    served.sample.deliver_to("a2", &["anna", "bob"]);
    let mut anna = served.somebody("anna", Role::Own, Some("anna")).await;
    assert_eq!(anna.get("/accounts/a2").await.status, 404, "others get its mail too");
    let list = anna.get("/accounts?q=user:bob").await.text;
    assert!(list.contains("info@<wbr>example.<wbr>org") && !list.contains("<bdi>bob</bdi>"), "{list}");
    let listed = anna.get("/api/v1/accounts?user=bob").await.json();
    assert!(listed["total"].as_u64() > Some(0), "{listed}");
    let hers = |item: &serde_json::Value| item["deliver_to"] == json!(["anna"]);
    assert!(listed["items"].as_array().expect("items").iter().all(hers), "{listed}");
    let foreign = served.sample.account("a1").await.expect("bob's").row.deliver_to;
    assert_eq!(foreign, ["bob"]);
    for path in [
        "/accounts/a1",
        "/accounts/a1/runs",
        "/accounts/a1/messages",
        "/accounts/a1/settings",
        "/accounts/a1/delete",
        "/events?view=account:a1",
        "/api/v1/accounts/a1",
        "/api/v1/accounts/a1/runs",
        "/api/v1/events?account=a1",
    ] {
        assert_eq!(anna.get(path).await.status, 404, "{path}");
    }
    for path in [
        "/users",
        "/log",
        "/settings",
        "/parked",
        "/settings/people",
        "/api/v1/users",
        "/api/v1/overview",
        "/metrics",
        "/events?view=log",
        "/events?view=overview",
    ] {
        assert_eq!(anna.get(path).await.status, 403, "{path}");
    }
    for path in ["/accounts/a1/check", "/accounts/a1/switch", "/accounts/a1/delete"] {
        assert_eq!(anna.form(path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(anna.form("/accounts/bulk", &[("act", "check"), ("id", "a1")]).await.status, 404);
    assert_eq!(anna.form("/accounts/bulk", &[("act", "off"), ("all", "1"), ("user", "bob")]).await.status, 303);
    assert_eq!(served.sample.account("a1").await.expect("bob's").row.health, Health::Ok);
    assert_eq!(served.sample.account("a0").await.expect("hers").row.health, Health::Off);
    assert_eq!(served.sample.account("a2").await.expect("shared").row.health, Health::Ok);
    let mut form = good_form();
    form.iter_mut().filter(|(name, _)| *name == "deliver_to").for_each(|field| field.1 = "bob");
    form.push(("delivery", "archive"));
    let added = anna.form("/accounts", &form).await;
    assert_eq!(added.status, 303, "{}", added.text);
    let added = served.sample.account("n1").await.expect("added");
    assert_eq!((added.settings.deliver_to, added.settings.delivery.as_str()), (vec!["anna".to_owned()], ""));
    for message in 0..30 {
        let (known, _) = served.sample.message(&format!("m{message}")).await.expect("there");
        let wanted = if known.deliver_to == ["anna"] { 200 } else { 404 };
        assert_eq!(anna.get(&format!("/messages/m{message}")).await.status, wanted);
    }
    assert!(!anna.get("/messages?user=bob").await.text.contains("<bdi>bob</bdi>"));
    assert!(!anna.get("/quarantine?user=bob").await.text.contains("<bdi>bob</bdi>"));
}

#[tokio::test]
async fn nothing_is_framed_kept_or_loaded_from_elsewhere() {
    let served = serve_sample(Sample::new(5)).await;
    let mut admin = served.admin().await;
    for path in [
        "/",
        "/sign-in",
        "/nothing",
        "/accounts/a1",
        "/api/v1/accounts",
        "/api/v1/nothing",
        "/quarantine/q1/message.eml",
        "/healthz",
    ] {
        let answer = admin.get(path).await;
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part), "{path} lacks {part}");
        }
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    let message = admin.get("/quarantine/q1/message.eml").await;
    assert_eq!(message.header("content-type"), "application/octet-stream");
    assert_eq!(message.header("content-disposition"), "attachment; filename=\"message.eml\"");
    for path in ["/", "/accounts", "/accounts/new", "/log", "/sign-in"] {
        let page = admin.get(path).await.text;
        for inline in [
            " style=",
            "<style",
            " onclick",
            "javascript:",
            "<script>",
            "src=\"http",
            "href=\"http",
            "action=\"http",
            "url(http",
        ] {
            assert!(!page.contains(inline), "{path} has {inline}");
        }
    }
}

#[tokio::test]
async fn a_secret_goes_in_and_never_comes_out() {
    let served = serve_sample(Sample::new(5)).await;
    let mut admin = served.admin().await;
    let form = good_form();
    assert_eq!(admin.form("/accounts", &form).await.status, 303);
    assert_eq!(served.sample.secret("n1").as_deref(), Some("s3cret-of-mine"));
    served.sample.login_works.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut again = good_form();
    again.retain(|(name, _)| !["host", "key"].contains(name));
    again.extend([("host", "other.example"), ("key", "k2")]);
    let refused = admin.form("/accounts", &again).await;
    assert_eq!(refused.status, 422);
    assert!(!refused.text.contains("s3cret-of-mine"), "the form that is shown again holds it");
    for path in [
        "/accounts/n1",
        "/accounts/n1/settings",
        "/api/v1/accounts/n1",
        "/accounts/export.csv",
        "/settings/audit",
        "/log",
    ] {
        assert!(!admin.get(path).await.text.contains("s3cret-of-mine"), "{path}");
    }
    let wrong_field = call_json(
        &mut admin,
        "/api/v1/accounts",
        json!({"address": "a@b", "host": "h", "deliver_to": ["anna"], "port": "s3cret-of-mine"}),
    )
    .await;
    assert_eq!(wrong_field.status, 422);
    assert!(!wrong_field.text.contains("s3cret-of-mine"), "{}", wrong_field.text);
}

async fn call_json(client: &mut support::Client, path: &str, body: serde_json::Value) -> support::Answered {
    let request = client
        .http
        .post(format!("{}{path}", client.base))
        .header("cookie", &client.cookie)
        .header("origin", &client.base);
    client.send(request.header("content-type", "application/json").body(body.to_string())).await
}

#[tokio::test]
async fn who_did_what_is_written_down() {
    let served = serve_sample(Sample::new(5)).await;
    let mut admin = served.admin().await;
    admin.form("/settings/people", &[("name", "bob"), ("role", "read")]).await;
    admin.form("/settings/tokens", &[("name", "backup"), ("role", "read")]).await;
    let words = served.sample.audit_words();
    for line in ["root person.create", "root person.invite", "root token.create"] {
        assert!(words.iter().any(|known| known == line), "no {line} in {words:?}");
    }
    assert!(admin.get("/settings/audit").await.text.contains("token.create"));
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let served = serve_sample(Sample::new(5)).await;
    let mut admin = served.admin().await;
    assert_eq!(admin.form("/settings/people", &[("act", "remove"), ("name", "root")]).await.status, 409);
    let mut other = served.somebody("other", Role::Admin, None).await;
    assert_eq!(admin.form("/settings/people", &[("act", "remove"), ("name", "other")]).await.status, 303);
    assert_eq!(other.get("/me").await.status, 303, "removed, and still signed in");
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let served = serve_with(Sample::new(1), Options { head: Duration::from_millis(200), ..options() }).await;
    let mut stream = TcpStream::connect(served.address).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow").await.expect("sent");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is kept");
}

#[tokio::test]
async fn a_body_has_a_bound() {
    let served = serve_sample(Sample::new(1)).await;
    let token = served.token("admin").await;
    let body = json!({ "csv": "x".repeat(3 << 20) });
    let answer = call(&served, &token, "post", "/api/v1/import", Some(body)).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn an_address_to_lead_on_to_is_ours() {
    let served = serve_sample(Sample::new(1)).await;
    served.admin().await;
    for next in ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"] {
        let mut client = served.nobody();
        let answer = client.post("/sign-in", &[("name", "root"), ("password", PASSWORD), ("next", next)]).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{next}");
    }
}

/// Asks over a Unix socket; answers the status.
async fn over_socket(options: Options, headers: &str) -> u16 {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let listener = Listener::Unix(UnixListener::bind(&path).expect("bound"));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let keep = std::sync::Arc::new(MemoryKeep::default());
    let task = tokio::spawn(serve(listener, std::sync::Arc::new(Sample::new(3)), keep, options, async {
        drop(stopped.await)
    }));
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    let request = format!("GET /api/v1/tokens HTTP/1.1\r\nHost: connectord\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    drop(stop);
    task.await.expect("no panic").expect("served");
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test]
async fn on_a_unix_socket_the_peers_user_id_is_believed_unless_a_proxy_stands_between() {
    let own = rustix::process::getuid().as_raw();
    let with = |uids: Vec<u32>| Options { socket_admins: uids, ..options() };
    assert_eq!(over_socket(with(vec![own]), "").await, 200);
    assert_eq!(over_socket(with(vec![own + 1]), "").await, 401);
    assert_eq!(over_socket(with(vec![own]), "X-Forwarded-For: 192.0.2.1\r\n").await, 401);
    assert_eq!(over_socket(with(vec![own]), "Forwarded: for=192.0.2.1\r\n").await, 401);
}
