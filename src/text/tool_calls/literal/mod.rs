//! Converts a Python or JSON literal to compact JSON, character by character.
//!
//! Python's `ast.literal_eval` sets the measure of what a value may be: strings in single, double and
//! triple quotes, with the prefixes `r`, `u` and `f`, side by side or added with `+`; numbers in all
//! bases; lists, tuples and dicts. What has no equal in JSON, such as bytes, is refused.

use super::json_text::{json_number, write_char};

/// Maximum nesting of a literal. Real arguments are not that deep.
const MAX_DEPTH: usize = 64;
/// Maximum length of a number or name.
const MAX_WORD: usize = 400;

/// Reads one literal: strings, numbers, `True`, `False`, `None`, `true`, `false`, `null`, lists,
/// tuples and dicts. White space between its tokens is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct LiteralReader {
    /// The JSON so far.
    out: String,
    /// Open brackets, outermost first.
    open: Vec<Open>,
    /// Where in `out` the latest key of the outermost dict begins.
    key_at: usize,
    /// Where in `out` its value begins; 0 before that is known.
    value_at: usize,
    state: State,
}

/// The state after a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LiteralStatus {
    /// It is part of the literal, which continues.
    Incomplete,
    /// It is the literal's last character.
    Complete,
    /// The literal ended before it: the character belongs to the next reader.
    EndedBefore,
    /// It cannot be part of a literal.
    Invalid,
}

/// An open bracket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    List,
    /// `(1)` is 1, and `(1,)` is a tuple.
    Tuple {
        /// Where in the output its bracket stands.
        at: usize,
        has_comma: bool,
    },
    Dict,
}

/// The kind of a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Quote {
    mark: char,
    is_triple: bool,
    /// `r"…"`: backslashes mean themselves.
    is_raw: bool,
    /// `f"…"`: has a value only without braces.
    is_format: bool,
    is_key: bool,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// Expects a value.
    #[default]
    Value,
    /// Expects a list's next value, or its end.
    ValueOrEnd { is_first: bool },
    /// Expects a dict's next key, or its end.
    KeyOrEnd { is_first: bool },
    /// Expects the colon after a key.
    Colon,
    /// Expects a comma or a closing bracket.
    CommaOrEnd,
    /// After the first quotes of a string: it is empty, goes on, or has three of them.
    Opening { quote: Quote, num_marks: u8 },
    /// Inside a string.
    Text(Quote),
    /// After quotes that may be the end of a string in triple quotes.
    Closing { quote: Quote, num_marks: u8 },
    /// After a string: another one may continue it.
    AfterText { is_key: bool, has_plus: bool },
    /// After a backslash.
    Escape(Quote),
    /// Inside `\x41`, `\u0041` or `\U00000041`.
    Code { quote: Quote, left: u8, code: u32 },
    /// Inside `\101`.
    Octal { quote: Quote, left: u8, code: u32 },
    /// After the first half of a UTF-16 pair: expects the `\` and the `u` of the second.
    Pair {
        quote: Quote,
        high: u32,
        has_backslash: bool,
    },
    /// Inside the second half.
    Low {
        quote: Quote,
        high: u32,
        left: u8,
        code: u32,
    },
    /// In a number, a name, or the prefix of a string.
    Word { word: String, is_key: bool },
}

impl LiteralReader {
    /// Whether a literal can begin with `c`, which is not white space.
    pub(super) fn begins(c: char) -> bool {
        matches!(
            c,
            '"' | '\'' | '[' | '(' | '{' | '-' | '+' | '.' | '0'
                ..='9' | 'T' | 'F' | 'N' | 't' | 'f' | 'n' | 'r' | 'R' | 'u' | 'U'
        )
    }

    /// Creates a reader for a literal whose first letters were already read.
    pub(super) fn in_word(word: String) -> Self {
        Self {
            state: State::Word {
                word,
                is_key: false,
            },
            ..Self::default()
        }
    }

    /// Whether a literal can begin with these letters and then `c`: a string with a prefix.
    pub(super) fn begins_string(word: &str, c: char) -> bool {
        matches!(c, '"' | '\'') && Quote::with_prefix(word, c, false).is_some()
    }

    /// Returns the JSON of the whole text, if it is one literal.
    pub(super) fn read_all(text: &str) -> Option<String> {
        let mut reader = Self::default();
        let mut chars = text.trim().chars();
        loop {
            // A string or number ends only at what follows.
            let c = chars.next();
            match reader.push(c.unwrap_or(',')) {
                LiteralStatus::Incomplete if c.is_some() => {}
                LiteralStatus::Complete if c.is_some() && chars.next().is_none() => {
                    return Some(reader.out);
                }
                LiteralStatus::EndedBefore if c.is_none() => return Some(reader.out),
                _ => return None,
            }
        }
    }

    /// Returns the JSON so far.
    pub(super) fn json(&self) -> &str {
        &self.out
    }

    /// Returns the latest key of the outermost dict as JSON, and what was read of its value. A
    /// string there has its closing quote only once it has certainly ended.
    pub(super) fn field(&self) -> Option<(&str, &str)> {
        let key = self
            .out
            .get(self.key_at..self.value_at)?
            .strip_suffix(':')?;
        Some((key, &self.out[self.value_at..]))
    }

    /// Whether only the bracket of the outermost dict or list is missing.
    pub(super) fn lacks_one_bracket(&self) -> bool {
        self.open.len() == 1 && matches!(self.state, State::CommaOrEnd)
    }

    /// Takes the next character.
    pub(super) fn push(&mut self, c: char) -> LiteralStatus {
        match std::mem::take(&mut self.state) {
            State::Value if c.is_whitespace() => self.go(State::Value),
            State::Value => self.value(c),
            State::ValueOrEnd { is_first } => self.value_or_end(c, is_first),
            State::KeyOrEnd { is_first } => self.key_or_end(c, is_first),
            State::Colon => self.colon(c),
            State::CommaOrEnd => self.comma_or_end(c),
            State::Opening { quote, num_marks } => match (c == quote.mark, num_marks) {
                (true, 1) => self.go(State::Opening {
                    quote,
                    num_marks: 2,
                }),
                (true, _) => self.go(State::Text(Quote {
                    is_triple: true,
                    ..quote
                })),
                (false, 1) => self.text(c, quote),
                (false, _) => self.after_text(c, quote.is_key, false),
            },
            State::Text(quote) => self.text(c, quote),
            State::Closing { quote, num_marks } => match (c == quote.mark, num_marks) {
                (true, 1) => self.go(State::Closing {
                    quote,
                    num_marks: 2,
                }),
                (true, _) => self.text_ended(quote),
                (false, _) => {
                    (0..num_marks).for_each(|_| write_char(quote.mark, &mut self.out));
                    self.text(c, quote)
                }
            },
            State::AfterText { is_key, has_plus } => self.after_text(c, is_key, has_plus),
            State::Escape(quote) => self.escape(c, quote),
            State::Code { quote, left, code } => match code_of(code, c) {
                Some(code) if left > 1 => self.go(State::Code {
                    quote,
                    left: left - 1,
                    code,
                }),
                Some(high @ 0xD800..0xDC00) => self.go(State::Pair {
                    quote,
                    high,
                    has_backslash: false,
                }),
                Some(code) => match char::from_u32(code) {
                    Some(c) => self.spoken(c, quote),
                    None => LiteralStatus::Invalid,
                },
                None => LiteralStatus::Invalid,
            },
            State::Octal { quote, left, code } => match c.to_digit(8) {
                Some(digit) if left > 0 => self.go(State::Octal {
                    quote,
                    left: left - 1,
                    code: code * 8 + digit,
                }),
                _ => match char::from_u32(code) {
                    Some(meant) => {
                        self.spoken(meant, quote);
                        self.text(c, quote)
                    }
                    None => LiteralStatus::Invalid,
                },
            },
            State::Pair {
                quote,
                high,
                has_backslash,
            } => match (has_backslash, c) {
                (false, '\\') => self.go(State::Pair {
                    quote,
                    high,
                    has_backslash: true,
                }),
                (true, 'u') => self.go(State::Low {
                    quote,
                    high,
                    left: 4,
                    code: 0,
                }),
                _ => LiteralStatus::Invalid,
            },
            State::Low {
                quote,
                high,
                left,
                code,
            } => match code_of(code, c) {
                Some(code) if left > 1 => self.go(State::Low {
                    quote,
                    high,
                    left: left - 1,
                    code,
                }),
                Some(low @ 0xDC00..0xE000) => {
                    let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    let c = char::from_u32(code).expect("a UTF-16 pair is a character");
                    self.spoken(c, quote)
                }
                _ => LiteralStatus::Invalid,
            },
            State::Word { word, is_key } => self.word(word, is_key, c),
        }
    }

    fn go(&mut self, state: State) -> LiteralStatus {
        self.state = state;
        LiteralStatus::Incomplete
    }

    fn value(&mut self, c: char) -> LiteralStatus {
        match c {
            '"' | '\'' => {
                self.out.push('"');
                self.quote(c, false)
            }
            '[' => {
                self.out.push('[');
                self.enter(Open::List, State::ValueOrEnd { is_first: true })
            }
            '(' => {
                let open = Open::Tuple {
                    at: self.out.len(),
                    has_comma: false,
                };
                self.out.push('[');
                self.enter(open, State::ValueOrEnd { is_first: true })
            }
            '{' => {
                self.out.push('{');
                self.enter(Open::Dict, State::KeyOrEnd { is_first: true })
            }
            c if Self::begins(c) => self.go(State::Word {
                word: c.to_string(),
                is_key: false,
            }),
            _ => LiteralStatus::Invalid,
        }
    }

    fn quote(&mut self, mark: char, is_key: bool) -> LiteralStatus {
        self.go(State::Opening {
            quote: Quote {
                mark,
                is_key,
                ..Quote::default()
            },
            num_marks: 1,
        })
    }

    /// Handles a list's next value or its end. Python allows a trailing comma, JSON does not, so
    /// the comma is written only when a value follows.
    fn value_or_end(&mut self, c: char, is_first: bool) -> LiteralStatus {
        if c.is_whitespace() {
            return self.go(State::ValueOrEnd { is_first });
        }
        if self.closes(c) {
            return self.close(is_first);
        }
        if Self::begins(c) && !is_first {
            self.out.push(',');
        }
        self.value(c)
    }

    fn enter(&mut self, open: Open, state: State) -> LiteralStatus {
        if self.open.len() == MAX_DEPTH {
            return LiteralStatus::Invalid;
        }
        self.open.push(open);
        self.go(state)
    }

    fn key_or_end(&mut self, c: char, is_first: bool) -> LiteralStatus {
        match c {
            c if c.is_whitespace() => return self.go(State::KeyOrEnd { is_first }),
            '}' => return self.close(is_first),
            c if !Self::begins(c) || matches!(c, '[' | '(' | '{') => return LiteralStatus::Invalid,
            _ => {}
        }
        if !is_first {
            self.out.push(',');
        }
        if self.open.len() == 1 {
            self.key_at = self.out.len();
            self.value_at = 0;
        }
        match c {
            '"' | '\'' => {
                self.out.push('"');
                self.quote(c, true)
            }
            c => self.go(State::Word {
                word: c.to_string(),
                is_key: true,
            }),
        }
    }

    fn colon(&mut self, c: char) -> LiteralStatus {
        match c {
            ':' => {
                self.out.push(':');
                if self.open.len() == 1 {
                    self.value_at = self.out.len();
                }
                self.go(State::Value)
            }
            c if c.is_whitespace() => self.go(State::Colon),
            _ => LiteralStatus::Invalid,
        }
    }

    fn comma_or_end(&mut self, c: char) -> LiteralStatus {
        let closes = self.closes(c);
        match (c, self.open.last_mut()) {
            (c, _) if c.is_whitespace() => self.go(State::CommaOrEnd),
            _ if closes => self.close(false),
            (',', Some(Open::Dict)) => self.go(State::KeyOrEnd { is_first: false }),
            (',', Some(Open::List)) => self.go(State::ValueOrEnd { is_first: false }),
            (',', Some(Open::Tuple { has_comma, .. })) => {
                *has_comma = true;
                self.go(State::ValueOrEnd { is_first: false })
            }
            _ => LiteralStatus::Invalid,
        }
    }

    fn closes(&self, c: char) -> bool {
        match self.open.last() {
            Some(Open::List) => c == ']',
            Some(Open::Tuple { .. }) => c == ')',
            Some(Open::Dict) => c == '}',
            None => false,
        }
    }

    fn close(&mut self, is_empty: bool) -> LiteralStatus {
        match self.open.pop() {
            Some(Open::Tuple {
                at,
                has_comma: false,
            }) if !is_empty => {
                self.out.remove(at);
            }
            Some(Open::List | Open::Tuple { .. }) => self.out.push(']'),
            Some(Open::Dict) => self.out.push('}'),
            None => return LiteralStatus::Invalid,
        }
        if self.open.is_empty() {
            return LiteralStatus::Complete;
        }
        self.go(State::CommaOrEnd)
    }

    fn text(&mut self, c: char, quote: Quote) -> LiteralStatus {
        match c {
            '\\' => self.go(State::Escape(quote)),
            c if c == quote.mark && quote.is_triple => self.go(State::Closing {
                quote,
                num_marks: 1,
            }),
            c if c == quote.mark => self.text_ended(quote),
            '{' | '}' if quote.is_format => LiteralStatus::Invalid,
            c => self.spoken(c, quote),
        }
    }

    fn text_ended(&mut self, quote: Quote) -> LiteralStatus {
        self.go(State::AfterText {
            is_key: quote.is_key,
            has_plus: false,
        })
    }

    /// Handles what follows a string. Python joins strings that stand side by side.
    fn after_text(&mut self, c: char, is_key: bool, has_plus: bool) -> LiteralStatus {
        match c {
            c if c.is_whitespace() => self.go(State::AfterText { is_key, has_plus }),
            '"' | '\'' => self.quote(c, is_key),
            '+' if !has_plus => self.go(State::AfterText {
                is_key,
                has_plus: true,
            }),
            _ if has_plus => LiteralStatus::Invalid,
            c => {
                self.out.push('"');
                self.beyond(c, is_key)
            }
        }
    }

    /// Handles the character after a string, number or name.
    fn beyond(&mut self, c: char, is_key: bool) -> LiteralStatus {
        match self.open.is_empty() {
            true => LiteralStatus::EndedBefore,
            false if is_key => self.colon(c),
            false => self.comma_or_end(c),
        }
    }

    /// Writes a character of a string.
    fn spoken(&mut self, c: char, quote: Quote) -> LiteralStatus {
        write_char(c, &mut self.out);
        self.go(State::Text(quote))
    }

    fn escape(&mut self, c: char, quote: Quote) -> LiteralStatus {
        if quote.is_raw {
            write_char('\\', &mut self.out);
            return self.spoken(c, quote);
        }
        let digits = |left| State::Code {
            quote,
            left,
            code: 0,
        };
        let meant = match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'a' => '\u{7}',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '/' => c,
            'x' => return self.go(digits(2)),
            'u' => return self.go(digits(4)),
            'U' => return self.go(digits(8)),
            // The string goes on in the next line.
            '\n' => return self.go(State::Text(quote)),
            '0'..='7' => {
                return self.go(State::Octal {
                    quote,
                    left: 2,
                    code: c.to_digit(8).expect("an octal digit"),
                });
            }
            // As in Python, an unknown escape means the backslash and the letter.
            c => {
                write_char('\\', &mut self.out);
                c
            }
        };
        self.spoken(meant, quote)
    }

    fn word(&mut self, mut word: String, is_key: bool, c: char) -> LiteralStatus {
        if is_of_word(c, &word) {
            word.push(c);
            if word.len() > MAX_WORD {
                return LiteralStatus::Invalid;
            }
            return self.go(State::Word { word, is_key });
        }
        if let Some(quote) = Quote::with_prefix(&word, c, is_key) {
            self.out.push('"');
            return self.go(State::Opening {
                quote,
                num_marks: 1,
            });
        }
        let Some(json) = json_word(&word) else {
            return LiteralStatus::Invalid;
        };
        // Python's own JSON writes such keys as strings too.
        match is_key {
            true => self.out.push_str(&format!("\"{json}\"")),
            false => self.out.push_str(&json),
        }
        self.beyond(c, is_key)
    }
}

impl Quote {
    /// Returns the kind of a string that begins with this prefix and quote.
    fn with_prefix(prefix: &str, mark: char, is_key: bool) -> Option<Self> {
        if !matches!(mark, '"' | '\'') {
            return None;
        }
        let (is_raw, is_format) = match prefix.to_ascii_lowercase().as_str() {
            "u" => (false, false),
            "r" => (true, false),
            "f" => (false, true),
            "rf" | "fr" => (true, true),
            _ => return None,
        };
        Some(Self {
            mark,
            is_triple: false,
            is_raw,
            is_format,
            is_key,
        })
    }
}

fn code_of(code: u32, c: char) -> Option<u32> {
    let digit = c.to_digit(16)?;
    code.checked_mul(16)?.checked_add(digit)
}

/// Whether a number or name continues with `c`. A sign is allowed only after an exponent's letter.
fn is_of_word(c: char, word: &str) -> bool {
    let is_number = word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match c {
        '+' | '-' => is_number && word.ends_with(['e', 'E']),
        '.' => is_number,
        c => c.is_ascii_alphanumeric() || c == '_',
    }
}

fn json_word(word: &str) -> Option<String> {
    match word.to_ascii_lowercase().as_str() {
        "true" => Some("true".to_owned()),
        "false" => Some("false".to_owned()),
        "none" | "null" => Some("null".to_owned()),
        _ => json_number(word),
    }
}

#[cfg(test)]
mod tests;
