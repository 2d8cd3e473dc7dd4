//! Parses counts with units: 8192, 8k, 1.5M.

use std::str::FromStr;

/// Far above what any machine can do, low enough that products of it are exact.
const MAX: usize = 1 << 24;

/// vLLM's units: small letters are decimal, capitals binary.
const UNITS: [(char, u64); 8] = [
    ('k', 1_000),
    ('m', 1_000_000),
    ('g', 1_000_000_000),
    ('t', 1_000_000_000_000),
    ('K', 1 << 10),
    ('M', 1 << 20),
    ('G', 1 << 30),
    ('T', 1 << 40),
];

/// A whole number, which may have a unit; `None` for anything else.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let unit = text.chars().next_back()?;
    let (_, factor) = UNITS.iter().find(|(known, _)| *known == unit)?;
    let number = text.strip_suffix(unit)?;
    let is_plain = number.starts_with(|c: char| c.is_ascii_digit())
        && number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let product = number.parse::<f64>().ok().filter(|_| is_plain)? * *factor as f64;
    // Beyond it not every whole number is one.
    let is_whole = product.fract() == 0.0 && product < (1u64 << 53) as f64;
    is_whole.then_some(product as u64)
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match number(text).map(usize::try_from) {
        Some(Ok(number @ 1..=MAX)) => Ok(number),
        Some(_) => Err(format!("it must be between 1 and {MAX}")),
        None => Err("it must be a whole number, such as 8192 or 8k".to_owned()),
    }
}

/// The longest sequence, in tokens; `None` is as long as fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SequenceLength(pub(super) Option<usize>);

impl FromStr for SequenceLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" | "-1" => Ok(Self(None)),
            _ => at_least_one(text).map(|length| Self(Some(length))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_have_a_unit() {
        for (text, number) in [
            ("1", 1),
            (" 8192 ", 8192),
            ("8k", 8000),
            ("8K", 8192),
            ("25.6k", 25_600),
            ("1M", 1 << 20),
            ("1m", 1_000_000),
        ] {
            assert_eq!(at_least_one(text), Ok(number), "{text}");
        }
        for text in [
            "", "k", "x", "1.5", "1.0001k", "-1", "-1k", "1e3", "infk", "1kk",
        ] {
            let error = at_least_one(text).expect_err(text);
            assert!(error.contains("whole number"), "{text}: {error}");
        }
        for text in ["0", "0k", "17M", "999T"] {
            let error = at_least_one(text).expect_err(text);
            assert!(error.contains("between 1 and"), "{text}: {error}");
        }
    }

    #[test]
    fn a_length_may_be_whatever_fits() {
        for text in ["auto", "AUTO", "-1"] {
            assert_eq!(text.parse(), Ok(SequenceLength(None)));
        }
        assert_eq!("8K".parse(), Ok(SequenceLength(Some(8192))));
        assert!("-2".parse::<SequenceLength>().is_err());
    }
}
