//! A small SOCKS5 proxy (RFC 1928, RFC 1929) that leads everybody to one server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// Wants a name and a password, and writes down who asked for what. Lives as long as the test's process.
pub(crate) struct Socks5 {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Socks5 {
    /// Whatever is asked for, `target` is what it connects to.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let heard = Arc::clone(&heard);
                // A client that breaks off is its own affair.
                std::thread::spawn(move || serve(client, target, &heard).ok());
            }
        });
        Self { address, asked }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// `user:password host:port` of each connection.
    pub(crate) fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap()
    }
}

fn serve(mut client: TcpStream, target: SocketAddr, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let [version, methods] = octets(&mut client)?;
    let offered = text(&mut client, methods)?;
    if version != 5 || !offered.contains('\u{2}') {
        return client.write_all(&[5, 0xff]);
    }
    client.write_all(&[5, 2])?;
    let [_, length] = octets(&mut client)?;
    let user = text(&mut client, length)?;
    let [length] = octets(&mut client)?;
    let password = text(&mut client, length)?;
    client.write_all(&[1, 0])?;
    let [_, _connect, _, kind] = octets(&mut client)?;
    let host = match kind {
        1 => std::net::Ipv4Addr::from(octets::<4>(&mut client)?).to_string(),
        3 => {
            let [length] = octets(&mut client)?;
            text(&mut client, length)?
        }
        _ => std::net::Ipv6Addr::from(octets::<16>(&mut client)?).to_string(),
    };
    let port = u16::from_be_bytes(octets(&mut client)?);
    heard.lock().unwrap().push(format!("{user}:{password} {host}:{port}"));
    let mut server = TcpStream::connect(target)?;
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        // Either side may end it.
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    std::io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Both)
}

fn octets<const N: usize>(from: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut octets = [0; N];
    from.read_exact(&mut octets)?;
    Ok(octets)
}

fn text(from: &mut TcpStream, length: u8) -> std::io::Result<String> {
    let mut octets = vec![0; usize::from(length)];
    from.read_exact(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}
