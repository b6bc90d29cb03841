//! `[notices]`.

use std::path::Path;

use connectord_notices::{Kind, Policy};
use toml::Spanned;

use super::deliveries::Named;
use super::{is_loopback, secret_file, table};
use crate::model::NoticeSettings;
use crate::nearest::nearest;
use crate::schema;
use crate::section::Section;

pub(super) fn read(root: Section<'_, '_>, has_default: bool, deliveries: &Named) -> NoticeSettings {
    let default = NoticeSettings::default();
    let Some(section) = table(root, "notices", &schema::NOTICES) else { return default };
    let policy = Policy {
        after: section.duration("after").unwrap_or(default.policy.after),
        leave_out: leave_out(section),
        per_hour: section.integer("per_hour").unwrap_or(default.policy.per_hour),
    };
    let settings = NoticeSettings {
        mail_to: mailboxes(section, "mail_to", section.texts("mail_to").unwrap_or_default()),
        delivery: delivery(section, has_default, deliveries),
        mail_from: mailboxes(section, "mail_from", section.text("mail_from").into_iter().collect()).pop(),
        to_users: section.flag("to_users").is_some_and(Spanned::into_inner),
        command: command(section),
        webhook: webhook(section),
        webhook_token_file: secret_file(section, "webhook_token_file"),
        policy,
    };
    for (name, other) in [("delivery", "mail_to"), ("webhook_token_file", "webhook")] {
        if section.has(name) && !section.has(other) {
            let message = format!("{name} has no effect without {other}");
            section.context.problem_with_hint(
                &section.key_span(name),
                message,
                format!("write {other} = …, or remove {name}"),
            );
        }
    }
    let ways = ["mail_to", "command", "webhook"];
    if !settings.to_users && ways.iter().all(|way| !section.has(way)) {
        section.context.warning(
            &section.span(),
            "[notices] names nobody who is told: notices go to the log alone",
            Some("write mail_to, to_users, command or webhook".to_owned()),
        );
    }
    settings
}

/// Those that can stand in a header field of a mail: an address, or a name without a domain.
fn mailboxes(section: Section<'_, '_>, name: &str, texts: Vec<Spanned<String>>) -> Vec<String> {
    let mut fine = Vec::new();
    for text in texts {
        let whole = text.get_ref();
        let (local, domain) =
            whole.rsplit_once('@').map_or((whole.as_str(), None), |(local, domain)| (local, Some(domain)));
        let is_part = |part: &str| {
            !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "<>()[],;:\\\"@/".contains(c))
        };
        if is_part(local) && domain.is_none_or(is_part) && !local.starts_with('-') {
            fine.push(text.into_inner());
            continue;
        }
        let shown = connectord_wire::Escaped::text(whole).to_string();
        let message = format!("{name}: \"{shown}\" is neither a mail address nor a local user");
        section.context.problem(&text.span(), message);
    }
    fine
}

fn delivery(section: Section<'_, '_>, has_default: bool, deliveries: &Named) -> Option<String> {
    match section.text("delivery") {
        Some(name) => {
            if !deliveries.contains_key(name.get_ref()) {
                let known: Vec<&str> = deliveries.keys().map(String::as_str).collect();
                let meant = nearest(name.get_ref(), &known);
                let hint = match meant {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => "write [delivery.NAME], or remove delivery to use [delivery]".to_owned(),
                };
                let shown = connectord_wire::Escaped::text(name.get_ref()).to_string();
                section.context.problem_with_hint(&name.span(), format!("there is no [delivery.{shown}]"), hint);
            }
            Some(name.into_inner())
        }
        None => {
            if section.has("mail_to") && !section.has("delivery") && !has_default {
                let message = "mail_to needs a destination, and there is no [delivery]";
                section.context.problem_with_hint(&section.key_span("mail_to"), message, "write delivery = \"NAME\"");
            }
            None
        }
    }
}

fn command(section: Section<'_, '_>) -> Vec<String> {
    let Some(words) = section.words("command") else { return Vec::new() };
    match words.first() {
        None => {
            section.context.problem(&section.value_span("command"), "command must name a program");
        }
        Some(program) if !Path::new(program.get_ref()).is_absolute() => {
            section.context.problem(&program.span(), "command must begin with the absolute path of a program");
        }
        Some(_) => {}
    }
    words.into_iter().map(Spanned::into_inner).collect()
}

fn webhook(section: Section<'_, '_>) -> Option<String> {
    let url = section.form("webhook", |url| {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let is_url = matches!(scheme, "https" | "http") && !authority.is_empty() && !url.contains(char::is_whitespace);
        (is_url && !authority.contains('@')).then(|| url.to_owned())
    })?;
    let rest = url.get_ref().strip_prefix("http://");
    if let Some(authority) = rest.and_then(|rest| rest.split(['/', '?', '#']).next())
        && !is_loopback(host(authority))
    {
        if section.has("webhook_token_file") {
            let message = "webhook: the token would be sent without encryption";
            section.context.problem_with_hint(&url.span(), message, "write https://…");
        } else {
            section.context.warning(&url.span(), "webhook: notices are sent without encryption", None);
        }
    }
    Some(url.into_inner())
}

/// The host of `host:port` or `[address]:port`.
fn host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn leave_out(section: Section<'_, '_>) -> std::collections::BTreeSet<Kind> {
    let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
    let mut kinds = std::collections::BTreeSet::new();
    for text in section.texts("leave_out").unwrap_or_default() {
        match Kind::ALL.into_iter().find(|kind| kind.word() == text.get_ref()) {
            Some(kind) => {
                kinds.insert(kind);
            }
            None => {
                let shown = connectord_wire::Escaped::text(text.get_ref()).to_string();
                let meant = nearest(text.get_ref(), &known).map(|meant| format!("; did you mean \"{meant}\"?"));
                let message = format!("leave_out: unknown kind \"{shown}\"{}", meant.unwrap_or_default());
                section.context.problem_with_hint(&text.span(), message, format!("known: {}", known.join(", ")));
            }
        }
    }
    kinds
}
