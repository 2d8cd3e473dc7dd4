//! Fields that are a string or a list of objects.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use crate::api::http::object::JsonObject;

/// `"…"` or `[{…}, …]`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum TextOr<T> {
    /// The string.
    Text(String),
    /// The list.
    List(Vec<T>),
}

struct TextOrVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrVisitor<T> {
    type Value = TextOr<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of objects")
    }

    fn visit_str<E>(self, value: &str) -> Result<TextOr<T>, E> {
        Ok(TextOr::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<TextOr<T>, E> {
        Ok(TextOr::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TextOr<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(JsonObject(element)) = seq.next_element()? {
            list.push(element);
        }
        Ok(TextOr::List(list))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrVisitor(PhantomData))
    }
}
