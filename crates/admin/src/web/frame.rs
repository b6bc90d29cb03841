//! What every page has around it.

use axum::http::HeaderMap;

use crate::app::{Ask, Rail, choice};
use crate::gate::SignedIn;
use crate::person::{Caller, Role};
use crate::words::{Language, Words};

/// What every template has as `f`.
pub(crate) struct Frame {
    pub(crate) w: Words,
    pub(crate) title: String,
    /// The entry of the rail that is lit.
    pub(crate) section: &'static str,
    pub(crate) rail: Rail,
    pub(crate) caller: Option<Caller>,
    pub(crate) form_token: String,
    /// `light`, `dark`, or empty for the system's wish.
    pub(crate) theme: &'static str,
    /// `compact` or empty.
    pub(crate) rows: &'static str,
    /// Path and query of this page.
    pub(crate) address: String,
    /// What the stream of events shows here; empty for none.
    pub(crate) live: String,
    /// Key of a sentence about what was just done, below `done.`.
    pub(crate) done: String,
    /// How many it was done to.
    pub(crate) done_count: u64,
}

impl Frame {
    pub(crate) fn new(
        w: Words,
        headers: &HeaderMap,
        by: Option<SignedIn>,
        rail: Rail,
        title: String,
        section: &'static str,
        address: &str,
    ) -> Self {
        let theme = match choice(headers, "theme") {
            Some("dark") => "dark",
            Some("light") => "light",
            _ => "",
        };
        let rows = if choice(headers, "rows") == Some("compact") { "compact" } else { "" };
        let form_token = by.as_ref().and_then(|by| by.form_token.clone()).unwrap_or_default();
        let (caller, address) = (by.map(|by| by.caller), address.to_owned());
        let (live, done) = (String::new(), String::new());
        Self { w, title, section, rail, caller, form_token, theme, rows, address, live, done, done_count: 0 }
    }

    /// The frame of a page for whoever asks; `title` is a key of the catalogue or a name.
    pub(crate) async fn of(ask: &Ask, title: &str, section: &'static str) -> Self {
        let rail = ask.app.rail().await;
        let title = ask.words.t(title).to_owned();
        let mut frame =
            Self::new(ask.words.clone(), &ask.headers, Some(ask.by.clone()), rail, title, section, &ask.address);
        let done = ask.query.get("done");
        if ask.words.has(&format!("done.{done}")) {
            frame.done = format!("done.{done}");
            frame.done_count = ask.query.get("count").parse().unwrap_or(1);
        }
        frame
    }

    pub(crate) fn live(mut self, view: String) -> Self {
        self.live = view;
        self
    }

    /// A text of the catalogue.
    pub(crate) fn t<'a>(&self, key: &'a str) -> &'a str {
        self.w.t(key)
    }

    /// A text below a prefix.
    pub(crate) fn of_word(&self, prefix: &str, word: &str) -> String {
        self.w.of(prefix, word)
    }

    fn may(&self, role: Role) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.may(role))
    }

    pub(crate) fn signed_in(&self) -> bool {
        self.caller.is_some()
    }

    /// Whether the caller sees the whole installation.
    pub(crate) fn read(&self) -> bool {
        self.may(Role::Read)
    }

    /// Whether the caller may check, stop, retry and release.
    pub(crate) fn operate(&self) -> bool {
        self.may(Role::Operate)
    }

    pub(crate) fn admin(&self) -> bool {
        self.may(Role::Admin)
    }

    /// Whether the caller manages accounts of their own.
    pub(crate) fn own(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.role == Role::Own)
    }

    /// Whether the caller may edit the accounts that they see.
    pub(crate) fn edit(&self) -> bool {
        self.admin() || self.own()
    }

    /// Whether the caller may check the accounts that they see.
    pub(crate) fn check(&self) -> bool {
        self.operate() || self.own()
    }

    pub(crate) fn caller_name(&self) -> &str {
        self.caller.as_ref().map_or("", |caller| &caller.name)
    }

    pub(crate) fn languages(&self) -> [Language; 5] {
        Language::ALL
    }

    /// Parts of the installation for the rail; people with accounts of their own do not see them.
    pub(crate) fn health(&self) -> &[crate::backend::Part] {
        if self.read() { &self.rail.health } else { &[] }
    }
}

impl Frame {
    /// How often an account is checked.
    pub(crate) fn check_words(&self, check: &crate::backend::Check) -> String {
        match check {
            crate::backend::Check::Every(minutes) => self.w.n("check.every", u64::from(*minutes)),
            crate::backend::Check::Push => self.t("check.push").to_owned(),
            crate::backend::Check::Never => self.t("check.never").to_owned(),
        }
    }

    /// When a delivered message is removed there.
    pub(crate) fn delete_words(&self, delete: &crate::backend::Delete) -> String {
        match delete {
            crate::backend::Delete::Never => self.t("delete.never").to_owned(),
            crate::backend::Delete::Immediately => self.t("delete.immediately").to_owned(),
            crate::backend::Delete::After(days) => self.w.n("delete.after", u64::from(*days)),
        }
    }
}

impl Frame {
    /// Settings as a section of the configuration file, to be copied there.
    pub(crate) fn toml(&self, settings: &crate::backend::Settings) -> String {
        // TOML's basic strings have JSON's escapes.
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let list = |list: &[String]| serde_json::Value::from(list.to_vec()).to_string();
        let mut lines = vec![
            "[[account]]".to_owned(),
            format!("address = {}", text(&settings.address)),
            format!("protocol = {}", text(settings.protocol.word())),
            format!("security = {}", text(settings.security.word())),
            format!("host = {}", text(&settings.host)),
            format!("username = {}", text(settings.effective_username())),
            format!("deliver_to = {}", list(&settings.deliver_to)),
            match settings.check {
                crate::backend::Check::Push => "idle = true".to_owned(),
                other => format!("check_every = {}", text(&other.to_string())),
            },
            format!("delete = {}", text(&settings.delete.to_string())),
            format!("folders = {}", list(&settings.folders)),
        ];
        if let Some(port) = settings.port {
            lines.insert(5, format!("port = {port}"));
        }
        lines.join("\n")
    }
}
