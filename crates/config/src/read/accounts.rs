//! `[[account]]`, each for itself and against the others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use connectord_account::{Account, Check, CredentialSource, Folder, Oversize, Protocol, Removal, Retention, Start};
use connectord_filter::Policy;
use connectord_net::Pin;
use connectord_sasl::Mechanism;
use connectord_wire::{Endpoint, Escaped, Security};
use toml::Spanned;
use toml::de::DeValue;

use super::deliveries::{Named, template};
use super::{existing_file, filters, is_loopback, is_user, passwords, relays};
use crate::model::*;
use crate::nearest::nearest;
use crate::schema;
use crate::section::{Section, Span, show};
use crate::{url, values};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

/// The roles of RFC 6154, and `\Important` of RFC 8457.
const ROLES: [&str; 8] = ["\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Important", "\\Junk", "\\Sent", "\\Trash"];

pub(super) fn read(
    root: Section<'_, '_>,
    users: &UserSettings,
    default: Option<&Option<DeliverySettings>>,
    deliveries: &Named,
    site: &FilterSettings,
) -> Vec<(Account, Policy)> {
    let Some(value) = root.raw("account") else { return Vec::new() };
    let context = root.context;
    let list = match value.get_ref() {
        DeValue::Array(list) => list,
        DeValue::Table(_) => {
            let message = "accounts are a list";
            context.problem_with_hint(&value.span(), message, "write [[account]] with two brackets");
            return Vec::new();
        }
        _ => {
            root.wrong_type::<()>("account");
            return Vec::new();
        }
    };
    let local = Local::new(users);
    let known = deliveries.keys().map(String::as_str).collect();
    let mut unknown = relays::Unknown::default();
    let mut others = Others { default, deliveries: Some(deliveries), known, ..Others::default() };
    let mut accounts = Vec::new();
    for item in list {
        let DeValue::Table(table) = item.get_ref() else {
            context.problem(&item.span(), format!("an account must be a table, not {}", show(item.get_ref())));
            continue;
        };
        let section = Section::open(context, &schema::ACCOUNT, table, &item.span(), |_, _| false);
        let account = account(section, &local, site);
        others.see(section, account.as_ref().map(|(account, _)| account));
        if let Some((account, policy)) = &account {
            unknown.see(section, account, policy, site);
        }
        accounts.extend(account);
    }
    others.finish(root);
    unknown.finish(context);
    accounts
}

pub(crate) fn account(section: Section<'_, '_>, local: &Local<'_>, site: &FilterSettings) -> Option<(Account, Policy)> {
    let context = section.context;
    for name in ["address", "protocol", "host", "deliver_to"] {
        section.require(name);
    }
    let address = section.text("address").filter(|address| {
        let fits = address.get_ref().len() <= 320;
        if !fits {
            context.problem(&address.span(), "address must have at most 320 octets");
        }
        fits
    });
    let protocol = section.choice("protocol", [Protocol::Pop3, Protocol::Imap]);
    let security = security(section);
    let default_port = protocol.unwrap_or(Protocol::Imap).default_port(security);
    let endpoint = endpoint(section, section.integer("port").unwrap_or(default_port));
    let deliver_to = deliver_to(section, local);
    let username = section.text("username").map(Spanned::into_inner);
    let credential = local.stored.clone().unwrap_or_else(|| credential(section));
    let retention = retention(section);
    let max_message_octets = section.size("max_message_size");
    let policy = filters::of_account(section, site);
    let [antispam, antivirus] = [("antispam", policy.antispam), ("antivirus", policy.antivirus)]
        .map(|(name, wanted)| section.has(name).then_some(wanted));
    let checked = Checked {
        mechanisms: mechanisms(section),
        recipient: recipient(section, deliver_to.as_deref().unwrap_or_default()),
        delivery: section.text("delivery").map(Spanned::into_inner),
        check: check(section),
        removal: removal(section, retention),
        folders: folders(section),
        pins: pins(section, security),
        proxy: proxy(section),
        trusted_relays: relays::read(section),
    };
    if protocol == Some(Protocol::Pop3) {
        imap_only(section);
    }
    if let Some(endpoint) = &endpoint
        && security == Security::None
        && !matches!(credential, CredentialSource::Missing)
        && !is_loopback(endpoint.host())
    {
        let message = format!("the password and the mail for {endpoint} travel readable for others");
        context.warning(
            &section.key_span("security"),
            message,
            Some("write security = \"tls\" or \"starttls\"".into()),
        );
    }
    if checked.check == Check::Idle
        && let [] | [_, _, ..] | [Folder::Pattern(_)] = checked.folders.as_slice()
        && section.has("folders")
    {
        let message = "idle = true waits at exactly one folder; folders names more, or a pattern";
        context.problem_between(&section.key_span("idle"), &section.key_span("folders"), message);
    }
    if let Removal::MoveTo(target) = &checked.removal
        && checked.folders.contains(&Folder::Name(target.clone()))
    {
        let message = "messages moved to this folder would be retrieved again from there";
        context.problem_between(&section.value_span("delete_by"), &section.value_span("folders"), message);
    }

    let (enabled, mark_seen) = (section.flag("enabled"), section.flag("mark_seen"));
    let (start, oversize) = (
        section.choice("start", [Start::Everything, Start::FromNowOn]).unwrap_or_default(),
        section.choice("oversize", [Oversize::Park, Oversize::Skip]).unwrap_or_default(),
    );
    // For people alone, who may write several lines.
    if section.raw("note").is_some_and(|note| note.get_ref().as_str().is_none()) {
        section.wrong_type::<()>("note");
    }
    let ca_file = existing_file(section, "ca_file");
    let (removals_per_session, initial_response) =
        (section.integer("removals_per_session"), section.flag("initial_response"));
    let connections = section.integer("connections");
    let (address, deliver_to) = (address?.into_inner(), deliver_to?);
    let account = Account::new(&address, protocol?, endpoint?, deliver_to.first()?);
    let account = Account {
        security,
        username: username.unwrap_or(address),
        credential,
        mechanisms: checked.mechanisms,
        deliver_to,
        recipient: checked.recipient,
        delivery: checked.delivery,
        check: checked.check,
        retention,
        removal: checked.removal,
        folders: checked.folders,
        enabled: enabled.is_none_or(Spanned::into_inner),
        start,
        max_message_octets,
        oversize,
        mark_seen: mark_seen.is_some_and(Spanned::into_inner),
        antispam,
        antivirus,
        ca_file,
        pins: checked.pins,
        proxy: checked.proxy,
        trusted_relays: checked.trusted_relays,
        removals_per_session: removals_per_session.unwrap_or(account.removals_per_session),
        connections,
        initial_response: initial_response.is_none_or(Spanned::into_inner),
        ..account
    };
    Some((account, policy))
}

/// The local users, as far as the file knows them, and the password, when it does not stand among the keys.
pub(crate) struct Local<'u> {
    groups: &'u BTreeMap<String, Vec<String>>,
    /// With `source = "list"`.
    listed: Option<HashSet<&'u str>>,
    stored: Option<CredentialSource>,
}

impl<'u> Local<'u> {
    pub(crate) fn new(users: &'u UserSettings) -> Self {
        let listed = match &users.source {
            UserSource::List(list) => Some(list.iter().map(String::as_str).collect()),
            _ => None,
        };
        Self { groups: &users.groups, listed, stored: None }
    }

    /// The password is there: it is not looked for among the keys.
    pub(crate) fn with_credential(self, credential: CredentialSource) -> Self {
        Self { stored: Some(credential), ..self }
    }
}

/// What is looked at before it is known whether the account is whole, so that all mistakes are told.
struct Checked {
    mechanisms: Vec<String>,
    recipient: String,
    delivery: Option<String>,
    check: Check,
    removal: Removal,
    folders: Vec<Folder>,
    pins: Vec<String>,
    proxy: Option<connectord_account::ProxySettings>,
    trusted_relays: Option<Vec<String>>,
}

pub(super) fn security(section: Section<'_, '_>) -> Security {
    section.choice("security", [Security::Tls, Security::StartTls, Security::None]).unwrap_or_default()
}

pub(super) fn endpoint(section: Section<'_, '_>, port: u16) -> Option<Endpoint> {
    let host = section.text("host")?;
    match Endpoint::new(host.get_ref(), port) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            let message = format!("host: {error}");
            match host.get_ref().parse::<Endpoint>() {
                Ok(both) if !section.has("port") => {
                    let hint = format!("write host = \"{}\" and port = {}", both.host(), both.port());
                    section.context.problem_with_hint(&host.span(), message, hint);
                }
                _ => section.context.problem(&host.span(), message),
            }
            None
        }
    }
}

fn deliver_to(section: Section<'_, '_>, local: &Local<'_>) -> Option<Vec<String>> {
    let context = section.context;
    let names = section.texts("deliver_to")?;
    if names.is_empty() {
        context.problem(&section.value_span("deliver_to"), "deliver_to must name at least one user");
    }
    let (mut all, mut faultless) = (Vec::new(), !names.is_empty());
    for name in names {
        match name.get_ref().strip_prefix('@') {
            Some(group) => match local.groups.get(&group.to_lowercase()) {
                Some(members) => all.extend(members.iter().cloned()),
                None => {
                    faultless = false;
                    let known: Vec<_> = local.groups.keys().map(String::as_str).collect();
                    let meant =
                        nearest(group, &known).map_or_else(String::new, |g| format!("; did you mean \"@{g}\"?"));
                    let shown = Escaped::text(group);
                    let message = format!("deliver_to: there is no group \"{shown}\" in [users.groups]{meant}");
                    context.problem(&name.span(), message);
                }
            },
            None if is_user(context, "deliver_to", &name) => all.push(name.into_inner()),
            None => faultless = false,
        }
    }
    if let Some(listed) = &local.listed
        && let Some(stranger) = all.iter().find(|user| !listed.contains(user.as_str()))
    {
        let shown = Escaped::text(stranger);
        let message = format!("\"{shown}\" is not in the list of [users]: the account will be held");
        context.warning(&section.value_span("deliver_to"), message, None);
    }
    let mut seen = BTreeSet::new();
    all.retain(|user| seen.insert(user.clone()));
    faultless.then_some(all)
}

fn recipient(section: Section<'_, '_>, users: &[String]) -> String {
    let default = || "{user}".to_owned();
    let Some(text) = section.text("recipient") else { return default() };
    let Some(template) = template(section.context, "recipient", &text) else { return default() };
    if users.len() > 1 && !template.names_the_user() {
        let message = format!("all {} users of deliver_to get their copies at this one address", users.len());
        section.context.warning(&text.span(), message, Some("put {user} into it".to_owned()));
    }
    text.into_inner()
}

fn credential(section: Section<'_, '_>) -> CredentialSource {
    if !passwords::KEYS.iter().any(|name| section.has(name)) && !section.has("oauth2") {
        section.context.absent(
            "password",
            &section.span(),
            "the account has no password",
            "write password_file = \"PATH\"; password_command, password_env and password are there too",
        );
    }
    match passwords::read(section) {
        None => CredentialSource::Missing,
        Some(PasswordSource::File(path)) => CredentialSource::File(path),
        Some(PasswordSource::Command(words)) => CredentialSource::Command(words),
        Some(PasswordSource::Environment(name)) => CredentialSource::Environment(name),
        Some(PasswordSource::Inline(password)) => CredentialSource::Password(password),
    }
}

fn mechanisms(section: Section<'_, '_>) -> Vec<String> {
    let context = section.context;
    let mut mechanisms = Vec::new();
    for name in section.texts("mechanisms").unwrap_or_default() {
        match Mechanism::parse(name.get_ref()) {
            Some(Mechanism::External) => {
                context.problem(&name.span(), "EXTERNAL needs a client certificate, which this version cannot present");
            }
            Some(mechanism) => mechanisms.push(mechanism),
            None => {
                let known = Mechanism::ALL.map(Mechanism::name).join(", ");
                let shown = Escaped::text(name.get_ref());
                context.problem(&name.span(), format!("mechanisms: {shown:?} is not known; known: {known}"));
            }
        }
    }
    let tokens = mechanisms.iter().filter(|mechanism| is_token(**mechanism)).count();
    if tokens > 0 && tokens < mechanisms.len() {
        let message = "mechanisms mixes those for a password with those for an access token";
        context.problem(&section.value_span("mechanisms"), message);
    }
    mechanisms.into_iter().map(|mechanism| mechanism.name().to_owned()).collect()
}

pub(crate) fn is_token(mechanism: Mechanism) -> bool {
    matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer)
}

fn check(section: Section<'_, '_>) -> Check {
    let idle = section.flag("idle").is_some_and(Spanned::into_inner);
    let every = section.form("check_every", |text| match text {
        "never" => Some(Check::Never),
        _ => bounded(text, 10, 366 * DAY).map(Check::Every),
    });
    if idle && section.has("check_every") {
        let message = "idle = true checks by itself: check_every cannot stand beside it";
        section.context.problem_between(&section.key_span("check_every"), &section.key_span("idle"), message);
    }
    match every {
        _ if idle => Check::Idle,
        Some(check) => check.into_inner(),
        None => Check::Every(Duration::from_secs(15 * MINUTE)),
    }
}

fn retention(section: Section<'_, '_>) -> Retention {
    section.form("delete", retention_of).map(Spanned::into_inner).unwrap_or_default()
}

/// Reads the value of `delete`.
pub(crate) fn retention_of(text: &str) -> Option<Retention> {
    let longest = 36_600 * DAY;
    match text.strip_prefix("age:") {
        Some(age) => bounded(age, 1, longest).map(Retention::ByAge),
        None if text == "never" => Some(Retention::Never),
        None if text == "immediately" => Some(Retention::Immediately),
        None => bounded(text, 1, longest).map(Retention::AfterDelivery),
    }
}

fn bounded(text: &str, min: u64, max: u64) -> Option<Duration> {
    values::duration(text).filter(|time| (min..=max).contains(&time.as_secs()))
}

fn removal(section: Section<'_, '_>, retention: Retention) -> Removal {
    let parsed = section.form("delete_by", |text| match text.strip_prefix("move:") {
        Some("") => None,
        Some(folder) => Some(Removal::MoveTo(inbox_or(folder))),
        None if text == "expunge" => Some(Removal::Expunge),
        None if text == "trash" => Some(Removal::Trash),
        None if text == "seen" => Some(Removal::MarkSeen),
        None => None,
    });
    if retention == Retention::Never && parsed.as_ref().is_some_and(|by| *by.get_ref() != Removal::Expunge) {
        let message = "delete_by has no effect while delete is \"never\"";
        section.context.warning(&section.key_span("delete_by"), message, None);
    }
    parsed.map(Spanned::into_inner).unwrap_or_default()
}

fn folders(section: Section<'_, '_>) -> Vec<Folder> {
    let context = section.context;
    let default = vec![Folder::Name("INBOX".to_owned())];
    let Some(names) = section.texts("folders") else { return default };
    if names.is_empty() {
        context.problem(&section.value_span("folders"), "folders must name at least one folder");
    }
    let mut folders = Vec::new();
    for name in names {
        let (span, text) = (name.span(), name.into_inner());
        let folder = if let Some(shown) = text.strip_prefix('\\') {
            let Some(role) = ROLES.iter().find(|role| role.eq_ignore_ascii_case(&text)) else {
                let meant = nearest(&text, &ROLES).map_or_else(String::new, |role| format!("; did you mean {role}?"));
                let separator = if meant.is_empty() { ";" } else { "" };
                let (shown, known) = (Escaped::text(shown), ROLES.join(", "));
                let message = format!("folders: \\{shown} is no role{meant}{separator} known: {known}");
                context.problem(&span, message);
                continue;
            };
            Folder::Role((*role).to_owned())
        } else if text.contains(['*', '%']) {
            Folder::Pattern(text)
        } else {
            Folder::Name(inbox_or(&text))
        };
        if folders.contains(&folder) {
            context.warning(&span, "this folder is there twice", None);
        } else {
            folders.push(folder);
        }
    }
    folders
}

/// RFC 9051 §5.1: INBOX is the one name that is the same in every case.
fn inbox_or(name: &str) -> String {
    if name.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { name.to_owned() }
}

fn imap_only(section: Section<'_, '_>) {
    let problem = |name: &str, message: &str| section.context.problem(&section.key_span(name), message);
    let is_true = |name| matches!(section.raw(name).map(Spanned::get_ref), Some(DeValue::Boolean(true)));
    if section.has("folders") {
        problem("folders", "POP3 knows no folders: remove folders, or use protocol = \"imap\"");
    }
    if is_true("idle") {
        problem("idle", "POP3 knows no IDLE: use check_every, or protocol = \"imap\"");
    }
    if is_true("mark_seen") {
        problem("mark_seen", "POP3 cannot mark messages: remove mark_seen, or use protocol = \"imap\"");
    }
    if section.has("connections") {
        problem("connections", "POP3 locks the mailbox: remove connections, or use protocol = \"imap\"");
    }
    let by = section.raw("delete_by").map(Spanned::get_ref);
    if matches!(by, Some(DeValue::String(by)) if by != "expunge") {
        problem("delete_by", "POP3 can only delete: remove delete_by, or use protocol = \"imap\"");
    }
}

fn pins(section: Section<'_, '_>, security: Security) -> Vec<String> {
    let mut pins = Vec::new();
    for text in section.texts("pin").unwrap_or_default() {
        match Pin::from_str(text.get_ref()) {
            Ok(pin) => pins.push(pin.to_string()),
            Err(error) => section.context.problem(&text.span(), format!("pin: {error}")),
        }
    }
    if security == Security::None {
        for name in ["pin", "ca_file"] {
            if section.has(name) {
                let message = format!("{name} protects nothing with security = \"none\"");
                section.context.problem(&section.key_span(name), message);
            }
        }
    }
    pins
}

fn proxy(section: Section<'_, '_>) -> Option<connectord_account::ProxySettings> {
    let span = section.value_span("proxy");
    match section.raw("proxy").map(Spanned::get_ref) {
        Some(DeValue::String(text)) if text.contains('@') => section.context.secret(&span),
        Some(DeValue::String(_)) | None => {}
        Some(_) => section.context.hide(&span),
    }
    // The text is a secret in part: what is wrong is told without it.
    let text = section.text("proxy")?;
    match url::parse_proxy(text.get_ref()) {
        Ok(proxy) => Some(proxy),
        Err(error) => {
            section.context.problem(&span, format!("proxy: {error}"));
            None
        }
    }
}

/// Reports a destination that is not there; true when there is no default one, which is told once: the remedy is the same
/// for all.
pub(crate) fn look_for_destination(section: Section<'_, '_>, has_default: bool, known: &[&str]) -> bool {
    let context = section.context;
    match section.raw("delivery").map(Spanned::get_ref) {
        None if !has_default => {
            context.absent(
                "delivery",
                &section.span(),
                "the account has no destination: there is no [delivery], and it names no other",
                "write [delivery] with type = \"maildir\" and path = \"/var/vmail/{user}/Maildir\", for instance",
            );
            return true;
        }
        Some(DeValue::String(name)) if !known.contains(&name.as_ref()) => {
            let meant = nearest(name, known).map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"));
            let message = format!("there is no [delivery.{}]{meant}", Escaped::text(name));
            context.problem(&section.value_span("delivery"), message);
        }
        _ => {}
    }
    false
}

/// What is the same for two accounts that would fetch the same mail twice: server, user name, destination, users.
pub(crate) type Mailbox = (String, String, Option<String>, Vec<String>);

pub(crate) fn mailbox_of(account: &Account) -> Mailbox {
    let mut users = account.deliver_to.clone();
    users.sort();
    (account.endpoint.host().to_owned(), account.username.to_lowercase(), account.delivery.clone(), users)
}

/// Whether two accounts of the same mailbox look into the same folder.
pub(crate) fn overlap(folders: &[Folder], others: &[Folder]) -> bool {
    folders.iter().any(|folder| others.contains(folder))
}

/// What accounts are to each other and to the destinations.
#[derive(Default)]
struct Others<'d> {
    default: Option<&'d Option<DeliverySettings>>,
    deliveries: Option<&'d Named>,
    known: Vec<&'d str>,
    by_address: HashMap<String, Span>,
    by_mailbox: HashMap<Mailbox, Vec<(Span, Vec<Folder>)>>,
    /// Who gets mail at which destination.
    users: BTreeMap<Option<String>, BTreeSet<String>>,
    lacks_default: bool,
}

impl Others<'_> {
    fn see(&mut self, section: Section<'_, '_>, account: Option<&Account>) {
        let context = section.context;
        if let Some(address) = section.raw("address").and_then(|value| value.get_ref().as_str()) {
            let span = section.value_span("address");
            match self.by_address.get(&address.to_lowercase()) {
                Some(first) => {
                    let shown = Escaped::text(address);
                    let message =
                        format!("the account \"{shown}\" is there twice, first in line {}", context.line(first));
                    context.problem_between(&span, first, message);
                }
                None => _ = self.by_address.insert(address.to_lowercase(), span),
            }
        }
        let lacks = look_for_destination(section, self.default.is_some() || self.lacks_default, &self.known);
        self.lacks_default |= lacks;
        let Some(account) = account else { return };
        self.users.entry(account.delivery.clone()).or_default().extend(account.deliver_to.iter().cloned());

        let same = self.by_mailbox.entry(mailbox_of(account)).or_default();
        let span = section.key_span("host");
        if let Some((first, _)) = same.iter().find(|(_, folders)| overlap(folders, &account.folders)) {
            let line = context.line(first);
            let message =
                format!("the account in line {line} has the same server, user name and users: mail comes twice");
            context.warning_between(&span, first, message);
        }
        // Enough to notice what is most likely a mistake; each further one costs a comparison.
        if same.len() < 64 {
            same.push((span, account.folders.clone()));
        }
    }

    /// Warns of destinations where the mail of several users ends in one place.
    fn finish(self, root: Section<'_, '_>) {
        for (name, users) in self.users.iter().filter(|(_, users)| users.len() > 1) {
            let settings = match name {
                Some(name) => self.deliveries.and_then(|named| named.get(name)),
                None => self.default,
            };
            let path = match settings {
                Some(Some(DeliverySettings::Maildir(settings))) => &settings.path,
                Some(Some(DeliverySettings::Mbox(settings))) => &settings.path,
                _ => continue,
            };
            let Some(DeValue::Table(table)) = root.raw("delivery").map(Spanned::get_ref) else { continue };
            let table = match name {
                Some(name) => table.get(name.as_str()).and_then(|value| value.get_ref().as_table()),
                None => Some(table),
            };
            let Some(value) = table.and_then(|table| table.get("path")).filter(|_| !path.names_the_user()) else {
                continue;
            };
            let message = format!("the mail of {} users ends in this one place", users.len());
            root.context.warning(&value.span(), message, Some("put {user} into the path".to_owned()));
        }
    }
}
