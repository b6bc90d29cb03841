//! Resumption tickets: a few for each server, and not too many in all.
//!
//! A ticket spares both sides the signature and its verification, at every check. It holds the server's certificates, so
//! it takes some 2 to 5 KB: they are shared by all configurations within one bound, and take memory only when they come.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Tickets of one server: each is used once (RFC 8446 §C.4), and several accounts connect at once.
const PER_SERVER: usize = 8;

/// Tickets in all; beyond, those of the server that was not asked for the longest time go.
const MOST: usize = 2048;

/// Tickets of all configurations.
#[derive(Default)]
pub(super) struct Tickets(Mutex<Cache>);

/// The tickets of one configuration, which are of no use to others: they stand for what this one verified.
pub(super) struct OwnTickets {
    all: Arc<Tickets>,
    configuration: u64,
}

type Server = (u64, ServerName<'static>);

#[derive(Default)]
struct Cache {
    servers: HashMap<Server, Known>,
    /// The same, by when each was used last.
    by_use: BTreeMap<u64, Server>,
    uses: u64,
    configurations: u64,
    tickets: usize,
}

#[derive(Default)]
struct Known {
    used: u64,
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Known {
    /// What it counts: a server that is only known by its group takes room too.
    fn count(&self) -> usize {
        self.tls13.len() + usize::from(self.tls12.is_some()) + 1
    }
}

impl Tickets {
    /// For a new configuration.
    pub(super) fn of_new_configuration(self: &Arc<Self>) -> OwnTickets {
        let mut cache = self.lock();
        cache.configurations += 1;
        OwnTickets { all: Arc::clone(self), configuration: cache.configurations }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        // What a panicking thread leaves behind is a cache that lacks an entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Uses what is known of a server, making it if need be, and keeps the bound.
    fn using<T>(&mut self, server: Server, change: impl FnOnce(&mut Known) -> T) -> T {
        self.uses += 1;
        let known = self.servers.entry(server.clone()).or_default();
        self.by_use.remove(&known.used);
        self.by_use.insert(self.uses, server);
        // One that is new has counted for nothing yet.
        let before = if known.used == 0 { 0 } else { known.count() };
        known.used = self.uses;
        let result = change(known);
        self.tickets = self.tickets + known.count() - before;
        while self.tickets > MOST
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.tickets -= self.servers.remove(&oldest).map_or(0, |known| known.count());
        }
        result
    }
}

impl OwnTickets {
    fn using<T>(&self, name: &ServerName<'_>, change: impl FnOnce(&mut Known) -> T) -> T {
        self.all.lock().using((self.configuration, name.to_owned()), change)
    }
}

impl ClientSessionStore for OwnTickets {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.using(&server_name, |known| known.group = Some(group));
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.using(server_name, |known| known.group)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.using(&server_name, |known| known.tls12 = Some(value));
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.using(server_name, |known| known.tls12.clone())
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.using(server_name, |known| known.tls12 = None);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.using(&server_name, |known| {
            if known.tls13.len() >= PER_SERVER {
                known.tls13.pop_front();
            }
            known.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // The newest lives the longest.
        self.using(server_name, |known| known.tls13.pop_back())
    }
}

impl fmt::Debug for OwnTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnTickets({})", self.configuration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ServerName<'static> {
        ServerName::try_from(format!("h{number}.example")).unwrap()
    }

    #[test]
    fn what_is_known_of_servers_is_bounded_and_the_one_not_used_for_the_longest_time_goes() {
        let tickets = Arc::new(Tickets::default());
        let own = tickets.of_new_configuration();
        for number in 0..MOST + 10 {
            own.set_kx_hint(name(number), NamedGroup::X25519);
            assert_eq!(own.kx_hint(&name(0)), Some(NamedGroup::X25519), "used all the time");
        }
        let cache = tickets.lock();
        assert_eq!((cache.tickets, cache.servers.len(), cache.by_use.len()), (MOST, MOST, MOST));
        drop(cache);
        assert_eq!(own.kx_hint(&name(1)), None);
    }

    #[test]
    fn what_one_configuration_knows_is_no_other_ones() {
        let tickets = Arc::new(Tickets::default());
        let (one, other) = (tickets.of_new_configuration(), tickets.of_new_configuration());
        one.set_kx_hint(name(1), NamedGroup::X25519);
        assert_eq!((one.kx_hint(&name(1)), other.kx_hint(&name(1))), (Some(NamedGroup::X25519), None));
    }
}
