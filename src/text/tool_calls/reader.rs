//! Calls as models write them, character by character, in any of the forms that they use.
//!
//! ```text
//! [f(a=1, b="x"), g()]
//! {"name": "f", "parameters": {"a": 1}}        "arguments" is accepted too
//! [{"name": "f", "parameters": {"a": 1}}, …]
//! ```
//! Any of these may be in a fence: ```` ```tool_code ````, ```` ```json ````, ```` ```python ````.
//! In a fence, and at the beginning of an answer, the brackets may be missing: `f(a=1)`.

use super::arguments::{ArgumentReader, Taking};
use super::literal::{LiteralReader, Taken, write_char};
use super::{AnswerPart, Tool};

/// Info strings of the fences in which calls are recognized.
const FENCES: [&str; 5] = ["tool_code", "tool_call", "json", "python", ""];

/// The place of a text that may be calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderState {
    /// At the start: only calls so far.
    Start,
    /// After other text.
    Inside,
}

/// The effect of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It fits; more must or may follow.
    Going,
    /// It is the last one.
    Last,
    /// The calls ended before it.
    Beyond,
    /// These are not calls, or they are invalid here.
    Wrong,
}

/// Reads one piece of text that may be calls: a list, an object or a fence.
#[derive(Debug)]
pub(super) struct CallReader {
    in_fence: bool,
    in_list: bool,
    may_be_bare: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// In the backquotes or the info string of a fence.
    Fence(String),
    /// Before the first call.
    Open,
    /// Expects a call of a list.
    Item { is_first: bool },
    /// In a function's name.
    Name(String),
    /// After a function's name.
    AfterName(String),
    /// Between parentheses.
    Arguments(ArgumentReader),
    /// In a JSON object.
    Object(ObjectReader),
    /// After a call.
    AfterCall,
    /// After a list: another list or the end of the fence may follow.
    AfterList,
    /// In the backquotes that close a fence.
    FenceEnd(usize),
}

impl CallReader {
    /// Whether calls can begin with `c`.
    pub(super) fn begins(c: char, place: ReaderState) -> bool {
        matches!(c, '[' | '{' | '`') || place == ReaderState::Start && is_of_name(c)
    }

    /// Creates a reader for a text at `place`.
    pub(super) fn new(place: ReaderState) -> Self {
        Self {
            in_fence: false,
            in_list: false,
            may_be_bare: place == ReaderState::Start,
            state: State::Open,
        }
    }

    /// Whether a call is open: its arguments have begun and not ended.
    pub(super) fn is_inside(&self) -> bool {
        matches!(self.state, State::Arguments(_) | State::Object(_))
    }

    /// Takes the next character. Appends the certain parts to `parts`: a call is certain once it
    /// has begun, whatever follows.
    pub(super) fn push(&mut self, c: char, tools: &[Tool], parts: &mut Vec<AnswerPart>) -> Step {
        let state = std::mem::replace(&mut self.state, State::Open);
        match state {
            State::Open if c.is_whitespace() => self.go(State::Open),
            State::Open => match c {
                '`' if !self.in_fence => self.go(State::Fence("`".to_owned())),
                '[' => {
                    self.in_list = true;
                    self.go(State::Item { is_first: true })
                }
                '{' => self.go(State::Object(ObjectReader::default())),
                c if self.may_be_bare => self.name(String::new(), c, tools),
                _ => Step::Wrong,
            },
            State::Fence(mark) => self.fence(mark, c),
            State::Item { is_first } => match c {
                c if c.is_whitespace() => self.go(State::Item { is_first }),
                '{' => self.go(State::Object(ObjectReader::default())),
                // Python allows a trailing comma.
                ']' if !is_first => self.list_ended(),
                c => self.name(String::new(), c, tools),
            },
            State::Name(name) if is_of_name(c) => self.name(name, c, tools),
            State::Name(name) | State::AfterName(name) => match c {
                c if c.is_whitespace() => self.go(State::AfterName(name)),
                '(' => match tools.iter().find(|tool| tool.name == name) {
                    Some(tool) => self.go(State::Arguments(ArgumentReader::new(tool))),
                    None => Step::Wrong,
                },
                _ => Step::Wrong,
            },
            State::Arguments(mut reader) => match reader.push(c, parts) {
                Taking::Going => self.go(State::Arguments(reader)),
                Taking::Last => self.call_ended(),
                Taking::Wrong => Step::Wrong,
            },
            State::Object(mut reader) => match reader.push(c, tools, parts) {
                Taking::Going => self.go(State::Object(reader)),
                Taking::Last => self.call_ended(),
                Taking::Wrong => Step::Wrong,
            },
            State::AfterCall => match c {
                c if c.is_whitespace() => self.go(State::AfterCall),
                ',' if self.in_list => self.go(State::Item { is_first: false }),
                ']' if self.in_list => self.list_ended(),
                _ if self.in_list => Step::Wrong,
                '`' => self.fence_end(1),
                // Calls in a row, without a list.
                ',' | ';' => self.go(State::AfterCall),
                '{' => self.go(State::Object(ObjectReader::default())),
                c if is_of_name(c) => self.name(String::new(), c, tools),
                _ => Step::Beyond,
            },
            State::AfterList => match c {
                c if c.is_whitespace() => self.go(State::AfterList),
                '`' => self.fence_end(1),
                '[' => {
                    self.in_list = true;
                    self.go(State::Item { is_first: true })
                }
                _ => Step::Beyond,
            },
            State::FenceEnd(num) => match c {
                '`' => self.fence_end(num + 1),
                _ => Step::Beyond,
            },
        }
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::Going
    }

    fn fence(&mut self, mut mark: String, c: char) -> Step {
        let language = mark.get(3..);
        if let Some(language) = language
            && FENCES.contains(&language)
            && (c.is_whitespace() || matches!(c, '[' | '{'))
        {
            self.in_fence = true;
            self.may_be_bare = true;
            self.state = State::Open;
            return match c {
                '[' => {
                    self.in_list = true;
                    self.go(State::Item { is_first: true })
                }
                '{' => self.go(State::Object(ObjectReader::default())),
                _ => Step::Going,
            };
        }
        mark.push(c);
        let fits = |language: &&str| format!("```{language}").starts_with(&mark);
        match FENCES.iter().any(fits) {
            true => self.go(State::Fence(mark)),
            false => Step::Wrong,
        }
    }

    /// Continues a name as long as it is a prefix of a tool's name.
    fn name(&mut self, mut name: String, c: char, tools: &[Tool]) -> Step {
        name.push(c);
        match tools.iter().any(|tool| tool.name.starts_with(&name)) {
            true => self.go(State::Name(name)),
            false => Step::Wrong,
        }
    }

    fn call_ended(&mut self) -> Step {
        if !self.in_list && !self.in_fence {
            return Step::Last;
        }
        self.go(State::AfterCall)
    }

    fn list_ended(&mut self) -> Step {
        self.in_list = false;
        if !self.in_fence {
            return Step::Last;
        }
        self.go(State::AfterList)
    }

    fn fence_end(&mut self, num: usize) -> Step {
        if num == 3 {
            return Step::Last;
        }
        self.go(State::FenceEnd(num))
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Reads `{"name": …, "parameters": {…}}` after its `{`, with the fields in either order.
#[derive(Debug, Default)]
struct ObjectReader {
    name: Option<String>,
    /// Arguments that came before the name.
    early: Option<String>,
    has_arguments: bool,
    state: ObjectState,
}

#[derive(Debug, Default)]
enum ObjectState {
    /// Expects a key's quote, or the closing bracket.
    #[default]
    Key,
    /// Inside a key.
    InKey(String),
    Colon(Field),
    /// Expects the name's quote.
    NameStart,
    InName(String),
    /// Expects the arguments' bracket.
    ArgumentsStart,
    InArguments(LiteralReader),
    CommaOrEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
}

const FIELDS: [(&str, Field); 3] = [
    ("name", Field::Name),
    ("parameters", Field::Arguments),
    ("arguments", Field::Arguments),
];

impl ObjectReader {
    fn push(&mut self, c: char, tools: &[Tool], parts: &mut Vec<AnswerPart>) -> Taking {
        use ObjectState as State;
        let state = std::mem::take(&mut self.state);
        let next = match state {
            // Strings and literals handle white space themselves.
            State::Key
            | State::Colon(_)
            | State::NameStart
            | State::ArgumentsStart
            | State::CommaOrEnd
                if c.is_whitespace() =>
            {
                state
            }
            State::Key if c == '"' => State::InKey(String::new()),
            State::InKey(mut key) => {
                if c == '"' {
                    match FIELDS.iter().find(|(name, _)| *name == key) {
                        Some((_, Field::Name)) if self.name.is_some() => return Taking::Wrong,
                        Some((_, Field::Arguments)) if self.has_arguments => {
                            return Taking::Wrong;
                        }
                        Some((_, field)) => State::Colon(*field),
                        None => return Taking::Wrong,
                    }
                } else {
                    key.push(c);
                    if !FIELDS.iter().any(|(name, _)| name.starts_with(&key)) {
                        return Taking::Wrong;
                    }
                    State::InKey(key)
                }
            }
            State::Colon(Field::Name) if c == ':' => State::NameStart,
            State::Colon(Field::Arguments) if c == ':' => State::ArgumentsStart,
            State::NameStart if c == '"' => State::InName(String::new()),
            State::InName(name) if c == '"' => {
                if !tools.iter().any(|tool| tool.name == name) {
                    return Taking::Wrong;
                }
                if let Some(arguments) = self.early.take() {
                    parts.push(AnswerPart::CallBegins { name: name.clone() });
                    parts.push(AnswerPart::CallArguments(arguments));
                }
                self.name = Some(name);
                State::CommaOrEnd
            }
            State::InName(mut name) => {
                name.push(c);
                if !tools.iter().any(|tool| tool.name.starts_with(&name)) {
                    return Taking::Wrong;
                }
                State::InName(name)
            }
            State::ArgumentsStart if c == '{' => {
                self.has_arguments = true;
                let mut text = String::new();
                let reader = LiteralReader::in_dict(&mut text);
                match &self.name {
                    Some(name) => {
                        parts.push(AnswerPart::CallBegins { name: name.clone() });
                        parts.push(AnswerPart::CallArguments(text));
                    }
                    None => self.early = Some(text),
                }
                State::InArguments(reader)
            }
            State::InArguments(mut reader) => {
                let mut text = String::new();
                let taken = reader.push(c, &mut text);
                match &mut self.early {
                    Some(early) => early.push_str(&text),
                    None if !text.is_empty() => parts.push(AnswerPart::CallArguments(text)),
                    None => {}
                }
                match taken {
                    Taken::Going => State::InArguments(reader),
                    Taken::Last => State::CommaOrEnd,
                    Taken::Beyond | Taken::Wrong => return Taking::Wrong,
                }
            }
            State::CommaOrEnd if c == ',' => State::Key,
            // `{"name": "f",}` is accepted too.
            State::CommaOrEnd | State::Key if c == '}' => {
                let Some(name) = self.name.take() else {
                    return Taking::Wrong;
                };
                if !self.has_arguments {
                    parts.push(AnswerPart::CallBegins { name });
                    parts.push(AnswerPart::CallArguments("{}".to_owned()));
                }
                return Taking::Last;
            }
            _ => return Taking::Wrong,
        };
        self.state = next;
        Taking::Going
    }
}

/// Returns a string as JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    text.chars().for_each(|c| write_char(c, &mut json));
    json.push('"');
    json
}
