use std::fmt;

use connectord_mail::{Envelope, matches_wild};

use crate::attachment::{Class, Inspection};
use crate::{Finding, Message, Ruling};

/// Most octets of a header value that a condition looks at.
const MAX_VALUE: usize = 4096;

/// The built-in rules: lists, conditions, blocked attachments. The first that fits decides, in the order of the fields
/// here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Senders whose mail is no spam. Not heard when the provider says that the sender is forged.
    pub allow_from: Vec<Pattern>,
    /// Recipients whose mail is no spam.
    pub allow_to: Vec<Pattern>,
    /// Senders whose mail is blocked.
    pub block_from: Vec<Pattern>,
    /// Classes of attachments that are blocked.
    pub blocked_classes: Vec<Class>,
    /// Further extensions of attachments that are blocked, without the dot.
    pub blocked_extensions: Vec<String>,
    /// What else is filed, discarded or kept; in order.
    pub rules: Vec<Rule>,
}

/// An address, a domain, or a pattern with `*`.
///
/// ```
/// use connectord_filter::Pattern;
/// let fits = |pattern: &str, address: &str| pattern.parse::<Pattern>().unwrap().fits(address);
/// assert!(fits("ann@example.org", "Ann@Example.org"));
/// assert!(fits("example.org", "bob@example.org") && fits("@example.org", "bob@example.org"));
/// assert!(!fits("example.org", "bob@sub.example.org") && fits(".example.org", "bob@sub.example.org"));
/// assert!(fits("news-*@*.example.org", "news-7@mail.example.org"));
/// assert!("*".parse::<Pattern>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// What is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no pattern for addresses: {reason}; expected for example \"ann@example.org\", \"example.org\", \".example.org\" or \"*@*.example.org\""
)]
pub struct PatternError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// What is done with messages for which all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions; without one the rule holds for nothing.
    pub when: Vec<Condition>,
    /// What is decided.
    pub then: Ruling,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A field of this name has a value that fits the text, in which `*` stands for anything; case aside.
    Header {
        /// The field's name.
        name: String,
        /// The whole value, unfolded: `*invoice*`.
        value: String,
    },
    /// The message has more octets.
    LargerThan(u64),
    /// The message has fewer octets.
    SmallerThan(u64),
    /// Something of this class is attached.
    Attached(Class),
}

impl Rules {
    /// Whether the attachments have to be looked at.
    pub fn want_attachments(&self) -> bool {
        let asks = |rule: &Rule| rule.when.iter().any(|condition| matches!(condition, Condition::Attached(_)));
        !self.blocked_classes.is_empty() || !self.blocked_extensions.is_empty() || self.rules.iter().any(asks)
    }

    /// What the rules find in a message; `attached` is what [`crate::attachment::inspect`] found, where it was asked.
    pub fn find(&self, message: &Message, attached: Option<&Inspection>) -> Finding {
        Finding { ruling: self.ruling(message, attached), ..Finding::default() }
    }

    fn ruling(&self, message: &Message, attached: Option<&Inspection>) -> Option<Ruling> {
        let senders = senders(message);
        let sender = |list: &[Pattern]| {
            senders.iter().find_map(|sender| Some((list.iter().find(|pattern| pattern.fits(sender))?.clone(), sender)))
        };
        if let Some((pattern, sender)) = sender(&self.block_from) {
            return Some(Ruling::Block(format!("sender {} is on the block list ({pattern})", shown(sender))));
        }
        if let Some(attached) = attached
            && let Some(reason) = self.blocked_attachment(attached)
        {
            return Some(Ruling::Block(reason));
        }
        for rule in &self.rules {
            if !rule.when.is_empty() && rule.when.iter().all(|condition| condition.holds(message, attached)) {
                return Some(rule.then.clone());
            }
        }
        if let Some((pattern, sender)) = sender(&self.allow_from)
            && !is_forged(&message.envelope)
        {
            return Some(Ruling::Allow(format!("sender {} is on the allow list ({pattern})", shown(sender))));
        }
        let recipient = |pattern: &Pattern| message.recipients.iter().find(|recipient| pattern.fits(recipient));
        if let Some(recipient) = self.allow_to.iter().find_map(recipient) {
            return Some(Ruling::Allow(format!("recipient {} is on the allow list", shown(recipient))));
        }
        None
    }

    fn blocked_attachment(&self, attached: &Inspection) -> Option<String> {
        for attachment in &attached.attachments {
            let name = shown(attachment.name.as_deref().unwrap_or("without a name"));
            if let Some((class, why)) =
                attachment.classes.iter().find(|(class, _)| self.blocked_classes.contains(class))
            {
                return Some(format!("attachment {name} is of class {class} ({})", shown(why)));
            }
            let own = attachment.extensions().find(|own| {
                self.blocked_extensions.iter().any(|blocked| own.eq_ignore_ascii_case(blocked.trim_start_matches('.')))
            });
            if let Some(extension) = own {
                return Some(format!("attachment {name} has the blocked extension {}", shown(&extension)));
            }
        }
        // What is hidden behind a thousand parts is hidden for a reason.
        let wanted = !self.blocked_classes.is_empty() || !self.blocked_extensions.is_empty();
        (wanted && !attached.complete).then(|| "it has more parts than are looked at".to_owned())
    }
}

impl Condition {
    fn holds(&self, message: &Message, attached: Option<&Inspection>) -> bool {
        match self {
            Self::Header { name, value } => message.head().fields().filter(|field| field.is(name)).any(|field| {
                let unfolded = field.unfolded();
                let text = String::from_utf8_lossy(&unfolded[..unfolded.len().min(MAX_VALUE)]);
                matches_wild(value, text.trim())
            }),
            Self::LargerThan(octets) => message.body.size_octets() > *octets,
            Self::SmallerThan(octets) => message.body.size_octets() < *octets,
            Self::Attached(class) => attached.is_some_and(|attached| {
                attached.attachments.iter().any(|attachment| attachment.classes.iter().any(|(known, _)| known == class))
            }),
        }
    }
}

/// The addresses a message claims to be from: the reverse-path and the one in From.
fn senders(message: &Message) -> Vec<String> {
    let mut senders: Vec<String> =
        message.envelope.reverse_path.iter().filter(|path| !path.is_empty()).cloned().collect();
    for field in message.head().fields().filter(|field| field.is("From") || field.is("Sender")).take(4) {
        let value = field.unfolded();
        let value = String::from_utf8_lossy(&value[..value.len().min(MAX_VALUE)]);
        senders.extend(addresses(&value));
    }
    senders
}

/// Addresses of a header field: what is in angle brackets, else the words with an `@`; quoted names are not addresses.
fn addresses(value: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut inside = Vec::new();
    let (mut quoted, mut bracket) = (false, None::<String>);
    for c in value.chars() {
        match (c, &mut bracket) {
            ('"', None) => quoted = !quoted,
            ('<', None) if !quoted => bracket = Some(String::new()),
            ('>', Some(address)) => {
                inside.push(address.trim().to_owned());
                bracket = None;
            }
            (c, Some(address)) => address.push(c),
            (c, None) if !quoted => plain.push(c),
            _ => {}
        }
    }
    if !inside.is_empty() {
        return inside;
    }
    let words = plain.split([' ', ',', ';', '\t', '(', ')']).filter(|word| word.contains('@'));
    words.map(|word| word.trim_matches(':').to_owned()).collect()
}

/// Whether the provider found that the sender is not who it claims to be.
fn is_forged(envelope: &Envelope) -> bool {
    let result = |method: &str| envelope.authentication.iter().find_map(|field| field.result(method));
    match (result("dmarc"), result("spf"), result("dkim")) {
        (Some("fail"), _, _) => true,
        (Some("pass"), _, _) | (_, _, Some("pass")) => false,
        (_, Some("fail" | "softfail"), _) => true,
        _ => false,
    }
}

impl Pattern {
    /// Whether an address fits.
    pub fn fits(&self, address: &str) -> bool {
        let address = address.trim().trim_matches(['<', '>']).to_lowercase();
        let Some((_, domain)) = address.rsplit_once('@') else { return false };
        if self.0.contains('*') {
            return matches_wild(&self.0, if self.0.contains('@') { &address } else { domain });
        }
        match self.0.split_once('@') {
            Some(("", wanted)) => domain == wanted,
            Some(_) => address == self.0,
            None => match self.0.strip_prefix('.') {
                Some(parent) => domain.len() > parent.len() && domain.ends_with(&self.0),
                None => domain == self.0,
            },
        }
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = |reason| PatternError { text: text.chars().take(100).collect(), reason };
        let pattern = text.trim().to_lowercase();
        if pattern.is_empty() || pattern.len() > 320 {
            return Err(wrong("it is empty or too long"));
        }
        if pattern.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',')) {
            return Err(wrong("it has white space or a character that no address has"));
        }
        if pattern.chars().all(|c| matches!(c, '*' | '@' | '.')) {
            return Err(wrong("it would fit everybody"));
        }
        Ok(Self(pattern))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text from a message, for a reason that people read.
fn shown(text: &str) -> String {
    text.escape_debug().take(120).collect()
}
