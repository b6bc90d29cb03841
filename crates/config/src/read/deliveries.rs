//! `[delivery]` and `[delivery.NAME]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use connectord_delivery::Template;
use connectord_engine::Ambiguous;
use connectord_wire::{Endpoint, Escaped, Security};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{existing_file, is_loopback, listen, passwords};
use crate::model::*;
use crate::schema::{self, DELIVERIES, Key, Kind, Schema};
use crate::section::{Context, Section, Span};
use crate::values;

/// Destinations by name; `None` inside for one that is there and wrong.
pub(super) type Named = BTreeMap<String, Option<DeliverySettings>>;

/// The default destination, and the others. The outer `None`: there is no default one.
pub(super) fn read(root: Section<'_, '_>) -> (Option<Option<DeliverySettings>>, Named) {
    let Some(value) = root.raw("delivery") else { return (None, Named::new()) };
    let DeValue::Table(table) = value.get_ref() else {
        root.wrong_type::<()>("delivery");
        return (Some(None), Named::new());
    };
    let mut named = Named::new();
    for (name, value) in table {
        let DeValue::Table(settings) = value.get_ref() else { continue };
        if !is_name(name.get_ref()) {
            let message = "the name of a destination has letters, digits, \"-\" and \"_\", at most 64";
            root.context.problem(&name.span(), message);
        } else if name.get_ref().eq_ignore_ascii_case("default") {
            // What was delivered is remembered by the destination's name.
            root.context.problem(&name.span(), "the default destination is [delivery]: another one needs another name");
        }
        let settings = destination(root.context, settings, &value.span(), |_, _| false);
        named.insert(name.get_ref().clone().into_owned(), settings);
    }
    let has_default = table.iter().any(|(_, value)| !matches!(value.get_ref(), DeValue::Table(_)));
    let is_named = |_: &str, value: &DeValue<'_>| matches!(value, DeValue::Table(_));
    let default = has_default.then(|| destination(root.context, table, &value.span(), is_named));
    (default, named)
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
}

fn destination<'a, 'i>(
    context: &'a Context<'a>,
    table: &'a DeTable<'i>,
    span: &Span,
    is_named: impl Fn(&str, &DeValue<'i>) -> bool,
) -> Option<DeliverySettings> {
    let kind = match table.get("type").map(Spanned::get_ref) {
        Some(DeValue::String(kind)) => DELIVERIES.iter().find(|(known, _)| known == kind),
        _ => None,
    };
    let Some((kind, schema)) = kind else {
        // Of a destination of no known type no key is known.
        let section = Section::open(context, &schema::DELIVERY, table, span, |_, _| true);
        if section.require("type") {
            section.wrong_type::<()>("type");
        }
        return None;
    };
    // A key of another type says more than that it is unknown.
    let strays = |name: &str, value: &DeValue<'i>| is_named(name, value) || of_another_type(name, schema).is_some();
    let section = Section::open(context, schema, table, span, strays);
    for (name, value) in table {
        if schema.key(name.get_ref()).is_none()
            && !is_named(name.get_ref(), value.get_ref())
            && let Some((other, key)) = of_another_type(name.get_ref(), schema)
        {
            if matches!(key.kind, Kind::Secret) {
                context.hide(&value.span());
            }
            context.problem(
                &name.span(),
                format!("{:?} belongs to type = \"{other}\", not to \"{kind}\"", Escaped::text(name.get_ref())),
            );
        }
    }
    match *kind {
        "maildir" => maildir(section).map(DeliverySettings::Maildir),
        "lmtp" => lmtp(section).map(DeliverySettings::Lmtp),
        "smtp" => smtp(section).map(DeliverySettings::Smtp),
        "mbox" => mbox(section).map(DeliverySettings::Mbox),
        _ => command(section).map(DeliverySettings::Command),
    }
}

fn of_another_type(name: &str, schema: &Schema) -> Option<(&'static str, &'static Key)> {
    let others = DELIVERIES.iter().filter(|(_, other)| other.title != schema.title);
    others.filter_map(|(kind, other)| Some((*kind, other.key(name)?))).next()
}

const FIVE_MINUTES: Duration = Duration::from_secs(300);
const ONE_MINUTE: Duration = Duration::from_secs(60);

fn maildir(section: Section<'_, '_>) -> Option<MaildirSettings> {
    let path = path_template(section, "path");
    let settings = MaildirSettings {
        path: "/".parse().expect("a text without braces is a template"),
        create: section.flag("create").is_none_or(Spanned::into_inner),
        reserve: reserve(section),
        quota: section.flag("quota").is_none_or(Spanned::into_inner),
        hostname: section.text("hostname").map(Spanned::into_inner),
        check_existing_always: section.choice("check_existing", [false, true]).unwrap_or_default(),
        disk_timeout: section.duration("disk_timeout").unwrap_or(FIVE_MINUTES),
    };
    Some(MaildirSettings { path: path?, ..settings })
}

fn mbox(section: Section<'_, '_>) -> Option<MboxSettings> {
    let path = path_template(section, "path");
    let settings = MboxSettings {
        path: "/".parse().expect("a text without braces is a template"),
        lock_timeout: section.duration("lock_timeout").unwrap_or(Duration::from_secs(30)),
        stale_lock: section.duration("stale_lock").unwrap_or(FIVE_MINUTES),
        reserve: reserve(section),
    };
    Some(MboxSettings { path: path?, ..settings })
}

fn lmtp(section: Section<'_, '_>) -> Option<LmtpSettings> {
    section.require("address");
    let address = listen(section, "address");
    let (connections, timeout) = (connections(section), section.duration("timeout").unwrap_or(ONE_MINUTE));
    let (hello, ambiguous) = (hello(section), ambiguous(section));
    Some(LmtpSettings { address: address?, connections, timeout, hello, ambiguous })
}

fn smtp(section: Section<'_, '_>) -> Option<SmtpSettings> {
    section.require("host");
    let security = super::accounts::security(section);
    let default_port = match security {
        Security::Tls => 465,
        Security::StartTls => 587,
        Security::None => 25,
    };
    let port = section.integer("port").unwrap_or(default_port);
    let endpoint = super::accounts::endpoint(section, port);
    let login = login(section);
    let settings = SmtpSettings {
        endpoint: Endpoint::new("localhost", port).expect("localhost is a host name"),
        security,
        login,
        ca_file: existing_file(section, "ca_file"),
        connections: connections(section),
        timeout: section.duration("timeout").unwrap_or(ONE_MINUTE),
        hello: hello(section),
        ambiguous: ambiguous(section),
    };
    let endpoint = endpoint?;
    if security == Security::None && settings.login.is_some() && !is_loopback(endpoint.host()) {
        let span = section.key_span("security");
        section.context.warning(&span, format!("the password for {endpoint} travels readable for others"), None);
    }
    Some(SmtpSettings { endpoint, ..settings })
}

fn login(section: Section<'_, '_>) -> Option<SmtpLogin> {
    let username = section.text("username");
    let password = passwords::read(section);
    let given = passwords::KEYS.into_iter().find(|name| section.has(name));
    match (section.has("username"), given) {
        (false, Some(given)) => {
            section.context.problem(&section.key_span(given), format!("{given} needs username beside it"));
        }
        (true, None) => {
            section.context.problem(&section.key_span("username"), "username needs password_file beside it");
        }
        _ => {}
    }
    Some(SmtpLogin { username: username?.into_inner(), password: password? })
}

fn command(section: Section<'_, '_>) -> Option<CommandSettings> {
    section.require("program");
    let program = super::filters::program(section);
    let arguments = arguments(section);
    let settings = CommandSettings {
        program: PathBuf::new(),
        arguments: Vec::new(),
        run_as: section.text("run_as").map(Spanned::into_inner),
        timeout: section.duration("timeout").unwrap_or(FIVE_MINUTES),
        concurrency: section.integer("concurrency").unwrap_or(8),
        from_line: section.flag("from_line").is_some_and(Spanned::into_inner),
        search_path: super::filters::search_path(section),
        ambiguous: ambiguous(section),
    };
    Some(CommandSettings { program: program?, arguments: arguments?, ..settings })
}

fn arguments(section: Section<'_, '_>) -> Option<Vec<Template>> {
    if !section.has("arguments") {
        return Some(Vec::new());
    }
    let words = section.words("arguments")?;
    // Each is looked at, so that all mistakes are told.
    let templates: Vec<_> = words.iter().map(|word| template(section.context, "arguments", word)).collect();
    templates.into_iter().collect()
}

/// A path with places; relative ones start at the file's directory.
fn path_template(section: Section<'_, '_>, name: &str) -> Option<Template> {
    section.require(name);
    let text = section.text(name)?;
    let path = section.context.resolve(text.get_ref());
    let Some(path) = path.to_str() else {
        section.context.problem(&text.span(), format!("{name} is relative, and the file's directory is not UTF-8"));
        return None;
    };
    template(section.context, name, &Spanned::new(text.span(), path.to_owned()))
}

pub(super) fn template(context: &Context<'_>, name: &str, text: &Spanned<String>) -> Option<Template> {
    match text.get_ref().parse() {
        Ok(template) => Some(template),
        Err(error) => {
            let error: connectord_delivery::TemplateError = error;
            context.problem(&text.span(), format!("{name}: {error}"));
            None
        }
    }
}

fn reserve(section: Section<'_, '_>) -> Reserve {
    section.form("reserve", values::reserve).map_or_else(Reserve::default, Spanned::into_inner)
}

fn connections(section: Section<'_, '_>) -> u32 {
    section.integer("connections").unwrap_or(8)
}

fn ambiguous(section: Section<'_, '_>) -> Ambiguous {
    section.choice("ambiguous", [Ambiguous::Redeliver, Ambiguous::Park]).unwrap_or_default()
}

fn hello(section: Section<'_, '_>) -> Option<String> {
    let hello = section.text("hello")?;
    match Endpoint::new(hello.get_ref(), 25) {
        Ok(_) => Some(hello.into_inner()),
        Err(error) => {
            section.context.problem(&hello.span(), format!("hello: {error}"));
            None
        }
    }
}
