//! How much longer one token can make the shortest document that begins like an answer.
//!
//! The end of an answer is planned before its tokens run out, so it must be known what a token may
//! still open: an optional property, one more element, the longer of two alternatives. Lengths are
//! in bytes of JSON without white space, and estimates: a schema may say more than is read here.

use serde_json::{Map, Value};

/// Length of what a schema does not describe, such as `{"a":0}`.
const ANYTHING: usize = 8;
/// Bound on all lengths; also the length of what never ends.
const MOST: usize = 4096;
/// Bound on the nesting that is followed.
const MAX_DEPTH: usize = 24;

/// Returns the length of the shortest document of `schema`, at most [`MOST`].
pub(super) fn least_bytes(schema: &Value) -> usize {
    Lengths { root: schema }.least(schema, 0)
}

/// Returns the greatest length by which one token can make the shortest document longer.
pub(super) fn growth_bytes(schema: &Value) -> usize {
    let lengths = Lengths { root: schema };
    let mut most = ANYTHING;
    lengths.visit(schema, 0, &mut most);
    most.min(MOST)
}

struct Lengths<'s> {
    root: &'s Value,
}

impl<'s> Lengths<'s> {
    fn least(&self, schema: &'s Value, depth: usize) -> usize {
        if depth > MAX_DEPTH {
            return MOST;
        }
        let Some(keywords) = schema.as_object() else {
            return 1;
        };
        let least = |schema| self.least(schema, depth + 1);
        if let Some(value) = keywords.get("const") {
            return written(value);
        }
        if let Some(values) = list(keywords, "enum") {
            return values.iter().map(written).min().unwrap_or(MOST);
        }
        let mut total: usize = list(keywords, "allOf")
            .unwrap_or_default()
            .iter()
            .map(least)
            .sum();
        if let Some(target) = self.target(keywords) {
            total += least(target);
        }
        for name in ["anyOf", "oneOf"] {
            if let Some(schemas) = list(keywords, name) {
                total += schemas.iter().map(least).min().unwrap_or(MOST);
            }
        }
        let own = match types(keywords)
            .iter()
            .map(|kind| self.own(keywords, kind, depth))
            .min()
        {
            Some(own) => own,
            None if keywords.contains_key("properties") => self.own(keywords, "object", depth),
            None => 1,
        };
        total.max(own).min(MOST)
    }

    /// Returns the length of the shortest value of one type.
    fn own(&self, keywords: &'s Map<String, Value>, kind: &str, depth: usize) -> usize {
        let number = |name: &str| keywords.get(name).and_then(Value::as_u64);
        let number = |name: &str| number(name).map_or(0, |number| number.min(MOST as u64) as usize);
        match kind {
            "null" | "boolean" => 4,
            "string" => 2 + number("minLength"),
            "array" => {
                let item = keywords
                    .get("items")
                    .map_or(1, |item| self.least(item, depth + 1));
                2 + number("minItems").saturating_mul(item + 1).min(MOST)
            }
            "object" => {
                let required = list(keywords, "required").unwrap_or_default();
                let required = required.iter().filter_map(Value::as_str);
                let property = |name: &str| {
                    let schema = keywords.get("properties").and_then(|all| all.get(name));
                    name.len() + 4 + schema.map_or(1, |schema| self.least(schema, depth + 1))
                };
                2 + required.map(property).sum::<usize>().min(MOST)
            }
            _ => 1,
        }
    }

    /// Raises `most` to the greatest growth within `schema`.
    fn visit(&self, schema: &'s Value, depth: usize, most: &mut usize) {
        let Some(keywords) = schema.as_object() else {
            return;
        };
        if depth > MAX_DEPTH || *most >= MOST {
            return;
        }
        let least = |schema| self.least(schema, depth + 1);
        if let Some(values) = list(keywords, "enum") {
            *most = (*most).max(values.iter().map(written).max().unwrap_or(0));
        }
        for name in ["anyOf", "oneOf"] {
            let longest = list(keywords, name)
                .unwrap_or_default()
                .iter()
                .map(least)
                .max();
            *most = (*most).max(longest.unwrap_or(0));
        }
        for name in ["items", "additionalProperties"] {
            if let Some(inner) = keywords.get(name) {
                *most = (*most).max(ANYTHING + least(inner));
            }
        }
        for name in ["properties", "patternProperties"] {
            for (key, inner) in keywords
                .get(name)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                *most = (*most).max(key.len() + 4 + least(inner));
            }
        }
        for inner in inner_schemas(keywords) {
            self.visit(inner, depth + 1, most);
        }
    }

    /// Returns the definition to which `$ref` points within the schema.
    fn target(&self, keywords: &Map<String, Value>) -> Option<&'s Value> {
        let pointer = keywords.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(pointer)
    }
}

fn inner_schemas(keywords: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    keywords.iter().flat_map(|(name, value)| -> Vec<&Value> {
        match (name.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(all)) => {
                all.values().collect()
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(all)) => {
                all.iter().collect()
            }
            ("items" | "additionalProperties" | "additionalItems", one) => vec![one],
            _ => Vec::new(),
        }
    })
}

fn list<'s>(keywords: &'s Map<String, Value>, name: &str) -> Option<&'s [Value]> {
    Some(keywords.get(name)?.as_array()?.as_slice())
}

fn types(keywords: &Map<String, Value>) -> Vec<&str> {
    match keywords.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn written(value: &Value) -> usize {
    value.to_string().len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shortest_document_has_what_is_required() {
        for (schema, shortest) in [
            (json!({"type": "string"}), "\"\""),
            (json!({"type": "string", "minLength": 3}), "\"abc\""),
            (json!({"enum": ["left", 3, null]}), "3"),
            (json!({"const": "é"}), "\"é\""),
            (json!({"type": ["boolean", "integer"]}), "0"),
            (json!({"type": "array", "items": {"type": "string"}}), "[]"),
            (
                json!({"properties": {"a": {"type": "null"}, "b": {}}, "required": ["a"]}),
                "{\"a\":null,}",
            ),
            (
                json!({"$defs": {"x": {"type": "boolean"}}, "anyOf": [
                    {"type": "object", "required": ["long"]}, {"$ref": "#/$defs/x"},
                ]}),
                "true",
            ),
        ] {
            assert_eq!(least_bytes(&schema), shortest.len(), "{schema}");
        }
    }

    #[test]
    fn what_never_ends_is_bounded() {
        let endless =
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]});
        assert_eq!(least_bytes(&endless), MOST);
        assert_eq!(growth_bytes(&endless), MOST);
        let ends = json!({"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]});
        assert_eq!(least_bytes(&ends), 2);
        assert!(growth_bytes(&ends) < 20);
    }

    #[test]
    fn growth_is_that_of_the_largest_optional_part() {
        let part = json!({"type": "object", "properties": {"note": {"type": "string", "minLength": 50}}, "required": ["note"]});
        for schema in [
            json!({"properties": {"part": part}}),
            json!({"type": "array", "items": part}),
            json!({"anyOf": [{"type": "null"}, part]}),
            json!({"$defs": {"p": part}, "type": "array", "items": {"$ref": "#/$defs/p"}}),
        ] {
            assert!((60..90).contains(&growth_bytes(&schema)), "{schema}");
        }
        assert_eq!(growth_bytes(&json!({"type": "integer"})), ANYTHING);
    }
}
