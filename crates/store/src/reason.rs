use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Octets of one value at most.
const MAX_VALUE: usize = 500;

/// Why an account is not well, as values: a code for programs, and what its sentence speaks of in each language.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The code, such as `login_refused`.
    pub code: String,
    /// Values by name: `host`, `port`, `user`, `folder`, `part`, `path`. A number is its digits.
    #[serde(default)]
    pub words: BTreeMap<String, String>,
    /// What the server, destination or filter said, escaped.
    #[serde(default)]
    pub said: Option<String>,
}

impl Reason {
    /// Of which nothing more is known.
    pub fn new(code: impl Into<String>) -> Self {
        Self { code: line(&code.into()), ..Self::default() }
    }

    /// With a value for its sentence; control characters in it become spaces, and it is cut at 500 octets.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.words.insert(name.to_owned(), line(&value.to_string()));
        self
    }

    /// With what was said; control characters in it become spaces, and it is cut at 500 octets.
    #[must_use]
    pub fn said(mut self, said: impl Into<String>) -> Self {
        self.said = Some(line(&said.into()));
        self
    }

    /// For back ends: as one text, which [`Reason::parse`] reads.
    ///
    /// ```
    /// use connectord_store::Reason;
    /// let reason = Reason::new("no_answer").with("host", "pop.example.org").with("port", 995).said("refused");
    /// assert_eq!(reason.to_text(), "no_answer\nsaid=refused\nhost=pop.example.org\nport=995");
    /// assert_eq!(Reason::parse(&reason.to_text()), reason);
    /// ```
    pub fn to_text(&self) -> String {
        let mut text = line(&self.code);
        let said = self.said.iter().map(|said| ("said", said));
        for (name, value) in said.chain(self.words.iter().map(|(name, value)| (name.as_str(), value))) {
            text.push('\n');
            text.push_str(&name.replace(['\n', '='], " "));
            text.push('=');
            text.push_str(&line(value));
        }
        text
    }

    /// Reads what [`Reason::to_text`] wrote, and makes the best of anything else.
    pub fn parse(text: &str) -> Self {
        let mut lines = text.split('\n');
        let mut reason = Self::new(lines.next().unwrap_or_default());
        for (name, value) in lines.filter_map(|line| line.split_once('=')) {
            match name {
                "said" => reason.said = Some(line(value)),
                name => {
                    reason.words.insert(name.to_owned(), line(value));
                }
            }
        }
        reason
    }
}

fn line(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(MAX_VALUE)];
    cut.replace(char::is_control, " ")
}
