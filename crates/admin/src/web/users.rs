//! Local users and their accounts: the other way in.

use askama::Template;
use axum::http::StatusCode;

use super::{Frame, page};
use crate::app::{Answered, Ask};
use crate::backend::{Page, User, UserQuery};
use crate::fields::Fields;
use crate::person::Role;

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    f: Frame,
    query: Fields,
    users: Page<User>,
    source: String,
}

pub(super) async fn show(ask: Ask) -> Answered {
    ask.need(Role::Read)?;
    let with_accounts = match ask.query.get("with") {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let query =
        UserQuery { text: ask.query.get("q").to_owned(), with_accounts, after: ask.query.some("after"), limit: 50 };
    let users = ask.app.backend.users(&query).await?;
    let source = ask.app.backend.installation().await?.users_source;
    let f = Frame::of(&ask, "nav.users", "users").await;
    Ok(page(StatusCode::OK, &UsersPage { f, query: ask.query, users, source }))
}
