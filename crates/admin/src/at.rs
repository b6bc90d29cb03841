//! Moments, as this crate passes them around.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in whole seconds since 1970, UTC; as JSON in RFC 3339, such as `2026-10-07T12:31:58Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub i64);

impl At {
    /// The moment that is now.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_second())
    }

    /// The same as jiff's; a moment beyond its years becomes 1970.
    pub(crate) fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Seconds from `earlier` to here; 0 when that is the later one.
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().fmt(f)
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(moment.as_second()))
    }
}

#[cfg(test)]
mod tests {
    use super::At;

    #[test]
    fn a_moment_is_rfc_3339_and_comes_back() {
        let text = serde_json::to_string(&At(1_791_376_318)).expect("a text");
        assert_eq!(text, "\"2026-10-07T12:31:58Z\"");
        assert_eq!(serde_json::from_str::<At>(&text).expect("a moment"), At(1_791_376_318));
    }
}
