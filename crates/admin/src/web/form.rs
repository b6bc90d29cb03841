//! The form of an account: new, edited, tested, saved; and what is shown when it was not saved.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::account::may_edit;
use super::{Frame, page, see};
use crate::app::{Answered, Ask, Fault, Form};
use crate::backend::{
    Account, Answer, Check, Delete, Entered, FieldProblem, Refusal, Saving, SecretState, Security, Settings, Start,
    Step, Test, UserQuery,
};
use crate::cause::Value;
use crate::entered::{of_form, secret_problem};
use crate::escape::{Markup, html, trusted};
use crate::fields::Fields;
use crate::gate::fresh;
use crate::person::Role;

/// Users offered in the list beside the field.
const USERS: usize = 200;
/// What a test that is followed may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Template)]
#[template(path = "form.html")]
struct FormPage {
    f: Frame,
    /// The account that is edited.
    a: Option<Account>,
    s: Settings,
    secret: SecretState,
    wrong: Vec<FieldProblem>,
    test: Option<Test>,
    duplicate: Option<(String, String)>,
    /// The settings could be saved although the test failed.
    untested: bool,
    key: String,
    etag: String,
    users: Vec<String>,
    deliveries: Vec<String>,
    /// The local user that the caller is bound to.
    own: Option<String>,
    antispam: String,
    antivirus: String,
    found: bool,
}

impl FormPage {
    fn problem(&self, field: &str) -> Option<String> {
        let problem = self.wrong.iter().find(|problem| problem.field == field)?;
        let key = format!("problem.{}", problem.problem);
        Some(if self.f.w.has(&key) { self.f.w.t(&key).to_owned() } else { problem.problem.clone() })
    }

    /// What marks a field that needs a look, for those who see and those who hear the page.
    fn invalid(&self, field: &str) -> Markup {
        let marks = self.problem(field).map(|_| format!(" aria-invalid=\"true\" aria-describedby=\"{field}-error\""));
        trusted(marks.unwrap_or_default())
    }

    /// What is wrong with a field, below it.
    fn error(&self, field: &str) -> Markup {
        let problem = self.problem(field).map(|problem| html(&problem));
        let text = problem.map(|problem| {
            format!("<p class=\"error\" id=\"{field}-error\"><span aria-hidden=\"true\">✕</span> {problem}</p>")
        });
        trusted(text.unwrap_or_default())
    }

    fn minutes(&self) -> u16 {
        if let Check::Every(minutes) = self.s.check { minutes } else { 15 }
    }

    fn days(&self) -> u16 {
        if let Delete::After(days) = self.s.delete { days } else { 7 }
    }

    fn day(&self) -> String {
        if let Start::Since(day) = self.s.start { day.to_string() } else { String::new() }
    }

    fn action(&self) -> String {
        self.a.as_ref().map_or_else(|| "/accounts".to_owned(), |a| format!("/accounts/{}/settings", a.row.id))
    }

    fn cancel(&self) -> String {
        self.a.as_ref().map_or_else(|| "/accounts".to_owned(), |a| format!("/accounts/{}", a.row.id))
    }

    fn removes(&self, n: &u64) -> Markup {
        self.f.w.say("form.removes", &[("n", Value::Count(*n)), ("host", self.s.host.as_str().into())])
    }

    fn usual_port(&self) -> u16 {
        self.s.protocol.port(self.s.security)
    }

    fn readable(&self) -> bool {
        self.s.security == Security::None
    }
}

/// What a form is drawn from.
#[derive(Default)]
struct Draft {
    settings: Settings,
    account: Option<Account>,
    wrong: Vec<FieldProblem>,
    test: Option<Test>,
    duplicate: Option<(String, String)>,
    untested: bool,
    key: String,
    etag: String,
    found: bool,
}

async fn draw(ask: &Ask, status: StatusCode, draft: Draft) -> Answered {
    let own = ask.own_user();
    let users = match &own {
        Some(user) => vec![user.clone()],
        None => {
            let query = UserQuery { limit: USERS, ..UserQuery::default() };
            ask.app.backend.users(&query).await.unwrap_or_default().items.into_iter().map(|user| user.name).collect()
        }
    };
    let installation = ask.app.backend.installation().await.unwrap_or_default();
    let title = if draft.account.is_some() { "account.edit" } else { "accounts.add" };
    let mut f = Frame::of(ask, title, "accounts").await;
    if let Some(account) = &draft.account {
        f.title = f.w.named("account.edit_title", &account.row.address);
    }
    let key = if draft.key.is_empty() { fresh().unwrap_or_default() } else { draft.key };
    let form = FormPage {
        secret: draft.account.as_ref().map(|a| a.secret.clone()).unwrap_or_default(),
        f,
        a: draft.account,
        s: draft.settings,
        wrong: draft.wrong,
        test: draft.test,
        duplicate: draft.duplicate,
        untested: draft.untested,
        key,
        etag: draft.etag,
        users,
        deliveries: installation.deliveries,
        own,
        antispam: installation.antispam,
        antivirus: installation.antivirus,
        found: draft.found,
    };
    Ok(page(status, &form))
}

/// An edit binds the settings to the caller's own user, whatever the form says.
pub(crate) fn bind(ask: &Ask, settings: &mut Settings) {
    if let Some(user) = ask.own_user() {
        settings.deliver_to = vec![user];
        // Where mail goes and who is believed are the administrator's to say.
        settings.delivery.clear();
        settings.recipient.clear();
        settings.trusted_relays.clear();
    }
}

/// Whether the caller may add accounts: administrators for everybody, others their own.
pub(crate) fn may_add(ask: &Ask) -> Result<(), Fault> {
    if ask.own_user().is_some_and(|user| !user.is_empty()) { Ok(()) } else { ask.need(Role::Admin) }
}

pub(super) async fn new(ask: Ask) -> Answered {
    may_add(&ask)?;
    let mut settings = Settings { address: ask.query.get("address").to_owned(), ..Settings::default() };
    settings.deliver_to = ask.query.some("for").into_iter().collect();
    let mut found = false;
    if settings.address.contains('@')
        && let Some(suggested) = ask.app.backend.suggest(&settings.address).await?
    {
        let deliver_to = std::mem::take(&mut settings.deliver_to);
        settings = Settings { address: settings.address, deliver_to, ..suggested };
        found = true;
    }
    bind(&ask, &mut settings);
    draw(&ask, StatusCode::OK, Draft { settings, found, ..Draft::default() }).await
}

pub(super) async fn edit(Path(id): Path<String>, ask: Ask) -> Answered {
    let account = may_edit(&ask, &id).await?;
    let (settings, etag) = (account.settings.clone(), account.row.etag.clone());
    draw(&ask, StatusCode::OK, Draft { settings, etag, account: Some(account), ..Draft::default() }).await
}

pub(super) async fn create(ask: Ask, Form(form): Form) -> Answered {
    may_add(&ask)?;
    let (mut entered, mut wrong) = of_form(&form);
    entered.settings.enabled = true;
    bind(&ask, &mut entered.settings);
    wrong.retain(|problem| problem.field != "deliver_to" || entered.settings.deliver_to.is_empty());
    wrong.extend(secret_problem(&entered, None));
    let key = form.get("key").to_owned();
    if wrong.is_empty() {
        let saving = Saving {
            idempotency_key: Some(crate::api::own_key(&ask, &key)),
            if_match: None,
            untested: form.has("untested"),
        };
        let saved = match ask.app.backend.create(&ask.by.caller, entered.clone(), saving).await {
            Ok(id) => return Ok(see(&format!("/accounts/{id}?done=added"))),
            Err(refusal) => refusal,
        };
        return not_saved(&ask, saved, entered, None, form).await;
    }
    draw(&ask, StatusCode::UNPROCESSABLE_ENTITY, Draft { settings: entered.settings, wrong, key, ..Draft::default() })
        .await
}

pub(super) async fn save(Path(id): Path<String>, ask: Ask, Form(form): Form) -> Answered {
    let account = may_edit(&ask, &id).await?;
    let (mut entered, mut wrong) = of_form(&form);
    bind(&ask, &mut entered.settings);
    wrong.retain(|problem| problem.field != "deliver_to" || entered.settings.deliver_to.is_empty());
    wrong.extend(secret_problem(&entered, Some(&(account.settings.clone(), account.secret.set))));
    if !wrong.is_empty() {
        let draft = Draft {
            settings: entered.settings,
            wrong,
            etag: form.get("etag").to_owned(),
            account: Some(account),
            ..Draft::default()
        };
        return draw(&ask, StatusCode::UNPROCESSABLE_ENTITY, draft).await;
    }
    let saving = Saving { idempotency_key: None, if_match: form.some("etag"), untested: form.has("untested") };
    match ask.app.backend.update(&ask.by.caller, &id, entered.clone(), saving).await {
        Ok(()) => Ok(see(&format!("/accounts/{id}?done=saved"))),
        Err(refusal) => not_saved(&ask, refusal, entered, Some(account), form).await,
    }
}

async fn not_saved(ask: &Ask, refusal: Refusal, entered: Entered, account: Option<Account>, form: Fields) -> Answered {
    let draft = Draft {
        settings: entered.settings,
        account,
        key: form.get("key").to_owned(),
        etag: form.get("etag").to_owned(),
        ..Draft::default()
    };
    match refusal {
        Refusal::Fields(wrong) => draw(ask, StatusCode::UNPROCESSABLE_ENTITY, Draft { wrong, ..draft }).await,
        Refusal::Duplicate { id, address } => {
            // Whether somebody else retrieves a mailbox is not for everybody to learn.
            let known =
                ask.app.backend.account(&id).await.is_ok_and(|account| ask.see(&account.row.deliver_to).is_ok());
            let duplicate = if known { (id, address) } else { (String::new(), draft.settings.address.clone()) };
            draw(ask, StatusCode::CONFLICT, Draft { duplicate: Some(duplicate), ..draft }).await
        }
        Refusal::TestFailed(test) => {
            draw(ask, StatusCode::UNPROCESSABLE_ENTITY, Draft { test: Some(*test), untested: true, ..draft }).await
        }
        Refusal::Changed { base, current } => conflict(ask, base, *current, draft.settings).await,
        other => Err(other.into()),
    }
}

/// A field that two edited.
struct Difference {
    field: &'static str,
    before: Option<String>,
    theirs: String,
    yours: String,
    /// Whether yours is chosen beforehand: you changed it.
    changed_by_you: bool,
}

#[derive(Template)]
#[template(path = "conflict.html")]
struct ConflictPage {
    f: Frame,
    current: Account,
    differences: Vec<Difference>,
    /// The fields that do not differ, to be sent again.
    same: Vec<(String, String)>,
}

impl ConflictPage {
    fn sentence(&self) -> Markup {
        let at = self.current.edited_at.unwrap_or_default();
        self.f.w.say("conflict.sentence", &[("name", self.current.edited_by.as_str().into()), ("at", Value::At(at))])
    }
}

async fn conflict(ask: &Ask, base: Option<Box<Settings>>, current: Account, yours: Settings) -> Answered {
    let f = Frame::of(ask, "conflict.title", "accounts").await;
    let base_fields = base.map(|base| base.fields());
    let mut differences = Vec::new();
    for ((field, theirs), (_, yours)) in current.settings.fields().into_iter().zip(yours.fields()) {
        let before = base_fields
            .as_ref()
            .and_then(|base| base.iter().find(|(name, _)| *name == field))
            .map(|(_, text)| text.clone());
        if theirs != yours {
            let changed_by_you = before.as_ref() != Some(&yours);
            differences.push(Difference { field, before, theirs, yours, changed_by_you });
        }
    }
    let same = as_form(&current.settings)
        .into_iter()
        .filter(|(name, _)| !differences.iter().any(|difference| name == difference.field));
    let same = same.collect();
    Ok(page(StatusCode::CONFLICT, &ConflictPage { f, current, differences, same }))
}

/// Settings as the fields of the form.
fn as_form(settings: &Settings) -> Vec<(String, String)> {
    let fields = settings.fields().into_iter().filter_map(|(name, text)| match (name, text.as_str()) {
        ("antispam" | "antivirus" | "mark_seen" | "enabled", "no") => None,
        _ => Some((name.to_owned(), text)),
    });
    let mut fields: Vec<_> = fields.collect();
    fields.push(("readable".to_owned(), "1".to_owned()));
    fields
}

/// Tries the settings of a form: as a page, or step by step to a script.
pub(super) async fn test(ask: Ask, Form(form): Form) -> Answered {
    let id = form.some("id");
    let account = match &id {
        Some(id) => Some(may_edit(&ask, id).await?),
        None => {
            may_add(&ask)?;
            None
        }
    };
    let live = ask.headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream");
    let (mut entered, mut wrong) = of_form(&form);
    bind(&ask, &mut entered.settings);
    wrong.retain(|problem| problem.field != "deliver_to" || entered.settings.deliver_to.is_empty());
    let before = account.as_ref().map(|account| (account.settings.clone(), account.secret.set));
    wrong.extend(secret_problem(&entered, before.as_ref()));
    if !wrong.is_empty() && live {
        return Ok(StatusCode::UNPROCESSABLE_ENTITY.into_response());
    }
    let draft = Draft {
        settings: entered.settings.clone(),
        key: form.get("key").to_owned(),
        etag: form.get("etag").to_owned(),
        account,
        ..Draft::default()
    };
    if !wrong.is_empty() {
        return draw(&ask, StatusCode::UNPROCESSABLE_ENTITY, Draft { wrong, ..draft }).await;
    }
    ask.app.gate.may_test(&ask.by.caller.name).map_err(|wait| Fault::TooMany(wait.as_secs() + 1))?;
    if live {
        let frame = Frame::of(&ask, "", "accounts").await;
        return Ok(stepwise(&ask, frame, id, entered));
    }
    let (sender, mut steps) = mpsc::channel(16);
    let trying = ask.app.backend.test(&ask.by.caller, id.as_deref(), entered, sender);
    let (test, ()) = tokio::join!(trying, async { while steps.recv().await.is_some() {} });
    draw(&ask, StatusCode::OK, Draft { test: Some(test?), ..draft }).await
}

/// Streams the steps as HTML, then the end. The test is driven by the stream itself: whoever goes away ends it.
fn stepwise(ask: &Ask, frame: Frame, id: Option<String>, entered: Entered) -> Response {
    let (sender, steps) = mpsc::channel(16);
    let (backend, caller) = (Arc::clone(&ask.app.backend), ask.by.caller.clone());
    let trying = async move { backend.test(&caller, id.as_deref(), entered, sender).await };
    let state =
        Stepwise { frame, trying: Some(Box::pin(trying)), steps, seen: waiting(), until: Instant::now() + PATIENCE };
    let parts = stream::unfold(state, |mut state| async move {
        let html = state.next().await?;
        let line = serde_json::json!({ "id": "test", "html": html }).to_string();
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(format!("event: cell\ndata: {line}\n\n"))), state))
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
    (kind, Body::from_stream(parts)).into_response()
}

/// Seven steps that wait.
fn waiting() -> Vec<Step> {
    let step =
        |name| Step { name, state: crate::backend::StepState::Waits, result: String::new(), ms: None, cause: None };
    Step::NAMES.into_iter().map(step).collect()
}

struct Stepwise {
    frame: Frame,
    trying: Option<std::pin::Pin<Box<dyn Future<Output = Answer<Test>> + Send>>>,
    steps: mpsc::Receiver<Step>,
    seen: Vec<Step>,
    until: Instant,
}

impl Stepwise {
    async fn next(&mut self) -> Option<String> {
        let trying = self.trying.as_mut()?;
        let ended = tokio::select! {
            biased;
            Some(step) = self.steps.recv() => {
                match self.seen.iter_mut().find(|seen| seen.name == step.name) {
                    Some(seen) => *seen = step,
                    None => self.seen.push(step),
                }
                return Some(self.frame.test_running(&self.seen).0);
            }
            ended = trying => ended,
            () = tokio::time::sleep_until(self.until) => {
                self.trying = None;
                return Some(html(&self.frame.w.of("fault", Fault::Slow.kind())));
            }
        };
        self.trying = None;
        match ended {
            Ok(test) => Some(self.frame.test(&test).0),
            Err(refusal) => {
                let fault = Fault::from(refusal);
                Some(html(&self.frame.w.of("fault", fault.kind())))
            }
        }
    }
}
