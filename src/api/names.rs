//! The client's names for what a chat that was translated from another API calls otherwise, so that
//! errors name what the client wrote.

use super::convert::OutputPlan;
use super::error::ApiError;

/// Of one translated request.
#[derive(Debug)]
pub(super) struct Names {
    /// Of each of the chat's messages, in order.
    messages: Vec<MessageNames>,
    /// The client's name of any other field of a chat, if it differs.
    field: fn(&str) -> Option<String>,
}

/// Of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct MessageNames {
    /// What became this message.
    pub(super) whole: String,
    /// What became its content.
    pub(super) content: String,
    /// What became each part of its content.
    pub(super) parts: Vec<String>,
}

impl Names {
    pub(super) fn new(messages: Vec<MessageNames>, field: fn(&str) -> Option<String>) -> Self {
        Self { messages, field }
    }

    /// The error as the client knows it.
    pub(super) fn rename(&self, error: ApiError) -> ApiError {
        error.renamed(|param| self.of(param))
    }

    /// The grammar's field as the client knows it, for when it cannot be compiled.
    pub(super) fn rename_grammar(&self, output: &mut OutputPlan) {
        if let Some(asked) = &mut output.grammar
            && let Some(name) = self.of(&asked.param)
        {
            asked.param = name;
        }
    }

    /// The client's name of a chat's field, if it differs.
    pub(super) fn of(&self, param: &str) -> Option<String> {
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

/// `name[7]rest` as 7 and `rest`.
fn index<'p>(param: &'p str, name: &str) -> Option<(usize, &'p str)> {
    let (number, rest) = param
        .strip_prefix(name)?
        .strip_prefix('[')?
        .split_once(']')?;
    Some((number.parse().ok()?, rest))
}

/// `tools[7].function.rest` as `tools[7].rest`, where the client's tools have no `function`, and
/// their schemas are called `schema`.
pub(super) fn flat_tool(param: &str, schema: &str) -> Option<String> {
    let (tool_idx, rest) = index(param, "tools")?;
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
            ("tools[0].type", None),
            ("tools", None),
        ] {
            assert_eq!(flat_tool(param, "input_schema").as_deref(), name, "{param}");
        }
    }
}
