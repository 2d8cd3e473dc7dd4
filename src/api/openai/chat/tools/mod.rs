//! Converts the tools of a request: their description in the prompt, the calls that are recognized
//! in the answer, and the grammar that they need.

use serde_json::{Map, Value, json};

use super::tool_types::{FunctionDefinition, ToolChoice, ToolDefinition};
use crate::api::generate::output::AskedGrammar;
use crate::api::generate::types::json_text::ObjectText;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::core::ToolFormat;
use crate::text::{
    CallLimit, CallPlace, CallSyntax, GrammarSource, Tool, check_schema, check_schema_size,
    json_grammar,
};

#[cfg(test)]
mod tests;

const MAX_TOOLS: usize = 128;
const MAX_NAME: usize = 64;
/// Maximum number of calls in one answer under a grammar. Without a limit, an unsure model repeats
/// calls until its tokens run out.
const MAX_FORCED_CALLS: usize = 16;

/// The request fields for tools.
#[derive(Debug, Default)]
pub(crate) struct ToolFields {
    pub(crate) tools: Option<Vec<JsonObject<ToolDefinition>>>,
    pub(crate) tool_choice: Option<ToolChoice>,
    pub(crate) parallel_tool_calls: Option<bool>,
}

/// Checked tools that may be called.
#[derive(Debug)]
pub(crate) struct ToolPlan {
    functions: Vec<Function>,
    demand: Demand,
    limit: CallLimit,
    /// The model's own format, used if no grammar requires JSON.
    format: ToolFormat,
}

#[derive(Debug)]
struct Function {
    name: String,
    /// The function as the prompt shows it, the text of an object.
    shown: String,
    /// Names of the parameters.
    properties: Vec<String>,
    /// Text of the schema of its arguments, which is always an object.
    schema: String,
    is_strict: bool,
}

/// Whether a tool must be called.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    /// The model decides.
    Auto,
    /// At least one tool must be called.
    Required,
    /// This tool must be called, once.
    Named(String),
}

/// Checks tools for a model that writes calls in this format. Returns `None` if there are none, or
/// none may be called. In that case the prompt does not describe them, and nothing in the answer is
/// parsed as a call.
///
/// # Errors
/// 400 that names the field.
pub(crate) fn convert_tools(
    fields: ToolFields,
    format: ToolFormat,
) -> Result<Option<ToolPlan>, ApiError> {
    let functions = functions(fields.tools.unwrap_or_default())?;
    let demand = match fields.tool_choice {
        None => Some(Demand::Auto),
        Some(choice) => demand(choice, &functions)?,
    };
    if functions.is_empty() {
        if fields.parallel_tool_calls == Some(false) {
            return Err(ApiError::contradiction(
                "parallel_tool_calls",
                "'parallel_tool_calls' needs 'tools'.",
            ));
        }
        return Ok(None);
    }
    let parallel = fields.parallel_tool_calls.unwrap_or(true);
    Ok(demand.map(|demand| ToolPlan {
        functions,
        limit: match (&demand, parallel) {
            (Demand::Auto | Demand::Required, true) => CallLimit::Several,
            (Demand::Auto | Demand::Required, false) | (Demand::Named(_), _) => CallLimit::One,
        },
        demand,
        format,
    }))
}

fn functions(tools: Vec<JsonObject<ToolDefinition>>) -> Result<Vec<Function>, ApiError> {
    if tools.len() > MAX_TOOLS {
        let message = format!(
            "'tools' takes up to {MAX_TOOLS} tools, got {}.",
            tools.len()
        );
        return Err(ApiError::invalid_value("tools", message));
    }
    let mut functions: Vec<Function> = Vec::with_capacity(tools.len());
    for (tool_idx, JsonObject(tool)) in tools.into_iter().enumerate() {
        let path = format!("tools[{tool_idx}]");
        if tool.kind != "function" {
            let message = format!(
                "A tool's type must be function; '{}' is not supported by this server.",
                tool.kind
            );
            return Err(ApiError::unsupported(format!("{path}.type"), message));
        }
        let path = format!("{path}.function");
        let Some(JsonObject(function)) = tool.function else {
            return Err(ApiError::missing(path));
        };
        let function = check_function(&path, function)?;
        if functions.iter().any(|known| known.name == function.name) {
            let message = format!("The function '{}' is given twice.", function.name);
            return Err(ApiError::invalid_value(format!("{path}.name"), message));
        }
        functions.push(function);
    }
    Ok(functions)
}

fn check_function(path: &str, function: FunctionDefinition) -> Result<Function, ApiError> {
    let name = &function.name;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(is_allowed) {
        let message = format!(
            "A function's name must be 1–{MAX_NAME} letters, digits, underscores and hyphens."
        );
        return Err(ApiError::invalid_value(format!("{path}.name"), message));
    }
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
    let mut shown = Map::new();
    shown.insert("name".to_owned(), json!(function.name));
    if let Some(description) = function.description {
        shown.insert("description".to_owned(), Value::String(description));
    }
    if let Some(parameters) = parameters {
        shown.insert("parameters".to_owned(), Value::Object(parameters));
    }
    Ok(Function {
        name: function.name,
        shown: Value::Object(shown).to_string(),
        properties,
        schema,
        is_strict: function.strict.unwrap_or(false),
    })
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
fn arguments_schema(parameters: Option<&Map<String, Value>>) -> String {
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

/// Converts `tool_choice`; `None` if no tool may be called.
fn demand(choice: ToolChoice, functions: &[Function]) -> Result<Option<Demand>, ApiError> {
    let demand = match choice {
        ToolChoice::Word(word) => match word.as_str() {
            "none" => return Ok(None),
            "auto" => Demand::Auto,
            "required" => Demand::Required,
            _ => {
                return Err(ApiError::invalid_value(
                    "tool_choice",
                    "'tool_choice' must be none, auto, required or an object that names a \
                     function.",
                ));
            }
        },
        ToolChoice::Named(named) => {
            if named.kind != "function" {
                let message = format!(
                    "A tool choice's type must be function; '{}' is not supported by this server.",
                    named.kind
                );
                return Err(ApiError::unsupported("tool_choice.type", message));
            }
            match named.function {
                Some(JsonObject(function)) => Demand::Named(function.name),
                None => return Err(ApiError::missing("tool_choice.function")),
            }
        }
    };
    if functions.is_empty() {
        return Err(ApiError::contradiction(
            "tool_choice",
            "'tool_choice' needs 'tools'.",
        ));
    }
    match &demand {
        Demand::Named(name) if functions.iter().all(|function| function.name != *name) => {
            Err(ApiError::invalid_value(
                "tool_choice.function.name",
                "'tool_choice' names a function that is not among 'tools'.",
            ))
        }
        _ => Ok(Some(demand)),
    }
}

impl ToolPlan {
    /// Returns which parts of an answer are parsed as calls.
    pub(crate) fn syntax(&self) -> CallSyntax {
        let tools = self.offered().map(|(_, function)| Tool {
            name: function.name.clone(),
            properties: function.properties.clone(),
        });
        CallSyntax {
            tools: tools.collect(),
            limit: self.limit,
            place: match self.demand {
                // Elsewhere the grammar would not constrain the arguments to the schema.
                Demand::Auto if self.is_strict() => CallPlace::Beginning,
                _ => CallPlace::Anywhere,
            },
        }
    }

    /// Returns the description of the tools for the prompt.
    pub(crate) fn prompt(&self, asked: Option<&AskedGrammar>) -> String {
        let functions = self.functions.iter();
        let tools: Vec<String> = functions.map(|function| function.shown.clone()).collect();
        self.format(asked).instructions(&tools)
    }

    /// Returns the format of calls: JSON if a grammar constrains them, else the model's own.
    pub(crate) fn format(&self, asked: Option<&AskedGrammar>) -> ToolFormat {
        match self.demand {
            Demand::Auto if asked.is_none() && !self.is_strict() => self.format,
            _ => ToolFormat::Json,
        }
    }

    /// Returns the grammar of the whole answer. If calls are required, it allows only calls. If the
    /// model decides, it allows calls or the format that was `asked` for; without such a format, it
    /// allows calls or prose if a function is strict.
    ///
    /// # Errors
    /// 400 if both calls and another format are required, or for a grammar that cannot be combined
    /// with calls.
    pub(crate) fn grammar(
        &self,
        asked: Option<AskedGrammar>,
    ) -> Result<Option<AskedGrammar>, ApiError> {
        let other = match (&self.demand, asked) {
            (Demand::Auto, None) if self.is_strict() => {
                // An answer that begins otherwise contains no calls, see `CallPlace::Beginning`.
                Some("prose\nprose: PROSE?\nPROSE: /[^\\[{`\\s](.|\\n)*/".to_owned())
            }
            (Demand::Auto, None) => return Ok(None),
            (Demand::Auto, Some(asked)) => Some(format!("document\n{}", document(asked)?)),
            (Demand::Required | Demand::Named(_), None) => None,
            (Demand::Required | Demand::Named(_), Some(asked)) => {
                let message = format!(
                    "'tool_choice' demands a call, so that the answer cannot be what '{}' asks \
                     for. Leave one of them out.",
                    asked.param
                );
                return Err(ApiError::contradiction(asked.param, message));
            }
        };
        let mut lark = match self.limit {
            CallLimit::One => "start: call".to_owned(),
            CallLimit::Several => format!(
                "start: call | \"[\" call (\", \" call)~0..{} \"]\"",
                MAX_FORCED_CALLS - 1
            ),
        };
        if let Some(other) = other {
            lark.push_str(&format!(" | {other}"));
        }
        lark.push_str("\ncall: ");
        let names = self.offered().map(|(idx, _)| format!("call_{idx}"));
        let names: Vec<String> = names.collect();
        lark.push_str(&names.join(" | "));
        for (idx, function) in self.offered() {
            let name = &function.name;
            let param = format!("tools[{idx}].function.parameters");
            let schema = checked_grammar(&param, &function.schema)?;
            lark.push_str(&format!(
                "\ncall_{idx}: \"{{\\\"name\\\": \\\"{name}\\\", \\\"parameters\\\": \" \
                 arguments_{idx} \"}}\"\narguments_{idx}: %json {schema}"
            ));
        }
        lark.push('\n');
        Ok(Some(AskedGrammar {
            param: "tools".to_owned(),
            source: GrammarSource::Calls(lark),
        }))
    }

    /// Returns the functions that may be called, with their indexes in the request.
    fn offered(&self) -> impl Iterator<Item = (usize, &Function)> {
        let all = self.functions.iter().enumerate();
        all.filter(|(_, function)| match &self.demand {
            Demand::Named(name) => function.name == *name,
            Demand::Auto | Demand::Required => true,
        })
    }

    fn is_strict(&self) -> bool {
        self.functions.iter().any(|function| function.is_strict)
    }
}

/// Returns a rule for the format that is allowed besides calls.
fn document(asked: AskedGrammar) -> Result<String, ApiError> {
    match asked.source {
        GrammarSource::JsonObject => {
            let object = checked_grammar(&asked.param, r#"{"type":"object"}"#)?;
            Ok(format!("document: %json {object}"))
        }
        GrammarSource::JsonSchema(schema) => {
            let schema = checked_grammar(&asked.param, &schema)?;
            Ok(format!("document: %json {schema}"))
        }
        GrammarSource::Regex(_)
        | GrammarSource::Choice(_)
        | GrammarSource::Lark(_)
        | GrammarSource::Calls(_) => {
            let message = format!(
                "'{}' cannot be combined with 'tools': only JSON can. Leave one of them out, or \
                 send 'tool_choice': \"none\".",
                asked.param
            );
            Err(ApiError::contradiction(asked.param, message))
        }
    }
}

/// Returns the schema in the field `param` as Lark's `%json` takes it.
fn checked_grammar(param: &str, schema: &str) -> Result<Value, ApiError> {
    let checked = check_schema(schema).and_then(|()| json_grammar(schema));
    checked.map_err(|error| {
        let param = format!("{param}{}", error.path);
        let message = format!("'{param}' cannot constrain an answer: {}.", error.message);
        ApiError::invalid_value(param, message)
    })
}
