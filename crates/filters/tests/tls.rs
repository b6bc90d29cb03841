//! Rspamd behind TLS: only whom we trust is asked.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::Arc;

use common::{HAM, found, message, unchecked};
use connectord_filter::{Filter, Verdict, Why};
use connectord_filters::rspamd::{Options, Rspamd};
use connectord_net::{CertificateDer, TlsSettings};
use connectord_testkit::Certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"action\":\"no action\"}";

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_a_server_that_we_trust_is_given_mail() {
    let certificates = Certificates::new();
    let acceptor = TlsAcceptor::from(certificates.server_config());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut served = 0;
        while served < 2 {
            let (stream, _) = listener.accept().await.unwrap();
            // Whoever does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"the river?\r\n")
                && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0)
            {}
            if request.is_empty() {
                continue;
            }
            stream.write_all(ANSWER).await.unwrap();
            stream.shutdown().await.unwrap();
            served += 1;
        }
    });
    let rspamd = |tls: TlsSettings| {
        let mut options = Options::new(format!("localhost:{port}").parse().unwrap());
        options.tls = Some(tls);
        Rspamd::new("rspamd".into(), options).unwrap()
    };
    let stranger = rspamd(TlsSettings::default());
    assert_eq!(stranger.describe(), format!("rspamd:https://localhost:{port}"));
    let trouble = unchecked(stranger.check(&message(HAM)).await);
    assert_eq!(trouble.why, Why::Misconfigured, "{trouble}");

    let ca = CertificateDer::from(certificates.ca_der().to_vec());
    found(&rspamd(TlsSettings { roots: vec![ca], ..TlsSettings::default() }), HAM).await;
    let pin = format!("sha256:{}", certificates.fingerprint()).parse().unwrap();
    let pinned = Arc::new(rspamd(TlsSettings { pins: vec![pin], ..TlsSettings::default() }));
    assert!(matches!(pinned.check(&message(HAM)).await, Verdict::Found(_)));
    server.await.unwrap();

    let mut options = Options::new("unix:/run/rspamd.sock".parse().unwrap());
    options.tls = Some(TlsSettings::default());
    assert!(Rspamd::new("rspamd".into(), options).is_err());
}
