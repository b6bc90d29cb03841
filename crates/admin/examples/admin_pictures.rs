//! Takes the pictures in `docs/pages` of the sample installation: `cargo run -p connectord-admin --example admin_pictures docs/pages`.

#[path = "../tests/support/browser.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod browser;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;

use connectord_admin::first_start;

use browser::{Browser, ENTER, TAB};
use support::{PASSWORD, Sample, serve_sample};

/// File names, and what they show.
const PAGES: [(&str, &str); 22] = [
    ("overview", "/"),
    ("accounts", "/accounts"),
    ("accounts-by-user", "/accounts?group=user"),
    ("account", "/accounts/a0"),
    ("account-runs", "/accounts/a0/runs"),
    ("account-messages", "/accounts/a0/messages"),
    ("edit", "/accounts/a0/settings"),
    ("delete", "/accounts/a0/delete"),
    ("add", "/accounts/new"),
    ("import", "/accounts/import"),
    ("users", "/users"),
    ("messages", "/messages"),
    ("message", "/messages/m1"),
    ("quarantine", "/quarantine"),
    ("held", "/quarantine/q1"),
    ("parked", "/parked"),
    ("log", "/log"),
    ("settings", "/settings"),
    ("people", "/settings/people"),
    ("tokens", "/settings/tokens"),
    ("audit", "/settings/audit"),
    ("me", "/me"),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("a directory for the pictures")?);
    std::fs::create_dir_all(&directory)?;
    let served = serve_sample(Sample::new(4981)).await;
    let link = first_start(served.keep.as_ref()).await?.ok_or("somebody can sign in already")?;
    let browser = Browser::open().await;
    browser.go(&served.url(&link.path)).await;
    browser.keys(&format!("anna{TAB}{PASSWORD}{ENTER}")).await;
    browser.until("signed in", "document.querySelector('nav.rail')").await;
    for (device, width, height) in [("desktop", 1280, 900), ("phone", 360, 740)] {
        browser.size(width, height).await;
        for (looks, dark) in [("light", false), ("dark", true)] {
            browser.dark(dark).await;
            for (name, path) in PAGES {
                browser.go(&served.url(path)).await;
                std::fs::write(directory.join(format!("{name}-{device}-{looks}.webp")), browser.picture().await)?;
            }
        }
    }
    browser.close().await;
    served.stop().await;
    Ok(())
}
