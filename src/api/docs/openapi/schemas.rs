//! Collects the JSON schemas of the API types, each under one name.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::examples::Example;
use crate::api::http::refused_fields::RefusedField;

/// A request body: the types that are read from the same JSON object.
#[derive(Clone, Copy)]
pub(crate) struct Body {
    /// Name in the document.
    pub(crate) name: &'static str,
    /// `T::json_schema` of each type.
    pub(crate) parts: &'static [fn(&mut SchemaGenerator) -> Schema],
    /// Known fields that are refused.
    pub(crate) refused: &'static [&'static [RefusedField]],
    /// Example bodies.
    pub(crate) examples: &'static [Example],
}

/// The schemas collected so far.
pub(crate) struct Schemas {
    /// Schemas of request types: a field with a default may be absent.
    requests: SchemaGenerator,
    /// Schemas of response types: a field that is always written is required.
    answers: SchemaGenerator,
    /// Schemas of bodies, each of which combines several types.
    bodies: Map<String, Value>,
}

impl Schemas {
    pub(crate) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self {
            requests: settings.clone().for_deserialize().into_generator(),
            answers: settings.for_serialize().into_generator(),
            bodies: Map::new(),
        }
    }

    /// Returns a reference to the schema of `T` as a response type.
    pub(crate) fn answer<T: JsonSchema>(&mut self) -> Value {
        self.answers.subschema_for::<T>().to_value()
    }

    /// Returns a reference to the schema of a body.
    pub(crate) fn body(&mut self, body: &Body) -> Value {
        let reference = json!({ "$ref": format!("#/components/schemas/{}", body.name) });
        if self.bodies.contains_key(body.name) {
            return reference;
        }
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for part in body.parts {
            let mut schema = part(&mut self.requests);
            if let Some(Value::Object(more)) = schema.remove("properties") {
                let refused = |name: &str| {
                    let mut all = body.refused.iter().copied().flatten();
                    all.any(|field| field.name == name)
                };
                // Several bodies can share a type of which one body refuses some fields.
                for (name, property) in more.into_iter().filter(|(name, _)| !refused(name)) {
                    let before = properties.insert(name.clone(), property);
                    assert!(before.is_none(), "two types of {} read {name}", body.name);
                }
            }
            if let Some(Value::Array(more)) = schema.remove("required") {
                required.extend(more);
            }
        }
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!("object"));
        schema.insert("description".to_owned(), json!(description(body.refused)));
        schema.insert("properties".to_owned(), Value::Object(properties));
        if !required.is_empty() {
            schema.insert("required".to_owned(), Value::Array(required));
        }
        self.bodies
            .insert(body.name.to_owned(), Value::Object(schema));
        reference
    }

    /// Returns all schemas by name.
    pub(crate) fn into_components(mut self) -> Map<String, Value> {
        let mut all = self.requests.take_definitions(true);
        for (name, schema) in self.answers.take_definitions(true) {
            let before = all.insert(name.clone(), schema.clone());
            assert!(
                before.is_none_or(|before| before == schema),
                "{name} reads otherwise than it is written"
            );
        }
        for (name, schema) in self.bodies {
            let before = all.insert(name.clone(), schema);
            assert!(before.is_none(), "{name} is a body and a type");
        }
        all
    }
}

fn description(refused: &[&[RefusedField]]) -> String {
    let mut text = "null is the same as absent. Unknown fields are ignored.".to_owned();
    let names: Vec<_> = refused.iter().copied().flatten().map(named).collect();
    if !names.is_empty() {
        text.push_str(
            "\n\nKnown and not supported, answered with 400 and the field's name unless the value \
             is null or the one in brackets, which asks for nothing: ",
        );
        text.push_str(&names.join(", "));
        text.push('.');
    }
    text
}

fn named(field: &RefusedField) -> String {
    match field.neutral {
        [] => format!("`{}`", field.name),
        neutral => format!("`{}` (`{}`)", field.name, neutral.join("`, `")),
    }
}
