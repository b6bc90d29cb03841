//! Whether a request comes from our own page: `Host`, `Origin` and `Sec-Fetch-Site`.

use axum::http::{HeaderMap, Method, header};

/// Why a request was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It names a host that is not ours: a foreign name that resolves to us (DNS rebinding).
    Host,
    /// It was sent by another site's page.
    Origin,
}

/// The names we go by.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    /// Such as `https://mail.example.org`, without a path.
    public: Option<String>,
}

impl Origins {
    pub(crate) fn new(public_url: Option<&str>) -> Self {
        Self { public: public_url.map(|url| url.trim_end_matches('/').to_ascii_lowercase()) }
    }

    /// Whether cookies go over https only.
    pub(crate) fn https(&self) -> bool {
        self.public.as_ref().is_some_and(|url| url.starts_with("https://"))
    }

    /// Checks the host of every request.
    pub(crate) fn host(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let host = text(headers, header::HOST.as_str()).unwrap_or("").to_ascii_lowercase();
        let public = self.public.as_deref().and_then(|url| url.split_once("://")).is_some_and(|(_, name)| name == host);
        if public || is_loopback(&host) { Ok(()) } else { Err(Refused::Host) }
    }

    /// Checks that a request which changes something was sent by our own page.
    ///
    /// Browsers send `Sec-Fetch-Site` to https and loopback, and `Origin` with every POST. One that sends neither is not let through; programs
    /// use tokens, which no other site's page has.
    pub(crate) fn same(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        if method.is_safe() {
            return Ok(());
        }
        let site = text(headers, "sec-fetch-site");
        let origin = text(headers, header::ORIGIN.as_str());
        if site.is_none() && origin.is_none() {
            return Err(Refused::Origin);
        }
        let site_is_ours = site.is_none_or(|site| site == "same-origin");
        let origin_is_ours = origin.is_none_or(|origin| self.is_ours(origin, headers));
        if site_is_ours && origin_is_ours { Ok(()) } else { Err(Refused::Origin) }
    }

    fn is_ours(&self, origin: &str, headers: &HeaderMap) -> bool {
        let origin = origin.to_ascii_lowercase();
        let host = text(headers, header::HOST.as_str()).unwrap_or("").to_ascii_lowercase();
        Some(&origin) == self.public.as_ref() || (is_loopback(&host) && origin == format!("http://{host}"))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Whether a `Host` names this machine to itself, with any port.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    matches!(name, "localhost" | "[::1]")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::{Origins, Refused};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn a_foreign_name_that_resolves_to_us_is_not_ours() {
        let ours = Origins::new(Some("https://mail.example.org/"));
        for host in ["mail.example.org", "127.0.0.1:8025", "localhost", "[::1]:80", "127.9.9.9"] {
            assert_eq!(ours.host(&headers(&[("host", host)])), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "10.0.0.1",
            "",
            "mail.example.org.evil",
        ] {
            assert_eq!(ours.host(&headers(&[("host", host)])), Err(Refused::Host), "{host}");
        }
        assert_eq!(ours.host(&HeaderMap::new()), Err(Refused::Host));
    }

    #[test]
    fn only_our_own_page_changes_something() {
        let ours = Origins::new(Some("https://mail.example.org"));
        let host = ("host", "mail.example.org");
        let same = |fields: &[(&'static str, &'static str)]| ours.same(&Method::POST, &headers(fields)).is_ok();
        assert!(same(&[host, ("sec-fetch-site", "same-origin"), ("origin", "https://mail.example.org")]));
        assert!(same(&[host, ("origin", "https://mail.example.org")]));
        assert!(same(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(same(&[("host", "127.0.0.1:8025"), ("origin", "http://127.0.0.1:8025")]));
        assert!(!same(&[host]));
        assert!(!same(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!same(&[host, ("sec-fetch-site", "same-site")]));
        assert!(!same(&[host, ("sec-fetch-site", "none")]));
        assert!(!same(&[host, ("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")]));
        assert!(!same(&[host, ("origin", "http://mail.example.org")]));
        assert!(!same(&[host, ("origin", "null")]));
        assert!(!same(&[("host", "evil.example"), ("origin", "http://evil.example")]));
        assert!(ours.same(&Method::GET, &headers(&[host])).is_ok());
    }
}
