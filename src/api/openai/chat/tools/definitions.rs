//! Checks the tools of a request: what the prompt shows of each, and the schema of its arguments.

use serde_json::{Map, Value, json};

use crate::api::generate::types::json_text::ObjectText;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::tool_types::{
    CUSTOM_INPUT, CustomDefinition, CustomFormat, FunctionDefinition, ToolDefinition,
};
use crate::text::{CallKind, check_schema_size};

/// Far more than a prompt has room for; it bounds the work on a list of nothing but names.
pub(super) const MAX_TOOLS: usize = 1024;
pub(super) const MAX_NAME: usize = 128;

/// A checked tool, which the model knows as a function.
#[derive(Debug)]
pub(super) struct Function {
    /// Its index in the request.
    pub(super) tool_idx: usize,
    pub(super) name: String,
    pub(super) kind: CallKind,
    /// The function as the prompt shows it, the text of an object.
    pub(super) shown: String,
    /// Names of the parameters.
    pub(super) properties: Vec<String>,
    /// Text of the schema of its arguments, which is always an object.
    pub(super) schema: String,
    pub(super) is_strict: bool,
}

/// Checks tools.
///
/// # Errors
/// 400 that names the field.
pub(super) fn functions(tools: Vec<JsonObject<ToolDefinition>>) -> Result<Vec<Function>, ApiError> {
    if tools.len() > MAX_TOOLS {
        let message = format!(
            "'tools' takes up to {MAX_TOOLS} tools, got {}.",
            tools.len()
        );
        return Err(ApiError::invalid_value("tools", message));
    }
    let mut functions: Vec<Function> = Vec::with_capacity(tools.len());
    for (tool_idx, JsonObject(tool)) in tools.into_iter().enumerate() {
        if tool.is_left_out {
            continue;
        }
        let path = format!("tools[{tool_idx}]");
        let (path, function) = match tool.kind.as_str() {
            "function" => {
                let path = format!("{path}.function");
                let Some(JsonObject(function)) = tool.function else {
                    return Err(ApiError::missing(path));
                };
                let function = check_function(tool_idx, &path, function)?;
                (path, function)
            }
            "custom" => {
                let path = format!("{path}.custom");
                let Some(JsonObject(custom)) = tool.custom else {
                    return Err(ApiError::missing(path));
                };
                let function = check_custom(tool_idx, &path, custom)?;
                (path, function)
            }
            kind => {
                let message = format!(
                    "A tool's type must be function or custom; '{kind}' is not supported by this \
                     server."
                );
                return Err(ApiError::unsupported(format!("{path}.type"), message));
            }
        };
        if functions.iter().any(|known| known.name == function.name) {
            let message = format!("The function '{}' is given twice.", function.name);
            return Err(ApiError::invalid_value(format!("{path}.name"), message));
        }
        functions.push(function);
    }
    Ok(functions)
}

fn check_name(path: &str, name: &str) -> Result<(), ApiError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_allowed) {
        return Ok(());
    }
    let message = format!(
        "A function's name must be 1–{MAX_NAME} letters, digits, underscores, hyphens and dots."
    );
    Err(ApiError::invalid_value(format!("{path}.name"), message))
}

fn check_function(
    tool_idx: usize,
    path: &str,
    function: FunctionDefinition,
) -> Result<Function, ApiError> {
    check_name(path, &function.name)?;
    let param = format!("{path}.parameters");
    let parameters = match function.parameters {
        None => None,
        Some(ObjectText(text)) => Some(parameters(&param, &text)?),
    };
    let properties = parameters
        .as_ref()
        .and_then(|schema| schema.get("properties")?.as_object())
        .map_or(Vec::new(), |all| all.keys().cloned().collect());
    let schema = arguments_schema(parameters.as_ref());
    Ok(Function {
        tool_idx,
        shown: shown(&function.name, function.description, parameters),
        name: function.name,
        kind: CallKind::Function,
        properties,
        schema,
        is_strict: function.strict.unwrap_or(false),
    })
}

/// Checks a custom tool: for the model, a function whose only argument is the text.
fn check_custom(
    tool_idx: usize,
    path: &str,
    custom: CustomDefinition,
) -> Result<Function, ApiError> {
    check_name(path, &custom.name)?;
    let form = match custom.format {
        None => None,
        Some(JsonObject(format)) => form(&format!("{path}.format"), format)?,
    };
    let texts = custom.description.into_iter().chain(form);
    let description = texts.collect::<Vec<_>>().join("\n\n");
    let parameters = json!({
        "type": "object",
        "properties": {CUSTOM_INPUT: {"type": "string"}},
        "required": [CUSTOM_INPUT],
        "additionalProperties": false,
    });
    let parameters = parameters.as_object().cloned().unwrap_or_default();
    let schema = arguments_schema(Some(&parameters));
    let description = Some(description).filter(|text| !text.is_empty());
    Ok(Function {
        tool_idx,
        shown: shown(&custom.name, description, Some(parameters)),
        name: custom.name,
        kind: CallKind::Custom,
        properties: vec![CUSTOM_INPUT.to_owned()],
        schema,
        is_strict: false,
    })
}

/// Returns what the model is told of the form of a custom tool's text.
fn form(path: &str, format: CustomFormat) -> Result<Option<String>, ApiError> {
    let grammar = match (format.kind.as_str(), format.grammar) {
        ("text", _) => return Ok(None),
        ("grammar", None) => return Err(ApiError::missing(format!("{path}.grammar"))),
        ("grammar", Some(JsonObject(grammar))) => grammar,
        (kind, _) => {
            let message = format!("'{path}.type' must be text or grammar, got '{kind}'.");
            return Err(ApiError::invalid_value(format!("{path}.type"), message));
        }
    };
    if !matches!(grammar.syntax.as_str(), "lark" | "regex") {
        let param = format!("{path}.grammar.syntax");
        let message = format!("'{param}' must be lark or regex, got '{}'.", grammar.syntax);
        return Err(ApiError::invalid_value(param, message));
    }
    Ok(Some(format!(
        "The text must have the form of this {} grammar:\n{}",
        grammar.syntax, grammar.definition
    )))
}

fn shown(
    name: &str,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
) -> String {
    let mut shown = Map::new();
    shown.insert("name".to_owned(), json!(name));
    if let Some(description) = description {
        shown.insert("description".to_owned(), Value::String(description));
    }
    if let Some(parameters) = parameters {
        shown.insert("parameters".to_owned(), Value::Object(parameters));
    }
    Value::Object(shown).to_string()
}

/// Deserializes the schema of a function's parameters, the field `param`.
fn parameters(param: &str, text: &str) -> Result<Map<String, Value>, ApiError> {
    check_schema_size(text).map_err(|error| {
        let message = format!("'{param}' is too large: {}.", error.message);
        ApiError::invalid_value(param, message)
    })?;
    let schema: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        let message = format!("'{param}' is not valid JSON: {error}.");
        ApiError::invalid_value(param, message)
    })?;
    if schema.get("type").is_some_and(|kind| kind != "object") {
        return Err(ApiError::invalid_value(
            format!("{param}.type"),
            "A function's parameters must be an object: its schema's type must be \"object\".",
        ));
    }
    Ok(schema)
}

/// Returns the schema of a function's arguments.
pub(super) fn arguments_schema(parameters: Option<&Map<String, Value>>) -> String {
    let Some(parameters) = parameters else {
        return r#"{"type":"object","properties":{},"additionalProperties":false}"#.to_owned();
    };
    let says_otherwise = ["type", "anyOf", "oneOf", "allOf", "$ref"];
    let mut schema = json!(parameters);
    if says_otherwise
        .iter()
        .all(|name| !parameters.contains_key(*name))
    {
        schema["type"] = json!("object");
    }
    schema.to_string()
}
