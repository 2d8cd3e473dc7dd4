//! Reads the arguments of a Python call, between its parentheses, as one JSON object.

use super::json_text::quoted;
use super::literal::{LiteralReader, LiteralStatus};
use super::{Call, Tool};

/// Maximum length of a parameter's name.
const MAX_NAME: usize = 256;

/// The state after a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallStatus {
    /// It fits; more must follow.
    Incomplete,
    /// It is the last one.
    Complete,
    /// It cannot be part of a call.
    Invalid,
}

/// Reads arguments after the `(`.
#[derive(Debug)]
pub(super) struct ArgumentReader {
    tool: Tool,
    /// Parameters that already have an argument.
    given: Vec<String>,
    has_keyword: bool,
    /// The object so far.
    out: String,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Expects an argument or the end.
    ArgumentOrEnd,
    /// In a parameter's name, or in a literal such as `True`.
    Word(String),
    /// After a parameter's name.
    Equals(String),
    /// After the `=` of this parameter: a literal must begin.
    Value(String),
    Literal(LiteralReader),
    CommaOrEnd,
}

impl ArgumentReader {
    pub(super) fn new(tool: &Tool) -> Self {
        Self {
            tool: tool.clone(),
            given: Vec::new(),
            has_keyword: false,
            out: "{".to_owned(),
            state: State::ArgumentOrEnd,
        }
    }

    /// Returns the call, once the last character was taken. `None` if it is not one of its tool.
    pub(super) fn into_call(self) -> Option<Call> {
        Call::new(&self.tool, self.out)
    }

    pub(super) fn push(&mut self, c: char) -> CallStatus {
        match std::mem::replace(&mut self.state, State::CommaOrEnd) {
            State::ArgumentOrEnd => match c {
                c if c.is_whitespace() => self.go(State::ArgumentOrEnd),
                ')' => self.end(),
                c if c.is_alphabetic() || c == '_' => self.go(State::Word(c.to_string())),
                c if LiteralReader::begins(c) => {
                    if !self.positional() {
                        return CallStatus::Invalid;
                    }
                    self.literal(LiteralReader::default(), c)
                }
                _ => CallStatus::Invalid,
            },
            State::Word(mut word) => match c {
                // Names of parameters may be such as Python's are not.
                c if c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$') => {
                    word.push(c);
                    if word.len() > MAX_NAME {
                        return CallStatus::Invalid;
                    }
                    self.go(State::Word(word))
                }
                c if c.is_whitespace() => self.go(State::Equals(word)),
                '=' => self.keyword(word),
                ',' | ')' => self.word_as_literal(word, c),
                c if LiteralReader::begins_string(&word, c) && self.positional() => {
                    self.literal(LiteralReader::in_word(word), c)
                }
                _ => CallStatus::Invalid,
            },
            State::Equals(word) => match c {
                c if c.is_whitespace() => self.go(State::Equals(word)),
                '=' => self.keyword(word),
                ',' | ')' => self.word_as_literal(word, c),
                _ => CallStatus::Invalid,
            },
            State::Value(word) => match c {
                c if c.is_whitespace() => self.go(State::Value(word)),
                c if LiteralReader::begins(c) && self.key(word) => {
                    self.literal(LiteralReader::default(), c)
                }
                _ => CallStatus::Invalid,
            },
            State::Literal(reader) => self.literal(reader, c),
            State::CommaOrEnd => self.comma_or_end(c),
        }
    }

    fn go(&mut self, state: State) -> CallStatus {
        self.state = state;
        CallStatus::Incomplete
    }

    fn literal(&mut self, mut reader: LiteralReader, c: char) -> CallStatus {
        match reader.push(c) {
            LiteralStatus::Incomplete => self.go(State::Literal(reader)),
            LiteralStatus::Complete => {
                self.out.push_str(reader.json());
                self.go(State::CommaOrEnd)
            }
            LiteralStatus::EndedBefore => {
                self.out.push_str(reader.json());
                self.comma_or_end(c)
            }
            LiteralStatus::Invalid => CallStatus::Invalid,
        }
    }

    fn comma_or_end(&mut self, c: char) -> CallStatus {
        match c {
            c if c.is_whitespace() => self.go(State::CommaOrEnd),
            ',' => self.go(State::ArgumentOrEnd),
            ')' => self.end(),
            _ => CallStatus::Invalid,
        }
    }

    fn end(&mut self) -> CallStatus {
        self.out.push('}');
        CallStatus::Complete
    }

    /// Reads `True` and similar words as an argument without a parameter's name.
    fn word_as_literal(&mut self, word: String, c: char) -> CallStatus {
        match self.positional() {
            true => self.literal(LiteralReader::in_word(word), c),
            false => CallStatus::Invalid,
        }
    }

    /// Begins an argument without a name, for the next parameter in order. Returns `false` if that
    /// is not possible.
    fn positional(&mut self) -> bool {
        let Some(property) = self.tool.properties.get(self.given.len()).cloned() else {
            return false;
        };
        !self.has_keyword && self.key(property)
    }

    fn keyword(&mut self, word: String) -> CallStatus {
        self.has_keyword = true;
        self.go(State::Value(word))
    }

    /// Writes a key; returns `false` if it was already given.
    fn key(&mut self, key: String) -> bool {
        if self.given.contains(&key) {
            return false;
        }
        if !self.given.is_empty() {
            self.out.push(',');
        }
        self.out.push_str(&quoted(&key));
        self.out.push(':');
        self.given.push(key);
        true
    }
}
