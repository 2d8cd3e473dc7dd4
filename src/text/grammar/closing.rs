//! The shortest way to end an answer.
//!
//! A grammar only says whether a byte may come next, so the end is searched: byte by byte, from the
//! most promising beginning, where each open object, array and string needs at least one byte more.
//! In JSON, beginnings with the same names and other values are taken for equal.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use llguidance::Matcher;

use super::json_cursor::JsonCursor;
use super::tokens::Tokens;

/// Longest end that is looked for, in bytes.
const MAX_BYTES: usize = 2048;
/// Maximum number of beginnings that are continued. Ends that need no choice take one for each of
/// their bytes.
const MAX_STEPS: usize = 3072;
/// Number of choices after which no longer the shortest end is looked for, but any: the longest
/// beginning is continued.
const MAX_CHOICES: usize = 64;
/// Where at most so many bytes may come next in a string or a text, each is tried: they are
/// alternatives. Where more may, they are characters of a free text, and one is as good as another.
const MAX_ALTERNATIVES: usize = 8;

/// Bytes of which the first that is allowed ends or separates values of JSON sooner than all others.
const ENDS: &[u8] = b"}],:";
/// Bytes with which values begin or go on, the shortest first. One digit is as good as another.
const DIGITS: &[u8] = b"0123456789";
const VALUES: &[u8] = b"\"ntf[{-rualse.+eE";

/// A beginning of an end. Those that may become the shortest come first; among these, the longest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Beginning {
    /// Fewest bytes of the whole end.
    least: Reverse<usize>,
    len: usize,
    /// Earlier ones first.
    number: Reverse<usize>,
    bytes: Vec<u8>,
}

/// Returns the bytes after which the answer may end: the fewest, as far as the search sees. `None`
/// if none were found. The matcher is left as it was.
pub(super) fn shortest_end(
    matcher: &mut Matcher,
    tokens: &Tokens,
    cursor: Option<&JsonCursor>,
) -> Option<Vec<u8>> {
    let mut path: Vec<u8> = Vec::new();
    let found = search(matcher, tokens, cursor, &mut path);
    matcher.rollback(path.len()).ok()?;
    found
}

/// Searches; `path` is what the matcher has consumed.
fn search(
    matcher: &mut Matcher,
    tokens: &Tokens,
    cursor: Option<&JsonCursor>,
    path: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    let least = |bytes: &[u8]| {
        let open = behind(cursor, bytes).map_or(0, |cursor| cursor.num_open());
        Reverse(bytes.len() + open)
    };
    let any = |len: usize| Reverse(MAX_BYTES.saturating_sub(len));
    let mut waiting = BinaryHeap::from([Beginning {
        least: least(&[]),
        len: 0,
        number: Reverse(0),
        bytes: Vec::new(),
    }]);
    let (mut number, mut num_choices) = (0, 0);
    let mut seen = HashSet::new();
    for _ in 0..MAX_STEPS {
        let Beginning { bytes, .. } = waiting.pop()?;
        let place = behind(cursor, &bytes);
        if place.as_ref().is_some_and(JsonCursor::repeats_name) {
            continue;
        }
        if let Some(cursor) = cursor
            && bytes.last().is_some_and(|byte| ENDS.contains(byte))
            && place.as_ref().is_some_and(|place| !place.is_in_string())
            && !seen.insert(outline(cursor, &bytes))
        {
            continue;
        }
        go_to(matcher, tokens, path, &bytes)?;
        if matcher.is_accepting().ok()? {
            return Some(bytes);
        }
        if bytes.len() == MAX_BYTES {
            continue;
        }
        let next = next_bytes(matcher, tokens, place.as_ref());
        num_choices += usize::from(next.len() > 1);
        if num_choices == MAX_CHOICES && next.len() > 1 {
            let beginnings = waiting.into_iter().map(|beginning| Beginning {
                least: any(beginning.len),
                ..beginning
            });
            waiting = beginnings.collect();
        }
        for byte in next {
            let mut longer = bytes.clone();
            longer.push(byte);
            number += 1;
            waiting.push(Beginning {
                least: match num_choices < MAX_CHOICES {
                    true => least(&longer),
                    false => any(longer.len()),
                },
                len: longer.len(),
                number: Reverse(number),
                bytes: longer,
            });
        }
    }
    None
}

/// Returns the cursor behind `bytes`.
fn behind(cursor: Option<&JsonCursor>, bytes: &[u8]) -> Option<JsonCursor> {
    let mut cursor = cursor?.clone();
    for byte in bytes {
        cursor.push(*byte);
    }
    Some(cursor)
}

/// Moves the matcher from the bytes in `path` to `bytes`.
fn go_to(matcher: &mut Matcher, tokens: &Tokens, path: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    let shared = path.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    matcher.rollback(path.len() - shared).ok()?;
    path.truncate(shared);
    for byte in &bytes[shared..] {
        matcher.consume_token(tokens.of_byte(*byte)?.0).ok()?;
        path.push(*byte);
    }
    Some(())
}

/// Returns `bytes`, which follow the place of `cursor`, with the same text for all short values: two
/// beginnings of the same outline go on alike.
fn outline(cursor: &JsonCursor, bytes: &[u8]) -> Vec<u8> {
    let mut cursor = cursor.clone();
    let mut outline: Vec<u8> = Vec::new();
    for byte in bytes {
        let was_in_string = cursor.is_in_string();
        cursor.push(*byte);
        let is_scalar =
            !was_in_string && matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'-' | b'+' | b'.');
        let opened = match byte {
            b'"' if was_in_string => Some(b'"'),
            b'}' if !was_in_string => Some(b'{'),
            b']' if !was_in_string => Some(b'['),
            _ => None,
        };
        if opened.is_some() && outline.last().copied() == opened {
            // It was empty.
            outline.pop();
            outline.push(b'0');
        } else if !is_scalar {
            outline.push(*byte);
        } else if outline.last() != Some(&b'0') {
            outline.push(b'0');
        }
    }
    outline
}

/// Returns the bytes to continue with.
fn next_bytes(matcher: &mut Matcher, tokens: &Tokens, place: Option<&JsonCursor>) -> Vec<u8> {
    let mut is_allowed = |byte: u8| {
        tokens.of_byte(byte).is_some_and(|token| {
            let num_valid = matcher.validate_tokens(&[token.0]);
            num_valid.is_ok_and(|num_valid| num_valid == 1)
        })
    };
    let text = (b' '..=b'~').chain([b'\n', b'\t']).chain(0x80..=0xff);
    let is_in_string = place.is_some_and(JsonCursor::is_in_string);
    let would_repeat = place.is_some_and(|place| place.is_in_name() && place.repeats_behind(b"\""));
    if is_in_string && !would_repeat && is_allowed(b'"') {
        return vec![b'"'];
    }
    if place.is_some() && !is_in_string {
        if let Some(end) = ENDS.iter().find(|byte| is_allowed(**byte)) {
            return vec![*end];
        }
        let digits = DIGITS.iter().copied().filter(|byte| is_allowed(*byte));
        let mut allowed: Vec<u8> = digits.collect();
        // The first digit of a bound, and what a number of more digits may begin with.
        if allowed.len() > 3 {
            allowed = vec![allowed[0], allowed[1], allowed[allowed.len() - 1]];
        }
        allowed.extend(VALUES.iter().copied().filter(|byte| is_allowed(*byte)));
        if !allowed.is_empty() {
            return allowed;
        }
    }
    let text = b"0aA"
        .iter()
        .copied()
        .chain(text.filter(|byte| !b"0aA\\".contains(byte)));
    let mut allowed: Vec<u8> = text
        .filter(|byte| is_allowed(*byte))
        .take(MAX_ALTERNATIVES + 1)
        .collect();
    if allowed.len() > MAX_ALTERNATIVES {
        allowed.truncate(1);
    }
    if allowed.is_empty() && is_allowed(b'\\') {
        allowed.push(b'\\');
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_have_the_same_outline() {
        let outline = |text: &str| outline(&JsonCursor::default(), text.as_bytes());
        for (a, b) in [
            ("{\"a\":null,", "{\"a\":\"\","),
            ("{\"a\":-12.5e3,", "{\"a\":[],"),
            ("[true,{}", "[0,{}"),
        ] {
            assert_eq!(outline(a), outline(b), "{a} {b}");
        }
        for (a, b) in [
            ("{\"a\":0,", "{\"b\":0,"),
            ("{\"a\":\"x\",", "{\"a\":\"y\","),
            ("{\"a\":{\"b\":0", "{\"a\":0"),
        ] {
            assert_ne!(outline(a), outline(b), "{a} {b}");
        }
    }
}
