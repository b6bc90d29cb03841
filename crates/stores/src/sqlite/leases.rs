use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use connectord_store::{AccountId, Lease, StoreError};

/// Who works on which account. The lock on the directory makes this process the only one, so leases live in memory.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<AccountId, Held>,
    last_fence: u64,
}

#[derive(Debug)]
struct Held {
    fence: u64,
    /// Changes asked for under the lease that have not ended.
    in_flight: usize,
    returned: bool,
}

impl Leases {
    pub(super) fn take(self: &Arc<Self>, account: AccountId) -> Result<Lease, StoreError> {
        let fence = self.with(|inner| {
            if inner.held.contains_key(&account) {
                return Err(StoreError::Busy);
            }
            inner.last_fence += 1;
            inner.held.insert(account, Held { fence: inner.last_fence, in_flight: 0, returned: false });
            Ok(inner.last_fence)
        })?;
        Ok(Lease::new(account, fence, Box::new(Guard { account, leases: Arc::clone(self) })))
    }

    /// A change begins under a lease. The account stays leased until the change has ended, even when whoever asked for
    /// it was cancelled and has dropped the lease: the next holder reads what it wrote.
    pub(super) fn enter(self: &Arc<Self>, lease: &Lease) -> Result<InFlight, StoreError> {
        self.with(|inner| match inner.held.get_mut(&lease.account) {
            Some(held) if held.fence == lease.fence && !held.returned => {
                held.in_flight += 1;
                Ok(InFlight { account: lease.account, leases: Arc::clone(self) })
            }
            _ => Err(StoreError::LeaseLost),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Guard {
    account: AccountId,
    leases: Arc<Leases>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.leases.with(|inner| {
            if let Some(held) = inner.held.get_mut(&self.account) {
                held.returned = true;
                if held.in_flight == 0 {
                    inner.held.remove(&self.account);
                }
            }
        });
    }
}

/// A change under a lease, until it is dropped.
pub(super) struct InFlight {
    account: AccountId,
    leases: Arc<Leases>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.leases.with(|inner| {
            if let Some(held) = inner.held.get_mut(&self.account) {
                held.in_flight -= 1;
                if held.returned && held.in_flight == 0 {
                    inner.held.remove(&self.account);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_not_given_on_before_the_changes_under_it_have_ended() {
        let leases = Arc::new(Leases::default());
        let account = AccountId(1);
        let lease = leases.take(account).unwrap();
        let change = leases.enter(&lease).unwrap();
        drop(lease);
        assert_eq!(leases.take(account).unwrap_err(), StoreError::Busy);
        drop(change);
        assert_eq!(leases.take(account).unwrap().fence, 2);
    }

    #[test]
    fn nothing_is_changed_under_an_older_lease() {
        let leases = Arc::new(Leases::default());
        let account = AccountId(1);
        drop(leases.take(account).unwrap());
        let _now = leases.take(account).unwrap();
        let old = Lease::new(account, 1, Box::new(()));
        assert!(matches!(leases.enter(&old), Err(StoreError::LeaseLost)));
    }
}
