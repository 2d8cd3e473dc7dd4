//! Amounts of memory as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 13] = [
    ("b", 1),
    // As Docker and Java take them.
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("\"{text}\" is not a size; write 4GiB, 512MB or bytes");
        let text = text.trim();
        let unit_start = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_start);
        let unit = unit.trim().to_ascii_lowercase();
        let factor = match unit.as_str() {
            "" => 1,
            unit => UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, factor)| *factor)
                .ok_or_else(malformed)?,
        };
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(factor).ok_or_else(malformed)?,
            Err(_) => {
                let number: f64 = number.parse().map_err(|_| malformed())?;
                (number * factor as f64) as u64
            }
        };
        if bytes == 0 {
            return Err("must be more than nothing".to_owned());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = match self.0 {
            0..1_048_576 => ("KiB", 1u64 << 10),
            1_048_576..1_073_741_824 => ("MiB", 1 << 20),
            _ => ("GiB", 1 << 30),
        };
        let number = self.0 as f64 / factor as f64;
        let decimals = usize::from(number < 99.95 && factor > 1 << 20);
        write!(f, "{number:.decimals$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("4GiB", 4 << 30),
            ("4 gib", 4 << 30),
            ("4g", 4 << 30),
            ("512MB", 512_000_000),
            ("512m", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("2kB", 2000),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "",
            "GiB",
            "4XB",
            "-1",
            "1e9",
            "1.2.3",
            "0",
            "0GiB",
            "99999999999TiB",
            "4Gi B",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_short() {
        for (bytes, text) in [
            (1 << 10, "1 KiB"),
            (300 << 20, "300 MiB"),
            (5 << 30, "5.0 GiB"),
            (108 << 30, "108 GiB"),
            (1_610_612_736, "1.5 GiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
