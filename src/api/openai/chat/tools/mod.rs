//! Converts the tools of a request: their description in the prompt, the calls that are recognized
//! in the answer, and the grammar that they need.

mod choice;
mod definitions;

use serde_json::Value;

use self::choice::{Demand, demand};
use self::definitions::{Function, functions};
use super::tool_types::{ToolChoice, ToolDefinition};
use crate::api::generate::output::AskedGrammar;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::core::ToolFormat;
use crate::text::{
    CallForm, CallLimit, CallPlace, CallSyntax, GrammarSource, Tool, check_schema, json_grammar,
};

#[cfg(test)]
mod tests;

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
    let mut functions = functions(fields.tools.unwrap_or_default())?;
    let demand = match fields.tool_choice {
        None => Some(Demand::Auto),
        Some(choice) => demand(choice, &mut functions)?,
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

impl ToolPlan {
    /// Returns which parts of an answer are parsed as calls.
    pub(crate) fn syntax(&self) -> CallSyntax {
        let tools = self.offered().map(|function| Tool {
            name: function.name.clone(),
            kind: function.kind,
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
            form: match self.demand {
                Demand::Auto if !self.is_strict() => CallForm::Free,
                _ => CallForm::Grammar,
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
    /// 400 for a grammar that cannot be combined with calls.
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
            // The answer is a call, whatever its text would have been, as in vLLM.
            (Demand::Required | Demand::Named(_), _) => None,
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
        let names = (self.offered()).map(|function| format!("call_{}", function.tool_idx));
        let names: Vec<String> = names.collect();
        lark.push_str(&names.join(" | "));
        for function in self.offered() {
            let (idx, name) = (function.tool_idx, &function.name);
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

    /// Returns the functions that may be called.
    fn offered(&self) -> impl Iterator<Item = &Function> {
        (self.functions.iter()).filter(|function| match &self.demand {
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
        | GrammarSource::Gbnf(_)
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
