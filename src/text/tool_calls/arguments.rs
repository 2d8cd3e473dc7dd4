//! Reads the arguments of a Python call, between its parentheses, as one JSON object.

use super::literal::{LiteralReader, Taken};
use super::reader::quoted;
use super::{AnswerPart, Tool};

/// Maximum length of a parameter's name.
const MAX_NAME: usize = 256;

/// The effect of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    /// It fits; more must follow.
    Going,
    /// It is the last one.
    Last,
    /// It cannot be part of arguments.
    Wrong,
}

/// Reads arguments after the `(`. The call begins with its first argument: before that, `f(x)` may
/// be a formula.
#[derive(Debug)]
pub(super) struct ArgumentReader {
    /// The call's name, until the call has begun.
    name: Option<String>,
    /// The parameters in order, for arguments without a name.
    properties: Vec<String>,
    /// Parameters that already have an argument.
    given: Vec<String>,
    has_keyword: bool,
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
            name: Some(tool.name.clone()),
            properties: tool.properties.clone(),
            given: Vec::new(),
            has_keyword: false,
            state: State::ArgumentOrEnd,
        }
    }

    pub(super) fn push(&mut self, c: char, parts: &mut Vec<AnswerPart>) -> Taking {
        match std::mem::replace(&mut self.state, State::CommaOrEnd) {
            State::ArgumentOrEnd => match c {
                c if c.is_whitespace() => self.go(State::ArgumentOrEnd),
                ')' => self.end(parts),
                c if c.is_ascii_alphabetic() || c == '_' => self.go(State::Word(c.to_string())),
                c if LiteralReader::begins(c) => {
                    if !self.positional(parts) {
                        return Taking::Wrong;
                    }
                    self.literal(LiteralReader::default(), c, parts)
                }
                _ => Taking::Wrong,
            },
            State::Word(mut word) => match c {
                c if c.is_ascii_alphanumeric() || c == '_' => {
                    word.push(c);
                    if word.len() > MAX_NAME {
                        return Taking::Wrong;
                    }
                    self.go(State::Word(word))
                }
                c if c.is_whitespace() => self.go(State::Equals(word)),
                '=' => self.keyword(word),
                ',' | ')' => self.word_as_literal(word, c, parts),
                _ => Taking::Wrong,
            },
            State::Equals(word) => match c {
                c if c.is_whitespace() => self.go(State::Equals(word)),
                '=' => self.keyword(word),
                ',' | ')' => self.word_as_literal(word, c, parts),
                _ => Taking::Wrong,
            },
            State::Value(word) => match c {
                c if c.is_whitespace() => self.go(State::Value(word)),
                c if LiteralReader::begins(c) && self.key(word, parts) => {
                    self.literal(LiteralReader::default(), c, parts)
                }
                _ => Taking::Wrong,
            },
            State::Literal(reader) => self.literal(reader, c, parts),
            State::CommaOrEnd => self.comma_or_end(c, parts),
        }
    }

    fn go(&mut self, state: State) -> Taking {
        self.state = state;
        Taking::Going
    }

    fn literal(
        &mut self,
        mut reader: LiteralReader,
        c: char,
        parts: &mut Vec<AnswerPart>,
    ) -> Taking {
        let mut text = String::new();
        let taken = reader.push(c, &mut text);
        if !text.is_empty() {
            parts.push(AnswerPart::CallArguments(text));
        }
        match taken {
            Taken::Going => self.go(State::Literal(reader)),
            Taken::Last => self.go(State::CommaOrEnd),
            Taken::Beyond => self.comma_or_end(c, parts),
            Taken::Wrong => Taking::Wrong,
        }
    }

    fn comma_or_end(&mut self, c: char, parts: &mut Vec<AnswerPart>) -> Taking {
        match c {
            c if c.is_whitespace() => self.go(State::CommaOrEnd),
            ',' => self.go(State::ArgumentOrEnd),
            ')' => self.end(parts),
            _ => Taking::Wrong,
        }
    }

    fn end(&mut self, parts: &mut Vec<AnswerPart>) -> Taking {
        let text = if self.begin(parts) { "{}" } else { "}" };
        parts.push(AnswerPart::CallArguments(text.to_owned()));
        Taking::Last
    }

    /// Reads `True` and similar words as an argument without a parameter's name.
    fn word_as_literal(&mut self, word: String, c: char, parts: &mut Vec<AnswerPart>) -> Taking {
        if !matches!(
            word.as_str(),
            "True" | "False" | "None" | "true" | "false" | "null"
        ) || !self.positional(parts)
        {
            return Taking::Wrong;
        }
        self.literal(LiteralReader::in_word(word), c, parts)
    }

    /// Begins an argument without a name, for the next parameter in order. Returns `false` if that
    /// is not possible.
    fn positional(&mut self, parts: &mut Vec<AnswerPart>) -> bool {
        let Some(property) = self.properties.get(self.given.len()).cloned() else {
            return false;
        };
        !self.has_keyword && self.key(property, parts)
    }

    fn keyword(&mut self, word: String) -> Taking {
        self.has_keyword = true;
        self.go(State::Value(word))
    }

    /// Writes a key; returns `false` if it was already given.
    fn key(&mut self, key: String, parts: &mut Vec<AnswerPart>) -> bool {
        if self.given.contains(&key) {
            return false;
        }
        let before = if self.begin(parts) { '{' } else { ',' };
        let text = format!("{before}{}:", quoted(&key));
        parts.push(AnswerPart::CallArguments(text));
        self.given.push(key);
        true
    }

    /// Begins the call; returns `false` if it has already begun.
    fn begin(&mut self, parts: &mut Vec<AnswerPart>) -> bool {
        let name = self.name.take();
        let is_first = name.is_some();
        parts.extend(name.map(|name| AnswerPart::CallBegins { name }));
        is_first
    }
}
