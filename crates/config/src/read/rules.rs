//! `[filter.rules]`, but for what is part of the policy.

use std::str::FromStr;

use connectord_filter::attachment::{Class, Limits};
use connectord_filter::{Condition, Pattern, Rule, Rules, Ruling};
use connectord_wire::Escaped;
use toml::Spanned;
use toml::de::DeValue;

use super::filters::is_folder;
use crate::model::RulesSettings;
use crate::nearest::nearest;
use crate::schema;
use crate::section::{Section, show};

/// Most rules of one's own.
const MAX_RULES: usize = 1_000;

const CLASSES: [Class; 5] = [Class::Executable, Class::Archive, Class::Macro, Class::Encrypted, Class::Bomb];

pub(super) fn read(section: Section<'_, '_>) -> Option<RulesSettings> {
    let default = Limits::default();
    let limits = Limits {
        parts: section.integer("max_parts").unwrap_or(default.parts),
        depth: section.integer("max_depth").unwrap_or(default.depth),
        entries: section.integer("max_entries").unwrap_or(default.entries),
        ratio: section.integer("max_ratio").unwrap_or(default.ratio),
        unpacked_octets: section.size("max_unpacked").unwrap_or(default.unpacked_octets),
        name_octets: section
            .size("max_names")
            .map_or(default.name_octets, |octets| usize::try_from(octets).unwrap_or(default.name_octets)),
    };
    let rules = Rules {
        allow_from: patterns(section, "allow_from"),
        allow_to: patterns(section, "allow_to"),
        block_from: patterns(section, "block_from"),
        blocked_classes: classes(section, "blocked_attachments"),
        blocked_extensions: extensions(section),
        rules: rules(section),
    };
    Some(RulesSettings { rules, limits })
}

fn patterns(section: Section<'_, '_>, name: &str) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for text in section.texts(name).unwrap_or_default() {
        match Pattern::from_str(text.get_ref()) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => section.context.problem(&text.span(), format!("{name}: {error}")),
        }
    }
    patterns
}

fn classes(section: Section<'_, '_>, name: &str) -> Vec<Class> {
    let mut classes = Vec::new();
    for text in section.texts(name).unwrap_or_default() {
        match Class::parse(text.get_ref()) {
            Some(class) => classes.push(class),
            None => {
                let known = CLASSES.map(|class| class.to_string());
                let known: Vec<_> = known.iter().map(String::as_str).collect();
                let meant = nearest(text.get_ref(), &known);
                let meant = meant.map_or_else(|| ";".to_owned(), |meant| format!("; did you mean \"{meant}\"?"));
                let shown = Escaped::text(text.get_ref());
                let message =
                    format!("{name}: \"{shown}\" is no class of attachments{meant} known: {}", known.join(", "));
                section.context.problem(&text.span(), message);
            }
        }
    }
    classes
}

fn extensions(section: Section<'_, '_>) -> Vec<String> {
    let name = "blocked_extensions";
    let mut extensions = Vec::new();
    for text in section.texts(name).unwrap_or_default() {
        let extension = text.get_ref().strip_prefix('.').unwrap_or(text.get_ref()).to_lowercase();
        let fits = !extension.is_empty() && !extension.contains(|c: char| c.is_whitespace() || "./\\*".contains(c));
        if fits {
            extensions.push(extension);
            continue;
        }
        let shown = Escaped::text(text.get_ref());
        let message = format!("{name}: \"{shown}\" is no extension such as \"iso\"");
        section.context.problem(&text.span(), message);
    }
    extensions
}

fn rules(section: Section<'_, '_>) -> Vec<Rule> {
    let context = section.context;
    let list = match section.raw("rule").map(Spanned::get_ref) {
        None => return Vec::new(),
        Some(DeValue::Array(list)) => list,
        Some(DeValue::Table(_)) => {
            let hint = "write [[filter.rules.rule]] with two brackets";
            context.problem_with_hint(&section.key_span("rule"), "rules are a list", hint);
            return Vec::new();
        }
        Some(_) => {
            section.wrong_type::<()>("rule");
            return Vec::new();
        }
    };
    let mut rules = Vec::new();
    for (number, item) in list.iter().enumerate() {
        let DeValue::Table(table) = item.get_ref() else {
            context.problem(&item.span(), format!("a rule must be a table, not {}", show(item.get_ref())));
            continue;
        };
        if number == MAX_RULES {
            context.problem(&item.span(), format!("there are more than {MAX_RULES} rules"));
            break;
        }
        let one = Section::open(context, &schema::RULE, table, &item.span(), |_, _| false);
        rules.extend(rule(one, number + 1));
    }
    rules
}

fn rule(section: Section<'_, '_>, number: usize) -> Option<Rule> {
    section.require("then");
    let mut when = headers(section);
    when.extend(section.size("larger_than").map(Condition::LargerThan));
    when.extend(section.size("smaller_than").map(Condition::SmallerThan));
    when.extend(classes(section, "attached").into_iter().map(Condition::Attached));
    if !["header", "larger_than", "smaller_than", "attached"].iter().any(|name| section.has(name)) {
        let hint = "write header, larger_than, smaller_than or attached";
        section.context.problem_with_hint(
            &section.span(),
            "the rule has no condition: it would fit every message",
            hint,
        );
    }
    let reason = section.text("reason").map_or_else(|| format!("rule {number}"), Spanned::into_inner);
    let then = section.form("then", |text| match text.strip_prefix("folder:") {
        Some(folder) => (!folder.trim().is_empty()).then(|| Ruling::Folder(folder.to_owned())),
        None if text == "keep" => Some(Ruling::Keep),
        None if text == "allow" => Some(Ruling::Allow(reason.clone())),
        None if text == "block" => Some(Ruling::Block(reason.clone())),
        None if text == "discard" => Some(Ruling::Discard(reason.clone())),
        None => None,
    })?;
    match then.get_ref() {
        Ruling::Folder(folder) => is_folder(section, "then", folder, &then.span()),
        Ruling::Keep => {}
        _ => return Some(Rule { when, then: then.into_inner() }),
    }
    if section.has("reason") {
        let message = "reason has no effect: nothing is said of what is filed or kept";
        section.context.warning(&section.key_span("reason"), message, None);
    }
    Some(Rule { when, then: then.into_inner() })
}

/// `"Subject: *invoice*"`.
fn headers(section: Section<'_, '_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for text in section.texts("header").unwrap_or_default() {
        let read = text.get_ref().split_once(':').and_then(|(name, value)| {
            // RFC 5322 §2.2: a field's name has printable ASCII without the colon.
            let (name, value) = (name.trim(), value.trim());
            let is_name = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
            (is_name && !value.is_empty()).then(|| Condition::Header { name: name.to_owned(), value: value.to_owned() })
        });
        match read {
            Some(condition) => conditions.push(condition),
            None => {
                let shown = Escaped::text(text.get_ref());
                let message = format!(
                    "header: \"{shown}\" is no field with a value; expected for example \"Subject: *invoice*\""
                );
                section.context.problem(&text.span(), message);
            }
        }
    }
    conditions
}
