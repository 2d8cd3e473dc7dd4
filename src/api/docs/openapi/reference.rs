//! Renders the document as an HTML page for people.
//!
//! Converts the document to the values that the page's template shows, and adds no text of its own.
//! The version is left out, because the page is open to all and `/version` is not.

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;
use serde_json::Value;

use crate::web::REFERENCE;

/// Prefix of references to schemas in the document.
const SCHEMAS: &str = "#/components/schemas/";

/// The file extension turns on autoescaping.
const TEMPLATE: &str = "reference.html";

/// A piece of text with one style.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Piece {
    text: String,
    look: Look,
}

/// The style of a piece.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Look {
    Plain,
    Code,
    /// The name of a schema, linked to its description.
    Schema,
}

/// The values for the template.
#[derive(Serialize)]
struct Page {
    about: Vec<Piece>,
    operations: Vec<Operation>,
    objects: Vec<Object>,
}

#[derive(Serialize)]
struct Operation {
    id: String,
    method: String,
    path: String,
    /// The same path without `/v1`.
    also: Option<String>,
    summary: String,
    is_open: bool,
    parameters: Vec<String>,
    body: Option<Object>,
    body_name: Option<String>,
    examples: Vec<Example>,
    answers: Vec<Answer>,
    errors: Vec<(String, String)>,
}

/// The content of a response with status 200, by media type.
#[derive(Serialize)]
struct Answer {
    media_type: String,
    kind: Vec<Piece>,
}

#[derive(Serialize)]
struct Example {
    summary: String,
    command: String,
}

/// A schema.
#[derive(Serialize)]
struct Object {
    name: String,
    about: Vec<Piece>,
    /// The description after the first paragraph.
    more: Vec<Piece>,
    fields: Vec<Field>,
    /// Its type, if it has no fields.
    kind: Vec<Piece>,
    choices: Vec<Vec<Field>>,
}

#[derive(Serialize)]
struct Field {
    name: String,
    is_required: bool,
    kind: Vec<Piece>,
    limits: Vec<String>,
    about: Vec<Piece>,
}

/// Renders the page.
///
/// # Panics
/// If the template does not fit its values; a test renders it.
pub(super) fn render(document: &Value) -> String {
    let schemas = &document["components"]["schemas"];
    let operations = operations(document);
    let bodies: Vec<_> = operations
        .iter()
        .filter_map(|operation| operation.body_name.clone())
        .collect();
    let others = schemas.as_object().into_iter().flatten();
    let objects: Vec<_> = others
        .filter(|(name, _)| !bodies.contains(name))
        .map(|(name, schema)| object(name, schema))
        .collect();
    let mut env = Environment::new();
    env.add_template(TEMPLATE, REFERENCE)
        .expect("the template is well formed");
    let template = env.get_template(TEMPLATE).expect("it was added");
    let about = pieces(text(&document["info"]["description"]));
    let page = Page {
        about,
        operations,
        objects,
    };
    template
        .render(Serde(page))
        .expect("the template takes what it is given")
}

fn operations(document: &Value) -> Vec<Operation> {
    let schemas = &document["components"]["schemas"];
    let paths = document["paths"].as_object().expect("a document has paths");
    let mut operations: Vec<Operation> = Vec::new();
    for (path, item) in paths {
        for (method, described) in item.as_object().into_iter().flatten() {
            let id = text(&described["operationId"]);
            // The same operation under another path, shown together with the first.
            if let Some(id) = id.strip_suffix("WithoutV1") {
                let first = operations.iter_mut().find(|operation| operation.id == id);
                first.expect("it comes first").also = Some(path.clone());
                continue;
            }
            operations.push(operation(path, method, described, schemas));
        }
    }
    operations
}

fn operation(path: &str, method: &str, described: &Value, schemas: &Value) -> Operation {
    let media = &described["requestBody"]["content"]["application/json"];
    let body_name = media["schema"]["$ref"].as_str().map(schema_name);
    let responses = described["responses"].as_object();
    let responses = responses.expect("an operation has responses");
    let content = described["responses"]["200"]["content"].as_object();
    let answers = content.into_iter().flatten().map(|(media_type, content)| {
        let event = &content["schema"]["properties"]["data"];
        let schema = match media_type.as_str() {
            "text/event-stream" => &event_schema(event)["contentSchema"]["anyOf"][0],
            _ => &content["schema"],
        };
        Answer {
            media_type: media_type.clone(),
            kind: kind(schema),
        }
    });
    let errors = responses.iter().filter(|(status, _)| *status != "200");
    let parameters = described["parameters"].as_array().into_iter().flatten();
    let examples = media["examples"].as_object().into_iter().flatten();
    Operation {
        id: text(&described["operationId"]).to_owned(),
        method: method.to_uppercase(),
        path: path.to_owned(),
        also: None,
        summary: text(&described["summary"]).to_owned(),
        is_open: described["security"] == Value::Array(Vec::new()),
        parameters: parameters
            .map(|parameter| text(&parameter["name"]).to_owned())
            .collect(),
        body: body_name.as_ref().map(|name| object(name, &schemas[name])),
        body_name,
        examples: examples
            .map(|(_, example)| Example {
                summary: text(&example["summary"]).to_owned(),
                command: command(path, &example["value"]),
            })
            .collect(),
        answers: answers.collect(),
        errors: errors
            .map(|(status, error)| (status.clone(), text(&error["description"]).to_owned()))
            .collect(),
    }
}

/// Returns the schema of an event's data, which is either alone or an alternative to `[DONE]`.
fn event_schema(data: &Value) -> &Value {
    match data["anyOf"].as_array() {
        Some(choices) => choices.last().expect("there are choices"),
        None => data,
    }
}

fn command(path: &str, body: &Value) -> String {
    let json = serde_json::to_string_pretty(body).expect("JSON serialises");
    format!(
        "curl http://127.0.0.1:8000{path} \\\n  -H 'Content-Type: application/json' \\\n  \
         -H \"Authorization: Bearer $MEDGEMMA_API_KEY\" \\\n  -d @- <<'END'\n{json}\nEND"
    )
}

fn object(name: &str, schema: &Value) -> Object {
    let about = text(&schema["description"]);
    let (about, more) = about.split_once("\n\n").unwrap_or((about, ""));
    let choices: Vec<_> = schema["oneOf"]
        .as_array()
        .or(schema["anyOf"].as_array())
        .into_iter()
        .flatten()
        .filter(|choice| choice["properties"].is_object())
        .map(fields)
        .collect();
    Object {
        name: name.to_owned(),
        about: pieces(about),
        more: pieces(more),
        fields: fields(schema),
        kind: match schema["properties"].is_object() || !choices.is_empty() {
            true => Vec::new(),
            false => {
                let mut kind = kind(schema);
                kind.extend(
                    limits(schema)
                        .into_iter()
                        .map(|limit| plain(&format!(", {limit}"))),
                );
                kind
            }
        },
        choices,
    }
}

fn fields(schema: &Value) -> Vec<Field> {
    let required = schema["required"].as_array();
    let is_required =
        |name: &str| required.is_some_and(|names| names.iter().any(|one| one == name));
    let properties = schema["properties"].as_object().into_iter().flatten();
    let field = |(name, property): (&String, &Value)| Field {
        name: name.clone(),
        is_required: is_required(name),
        kind: kind(property),
        limits: limits(property),
        about: pieces(text(&property["description"])),
    };
    properties.map(field).collect()
}

/// Describes the type of a value.
fn kind(schema: &Value) -> Vec<Piece> {
    if let Some(reference) = schema["$ref"].as_str() {
        let text = schema_name(reference);
        let look = Look::Schema;
        return vec![Piece { text, look }];
    }
    let choices = ["anyOf", "oneOf", "allOf"]
        .iter()
        .find_map(|key| schema[key].as_array());
    if let Some(choices) = choices {
        let kinds = choices.iter().map(kind).filter(|kind| !kind.is_empty());
        return joined(kinds, " or ");
    }
    if let Some(only) = schema.get("const") {
        return vec![code(&only.to_string())];
    }
    let names = match &schema["type"] {
        Value::Array(names) => names.iter().map(text).collect(),
        Value::String(name) => vec![name.as_str()],
        _ => vec!["any JSON"],
    };
    let kinds = names
        .into_iter()
        .filter(|name| *name != "null")
        .map(|name| {
            let inner = match name {
                "array" => schema["items"].is_object().then(|| &schema["items"]),
                "object" => values(schema),
                _ => None,
            };
            let mut kind = vec![plain(name)];
            if let Some(inner) = inner {
                kind.push(plain(" of "));
                kind.extend(self::kind(inner));
            }
            kind
        });
    joined(kinds, " or ")
}

/// Returns the schema of the values of an object without named fields.
fn values(schema: &Value) -> Option<&Value> {
    let by_pattern = schema["patternProperties"].as_object();
    by_pattern
        .and_then(|patterns| patterns.values().next())
        .or(schema.get("additionalProperties"))
        .filter(|values| values.is_object())
}

fn joined(kinds: impl Iterator<Item = Vec<Piece>>, between: &str) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for kind in kinds {
        if !all.is_empty() {
            all.push(plain(between));
        }
        all.extend(kind);
    }
    all
}

/// Returns the restrictions on a value.
fn limits(schema: &Value) -> Vec<String> {
    const BOUNDS: [(&str, &str); 8] = [
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("minLength", "characters: at least"),
        ("maxLength", "characters: at most"),
        ("minItems", "items: at least"),
        ("maxItems", "items: at most"),
        ("pattern", "matches"),
    ];
    let mut limits = Vec::new();
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().filter(|value| !value.is_null());
        let values: Vec<_> = values.map(Value::to_string).collect();
        limits.push(format!("one of {}", values.join(", ")));
    }
    for (key, words) in BOUNDS {
        if let Some(bound) = schema.get(key) {
            let bound = bound
                .as_str()
                .map_or_else(|| bound.to_string(), str::to_owned);
            limits.push(format!("{words} {bound}"));
        }
    }
    if let Some(default) = schema.get("default") {
        limits.push(format!("default {default}"));
    }
    limits
}

/// Splits text with `code` in it into pieces.
fn pieces(text: &str) -> Vec<Piece> {
    let pieces = text
        .split('`')
        .enumerate()
        .map(|(index, text)| match index % 2 {
            0 => plain(text),
            _ => code(text),
        });
    pieces.filter(|piece| !piece.text.is_empty()).collect()
}

fn plain(text: &str) -> Piece {
    let text = text.to_owned();
    let look = Look::Plain;
    Piece { text, look }
}

fn code(text: &str) -> Piece {
    let text = text.to_owned();
    let look = Look::Code;
    Piece { text, look }
}

fn schema_name(reference: &str) -> String {
    reference.trim_start_matches(SCHEMAS).to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
