//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use connectord_wire::{Endpoint, Secret};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::{Pin as CertificatePin, Proxy, ProxyAuth, ProxyProblem, certificates_from_pem, proxy, tls};

/// Whatever a proxy says leads to an error that is short and inert, or to the server with nothing of its greeting lost, at
/// any split; and SOCKS shows the password to who asked for it only.
///
/// The first octet says which protocol it is and whether there is a password, the second where to split.
pub fn proxy_answer(data: &[u8]) {
    let &[choice, split, ref said @ ..] = data else { return };
    head_of_any_length(said);
    let whole = pass(choice, &[said]);
    let cut = usize::from(split) * said.len() / 256;
    assert_eq!(pass(choice, &[&said[..cut], &said[cut..]]), whole);
    assert_eq!(pass(choice, &said.chunks(1).collect::<Vec<_>>()), whole);
    if let Some(greeting) = whole {
        assert!(said.ends_with(&greeting));
    }
}

/// An answer to CONNECT is judged alike however often it is looked at while it arrives, and never longer than it is.
fn head_of_any_length(answer: &[u8]) {
    let whole = proxy::head(answer);
    if let Ok(Some(length)) = whole {
        assert!(length <= answer.len());
        assert_eq!(proxy::head(&answer[..length]), whole);
        for end in 0..length {
            assert_eq!(proxy::head(&answer[..end]), Ok(None));
        }
    }
}

/// What the server says once the proxy, which says these pieces and ends, has let us through.
fn pass(choice: u8, pieces: &[&[u8]]) -> Option<Bytes> {
    let endpoint = |text: &str| text.parse::<Endpoint>().expect("a host and a port are an endpoint");
    let auth = (choice & 2 != 0).then(|| ProxyAuth { username: "ann".into(), password: Secret::from("tulip") });
    let proxy = match choice & 1 {
        0 => Proxy::Http { endpoint: endpoint("proxy:8080"), auth },
        _ => Proxy::Socks5 { endpoint: endpoint("proxy:1080"), auth },
    };
    let mut heard = Vec::new();
    let said = pieces.concat();
    let stream = Said { pieces: pieces.iter().filter(|piece| !piece.is_empty()).copied().collect(), heard: &mut heard };
    let target = endpoint("mail.example.org:993");
    let server = ready(async {
        let (mut stream, mut greeting) = match proxy::pass(&proxy, stream, &target).await {
            Ok((stream, greeting)) => (stream, greeting.to_vec()),
            Err(problem) => {
                must_be_inert(&problem);
                return None;
            }
        };
        stream.read_to_end(&mut greeting).await.expect("what is said can be read");
        Some(greeting.into())
    });
    if choice & 1 == 1 && contains(&heard, b"tulip") {
        assert!(said.starts_with(&[5, 2]), "nobody asked for the password");
    }
    server
}

fn must_be_inert(problem: &ProxyProblem) {
    let shown = problem.to_string();
    // Four characters for an octet that is escaped.
    assert!(!shown.chars().any(char::is_control) && shown.chars().count() < 1200, "{shown:?}");
}

fn contains(octets: &[u8], what: &[u8]) -> bool {
    octets.windows(what.len()).any(|window| window == what)
}

/// What a future gives that never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("what was said is there at once"),
    }
}

/// A peer that says some pieces, ends, and notes what it hears.
struct Said<'a> {
    pieces: VecDeque<&'a [u8]>,
    heard: &'a mut Vec<u8>,
}

impl AsyncRead for Said<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(piece) = self.pieces.front_mut() {
            let (now, later) = piece.split_at(piece.len().min(into.remaining()));
            into.put_slice(now);
            *piece = later;
        }
        if self.pieces.front().is_some_and(|piece| piece.is_empty()) {
            self.pieces.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Certificates and pins from anywhere are read or refused: a certificate comes out of a PEM file as it went in, and a pin
/// is read as what was written in whichever way.
pub fn certificate(data: &[u8]) {
    let _ = tls::end_point_hash(data);
    let fingerprints = tls::Fingerprints::of(&data.into());
    let _ = certificates_from_pem(data);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(data));
    if let Ok(certificates) = certificates_from_pem(pem.as_bytes()) {
        assert_eq!(certificates, [data.into()]);
        assert!(fingerprints.key.is_some());
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(pin) = text.parse::<CertificatePin>()
    {
        assert_eq!(pin.to_string().parse(), Ok(pin));
    }
    if let Some(digest) = data.first_chunk::<32>() {
        let hex: String = digest.iter().map(|octet| format!("{octet:02X}")).collect();
        let pin: CertificatePin = format!("SHA256:{hex}").parse().expect("64 digits are a pin");
        assert_eq!(pin.to_string(), format!("sha256:{}", hex.to_lowercase()));
        for base64 in [STANDARD.encode(digest), STANDARD_NO_PAD.encode(digest)] {
            for before in ["sha256:", "sha256/", "sha256//"] {
                assert_eq!(format!("{before}{base64}").parse(), Ok(pin), "{before}{base64}");
            }
        }
    }
}
