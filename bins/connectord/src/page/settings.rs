//! An account's settings as the page has them, and as they are kept.

use connectord_account as account;
use connectord_admin::{
    Check, Delete, DeleteBy, FieldProblem, OnFilterFailure, Oversize, Protocol, Security, Settings, Start,
};
use connectord_config::saved;
use connectord_filter::{OnFailure, Policy};
use toml::Value;

/// Octets of the megabyte that `max_message_size` is written in.
const MEGABYTE: u64 = 1_000_000;

/// What an account says, as the page shows it. Where the page knows less than the file, the nearest is shown.
pub(super) fn shown(account: &account::Account, policy: &Policy, note: &str) -> Settings {
    let endpoint = &account.endpoint;
    let protocol = protocol(account.protocol);
    let security = security(account.security);
    let username =
        if account.username.eq_ignore_ascii_case(&account.address) { String::new() } else { account.username.clone() };
    Settings {
        address: account.address.clone(),
        protocol,
        security,
        host: endpoint.host().to_owned(),
        port: (endpoint.port() != protocol.port(security)).then(|| endpoint.port()),
        username,
        deliver_to: account.deliver_to.clone(),
        check: match account.check {
            account::Check::Every(every) => {
                let minutes = every.as_secs().div_ceil(60).clamp(1, 1440);
                Check::Every(u16::try_from(minutes).unwrap_or(1440))
            }
            account::Check::Idle => Check::Push,
            account::Check::Never => Check::Never,
        },
        start: match account.start {
            account::Start::Everything => Start::Everything,
            account::Start::FromNowOn => Start::FromNowOn,
        },
        delete: match account.retention {
            account::Retention::Never => Delete::Never,
            account::Retention::Immediately => Delete::Immediately,
            account::Retention::AfterDelivery(wait) | account::Retention::ByAge(wait) => {
                let days = wait.as_secs().div_ceil(86_400).clamp(1, 9999);
                Delete::After(u16::try_from(days).unwrap_or(9999))
            }
        },
        delete_by: match account.removal {
            account::Removal::Expunge => DeleteBy::Expunge,
            account::Removal::Trash | account::Removal::MoveTo(_) => DeleteBy::Trash,
            account::Removal::MarkSeen => DeleteBy::Seen,
        },
        folders: account.folders.iter().map(folder).collect(),
        antispam: policy.antispam,
        antivirus: policy.antivirus,
        on_filter_failure: match policy.on_failure {
            OnFailure::Keep => OnFilterFailure::Wait,
            OnFailure::Deliver => OnFilterFailure::Deliver,
        },
        max_megabytes: account
            .max_message_octets
            .map(|octets| u32::try_from(octets.div_ceil(MEGABYTE)).unwrap_or(u32::MAX)),
        oversize: match account.oversize {
            account::Oversize::Park => Oversize::Park,
            account::Oversize::Skip => Oversize::Skip,
        },
        mark_seen: account.mark_seen,
        delivery: account.delivery.clone().unwrap_or_default(),
        recipient: if account.recipient == "{user}" { String::new() } else { account.recipient.clone() },
        pins: account.pins.clone(),
        trusted_relays: account.trusted_relays.clone().unwrap_or_default(),
        note: note.to_owned(),
        enabled: account.enabled,
    }
}

fn folder(folder: &account::Folder) -> String {
    match folder {
        account::Folder::Name(name) | account::Folder::Pattern(name) | account::Folder::Role(name) => name.clone(),
    }
}

pub(super) fn protocol(protocol: account::Protocol) -> Protocol {
    match protocol {
        account::Protocol::Imap => Protocol::Imap,
        account::Protocol::Pop3 => Protocol::Pop3,
    }
}

pub(super) fn security(security: connectord_wire::Security) -> Security {
    match security {
        connectord_wire::Security::Tls => Security::Tls,
        connectord_wire::Security::StartTls => Security::Starttls,
        connectord_wire::Security::None => Security::None,
    }
}

/// The best that can be said of settings that cannot be read as an account's.
pub(super) fn guessed(address: &str, kept: &saved::Settings, enabled: bool) -> Settings {
    let text = |name: &str| kept.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |name: &str| match kept.get(name) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let defaults = Settings::default();
    Settings {
        address: address.to_owned(),
        protocol: text("protocol").parse().unwrap_or(defaults.protocol),
        security: text("security").parse().unwrap_or(defaults.security),
        host: text("host"),
        port: kept.get("port").and_then(Value::as_integer).and_then(|port| u16::try_from(port).ok()),
        username: text("username"),
        deliver_to: list("deliver_to"),
        delivery: text("delivery"),
        note: text("note"),
        enabled,
        ..defaults
    }
}

/// What must be set, and what taken away, so that an account which says `before` says `after`. What the page does not know of,
/// or shows less exactly than it is kept, stays as it is unless it is changed.
pub(super) fn difference(
    before: &Settings,
    after: &Settings,
) -> Result<(saved::Settings, Vec<String>), Vec<FieldProblem>> {
    let mut set = saved::Settings::new();
    let mut unset = Vec::new();
    let mut put = |name: &str, value: Option<Value>| match value {
        Some(value) => drop(set.insert(name.to_owned(), value)),
        None => unset.push(name.to_owned()),
    };
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let list = |list: &[String]| Value::from(list.to_vec());
    macro_rules! changed {
        ($($field:ident),+) => { false $(|| before.$field != after.$field)+ };
    }
    if changed!(protocol) {
        put("protocol", text(after.protocol.word()));
    }
    if changed!(security) {
        put("security", text(after.security.word()));
    }
    if changed!(host) {
        put("host", text(&after.host));
    }
    if changed!(port) {
        put("port", after.port.map(|port| i64::from(port).into()));
    }
    if changed!(username) {
        put("username", text(&after.username));
    }
    if changed!(deliver_to) {
        put("deliver_to", Some(list(&after.deliver_to)));
    }
    if changed!(check) {
        put("idle", (after.check == Check::Push).then(|| true.into()));
        put("check_every", (after.check != Check::Push).then(|| after.check.to_string().into()));
    }
    if changed!(start) {
        match after.start {
            Start::Everything => put("start", Some("all".into())),
            Start::FromNowOn => put("start", Some("now".into())),
            Start::Since(_) => return Err(vec![FieldProblem::new("start", "no_choice")]),
        }
    }
    if changed!(delete) {
        put("delete", Some(after.delete.to_string().into()));
    }
    if changed!(delete_by) {
        put("delete_by", text(after.delete_by.word()));
    }
    if changed!(folders) {
        put("folders", (!after.folders.is_empty()).then(|| list(&after.folders)));
    }
    if changed!(antispam) {
        put("antispam", Some(after.antispam.into()));
    }
    if changed!(antivirus) {
        put("antivirus", Some(after.antivirus.into()));
    }
    if changed!(on_filter_failure) {
        let word = match after.on_filter_failure {
            OnFilterFailure::Wait => "keep",
            OnFilterFailure::Deliver => "deliver",
        };
        put("on_failure", Some(word.into()));
    }
    if changed!(max_megabytes) {
        put("max_message_size", after.max_megabytes.map(|megabytes| format!("{megabytes} MB").into()));
    }
    if changed!(oversize) {
        put("oversize", text(after.oversize.word()));
    }
    if changed!(mark_seen) {
        put("mark_seen", Some(after.mark_seen.into()));
    }
    if changed!(delivery) {
        put("delivery", text(&after.delivery));
    }
    if changed!(recipient) {
        put("recipient", text(&after.recipient));
    }
    if changed!(pins) {
        put("pin", (!after.pins.is_empty()).then(|| list(&after.pins)));
    }
    if changed!(trusted_relays) {
        put("trusted_relays", (!after.trusted_relays.is_empty()).then(|| list(&after.trusted_relays)));
    }
    if changed!(note) {
        put("note", text(&after.note));
    }
    Ok((set, unset))
}

/// What is kept of a new account. `site` is what holds for filters where an account says nothing.
pub(super) fn kept(entered: &Settings, site: &Policy) -> Result<saved::Settings, Vec<FieldProblem>> {
    let nothing = Settings {
        antispam: site.antispam,
        antivirus: site.antivirus,
        on_filter_failure: match site.on_failure {
            OnFailure::Keep => OnFilterFailure::Wait,
            OnFailure::Deliver => OnFilterFailure::Deliver,
        },
        // Gone with POP3, which has no folders.
        folders: if entered.protocol == Protocol::Pop3 { entered.folders.clone() } else { Settings::default().folders },
        ..Settings::default()
    };
    let (mut kept, _) = difference(&nothing, entered)?;
    kept.insert("protocol".to_owned(), entered.protocol.word().into());
    kept.insert("host".to_owned(), entered.host.clone().into());
    if entered.username.eq_ignore_ascii_case(&entered.address) {
        kept.remove("username");
    }
    Ok(kept)
}

/// Problems by the names that the page has for the keys.
pub(super) fn problems(found: &[saved::FieldProblem]) -> Vec<FieldProblem> {
    let field = |key: &str| {
        match key {
            "check_every" | "idle" => "check",
            "pin" => "pins",
            "max_message_size" => "max_megabytes",
            "on_failure" => "on_filter_failure",
            "password" => "secret",
            key => key,
        }
        .to_owned()
    };
    let told = |problem: &saved::FieldProblem| FieldProblem {
        field: problem.key.as_deref().map(field).unwrap_or_default(),
        problem: match (&problem.hint, problem.key.as_deref()) {
            (_, Some("password")) => "missing".to_owned(),
            (Some(hint), _) => format!("{} ({hint})", problem.what),
            (None, _) => problem.what.clone(),
        },
    };
    found.iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use connectord_account::CredentialSource;
    use connectord_config::Config;

    use super::*;

    fn config() -> Config {
        let text = "[delivery]\ntype = \"maildir\"\npath = \"/m/{user}\"\n[delivery.other]\ntype = \"maildir\"\npath = \"/o/{user}\"\n";
        Config::parse(text, "c.toml", Path::new("/")).unwrap()
    }

    fn read(kept: &saved::Settings) -> Settings {
        let password = CredentialSource::Password("secret".into());
        let read = saved::account_from(&config(), "ann@x", kept, true, password).unwrap();
        shown(&read.account, &read.policy, kept.get("note").and_then(Value::as_str).unwrap_or_default())
    }

    fn entered() -> Settings {
        Settings {
            address: "ann@x".into(),
            protocol: Protocol::Imap,
            security: Security::Starttls,
            host: "imap.x".into(),
            port: Some(1143),
            username: "ann".into(),
            deliver_to: vec!["ann".into(), "bob".into()],
            check: Check::Every(7),
            start: Start::FromNowOn,
            delete: Delete::After(3),
            delete_by: DeleteBy::Trash,
            folders: vec!["INBOX".into(), "a/*".into(), "\\Junk".into()],
            antispam: false,
            antivirus: false,
            on_filter_failure: OnFilterFailure::Deliver,
            max_megabytes: Some(50),
            oversize: Oversize::Skip,
            mark_seen: true,
            delivery: "other".into(),
            recipient: "{user}@y".into(),
            pins: vec![format!("sha256:{}", "a".repeat(64))],
            trusted_relays: vec!["mx.x".into()],
            note: "two\nlines".into(),
            enabled: true,
        }
    }

    #[test]
    fn what_is_entered_comes_back_from_what_is_kept() {
        let mut config = config();
        config.saved.ports.push(1143..=1143);
        let all = entered();
        let kept = kept(&all, &Policy::default()).unwrap();
        let password = || CredentialSource::Password("secret".into());
        let read = saved::account_from(&config, "ann@x", &kept, true, password()).unwrap();
        assert_eq!(shown(&read.account, &read.policy, "two\nlines"), all);
        assert_eq!(kept["note"].as_str(), Some("two\nlines"));

        let plain = Settings {
            host: "h".into(),
            deliver_to: vec!["ann".into()],
            address: "ann@x".into(),
            ..Settings::default()
        };
        let few = super::kept(&plain, &Policy::default()).unwrap();
        assert_eq!(few.keys().map(String::as_str).collect::<Vec<_>>(), ["deliver_to", "host", "protocol"]);
        assert_eq!(self::read(&few), plain);
    }

    #[test]
    fn what_the_page_does_not_know_of_stays_as_it_is() {
        let kept: saved::Settings = "protocol = \"imap\"\nhost = \"h\"\ndeliver_to = \"ann\"\ncheck_every = \"30s\"\n\
                                     delete = \"age:30d\"\ndelete_by = \"move:Old\"\nmechanisms = [\"PLAIN\"]"
            .parse()
            .unwrap();
        let before = read(&kept);
        let after = Settings { note: "x".into(), security: Security::Starttls, ..before.clone() };
        let (set, unset) = difference(&before, &after).unwrap();
        let mut set: Vec<_> = set.into_iter().map(|(key, _)| key).collect();
        set.sort();
        assert_eq!((set, unset), (vec!["note".to_owned(), "security".to_owned()], Vec::new()));
        let (set, unset) =
            difference(&before, &Settings { check: Check::Push, username: String::new(), ..before.clone() }).unwrap();
        assert_eq!((set.get("idle"), unset), (Some(&true.into()), vec!["check_every".to_owned()]));
    }
}
