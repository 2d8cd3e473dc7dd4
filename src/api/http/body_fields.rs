//! Finds the fields of a body in one pass, from which each type then reads its own.
//!
//! Several types are read from one body. Each value is deserialized once, by the type that has a
//! field of its name, and never copied before.

use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::extract::parse;
use super::refused_fields::RefusedField;

/// How often a field is kept: the second time is enough for the error about it.
const MAX_KEPT: usize = 2;

/// The fields of one body, as text.
#[derive(Debug)]
pub(crate) struct BodyFields<'b> {
    body: &'b str,
    /// `None` if the body is not a JSON object.
    found: Option<Found<'b>>,
}

#[derive(Debug, Default)]
struct Found<'b> {
    /// Names and values of the fields of the types, in the body's order.
    fields: Vec<(&'static str, &'b RawValue)>,
    /// The first refused field with a value that is not neutral.
    refused: Option<RefusedField>,
}

impl<'b> BodyFields<'b> {
    /// Finds the fields with these names, and the first field of `refused` with an effect. Errors
    /// are reported when a type is read.
    pub(crate) fn find(
        body: &'b str,
        names: &[&[&'static str]],
        refused: &[&'static [RefusedField]],
    ) -> Self {
        let mut deserializer = serde_json::Deserializer::from_str(body);
        let found = deserializer.deserialize_map(Finder { names, refused });
        let found = found.and_then(|found| deserializer.end().map(|()| found));
        Self {
            body,
            found: found.ok(),
        }
    }

    /// Reads one type; its names must be among those that were looked for.
    ///
    /// # Errors
    /// 400 with the dotted path of the invalid field, or for a body that is not a JSON object.
    pub(crate) fn read<T: Deserialize<'b>>(&self) -> Result<T, ApiError> {
        if let Some(found) = &self.found {
            let own = names_of::<T>();
            let fields = found.fields.iter().copied();
            let fields = fields.filter(|(name, _)| own.contains(name));
            let map = MapDeserializer::<_, serde_json::Error>::new(fields);
            if let Ok(read) = T::deserialize(map) {
                return Ok(read);
            }
        }
        // Only the whole body knows the path and the line of an error.
        parse(self.body)
    }

    /// Rejects a body that sets a refused field to a value that is not neutral.
    ///
    /// # Errors
    /// 400 that names the first such field.
    pub(crate) fn check_refused(&self) -> Result<(), ApiError> {
        match self.found.as_ref().and_then(|found| found.refused) {
            None => Ok(()),
            Some(field) => Err(field.error()),
        }
    }
}

/// Returns the names of the fields of a struct with a derived `Deserialize`.
pub(crate) fn names_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It always fails, once it has said which fields it expects.
    let _ = T::deserialize(NamesOnly(&mut names));
    names
}

/// A deserializer without a value: it notes the names that a struct asks for.
struct NamesOnly<'n>(&'n mut &'static [&'static str]);

impl<'de> Deserializer<'de> for NamesOnly<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("there is no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Finder<'n> {
    names: &'n [&'n [&'static str]],
    refused: &'n [&'static [RefusedField]],
}

/// What is known of a field's name.
struct Known {
    /// The name, if a type has a field of it.
    name: Option<&'static str>,
    refused: Option<RefusedField>,
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = Found::default();
        while let Some(Known { name, refused }) = map.next_key_seed(&self)? {
            let refused = refused.filter(|_| found.refused.is_none());
            let name = name.filter(|name| {
                let kept = found.fields.iter().filter(|(kept, _)| kept == name);
                kept.count() < MAX_KEPT
            });
            if name.is_none() && refused.is_none() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: &RawValue = map.next_value()?;
            found.refused = found
                .refused
                .or(refused.filter(|field| !field.is_neutral(value)));
            found.fields.extend(name.map(|name| (name, value)));
        }
        Ok(found)
    }
}

impl<'de> DeserializeSeed<'de> for &Finder<'_> {
    type Value = Known;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Known, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for &Finder<'_> {
    type Value = Known;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Known, E> {
        let mut names = self.names.iter().copied().flatten();
        let mut refused = self.refused.iter().copied().flatten();
        Ok(Known {
            name: names.find(|known| **known == name).copied(),
            refused: refused.find(|field| field.name == name).copied(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::api::http::refused_fields::field;

    const REFUSED: &[RefusedField] = &[field("echo", &["false"], ""), field("n", &["1"], "")];

    #[derive(Debug, PartialEq, Deserialize)]
    struct Text {
        text: String,
        n: Option<i64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        numbers: Option<Vec<f64>>,
        n: Option<Box<RawValueText>>,
    }

    /// A value that is kept as text, compared by it.
    #[derive(Debug, Deserialize)]
    struct RawValueText(Box<RawValue>);

    impl PartialEq for RawValueText {
        fn eq(&self, other: &Self) -> bool {
            self.0.get() == other.0.get()
        }
    }

    fn found(body: &str) -> BodyFields<'_> {
        BodyFields::find(
            body,
            &[names_of::<Text>(), names_of::<Numbers>()],
            &[REFUSED],
        )
    }

    /// Bodies, right and wrong in all ways that a type can notice.
    const BODIES: &[&str] = &[
        r#"{"text": "a", "numbers": [1, 2.5], "n": 1, "more": [{}]}"#,
        r#"{"te\u0078t": "\u00e4"}"#,
        r#"{"text": null}"#,
        r#"{"numbers": [1]}"#,
        r#"{"text": "a", "text": "b"}"#,
        r#"{"text": "a", "text": "b", "text": 3}"#,
        r#"{"text": "a", "more": 1, "more": 2}"#,
        "{\n \"numbers\": [1,\n \"2\"], \"text\": 3}",
        r#"{"text": "\ud800"}"#,
        r#"{"text": "a", "numbers": [1e999]}"#,
        r#"{"text": "a", "more": "\ud800", "numbers": [-1e999]}"#,
        r#"{"text": "a", "mo\ud800re": 1}"#,
        r#"{"text": "a", "n": [1}"#,
        r#"{"text": 3, "n": [1}"#,
        r#"{"text": "a"} x"#,
        r#"{"text": "a""#,
        r#"["a", 1]"#,
        r#""a""#,
        "",
    ];

    #[test]
    fn a_type_reads_the_same_and_fails_the_same_as_from_the_whole_body() {
        for body in BODIES {
            let json = |error: ApiError| error.to_json();
            let fields = found(body);
            let text = fields.read::<Text>().map_err(json);
            assert_eq!(text, parse::<Text>(body).map_err(json), "{body}");
            let numbers = fields.read::<Numbers>().map_err(json);
            assert_eq!(numbers, parse::<Numbers>(body).map_err(json), "{body}");
        }
    }

    #[test]
    fn nothing_but_a_types_own_error_needs_the_body_again() {
        let fields = BodyFields {
            body: "",
            ..found(BODIES[0])
        };
        let text = fields.read::<Text>().expect("read from the fields");
        assert_eq!((text.text.as_str(), text.n), ("a", Some(1)));
        assert!(fields.read::<Numbers>().expect("too").n.is_some());
    }

    #[test]
    fn the_first_refused_field_with_an_effect_counts() {
        let message = |body: &str| {
            let checked = found(body).check_refused();
            checked.err().map(|error| error.to_json())
        };
        assert_eq!(message(r#"{"text": "a", "echo": false, "n": 1}"#), None);
        for (body, name) in [
            (r#"{"echo": false, "n": 2, "echo": true}"#, "n"),
            (r#"{"n": 1, "n": 1, "n": 1, "n": 3}"#, "n"),
            (r#"{"echo": true, "n": 2}"#, "echo"),
        ] {
            let message = message(body).expect(body);
            assert!(
                message.contains(&format!("\"param\":\"{name}\"")),
                "{message}"
            );
        }
    }
}
