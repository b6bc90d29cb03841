//! What moves: streams of events.

use std::time::Duration;

use connectord_admin::*;

use crate::support::{Client, HOSTILE, PASSWORD, Sample, good_form, serve_sample};

struct Stream {
    answer: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(client: &Client, path: &str) -> Self {
        let request = client.http.get(format!("{}{path}", client.base)).header("cookie", &client.cookie);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// Reads until the stream holds `part`, or ends.
    async fn until(&mut self, part: &str) -> bool {
        let read = async {
            while !self.text.contains(part) {
                match self.answer.chunk().await {
                    Ok(Some(chunk)) => self.text.push_str(&String::from_utf8_lossy(&chunk)),
                    _ => return false,
                }
            }
            true
        };
        tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .unwrap_or_else(|_| panic!("no {part} within a minute"))
    }

    async fn ends(&mut self) -> bool {
        !self.until("this never comes").await
    }
}

#[tokio::test]
async fn progress_is_seen_as_it_happens() {
    let served = serve_sample(Sample::new(20)).await;
    let admin = served.admin().await;
    for path in ["/events?view=account:a1", "/events?view=accounts&ids=a1,a2", "/events?view=overview"] {
        let mut stream = Stream::open(&admin, path).await;
        assert!(stream.until("event: cell").await, "{path}: what is there now");
        served.sample.advance("a1", 777);
        assert!(stream.until("777 of 1,240").await, "{path}");
    }
}

#[tokio::test]
async fn when_a_check_ends_its_button_and_what_has_ended_come_anew() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    served.sample.advance("a1", 5);
    let mut stream = Stream::open(&admin, "/events?view=account:a1").await;
    assert!(stream.until("/accounts/a1/stop").await, "what can be done meanwhile");
    assert!(!stream.text.contains("account-past"), "drawn anew for each message: {}", stream.text);
    assert_eq!(admin.form("/accounts/a1/stop", &[]).await.status, 303);
    assert!(stream.until("account-past").await);
    assert!(stream.text.contains("/accounts/a1/check"), "{}", stream.text);
}

#[tokio::test]
async fn an_account_that_is_not_watched_is_not_sent() {
    let served = serve_sample(Sample::new(20)).await;
    let admin = served.admin().await;
    let mut stream = Stream::open(&admin, "/events?view=accounts&ids=a2").await;
    assert!(stream.until("event: cell").await);
    served.sample.advance("a1", 778);
    served.sample.advance("a2", 779);
    assert!(stream.until("779 of 1,240").await);
    assert!(!stream.text.contains("778"), "{}", stream.text);
}

#[tokio::test]
async fn the_log_is_one_line_an_event_whatever_is_logged() {
    let served = serve_sample(Sample::new(2)).await;
    let mut admin = served.admin().await;
    admin.get("/log").await;
    let mut stream = Stream::open(&admin, "/events?view=log&level=info").await;
    assert!(stream.until("nothing moved").await);
    served.sample.log_line(&format!("first\n\nevent: bye\ndata: {HOSTILE}"));
    served.sample.log_line("second");
    assert!(stream.until("second").await);
    assert_eq!(stream.text.matches("event: line").count(), 2, "{}", stream.text);
    assert!(!stream.text.contains("\nevent: bye") && !stream.text.contains("<script>"), "{}", stream.text);
}

#[tokio::test]
async fn a_stream_ends_with_its_session_and_with_the_daemon() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let mut stream = Stream::open(&admin, "/events?view=account:a1").await;
    assert!(stream.until("event: cell").await);
    admin.form("/sign-out", &[]).await;
    served.sample.advance("a1", 780);
    assert!(stream.until("event: bye").await, "{}", stream.text);
    assert!(!stream.text.contains("780"), "shown to one who signed out");
    let other = served.somebody("other", Role::Read, None).await;
    let mut stream = Stream::open(&other, "/events?view=overview").await;
    assert!(stream.until("event: cell").await);
    served.stop().await;
    assert!(stream.ends().await);
}

#[tokio::test]
async fn a_stream_ends_with_the_password_and_with_the_person() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let mut there = served.nobody();
    there.post("/sign-in", &[("name", "root"), ("password", PASSWORD)]).await;
    let mut stream = Stream::open(&there, "/events?view=account:a1").await;
    assert!(stream.until("event: cell").await);
    let changed = admin.form("/me/password", &[("before", PASSWORD), ("password", "another long phrase")]).await;
    assert_eq!(changed.status, 303);
    served.sample.advance("a1", 781);
    assert!(stream.until("event: bye").await && !stream.text.contains("781"), "{}", stream.text);

    let other = served.somebody("other", Role::Read, None).await;
    let mut stream = Stream::open(&other, "/events?view=account:a1").await;
    assert!(stream.until("event: cell").await);
    // A new password is another form token.
    admin.form_token.clear();
    let removed = admin.form("/settings/people", &[("act", "remove"), ("name", "other")]).await;
    assert_eq!(removed.status, 303, "{}", removed.text);
    served.sample.advance("a1", 782);
    assert!(stream.until("event: bye").await && !stream.text.contains("782"), "{}", stream.text);
}

#[tokio::test]
async fn a_program_that_comes_back_is_told_that_it_missed_something() {
    let served = serve_sample(Sample::new(20)).await;
    let token = served.token("read").await;
    let open = |id: Option<&'static str>| {
        let request =
            served.nobody().http.get(served.url("/api/v1/events")).header("authorization", format!("Bearer {token}"));
        let request = id.into_iter().fold(request, |request, id| request.header("last-event-id", id));
        async move { Stream { answer: request.send().await.expect("an answer"), text: String::new() } }
    };
    let mut back = open(Some("41")).await;
    assert!(back.until("data: {}").await && back.text.starts_with("id: 0\nevent: reset\n"), "{}", back.text);
    served.sample.advance("a1", 783);
    assert!(back.until("783").await && back.text.matches("event: reset").count() == 1, "{}", back.text);
    let mut first = open(None).await;
    served.sample.advance("a1", 784);
    assert!(first.until("784").await && !first.text.contains("reset"), "{}", first.text);
}

#[tokio::test]
async fn an_account_that_is_deleted_is_told() {
    let served = serve_sample(Sample::new(20)).await;
    let mut admin = served.admin().await;
    let mut stream = Stream::open(&admin, "/events?view=account:a3").await;
    assert!(stream.until("event: cell").await);
    assert_eq!(admin.form("/accounts/a3/delete", &[]).await.status, 303);
    assert!(stream.until("event: gone").await);
}

#[tokio::test]
async fn a_test_is_followed_step_by_step() {
    let served = serve_sample(Sample::new(2)).await;
    let mut admin = served.admin().await;
    admin.form("/looks", &[]).await;
    let mut form = good_form();
    let token = admin.form_token.clone();
    form.push(("form_token", &token));
    let request =
        admin.http.post(served.url("/accounts/test")).header("cookie", &admin.cookie).header("origin", served.origin());
    let request =
        request.header("accept", "text/event-stream").header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(crate::support::url_encoded(&form)).send().await.expect("an answer");
    let mut stream = Stream { answer, text: String::new() };
    assert!(stream.ends().await);
    assert!(stream.text.matches("event: cell").count() >= 8, "{}", stream.text);
    assert!(stream.text.contains("Everything works."), "{}", stream.text);
}

#[tokio::test]
async fn programs_get_json() {
    let served = serve_sample(Sample::new(20)).await;
    let admin = served.admin().await;
    let mut stream = Stream::open(&admin, "/api/v1/events?account=a1").await;
    let sample = served.sample.clone();
    // The stream listens from its answer on.
    sample.advance("a1", 781);
    assert!(stream.until("\"done\":781").await);
    assert!(stream.text.contains("event: account"));
}
