//! Rewrites what schemas may say to what the library takes.
//!
//! An unknown `format` is an annotation, according to the specification. `nullable` is OpenAPI's. And
//! the library computes ranges of integers with 64 bits, so that bounds near the ends of their range
//! overflow there; no answer needs as large integers.

use serde_json::{Map, Value, json};

use super::schema::{Holds, holds};

/// Formats that the library enforces.
const FORMATS: [&str; 10] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uri",
    "uuid",
];

/// The largest integer of 18 digits. Bounds beyond it are replaced by it.
const MOST: i64 = 999_999_999_999_999_999;

/// Rewrites `schema` and the schemas within it.
pub(super) fn normalize(schema: &mut Value) {
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    for (keyword, value) in keywords.iter_mut() {
        match (holds(keyword), value) {
            (Holds::Named, Value::Object(schemas)) => schemas.values_mut().for_each(normalize),
            (Holds::Schemas, Value::Array(schemas)) => schemas.iter_mut().for_each(normalize),
            (Holds::Schemas, schema) => normalize(schema),
            _ => {}
        }
    }
    let is_known = |format: &Value| format.as_str().is_some_and(|name| FORMATS.contains(&name));
    if keywords
        .get("format")
        .is_some_and(|format| !is_known(format))
    {
        keywords.remove("format");
    }
    bound(keywords);
    if keywords.remove("nullable") == Some(Value::Bool(true)) {
        let mut outer = Map::new();
        for definitions in ["$defs", "definitions"] {
            if let Some(schemas) = keywords.remove(definitions) {
                outer.insert(definitions.to_owned(), schemas);
            }
        }
        let value = std::mem::take(keywords);
        outer.insert("anyOf".to_owned(), json!([value, {"type": "null"}]));
        *keywords = outer;
    }
}

/// Narrows a range of integers to those of 18 digits, unless it lies beyond them.
fn bound(keywords: &mut Map<String, Value>) {
    let number =
        |keywords: &Map<String, Value>, name: &str| keywords.get(name).and_then(Value::as_f64);
    let (least, most) = (-(MOST as f64), MOST as f64);
    let is_beyond = ["minimum", "exclusiveMinimum"]
        .iter()
        .any(|name| number(keywords, name).is_some_and(|bound| bound >= most))
        || ["maximum", "exclusiveMaximum"]
            .iter()
            .any(|name| number(keywords, name).is_some_and(|bound| bound <= least));
    if is_beyond {
        return;
    }
    let of_doubles = f64::MAX / 10.0;
    for name in ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"] {
        let Some(value) = keywords.get(name) else {
            continue;
        };
        let Some(bound) = value.as_f64() else {
            continue;
        };
        if bound.abs() > of_doubles {
            // Numbers have too few digits to reach it.
            keywords.remove(name);
        } else if (value.is_i64() || value.is_u64()) && bound.abs() > most {
            let narrowed = if bound < 0.0 { -MOST } else { MOST };
            keywords.insert(name.to_owned(), json!(narrowed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(mut schema: Value) -> Value {
        normalize(&mut schema);
        schema
    }

    #[test]
    fn unknown_formats_are_annotations() {
        let schema = json!({"properties": {
            "a": {"type": "string", "format": "path"},
            "b": {"type": "string", "format": "date"},
        }});
        let expected = json!({"properties": {
            "a": {"type": "string"},
            "b": {"type": "string", "format": "date"},
        }});
        assert_eq!(normalized(schema), expected);
        // A property of this name is none.
        let property = json!({"properties": {"format": {"type": "string"}}});
        assert_eq!(normalized(property.clone()), property);
    }

    #[test]
    fn what_is_nullable_may_be_null() {
        let schema = json!({
            "$defs": {"x": {"type": "integer", "nullable": false}},
            "items": {"type": "string", "nullable": true},
            "nullable": true,
        });
        let expected = json!({
            "$defs": {"x": {"type": "integer"}},
            "anyOf": [
                {"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                {"type": "null"},
            ],
        });
        assert_eq!(normalized(schema), expected);
    }

    #[test]
    fn bounds_have_at_most_18_digits() {
        let all = json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX});
        let expected = json!({"type": "integer", "minimum": -MOST, "maximum": MOST});
        assert_eq!(normalized(all), expected);
        let doubles = json!({"type": "number", "minimum": -f64::MAX, "exclusiveMaximum": f64::MAX});
        assert_eq!(normalized(doubles), json!({"type": "number"}));
        for kept in [
            json!({"minimum": 0, "maximum": 130}),
            json!({"minimum": 5_000_000_000_000_000_000_i64}),
            json!({"minimum": -1e20, "maximum": 1.5}),
        ] {
            assert_eq!(normalized(kept.clone()), kept);
        }
    }
}
