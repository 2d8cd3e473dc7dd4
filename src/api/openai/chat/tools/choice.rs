//! Converts `tool_choice`: whether a tool must be called, and which may be.

use super::definitions::Function;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::openai::chat::tool_types::{
    AllowedTool, AllowedTools, NamedFunction, NamedToolChoice, ToolChoice,
};
use crate::text::CallKind;

/// Whether a tool must be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// The model decides.
    Auto,
    /// At least one tool must be called.
    Required,
    /// This tool must be called, once.
    Named(String),
}

/// Converts `tool_choice`, and leaves only those `functions` that may be called; `None` if no tool
/// may be.
///
/// # Errors
/// 400 that names the field.
pub(super) fn demand(
    choice: ToolChoice,
    functions: &mut Vec<Function>,
) -> Result<Option<Demand>, ApiError> {
    let choice = match choice {
        ToolChoice::Word(word) if word == "none" => return Ok(None),
        choice if functions.is_empty() => {
            check_kind(&choice)?;
            return Err(ApiError::contradiction(
                "tool_choice",
                "'tool_choice' needs 'tools'.",
            ));
        }
        ToolChoice::Word(word) => return mode("tool_choice", &word).map(Some),
        ToolChoice::Named(named) => named,
    };
    match choice.kind.as_str() {
        "allowed_tools" => {
            let path = "tool_choice.allowed_tools";
            let JsonObject(allowed) =
                (choice.allowed_tools).ok_or_else(|| ApiError::missing(path))?;
            allow(path, allowed, functions).map(Some)
        }
        _ => {
            let tool = AllowedTool {
                kind: choice.kind,
                function: choice.function,
                custom: choice.custom,
            };
            named("tool_choice", tool, functions).map(|name| Some(Demand::Named(name)))
        }
    }
}

/// Checks what can be said of a choice without tools.
fn check_kind(choice: &ToolChoice) -> Result<(), ApiError> {
    match choice {
        ToolChoice::Word(word) => mode("tool_choice", word).map(drop),
        ToolChoice::Named(NamedToolChoice { kind, .. }) => match kind.as_str() {
            "function" | "custom" | "allowed_tools" => Ok(()),
            kind => Err(unknown_kind("tool_choice", kind)),
        },
    }
}

fn mode(path: &str, word: &str) -> Result<Demand, ApiError> {
    match word {
        "auto" => Ok(Demand::Auto),
        "required" => Ok(Demand::Required),
        _ if path == "tool_choice" => Err(ApiError::invalid_value(
            path,
            "'tool_choice' must be none, auto, required or an object that names a tool.",
        )),
        _ => Err(ApiError::invalid_value(
            path,
            format!("'{path}' must be auto or required, got '{word}'."),
        )),
    }
}

fn allow(
    path: &str,
    allowed: AllowedTools,
    functions: &mut Vec<Function>,
) -> Result<Demand, ApiError> {
    let demand = mode(&format!("{path}.mode"), &allowed.mode)?;
    let mut names = Vec::with_capacity(allowed.tools.len());
    for (tool_idx, JsonObject(tool)) in allowed.tools.into_iter().enumerate() {
        names.push(named(
            &format!("{path}.tools[{tool_idx}]"),
            tool,
            functions,
        )?);
    }
    if names.is_empty() {
        return Err(ApiError::invalid_value(
            format!("{path}.tools"),
            "There must be an allowed tool. Send 'tool_choice': \"none\" to allow none.",
        ));
    }
    functions.retain(|function| names.contains(&function.name));
    Ok(demand)
}

/// Returns the name of a chosen tool.
fn named(path: &str, tool: AllowedTool, functions: &[Function]) -> Result<String, ApiError> {
    let (field, kind, chosen) = match tool.kind.as_str() {
        "function" => ("function", CallKind::Function, tool.function),
        "custom" => ("custom", CallKind::Custom, tool.custom),
        kind => return Err(unknown_kind(path, kind)),
    };
    let path = format!("{path}.{field}");
    let Some(JsonObject(NamedFunction { name })) = chosen else {
        return Err(ApiError::missing(path));
    };
    let is_known = |function: &Function| function.name == name && function.kind == kind;
    match functions.iter().any(is_known) {
        true => Ok(name),
        false => Err(ApiError::invalid_value(
            format!("{path}.name"),
            "'tool_choice' names a function that is not among 'tools'.",
        )),
    }
}

fn unknown_kind(path: &str, kind: &str) -> ApiError {
    let message = format!(
        "A tool choice's type must be function, custom or allowed_tools; '{kind}' is not supported \
         by this server."
    );
    ApiError::unsupported(format!("{path}.type"), message)
}
