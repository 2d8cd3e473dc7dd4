//! Tools in a prompt: their descriptions, and the format of calls and results of earlier turns.
//!
//! Gemma 3 was trained without a token for tools. This format is the one that Google's
//! documentation recommends: <https://ai.google.dev/gemma/docs/capabilities/function-calling>.

use std::mem;

use serde_json::{Map, Value};

use super::json_size::JsonSize;
use super::message::{Content, Part};
use crate::core::ToolFormat;

/// Maximum number of values in the arguments of one call of an earlier turn that are deserialized.
const MAX_ARGUMENT_VALUES: usize = 20_000;

/// A call of an earlier turn.
#[derive(Clone, Debug, PartialEq)]
pub struct PastCall {
    /// Name of the function.
    pub name: String,
    /// Its arguments, the text of a JSON object. Any other text goes into the prompt unchanged, such
    /// as the arguments of an answer that was cut off.
    pub arguments: String,
}

/// The result of a tool call of an earlier turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    /// Name of the function.
    pub name: String,
    /// The result, as the client sent it.
    pub text: String,
    /// Places of the images in it, each with its label.
    pub images: Vec<Part>,
}

impl ToolFormat {
    /// Returns the instructions that describe the tools to the model. Each tool is the text of an
    /// object with name, description and parameters.
    pub fn instructions(self, tools: &[String]) -> String {
        let form = match self {
            Self::Pythonic => {
                "[func_name1(params_name1=params_value1, params_name2=params_value2...), \
                 func_name2(params)]"
            }
            Self::Json => {
                "{\"name\": function name, \"parameters\": dictionary of argument name and its \
                 value}"
            }
        };
        format!(
            "You have access to functions. If you decide to invoke any of the function(s), you \
             MUST put it in the format of\n{form}\n\nYou SHOULD NOT include any other text in the \
             response if you call a function\n[{}]",
            tools.join(",\n")
        )
    }

    /// Formats calls as the model itself would have written them. Each call is freed as soon as it
    /// is written: its arguments may be long.
    pub fn calls(self, calls: Vec<PastCall>) -> String {
        let is_list = self == Self::Pythonic || calls.len() != 1;
        let mut text = String::new();
        text.push_str(if is_list { "[" } else { "" });
        for (call_idx, call) in calls.into_iter().enumerate() {
            text.push_str(if call_idx > 0 { ", " } else { "" });
            match self {
                Self::Pythonic => write_pythonic(&call, &mut text),
                Self::Json => write_json(&call, &mut text),
            }
        }
        text.push_str(if is_list { "]" } else { "" });
        text
    }
}

/// Formats results for a user turn: each in a code fence, with the function's name if there are
/// several. The images of a result follow its fence.
pub fn tool_results(results: Vec<ToolResult>) -> Content {
    let is_alone = results.len() == 1;
    let mut parts: Vec<Part> = Vec::new();
    for ToolResult { name, text, images } in results {
        let block = match is_alone {
            true => format!("```tool_output\n{text}\n```"),
            false => format!("```tool_output\n{name}: {text}\n```"),
        };
        match parts.last_mut() {
            Some(Part::Text(before)) => {
                before.push('\n');
                before.push_str(&block);
            }
            Some(Part::Image) | None => parts.push(Part::Text(block)),
        }
        parts.extend(images);
    }
    match parts.as_mut_slice() {
        [Part::Text(text)] => Content::Text(mem::take(text)),
        _ => Content::Parts(parts),
    }
}

fn write_pythonic(call: &PastCall, text: &mut String) {
    text.push_str(&call.name);
    text.push('(');
    match named_arguments(&call.arguments) {
        None => text.push_str(&call.arguments),
        Some(arguments) => {
            let arguments = arguments.iter();
            let arguments: Vec<String> = arguments
                .map(|(name, value)| format!("{name}={}", literal(value)))
                .collect();
            text.push_str(&arguments.join(", "));
        }
    }
    text.push(')');
}

fn write_json(call: &PastCall, text: &mut String) {
    let name = Value::from(call.name.as_str());
    text.push_str(&format!("{{\"name\": {name}, \"parameters\": "));
    match named_arguments(&call.arguments) {
        None => text.push_str(&call.arguments),
        Some(arguments) => text.push_str(&spaced(&Value::Object(arguments))),
    }
    text.push('}');
}

/// Deserializes arguments; `None` if they are not a JSON object, or have more values than a model
/// would write. For a function without parameters, some clients send an empty string.
fn named_arguments(text: &str) -> Option<Map<String, Value>> {
    if text.trim().is_empty() {
        return Some(Map::new());
    }
    let size = JsonSize::of(text);
    if size.num_values > MAX_ARGUMENT_VALUES {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Formats a value as a Python literal. Strings are the same in Python and JSON.
fn literal(value: &Value) -> String {
    let each = |values: &[Value]| -> Vec<String> { values.iter().map(literal).collect() };
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(values) => format!("[{}]", each(values).join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields: Vec<String> = fields
                .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), literal(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// Formats JSON with a space after commas and colons, as models write it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(spaced).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields: Vec<String> = fields
                .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), spaced(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::answer::{AnswerPart, CallKind};
    use super::super::tool_calls::{CallForm, CallLimit, CallParser, CallPlace, CallSyntax, Tool};
    use super::*;

    fn call(name: &str, arguments: Value) -> PastCall {
        PastCall {
            name: name.to_owned(),
            arguments: arguments.to_string(),
        }
    }

    #[test]
    fn earlier_calls_look_like_the_models_own() {
        let calls = [
            call("f", json!({"a": 1, "b": ["x\"\n", null, {"c": true}]})),
            call("g", json!({})),
        ];
        assert_eq!(
            ToolFormat::Pythonic.calls(calls.to_vec()),
            "[f(a=1, b=[\"x\\\"\\n\", None, {\"c\": True}]), g()]"
        );
        assert_eq!(
            ToolFormat::Json.calls(calls.to_vec()),
            "[{\"name\": \"f\", \"parameters\": {\"a\": 1, \"b\": [\"x\\\"\\n\", null, \
             {\"c\": true}]}}, {\"name\": \"g\", \"parameters\": {}}]"
        );
        assert_eq!(
            ToolFormat::Json.calls(calls[1..].to_vec()),
            "{\"name\": \"g\", \"parameters\": {}}"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let calls = [
            call(
                "f",
                json!({"a": -1.5, "b": ["\u{1}é\\", null, {"c": false}]}),
            ),
            call("g", json!({})),
        ];
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            kind: CallKind::Function,
            properties: Vec::new(),
        };
        for format in [ToolFormat::Pythonic, ToolFormat::Json] {
            let mut parser = CallParser::new(CallSyntax {
                tools: Arc::new([tool("f"), tool("g")]),
                limit: CallLimit::Several,
                place: CallPlace::Anywhere,
                form: CallForm::Free,
            });
            let mut parts = Vec::new();
            parser.push(&format.calls(calls.to_vec()), &mut parts);
            parser.finish(&mut parts);
            let read: Vec<_> = parts
                .chunks(2)
                .map(|parts| match parts {
                    [
                        AnswerPart::CallBegins { name, .. },
                        AnswerPart::CallArguments(json),
                    ] => call(name, serde_json::from_str(json).expect("JSON")),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(read, calls, "{format:?}");
        }
    }

    #[test]
    fn a_prompt_names_the_form_and_each_tool() {
        let tools = [
            json!({"name": "f", "parameters": {"type": "object"}}).to_string(),
            json!({"name": "g"}).to_string(),
        ];
        let told = ToolFormat::Pythonic.instructions(&tools);
        assert!(told.contains("\n[func_name1(params_name1="), "{told}");
        assert!(
            told.ends_with(
                "\n[{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}},\n{\"name\":\"g\"}]"
            ),
            "{told}"
        );
        let told = ToolFormat::Json.instructions(&tools);
        assert!(told.contains("\n{\"name\": function name, "), "{told}");
    }

    #[test]
    fn several_results_say_whose_they_are() {
        let result = |name: &str| ToolResult {
            name: name.to_owned(),
            text: "21 °C".to_owned(),
            images: Vec::new(),
        };
        let text = |text: &str| Content::Text(text.to_owned());
        assert_eq!(
            tool_results(vec![result("f")]),
            text("```tool_output\n21 °C\n```")
        );
        assert_eq!(
            tool_results(vec![result("f"), result("g")]),
            text("```tool_output\nf: 21 °C\n```\n```tool_output\ng: 21 °C\n```")
        );
    }

    #[test]
    fn the_images_of_a_result_follow_it() {
        let result = |name: &str, images: Vec<Part>| ToolResult {
            name: name.to_owned(),
            text: "a film".to_owned(),
            images,
        };
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(
            tool_results(vec![
                result("f", vec![Part::Image, Part::Image]),
                result("g", Vec::new()),
                result("h", vec![Part::Image]),
            ]),
            Content::Parts(vec![
                text("```tool_output\nf: a film\n```"),
                Part::Image,
                Part::Image,
                text("```tool_output\ng: a film\n```\n```tool_output\nh: a film\n```"),
                Part::Image,
            ])
        );
    }
}
