//! Parses JSON without duplicate keys and with a limited number of values.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::shown;

/// Values in one file. A value takes up to 16 times the memory of its text, so that this, and not
/// the file's size alone, bounds what reading it takes. Gemma's tokenizer_config.json has 50,000.
const MAX_VALUES: usize = 1 << 20;
/// Values in a part of a larger file that is expected to be short.
const MAX_SHORT_VALUES: usize = 10_000;

pub(super) fn parse(text: &[u8]) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut left = MAX_VALUES;
    let value = Once { left: &mut left }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// A short part of a larger file.
#[derive(Debug, Default)]
pub struct ShortJson(pub Value);

impl<'de> Deserialize<'de> for ShortJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut left = MAX_SHORT_VALUES;
        Once { left: &mut left }.deserialize(deserializer).map(Self)
    }
}

/// Reads a value; `left` is how many more there may be.
struct Once<'a> {
    left: &'a mut usize,
}

impl Once<'_> {
    fn again(&mut self) -> Once<'_> {
        Once { left: self.left }
    }
}

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.left.checked_sub(1) {
            Some(left) => *self.left = left,
            None => return Err(de::Error::custom("there are too many values")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.again())? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if object.contains_key(&name) {
                let name = shown(&name);
                return Err(de::Error::custom(format_args!("\"{name}\" is there twice")));
            }
            let value = fields.next_value_seed(self.again())?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn whole_json_is_as_serde_json_reads_it() {
        let text = r#"{"a": [1, -2, 2.5e3, 18446744073709551615, "x\u00e9", null, true, {}], "b": {"a": ""}}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_field_that_is_there_twice_is_named() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"[{"b": {"a": 1, "c": 2, "\u0061": 3}}]"#,
        ] {
            let error = error(text);
            assert!(error.contains("\"a\" is there twice at line 1"), "{error}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for (text, expected) in [
            ("", "EOF"),
            ("{} {}", "trailing"),
            ("NaN", "expected value"),
            ("1e999", "out of range"),
            (&"[".repeat(100_000), "recursion limit"),
            (&"{\"a\":".repeat(100_000), "recursion limit"),
        ] {
            let error = error(text);
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn too_many_values_are_refused() {
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(error(&many).contains("too many values"));
        let few = format!("[{}0]", "0,".repeat(MAX_SHORT_VALUES / 2));
        assert!(serde_json::from_str::<ShortJson>(&few).is_ok());
        let many = format!("[{}0]", "0,".repeat(MAX_SHORT_VALUES));
        let error = serde_json::from_str::<ShortJson>(&many).unwrap_err();
        assert!(error.to_string().contains("too many values"), "{error}");
    }
}
