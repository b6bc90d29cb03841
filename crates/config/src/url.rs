//! Accounts and proxies written as URLs.

use connectord_account::{Account, Folder, Protocol, ProxySettings};
use connectord_wire::{Endpoint, EndpointError, Secret, Security};

/// Longest URL that is looked at, in octets.
const MAX_LENGTH: usize = 4096;

/// Why a text is no URL of an account or a proxy. No variant holds any part of a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// No scheme, or none that is known.
    #[error("expected {expected}")]
    Scheme {
        /// The forms that are known.
        expected: &'static str,
    },
    /// No user name before the host.
    #[error("expected a user name before the host, as in imaps://user@host")]
    NoUser,
    /// A password in an argument is visible to everybody on the machine.
    #[error(
        "a password must not be in the URL, where every user of this machine can see it; write %3A for a colon in the user name"
    )]
    Password,
    /// The host or port is not one.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
    /// Port 0, or no number up to 65535.
    #[error("expected a port from 1 to 65535")]
    Port,
    /// `%` without two hexadecimal digits, octets that are not UTF-8, or control characters.
    #[error("{part} has a broken percent escape, or a control character")]
    Escape {
        /// Which part.
        part: &'static str,
    },
    /// A character that must be escaped.
    #[error("{found:?} must be written as %{:02X} here", u32::from(*.found))]
    Reserved {
        /// The character.
        found: char,
    },
    /// POP3 has no mailboxes.
    #[error("POP3 knows no mailboxes: nothing may follow the host")]
    Mailbox,
    /// Longer than 4,096 octets.
    #[error("longer than 4096 octets")]
    Length,
}

/// The schemes of accounts.
const SCHEMES: [(&str, Protocol, Security); 6] = [
    ("imaps", Protocol::Imap, Security::Tls),
    ("pop3s", Protocol::Pop3, Security::Tls),
    ("imap", Protocol::Imap, Security::StartTls),
    ("pop3", Protocol::Pop3, Security::StartTls),
    ("imap+insecure", Protocol::Imap, Security::None),
    ("pop3+insecure", Protocol::Pop3, Security::None),
];

/// Reads `imaps://user@host[:port][/mailbox]` or `pop3s://user@host[:port]`, as `connectord fetch URL` takes it.
///
/// | scheme | what must be encrypted |
/// |---|---|
/// | `imaps`, `pop3s` | everything, from the first octet |
/// | `imap`, `pop3` | everything but the greeting: STARTTLS is required |
/// | `imap+insecure`, `pop3+insecure` | nothing |
///
/// User and mailbox may have percent escapes; the last `@` ends the user name, so `imaps://ann@example.org@host` needs none.
/// The account is named `user@host`, or by the user when that has an `@`; its mail is for that name, it has no password and
/// is not checked regularly.
///
/// ```
/// use connectord_account::Folder;
/// use connectord_config::url::parse_fetch_url;
/// let account = parse_fetch_url("imaps://ann%40example.org@imap.example.org/Work%2F2026")?;
/// assert_eq!((account.username.as_str(), account.endpoint.port()), ("ann@example.org", 993));
/// assert_eq!(account.folders, [Folder::Name("Work/2026".into())]);
/// # Ok::<(), connectord_config::url::UrlError>(())
/// ```
///
/// # Errors
/// [`UrlError`]; a password in the URL is one.
pub fn parse_fetch_url(url: &str) -> Result<Account, UrlError> {
    let expected = "imaps://user@host[:port][/mailbox], pop3s://user@host[:port], or imap:// and pop3:// for STARTTLS";
    let (scheme, rest) = split_scheme(url, expected)?;
    let (_, protocol, security) =
        SCHEMES.into_iter().find(|(known, ..)| *known == scheme).ok_or(UrlError::Scheme { expected })?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').ok_or(UrlError::NoUser)?;
    if user.contains(':') {
        return Err(UrlError::Password);
    }
    // RFC 5092 §3: ";AUTH=" and ";UIDVALIDITY=" have meanings that are not offered here.
    if let Some(found) = user.chars().chain(path.chars()).find(|c| matches!(c, ';' | '?' | '#')) {
        return Err(UrlError::Reserved { found });
    }
    let username = decode(user, "the user name")?;
    if username.is_empty() {
        return Err(UrlError::NoUser);
    }
    let endpoint = endpoint(host, Some(protocol.default_port(security)))?;
    let mailbox = decode(path.trim_end_matches('/'), "the mailbox")?;
    if protocol == Protocol::Pop3 && !mailbox.is_empty() {
        return Err(UrlError::Mailbox);
    }
    let address = if username.contains('@') { username.clone() } else { format!("{username}@{}", endpoint.host()) };
    let mut account = Account::new(&address, protocol, endpoint, &address);
    account.security = security;
    account.username = username;
    account.check = connectord_account::Check::Never;
    if !mailbox.is_empty() && !mailbox.eq_ignore_ascii_case("INBOX") {
        account.folders = vec![Folder::Name(mailbox)];
    }
    Ok(account)
}

/// Reads `socks5://[user:password@]host:port` or `http://[user:password@]host:port`, with percent escapes.
///
/// ```
/// let proxy = connectord_config::url::parse_proxy("socks5://127.0.0.1:9050")?;
/// assert_eq!((proxy.socks5, proxy.endpoint.port()), (true, 9050));
/// # Ok::<(), connectord_config::url::UrlError>(())
/// ```
///
/// # Errors
/// [`UrlError`], without any part of the password.
pub fn parse_proxy(url: &str) -> Result<ProxySettings, UrlError> {
    let expected = "socks5://[user:password@]host:port or http://[user:password@]host:port";
    let (scheme, rest) = split_scheme(url, expected)?;
    let socks5 = match scheme {
        "socks5" => true,
        "http" => false,
        _ => return Err(UrlError::Scheme { expected }),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => {
            let (user, password) = login.split_once(':').ok_or(UrlError::Scheme { expected })?;
            let password = Secret::from(decode(password, "the password")?);
            (Some((decode(user, "the user name")?, password)), host)
        }
        None => (None, rest),
    };
    Ok(ProxySettings { socks5, endpoint: endpoint(host, None)?, login })
}

fn split_scheme<'u>(url: &'u str, expected: &'static str) -> Result<(&'u str, &'u str), UrlError> {
    if url.len() > MAX_LENGTH {
        return Err(UrlError::Length);
    }
    url.split_once("://").ok_or(UrlError::Scheme { expected })
}

/// Host and port; in brackets stands an IPv6 address.
fn endpoint(text: &str, default_port: Option<u16>) -> Result<Endpoint, UrlError> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address in brackets are no port's.
        Some((_, behind)) if behind.ends_with(']') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0),
        None => default_port,
    };
    Ok(Endpoint::new(host, port.ok_or(UrlError::Port)?)?)
}

/// Undoes percent escapes (RFC 3986 §2.1).
fn decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    let error = UrlError::Escape { part };
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let Some((digits, behind)) = rest.split_at_checked(2) else { return Err(error) };
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(digits[0]), digit(digits[1])) else { return Err(error) };
        octets.push(high << 4 | low);
        rest = behind;
    }
    String::from_utf8(octets).ok().filter(|text| !text.chars().any(char::is_control)).ok_or(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fetch(url: &str) -> (String, String, Protocol, Security, String, Vec<Folder>) {
        let account = parse_fetch_url(url).unwrap();
        let endpoint = account.endpoint.to_string();
        (account.address, account.username, account.protocol, account.security, endpoint, account.folders)
    }

    #[test]
    fn every_scheme_says_what_must_be_encrypted() {
        let inbox = || vec![Folder::Name("INBOX".into())];
        for (url, protocol, security, endpoint) in [
            ("imaps://ann@host", Protocol::Imap, Security::Tls, "host:993"),
            ("imap://ann@host/", Protocol::Imap, Security::StartTls, "host:143"),
            ("imap+insecure://ann@host:1143/inbox", Protocol::Imap, Security::None, "host:1143"),
            ("pop3s://ann@host", Protocol::Pop3, Security::Tls, "host:995"),
            ("pop3://ann@host", Protocol::Pop3, Security::StartTls, "host:110"),
            ("pop3+insecure://ann@host", Protocol::Pop3, Security::None, "host:110"),
        ] {
            let expected = ("ann@host".into(), "ann".into(), protocol, security, endpoint.into(), inbox());
            assert_eq!(fetch(url), expected, "{url}");
        }
    }

    #[test]
    fn a_user_name_may_be_an_address_and_a_host_ipv6() {
        let (address, username, .., endpoint, folders) = fetch("imaps://a%3Ab@x.org@[2001:db8::1]:1993/M%C3%BCll/x");
        assert_eq!((address.as_str(), username.as_str()), ("a:b@x.org", "a:b@x.org"));
        assert_eq!((endpoint.as_str(), folders), ("[2001:db8::1]:1993", vec![Folder::Name("Müll/x".into())]));
        assert_eq!(fetch("imaps://a@[::1]").4, "[::1]:993");
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_shown() {
        let error = parse_fetch_url("imaps://ann:hunter2@host").unwrap_err();
        assert_eq!(error, UrlError::Password);
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |url: &str| parse_fetch_url(url).unwrap_err().to_string();
        assert_eq!(error("imaps://host"), "expected a user name before the host, as in imaps://user@host");
        assert_eq!(error("imaps://ann@host:0"), "expected a port from 1 to 65535");
        assert_eq!(error("imaps://ann@ho st"), "' ' at position 2 is not allowed in a host name");
        assert_eq!(error("imaps://a%0Ab@host"), "the user name has a broken percent escape, or a control character");
        assert_eq!(error("imaps://a%zzb@host"), "the user name has a broken percent escape, or a control character");
        assert_eq!(error("imaps://a;AUTH=PLAIN@host"), "';' must be written as %3B here");
        assert_eq!(error("pop3s://a@host/INBOX"), "POP3 knows no mailboxes: nothing may follow the host");
        assert!(error("ftp://a@host").starts_with("expected imaps://"));
    }

    #[test]
    fn a_proxy_has_a_login_or_none() {
        let proxy = parse_proxy("http://ann:p%40ss:x@proxy.test:3128/").unwrap();
        let login = Some(("ann".to_owned(), Secret::from("p@ss:x")));
        assert_eq!(proxy, ProxySettings { socks5: false, endpoint: "proxy.test:3128".parse().unwrap(), login });
        assert_eq!(parse_proxy("socks5://host"), Err(UrlError::Port));
        assert_eq!(parse_proxy("socks5://ann:%@host:1"), Err(UrlError::Escape { part: "the password" }));
    }

    proptest! {
        #[test]
        fn any_text_is_an_account_or_an_error(text in "(imaps|pop3|socks5|http)://\\PC{0,60}") {
            let _ = (parse_fetch_url(&text), parse_proxy(&text));
        }
    }
}
