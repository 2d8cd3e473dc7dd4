//! Finds the part of a schema that cannot be compiled, and says why in the schema's own terms.

use serde_json::{Map, Value, json};

use super::compiler::GrammarError;
use super::schema::{Holds, holds};

/// Maximum number of parts that are compiled to find the fault.
const MAX_TRIES: usize = 200;
/// The place of the whole document while one of its parts is compiled.
const WHOLE: &str = "x-document";

/// What the library's messages say, by words that are in them. The first that fits counts.
const REASONS: [(&str, &str); 14] = [
    ("nsatisfiable", "no value can satisfy it"),
    (
        "oneOf",
        "'oneOf' is supported only where it is certain that at most one alternative holds: use 'anyOf'",
    ),
    (
        "min/maxProperties",
        "'minProperties' and 'maxProperties' are supported only where every property that is named \
         is required",
    ),
    ("does not exist", REFERENCE),
    (
        "disjoint",
        "two patterns of 'patternProperties' can match the same name, which is not supported",
    ),
    ("regex", PATTERN),
    ("Regex", PATTERN),
    ("pattern", PATTERN),
    ("look-around", PATTERN),
    (
        "multipleOf",
        "'multipleOf' is not supported with this number",
    ),
    (
        "integer range",
        "its bounds leave no integer of at most 18 digits",
    ),
    ("float range", "its bounds leave no number"),
    ("efinition", REFERENCE),
    ("esourc", REFERENCE),
];
const PATTERN: &str = "its 'pattern' is not a regular expression that is supported: it must be valid, \
                       without look-arounds and back-references";
const REFERENCE: &str = "its '$ref' leads nowhere: it must point into this document, such as \
                         \"#/$defs/name\"; nothing else is fetched";
const BOUNDS: &str =
    "its bounds leave only numbers of more than 18 digits, which are not supported";
const TOO_LARGE: &str = "it takes too much to compile: make it smaller, or its lengths and numbers of \
                         items shorter";
const OTHER: &str = "it cannot be followed; leave out keywords until it can";

/// Returns the innermost part of `schema` for which `compile` fails, and why. `error` is the library's
/// message about the whole.
pub(super) fn fault(
    schema: &Value,
    error: &str,
    compile: impl Fn(&Value) -> Result<(), String>,
) -> GrammarError {
    let mut search = Search {
        root: schema,
        compile,
        num_tries: 0,
    };
    let (path, error) = search.innermost(schema, "", "", error.to_owned());
    GrammarError::new(reason(&error).to_owned()).at(&path)
}

/// Returns what a message of the library says, in the schema's own terms.
pub(super) fn reason(error: &str) -> &'static str {
    let is_number = ["target type", "verflow", "Failed to parse"];
    if is_number.iter().any(|word| error.contains(word)) {
        return BOUNDS;
    }
    let is_limit = [
        "too large",
        "too many",
        "limit",
        "fuel",
        "exceeded",
        "too complex",
    ];
    if is_limit.iter().any(|word| error.contains(word)) {
        return TOO_LARGE;
    }
    let known = REASONS.iter().find(|(word, _)| error.contains(word));
    known.map_or(OTHER, |(_, reason)| reason)
}

struct Search<'s, C> {
    root: &'s Value,
    compile: C,
    num_tries: usize,
}

impl<C: Fn(&Value) -> Result<(), String>> Search<'_, C> {
    /// Returns the path of the innermost faulty part of `part`, which is at `path` and `pointer` and is
    /// faulty itself for the reason `error`.
    fn innermost(
        &mut self,
        part: &Value,
        path: &str,
        pointer: &str,
        error: String,
    ) -> (String, String) {
        for (keyword, value) in part.as_object().into_iter().flatten() {
            let inner: Vec<(String, String, &Value)> = match (holds(keyword), value) {
                (Holds::Named, Value::Object(schemas)) => schemas
                    .iter()
                    .map(|(name, schema)| {
                        let escaped = name.replace('~', "~0").replace('/', "~1");
                        (
                            format!(".{keyword}.{name}"),
                            format!("/{keyword}/{escaped}"),
                            schema,
                        )
                    })
                    .collect(),
                (Holds::Schemas, Value::Array(schemas)) => schemas
                    .iter()
                    .enumerate()
                    .map(|(idx, schema)| {
                        (
                            format!(".{keyword}[{idx}]"),
                            format!("/{keyword}/{idx}"),
                            schema,
                        )
                    })
                    .collect(),
                (Holds::Schemas, schema) => {
                    vec![(format!(".{keyword}"), format!("/{keyword}"), schema)]
                }
                _ => continue,
            };
            for (inner_path, inner_pointer, schema) in inner {
                // What may be absent, or never holds, is no fault.
                if !schema.is_object() || self.num_tries == MAX_TRIES {
                    continue;
                }
                self.num_tries += 1;
                let path = format!("{path}{inner_path}");
                let pointer = format!("{pointer}{inner_pointer}");
                if let Err(own) = (self.compile)(&self.alone(&pointer))
                    && (reason(&own) == reason(&error) || reason(&own) != REFERENCE)
                {
                    return self.innermost(schema, &path, &pointer, own);
                }
            }
        }
        (path.to_owned(), error)
    }

    /// Returns a schema that is only the part at `pointer`, with the document's definitions.
    fn alone(&self, pointer: &str) -> Value {
        let mut alone = Map::new();
        for definitions in ["$defs", "definitions"] {
            if let Some(schemas) = self.root.get(definitions) {
                alone.insert(definitions.to_owned(), schemas.clone());
            }
        }
        alone.insert(WHOLE.to_owned(), self.root.clone());
        alone.insert("$ref".to_owned(), json!(format!("#/{WHOLE}{pointer}")));
        Value::Object(alone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_part_that_fails_is_found() {
        let schema = json!({
            "$defs": {"ok": {"type": "string"}},
            "properties": {"a/b": {"$ref": "#/$defs/ok"}, "c": {"items": {"anyOf": [{}, {"bad": 1}]}}},
        });
        // Fails for every schema around the bad part.
        let compile = |alone: &Value| {
            let pointer = alone["$ref"].as_str().expect("a pointer");
            let part = alone.pointer(&pointer[1..]).expect("it is there");
            match part.to_string().contains("bad") {
                true => Err("Unsatisfiable schema: x".to_owned()),
                false => Ok(()),
            }
        };
        let found = fault(&schema, "some error", compile);
        assert_eq!(found.path, ".properties.c.items.anyOf[1]");
        assert_eq!(found.message, "no value can satisfy it");
        let whole = fault(&schema, "some error", |_| Ok(()));
        assert_eq!((whole.path.as_str(), whole.message.as_str()), ("", OTHER));
    }
}
