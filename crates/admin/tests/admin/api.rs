//! The REST API.

use std::collections::HashSet;

use connectord_admin::*;
use serde_json::{Value as Json, json};

use crate::support::{Sample, call, call_with, good_json, serve_sample};

/// What of `value` is not as `schema` says; unknown names are faults too.
fn faults(value: &Json, schema: &Json, schemas: &Json, at: &str) -> Vec<String> {
    if let Some(name) = schema.get("$ref").and_then(Json::as_str) {
        let name = name.rsplit('/').next().expect("a name");
        assert!(schemas.get(name).is_some(), "no schema {name}");
        return faults(value, &schemas[name], schemas, at);
    }
    let kind = match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    let allowed: Vec<&str> = match &schema["type"] {
        Json::String(one) => vec![one],
        Json::Array(many) => many.iter().filter_map(Json::as_str).collect(),
        _ => vec![kind],
    };
    let mut wrong = Vec::new();
    if !allowed.contains(&kind) {
        wrong.push(format!("{at} is {kind}, not {allowed:?}"));
    }
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.contains(value)) {
        wrong.push(format!("{at} is {value}, not of {words:?}"));
    }
    match value {
        Json::Object(fields) => {
            for needed in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
                if !fields.contains_key(needed) {
                    wrong.push(format!("{at} lacks {needed}"));
                }
            }
            if let Some(known) = schema["properties"].as_object() {
                for (name, field) in fields {
                    match known.get(name) {
                        Some(schema) => wrong.extend(faults(field, schema, schemas, &format!("{at}.{name}"))),
                        None => wrong.push(format!("{at}.{name} is in no schema")),
                    }
                }
            }
        }
        Json::Array(items) if schema.get("items").is_some() => {
            wrong.extend(items.iter().flat_map(|item| faults(item, &schema["items"], schemas, &format!("{at}[]"))));
        }
        _ => {}
    }
    wrong
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let served = serve_sample(Sample::new(800)).await;
    let token = served.token("admin").await;
    let document = call(&served, &token, "get", "/api/v1/openapi.json", None).await.json();
    assert_eq!(document, openapi());
    let schemas = &document["components"]["schemas"];
    let csv = "address,host,deliver_to,secret\nx@y.test,imap.y.test,anna,p\nbad,,anna,p\n";
    let body = |path: &str, name: &str| match name {
        "Settings" => good_json(),
        "TestRequest" => json!({ "settings": good_json() }),
        "Import" => json!({ "csv": csv }),
        "Invite" => json!({ "name": "somebody", "role": "read" }),
        "Ids" | "Release" => json!({ "ids": [if path.contains("parked") { "p1" } else { "q2" }] }),
        "Which" => json!({ "filter": { "state": "delayed" } }),
        other => panic!("no body for {other}"),
    };
    let mut seen = HashSet::new();
    // What deletes comes last.
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().expect("methods").iter().map(move |(method, one)| (path, method, one))
    });
    let (deleting, others): (Vec<_>, Vec<_>) = operations.partition(|(_, method, _)| *method == "delete");
    for (path, method, operation) in others.into_iter().chain(deleting) {
        if path.ends_with("/events") {
            continue;
        }
        let id = if path.contains("messages") {
            "m3"
        } else if path.contains("quarantine") {
            "q1"
        } else {
            "a0"
        };
        let digest = served.keep.list("token/", 1).await.expect("kept")[0].0.replace("token/", "");
        let address = path
            .replace("{id}", id)
            .replace("{action}", "retry")
            .replace("{name}", "nobody")
            .replace("{token}", &digest);
        let address = if path.ends_with("suggestions") { format!("{address}?address=x@example.org") } else { address };
        let name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            .as_str()
            .and_then(|name| name.rsplit('/').next());
        let sent = name.map(|name| {
            let mut body = body(path, name);
            if method == "put" {
                body["host"] = "imap.moved.example".into();
            }
            assert_eq!(faults(&body, &schemas[name], schemas, name), Vec::<String>::new());
            body
        });
        let answer = call_with(&served, &token, method, &address, sent, &[("if-match", "*")]).await;
        let (status, described) = operation["responses"]
            .as_object()
            .expect("answers")
            .iter()
            .find(|(status, _)| *status != "default")
            .expect("one");
        // Nobody is called so; and this is for the Unix socket.
        let refused = match path.as_str() {
            "/api/v1/people/{name}" => Some(404),
            "/api/v1/first-start" => Some(403),
            _ => None,
        };
        if let Some(refused) = refused {
            assert_eq!(answer.status, refused, "{method} {address}: {}", answer.text);
            continue;
        }
        assert_eq!(answer.status.to_string(), *status, "{method} {address}: {}", answer.text);
        let Some((kind, content)) = described["content"].as_object().and_then(|content| content.iter().next()) else {
            continue;
        };
        assert!(answer.header("content-type").starts_with(kind.as_str()), "{method} {address}");
        if kind == "application/json" {
            let wrong = faults(&answer.json(), &content["schema"], schemas, path);
            assert!(wrong.is_empty(), "{method} {address}: {wrong:#?}");
            seen.insert(path);
        }
    }
    assert!(seen.len() > 25, "only {} were compared", seen.len());
}

#[tokio::test]
async fn problems_are_problem_json_as_described() {
    let served = serve_sample(Sample::new(20)).await;
    let token = served.token("admin").await;
    let schemas = &openapi()["components"]["schemas"];
    served.sample.login_works.store(false, std::sync::atomic::Ordering::SeqCst);
    let answers = [
        (401, call(&served, "none", "get", "/api/v1/accounts", None).await),
        (404, call(&served, &token, "get", "/api/v1/accounts/none", None).await),
        (404, call(&served, &token, "get", "/api/v1/none", None).await),
        (405, call(&served, &token, "patch", "/api/v1/accounts", None).await),
        (422, call(&served, &token, "post", "/api/v1/accounts", Some(json!({}))).await),
        (422, call(&served, &token, "post", "/api/v1/accounts", Some(good_json())).await),
        (428, call(&served, &token, "put", "/api/v1/accounts/a3", Some(good_json())).await),
        (
            412,
            call_with(&served, &token, "put", "/api/v1/accounts/a3", Some(good_json()), &[("if-match", "\"0\"")]).await,
        ),
        (403, call_with(&served, &token, "put", "/api/v1/accounts/a6", Some(good_json()), &[("if-match", "*")]).await),
    ];
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let wrong = faults(&answer.json(), &schemas["Problem"], schemas, "problem");
        assert!(wrong.is_empty(), "{status}: {wrong:#?}");
        assert_eq!(answer.json()["status"], status);
    }
}

#[tokio::test]
async fn pages_of_a_list_hold_each_account_once() {
    let served = serve_sample(Sample::new(333)).await;
    let token = served.token("read").await;
    for sort in ["worst", "address", "user", "host", "last_ok"] {
        let (mut seen, mut after, mut pages) = (HashSet::new(), String::new(), 0);
        loop {
            let page =
                call(&served, &token, "get", &format!("/api/v1/accounts?limit=50&sort={sort}&after={after}"), None)
                    .await
                    .json();
            for item in page["items"].as_array().expect("items") {
                assert!(seen.insert(item["id"].to_string()), "{} twice", item["id"]);
            }
            pages += 1;
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert_eq!((seen.len(), pages), (333, 7), "{sort}");
    }
    let page = call(&served, &token, "get", "/api/v1/accounts?limit=100000", None).await.json();
    assert_eq!(page["items"].as_array().expect("items").len(), 200, "a bound");
}

#[tokio::test]
async fn creating_again_with_the_same_key_makes_one_account() {
    let served = serve_sample(Sample::new(20)).await;
    let token = served.token("admin").await;
    let create =
        || call_with(&served, &token, "post", "/api/v1/accounts", Some(good_json()), &[("idempotency-key", "k7")]);
    let (one, two) = (create().await, create().await);
    assert_eq!((one.status, two.status), (201, 201), "{}", two.text);
    assert_eq!(one.header("location"), "/api/v1/accounts/n1");
    assert_eq!(one.json()["id"], two.json()["id"]);
    let other = call(&served, &token, "post", "/api/v1/accounts", Some(good_json())).await;
    assert_eq!((other.status, &other.json()["account"]), (409, &json!("n1")), "without the key it is a duplicate");
}

#[tokio::test]
async fn the_second_of_two_editors_is_told_and_nothing_is_lost() {
    let served = serve_sample(Sample::new(20)).await;
    let token = served.token("admin").await;
    let read = call(&served, &token, "get", "/api/v1/accounts/a3", None).await;
    let (etag, settings) = (read.header("etag").to_owned(), read.json()["settings"].clone());
    let put = |settings: Json| {
        let (served, token, etag) = (&served, &token, etag.clone());
        async move { call_with(served, token, "put", "/api/v1/accounts/a3", Some(settings), &[("if-match", &etag)]).await }
    };
    let mut hers = settings.clone();
    hers["check"] = "30m".into();
    let mut yours = settings.clone();
    yours["note"] = "mine".into();
    let first = put(hers).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_ne!(first.header("etag"), etag);
    let second = put(yours).await;
    assert_eq!(second.status, 412);
    assert_eq!(second.json()["current"]["settings"]["check"], "30m");
    assert_eq!(served.sample.account("a3").await.expect("there").settings.check, Check::Every(30));
}

#[tokio::test]
async fn a_filter_that_is_not_understood_does_not_mean_all() {
    let served = serve_sample(Sample::new(20)).await;
    let token = served.token("operate").await;
    let check = |body: Json| call(&served, &token, "post", "/api/v1/check", Some(body));
    for body in [
        json!({}),
        json!({"filter": {"stat": "ok"}}),
        json!({"filter": {"state": "fine"}}),
        json!({"filter": {"user": 7}}),
        json!({"ids": "a1"}),
    ] {
        let answer = check(body.clone()).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.text);
    }
    assert_eq!(check(json!({"filter": {}})).await.json()["count"], 20);
    assert_eq!(check(json!({"ids": ["a1", "a2"]})).await.json()["count"], 2);
}

#[tokio::test]
async fn sentences_are_in_the_callers_language() {
    let served = serve_sample(Sample::new(5)).await;
    let token = served.token("read").await;
    let sentence = |language: &'static str| {
        let (served, token) = (&served, &token);
        async move {
            let mut client = served.nobody();
            client.language = language.to_owned();
            let request =
                client.http.get(served.url("/api/v1/accounts/a0")).header("authorization", format!("Bearer {token}"));
            client.send(request).await.json()["cause"]["sentence"].as_str().expect("a sentence").to_owned()
        }
    };
    assert!(sentence("en").await.contains("refused the user name or password"));
    assert!(sentence("de-CH, en;q=0.5").await.contains("abgelehnt"));
    assert!(sentence("it").await.contains("rifiutato"));
}

#[tokio::test]
async fn metrics_have_bounded_labels_and_health_needs_no_token() {
    let served = serve_sample(Sample::new(2000)).await;
    let token = served.token("read").await;
    let text = call(&served, &token, "get", "/metrics", None).await.text;
    assert!(text.contains("connectord_accounts{health=\"ok\"}"), "{text}");
    assert!(text.lines().count() < 100, "{} lines", text.lines().count());
    assert!(!text.contains('@') && !text.contains("office365"), "an account or a host is a label");
    let mut nobody = served.nobody();
    assert_eq!(nobody.get("/healthz").await.text, "ok\n");
    assert_eq!(nobody.get("/readyz").await.text, "ready\n");
    assert_eq!(nobody.get("/metrics").await.status, 401);
}
