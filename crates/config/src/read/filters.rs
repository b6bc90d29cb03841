//! `[filter]`, the tables of filters below it, `[quarantine]`, and what accounts say otherwise.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use connectord_filter::{Exhausted, Kind, OnFailure, OnSpam, OnTooLarge, OnVirus, Policy};
use connectord_filters::command::{Meaning, Output};
use connectord_filters::spamassassin::User;
use connectord_wire::{Endpoint, Escaped};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::deliveries::is_name;
use super::{existing_file, is_loopback, listen, look_at_file, passwords, rules, table};
use crate::model::*;
use crate::section::{Section, Span};
use crate::{schema, values};

pub(super) fn read(root: Section<'_, '_>) -> FilterSettings {
    let default = FilterSettings::default();
    let Some(value) = root.raw("filter") else { return default };
    let DeValue::Table(tables) = value.get_ref() else {
        root.wrong_type::<()>("filter");
        return default;
    };
    let context = root.context;
    let section = Section::open(context, &schema::FILTER, tables, &value.span(), |name, _| of_rules(name));
    for (name, _) in tables.iter().filter(|(name, _)| of_rules(name.get_ref())) {
        context.problem(&name.span(), format!("\"{}\" belongs to [filter.rules], not to [filter]", name.get_ref()));
    }
    let mut policy = policy(section, Policy::default());
    let mut found = Vec::new();
    for (name, schema, read) in TABLES {
        if let Some(one) = table(section, name, schema) {
            let entry = read(one).map(|filter| entry(one, name.to_owned(), filter));
            found.push((section.value_span(name).start, entry));
        }
    }
    commands(section, &mut found);
    if let Some(one) = table(section, "rules", &schema::RULES) {
        policy = marks(one, policy);
        let rules = rules::read(one).map(|rules| entry(one, "rules".to_owned(), FilterKind::Rules(rules)));
        found.push((section.value_span("rules").start, rules));
    }
    if found.is_empty() {
        context.warning(
            &section.span(),
            "[filter] names no filter: mail is not checked",
            Some("write [filter.rspamd] or [filter.clamav], for instance".to_owned()),
        );
    }
    // The tree is sorted by name; the order of the file is that of the places.
    found.sort_by_key(|(start, _)| *start);
    let is_idle = |entry: &FilterEntry| matches!(&entry.filter, FilterKind::Rules(settings) if settings.rules == connectord_filter::Rules::default());
    let chain = found.into_iter().filter_map(|(_, entry)| entry).filter(|entry| !is_idle(entry)).collect();
    FilterSettings { chain, timeout: section.duration("timeout").unwrap_or(default.timeout), policy }
}

/// A key of `[filter.rules]` that is easily taken for one of `[filter]`.
fn of_rules(name: &str) -> bool {
    schema::FILTER.key(name).is_none() && schema::RULES.key(name).is_some()
}

type Read = fn(Section<'_, '_>) -> Option<FilterKind>;

/// The filters that are there once at most.
const TABLES: [(&str, &schema::Schema, Read); 3] = [
    ("rspamd", &schema::RSPAMD, rspamd),
    ("clamav", &schema::CLAMAV, clamav),
    ("spamassassin", &schema::SPAMASSASSIN, spamassassin),
];

fn entry(section: Section<'_, '_>, name: String, filter: FilterKind) -> FilterEntry {
    // What each of them bears by default, as their own documentation has it.
    let (at_once, max_octets) = match &filter {
        FilterKind::Rspamd(_) => (8, Some(50 << 20)),
        FilterKind::Clamav(_) => (8, Some(25 << 20)),
        FilterKind::SpamAssassin(_) => (4, Some(500 << 10)),
        FilterKind::Command(_) | FilterKind::Rules(_) => (4, None),
    };
    let written = section.schema.key("max_size").and_then(|key| section.size(key.name));
    let at_once = section.integer("at_once").unwrap_or(at_once);
    FilterEntry { name, filter, at_once, max_octets: written.or(max_octets) }
}

fn rspamd(section: Section<'_, '_>) -> Option<FilterKind> {
    let worker = http(section, 11_333);
    let settings_id = section.text("settings_id").map(Spanned::into_inner);
    let controller = table(section, "controller", &schema::CONTROLLER).map(|section| http(section, 11_334));
    let controller = match controller {
        Some(controller) => Some(controller?),
        None => None,
    };
    Some(FilterKind::Rspamd(RspamdSettings { worker: worker?, settings_id, controller }))
}

/// A server that is asked over HTTP; by default at this port of this machine.
fn http(section: Section<'_, '_>, port: u16) -> Option<HttpSettings> {
    let context = section.context;
    let url = section.form("url", |text| match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(FilterUrl::Unix(context.resolve(path))),
        None => {
            let (rest, tls) = match text.strip_prefix("https://") {
                Some(rest) => (rest, true),
                None => (text.strip_prefix("http://")?, false),
            };
            let endpoint: Endpoint = rest.strip_suffix('/').unwrap_or(rest).parse().ok()?;
            (endpoint.port() > 0).then_some(FilterUrl::Tcp { endpoint, tls })
        }
    });
    let password = passwords::read(section);
    let ca_file = existing_file(section, "ca_file");
    let has_tls = matches!(url.as_ref().map(Spanned::get_ref), Some(FilterUrl::Tcp { tls: true, .. }));
    if section.has("ca_file") && !has_tls {
        context.problem(&section.key_span("ca_file"), "ca_file has no effect without https:// in url");
    }
    if let Some(FilterUrl::Tcp { endpoint, tls: false }) = url.as_ref().map(Spanned::get_ref)
        && password.is_some()
        && !is_loopback(endpoint.host())
    {
        let message = format!("the password for {endpoint} travels readable for others");
        context.warning(&section.value_span("url"), message, Some("write https://…".to_owned()));
    }
    let url = match url {
        Some(url) => url.into_inner(),
        None if section.has("url") => return None,
        None => FilterUrl::Tcp { endpoint: local(port), tls: false },
    };
    Some(HttpSettings { url, password, ca_file })
}

fn local(port: u16) -> Endpoint {
    Endpoint::new("127.0.0.1", port).expect("this is an address")
}

fn clamav(section: Section<'_, '_>) -> Option<FilterKind> {
    let address = address(section, || Listen::Unix("/run/clamav/clamd.ctl".into()))?;
    Some(FilterKind::Clamav(ClamavSettings { address }))
}

fn spamassassin(section: Section<'_, '_>) -> Option<FilterKind> {
    let user = section.text("user").map_or(User::Unsaid, |user| match user.get_ref().as_str() {
        "{recipient}" => User::Recipient,
        name => {
            if name.contains(['{', '}']) {
                let message =
                    format!("user: {:?} is no user; \"{{recipient}}\" is the only place", Escaped::text(name));
                section.context.problem(&user.span(), message);
            }
            User::Fixed(name.to_owned())
        }
    });
    let address = address(section, || Listen::Tcp(local(783)))?;
    Some(FilterKind::SpamAssassin(SpamAssassinSettings { address, user }))
}

fn address(section: Section<'_, '_>, default: impl FnOnce() -> Listen) -> Option<Listen> {
    if section.has("address") { listen(section, "address") } else { Some(default()) }
}

/// `[filter.command.NAME]`.
fn commands(section: Section<'_, '_>, found: &mut Vec<(usize, Option<FilterEntry>)>) {
    let context = section.context;
    let tables: &DeTable<'_> = match section.raw("command").map(Spanned::get_ref) {
        None => return,
        Some(DeValue::Table(tables)) => tables,
        Some(_) => {
            section.wrong_type::<()>("command");
            return;
        }
    };
    for (name, value) in tables {
        let DeValue::Table(settings) = value.get_ref() else {
            let message = "a filter command needs a name and a table of its own";
            context.problem_with_hint(&name.span(), message, "write [filter.command.NAME]");
            continue;
        };
        if !is_name(name.get_ref()) || name.get_ref().len() > 48 {
            let message = "the name of a filter command has letters, digits, \"-\" and \"_\", at most 48";
            context.problem(&name.span(), message);
        }
        let one = Section::open(context, &schema::FILTER_COMMAND, settings, &value.span(), |_, _| false);
        let settings = command(one).map(FilterKind::Command);
        found.push((
            value.span().start,
            settings.map(|filter| entry(one, format!("command.{}", name.get_ref()), filter)),
        ));
    }
}

fn command(section: Section<'_, '_>) -> Option<FilterCommandSettings> {
    section.require("program");
    let program = program(section);
    let arguments = section.words("arguments");
    let kinds = [Kind::Antispam, Kind::Antivirus, Kind::Both, Kind::Rules];
    let kind = section.choice("looks_for", kinds).unwrap_or(Kind::Antispam);
    let settings = FilterCommandSettings {
        kind,
        program: PathBuf::new(),
        arguments: arguments.unwrap_or_default().into_iter().map(Spanned::into_inner).collect(),
        meanings: meanings(section, kind),
        output: section.choice("output", [Output::Ignored, Output::Header]).unwrap_or_default(),
        run_as: section.text("run_as").map(Spanned::into_inner),
        search_path: search_path(section),
    };
    Some(FilterCommandSettings { program: program?, ..settings })
}

/// The keys of exit statuses, what they mean, and which they are by default.
const EXITS: [(&str, Meaning, &[u8]); 6] = [
    ("exit_clean", Meaning::Clean, &[0]),
    ("exit_spam", Meaning::Spam, &[]),
    ("exit_reject", Meaning::Reject, &[99, 100]),
    ("exit_later", Meaning::Later, &[]),
    ("exit_virus", Meaning::Virus, &[]),
    ("exit_discard", Meaning::Discard, &[]),
];

fn meanings(section: Section<'_, '_>, kind: Kind) -> BTreeMap<u8, Meaning> {
    let mut meanings = BTreeMap::new();
    let mut written: BTreeMap<u8, Span> = BTreeMap::new();
    for (name, meaning, _) in EXITS {
        for status in section.statuses(name).unwrap_or_default() {
            let (span, status) = (status.span(), status.into_inner());
            match written.get(&status) {
                Some(first) => {
                    let message = format!("the exit status {status} has two meanings");
                    section.context.problem_between(&span, first, message);
                }
                None => _ = written.insert(status, span),
            }
            meanings.insert(status, meaning);
        }
    }
    for (_, meaning, defaults) in EXITS.into_iter().filter(|(name, ..)| !section.has(name)) {
        for status in defaults {
            meanings.entry(*status).or_insert(meaning);
        }
    }
    if kind != Kind::Rules && meanings.values().any(|meaning| *meaning == Meaning::Discard) {
        let message = "exit_discard is heard only with looks_for = \"rules\"";
        section.context.problem(&section.key_span("exit_discard"), message);
    }
    meanings
}

/// `PATH` of a program.
pub(super) fn search_path(section: Section<'_, '_>) -> String {
    section.text("search_path").map_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned(), Spanned::into_inner)
}

/// A program that is run without a search.
pub(super) fn program(section: Section<'_, '_>) -> Option<PathBuf> {
    let program = section.text("program")?;
    if !program.get_ref().contains('/') {
        section.context.problem(&program.span(), "program must be a path: no search is made for it");
        return None;
    }
    let path = section.context.resolve(program.get_ref());
    look_at_file(section.context, "program", &path, &program.span());
    Some(path)
}

/// What an account says otherwise than the site.
pub(super) fn of_account(section: Section<'_, '_>, site: &FilterSettings) -> Policy {
    for (name, there, lacking) in [
        ("antispam", site.looks_for_spam(), "antispam filter: write [filter.rspamd] or [filter.spamassassin]"),
        ("antivirus", site.looks_for_viruses(), "antivirus filter: write [filter.clamav]"),
    ] {
        let wanted = matches!(section.raw(name).map(Spanned::get_ref), Some(DeValue::Boolean(true)));
        if wanted && !there {
            let (what, hint) = lacking.split_once(": ").unwrap_or((lacking, ""));
            let message = format!("{name} = true, but there is no {what}: mail would go unchecked");
            section.context.problem_with_hint(&section.key_span(name), message, format!("{hint}, or remove {name}"));
        }
    }
    marks(section, policy(section, site.policy.clone()))
}

/// What the keys that `[filter]` and accounts share make of a policy.
fn policy(section: Section<'_, '_>, base: Policy) -> Policy {
    let flag = |name, before| section.flag(name).map_or(before, Spanned::into_inner);
    Policy {
        antispam: flag("antispam", base.antispam),
        antivirus: flag("antivirus", base.antivirus),
        on_spam: on_spam(section, "on_spam").unwrap_or(base.on_spam),
        on_reject: on_spam(section, "on_reject").unwrap_or(base.on_reject),
        on_virus: section
            .choice("on_virus", [OnVirus::Quarantine, OnVirus::Notice, OnVirus::Discard])
            .unwrap_or(base.on_virus),
        on_failure: section.choice("on_failure", [OnFailure::Keep, OnFailure::Deliver]).unwrap_or(base.on_failure),
        on_too_large: section
            .choice("on_too_large", [OnTooLarge::Deliver, OnTooLarge::Quarantine])
            .unwrap_or(base.on_too_large),
        postpone: flag("postpone", base.postpone),
        postponements: section.integer("postpone_times").unwrap_or(base.postponements),
        postpone_for: section.duration("postpone_for").unwrap_or(base.postpone_for),
        exhausted: section.choice("on_postponed", [Exhausted::Deliver, Exhausted::Park]).unwrap_or(base.exhausted),
        attempts: section.integer("filter_attempts").unwrap_or(base.attempts),
        ..base
    }
}

/// What the keys that `[filter.rules]` and accounts share make of a policy.
fn marks(section: Section<'_, '_>, mut base: Policy) -> Policy {
    base.thresholds.mark_at = points(section, "mark_at").unwrap_or(base.thresholds.mark_at);
    base.thresholds.reject_at = points(section, "reject_at").unwrap_or(base.thresholds.reject_at);
    if let (Some(mark), Some(reject)) = (base.thresholds.mark_at, base.thresholds.reject_at)
        && mark > reject
        && let Some(here) = ["mark_at", "reject_at"].into_iter().find(|name| section.has(name))
    {
        let (mark, reject) = (f64::from(mark) / 1000.0, f64::from(reject) / 1000.0);
        let message = format!("mark_at ({mark}) is above reject_at ({reject}): nothing is marked that is not refused");
        section.context.warning(&section.key_span(here), message, None);
    }
    base.subject_prefix = subject_prefix(section).unwrap_or(base.subject_prefix);
    base
}

/// Reads `"mark"`, `"folder:NAME"`, `"quarantine"`, `"discard"`.
fn on_spam(section: Section<'_, '_>, name: &str) -> Option<OnSpam> {
    let goes = section.form(name, |text| match text.strip_prefix("folder:") {
        Some(folder) => (!folder.trim().is_empty()).then(|| OnSpam::Folder(folder.to_owned())),
        None if text == "mark" => Some(OnSpam::Mark),
        None if text == "quarantine" => Some(OnSpam::Quarantine),
        None if text == "discard" => Some(OnSpam::Discard),
        None => None,
    })?;
    if let OnSpam::Folder(folder) = goes.get_ref() {
        is_folder(section, name, folder, &goes.span());
    }
    Some(goes.into_inner())
}

/// Reports what is most likely no name of a folder.
pub(super) fn is_folder(section: Section<'_, '_>, key: &str, folder: &str, span: &Span) {
    let shown = Escaped::text(folder);
    if let Some(bare) = folder.strip_prefix('.') {
        let hint = format!("write \"folder:{}\": a Maildir gets it as .{}", Escaped::text(bare), Escaped::text(bare));
        section.context.problem_with_hint(span, format!("{key}: the folder \"{shown}\" begins with a dot"), hint);
    } else if folder.len() > 255 {
        section.context.problem(span, format!("{key}: the name of a folder has at most 255 octets"));
    }
}

/// Points, in thousandths; inside, `None` is `"filter"`.
fn points(section: Section<'_, '_>, name: &str) -> Option<Option<i32>> {
    let number = match section.raw(name)?.get_ref() {
        DeValue::String(text) if text == "filter" => return Some(None),
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
        _ => None,
    };
    match number.filter(|number| number.abs() <= 10_000.0) {
        // Within bounds, so nothing is cut but what is behind the third digit.
        #[allow(clippy::cast_possible_truncation)]
        Some(number) => Some(Some((number * 1000.0).round() as i32)),
        None => section.wrong_type(name),
    }
}

/// The prefix; inside, `None` is an empty text.
fn subject_prefix(section: Section<'_, '_>) -> Option<Option<String>> {
    let name = "subject_prefix";
    match section.raw(name)?.get_ref() {
        DeValue::String(text) if text.is_empty() => Some(None),
        DeValue::String(_) => {
            let prefix = section.text(name)?;
            if prefix.get_ref().len() > 100 {
                section.context.problem(&prefix.span(), format!("{name} must have at most 100 octets"));
            }
            Some(Some(prefix.into_inner().trim().to_owned()).filter(|prefix| !prefix.is_empty()))
        }
        _ => section.wrong_type(name),
    }
}

/// `[quarantine]`.
pub(super) fn quarantine(root: Section<'_, '_>) -> QuarantineSettings {
    let default = QuarantineSettings::default();
    let Some(section) = table(root, "quarantine", &schema::QUARANTINE) else { return default };
    let day = Duration::from_secs(86_400);
    let keep_for = section.form("keep_for", |text| match text {
        "forever" => Some(Duration::ZERO),
        _ => values::duration(text).filter(|time| (day..=36_600 * day).contains(time)),
    });
    QuarantineSettings {
        path: section.path("path").map(Spanned::into_inner),
        keep_for: keep_for.map_or(default.keep_for, Spanned::into_inner),
        max_octets: section.size("max_size").unwrap_or(default.max_octets),
        max_messages: section.integer("max_messages").unwrap_or(default.max_messages),
        report: section.choice("report", [true, false]).unwrap_or(default.report),
        disk_timeout: section.duration("disk_timeout").unwrap_or(default.disk_timeout),
    }
}
