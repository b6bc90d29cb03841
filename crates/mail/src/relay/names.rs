use std::fmt;
use std::net::IpAddr;

/// A range of addresses.
///
/// ```
/// use connectord_mail::relay::Network;
/// let network: Network = "2001:db8::/32".parse().unwrap();
/// assert!(network.contains("2001:db8:1::7".parse().unwrap()));
/// assert!(!network.contains("192.0.2.7".parse().unwrap()));
/// assert_eq!("192.0.2.7".parse::<Network>().unwrap().to_string(), "192.0.2.7/32");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

/// What is no domain and no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is neither a domain nor an address or range of addresses: {reason}; expected for example \"provider.example\" or \"192.0.2.0/24\""
)]
pub struct RelayError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Whether mail can come from an address over the internet.
pub fn is_routable(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || a == 0
                || a >= 224
                // RFC 6598: carriers' and cloud networks' own.
                || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            // 6to4 of a private address, as Gmail names its own hosts: 2002:a05:... is 10.5.x.x (RFC 3056 §2).
            let [a, b] = second.to_be_bytes();
            let inner_private = first == 0x2002 && (a == 10 || (a == 192 && b == 168) || (a == 172 && b & 0xf0 == 16));
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80
                || inner_private)
        }
    }
}

/// Whether a host's name is `pattern` or below it; `*` stands for any letters.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let pattern = pattern.strip_prefix('.').unwrap_or(pattern);
    if pattern.is_empty() || name.is_empty() {
        return false;
    }
    if pattern.contains('*') {
        return crate::wild::matches(pattern, &name);
    }
    let end = name.len().checked_sub(pattern.len());
    end.is_some_and(|at| {
        name.is_char_boundary(at)
            && name[at..].eq_ignore_ascii_case(pattern)
            && (at == 0 || name.as_bytes()[at - 1] == b'.')
    })
}

pub(super) fn domain(entry: &str) -> Result<String, RelayError> {
    let wrong = |reason| Err(RelayError { text: entry.chars().take(100).collect(), reason });
    let name = entry.strip_prefix('.').unwrap_or(entry);
    if name.is_empty() || name.len() > 253 {
        return wrong("it is empty or too long");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*')) {
        return wrong("it has a character that no domain has");
    }
    if name.chars().all(|c| matches!(c, '*' | '.')) {
        return wrong("it would trust everybody");
    }
    Ok(name.to_ascii_lowercase())
}

impl Network {
    /// Whether `address` is within the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(32 - u32::from(self.length)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Network {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        let wrong = |reason| RelayError { text: text.chars().take(100).collect(), reason };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong("the address cannot be read"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length =
            length.map_or(Ok(most), str::parse).map_err(|_| wrong("the length of the prefix cannot be read"))?;
        if length > most {
            return Err(wrong("the prefix is longer than the address"));
        }
        if length == 0 {
            return Err(wrong("it would trust everybody"));
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Relays;
    use super::*;

    #[test]
    fn a_domain_is_itself_and_what_is_below_it() {
        for (pattern, name, expected) in [
            ("provider.test", "provider.test", true),
            ("provider.test", "mx.Provider.TEST.", true),
            (".provider.test", "mx.provider.test", true),
            ("provider.test", "myprovider.test", false),
            ("provider.test", "provider.test.evil.test", false),
            ("provider.test", "", false),
            ("slot*", "sloti26t01", true),
            ("slot*", "evil.slot", false),
            ("*.pool.test", "a.pool.test", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn no_unroutable_address_is_a_client() {
        for inside in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.31.0.1",
            "169.254.1.1",
            "100.90.174.1",
            "0.0.0.0",
            "255.255.255.255",
            "239.1.1.1",
            "fe80::1",
            "fd00::1",
            "2002:a59:b96f::1",
            "::",
        ] {
            assert!(!is_routable(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.0.2.7", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "2002:808:808::1"] {
            assert!(is_routable(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn nothing_that_trusts_everybody_is_accepted() {
        for entry in ["*", "0.0.0.0/0", "::/0", "", ".", "*.*", "a b", "192.0.2.0/33", "192.0.2/24", "ü.test"] {
            assert!(Relays::parse([entry]).is_err(), "{entry}");
        }
    }
}
