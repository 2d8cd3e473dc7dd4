//! JSON of clients that is kept as text: it may be much larger once it is deserialized.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The text of any JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonText(pub(crate) String);

/// The text of a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectText(pub(crate) String);

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(Box::<str>::from(raw).into_string()))
    }
}

impl<'de> Deserialize<'de> for ObjectText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let JsonText(text) = JsonText::deserialize(deserializer)?;
        if text.starts_with('{') {
            return Ok(Self(text));
        }
        // Fails at the first byte, with the library's own words.
        match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(_) => Err(D::Error::custom("invalid type: expected a map")),
            Err(error) => Err(D::Error::custom(error)),
        }
    }
}

impl JsonSchema for JsonText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Value::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Value::json_schema(generator)
    }
}

impl JsonSchema for ObjectText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Map::<String, Value>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Map::<String, Value>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_kept_as_it_was_sent() {
        let sent = "{\"a\": [1,  {}], \"b\":\"\\u0041\"}";
        let text: ObjectText = serde_json::from_str(sent).expect("an object");
        assert_eq!(text, ObjectText(sent.to_owned()));
    }

    #[test]
    fn what_is_no_object_is_named() {
        for (sent, kind) in [
            ("[{}]", "sequence"),
            ("\"a\"", "string \"a\""),
            ("1", "integer `1`"),
            ("true", "boolean `true`"),
        ] {
            let error = serde_json::from_str::<ObjectText>(sent).expect_err("no object");
            let expected = format!("invalid type: {kind}, expected a map");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }
}
