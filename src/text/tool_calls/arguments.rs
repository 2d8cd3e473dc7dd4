//! Reads the arguments of a Python call, between its parentheses, as one JSON object.

use super::json_text::quoted;
use super::literal::{LiteralReader, Taken};
use super::{Call, Tool};

/// Maximum length of a parameter's name.
const MAX_NAME: usize = 256;

/// The effect of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    /// It fits; more must follow.
    Going,
    /// It is the last one.
    Last,
    /// It cannot be part of a call.
    Wrong,
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

    pub(super) fn push(&mut self, c: char) -> Taking {
        match std::mem::replace(&mut self.state, State::CommaOrEnd) {
            State::ArgumentOrEnd => match c {
                c if c.is_whitespace() => self.go(State::ArgumentOrEnd),
                ')' => self.end(),
                c if c.is_alphabetic() || c == '_' => self.go(State::Word(c.to_string())),
                c if LiteralReader::begins(c) => {
                    if !self.positional() {
                        return Taking::Wrong;
                    }
                    self.literal(LiteralReader::default(), c)
                }
                _ => Taking::Wrong,
            },
            State::Word(mut word) => match c {
                // Names of parameters may be such as Python's are not.
                c if c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$') => {
                    word.push(c);
                    if word.len() > MAX_NAME {
                        return Taking::Wrong;
                    }
                    self.go(State::Word(word))
                }
                c if c.is_whitespace() => self.go(State::Equals(word)),
                '=' => self.keyword(word),
                ',' | ')' => self.word_as_literal(word, c),
                c if LiteralReader::begins_string(&word, c) && self.positional() => {
                    self.literal(LiteralReader::in_word(word), c)
                }
                _ => Taking::Wrong,
            },
            State::Equals(word) => match c {
                c if c.is_whitespace() => self.go(State::Equals(word)),
                '=' => self.keyword(word),
                ',' | ')' => self.word_as_literal(word, c),
                _ => Taking::Wrong,
            },
            State::Value(word) => match c {
                c if c.is_whitespace() => self.go(State::Value(word)),
                c if LiteralReader::begins(c) && self.key(word) => {
                    self.literal(LiteralReader::default(), c)
                }
                _ => Taking::Wrong,
            },
            State::Literal(reader) => self.literal(reader, c),
            State::CommaOrEnd => self.comma_or_end(c),
        }
    }

    fn go(&mut self, state: State) -> Taking {
        self.state = state;
        Taking::Going
    }

    fn literal(&mut self, mut reader: LiteralReader, c: char) -> Taking {
        match reader.push(c) {
            Taken::Going => self.go(State::Literal(reader)),
            Taken::Last => {
                self.out.push_str(reader.json());
                self.go(State::CommaOrEnd)
            }
            Taken::Beyond => {
                self.out.push_str(reader.json());
                self.comma_or_end(c)
            }
            Taken::Wrong => Taking::Wrong,
        }
    }

    fn comma_or_end(&mut self, c: char) -> Taking {
        match c {
            c if c.is_whitespace() => self.go(State::CommaOrEnd),
            ',' => self.go(State::ArgumentOrEnd),
            ')' => self.end(),
            _ => Taking::Wrong,
        }
    }

    fn end(&mut self) -> Taking {
        self.out.push('}');
        Taking::Last
    }

    /// Reads `True` and similar words as an argument without a parameter's name.
    fn word_as_literal(&mut self, word: String, c: char) -> Taking {
        match self.positional() {
            true => self.literal(LiteralReader::in_word(word), c),
            false => Taking::Wrong,
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

    fn keyword(&mut self, word: String) -> Taking {
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
