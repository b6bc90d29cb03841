//! The accounts of the file and those of the state, together.

use std::collections::{HashMap, HashSet};

use connectord_account::CredentialSource;
use connectord_config::build::Builder;
use connectord_config::saved::{FieldProblem, ReadAccount, account_from, settings_from_text};
use connectord_config::{Config, KeyRing};
use connectord_engine::Job;
use connectord_store::{AccountId, SavedAccount, SavedAccounts, StoreError};
use tracing::{debug, error, info, warn};

use crate::error::Error;

/// What is configured now, by the file and in the state.
#[derive(Clone)]
pub(crate) struct Known {
    /// The file.
    pub(crate) config: Config,
    /// All accounts that can be run, those of the file first, switched-off ones too.
    pub(crate) jobs: Vec<Job>,
    /// Saved accounts that cannot be run, and why.
    pub(crate) problems: HashMap<AccountId, Vec<FieldProblem>>,
}

impl Known {
    /// The job of an account, case aside.
    pub(crate) fn job(&self, address: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.address().eq_ignore_ascii_case(address))
    }
}

/// Reads the saved accounts and builds all. A saved account that cannot be used is told, and in the way of no other.
pub(crate) async fn merge(config: &Config, saved: &dyn SavedAccounts, builder: &mut Builder) -> Result<Known, Error> {
    let mut jobs = builder.jobs(config).await?;
    let of_file: HashSet<&str> = config.accounts.iter().map(|account| account.address.as_str()).collect();
    let mut problems = HashMap::new();
    let (mut ids, mut accounts) = (Vec::new(), Vec::new());
    for saved in saved.saved_accounts().await? {
        let read = if of_file.contains(saved.address.as_str()) {
            Err(vec![whole("the file has an account of this address, and that one is in force")])
        } else {
            read(config, &saved)
        };
        match read {
            Ok(read) => {
                ids.push(saved.id);
                accounts.push(read);
            }
            Err(found) => {
                tell(&saved.address, &found);
                problems.insert(saved.id, found);
            }
        }
    }
    let built = builder.jobs_of(config, &accounts).await?;
    for ((id, read), job) in ids.into_iter().zip(&accounts).zip(built) {
        match job {
            Ok(job) => jobs.push(job),
            Err(error) => {
                let found = vec![whole(error.to_string())];
                tell(&read.account.address, &found);
                problems.insert(id, found);
            }
        }
    }
    Ok(Known { config: config.clone(), jobs, problems })
}

/// A saved account as the file would say it.
pub(crate) fn read(config: &Config, saved: &SavedAccount) -> Result<ReadAccount, Vec<FieldProblem>> {
    let settings = settings_from_text(&saved.settings).map_err(|problem| vec![problem])?;
    account_from(config, &saved.address, &settings, saved.enabled, credential(saved))
}

/// Where the password of a saved account is.
pub(crate) fn credential(saved: &SavedAccount) -> CredentialSource {
    match &saved.secret {
        Some(secret) => CredentialSource::Sealed { account: saved.id.0, record: secret.record.clone() },
        None => CredentialSource::Missing,
    }
}

fn whole(what: impl Into<String>) -> FieldProblem {
    FieldProblem { key: None, what: what.into(), hint: None, nearest: None }
}

fn tell(account: &str, problems: &[FieldProblem]) {
    for problem in problems {
        warn!(account, %problem, "a saved account cannot be used; the others go on");
    }
}

/// Says what it means that there are no keys, and seals anew what is sealed under an older one.
pub(crate) async fn look_after_keys(saved: &dyn SavedAccounts, keys: &KeyRing) -> Result<(), StoreError> {
    let accounts = saved.saved_accounts().await?;
    let sealed = accounts.iter().filter_map(|account| Some((account, account.secret.as_ref()?)));
    if let Some(problem) = keys.problem() {
        match sealed.count() {
            // Whoever wants to store one is told.
            0 => debug!(problem, "no password can be stored"),
            accounts => error!(problem, accounts, "stored passwords cannot be opened; these accounts cannot log in"),
        }
        return Ok(());
    }
    let mut renewed = 0;
    for (account, secret) in sealed {
        match keys.renewed(account.id.0, &secret.record) {
            Ok(None) => {}
            Ok(Some(record)) => renewed += u32::from(saved.reseal(account.id, &secret.record, &record).await?),
            Err(error) => error!(account = account.address, %error, "this account cannot log in"),
        }
    }
    if renewed > 0 {
        info!(accounts = renewed, "stored passwords were sealed anew, under the first key of the key file");
    }
    Ok(())
}
