//! The fault proxy cuts, stalls and delays exactly as told.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use connectord_testkit::{Cut, Direction, Fault, FaultProxy, Faults};

/// A client and the server's end of its connection, with a proxy between them.
fn pair(faults: Faults) -> (FaultProxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap());
    proxy.set(faults);
    let client = TcpStream::connect(proxy.address()).unwrap();
    let server = listener.accept().unwrap().0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (proxy, client, server)
}

/// Reads to the end; what came, and the error if it did not end in order.
fn rest(stream: &mut TcpStream) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let mut octets = Vec::new();
    let error = stream.read_to_end(&mut octets).err().map(|e| e.kind());
    (octets, error)
}

#[test]
fn octets_pass_unchanged_both_ways_and_are_counted() {
    let (proxy, mut client, mut server) = pair(Faults::none());
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let copy = large.clone();
    let writer = std::thread::spawn(move || {
        server.write_all(&copy).unwrap();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        rest(&mut server)
    });
    client.write_all(b"hello").unwrap();
    let mut received = vec![0; large.len()];
    client.read_exact(&mut received).unwrap();
    assert!(received == large);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(writer.join().unwrap(), (b"hello".to_vec(), None));
    assert_eq!((proxy.octets(Direction::ToClient), proxy.octets(Direction::ToServer)), (3_000_000, 5));
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_cut_lets_exactly_so_many_octets_pass_and_ends_both_sides() {
    for after in [0, 1, 5, 9] {
        let (proxy, mut client, mut server) = pair(Faults::to_client(Fault::none().cut_after(after, Cut::Fin)));
        server.write_all(b"0123456789").unwrap();
        assert_eq!(rest(&mut client), (b"0123456789"[..after as usize].to_vec(), None));
        assert_eq!(rest(&mut server), (Vec::new(), None));
        assert_eq!(proxy.octets(Direction::ToClient), after);
    }
}

#[test]
fn a_reset_is_an_error_after_exactly_so_many_octets() {
    let (_proxy, mut client, mut server) = pair(Faults::to_server(Fault::none().cut_after(3, Cut::Rst)));
    client.write_all(b"QUIT\r\n").unwrap();
    assert_eq!(rest(&mut server), (b"QUI".to_vec(), Some(std::io::ErrorKind::ConnectionReset)));
    assert_eq!(rest(&mut client), (Vec::new(), Some(std::io::ErrorKind::ConnectionReset)));
}

#[test]
fn a_stalled_direction_is_silent_and_the_other_goes_on() {
    let (_proxy, mut client, mut server) = pair(Faults::to_client(Fault::none().stall_after(2)));
    server.write_all(b"abc").unwrap();
    let mut two = [0; 2];
    client.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"ab");
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(client.read(&mut two).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    client.write_all(b"xy").unwrap();
    server.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"xy");
}

#[test]
fn a_delay_costs_its_time_once_and_not_per_octet() {
    let (_proxy, mut client, mut server) = pair(Faults::round_trip(Duration::from_millis(200)));
    let began = Instant::now();
    for _ in 0..50 {
        server.write_all(&[7; 1000]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut all = vec![0; 50_000];
    client.read_exact(&mut all).unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(140) && took < Duration::from_millis(900), "{took:?}");
}

#[test]
fn a_drip_paces_the_octets() {
    let (_proxy, mut client, mut server) = pair(Faults::to_client(Fault::none().drip(1, Duration::from_millis(10))));
    let began = Instant::now();
    server.write_all(&[7; 20]).unwrap();
    server.shutdown(std::net::Shutdown::Write).unwrap();
    let (octets, error) = rest(&mut client);
    assert_eq!((octets, error), (vec![7; 20], None));
    assert!(began.elapsed() >= Duration::from_millis(190));
}

#[test]
fn queued_faults_hold_for_one_connection_each() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap());
    proxy.next(Faults::to_client(Fault::none().cut_after(1, Cut::Fin)));
    proxy.next(Faults::to_client(Fault::none().cut_after(2, Cut::Fin)));
    for expected in [&b"x"[..], b"xy", b"xyz"] {
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        listener.accept().unwrap().0.write_all(b"xyz").unwrap();
        assert_eq!(rest(&mut client), (expected.to_vec(), None));
    }
}

#[test]
fn open_connections_can_be_cut_and_new_ones_refused() {
    let (proxy, mut client, mut server) = pair(Faults::none());
    proxy.cut_all(Cut::Fin);
    assert_eq!(rest(&mut client), (Vec::new(), None));
    assert_eq!(rest(&mut server), (Vec::new(), None));
    proxy.refuse(true);
    if let Ok(mut refused) = TcpStream::connect(proxy.address()) {
        assert_eq!(rest(&mut refused).1, Some(std::io::ErrorKind::ConnectionReset));
    }
    assert_eq!(proxy.connections(), 2);
}
