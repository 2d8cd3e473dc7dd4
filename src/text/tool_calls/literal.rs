//! Converts a Python or JSON literal to compact JSON, character by character.

/// Maximum nesting of a literal. Real arguments are not that deep.
const MAX_DEPTH: usize = 64;
/// Maximum length of a number or name.
const MAX_WORD: usize = 400;

/// Reads one literal: strings, numbers, `True`, `False`, `None`, `true`, `false`, `null`, lists,
/// tuples and dicts with string keys. White space between its tokens is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct LiteralReader {
    /// Open brackets, outermost first.
    open: Vec<Open>,
    state: State,
}

/// The effect of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is part of the literal, which continues.
    Going,
    /// It is the literal's last character.
    Last,
    /// The literal ended before it: the character belongs to the next reader.
    Beyond,
    /// It cannot be part of a literal.
    Wrong,
}

/// An open bracket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    List { close: char },
    Dict,
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
    /// Inside a string.
    Text { quote: char, is_key: bool },
    /// After a backslash.
    Escape { quote: char, is_key: bool },
    /// Inside `\x41`, `\u0041` or `\U00000041`.
    Code {
        quote: char,
        is_key: bool,
        left: u8,
        code: u32,
    },
    /// After the first half of a UTF-16 pair: expects the `\` and the `u` of the second.
    Pair {
        quote: char,
        is_key: bool,
        high: u32,
        has_backslash: bool,
    },
    /// Inside the second half.
    Low {
        quote: char,
        is_key: bool,
        high: u32,
        left: u8,
        code: u32,
    },
    /// In a number or a name.
    Word(String),
}

impl LiteralReader {
    /// Whether a literal can begin with `c`, which is not white space.
    pub(super) fn begins(c: char) -> bool {
        matches!(
            c,
            '"' | '\'' | '[' | '(' | '{' | '-' | '+' | '.' | '0'
                ..='9' | 'T' | 'F' | 'N' | 't' | 'f' | 'n'
        )
    }

    /// Creates a reader for a dict whose `{` was already read.
    pub(super) fn in_dict(out: &mut String) -> Self {
        out.push('{');
        Self {
            open: vec![Open::Dict],
            state: State::KeyOrEnd { is_first: true },
        }
    }

    /// Creates a reader for a literal whose first letters were already read.
    pub(super) fn in_word(word: String) -> Self {
        Self {
            open: Vec::new(),
            state: State::Word(word),
        }
    }

    /// Takes the next character and appends its output to `out`.
    pub(super) fn push(&mut self, c: char, out: &mut String) -> Taken {
        match std::mem::take(&mut self.state) {
            State::Value if c.is_whitespace() => self.go(State::Value),
            State::Value => self.value(c, out),
            State::ValueOrEnd { is_first } => self.value_or_end(c, is_first, out),
            State::KeyOrEnd { is_first } => self.key_or_end(c, is_first, out),
            State::Colon => match c {
                ':' => {
                    out.push(':');
                    self.go(State::Value)
                }
                c if c.is_whitespace() => self.go(State::Colon),
                _ => Taken::Wrong,
            },
            State::CommaOrEnd => self.comma_or_end(c, out),
            State::Text { quote, is_key } => self.text(c, quote, is_key, out),
            State::Escape { quote, is_key } => self.escape(c, quote, is_key, out),
            State::Code {
                quote,
                is_key,
                left,
                code,
            } => match code_of(code, c) {
                Some(code) if left > 1 => self.go(State::Code {
                    quote,
                    is_key,
                    left: left - 1,
                    code,
                }),
                Some(high @ 0xD800..0xDC00) => self.go(State::Pair {
                    quote,
                    is_key,
                    high,
                    has_backslash: false,
                }),
                Some(code) => match char::from_u32(code) {
                    Some(c) => self.spoken(c, quote, is_key, out),
                    None => Taken::Wrong,
                },
                None => Taken::Wrong,
            },
            State::Pair {
                quote,
                is_key,
                high,
                has_backslash,
            } => match (has_backslash, c) {
                (false, '\\') => self.go(State::Pair {
                    quote,
                    is_key,
                    high,
                    has_backslash: true,
                }),
                (true, 'u') => self.go(State::Low {
                    quote,
                    is_key,
                    high,
                    left: 4,
                    code: 0,
                }),
                _ => Taken::Wrong,
            },
            State::Low {
                quote,
                is_key,
                high,
                left,
                code,
            } => match code_of(code, c) {
                Some(code) if left > 1 => self.go(State::Low {
                    quote,
                    is_key,
                    high,
                    left: left - 1,
                    code,
                }),
                Some(low @ 0xDC00..0xE000) => {
                    let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    let c = char::from_u32(code).expect("a UTF-16 pair is a character");
                    self.spoken(c, quote, is_key, out)
                }
                _ => Taken::Wrong,
            },
            State::Word(mut word) => {
                if is_of_word(c, &word) {
                    word.push(c);
                    if word.len() > MAX_WORD {
                        return Taken::Wrong;
                    }
                    return self.go(State::Word(word));
                }
                if !write_word(&word, out) {
                    return Taken::Wrong;
                }
                if self.open.is_empty() {
                    return Taken::Beyond;
                }
                self.comma_or_end(c, out)
            }
        }
    }

    fn go(&mut self, state: State) -> Taken {
        self.state = state;
        Taken::Going
    }

    fn value(&mut self, c: char, out: &mut String) -> Taken {
        match c {
            '"' | '\'' => {
                out.push('"');
                self.go(State::Text {
                    quote: c,
                    is_key: false,
                })
            }
            '[' | '(' => {
                out.push('[');
                let close = if c == '[' { ']' } else { ')' };
                self.enter(Open::List { close }, State::ValueOrEnd { is_first: true })
            }
            '{' => {
                out.push('{');
                self.enter(Open::Dict, State::KeyOrEnd { is_first: true })
            }
            c if Self::begins(c) => self.go(State::Word(c.to_string())),
            _ => Taken::Wrong,
        }
    }

    /// Handles a list's next value or its end. Python allows a trailing comma, JSON does not, so
    /// the comma is written only when a value follows.
    fn value_or_end(&mut self, c: char, is_first: bool, out: &mut String) -> Taken {
        if c.is_whitespace() {
            return self.go(State::ValueOrEnd { is_first });
        }
        if self.open.last() == Some(&Open::List { close: c }) {
            return self.close(out);
        }
        if Self::begins(c) && !is_first {
            out.push(',');
        }
        self.value(c, out)
    }

    fn enter(&mut self, open: Open, state: State) -> Taken {
        if self.open.len() == MAX_DEPTH {
            return Taken::Wrong;
        }
        self.open.push(open);
        self.go(state)
    }

    fn key_or_end(&mut self, c: char, is_first: bool, out: &mut String) -> Taken {
        match c {
            '"' | '\'' => {
                out.push_str(if is_first { "\"" } else { ",\"" });
                self.go(State::Text {
                    quote: c,
                    is_key: true,
                })
            }
            '}' => self.close(out),
            c if c.is_whitespace() => self.go(State::KeyOrEnd { is_first }),
            _ => Taken::Wrong,
        }
    }

    fn comma_or_end(&mut self, c: char, out: &mut String) -> Taken {
        let open = *self.open.last().expect("it stands between brackets");
        match (c, open) {
            (c, _) if c.is_whitespace() => self.go(State::CommaOrEnd),
            (',', Open::List { .. }) => self.go(State::ValueOrEnd { is_first: false }),
            (',', Open::Dict) => self.go(State::KeyOrEnd { is_first: false }),
            ('}', Open::Dict) => self.close(out),
            (c, Open::List { close }) if c == close => self.close(out),
            _ => Taken::Wrong,
        }
    }

    fn close(&mut self, out: &mut String) -> Taken {
        match self.open.pop() {
            Some(Open::List { .. }) => out.push(']'),
            Some(Open::Dict) => out.push('}'),
            None => return Taken::Wrong,
        }
        self.ended()
    }

    /// Handles the end of a value.
    fn ended(&mut self) -> Taken {
        if self.open.is_empty() {
            return Taken::Last;
        }
        self.go(State::CommaOrEnd)
    }

    fn text(&mut self, c: char, quote: char, is_key: bool, out: &mut String) -> Taken {
        match c {
            '\\' => self.go(State::Escape { quote, is_key }),
            c if c == quote => {
                out.push('"');
                if is_key {
                    return self.go(State::Colon);
                }
                self.ended()
            }
            c => self.spoken(c, quote, is_key, out),
        }
    }

    /// Writes a character of a string.
    fn spoken(&mut self, c: char, quote: char, is_key: bool, out: &mut String) -> Taken {
        write_char(c, out);
        self.go(State::Text { quote, is_key })
    }

    fn escape(&mut self, c: char, quote: char, is_key: bool, out: &mut String) -> Taken {
        let digits = |left| State::Code {
            quote,
            is_key,
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
            // As in Python, an unknown escape means the backslash and the letter.
            c => {
                write_char('\\', out);
                c
            }
        };
        self.spoken(meant, quote, is_key, out)
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

fn write_word(word: &str, out: &mut String) -> bool {
    let json = match word {
        "True" | "true" => "true".to_owned(),
        "False" | "false" => "false".to_owned(),
        "None" | "null" => "null".to_owned(),
        number => match json_number(number) {
            Some(number) => number,
            None => return false,
        },
    };
    out.push_str(&json);
    true
}

/// Converts a number to JSON, which has no `+1`, `.5`, `1.` or `1_000`. `007` is invalid in both
/// JSON and Python.
fn json_number(word: &str) -> Option<String> {
    let (sign, word) = match word.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (word, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| {
        let plain = text.replace('_', "");
        let sound = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
        (sound && plain.bytes().all(|byte| byte.is_ascii_digit())).then_some(plain)
    };
    let whole = digits(whole)?;
    let fraction = fraction.map_or(Some(String::new()), digits)?;
    if whole.is_empty() && fraction.is_empty() || whole.len() > 1 && whole.starts_with('0') {
        return None;
    }
    let mut json = format!("{sign}{}", if whole.is_empty() { "0" } else { &whole });
    if mantissa.contains('.') {
        json.push('.');
        json.push_str(if fraction.is_empty() { "0" } else { &fraction });
    }
    if let Some(exponent) = exponent {
        let (sign, size) = match exponent.strip_prefix(['+', '-']) {
            Some(size) => (&exponent[..1], size),
            None => ("", exponent),
        };
        let size = digits(size).filter(|size| !size.is_empty())?;
        json.push_str(&format!("e{sign}{size}"));
    }
    Some(json)
}

/// Writes a character inside a JSON string, escaped if necessary.
pub(super) fn write_char(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the JSON of a literal that is followed by a comma.
    fn json(literal: &str) -> Option<String> {
        let mut reader = LiteralReader::default();
        let mut out = String::new();
        let mut chars = literal.chars().chain([',']).peekable();
        while let Some(c) = chars.next() {
            match reader.push(c, &mut out) {
                Taken::Going => {}
                Taken::Last => return (chars.collect::<String>() == ",").then_some(out),
                Taken::Beyond => return chars.peek().is_none().then_some(out),
                Taken::Wrong => return None,
            }
        }
        None
    }

    #[test]
    fn literals_become_the_json_that_they_mean() {
        for (literal, expected) in [
            ("\"a\"", "\"a\""),
            ("'it\\'s \"so\"'", "\"it's \\\"so\\\"\""),
            (
                "\"l1\\nl2\\t\\\\\\x41\\u00e9\\U0001F642\"",
                "\"l1\\nl2\\t\\\\Aé🙂\"",
            ),
            ("\"\\ud83d\\ude42\"", "\"🙂\""),
            ("\"\\d\\/\"", "\"\\\\d/\""),
            ("'a\nb\u{1}'", "\"a\\nb\\u0001\""),
            ("0", "0"),
            ("-12", "-12"),
            ("+1", "1"),
            (".5", "0.5"),
            ("1.", "1.0"),
            ("1_000.5e-3", "1000.5e-3"),
            ("1E5", "1e5"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
            ("True", "true"),
            ("false", "false"),
            ("None", "null"),
            ("null", "null"),
            ("[]", "[]"),
            ("[ 1 , 'a' , [ ] , {} ]", "[1,\"a\",[],{}]"),
            ("(1, 2,)", "[1,2]"),
            ("{ 'a' : 1 , \"b\":[True,], }", "{\"a\":1,\"b\":[true]}"),
            ("['a:', 'b[']", "[\"a:\",\"b[\"]"),
            (
                "{'a': [[1], [2]], 'c': {'d': None}}",
                "{\"a\":[[1],[2]],\"c\":{\"d\":null}}",
            ),
        ] {
            let found = json(literal).unwrap_or_else(|| panic!("{literal} is refused"));
            assert_eq!(found, expected, "{literal}");
            serde_json::from_str::<serde_json::Value>(&found).expect("it is JSON");
        }
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for literal in [
            "x",
            "007",
            "1__0",
            "_1",
            "1e",
            "--1",
            "1.2.3",
            "inf",
            "[1 2]",
            "[,]",
            "{1: 2}",
            "{'a' 1}",
            "{'a': }",
            "(1]",
            "'\\ud83d'",
            "'\\ud83dx'",
            "'\\xg0'",
            "-",
            ".",
            "f(1)",
            "'a' 'b'",
            "Tru",
            "'\\U00110000'",
        ] {
            assert_eq!(json(literal), None, "{literal}");
        }
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(json(&deep(64)).is_some());
        assert!(json(&deep(65)).is_none());
    }
}
