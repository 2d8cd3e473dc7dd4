//! Rewrites what schemas may say to what the library takes.
//!
//! An unknown `format` is an annotation, according to the specification. `nullable` is OpenAPI's. Other
//! modules rewrite `uniqueItems` and keywords of objects. And the library computes ranges of integers with 64 bits, so that bounds near the ends of their range
//! overflow there; no answer needs as large integers.

use serde_json::{Map, Value, json};

use super::compiler::GrammarError;
use super::schema::{Holds, holds};
use super::{object_keywords, unique_items};

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
/// Bounds that are nearer to 0 are replaced by it, or by 0: the library writes out all of their digits.
const LEAST: f64 = 1e-15;

/// Maximum number of values of a schema that keywords were rewritten in, which may repeat parts of it.
const MAX_VALUES: usize = 20_000;

/// Rewrites `schema` and the schemas within it.
///
/// # Errors
/// The path, and what is not supported there.
pub(super) fn normalize(schema: &mut Value) -> Result<(), GrammarError> {
    let root = schema.clone();
    normalize_at(schema, &root, "")
}

fn normalize_at(schema: &mut Value, root: &Value, path: &str) -> Result<(), GrammarError> {
    let Some(keywords) = schema.as_object_mut() else {
        return Ok(());
    };
    for (keyword, value) in keywords.iter_mut() {
        let path = format!("{path}.{keyword}");
        match (holds(keyword), value) {
            (Holds::Named, Value::Object(schemas)) => {
                for (name, schema) in schemas {
                    normalize_at(schema, root, &format!("{path}.{name}"))?;
                }
            }
            (Holds::Schemas, Value::Array(schemas)) => {
                for (idx, schema) in schemas.iter_mut().enumerate() {
                    normalize_at(schema, root, &format!("{path}[{idx}]"))?;
                }
            }
            (Holds::Schemas, schema) => normalize_at(schema, root, &path)?,
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
    let is_nullable = keywords.remove("nullable") == Some(Value::Bool(true));
    unique_items::rewrite(keywords, root)
        .and_then(|()| object_keywords::rewrite(keywords, root))
        .map_err(|message| GrammarError::new(message).at(path))?;
    if is_nullable {
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
    if keywords.values().map(num_values).sum::<usize>() > MAX_VALUES {
        let message = "'uniqueItems' and 'dependentRequired' make it too large: use fewer of them \
                       within one another";
        return Err(GrammarError::new(message.to_owned()).at(path));
    }
    Ok(())
}

fn num_values(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(num_values).sum::<usize>(),
        Value::Object(values) => 1 + values.values().map(num_values).sum::<usize>(),
        _ => 1,
    }
}

/// Narrows a range of numbers to those of 18 digits before the point and 15 behind it, unless it lies
/// beyond the former.
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
        let Some(bound) = number(keywords, name) else {
            continue;
        };
        let is_lower = name.ends_with("inimum");
        let narrowed = if bound.abs() > of_doubles {
            // Numbers have too few digits to reach it.
            keywords.remove(name);
            continue;
        } else if bound.abs() > most {
            json!(if bound < 0.0 { -MOST } else { MOST })
        } else if bound != 0.0 && bound.abs() < LEAST {
            match (is_lower, bound > 0.0) {
                (true, true) => json!(LEAST),
                (false, false) => json!(-LEAST),
                (true, false) | (false, true) => json!(0),
            }
        } else {
            continue;
        };
        keywords.insert(name.to_owned(), narrowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(mut schema: Value) -> Value {
        normalize(&mut schema).expect("it is supported");
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
    fn what_is_not_supported_is_told_with_its_place() {
        let error = |mut schema: Value| normalize(&mut schema).expect_err("it is not supported");
        let unique = json!({"properties": {"tags": {"items": {}, "uniqueItems": true}}});
        let unique = error(json!({"anyOf": [{}, unique]}));
        assert_eq!(unique.path, ".anyOf[1].properties.tags");
        // Each level has 32 times the values of the one within it.
        let mut nested = json!({"type": "string"});
        for _ in 0..6 {
            let demands: Map<String, Value> =
                (0..5).map(|n| (format!("a{n}"), json!(["b"]))).collect();
            nested = json!({"properties": {"b": nested}, "dependentRequired": demands});
        }
        assert!(error(nested).message.contains("too large"));
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
        let far = json!({"minimum": -1e30, "exclusiveMaximum": 1e300});
        let narrowed = json!({"minimum": -MOST, "exclusiveMaximum": MOST});
        assert_eq!(normalized(far), narrowed);
        let near = json!({"minimum": 1e-300, "maximum": 1});
        assert_eq!(normalized(near), json!({"minimum": LEAST, "maximum": 1}));
        let near = json!({"minimum": -1e-300, "exclusiveMaximum": 1e-20});
        assert_eq!(
            normalized(near),
            json!({"minimum": 0, "exclusiveMaximum": 0})
        );
        for kept in [
            json!({"minimum": 0, "maximum": 130}),
            json!({"minimum": 5_000_000_000_000_000_000_i64}),
            json!({"minimum": -1e10, "maximum": 1.5}),
        ] {
            assert_eq!(normalized(kept.clone()), kept);
        }
    }
}
