//! Maps the field names of a chat to the client's names, for a chat that was translated from
//! another API. Errors then name the fields that the client wrote.

use super::output::OutputPlan;
use crate::api::http::error::ApiError;

/// The names for one translated request.
#[derive(Debug)]
pub(crate) struct Names {
    /// Names for each of the chat's messages, in order.
    messages: Vec<MessageNames>,
    /// Returns the client's name of any other chat field, if it differs.
    field: fn(&str) -> Option<String>,
}

/// The names for one message.
#[derive(Clone, Debug, Default)]
pub(crate) struct MessageNames {
    /// Path of the client's item that became this message.
    pub(crate) whole: String,
    /// Path of the item that became its content.
    pub(crate) content: String,
    /// Path of the item that became each part of its content.
    pub(crate) parts: Vec<String>,
}

impl Names {
    pub(crate) fn new(messages: Vec<MessageNames>, field: fn(&str) -> Option<String>) -> Self {
        Self { messages, field }
    }

    /// Renames the field in the error to the client's name.
    pub(crate) fn rename(&self, error: ApiError) -> ApiError {
        error.renamed(|param| self.of(param))
    }

    /// Renames the grammar's field to the client's name, for errors of its compilation.
    pub(crate) fn rename_grammar(&self, output: &mut OutputPlan) {
        if let Some(asked) = &mut output.grammar
            && let Some(name) = self.of(&asked.param)
        {
            asked.param = name;
        }
    }

    /// Returns the client's name of a chat's field, if it differs.
    pub(crate) fn of(&self, param: &str) -> Option<String> {
        let Some((message_idx, rest)) = index(param, "messages") else {
            return (self.field)(param);
        };
        let message = self.messages.get(message_idx)?;
        let name = match index(rest, ".content") {
            Some((part_idx, _)) => message
                .parts
                .get(part_idx)
                .unwrap_or(&message.content)
                .clone(),
            None if rest.starts_with(".content") => message.content.clone(),
            None if rest == ".role" => format!("{}.role", message.whole),
            None => message.whole.clone(),
        };
        Some(name)
    }
}

/// Splits `name[7]rest` into 7 and `rest`.
fn index<'p>(param: &'p str, name: &str) -> Option<(usize, &'p str)> {
    let (number, rest) = param
        .strip_prefix(name)?
        .strip_prefix('[')?
        .split_once(']')?;
    Some((number.parse().ok()?, rest))
}

/// Converts `tools[7].function.rest` to `tools[7].rest`, and `custom` likewise, for APIs whose tools
/// have no such object. `schema` is their name for `parameters`.
pub(crate) fn flat_tool(param: &str, schema: &str) -> Option<String> {
    let (tool_idx, rest) = index(param, "tools")?;
    if let Some(rest) = rest.strip_prefix(".custom") {
        let rest = rest.replace(".grammar", "");
        return Some(format!("tools[{tool_idx}]{rest}"));
    }
    let rest = rest.strip_prefix(".function")?;
    let rest = match rest.strip_prefix(".parameters") {
        Some(inside) => format!(".{schema}{inside}"),
        None => rest.to_owned(),
    };
    Some(format!("tools[{tool_idx}]{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_the_clients_name() {
        let message = MessageNames {
            whole: "input[4]".to_owned(),
            content: "input[4].content".to_owned(),
            parts: vec!["input[4].content[0]".to_owned(), "input[5]".to_owned()],
        };
        let field = |param: &str| (param == "stop").then(|| "stop_sequences".to_owned());
        let names = Names::new(vec![MessageNames::default(), message], field);
        for (param, name) in [
            ("messages[1]", Some("input[4]")),
            ("messages[1].role", Some("input[4].role")),
            ("messages[1].tool_calls[0].id", Some("input[4]")),
            ("messages[1].content", Some("input[4].content")),
            ("messages[1].content[1]", Some("input[5]")),
            ("messages[1].content[0].type", Some("input[4].content[0]")),
            ("messages[1].content[2]", Some("input[4].content")),
            ("messages[2]", None),
            ("stop", Some("stop_sequences")),
            ("temperature", None),
        ] {
            assert_eq!(names.of(param).as_deref(), name, "{param}");
        }
        for (param, name) in [
            (
                "tools[3].function.parameters.type",
                Some("tools[3].input_schema.type"),
            ),
            ("tools[0].function.name", Some("tools[0].name")),
            ("tools[0].custom.name", Some("tools[0].name")),
            (
                "tools[0].custom.format.grammar.syntax",
                Some("tools[0].format.syntax"),
            ),
            ("tools[0].type", None),
            ("tools", None),
        ] {
            assert_eq!(flat_tool(param, "input_schema").as_deref(), name, "{param}");
        }
    }
}
