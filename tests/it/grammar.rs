//! Grammars under sampling at random: whatever the masks allow is a document that the schema allows,
//! and every document ends. Where real clients are tried, a model samples and an independent validator
//! judges.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use medgemma::core::{CacheSalt, Constraint, TokenId, Urgency};
use medgemma::text::{
    GrammarCompiler, GrammarErrorKind, GrammarLimits, GrammarSource, GrammarVocabulary, Grammars,
    SpecialTokens, Tokenizer,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Rows of the tiny models' embeddings: more than their tokenizer has tokens.
const VOCAB_SIZE: usize = 832;
const STOP_IDS: [TokenId; 2] = [TokenId(1), TokenId(8)];

/// Far beyond what any of the documents needs.
const MOST_TOKENS: usize = 20_000;

fn tokenizer() -> Arc<Tokenizer> {
    let file =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer/tokenizer.json");
    Arc::new(Tokenizer::from_file(&file).expect("the tiny tokenizer is in the repository"))
}

pub(crate) fn compiler() -> (Arc<Tokenizer>, GrammarCompiler) {
    let tokenizer = tokenizer();
    let vocabulary = GrammarVocabulary::new(&tokenizer, VOCAB_SIZE, STOP_IDS.to_vec());
    (tokenizer, GrammarCompiler::new(vocabulary))
}

/// Samples evenly among what may come, which is harder than what any model does, until the end.
fn wander(constraint: &dyn Constraint, tokenizer: &Tokenizer, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut state = constraint.start().expect("it begins");
    let mut said = Vec::new();
    while said.len() < MOST_TOKENS {
        let last = &said[said.len().saturating_sub(1)..];
        let mask = state
            .next_mask(last, usize::MAX, Urgency::Now)
            .now_or_never()
            .expect("it computes here");
        let mask = mask.expect("it goes on").expect("not all may come");
        assert_eq!(mask.words().len(), VOCAB_SIZE.div_ceil(32));
        let allowed: Vec<u32> = (0..VOCAB_SIZE as u32)
            .filter(|id| mask.contains(TokenId(*id)))
            .collect();
        assert!(!allowed.is_empty(), "nothing may come after {said:?}");
        let token = TokenId(allowed[random.usize(..allowed.len())]);
        if STOP_IDS.contains(&token) {
            return tokenizer.decode(&said, SpecialTokens::Keep);
        }
        said.push(token);
    }
    panic!("no end after {MOST_TOKENS} tokens");
}

/// Samples evenly among what may come, at most `max_tokens` times; and whether it came to an end.
pub(crate) fn wander_within(
    constraint: &dyn Constraint,
    tokenizer: &Tokenizer,
    seed: u64,
    max_tokens: usize,
) -> (String, bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut state = constraint.start().expect("it begins");
    let mut said: Vec<TokenId> = Vec::new();
    for num_left in (1..=max_tokens).rev() {
        let last = &said[said.len().saturating_sub(1)..];
        let mask = state.next_mask(last, num_left, Urgency::Now).now_or_never();
        let mask = mask.expect("it computes here").expect("it goes on");
        let mask = mask.expect("not all may come");
        let allowed: Vec<u32> = (0..VOCAB_SIZE as u32)
            .filter(|id| mask.contains(TokenId(*id)))
            .collect();
        assert!(!allowed.is_empty(), "nothing may come after {said:?}");
        let token = TokenId(allowed[random.usize(..allowed.len())]);
        if STOP_IDS.contains(&token) {
            return (tokenizer.decode(&said, SpecialTokens::Keep), true);
        }
        said.push(token);
    }
    (tokenizer.decode(&said, SpecialTokens::Keep), false)
}

/// A schema as people write them: nothing in it has a greatest length.
fn any_schema(random: &mut fastrand::Rng, depth: usize) -> Value {
    let leaves = 8;
    match random.u8(..if depth == 0 { leaves } else { 13 }) {
        0 | 1 => json!({"type": "string"}),
        2 => json!({"type": "integer"}),
        3 => json!({"type": "number", "minimum": 0}),
        4 => json!({"type": "boolean"}),
        5 => json!({"enum": ["left", "right upper lobe", "none"]}),
        6 => json!({"type": ["string", "null"], "minLength": 2}),
        7 => json!({"type": "integer", "minimum": -5, "maximum": 1000}),
        8 => json!({"type": "array", "items": any_schema(random, depth - 1)}),
        9 => {
            let min_items = random.u8(1..3);
            json!({"type": "array", "items": any_schema(random, depth - 1), "minItems": min_items})
        }
        10 => json!({"anyOf": [any_schema(random, depth - 1), {"type": "null"}]}),
        _ => {
            let mut properties = serde_json::Map::new();
            let mut required = Vec::new();
            for name in ["finding", "size", "sure", "where"] {
                if random.u8(..3) > 0 {
                    properties.insert(name.to_owned(), any_schema(random, depth - 1));
                    if random.bool() {
                        required.push(name);
                    }
                }
            }
            json!({"type": "object", "properties": properties, "required": required})
        }
    }
}

#[test]
fn a_document_is_whole_before_its_tokens_run_out() {
    let (tokenizer, grammars) = compiler();
    let mut random = fastrand::Rng::with_seed(16);
    let (mut num_whole, mut num_too_long) = (0, 0);
    for round in 0..200 {
        let schema = any_schema(&mut random, 3);
        let source = GrammarSource::JsonSchema(schema.to_string());
        let grammar = grammars.compile(&source);
        let grammar = grammar.unwrap_or_else(|error| panic!("{schema}: {error:?}"));
        let least = grammar.least_tokens();
        assert!(least > 0, "{schema}");
        for max_tokens in [40, 100, 400] {
            let (text, is_over) = wander_within(&*grammar, &tokenizer, round, max_tokens);
            // The document and the stop token.
            if max_tokens > least {
                assert!(is_over, "{schema} of {least} in {max_tokens}: {text}");
                judge("any", &schema, &text);
                num_whole += 1;
            } else {
                assert!(!is_over, "{schema} of {least} in {max_tokens}: {text}");
                num_too_long += 1;
            }
        }
    }
    assert!(
        num_whole > 500,
        "{num_whole} whole, {num_too_long} too long"
    );
}

#[test]
fn numbers_have_as_many_digits_as_their_kind_needs() {
    let (tokenizer, grammars) = compiler();
    let source = GrammarSource::JsonSchema(json!({"type": "number"}).to_string());
    let grammar = grammars.compile(&source).expect("sound");
    for seed in 0..200 {
        let text = wander(&*grammar, &tokenizer, seed);
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, ""));
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        assert!(integer.trim_start_matches('-').len() <= 20, "{text}");
        assert!(fraction.len() <= 17 && exponent.len() <= 4, "{text}");
    }
}

/// Twenty schemas with bounded strings and arrays: what OpenAI's strict mode takes, and more.
pub(crate) fn schemas() -> Vec<(&'static str, Value)> {
    let object = |properties: Value| {
        let names: Vec<_> = properties.as_object().expect("properties").keys().collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": false,
        })
    };
    let word = json!({"type": "string", "maxLength": 8});
    let finding = object(json!({
        "site": {"enum": ["heart", "left lung", "right lung", "pleura"]},
        "kind": {"type": "string", "minLength": 1, "maxLength": 12},
        "size_mm": {"type": ["number", "null"], "minimum": 0, "maximum": 500},
    }));
    vec![
        (
            "flat",
            object(
                json!({"name": word, "age": {"type": "integer", "minimum": 0, "maximum": 130}, "ill": {"type": "boolean"}}),
            ),
        ),
        (
            "nested",
            object(json!({"a": object(json!({"b": object(json!({"c": word}))}))})),
        ),
        (
            "array",
            object(
                json!({"items": {"type": "array", "items": word, "minItems": 1, "maxItems": 4}}),
            ),
        ),
        (
            "enum",
            object(json!({"side": {"enum": ["left", "right", null, 3]}})),
        ),
        (
            "const",
            object(json!({"kind": {"const": "x-ray \"AP\""}, "n": {"const": 1.5}})),
        ),
        (
            "anyOf at the root",
            json!({"anyOf": [object(json!({"a": word})), object(json!({"b": {"type": "integer", "minimum": -9, "maximum": 9}}))]}),
        ),
        (
            "$ref",
            json!({
                "$defs": {"point": object(json!({"x": {"type": "integer", "minimum": 0, "maximum": 895}, "y": {"type": "integer", "minimum": 0, "maximum": 895}}))},
                "type": "object",
                "properties": {"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}},
                "required": ["from", "to"],
                "additionalProperties": false,
            }),
        ),
        (
            "recursion",
            json!({
                "$defs": {"node": {
                    "type": "object",
                    "properties": {"value": word, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
                    "required": ["value", "next"],
                    "additionalProperties": false,
                }},
                "$ref": "#/$defs/node",
            }),
        ),
        (
            "pattern",
            object(
                json!({"code": {"type": "string", "pattern": "^[A-TV-Z][0-9]{2}(\\.[0-9]{1,2})?$"}}),
            ),
        ),
        (
            "number ranges",
            object(json!({
                "p": {"type": "number", "minimum": 0, "maximum": 1},
                "t": {"type": "number", "exclusiveMinimum": -2.5, "exclusiveMaximum": 99.5},
                "n": {"type": "integer", "exclusiveMinimum": 10, "maximum": 12},
            })),
        ),
        (
            "multipleOf",
            object(
                json!({"dose": {"type": "integer", "minimum": 0, "maximum": 500, "multipleOf": 25}}),
            ),
        ),
        (
            "formats",
            object(json!({
                "day": {"type": "string", "format": "date"},
                "id": {"type": "string", "format": "uuid"},
                "at": {"type": "string", "format": "time"},
                "host": {"type": "string", "format": "ipv4"},
            })),
        ),
        (
            "null or not",
            object(
                json!({"a": {"type": ["string", "null"], "maxLength": 5}, "b": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}}),
            ),
        ),
        (
            "tuple",
            object(
                json!({"box": {"type": "array", "prefixItems": [{"type": "integer", "minimum": 0, "maximum": 1000}, {"enum": ["a", "b"]}], "items": false, "minItems": 2}}),
            ),
        ),
        (
            "allOf",
            object(json!({"n": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 7}]}})),
        ),
        (
            "optional properties",
            json!({"type": "object", "properties": {"a": word, "b": {"type": "boolean"}, "c": {"type": "null"}}, "required": ["b"], "additionalProperties": false}),
        ),
        (
            "strings of any script",
            object(json!({"text": {"type": "string", "minLength": 3, "maxLength": 6}})),
        ),
        (
            "an array at the root",
            json!({"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3}, "minItems": 2, "maxItems": 3}),
        ),
        (
            "discriminated",
            json!({"anyOf": [
                object(json!({"type": {"const": "text"}, "text": word})),
                object(json!({"type": {"const": "box"}, "box": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1000}, "minItems": 4, "maxItems": 4}})),
            ]}),
        ),
        (
            "report",
            object(json!({
                "findings": {"type": "array", "items": finding, "maxItems": 3},
                "impression": {"type": "string", "maxLength": 20},
                "urgent": {"type": "boolean"},
            })),
        ),
    ]
}

/// Fails unless `text` is a document that `schema` allows.
pub(crate) fn judge(name: &str, schema: &Value, text: &str) {
    let document: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error} in {text:?}"));
    assert!(allows(schema, schema, &document), "{name}: {text}");
}

/// Whether a schema of those above allows a document, straight from the keywords' definitions.
fn allows(root: &Value, schema: &Value, document: &Value) -> bool {
    let Some(keywords) = schema.as_object() else {
        return schema == &json!(true);
    };
    keywords
        .iter()
        .all(|(keyword, value)| keeps(root, keywords, (keyword, value), document))
}

fn keeps(
    root: &Value,
    keywords: &serde_json::Map<String, Value>,
    (keyword, value): (&str, &Value),
    document: &Value,
) -> bool {
    let list = || value.as_array().expect("a list");
    let inner = |schema: &Value, document: &Value| allows(root, schema, document);
    let number = |holds: fn(f64, f64) -> bool| {
        let bound = value.as_f64().expect("a number");
        document.as_f64().is_none_or(|number| holds(number, bound))
    };
    let length = |holds: fn(usize, usize) -> bool| {
        let bound = value.as_u64().expect("a length") as usize;
        let text = document.as_str().map(|text| text.chars().count());
        let items = document.as_array().map(Vec::len);
        let is_of_items = keyword.ends_with("Items");
        let length = if is_of_items { items } else { text };
        length.is_none_or(|length| holds(length, bound))
    };
    match keyword {
        "$defs" => true,
        "$ref" => {
            let place = value.as_str().and_then(|place| place.strip_prefix('#'));
            let target = root.pointer(place.expect("a place in the schema"));
            inner(target.expect("it is there"), document)
        }
        "anyOf" => list().iter().any(|schema| inner(schema, document)),
        "allOf" => list().iter().all(|schema| inner(schema, document)),
        "enum" => list().contains(document),
        "const" => value == document,
        "type" => match value {
            Value::Array(types) => types.iter().any(|one| is_type(one, document)),
            one => is_type(one, document),
        },
        "required" => document.as_object().is_none_or(|object| {
            let names = list().iter();
            let mut names = names.map(|name| name.as_str().expect("a name"));
            names.all(|name| object.contains_key(name))
        }),
        "properties" => document.as_object().is_none_or(|object| {
            object.iter().all(|(name, document)| {
                value.get(name).is_none_or(|schema| inner(schema, document))
            })
        }),
        "additionalProperties" => document.as_object().is_none_or(|object| {
            object.iter().all(|(name, document)| {
                keywords["properties"].get(name).is_some() || inner(value, document)
            })
        }),
        "prefixItems" => document.as_array().is_none_or(|items| {
            list()
                .iter()
                .zip(items)
                .all(|(schema, document)| inner(schema, document))
        }),
        "items" => document.as_array().is_none_or(|items| {
            let prefix = keywords.get("prefixItems").and_then(Value::as_array);
            let rest = items.iter().skip(prefix.map_or(0, Vec::len));
            rest.into_iter().all(|document| inner(value, document))
        }),
        "minItems" | "minLength" => length(|length, bound| length >= bound),
        "maxItems" | "maxLength" => length(|length, bound| length <= bound),
        "minimum" => number(|number, bound| number >= bound),
        "maximum" => number(|number, bound| number <= bound),
        "exclusiveMinimum" => number(|number, bound| number > bound),
        "exclusiveMaximum" => number(|number, bound| number < bound),
        "multipleOf" => number(|number, bound| number % bound == 0.0),
        "pattern" => document.as_str().is_none_or(is_icd_code),
        "format" => document.as_str().is_none_or(|text| has_format(value, text)),
        other => panic!("{other} is not judged"),
    }
}

fn is_type(name: &Value, document: &Value) -> bool {
    match name.as_str().expect("a name") {
        "null" => document.is_null(),
        "boolean" => document.is_boolean(),
        "string" => document.is_string(),
        "number" => document.is_number(),
        "integer" => document
            .as_f64()
            .is_some_and(|number| number.fract() == 0.0),
        "array" => document.is_array(),
        "object" => document.is_object(),
        other => panic!("no type {other}"),
    }
}

/// The pattern of the schema above, by hand.
fn is_icd_code(text: &str) -> bool {
    let (category, detail) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (letter, number) = category.split_at(category.len().min(1));
    letter
        .bytes()
        .all(|letter| matches!(letter, b'A'..=b'T' | b'V'..=b'Z'))
        && number.len() == 2
        && digits(number)
        && (1..=2).contains(&detail.len())
        && digits(detail)
}

fn has_format(name: &Value, text: &str) -> bool {
    let in_range = |text: &str, most: u32| {
        text.len() == 2 && text.parse::<u32>().is_ok_and(|number| number <= most)
    };
    match name.as_str().expect("a name") {
        "date" => {
            let parts: Vec<_> = text.split('-').collect();
            matches!(*parts, [year, month, day]
                if year.len() == 4 && in_range(month, 12) && in_range(day, 31))
        }
        "time" => {
            let clock = text.get(..8).unwrap_or_default();
            let parts: Vec<_> = clock.split(':').collect();
            matches!(*parts, [hour, minute, second]
                if in_range(hour, 23) && in_range(minute, 59) && in_range(second, 60))
        }
        "uuid" => {
            let lengths: Vec<_> = text.split('-').map(str::len).collect();
            let is_hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
            lengths == [8, 4, 4, 4, 12] && text.bytes().all(is_hex)
        }
        "ipv4" => {
            let parts: Vec<_> = text.split('.').map(str::parse::<u8>).collect();
            parts.len() == 4 && parts.iter().all(Result::is_ok)
        }
        other => panic!("{other} is not judged"),
    }
}

#[test]
fn whatever_is_sampled_is_a_document_that_the_schema_allows() {
    let (tokenizer, grammars) = compiler();
    let schemas = schemas();
    assert_eq!(schemas.len(), 20);
    for (name, schema) in &schemas {
        let source = GrammarSource::JsonSchema(schema.to_string());
        let grammar = grammars.compile(&source);
        let grammar = grammar.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for seed in 0..25 {
            judge(name, schema, &wander(&*grammar, &tokenizer, seed));
        }
    }
}

#[test]
fn other_grammars_hold_too() {
    let (tokenizer, grammars) = compiler();
    let sample = |source: GrammarSource, seed| {
        let grammar = grammars.compile(&source).expect("it is sound");
        wander(&*grammar, &tokenizer, seed)
    };
    let choices = ["normal", "norm", "é \"quoted\"\n"];
    for seed in 0..25 {
        let text = sample(GrammarSource::JsonObject, seed);
        let object = serde_json::from_str::<Value>(&text);
        let object = object.unwrap_or_else(|error| panic!("{error}: {text:?}"));
        assert!(object.is_object(), "{text:?}");
        let text = sample(
            GrammarSource::Regex("[a-f]{2,4}(-[0-9]+)?".to_owned()),
            seed,
        );
        let (letters, digits) = text.split_once('-').unwrap_or((&text, "0"));
        assert!((2..=4).contains(&letters.len()), "{text}");
        assert!(letters.bytes().all(|byte| (b'a'..=b'f').contains(&byte)));
        assert!(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
        let choice = GrammarSource::Choice(choices.map(str::to_owned).to_vec());
        let text = sample(choice, seed);
        assert!(choices.contains(&text.as_str()), "{text:?}");
        let lark = "start: \"(\" start \")\" | \"x\"".to_owned();
        let text = sample(GrammarSource::Lark(lark), seed);
        let depth = text.len() / 2;
        assert_eq!(text, format!("{}x{}", "(".repeat(depth), ")".repeat(depth)));
        let gbnf = "root ::= \"(\" ws root \")\" | [x-z]{2}\nws ::= [ ]?".to_owned();
        let text = sample(GrammarSource::of_grammar(gbnf), seed).replace(' ', "");
        let inner = text.trim_start_matches('(').trim_end_matches(')');
        assert!(inner.len() == 2 && inner.bytes().all(|byte| (b'x'..=b'z').contains(&byte)));
        let depth = (text.len() - 2) / 2;
        assert!(text.starts_with(&"(".repeat(depth)) && text.ends_with(&")".repeat(depth)));
    }
}

#[tokio::test]
async fn a_grammar_is_compiled_once_for_those_who_share_a_salt() {
    let grammars = Grammars::here(compiler().1);
    let source = |text: &str| GrammarSource::Regex(text.to_owned());
    let compile = async |source, salt: Option<u8>| {
        let salt = salt.map(|byte| CacheSalt([byte; 32]));
        grammars.compile(source, salt).await.expect("sound")
    };
    let first = compile(source("a+"), None).await;
    assert!(Arc::ptr_eq(&first, &compile(source("a+"), None).await));
    assert!(!Arc::ptr_eq(&first, &compile(source("b+"), None).await));
    // A choice of the same text is another grammar.
    let choice = GrammarSource::Choice(vec!["a+".to_owned()]);
    assert!(!Arc::ptr_eq(&first, &compile(choice, None).await));
    let salted = compile(source("a+"), Some(1)).await;
    assert!(!Arc::ptr_eq(&first, &salted));
    assert!(Arc::ptr_eq(&salted, &compile(source("a+"), Some(1)).await));
    assert!(!Arc::ptr_eq(&salted, &compile(source("a+"), Some(2)).await));
}

#[test]
fn control_tokens_are_no_part_of_any_text() {
    let (tokenizer, grammars) = compiler();
    let anything = grammars.compile(&GrammarSource::Regex("(.|\n)*".to_owned()));
    let mut state = anything.expect("sound").start().expect("it begins");
    let mask = state
        .next_mask(&[], usize::MAX, Urgency::Now)
        .now_or_never()
        .expect("it computes here");
    let mask = mask.expect("a mask").expect("not all may come");
    for name in [
        "<bos>",
        "<start_of_turn>",
        "<unused94>",
        "<unused95>",
        "<start_of_image>",
    ] {
        let id = tokenizer.token_id(name).expect("the tiny tokenizer has it");
        assert!(!mask.contains(id), "{name}");
    }
    assert!(mask.contains(STOP_IDS[0]) && mask.contains(STOP_IDS[1]));
    let word = tokenizer
        .token_id("▁heart")
        .or_else(|| tokenizer.token_id("heart"));
    assert!(mask.contains(word.expect("a word")));
}

/// Rules that each say the next one twice.
fn doubled(last: &str) -> String {
    let rules: String = (0..60)
        .map(|n| format!("r{n} ::= r{} r{}\n", n + 1, n + 1))
        .collect();
    format!("root ::= r0\n{rules}r60 ::= {last}\n")
}

/// Rules that each name the next one.
fn chained(num_rules: usize) -> String {
    let rules: String = (0..num_rules)
        .map(|n| format!("r{n} ::= \"a\" | r{}\n", n + 1))
        .collect();
    format!("root ::= r0\n{rules}r{num_rules} ::= \"b\"\n")
}

#[test]
fn bombs_are_refused_in_bounded_time() {
    let (_, grammars) = compiler();
    let mut deep = json!({"type": "string"});
    for _ in 0..60 {
        deep = json!({"type": "array", "items": deep});
    }
    let wide: Vec<_> = (0..15_000).map(|n| format!("value {n}")).collect();
    let many: serde_json::Map<_, _> = (0..3_000)
        .map(|n| {
            (
                format!("p{n}"),
                json!({"type": "string", "pattern": format!("^a{{{n},}}$")}),
            )
        })
        .collect();
    let nested_choice = json!({"anyOf": [{"type": "object", "additionalProperties": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}}]});
    let sources = [
        GrammarSource::Regex("(a{1000}){1000}".to_owned()),
        GrammarSource::Regex("((((a{100}){100}){100}){100}){100}".to_owned()),
        GrammarSource::Regex("(a|aa|aaa)*(b|bb)*((a|b)*c){50}".to_owned()),
        GrammarSource::Regex("(.*a){40}.{40}".to_owned()),
        GrammarSource::Regex("x".repeat(100_000)),
        GrammarSource::JsonSchema(deep.to_string()),
        GrammarSource::JsonSchema(json!({"enum": wide}).to_string()),
        GrammarSource::JsonSchema(json!({"type": "object", "properties": many}).to_string()),
        GrammarSource::JsonSchema(
            json!({"type": "string", "minLength": 1_000_000, "maxLength": 2_000_000}).to_string(),
        ),
        GrammarSource::JsonSchema(json!({"type": "array", "minItems": 1_000_000}).to_string()),
        GrammarSource::JsonSchema(json!({"$ref": "#"}).to_string()),
        GrammarSource::JsonSchema(json!({"allOf": [{"$ref": "#"}]}).to_string()),
        GrammarSource::JsonSchema(json!({"$ref": "http://169.254.169.254/latest"}).to_string()),
        GrammarSource::JsonSchema(json!({"$ref": "file:///etc/passwd"}).to_string()),
        GrammarSource::JsonSchema(nested_choice.to_string()),
        GrammarSource::Choice(vec!["x".repeat(200_000)]),
        GrammarSource::Lark("start: start start | \"a\"".to_owned()),
        GrammarSource::Lark("start: a{1000000}\na: \"x\"".to_owned()),
        GrammarSource::Lark(format!("start: {}", "(".repeat(20_000))),
        GrammarSource::Gbnf("root ::= root root | \"a\"".to_owned()),
        GrammarSource::Gbnf("root ::= root".to_owned()),
        GrammarSource::Gbnf("root ::= a\na ::= b | \"\"\nb ::= a | \"\"".to_owned()),
        GrammarSource::Gbnf(format!("root ::= {}", "(".repeat(20_000))),
        GrammarSource::Gbnf(format!("root ::= \"{}\"", "x".repeat(200_000))),
        GrammarSource::Gbnf("root ::= ((([a-z]{1000}){1000}){1000}){10000}".to_owned()),
        GrammarSource::Gbnf("root ::= (\"(\" root? \")\"){10000}".to_owned()),
        GrammarSource::Gbnf(doubled("\"a\"")),
        GrammarSource::Gbnf(doubled("\"a\" root?")),
        GrammarSource::Gbnf(chained(9_000)),
    ];
    for source in sources {
        let shown: String = format!("{source:?}").chars().take(80).collect();
        let began = std::time::Instant::now();
        let compiled = grammars.compile(&source);
        let outcome = match &compiled {
            Ok(_) => "taken".to_owned(),
            Err(error) => {
                assert!(error.message.len() < 2_000, "{shown}: {}", error.message);
                error.message.clone()
            }
        };
        println!(
            "{:>8.1} ms  {shown}: {outcome}",
            began.elapsed().as_secs_f64() * 1e3
        );
        // What is taken can be worked with.
        if let Ok(grammar) = compiled {
            let mut state = grammar.start().expect("it begins");
            let _ = state
                .next_mask(&[], usize::MAX, Urgency::Now)
                .now_or_never();
        }
    }
}

#[test]
fn what_a_sound_gbnf_cannot_become_is_told_in_its_own_terms() {
    let (_, grammars) = compiler();
    for (grammar, expected) in [
        (
            doubled("\"a\""),
            "it is sound GBNF, but cannot be compiled: ",
        ),
        (
            "root ::= root".to_owned(),
            "nothing that this model can say fits it",
        ),
    ] {
        let compiled = grammars.compile(&GrammarSource::Gbnf(grammar));
        let error = compiled.map(drop).expect_err("it cannot be");
        assert!(error.message.starts_with(expected), "{}", error.message);
        assert!(!error.message.contains("T3"), "{}", error.message);
    }
}

/// Two grammars at a time, in processes.
fn two_places() -> Arc<Grammars> {
    let limits = GrammarLimits {
        max_processes: 2,
        num_turns: 1,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_medgemma"));
    let vocabulary = GrammarVocabulary::new(&tokenizer(), VOCAB_SIZE, STOP_IDS.to_vec());
    let grammars = Grammars::in_processes(program, vocabulary, limits);
    Arc::new(grammars.expect("processes can be had"))
}

#[tokio::test]
async fn a_new_grammar_takes_the_place_of_one_that_takes_long() {
    let grammars = two_places();
    let endless = |n: u32| {
        let grammars = Arc::clone(&grammars);
        let schema = r#"{"type": "integer", "multipleOf": 99400891}"#;
        let source = GrammarSource::Lark(format!("start: \"{n}\" %json {schema}"));
        tokio::spawn(async move { grammars.compile(source, None).await.map(drop) })
    };
    let endless = [endless(0), endless(1)];
    let mut others = 0..;
    let ended = loop {
        if let Some(idx) = endless.iter().position(JoinHandle::is_finished) {
            break endless.into_iter().nth(idx).unwrap();
        }
        let n = others.next().unwrap();
        let other = GrammarSource::Regex(format!("[a-c]{{{n}}}"));
        let compiled = grammars.compile(other, None).await;
        compiled.expect("one of them makes room").start().unwrap();
    };
    let error = ended.await.unwrap().expect_err("it has no end");
    assert_eq!(error.kind, GrammarErrorKind::Busy, "{error:?}");
    assert!(error.message.contains("try again later"), "{error:?}");
}

#[tokio::test]
async fn grammars_that_come_again_are_kept_beside_many_that_do_not() {
    let grammars = two_places();
    let regex = |text: &str| GrammarSource::Regex(text.to_owned());
    let known = grammars.compile(regex("known"), None).await.unwrap();
    drop(grammars.compile(regex("known"), None).await.unwrap());
    let process = Arc::downgrade(&known);
    drop(known);
    for n in 0..5 {
        let other = regex(&format!("other {n}"));
        drop(grammars.compile(other, None).await.unwrap());
    }
    assert!(process.upgrade().is_some(), "it was compiled once");
}
