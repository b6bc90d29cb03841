use connectord_wire::{Escaped, Secret};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

use crate::choose::suits;
use crate::scram::{self, Scram};
use crate::{Credential, Error, Mechanism, Proof};

/// Longest challenge looked at, in octets; the longest known are OAuth refusals of some 500.
const MAX_CHALLENGE: usize = 16 * 1024;

/// What ties a SCRAM login to the TLS connection under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// There is none: no TLS, or no such value.
    #[default]
    None,
    /// `tls-exporter`: 32 octets of keying material (RFC 9266); TLS 1.3.
    Exporter(Vec<u8>),
    /// `tls-server-end-point`: the hash of the server's certificate (RFC 5929 §4).
    ServerEndPoint(Vec<u8>),
}

/// What an [`Exchange`] needs to know beside the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExchangeOptions {
    /// The server's name as configured; OAUTHBEARER sends it (RFC 7628 §3.1).
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// Whether the server offered a `-PLUS` mechanism; a SCRAM login without it then does not claim that the server has
    /// none (RFC 5802 §6). Default false.
    pub plus_offered: bool,
    /// Least SCRAM iteration count accepted; default 4,096 (RFC 5802 §5.1).
    pub min_iterations: u32,
    /// Largest SCRAM iteration count computed; default 600,000, some half a second of one core.
    pub max_iterations: u32,
}

impl ExchangeOptions {
    /// The defaults for this server.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, plus_offered: false, min_iterations: 4_096, max_iterations: 600_000 }
    }
}

/// One login by one mechanism: challenges in, responses out. Octets are raw here; the protocol adds its base64.
///
/// Names and passwords go out as the UTF-8 (or other octets) they are. RFC 4616 and RFC 5802 ask for SASLprep, which
/// changes nothing in ASCII. Outside ASCII a server such as Dovecot hashes what was set as it is (its
/// password-scheme-scram.c has the step as a FIXME, 2.3 of 2022), so that preparing here would turn right passwords wrong.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    /// The first response, while it was not sent.
    first: Option<Secret>,
    state: State,
    refusal: Option<String>,
}

/// What the next challenge is taken for.
#[derive(Debug)]
enum State {
    ExpectUsernamePrompt { username: Secret, password: Secret },
    ExpectPasswordPrompt { password: Secret },
    ExpectCramChallenge { username: String, password: Secret },
    ExpectOAuthRefusal,
    Scram(Box<Scram>),
    ExpectNothing,
}

impl Exchange {
    /// Prepares the exchange; `nonce` must be fresh random octets for each call.
    ///
    /// # Errors
    /// [`Error::Unsuitable`], [`Error::NoChannelBinding`] or [`Error::Unsendable`].
    pub fn start(
        mechanism: Mechanism,
        credential: &Credential,
        channel_binding: ChannelBinding,
        nonce: [u8; 24],
        options: &ExchangeOptions,
    ) -> Result<Self, Error> {
        if !suits(mechanism, credential) {
            return Err(Error::Unsuitable { mechanism });
        }
        let authorization_identity = credential.authorization_identity.as_deref();
        sendable(mechanism, "authorization identity", authorization_identity.unwrap_or_default().as_bytes())?;
        let (first, state) = match &credential.proof {
            Proof::Password { username, password } => {
                sendable(mechanism, "user name", username.as_bytes())?;
                sendable(mechanism, "password", password.expose())?;
                match mechanism {
                    Mechanism::Plain => (Some(plain(authorization_identity, username, password)), State::ExpectNothing),
                    Mechanism::Login => {
                        let username = Secret::from(username.as_str());
                        (None, State::ExpectUsernamePrompt { username, password: password.clone() })
                    }
                    Mechanism::CramMd5 => {
                        let (username, password) = (username.clone(), password.clone());
                        (None, State::ExpectCramChallenge { username, password })
                    }
                    _ => {
                        let nonce = scram::printable(nonce);
                        let scram = Scram::new(mechanism, credential, channel_binding, nonce, options)?;
                        (Some(scram.client_first()), State::Scram(Box::new(scram)))
                    }
                }
            }
            Proof::Token { username, access_token } => {
                sendable(mechanism, "user name", username.as_bytes())?;
                sendable(mechanism, "access token", access_token.expose())?;
                let user = authorization_identity.unwrap_or(username);
                let first = match mechanism {
                    Mechanism::OAuthBearer => oauthbearer(user, access_token, options),
                    _ => xoauth2(user, access_token),
                };
                (Some(first), State::ExpectOAuthRefusal)
            }
            // RFC 4422 appendix A.1: an empty response asks for the identity that the connection proves.
            Proof::External => (Some(Secret::from(authorization_identity.unwrap_or_default())), State::ExpectNothing),
        };
        Ok(Self { mechanism, first, state, refusal: None })
    }

    /// The mechanism of this exchange.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The response that may go out with the command, once; `None` when the server speaks first.
    ///
    /// Where the protocol cannot send it (IMAP without SASL-IR), do not call this: the first, empty challenge given to
    /// [`Exchange::respond`] yields it.
    pub fn initial_response(&mut self) -> Option<Secret> {
        self.first.take()
    }

    /// Answers a challenge, given without its base64. An empty response is sent as an empty line.
    ///
    /// For SCRAM this computes up to `max_iterations` rounds, some half a second: call it on a thread that may block
    /// ([`Mechanism::is_expensive`]).
    ///
    /// # Errors
    /// Any [`Error`]; the exchange must then be cancelled with `*` (RFC 9051 §6.2.2, RFC 5034 §4).
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Secret, Error> {
        let mechanism = self.mechanism;
        if challenge.len() > MAX_CHALLENGE {
            self.state = State::ExpectNothing;
            return Err(Error::ChallengeTooLong { mechanism, length: challenge.len(), limit: MAX_CHALLENGE });
        }
        // It should be empty; whatever stands there changes nothing.
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match std::mem::replace(&mut self.state, State::ExpectNothing) {
            // The prompts are "Username:" and "Password:" in every spelling; their order alone counts.
            State::ExpectUsernamePrompt { username, password } => {
                self.state = State::ExpectPasswordPrompt { password };
                Ok(username)
            }
            State::ExpectPasswordPrompt { password } => Ok(password),
            State::ExpectCramChallenge { .. } if challenge.is_empty() => {
                Err(unexpected(mechanism, "a challenge", challenge))
            }
            State::ExpectCramChallenge { username, password } => Ok(cram_md5(&username, &password, challenge)),
            // The refusal is told in JSON, and the protocol's own answer comes only after a response to it.
            State::ExpectOAuthRefusal => {
                self.refusal = Some(Escaped(challenge).to_string());
                // RFC 7628 §3.2.3: a lone %x01; Google's XOAUTH2: an empty line.
                Ok(Secret::from(if mechanism == Mechanism::OAuthBearer { "\x01" } else { "" }))
            }
            State::Scram(mut scram) => {
                let response = scram.respond(challenge)?;
                self.state = State::Scram(scram);
                Ok(response)
            }
            State::ExpectNothing => Err(unexpected(mechanism, "no further challenge", challenge)),
        }
    }

    /// What the server said about a refusal inside the exchange, escaped: OAuth's JSON. The refusal itself comes with
    /// the protocol's own answer to the response.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Whether the server has proved that it knows the password; always false for mechanisms that cannot show it.
    pub fn is_server_verified(&self) -> bool {
        matches!(&self.state, State::Scram(scram) if scram.is_server_verified())
    }

    /// To be asked when the protocol reports success.
    ///
    /// # Errors
    /// [`Error::ServerUnverified`] when a SCRAM server reports success without its signature.
    pub fn finish(&self) -> Result<(), Error> {
        if self.mechanism.is_expensive() && !self.is_server_verified() {
            return Err(Error::ServerUnverified { mechanism: self.mechanism });
        }
        Ok(())
    }
}

/// RFC 4616 §2.
fn plain(authorization_identity: Option<&str>, username: &str, password: &Secret) -> Secret {
    let parts = [authorization_identity.unwrap_or_default().as_bytes(), username.as_bytes(), password.expose()];
    Secret::new(parts.join(&0))
}

/// RFC 2195 §2: the name, a space, and HMAC-MD5 in hexadecimal digits.
fn cram_md5(username: &str, password: &Secret, challenge: &[u8]) -> Secret {
    let mut mac = Hmac::<Md5>::new_from_slice(password.expose()).expect("HMAC takes a key of any length");
    mac.update(challenge);
    let mut response = format!("{username} ");
    for octet in mac.finalize().into_bytes() {
        response.push_str(&format!("{octet:02x}"));
    }
    Secret::from(response)
}

/// Google's form: fields ended by %x01.
fn xoauth2(user: &str, access_token: &Secret) -> Secret {
    let parts = [b"user=", user.as_bytes(), b"\x01auth=Bearer ", access_token.expose(), b"\x01\x01"];
    Secret::new(parts.concat())
}

/// RFC 7628 §3.1.
fn oauthbearer(user: &str, access_token: &Secret, options: &ExchangeOptions) -> Secret {
    let head = format!("n,a={},\x01host={}\x01port={}\x01auth=Bearer ", scram::name(user), options.host, options.port);
    Secret::new([head.as_bytes(), access_token.expose(), b"\x01\x01"].concat())
}

/// Refuses octets that would end a field early.
fn sendable(mechanism: Mechanism, field: &'static str, octets: &[u8]) -> Result<(), Error> {
    let ends_fields = matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer);
    let found = octets.iter().find_map(|octet| match octet {
        0 => Some("a NUL"),
        1 if ends_fields => Some("a control character"),
        _ => None,
    });
    found.map_or(Ok(()), |found| Err(Error::Unsendable { mechanism, field, found }))
}

fn unexpected(mechanism: Mechanism, expected: &'static str, found: &[u8]) -> Error {
    Error::Challenge { mechanism, expected, found: Escaped(found).to_string() }
}
