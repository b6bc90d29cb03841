//! Through proxies whose reply comes together with the server's greeting.
#![allow(clippy::unwrap_used, reason = "a test may stop where its premise fails")]

mod common;

use std::net::SocketAddr;

use common::{Authority, HOST, Lines, connector, route, serve};
use connectord_net::{Driver, Error, Proxy, ProxyAuth, ProxyProblem, Route};
use connectord_wire::{Endpoint, Secret, Security};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

fn at(address: SocketAddr) -> Endpoint {
    Endpoint::new("127.0.0.1", address.port()).unwrap()
}

fn auth() -> Option<ProxyAuth> {
    Some(ProxyAuth { username: "ann".to_owned(), password: Secret::from("pass") })
}

/// A plaintext route to mail.example.org:110, which only the proxy knows.
fn behind(proxy: Proxy) -> Route {
    let mut route = route("127.0.0.1:110".parse().unwrap(), Security::None);
    route.proxy = Some(proxy);
    route
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads a SOCKS5 greeting, authentication and request; gives the target.
async fn socks(stream: &mut TcpStream, with_password: bool) -> (String, u16) {
    assert_eq!(stream.read_u8().await.unwrap(), 5);
    let mut methods = vec![0; usize::from(stream.read_u8().await.unwrap())];
    stream.read_exact(&mut methods).await.unwrap();
    let method = if with_password { 2 } else { 0 };
    assert!(methods.contains(&method));
    stream.write_all(&[5, method]).await.unwrap();
    if with_password {
        let mut login = [0; 10];
        stream.read_exact(&mut login).await.unwrap();
        assert_eq!(&login, b"\x01\x03ann\x04pass");
        stream.write_all(&[1, 0]).await.unwrap();
    }
    let mut request = [0; 5];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..4], [5, 1, 0, 3], "the target goes as a name");
    let mut host = vec![0; usize::from(request[4])];
    stream.read_exact(&mut host).await.unwrap();
    (String::from_utf8(host).unwrap(), stream.read_u16().await.unwrap())
}

#[tokio::test]
async fn a_greeting_in_the_segment_of_the_connect_answer_is_not_lost() {
    let address = serve(|mut stream| async move {
        let request = head(&mut stream).await;
        assert_eq!(
            request,
            "CONNECT mail.example.org:110 HTTP/1.1\r\nHost: mail.example.org:110\r\n\
             Proxy-Authorization: Basic YW5uOnBhc3M=\r\n\r\n"
        );
        stream.write_all(b"HTTP/1.1 200 OK\r\nVia: proxy\r\n\r\n+OK ready\r\n+OK more").await.unwrap();
        stream.write_all(b" of it\r\n").await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let route = behind(Proxy::Http { endpoint: at(address), auth: auth() });
    let mut driver = Driver::connect(&connector(), &route, Lines::new()).await.unwrap();
    assert_eq!(driver.next().await.unwrap(), "+OK ready");
    assert_eq!(driver.next().await.unwrap(), "+OK more of it");
    assert_eq!(driver.peer(), "mail.example.org:110");
}

#[tokio::test]
async fn a_greeting_in_the_segment_of_the_socks_reply_is_not_lost() {
    for with_password in [false, true] {
        let address = serve(move |mut stream| async move {
            assert_eq!(socks(&mut stream, with_password).await, (HOST.to_owned(), 110));
            stream.write_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x6e+OK ready\r\n").await.unwrap();
            let _ = stream.read(&mut [0]).await;
        })
        .await;
        let auth = if with_password { auth() } else { None };
        let route = behind(Proxy::Socks5 { endpoint: at(address), auth });
        let mut driver = Driver::connect(&connector(), &route, Lines::new()).await.unwrap();
        assert_eq!(driver.next().await.unwrap(), "+OK ready");
    }
}

#[tokio::test]
async fn tls_goes_through_a_proxy_and_is_verified_for_the_server_behind_it() {
    let authority = Authority::new();
    let acceptor = authority.sign(HOST, |_| {}).acceptor(&[&rustls::version::TLS13]);
    let server = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(b"+OK secure\r\n").await.unwrap();
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await;
    let proxy = serve(move |mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut onward = TcpStream::connect(server).await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut onward).await;
    })
    .await;
    let mut route = behind(Proxy::Http { endpoint: at(proxy), auth: None });
    route.security = Security::Tls;
    route.tls.roots.push(authority.root());
    let mut driver = Driver::connect(&connector(), &route, Lines::new()).await.unwrap();
    assert_eq!(driver.next().await.unwrap(), "+OK secure");
    assert_eq!(driver.tls().unwrap().version, "TLSv1.3");
}

/// What comes of a proxy that answers the first octets with these.
async fn refused(answer: &'static [u8], http: bool) -> ProxyProblem {
    let address = serve(move |mut stream| async move {
        let _ = stream.read(&mut [0; 999]).await;
        let _ = stream.write_all(answer).await;
        let _ = stream.read(&mut [0; 999]).await;
    })
    .await;
    let (endpoint, auth) = (at(address), None);
    let route = behind(if http { Proxy::Http { endpoint, auth } } else { Proxy::Socks5 { endpoint, auth } });
    match connector().connect(&route).await.unwrap_err() {
        Error::Proxy { proxy, peer, problem } => {
            assert_eq!((proxy, peer.as_str()), (at(address), "mail.example.org:110"));
            problem
        }
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_says_why() {
    assert_eq!(refused(b"HTTP/1.1 407 Who are you\r\n\r\n", true).await, ProxyProblem::Authentication);
    let problem = refused(b"HTTP/1.1 403 Not that port\r\n\r\n", true).await;
    assert_eq!(problem, ProxyProblem::Refused { text: "403 Not that port".to_owned() });
    assert!(matches!(refused(b"* OK no proxy\r\n", true).await, ProxyProblem::Protocol { .. }));
    assert_eq!(refused(b"\x05\xff", false).await, ProxyProblem::Authentication);
    assert!(matches!(refused(b"* OK no proxy\r\n", false).await, ProxyProblem::Protocol { .. }));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let address = serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 999]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Endless: ").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let route = behind(Proxy::Http { endpoint: at(address), auth: None });
    let error = connector().connect(&route).await.unwrap_err();
    assert!(matches!(error, Error::Proxy { problem: ProxyProblem::Protocol { .. }, .. }), "{error}");
}
