use connectord_account::Account;
use connectord_mail::Relays;
use connectord_mail::relay::{Profile, Results};

/// Whose Received fields are believed of an account: what `trusted_relays` says, and where it says nothing what is known
/// of the provider whose server it is.
///
/// ```
/// use connectord_account::{Account, Protocol};
/// let mut account = Account::new("ann@example.org", Protocol::Imap, "imap.gmail.com:993".parse()?, "ann");
/// assert!(connectord_config::relays(&account).is_host("mx.google.com"));
/// account.trusted_relays = Some(vec!["provider.test".into(), "198.51.100.0/24".into()]);
/// assert!(connectord_config::relays(&account).is_host("mx1.provider.test"));
/// account.trusted_relays = Some(vec![]);
/// assert!(connectord_config::relays(&account).hosts.is_empty());
/// # Ok::<(), connectord_wire::EndpointError>(())
/// ```
pub fn relays(account: &Account) -> Relays {
    match &account.trusted_relays {
        None => Profile::of_server(account.endpoint.host()).map(Profile::relays).unwrap_or_default(),
        Some(entries) => of_entries(entries),
    }
}

/// What entries mean together, each the name of a known provider, a domain, an address or a range. One that is none of
/// them, which the reader refused, believes nobody.
pub(crate) fn of_entries(entries: &[String]) -> Relays {
    let mut all = Relays::default();
    for entry in entries {
        let Some(one) = Profile::named(entry).map(Profile::relays).or_else(|| Relays::parse([entry]).ok()) else {
            continue;
        };
        all.hosts.extend(one.hosts);
        all.networks.extend(one.networks);
        all.authserv_ids.extend(one.authserv_ids);
        all.gaps |= one.gaps;
        if one.results == Results::Below {
            all.results = Results::Below;
        }
    }
    all
}
