//! Whom the connector trusts, against real TLS servers.
#![allow(clippy::unwrap_used, reason = "a test may stop where its premise fails")]

mod common;

use common::{Authority, HOST, Identity, Lines, LinesError, connector, route, serve};
use connectord_net::{Connector, Driver, Error, Fingerprints, Pin, Route, Stream, TlsProblem, TlsVersion};
use connectord_sasl::ChannelBinding;
use connectord_wire::Security;
use rcgen::{BasicConstraints, IsCa, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A route to a server with this identity, which greets and echoes.
async fn greeting(identity: &Identity, versions: &[&'static rustls::SupportedProtocolVersion]) -> Route {
    let acceptor = identity.acceptor(versions);
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            stream.write_all(b"+OK ready\r\n").await.unwrap();
            let mut octet = [0];
            while stream.read(&mut octet).await.is_ok_and(|count| count > 0) {
                stream.write_all(&octet).await.unwrap();
            }
        }
    })
    .await;
    route(address, Security::Tls)
}

async fn connect(route: &Route) -> Result<Stream, TlsProblem> {
    match connector().connect(route).await {
        Ok(stream) => Ok(stream),
        Err(Error::Tls { peer, problem }) => {
            assert_eq!(peer, route.endpoint.to_string());
            Err(problem)
        }
        Err(error) => panic!("{error}"),
    }
}

fn fingerprints(identity: &Identity) -> Fingerprints {
    Fingerprints::of(&identity.certificate)
}

#[tokio::test]
async fn a_server_whose_authority_is_trusted_is_connected_and_described() {
    let authority = Authority::new();
    let identity = authority.sign(HOST, |_| {});
    let mut route = greeting(&identity, BOTH).await;
    route.tls.roots.push(authority.root());
    let stream = connect(&route).await.unwrap();
    let tls = stream.tls().unwrap().clone();
    assert_eq!((tls.version, tls.certificate), ("TLSv1.3", Some(fingerprints(&identity).certificate)));
    assert_eq!(tls.key, fingerprints(&identity).key);
    assert!(tls.cipher.starts_with("TLS13_"), "{}", tls.cipher);
    assert!(matches!(tls.channel_binding(), ChannelBinding::Exporter(octets) if octets.len() == 32));
    let mut driver = Driver::new(stream, Lines::new(), route.timeouts);
    assert_eq!(driver.next().await.unwrap(), "+OK ready");
    driver.machine().say("hello\r\n");
    assert_eq!(driver.next().await.unwrap(), "hello");
    driver.shutdown().await;
}

#[tokio::test]
async fn with_tls_1_2_the_binding_is_the_certificate_and_1_3_can_be_required() {
    let authority = Authority::new();
    let identity = authority.sign(HOST, |_| {});
    let mut route = greeting(&identity, &[&TLS12]).await;
    route.tls.roots.push(authority.root());
    let tls = connect(&route).await.unwrap().tls().unwrap().clone();
    assert_eq!(tls.version, "TLSv1.2");
    // The test certificates are signed with ECDSA and SHA-256.
    assert_eq!(tls.channel_binding(), ChannelBinding::ServerEndPoint(fingerprints(&identity).certificate.0.to_vec()));
    route.tls.minimum_version = TlsVersion::Tls13;
    assert_eq!(connect(&route).await.unwrap_err(), TlsProblem::OldProtocol);
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_refused_with_its_fingerprints() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let identity = other.sign(HOST, |_| {});
    let mut route = greeting(&identity, BOTH).await;
    route.tls.roots.push(trusted.root());
    let received = fingerprints(&identity);
    assert_eq!(connect(&route).await.unwrap_err(), TlsProblem::UnknownIssuer { received });
    let self_signed = Identity::self_signed(HOST, |_| {});
    let mut route = greeting(&self_signed, BOTH).await;
    route.tls.roots.push(trusted.root());
    let problem = connect(&route).await.unwrap_err();
    let received = fingerprints(&self_signed);
    assert_eq!(problem, TlsProblem::SelfSigned { received });
    assert!(problem.to_string().contains(&received.certificate.to_string()), "{problem}");
    assert!(problem.hint().unwrap().contains(&received.key.unwrap().to_string()));
}

#[tokio::test]
async fn certificates_out_of_their_time_are_told_apart() {
    let authority = Authority::new();
    let identity = authority.sign(HOST, |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let mut route = greeting(&identity, BOTH).await;
    route.tls.roots.push(authority.root());
    assert!(matches!(connect(&route).await.unwrap_err(), TlsProblem::Expired { days: 1000.., .. }));
    let identity = authority.sign(HOST, |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
    });
    let mut route = greeting(&identity, BOTH).await;
    route.tls.roots.push(authority.root());
    assert!(matches!(connect(&route).await.unwrap_err(), TlsProblem::NotYetValid { days: 1000.., .. }));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_with_the_names_it_has() {
    let authority = Authority::new();
    let identity = authority.sign("other.example.net", |_| {});
    let mut route = greeting(&identity, BOTH).await;
    route.tls.roots.push(authority.root());
    let problem = connect(&route).await.unwrap_err();
    assert_eq!(problem.to_string(), "the server's certificate is not for mail.example.org but for other.example.net");
    route.tls.server_name = Some("other.example.net".to_owned());
    assert!(connect(&route).await.is_ok());
}

#[tokio::test]
async fn a_pinned_certificate_or_key_is_trusted_whatever_else_is_wrong_with_it() {
    // Wrong name, expired, self-signed, and an authority's certificate, as `openssl req -x509` makes it.
    let identity = Identity::self_signed("localhost", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let received = fingerprints(&identity);
    for pin in [received.certificate, received.key.unwrap()] {
        for versions in [&[&TLS13][..], &[&TLS12][..]] {
            let mut route = greeting(&identity, versions).await;
            route.tls.pins = vec![Pin([1; 32]), pin];
            let stream = connect(&route).await.unwrap();
            let mut driver = Driver::new(stream, Lines::new(), route.timeouts);
            assert_eq!(driver.next().await.unwrap(), "+OK ready");
        }
    }
}

#[tokio::test]
async fn a_pin_refuses_every_other_certificate_even_a_trusted_one() {
    let authority = Authority::new();
    let identity = authority.sign(HOST, |_| {});
    let mut route = greeting(&identity, BOTH).await;
    route.tls.roots.push(authority.root());
    route.tls.pins = vec![Pin([1; 32])];
    let problem = connect(&route).await.unwrap_err();
    let received = fingerprints(&identity);
    assert_eq!(problem, TlsProblem::PinMismatch { received });
    assert_eq!(
        problem.to_string(),
        format!(
            "the server's certificate is not the pinned one (certificate {}, key {})",
            received.certificate,
            received.key.unwrap()
        )
    );
}

#[tokio::test]
async fn an_authoritys_certificate_as_the_servers_own_is_named_as_that() {
    let identity = Identity::self_signed(HOST, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let mut route = greeting(&identity, BOTH).await;
    route.tls.roots.push(identity.certificate.clone());
    let received = fingerprints(&identity);
    assert_eq!(connect(&route).await.unwrap_err(), TlsProblem::AuthorityAsServer { received });
}

#[tokio::test]
async fn a_plaintext_port_a_closed_door_and_a_mute_server_are_told_apart() {
    let authority = Authority::new();
    let address = serve(|mut stream| async move {
        stream.write_all(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] Dovecot ready.\r\n").await.unwrap();
        let _ = stream.read(&mut [0; 999]).await;
    })
    .await;
    let mut plain = route(address, Security::Tls);
    plain.tls.roots.push(authority.root());
    assert_eq!(connect(&plain).await.unwrap_err(), TlsProblem::NotTls);
    let address = serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 999]).await;
    })
    .await;
    let mut closed = route(address, Security::Tls);
    closed.tls.roots.push(authority.root());
    assert_eq!(connect(&closed).await.unwrap_err(), TlsProblem::Closed);
    let address = serve(|stream| async move {
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let mut mute = route(address, Security::Tls);
    mute.tls.roots.push(authority.root());
    mute.timeouts.connect = std::time::Duration::from_millis(300);
    let error = connector().connect(&mute).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no connection to {} within 0.3 s (while starting TLS)", mute.endpoint));
}

/// A server that agrees to STLS, with `injected` in the same segment.
async fn stls(identity: &Identity, injected: &'static str) -> Route {
    let acceptor = identity.acceptor(BOTH);
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = BufReader::new(stream);
            stream.write_all(b"+OK plaintext\r\n").await.unwrap();
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, "STLS\r\n");
            stream.write_all(format!("+OK begin\r\n{injected}").as_bytes()).await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            stream.write_all(b"+OK encrypted\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 999]).await;
        }
    })
    .await;
    route(address, Security::StartTls)
}

#[tokio::test]
async fn starttls_turns_a_plaintext_connection_into_a_verified_one() {
    let authority = Authority::new();
    let mut route = stls(&authority.sign(HOST, |_| {}), "").await;
    route.tls.roots.push(authority.root());
    let mut driver = Driver::connect(&connector(), &route, Lines::new()).await.unwrap();
    assert_eq!(driver.next().await.unwrap(), "+OK plaintext");
    assert!(driver.tls().is_none());
    driver.machine().start_tls();
    assert_eq!(driver.next().await.unwrap(), "+OK encrypted");
    assert_eq!(driver.tls().unwrap().version, "TLSv1.3");
    driver.shutdown().await;
}

#[tokio::test]
async fn starttls_with_an_untrusted_server_or_injected_plaintext_ends_the_session() {
    let authority = Authority::new();
    let mut route = stls(&Authority::new().sign("x.example", |_| {}), "").await;
    route.tls.roots.push(authority.root());
    let mut driver = Driver::connect(&connector(), &route, Lines::new()).await.unwrap();
    driver.next().await.unwrap();
    driver.machine().start_tls();
    assert!(matches!(driver.next().await, Err(Error::Tls { .. })));
    assert!(driver.tls().is_none());
    assert!(driver.next().await.is_err(), "the connection is dead");

    let mut route = stls(&authority.sign(HOST, |_| {}), "+OK injected\r\n").await;
    route.tls.roots.push(authority.root());
    let mut driver = Driver::connect(&connector(), &route, Lines::new()).await.unwrap();
    driver.next().await.unwrap();
    driver.machine().start_tls();
    assert!(matches!(driver.next().await, Err(Error::Session(LinesError::Injected) | Error::Tls { .. })));
}

#[tokio::test]
async fn a_stream_without_tls_settings_cannot_be_upgraded() {
    let mut route = stls(&Authority::new().sign(HOST, |_| {}), "").await;
    route.security = Security::None;
    let mut driver = Driver::connect(&connector(), &route, Lines::new()).await.unwrap();
    driver.next().await.unwrap();
    driver.machine().start_tls();
    let error = driver.next().await.unwrap_err();
    assert!(matches!(error, Error::Tls { problem: TlsProblem::NotPrepared, .. }), "{error}");
}

#[tokio::test]
async fn a_second_connection_resumes_the_first_ones_tls_session() {
    let authority = Authority::new();
    let identity = authority.sign(HOST, |_| {});
    let mut route = greeting(&identity, BOTH).await;
    route.tls.roots.push(authority.root());
    let connector: Connector = connector();
    for resumed in [false, true] {
        let mut driver = Driver::connect(&connector, &route, Lines::new()).await.unwrap();
        assert_eq!(driver.next().await.unwrap(), "+OK ready");
        assert_eq!(driver.tls().unwrap().resumed, resumed);
        // A resumed session still knows whom it talks to.
        assert_eq!(driver.tls().unwrap().certificate, Some(fingerprints(&identity).certificate));
        driver.shutdown().await;
    }
}

/// Whoever trusts an authority of their own has all servers under the same settings.
#[tokio::test]
async fn sessions_with_many_servers_are_resumed_under_one_configuration() {
    let identity = Authority::new().sign(HOST, |_| {});
    let mut route = greeting(&identity, BOTH).await;
    route.tls.pins.push(fingerprints(&identity).certificate);
    let connector: Connector = connector();
    for resumed in [false, true] {
        for number in 0..20 {
            route.endpoint = format!("mail{number}.example.org:{}", route.endpoint.port()).parse().unwrap();
            let mut driver = Driver::connect(&connector, &route, Lines::new()).await.unwrap();
            assert_eq!(driver.next().await.unwrap(), "+OK ready");
            assert_eq!(driver.tls().unwrap().resumed, resumed, "{}", route.endpoint);
            driver.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_tls_stream_that_ends_without_close_notify_is_just_over() {
    let authority = Authority::new();
    let acceptor = authority.sign(HOST, |_| {}).acceptor(BOTH);
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(b"+OK bye\r\n").await.unwrap();
            stream.flush().await.unwrap();
            // Drops the socket under the session.
            let (socket, _) = stream.into_inner();
            drop(socket);
        }
    })
    .await;
    let mut route = route(address, Security::Tls);
    route.tls.roots.push(authority.root());
    let mut driver = Driver::connect(&connector(), &route, Lines::new()).await.unwrap();
    assert_eq!(driver.next().await.unwrap(), "+OK bye");
    assert!(matches!(driver.next().await, Err(Error::Session(LinesError::Closed))));
}
