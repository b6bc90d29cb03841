//! The page in a real browser: with the keyboard, live, narrow, and with nothing that its policy forbids.

#[path = "support/browser.rs"]
#[allow(dead_code, unreachable_pub, reason = "the same as the other file of support")]
mod browser;
mod support;

use connectord_admin::*;

use browser::{Browser, ENTER, TAB};
use support::{PASSWORD, Sample, Served, serve_sample};

/// Somebody who opened the first link in the browser, and typed.
async fn first_start_in(browser: &Browser, served: &Served) {
    let link = first_start(served.keep.as_ref()).await.expect("kept").expect("nobody yet");
    browser.go(&served.url(&link.path)).await;
    assert_eq!(browser.focus().await, "name");
    browser.keys(&format!("anna{TAB}{PASSWORD}{ENTER}")).await;
    browser.until("signed in", "document.querySelector('nav.rail')").await;
}

#[tokio::test]
async fn from_the_first_link_to_the_first_account_with_the_keyboard_alone() {
    let served = serve_sample(Sample::new(0)).await;
    let browser = Browser::open().await;
    first_start_in(&browser, &served).await;
    browser.until("led to the first account", "location.pathname === '/accounts/new'").await;
    assert_eq!(browser.focus().await, "address", "the first field has the focus");
    browser.keys(&format!("info@example.org{TAB}")).await;
    assert_eq!(browser.focus().await, "Find the settings");
    browser.keys(ENTER).await;
    browser.until("settings found", "document.querySelector('#host').value === 'imap.example.org'").await;
    assert_eq!(browser.text("return document.querySelector('#address').value").await, "info@example.org");
    browser.script("document.querySelector('#secret').focus()").await;
    browser.keys(&format!("pass word{TAB}")).await;
    assert_eq!(browser.focus().await, "Show", "the button beside the secret is next");
    browser.keys(&format!("{TAB}anna{ENTER}")).await;
    browser.until("saved", "location.pathname === '/accounts/n1'").await;
    let page = browser.text("return document.body.innerText").await;
    assert!(page.contains("Added. The first check runs now.") && page.contains("Queued"), "{page}");
    assert_eq!(served.sample.secret("n1").as_deref(), Some("pass word"));
    served.sample.advance("n1", 560);
    browser.until("progress without a reload", "document.body.innerText.includes('560 of 1,240')").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_the_name_is_kept() {
    let served = serve_sample(Sample::new(3)).await;
    served.somebody("anna", Role::Admin, None).await;
    let browser = Browser::open().await;
    browser.go(&served.url("/accounts/a1")).await;
    assert_eq!(browser.text("return location.pathname").await, "/sign-in");
    browser.keys(&format!("anna{TAB}wrong wrong wrong{ENTER}")).await;
    browser.until("told", "document.querySelector('[role=alert]')").await;
    assert_eq!(browser.text("return document.querySelector('#name').value").await, "anna");
    browser.script("document.querySelector('#password').focus()").await;
    browser.keys(&format!("{PASSWORD}{ENTER}")).await;
    browser.until("led on", "location.pathname === '/accounts/a1'").await;
    browser.close().await;
}

#[tokio::test]
async fn a_test_of_a_connection_moves_step_by_step_and_stops_at_the_first_fault() {
    let served = serve_sample(Sample::new(3)).await;
    let browser = Browser::open().await;
    first_start_in(&browser, &served).await;
    browser.go(&served.url("/accounts/new")).await;
    let fill = "for (const [id, value] of [['address', 'x@y.test'], ['secret', 'p'], ['deliver_to', 'anna'], ['host', 'imap.y.test']]) document.getElementById(id).value = value";
    browser.script(fill).await;
    browser.script("document.querySelector('#test-button').click()").await;
    browser.until("all is well", "document.querySelector('#test').innerText.includes('Everything works.')").await;
    assert_eq!(browser.script("return document.querySelectorAll('#test .s-ok').length").await, 7);
    served.sample.login_works.store(false, std::sync::atomic::Ordering::SeqCst);
    browser.script("document.querySelector('#test-button').click()").await;
    browser.until("the login failed", "document.querySelector('#test [role=alert]')").await;
    assert_eq!(browser.script("return document.querySelectorAll('#test .s-not_reached').length").await, 2);
    assert_eq!(
        browser.text("return document.querySelector('#secret').value").await,
        "p",
        "what was typed is still there"
    );
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn no_page_scrolls_sideways_or_is_blocked_by_its_policy() {
    let served = serve_sample(Sample::new(800)).await;
    let browser = Browser::open().await;
    first_start_in(&browser, &served).await;
    let pages = [
        "/",
        "/accounts",
        "/accounts?group=user",
        "/accounts/a0",
        "/accounts/a1",
        "/accounts/a2",
        "/accounts/a1/runs",
        "/accounts/a1/settings",
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
    for width in [1280, 360, 320] {
        browser.size(width, 800).await;
        for path in pages {
            browser.go(&served.url(path)).await;
            let wide = browser
                .script("return document.documentElement.scrollWidth - innerWidth")
                .await
                .as_i64()
                .expect("a number");
            assert!(wide <= 0, "{path} is {wide} px too wide at {width}");
            let unnamed = "return [...document.querySelectorAll('input:not([type=hidden], [hidden]), select, textarea')].filter(e => !e.labels.length && !e.ariaLabel).map(e => e.name).join()";
            assert_eq!(browser.text(unnamed).await, "", "{path}: fields without a name");
            assert_eq!(browser.script("return document.querySelectorAll('h1').length").await, 1, "{path}");
        }
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn the_keyboard_reaches_the_content_first_and_the_focus_is_seen() {
    let served = serve_sample(Sample::new(30)).await;
    let browser = Browser::open().await;
    first_start_in(&browser, &served).await;
    browser.go(&served.url("/accounts")).await;
    browser.keys(TAB).await;
    assert_eq!(browser.focus().await, "Skip to the content");
    let top =
        browser.script("return document.activeElement.getBoundingClientRect().top").await.as_f64().expect("a number");
    assert!(top >= 0.0, "the link is not on the screen");
    browser.keys(ENTER).await;
    assert_eq!(browser.focus().await, "main");
    for _ in 0..30 {
        browser.keys(TAB).await;
        let seen = "const e = document.activeElement, s = getComputedStyle(e); return e === document.body || s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1";
        assert_eq!(browser.script(seen).await, true, "{} has the focus and does not show it", browser.focus().await);
    }
    browser.close().await;
}

#[tokio::test]
async fn what_moves_takes_neither_focus_nor_place() {
    let served = serve_sample(Sample::new(40)).await;
    let browser = Browser::open().await;
    first_start_in(&browser, &served).await;
    browser.go(&served.url("/accounts?sort=address")).await;
    browser.until("live", "document.querySelector('#live').className.includes('on')").await;
    let order = "return [...document.querySelectorAll('tr[id^=row]')].map(e => e.id).join()";
    let before = browser.text(order).await;
    browser.script("document.querySelector('#row-a4 input').focus(); scrollTo(0, 300)").await;
    let y = browser.script("return scrollY").await;
    served.sample.advance("a1", 561);
    browser.until("progress", "document.querySelector('#under-a1').innerText.includes('561 of 1,240')").await;
    assert_eq!(browser.text(order).await, before);
    assert_eq!(browser.script("return scrollY").await, y);
    assert_eq!(browser.script("return document.activeElement.value").await, "a4");
    browser.close().await;
}

#[tokio::test]
async fn nothing_that_came_from_outside_runs_or_is_drawn() {
    let served = serve_sample(Sample::hostile(21)).await;
    let browser = Browser::open().await;
    first_start_in(&browser, &served).await;
    for path in [
        "/",
        "/accounts",
        "/accounts/a0",
        "/accounts/a1",
        "/accounts/a1/settings",
        "/users",
        "/messages",
        "/messages/m1",
        "/quarantine",
        "/quarantine/q0",
        "/parked",
        "/log",
        "/settings",
    ] {
        browser.go(&served.url(path)).await;
        // An alert would make every further command fail.
        assert_eq!(
            browser.script("return document.querySelectorAll('img, script:not([src])').length").await,
            0,
            "{path}"
        );
        served.sample.log_line(support::HOSTILE);
    }
    browser.go(&served.url("/log")).await;
    browser.until("live", "document.querySelector('#live').className.includes('on')").await;
    served.sample.log_line(&format!("seen {}", support::HOSTILE));
    browser.until("the line", "document.querySelector('#log').innerText.includes('seen <img')").await;
    assert_eq!(browser.script("return document.querySelectorAll('img').length").await, 0);
    browser.close().await;
}
