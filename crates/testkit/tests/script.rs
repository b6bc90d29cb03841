//! Scripted servers speak as written, and say what a client did otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use connectord_testkit::{Certificates, Script, ScriptServer};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// Sends all at once and reads to the end.
fn talk(server: &ScriptServer, octets: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(octets).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

fn broken(server: ScriptServer) -> String {
    *catch_unwind(|| server.finish()).unwrap_err().downcast::<String>().unwrap()
}

#[test]
fn each_connection_has_its_script_and_what_was_sent_is_returned() {
    let server = ScriptServer::start(vec![
        Script::new().server("+OK").client("CAPA").server("-ERR unknown").client_prefix("USER ").close(),
        Script::new().server("* OK").client_tagged("LOGOUT").server_raw("* BYE\r\n").server("{tag} OK done").close(),
        Script::new().client_any().client_octets(3).client_data().close(),
    ]);
    assert_eq!(talk(&server, b"CAPA\r\nUSER ann\r\n"), "+OK\r\n-ERR unknown\r\n");
    assert_eq!(talk(&server, b"a7 LOGOUT\r\n"), "* OK\r\n* BYE\r\na7 OK done\r\n");
    assert_eq!(talk(&server, b"A {3}\r\nxyzone\r\n..two\r\n.\r\n"), "");
    assert_eq!(talk(&server, b""), "");
    let expected: [&[&str]; 3] = [&["CAPA", "USER ann"], &["a7 LOGOUT"], &["A {3}", "xyz", "one\r\n..two\r\n"]];
    assert_eq!(server.finish(), expected);
}

#[test]
fn another_line_than_expected_is_reported_with_its_step() {
    let server = Script::new().server("+OK").client("USER ann").server("+OK").listen();
    talk(&server, b"QUIT\r\n");
    assert_eq!(
        broken(server),
        "script 0: step 2 (expected \"USER ann\"): the client sent \"QUIT\"; heard before: [\"QUIT\"]"
    );
}

#[test]
fn silence_is_reported() {
    let server = Script::new().client("HELLO").patience(Duration::from_millis(50)).listen();
    talk(&server, b"");
    let why = broken(server);
    assert_eq!(why, "script 0: step 1 (expected \"HELLO\"): nothing happened for 50ms; heard before: []");
}

#[test]
fn saying_more_than_the_script_is_reported() {
    let server = Script::new().server("+OK").listen();
    talk(&server, b"NOOP\r\n");
    assert_eq!(broken(server), "script 0: it was over, and the client sent \"NOOP\"; heard before: []");
}

#[test]
fn tls_starts_at_once_or_behind_a_line() {
    let certificates = Certificates::new();
    let server = ScriptServer::start(vec![
        Script::new().tls(&certificates).server("+OK").client("QUIT").close(),
        Script::new().client("STLS").starttls("+OK begin", &certificates).client("QUIT").server("+OK").close(),
    ]);
    let encrypt = |stream: TcpStream| {
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(&certificates.client_config()), name).unwrap(), stream)
    };
    let mut said = String::new();
    let mut tls = encrypt(TcpStream::connect(server.address()).unwrap());
    tls.write_all(b"QUIT\r\n").unwrap();
    tls.read_to_string(&mut said).unwrap();
    let mut plain = TcpStream::connect(server.address()).unwrap();
    plain.write_all(b"STLS\r\n").unwrap();
    let mut answer = [0; 11];
    plain.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK begin\r\n");
    let mut tls = encrypt(plain);
    tls.write_all(b"QUIT\r\n").unwrap();
    tls.read_to_string(&mut said).unwrap();
    assert_eq!(said, "+OK\r\n+OK\r\n");
    assert_eq!(server.finish(), [vec!["QUIT"], vec!["STLS", "QUIT"]]);
}

#[tokio::test]
async fn it_works_beside_a_runtime_of_the_callers() {
    use tokio::io::AsyncReadExt;
    let server = Script::new().server("+OK").client_closes().listen();
    let mut client = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let mut said = [0; 5];
    client.read_exact(&mut said).await.unwrap();
    drop(client);
    assert_eq!(server.finish(), [[""; 0]]);
}
