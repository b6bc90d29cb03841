use std::sync::Arc;

use connectord_account::Account;
use connectord_delivery::{Delivery, Recipient};
use connectord_filter::Policy;
use connectord_mail::Relays;
use connectord_net::Route;
use connectord_sasl::Credentials;

/// One account with all that is needed to run it.
#[derive(Clone)]
pub struct Job {
    /// What is configured.
    pub account: Arc<Account>,
    /// Where its credential comes from.
    pub credentials: Arc<dyn Credentials>,
    /// How its server is reached.
    pub route: Route,
    /// Name of its destination, as kept in the store.
    pub destination: String,
    /// Its destination.
    pub delivery: Arc<dyn Delivery>,
    /// Who gets its mail; at least one.
    pub recipients: Vec<Recipient>,
    /// What becomes of a message of which nobody knows whether it arrived.
    pub ambiguous: Ambiguous,
    /// What becomes of what the site's filters find.
    pub policy: Policy,
    /// Whose Received fields are believed, when the envelope is recovered for the filters; the default believes nobody.
    pub relays: Relays,
}

/// What becomes of a message whose delivery was cut short when it may have arrived, where the destination cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ambiguous {
    /// It is delivered again, marked as a further attempt: it may come twice. The default.
    #[default]
    Redeliver,
    /// It is parked: a person looks whether it is there, and says what to do.
    Park,
}

impl Job {
    /// The account's address.
    pub fn address(&self) -> &str {
        &self.account.address
    }

    /// The server as `host:port`.
    pub fn server(&self) -> String {
        self.account.endpoint.to_string()
    }
}
