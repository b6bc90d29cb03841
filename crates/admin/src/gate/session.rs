//! People, sessions, tokens and invitations: what is kept of them, and how a request proves whose it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};

use super::limit::Rate;
use super::{Keep, KeepError, Limits, Origins, Passwords, digest, fresh};
use crate::at::At;
use crate::person::{Caller, Person, Role, Via};
use crate::server::Peer;

/// A session ends when nothing was asked for so long.
pub(crate) const IDLE: u64 = 30 * 60;
/// A session ends so long after sign-in, whatever was asked.
pub(crate) const ABSOLUTE: u64 = 12 * 3600;
/// An invitation can be used for so long.
const INVITED: u64 = 24 * 3600;
/// Tries of one name from one address, then one in half a minute.
const PAIR: Rate = Rate { burst: 5, interval: Duration::from_secs(30) };
/// Tries of one address.
const ADDRESS: Rate = Rate { burst: 20, interval: Duration::from_secs(6) };
/// Tries of one name from everywhere. Generous: it is for guessing with many machines, and whoever empties it keeps the person out.
const NAME: Rate = Rate { burst: 50, interval: Duration::from_secs(10) };
/// Tests of connections by one person, since each makes us connect somewhere.
const TESTS: Rate = Rate { burst: 10, interval: Duration::from_secs(6) };

/// A session, as kept below the digest of its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    name: String,
    generation: u64,
    created: At,
    seen: At,
}

/// An API token, as kept below its digest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    /// Names it in the list and in the audit.
    pub(crate) name: String,
    pub(crate) role: Role,
    #[serde(default)]
    pub(crate) user: Option<String>,
    pub(crate) created: At,
    pub(crate) by: String,
}

/// What somebody becomes who opens a one-time link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// The name they will sign in with; `None`: they choose it.
    pub name: Option<String>,
    /// What they will be allowed.
    pub role: Role,
    /// With [`Role::Own`]: the local user.
    pub user: Option<String>,
    /// Until when.
    pub expires: At,
}

/// A one-time link.
#[derive(Clone, PartialEq, Eq)]
pub struct StartLink {
    /// The path on our page, such as `/start/5f…`: whoever has it can use it.
    pub path: String,
    /// Until when.
    pub expires: At,
}

impl StartLink {
    /// Writes the link, with `base` in front, to a new file that only we may read; one that is there is replaced.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self, base: &str, file: &std::path::Path) -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        match std::fs::remove_file(file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        writeln!(file, "{}{}", base.trim_end_matches('/'), self.path)?;
        file.sync_all()
    }
}

/// A request whose sender is known.
#[derive(Clone, Debug)]
pub(crate) struct SignedIn {
    pub(crate) caller: Caller,
    /// With a session: the token that its forms carry.
    pub(crate) form_token: Option<String>,
    /// With a session: its key.
    pub(crate) session: Option<String>,
    /// With a session: when it ends if nothing more is asked, and at last.
    pub(crate) ends: Option<At>,
}

/// Whether a request shows that somebody is there: a stream of events, which a tab opens by itself, does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prolong {
    Yes,
    No,
}

/// Why a sign-in was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    #[error("name or password is wrong")]
    Wrong,
    #[error("too many tries; one more after {0:?}")]
    TooMany(Duration),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("{0}")]
    System(String),
}

/// Everything that decides who may ask.
pub(crate) struct Gate {
    pub(crate) keep: Arc<dyn Keep>,
    pub(crate) passwords: Passwords,
    pub(crate) origins: Origins,
    pub(crate) limits: Limits,
    /// User ids that are administrators on the Unix socket.
    pub(crate) socket_admins: Vec<u32>,
    pub(crate) behind_proxy: bool,
}

fn record<T: serde::de::DeserializeOwned>(value: Option<Vec<u8>>) -> Option<T> {
    value.and_then(|value| serde_json::from_slice(&value).ok())
}

fn value<T: Serialize>(record: &T) -> Result<Vec<u8>, KeepError> {
    serde_json::to_vec(record).map_err(|e| KeepError(e.to_string()))
}

/// Whether a name can be that of a person or a token: 1 to 64 letters, digits, `.`, `-`, `_`, `@`.
pub(crate) fn valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_@".contains(c))
}

impl Gate {
    /// Who sent a request.
    ///
    /// A Unix socket's user id counts only when no reverse proxy stands between: then it is the proxy's.
    pub(crate) async fn who(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        prolong: Prolong,
        now: At,
    ) -> Result<Option<SignedIn>, KeepError> {
        let plain = |caller| Some(SignedIn { caller, form_token: None, session: None, ends: None });
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
            return Ok(self.token(token.unwrap_or("")).await?.and_then(plain));
        }
        if let Some(id) = self.cookie(headers)
            && let Some(signed_in) = self.session(id, prolong, now).await?
        {
            return Ok(Some(signed_in));
        }
        let proxied = self.behind_proxy || headers.contains_key("forwarded") || headers.contains_key("x-forwarded-for");
        if let Peer::Unix(Some(uid)) = peer
            && self.socket_admins.contains(uid)
            && !proxied
        {
            let caller = Caller { name: format!("uid {uid}"), role: Role::Admin, via: Via::Socket, user: None };
            return Ok(plain(caller));
        }
        Ok(None)
    }

    async fn token(&self, token: &str) -> Result<Option<Caller>, KeepError> {
        let kept: Option<TokenRecord> = record(self.keep.get(&format!("token/{}", digest(token))).await?);
        Ok(kept.map(|token| Caller { name: token.name, role: token.role, via: Via::Token, user: token.user }))
    }

    async fn session(&self, id: &str, prolong: Prolong, now: At) -> Result<Option<SignedIn>, KeepError> {
        let key = format!("session/{}", digest(id));
        let Some(mut session) = record::<Session>(self.keep.get(&key).await?) else { return Ok(None) };
        let person: Option<Person> = record(self.keep.get(&person_key(&session.name)).await?);
        let person = person.filter(|person| person.generation == session.generation);
        let alive = now.since(session.seen) < IDLE && now.since(session.created) < ABSOLUTE;
        let Some(person) = person.filter(|_| alive) else {
            self.keep.delete(&key).await?;
            return Ok(None);
        };
        // One write a minute and not one a request.
        if prolong == Prolong::Yes && now.since(session.seen) >= 60 {
            session.seen = now;
            self.keep.put(&key, value(&session)?).await?;
        }
        let ends = (session.seen.0 + IDLE as i64).min(session.created.0 + ABSOLUTE as i64);
        Ok(Some(SignedIn {
            caller: Caller { name: session.name, role: person.role, via: Via::Session, user: person.user },
            form_token: Some(digest(&format!("form {id}"))),
            session: Some(key),
            ends: Some(At(ends)),
        }))
    }

    /// Whether the session below `key` still lives; does not prolong it.
    pub(crate) async fn lives(&self, key: &str, now: At) -> bool {
        let session: Option<Session> = record(self.keep.get(key).await.unwrap_or(None));
        let Some(session) = session else { return false };
        // A new password and a person who was removed end a stream as they end the session.
        let person: Option<Person> = record(self.keep.get(&person_key(&session.name)).await.unwrap_or(None));
        person.is_some_and(|person| person.generation == session.generation)
            && now.since(session.seen) < IDLE
            && now.since(session.created) < ABSOLUTE
    }

    /// Name of the cookie. `__Host-` binds it to our host and https, which a browser insists on.
    pub(crate) fn cookie_name(&self) -> &'static str {
        if self.origins.https() { "__Host-connectord" } else { "connectord" }
    }

    fn cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.cookie_name()).map(|(_, value)| value)
    }

    /// The `Set-Cookie` field of a session; an empty id ends it.
    pub(crate) fn set_cookie(&self, id: &str) -> String {
        let secure = if self.origins.https() { "; Secure" } else { "" };
        let age = if id.is_empty() { 0 } else { ABSOLUTE };
        format!("{}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}", self.cookie_name())
    }

    /// Signs somebody in; answers the new session's id.
    pub(crate) async fn sign_in(
        &self,
        name: &str,
        password: String,
        from: &str,
        now: At,
    ) -> Result<String, SignInError> {
        let instant = Instant::now();
        let tries = [(format!("{from} {name}"), PAIR), (from.to_owned(), ADDRESS), (format!("name {name}"), NAME)];
        for (bucket, rate) in tries {
            self.limits.take(&bucket, rate, instant).map_err(SignInError::TooMany)?;
        }
        let person: Option<Person> = record(self.keep.get(&person_key(name)).await?);
        let hashed = person.as_ref().map(|person| person.password.clone());
        let right = password.len() <= super::password::LONGEST;
        let right = self.passwords.is(password, hashed).await.map_err(|e| SignInError::System(e.to_string()))? && right;
        let person = person.filter(|_| right).ok_or(SignInError::Wrong)?;
        self.open(name, person.generation, now).await
    }

    async fn open(&self, name: &str, generation: u64, now: At) -> Result<String, SignInError> {
        tidy(self.keep.as_ref(), now).await?;
        let id = fresh().map_err(|e| SignInError::System(e.to_string()))?;
        let session = Session { name: name.to_lowercase(), generation, created: now, seen: now };
        self.keep.put(&format!("session/{}", digest(&id)), value(&session)?).await?;
        Ok(id)
    }

    /// Whether one more test of a connection is within reason.
    pub(crate) fn may_test(&self, name: &str) -> Result<(), Duration> {
        self.limits.take(&format!("test {name}"), TESTS, Instant::now())
    }

    /// Whether nobody can sign in yet.
    pub(crate) async fn is_new(&self) -> Result<bool, KeepError> {
        Ok(self.keep.list("person/", 1).await?.is_empty())
    }

    /// Makes a one-time link; answers its path.
    pub(crate) async fn invite(
        &self,
        name: Option<String>,
        role: Role,
        user: Option<String>,
        now: At,
    ) -> Result<StartLink, KeepError> {
        invite(self.keep.as_ref(), name, role, user, now).await
    }

    /// What an invitation is for, without using it up.
    pub(crate) async fn invitation(&self, token: &str, now: At) -> Result<Option<Invitation>, KeepError> {
        let invitation: Option<Invitation> = record(self.keep.get(&format!("start/{}", digest(token))).await?);
        let Some(invitation) = invitation.filter(|invitation| invitation.expires > now) else { return Ok(None) };
        // Of several first links one makes the first administrator; the others, which a log or a file may still hold, make none.
        let is_late = invitation.name.is_none() && !self.is_new().await?;
        Ok(Some(invitation).filter(|_| !is_late))
    }

    /// Uses an invitation up: makes the person and signs them in. `None` when it was used before.
    pub(crate) async fn accept(
        &self,
        token: &str,
        invitation: &Invitation,
        name: &str,
        password: String,
        now: At,
    ) -> Result<Option<String>, SignInError> {
        let password = self.passwords.hash(password).await.map_err(|e| SignInError::System(e.to_string()))?;
        // Of two who open the same link at once, one is told that it was there.
        if !self.keep.delete(&format!("start/{}", digest(token))).await? {
            return Ok(None);
        }
        let before: Option<Person> = record(self.keep.get(&person_key(name)).await?);
        let generation = before.map_or(0, |person| person.generation + 1);
        let person =
            Person { role: invitation.role, user: invitation.user.clone(), password, generation, created: now };
        self.keep.put(&person_key(name), value(&person)?).await?;
        self.open(name, generation, now).await.map(Some)
    }

    /// Sets a new password, which ends all sessions of that person; answers the id of a new one.
    pub(crate) async fn set_password(
        &self,
        name: &str,
        password: String,
        now: At,
    ) -> Result<Option<String>, SignInError> {
        let Some(mut person) = record::<Person>(self.keep.get(&person_key(name)).await?) else { return Ok(None) };
        person.password = self.passwords.hash(password).await.map_err(|e| SignInError::System(e.to_string()))?;
        person.generation += 1;
        self.keep.put(&person_key(name), value(&person)?).await?;
        self.open(name, person.generation, now).await.map(Some)
    }

    pub(crate) async fn person(&self, name: &str) -> Result<Option<Person>, KeepError> {
        Ok(record(self.keep.get(&person_key(name)).await?))
    }

    /// People, by name.
    pub(crate) async fn people(&self) -> Result<Vec<(String, Person)>, KeepError> {
        let kept = self.keep.list("person/", 1000).await?;
        let person =
            |(key, kept): (String, Vec<u8>)| Some((key.strip_prefix("person/")?.to_owned(), record(Some(kept))?));
        Ok(kept.into_iter().filter_map(person).collect())
    }

    /// Removes a person; their sessions end with it. The last administrator stays.
    pub(crate) async fn remove_person(&self, name: &str) -> Result<bool, KeepError> {
        let people = self.people().await?;
        let mut others = people.iter().filter(|(other, person)| other != name && person.role == Role::Admin);
        if others.next().is_none() {
            return Ok(false);
        }
        self.keep.delete(&person_key(name)).await
    }

    /// Makes an API token; answers it, the only time that it is to be seen.
    pub(crate) async fn new_token(&self, token: TokenRecord) -> Result<String, SignInError> {
        let secret = format!("cd_{}", fresh().map_err(|e| SignInError::System(e.to_string()))?);
        self.keep.put(&format!("token/{}", digest(&secret)), value(&token)?).await?;
        Ok(secret)
    }

    /// Tokens, by the digest that names them.
    pub(crate) async fn tokens(&self) -> Result<Vec<(String, TokenRecord)>, KeepError> {
        let kept = self.keep.list("token/", 1000).await?;
        let token =
            |(key, kept): (String, Vec<u8>)| Some((key.strip_prefix("token/")?.to_owned(), record(Some(kept))?));
        Ok(kept.into_iter().filter_map(token).collect())
    }

    pub(crate) async fn remove_token(&self, digest: &str) -> Result<bool, KeepError> {
        self.keep.delete(&format!("token/{digest}")).await
    }
}

fn person_key(name: &str) -> String {
    format!("person/{}", name.to_lowercase())
}

/// Forgets sessions that ended, and links whose day is over, so that those nobody came back to do not stay for ever.
pub(crate) async fn tidy(keep: &dyn Keep, now: At) -> Result<(), KeepError> {
    for (key, kept) in keep.list("session/", 500).await? {
        let session: Option<Session> = record(Some(kept));
        if !session.is_some_and(|session| now.since(session.seen) < IDLE && now.since(session.created) < ABSOLUTE) {
            keep.delete(&key).await?;
        }
    }
    for (key, kept) in keep.list("start/", 500).await? {
        let invitation: Option<Invitation> = record(Some(kept));
        if invitation.is_none_or(|invitation| invitation.expires <= now) {
            keep.delete(&key).await?;
        }
    }
    Ok(())
}

/// Makes a one-time link and keeps the digest of its token.
pub(crate) async fn invite(
    keep: &dyn Keep,
    name: Option<String>,
    role: Role,
    user: Option<String>,
    now: At,
) -> Result<StartLink, KeepError> {
    let token = fresh().map_err(|e| KeepError(e.to_string()))?;
    let expires = At(now.0 + INVITED as i64);
    let invitation = Invitation { name, role, user, expires };
    keep.put(&format!("start/{}", digest(&token)), value(&invitation)?).await?;
    Ok(StartLink { path: format!("/start/{token}"), expires })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::{HeaderMap, HeaderValue, header};

    use super::{ABSOLUTE, Gate, IDLE, Prolong, SignInError, valid_name};
    use crate::at::At;
    use crate::gate::{Keep, Limits, MemoryKeep, Origins, Passwords};
    use crate::person::Role;
    use crate::server::Peer;

    const PASSWORD: &str = "correct horse battery";

    async fn gate() -> Gate {
        let params = argon2::Params::new(64, 1, 1, None).expect("small");
        let keep: Arc<dyn Keep> = Arc::new(MemoryKeep::default());
        let gate = Gate {
            keep,
            passwords: Passwords::new(params).expect("randomness"),
            origins: Origins::new(None),
            limits: Limits::default(),
            socket_admins: Vec::new(),
            behind_proxy: false,
        };
        let link = gate.invite(Some("anna".into()), Role::Read, None, At(0)).await.expect("kept");
        let token = link.path.trim_start_matches("/start/").to_owned();
        let invitation = gate.invitation(&token, At(0)).await.expect("kept").expect("fresh");
        gate.accept(&token, &invitation, "anna", PASSWORD.into(), At(0)).await.expect("accepted").expect("once");
        gate
    }

    async fn seen(gate: &Gate, id: &str, at: u64) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(&format!("x=1; connectord={id}")).expect("a cookie"));
        gate.who(&headers, &Peer::Unix(None), Prolong::Yes, At(at as i64)).await.expect("kept").is_some()
    }

    async fn sign_in(gate: &Gate) -> String {
        gate.sign_in("anna", PASSWORD.into(), "here", At(0)).await.expect("signed in")
    }

    #[tokio::test]
    async fn a_session_ends_after_half_an_hour_without_a_request() {
        let gate = gate().await;
        let id = sign_in(&gate).await;
        assert!(seen(&gate, &id, IDLE - 1).await);
        assert!(seen(&gate, &id, 2 * IDLE - 2).await, "a request prolongs it");
        assert!(!seen(&gate, &id, 3 * IDLE).await);
        assert!(!seen(&gate, &id, 2 * IDLE).await, "it is gone for good");
    }

    #[tokio::test]
    async fn a_session_ends_after_twelve_hours_whatever_is_asked() {
        let gate = gate().await;
        let id = sign_in(&gate).await;
        let mut at = 0;
        while at + IDLE / 2 < ABSOLUTE {
            at += IDLE / 2;
            assert!(seen(&gate, &id, at).await, "{at}");
        }
        assert!(!seen(&gate, &id, ABSOLUTE).await);
    }

    #[tokio::test]
    async fn guessing_from_one_address_keeps_nobody_elsewhere_out() {
        let gate = gate().await;
        for _ in 0..6 {
            let _ = gate.sign_in("anna", "wrong".into(), "there", At(0)).await;
        }
        assert!(matches!(gate.sign_in("anna", PASSWORD.into(), "there", At(0)).await, Err(SignInError::TooMany(_))));
        sign_in(&gate).await;
    }

    #[tokio::test]
    async fn guessing_from_many_addresses_is_slowed_too() {
        let gate = gate().await;
        let mut refused = 0;
        for n in 0..60 {
            let answer = gate.sign_in("anna", "wrong".into(), &n.to_string(), At(0)).await;
            refused += u32::from(matches!(answer, Err(SignInError::TooMany(_))));
        }
        assert!(refused >= 5, "only {refused}");
    }

    #[tokio::test]
    async fn sessions_that_ended_are_forgotten_and_streams_do_not_prolong_one() {
        let gate = gate().await;
        let id = sign_in(&gate).await;
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(&format!("connectord={id}")).expect("a cookie"));
        let who = gate.who(&headers, &Peer::Unix(None), Prolong::No, At(IDLE as i64 - 1)).await.expect("kept");
        assert!(who.is_some());
        assert!(!seen(&gate, &id, IDLE).await);
        sign_in(&gate).await;
        gate.sign_in("anna", PASSWORD.into(), "here", At(ABSOLUTE as i64)).await.expect("signed in");
        assert_eq!(gate.keep.list("session/", 100).await.expect("kept").len(), 1);
    }

    #[tokio::test]
    async fn an_invitation_ends_after_a_day() {
        let gate = gate().await;
        let link = gate.invite(Some("bob".into()), Role::Admin, None, At(0)).await.expect("kept");
        let token = link.path.trim_start_matches("/start/").to_owned();
        assert!(gate.invitation(&token, At(86_399)).await.expect("kept").is_some());
        assert!(gate.invitation(&token, At(86_400)).await.expect("kept").is_none());
    }

    #[test]
    fn names_are_plain() {
        assert!(valid_name("anna") && valid_name("a.b-c_d@e"));
        for name in ["", "a b", "a/b", "ä", "<b>", "a\n", &"a".repeat(65)] {
            assert!(!valid_name(name), "{name}");
        }
    }
}
