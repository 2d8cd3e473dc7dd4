//! Known request fields that are not supported: OpenAI's, vLLM's, and those of other servers that
//! change what is generated.
//!
//! A client that sends one relies on it, so the request is rejected with an error that names the
//! field, unless the value has no effect: null, or a neutral value of the endpoint's table. Unknown fields are
//! ignored.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::ApiError;

/// Maximum length of a neutral value. A longer value is not even parsed.
const MAX_NEUTRAL: usize = 64;

/// A field that is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusedField {
    /// Name of the field in the body.
    pub(crate) name: &'static str,
    /// Neutral values, as JSON. Null is always neutral.
    pub(crate) neutral: &'static [&'static str],
    /// What to use instead; empty if there is nothing.
    pub(crate) instead: &'static str,
}

pub(crate) const fn field(
    name: &'static str,
    neutral: &'static [&'static str],
    instead: &'static str,
) -> RefusedField {
    RefusedField {
        name,
        neutral,
        instead,
    }
}

/// Rejects a body that sets any field of `tables` to a value that is not neutral.
///
/// # Errors
/// 400 that names the first such field; 400 if the body is not an object.
pub(crate) fn refuse(body: &str, tables: &[&'static [RefusedField]]) -> Result<(), ApiError> {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    let found = deserializer.deserialize_map(FirstRefused { tables });
    match found {
        Ok(None) => Ok(()),
        Ok(Some(field)) => Err(field.error()),
        Err(error) => Err(ApiError::invalid_json(
            None,
            format!("The body is not valid JSON: {error}."),
        )),
    }
}

impl RefusedField {
    fn error(self) -> ApiError {
        let mut message = format!(
            "The parameter '{}' is not supported by this server. Leave it out",
            self.name
        );
        if let [first, ..] = self.neutral {
            message.push_str(&format!(" or send its neutral value, {first}"));
        }
        message.push('.');
        if !self.instead.is_empty() {
            message.push(' ');
            message.push_str(self.instead);
        }
        ApiError::unsupported(self.name, message)
    }

    fn is_neutral(self, raw: &RawValue) -> bool {
        let raw = raw.get();
        if raw == "null" {
            return true;
        }
        if raw.len() > MAX_NEUTRAL {
            return false;
        }
        let Ok(value) = serde_json::from_str::<Value>(raw) else {
            return false;
        };
        self.neutral.iter().any(|neutral| {
            let neutral = serde_json::from_str(neutral).expect("the table holds JSON");
            same(&value, &neutral)
        })
    }
}

/// Compares two values, where 0, 0.0 and −0.0 are equal.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// Finds the first field of an object that is in `tables` and not neutral.
struct FirstRefused<'t> {
    tables: &'t [&'static [RefusedField]],
}

impl<'de> Visitor<'de> for FirstRefused<'_> {
    type Value = Option<RefusedField>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut first = None;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let all = self.tables.iter().copied().flatten();
            let refused = all.copied().find(|field| field.name == name);
            match refused {
                Some(field) if first.is_none() => {
                    let value: &RawValue = map.next_value()?;
                    first = (!field.is_neutral(value)).then_some(field);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_refused_unread() {
        let spaces = " ".repeat(100);
        const DOCUMENTS: &[RefusedField] = &[field("documents", &["[]"], "")];
        let tables: &[&'static [RefusedField]] = &[DOCUMENTS];
        assert!(refuse(&format!("{{\"documents\": [{spaces}]}}"), tables).is_err());
        assert!(refuse("{\"documents\": [ ]}", tables).is_ok());
    }
}
