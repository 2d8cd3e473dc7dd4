//! Reads calls that are written as a JSON object or a Python dict.
//!
//! ```text
//! {"name": "f", "parameters": {"a": 1}}                        under many names, in any order
//! {"type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}
//! {"tool_calls": [{"name": "f", "arguments": {"a": 1}}, …]}
//! ```

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::arguments::CallStatus;
use super::json_text::quoted;
use super::literal::{LiteralReader, LiteralStatus};
use super::{Call, CallKind, Tool, find_tool};

/// Maximum depth of objects around a call.
const MAX_DEPTH: usize = 4;

/// The names of a function's name. An object that has `name` alone is a call without arguments.
const NAMES: [&str; 6] = [
    "name",
    "function",
    "function_name",
    "tool",
    "tool_name",
    "action",
];
/// Fields with one of few values, which are looked at before the object ends.
const WORDS: [(&str, &[&str]); 2] = [
    (
        "type",
        &["function", "function_call", "tool_call", "tool_use"],
    ),
    ("role", &["assistant"]),
];
/// Names of the arguments that grammars use.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];
/// All other fields that an object with calls may have.
const OTHERS: [&str; 15] = [
    "arguments",
    "parameters",
    "args",
    "input",
    "tool_input",
    "action_input",
    "id",
    "call_id",
    "tool_call_id",
    "index",
    "content",
    "tool_call",
    "function_call",
    "tool_calls",
    "function_calls",
];

/// What such an object holds. Other fields make it something else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "function_name", alias = "tool_name", alias = "action")]
    tool: Option<Cow<'a, str>>,
    /// The function's name, or the name and the arguments as OpenAI's API has them.
    #[serde(borrow)]
    function: Option<&'a RawValue>,
    #[serde(
        borrow,
        alias = "parameters",
        alias = "args",
        alias = "input",
        alias = "tool_input",
        alias = "action_input"
    )]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, alias = "function_calls")]
    tool_calls: Option<Vec<&'a RawValue>>,
    #[serde(borrow, alias = "function_call")]
    tool_call: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
    #[serde(rename = "id", alias = "call_id", alias = "tool_call_id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "index")]
    _index: Option<IgnoredAny>,
}

/// Reads one object, from its `{` on.
#[derive(Debug, Default)]
pub(super) struct ObjectReader {
    literal: LiteralReader,
}

impl ObjectReader {
    /// Creates a reader whose `{` was already read.
    pub(super) fn opened() -> Self {
        let mut literal = LiteralReader::default();
        literal.push('{');
        Self { literal }
    }

    /// Takes the next character. With the last one, the object's calls are appended to `calls`.
    pub(super) fn push(&mut self, c: char, tools: &[Tool], calls: &mut Vec<Call>) -> CallStatus {
        match self.literal.push(c) {
            LiteralStatus::Incomplete if self.may_be_calls(tools) => CallStatus::Incomplete,
            LiteralStatus::Complete => match read_object(self.literal.json(), tools, 0) {
                Some(read) => {
                    calls.extend(read);
                    CallStatus::Complete
                }
                None => CallStatus::Invalid,
            },
            _ => CallStatus::Invalid,
        }
    }

    /// Returns the calls of an object whose last bracket is missing.
    pub(super) fn calls_without_bracket(&self, tools: &[Tool]) -> Vec<Call> {
        if !self.literal.lacks_one_bracket() {
            return Vec::new();
        }
        let json = format!("{}}}", self.literal.json());
        read_object(&json, tools, 0).unwrap_or_default()
    }

    /// Returns the arguments so far, once they are being read.
    pub(super) fn open_arguments(&self) -> Option<&str> {
        let (key, value) = self.literal.field()?;
        let is_open = ARGUMENTS.contains(&key.trim_matches('"')) && value.starts_with('{');
        is_open.then_some(value)
    }

    /// Returns the tool that the fields before the arguments name.
    pub(super) fn named_tool<'a>(&self, tools: &'a [Tool]) -> Option<&'a Tool> {
        let (key, _) = self.literal.field()?;
        let before = self.literal.json().rsplit_once(key)?.0;
        let before = format!("{}}}", before.strip_suffix(',')?);
        let written: Written = serde_json::from_str(&before).ok()?;
        find_tool(&written.name?, tools)
    }

    /// Whether the latest field may belong to a call, so that an answer in JSON is not held back to
    /// its end.
    fn may_be_calls(&self, tools: &[Tool]) -> bool {
        let Some((key, value)) = self.literal.field() else {
            return true;
        };
        let key = key.trim_matches('"');
        let Some(word) = value.strip_prefix('"') else {
            let is_text = WORDS.iter().any(|(name, _)| *name == key);
            let is_known = is_text || NAMES.contains(&key) || OTHERS.contains(&key);
            return is_known && (!is_text || value.is_empty());
        };
        let fits = |known: &str| match word.strip_suffix('"') {
            Some(word) => known == word,
            None => known.starts_with(word),
        };
        if NAMES.contains(&key) {
            return match word.strip_suffix('"') {
                Some(word) => find_tool(word, tools).is_some(),
                None => super::may_name_tool(word, tools),
            };
        }
        match WORDS.iter().find(|(name, _)| *name == key) {
            Some((_, words)) => words.iter().any(|word| fits(word)),
            None => OTHERS.contains(&key),
        }
    }
}

/// Returns the calls of an object, of which there is at least one.
fn read_object(json: &str, tools: &[Tool], depth: usize) -> Option<Vec<Call>> {
    if depth == MAX_DEPTH {
        return None;
    }
    let written: Written = serde_json::from_str(json).ok()?;
    let is_word = |word: &Option<Cow<str>>, of: usize| {
        let words = WORDS[of].1;
        word.as_deref().is_none_or(|word| words.contains(&word))
    };
    let is_silent = written.content.is_none_or(|text| text.trim().is_empty());
    if !is_word(&written.kind, 0) || !is_word(&written.role, 1) || !is_silent {
        return None;
    }
    // A call, or what holds calls.
    let inner = match (written.tool_calls, written.tool_call, written.function) {
        (Some(inner), None, None) => inner,
        (None, Some(inner), None) => vec![inner],
        (None, None, Some(inner)) if inner.get().starts_with('{') => vec![inner],
        (None, None, function) => {
            let function: Option<Cow<str>> = match function {
                Some(name) => Some(serde_json::from_str::<String>(name.get()).ok()?.into()),
                None => None,
            };
            let may_lack_arguments = written.name.is_some();
            let mut names = [written.name, written.tool, function].into_iter().flatten();
            let tool = find_tool(&names.next()?, tools)?;
            let arguments = match written.arguments {
                None if may_lack_arguments => "{}".to_owned(),
                None => return None,
                Some(arguments) => read_arguments(arguments.get(), tool.kind)?,
            };
            let call = Call::new(tool, arguments)?;
            return names.next().is_none().then(|| vec![call]);
        }
        _ => return None,
    };
    if written.name.is_some() || written.tool.is_some() || written.arguments.is_some() {
        return None;
    }
    let mut calls = Vec::new();
    for object in inner {
        calls.extend(read_object(object.get(), tools, depth + 1)?);
    }
    (!calls.is_empty()).then_some(calls)
}

/// Returns arguments as an object. In OpenAI's API they are a string that holds one, and so many
/// models write them. A custom tool's text may stand alone.
fn read_arguments(json: &str, kind: CallKind) -> Option<String> {
    let is_object = |json: &String| json.starts_with('{');
    if !json.starts_with('"') {
        return Some(json.to_owned()).filter(is_object);
    }
    let text: String = serde_json::from_str(json).ok()?;
    let object = LiteralReader::read_all(&text).filter(is_object);
    match kind {
        CallKind::Function if text.trim().is_empty() => Some("{}".to_owned()),
        CallKind::Function => object,
        CallKind::Custom => object.or_else(|| Some(format!("{{\"input\":{}}}", quoted(&text)))),
    }
}
