use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Done;

/// A blocking connection with a buffer of what was read and not yet used.
pub(super) struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// What all connections of a process share.
pub(super) fn config(ca_file: &str) -> Done<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file)? {
        roots.add(certificate?)?;
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

impl Connection {
    pub(super) fn open(port: u16, config: &Arc<ClientConfig>) -> Done<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        let session = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
        Ok(Self { stream: StreamOwned::new(session, socket), buffer: vec![0; 64 << 10], start: 0, end: 0 })
    }

    pub(super) fn send(&mut self, octets: &[u8]) -> Done<()> {
        self.stream.write_all(octets)?;
        Ok(self.stream.flush()?)
    }

    /// What is there; reads when nothing is. Then [`used`](Self::used) says how much of it is done with.
    pub(super) fn peek(&mut self) -> Done<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = self.stream.read(&mut self.buffer)?;
            if self.end == 0 {
                return Err("the server ended the connection".into());
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    pub(super) fn used(&mut self, octets: usize) {
        self.start += octets;
    }

    /// Throws octets away.
    pub(super) fn skip(&mut self, mut octets: usize) -> Done<()> {
        while octets > 0 {
            let there = self.peek()?.len().min(octets);
            self.used(there);
            octets -= there;
        }
        Ok(())
    }

    /// One line with its line end, into `line`.
    pub(super) fn line(&mut self, line: &mut Vec<u8>) -> Done<()> {
        line.clear();
        loop {
            let there = self.peek()?;
            match memchr::memchr(b'\n', there) {
                Some(at) => {
                    line.extend_from_slice(&there[..=at]);
                    self.used(at + 1);
                    return Ok(());
                }
                None => {
                    line.extend_from_slice(there);
                    let all = there.len();
                    self.used(all);
                }
            }
        }
    }
}
