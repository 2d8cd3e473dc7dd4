//! Rewrites keywords of objects to what the library takes.
//!
//! | keyword | becomes |
//! |---|---|
//! | `dependentRequired` | one alternative for each set of properties that demand others |
//! | `propertyNames` | `properties`, or a pattern of `patternProperties` |
//! | a pattern of few names | `properties`: a name may then come only once, and a pattern that only named properties match leaves nothing behind a comma |

use regex_syntax::hir::{Class, Hir, HirKind, Look};
use serde_json::{Map, Value, json};

/// Maximum number of properties that demand others: each doubles the alternatives.
const MAX_DEMANDING: usize = 5;
/// Maximum number of names for which a pattern is replaced by properties.
const MAX_NAMES: usize = 64;
/// Bound on the references that are followed.
const MAX_REFERENCES: usize = 16;

/// Rewrites the keywords of one schema; `root` is the whole document.
///
/// # Errors
/// That a combination of keywords is not supported.
pub(super) fn rewrite(keywords: &mut Map<String, Value>, root: &Value) -> Result<(), String> {
    name_properties(keywords, root)?;
    name_patterns(keywords);
    demand_properties(keywords)
}

/// Returns the keywords of a schema, behind its references.
pub(super) fn follow<'s>(schema: &'s Value, root: &'s Value) -> Option<&'s Map<String, Value>> {
    let mut keywords = schema.as_object()?;
    for _ in 0..MAX_REFERENCES {
        let Some(target) = keywords.get("$ref") else {
            return Some(keywords);
        };
        let pointer = target.as_str()?.strip_prefix('#')?;
        keywords = root.pointer(pointer)?.as_object()?;
    }
    None
}

/// Replaces `propertyNames`.
fn name_properties(keywords: &mut Map<String, Value>, root: &Value) -> Result<(), String> {
    let Some(names) = keywords.remove("propertyNames") else {
        return Ok(());
    };
    if names == Value::Bool(true) {
        return Ok(());
    }
    let refused = || {
        "'propertyNames' is supported with an 'enum', a 'const', a 'pattern' or a length, and not \
         beside 'patternProperties'; with a pattern or a length, not beside 'properties'"
            .to_owned()
    };
    let of_names = follow(&names, root).ok_or_else(refused)?;
    let says = |name: &str| of_names.get(name);
    let told = ["enum", "const", "pattern", "minLength", "maxLength"];
    let told = told.iter().filter(|name| says(name).is_some()).count();
    let annotations = ["type", "title", "description", "$comment"];
    let others = of_names
        .keys()
        .filter(|name| !annotations.contains(&name.as_str()))
        .count();
    if others == 0 {
        return Ok(());
    }
    let is_length = says("pattern").is_none() && says("enum").is_none() && says("const").is_none();
    if others > told || told > 1 && !is_length || keywords.contains_key("patternProperties") {
        return Err(refused());
    }
    let has_properties = keywords
        .get("properties")
        .and_then(Value::as_object)
        .is_some_and(|properties| !properties.is_empty());
    // Objects with properties are closed unless they say otherwise.
    let further = keywords.remove("additionalProperties");
    let further = further.unwrap_or(Value::Bool(!has_properties));
    let listed = match (says("enum"), says("const")) {
        (Some(Value::Array(names)), _) => Some(names.clone()),
        (_, Some(name)) => Some(vec![name.clone()]),
        _ => None,
    };
    if let Some(listed) = listed {
        let listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
        let properties = keywords.entry("properties").or_insert_with(|| json!({}));
        let properties = properties.as_object_mut().ok_or_else(refused)?;
        for (name, schema) in properties.iter_mut() {
            if !listed.contains(&name.as_str()) {
                *schema = Value::Bool(false);
            }
        }
        for name in listed {
            properties
                .entry(name.to_owned())
                .or_insert_with(|| further.clone());
        }
    } else {
        if has_properties {
            return Err(refused());
        }
        let length = |name: &str| says(name).and_then(Value::as_f64).map(|n| n as u64);
        let pattern = match says("pattern") {
            Some(pattern) => pattern.as_str().ok_or_else(refused)?.to_owned(),
            None => {
                let least = length("minLength").unwrap_or(0);
                let most = length("maxLength").map_or(String::new(), |most| most.to_string());
                format!("^[\\s\\S]{{{least},{most}}}$")
            }
        };
        keywords.insert("patternProperties".to_owned(), json!({pattern: further}));
    }
    keywords.insert("additionalProperties".to_owned(), Value::Bool(false));
    Ok(())
}

/// Replaces patterns that few names match by these names.
fn name_patterns(keywords: &mut Map<String, Value>) {
    let Some(Value::Object(patterns)) = keywords.remove("patternProperties") else {
        return;
    };
    let mut named = match keywords.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    let mut rest = Map::new();
    for (pattern, schema) in patterns {
        let Some(names) = names_of(&pattern) else {
            rest.insert(pattern, schema);
            continue;
        };
        for name in names {
            match named.get_mut(&name) {
                None => {
                    named.insert(name, schema.clone());
                }
                Some(own) => *own = json!({"allOf": [own.take(), schema]}),
            }
        }
    }
    if !named.is_empty() {
        keywords.insert("properties".to_owned(), Value::Object(named));
    }
    if !rest.is_empty() {
        keywords.insert("patternProperties".to_owned(), Value::Object(rest));
    } else {
        // What says which names there may be besides is open, unless it says otherwise.
        keywords
            .entry("additionalProperties")
            .or_insert(Value::Bool(true));
    }
}

/// Returns the names that a pattern matches, if they are few.
fn names_of(pattern: &str) -> Option<Vec<String>> {
    let parsed = regex_syntax::parse(pattern).ok()?;
    let HirKind::Concat(parts) = parsed.kind() else {
        return None;
    };
    let is_look = |hir: &Hir, look: Look| matches!(hir.kind(), HirKind::Look(own) if *own == look);
    match parts.as_slice() {
        [first, inner @ .., last] if is_look(first, Look::Start) && is_look(last, Look::End) => {
            joined(inner)
        }
        _ => None,
    }
}

/// Returns the texts of parts that follow one another.
fn joined(parts: &[Hir]) -> Option<Vec<String>> {
    let mut all = vec![String::new()];
    for part in parts {
        let texts = texts(part)?;
        if all.len() * texts.len() > MAX_NAMES {
            return None;
        }
        let longer = all.iter().flat_map(|begin| {
            let begin = begin.as_str();
            texts.iter().map(move |text| format!("{begin}{text}"))
        });
        all = longer.collect();
    }
    Some(all)
}

/// Returns the different texts that a part of a pattern matches, if they are few.
fn texts(part: &Hir) -> Option<Vec<String>> {
    let mut all = match part.kind() {
        HirKind::Empty => vec![String::new()],
        HirKind::Literal(literal) => vec![String::from_utf8(literal.0.to_vec()).ok()?],
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.ranges().iter();
            let chars = ranges.flat_map(|range| range.start()..=range.end());
            let chars: Vec<String> = chars.take(MAX_NAMES + 1).map(String::from).collect();
            chars
        }
        HirKind::Capture(capture) => texts(&capture.sub)?,
        HirKind::Concat(parts) => joined(parts)?,
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(texts(part)?);
            }
            all
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.filter(|most| *most as usize <= MAX_NAMES)?;
            let mut all = Vec::new();
            for num in repetition.min..=most {
                all.extend(joined(&vec![(*repetition.sub).clone(); num as usize])?);
            }
            all
        }
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => return None,
    };
    all.sort_unstable();
    all.dedup();
    (all.len() <= MAX_NAMES).then_some(all)
}

/// Replaces `dependentRequired`, and `dependencies` of names.
fn demand_properties(keywords: &mut Map<String, Value>) -> Result<(), String> {
    let mut demands: Vec<(String, Vec<Value>)> = Vec::new();
    for keyword in ["dependentRequired", "dependencies"] {
        let Some(value) = keywords.remove(keyword) else {
            continue;
        };
        let refused = || format!("'{keyword}' is supported only with arrays of names");
        for (name, demanded) in value.as_object().ok_or_else(refused)? {
            let demanded = demanded.as_array().ok_or_else(refused)?;
            demands.push((name.clone(), demanded.clone()));
        }
    }
    if demands.is_empty() {
        return Ok(());
    }
    let list = |keywords: &Map<String, Value>| -> Vec<Value> {
        let required = keywords.get("required").and_then(Value::as_array);
        required.cloned().unwrap_or_default()
    };
    let mut required = list(keywords);
    // What is required itself demands in any case.
    loop {
        let is_required = |(name, _): &(String, Vec<Value>)| required.contains(&json!(name));
        let Some(place) = demands.iter().position(is_required) else {
            break;
        };
        add(&mut required, demands.remove(place).1);
    }
    let has_all =
        |(_, demanded): &(String, Vec<Value>)| demanded.iter().all(|name| required.contains(name));
    demands.retain(|demand| !has_all(demand));
    if demands.len() > MAX_DEMANDING {
        return Err(format!(
            "'dependentRequired' is supported with up to {MAX_DEMANDING} properties that demand others"
        ));
    }
    if !required.is_empty() {
        keywords.insert("required".to_owned(), json!(required));
    }
    if demands.is_empty() {
        return Ok(());
    }
    let mut outer = Map::new();
    for definitions in ["$defs", "definitions", "$schema", "$id"] {
        if let Some(value) = keywords.remove(definitions) {
            outer.insert(definitions.to_owned(), value);
        }
    }
    let own = std::mem::take(keywords);
    let alternatives = (0..1_usize << demands.len()).filter_map(|chosen| {
        let mut object = own.clone();
        let mut required = required.clone();
        let mut absent = Vec::new();
        for (place, (name, demanded)) in demands.iter().enumerate() {
            if chosen >> place & 1 == 1 {
                add(&mut required, vec![json!(name)]);
                add(&mut required, demanded.clone());
            } else {
                absent.push(name);
            }
        }
        // A property that is demanded and absent: another alternative has it.
        if absent.iter().any(|name| required.contains(&json!(name))) {
            return None;
        }
        let properties = object.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            for name in absent {
                properties.insert(name.clone(), Value::Bool(false));
            }
        }
        object.insert("required".to_owned(), json!(required));
        Some(Value::Object(object))
    });
    outer.insert("anyOf".to_owned(), alternatives.collect());
    *keywords = outer;
    Ok(())
}

/// Adds names that are not in the list.
fn add(names: &mut Vec<Value>, more: Vec<Value>) {
    for name in more {
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(mut schema: Value) -> Result<Value, String> {
        let root = schema.clone();
        rewrite(schema.as_object_mut().expect("an object"), &root)?;
        Ok(schema)
    }

    #[test]
    fn patterns_of_few_names_are_these_names() {
        let names = |pattern: &str| names_of(pattern).map(|names| names.join(" "));
        for (pattern, expected) in [
            ("^score$", "score"),
            ("^(left|right)_[ab]$", "left_a left_b right_a right_b"),
            ("^x{0,2}$", " x xx"),
            ("^[a-c]?d$", "d ad bd cd"),
            (r"^a\.b$", "a.b"),
        ] {
            assert_eq!(names(pattern).as_deref(), Some(expected), "{pattern}");
        }
        for pattern in [
            "score",
            "^score",
            "^a*$",
            "^[a-z]{2}$",
            "^.$",
            "^(?=a)$",
            "^$|a",
            "^a{9999}$",
        ] {
            assert_eq!(names(pattern), None, "{pattern}");
        }
        let schema = json!({
            "properties": {"score": {"multipleOf": 5}},
            "patternProperties": {"^score$": {"type": "integer"}, "^x": {"type": "null"}},
            "additionalProperties": false,
        });
        let expected = json!({
            "properties": {"score": {"allOf": [{"multipleOf": 5}, {"type": "integer"}]}},
            "patternProperties": {"^x": {"type": "null"}},
            "additionalProperties": false,
        });
        assert_eq!(rewritten(schema), Ok(expected));
        let open = rewritten(json!({"patternProperties": {"^a$": {}}}));
        let expected = json!({"properties": {"a": {}}, "additionalProperties": true});
        assert_eq!(open, Ok(expected));
    }

    #[test]
    fn names_are_listed_or_follow_a_pattern() {
        let listed = rewritten(json!({
            "$defs": {"side": {"type": "string", "enum": ["left", "right"]}},
            "propertyNames": {"$ref": "#/$defs/side"},
            "additionalProperties": {"type": "integer"},
            "properties": {"left": {"type": "null"}, "top": {}},
        }));
        let listed = listed.expect("supported");
        assert_eq!(
            listed["properties"],
            json!({"left": {"type": "null"}, "top": false, "right": {"type": "integer"}})
        );
        assert_eq!(listed["additionalProperties"], json!(false));
        for (names, pattern) in [
            (json!({"pattern": "^[a-z]+$"}), "^[a-z]+$"),
            (json!({"minLength": 2}), "^[\\s\\S]{2,}$"),
            (
                json!({"minLength": 1, "maxLength": 3, "type": "string"}),
                "^[\\s\\S]{1,3}$",
            ),
        ] {
            let schema = json!({"propertyNames": names, "additionalProperties": {"type": "null"}});
            let expected = json!({
                "patternProperties": {pattern: {"type": "null"}},
                "additionalProperties": false,
            });
            assert_eq!(rewritten(schema), Ok(expected));
        }
        let free = json!({"propertyNames": {"type": "string"}, "type": "object"});
        assert_eq!(rewritten(free), Ok(json!({"type": "object"})));
        for schema in [
            json!({"propertyNames": {"pattern": "^a", "maxLength": 3}}),
            json!({"propertyNames": {"not": {}}}),
            json!({"propertyNames": {"format": "date"}}),
            json!({"propertyNames": {"pattern": "^a"}, "properties": {"a": {}}}),
            json!({"propertyNames": {"enum": ["a"]}, "patternProperties": {"^a": {}}}),
            json!({"propertyNames": false}),
        ] {
            assert!(rewritten(schema.clone()).is_err(), "{schema}");
        }
    }

    #[test]
    fn what_demands_others_is_an_alternative_with_them() {
        let schema = json!({
            "type": "object",
            "properties": {"payment": {}, "address": {}},
            "dependentRequired": {"payment": ["address"]},
        });
        let expected = json!({"anyOf": [
            {"type": "object", "properties": {"payment": false, "address": {}}, "required": []},
            {"type": "object", "properties": {"payment": {}, "address": {}},
                "required": ["payment", "address"]},
        ]});
        assert_eq!(rewritten(schema), Ok(expected));
        // Each of two demands the other.
        let both = json!({"properties": {}, "dependencies": {"a": ["b"], "b": ["a"]}});
        let both = rewritten(both).expect("supported");
        assert_eq!(both["anyOf"].as_array().map(Vec::len), Some(2));
        let required = json!({"required": ["a"], "dependentRequired": {"a": ["b"], "b": ["c"]}});
        assert_eq!(
            rewritten(required),
            Ok(json!({"required": ["a", "b", "c"]}))
        );
        let many: Map<String, Value> = (0..6).map(|n| (format!("a{n}"), json!(["b"]))).collect();
        assert!(rewritten(json!({"dependentRequired": many})).is_err());
        assert!(rewritten(json!({"dependencies": {"a": {"required": ["b"]}}})).is_err());
    }
}
