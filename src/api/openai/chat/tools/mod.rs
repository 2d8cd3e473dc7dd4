//! Converts the tools of a request: their description in the prompt, the calls that are recognized
//! in the answer, and the grammar that they need.

use serde_json::{Map, Value, json};

use super::tool_types::{FunctionDefinition, ToolChoice, ToolDefinition};
use crate::api::generate::output::AskedGrammar;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::text::{
    CallLimit, CallPlace, CallSyntax, GrammarSource, Tool, ToolFormat, check_schema, json_grammar,
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
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
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
    let kind = function
        .parameters
        .as_ref()
        .and_then(|schema| schema.get("type"));
    if let Some(kind) = kind
        && kind != "object"
    {
        return Err(ApiError::invalid_value(
            format!("{path}.parameters.type"),
            "A function's parameters must be an object: its schema's type must be \"object\".",
        ));
    }
    Ok(Function {
        name: function.name,
        description: function.description,
        parameters: function.parameters,
        is_strict: function.strict.unwrap_or(false),
    })
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
            properties: function.properties(),
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
        let tools: Vec<Value> = self.functions.iter().map(Function::to_json).collect();
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
            let schema = function.schema();
            check_schema(&schema).map_err(|error| {
                let param = format!("tools[{idx}].function.parameters{}", error.path);
                let message = format!("'{param}' cannot constrain an answer: {}.", error.message);
                ApiError::invalid_value(param, message)
            })?;
            let schema = json_grammar(&schema);
            lark.push_str(&format!(
                "\ncall_{idx}: \"{{\\\"name\\\": \\\"{name}\\\", \\\"parameters\\\": \" \
                 arguments_{idx} \"}}\"\narguments_{idx}: %json {schema}"
            ));
        }
        lark.push('\n');
        Ok(Some(AskedGrammar {
            param: "tools".to_owned(),
            source: GrammarSource::Lark(lark),
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
            let object = json_grammar(&json!({"type": "object"}));
            Ok(format!("document: %json {object}"))
        }
        GrammarSource::JsonSchema(schema) => {
            check_schema(&schema).map_err(|error| {
                let param = format!("{}{}", asked.param, error.path);
                let message = format!("'{param}' cannot constrain an answer: {}.", error.message);
                ApiError::invalid_value(param, message)
            })?;
            Ok(format!("document: %json {}", json_grammar(&schema)))
        }
        GrammarSource::Regex(_) | GrammarSource::Choice(_) | GrammarSource::Lark(_) => {
            let message = format!(
                "'{}' cannot be combined with 'tools': only JSON can. Leave one of them out, or \
                 send 'tool_choice': \"none\".",
                asked.param
            );
            Err(ApiError::contradiction(asked.param, message))
        }
    }
}

impl Function {
    fn properties(&self) -> Vec<String> {
        let properties = self.parameters.as_ref();
        let properties = properties.and_then(|schema| schema.get("properties"));
        let properties = properties.and_then(Value::as_object);
        properties.map_or(Vec::new(), |all| all.keys().cloned().collect())
    }

    /// Returns the function as the prompt shows it.
    fn to_json(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("name".to_owned(), json!(self.name));
        if let Some(description) = &self.description {
            shown.insert("description".to_owned(), json!(description));
        }
        if let Some(parameters) = &self.parameters {
            shown.insert("parameters".to_owned(), Value::Object(parameters.clone()));
        }
        Value::Object(shown)
    }

    /// Returns the schema of its arguments, which is always an object.
    fn schema(&self) -> Value {
        let Some(parameters) = &self.parameters else {
            return json!({"type": "object", "properties": {}, "additionalProperties": false});
        };
        let mut schema = parameters.clone();
        let says_otherwise = ["type", "anyOf", "oneOf", "allOf", "$ref"];
        if says_otherwise
            .iter()
            .all(|name| !schema.contains_key(*name))
        {
            schema.insert("type".to_owned(), json!("object"));
        }
        Value::Object(schema)
    }
}
