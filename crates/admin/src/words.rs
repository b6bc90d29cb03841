//! The catalogues: every text of the page, in every language, and how each language writes numbers and times.
//!
//! A catalogue is a file of lines `key: text`. A text may have a singular and a plural, parted by ` | `, which the value `{n}` chooses
//! between. A value in braces is escaped and set apart from the text's direction with `<bdi>`.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::LazyLock;

use crate::at::At;
use crate::cause::{Cause, Value};
use crate::escape::{self, Markup};

/// A language of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// English, which everything else falls back to.
    En,
    /// Italian.
    It,
    /// German.
    De,
    /// French.
    Fr,
    /// Spanish.
    Es,
}

type Catalogue = HashMap<&'static str, &'static str>;

static CATALOGUES: LazyLock<[Catalogue; 5]> = LazyLock::new(|| Language::ALL.map(|language| read(language.file())));

fn read(file: &'static str) -> Catalogue {
    file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": ")).collect()
}

impl Language {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::En, Self::It, Self::De, Self::Fr, Self::Es];

    /// Its tag, such as `en`.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::It => "it",
            Self::De => "de",
            Self::Fr => "fr",
            Self::Es => "es",
        }
    }

    /// Its name in itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::It => "Italiano",
            Self::De => "Deutsch",
            Self::Fr => "Français",
            Self::Es => "Español",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::En => include_str!("../words/en.txt"),
            Self::It => include_str!("../words/it.txt"),
            Self::De => include_str!("../words/de.txt"),
            Self::Fr => include_str!("../words/fr.txt"),
            Self::Es => include_str!("../words/es.txt"),
        }
    }

    const fn group(self) -> &'static str {
        match self {
            Self::En => ",",
            Self::It | Self::De | Self::Es => ".",
            Self::Fr => "\u{a0}",
        }
    }

    const fn point(self) -> char {
        if matches!(self, Self::En) { '.' } else { ',' }
    }

    /// By its tag.
    pub fn of(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(tag))
    }

    /// The one an `Accept-Language` field wants most (RFC 9110 §12.5.4); English when it wants none of ours.
    pub fn wanted(field: &str) -> Self {
        let mut best = (0.0, Self::En);
        for range in field.split(',').take(20) {
            let mut parts = range.split(';').map(str::trim);
            let primary = parts.next().unwrap_or("").split('-').next().unwrap_or("");
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            if let Some(language) = Self::of(primary)
                && weight > best.0
            {
                best = (weight, language);
            }
        }
        best.1
    }
}

/// A count, or a reference to one: templates have both.
pub trait Figure {
    /// The count.
    fn figure(&self) -> u64;
}

impl Figure for u64 {
    fn figure(&self) -> u64 {
        *self
    }
}

impl<T: Figure> Figure for &T {
    fn figure(&self) -> u64 {
        (**self).figure()
    }
}

/// A language and a time zone: writes everything a page says.
#[derive(Clone, Debug)]
pub struct Words {
    /// The language.
    pub language: Language,
    /// The zone that moments are shown in.
    pub zone: jiff::tz::TimeZone,
    /// What is now.
    pub now: At,
    /// Whether moments are shown exactly instead of "2 min ago".
    pub exact: bool,
}

impl Words {
    /// Words of this language, now, in the zone of the machine.
    pub fn new(language: Language) -> Self {
        Self { language, zone: jiff::tz::TimeZone::system(), now: At::now(), exact: false }
    }

    /// Whether the catalogue has this key.
    pub fn has(&self, key: &str) -> bool {
        CATALOGUES[self.language as usize].contains_key(key)
    }

    /// The text of a key; a key that is missing shows itself.
    pub fn t<'a>(&self, key: &'a str) -> &'a str {
        let text: Option<&&'static str> =
            CATALOGUES[self.language as usize].get(key).or_else(|| CATALOGUES[Language::En as usize].get(key));
        text.copied().unwrap_or(key)
    }

    /// The text of `prefix.word`.
    pub fn of(&self, prefix: &str, word: &str) -> String {
        self.t(&format!("{prefix}.{word}")).to_owned()
    }

    /// A text with values, as plain text.
    pub fn plain(&self, key: &str, values: &[(&str, Value)]) -> String {
        self.fill(key, values, |_, value| value)
    }

    /// A text with values, as HTML.
    pub fn say(&self, key: &str, values: &[(&str, Value)]) -> Markup {
        escape::trusted(self.fill(key, values, |kind, value| match kind {
            Value::Text(_) => format!("<bdi>{}</bdi>", breakable(&value)),
            _ => escape::html(&value),
        }))
    }

    /// A text with one count.
    pub fn n(&self, key: &str, n: impl Figure) -> String {
        self.plain(key, &[("n", Value::Count(n.figure()))])
    }

    /// A text with two counts, by their names.
    pub fn two(&self, key: &str, a: &str, first: impl Figure, b: &str, second: impl Figure) -> String {
        self.plain(key, &[(a, Value::Count(first.figure())), (b, Value::Count(second.figure()))])
    }

    /// A text with one name.
    pub fn name(&self, key: &str, name: &str) -> Markup {
        self.say(key, &[("name", name.into())])
    }

    /// The same as plain text, for attributes.
    pub fn named(&self, key: &str, name: &str) -> String {
        self.plain(key, &[("name", name.into())])
    }

    fn fill(&self, key: &str, values: &[(&str, Value)], write: impl Fn(&Value, String) -> String) -> String {
        let text = self.t(key);
        let text = match text.split_once(" | ") {
            None => text,
            Some((one, many)) => {
                let n = values.iter().find_map(|(name, value)| match value {
                    Value::Count(n) if *name == "n" || *name == "messages" => Some(*n),
                    _ => None,
                });
                if n == Some(1) || (n == Some(0) && self.language == Language::Fr) { one } else { many }
            }
        };
        let mut filled = String::with_capacity(text.len() + 40);
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let Some((name, after)) = after.split_once('}') else { break };
            match values.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => filled.push_str(&write(value, self.value(value))),
                None => filled.push('–'),
            }
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    fn value(&self, value: &Value) -> String {
        match value {
            Value::Text(text) => text.clone(),
            Value::Count(count) => self.number(count),
            Value::Octets(octets) => self.octets(octets),
            Value::At(at) => self.clock(at),
        }
    }

    /// The sentence of a cause: what happened, where the mail is, when the next try is.
    pub fn cause(&self, cause: &Cause) -> Markup {
        let values: Vec<(&str, Value)> = cause.words.iter().map(|(name, value)| (*name, value.clone())).collect();
        let mut sentence = self.say(&format!("cause.{}", cause.code.word()), &values).0;
        if let Some(next) = cause.next {
            let _ = write!(sentence, " {}", self.say("cause.next", &[("next", Value::At(next))]));
        }
        escape::trusted(sentence)
    }

    /// The same as plain text, for programs.
    pub fn cause_plain(&self, cause: &Cause) -> String {
        let values: Vec<(&str, Value)> = cause.words.iter().map(|(name, value)| (*name, value.clone())).collect();
        self.plain(&format!("cause.{}", cause.code.word()), &values)
    }

    /// `12,408`.
    pub fn number(&self, n: impl Figure) -> String {
        let digits = n.figure().to_string();
        let mut grouped = String::with_capacity(digits.len() + 4);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                grouped.push_str(self.language.group());
            }
            grouped.push(digit);
        }
        grouped
    }

    /// A count, or `–` when it was not measured.
    pub fn count(&self, n: &Option<u64>) -> String {
        n.as_ref().map_or_else(|| "–".to_owned(), |n| self.number(n))
    }

    /// `48.1 MB`: decimal units, three digits.
    pub fn octets(&self, octets: impl Figure) -> String {
        const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
        let octets = octets.figure();
        if octets < 1000 {
            return format!("{octets}\u{a0}B");
        }
        let (mut tenths, mut unit) = (octets / 100, 0);
        while tenths >= 10_000 && unit + 1 < UNITS.len() {
            tenths /= 1000;
            unit += 1;
        }
        let number = if tenths >= 1000 { (tenths / 10).to_string() } else { self.tenths(tenths) };
        format!("{number}\u{a0}{}", UNITS[unit])
    }

    fn tenths(&self, tenths: u64) -> String {
        format!("{}{}{}", tenths / 10, self.language.point(), tenths % 10)
    }

    /// A score or limit in thousandths as `14.2`; a whole number without its nought.
    pub fn milli(&self, milli: &i64) -> String {
        let sign = if *milli < 0 { "-" } else { "" };
        let tenths = (milli.unsigned_abs() + 50) / 100;
        if tenths.is_multiple_of(10) {
            format!("{sign}{}", tenths / 10)
        } else {
            format!("{sign}{}", self.tenths(tenths))
        }
    }

    /// `84 ms`, `1.2 s`, `3 min`, `5 h`, `6 d`.
    pub fn duration(&self, ms: &u64) -> String {
        match ms {
            0..1000 => format!("{ms}\u{a0}ms"),
            1000..60_000 => format!("{}\u{a0}s", self.tenths(ms / 100)),
            _ => self.span(ms / 1000),
        }
    }

    fn span(&self, seconds: u64) -> String {
        let (n, unit) = match seconds {
            0..60 => (seconds, "s"),
            60..3600 => (seconds / 60, "min"),
            3600..172_800 => (seconds / 3600, "h"),
            _ => (seconds / 86_400, "d"),
        };
        format!("{n}\u{a0}{}", self.of("unit", unit))
    }

    /// About how long something still takes, in steps that do not dance.
    pub fn about(&self, seconds: &u64) -> String {
        let step = [10, 30, 60, 120, 300].into_iter().find(|step| seconds <= step).unwrap_or(seconds - seconds % 60);
        self.plain("time.about", &[("n", Value::Text(self.span(step)))])
    }

    /// `2026-10-07 14:31:58 +02:00`.
    pub fn full(&self, at: &At) -> String {
        at.timestamp().to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
    }

    /// The time of day, with the date when it is not today.
    pub fn clock(&self, at: &At) -> String {
        let moment = at.timestamp().to_zoned(self.zone.clone());
        let today = self.now.timestamp().to_zoned(self.zone.clone()).date();
        let format = if moment.date() == today { "%H:%M" } else { "%Y-%m-%d %H:%M" };
        moment.strftime(format).to_string()
    }

    /// The time of day with seconds.
    pub fn second(&self, at: &At) -> String {
        at.timestamp().to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string()
    }

    /// The day.
    pub fn day(&self, at: &At) -> String {
        at.timestamp().to_zoned(self.zone.clone()).strftime("%Y-%m-%d").to_string()
    }

    /// `2 min ago`, `in 13 min`, a date when it is further away than a day; always with the exact time beside it.
    pub fn when(&self, at: &At) -> Markup {
        let text = if self.exact {
            self.full(at)
        } else if *at > self.now {
            let ahead = at.since(self.now);
            let words = self.plain("time.in", &[("n", Value::Text(self.span(ahead)))]);
            if ahead < 86_400 { words } else { self.clock(at) }
        } else {
            match self.now.since(*at) {
                0..10 => self.t("time.now").to_owned(),
                ago @ 10..86_400 => self.plain("time.ago", &[("n", Value::Text(self.span(ago)))]),
                _ => self.day(at),
            }
        };
        let full = self.full(at);
        escape::trusted(format!("<time datetime=\"{at}\" title=\"{full}\">{}</time>", escape::html(&text)))
    }

    /// The same, or a word for never.
    pub fn when_or(&self, at: &Option<At>, never: &str) -> Markup {
        at.as_ref().map_or_else(|| escape::trusted(escape::html(self.t(never))), |at| self.when(at))
    }

    /// The name of the zone.
    pub fn zone_name(&self) -> String {
        self.zone.iana_name().unwrap_or("UTC").to_owned()
    }
}

/// A name as HTML that may break behind `@` and `.` and not within a word.
pub(crate) fn breakable(text: &str) -> String {
    escape::html(text).replace('@', "@<wbr>").replace('.', ".<wbr>")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Language, Words, read};
    use crate::at::At;
    use crate::cause::{Cause, Code, Value};

    fn english() -> Words {
        Words { language: Language::En, zone: jiff::tz::TimeZone::UTC, now: At(1_791_376_318), exact: false }
    }

    #[test]
    fn every_language_has_every_key_once_with_the_same_values() {
        let values = |text: &str| -> BTreeSet<String> {
            text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name.to_owned()).collect()
        };
        let english = read(Language::En.file());
        for language in Language::ALL {
            let lines = language.file().lines().filter(|line| !line.starts_with('#') && !line.is_empty());
            let catalogue = read(language.file());
            assert_eq!(lines.count(), catalogue.len(), "{}: a key twice, or a line without one", language.tag());
            let missing: Vec<_> = english.keys().filter(|key| !catalogue.contains_key(*key)).collect();
            assert!(missing.is_empty(), "{} lacks {missing:?}", language.tag());
            let unknown: Vec<_> = catalogue.keys().filter(|key| !english.contains_key(*key)).collect();
            assert!(unknown.is_empty(), "{} has {unknown:?}, which English has not", language.tag());
            for (key, text) in &catalogue {
                assert_eq!(values(text), values(english[key]), "{}: values of {key}", language.tag());
                assert!(!text.contains(['<', '>']), "{}: markup in {key}", language.tag());
                assert_eq!(text.contains(" | "), english[key].contains(" | "), "{}: plural of {key}", language.tag());
            }
        }
    }

    #[test]
    fn every_cause_has_its_sentence_and_speaks_of_nothing_else() {
        let words = english();
        for code in Code::ALL {
            let key = format!("cause.{}", code.word());
            assert!(words.has(&key), "no {key}");
            for part in words.t(&key).split('{').skip(1) {
                let name = part.split('}').next().unwrap_or("");
                assert!(code.row().words.contains(&name), "{key} speaks of {name}");
            }
            for (word, _) in code.row().remedies {
                assert!(words.has(&format!("do.{word}")), "no do.{word}");
            }
        }
    }

    #[test]
    fn a_name_in_a_sentence_is_text_and_keeps_its_direction() {
        let cause = Cause::new(Code::NoAnswer).with("host", "<b>\u{202e}x.y").with("port", "993");
        let html = english().cause(&cause).0;
        assert!(html.contains("<bdi>&#60;b&#62;⟨202E⟩x.<wbr>y</bdi>"), "{html}");
    }

    #[test]
    fn the_browsers_wish_is_followed() {
        assert_eq!(Language::wanted("de-AT,de;q=0.9,en;q=0.8"), Language::De);
        assert_eq!(Language::wanted("pl, fr;q=0.3, it;q=0.7"), Language::It);
        assert_eq!(Language::wanted("pl"), Language::En);
        assert_eq!(Language::wanted("es;q=x, ;;q="), Language::En);
    }

    #[test]
    fn numbers_octets_and_times_are_short() {
        let words = english();
        assert_eq!(words.number(12_408), "12,408");
        assert_eq!(words.octets(48_123_456), "48.1\u{a0}MB");
        assert_eq!(words.octets(999), "999\u{a0}B");
        assert_eq!(words.octets(843_000_000_000), "843\u{a0}GB");
        assert_eq!(words.duration(&1234), "1.2\u{a0}s");
        assert_eq!(words.milli(&-14_249), "-14.2");
        assert!(words.when(&At(1_791_376_318 - 130)).0.contains(">2\u{a0}min ago<"));
        assert!(words.when(&At(1_791_376_318 + 780)).0.contains(">in 13\u{a0}min<"));
        assert_eq!(words.plain("cause.parked", &[("messages", Value::Count(1))]).split(' ').next(), Some("1"));
    }
}

#[cfg(test)]
mod templates {
    /// Words that are the same in every language.
    const SAME: [&str; 4] = ["connectord", "CSV", "healthz", "connectorctl"];

    /// What is left of a template without tags, expressions and code.
    fn literals(template: &str) -> String {
        let without = |text: &str, open: &str, close: &str| {
            let mut kept = String::new();
            let mut rest = text;
            while let Some((before, after)) = rest.split_once(open) {
                kept.push_str(before);
                rest = after.split_once(close).map_or("", |(_, after)| after);
            }
            kept + rest
        };
        let text = without(template, "{%", "%}");
        let text = without(&text, "{{", "}}");
        let text = without(&text, "<code>", "</code>");
        let text = without(&text, "<p class=\"hint mono\">", "</p>");
        // Attributes that are read out.
        let spoken: Vec<_> = ["aria-label=\"", "placeholder=\"", "title=\"", "alt=\""]
            .iter()
            .flat_map(|name| text.split(name).skip(1).map(|rest| rest.split('"').next().unwrap_or("").to_owned()))
            .collect();
        without(&text, "<", ">") + &spoken.join(" ")
    }

    #[test]
    fn no_template_speaks_for_itself() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/templates");
        let mut checked = 0;
        for file in std::fs::read_dir(folder).expect("templates") {
            let path = file.expect("a file").path();
            let text = literals(&std::fs::read_to_string(&path).expect("a template"));
            let words = text
                .split(|c: char| !c.is_alphabetic())
                .filter(|word| word.chars().count() > 1 && !SAME.contains(word));
            let words: Vec<_> = words.collect();
            assert!(words.is_empty(), "{}: {words:?} belong into the catalogues", path.display());
            checked += 1;
        }
        assert!(checked > 30, "only {checked} templates");
        assert_eq!(literals("<p title=\"Hello\">{{ f.t(\"x\") }}World</p>"), "WorldHello");
    }

    #[test]
    fn every_key_that_templates_name_is_in_the_catalogue() {
        let words = super::Words::new(super::Language::En);
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/templates")).expect("templates") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("a template");
            for call in ["f.t(\"", "f.w.n(\"", "f.w.name(\"", "f.w.named(\"", "f.w.two(\""] {
                for key in text.split(call).skip(1).filter_map(|rest| rest.split('"').next()) {
                    assert!(words.has(key), "no {key}");
                }
            }
        }
    }
}
