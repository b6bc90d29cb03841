//! Local users: those that accounts deliver to, and those that are known to be there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use connectord_admin::{Answer, Page as Listed, User, UserQuery};
use connectord_config::{Config, DeliverySettings, UserSource};

use super::Page;
use super::query::{self, Seen, paged};

/// How long it is believed who is there.
const BELIEVED: Duration = Duration::from_secs(60);

/// Users that are looked for on the disk.
const MOST: usize = 20_000;

/// Who is there, and when that was looked up.
#[derive(Default)]
pub(super) struct Known(Mutex<Option<(Instant, BTreeSet<String>)>>);

impl Page {
    pub(super) async fn users(&self, query: &UserQuery) -> Answer<Listed<User>> {
        let doing = HashMap::new();
        let all: Vec<Seen> = query::seen(self.roster.all(), self.now(), &doing).collect();
        let mut of: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
        for seen in &all {
            for user in &seen.entry.settings.deliver_to {
                of.entry(user).or_default().push(seen);
            }
        }
        let today = self.today_by_user().await;
        let text = query.text.to_lowercase();
        let names = self.user_names().await;
        let mut users = Vec::new();
        for name in &names {
            let accounts = of.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
            let wanted = query.with_accounts.is_none_or(|with| with != accounts.is_empty());
            if !wanted || !name.to_lowercase().contains(&text) {
                continue;
            }
            let gone = |seen: &&&Seen| {
                let reason = seen.entry.health.reason.as_ref().filter(|reason| reason.code == "user_gone");
                reason.is_some_and(|reason| reason.words.get("user") == Some(name))
            };
            users.push(User {
                name: name.clone(),
                here: accounts.iter().find(gone).is_none(),
                accounts: query::counted(accounts.iter().copied()),
                today: today.as_ref().map(|today| today.get(name).copied().unwrap_or_default()),
            });
        }
        Ok(paged(users, query.after.as_deref(), query.limit))
    }

    /// All users that are known, by name.
    pub(super) async fn user_names(&self) -> BTreeSet<String> {
        let config = self.accounts.known.borrow().config.clone();
        let mut names = self.there(config).await;
        names.extend(self.roster.all().iter().flat_map(|entry| entry.settings.deliver_to.iter().cloned()));
        names
    }

    /// Users that the configuration or the destination's directory names.
    async fn there(&self, config: Config) -> BTreeSet<String> {
        let known = self.users.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((looked, names)) = known
            && looked.elapsed() < BELIEVED
        {
            return names;
        }
        let found = tokio::task::spawn_blocking(move || named(&config)).await.unwrap_or_default();
        *self.users.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), found.clone()));
        found
    }
}

fn named(config: &Config) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = config.users.groups.values().flatten().cloned().collect();
    match &config.users.source {
        UserSource::List(list) => names.extend(list.iter().cloned()),
        UserSource::System => names.extend(people(Path::new("/etc/passwd"))),
        _ => {
            let places =
                config.default_delivery.iter().chain(config.deliveries.values()).filter_map(
                    |delivery| match delivery {
                        DeliverySettings::Maildir(settings) => Some(settings.path.to_string()),
                        _ => None,
                    },
                );
            places.filter_map(|path| parent_of_users(&path)).for_each(|parent| names.extend(directories(&parent)));
        }
    }
    names
}

/// The directory whose entries are users: what stands before a part of a path that is `{user}` alone.
fn parent_of_users(path: &str) -> Option<PathBuf> {
    let (parent, rest) = path.split_once("{user}")?;
    let alone = parent.ends_with('/') && (rest.is_empty() || rest.starts_with('/')) && !parent.contains('{');
    alone.then(|| PathBuf::from(parent))
}

fn directories(parent: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten().take(MOST);
    let name = |entry: std::fs::DirEntry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let name = entry.file_name().into_string().ok()?;
        (is_directory && !name.starts_with('.')).then_some(name)
    };
    entries.filter_map(name).collect()
}

/// The people of a system: user ids from 1,000 to 59,999 (Debian Policy §9.2.2).
fn people(passwd: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(passwd).unwrap_or_default();
    let person = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        (1000..60_000).contains(&uid).then(|| name.to_owned())
    };
    text.lines().filter_map(person).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_which_the_user_is_one_part_has_a_directory_of_users() {
        assert_eq!(parent_of_users("/var/mail/{user}/Maildir"), Some("/var/mail/".into()));
        assert_eq!(parent_of_users("/var/mail/{user}"), Some("/var/mail/".into()));
        for path in ["/var/mail/{domain}/{user}", "/var/mail/x{user}", "/var/mail/{user}x", "/var/mail"] {
            assert_eq!(parent_of_users(path), None, "{path}");
        }
    }
}
