//! Checks the values of a schema's keywords, so that what is wrong is told at its place.

use serde_json::{Map, Value};

/// The names of types.
const TYPES: [&str; 7] = [
    "array", "boolean", "integer", "null", "number", "object", "string",
];

/// Maximum number of characters of a value in an error.
const MAX_SHOWN: usize = 40;

/// Checks the values of `keywords` that are no schemas.
///
/// # Errors
/// What is wrong, in a sentence without its end.
pub(super) fn check_values(keywords: &Map<String, Value>) -> Result<(), String> {
    for (name, value) in keywords {
        let (is_sound, expected) = match name.as_str() {
            "type" => (is_type(value), "a type's name, or a list of them"),
            "enum" => (value.is_array(), "an array"),
            "required" => (is_names(value), "an array of strings"),
            "dependentRequired" => (
                value
                    .as_object()
                    .is_some_and(|names| names.values().all(is_names)),
                "an object of arrays of strings",
            ),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                (value.is_number(), "a number")
            }
            "multipleOf" => (
                value.as_f64().is_some_and(|number| number > 0.0),
                "a number above 0",
            ),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" => (is_count(value), "an integer of at least 0"),
            "pattern" | "format" | "$ref" | "$anchor" | "$id" => (value.is_string(), "a string"),
            "uniqueItems" | "nullable" => (value.is_boolean(), "true or false"),
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => (
                value.as_array().is_some_and(|schemas| !schemas.is_empty()),
                "an array of at least one schema",
            ),
            _ => continue,
        };
        if !is_sound {
            let got: String = value.to_string().chars().take(MAX_SHOWN).collect();
            return Err(format!(
                "the value of '{name}' must be {expected}, got {got}"
            ));
        }
    }
    Ok(())
}

fn is_type(value: &Value) -> bool {
    let is_name = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    match value {
        Value::Array(names) => !names.is_empty() && names.iter().all(is_name),
        name => is_name(name),
    }
}

fn is_names(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|names| names.iter().all(Value::is_string))
}

fn is_count(value: &Value) -> bool {
    // 2.0 is an integer too.
    value
        .as_f64()
        .is_some_and(|count| count >= 0.0 && count.fract() == 0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_value_is_named_with_what_it_must_be() {
        let check = |schema: Value| check_values(schema.as_object().expect("an object"));
        for sound in [
            json!({"type": ["string", "null"], "minLength": 2.0, "pattern": "a"}),
            json!({"enum": [], "const": 5, "x": [], "title": 7}),
            json!({"dependentRequired": {"a": ["b"]}, "multipleOf": 0.5}),
        ] {
            assert_eq!(check(sound), Ok(()));
        }
        for (schema, told) in [
            (json!({"type": "float"}), "'type' must be a type's name"),
            (json!({"type": []}), "'type'"),
            (json!({"minimum": "3"}), "'minimum' must be a number"),
            (json!({"maxItems": -1}), "'maxItems' must be an integer"),
            (json!({"maxItems": 1.5}), "'maxItems'"),
            (
                json!({"multipleOf": 0}),
                "'multipleOf' must be a number above 0",
            ),
            (
                json!({"required": "a"}),
                "'required' must be an array of strings",
            ),
            (json!({"enum": "a"}), "'enum' must be an array"),
            (json!({"anyOf": []}), "'anyOf'"),
            (
                json!({"uniqueItems": "yes"}),
                "'uniqueItems' must be true or false",
            ),
            (
                json!({"dependentRequired": {"a": "b"}}),
                "'dependentRequired'",
            ),
        ] {
            let error = check(schema.clone()).expect_err("it is wrong");
            assert!(error.contains(told), "{schema}: {error}");
        }
    }
}
