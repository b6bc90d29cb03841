//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use crate::{ChannelBinding, Credential, Error, Exchange, ExchangeOptions, Mechanism, Proof};

/// Whatever a server sends, a mechanism that hides the password never shows it, a SCRAM login never succeeds without the
/// server's signature, responses stay small, and after an error there is no further response.
///
/// Nothing proves to know two passwords at once: a server that is believed with one is not believed with another.
///
/// The first octet picks the mechanism and whether the initial response is taken; lines of the rest are challenges. `%r`
/// in a challenge stands for our nonce, so that a corpus can continue it.
pub fn challenge(data: &[u8]) {
    let Some((&pick, rest)) = data.split_first() else { return };
    let mechanism = Mechanism::ALL[usize::from(pick & 0x7f) % Mechanism::ALL.len()];
    let credential = match mechanism {
        Mechanism::External => Credential::external(),
        Mechanism::XOAuth2 | Mechanism::OAuthBearer => Credential::token("ann", "correct-horse"),
        _ => Credential::password("ann", "correct-horse"),
    };
    let mut options = ExchangeOptions::new("imap.example.org", 993);
    (options.min_iterations, options.max_iterations) = (1, 16);
    let binding = ChannelBinding::Exporter(vec![1; 32]);
    let Ok(mut exchange) = Exchange::start(mechanism, &credential, binding, [b'n'; 24], &options) else {
        unreachable!("the credential suits the mechanism")
    };
    let other = Credential::password("ann", "another-horse");
    let mut impostor = mechanism.is_expensive().then(|| {
        let binding = ChannelBinding::Exporter(vec![1; 32]);
        Exchange::start(mechanism, &other, binding, [b'n'; 24], &options).expect("it started with a password")
    });
    let shows = |octets: &[u8]| octets.windows(13).any(|window| window == b"correct-horse");
    if pick & 0x80 != 0 {
        let first = exchange.initial_response();
        let _ = impostor.as_mut().and_then(Exchange::initial_response);
        assert_eq!(first.is_some(), mechanism.speaks_first());
        assert!(!first.is_some_and(|first| shows(first.expose()) && !mechanism.reveals_secret()));
    }
    let nonce = crate::scram::printable([b'n'; 24]);
    let mut failed = false;
    for line in rest.split(|octet| *octet == b'\n') {
        let line = match line.strip_prefix(b"r=%r") {
            Some(tail) => [b"r=", nonce.as_bytes(), tail].concat(),
            None => line.to_vec(),
        };
        if let Some(impostor) = &mut impostor {
            let _ = impostor.respond(&line);
        }
        match exchange.respond(&line) {
            Ok(response) => {
                assert!(!failed, "a response after an error");
                assert!(response.expose().len() <= 2 * line.len() + 512);
                assert!(mechanism.reveals_secret() || !shows(response.expose()));
            }
            Err(Error::Unsuitable { .. } | Error::NoChannelBinding { .. }) => unreachable!("started already"),
            Err(_) => failed = true,
        }
    }
    assert!(!(exchange.is_server_verified() && impostor.is_some_and(|impostor| impostor.is_server_verified())));
    let scram = mechanism.is_expensive();
    assert!(matches!(credential.proof, Proof::Password { .. }) || !exchange.is_server_verified());
    assert_eq!(exchange.finish().is_ok(), !scram || exchange.is_server_verified());
    assert!(!(failed && exchange.is_server_verified()));
}
