//! Every certificate that must not be believed, by TLS from the start and by STARTTLS: no credential leaves, and the error
//! says what is wrong with it. That each of them ends a check with 69 is one arm of `engine::trouble`.
#![allow(clippy::unwrap_used, reason = "a test may stop where its premise fails")]

mod common;

use std::sync::{Arc, Mutex};

use common::{Authority, HOST, Identity, Lines, connector, route, serve};
use connectord_net::{Driver, Error, Route};
use connectord_wire::Security;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What a client would say only to a server that it believes.
const LOGIN: &str = "USER ann\r\nPASS secret\r\n";

/// All that a server read, in clear and decrypted.
type Heard = Arc<Mutex<Vec<u8>>>;

/// A POP3 server that says so much in clear as the security asks for, and hands the rest of the connection on.
async fn before_tls(stream: TcpStream, security: Security, heard: &Heard) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(stream);
    if security == Security::StartTls {
        stream.write_all(b"+OK ready\r\n").await.unwrap();
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).await.unwrap();
        heard.lock().unwrap().extend_from_slice(&line);
        stream.write_all(b"+OK begin\r\n").await.unwrap();
    }
    stream
}

/// A server with this certificate, and what it hears.
async fn server(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    security: Security,
) -> (Route, Heard) {
    let (acceptor, heard) = (identity.acceptor(versions), Heard::default());
    let remembered = Arc::clone(&heard);
    let address = serve(move |stream| {
        let (acceptor, heard) = (acceptor.clone(), Arc::clone(&remembered));
        async move {
            let stream = before_tls(stream, security, &heard).await;
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.write_all(b"+OK encrypted\r\n").await;
            let mut octets = [0; 256];
            while let Ok(count @ 1..) = stream.read(&mut octets).await {
                heard.lock().unwrap().extend_from_slice(&octets[..count]);
                let _ = stream.write_all(b"+OK\r\n").await;
            }
        }
    })
    .await;
    (route(address, security), heard)
}

/// Connects and logs in as an account does: TLS first.
async fn log_in(route: &Route) -> Result<(), Error<common::LinesError>> {
    let mut driver = Driver::connect(&connector(), route, Lines::new()).await?;
    driver.next().await?;
    if route.security == Security::StartTls {
        driver.machine().start_tls();
        driver.next().await?;
    }
    driver.machine().say(LOGIN);
    driver.next().await.map(drop)
}

/// Refused with these words, by both ways and both versions of TLS, and nothing said but STLS.
async fn is_refused(identity: &Identity, authority: &Authority, words: &str) {
    for security in [Security::Tls, Security::StartTls] {
        for versions in [&[&TLS13][..], &[&TLS12][..]] {
            let (mut route, heard) = server(identity, versions, security).await;
            route.tls.roots.push(authority.root());
            let Err(Error::Tls { problem, .. }) = log_in(&route).await else {
                panic!("{words}: {security:?}, {versions:?}: somebody was believed")
            };
            assert!(problem.to_string().starts_with(words), "{security:?}, {versions:?}: {problem}");
            assert!(problem.hint().is_some(), "{problem} leaves a person alone");
            let said = if security == Security::StartTls { "STLS\r\n" } else { "" };
            assert_eq!(String::from_utf8_lossy(&heard.lock().unwrap()), said, "{words}: {security:?}, {versions:?}");
        }
    }
}

#[tokio::test]
async fn a_login_is_said_to_a_server_that_is_believed() {
    let authority = Authority::new();
    let identity = authority.sign(HOST, |_| {});
    for security in [Security::Tls, Security::StartTls] {
        let (mut route, heard) = server(&identity, &[&TLS13, &TLS12], security).await;
        route.tls.roots.push(authority.root());
        log_in(&route).await.unwrap();
        assert!(String::from_utf8_lossy(&heard.lock().unwrap()).ends_with(LOGIN), "{security:?}");
    }
}

#[tokio::test]
async fn an_expired_certificate_gets_no_login() {
    let authority = Authority::new();
    let identity = authority.sign(HOST, |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    is_refused(&identity, &authority, "the server's certificate expired ").await;
}

#[tokio::test]
async fn a_certificate_that_is_not_yet_valid_gets_no_login() {
    let authority = Authority::new();
    let identity = authority.sign(HOST, |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
    });
    is_refused(&identity, &authority, "the server's certificate is valid only in ").await;
}

#[tokio::test]
async fn a_self_signed_certificate_gets_no_login() {
    let identity = Identity::self_signed(HOST, |_| {});
    is_refused(&identity, &Authority::new(), "the server's certificate is self-signed (certificate sha256:").await;
}

#[tokio::test]
async fn a_certificate_for_another_host_gets_no_login() {
    let authority = Authority::new();
    // Another name, one level too many, a wildcard for another level, an address that is the server's but not the name.
    for name in ["mail.example.net", "a.mail.example.org", "*.mail.example.org", "127.0.0.1"] {
        let identity = authority.sign(name, |_| {});
        is_refused(&identity, &authority, "the server's certificate is not for mail.example.org but for ").await;
    }
    // The common name alone is no name (RFC 9525 §6.3).
    let nameless = authority.sign(HOST, |params| params.subject_alt_names.clear());
    is_refused(&nameless, &authority, "the server's certificate is not for mail.example.org but for ").await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_gets_no_login() {
    let identity = Authority::new().sign(HOST, |_| {});
    let words = "no trusted authority signed the server's certificate (certificate sha256:";
    is_refused(&identity, &Authority::new(), words).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_a_servers_gets_no_login() {
    let authority = Authority::new();
    let of_an_authority = authority.sign(HOST, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let words = "the server's certificate is one of an authority, not of a server (certificate sha256:";
    is_refused(&of_an_authority, &authority, words).await;
    let of_a_client = authority.sign(HOST, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    is_refused(&of_a_client, &authority, "the server's certificate cannot be used: ").await;
}

#[tokio::test]
async fn a_server_that_speaks_only_tls_below_1_2_gets_no_login() {
    let authority = Authority::new();
    // A ServerHello of SSL 3.0, TLS 1.0 and TLS 1.1 (RFC 4346 §7.4.1.3), and the alert of a server with nothing newer.
    let hello =
        |minor: u8| [&[0x16, 3, minor, 0, 0x2a, 2, 0, 0, 0x26, 3, minor][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let answers = [hello(0), hello(1), hello(2), b"\x15\x03\x02\x00\x02\x02\x46".to_vec()];
    for security in [Security::Tls, Security::StartTls] {
        for answer in answers.clone() {
            let heard = Heard::default();
            let remembered = Arc::clone(&heard);
            let address = serve(move |stream| {
                let (answer, heard) = (answer.clone(), Arc::clone(&remembered));
                async move {
                    let mut stream = before_tls(stream, security, &heard).await;
                    // The first record is the ClientHello: 5 octets, of which the last two are its length.
                    let mut start = [0; 5];
                    stream.read_exact(&mut start).await.unwrap();
                    let mut hello = vec![0; usize::from(u16::from_be_bytes([start[3], start[4]]))];
                    stream.read_exact(&mut hello).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                    heard.lock().unwrap().extend_from_slice(&rest);
                }
            })
            .await;
            let mut route = route(address, security);
            route.tls.roots.push(authority.root());
            let Err(Error::Tls { problem, .. }) = log_in(&route).await else { panic!("an old version was spoken") };
            assert_eq!(problem.to_string(), "the server speaks only a TLS version that is too old", "{security:?}");
            assert!(problem.hint().is_some());
            let heard = heard.lock().unwrap();
            assert!(!heard.windows(6).any(|window| window == b"secret"), "{security:?}");
        }
    }
}
