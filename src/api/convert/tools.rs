//! Tools that a request offers: what the prompt says of them, which calls count in the answer, and
//! what grammar they need.

use serde_json::{Map, Value, json};

use super::output::AskedGrammar;
use crate::api::error::ApiError;
use crate::api::types::{FunctionDefinition, JsonObject, ToolChoice, ToolDefinition};
use crate::text::{
    CallLimit, CallPlace, CallSyntax, GrammarSource, Tool, ToolFormat, check_schema, json_grammar,
};

#[cfg(test)]
mod tests;

const MAX_TOOLS: usize = 128;
const MAX_NAME: usize = 64;
/// Calls in one answer where a grammar keeps them: without an end, a model that is unsure calls
/// until its tokens run out.
const MAX_FORCED_CALLS: usize = 16;

/// The fields that speak of tools.
#[derive(Debug, Default)]
pub(in crate::api) struct ToolFields {
    pub(in crate::api) tools: Option<Vec<JsonObject<ToolDefinition>>>,
    pub(in crate::api) tool_choice: Option<ToolChoice>,
    pub(in crate::api) parallel_tool_calls: Option<bool>,
}

/// Tools that may be called, checked.
#[derive(Debug)]
pub(in crate::api) struct ToolPlan {
    functions: Vec<Function>,
    demand: Demand,
    limit: CallLimit,
    /// The model's own, where no grammar keeps calls to JSON.
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
    /// Any of them must be.
    Required,
    /// This one must be, once.
    Named(String),
}

/// Checks tools for a model that writes calls in this format; `None` where there are none, or none may be called: then the model is not told of
/// them and nothing in its answer is taken for a call.
///
/// # Errors
/// 400 that names the field.
pub(in crate::api) fn convert_tools(
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
    let is_finite = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(is_finite) {
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

/// `None` if nothing may be called.
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
    /// What of an answer is a call.
    pub(in crate::api) fn syntax(&self) -> CallSyntax {
        let tools = self.offered().map(|(_, function)| Tool {
            name: function.name.clone(),
            properties: function.properties(),
        });
        CallSyntax {
            tools: tools.collect(),
            limit: self.limit,
            place: match self.demand {
                // Elsewhere nothing would keep its arguments to the schema.
                Demand::Auto if self.is_strict() => CallPlace::Beginning,
                _ => CallPlace::Anywhere,
            },
        }
    }

    /// What the prompt says of the tools.
    pub(in crate::api) fn prompt(&self, asked: Option<&AskedGrammar>) -> String {
        let tools: Vec<Value> = self.functions.iter().map(Function::to_json).collect();
        self.format(asked).instructions(&tools)
    }

    /// How calls are written: as JSON where a grammar keeps them, else as the model likes.
    pub(in crate::api) fn format(&self, asked: Option<&AskedGrammar>) -> ToolFormat {
        match self.demand {
            Demand::Auto if asked.is_none() && !self.is_strict() => self.format,
            _ => ToolFormat::Json,
        }
    }

    /// The grammar of the whole answer: calls where they are demanded; where the model decides,
    /// calls or what was `asked` for otherwise, or prose if a function is strict.
    ///
    /// # Errors
    /// 400 if both calls and something else are demanded, or for a grammar that cannot stand beside
    /// calls.
    pub(in crate::api) fn grammar(
        &self,
        asked: Option<AskedGrammar>,
    ) -> Result<Option<AskedGrammar>, ApiError> {
        let other = match (&self.demand, asked) {
            (Demand::Auto, None) if self.is_strict() => {
                // What begins otherwise is no call, see `CallPlace::Beginning`.
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

    /// Functions that may be called, and their places among the request's.
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

/// A rule for what is asked for beside calls.
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

    /// As the prompt shows it.
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

    /// What its arguments keep to; always an object.
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
