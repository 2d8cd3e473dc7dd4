//! Parses durations in seconds.

use std::time::Duration;

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) Duration);

/// Ten years: longer than any useful limit, and far from overflowing any clock.
const MAX_SECONDS: f64 = 10.0 * 365.0 * 24.0 * 3600.0;

/// Seconds from 0.
pub(super) fn any_seconds(text: &str) -> Result<Seconds, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => {
            Ok(Seconds(Duration::from_secs_f64(seconds)))
        }
        Ok(_) => Err(format!("it must be between 0 and {MAX_SECONDS} seconds")),
        Err(_) => Err("it must be a number of seconds".to_owned()),
    }
}

/// Seconds above 0.
pub(super) fn some_seconds(text: &str) -> Result<Seconds, String> {
    match any_seconds(text)? {
        Seconds(Duration::ZERO) => Err("it must be more than 0 seconds".to_owned()),
        seconds => Ok(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_numbers_from_zero() {
        for (text, millis) in [("0", 0), ("30", 30_000), ("0.25", 250), ("1e2", 100_000)] {
            let time = Duration::from_millis(millis);
            assert_eq!(any_seconds(text), Ok(Seconds(time)), "{text}");
        }
        for text in ["", "-1", "nan", "inf", "5s", "1e12"] {
            assert!(any_seconds(text).is_err(), "{text}");
        }
        assert!(some_seconds("0").is_err());
        assert!(some_seconds("1e-300").is_err());
        assert!(some_seconds("0.001").is_ok());
    }
}
