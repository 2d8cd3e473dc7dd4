//! Keywords of JSON schemas that are rewritten or followed by our own rules: whatever is sampled keeps
//! to them, however many tokens there are.

use std::collections::BTreeSet;
use std::fmt;

use medgemma::text::GrammarSource;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::grammar::{compiler, wander_within};

/// A schema, and what its documents have in common.
type Case = (Value, fn(&Value) -> bool);

/// Reads a document in which an object has a name twice as an error.
struct Names;

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Names, E> {
        Ok(Names)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Names, E> {
        Ok(Names)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Names, E> {
        Ok(Names)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Names, E> {
        Ok(Names)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Names, E> {
        Ok(Names)
    }

    fn visit_str<E>(self, _: &str) -> Result<Names, E> {
        Ok(Names)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
        while seq.next_element::<Names>()?.is_some() {}
        Ok(Names)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, _)) = map.next_entry::<String, Names>()? {
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!("{name} comes twice")));
            }
        }
        Ok(Names)
    }
}

fn names(document: &Value) -> Vec<&str> {
    let object = document.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

fn all_different(document: &Value) -> bool {
    let items = document.as_array().expect("an array");
    (0..items.len()).all(|idx| !items[..idx].contains(&items[idx]))
}

fn cases() -> Vec<Case> {
    vec![
        (
            json!({"type": "object", "propertyNames": {"enum": ["a", "b", "c"]},
                "additionalProperties": {"type": "boolean"}}),
            |document| {
                let values = document.as_object().expect("an object").values();
                names(document)
                    .iter()
                    .all(|name| ["a", "b", "c"].contains(name))
                    && values.into_iter().all(Value::is_boolean)
            },
        ),
        (
            json!({
                "$defs": {"Side": {"enum": ["left", "right"], "title": "Side", "type": "string"}},
                "properties": {"sizes": {
                    "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 99},
                    "propertyNames": {"$ref": "#/$defs/Side"}, "type": "object",
                }},
                "required": ["sizes"], "type": "object",
            }),
            |document| {
                let sizes = &document["sizes"];
                names(sizes)
                    .iter()
                    .all(|name| ["left", "right"].contains(name))
                    && names(document) == ["sizes"]
            },
        ),
        (
            json!({"type": "object", "propertyNames": {"pattern": "^x[0-9]+$"},
                "additionalProperties": {"type": "null"}, "minProperties": 2}),
            |document| {
                let names = names(document);
                let is_x = |name: &&str| {
                    let digits = name.strip_prefix('x').unwrap_or_default();
                    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
                };
                names.len() >= 2 && names.iter().all(is_x)
            },
        ),
        (
            json!({"type": "object", "propertyNames": {"minLength": 1, "maxLength": 2},
                "additionalProperties": {"type": "null"}}),
            |document| {
                let lengths = names(document).into_iter().map(|name| name.chars().count());
                lengths.into_iter().all(|length| (1..=2).contains(&length))
            },
        ),
        (
            json!({"type": "object",
                "properties": {"payment": {"type": "boolean"}, "address": {"type": "null"}},
                "dependentRequired": {"payment": ["address", "zip"]}}),
            |document| {
                let has = |name: &str| document.get(name).is_some();
                !has("payment") || has("address") && has("zip")
            },
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
                "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
                "dependencies": {"a": ["b"], "b": ["a"]}, "additionalProperties": false}),
            |document| document.get("a").is_some() == document.get("b").is_some(),
        ),
        (
            json!({"type": "object", "properties": {"score": {"type": "integer", "multipleOf": 5}},
                "required": ["score"], "additionalProperties": false,
                "patternProperties": {"^score$": {"type": "integer"}}}),
            |document| {
                let score = &document["score"];
                // Too large for an integer of Rust's, but not for the schema.
                score.is_f64() || score.as_i64().is_none_or(|score| score % 5 == 0)
            },
        ),
        (
            json!({"type": "object", "patternProperties": {"^[ab]$": {"type": "boolean"}},
                "additionalProperties": false, "minProperties": 0}),
            |document| names(document).iter().all(|name| ["a", "b"].contains(name)),
        ),
        (
            json!({"type": "array", "items": {"enum": ["left", "l", 3, null]}, "uniqueItems": true}),
            all_different,
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
                "items": {"type": "string", "enum": ["a", "b", "c"]}, "uniqueItems": true,
                "minItems": 2}),
            |document| {
                all_different(document) && document.as_array().is_some_and(|all| all.len() >= 2)
            },
        ),
        (
            json!({"type": "array", "items": {"type": "boolean"}, "uniqueItems": true}),
            all_different,
        ),
        (
            json!({"type": "array", "items": {"enum": [1, 2, 3, 4, 5, 6, 7, 8]}, "uniqueItems": true,
                "maxItems": 2}),
            all_different,
        ),
        // Names beside those of the schema.
        (
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
                "additionalProperties": {"type": "null"}}),
            |document| document["a"].is_number(),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "boolean"}},
                "additionalProperties": true}),
            |document| document.get("a").is_none_or(Value::is_boolean),
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 4}),
            |document| names(document).len() >= 4,
        ),
        (json!({"type": "object"}), Value::is_object),
        (
            json!({"type": "array", "items": {"type": "object",
                "patternProperties": {"^[xy]": {"type": "null"}}, "additionalProperties": false}}),
            Value::is_array,
        ),
        (
            json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
            |document| document.is_i64(),
        ),
        (
            json!({"type": "integer", "exclusiveMinimum": -5, "maximum": u64::MAX}),
            |document| document.as_i64().is_some_and(|number| number > -5),
        ),
        (
            json!({"type": "number", "minimum": -f64::MAX, "maximum": f64::MAX}),
            Value::is_number,
        ),
        (
            json!({"type": "number", "minimum": -1e30, "exclusiveMaximum": 1e300}),
            Value::is_number,
        ),
        (
            json!({"type": "number", "exclusiveMinimum": 1e-300, "maximum": 1e19}),
            |document| {
                document
                    .as_f64()
                    .is_some_and(|number| number > 0.0 && number <= 1e19)
            },
        ),
        (
            json!({"type": "integer", "minimum": -1e30, "maximum": 9_007_199_254_740_991_i64}),
            |document| {
                document
                    .as_i64()
                    .is_some_and(|number| number <= 9_007_199_254_740_991)
            },
        ),
        (
            json!({"type": "string", "nullable": true, "format": "path", "maxLength": 3}),
            |document| document.is_null() || document.is_string(),
        ),
    ]
}

#[test]
fn whatever_is_sampled_keeps_to_keywords_that_are_rewritten() {
    let (tokenizer, compiler) = compiler();
    for (schema, holds) in cases() {
        let source = GrammarSource::JsonSchema(schema.to_string());
        let grammar = compiler.compile(&source);
        let grammar = grammar.unwrap_or_else(|error| panic!("{schema}: {error:?}"));
        let least = grammar.least_tokens();
        for max_tokens in [least + 1, least + 20, least + 100, 400] {
            for seed in 0..40 {
                let (text, has_ended) = wander_within(&*grammar, &tokenizer, seed, max_tokens);
                assert!(has_ended, "{schema}: {text}");
                let document: Value = serde_json::from_str(&text)
                    .unwrap_or_else(|error| panic!("{schema}: {error} in {text}"));
                assert!(holds(&document), "{schema}: {text}");
                let names = serde_json::from_str::<Names>(&text);
                assert!(names.is_ok(), "{schema}: {:?} in {text}", names.err());
            }
        }
    }
}

/// At its most digits, a number ends as soon as the schema lets it.
#[test]
fn numbers_that_must_go_on_end_soon() {
    let (tokenizer, compiler) = compiler();
    for (divisor, most) in [(5, 21), (25, 22), (7, 22)] {
        let schema = json!({"type": "integer", "multipleOf": divisor});
        let grammar = compiler.compile(&GrammarSource::JsonSchema(schema.to_string()));
        let grammar = grammar.expect("sound");
        for seed in 0..60 {
            let (text, has_ended) = wander_within(&*grammar, &tokenizer, seed, 400);
            let digits = text.trim().trim_start_matches('-');
            assert!(has_ended && digits.len() <= most, "{divisor}: {text}");
        }
    }
}

#[test]
fn no_name_comes_twice_in_any_object() {
    let (tokenizer, compiler) = compiler();
    let grammar = compiler.compile(&GrammarSource::JsonObject).expect("sound");
    for seed in 0..150 {
        let (text, _) = wander_within(&*grammar, &tokenizer, seed, 300);
        let names = serde_json::from_str::<Names>(&text);
        assert!(names.is_ok(), "{:?} in {text}", names.err());
    }
}

/// Schemas that cannot be followed: the error has the place, and says so in the schema's terms.
#[test]
fn faults_are_told_in_the_schemas_own_terms() {
    let (_, compiler) = compiler();
    for (schema, path, words) in [
        (
            json!({"properties": {"a": {"type": "string", "pattern": "(?=x)"}}, "required": ["a"]}),
            ".properties.a",
            "'pattern'",
        ),
        (
            json!({"properties": {"a": {"type": "string", "pattern": "("}}, "required": ["a"]}),
            ".properties.a",
            "'pattern'",
        ),
        (
            json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 5, "maximum": 4}},
                "required": ["n"]}),
            ".properties.n",
            "no value",
        ),
        (
            json!({"items": {"type": "integer", "minimum": 5_000_000_000_000_000_000_i64}}),
            ".items",
            "18 digits",
        ),
        (
            json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
            "",
            "'anyOf'",
        ),
        (
            json!({"properties": {"a": {"$ref": "#/$defs/b"}}, "required": ["a"]}),
            ".properties.a",
            "'$ref'",
        ),
        (
            json!({"items": {"properties": {"a": {"type": "null"}}, "minProperties": 1,
                "maxProperties": 5, "additionalProperties": true}, "minItems": 1}),
            ".items",
            "'minProperties'",
        ),
        (
            json!({"type": "array", "items": {"type": "string", "enum": [1, 2]}, "minItems": 1}),
            ".items",
            "no value",
        ),
        (
            json!({"properties": {"tags": {"type": "array", "items": {"type": "string"},
                "uniqueItems": true}}}),
            ".properties.tags",
            "'uniqueItems'",
        ),
        (
            json!({"anyOf": [{"type": "object", "propertyNames": {"format": "date"}}]}),
            ".anyOf[0]",
            "'propertyNames'",
        ),
        (
            json!({"properties": {"a": {"minimum": "5"}}}),
            ".properties.a",
            "'minimum' must be a number",
        ),
    ] {
        let source = GrammarSource::JsonSchema(schema.to_string());
        let Err(error) = compiler.compile(&source) else {
            panic!("{schema} is followed");
        };
        assert_eq!(error.path, path, "{schema}: {error:?}");
        assert!(error.message.contains(words), "{schema}: {error:?}");
        for theirs in [
            "llguidance",
            "lexeme",
            "start:",
            "Unsat",
            "Failed to",
            "regex",
        ] {
            assert!(!error.message.contains(theirs), "{schema}: {error:?}");
        }
    }
}
