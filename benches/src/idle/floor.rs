//! What a connection costs that only listens: tokio and rustls, and nothing of ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Logs in with so many connections, lets them listen, says `listening`, and stays until its standard input ends.
pub(crate) fn listen(connections: usize, hosts: usize, port: u16, ca_file: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(run(connections, hosts, port, ca_file));
}

fn config(ca_file: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca_file).expect("the server wrote its authority");
    roots.add(certificate).expect("it is an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Connects so often, one after the other, with and without tickets; how long each connection took, and the CPU of this
/// side, in microseconds.
pub(crate) fn handshakes(connections: u32, port: u16, ca_file: &str, cpu: impl Fn() -> Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    for (name, resumption) in
        [("TLS in full", Resumption::disabled()), ("TLS with a ticket", Resumption::in_memory_sessions(64))]
    {
        let mut config = config(ca_file);
        config.resumption = resumption;
        let connector = TlsConnector::from(Arc::new(config));
        let connect = async || {
            let host = super::host(1);
            let name = ServerName::try_from(host.clone()).expect("it is an address");
            let socket = TcpStream::connect((host.as_str(), port)).await.expect("the server listens");
            let mut stream = connector.connect(name, socket).await.expect("the server is trusted");
            // Tickets come with the greeting.
            let _ = stream.read(&mut [0; 1024]).await.expect("the server greets");
            stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
        };
        runtime.block_on(connect());
        let (began, before) = (Instant::now(), cpu());
        let resumed: u32 = (0..connections).map(|_| u32::from(runtime.block_on(connect()))).sum();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(connections);
        println!(
            "{name:<44} {:>10.0} us, CPU of this side {:>4.0} us ({resumed} of {connections} resumed)",
            each(began.elapsed()),
            each(cpu() - before)
        );
    }
}

async fn run(connections: usize, hosts: usize, port: u16, ca_file: &str) {
    let connector = TlsConnector::from(Arc::new(config(ca_file)));
    let mut tasks = JoinSet::new();
    let (listening, mut heard) = tokio::sync::mpsc::channel(64);
    let turns = Arc::new(tokio::sync::Semaphore::new(64));
    for number in 0..connections {
        let (connector, listening, turns) = (connector.clone(), listening.clone(), Arc::clone(&turns));
        let host = super::host(number % hosts + 1);
        tasks.spawn(async move {
            let turn = turns.acquire().await.expect("it is never closed");
            let name = ServerName::try_from(host.clone()).expect("it is an address");
            let socket = TcpStream::connect((host.as_str(), port)).await.expect("the server listens");
            let mut stream = connector.connect(name, socket).await.expect("the server is trusted");
            let mut buffer = [0; 1024];
            for command in ["", "a LOGIN \"u0\" \"secret\"\r\n", "b EXAMINE INBOX\r\n", "c IDLE\r\n"] {
                stream.write_all(command.as_bytes()).await.expect("the server reads");
                let _ = stream.read(&mut buffer).await.expect("the server answers");
            }
            drop(turn);
            listening.send(()).await.expect("somebody counts");
            // For good: the server has nothing to say.
            let _ = Box::pin(async move { stream.read(&mut [0; 64]).await }).await;
        });
    }
    for _ in 0..connections {
        heard.recv().await;
    }
    println!("listening");
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
}
