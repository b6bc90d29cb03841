//! Whole logins: the RFCs' examples, an honest SCRAM server, and hostile ones.
#![allow(clippy::unwrap_used, reason = "a test may stop where its premise fails")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connectord_sasl::{ChannelBinding, Credential, Error, Exchange, ExchangeOptions, Mechanism};
use connectord_wire::{Blame, Secret};
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const NONCE: [u8; 24] = [0xA5; 24];

fn options() -> ExchangeOptions {
    ExchangeOptions::new("server.example.com", 143)
}

fn start(mechanism: Mechanism, credential: &Credential, binding: ChannelBinding) -> Exchange {
    Exchange::start(mechanism, credential, binding, NONCE, &options()).unwrap()
}

fn unbound(mechanism: Mechanism, credential: &Credential) -> Exchange {
    start(mechanism, credential, ChannelBinding::None)
}

#[test]
fn plain_sends_the_examples_of_rfc_4616_section_4() {
    let tim = Credential::password("tim", "tanstaaftanstaaf");
    let mut exchange = unbound(Mechanism::Plain, &tim);
    assert_eq!(exchange.initial_response(), Some(Secret::from("\0tim\0tanstaaftanstaaf")));
    assert_eq!(exchange.finish(), Ok(()));
    let kurt = Credential::password("Kurt", "xipj3plmq").on_behalf_of("Ursel");
    let mut exchange = unbound(Mechanism::Plain, &kurt);
    assert_eq!(exchange.initial_response(), Some(Secret::from("Ursel\0Kurt\0xipj3plmq")));
}

#[test]
fn an_initial_response_not_sent_with_the_command_answers_the_first_challenge() {
    let mut exchange = unbound(Mechanism::Plain, &Credential::password("tim", "x"));
    assert_eq!(exchange.respond(b""), Ok(Secret::from("\0tim\0x")));
    assert_eq!(exchange.initial_response(), None);
    let error = exchange.respond(b"again").unwrap_err();
    assert_eq!(error.to_string(), "PLAIN: expected no further challenge, the server sent \"again\"");
}

#[test]
fn login_answers_two_prompts_whatever_they_say() {
    let mut exchange = unbound(Mechanism::Login, &Credential::password("ann", "x y"));
    assert_eq!(exchange.initial_response(), None);
    assert_eq!(exchange.respond(b"User Name\0"), Ok(Secret::from("ann")));
    assert_eq!(exchange.respond(b"Password\0"), Ok(Secret::from("x y")));
    assert_eq!(exchange.respond(b"Password:").unwrap_err().blame(), Blame::Server);
}

#[test]
fn cram_md5_answers_the_example_of_rfc_2195_section_2() {
    let mut exchange = unbound(Mechanism::CramMd5, &Credential::password("tim", "tanstaaftanstaaf"));
    assert_eq!(exchange.initial_response(), None);
    assert_eq!(
        exchange.respond(b"<1896.697170952@postoffice.reston.mci.net>"),
        Ok(Secret::from("tim b913a602c7eda7a495b4e6e7334d3890"))
    );
}

#[test]
fn cram_md5_hashes_a_challenge_whole_even_with_nul_inside() {
    let ann = Credential::password("ann", "x");
    let first = unbound(Mechanism::CramMd5, &ann).respond(b"<a\0b>").unwrap();
    let second = unbound(Mechanism::CramMd5, &ann).respond(b"<a\0c>").unwrap();
    assert_ne!(first, second);
    assert!(matches!(unbound(Mechanism::CramMd5, &ann).respond(b""), Err(Error::Challenge { .. })));
}

#[test]
fn xoauth2_sends_the_example_of_googles_description() {
    let token = Credential::token("someuser@example.com", "vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg==");
    let mut exchange = unbound(Mechanism::XOAuth2, &token);
    let sent = STANDARD.encode(exchange.initial_response().unwrap().expose());
    assert_eq!(
        sent,
        "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB2RjlkZnQ0cW1UYzJOdmIzUmxja0JoZEhSaGRtbHpkR0V1WTI5dENnPT0BAQ=="
    );
    // The refusal in JSON wants an empty line before the server says NO.
    let json = br#"{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}"#;
    assert_eq!(exchange.respond(json), Ok(Secret::default()));
    assert_eq!(exchange.refusal(), Some(std::str::from_utf8(json).unwrap()));
    assert!(exchange.respond(b"more").is_err());
}

#[test]
fn oauthbearer_sends_the_examples_of_rfc_7628_section_4() {
    let token = Credential::token("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
    let mut exchange = unbound(Mechanism::OAuthBearer, &token);
    let sent = STANDARD.encode(exchange.initial_response().unwrap().expose());
    assert_eq!(
        sent,
        "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNS\
         bGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    );
    let json = br#"{"status":"invalid_token","scope":"example_scope"}"#;
    assert_eq!(exchange.respond(json), Ok(Secret::from("\x01")));
    assert_eq!(exchange.refusal(), Some(std::str::from_utf8(json).unwrap()));
}

#[test]
fn xoauth2_names_the_shared_mailbox_as_its_user() {
    let token = Credential::token("ann@example.org", "t").on_behalf_of("info@example.org");
    let mut exchange = unbound(Mechanism::XOAuth2, &token);
    assert_eq!(exchange.initial_response(), Some(Secret::from("user=info@example.org\x01auth=Bearer t\x01\x01")));
}

#[test]
fn external_sends_the_identity_or_nothing() {
    let mut exchange = unbound(Mechanism::External, &Credential::external());
    assert_eq!(exchange.initial_response(), Some(Secret::default()));
    let mut exchange = unbound(Mechanism::External, &Credential::external().on_behalf_of("info"));
    assert_eq!(exchange.initial_response(), Some(Secret::from("info")));
}

#[test]
fn what_a_field_cannot_carry_is_refused_before_anything_is_sent() {
    for (mechanism, credential, field) in [
        (Mechanism::Plain, Credential::password("a\0b", "x"), "user name"),
        (Mechanism::Plain, Credential::password("ann", "x\0y"), "password"),
        (Mechanism::ScramSha256, Credential::password("ann", "x").on_behalf_of("i\0"), "authorization identity"),
        (Mechanism::XOAuth2, Credential::token("ann\x01auth=Bearer forged", "t"), "user name"),
        (Mechanism::OAuthBearer, Credential::token("ann", "t\x01"), "access token"),
    ] {
        let error = Exchange::start(mechanism, &credential, ChannelBinding::None, NONCE, &options()).unwrap_err();
        assert!(matches!(error, Error::Unsendable { field: found, .. } if found == field), "{error}");
        assert_eq!(error.blame(), Blame::Credentials);
    }
}

#[test]
fn a_credential_that_does_not_suit_is_the_callers_mistake() {
    let ann = Credential::password("ann", "x");
    let start = |mechanism| Exchange::start(mechanism, &ann, ChannelBinding::None, NONCE, &options()).unwrap_err();
    assert_eq!(start(Mechanism::XOAuth2), Error::Unsuitable { mechanism: Mechanism::XOAuth2 });
    let plus = Mechanism::ScramSha256Plus;
    assert_eq!(start(plus), Error::NoChannelBinding { mechanism: plus });
    assert_eq!(start(plus).blame(), Blame::Caller);
}

/// The server's side of SCRAM-SHA-256, enough to check a client.
struct Server {
    password: Vec<u8>,
    salt: Vec<u8>,
    iterations: u32,
    binding: Vec<u8>,
    first_bare: String,
    gs2_header: String,
    server_first: String,
}

impl Server {
    fn new(password: &[u8], salt: &[u8], iterations: u32, binding: &[u8]) -> Self {
        Self {
            password: password.to_vec(),
            salt: salt.to_vec(),
            iterations,
            binding: binding.to_vec(),
            first_bare: String::new(),
            gs2_header: String::new(),
            server_first: String::new(),
        }
    }

    fn first(&mut self, client_first: &Secret) -> String {
        let text = std::str::from_utf8(client_first.expose()).unwrap();
        let bare = text.match_indices(',').nth(1).unwrap().0 + 1;
        self.gs2_header = text[..bare].to_owned();
        self.first_bare = text[bare..].to_owned();
        let nonce = self.first_bare.split(",r=").nth(1).unwrap();
        self.server_first = format!("r={nonce}server,s={},i={}", STANDARD.encode(&self.salt), self.iterations);
        self.server_first.clone()
    }

    /// The server's last message when the client's proof is right.
    fn last(&self, client_final: &Secret) -> Result<String, String> {
        let text = std::str::from_utf8(client_final.expose()).unwrap();
        let (without_proof, proof) = text.rsplit_once(",p=").unwrap();
        let bound = [self.gs2_header.as_bytes(), &self.binding].concat();
        let nonce = &self.server_first[2..self.server_first.find(",s=").unwrap()];
        if without_proof != format!("c={},r={nonce}", STANDARD.encode(bound)) {
            return Err("e=channel-bindings-dont-match".to_owned());
        }
        let mac = |key: &[u8], octets: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            mac.update(octets);
            mac.finalize().into_bytes().to_vec()
        };
        let auth_message = format!("{},{},{without_proof}", self.first_bare, self.server_first);
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(&self.password, &self.salt, self.iterations);
        let stored_key = Sha256::digest(mac(&salted, b"Client Key"));
        let client_key: Vec<u8> = mac(&stored_key, auth_message.as_bytes())
            .iter()
            .zip(STANDARD.decode(proof).unwrap())
            .map(|(signature, proof)| signature ^ proof)
            .collect();
        if Sha256::digest(client_key) != stored_key {
            return Err("e=invalid-proof".to_owned());
        }
        Ok(format!("v={}", STANDARD.encode(mac(&mac(&salted, b"Server Key"), auth_message.as_bytes()))))
    }
}

#[test]
fn scram_plus_binds_the_connection_and_a_man_in_the_middle_is_noticed() {
    let ann = Credential::password("ann", "x");
    for (binding, octets, header) in [
        (ChannelBinding::Exporter(vec![7; 32]), [7; 32], "p=tls-exporter,,"),
        (ChannelBinding::ServerEndPoint(vec![8; 32]), [8; 32], "p=tls-server-end-point,,"),
    ] {
        let mut exchange = start(Mechanism::ScramSha256Plus, &ann, binding.clone());
        let mut server = Server::new(b"x", b"salt", 4096, &octets);
        let first = server.first(&exchange.initial_response().unwrap());
        assert_eq!(server.gs2_header, header);
        let last = server.last(&exchange.respond(first.as_bytes()).unwrap()).unwrap();
        assert_eq!(exchange.respond(last.as_bytes()), Ok(Secret::default()));
        assert_eq!(exchange.finish(), Ok(()));

        let mut exchange = start(Mechanism::ScramSha256Plus, &ann, binding);
        let mut server = Server::new(b"x", b"salt", 4096, &[0; 32]);
        let first = server.first(&exchange.initial_response().unwrap());
        let refusal = server.last(&exchange.respond(first.as_bytes()).unwrap()).unwrap_err();
        let refused = exchange.respond(refusal.as_bytes()).unwrap_err();
        assert_eq!(refused.to_string(), "SCRAM-SHA-256-PLUS: login refused: \"channel-bindings-dont-match\"");
        assert_eq!(refused.blame(), Blame::Credentials);
    }
}

#[test]
fn the_gs2_flag_says_whether_the_offer_of_binding_was_seen() {
    let ann = Credential::password("a=n,n", "x").on_behalf_of("in,fo");
    let binding = ChannelBinding::Exporter(vec![7; 32]);
    let first = |binding: ChannelBinding, plus_offered: bool| {
        let mut options = options();
        options.plus_offered = plus_offered;
        let mut exchange = Exchange::start(Mechanism::ScramSha1, &ann, binding, NONCE, &options).unwrap();
        String::from_utf8(exchange.initial_response().unwrap().expose().to_vec()).unwrap()
    };
    let rest = format!(",a=in=2Cfo,n=a=3Dn=2Cn,r={}", STANDARD.encode(NONCE));
    assert_eq!(first(ChannelBinding::None, false), format!("n{rest}"));
    assert_eq!(first(binding.clone(), false), format!("y{rest}"));
    assert_eq!(first(binding, true), format!("n{rest}"));
}

/// A SCRAM login in which the server's first message is `server_first`, where `%r` stands for our nonce.
fn against(server_first: &str) -> (Exchange, Result<Secret, Error>) {
    let mut exchange = unbound(Mechanism::ScramSha256, &Credential::password("ann", "x"));
    exchange.initial_response().unwrap();
    let response = exchange.respond(server_first.replace("%r", &STANDARD.encode(NONCE)).as_bytes());
    (exchange, response)
}

#[test]
fn hostile_first_messages_are_refused() {
    let mechanism = Mechanism::ScramSha256;
    let bounds = |found| Err(Error::Iterations { mechanism, found, min: 4_096, max: 600_000 });
    assert_eq!(against("r=%rx,s=AAAA,i=4095").1, bounds(4_095));
    assert_eq!(against("r=%rx,s=AAAA,i=600001").1, bounds(600_001));
    assert_eq!(against("r=%rx,s=AAAA,i=4294967295").1, bounds(4_294_967_295));
    assert_eq!(against("r=%rx,s=AAAA,i=99999999999999999999999").1, bounds(u64::MAX));
    assert_eq!(against("r=%r,s=AAAA,i=4096").1, Err(Error::NonceReplaced { mechanism }));
    assert_eq!(against("r=other,s=AAAA,i=4096").1, Err(Error::NonceReplaced { mechanism }));
    for malformed in ["", "m=must,r=%rx,s=AAAA,i=4096", "r=%rx,i=4096,s=AAAA", "r=%rx,s=,i=4096", "v=AAAA", "\0\u{7f}"]
    {
        let (mut exchange, response) = against(malformed);
        assert!(matches!(response, Err(Error::Challenge { .. })), "{malformed}: {response:?}");
        assert!(exchange.respond(b"r=x").is_err(), "a response after an error");
        assert_eq!(exchange.finish(), Err(Error::ServerUnverified { mechanism }));
    }
    assert_eq!(against("e=unknown-user").1, Err(Error::Refused { mechanism, text: "unknown-user".into() }));
    let long = "x".repeat(16_385);
    assert_eq!(against(&long).1, Err(Error::ChallengeTooLong { mechanism, length: 16_385, limit: 16_384 }));
}

#[test]
fn success_without_the_servers_signature_is_an_error() {
    let mechanism = Mechanism::ScramSha256;
    let (mut exchange, response) = against("r=%rx,s=AAAA,i=4096");
    assert!(response.is_ok());
    assert_eq!(exchange.finish(), Err(Error::ServerUnverified { mechanism }));
    assert_eq!(exchange.respond(b"v=AAAA"), Err(Error::ServerSignature { mechanism }));
    assert_eq!(exchange.finish(), Err(Error::ServerUnverified { mechanism }));
    let untouched = unbound(mechanism, &Credential::password("ann", "x"));
    assert_eq!(untouched.finish(), Err(Error::ServerUnverified { mechanism }));
}

#[test]
fn a_peers_text_is_inert_in_errors() {
    let (_, response) = against("e=\u{1b}[2J\r\nnext");
    assert_eq!(response.unwrap_err().to_string(), "SCRAM-SHA-256: login refused: \"\\x1b[2J\\r\\nnext\"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_name_and_password_logs_in_at_an_honest_server(
        username in "[^\0]{1,20}", password in "[^\0]{0,30}", salt in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let credential = Credential::password(username, password.as_str());
        let mut exchange = unbound(Mechanism::ScramSha256, &credential);
        let mut server = Server::new(password.as_bytes(), &salt, 4096, &[]);
        let first = server.first(&exchange.initial_response().unwrap());
        let last = server.last(&exchange.respond(first.as_bytes()).unwrap());
        prop_assert!(last.is_ok());
        prop_assert_eq!(exchange.respond(last.unwrap().as_bytes()), Ok(Secret::default()));
        prop_assert_eq!(exchange.finish(), Ok(()));
    }

    #[test]
    fn no_challenge_breaks_what_the_fuzz_target_checks(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        connectord_sasl::fuzzing::challenge(&data);
    }
}
