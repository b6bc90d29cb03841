//! Whose Received fields are believed, and what they tell of the host that handed a message to the provider.
//!
//! Every Received field but the topmost ones may have been written by the sender. The walk goes from the top: a field
//! counts when the provider's own host wrote it, and leads on when the message came from inside the provider. The first
//! one that came from outside is the **hand-off**: its client is the one that SPF, DMARC and block lists are about.
//! What stands below was written by that client or whoever used it, and is never believed.
//!
//! # What a forger cannot do
//!
//! - Fields below the hand-off are not looked at, whatever they say.
//! - A HELO makes nobody an insider: only an address does, private or within the provider's own
//!   [networks](Relays::networks). Where a field of the provider names no address, it must name one of the provider's
//!   [hosts](Relays::hosts) and be followed by a field of that very host.
//! - The way inside must be unbroken: the host that a field names as its client wrote the next one. Else whoever can
//!   make a provider's inner host omit its field could write the next one. [`Relays::gaps`] allows gaps for providers
//!   whose hosts write under other names than those they are called by.
//! - Where the client inside had logged in, the walk ends: its message is the sender's from there on.
//! - A loopback, private, or otherwise unroutable address is never the client.
//!
//! What the walk cannot see: whether a provider writes fields at all. Trusting a provider that does not is believing
//! the sender; that is why trust is per account, and written down by a person.

mod learn;
mod names;
mod profiles;

use std::net::IpAddr;

pub use learn::{Proposal, propose};
pub use names::{Network, RelayError, is_routable};
use names::{domain, matches};
pub use profiles::{PROFILES, Profile};

use crate::received::{Received, Tls};
use crate::{AuthenticationResults, Head};

/// Most Received fields that the walk looks at; RFC 5321 §6.3 calls 100 a loop.
pub const MAX_HOPS: usize = 100;

/// Most Authentication-Results fields that are taken.
const MAX_RESULTS: usize = 16;

/// What is believed of the fields in front of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relays {
    /// The provider's own hosts, whose fields are believed: `provider.test` is that host and all below it; `*` stands
    /// for any letters: `slot*`.
    pub hosts: Vec<String>,
    /// Addresses of hosts that only the provider itself uses, besides the private ones. Not those of the hosts that
    /// send its customers' mail: what comes from these is handed over like anybody's.
    pub networks: Vec<Network>,
    /// Whose Authentication-Results are believed, written as `hosts`; empty text is the field without an authserv-id.
    pub authserv_ids: Vec<String>,
    /// Where those stand.
    pub results: Results,
    /// Whether the way inside the provider may have gaps.
    pub gaps: bool,
}

/// Where a provider puts its Authentication-Results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Results {
    /// Above the Received field of the hand-off, as RFC 8601 §4 has it.
    #[default]
    Above,
    /// Below it, before the next Received field; the first of each authserv-id counts (Gmail, iCloud).
    Below,
}

/// Whose an Authentication-Results field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The provider's own, which is believed.
    Provider,
    /// It claims to be the provider's, and is not known to be, or nobody can tell what it claims: RFC 8601 §5 has it deleted.
    Forged,
    /// Somebody else's, who is not believed.
    Foreign,
}

/// What is known of the host that handed a message to the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// The provider's own field tells.
    Known(Box<Handoff>),
    /// Nothing that can be believed tells.
    Unknown(Unknown),
}

impl Default for Client {
    fn default() -> Self {
        Self::Unknown(Unknown::NobodyTrusted)
    }
}

/// How a message was handed to the provider, as the provider's own host wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// The client's address: routable, never loopback or private.
    pub address: IpAddr,
    /// The name of that address (reverse DNS) as the provider wrote it.
    pub name: Option<String>,
    /// Whether the provider's software looks that name up in both directions.
    pub name_confirmed: bool,
    /// What the client called itself.
    pub helo: Option<String>,
    /// The protocol as written: `ESMTPS`, `Microsoft SMTP Server`.
    pub protocol: Option<String>,
    /// What is said of TLS.
    pub tls: Option<Tls>,
    /// Whether the client had logged in: one of the provider's own customers.
    pub authenticated: bool,
    /// The envelope recipient, where it is told.
    pub recipient: Option<String>,
    /// The host of the provider that took the message.
    pub by: String,
    /// Received fields above, all the provider's own.
    pub hops: usize,
}

/// Why the client is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// No relay is trusted for this account.
    #[error("no relay is trusted")]
    NobodyTrusted,
    /// The message has no Received field, or none that names a client before the provider's own end.
    #[error("no Received field of a trusted relay names a client outside")]
    NoHandoff,
    /// A field before the hand-off was written by another host.
    #[error("the Received field {hop} was written by {by}, which is not trusted")]
    NotTrusted {
        /// The field, counted from the top, which is 1.
        hop: usize,
        /// Who wrote it; escaped.
        by: String,
    },
    /// The host that a field names as its client did not write the next one.
    #[error("the Received field {hop} does not follow from the one above it")]
    Gap {
        /// The field, counted from the top, which is 1.
        hop: usize,
    },
    /// A field of a trusted relay names no address of its client.
    #[error("the Received field {hop} names no address")]
    NoAddress {
        /// The field, counted from the top, which is 1.
        hop: usize,
    },
    /// A field has two meanings.
    #[error("the Received field {hop} can be read in two ways")]
    Ambiguous {
        /// The field, counted from the top, which is 1.
        hop: usize,
    },
}

impl Relays {
    /// Reads `trusted_relays` of the configuration: domains, addresses and ranges of addresses in any order. A domain
    /// is believed as writer of Received fields and as authserv-id; a range marks hosts inside the provider.
    ///
    /// # Errors
    /// [`RelayError`] for the first entry that is neither.
    ///
    /// ```
    /// use connectord_mail::Relays;
    /// let relays = Relays::parse(["provider.test", "198.51.100.0/24"]).unwrap();
    /// assert!(relays.is_host("MX1.provider.test"));
    /// assert!(!relays.is_host("provider.test.attacker.test"));
    /// assert!(Relays::parse(["http://provider.test"]).is_err());
    /// ```
    pub fn parse<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, RelayError> {
        let mut relays = Self::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            if entry.contains('/') || entry.parse::<IpAddr>().is_ok() {
                relays.networks.push(entry.parse()?);
            } else {
                let domain = domain(entry)?;
                relays.authserv_ids.push(domain.clone());
                relays.hosts.push(domain);
            }
        }
        Ok(relays)
    }

    /// Whether a host of this name is one of the provider's.
    pub fn is_host(&self, name: &str) -> bool {
        self.hosts.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether an address is inside: loopback, private, link-local, or in one of the [networks](Self::networks).
    pub fn is_inside(&self, address: IpAddr) -> bool {
        !is_routable(address) || self.networks.iter().any(|network| network.contains(address))
    }

    /// Walks the Received fields from the top to the hand-off.
    pub fn client(&self, head: Head<'_>) -> Client {
        self.transport(head).0
    }

    /// The provider's own Authentication-Results: by authserv-id, and only where the provider puts them. None when the
    /// client is unknown, as then it is not known either where the provider's part of the header ends.
    pub fn authentication_results(&self, head: Head<'_>) -> Vec<AuthenticationResults> {
        self.transport(head).1
    }

    /// All of it, by one walk; the last is whose each Authentication-Results field is.
    pub(crate) fn transport(&self, head: Head<'_>) -> (Client, Vec<AuthenticationResults>, Vec<Origin>) {
        let (client, at) = match self.walk(head) {
            Ok((at, handoff)) => (Client::Known(Box::new(handoff)), Some(at)),
            Err(unknown) => (Client::Unknown(unknown), None),
        };
        let (results, origins) = self.results_around(head, at);
        (client, results, origins)
    }

    /// The provider's results, where `handoff` is the place of the hand-off among all fields, and whose each is.
    fn results_around(&self, head: Head<'_>, handoff: Option<usize>) -> (Vec<AuthenticationResults>, Vec<Origin>) {
        let (mut found, mut origins): (Vec<AuthenticationResults>, _) = (Vec::new(), Vec::new());
        let place = match (self.results, handoff) {
            (_, None) => 0..0,
            (Results::Above, Some(at)) => 0..at,
            (Results::Below, Some(at)) => {
                let mut below = head.fields().enumerate().skip(at + 1);
                at + 1..below.find(|(_, field)| field.is("Received")).map_or(usize::MAX, |(next, _)| next)
            }
        };
        for (at, field) in head.every_field().enumerate().filter(|(_, field)| field.is("Authentication-Results")) {
            let results = AuthenticationResults::parse(field.value);
            let (is_in_place, is_named) = (place.contains(&at), results.as_ref().map(|results| self.names(results)));
            // Below the hand-off the sender's own begin somewhere; a provider writes each of its fields once, first.
            let is_first = |results: &AuthenticationResults| {
                self.results == Results::Above || !found.iter().any(|known| known.authserv_id == results.authserv_id)
            };
            origins.push(match (results, is_named) {
                (Some(results), Some(true)) if is_in_place && found.len() < MAX_RESULTS && is_first(&results) => {
                    found.push(results);
                    Origin::Provider
                }
                // Whatever is above the hand-off the provider let stand.
                _ if is_in_place && self.results == Results::Above => Origin::Foreign,
                (_, Some(false)) => Origin::Foreign,
                // What cannot be read may be read by others.
                (_, None) if self.authserv_ids.is_empty() => Origin::Foreign,
                _ => Origin::Forged,
            });
        }
        (found, origins)
    }

    /// Whether a field says that one of those whose results are believed wrote it.
    fn names(&self, field: &AuthenticationResults) -> bool {
        // RFC 8601 §2.2: an authserv-id may be a quoted string.
        let id = field.authserv_id.replace(['"', '\\'], "");
        let id = id.trim_end_matches('.');
        self.authserv_ids.iter().any(|pattern| {
            if pattern.is_empty() || id.is_empty() { pattern.is_empty() && id.is_empty() } else { matches(pattern, id) }
        })
    }

    /// The hand-off and its place among all fields.
    fn walk(&self, head: Head<'_>) -> Result<(usize, Handoff), Unknown> {
        if self.hosts.is_empty() {
            return Err(Unknown::NobodyTrusted);
        }
        let mut previous: Option<Inside> = None;
        let received = head.fields().enumerate().filter(|(_, field)| field.is("Received")).take(MAX_HOPS);
        for (hop, (at, field)) in received.enumerate() {
            let received = Received::parse(field.value);
            let hop = hop + 1;
            if received.ambiguous {
                return Err(Unknown::Ambiguous { hop });
            }
            if received.from.is_none() && received.by.is_none() {
                // qmail's `(qmail 123 invoked by uid 7)` tells nothing, and leads on as if it were not there.
                continue;
            }
            let by = received.by.as_deref().unwrap_or_default();
            let linked = previous.as_ref().is_some_and(|inside| inside.leads_to(&received));
            let own = self.is_host(by)
                || received.by_address.is_some_and(|address| {
                    crate::received::address(by) == Some(address) && self.networks.iter().any(|n| n.contains(address))
                });
            // On one machine programs call themselves as they like (`localhost`, the host's other name).
            let same_machine = linked && previous.as_ref().is_some_and(|inside| inside.by.is_some());
            if !own && !same_machine {
                return Err(Unknown::NotTrusted { hop, by: shown(by) });
            }
            if previous.as_ref().is_some_and(|inside| inside.named() && !linked) && !self.gaps {
                return Err(Unknown::Gap { hop });
            }
            let Some(peer) = &received.from else {
                previous = Some(Inside::default());
                continue;
            };
            match peer.address {
                Some(address) if !self.is_inside(address) => {
                    return Ok((at, handoff(&received, address, hop - 1)));
                }
                // A customer of the provider; whatever is below came with the message.
                Some(_) if received.authenticated => return Err(Unknown::NoHandoff),
                Some(_) => previous = Some(Inside::of(&received)),
                // Without an address the name is a claim: it must be one of the provider's, and lead on.
                None => {
                    let claims = peer.helo.as_deref().or(peer.name.as_deref());
                    let local = claims.is_none_or(|name| self.is_host(name) || name.eq_ignore_ascii_case("localhost"));
                    if !local {
                        return Err(Unknown::NoAddress { hop });
                    }
                    previous = Some(Inside { strict: true, ..Inside::of(&received) });
                }
            }
        }
        Err(Unknown::NoHandoff)
    }
}

/// What a field says of the host inside the provider that its message came from.
#[derive(Default)]
struct Inside {
    names: Vec<String>,
    address: Option<IpAddr>,
    /// The host that wrote the field, for what it handed to itself.
    by: Option<String>,
    strict: bool,
}

impl Inside {
    fn of(received: &Received) -> Self {
        let Some(peer) = &received.from else { return Self::default() };
        let names = [&peer.helo, &peer.name].into_iter().flatten().map(|name| name.to_ascii_lowercase()).collect();
        let itself = peer.address.is_some_and(|address| address.is_loopback());
        Self { names, address: peer.address, by: received.by.clone().filter(|_| itself), strict: false }
    }

    fn named(&self) -> bool {
        self.strict || self.address.is_some() || !self.names.is_empty()
    }

    /// Whether the next field was written by that host.
    fn leads_to(&self, next: &Received) -> bool {
        let Some(by) = next.by.as_deref() else { return false };
        let by = by.to_ascii_lowercase();
        // Hosts are known by several names in one provider (`X.prod.outlook.com`, `X.mail.protection.outlook.com`);
        // what they share is the first label. Addresses are compared whole.
        let same = |name: &str| {
            name == by
                || (crate::received::address(name).is_none()
                    && name
                        .split('.')
                        .next()
                        .is_some_and(|label| !label.is_empty() && Some(label) == by.split('.').next()))
        };
        self.names.iter().any(|name| same(name))
            || self.by.as_deref().is_some_and(|own| same(&own.to_ascii_lowercase()) || by == "localhost")
            || (self.address.is_some()
                && self.address == next.by_address
                && !self.address.is_some_and(|a| a.is_loopback()))
    }
}

fn handoff(received: &Received, address: IpAddr, hops: usize) -> Handoff {
    let peer = received.from.clone().unwrap_or_default();
    Handoff {
        address,
        name: peer.name,
        name_confirmed: peer.confirmed,
        helo: peer.helo,
        protocol: received.with.clone(),
        tls: received.tls.clone(),
        authenticated: received.authenticated,
        recipient: received.recipient.clone(),
        by: received.by.clone().unwrap_or_default(),
        hops,
    }
}

fn shown(by: &str) -> String {
    if by.is_empty() { "nobody".to_owned() } else { by.escape_debug().take(120).collect() }
}
