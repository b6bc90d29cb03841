use std::collections::{BTreeMap, BTreeSet};

use super::{Client, Relays, matches};
use crate::received::Received;
use crate::{AuthenticationResults, Head};

/// Most messages that a proposal is made from.
const MAX_MESSAGES: usize = 1000;

/// Most proposals.
const MAX_PROPOSALS: usize = 16;

/// Most fields from the top among which the provider's first name is looked for.
const MAX_INNER: usize = 4;

/// Most different domains, clients and authserv-ids that are counted.
const MAX_COUNTED: usize = 1000;

/// A provider's domain that an account may trust, found in its own mail; for a person to confirm.
///
/// It is a guess from what anybody may have written: a sender whose message stands in a mailbox without Received fields
/// of the provider can put any domain there. So nothing here is believed until somebody says so, and the counts are to
/// be read: a provider's domain stands on top of nearly all messages, and its clients are many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What would be written into `trusted_relays`.
    pub domain: String,
    /// Messages whose topmost Received field a host of this domain wrote.
    pub messages: usize,
    /// Messages of which the client would be known.
    pub handoffs: usize,
    /// Different clients among these. One alone hints at a relay of the provider under another name.
    pub clients: usize,
    /// Messages whose way inside the provider would have a gap.
    pub gaps: usize,
    /// Authserv-ids that stand above the hand-off, with the number of messages, the most frequent first.
    pub authserv_ids: Vec<(String, usize)>,
}

/// Proposes whom to trust from a sample of an account's messages, the likeliest first; looks at no more than 1,000.
///
/// ```
/// use connectord_mail::{Head, relay::propose};
/// let one = Head::of(b"Received: from a (a.test [192.0.2.1]) by mx1.provider.test with ESMTP id 1\r\n\r\n");
/// let two = Head::of(b"Received: from b (b.test [192.0.2.2]) by mx2.provider.test with ESMTP id 2\r\n\r\n");
/// let proposals = propose(&[one, two]);
/// assert_eq!(proposals[0].domain, "provider.test");
/// assert_eq!((proposals[0].messages, proposals[0].handoffs, proposals[0].clients), (2, 2, 2));
/// ```
pub fn propose(sample: &[Head<'_>]) -> Vec<Proposal> {
    let sample = &sample[..sample.len().min(MAX_MESSAGES)];
    let mut domains: BTreeMap<String, usize> = BTreeMap::new();
    for head in sample {
        let topmost = head.fields().filter(|field| field.is("Received")).map(|field| Received::parse(field.value));
        // The first that names its writer; `(qmail 1 invoked by uid 7)` and Gmail's inner hosts, which are addresses, do
        // not.
        let domain = topmost.take(MAX_INNER).filter_map(|field| field.by).find_map(|by| organisation(&by));
        if let Some(domain) = domain
            && (domains.len() < MAX_COUNTED || domains.contains_key(&domain))
        {
            *domains.entry(domain).or_default() += 1;
        }
    }
    let mut domains: Vec<_> = domains.into_iter().collect();
    domains.sort_by(|(a, left), (b, right)| right.cmp(left).then_with(|| a.cmp(b)));
    domains.truncate(MAX_PROPOSALS);
    domains.into_iter().map(|(domain, messages)| proposal(domain, messages, sample)).collect()
}

fn proposal(domain: String, messages: usize, sample: &[Head<'_>]) -> Proposal {
    let strict = Relays { hosts: vec![domain.clone()], ..Relays::default() };
    let lenient = Relays { gaps: true, ..strict.clone() };
    let mut proposal = Proposal { domain, messages, handoffs: 0, clients: 0, gaps: 0, authserv_ids: Vec::new() };
    let mut clients = BTreeSet::new();
    let mut authserv_ids: BTreeMap<String, usize> = BTreeMap::new();
    for head in sample {
        match strict.client(*head) {
            Client::Known(handoff) => {
                proposal.handoffs += 1;
                if clients.len() < MAX_COUNTED {
                    clients.insert(handoff.address);
                }
            }
            Client::Unknown(super::Unknown::Gap { .. }) => proposal.gaps += 1,
            Client::Unknown(_) => continue,
        }
        if let Ok((at, _)) = lenient.walk(*head) {
            let above = head.fields().take(at).filter(|field| field.is("Authentication-Results"));
            let ids: BTreeSet<_> =
                above.filter_map(|field| Some(AuthenticationResults::parse(field.value)?.authserv_id)).collect();
            for id in ids {
                if authserv_ids.len() < MAX_COUNTED || authserv_ids.contains_key(&id) {
                    *authserv_ids.entry(id).or_default() += 1;
                }
            }
        }
    }
    proposal.clients = clients.len();
    proposal.authserv_ids = authserv_ids.into_iter().collect();
    proposal.authserv_ids.sort_by(|(a, left), (b, right)| right.cmp(left).then_with(|| a.cmp(b)));
    proposal.authserv_ids.truncate(MAX_PROPOSALS);
    proposal
}

/// The part of a host's name that an organisation owns: two labels, three where the second is such as `co.uk`.
///
/// A guess that does without a list of all registries; a person confirms it.
fn organisation(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let usable = host.contains('.')
        && crate::received::address(&host).is_none()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && !matches("localhost.localdomain", &host);
    let labels: Vec<&str> = host.split('.').collect();
    if !usable || labels.iter().any(|label| label.is_empty()) {
        return None;
    }
    let [.., second, top] = labels[..] else { return None };
    let registry =
        top.len() == 2 && (second.len() <= 2 || matches!(second, "com" | "net" | "org" | "gov" | "edu" | "ac"));
    let count = if registry { 3 } else { 2 };
    Some(labels[labels.len().saturating_sub(count)..].join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_name_is_guessed() {
        let owner = |host: &str| organisation(host);
        assert_eq!(owner("mx-ha.gmx.net").as_deref(), Some("gmx.net"));
        assert_eq!(owner("a.b.co.uk").as_deref(), Some("b.co.uk"));
        assert_eq!(owner("mx.t-online.de.").as_deref(), Some("t-online.de"));
        assert_eq!(owner("mail.example.com.au").as_deref(), Some("example.com.au"));
        assert_eq!(owner("localhost"), None);
        assert_eq!(owner("localhost.localdomain"), None);
        assert_eq!(owner("10.1.2.3"), None);
        assert_eq!(owner("a..b"), None);
    }
}
