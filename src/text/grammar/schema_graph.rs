//! A JSON schema as a graph: its subschemas, with edges by nesting and by `$ref`.
//!
//! Each part may be small and flat, and still a chain of them may be too deep to walk, or a set of
//! them that must all hold may be too expensive to compile.

use std::collections::{HashMap, HashSet};

use serde_json::{Number, Value};

use super::compiler::GrammarError;
use super::depth::walk_depth;
use super::schema::{Holds, holds};

/// Maximum length of a chain of subschemas.
const MAX_CHAIN: usize = 500;
/// Maximum least common multiple of the numbers in `multipleOf` that must hold together, because
/// the grammar library keeps a state for each remainder. In decimal digits, factors of 2 and 5 cost
/// almost nothing. A prime of 9,973 takes 0.1 s to compile, one of 20,011 does not finish.
const MAX_MULTIPLE: u64 = 10_000;
/// Maximum number of subschemas visited in the search for `multipleOf` that must hold together, in
/// the whole schema.
const MAX_LOOKS: usize = 200_000;

/// Maximum number of characters of a reference in an error.
const MAX_SHOWN: usize = 100;

/// The graph of all subschemas.
pub(super) struct SchemaGraph<'s> {
    parts: Vec<&'s Value>,
    /// From a subschema to those nested in it and to the target of its `$ref`.
    edges: Vec<Vec<usize>>,
    /// The same, but only to subschemas that must hold together with it.
    conjuncts: Vec<Vec<usize>>,
}

impl<'s> SchemaGraph<'s> {
    /// Builds the graph of a schema that has passed the check of its nesting.
    pub(super) fn new(root: &'s Value) -> Self {
        let mut graph = Self {
            parts: Vec::new(),
            edges: Vec::new(),
            conjuncts: Vec::new(),
        };
        let mut nodes = HashMap::new();
        graph.add(root, &mut nodes);
        let anchors = graph.anchors();
        for node in 0..graph.parts.len() {
            let Some(name) = graph.parts[node].get("$ref").and_then(Value::as_str) else {
                continue;
            };
            let target = anchors.get(name).copied().or_else(|| {
                let pointer = percent_decoded(name.strip_prefix('#')?);
                nodes.get(&address(root.pointer(&pointer)?)).copied()
            });
            // A target that does not exist is told by the check.
            if let Some(target) = target {
                graph.edges[node].push(target);
                graph.conjuncts[node].push(target);
            }
        }
        graph
    }

    /// Checks the schema as a whole.
    ///
    /// # Errors
    /// If a reference leads nowhere, a chain of subschemas is too long, or numbers would have to be multiples of too large a
    /// number.
    pub(super) fn check(&self) -> Result<(), GrammarError> {
        self.check_references(self.parts[0], "", &self.anchors())?;
        let all = 0..self.parts.len();
        if walk_depth(self.parts.len(), all, &self.edges, MAX_CHAIN) > MAX_CHAIN {
            return Err(GrammarError::new(format!(
                "more than {MAX_CHAIN} parts of the schema lead to one another in a chain, through \
                 '$ref' or by nesting"
            )));
        }
        self.check_multiples()
    }

    /// Adds a schema and those nested in it; returns its node.
    fn add(&mut self, schema: &'s Value, nodes: &mut HashMap<usize, usize>) -> usize {
        let node = self.parts.len();
        self.parts.push(schema);
        self.edges.push(Vec::new());
        self.conjuncts.push(Vec::new());
        nodes.insert(address(schema), node);
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            let inner: Vec<&Value> = match (holds(keyword), value) {
                (Holds::Named, Value::Object(schemas)) => schemas.values().collect(),
                (Holds::Schemas, Value::Array(schemas)) => schemas.iter().collect(),
                (Holds::Schemas, schema) => vec![schema],
                _ => continue,
            };
            let is_definition = matches!(keyword.as_str(), "$defs" | "definitions");
            for schema in inner {
                let inner = self.add(schema, nodes);
                // Definitions are walked where they are referenced.
                if !is_definition {
                    self.edges[node].push(inner);
                }
                if keyword == "allOf" {
                    self.conjuncts[node].push(inner);
                }
            }
        }
        node
    }

    /// Checks the references of `schema`, which is at `path`, and of those within it.
    fn check_references(
        &self,
        schema: &Value,
        path: &str,
        anchors: &HashMap<String, usize>,
    ) -> Result<(), GrammarError> {
        let Some(keywords) = schema.as_object() else {
            return Ok(());
        };
        if let Some(name) = keywords.get("$ref").and_then(Value::as_str) {
            let pointer = name.strip_prefix('#').map(percent_decoded);
            let is_there = match pointer {
                Some(pointer) => {
                    anchors.contains_key(name) || self.parts[0].pointer(&pointer).is_some()
                }
                // The library joins it with the ids around it.
                None => anchors.keys().any(|id| id.ends_with(name)),
            };
            if !is_there {
                let name: String = name.chars().take(MAX_SHOWN).collect();
                let message = format!(
                    "its '$ref' \"{name}\" leads nowhere: it must point into this document, such as \
                     \"#/$defs/name\"; nothing else is fetched"
                );
                return Err(GrammarError::new(message).at(path));
            }
        }
        for (keyword, value) in keywords {
            let path = format!("{path}.{keyword}");
            match (holds(keyword), value) {
                (Holds::Named, Value::Object(schemas)) => {
                    for (name, schema) in schemas {
                        self.check_references(schema, &format!("{path}.{name}"), anchors)?;
                    }
                }
                (Holds::Schemas, Value::Array(schemas)) => {
                    for (idx, schema) in schemas.iter().enumerate() {
                        self.check_references(schema, &format!("{path}[{idx}]"), anchors)?;
                    }
                }
                (Holds::Schemas, schema) => self.check_references(schema, &path, anchors)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the names that `$ref` can use besides JSON pointers: `#name` and whole ids.
    fn anchors(&self) -> HashMap<String, usize> {
        let mut anchors = HashMap::new();
        for (node, part) in self.parts.iter().enumerate() {
            if let Some(name) = part.get("$anchor").and_then(Value::as_str) {
                anchors.insert(format!("#{name}"), node);
            }
            if let Some(id) = part.get("$id").and_then(Value::as_str) {
                anchors.insert(id.to_owned(), node);
            }
        }
        anchors
    }

    fn check_multiples(&self) -> Result<(), GrammarError> {
        let mut num_looks = 0;
        for start in 0..self.parts.len() {
            let mut multiple = 1_u64;
            let mut is_seen = HashSet::from([start]);
            let mut next = vec![start];
            while let Some(node) = next.pop() {
                num_looks += 1;
                if num_looks > MAX_LOOKS {
                    let message = "'allOf' and '$ref' combine too many parts of the schema";
                    return Err(GrammarError::new(message.to_owned()));
                }
                let divisor = self.parts[node]
                    .get("multipleOf")
                    .and_then(Value::as_number);
                if let Some(divisor) = divisor.and_then(without_tens) {
                    let shared = greatest_common_divisor(multiple, divisor);
                    multiple = (multiple / shared).saturating_mul(divisor);
                }
                let inner = self.conjuncts[node].iter().copied();
                next.extend(inner.filter(|inner| is_seen.insert(*inner)));
            }
            if multiple > MAX_MULTIPLE {
                return Err(GrammarError::new(format!(
                    "'multipleOf', or the least common multiple of several, is above {MAX_MULTIPLE} \
                     once factors of 2 and 5 are taken out"
                )));
            }
        }
        Ok(())
    }
}

/// Returns the digits of a number without factors of 2 and 5: 40, 0.4 and 1 all give 1. `None` for
/// 0.
fn without_tens(number: &Number) -> Option<u64> {
    let text = number.to_string();
    let digits = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    // More digits than a `u64` can hold count as its maximum.
    let mut digits = digits.parse::<u64>().unwrap_or(u64::MAX);
    if digits == 0 {
        return None;
    }
    for factor in [2, 5] {
        while digits.is_multiple_of(factor) {
            digits /= factor;
        }
    }
    Some(digits)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}

/// Returns the identity of a part, so that equal parts stay distinct.
fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

/// Decodes `%24defs` to `$defs`. Invalid escapes stay unchanged.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                decoded.push(code);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn check(schema: &Value) -> Result<(), GrammarError> {
        SchemaGraph::new(schema).check()
    }

    /// Returns a schema with `num_links` definitions, each leading to the next by `link`.
    fn chain(num_links: usize, link: impl Fn(&str) -> Value) -> Value {
        let mut definitions: Map<String, Value> = (0..num_links)
            .map(|n| (format!("d{n}"), link(&format!("#/$defs/d{}", n + 1))))
            .collect();
        definitions.insert(format!("d{num_links}"), json!({"type": "string"}));
        json!({"$defs": definitions, "$ref": "#/$defs/d0"})
    }

    #[test]
    fn chains_of_references_have_a_bound_whatever_they_go_through() {
        type Link = fn(&str) -> Value;
        let links: [(Link, usize); 5] = [
            (|next| json!({"$ref": next}), 1),
            (|next| json!({"properties": {"a": {"$ref": next}}}), 2),
            (|next| json!({"allOf": [{"$ref": next}]}), 2),
            (
                |next| json!({"anyOf": [{"type": "null"}, {"$ref": next}]}),
                2,
            ),
            (
                |next| json!({"items": {"$ref": next.replace('$', "%24")}}),
                2,
            ),
        ];
        for (link, per_link) in links {
            let fits = (MAX_CHAIN - 2) / per_link;
            assert_eq!(check(&chain(fits, link)), Ok(()));
            let error = check(&chain(fits + 1, link)).expect_err("one too many");
            assert!(error.message.contains("chain"), "{error:?}");
        }
        let anchored: Map<String, Value> = (0..2_000)
            .map(|n| {
                let next = format!("#a{}", (n + 1).min(1_999));
                let anchored = json!({"$anchor": format!("a{n}"), "$ref": next});
                (format!("d{n}"), anchored)
            })
            .collect();
        let error = check(&json!({"$defs": anchored})).expect_err("a chain of 2,000");
        assert!(error.message.contains("chain"), "{error:?}");
    }

    #[test]
    fn recursive_and_wide_schemas_are_taken() {
        let list = json!({
            "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
        });
        assert_eq!(check(&list), Ok(()));
        let wide: Map<String, Value> = (0..3_000)
            .map(|n| {
                (
                    format!("d{n}"),
                    json!({"properties": {"a": {"$ref": "#/$defs/d0"}}}),
                )
            })
            .collect();
        assert_eq!(check(&json!({"$defs": wide, "$ref": "#/$defs/d7"})), Ok(()));
        assert_eq!(check(&json!(true)), Ok(()));
    }

    #[test]
    fn references_lead_somewhere() {
        let with = |name: &str| {
            json!({
                "$defs": {"a b": {"$anchor": "here"}, "c": {"$id": "https://example.com/c.json"}},
                "items": {"$ref": name},
            })
        };
        for name in [
            "#",
            "#/$defs/a%20b",
            "#here",
            "c.json",
            "https://example.com/c.json",
        ] {
            assert_eq!(check(&with(name)), Ok(()), "{name}");
        }
        for name in ["#/$defs/d", "#there", "https://example.com/d.json"] {
            let error = check(&with(name)).expect_err(name);
            assert_eq!(error.path, ".items");
            assert!(error.message.contains(name), "{error:?}");
        }
    }

    #[test]
    fn multiples_that_hold_together_have_a_bound() {
        let of = |divisors: &[u64]| {
            let parts: Vec<_> = divisors.iter().map(|n| json!({"multipleOf": n})).collect();
            json!({"properties": {"a": {"allOf": parts}}})
        };
        assert_eq!(check(&of(&[10, 100, 1_000_000])), Ok(()));
        assert_eq!(check(&of(&[999, 65_536, 9])), Ok(()));
        for divisors in [
            &[9973, 9967][..],
            &[9973, 9967, 9949, 9941],
            &[1009, 1013],
            &[20_011],
        ] {
            let error = check(&of(divisors)).expect_err("too much to count");
            assert!(error.message.contains("multipleOf"), "{error:?}");
        }
        let through = json!({
            "multipleOf": 9973,
            "$ref": "#/$defs/b",
            "$defs": {"b": {"allOf": [{"multipleOf": 9967}]}},
        });
        assert!(check(&through).is_err());
        for divisors in [[0.9973, 0.9967], [99.73, 9.967]] {
            let parts = divisors.map(|divisor| json!({"multipleOf": divisor}));
            assert!(check(&json!({"allOf": parts})).is_err());
        }
        assert_eq!(check(&json!({"multipleOf": 0.01})), Ok(()));
        // One of the alternatives is enough.
        let either = json!({"anyOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]});
        assert_eq!(check(&either), Ok(()));
    }

    #[test]
    fn what_holds_together_is_looked_at_within_a_bound() {
        let mut schema = chain(400, |next| json!({"$ref": next}));
        let many = (0..1_000).map(|n| (format!("p{n}"), json!({"$ref": "#/$defs/d0"})));
        schema["properties"] = Value::Object(many.collect());
        let error = check(&schema).expect_err("400 parts for each of 1,400");
        assert!(error.message.contains("too many parts"), "{error:?}");
    }
}
