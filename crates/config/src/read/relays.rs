//! `trusted_relays` of accounts.

use connectord_account::Account;
use connectord_filter::Policy;
use connectord_mail::Relays;
use connectord_mail::relay::{PROFILES, Profile};
use connectord_wire::Escaped;

use crate::model::{FilterKind, FilterSettings};
use crate::nearest::nearest;
use crate::relays::relays;
use crate::section::{Context, Section, Span};

/// Whose Received fields are believed; `None` when nothing is said.
pub(super) fn read(section: Section<'_, '_>) -> Option<Vec<String>> {
    let name = "trusted_relays";
    let texts = section.texts(name)?;
    let span = section.value_span(name);
    let known: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
    let mut entries = Vec::new();
    for text in &texts {
        let entry = text.get_ref().trim().to_lowercase();
        match Relays::parse([&entry]) {
            Err(error) => section.context.problem(&text.span(), format!("{name}: {error}")),
            // A name without a dot is a provider's, or a mistake that would believe nobody.
            Ok(found)
                if found.networks.is_empty() && !entry.contains(['.', '*']) && Profile::named(&entry).is_none() =>
            {
                let meant = nearest(&entry, &known);
                let meant = meant.map_or_else(|| ";".to_owned(), |meant| format!("; did you mean \"{meant}\"?"));
                let message = format!(
                    "{name}: {:?} is neither a provider known here nor a domain{meant} known: {}",
                    Escaped::text(&entry).to_string(),
                    known.join(", ")
                );
                let hint = format!("a domain of one word is written \".{}\"", Escaped::text(&entry));
                section.context.problem_with_hint(&text.span(), message, hint);
            }
            Ok(_) => entries.push(entry),
        }
    }
    let networks_alone = !entries.is_empty() && entries.len() == texts.len() && {
        let relays = crate::relays::of_entries(&entries);
        relays.hosts.is_empty()
    };
    if networks_alone {
        let message = format!("{name} names addresses alone: nobody's Received fields are believed");
        section.context.warning(&span, message, Some("add a domain of the provider's hosts".to_owned()));
    }
    Some(entries)
}

/// Warns of an account of which a filter will not learn who handed its messages over.
pub(crate) fn look(section: Section<'_, '_>, account: &Account, policy: &Policy, site: &FilterSettings) {
    let mut unknown = Unknown::default();
    unknown.see(section, account, policy, site);
    unknown.finish(section.context);
}

/// Accounts of which a filter will not learn who handed their messages over.
#[derive(Default)]
pub(crate) struct Unknown {
    first: Option<Span>,
    count: usize,
}

impl Unknown {
    pub(super) fn see(&mut self, section: Section<'_, '_>, account: &Account, policy: &Policy, site: &FilterSettings) {
        let asks =
            site.chain.iter().any(|entry| matches!(entry.filter, FilterKind::Rspamd(_) | FilterKind::SpamAssassin(_)));
        // `trusted_relays = []` says that somebody thought of it.
        if asks && policy.antispam && account.trusted_relays.is_none() && relays(account).hosts.is_empty() {
            self.first.get_or_insert_with(|| section.span());
            self.count += 1;
        }
    }

    /// Says it once: the remedy is the same for all.
    pub(super) fn finish(self, context: &Context<'_>) {
        let Some(first) = self.first else { return };
        let others = match self.count - 1 {
            0 => String::new(),
            1 => " and another one".to_owned(),
            more => format!(" and {more} others"),
        };
        context.warning(
            &first,
            format!(
                "this account{others} has no trusted_relays: the antispam filter does not learn who handed messages over, and \
                 looks neither for SPF nor at lists of addresses"
            ),
            Some("connectord relays ADDRESS proposes whom to trust; trusted_relays = [] says that nobody is".to_owned()),
        );
    }
}
