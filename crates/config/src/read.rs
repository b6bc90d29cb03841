//! From a text to a [`Config`]: what stands outside of `[delivery]` and `[[account]]`, and what holds between tables.

pub(crate) mod accounts;
mod deliveries;
mod filters;
mod notices;
mod passwords;
pub(crate) mod relays;
mod rules;
mod syntax;

pub(crate) use accounts::is_token;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connectord_net::{NetworkError, Timeouts, TlsVersion};
use connectord_wire::Endpoint;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::model::*;
use crate::problem::{Problem, Problems};
use crate::schema::{self, Schema};
use crate::section::{Context, Section, Span, texts_of_list};
use crate::values;

/// A file that was read, and where its first inline secret stands.
pub(crate) struct Outcome {
    pub(crate) result: Result<Config, Problems>,
    pub(crate) inline_secret: bool,
    /// For a further problem about that secret.
    pub(crate) at_secret: Option<Problem>,
}

pub(crate) fn parse(text: &str, file: &str, base_dir: &Path, looks_at_files: bool) -> Outcome {
    let context = Context::new(text, file, base_dir, looks_at_files);
    let (root, errors) = DeTable::parse_recoverable(text);
    let config = if errors.is_empty() {
        Some(config(&context, &root))
    } else {
        syntax::report(&context, &errors);
        None
    };
    let secret = context.inline_secret();
    if let Some(span) = &secret {
        context.warning(span, "", None);
    }
    let (problems, mut warnings) = context.finish();
    let at_secret = warnings.iter().position(|w| w.message.is_empty()).map(|at| warnings.remove(at));
    let result = match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(Problems { problems }),
    };
    Outcome { result, inline_secret: secret.is_some(), at_secret }
}

fn config(context: &Context<'_>, root: &Spanned<DeTable<'_>>) -> Config {
    let root = Section::open(context, &schema::ROOT, root.get_ref(), &root.span(), |_, _| false);
    let users = users(root);
    let (default_delivery, deliveries) = deliveries::read(root);
    let filters = filters::read(root);
    let quarantine = filters::quarantine(root);
    let accounts = accounts::read(root, &users, default_delivery.as_ref(), &deliveries, &filters);
    let policies = accounts.iter().map(|(account, policy)| (account.address.clone(), policy.clone())).collect();
    let accounts = accounts.into_iter().map(|(account, _)| account).collect();
    let notices = notices::read(root, default_delivery.is_some(), &deliveries);
    Config {
        state: state(root),
        trail: trail(root),
        log: log(root),
        admin: admin(root),
        default_delivery: default_delivery.flatten(),
        deliveries: deliveries.into_iter().filter_map(|(name, settings)| Some((name, settings?))).collect(),
        filters,
        quarantine,
        policies,
        saved: saved(root),
        users,
        schedule: schedule(root),
        timeouts: timeouts(root),
        tls: tls(root),
        notices,
        process: ProcessSettings {
            user: table(root, "process", &schema::PROCESS).and_then(|s| s.text("user")).map(Spanned::into_inner),
        },
        accounts,
        warnings: Vec::new(),
    }
}

/// The table of this name, its keys checked.
fn table<'a, 'i>(parent: Section<'a, 'i>, name: &str, schema: &'static Schema) -> Option<Section<'a, 'i>> {
    match parent.raw(name)?.get_ref() {
        DeValue::Table(table) => {
            let span = parent.value_span(name);
            Some(Section::open(parent.context, schema, table, &span, |_, _| false))
        }
        _ => parent.wrong_type(name),
    }
}

fn state(root: Section<'_, '_>) -> StateSettings {
    let Some(section) = table(root, "state", &schema::STATE) else { return StateSettings::default() };
    StateSettings { database: database(section), key_file: section.path("key_file").map(Spanned::into_inner) }
}

fn trail(root: Section<'_, '_>) -> TrailSettings {
    let Some(section) = table(root, "trail", &schema::TRAIL) else { return TrailSettings::default() };
    let day = Duration::from_secs(86_400);
    let keep_for = section.form("keep_for", |text| match text {
        "off" => Some(None),
        _ => values::duration(text).filter(|time| (day..=36_600 * day).contains(time)).map(Some),
    });
    TrailSettings { keep_for: keep_for.map_or_else(|| TrailSettings::default().keep_for, Spanned::into_inner) }
}

fn database(section: Section<'_, '_>) -> Option<PathBuf> {
    let context = section.context;
    let url = section.text("url")?;
    // The URL of a server may hold a password.
    let is_server = ["postgres:", "postgresql:"].iter().any(|scheme| url.get_ref().starts_with(scheme));
    if is_server || (url.get_ref().contains('@') && !url.get_ref().starts_with("sqlite:")) {
        context.secret(&url.span());
        let message =
            if is_server { "PostgreSQL is not in this version yet" } else { "this kind of database is not known" };
        context.problem_with_hint(&url.span(), message, "write url = \"sqlite:///PATH\"");
        return None;
    }
    let path = section.form("url", |url| {
        let path = url.strip_prefix("sqlite:")?;
        let path = path.strip_prefix("//").unwrap_or(path);
        (!path.is_empty() && !path.contains('?') && !path.ends_with('/')).then(|| context.resolve(path))
    });
    let path = path?.into_inner();
    // The store keeps more than one file, and knows them by its directory.
    if path.file_name().is_none_or(|name| name != "state.db") {
        context.problem(&url.span(), "the database must be called state.db; its directory is free");
        return None;
    }
    Some(path)
}

fn log(root: Section<'_, '_>) -> LogSettings {
    let Some(section) = table(root, "log", &schema::LOG) else { return LogSettings::default() };
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    LogSettings {
        to: section.choice("to", [LogTarget::Stderr, LogTarget::Syslog, LogTarget::Journald]).unwrap_or_default(),
        level: section.choice("level", [Error, Warn, Info, Debug, Trace]).unwrap_or_default(),
    }
}

fn admin(root: Section<'_, '_>) -> Option<AdminSettings> {
    let section = table(root, "admin", &schema::ADMIN)?;
    section.require("listen");
    let listen = listen(section, "listen");
    let public_url = section.form("public_url", public_url).map(Spanned::into_inner);
    let [behind_proxy, own_accounts] =
        ["behind_proxy", "own_accounts"].map(|name| section.flag(name).is_some_and(Spanned::into_inner));
    if behind_proxy && !section.has("public_url") {
        let message = "behind_proxy = true needs public_url: requests for other names are refused";
        let hint = "write public_url = \"https://NAME\", as people reach the proxy";
        section.context.problem_with_hint(&section.key_span("behind_proxy"), message, hint);
    }
    let listen = listen?;
    if let Listen::Tcp(endpoint) = &listen
        && !is_loopback(endpoint.host())
        && !(behind_proxy && section.has("public_url"))
    {
        let message =
            format!("{endpoint} is reached from elsewhere, and the page has no TLS: passwords would travel readable");
        let hint = "write listen = \"127.0.0.1:8025\"; with a reverse proxy that has TLS in front, also public_url and behind_proxy";
        section.context.problem_with_hint(&section.value_span("listen"), message, hint);
        return None;
    }
    Some(AdminSettings { listen, public_url, behind_proxy, own_accounts })
}

/// `https://NAME` or `https://NAME:PORT`; a slash at the end goes.
fn public_url(text: &str) -> Option<String> {
    let name = text.strip_prefix("https://")?.trim_end_matches('/');
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    (!name.is_empty() && name.chars().all(is_name)).then(|| format!("https://{}", name.to_ascii_lowercase()))
}

fn saved(root: Section<'_, '_>) -> SavedSettings {
    let Some(section) = table(root, "saved", &schema::SAVED) else { return SavedSettings::default() };
    let mut settings = SavedSettings::default();
    for text in section.texts("networks").unwrap_or_default() {
        match text.get_ref().parse() {
            Ok(network) => settings.networks.push(network),
            Err(NetworkError) => {
                let shown = connectord_wire::Escaped::text(text.get_ref());
                section.context.problem(&text.span(), format!("networks: {NetworkError}, not {shown:?}"));
            }
        }
    }
    for text in section.texts("ports").unwrap_or_default() {
        let (first, last) = text.get_ref().split_once('-').unwrap_or((text.get_ref(), text.get_ref()));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => settings.ports.push(first..=last),
            _ => {
                let shown = connectord_wire::Escaped::text(text.get_ref());
                let message = format!("ports: expected a port or two such as \"2000-2999\", not {shown:?}");
                section.context.problem(&text.span(), message);
            }
        }
    }
    settings
}

/// `host:port` or `unix:/path`.
fn listen(section: Section<'_, '_>, name: &str) -> Option<Listen> {
    let parse = |text: &str| match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Listen::Unix(section.context.resolve(path))),
        None => text.parse::<Endpoint>().ok().filter(|endpoint| endpoint.port() > 0).map(Listen::Tcp),
    };
    section.form(name, parse).map(Spanned::into_inner)
}

fn users(root: Section<'_, '_>) -> UserSettings {
    let Some(section) = table(root, "users", &schema::USERS) else { return UserSettings::default() };
    #[derive(Clone, Copy, PartialEq)]
    enum Source {
        Delivery,
        System,
        List,
        Any,
    }
    let source = section.choice("source", [Source::Delivery, Source::System, Source::List, Source::Any]);
    let list = section.texts("list");
    let source = match source {
        None | Some(Source::Delivery) => UserSource::Delivery,
        Some(Source::System) => UserSource::System,
        Some(Source::Any) => UserSource::Any,
        Some(Source::List) => {
            section.require("list");
            let names = list.unwrap_or_default();
            for name in &names {
                is_user(section.context, "list", name);
            }
            UserSource::List(names.into_iter().map(Spanned::into_inner).collect())
        }
    };
    if section.has("list") && !matches!(source, UserSource::List(_)) {
        section.context.problem_with_hint(
            &section.key_span("list"),
            "list has no effect with this source",
            "write source = \"list\", or remove list",
        );
    }
    UserSettings { source, groups: groups(section).unwrap_or_default() }
}

fn groups(section: Section<'_, '_>) -> Option<BTreeMap<String, Vec<String>>> {
    let DeValue::Table(table) = section.raw("groups")?.get_ref() else { return section.wrong_type("groups") };
    let mut groups = BTreeMap::new();
    for (name, value) in table {
        let context = section.context;
        let DeValue::Array(list) = value.get_ref() else {
            context.problem(&value.span(), "a group must be a list of users, such as [\"alice\", \"bob\"]");
            continue;
        };
        let Some(members) = texts_of_list(context, "a group", list.iter()) else { continue };
        if members.is_empty() {
            context.problem(&value.span(), "a group must have at least one user");
        }
        // Each is looked at, so that all mistakes are told.
        if members.iter().filter(|member| !is_user(context, "a group", member)).count() > 0 {
            continue;
        }
        let members = members.into_iter().map(Spanned::into_inner).collect();
        if groups.insert(name.get_ref().to_lowercase(), members).is_some() {
            context.problem(&name.span(), "this group is there twice, case aside");
        }
    }
    Some(groups)
}

/// Reports a name that no local user can have, because it would become a path or a group.
fn is_user(context: &Context<'_>, key: &str, name: &Spanned<String>) -> bool {
    let text = name.get_ref();
    let fault = match text.chars().next() {
        Some('@') => "starts with \"@\": a group cannot stand here",
        Some('.') => "starts with a dot",
        Some('-') => "starts with \"-\", which programs take for an option",
        _ if text.contains('/') => "contains \"/\"",
        _ if text.contains(char::is_whitespace) => "contains white space",
        _ if text.len() > 255 => "is longer than 255 octets",
        _ => return true,
    };
    context.problem(&name.span(), format!("{key}: the user {:?} {fault}", connectord_wire::Escaped::text(text)));
    false
}

fn schedule(root: Section<'_, '_>) -> ScheduleSettings {
    let default = ScheduleSettings::default();
    let Some(section) = table(root, "schedule", &schema::SCHEDULE) else { return default };
    ScheduleSettings {
        concurrency: section.integer("concurrency").unwrap_or(default.concurrency),
        per_host: section.integer("per_host").unwrap_or(default.per_host),
        idle_per_host: section.integer("idle_per_host").unwrap_or(default.idle_per_host),
        jitter: section.fraction("jitter").unwrap_or(default.jitter),
        quiet: section.form("quiet", values::quiet_hours).map(Spanned::into_inner),
    }
}

fn timeouts(root: Section<'_, '_>) -> Timeouts {
    let default = Timeouts::default();
    let Some(section) = table(root, "timeouts", &schema::TIMEOUTS) else { return default };
    Timeouts {
        connect: section.duration("connect").unwrap_or(default.connect),
        silence: section.duration("silence").unwrap_or(default.silence),
        minimum_rate: section.integer("minimum_rate").unwrap_or(default.minimum_rate),
        rate_window: section.duration("rate_window").unwrap_or(default.rate_window),
        session: section.duration("session"),
    }
}

fn tls(root: Section<'_, '_>) -> TlsSettings {
    let Some(section) = table(root, "tls", &schema::TLS) else { return TlsSettings::default() };
    TlsSettings {
        ca_file: existing_file(section, "ca_file"),
        minimum: section.choice("minimum", [TlsVersion::Tls12, TlsVersion::Tls13]).unwrap_or_default(),
    }
}

/// A path to a file that is read later; warns when it is not there.
fn existing_file(section: Section<'_, '_>, name: &str) -> Option<PathBuf> {
    let path = section.path(name)?;
    look_at_file(section.context, name, path.get_ref(), &path.span());
    Some(path.into_inner())
}

fn look_at_file(context: &Context<'_>, name: &str, path: &Path, span: &Span) -> Option<std::fs::Metadata> {
    if !context.looks_at_files {
        return None;
    }
    let shown = connectord_wire::Escaped(path.as_os_str().as_encoded_bytes()).to_string();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            context.warning(span, format!("{name}: {shown} is a directory"), None);
            None
        }
        Ok(metadata) => Some(metadata),
        Err(error) => {
            context.warning(span, format!("{name}: {shown} cannot be read now: {error}"), None);
            None
        }
    }
}

/// As [`existing_file`], and warns when others can read it.
fn secret_file(section: Section<'_, '_>, name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let path = section.path(name)?;
    if let Some(metadata) = look_at_file(section.context, name, path.get_ref(), &path.span())
        && let Some(mode) = crate::file::too_open(metadata.mode(), metadata.uid(), metadata.is_file())
    {
        let shown = connectord_wire::Escaped(path.get_ref().as_os_str().as_encoded_bytes()).to_string();
        section.context.warning(
            &path.span(),
            format!("{name}: others can read {shown} (mode {:04o})", metadata.mode() & 0o7777),
            Some(format!("chmod {mode} {shown}")),
        );
    }
    Some(path.into_inner())
}

/// Whether what is sent there stays on this machine.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
