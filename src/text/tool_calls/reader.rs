//! Calls as models write them, character by character, in any of the forms that they use.
//!
//! ```text
//! [f(a=1, b="x"), g()]
//! {"name": "f", "parameters": {"a": 1}}        and what else `object` reads
//! [{"name": "f", "parameters": {"a": 1}}, …]
//! ```
//! Any of these may be in a wrapper: a fence such as ```` ```tool_code ````, or tags such as
//! `<tool_call>`. In a wrapper, and at the beginning of an answer, the brackets may be missing:
//! `f(a=1)`, `print(f(a=1))`. Code in a fence may also keep a result: `x = f(a=1)`, `print(x)`.

use super::arguments::{ArgumentReader, CallStatus};
use super::object::ObjectReader;
use super::{Call, Tool, find_tool, may_name_tool};

/// What begins and ends a wrapper. Where one beginning continues another, the longer one counts.
const WRAPPERS: [(&str, &str); 21] = [
    ("```", "```"),
    ("```tool_code", "```"),
    ("```tool_call", "```"),
    ("```tool_calls", "```"),
    ("```function_call", "```"),
    ("```json", "```"),
    ("```jsonl", "```"),
    ("```python", "```"),
    ("```py", "```"),
    ("```xml", "```"),
    ("<tool_call>", "</tool_call>"),
    ("<tool_calls>", "</tool_calls>"),
    ("<tool_code>", "</tool_code>"),
    ("<tool_use>", "</tool_use>"),
    ("<tool>", "</tool>"),
    ("<tools>", "</tools>"),
    ("<function_call>", "</function_call>"),
    ("<function_calls>", "</function_calls>"),
    ("<functioncall>", "</functioncall>"),
    ("<|tool_call|>", "<|/tool_call|>"),
    ("<|tool_call>", "<tool_call|>"),
];
/// The beginning of a fence whose backquotes are missing.
const BARE_FENCE: &str = "tool_code";
/// Shows a call's result, in code.
const PRINT: &str = "print";
/// Maximum number of brackets and wrappers around a call.
const MAX_OPEN: usize = 8;
/// Maximum length of the name that code gives to a result.
const MAX_NAME: usize = 128;

/// The place of a text that may be calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderState {
    /// At the start: only calls so far.
    Start,
    /// After other text.
    Inside,
    /// Where only brackets and fences begin calls.
    Brackets,
}

/// The effect of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It fits; more must or may follow.
    Going,
    /// It ends what is around the calls; others may follow.
    Settled,
    /// It is the last one.
    Last,
    /// The calls ended before it.
    Beyond,
    /// These are not calls, or they are invalid here.
    Wrong,
}

/// Reads one piece of text that may be calls: a list, an object or a wrapper.
#[derive(Debug)]
pub(super) struct CallReader {
    place: ReaderState,
    /// What is open around the calls, outermost first.
    open: Vec<Open>,
    /// The names that code has given to results.
    results: Vec<String>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    List,
    /// The parentheses of `print`.
    Print,
    /// A wrapper with this end, which is empty if it has none.
    Wrapper(&'static str),
}

#[derive(Debug)]
enum State {
    /// Expects a call, or something around it.
    Call { is_first: bool },
    /// In what begins or ends a wrapper. It can only end behind a call.
    Mark { mark: String, is_behind_call: bool },
    /// In a function's name.
    Name(String),
    /// After a function's name.
    AfterName(String),
    /// Between parentheses.
    Arguments(ArgumentReader),
    /// In a JSON object.
    Object(ObjectReader),
    /// After a call, or what ended around it.
    AfterCall,
    /// In a comment of code.
    Comment { is_behind_call: bool },
}

impl CallReader {
    /// Whether calls can begin with `c`.
    pub(super) fn begins(c: char, place: ReaderState) -> bool {
        match c {
            '[' | '{' | '`' => true,
            '<' => place != ReaderState::Brackets,
            c => place == ReaderState::Start && is_of_name(c),
        }
    }

    /// Creates a reader for a text at `place`.
    pub(super) fn new(place: ReaderState) -> Self {
        Self {
            place,
            open: Vec::new(),
            results: Vec::new(),
            state: State::Call { is_first: true },
        }
    }

    /// Returns the calls that lack only a closing bracket, when no more text comes.
    pub(super) fn finish(&self, tools: &[Tool]) -> Vec<Call> {
        match &self.state {
            State::Object(object) => object.calls_without_bracket(tools),
            _ => Vec::new(),
        }
    }

    /// Returns the object that is being read, if there is one.
    pub(super) fn open_object(&self) -> Option<&ObjectReader> {
        match &self.state {
            State::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Whether everything since the latest call belongs to what is around it.
    pub(super) fn is_behind_call(&self) -> bool {
        let ends = |mark: &str| matches!(self.open.last(), Some(Open::Wrapper(end)) if end.starts_with(mark));
        match &self.state {
            State::AfterCall | State::Call { is_first: false } => true,
            State::Mark {
                mark,
                is_behind_call,
            } => *is_behind_call && ends(mark),
            _ => false,
        }
    }

    /// Takes the next character. Appends the calls that end with it.
    pub(super) fn push(&mut self, c: char, tools: &[Tool], calls: &mut Vec<Call>) -> Step {
        let state = std::mem::replace(&mut self.state, State::AfterCall);
        match state {
            State::Call { is_first } => self.call(c, is_first, tools),
            State::Mark {
                mark,
                is_behind_call,
            } => self.mark(mark, is_behind_call, c, tools),
            State::Name(name) if is_of_name(c) => self.name(name, c, tools),
            State::Name(name) | State::AfterName(name) => self.after_name(name, c, tools),
            State::Arguments(mut reader) => match reader.push(c) {
                CallStatus::Incomplete => self.go(State::Arguments(reader)),
                CallStatus::Complete => match reader.into_call() {
                    Some(call) => {
                        calls.push(call);
                        self.go(State::AfterCall)
                    }
                    None => Step::Wrong,
                },
                CallStatus::Invalid => Step::Wrong,
            },
            State::Object(mut reader) => match reader.push(c, tools, calls) {
                CallStatus::Incomplete => self.go(State::Object(reader)),
                CallStatus::Complete => self.go(State::AfterCall),
                CallStatus::Invalid => Step::Wrong,
            },
            State::AfterCall => self.after_call(c, tools),
            State::Comment { is_behind_call } => match (c, is_behind_call) {
                ('\n', true) => self.go(State::AfterCall),
                ('\n', false) => self.go(State::Call { is_first: true }),
                _ => self.go(State::Comment { is_behind_call }),
            },
        }
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::Going
    }

    /// Handles the beginning of a call, or of what is around it.
    fn call(&mut self, c: char, is_first: bool, tools: &[Tool]) -> Step {
        let innermost = self.open.last().copied();
        match (c, innermost) {
            (c, _) if c.is_whitespace() => self.go(State::Call { is_first }),
            ('{', _) => self.go(State::Object(ObjectReader::opened())),
            ('[', None | Some(Open::Wrapper(_) | Open::Print)) => self.enter(Open::List),
            // Python allows a trailing comma.
            (']', Some(Open::List)) | (')', Some(Open::Print)) if !is_first => self.leave(),
            ('`' | '<', None | Some(Open::Wrapper(_))) => self.go(State::Mark {
                mark: c.to_string(),
                is_behind_call: false,
            }),
            ('#', Some(Open::Wrapper(_))) if self.is_code() => self.go(State::Comment {
                is_behind_call: false,
            }),
            (c, _) if self.may_be_bare() => self.name(String::new(), c, tools),
            _ => Step::Wrong,
        }
    }

    fn after_call(&mut self, c: char, tools: &[Tool]) -> Step {
        let innermost = self.open.last().copied();
        match (c, innermost) {
            (c, _) if c.is_whitespace() => self.go(State::AfterCall),
            (',', Some(Open::List | Open::Print)) => self.go(State::Call { is_first: false }),
            (']', Some(Open::List)) | (')', Some(Open::Print)) => self.leave(),
            (_, Some(Open::List | Open::Print)) => Step::Wrong,
            // Calls in a row, without a list.
            (',' | ';', _) => self.go(State::AfterCall),
            ('`' | '<', _) if self.may_be_mark(c) => self.go(State::Mark {
                mark: c.to_string(),
                is_behind_call: true,
            }),
            ('[' | '{', _) => self.call(c, true, tools),
            ('#', _) if self.is_code() => self.go(State::Comment {
                is_behind_call: true,
            }),
            (c, _) if self.may_be_bare() && is_of_name(c) => self.name(String::new(), c, tools),
            _ => Step::Beyond,
        }
    }

    fn enter(&mut self, open: Open) -> Step {
        if self.open.len() == MAX_OPEN {
            return Step::Wrong;
        }
        self.open.push(open);
        self.go(State::Call { is_first: true })
    }

    fn leave(&mut self) -> Step {
        self.open.pop();
        self.state = State::AfterCall;
        match self.open.is_empty() {
            true => Step::Settled,
            false => Step::Going,
        }
    }

    /// Continues what begins or ends a wrapper.
    fn mark(&mut self, mut mark: String, is_behind_call: bool, c: char, tools: &[Tool]) -> Step {
        let is_fence = mark.starts_with("```");
        if is_fence && (c.is_whitespace() || matches!(c, '[' | '{' | '<')) {
            let Some((_, end)) = WRAPPERS.iter().find(|(begin, _)| *begin == mark) else {
                return Step::Wrong;
            };
            return match self.enter(Open::Wrapper(end)) {
                Step::Going => self.call(c, true, tools),
                step => step,
            };
        }
        mark.push(c);
        if let (true, Some(Open::Wrapper(end))) = (is_behind_call, self.open.last()) {
            if mark == *end {
                self.open.pop();
                return match self.open.is_empty() {
                    true => Step::Last,
                    false => self.go(State::AfterCall),
                };
            }
            if end.starts_with(&mark) {
                return self.go(State::Mark {
                    mark,
                    is_behind_call,
                });
            }
        }
        match WRAPPERS.iter().find(|(begin, _)| begin.starts_with(&mark)) {
            Some((begin, end)) if *begin == mark && mark.ends_with('>') => {
                self.enter(Open::Wrapper(end))
            }
            Some(_) => self.go(State::Mark {
                mark,
                is_behind_call,
            }),
            None => Step::Wrong,
        }
    }

    /// Continues a name as long as it may be one that stands here.
    fn name(&mut self, mut name: String, c: char, tools: &[Tool]) -> Step {
        name.push(c);
        let begins = |known: &str| known.starts_with(&name);
        let may_stand = may_name_tool(&name, tools)
            || self.may_print() && begins(PRINT)
            || self.may_be_fence() && begins(BARE_FENCE)
            || self.may_assign() && is_identifier(&name)
            || self.is_printing() && self.results.iter().any(|result| begins(result));
        match may_stand {
            true => self.go(State::Name(name)),
            false => Step::Wrong,
        }
    }

    fn after_name(&mut self, name: String, c: char, tools: &[Tool]) -> Step {
        match c {
            '\n' if self.may_be_fence() && name == BARE_FENCE => self.enter(Open::Wrapper("")),
            c if c.is_whitespace() => self.go(State::AfterName(name)),
            '(' => match find_tool(&name, tools) {
                Some(tool) => self.go(State::Arguments(ArgumentReader::new(tool))),
                None if self.may_print() && name == PRINT => self.enter(Open::Print),
                None => Step::Wrong,
            },
            '=' if self.may_assign() && is_identifier(&name) => {
                self.results.push(name);
                self.go(State::Call { is_first: true })
            }
            ')' if self.is_printing() && self.results.contains(&name) => self.leave(),
            _ => Step::Wrong,
        }
    }

    fn may_be_mark(&self, c: char) -> bool {
        !self.open.is_empty() || Self::begins(c, self.place)
    }

    /// Whether a call may stand without brackets.
    fn may_be_bare(&self) -> bool {
        self.place == ReaderState::Start || !self.open.is_empty()
    }

    /// Whether code may stand here: in a wrapper, but not in brackets.
    fn is_code(&self) -> bool {
        matches!(self.open.last(), Some(Open::Wrapper(_)))
    }

    fn may_print(&self) -> bool {
        !self.open.contains(&Open::Print) && self.may_be_bare()
    }

    fn is_printing(&self) -> bool {
        self.open.last() == Some(&Open::Print)
    }

    fn may_assign(&self) -> bool {
        self.is_code()
    }

    fn may_be_fence(&self) -> bool {
        self.place == ReaderState::Start && self.open.is_empty()
    }
}

/// Whether a function's name may contain `c`.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn is_identifier(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
