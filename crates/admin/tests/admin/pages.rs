//! The pages, as a browser without a script has them.

use connectord_admin::*;

use crate::support::{Sample, good_form, serve_sample};

const PAGES: [&str; 26] = [
    "/",
    "/?hours=168",
    "/accounts",
    "/accounts?group=user&sort=host",
    "/accounts?q=nothing",
    "/accounts/a0",
    "/accounts/a1",
    "/accounts/a1/runs",
    "/accounts/a1/messages",
    "/accounts/a1/settings",
    "/accounts/a6/settings",
    "/accounts/a1/delete",
    "/accounts/new",
    "/accounts/import",
    "/users",
    "/messages",
    "/messages/m1",
    "/quarantine",
    "/quarantine/q1",
    "/parked",
    "/log",
    "/settings",
    "/settings/people",
    "/settings/tokens",
    "/settings/audit",
    "/me",
];

#[tokio::test]
async fn every_page_is_there_in_every_language_and_says_nothing_untranslated() {
    let served = serve_sample(Sample::new(800)).await;
    let mut admin = served.admin().await;
    for language in Language::ALL {
        admin.language = language.tag().to_owned();
        for path in PAGES {
            let answer = admin.get(path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            assert!(answer.text.contains(&format!("<html lang=\"{}\"", language.tag())), "{path}");
            // A key without a text shows itself, between the ends of tags or in an attribute.
            for prefix in [
                "field.",
                "health.",
                "activity.",
                "do.",
                "nav.",
                "step.",
                "message.",
                "cause.",
                "sort.",
                "role.",
                "why.",
                "problem.",
                "level.",
                "trail.",
                "part.",
                "form.",
                "col.",
            ] {
                for before in [">", "=\"", "> "] {
                    assert!(
                        !answer.text.contains(&format!("{before}{prefix}")),
                        "{path} in {}: {prefix}",
                        language.tag()
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn fifty_rows_of_five_thousand_are_a_small_page_with_counts() {
    let served = serve_sample(Sample::new(4981)).await;
    let mut admin = served.admin().await;
    let page = admin.get("/accounts").await.text;
    assert_eq!(page.matches("<th scope=\"row\">").count(), 50);
    assert!(page.contains("50 of 4,981") && page.contains("rel=\"next\""), "no pager");
    assert!(page.len() < 100_000, "{} octets", page.len());
    let next = page
        .split("rel=\"next\" href=\"")
        .nth(1)
        .expect("a link")
        .split('"')
        .next()
        .expect("its end")
        .replace("&amp;", "&");
    let second = admin.get(&next).await.text;
    assert_eq!(second.matches("<th scope=\"row\">").count(), 50);
    let grouped = admin.get("/accounts?group=user").await.text;
    assert!(grouped.contains("scope=\"rowgroup\""));
}

#[tokio::test]
async fn an_account_is_added_without_a_script_and_once_only() {
    let served = serve_sample(Sample::new(3)).await;
    let mut admin = served.admin().await;
    let form = good_form();
    let tested = admin.form("/accounts/test", &form).await;
    assert!(
        tested.text.contains("Everything works.") && tested.text.contains("18,204 messages lie there."),
        "{}",
        tested.text
    );
    let (one, two) = (admin.form("/accounts", &form).await, admin.form("/accounts", &form).await);
    assert_eq!((one.status, two.status), (303, 303));
    assert_eq!(one.header("location"), two.header("location"), "a second click made a second account");
    let page = admin.get(one.header("location")).await.text;
    assert!(page.contains("Added. The first check runs now.") && page.contains("Queued"), "{page}");
}

#[tokio::test]
async fn a_form_with_faults_says_each_beside_its_field_and_keeps_what_was_typed() {
    let served = serve_sample(Sample::new(3)).await;
    let mut admin = served.admin().await;
    let form = [
        ("address", "kept@example.org"),
        ("host", "not a host"),
        ("port", "99999"),
        ("protocol", "pop3"),
        ("check", "push"),
        ("security", "none"),
        ("key", "k"),
    ];
    let page = admin.form("/accounts", &form).await;
    assert_eq!(page.status, 422);
    for part in [
        "value=\"kept@example.org\"",
        "value=\"not a host\"",
        "id=\"host-error\"",
        "id=\"port-error\"",
        "id=\"deliver_to-error\"",
        "id=\"secret-error\"",
        "id=\"check-error\"",
        "id=\"security-error\"",
        "aria-invalid=\"true\" aria-describedby=\"host-error\"",
        "<a href=\"#host\">",
        "role=\"alert\"",
    ] {
        assert!(page.text.contains(part), "no {part} in {}", page.text);
    }
}

#[tokio::test]
async fn a_failed_test_changes_nothing_says_so_and_can_be_overridden() {
    let served = serve_sample(Sample::new(20)).await;
    served.sample.login_works.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut admin = served.admin().await;
    let mut form = good_form();
    let before = served.sample.account("a3").await.expect("there").settings;
    let page = admin.form("/accounts/a3/settings", &form).await;
    assert_eq!(page.status, 422);
    for part in
        ["Nothing was changed.", "Save although the test fails", "refused the user name or password", "not reached"]
    {
        assert!(page.text.contains(part), "no {part}");
    }
    assert_eq!(served.sample.account("a3").await.expect("there").settings, before);
    form.push(("untested", "1"));
    assert_eq!(admin.form("/accounts/a3/settings", &form).await.status, 303);
    assert_eq!(served.sample.account("a3").await.expect("there").settings.host, "imap.new.example");
}

#[tokio::test]
async fn two_who_edit_at_once_choose_field_by_field() {
    let served = serve_sample(Sample::new(20)).await;
    let (mut one, mut two) = (served.admin().await, served.somebody("anna", Role::Admin, None).await);
    let hers = with_note("Her note.", "1");
    let first =
        two.form("/accounts/a3/settings", &hers.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>()).await;
    assert_eq!(first.status, 303, "{}", first.text);
    let mine = with_note("My note.", "1");
    let page = one.form("/accounts/a3/settings", &mine.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>()).await;
    assert_eq!(page.status, 409);
    assert!(page.text.contains("<bdi>anna</bdi> saved at"), "{}", page.text);
    assert!(page.text.contains("Her note.") && page.text.contains("My note."));
    assert!(page.text.contains("name=\"etag\" value=\"2\""), "the next save is against what is there now");
    let mut chosen = with_note("My note.", "2");
    chosen.retain(|(name, _)| *name != "secret");
    let saved =
        one.form("/accounts/a3/settings", &chosen.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>()).await;
    assert_eq!(saved.status, 303, "{}", saved.text);
    assert_eq!(served.sample.account("a3").await.expect("there").settings.note, "My note.");
}

fn with_note(note: &str, etag: &str) -> Vec<(&'static str, String)> {
    let mut form: Vec<_> = good_form().into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    form.push(("note", note.to_owned()));
    form.push(("etag", etag.to_owned()));
    form
}

#[tokio::test]
async fn what_the_file_manages_is_shown_to_be_copied_and_not_edited() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let page = admin.get("/accounts/a6/settings").await.text.replace("<wbr>", "");
    assert!(
        page.contains("config.toml, line 46") && page.contains("[[account]]") && page.contains("disabled"),
        "{page}"
    );
    assert!(admin.get("/accounts/a6/settings").await.text.contains("fieldset"));
    let saved = admin.form("/accounts/a6/settings", &good_form()).await;
    assert_eq!(saved.status, 403);
    assert!(saved.text.contains("never writes"));
}

#[tokio::test]
async fn discarding_asks_first_and_releasing_does_not() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let asked = admin.form("/quarantine", &[("act", "discard"), ("id", "q1"), ("id", "q2")]).await;
    assert_eq!(asked.status, 200);
    assert!(asked.text.contains("2 messages are discarded here for good."), "{}", asked.text);
    assert!(served.sample.held("q1").await.is_ok());
    assert_eq!(admin.form("/quarantine", &[("act", "discard"), ("id", "q1"), ("sure", "1")]).await.status, 303);
    assert!(served.sample.held("q1").await.is_err());
    let released = admin.form("/quarantine", &[("act", "release"), ("id", "q2")]).await;
    assert_eq!(released.header("location"), "/quarantine?done=released&count=1");
}

#[tokio::test]
async fn csv_is_looked_over_before_it_is_done() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let csv = "address;host;deliver_to;secret\nnew@x.test;imap.x.test;anna;a,b;\nok@x.test;imap.x.test;anna;secret,with comma\ninfo@example.org;;;\nbad@x.test;not a host;anna;p\n";
    let dry = admin.form("/accounts/import", &[("csv", csv)]).await;
    assert!(dry.text.contains("Add 1, update 0"), "{}", dry.text);
    assert!(
        dry.text.contains("another number of columns") && dry.text.contains("A name such as imap.example.org"),
        "{}",
        dry.text
    );
    assert!(served.sample.account("n1").await.is_err(), "a dry run did something");
    let done = admin.form("/accounts/import", &[("csv", csv), ("really", "1")]).await;
    assert!(done.text.contains("1 added, 0 updated, 2 refused."), "{}", done.text);
    assert_eq!(served.sample.secret("n1").as_deref(), Some("secret,with comma"));
    let export = admin.get("/accounts/export.csv").await;
    assert!(export.text.contains("\"ok@x.test\"") && !export.text.contains("with comma"), "{}", export.text);
}

#[tokio::test]
async fn a_link_from_elsewhere_asks_once_more_and_sign_in_leads_on() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let mut nobody = served.nobody();
    let request = nobody.http.get(served.url("/accounts/a3")).header("sec-fetch-site", "cross-site");
    let page = nobody.send(request).await;
    assert!(page.text.contains("href=\"/accounts/a3\" data-follow"), "{}", page.text);
    let sent = nobody.get("/accounts/a3").await;
    assert_eq!(sent.header("location"), "/sign-in?next=%2Faccounts%2Fa3");
    let answer = nobody
        .post("/sign-in", &[("name", "ROOT"), ("password", crate::support::PASSWORD), ("next", "/accounts/a3")])
        .await;
    assert_eq!(answer.header("location"), "/accounts/a3");
    assert!(admin.get("/accounts/a3").await.text.contains("‹"));
}

#[tokio::test]
async fn an_empty_installation_says_what_to_do_next() {
    let served = serve_sample(Sample::new(0)).await;
    let mut admin = served.admin().await;
    for (path, words) in [
        ("/", "No accounts yet"),
        ("/accounts", "Add account"),
        ("/quarantine", "Nothing is held."),
        ("/parked", "Nothing is parked."),
    ] {
        let page = admin.get(path).await.text;
        assert!(page.contains(words), "{path}: {page}");
    }
}
