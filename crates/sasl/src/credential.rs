use async_trait::async_trait;
use connectord_wire::Secret;
use sha2::Sha256;

/// Who logs in, and with what.
///
/// ```
/// use connectord_sasl::Credential;
/// let shared = Credential::password("ann@example.org", "secret").on_behalf_of("info@example.org");
/// assert_eq!(shared.username(), Some("ann@example.org"));
/// assert_eq!(shared.authorization_identity.as_deref(), Some("info@example.org"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What proves who we are.
    pub proof: Proof,
    /// Whose mailbox to open when it is not the user's own, such as a shared one (RFC 4422 §3.4.1); mechanisms that
    /// cannot carry it (`LOGIN`, `CRAM-MD5`) are then not chosen.
    pub authorization_identity: Option<String>,
}

/// What proves who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// A user name and a password.
    Password {
        /// The name, UTF-8.
        username: String,
        /// The password, any octets but NUL.
        password: Secret,
    },
    /// A user name and an OAuth2 access token.
    Token {
        /// The name, UTF-8, usually the address.
        username: String,
        /// The access token as the authorization server gave it.
        access_token: Secret,
    },
    /// Nothing but the connection: a client certificate or a Unix socket's peer.
    External,
}

impl Credential {
    /// A user name and a password.
    pub fn password(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        let proof = Proof::Password { username: username.into(), password: password.into() };
        Self { proof, authorization_identity: None }
    }

    /// A user name and an OAuth2 access token.
    pub fn token(username: impl Into<String>, access_token: impl Into<Secret>) -> Self {
        let proof = Proof::Token { username: username.into(), access_token: access_token.into() };
        Self { proof, authorization_identity: None }
    }

    /// The connection's own identity.
    pub fn external() -> Self {
        Self { proof: Proof::External, authorization_identity: None }
    }

    /// Opens somebody else's mailbox with this proof.
    #[must_use]
    pub fn on_behalf_of(mut self, authorization_identity: impl Into<String>) -> Self {
        self.authorization_identity = Some(authorization_identity.into());
        self
    }

    /// The user name; `None` for [`Proof::External`].
    pub fn username(&self) -> Option<&str> {
        match &self.proof {
            Proof::Password { username, .. } | Proof::Token { username, .. } => Some(username),
            Proof::External => None,
        }
    }

    /// User name and password, for `USER`/`PASS` and IMAP's `LOGIN` command; `None` when there is no password.
    pub fn as_password(&self) -> Option<(&str, &Secret)> {
        match &self.proof {
            Proof::Password { username, password } => Some((username, password)),
            Proof::Token { .. } | Proof::External => None,
        }
    }
}

/// Where a session gets its credential from, asked anew at each login: a password file, a command, a token store.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The credential to use now.
    ///
    /// `refused` is the server's text when the last login with this source was refused: a token source then asks for a
    /// new token instead of handing out the one in its cache.
    ///
    /// # Errors
    /// [`CredentialError`] when there is none at present.
    async fn credential(&self, refused: Option<&str>) -> Result<Credential, CredentialError>;

    /// A value that differs when the credential, or the file or command it comes from, has changed; `None` when that
    /// cannot be told.
    ///
    /// An engine that holds logins after a refusal tries again when this changes. It may be stored: it must not help
    /// anyone to find the secret.
    async fn version(&self) -> Option<[u8; 32]>;
}

/// Why a [`Credentials`] source has nothing to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// It cannot be had.
    #[error("no credential: {text}")]
    Unavailable {
        /// What happened: which file, command or token server, and what it said; holds no secret.
        text: String,
        /// Whether trying again later can help without a person doing something.
        temporary: bool,
    },
}

/// One credential that never changes, as written in a configuration.
#[derive(Clone, Debug)]
pub struct StaticCredentials(Credential);

impl StaticCredentials {
    /// Hands out `credential` at every login.
    pub fn new(credential: Credential) -> Self {
        Self(credential)
    }
}

#[async_trait]
impl Credentials for StaticCredentials {
    async fn credential(&self, _refused: Option<&str>) -> Result<Credential, CredentialError> {
        Ok(self.0.clone())
    }

    async fn version(&self) -> Option<[u8; 32]> {
        Some(version(&self.0))
    }
}

/// Differs, but for one change in 65,536, when the credential does.
///
/// It is slow and keeps 16 bits only, because it may end in a database: who reads it there can rule passwords out but
/// not confirm one. A change missed costs one check by hand.
fn version(credential: &Credential) -> [u8; 32] {
    let (kind, name, secret) = match &credential.proof {
        Proof::Password { username, password } => (b'p', username.as_bytes(), password.expose()),
        Proof::Token { username, access_token } => (b't', username.as_bytes(), access_token.expose()),
        Proof::External => (b'e', &b""[..], &b""[..]),
    };
    let mut salt = vec![kind];
    for part in [name, credential.authorization_identity.as_deref().unwrap_or_default().as_bytes()] {
        salt.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        salt.extend_from_slice(part);
    }
    let mut short = [0; 2];
    pbkdf2::pbkdf2_hmac::<Sha256>(secret, &salt, 4096, &mut short);
    let mut version = [0; 32];
    version[..2].copy_from_slice(&short);
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_changes_with_password_name_and_kind_and_not_otherwise() {
        let one = version(&Credential::password("ann", "secret"));
        assert_eq!(one, version(&Credential::password("ann", "secret")));
        assert_ne!(one, version(&Credential::password("ann", "secret2")));
        assert_ne!(one, version(&Credential::password("bob", "secret")));
        assert_ne!(one, version(&Credential::token("ann", "secret")));
        assert_ne!(one, version(&Credential::password("ann", "secret").on_behalf_of("info")));
    }

    #[test]
    fn a_credential_shows_no_secret() {
        let shown = format!("{:?} {:?}", Credential::password("ann", "hunter2"), Credential::token("ann", "ya29"));
        assert!(!shown.contains("hunter2") && !shown.contains("ya29"), "{shown}");
    }
}
