//! The REST API. One table says every address, what it needs and what it speaks; the routes and the OpenAPI document are made of it, so
//! neither can be without the other.

mod accounts;
mod answer;
mod events;
mod openapi;
mod others;
mod status;

pub(crate) use openapi::document;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post, put};

use crate::app::{App, Fault};
use crate::gate::SignedIn;
use crate::person::Role;

pub(crate) use accounts::own_key;
pub(crate) use answer::problem;

/// One operation.
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// What the caller must at least be. With [`Role::Own`] the handler sees to it that only own accounts are shown.
    pub(crate) role: Role,
    pub(crate) summary: &'static str,
    /// Name of the schema of the request's body, or empty.
    pub(crate) body: &'static str,
    /// Name of the schema of the answer; empty: 204.
    pub(crate) answer: &'static str,
    /// Names of parameters of the query.
    pub(crate) query: &'static [&'static str],
    handler: fn() -> MethodRouter<Arc<App>>,
}

macro_rules! operations {
    ($($role:ident $method:ident $path:literal $handler:path, $body:literal => $answer:literal [$($query:literal)*] $summary:literal;)+) => {
        /// Every operation of the API.
        pub(crate) const OPERATIONS: &[Operation] = &[$(Operation {
            method: stringify!($method), path: $path, role: Role::$role, summary: $summary, body: $body, answer: $answer,
            query: &[$($query),*], handler: || $method($handler),
        }),+];
    };
}

operations! {
    Own get "/api/v1/me" status::me, "" => "Me" [] "Who asks";
    Read get "/api/v1/overview" status::overview, "" => "Overview" ["hours"] "Counts, causes, what runs, messages over time, health";
    Own get "/api/v1/accounts" accounts::list, "" => "AccountPage" ["q" "state" "activity" "user" "host" "cause" "source" "sort" "after" "limit"] "Accounts that match";
    Own post "/api/v1/accounts" accounts::create, "Settings" => "Account" ["untested"] "Adds an account, tests and checks it; Idempotency-Key makes a repetition harmless";
    Own get "/api/v1/accounts/{id}" accounts::one, "" => "Account" [] "One account with its settings; the answer's ETag is its version";
    Own put "/api/v1/accounts/{id}" accounts::replace, "Settings" => "Account" ["untested"] "Replaces settings; needs If-Match; without `secret` the stored one stays";
    Own delete "/api/v1/accounts/{id}" accounts::remove, "" => "" [] "Deletes an account; delivered mail stays";
    Own post "/api/v1/accounts/{id}/check" accounts::check, "" => "Count" [] "Checks an account now";
    Own post "/api/v1/accounts/{id}/stop" accounts::stop, "" => "Count" [] "Stops its check";
    Own post "/api/v1/accounts/{id}/enable" accounts::enable, "" => "Count" [] "Switches an account on";
    Own post "/api/v1/accounts/{id}/disable" accounts::disable, "" => "Count" [] "Switches an account off";
    Own get "/api/v1/accounts/{id}/runs" accounts::runs, "" => "RunPage" ["after" "limit"] "Runs of an account, newest first";
    Operate post "/api/v1/check" accounts::check_many, "Which" => "Count" [] "Checks accounts now: those of `ids`, or all that match `filter`";
    Operate post "/api/v1/stop" accounts::stop_many, "Which" => "Count" [] "Stops checks: of `ids`, or all that match `filter`";
    Own post "/api/v1/tests" accounts::test, "TestRequest" => "Test" [] "Tries settings step by step and changes nothing";
    Own get "/api/v1/suggestions" accounts::suggest, "" => "Settings" ["address"] "Settings that an address suggests";
    Admin post "/api/v1/import" accounts::import, "Import" => "ImportResult" [] "Adds and updates accounts from CSV, with a dry run";
    Read get "/api/v1/users" others::users, "" => "UserPage" ["q" "with" "after" "limit"] "Local users";
    Own get "/api/v1/messages" others::messages, "" => "MessagePage" ["q" "state" "account" "user" "since" "after" "limit"] "Messages, newest first";
    Own get "/api/v1/messages/{id}" others::message, "" => "MessageTrail" [] "One message and what became of it";
    Own get "/api/v1/quarantine" others::quarantine, "" => "HeldPage" ["q" "why" "user" "after" "limit"] "What is in quarantine";
    Own get "/api/v1/quarantine/{id}" others::held, "" => "HeldDetail" [] "One message of it with head lines and scores";
    Operate get "/api/v1/quarantine/{id}/message" crate::web::download, "" => "Octets" [] "Its octets, as a file";
    Operate post "/api/v1/quarantine/release" others::release, "Release" => "Count" [] "Delivers messages without a new scan";
    Operate post "/api/v1/quarantine/discard" others::discard, "Ids" => "Count" [] "Discards our copies";
    Read get "/api/v1/parked" others::parked, "" => "ParkedPage" ["q" "user" "after" "limit"] "What is parked";
    Operate post "/api/v1/parked/{action}" others::settle, "Ids" => "Count" [] "`retry`, `anyway` or `skip` parked messages";
    Read get "/api/v1/log" others::log, "" => "LogLines" ["level" "account" "q" "limit"] "The last lines of the log, oldest first";
    Read get "/api/v1/installation" status::installation, "" => "Installation" [] "What the configuration file says";
    Read get "/api/v1/health" status::health, "" => "Parts" [] "Tries filters, destinations and state now";
    Admin get "/api/v1/people" status::people, "" => "People" [] "People who sign in";
    Admin post "/api/v1/people" status::invite, "Invite" => "Link" [] "A one-time link for somebody to choose a password with";
    Admin delete "/api/v1/people/{name}" status::remove_person, "" => "" [] "Removes a person and their sessions";
    Admin post "/api/v1/first-start" status::first_start, "" => "Link" [] "Another one-time link while nobody can sign in; on the Unix socket only";
    Admin get "/api/v1/tokens" status::tokens, "" => "Tokens" [] "API tokens, without themselves";
    Admin post "/api/v1/tokens" status::new_token, "Invite" => "Token" [] "Makes a token; the answer is the only time it is shown";
    Admin delete "/api/v1/tokens/{token}" status::remove_token, "" => "" [] "Removes a token, by its digest";
    Admin get "/api/v1/audit" status::audit, "" => "AuditPage" ["after" "limit"] "Who did what";
    Own get "/api/v1/events" events::stream, "" => "Events" ["account"] "What happens, as server-sent events";
    Own get "/api/v1/openapi.json" openapi::show, "" => "OpenApi" [] "This document";
    Read get "/metrics" status::metrics, "" => "Metrics" [] "Figures for Prometheus";
}

pub(crate) fn routes() -> Router<Arc<App>> {
    let mut router = Router::new().route("/healthz", get(status::alive)).route("/readyz", get(status::ready));
    for operation in OPERATIONS {
        let role = operation.role;
        let guarded = (operation.handler)().layer(middleware::from_fn(move |request, next| need(role, request, next)));
        router = router.route(operation.path, guarded);
    }
    router
}

/// Holds every operation to the role that the table, and so the document, says.
async fn need(role: Role, request: Request, next: Next) -> Result<Response, Fault> {
    match request.extensions().get::<SignedIn>() {
        None => Err(Fault::SignIn),
        Some(by) if !by.caller.may(role) => Err(Fault::Role(role)),
        Some(_) => Ok(next.run(request).await),
    }
}
