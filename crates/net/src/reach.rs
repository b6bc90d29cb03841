//! Which addresses may be connected to, for who is told by others where to connect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Which addresses may be connected to. The address is looked at, not the name, and what was looked at is connected to: a
/// name that means another address at the next look-up leads nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// All of them. The default.
    #[default]
    Anywhere,
    /// Those of the public internet, and of some networks beside.
    Public {
        /// Which.
        also: Vec<Network>,
    },
}

impl Reach {
    /// Whether it may be connected to.
    ///
    /// ```
    /// use connectord_net::Reach;
    /// let reach = Reach::Public { also: vec!["192.168.1.0/24".parse()?] };
    /// assert!(reach.allows("9.9.9.9".parse()?) && reach.allows("192.168.1.10".parse()?));
    /// // Nor by another way to write it.
    /// assert!(!reach.allows("169.254.169.254".parse()?) && !reach.allows("::ffff:127.0.0.1".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Public { also } => {
                let address = meant(address);
                is_public(address) || also.iter().any(|network| network.has(address))
            }
        }
    }
}

/// A network: an address of it, and how many of its first bits are the same for all.
///
/// Read from `192.168.0.0/16`, `fd00::/8`, or an address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a network such as 192.168.0.0/16 or fd00::/8")]
pub struct NetworkError;

impl Network {
    /// Whether an address is in it.
    pub fn has(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), self.bits, 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), self.bits, 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| NetworkError))?;
        if bits > most { Err(NetworkError) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Whether the first `bits` of `width` are the same.
fn same(one: u128, other: u128, bits: u8, width: u8) -> bool {
    // Shifted by all of 128 there is nothing left, which `checked_shr` says as none.
    let rest = u32::from(width.saturating_sub(bits));
    one.checked_shr(rest).unwrap_or_default() == other.checked_shr(rest).unwrap_or_default()
}

/// The IPv4 address that an IPv6 address stands for, if it stands for one: mapped ones (RFC 4291 §2.5.5.2), those of NAT64
/// (RFC 6052 §2.1) and of 6to4 (RFC 3056 §2).
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let segments = six.segments();
    let four = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

/// What is not public by the registries of RFC 6890.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, _] = four.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let protocols = (a, b, c) == (192, 0, 0);
            let measuring = a == 198 && (18..20).contains(&b);
            !(a == 0
                || a >= 224
                || shared
                || protocols
                || measuring
                || four.is_private()
                || four.is_loopback()
                || four.is_link_local()
                || four.is_documentation())
        }
        IpAddr::V6(six) => {
            let [first, second, ..] = six.segments();
            let site_local = first & 0xffc0 == 0xfec0;
            let documentation = (first, second) == (0x2001, 0x0db8);
            // The old form of an IPv4 address in an IPv6 one (RFC 4291 §2.5.5.1), the unspecified address and this host.
            let compatible = six.to_bits() >> 32 == 0;
            !(compatible
                || site_local
                || documentation
                || six.is_unique_local()
                || six.is_unicast_link_local()
                || six.is_multicast()
                || six == Ipv6Addr::UNSPECIFIED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_reached_however_an_address_is_written() {
        let reach = Reach::Public { also: Vec::new() };
        let allowed = |text: &str| reach.allows(text.parse().unwrap());
        for public in
            ["9.9.9.9", "193.99.144.80", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2620:fe::fe", "::ffff:9.9.9.9"]
        {
            assert!(allowed(public), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.10",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!allowed(private), "{private}");
            assert!(Reach::Anywhere.allows(private.parse().unwrap()));
        }
    }

    #[test]
    fn a_network_has_what_its_first_bits_say() {
        let has = |network: &str, address: &str| network.parse::<Network>().unwrap().has(address.parse().unwrap());
        assert!(has("192.168.0.0/16", "192.168.255.1") && !has("192.168.0.0/16", "192.169.0.1"));
        assert!(has("10.0.0.7", "10.0.0.7") && !has("10.0.0.7", "10.0.0.6"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "::1"));
        assert!(has("fd00::/8", "fd12::1") && !has("fd00::/8", "fc12::1") && has("::/0", "::1"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10/8", "x/8", "10.0.0.0/-1"] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
        }
        let mapped = Reach::Public { also: vec!["127.0.0.0/8".parse().unwrap()] };
        assert!(mapped.allows("::ffff:127.0.0.1".parse().unwrap()));
    }
}
