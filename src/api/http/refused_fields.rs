//! Known request fields that are not supported: OpenAI's, vLLM's, and those of other servers that
//! change what is generated.
//!
//! A client that sends one relies on it, so the request is rejected with an error that names the
//! field, unless the value has no effect: null, or a neutral value of the endpoint's table. Unknown
//! fields are ignored. The tables are in each endpoint's `refused.rs`; fields that are refused
//! everywhere are in `generate/refused.rs`. Run the update of `docs/fields.md` after a change.

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

impl RefusedField {
    /// Returns the error of a body that sets the field to a value with an effect.
    pub(super) fn error(self) -> ApiError {
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

    /// Whether a value asks for nothing.
    pub(super) fn is_neutral(self, raw: &RawValue) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_refused_unread() {
        let spaces = " ".repeat(100);
        let documents = field("documents", &["[]"], "");
        let is_neutral = |json: String| {
            let raw = RawValue::from_string(json).expect("JSON");
            documents.is_neutral(&raw)
        };
        assert!(!is_neutral(format!("[{spaces}]")));
        assert!(is_neutral("[ ]".to_owned()));
    }
}
