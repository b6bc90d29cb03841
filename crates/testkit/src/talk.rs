//! A small client for servers that keep mail where no test can write: it says lines and reads answers, always over TLS, so
//! that whoever answers has shown to be the server that was meant.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::{Certificates, Message, Service, process};

/// One connection, encrypted, its greeting read.
#[derive(Debug)]
pub(crate) struct Talk {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

/// Whether the server with these certificates answers there: another test's server may have got the port.
pub(crate) fn answers(port: u16, service: Service, certificates: &Certificates) -> bool {
    Talk::connect(port, service, certificates).is_ok()
}

impl Talk {
    /// Connects and starts TLS, at once or by STARTTLS or STLS.
    pub(crate) fn connect(port: u16, service: Service, certificates: &Certificates) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&process::loopback(port), Duration::from_secs(5))?;
        for timeout in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            timeout(&stream, Some(Duration::from_secs(60)))?;
        }
        let command = match service {
            Service::Imap => Some("s STARTTLS\r\n"),
            Service::Pop3 => Some("STLS\r\n"),
            _ => None,
        };
        if let Some(command) = command {
            let mut plain = BufReader::new(stream.try_clone()?);
            line(&mut plain)?;
            (&stream).write_all(command.as_bytes())?;
            let answer = line(&mut plain)?;
            if !(answer.starts_with("s OK") || answer.starts_with("+OK")) {
                return Err(io::Error::other(format!("{} was answered with {answer:?}", command.trim_end())));
            }
        }
        let name = ServerName::try_from("localhost").expect("localhost is a name");
        let tls = ClientConnection::new(Arc::clone(&certificates.client_config()), name).map_err(io::Error::other)?;
        let mut stream = BufReader::new(StreamOwned::new(tls, stream));
        if command.is_none() {
            line(&mut stream)?;
        } else {
            while stream.get_ref().conn.is_handshaking() {
                let StreamOwned { conn, sock } = stream.get_mut();
                conn.complete_io(sock)?;
            }
        }
        Ok(Self { stream })
    }

    /// LOGIN by IMAP; the password may hold no quotation mark and no backslash.
    pub(crate) fn login(&mut self, user: &str, password: &str) {
        self.command(&format!("LOGIN \"{user}\" \"{password}\""))
            .unwrap_or_else(|refusal| panic!("a login was refused: {refusal}"));
    }

    /// Gives an IMAP command and returns the untagged lines before its answer, or the answer if that is not OK.
    pub(crate) fn command(&mut self, command: &str) -> Result<Vec<String>, String> {
        self.send(format!("t {command}\r\n").as_bytes(), command);
        self.answer(command)
    }

    /// Appends a message by IMAP, its line ends as CRLF; the mailbox is named as on the wire.
    pub(crate) fn append(&mut self, mailbox: &str, message: &Message) -> Result<(), String> {
        let during = format!("APPEND {mailbox}");
        let octets = crate::servers::crlf(&message.octets);
        let flags = message.flags.join(" ");
        let command = format!("t APPEND \"{mailbox}\" ({flags}) {{{}}}\r\n", octets.len());
        self.send(command.as_bytes(), &during);
        let asked = self.line(&during);
        if !asked.starts_with('+') {
            return Err(asked);
        }
        self.send(&[&octets[..], b"\r\n"].concat(), &during);
        self.answer(&during).map(drop)
    }

    fn answer(&mut self, during: &str) -> Result<Vec<String>, String> {
        let mut untagged = Vec::new();
        loop {
            let line = self.line(during);
            match line.strip_prefix("t ") {
                Some(answer) if answer.starts_with("OK") => return Ok(untagged),
                Some(answer) => return Err(answer.to_owned()),
                None => untagged.push(line),
            }
        }
    }

    fn send(&mut self, octets: &[u8], during: &str) {
        let stream = self.stream.get_mut();
        stream.write_all(octets).and_then(|()| stream.flush()).unwrap_or_else(|e| panic!("{e} (during {during})"));
    }

    fn line(&mut self, during: &str) -> String {
        line(&mut self.stream).unwrap_or_else(|e| panic!("{e} (during {during})"))
    }
}

/// One line without its end.
fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    // A server gone mad must not take our memory.
    stream.take(1 << 20).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
}
