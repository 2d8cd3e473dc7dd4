//! Writes strings and numbers as JSON has them.

/// Returns a string as JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    text.chars().for_each(|c| write_char(c, &mut json));
    json.push('"');
    json
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

/// Converts a number to JSON, which has no `+1`, `.5`, `1.`, `1_000` or `0x1F`. `007` is invalid in
/// both JSON and Python. A number that no reader of JSON could hold is refused.
pub(super) fn json_number(word: &str) -> Option<String> {
    let (sign, word) = match word.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    if let Some(number) = whole_number(word) {
        return Some(format!("{sign}{number}"));
    }
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (word, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
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
    let is_finite = json.parse::<f64>().is_ok_and(f64::is_finite);
    is_finite.then_some(json)
}

/// Returns the value of `0x1F`, `0o17` or `0b101`.
fn whole_number(word: &str) -> Option<u128> {
    let base = match word.get(..2)?.to_ascii_lowercase().as_str() {
        "0x" => 16,
        "0o" => 8,
        "0b" => 2,
        _ => return None,
    };
    // `0x_1F` is valid in Python.
    let digits = word[2..].strip_prefix('_').unwrap_or(&word[2..]);
    let is_sound = !digits.starts_with(['_', '+', '-']) && !digits.ends_with('_');
    let is_sound = is_sound && !digits.contains("__");
    u128::from_str_radix(&digits.replace('_', ""), base)
        .ok()
        .filter(|_| is_sound)
}

/// Returns digits without the underscores between them.
fn digits(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let is_sound = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    (is_sound && plain.bytes().all(|byte| byte.is_ascii_digit())).then_some(plain)
}
