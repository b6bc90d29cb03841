//! SASL mechanisms of mail clients as challenge to response (RFC 4422), without I/O, clock or randomness.
//!
//! This crate frames nothing and encodes no base64: a protocol session hands in challenges as octets and sends the
//! responses its own way. It draws no nonce: the caller passes random octets. It stores no password and asks nobody:
//! [`Credentials`] is the trait by which a session obtains one at each login.
//!
//! | mechanism | proves with | source |
//! |---|---|---|
//! | `SCRAM-SHA-256-PLUS`, `SCRAM-SHA-1-PLUS` | password, bound to the TLS connection | RFC 5802, 7677, 9266, 5929 |
//! | `SCRAM-SHA-256`, `SCRAM-SHA-1` | password, never sent | RFC 5802, 7677 |
//! | `PLAIN`, `LOGIN` | password, sent | RFC 4616, draft-murchison-sasl-login |
//! | `CRAM-MD5` | password, never sent, open to guessing | RFC 2195 |
//! | `OAUTHBEARER`, `XOAUTH2` | access token, sent | RFC 7628, Google's description |
//! | `EXTERNAL` | a client certificate or a socket's peer | RFC 4422 appendix A |
//!
//! APOP, NTLM, DIGEST-MD5 and GSSAPI are left out on purpose: broken, or not a mail retriever's business.
//!
//! # One login
//!
//! 1. [`choose`] says which mechanisms may be tried, strongest first.
//! 2. [`Exchange::start`] begins one; [`Exchange::initial_response`] goes out with the command if the protocol can do so.
//! 3. Each challenge goes through [`Exchange::respond`].
//! 4. When the server says that the login succeeded, [`Exchange::finish`] must agree: a SCRAM server that never proved
//!    that it knows the password is an error.
//!
//! ```
//! use connectord_sasl::{ChannelBinding, Credential, Exchange, ExchangeOptions, Mechanism, Policy, Protection, choose};
//!
//! let credential = Credential::password("tim", "tanstaaftanstaaf");
//! let policy = Policy::new(Protection::Tls);
//! let mechanisms = choose(&["PLAIN", "NTLM"], &credential, &policy, &ChannelBinding::None);
//! assert_eq!(mechanisms, [Mechanism::Plain]);
//!
//! let options = ExchangeOptions::new("imap.example.org", 993);
//! let mut exchange = Exchange::start(mechanisms[0], &credential, ChannelBinding::None, [7; 24], &options)?;
//! let response = exchange.initial_response().expect("PLAIN speaks first");
//! assert_eq!(response.expose(), b"\0tim\0tanstaaftanstaaf");
//! exchange.finish()?;
//! # Ok::<(), connectord_sasl::Error>(())
//! ```

mod choose;
mod credential;
mod error;
mod exchange;
#[doc(hidden)]
pub mod fuzzing;
mod mechanism;
mod scram;

pub use choose::{Policy, Protection, choose};
pub use credential::{Credential, CredentialError, Credentials, Proof, StaticCredentials};
pub use error::Error;
pub use exchange::{ChannelBinding, Exchange, ExchangeOptions};
pub use mechanism::Mechanism;
