//! SCRAM (RFC 5802, RFC 7677), the client's side.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connectord_wire::{Escaped, Secret};
use hmac::{Hmac, KeyInit, Mac};
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::combinator::{map_res, rest, verify};
use nom::sequence::preceded;
use nom::{IResult, Parser};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{ChannelBinding, Credential, Error, ExchangeOptions, Mechanism, Proof};

/// One SCRAM login.
#[derive(Debug)]
pub(crate) struct Scram {
    mechanism: Mechanism,
    password: Secret,
    nonce: String,
    gs2_header: String,
    channel_binding: Vec<u8>,
    client_first_bare: String,
    iterations: std::ops::RangeInclusive<u32>,
    state: State,
}

#[derive(Debug)]
enum State {
    ExpectServerFirst,
    ExpectServerFinal { signature: Secret },
    Verified,
    Failed,
}

/// What the server says first: `r=…,s=…,i=…` (RFC 5802 §7).
#[derive(Debug, PartialEq, Eq)]
struct ServerFirst<'a> {
    nonce: &'a [u8],
    salt: Vec<u8>,
    iterations: u64,
}

/// What the server says last: `v=…` or `e=…`.
#[derive(Debug, PartialEq, Eq)]
enum ServerFinal<'a> {
    Signature(Vec<u8>),
    Error(&'a [u8]),
}

impl Scram {
    /// `nonce` is printable and without a comma.
    pub(crate) fn new(
        mechanism: Mechanism,
        credential: &Credential,
        channel_binding: ChannelBinding,
        nonce: String,
        options: &ExchangeOptions,
    ) -> Result<Self, Error> {
        let Proof::Password { username, password } = &credential.proof else {
            return Err(Error::Unsuitable { mechanism });
        };
        // RFC 5802 §6: `y` says that we could bind but that the server offered no way to, so that a server which did
        // offer one notices that somebody took the offer out.
        let (flag, channel_binding) = match (mechanism.binds_channel(), channel_binding) {
            (true, ChannelBinding::Exporter(octets)) => ("p=tls-exporter", octets),
            (true, ChannelBinding::ServerEndPoint(octets)) => ("p=tls-server-end-point", octets),
            (true, ChannelBinding::None) => return Err(Error::NoChannelBinding { mechanism }),
            (false, ChannelBinding::None) => ("n", Vec::new()),
            (false, _) => (if options.plus_offered { "n" } else { "y" }, Vec::new()),
        };
        let identity = credential.authorization_identity.as_deref().map(|identity| format!("a={}", name(identity)));
        Ok(Self {
            mechanism,
            password: password.clone(),
            gs2_header: format!("{flag},{},", identity.unwrap_or_default()),
            channel_binding,
            client_first_bare: format!("n={},r={nonce}", name(username)),
            nonce,
            iterations: options.min_iterations..=options.max_iterations,
            state: State::ExpectServerFirst,
        })
    }

    pub(crate) fn client_first(&self) -> Secret {
        Secret::from(format!("{}{}", self.gs2_header, self.client_first_bare))
    }

    pub(crate) fn respond(&mut self, challenge: &[u8]) -> Result<Secret, Error> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::ExpectServerFirst => self.server_first(challenge),
            State::ExpectServerFinal { signature } => self.server_final(challenge, &signature),
            State::Verified | State::Failed => Err(self.unexpected("no further challenge", challenge)),
        }
    }

    pub(crate) fn is_server_verified(&self) -> bool {
        matches!(self.state, State::Verified)
    }

    fn server_first(&mut self, challenge: &[u8]) -> Result<Secret, Error> {
        let mechanism = self.mechanism;
        if let Ok((_, ServerFinal::Error(text))) = server_final(challenge) {
            return Err(Error::Refused { mechanism, text: Escaped(text).to_string() });
        }
        let (_, first) = server_first(challenge)
            .map_err(|_| self.unexpected("r=nonce,s=salt,i=iterations without an extension", challenge))?;
        if !first.nonce.starts_with(self.nonce.as_bytes()) || first.nonce.len() == self.nonce.len() {
            return Err(Error::NonceReplaced { mechanism });
        }
        let (min, max) = (*self.iterations.start(), *self.iterations.end());
        let iterations = u32::try_from(first.iterations)
            .ok()
            .filter(|iterations| self.iterations.contains(iterations))
            .ok_or(Error::Iterations { mechanism, found: first.iterations, min, max })?;

        let mut bound = self.gs2_header.as_bytes().to_vec();
        bound.extend_from_slice(&self.channel_binding);
        let without_proof = [b"c=", STANDARD.encode(bound).as_bytes(), b",r=", first.nonce].concat();
        // RFC 5802 §3.
        let auth_message = [self.client_first_bare.as_bytes(), challenge, &without_proof].join(&b',');
        let salted_password = self.salt(&first.salt, iterations);
        let client_key = self.hmac(&salted_password, b"Client Key");
        let mut proof = self.hmac(&Secret::new(self.hash(client_key.expose())), &auth_message).expose().to_vec();
        for (octet, key) in proof.iter_mut().zip(client_key.expose()) {
            *octet ^= key;
        }
        let signature = self.hmac(&self.hmac(&salted_password, b"Server Key"), &auth_message);
        self.state = State::ExpectServerFinal { signature };
        Ok(Secret::new([&without_proof, &b",p="[..], STANDARD.encode(&proof).as_bytes()].concat()))
    }

    fn server_final(&mut self, challenge: &[u8], signature: &Secret) -> Result<Secret, Error> {
        let mechanism = self.mechanism;
        match server_final(challenge) {
            Ok((_, ServerFinal::Signature(found))) if bool::from(found.ct_eq(signature.expose())) => {
                self.state = State::Verified;
                Ok(Secret::default())
            }
            Ok((_, ServerFinal::Signature(_))) => Err(Error::ServerSignature { mechanism }),
            Ok((_, ServerFinal::Error(text))) => Err(Error::Refused { mechanism, text: Escaped(text).to_string() }),
            Err(_) => Err(self.unexpected("v=signature", challenge)),
        }
    }

    fn is_sha256(&self) -> bool {
        matches!(self.mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus)
    }

    fn salt(&self, salt: &[u8], iterations: u32) -> Secret {
        let password = self.password.expose();
        if self.is_sha256() {
            Secret::new(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec())
        } else {
            Secret::new(pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(password, salt, iterations).to_vec())
        }
    }

    fn hash(&self, octets: &[u8]) -> Vec<u8> {
        if self.is_sha256() { Sha256::digest(octets).to_vec() } else { Sha1::digest(octets).to_vec() }
    }

    fn hmac(&self, key: &Secret, octets: &[u8]) -> Secret {
        fn mac<M: Mac + KeyInit>(key: &[u8], octets: &[u8]) -> Secret {
            let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
            mac.update(octets);
            Secret::new(mac.finalize().into_bytes().to_vec())
        }
        if self.is_sha256() {
            mac::<Hmac<Sha256>>(key.expose(), octets)
        } else {
            mac::<Hmac<Sha1>>(key.expose(), octets)
        }
    }

    fn unexpected(&self, expected: &'static str, found: &[u8]) -> Error {
        Error::Challenge { mechanism: self.mechanism, expected, found: Escaped(found).to_string() }
    }
}

/// 32 printable characters without a comma.
pub(crate) fn printable(nonce: [u8; 24]) -> String {
    STANDARD.encode(nonce)
}

/// A name as SCRAM and GS2 write it (RFC 5802 §5.1 `saslname`).
pub(crate) fn name(text: &str) -> String {
    text.replace('=', "=3D").replace(',', "=2C")
}

/// An extension before the nonce (`m=`) is mandatory and unknown, so it fails here; those at the end may be passed over.
fn server_first(input: &[u8]) -> IResult<&[u8], ServerFirst<'_>> {
    let printable = |octet: u8| matches!(octet, 0x21..=0x2b | 0x2d..=0x7e);
    let nonce = preceded(tag("r="), take_while1(printable));
    let salt = preceded(tag(",s="), verify(base64_value, |salt: &Vec<u8>| !salt.is_empty()));
    // A number that passes 64 bits is out of bounds, not malformed.
    let iterations = preceded(tag(",i="), take_while1(|octet: u8| octet.is_ascii_digit()))
        .map(|digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX));
    let (input, (nonce, salt, iterations, extensions)) = (nonce, salt, iterations, rest).parse(input)?;
    if !(extensions.is_empty() || extensions.starts_with(b",")) {
        return Err(nom::Err::Error(nom::error::Error::new(extensions, nom::error::ErrorKind::Verify)));
    }
    Ok((input, ServerFirst { nonce, salt, iterations }))
}

fn server_final(input: &[u8]) -> IResult<&[u8], ServerFinal<'_>> {
    let (input, kind) = nom::branch::alt((tag(&b"v="[..]), tag(&b"e="[..]))).parse(input)?;
    if kind == b"e=" {
        let (input, text) = take_while(|octet: u8| octet != b',').parse(input)?;
        return Ok((input, ServerFinal::Error(text)));
    }
    let (input, signature) = base64_value(input)?;
    if !(input.is_empty() || input.starts_with(b",")) {
        return Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Verify)));
    }
    Ok((input, ServerFinal::Signature(signature)))
}

fn base64_value(input: &[u8]) -> IResult<&[u8], Vec<u8>> {
    map_res(take_while(|octet: u8| octet != b','), |text: &[u8]| STANDARD.decode(text)).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc(mechanism: Mechanism, nonce: &str) -> Scram {
        let credential = Credential::password("user", "pencil");
        let options = ExchangeOptions::new("", 0);
        Scram::new(mechanism, &credential, ChannelBinding::None, nonce.into(), &options).unwrap()
    }

    #[test]
    fn the_example_of_rfc_5802_section_5_comes_out() {
        let mut scram = rfc(Mechanism::ScramSha1, "fyko+d2lbbFgONRv9qkxdawL");
        assert_eq!(scram.client_first().expose(), b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        let response =
            scram.respond(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096").unwrap();
        assert_eq!(
            response,
            Secret::from("c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=")
        );
        assert!(!scram.is_server_verified());
        assert_eq!(scram.respond(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), Ok(Secret::default()));
        assert!(scram.is_server_verified());
    }

    #[test]
    fn the_example_of_rfc_7677_section_3_comes_out() {
        let mut scram = rfc(Mechanism::ScramSha256, "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(scram.client_first().expose(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let response = scram
            .respond(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
            .unwrap();
        assert_eq!(
            response,
            Secret::from(
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                 p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
            )
        );
        assert_eq!(scram.respond(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(Secret::default()));
        assert!(scram.is_server_verified());
    }

    #[test]
    fn what_stands_in_the_first_message_is_read_whole_or_refused() {
        let whole = ServerFirst { nonce: b"ab", salt: vec![0, 0, 0], iterations: 4096 };
        assert_eq!(server_first(b"r=ab,s=AAAA,i=4096").unwrap().1, whole);
        assert_eq!(server_first(b"r=ab,s=AAAA,i=4096,x=later").unwrap().1, whole);
        for bad in [
            "",
            "r=ab",
            "r=,s=AAAA,i=1",
            "m=x,r=ab,s=AAAA,i=4096",
            "r=ab,s=,i=4096",
            "r=ab,s=A,i=4096",
            "r=ab,s=AAAA,i=",
            "r=ab,s=AAAA,i=-1",
            "r=ab,s=AAAA,i=40 96",
            "s=AAAA,r=ab,i=4096",
            "r=a b,s=AAAA,i=1",
        ] {
            assert!(server_first(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
