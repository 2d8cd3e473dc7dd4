//! Checks JSON schemas before compilation: their size and their keywords.

use serde_json::{Map, Value, json};

use super::closed_objects::close_objects;
use super::compiler::GrammarError;
use super::normalized_schema::normalize;
use super::schema_graph::SchemaGraph;
use super::schema_values::check_values;
use crate::text::json_size::JsonSize;

/// Maximum number of objects, arrays, strings and numbers in a schema, all together.
const MAX_VALUES: usize = 20_000;
const MAX_DEPTH: usize = 64;
const MAX_BYTES: usize = 512 << 10;

/// The keyword in which the library takes its options. Clients may not use it.
const OPTIONS: &str = "x-guidance";

/// White space between JSON tokens: a space, or a line break and an indent. More would let a model
/// that has lost its way generate white space forever.
const WHITE_SPACE: &str = r"( |\n {0,32})";

/// Keywords that restrict a document and that masks cannot enforce. Unknown keywords are only
/// annotations, according to the specification.
const NOT_FOLLOWED: &[&str] = &[
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "contentSchema",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    OPTIONS,
];

/// Keywords whose values are maps from names to schemas.
const NAMED_SCHEMAS: &[&str] = &["$defs", "definitions", "patternProperties", "properties"];
/// Keywords whose values are a schema or a list of schemas.
const SCHEMAS: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "items",
    "oneOf",
    "prefixItems",
];

/// Checks the text of a schema without compiling it.
///
/// # Errors
/// The path, and the unsupported keyword or the exceeded limit.
pub fn check_schema(schema: &str) -> Result<(), GrammarError> {
    check_schema_size(schema)?;
    let mut schema = parse(schema)?;
    check_keywords(&schema, "")?;
    SchemaGraph::new(&schema).check()?;
    normalize(&mut schema)
}

/// Checks that the text of a schema may be deserialized.
///
/// # Errors
/// The exceeded limit.
pub fn check_schema_size(schema: &str) -> Result<(), GrammarError> {
    let num_bytes = schema.len();
    if num_bytes > MAX_BYTES {
        return Err(GrammarError::new(format!(
            "the schema has {num_bytes} bytes; at most {MAX_BYTES} are taken"
        )));
    }
    let JsonSize { num_values, depth } = JsonSize::of(schema);
    if num_values > MAX_VALUES {
        return Err(GrammarError::new(format!(
            "the schema has more than {MAX_VALUES} values"
        )));
    }
    if depth > MAX_DEPTH {
        return Err(GrammarError::new(format!(
            "the schema is nested more than {MAX_DEPTH} deep"
        )));
    }
    Ok(())
}

fn parse(schema: &str) -> Result<Value, GrammarError> {
    let parsed = serde_json::from_str(schema);
    parsed.map_err(|error| GrammarError::new(format!("the schema is not JSON: {error}")))
}

/// Whether and how the value of a keyword contains schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Schemas under names that the client chose.
    Named,
    /// A schema, or a list of schemas.
    Schemas,
    /// No schemas.
    Nothing,
}

/// Returns how a keyword's value contains schemas.
pub(super) fn holds(keyword: &str) -> Holds {
    if NAMED_SCHEMAS.contains(&keyword) {
        Holds::Named
    } else if SCHEMAS.contains(&keyword) {
        Holds::Schemas
    } else {
        Holds::Nothing
    }
}

fn check_keywords(schema: &Value, path: &str) -> Result<(), GrammarError> {
    let keywords = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(keywords) => keywords,
        _ => {
            let message = "a schema must be an object, true or false".to_owned();
            return Err(GrammarError::new(message).at(path));
        }
    };
    check_values(keywords).map_err(|message| GrammarError::new(message).at(path))?;
    for (keyword, value) in keywords {
        let name = keyword.as_str();
        if NOT_FOLLOWED.contains(&name) {
            let message = format!("the keyword '{name}' is not supported");
            return Err(GrammarError::new(message).at(path));
        }
        let inner = format!("{path}.{name}");
        match value {
            Value::Object(schemas) if NAMED_SCHEMAS.contains(&name) => {
                each(schemas, |name, schema| {
                    check_keywords(schema, &format!("{inner}.{name}"))
                })?;
            }
            _ if NAMED_SCHEMAS.contains(&name) => {
                let message = format!("the value of '{name}' must be an object");
                return Err(GrammarError::new(message).at(path));
            }
            Value::Array(schemas) if SCHEMAS.contains(&name) => {
                let schemas = schemas.iter().enumerate();
                for (place, schema) in schemas {
                    check_keywords(schema, &format!("{inner}[{place}]"))?;
                }
            }
            schema if SCHEMAS.contains(&name) => check_keywords(schema, &inner)?,
            _ => {}
        }
    }
    Ok(())
}

fn each(
    schemas: &Map<String, Value>,
    check: impl Fn(&str, &Value) -> Result<(), GrammarError>,
) -> Result<(), GrammarError> {
    schemas
        .iter()
        .try_for_each(|(name, schema)| check(name, schema))
}

/// Returns a schema with closed objects and our white space rule, in the library's format, for use alone or in Lark's
/// `%json`.
///
/// # Errors
/// If the schema is not JSON, and the path and the unsupported combination of keywords.
pub fn json_grammar(schema: &str) -> Result<Value, GrammarError> {
    let mut schema = parse(schema)?;
    normalize(&mut schema)?;
    close_objects(&mut schema);
    let mut schema = match schema {
        Value::Object(keywords) => keywords,
        // `true` and `false` cannot contain options.
        other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    let options = json!({"whitespace_pattern": WHITE_SPACE});
    schema.insert(OPTIONS.to_owned(), options);
    Ok(Value::Object(schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_that_masks_cannot_follow_are_named_with_their_place() {
        for (schema, place, keyword) in [
            (json!({"not": {}}), "", "'not'"),
            (
                json!({"properties": {"a": {"uniqueItems": true}}}),
                ".properties.a",
                "'uniqueItems'",
            ),
            (
                json!({"properties": {"a": {"maximum": "5"}}}),
                ".properties.a",
                "'maximum'",
            ),
            (
                json!({"anyOf": [{}, {"items": {"if": {}}}]}),
                ".anyOf[1].items",
                "'if'",
            ),
            (
                json!({"$defs": {"x": {"uniqueItems": true}}}),
                ".$defs.x",
                "'uniqueItems'",
            ),
            (json!({"x-guidance": {"lenient": true}}), "", "'x-guidance'"),
            (json!({"properties": []}), "", "'properties'"),
            (json!({"items": 5}), ".items", "a schema"),
        ] {
            let error = check_schema(&schema.to_string()).expect_err("it cannot be followed");
            assert_eq!(error.path, place, "{schema}");
            assert!(error.message.contains(keyword), "{}", error.message);
        }
        // Names of properties, and values, are not keywords.
        let harmless = json!({
            "properties": {"not": {"type": "string"}},
            "const": {"if": 5},
            "deprecated": true,
        });
        assert!(check_schema(&harmless.to_string()).is_ok());
    }

    #[test]
    fn a_schema_has_a_size() {
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({"items": [deep]});
        }
        let wide = json!({"enum": (0..20_000).collect::<Vec<_>>()});
        let long = json!({"description": "x".repeat(MAX_BYTES)});
        for schema in [deep, wide, long] {
            assert!(check_schema(&schema.to_string()).is_err());
        }
    }
}
