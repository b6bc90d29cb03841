//! Command line words, taken one by one.

use crate::Done;

/// What is left of a command line.
#[derive(Clone, Debug)]
pub(crate) struct Words(Vec<String>);

impl Words {
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Self {
        Self(words.collect())
    }

    /// The next word that is no option.
    pub(crate) fn next(&mut self) -> Option<String> {
        let at = self.0.iter().position(|word| !word.starts_with("--"))?;
        Some(self.0.remove(at))
    }

    pub(crate) fn required(&mut self, what: &str) -> Done<String> {
        Ok(self.next().ok_or_else(|| format!("{what} is missing"))?)
    }

    /// Value of `--name value`.
    pub(crate) fn value(&mut self, name: &str) -> Done<Option<String>> {
        let Some(at) = self.0.iter().position(|word| word == name) else { return Ok(None) };
        self.0.remove(at);
        if at == self.0.len() {
            return Err(format!("{name} needs a value").into());
        }
        Ok(Some(self.0.remove(at)))
    }

    pub(crate) fn number(&mut self, name: &str) -> Done<Option<usize>> {
        Ok(self.value(name)?.map(|value| value.parse()).transpose().map_err(|_| format!("{name} needs a number"))?)
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|word| word == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Fails when a word is left.
    pub(crate) fn end(&self) -> Done<()> {
        match self.0.first() {
            Some(word) => Err(format!("what is {word:?} for?").into()),
            None => Ok(()),
        }
    }
}
