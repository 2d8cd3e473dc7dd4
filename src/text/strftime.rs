//! Formats the current date for chat templates: C's `strftime` in English and in UTC.
//!
//! The reference implementation uses local time. Containers run in UTC, and a server's answers
//! should not depend on its location.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// The calendar fields of a point in time.
struct Civil {
    year: i64,
    /// From 0.
    month: usize,
    day: i64,
    /// From 0.
    day_of_year: i64,
    /// From 0, which is Sunday.
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

/// Formats the time `unix_seconds` after 1970. The error names an unknown directive.
pub(super) fn strftime(unix_seconds: i64, format: &str) -> Result<String, String> {
    let time = Civil::new(unix_seconds);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = rest.next();
        let bare = directive == Some('-');
        if bare {
            directive = rest.next();
        }
        let Some(text) = directive.and_then(|directive| time.format(directive)) else {
            let directive = directive.map_or(String::new(), String::from);
            return Err(format!("strftime_now does not know %{directive}"));
        };
        match text.trim_start_matches(['0', ' ']) {
            _ if !bare => out.push_str(&text),
            "" => out.push('0'),
            trimmed => out.push_str(trimmed),
        }
    }
    Ok(out)
}

impl Civil {
    fn new(unix_seconds: i64) -> Self {
        let days = unix_seconds.div_euclid(86_400);
        let second_of_day = unix_seconds.rem_euclid(86_400);
        let mut year = 1970 + days.div_euclid(366);
        while days_before(year + 1) <= days {
            year += 1;
        }
        let day_of_year = days - days_before(year);
        let mut month = 0;
        let mut day = day_of_year;
        while day >= days_of_month(year, month) {
            day -= days_of_month(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: day + 1,
            day_of_year,
            // 1970 began on a Thursday.
            weekday: (days + 4).rem_euclid(7) as usize,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }

    fn format(&self, directive: char) -> Option<String> {
        let hour12 = (self.hour + 11) % 12 + 1;
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month + 1),
            'B' => MONTHS[self.month].to_owned(),
            'b' => MONTHS[self.month][..3].to_owned(),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year + 1),
            'A' => WEEKDAYS[self.weekday].to_owned(),
            'a' => WEEKDAYS[self.weekday][..3].to_owned(),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour12:02}"),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month + 1, self.day),
            'T' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

/// Number of days from 1970-01-01 to January 1 of `year`.
fn days_before(year: i64) -> i64 {
    let leap_days = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * (year - 1970) + leap_days(year - 1) - leap_days(1969)
}

fn days_of_month(year: i64, month: usize) -> i64 {
    match month {
        1 => 28 + days_before(year + 1) - days_before(year) - 365,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_c_prints_it() {
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
            assert_eq!(
                strftime(seconds, format).as_deref(),
                Ok(expected),
                "{seconds}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (format, expected) in [
            ("%Q", "strftime_now does not know %Q"),
            ("at %", "strftime_now does not know %"),
        ] {
            assert_eq!(strftime(0, format).unwrap_err(), expected);
        }
    }
}
