//! Where in a JSON text an answer is.
//!
//! Reads only as much as is needed to know which tokens would make a number or a list longer, or give
//! an object the same name twice. The grammar itself decides what is allowed.

use super::object_names::{Container, OpenName};

/// Maximum number of digits before the point of a number: as many as the largest integer of 64 bits
/// has.
const MAX_INTEGER_DIGITS: usize = 20;
/// Maximum number of digits behind the point. A double has 17 significant ones.
const MAX_FRACTION_DIGITS: usize = 17;
/// Maximum number of digits of an exponent. A number of the most digits is within the range of
/// doubles up to the exponent 288.
const MAX_EXPONENT_DIGITS: usize = 3;

/// The position behind the bytes that it has received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JsonCursor {
    /// The open objects and arrays, the innermost last.
    containers: Vec<Container>,
    lexeme: Lexeme,
    /// The name that the string is, where it is one.
    name: Option<OpenName>,
    /// Whether an object has a name twice.
    repeats_name: bool,
}

/// The token of JSON that the next byte may continue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lexeme {
    /// None: the next byte begins one, or is white space or punctuation.
    #[default]
    None,
    /// A string, and whether its last byte is a backslash that escapes the next.
    String { is_escaping: bool },
    /// A part of a number, and its digits so far.
    Number { part: Part, num_digits: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Integer,
    Fraction,
    Exponent { is_negative: bool, value: usize },
}

impl JsonCursor {
    /// Moves behind `byte`.
    pub(super) fn push(&mut self, byte: u8) {
        let was_in_string = self.is_in_string();
        self.move_behind(byte);
        match (was_in_string, self.is_in_string()) {
            (false, true) => {
                let container = self.containers.last();
                self.name = container.and_then(Container::begin_name);
            }
            (true, true) => {
                if let Some(name) = &mut self.name {
                    name.push(byte);
                }
            }
            (true, false) => {
                if let (Some(name), Some(container)) =
                    (self.name.take(), self.containers.last_mut())
                {
                    self.repeats_name |= !container.add(&name);
                }
            }
            (false, false) => {
                if let (b',', Some(container)) = (byte, self.containers.last_mut()) {
                    container.expect_name();
                }
            }
        }
    }

    fn move_behind(&mut self, byte: u8) {
        self.lexeme = match (self.lexeme, byte) {
            (Lexeme::String { is_escaping: true }, _) => Lexeme::String { is_escaping: false },
            (Lexeme::String { .. }, b'\\') => Lexeme::String { is_escaping: true },
            (Lexeme::String { .. }, b'"') => Lexeme::None,
            (string @ Lexeme::String { .. }, _) => string,
            (_, b'"') => Lexeme::String { is_escaping: false },
            (Lexeme::Number { part, num_digits }, b'0'..=b'9') => Lexeme::Number {
                part: match part {
                    Part::Exponent { is_negative, value } => Part::Exponent {
                        is_negative,
                        value: (value * 10 + usize::from(byte - b'0')).min(1000),
                    },
                    part => part,
                },
                num_digits: num_digits + 1,
            },
            (Lexeme::None, b'0'..=b'9') => Lexeme::Number {
                part: Part::Integer,
                num_digits: 1,
            },
            (Lexeme::Number { .. }, b'.') => Lexeme::Number {
                part: Part::Fraction,
                num_digits: 0,
            },
            (Lexeme::Number { .. }, b'e' | b'E') => Lexeme::Number {
                part: Part::Exponent {
                    is_negative: false,
                    value: 0,
                },
                num_digits: 0,
            },
            (
                Lexeme::Number {
                    part: Part::Exponent { value, .. },
                    num_digits: 0,
                },
                b'+' | b'-',
            ) => Lexeme::Number {
                part: Part::Exponent {
                    is_negative: byte == b'-',
                    value,
                },
                num_digits: 0,
            },
            (_, b'{') => {
                self.containers.push(Container::object());
                Lexeme::None
            }
            (_, b'[') => {
                self.containers.push(Container::Array);
                Lexeme::None
            }
            (_, b'}' | b']') => {
                self.containers.pop();
                Lexeme::None
            }
            _ => Lexeme::None,
        };
    }

    /// Number of bytes that at least must follow to close what is open.
    pub(super) fn num_open(&self) -> usize {
        self.containers.len() + usize::from(self.is_in_string())
    }

    /// Whether an object has had a name twice.
    pub(super) fn repeats_name(&self) -> bool {
        self.repeats_name
    }

    /// Whether an object with names is open, in which one may come twice.
    pub(super) fn has_names(&self) -> bool {
        self.containers.iter().any(Container::has_names)
    }

    /// Whether the next byte is part of a name.
    pub(super) fn is_in_name(&self) -> bool {
        self.name.is_some()
    }

    /// Whether an object has a name twice behind `bytes`.
    pub(super) fn repeats_behind(&self, bytes: &[u8]) -> bool {
        let mut cursor = self.clone();
        for byte in bytes {
            cursor.push(*byte);
        }
        cursor.repeats_name
    }

    /// Whether the next byte is part of a string.
    pub(super) fn is_in_string(&self) -> bool {
        matches!(self.lexeme, Lexeme::String { .. })
    }

    /// Number of digits with which the number that the answer is in may go on; `None` outside of
    /// numbers.
    pub(super) fn digits_left(&self) -> Option<usize> {
        match self.lexeme {
            Lexeme::Number { part, num_digits } => {
                let most = match part {
                    Part::Integer => MAX_INTEGER_DIGITS,
                    Part::Fraction => MAX_FRACTION_DIGITS,
                    Part::Exponent {
                        is_negative: true, ..
                    } => MAX_EXPONENT_DIGITS,
                    // With a digit or two more, the exponent must still be small enough.
                    Part::Exponent { value, .. } => match (num_digits, value) {
                        (0, _) => 2,
                        (1, 0..=1) | (2, 0..=27) => 3,
                        (1, _) => 2,
                        _ => num_digits,
                    },
                };
                Some(most.saturating_sub(num_digits))
            }
            Lexeme::None | Lexeme::String { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(text: &str) -> JsonCursor {
        let mut cursor = JsonCursor::default();
        for byte in text.bytes() {
            cursor.push(byte);
        }
        cursor
    }

    #[test]
    fn what_is_open_is_counted() {
        for (text, num_open) in [
            ("", 0),
            ("{", 1),
            ("{\"a", 2),
            ("{\"a\"", 1),
            ("{\"a\\\"", 2),
            ("{\"a\\\\\"", 1),
            ("{\"[{\": [1, {", 3),
            ("{\"a\": [1, {}]}", 0),
        ] {
            assert_eq!(behind(text).num_open(), num_open, "{text}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_is_noticed() {
        for (text, repeats) in [
            ("{\"a\": 1, \"b\": \"a\"", false),
            ("{\"a\": \"a\", \"a", false),
            ("{\"a\": 1, \"a\"", true),
            ("{\"a\": {\"a\": [\"a\", \"a\"]}", false),
            ("{\"a\": {\"b\": 1}, \"b\": 1", false),
            ("{\"a\": {\"b\": 1}, \"a\"", true),
            // The same name, written otherwise.
            ("{\"a\\\"\": 1, \"\\u0061\\u0022\"", true),
            ("{\"é\": 1, \"\\u00E9\"", true),
            ("{\"a\": 1, \"\\\\u0061\"", false),
        ] {
            assert_eq!(behind(text).repeats_name(), repeats, "{text}");
        }
        let place = behind("{\"a\": 1, \"");
        assert!(place.is_in_name() && place.has_names());
        assert!(place.repeats_behind(b"a\":") && !place.repeats_behind(b"ab\":"));
    }

    #[test]
    fn digits_are_counted_part_by_part() {
        for (text, left) in [
            ("", None),
            ("\"12", None),
            ("[1, 2", Some(19)),
            ("-12345678901234567890", Some(0)),
            ("123.", Some(17)),
            ("1.25", Some(15)),
            ("1.5e", Some(2)),
            ("1e-30", Some(1)),
            ("1e+28", Some(0)),
            ("1e+27", Some(1)),
            ("1e+3", Some(1)),
            ("1e+1", Some(2)),
            ("1e+279", Some(0)),
            ("1e-308", Some(0)),
            ("12,", None),
        ] {
            assert_eq!(behind(text).digits_left(), left, "{text}");
        }
    }
}
