//! Finds tool calls in the text of an answer as it arrives.
//!
//! Gemma 3 has no token for calls. It writes them as text, in the form that the prompt requested or
//! in another one that it knows; alone, in a code fence or within prose. Calls are found anywhere
//! if they name one of the request's tools and their arguments are literals. Everything else stays
//! text. Reading is independent of the requested format. `core::ToolFormat` is what the prompt asks
//! for (`tool_prompt`); a new format needs both.
//!
//! ```text
//! text ─ CallParser ─ CallReader ─ ArgumentReader ─┐
//!                                └ ObjectReader ───┴ LiteralReader ─▶ JSON
//! ```
//!
//! A call is returned when its last character was read: before that nobody knows whether its
//! arguments are sound, and what is not stays text, to the letter. Only under a grammar are its
//! arguments certain, and returned as they come. Each reader works character by character, so that the result does not depend on how the text was
//! split. Knows nothing of tokens, prompts or the API.

mod arguments;
mod json_text;
mod literal;
mod object;
mod reader;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::answer::{AnswerPart, CallKind};
use reader::{CallReader, ReaderState, Step};

/// The data of a tool that is needed to find its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name of the tool.
    pub name: String,
    /// What its calls carry. Models write a custom tool's text as the one argument of a function.
    pub kind: CallKind,
    /// Its parameters in the schema's order, for arguments without names.
    pub properties: Vec<String>,
}

/// How many calls an answer may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallLimit {
    /// Any number.
    Several,
    /// One; the answer ends with it.
    One,
}

/// Where in an answer calls are recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPlace {
    /// Anywhere.
    Anywhere,
    /// At the beginning and after other calls, and only in brackets.
    Beginning,
}

/// Whether what looks like a call is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallForm {
    /// Only its end shows that it is: the model writes as it likes.
    Free,
    /// A grammar makes it one from its first arguments on, so these are returned as they come.
    Grammar,
}

/// The calls that an answer may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSyntax {
    /// The tools that may be called.
    pub tools: Arc<[Tool]>,
    /// How many calls are allowed.
    pub limit: CallLimit,
    /// Where calls are recognized.
    pub place: CallPlace,
    /// Whether a grammar constrains calls.
    pub form: CallForm,
}

/// What models put before the name of a function, as if it were in a module.
const MODULES: [&str; 4] = ["default_api.", "functions.", "tools.", "tool_code."];

/// Maximum number of characters of an answer that are read again, after they proved to be no call.
/// Without a limit, an answer of beginnings only would take time that grows with its square.
const MAX_REREAD: usize = 1 << 20;

/// A complete call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    /// Name of the tool.
    name: String,
    kind: CallKind,
    /// Its arguments, or a custom tool's text.
    arguments: String,
}

impl Call {
    /// Creates a call with these arguments, a JSON object. Returns `None` if a custom tool's text is
    /// not all that they hold.
    fn new(tool: &Tool, arguments: String) -> Option<Self> {
        Some(Self {
            name: tool.name.clone(),
            kind: tool.kind,
            arguments: match tool.kind {
                CallKind::Function => arguments,
                CallKind::Custom => {
                    let fields: BTreeMap<String, String> = serde_json::from_str(&arguments).ok()?;
                    let mut texts = fields.into_values();
                    texts.next().filter(|_| texts.next().is_none())?
                }
            },
        })
    }
}

/// Returns the tool with this name, which may have a module's before it.
fn find_tool<'a>(name: &str, tools: &'a [Tool]) -> Option<&'a Tool> {
    let find = |name: &str| tools.iter().find(|tool| tool.name == name);
    let mut modules = MODULES.iter();
    find(name).or_else(|| find(modules.find_map(|module| name.strip_prefix(module))?))
}

/// Whether a tool's name may begin with these letters.
fn may_name_tool(letters: &str, tools: &[Tool]) -> bool {
    let fits = |letters: &str| tools.iter().any(|tool| tool.name.starts_with(letters));
    fits(letters)
        || MODULES
            .iter()
            .any(|module| match letters.strip_prefix(module) {
                Some(letters) => fits(letters),
                None => module.starts_with(letters),
            })
}

/// Finds calls in the text of one answer.
///
/// Text that may be a call is held back until that is decided. White space before a call and
/// between calls is dropped, and so is what wraps them.
#[derive(Debug)]
pub struct CallParser {
    syntax: CallSyntax,
    /// `None` outside possible calls.
    reader: Option<CallReader>,
    /// Whether the reader has returned a call.
    has_begun: bool,
    /// What the reader has read since it last returned a call.
    held: String,
    /// White space that becomes text only if text follows.
    space: String,
    /// Whether the answer has any text besides calls and white space.
    has_text: bool,
    /// Whether there was only white space since the last call.
    is_behind_call: bool,
    has_ended: bool,
    num_reread: usize,
    /// Size of the arguments that were returned of a call that is being read.
    num_returned: Option<usize>,
}

impl CallParser {
    /// Creates a parser for an answer that may make these calls.
    pub fn new(syntax: CallSyntax) -> Self {
        Self {
            syntax,
            reader: None,
            has_begun: false,
            held: String::new(),
            space: String::new(),
            has_text: false,
            is_behind_call: false,
            has_ended: false,
            num_reread: 0,
            num_returned: None,
        }
    }

    /// Takes the answer's next text and appends the certain parts.
    pub fn push(&mut self, text: &str, parts: &mut Vec<AnswerPart>) {
        let mut new = Vec::new();
        let mut left: VecDeque<char> = text.chars().collect();
        while let Some(c) = left.pop_front()
            && !self.has_ended
        {
            self.take(c, &mut left, &mut new);
        }
        join(new, parts);
    }

    /// Handles the end of the answer.
    pub fn finish(&mut self, parts: &mut Vec<AnswerPart>) {
        let mut new = Vec::new();
        if let Some(reader) = self.reader.take() {
            let calls = reader.finish(&self.syntax.tools);
            self.hand_out(calls, &mut new);
            let mut held = std::mem::take(&mut self.held);
            if self.num_returned.take().is_some() {
                // The answer was cut off within the call, which stays one.
                held.clear();
                self.has_begun = true;
                self.is_behind_call = true;
            }
            // Too few or too many brackets and marks.
            let is_rest = self.has_begun
                && (reader.is_behind_call() || !held.contains(char::is_alphanumeric));
            if !is_rest {
                held.chars().for_each(|c| self.say(c, &mut new));
            }
        }
        if !self.is_behind_call && !self.space.is_empty() {
            new.push(AnswerPart::Text(self.space.clone()));
        }
        self.space.clear();
        join(new, parts);
    }

    /// Whether the last allowed call was made. Nothing more is returned then.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn take(&mut self, c: char, left: &mut VecDeque<char>, parts: &mut Vec<AnswerPart>) {
        let place = match (self.syntax.place, self.has_text) {
            (CallPlace::Anywhere, false) => ReaderState::Start,
            (CallPlace::Anywhere, true) => ReaderState::Inside,
            (CallPlace::Beginning, false) => ReaderState::Brackets,
            (CallPlace::Beginning, true) => return self.say(c, parts),
        };
        if self.reader.is_none() && !CallReader::begins(c, place) {
            return self.say(c, parts);
        }
        let reader = self.reader.get_or_insert_with(|| CallReader::new(place));
        let mut calls = Vec::new();
        let step = reader.push(c, &self.syntax.tools, &mut calls);
        self.held.push(c);
        self.hand_out(calls, parts);
        self.return_arguments(parts);
        match step {
            Step::Going => {}
            Step::Settled => self.held.clear(),
            Step::Last => {
                self.leave();
            }
            Step::Beyond => {
                let held = self.leave();
                held.chars().rev().for_each(|c| left.push_front(c));
            }
            Step::Wrong => {
                let held = self.leave();
                let mut held = held.chars();
                // It would fail again if it were read as a call.
                let first = held.next().expect("the character that was wrong");
                self.say(first, parts);
                self.num_reread += held.as_str().len();
                match self.num_reread <= MAX_REREAD {
                    true => held.rev().for_each(|c| left.push_front(c)),
                    false => held.for_each(|c| self.say(c, parts)),
                }
            }
        }
    }

    /// Appends what is new of the arguments of a call that is being read, if a grammar constrains
    /// it.
    fn return_arguments(&mut self, parts: &mut Vec<AnswerPart>) {
        if self.syntax.form == CallForm::Free || self.has_ended {
            return;
        }
        let object = self.reader.as_ref().and_then(CallReader::open_object);
        let Some((object, arguments)) = object.and_then(|o| Some((o, o.open_arguments()?))) else {
            return;
        };
        let num_returned = match self.num_returned {
            Some(num_returned) => num_returned,
            None => {
                let tool = object.named_tool(&self.syntax.tools);
                // A custom tool's text is known once its arguments are complete.
                let Some(tool) = tool.filter(|tool| tool.kind == CallKind::Function) else {
                    return;
                };
                parts.push(AnswerPart::CallBegins {
                    name: tool.name.clone(),
                    kind: tool.kind,
                });
                self.space.clear();
                0
            }
        };
        if let Some(new) = arguments.get(num_returned..).filter(|new| !new.is_empty()) {
            parts.push(AnswerPart::CallArguments(new.to_owned()));
        }
        self.num_returned = Some(arguments.len());
    }

    /// Appends complete calls, as many as are allowed.
    fn hand_out(&mut self, calls: Vec<Call>, parts: &mut Vec<AnswerPart>) {
        for call in calls {
            if self.has_ended {
                return;
            }
            match self.num_returned.take() {
                Some(num_returned) => {
                    let rest = call.arguments.get(num_returned..).unwrap_or_default();
                    parts.push(AnswerPart::CallArguments(rest.to_owned()));
                }
                None => {
                    parts.push(AnswerPart::CallBegins {
                        name: call.name,
                        kind: call.kind,
                    });
                    parts.push(AnswerPart::CallArguments(call.arguments));
                }
            }
            self.held.clear();
            self.space.clear();
            self.has_begun = true;
            self.is_behind_call = true;
            self.has_ended = self.syntax.limit == CallLimit::One;
        }
    }

    fn leave(&mut self) -> String {
        self.reader = None;
        self.num_returned = None;
        self.has_begun = false;
        std::mem::take(&mut self.held)
    }

    fn say(&mut self, c: char, parts: &mut Vec<AnswerPart>) {
        if c.is_whitespace() {
            return self.space.push(c);
        }
        if self.is_behind_call && !self.has_text {
            self.space.clear();
        }
        self.has_text = true;
        self.is_behind_call = false;
        if !matches!(parts.last(), Some(AnswerPart::Text(_))) {
            parts.push(AnswerPart::Text(String::new()));
        }
        if let Some(AnswerPart::Text(text)) = parts.last_mut() {
            text.push_str(&self.space);
            text.push(c);
        }
        self.space.clear();
    }
}

/// Appends parts, and joins adjacent parts of the same kind.
pub(super) fn join(new: Vec<AnswerPart>, parts: &mut Vec<AnswerPart>) {
    for part in new {
        match (parts.last_mut(), part) {
            (Some(AnswerPart::Text(before)), AnswerPart::Text(text))
            | (Some(AnswerPart::Reasoning(before)), AnswerPart::Reasoning(text))
            | (Some(AnswerPart::CallArguments(before)), AnswerPart::CallArguments(text)) => {
                before.push_str(&text);
            }
            (_, part) => parts.push(part),
        }
    }
}

#[cfg(test)]
mod tests;
