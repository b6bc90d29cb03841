//! The REST API and the web page of connectord.
//!
//! It checks no account, keeps no message and stores nothing: what it shows and does is behind [`Backend`], and people, sessions and
//! tokens are in a small map behind [`Keep`]. It does no TLS: on anything but loopback or a Unix socket a reverse proxy stands in
//! front. It loads nothing from elsewhere, and works without a script.
//!
//! | what | where |
//! |---|---|
//! | listening, connections, deadlines | [`serve`], [`Listener`], [`Options`] |
//! | the rest of the program | [`Backend`] and the values it speaks in |
//! | people, sessions, tokens | [`Keep`], [`Role`], [`first_start`] |
//! | why an account is not well | [`Cause`], [`Code`]: one table for page, API, command line and exit codes |
//! | texts in five languages | [`Words`], [`Language`] |
//!
//! ```no_run
//! # async fn example(backend: std::sync::Arc<dyn connectord_admin::Backend>) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use connectord_admin::{Keep, Listener, MemoryKeep, Options, first_start, serve};
//!
//! let keep: Arc<dyn Keep> = Arc::new(MemoryKeep::default());
//! if let Some(link) = first_start(keep.as_ref()).await? {
//!     link.write("http://127.0.0.1:8025", "/var/lib/connectord/first-start".as_ref())?;
//! }
//! let listener = Listener::Tcp(tokio::net::TcpListener::bind("127.0.0.1:8025").await?);
//! serve(listener, backend, keep, Options::default(), std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```

mod api;
mod app;
mod at;
mod backend;
mod cause;
mod csv;
mod entered;
mod escape;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod person;
mod server;
mod web;
mod words;

pub use at::At;
pub use backend::*;
pub use cause::{Cause, CauseRow, Code, Mends, Remedy, Value};
pub use escape::Markup;
pub use gate::{Invitation, Keep, KeepError, MemoryKeep, StartLink};
pub use person::{Caller, Role, Via};
pub use server::{Listener, Options, ServeError, serve};
pub use words::{Figure, Language, Words};

/// The OpenAPI 3.1 document of the API.
pub fn openapi() -> serde_json::Value {
    api::document()
}

/// Makes the one-time link of the first administrator, while nobody can sign in; `None` when somebody can.
///
/// Each call makes another link; all are valid for a day.
///
/// # Errors
/// When people cannot be read.
pub async fn first_start(keep: &dyn Keep) -> Result<Option<StartLink>, KeepError> {
    if !keep.list("person/", 1).await?.is_empty() {
        return Ok(None);
    }
    invite(keep, None, Role::Admin, None).await.map(Some)
}

/// Forgets sessions that ended and links that nobody used in time; for now and then.
///
/// # Errors
/// When people cannot be read or written.
pub async fn tidy(keep: &dyn Keep) -> Result<(), KeepError> {
    gate::tidy(keep, At::now()).await
}

/// Makes a one-time link for somebody to choose a password with; also for one who forgot it, whose role it then sets.
///
/// # Errors
/// When people cannot be read.
pub async fn invite(
    keep: &dyn Keep,
    name: Option<String>,
    role: Role,
    user: Option<String>,
) -> Result<StartLink, KeepError> {
    gate::invite(keep, name, role, user, At::now()).await
}
