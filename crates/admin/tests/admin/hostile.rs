//! Everything that comes from outside carries markup, a template's braces, a terminal's escapes and a change of direction; then every page,
//! every answer and every event is searched for them.

use connectord_admin::*;

use crate::support::{Sample, call, good_form, serve_sample};

/// What no answer may hold as it came.
const RAW: [&str; 6] = ["<img src=x", "<script>alert", "onerror=alert(1)>\"", "\u{1b}", "\u{202e}", "\u{7}"];

fn search(what: &str, text: &str) {
    for raw in RAW {
        assert!(!text.contains(raw), "{what} holds {raw:?} as it came:\n{}", around(text, raw));
    }
    let calculated = text.contains("'49") || text.contains("&#39;49") || text.contains("&#34;49");
    assert!(!calculated, "{what}: a template calculated 7 times 7");
}

fn around(text: &str, part: &str) -> String {
    let at = text.find(part).unwrap_or(0);
    text.chars().skip(text[..at].chars().count().saturating_sub(200)).take(400).collect()
}

#[tokio::test]
async fn no_page_shows_what_came_from_outside_as_markup() {
    let served = serve_sample(Sample::hostile(21)).await;
    let mut admin = served.admin().await;
    let pages = [
        "/",
        "/?hours=168",
        "/accounts",
        "/accounts?group=user",
        "/accounts?q=nothing-matches-<img src=x onerror=alert(1)>\"",
        "/accounts/a0",
        "/accounts/a1",
        "/accounts/a1/runs",
        "/accounts/a1/messages",
        "/accounts/a1/settings",
        "/accounts/a1/delete",
        "/accounts/a6/settings",
        "/accounts/new?address=<script>alert(2)</script>@x&for=<img src=x>",
        "/accounts/import",
        "/users",
        "/messages",
        "/messages?q=<script>alert(2)</script>",
        "/messages/m1",
        "/quarantine",
        "/quarantine/q0",
        "/quarantine/q1",
        "/parked",
        "/log",
        "/settings",
        "/settings/people",
        "/settings/tokens",
        "/settings/audit",
        "/me",
        "/nothing<script>alert(2)</script>",
        "/sign-in?next=\"><script>alert(2)</script>",
    ];
    let mut shown = 0;
    for path in pages {
        let answer = admin.get(path).await;
        assert!(answer.text.contains("<html"), "{path}: {}", answer.status);
        search(path, &answer.text);
        shown += usize::from(answer.text.contains("{{7*7}}"));
    }
    assert!(shown > 15, "only {shown} pages showed what came from outside at all");
}

#[tokio::test]
async fn forms_that_are_shown_again_are_harmless() {
    let served = serve_sample(Sample::hostile(5)).await;
    served.sample.login_works.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut admin = served.admin().await;
    let failed = admin.form("/accounts", &good_form()).await;
    assert_eq!(failed.status, 422);
    search("a failed test", &failed.text);
    let mut form = good_form();
    form.iter_mut().for_each(|field| {
        if field.0 != "key" {
            field.1 = "\"><script>alert(2)</script>\u{1b}\u{202e}"
        }
    });
    let refused = admin.form("/accounts", &form).await;
    assert_eq!(refused.status, 422);
    search("a refused form", &refused.text);
    let csv = "address,host,deliver_to\r\n<script>alert(2)</script>\u{1b}\u{202e},<img src=x onerror=alert(1)>,x\r\n";
    let import = admin.form("/accounts/import", &[("csv", csv)]).await;
    search("an import", &import.text);
    let wrong = admin.form("/sign-in", &[("name", "<script>alert(2)</script>"), ("password", "x")]).await;
    search("a refused sign-in", &wrong.text);
}

#[tokio::test]
async fn no_answer_of_the_api_holds_it_raw_either() {
    let served = serve_sample(Sample::hostile(21)).await;
    let token = served.token("admin").await;
    let document = openapi();
    let mut shown = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        if operations.get("get").is_none() || path.ends_with("/message") || path.ends_with("/events") {
            continue;
        }
        let id = if path.contains("messages") {
            "m1"
        } else if path.contains("quarantine") {
            "q1"
        } else {
            "a0"
        };
        let answer = call(&served, &token, "get", &path.replace("{id}", id), None).await;
        assert!(answer.status == 200 || answer.status == 404, "{path}: {} {}", answer.status, answer.text);
        for raw in RAW {
            assert!(!answer.text.contains(raw), "{path} holds {raw:?}");
        }
        assert!(!answer.text.trim_end().contains('\n') || path == "/metrics", "{path}: one answer, one line");
        shown += usize::from(answer.text.contains("{{7*7}}"));
    }
    assert!(shown >= 9, "only {shown} answers showed it at all");
}

#[tokio::test]
async fn an_export_calculates_nothing_and_a_label_of_metrics_ends_no_line() {
    let served = serve_sample(Sample::hostile(3)).await;
    let mut admin = served.admin().await;
    let csv = admin.get("/accounts/export.csv").await.text;
    assert!(csv.lines().count() >= 4, "{csv}");
    let metrics = admin.get("/metrics").await.text;
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            line.starts_with("connectord_") && line.rsplit(' ').next().expect("a value").parse::<u64>().is_ok(),
            "{line}"
        );
    }
}
