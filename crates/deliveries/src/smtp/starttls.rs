use std::io;
use std::time::Duration;

use connectord_delivery::{Failure, FailureKind};
use connectord_lmtp::Reply;
use connectord_lmtp::parse::{Limits, Replies};
use connectord_net::Stream;
use connectord_wire::Inbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMITS: Limits = Limits { line_octets: 4096, lines: 100 };

/// Greeting, EHLO and STARTTLS (RFC 3207), up to where the TLS handshake begins.
///
/// Not lettre's, because its TLS knows neither our trust settings nor our proxies.
pub(super) async fn ask(mut stream: Stream, server: &str, host_name: &str, limit: Duration) -> Result<Stream, Failure> {
    let mut replies = Reader { server, inbox: Inbox::new(), replies: Replies::default(), limit };
    let greeting = replies.read(&mut stream, "the greeting").await?;
    if !greeting.is_success() {
        return Err(refused(server, "the greeting", &greeting));
    }
    replies.write(&mut stream, format!("EHLO {host_name}\r\n").as_bytes(), "EHLO").await?;
    let hello = replies.read(&mut stream, "EHLO").await?;
    if !hello.is_success() {
        return Err(refused(server, "EHLO", &hello));
    }
    let offered = hello.lines.iter().skip(1).any(|line| line.trim_ascii().eq_ignore_ascii_case(b"STARTTLS"));
    if !offered {
        let text = format!("{server} does not offer STARTTLS, which is required");
        return Err(Failure::new(FailureKind::Misconfigured, text));
    }
    replies.write(&mut stream, b"STARTTLS\r\n", "STARTTLS").await?;
    let answer = replies.read(&mut stream, "STARTTLS").await?;
    if !answer.is_success() {
        return Err(refused(server, "STARTTLS", &answer));
    }
    // Octets behind the answer were put there by somebody in between (CVE-2011-0411), or by a broken server.
    if !replies.inbox.is_empty() {
        let text = format!("{server} sent plaintext behind its answer to STARTTLS, expected nothing before TLS");
        return Err(Failure::new(FailureKind::Unavailable, text));
    }
    Ok(stream)
}

fn refused(server: &str, during: &str, reply: &Reply) -> Failure {
    let kind = if reply.code < 500 { FailureKind::Unavailable } else { FailureKind::Misconfigured };
    Failure::new(kind, format!("{server} answered \"{reply}\" (during {during})")).with_status(reply.status)
}

struct Reader<'a> {
    server: &'a str,
    inbox: Inbox,
    replies: Replies,
    limit: Duration,
}

impl Reader<'_> {
    async fn read(&mut self, stream: &mut Stream, during: &str) -> Result<Reply, Failure> {
        let mut buffer = [0; 4096];
        loop {
            let server = self.server;
            let broken = |text: String| {
                Failure::new(
                    FailureKind::Unavailable,
                    format!("{server}: {text} (while waiting for the answer to {during})"),
                )
            };
            if let Some(reply) = self.replies.next(&mut self.inbox, LIMITS).map_err(|e| broken(e.to_string()))? {
                return Ok(reply);
            }
            let read = tokio::time::timeout(self.limit, stream.read(&mut buffer)).await;
            match read.unwrap_or_else(|_| Err(silent(self.limit))) {
                Ok(0) => return Err(broken("server closed the connection".to_owned())),
                Ok(count) => self.inbox.extend(&buffer[..count]),
                Err(error) => return Err(broken(error.to_string())),
            }
        }
    }

    async fn write(&self, stream: &mut Stream, octets: &[u8], during: &str) -> Result<(), Failure> {
        let write = async {
            stream.write_all(octets).await?;
            stream.flush().await
        };
        let written = tokio::time::timeout(self.limit, write).await.unwrap_or_else(|_| Err(silent(self.limit)));
        written.map_err(|error| {
            Failure::new(FailureKind::Unavailable, format!("{}: {error} (while sending {during})", self.server))
        })
    }
}

fn silent(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {:.3} s", limit.as_secs_f64()))
}
