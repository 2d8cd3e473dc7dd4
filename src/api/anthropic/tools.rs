//! Converts Anthropic's tools to those of a chat.

use super::request::{InputTool, InputToolChoice};
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::request::ChatRequest;
use crate::api::openai::chat::tool_types::{
    FunctionDefinition, NamedFunction, NamedToolChoice, ToolChoice, ToolDefinition,
};

/// Kinds of Anthropic's tools that search for the model. Beside tools of the client's own they are
/// left out: an answer without a search is what a model may decide on too.
const SEARCHES: [&str; 2] = ["web_search_", "web_fetch_"];

/// Converts tool definitions.
///
/// # Errors
/// 400 for tools that the server would have to run, and for those without a schema.
pub(super) fn tools(
    tools: Vec<JsonObject<InputTool>>,
) -> Result<Vec<JsonObject<ToolDefinition>>, ApiError> {
    let is_own = |kind: &Option<String>| kind.as_deref().is_none_or(|kind| kind == "custom");
    let has_own = tools.iter().any(|JsonObject(tool)| is_own(&tool.kind));
    let tools = tools.into_iter().enumerate();
    tools
        .map(|(tool_idx, JsonObject(tool))| {
            let path = format!("tools[{tool_idx}]");
            let kind = tool.kind.as_deref().unwrap_or_default();
            if has_own && SEARCHES.iter().any(|search| kind.starts_with(search)) {
                return Ok(JsonObject(ToolDefinition {
                    is_left_out: true,
                    ..ToolDefinition::default()
                }));
            }
            if let Some(kind) = tool.kind.filter(|kind| kind != "custom") {
                return Err(ApiError::unsupported(
                    format!("{path}.type"),
                    format!(
                        "This server has no tools of its own: '{kind}' is not supported. Declare \
                         the tool with a name and an input_schema."
                    ),
                ));
            }
            let Some(schema) = tool.input_schema else {
                return Err(ApiError::missing(format!("{path}.input_schema")));
            };
            Ok(JsonObject(ToolDefinition {
                kind: "function".to_owned(),
                function: Some(JsonObject(FunctionDefinition {
                    name: tool.name,
                    description: tool.description,
                    parameters: Some(schema),
                    strict: tool.strict,
                })),
                ..ToolDefinition::default()
            }))
        })
        .collect()
}

/// Sets which tools must be called, and whether several calls are allowed.
///
/// # Errors
/// 400 for an unknown choice.
pub(super) fn choose(choice: InputToolChoice, chat: &mut ChatRequest) -> Result<(), ApiError> {
    let word = |word: &str| ToolChoice::Word(word.to_owned());
    chat.tool_choice = Some(match choice.kind.as_str() {
        "auto" => word("auto"),
        "any" => word("required"),
        "none" => word("none"),
        "tool" => {
            let name = (choice.name).ok_or_else(|| ApiError::missing("tool_choice.name"))?;
            ToolChoice::Named(NamedToolChoice {
                kind: "function".to_owned(),
                function: Some(JsonObject(NamedFunction { name })),
                ..NamedToolChoice::default()
            })
        }
        kind => {
            return Err(ApiError::invalid_value(
                "tool_choice.type",
                format!("'tool_choice.type' must be auto, any, tool or none, got '{kind}'."),
            ));
        }
    });
    chat.parallel_tool_calls = choice.disable_parallel_tool_use.map(|disable| !disable);
    Ok(())
}
