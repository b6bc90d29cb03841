use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value};

/// Most entries that are kept of one object or list; the others are read and forgotten.
const MAX_ENTRIES: usize = 500;

/// An object's entries in the order in which they came. Null and an empty list, as Lua writes an empty table, are an
/// object without entries.
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Ordered::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Ordered::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while entries.len() < MAX_ENTRIES {
                    let Some(entry) = map.next_entry()? else { return Ok(Ordered(entries)) };
                    entries.push(entry);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_any(Entries(PhantomData))
    }
}

/// One value, or a list of them.
pub(super) struct Many<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Values<T> {
            fn one<E: serde::de::Error>(value: impl Deserializer<'de, Error = E>) -> Result<Many<T>, E> {
                T::deserialize(value).map(|value| Many(vec![value]))
            }
        }

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Values<T> {
            type Value = Many<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
                Self::one(value::I64Deserializer::new(value))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                Self::one(value::U64Deserializer::new(value))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Self::one(value::F64Deserializer::new(value))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
                Self::one(value::StrDeserializer::new(value))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Self::one(value::MapAccessDeserializer::new(map))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while values.len() < MAX_ENTRIES {
                    let Some(value) = list.next_element()? else { return Ok(Many(values)) };
                    values.push(value);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Many(values))
            }
        }

        deserializer.deserialize_any(Values(PhantomData))
    }
}
