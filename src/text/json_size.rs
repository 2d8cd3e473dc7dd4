//! The size of a JSON text, counted before anything is deserialized.
//!
//! A deserialized value takes up to hundreds of bytes where its text has two, so a text of a client
//! is only deserialized where this size is limited.

use memchr::memchr2;

/// Counts of a JSON text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JsonSize {
    /// Number of objects, arrays, strings, numbers and other scalars, without names.
    pub num_values: usize,
    /// Nesting of the deepest value: 0 for a scalar, 1 for an element of an array.
    pub depth: usize,
}

impl JsonSize {
    /// Counts the values of `json`. For a text that is not JSON, the counts mean nothing.
    pub(super) fn of(json: &str) -> Self {
        let mut size = Self {
            num_values: 1,
            depth: 0,
        };
        let mut rest = json.as_bytes();
        // Number of open containers, and whether the last byte opened one.
        let (mut nesting, mut is_opened) = (0_usize, false);
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte.is_ascii_whitespace() {
                continue;
            }
            let is_closing = matches!(byte, b']' | b'}');
            if is_opened && !is_closing {
                size.num_values += 1;
                size.depth = size.depth.max(nesting);
            }
            is_opened = matches!(byte, b'[' | b'{');
            match byte {
                b'"' => rest = after_string(rest),
                b',' => size.num_values += 1,
                b'[' | b'{' => nesting += 1,
                _ if is_closing => nesting = nesting.saturating_sub(1),
                _ => {}
            }
        }
        size
    }
}

/// Returns what follows the string whose first quotation mark precedes `bytes`.
fn after_string(mut bytes: &[u8]) -> &[u8] {
    while let Some(end) = memchr2(b'"', b'\\', bytes) {
        let is_end = bytes[end] == b'"';
        bytes = bytes
            .get(end + 1 + usize::from(!is_end)..)
            .unwrap_or_default();
        if is_end {
            return bytes;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Counts a value that is deserialized already.
    fn counted(value: &Value) -> JsonSize {
        let inner: Vec<JsonSize> = match value {
            Value::Array(values) => values.iter().map(counted).collect(),
            Value::Object(values) => values.values().map(counted).collect(),
            _ => Vec::new(),
        };
        JsonSize {
            num_values: 1 + inner.iter().map(|size| size.num_values).sum::<usize>(),
            depth: inner.iter().map(|size| size.depth + 1).max().unwrap_or(0),
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            r#"[a-z"\\\[{,:}\] é]{0,6}"#.prop_map(Value::from),
        ];
        scalar.prop_recursive(6, 60, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(r#"[a-z"\\{,]{0,3}"#, inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_text_is_counted_as_what_it_stands_for(value in any_json()) {
            let expected = counted(&value);
            prop_assert_eq!(JsonSize::of(&value.to_string()), expected);
            let indented = serde_json::to_string_pretty(&value).expect("JSON");
            prop_assert_eq!(JsonSize::of(&indented), expected);
        }
    }

    #[test]
    fn a_text_that_is_not_json_has_a_size_too() {
        for text in ["", "]]]", "\"", "\"\\", "[[[", "{\"a\"", "[1,,,2"] {
            assert!(JsonSize::of(text).num_values > 0, "{text}");
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(JsonSize::of(&deep).num_values, 1_000_000);
        assert_eq!(JsonSize::of(&json!([[], [1]]).to_string()).depth, 2);
    }
}
