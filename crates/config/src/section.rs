//! One table of the file under its schema: whatever is wrong with a key is reported where it stands, and reading goes on.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connectord_wire::{Escaped, Secret};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::nearest::nearest;
use crate::problem::{Problem, Source};
use crate::schema::{Key, Kind, Schema};
use crate::values;

/// Most problems and warnings that are kept; a file that is wrong everywhere needs no longer list.
const MAX_KEPT: usize = 1_000;

/// Longest value that is shown, in octets.
const MAX_VALUE: usize = 80;

pub(crate) type Span = Range<usize>;

/// A file while it is read.
pub(crate) struct Context<'t> {
    pub(crate) file: &'t str,
    pub(crate) base_dir: &'t Path,
    pub(crate) source: Source<'t>,
    /// Whether files that are named are looked at.
    pub(crate) looks_at_files: bool,
    findings: RefCell<Vec<Finding>>,
    secrets: RefCell<Vec<Span>>,
    /// Where the first secret stands that must not be read by others.
    inline_secret: Cell<Option<usize>>,
}

/// Something that is wrong or unlikely, where it stands.
pub(crate) struct Finding {
    pub(crate) span: Span,
    also: Option<Span>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) warning: bool,
    /// The key that it is about, when that one is not there.
    pub(crate) absent: Option<&'static str>,
}

impl Finding {
    fn new(span: &Span, message: impl Into<String>) -> Self {
        let (also, hint, warning, absent) = (None, None, false, None);
        Self { span: span.clone(), also, message: message.into(), hint, warning, absent }
    }
}

impl<'t> Context<'t> {
    pub(crate) fn new(text: &'t str, file: &'t str, base_dir: &'t Path, looks_at_files: bool) -> Self {
        Self {
            file,
            base_dir,
            source: Source::new(text),
            looks_at_files,
            findings: RefCell::default(),
            secrets: RefCell::default(),
            inline_secret: Cell::new(None),
        }
    }

    pub(crate) fn problem(&self, span: &Span, message: impl Into<String>) {
        self.find(Finding::new(span, message));
    }

    pub(crate) fn problem_with_hint(&self, span: &Span, message: impl Into<String>, hint: impl Into<String>) {
        self.find(Finding { hint: Some(hint.into()), ..Finding::new(span, message) });
    }

    /// A problem about a key that is not there; `span` is where it could be.
    pub(crate) fn absent(&self, key: &'static str, span: &Span, message: impl Into<String>, hint: impl Into<String>) {
        self.find(Finding { hint: Some(hint.into()), absent: Some(key), ..Finding::new(span, message) });
    }

    /// A problem between two places.
    pub(crate) fn problem_between(&self, span: &Span, also: &Span, message: impl Into<String>) {
        self.find(Finding { also: Some(also.clone()), ..Finding::new(span, message) });
    }

    pub(crate) fn warning(&self, span: &Span, message: impl Into<String>, hint: Option<String>) {
        self.find(Finding { hint, warning: true, ..Finding::new(span, message) });
    }

    pub(crate) fn warning_between(&self, span: &Span, also: &Span, message: impl Into<String>) {
        self.find(Finding { also: Some(also.clone()), warning: true, ..Finding::new(span, message) });
    }

    /// The line of a place, counted from 1.
    pub(crate) fn line(&self, span: &Span) -> usize {
        self.source.place(span.start).line
    }

    /// Keeps a part of the text from being shown.
    pub(crate) fn hide(&self, span: &Span) {
        self.secrets.borrow_mut().push(span.clone());
    }

    /// Hides a part of the text, and remembers that the file holds a secret.
    pub(crate) fn secret(&self, span: &Span) {
        self.hide(span);
        self.inline_secret.set(Some(self.inline_secret.get().map_or(span.start, |first| first.min(span.start))));
    }

    pub(crate) fn inline_secret(&self) -> Option<Span> {
        self.inline_secret.get().map(|at| at..at + 1)
    }

    /// A path as it is meant: relative ones start at the file's directory.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    /// All that was found, in the order of the text.
    pub(crate) fn findings(self) -> Vec<Finding> {
        let mut findings = self.findings.into_inner();
        findings.sort_by_key(|finding| finding.span.start);
        findings
    }

    /// All problems and all warnings, each in the file's order.
    pub(crate) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut secrets = self.secrets.into_inner();
        secrets.sort_by_key(|span| span.start);
        let mut merged: Vec<Span> = Vec::with_capacity(secrets.len());
        for span in secrets {
            match merged.last_mut() {
                Some(last) if span.start < last.end => last.end = last.end.max(span.end),
                _ => merged.push(span),
            }
        }
        let mut findings = self.findings.into_inner();
        findings.sort_by_key(|finding| finding.span.start);
        let (warnings, problems): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.warning);
        let show = |finding: Finding| Problem {
            file: self.file.to_owned(),
            place: Some(self.source.place(finding.span.start)),
            message: finding.message,
            hint: finding.hint,
            excerpts: std::iter::once(&finding.span)
                .chain(&finding.also)
                .map(|span| self.source.excerpt(span, &merged))
                .collect(),
        };
        (problems.into_iter().map(show).collect(), warnings.into_iter().map(show).collect())
    }

    fn find(&self, finding: Finding) {
        let mut findings = self.findings.borrow_mut();
        if findings.len() < MAX_KEPT {
            findings.push(finding);
        }
    }
}

/// A table of the file, its keys checked.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a, 'i> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) schema: &'static Schema,
    table: &'a DeTable<'i>,
    /// Where it begins.
    start: usize,
}

impl<'a, 'i> Section<'a, 'i> {
    /// Takes a table; unknown keys are reported, but for those that `allow` lets pass.
    pub(crate) fn open(
        context: &'a Context<'a>,
        schema: &'static Schema,
        table: &'a DeTable<'i>,
        span: &Span,
        allow: impl Fn(&str, &DeValue<'i>) -> bool,
    ) -> Self {
        for (name, value) in table {
            match schema.key(name.get_ref()) {
                Some(Key { kind: Kind::Secret, .. }) => context.secret(&value.span()),
                Some(Key { kind: Kind::NotYet(why), .. }) => context.problem(&name.span(), *why),
                Some(_) => {}
                None if allow(name.get_ref(), value.get_ref()) => {}
                None => unknown_key(context, schema, name, value),
            }
        }
        Self { context, schema, table, start: span.start }
    }

    /// Where the table begins.
    pub(crate) fn span(&self) -> Span {
        let line = self.context.source.line_of(self.start);
        let line = self.context.source.line(line).unwrap_or(self.start..self.start);
        self.start..line.end.max(self.start)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Where a key stands; the table's begin when it is absent.
    pub(crate) fn key_span(&self, name: &str) -> Span {
        self.table.get_key_value(name).map_or_else(|| self.span(), |(key, _)| key.span())
    }

    /// Where a key's value stands; the table's begin when it is absent.
    pub(crate) fn value_span(&self, name: &str) -> Span {
        self.table.get(name).map_or_else(|| self.span(), Spanned::span)
    }

    /// The value of a key that is there, whatever its type.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.table.get(name)
    }

    /// Reports a key that must be there and is not.
    pub(crate) fn require(&self, name: &str) -> bool {
        if self.has(name) {
            return true;
        }
        let allowed = self.kind(name).allowed();
        self.context.absent(
            self.key(name).name,
            &self.span(),
            format!("{} lacks \"{name}\"", self.schema.title),
            format!("write {name} = …, {allowed}"),
        );
        false
    }

    /// A text without control characters, not empty.
    pub(crate) fn text(&self, name: &str) -> Option<Spanned<String>> {
        let value = self.raw(name)?;
        match value.get_ref() {
            DeValue::String(text) => {
                self.is_clean(name, text, &value.span()).then(|| Spanned::new(value.span(), text.clone().into_owned()))
            }
            _ => self.wrong_type(name),
        }
    }

    /// A text in a form of its own.
    pub(crate) fn form<T>(&self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Spanned<T>> {
        let text = self.text(name)?;
        match parse(text.get_ref()) {
            Some(value) => Some(Spanned::new(text.span(), value)),
            None => self.wrong_type(name),
        }
    }

    /// A text that is never shown.
    pub(crate) fn secret(&self, name: &str) -> Option<Spanned<Secret>> {
        let value = self.raw(name)?;
        let DeValue::String(text) = value.get_ref() else { return self.wrong_type(name) };
        if text.is_empty() || text.contains(['\0', '\r', '\n']) {
            let message = format!("{name} must not be empty and must not contain line ends or NUL");
            self.context.problem(&value.span(), message);
            return None;
        }
        Some(Spanned::new(value.span(), Secret::from(text.as_ref())))
    }

    pub(crate) fn path(&self, name: &str) -> Option<Spanned<PathBuf>> {
        let text = self.text(name)?;
        Some(Spanned::new(text.span(), self.context.resolve(text.get_ref())))
    }

    pub(crate) fn flag(&self, name: &str) -> Option<Spanned<bool>> {
        let value = self.raw(name)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(Spanned::new(value.span(), *flag)),
            _ => self.wrong_type(name),
        }
    }

    /// A whole number within the bounds of its key.
    pub(crate) fn integer<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        let Kind::Integer(min, max) = self.kind(name) else { unreachable!("{name} is no whole number in its table") };
        let value = self.raw(name)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number.filter(|n| (min..=max).contains(n)).and_then(|n| T::try_from(n).ok()) {
            Some(number) => Some(number),
            None => self.wrong_type(name),
        }
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        let Kind::Duration(min, max) = self.kind(name) else { unreachable!("{name} is no time in its table") };
        let in_bounds = |text: &str| values::duration(text).filter(|time| (min..=max).contains(&time.as_secs()));
        Some(self.form(name, in_bounds)?.into_inner())
    }

    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        let Kind::Size(min, max) = self.kind(name) else { unreachable!("{name} is no size in its table") };
        let octets = match self.raw(name)?.get_ref() {
            DeValue::String(text) => values::size(text),
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match octets.filter(|octets| (min..=max).contains(octets)) {
            Some(octets) => Some(octets),
            None => self.wrong_type(name),
        }
    }

    pub(crate) fn fraction(&self, name: &str) -> Option<f64> {
        let Kind::Fraction(max) = self.kind(name) else { unreachable!("{name} is no part in its table") };
        let part = match self.raw(name)?.get_ref() {
            DeValue::String(text) => values::percent(text).map(|n| f64::from(n) / 100.0),
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => None,
        };
        match part.filter(|part| (0.0..=f64::from(max) / 100.0).contains(part)) {
            Some(part) => Some(part),
            None => self.wrong_type(name),
        }
    }

    /// One of the words of its key; answers with the value at the word's position.
    pub(crate) fn choice<T: Copy, const N: usize>(&self, name: &str, values: [T; N]) -> Option<T> {
        let Kind::Choice(words) = self.kind(name) else { unreachable!("{name} is no choice in its table") };
        assert_eq!(words.len(), N, "{name} has as many values as words");
        let position = |text: &str| words.iter().position(|(word, _)| *word == text);
        Some(values[self.form(name, position)?.into_inner()])
    }

    /// A text or a list of texts, none of them empty.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<Spanned<String>>> {
        match self.raw(name)?.get_ref() {
            DeValue::String(_) => self.text(name).map(|text| vec![text]),
            _ => self.words(name),
        }
    }

    /// An exit status or a list of them.
    pub(crate) fn statuses(&self, name: &str) -> Option<Vec<Spanned<u8>>> {
        let value = self.raw(name)?;
        let status = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::Integer(number) => {
                let number = u8::from_str_radix(number.as_str(), number.radix()).ok()?;
                Some(Spanned::new(value.span(), number))
            }
            _ => None,
        };
        let all = match value.get_ref() {
            DeValue::Array(list) => list.iter().map(status).collect::<Option<Vec<_>>>(),
            _ => status(value).map(|one| vec![one]),
        };
        all.or_else(|| self.wrong_type(name))
    }

    /// A list of texts.
    pub(crate) fn words(&self, name: &str) -> Option<Vec<Spanned<String>>> {
        let value = self.raw(name)?;
        let DeValue::Array(list) = value.get_ref() else { return self.wrong_type(name) };
        texts_of_list(self.context, name, list.iter())
    }

    /// Reports that a value is not what its key allows.
    pub(crate) fn wrong_type<T>(&self, name: &str) -> Option<T> {
        let key = self.key(name);
        let value = self.raw(name)?;
        let found = match key.kind {
            Kind::Secret => Cow::Borrowed(kind_of(value.get_ref())),
            _ => show(value.get_ref()),
        };
        self.context.problem(&value.span(), format!("{name} must be {}, not {found}", key.kind.allowed()));
        None
    }

    fn is_clean(&self, name: &str, text: &str, span: &Span) -> bool {
        is_clean(self.context, name, text, span)
    }

    fn kind(&self, name: &str) -> Kind {
        self.key(name).kind
    }

    fn key(&self, name: &str) -> &'static Key {
        self.schema.key(name).unwrap_or_else(|| unreachable!("{name} is not in the table {}", self.schema.title))
    }
}

/// The texts of a list, each without control characters and not empty.
pub(crate) fn texts_of_list<'v, 'i: 'v>(
    context: &Context<'_>,
    name: &str,
    list: impl Iterator<Item = &'v Spanned<DeValue<'i>>>,
) -> Option<Vec<Spanned<String>>> {
    let mut texts = Some(Vec::new());
    for item in list {
        let text = match item.get_ref() {
            DeValue::String(text) if is_clean(context, name, text, &item.span()) => Some(text.clone().into_owned()),
            DeValue::String(_) => None,
            other => {
                context.problem(&item.span(), format!("{name} must be a list of texts; {} is among them", show(other)));
                None
            }
        };
        texts = texts.zip(text).map(|(mut texts, text)| {
            texts.push(Spanned::new(item.span(), text));
            texts
        });
    }
    texts
}

/// Reports control characters, which would travel into protocol lines, headers and paths, and an empty text.
fn is_clean(context: &Context<'_>, name: &str, text: &str, span: &Span) -> bool {
    if text.is_empty() {
        context.problem(span, format!("{name} must not be empty"));
        return false;
    }
    let Some((at, c)) = text.chars().enumerate().find(|(_, c)| c.is_control()) else { return true };
    let shown = Escaped::text(c.encode_utf8(&mut [0; 4])).to_string();
    context.problem(span, format!("{name} must not contain control characters, found {shown} at character {}", at + 1));
    false
}

fn unknown_key<'i>(
    context: &Context<'_>,
    schema: &'static Schema,
    name: &Spanned<Cow<'i, str>>,
    value: &Spanned<DeValue<'i>>,
) {
    let known: Vec<_> = schema.keys.iter().map(|key| key.name).collect();
    let meant = nearest(name.get_ref(), &known);
    // What was meant may be a password: its value is shown only if it is known to be something else.
    let meant_key = meant.and_then(|meant| schema.key(meant));
    if meant_key.is_none_or(|key| matches!(key.kind, Kind::Secret)) {
        context.hide(&value.span());
    }
    let suggestion = meant.map_or_else(String::new, |meant| format!("; did you mean \"{meant}\"?"));
    let shown = Escaped::text(name.get_ref());
    let separator = if meant.is_some() { "" } else { ";" };
    context.problem(
        &name.span(),
        format!("unknown key {shown:?} in {}{suggestion}{separator} known: {}", schema.title, known.join(", ")),
    );
}

/// A value for an error message.
pub(crate) fn show(value: &DeValue<'_>) -> Cow<'static, str> {
    match value {
        DeValue::String(text) => {
            let end = (0..=MAX_VALUE.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            let more = if end < text.len() { "…" } else { "" };
            Cow::Owned(format!("\"{}{more}\"", Escaped::text(&text[..end])))
        }
        DeValue::Integer(number) if number.as_str().len() <= MAX_VALUE => Cow::Owned(number.to_string()),
        DeValue::Float(number) if number.as_str().len() <= MAX_VALUE => Cow::Owned(number.to_string()),
        DeValue::Boolean(flag) => Cow::Owned(flag.to_string()),
        other => Cow::Borrowed(kind_of(other)),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
