//! Converts the tools of a response request to those of a chat.

use super::request::{
    AllowedByName, CustomToolFormat, FunctionByName, FunctionChoice, FunctionTool,
};
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::tool_types::{
    AllowedTool, AllowedTools, CustomDefinition, CustomFormat, CustomGrammar, FunctionDefinition,
    NamedFunction, NamedToolChoice, ToolChoice, ToolDefinition,
};

/// Whether a type names one of OpenAI's own tools that is left out beside tools of the client's own,
/// as coding agents list them: an answer without a search is what a model may decide on too.
fn may_be_left_out(kind: &str) -> bool {
    kind.starts_with("web_search") || kind == "local_shell"
}

/// Converts tool definitions.
///
/// # Errors
/// 400 for tools that the server would have to run.
pub(super) fn tools(
    tools: Vec<JsonObject<FunctionTool>>,
) -> Result<Vec<JsonObject<ToolDefinition>>, ApiError> {
    let is_own = |tool: &FunctionTool| matches!(tool.kind.as_str(), "function" | "custom");
    let has_own = tools.iter().any(|JsonObject(tool)| is_own(tool));
    let tools = tools.into_iter().enumerate();
    tools
        .map(|(tool_idx, JsonObject(tool))| {
            let path = format!("tools[{tool_idx}]");
            match tool.kind.as_str() {
                "function" => function(&path, tool),
                "custom" => custom(&path, tool),
                kind if has_own && may_be_left_out(kind) => Ok(ToolDefinition {
                    is_left_out: true,
                    ..ToolDefinition::default()
                }),
                kind => Err(ApiError::unsupported(
                    format!("{path}.type"),
                    format!(
                        "This server has no tools of its own: '{kind}' is not supported. Declare a \
                         function."
                    ),
                )),
            }
            .map(JsonObject)
        })
        .collect()
}

fn function(path: &str, tool: FunctionTool) -> Result<ToolDefinition, ApiError> {
    Ok(ToolDefinition {
        kind: "function".to_owned(),
        function: Some(JsonObject(FunctionDefinition {
            name: name(path, tool.name)?,
            description: tool.description,
            parameters: tool.parameters,
            strict: tool.strict,
        })),
        ..ToolDefinition::default()
    })
}

fn custom(path: &str, tool: FunctionTool) -> Result<ToolDefinition, ApiError> {
    let format = match tool.format {
        None => None,
        Some(JsonObject(format)) => Some(JsonObject(custom_format(path, format)?)),
    };
    Ok(ToolDefinition {
        kind: "custom".to_owned(),
        custom: Some(JsonObject(CustomDefinition {
            name: name(path, tool.name)?,
            description: tool.description,
            format,
        })),
        ..ToolDefinition::default()
    })
}

fn custom_format(path: &str, format: CustomToolFormat) -> Result<CustomFormat, ApiError> {
    let missing = |name: &str| ApiError::missing(format!("{path}.format.{name}"));
    let grammar = match format.kind.as_str() {
        "grammar" => Some(JsonObject(CustomGrammar {
            syntax: format.syntax.ok_or_else(|| missing("syntax"))?,
            definition: format.definition.ok_or_else(|| missing("definition"))?,
        })),
        _ => None,
    };
    Ok(CustomFormat {
        kind: format.kind,
        grammar,
    })
}

fn name(path: &str, name: Option<String>) -> Result<String, ApiError> {
    name.ok_or_else(|| ApiError::missing(format!("{path}.name")))
}

/// Converts the tool choice.
///
/// # Errors
/// 400 for an unsupported choice.
pub(super) fn tool_choice(choice: FunctionChoice) -> Result<ToolChoice, ApiError> {
    let named = match choice {
        FunctionChoice::Mode(word) => return Ok(ToolChoice::Word(word)),
        FunctionChoice::Named(named) => named,
    };
    match named.kind.as_str() {
        "function" | "custom" => {
            let tool = allowed_tool(
                "tool_choice",
                AllowedByName {
                    kind: named.kind,
                    name: named.name,
                },
            )?;
            Ok(ToolChoice::Named(NamedToolChoice {
                kind: tool.kind,
                function: tool.function,
                custom: tool.custom,
                allowed_tools: None,
            }))
        }
        "allowed_tools" => allowed_tools(named),
        kind => Err(ApiError::unsupported(
            "tool_choice.type",
            format!(
                "'tool_choice' must be none, auto, required, a function, a custom tool or \
                 allowed_tools; '{kind}' is not supported by this server."
            ),
        )),
    }
}

fn allowed_tools(named: FunctionByName) -> Result<ToolChoice, ApiError> {
    let mode = (named.mode).ok_or_else(|| ApiError::missing("tool_choice.mode"))?;
    let tools = (named.tools).ok_or_else(|| ApiError::missing("tool_choice.tools"))?;
    let tools = tools.into_iter().enumerate();
    let tools = tools.filter(|(_, JsonObject(tool))| !may_be_left_out(&tool.kind));
    let tools = tools.map(|(tool_idx, JsonObject(tool))| {
        allowed_tool(&format!("tool_choice.tools[{tool_idx}]"), tool).map(JsonObject)
    });
    Ok(ToolChoice::Named(NamedToolChoice {
        kind: named.kind,
        allowed_tools: Some(JsonObject(AllowedTools {
            mode,
            tools: tools.collect::<Result<_, _>>()?,
        })),
        ..NamedToolChoice::default()
    }))
}

fn allowed_tool(path: &str, tool: AllowedByName) -> Result<AllowedTool, ApiError> {
    let named = || -> Result<_, ApiError> {
        let name = name(path, tool.name.clone())?;
        Ok(Some(JsonObject(NamedFunction { name })))
    };
    let (function, custom) = match tool.kind.as_str() {
        "function" => (named()?, None),
        "custom" => (None, named()?),
        // Refused by the chat, which knows the list.
        _ => (None, None),
    };
    Ok(AllowedTool {
        kind: tool.kind,
        function,
        custom,
    })
}
