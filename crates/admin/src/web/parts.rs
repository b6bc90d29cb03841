//! Parts that several pages, and the stream of events, draw alike.

use askama::Template;

use super::Frame;
use crate::backend::{Health, Progress, Row, Step, Test};
use crate::cause::{Cause, Remedy};
use crate::escape::{Markup, trusted};
use crate::words::breakable;

/// A part as HTML; a part that cannot be drawn is empty and is logged.
fn draw(part: &impl Template) -> Markup {
    trusted(part.render().unwrap_or_else(|error| {
        tracing::error!(%error, "template");
        String::new()
    }))
}

#[derive(Template)]
#[template(path = "part_state.html")]
struct State<'a> {
    f: &'a Frame,
    row: &'a Row,
}

#[derive(Template)]
#[template(path = "part_cause.html")]
struct CausePart<'a> {
    f: &'a Frame,
    cause: &'a Cause,
    buttons: Vec<Button>,
    /// Whether an administrator is shown what the server said.
    with_said: bool,
}

#[derive(Template)]
#[template(path = "part_progress.html")]
struct ProgressPart<'a> {
    f: &'a Frame,
    progress: &'a Progress,
    full: bool,
}

#[derive(Template)]
#[template(path = "part_test.html")]
struct TestPart<'a> {
    f: &'a Frame,
    test: &'a Test,
    steps: &'a [Step],
    running: bool,
}

#[derive(Template)]
#[template(path = "part_row.html")]
struct RowPart<'a> {
    f: &'a Frame,
    row: &'a Row,
}

/// A button beside a cause: a link, or a form that posts.
struct Button {
    word: String,
    address: String,
    post: bool,
    main: bool,
}

impl Frame {
    /// Health and activity, each with mark, word and colour.
    pub(crate) fn state(&self, row: &Row) -> Markup {
        draw(&State { f: self, row })
    }

    /// A row of the list of accounts.
    pub(crate) fn row(&self, row: &Row) -> Markup {
        draw(&RowPart { f: self, row })
    }

    /// Why something is not well: the sentence, and what to do.
    pub(crate) fn cause(&self, cause: &Cause, account: Option<&str>) -> Markup {
        draw(&CausePart { f: self, cause, buttons: self.buttons(cause, account), with_said: true })
    }

    /// The same for a row of many: with the button that mends it, and without what the account's own page says.
    pub(crate) fn cause_of_row(&self, cause: &Cause, account: &str) -> Markup {
        let mut buttons = self.buttons(cause, Some(account));
        buttons.truncate(1);
        draw(&CausePart { f: self, cause, buttons, with_said: false })
    }

    /// The same without buttons: in a table of what is over.
    pub(crate) fn cause_only(&self, cause: &Cause) -> Markup {
        draw(&CausePart { f: self, cause, buttons: Vec::new(), with_said: true })
    }

    pub(crate) fn progress(&self, progress: &Progress) -> Markup {
        draw(&ProgressPart { f: self, progress, full: false })
    }

    pub(crate) fn progress_full(&self, progress: &Progress) -> Markup {
        draw(&ProgressPart { f: self, progress, full: true })
    }

    pub(crate) fn test(&self, test: &Test) -> Markup {
        draw(&TestPart { f: self, test, steps: &test.steps, running: false })
    }

    pub(crate) fn test_running(&self, steps: &[Step]) -> Markup {
        draw(&TestPart { f: self, test: &Test::default(), steps, running: true })
    }

    /// A name that may break where names break.
    pub(crate) fn broken(&self, name: &str) -> Markup {
        trusted(format!("<bdi>{}</bdi>", breakable(name)))
    }

    /// The mark of a health, of its own outline.
    pub(crate) fn mark(&self, health: &Health) -> &'static str {
        match health {
            Health::Ok => "✓",
            Health::Delayed => "~",
            Health::Action => "!",
            Health::New => "○",
            Health::Off => "✕",
        }
    }

    /// A score and its limit.
    pub(crate) fn score(&self, score: &crate::backend::Score) -> String {
        let (score, limit) = (self.w.milli(&score.milli), self.w.milli(&score.limit_milli));
        self.w.plain("score", &[("score", score.as_str().into()), ("limit", limit.as_str().into())])
    }

    /// Local users, parted by commas.
    pub(crate) fn users(&self, users: &[String]) -> String {
        users.join(", ")
    }

    fn buttons(&self, cause: &Cause, account: Option<&str>) -> Vec<Button> {
        let mut buttons = Vec::new();
        for (word, remedy) in cause.code.row().remedies {
            let code = cause.code.word();
            let (address, post) = match (remedy, account) {
                (Remedy::Edit(field), Some(id)) if self.edit() => (format!("/accounts/{id}/settings#{field}"), false),
                (Remedy::CheckNow, Some(id)) if self.check() => (format!("/accounts/{id}/check"), true),
                (Remedy::SwitchOff, Some(id)) if self.edit() => (format!("/accounts/{id}/switch"), true),
                (Remedy::ShowParked, _) if self.operate() => ("/parked".to_owned(), false),
                (Remedy::ShowTwice, _) => ("/messages?state=maybe_twice".to_owned(), false),
                (Remedy::ShowMessages, Some(id)) => (format!("/accounts/{id}/messages"), false),
                (Remedy::ShowUser, Some(id)) if self.read() => (format!("/accounts/{id}"), false),
                (Remedy::ShowSettings | Remedy::TestParts, _) if self.read() => ("/settings".to_owned(), false),
                (Remedy::ShowAccounts, _) => (format!("/accounts?cause={code}"), false),
                // For several accounts, the way to each of them.
                (_, None) if buttons.is_empty() => (format!("/accounts?cause={code}"), false),
                _ => continue,
            };
            let show = account.is_none() && address.starts_with("/accounts?cause");
            let word = if show { self.t("do.show_accounts").to_owned() } else { self.of_word("do", word) };
            buttons.push(Button { word, address, post, main: buttons.is_empty() && !show });
        }
        buttons
    }
}
