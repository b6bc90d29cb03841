//! What the configuration file says.

use connectord_admin::{Answer, ConfigEntry, Installation, Source};
use connectord_config::UserSource;
use connectord_filter::Kind;

use super::Page;
use super::roster::Entry;

impl Page {
    pub(super) async fn installation(&self) -> Answer<Installation> {
        let known = std::sync::Arc::clone(&self.accounts.known.borrow());
        let config = &known.config;
        let text = self.text_of_the_file().await;
        let entries = connectord_config::entries(&text).into_iter();
        let entry = |entry: connectord_config::Entry| ConfigEntry {
            key: entry.key,
            value: entry.value,
            line: Some(entry.line),
        };
        let users_source = match &config.users.source {
            UserSource::Delivery => "the destination is asked",
            UserSource::System => "the users of this machine",
            UserSource::List(_) => "[users] list",
            UserSource::Any => "every name is a user",
        };
        let named = |wanted: Kind| {
            let gates = self.accounts.site.filters.chain();
            let filters = gates.filters.iter().filter(|filter| filter.kind() == wanted || filter.kind() == Kind::Both);
            filters.map(|filter| filter.name().to_owned()).collect::<Vec<_>>().join(", ")
        };
        let days = |wait: std::time::Duration| u32::try_from(wait.as_secs().div_ceil(86_400)).unwrap_or(u32::MAX);
        Ok(Installation {
            file: self.file.display().to_string(),
            entries: entries.map(entry).collect(),
            deliveries: config.deliveries.keys().cloned().collect(),
            users_source: users_source.to_owned(),
            antispam: named(Kind::Antispam),
            antivirus: named(Kind::Antivirus),
            trail_days: config.trail.keep_for.map_or(0, days),
            quarantine_days: days(config.quarantine.keep_for),
        })
    }

    /// Where an account of the file is in it.
    pub(super) async fn place(&self, entry: &Entry) -> Option<String> {
        if entry.source == Source::Page {
            return None;
        }
        let text = self.text_of_the_file().await;
        let name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(match connectord_config::account_lines(&text).get(&entry.address().to_lowercase()) {
            Some(line) => format!("{name}, line {line}"),
            None => name,
        })
    }

    /// As it is now; what is in force may be older. Nothing when it cannot be read.
    async fn text_of_the_file(&self) -> String {
        tokio::fs::read_to_string(&self.file).await.unwrap_or_default()
    }
}
