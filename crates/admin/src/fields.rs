//! What came in a query or a form: names and values, in order, a name more than once.

/// Names and values of a query or a form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// Reads `a=b&c=d`; at most 2,000 of them.
    pub(crate) fn read(octets: &[u8]) -> Self {
        Self(
            form_urlencoded::parse(octets)
                .take(2000)
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The first value of a name, without blanks around it; empty when there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// The same as it came.
    pub(crate) fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// A value, or nothing when it is empty.
    pub(crate) fn some(&self, name: &str) -> Option<String> {
        Some(self.get(name).to_owned()).filter(|value| !value.is_empty())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Whether a box is ticked; where two editors' values are chosen from, it says `yes` or `no`.
    pub(crate) fn ticked(&self, name: &str) -> bool {
        self.0.iter().any(|(known, value)| known == name && value != "no")
    }

    /// All values of a name that are not empty.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(known, value)| known == name && !value.is_empty());
        values.map(|(_, value)| value.clone()).collect()
    }

    /// The query with one name set anew, as `?a=b`; an empty value leaves it out. Pages are left behind by a new filter.
    pub(crate) fn with(&self, name: &str, value: &str) -> String {
        let kept = self.0.iter().filter(|(known, value)| known != name && known != "after" && !value.is_empty());
        let mut query = form_urlencoded::Serializer::new(String::from("?"));
        query.extend_pairs(kept);
        if !value.is_empty() {
            query.append_pair(name, value);
        }
        query.finish()
    }
}
