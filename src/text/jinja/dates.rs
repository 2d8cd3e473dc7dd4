//! The date and time for chat templates: `strftime_now`.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use jiff::tz::TimeZone;
use minijinja::{Error, ErrorKind};

/// The current time as Python's `datetime.now().strftime(format)` prints it, but in UTC: containers
/// run in it, and a server's answers should not depend on its location.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let now = Timestamp::new(now.as_secs() as i64, now.subsec_nanos() as i32);
    let text = now.map_err(|error| error.to_string());
    text.and_then(|now| strftime(now, format))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error))
}

/// The directives that Python knows on Linux. The library has others.
const DIRECTIVES: &str = "%aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ";

/// Prints a time in English and in UTC. A `-` after the percent sign means without padding. The
/// error names an unknown directive.
fn strftime(time: Timestamp, format: &str) -> Result<String, String> {
    let mut known = String::with_capacity(format.len());
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        known.push(c);
        if c != '%' {
            continue;
        }
        let mut directive = rest.next();
        let is_bare = directive == Some('-');
        if is_bare {
            known.push('-');
            directive = rest.next();
        }
        match directive {
            // Python prints microseconds.
            Some('f') if !is_bare => known.push_str("6f"),
            Some(directive) if DIRECTIVES.contains(directive) => known.push(directive),
            unknown => {
                let unknown = unknown.map_or(String::new(), String::from);
                return Err(format!("strftime_now does not know %{unknown}"));
            }
        }
    }
    let config = Config::new().custom(PosixCustom::new());
    BrokenDownTime::from(&time.to_zoned_datetime(TimeZone::UTC))
        .to_string_with_config(&config, &known)
        .map_err(|error| format!("strftime_now cannot print this: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_in_c() {
        let print = |seconds, format| strftime(Timestamp::from_second(seconds).unwrap(), format);
        // Each line: date -u -d @SECONDS +FORMAT
        for (seconds, format, expected) in [
            (
                0,
                "%A %d %B %Y %H:%M:%S",
                "Thursday 01 January 1970 00:00:00",
            ),
            (951_782_399, "%d %b %Y %T %j", "28 Feb 2000 23:59:59 059"),
            (951_782_400, "%F %a %j", "2000-02-29 Tue 060"),
            (
                978_220_800,
                "%d.%m.%y %I %p day %j",
                "31.12.00 12 AM day 366",
            ),
            (1_767_225_599, "%Y-%m-%d %I:%M %p", "2025-12-31 11:59 PM"),
            (
                1_772_582_405,
                "%-d/%-m %-H:%-M:%-S|%e|100%%",
                "4/3 0:0:5| 4|100%",
            ),
            (4_107_542_400, "%F", "2100-03-01"),
            (-1, "%F %T %Z%z", "1969-12-31 23:59:59 UTC+0000"),
        ] {
            assert_eq!(print(seconds, format).as_deref(), Ok(expected), "{seconds}");
        }
    }

    #[test]
    fn every_directive_prints_as_in_python() {
        // datetime.fromtimestamp(1772582405, timezone.utc).strftime(...)
        let directives = [
            ('a', "Wed"),
            ('A', "Wednesday"),
            ('b', "Mar"),
            ('B', "March"),
            ('c', "Wed Mar  4 00:00:05 2026"),
            ('C', "20"),
            ('d', "04"),
            ('D', "03/04/26"),
            ('e', " 4"),
            ('f', "000000"),
            ('F', "2026-03-04"),
            ('g', "26"),
            ('G', "2026"),
            ('h', "Mar"),
            ('H', "00"),
            ('I', "12"),
            ('j', "063"),
            ('k', " 0"),
            ('l', "12"),
            ('m', "03"),
            ('M', "00"),
            ('n', "\n"),
            ('p', "AM"),
            ('P', "am"),
            ('r', "12:00:05 AM"),
            ('R', "00:00"),
            ('s', "1772582405"),
            ('S', "05"),
            ('t', "\t"),
            ('T', "00:00:05"),
            ('u', "3"),
            ('U', "09"),
            ('V', "10"),
            ('w', "3"),
            ('W', "09"),
            ('x', "03/04/26"),
            ('X', "00:00:05"),
            ('y', "26"),
            ('Y', "2026"),
            ('z', "+0000"),
            ('Z', "UTC"),
            ('%', "%"),
        ];
        let time = Timestamp::from_second(1_772_582_405).unwrap();
        for (directive, expected) in directives {
            let printed = strftime(time, &format!("<%{directive}>"));
            assert_eq!(printed, Ok(format!("<{expected}>")), "%{directive}");
        }
        for (directive, expected) in [
            ('a', "Wed"),
            ('d', "4"),
            ('e', "4"),
            ('F', "2026-03-04"),
            ('H', "0"),
            ('I', "12"),
            ('j', "63"),
            ('k', "0"),
            ('m', "3"),
            ('M', "0"),
            ('p', "AM"),
            ('S', "5"),
            ('U', "9"),
            ('W', "9"),
            ('Y', "2026"),
            ('%', "%"),
        ] {
            let printed = strftime(time, &format!("%-{directive}"));
            assert_eq!(printed.as_deref(), Ok(expected), "%-{directive}");
        }
        let known = directives.map(|(directive, _)| directive);
        for directive in ('!'..='~').filter(|c| !known.contains(c) && *c != '-') {
            let expected = format!("strftime_now does not know %{directive}");
            let printed = strftime(time, &format!("at %{directive}"));
            assert_eq!(printed, Err(expected));
        }
        for (format, expected) in [
            ("at %", "strftime_now does not know %"),
            ("%-", "strftime_now does not know %"),
            ("%--d", "strftime_now does not know %-"),
            ("%-f", "strftime_now does not know %f"),
        ] {
            assert_eq!(strftime(time, format).unwrap_err(), expected);
        }
    }
}
