//! A call's arguments as a JSON object, also where the answer was cut off within them.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Returns the object that `arguments` are. Of an object that was cut off, the members and elements
/// that are complete are kept.
pub(super) fn input(arguments: &str) -> Box<RawValue> {
    let object = match is_object(arguments) {
        true => arguments.to_owned(),
        false => closed(arguments).unwrap_or_else(|| "{}".to_owned()),
    };
    RawValue::from_string(object).expect("it was read as JSON")
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(text).is_ok()
}

/// Closes what is open in the beginning of a JSON object. `None` if it is not one.
fn closed(text: &str) -> Option<String> {
    let mut closers = String::new();
    // The last place where everything is complete but for what is open there.
    let mut complete = None;
    let mut is_in_string = false;
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if is_in_string {
            is_in_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
            continue;
        }
        match c {
            '"' => is_in_string = true,
            '{' | '[' => {
                closers.push(if c == '{' { '}' } else { ']' });
                complete = Some((at + 1, closers.clone()));
            }
            '}' | ']' => {
                closers.pop();
                complete = Some((at + 1, closers.clone()));
            }
            ',' => complete = Some((at, closers.clone())),
            _ => {}
        }
    }
    let close = |end: usize, closers: &str| {
        let closers = closers.chars().rev();
        let closed: String = text[..end].chars().chain(closers).collect();
        is_object(&closed).then_some(closed)
    };
    close(text.len(), &closers).or_else(|| {
        let (end, closers) = complete?;
        close(end, &closers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_complete_of_a_call_is_kept() {
        for (arguments, expected) in [
            (r#"{"a": 1}"#, r#"{"a": 1}"#),
            ("", "{}"),
            ("{", "{}"),
            (r#"{"a"#, "{}"),
            (r#"{"a": "x"#, "{}"),
            (r#"{"a": "x""#, r#"{"a": "x"}"#),
            (r#"{"a": "x\"}"#, "{}"),
            (
                r#"{"a": 1, "b": [1, {"c": "d", "#,
                r#"{"a": 1, "b": [1, {"c": "d"}]}"#,
            ),
            (r#"{"a": [1, 2], "b": tr"#, r#"{"a": [1, 2]}"#),
            ("[1", "{}"),
            ("é", "{}"),
        ] {
            assert_eq!(input(arguments).get(), expected, "{arguments}");
        }
        let whole = r#"{"a": "é\\\"", "b": [1.5e3, {"c": null}, "]"], "d": {}}"#;
        for (end, _) in whole.char_indices() {
            let input = input(&whole[..end]);
            assert!(is_object(input.get()), "{input} of {}", &whole[..end]);
        }
    }
}
