//! What every request passes: the host it names, who sends it, whether it may change something, and what its answer carries.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::at::At;
use crate::backend::{Backend, Overview, Refusal};
use crate::fields::Fields;
use crate::gate::{Gate, Keep, KeepError, Limits, Origins, Passwords, Prolong, Refused, SignedIn};
use crate::person::{Role, Via};
use crate::server::{Options, Peer, ServeError};
use crate::words::{Language, Words};

/// Largest body of a request, in octets: a CSV of some ten thousand accounts.
const LARGEST_BODY: usize = 2 << 20;
/// What an answer may take, save tests of a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a test of a connection, or saving with one, may take.
const PATIENCE_WITH_SERVERS: Duration = Duration::from_secs(60);
/// How long the figures of the rail are believed.
const RAIL: Duration = Duration::from_secs(2);

/// Everything that requests share.
pub(crate) struct App {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) gate: Gate,
    pub(crate) options: Options,
    /// Turns true when streams must end.
    pub(crate) stopped: watch::Receiver<bool>,
    rail: Mutex<Option<(Instant, Rail)>>,
}

/// Returns when everything must end.
pub(crate) async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // What it lends is a lock's guard, which must not live on.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// The figures beside the navigation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rail {
    pub(crate) accounts: u64,
    pub(crate) quarantine: u64,
    pub(crate) parked: u64,
    pub(crate) users: u64,
    pub(crate) health: Vec<crate::backend::Part>,
    pub(crate) version: String,
}

impl From<&Overview> for Rail {
    fn from(overview: &Overview) -> Self {
        Self {
            accounts: overview.accounts.total,
            quarantine: overview.quarantine,
            parked: overview.parked,
            users: overview.users,
            health: overview.health.clone(),
            version: overview.version.clone(),
        }
    }
}

impl App {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        keep: Arc<dyn Keep>,
        options: Options,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self, ServeError> {
        if let Some(url) = &options.public_url {
            let host = url.strip_prefix("https://").map(|host| host.trim_end_matches('/'));
            if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' '])) {
                return Err(ServeError::PublicUrl(url.clone()));
            }
        }
        let passwords = Passwords::new(options.argon2.clone()).map_err(|e| ServeError::Passwords(e.to_string()))?;
        let gate = Gate {
            keep,
            passwords,
            origins: Origins::new(options.public_url.as_deref()),
            limits: Limits::default(),
            socket_admins: options.socket_admins.clone(),
            behind_proxy: options.behind_proxy,
        };
        Ok(Self { backend, gate, options, stopped, rail: Mutex::default() })
    }

    /// The figures beside the navigation, at most two seconds old; the last ones known when they cannot be had.
    pub(crate) async fn rail(&self) -> Rail {
        let kept = self.rail.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, rail)) = &kept
            && at.elapsed() < RAIL
        {
            return rail.clone();
        }
        match self.backend.overview(24).await {
            Ok(overview) => {
                let rail = Rail::from(&overview);
                *self.rail.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), rail.clone()));
                rail
            }
            Err(_) => kept.map(|(_, rail)| rail).unwrap_or_default(),
        }
    }
}

/// Why a request is not answered as it wished; drawn as a page or as `problem+json`, by its address.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nobody is signed in.
    SignIn,
    /// Another site's page sent it, or its form is not ours.
    Foreign(Refused),
    /// The form is of a session that ended.
    OldForm,
    /// This role may not.
    Role(Role),
    /// The method is not for this address.
    Method,
    /// Something about the request itself: status and key below `fault.`.
    Request(StatusCode, &'static str),
    /// Too many; again after so many seconds.
    TooMany(u64),
    /// It took too long.
    Slow,
    /// The back end refused.
    Refusal(Arc<Refusal>),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(Arc::new(refusal))
    }
}

impl From<KeepError> for Fault {
    fn from(error: KeepError) -> Self {
        Refusal::Unavailable(error.to_string()).into()
    }
}

impl Fault {
    pub(crate) const NOT_FOUND: Self = Self::Request(StatusCode::NOT_FOUND, "not_found");

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::SignIn => StatusCode::UNAUTHORIZED,
            Self::Foreign(_) | Self::OldForm | Self::Role(_) => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Request(status, _) => *status,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
            Self::Refusal(refusal) => match refusal.as_ref() {
                Refusal::NotFound => StatusCode::NOT_FOUND,
                Refusal::Fields(_) | Refusal::TestFailed(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refusal::Duplicate { .. } => StatusCode::CONFLICT,
                Refusal::Changed { .. } => StatusCode::PRECONDITION_FAILED,
                Refusal::FromFile => StatusCode::FORBIDDEN,
                Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// The last part of its `type`, and the key of its sentence below `fault.`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::Foreign(Refused::Host) => "foreign_host",
            Self::Foreign(Refused::Origin) => "foreign_origin",
            Self::OldForm => "old_form",
            Self::Role(_) => "role",
            Self::Method => "method",
            Self::Request(_, kind) => kind,
            Self::TooMany(_) => "too_many",
            Self::Slow => "slow",
            Self::Refusal(refusal) => match refusal.as_ref() {
                Refusal::NotFound => "not_found",
                Refusal::Fields(_) => "fields",
                Refusal::TestFailed(_) => "test_failed",
                Refusal::Duplicate { .. } => "duplicate",
                Refusal::Changed { .. } => "changed",
                Refusal::FromFile => "from_file",
                Refusal::Unavailable(_) => "unavailable",
            },
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What a handler answers.
pub(crate) type Answered = Result<Response, Fault>;

/// A request of somebody who is signed in.
pub(crate) struct Ask {
    pub(crate) app: Arc<App>,
    pub(crate) by: SignedIn,
    pub(crate) words: Words,
    pub(crate) query: Fields,
    /// Path and query.
    pub(crate) address: String,
    pub(crate) headers: HeaderMap,
}

impl Ask {
    /// Whether the caller may do what `role` may; else the fault that says so.
    pub(crate) fn need(&self, role: Role) -> Result<(), Fault> {
        if self.by.caller.may(role) { Ok(()) } else { Err(Fault::Role(role)) }
    }

    /// The local user that the caller is bound to.
    pub(crate) fn own_user(&self) -> Option<String> {
        match self.by.caller.role {
            // A name that no user has: one whose user is unknown sees nothing.
            Role::Own => Some(self.by.caller.user.clone().unwrap_or_default()),
            _ => None,
        }
    }

    /// Whether these local users are the caller's to see; what is not theirs is not there.
    pub(crate) fn see(&self, deliver_to: &[String]) -> Result<(), Fault> {
        if self.by.caller.owns(deliver_to) { Ok(()) } else { Err(Fault::NOT_FOUND) }
    }
}

impl FromRequestParts<Arc<App>> for Ask {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        let by = parts.extensions.get::<SignedIn>().cloned().ok_or(Fault::SignIn)?;
        let words = words(app, &parts.headers);
        let query = Fields::read(parts.uri.query().unwrap_or("").as_bytes());
        let address = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        Ok(Self { app: Arc::clone(app), by, words, query, address, headers: parts.headers.clone() })
    }
}

/// A form of our own page: right type, and the token of the session that asks.
pub(crate) struct Form(pub(crate) Fields);

impl FromRequest<Arc<App>> for Form {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, Fault> {
        let token = request.extensions().get::<SignedIn>().and_then(|by| by.form_token.clone());
        let octets = body(request, "application/x-www-form-urlencoded").await?;
        let fields = Fields::read(&octets);
        if let Some(token) = token
            && !bool::from(token.as_bytes().ct_eq(fields.raw("form_token").as_bytes()))
        {
            return Err(Fault::OldForm);
        }
        Ok(Self(fields))
    }
}

/// A form of a page that is open to strangers: whoever is signed in already may sign in once more. That it is our own page which sends it is
/// known by its origin.
pub(crate) struct OpenForm(pub(crate) Fields);

impl FromRequest<Arc<App>> for OpenForm {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, Fault> {
        Ok(Self(Fields::read(&body(request, "application/x-www-form-urlencoded").await?)))
    }
}

/// A body that says it is JSON: a form of another site cannot say so.
pub(crate) struct Json(pub(crate) serde_json::Value);

impl FromRequest<Arc<App>> for Json {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, Fault> {
        let octets = body(request, "application/json").await?;
        serde_json::from_slice(&octets).map(Self).map_err(|_| Fault::Request(StatusCode::BAD_REQUEST, "no_json"))
    }
}

async fn body(request: Request, wanted: &str) -> Result<bytes::Bytes, Fault> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(wanted) {
        return Err(Fault::Request(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type"));
    }
    let too_large = |_| Fault::Request(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    axum::body::to_bytes(request.into_body(), LARGEST_BODY).await.map_err(too_large)
}

/// A cookie that is a plain choice of looks, never a session.
pub(crate) fn choice<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

pub(crate) fn words(app: &App, headers: &HeaderMap) -> Words {
    let wished = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let language = choice(headers, "language").and_then(Language::of).unwrap_or_else(|| Language::wanted(wished));
    let exact = choice(headers, "times") == Some("exact");
    Words { language, zone: app.options.zone.clone(), now: At::now(), exact }
}

/// The address that tries of a sign-in are counted by.
///
/// The last entry of `X-Forwarded-For` is the one that our own proxy added; those before it anybody can write.
pub(crate) fn sender(app: &App, headers: &HeaderMap, peer: &Peer) -> String {
    let last = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let forwarded = last.and_then(|value| value.rsplit(',').next()).map(str::trim);
    match (peer, forwarded) {
        (_, Some(address)) if app.options.behind_proxy => address.chars().take(64).collect(),
        (Peer::Tcp(address), _) => address.ip().to_string(),
        (Peer::Unix(uid), _) => format!("unix {uid:?}"),
    }
}

pub(crate) fn router(app: &Arc<App>) -> Router {
    let routes = crate::web::routes().merge(crate::api::routes()).fallback(|| async { Fault::NOT_FOUND });
    routes
        .method_not_allowed_fallback(|| async { Fault::Method })
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard))
        .with_state(Arc::clone(app))
}

async fn guard(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let (method, headers, path) =
        (request.method().clone(), request.headers().clone(), request.uri().path().to_owned());
    let address = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut by = None;
    let mut response = match admit(&app, &peer, &method, &headers, &path).await {
        Ok(known) => {
            if let Some(known) = known.clone() {
                request.extensions_mut().insert(known);
            }
            by = known;
            let patience = if method.is_safe() { PATIENCE } else { PATIENCE_WITH_SERVERS };
            tokio::time::timeout(patience, next.run(request)).await.unwrap_or_else(|_| Fault::Slow.into_response())
        }
        Err(fault) => fault.into_response(),
    };
    if let Some(fault) = response.extensions_mut().remove::<Fault>() {
        let words = words(&app, &headers);
        response = if path.starts_with("/api/") || path == "/metrics" || path == "/readyz" {
            crate::api::problem(&fault, &words, by.as_ref())
        } else {
            crate::web::fault_page(&app, &fault, words, by, &method, &headers, &address).await
        };
    }
    protect(response.headers_mut(), &path);
    if method == Method::HEAD {
        // The length stays; hyper sends no body to a HEAD, but a stream would be kept waiting.
        *response.body_mut() = Body::empty();
    }
    response
}

async fn admit(
    app: &App,
    peer: &Peer,
    method: &Method,
    headers: &HeaderMap,
    path: &str,
) -> Result<Option<SignedIn>, Fault> {
    if matches!(peer, Peer::Tcp(_)) {
        app.gate.origins.host(headers).map_err(Fault::Foreign)?;
    }
    let prolong = if path.ends_with("/events") { Prolong::No } else { Prolong::Yes };
    let by = app.gate.who(headers, peer, prolong, At::now()).await?;
    let browser = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    // No other site's page can add this field, and with it no cookie counts. Nor does one reach a Unix socket; a browser that does is still
    // a browser.
    let socket = by.as_ref().is_some_and(|by| by.caller.via == Via::Socket);
    let program = headers.contains_key(header::AUTHORIZATION) || (socket && !browser);
    if !program {
        app.gate.origins.same(method, headers).map_err(Fault::Foreign)?;
    }
    Ok(by)
}

/// What every answer carries. The policy names no script but our own file: neither inline scripts nor handlers in attributes run, and
/// `style=` does nothing.
fn protect(headers: &mut HeaderMap, path: &str) {
    const FIELDS: [(HeaderName, &str); 7] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not "no-referrer": a browser then sends `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in FIELDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !path.starts_with("/assets/") {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
