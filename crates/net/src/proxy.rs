//! Passing a proxy: SOCKS5 by tokio-socks, HTTP CONNECT here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use connectord_wire::{Endpoint, Escaped};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_socks::tcp::Socks5Stream;

use crate::{Proxy, ProxyAuth, ProxyProblem};

/// Longest answer to CONNECT, in octets with its header fields.
const MAX_ANSWER: usize = 16 * 1024;

/// Characters of a refusal that are shown.
const MAX_SHOWN: usize = 200;

/// Has the proxy connect to `target`; gives the stream and what the server said already.
///
/// A mail server speaks first, so its greeting may come in the same segment as the proxy's reply. It must not be lost.
pub(crate) async fn pass<S>(proxy: &Proxy, stream: S, target: &Endpoint) -> Result<(S, Bytes), ProxyProblem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match proxy {
        // tokio-socks reads exactly the reply, so the greeting stays in the socket.
        Proxy::Socks5 { auth, .. } => Ok((socks5(stream, target, auth.as_ref()).await?, Bytes::new())),
        Proxy::Http { auth, .. } => http(stream, target, auth.as_ref()).await,
    }
}

async fn socks5<S>(stream: S, target: &Endpoint, auth: Option<&ProxyAuth>) -> Result<S, ProxyProblem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let to = (target.host(), target.port());
    let connected = match auth {
        None => Socks5Stream::connect_with_socket(stream, to).await,
        Some(auth) => {
            let password = std::str::from_utf8(auth.password.expose()).map_err(|_| ProxyProblem::Authentication)?;
            Socks5Stream::connect_with_password_and_socket(stream, to, &auth.username, password).await
        }
    };
    connected.map(Socks5Stream::into_inner).map_err(|error| {
        use tokio_socks::Error as Socks;
        match error {
            Socks::NoAcceptableAuthMethods
            | Socks::PasswordAuthFailure(_)
            | Socks::AuthorizationRequired
            | Socks::InvalidAuthValues(_) => ProxyProblem::Authentication,
            Socks::Io(error) => ProxyProblem::Broken { text: error.to_string() },
            Socks::InvalidResponseVersion
            | Socks::UnknownAuthMethod
            | Socks::InvalidReservedByte
            | Socks::UnknownAddressType => {
                ProxyProblem::Protocol { expected: "a SOCKS5 reply", found: error.to_string() }
            }
            error => ProxyProblem::Refused { text: error.to_string() },
        }
    })
}

/// RFC 9110 §9.3.6.
async fn http<S>(mut stream: S, target: &Endpoint, auth: Option<&ProxyAuth>) -> Result<(S, Bytes), ProxyProblem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: std::io::Error| ProxyProblem::Broken { text: error.to_string() };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(auth) = auth {
        let pair = [auth.username.as_bytes(), b":", auth.password.expose()].concat();
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(pair)));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;

    let mut answer = BytesMut::with_capacity(1024);
    loop {
        let before = answer.len();
        if stream.read_buf(&mut answer).await.map_err(broken)? == 0 {
            return Err(ProxyProblem::Broken { text: "it closed the connection".to_owned() });
        }
        // Only a line end can complete the answer.
        if answer[before..].contains(&b'\n')
            && let Some(head) = head(&answer)?
        {
            let greeting = answer.split_off(head).freeze();
            return Ok((stream, greeting));
        }
        if answer.len() > MAX_ANSWER {
            return Err(protocol(&answer));
        }
    }
}

/// Length of the answer's head once it is there and says yes.
pub(crate) fn head(answer: &[u8]) -> Result<Option<usize>, ProxyProblem> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(answer) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => match response.code {
            Some(200..=299) => Ok(Some(length)),
            Some(407) => Err(ProxyProblem::Authentication),
            code => {
                let reason = response.reason.unwrap_or_default().chars().take(MAX_SHOWN).collect::<String>();
                let text = format!("{} {reason}", code.unwrap_or_default());
                Err(ProxyProblem::Refused { text: Escaped::text(text.trim_end()).to_string() })
            }
        },
        Err(_) => Err(protocol(answer)),
    }
}

fn protocol(answer: &[u8]) -> ProxyProblem {
    let shown = &answer[..answer.len().min(100)];
    ProxyProblem::Protocol { expected: "an HTTP answer to CONNECT", found: Escaped(shown).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_once_it_is_whole() {
        let whole = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n* OK hello";
        let length = whole.len() - b"* OK hello".len();
        for end in 0..length {
            assert_eq!(head(&whole[..end]), Ok(None), "{end}");
        }
        assert_eq!(head(whole), Ok(Some(length)));
        assert_eq!(head(b"HTTP/1.0 407 Who\r\n\r\n"), Err(ProxyProblem::Authentication));
        assert_eq!(
            head(b"HTTP/1.1 403 Not to this port\r\n\r\n"),
            Err(ProxyProblem::Refused { text: "403 Not to this port".into() })
        );
        assert!(matches!(head(b"* OK IMAP4rev1 ready\r\n"), Err(ProxyProblem::Protocol { .. })));
    }
}
