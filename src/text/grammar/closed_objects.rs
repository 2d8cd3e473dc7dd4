//! Closes objects: a document has no properties but those that its schema names, unless the schema
//! says `additionalProperties` or `patternProperties`.
//!
//! JSON Schema leaves objects open, where a model may go on with properties of its own until its
//! tokens run out. OpenAI's strict mode demands `additionalProperties: false`, and other servers
//! close objects as this module does.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};

/// Bound on the nesting of schemas that describe one object together.
const MAX_DEPTH: usize = 16;

/// Keywords whose schemas describe the same value as the schema that they are in.
const IN_PLACE: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords that say which further properties an object may have.
const OPENING: [&str; 3] = [
    "additionalProperties",
    "patternProperties",
    "unevaluatedProperties",
];

/// Adds `additionalProperties: false` wherever it follows from the module's rule. Where several
/// schemas describe one object together, it may have the properties of all of them.
pub(super) fn close_objects(schema: &mut Value) {
    let whole = schema.clone();
    let mut parts = HashSet::new();
    find_parts(&whole, true, &mut parts);
    let closer = Closer {
        root: &whole,
        parts,
    };
    closer.close(schema, "", true);
}

struct Closer<'s> {
    root: &'s Value,
    /// Pointers to definitions that describe only a part of an object. They stay open: the schema
    /// around them is closed instead.
    parts: HashSet<String>,
}

impl Closer<'_> {
    /// Closes the objects of `schema`, which is at `pointer`. `is_whole` if it describes its value
    /// alone.
    fn close(&self, schema: &mut Value, pointer: &str, is_whole: bool) {
        let Some(keywords) = schema.as_object_mut() else {
            return;
        };
        let is_whole = is_whole && !self.parts.contains(pointer);
        let are_parts = has_parts(keywords);
        for (name, value) in keywords.iter_mut() {
            let inner = format!("{pointer}/{name}");
            match (name.as_str(), value) {
                (
                    "properties" | "patternProperties" | "$defs" | "definitions",
                    Value::Object(schemas),
                ) => {
                    for (key, schema) in schemas {
                        let key = key.replace('~', "~0").replace('/', "~1");
                        self.close(schema, &format!("{inner}/{key}"), true);
                    }
                }
                ("items" | "additionalItems" | "prefixItems", Value::Array(schemas)) => {
                    for (idx, schema) in schemas.iter_mut().enumerate() {
                        self.close(schema, &format!("{inner}/{idx}"), true);
                    }
                }
                ("items" | "additionalItems" | "additionalProperties", schema) => {
                    self.close(schema, &inner, true);
                }
                (name, Value::Array(schemas)) if IN_PLACE.contains(&name) => {
                    for (idx, schema) in schemas.iter_mut().enumerate() {
                        self.close(schema, &format!("{inner}/{idx}"), is_whole && !are_parts);
                    }
                }
                _ => {}
            }
        }
        if !is_whole || !are_parts && !keywords.contains_key("properties") {
            return;
        }
        let mut names = BTreeSet::new();
        if self.named(keywords, 0, &mut names).is_none() || names.is_empty() {
            return;
        }
        let properties = keywords.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            for name in names {
                properties.entry(name).or_insert(Value::Bool(true));
            }
        }
        keywords.insert("additionalProperties".to_owned(), Value::Bool(false));
    }

    /// Collects the names of the properties that `keywords` describe or require. `None` if
    /// something says itself which further properties there may be.
    fn named(
        &self,
        keywords: &Map<String, Value>,
        depth: usize,
        names: &mut BTreeSet<String>,
    ) -> Option<()> {
        if depth > MAX_DEPTH || OPENING.iter().any(|name| keywords.contains_key(*name)) {
            return None;
        }
        if let Some(properties) = keywords.get("properties").and_then(Value::as_object) {
            names.extend(properties.keys().cloned());
        }
        if let Some(required) = keywords.get("required").and_then(Value::as_array) {
            names.extend(required.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        for schema in in_place(keywords) {
            if let Some(keywords) = schema.as_object() {
                self.named(keywords, depth + 1, names)?;
            }
        }
        if let Some(pointer) = local_pointer(keywords) {
            let target = self.root.pointer(pointer)?.as_object();
            self.named(target?, depth + 1, names)?;
        }
        Some(())
    }
}

/// Whether the schemas within these keywords describe the value only together.
fn has_parts(keywords: &Map<String, Value>) -> bool {
    const OWN: [&str; 5] = [
        "properties",
        "required",
        "minProperties",
        "maxProperties",
        "patternProperties",
    ];
    let num_applied = IN_PLACE.iter().chain(&["$ref"]);
    let num_applied = num_applied
        .filter(|name| keywords.contains_key(**name))
        .count();
    let all = keywords.get("allOf").and_then(Value::as_array);
    let has_own = OWN.iter().any(|name| keywords.contains_key(*name));
    num_applied > 1 || num_applied == 1 && has_own || all.is_some_and(|all| all.len() > 1)
}

fn in_place(keywords: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let lists = IN_PLACE
        .iter()
        .filter_map(|name| keywords.get(*name)?.as_array());
    lists.flatten()
}

/// Returns the pointer of a `$ref` within the schema.
fn local_pointer(keywords: &Map<String, Value>) -> Option<&str> {
    keywords.get("$ref")?.as_str()?.strip_prefix('#')
}

/// Collects the pointers to which parts of objects refer.
fn find_parts(schema: &Value, is_whole: bool, parts: &mut HashSet<String>) {
    let Some(keywords) = schema.as_object() else {
        if let Some(schemas) = schema.as_array() {
            for schema in schemas {
                find_parts(schema, true, parts);
            }
        }
        return;
    };
    let are_parts = has_parts(keywords);
    if let Some(pointer) = local_pointer(keywords)
        && (!is_whole || are_parts)
    {
        parts.insert(pointer.to_owned());
    }
    for (name, value) in keywords {
        match value {
            Value::Array(schemas) if IN_PLACE.contains(&name.as_str()) => {
                for schema in schemas {
                    find_parts(schema, is_whole && !are_parts, parts);
                }
            }
            inner => find_parts(inner, true, parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(mut schema: Value) -> Value {
        close_objects(&mut schema);
        schema
    }

    #[test]
    fn an_object_has_the_properties_that_it_names() {
        let point = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
        let closed_point = closed(point.clone());
        assert_eq!(closed_point["additionalProperties"], json!(false));
        let required = closed(json!({"properties": {"x": {}}, "required": ["y"]}));
        assert_eq!(required["properties"], json!({"x": {}, "y": true}));
        for (schema, place) in [
            (json!({"type": "array", "items": point}), "/items"),
            (json!({"anyOf": [{"type": "null"}, point]}), "/anyOf/1"),
            (
                json!({"allOf": [point], "description": "a point"}),
                "/allOf/0",
            ),
            (
                json!({"$defs": {"p": point}, "$ref": "#/$defs/p"}),
                "/$defs/p",
            ),
            (json!({"properties": {"a": point}}), "/properties/a"),
            (
                json!({"additionalProperties": point}),
                "/additionalProperties",
            ),
        ] {
            assert_eq!(
                closed(schema.clone()).pointer(place),
                Some(&closed_point),
                "{schema}"
            );
        }
    }

    #[test]
    fn what_says_itself_that_it_is_open_stays_so() {
        for schema in [
            json!({"type": "object"}),
            json!({"properties": {"x": {}}, "additionalProperties": true}),
            json!({"properties": {"x": {}}, "additionalProperties": {"type": "string"}}),
            json!({"properties": {"x": {}}, "patternProperties": {"^y": {}}}),
            json!({"type": "object", "minProperties": 1}),
            json!({"const": {"properties": {"x": {}}}}),
            json!(true),
        ] {
            assert_eq!(closed(schema.clone()), schema);
        }
    }

    #[test]
    fn parts_of_an_object_are_closed_together() {
        let base = json!({"properties": {"a": {}}});
        let more = json!({"properties": {"b": {}}, "required": ["b"]});
        let schema = closed(json!({
            "$defs": {"base": base},
            "allOf": [{"$ref": "#/$defs/base"}, more],
        }));
        assert_eq!(schema["properties"], json!({"a": true, "b": true}));
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["$defs"]["base"], base);
        assert_eq!(schema["allOf"][1], more);
        let beside = closed(json!({
            "properties": {"a": {"type": "string"}},
            "anyOf": [more, {"required": ["a"]}],
        }));
        assert_eq!(
            beside["properties"],
            json!({"a": {"type": "string"}, "b": true})
        );
        assert_eq!(beside["additionalProperties"], json!(false));
        assert_eq!(beside["anyOf"][0], more);
    }

    #[test]
    fn a_part_that_is_open_opens_the_whole() {
        let schema = json!({"allOf": [
            {"properties": {"a": {}}, "additionalProperties": true},
            {"properties": {"b": {}}},
        ]});
        assert_eq!(closed(schema.clone()), schema);
        let endless = json!({"properties": {"a": {}}, "allOf": [{"$ref": "#"}]});
        assert_eq!(closed(endless.clone()), endless);
    }
}
