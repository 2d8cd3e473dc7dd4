//! Example request bodies for the documentation.

use serde_json::{Map, Value, json};

/// An example body. A test checks that the server answers each of them.
#[derive(Clone, Copy)]
pub(crate) struct Example {
    /// Key of the example in the document.
    pub(crate) name: &'static str,
    /// One line about it.
    pub(crate) summary: &'static str,
    /// The body as JSON.
    pub(crate) body: &'static str,
}

/// Returns an OpenAPI map of Example Objects.
///
/// # Panics
/// If one of them is not valid JSON.
pub(super) fn described(examples: &[Example]) -> Map<String, Value> {
    let described = |example: &Example| {
        let value: Value = serde_json::from_str(example.body).expect("examples are JSON");
        let object = json!({ "summary": example.summary, "value": value });
        (example.name.to_owned(), object)
    };
    examples.iter().map(described).collect()
}
