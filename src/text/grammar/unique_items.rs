//! Rewrites `uniqueItems` to what the library takes: a list of all arrays, where these are few.

use serde_json::{Map, Value, json};

use super::object_keywords::follow;

/// Maximum number of arrays that are listed: those of 5 values in any order are 326.
const MAX_ARRAYS: usize = 400;
/// Maximum number of values that an item can have, to be looked at.
const MAX_VALUES: usize = 64;

/// Removes `uniqueItems` from `keywords`. Items that have few values are listed in every order.
///
/// # Errors
/// That the items cannot be kept apart.
pub(super) fn rewrite(keywords: &mut Map<String, Value>, root: &Value) -> Result<(), String> {
    if keywords.remove("uniqueItems") != Some(Value::Bool(true)) {
        return Ok(());
    }
    let count = |name: &str| {
        keywords
            .get(name)
            .and_then(Value::as_f64)
            .map(|n| n as usize)
    };
    let least = count("minItems").unwrap_or(0);
    let most = count("maxItems").unwrap_or(usize::MAX);
    let is_array = match keywords.get("type") {
        Some(Value::String(name)) => name == "array",
        None => true,
        Some(_) => false,
    };
    if most <= 1 || matches!(keywords.get("type"), Some(Value::String(name)) if name != "array") {
        return Ok(());
    }
    let refused = || {
        "'uniqueItems' is supported only for arrays whose items are an 'enum', 'const', boolean or \
         null of at most 5 values, or of more where 'maxItems' leaves few arrays; leave it out, and \
         check the items of the answer"
            .to_owned()
    };
    if !is_array || keywords.contains_key("prefixItems") {
        return Err(refused());
    }
    let items = keywords.get("items").ok_or_else(refused)?;
    let values = values(items, root, 0).ok_or_else(refused)?;
    let most = most.min(values.len());
    let arrays = arrays(&values, least, most).ok_or_else(refused)?;
    let alternatives = arrays.into_iter().map(|array| {
        let num_items = array.len();
        let items = array.iter().map(|value| json!({"const": value}));
        match num_items {
            0 => json!({"type": "array", "maxItems": 0}),
            _ => json!({
                "type": "array",
                // This form holds in all drafts, which "$schema" may name.
                "items": items.collect::<Vec<_>>(),
                "additionalItems": false,
                "minItems": num_items,
                "maxItems": num_items,
            }),
        }
    });
    let alternatives: Vec<Value> = alternatives.collect();
    if alternatives.is_empty() {
        return Err("'minItems' demands more different items than there are".to_owned());
    }
    for name in ["items", "minItems", "maxItems", "type"] {
        keywords.remove(name);
    }
    match keywords.remove("anyOf") {
        None => {
            keywords.insert("anyOf".to_owned(), json!(alternatives));
        }
        Some(own) => {
            let both = json!([{"anyOf": own}, {"anyOf": alternatives}]);
            match keywords.entry("allOf").or_insert_with(|| json!([])) {
                Value::Array(all) => all.extend(both.as_array().into_iter().flatten().cloned()),
                other => *other = both,
            }
        }
    }
    Ok(())
}

/// Returns the different values that `schema` allows, if they are few.
fn values(schema: &Value, root: &Value, depth: usize) -> Option<Vec<Value>> {
    let keywords = follow(schema, root)?;
    if depth > 8 {
        return None;
    }
    let mut found: Vec<Value> = Vec::new();
    let mut add = |values: Vec<Value>| {
        for value in values {
            if !found.contains(&value) {
                found.push(value);
            }
        }
    };
    if let Some(value) = keywords.get("const") {
        add(vec![value.clone()]);
    } else if let Some(values) = keywords.get("enum").and_then(Value::as_array) {
        add(values.clone());
    } else if let Some(schemas) = keywords.get("anyOf").or(keywords.get("oneOf")) {
        for schema in schemas.as_array()? {
            add(values(schema, root, depth + 1)?);
        }
    } else {
        let names = match keywords.get("type")? {
            Value::Array(names) => names.clone(),
            name => vec![name.clone()],
        };
        for name in names {
            add(match name.as_str()? {
                "boolean" => vec![json!(false), json!(true)],
                "null" => vec![Value::Null],
                _ => return None,
            });
        }
    }
    (found.len() <= MAX_VALUES).then_some(found)
}

/// Returns all arrays of different `values`, of `least` to `most` items. `None` if they are many.
fn arrays(values: &[Value], least: usize, most: usize) -> Option<Vec<Vec<&Value>>> {
    let mut all = Vec::new();
    let mut longest = vec![Vec::new()];
    for len in 0..=most {
        if len >= least {
            all.extend(longest.iter().cloned());
        }
        let longer = longest.iter().flat_map(|array: &Vec<&Value>| {
            let others = values.iter().filter(|value| !array.contains(value));
            others.map(|value| [array.as_slice(), &[value]].concat())
        });
        longest = longer.take(MAX_ARRAYS + 1).collect();
        if all.len() > MAX_ARRAYS || longest.len() > MAX_ARRAYS && len < most {
            return None;
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(mut schema: Value) -> Result<Value, String> {
        let root = schema.clone();
        let keywords = schema.as_object_mut().expect("an object");
        rewrite(keywords, &root)?;
        Ok(schema)
    }

    #[test]
    fn arrays_of_few_values_are_listed_in_every_order() {
        let schema = json!({"type": "array", "items": {"enum": ["a", 1]}, "uniqueItems": true});
        let listed = rewritten(schema).expect("few");
        let arrays = listed["anyOf"].as_array().expect("a list");
        assert_eq!(arrays.len(), 5);
        let last = json!([{"const": 1}, {"const": "a"}]);
        assert_eq!(arrays[4]["items"], last);

        for (mut schema, num_arrays) in [
            (json!({"items": {"type": "boolean"}, "minItems": 1}), 4),
            (json!({"items": {"enum": [1, 2, 3, 4, 5]}}), 326),
            (
                json!({"items": {"enum": [1, 2, 3, 4, 5, 6, 7]}, "maxItems": 2}),
                50,
            ),
            (
                json!({"items": {"anyOf": [{"const": 1}, {"type": "null"}, {"enum": [1, 2]}]}}),
                16,
            ),
            (
                json!({"$defs": {"c": {"enum": ["r", "g", "b"]}}, "items": {"$ref": "#/$defs/c"},
                    "minItems": 3}),
                6,
            ),
        ] {
            schema["uniqueItems"] = json!(true);
            let listed = rewritten(schema.clone()).expect("few");
            let arrays = listed["anyOf"].as_array().expect("a list");
            assert_eq!(arrays.len(), num_arrays, "{schema}");
        }
    }

    #[test]
    fn what_cannot_be_listed_is_refused_and_what_need_not_be_is_left() {
        for mut schema in [
            json!({"items": {"type": "string"}}),
            json!({"items": {"enum": [1, 2, 3, 4, 5, 6]}}),
            json!({"type": "array"}),
            json!({"prefixItems": [{"type": "string"}], "items": {"type": "boolean"}}),
            json!({"items": {"type": "boolean"}, "minItems": 3}),
        ] {
            schema["uniqueItems"] = json!(true);
            assert!(rewritten(schema.clone()).is_err(), "{schema}");
        }
        for schema in [
            json!({"items": {"type": "string"}, "uniqueItems": false}),
            json!({"items": {"type": "string"}, "maxItems": 1, "uniqueItems": true}),
            json!({"type": "string", "uniqueItems": true}),
        ] {
            let mut expected = schema.clone();
            expected
                .as_object_mut()
                .expect("an object")
                .remove("uniqueItems");
            assert_eq!(rewritten(schema), Ok(expected));
        }
    }
}
