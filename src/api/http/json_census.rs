//! Counts the elements of a JSON text, piece by piece as it arrives.
//!
//! The memory of a deserialized text depends less on its length than on its number of elements, so
//! they are counted before anything is deserialized. This module recognizes only brackets, commas
//! and strings; the deserializer finds what is not JSON.

use memchr::memchr2;

use super::error::ApiError;

/// Maximum number of values, names and containers. Each may cost hundreds of bytes once it is
/// deserialized.
const MAX_NODES: usize = 200_000;
/// Maximum number of numbers in lists at the top of the body: ten prompts of a hundred thousand
/// token ids.
const MAX_NUMBERS: usize = 1_000_000;
/// Maximum number of messages of a conversation, or of input items.
const MAX_MESSAGES: usize = 10_000;
/// Maximum number of parts of all messages together: texts, images, calls.
const MAX_PARTS: usize = 10_000;

/// Containers deeper than this contain no part of a message.
const PATH_LEN: usize = 6;

/// The counts so far.
#[derive(Debug, Default)]
pub(crate) struct JsonCensus {
    num_nodes: usize,
    num_numbers: usize,
    num_messages: usize,
    num_parts: usize,
    depth: usize,
    /// For each of the outermost containers, whether it is an array.
    path: [bool; PATH_LEN],
    place: Position,
}

/// The lexical context of the next byte.
#[derive(Clone, Copy, Debug, Default)]
enum Position {
    #[default]
    Outside,
    InString,
    /// After a backslash.
    Escaped,
}

impl JsonCensus {
    /// Number of values, names and containers so far, without those of [`Self::num_numbers`].
    pub(crate) fn num_nodes(&self) -> usize {
        self.num_nodes
    }

    /// Number of scalar values in top-level lists so far: numbers and other values without
    /// children.
    pub(crate) fn num_numbers(&self) -> usize {
        self.num_numbers
    }

    /// Counts the elements of `piece`, which continues the previous piece.
    ///
    /// # Errors
    /// 400 with the limit that is exceeded.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Result<(), ApiError> {
        let mut rest = piece;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match self.place {
                Position::Outside => self.count(byte),
                Position::Escaped => self.place = Position::InString,
                Position::InString if byte == b'"' => self.place = Position::Outside,
                Position::InString if byte == b'\\' => self.place = Position::Escaped,
                Position::InString => {
                    let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    rest = &rest[end..];
                }
            }
        }
        for (found, limit, what) in [
            (self.num_messages, MAX_MESSAGES, "messages"),
            (self.num_parts, MAX_PARTS, "parts in its messages"),
            (self.num_nodes, MAX_NODES, "values and names"),
            (self.num_numbers, MAX_NUMBERS, "numbers in its lists"),
        ] {
            if found > limit {
                return Err(ApiError::too_many_values(what, limit));
            }
        }
        Ok(())
    }

    fn count(&mut self, byte: u8) {
        match byte {
            b'"' => {
                // After a comma, which was counted as a number's.
                self.num_nodes += usize::from(self.is_in_list());
                self.place = Position::InString;
            }
            b',' if self.is_in_list() => self.num_numbers += 1,
            b',' | b':' => self.num_nodes += 1,
            b'[' => self.open(true),
            b'{' => {
                if self.is_in_messages(2) {
                    self.num_messages += 1;
                } else if self.is_in_messages(4) || self.is_in_messages(6) {
                    self.num_parts += 1;
                }
                self.open(false);
            }
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn open(&mut self, is_array: bool) {
        self.num_nodes += 1;
        if let Some(place) = self.path.get_mut(self.depth) {
            *place = is_array;
        }
        self.depth += 1;
    }

    /// Whether the next value is in a list that is a field of the body, or in a list within such a
    /// list. Token ids are there.
    fn is_in_list(&self) -> bool {
        matches!(
            (self.depth, self.path),
            (2, [false, true, ..]) | (3, [false, true, true, ..])
        )
    }

    /// Whether the next value is in an array in an object, nested `depth` / 2 times. Messages are
    /// at depth 2, their parts at 4, and the parts of a tool's result at 6.
    fn is_in_messages(&self, depth: usize) -> bool {
        self.depth == depth
            && self.path[..depth] == [false, true, false, true, false, true][..depth]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Counts nodes, messages and parts of a text that arrives in pieces of `len` bytes.
    fn counted(text: &str, len: usize) -> (usize, usize, usize) {
        let mut census = JsonCensus::default();
        for piece in text.as_bytes().chunks(len) {
            census.read(piece).expect("it is within the limits");
        }
        (census.num_nodes, census.num_messages, census.num_parts)
    }

    #[test]
    fn messages_and_their_parts_are_told_from_all_else() {
        let body = json!({
            "messages": [
                {"role": "us\"er", "content": [{"type": "text", "text": "[{\\\"}]"}, {"a": [{}]}]},
                {"role": "user", "content": [{"content": [{"text": "[{"}, {}]}]},
            ],
            "tools": [{"function": {"parameters": {"anyOf": [{}, {}, {}]}}}],
            "stop": ["{", "[{"],
            "logit_bias": {"1": 2},
        })
        .to_string();
        let (num_nodes, num_messages, num_parts) = counted(&body, body.len());
        // A tool counts as a message: requests have few tools.
        assert_eq!((num_messages, num_parts), (3, 3 + 3));
        for len in [1, 2, 3, 7] {
            assert_eq!(
                counted(&body, len),
                (num_nodes, num_messages, num_parts),
                "in pieces of {len}"
            );
        }
    }

    #[test]
    fn every_value_and_name_counts() {
        assert_eq!(counted("[1,2,3]", 99).0, 3);
        assert_eq!(counted(r#"{"a":1,"b":[2,{}]}"#, 99).0, 6);
        assert_eq!(counted(r#""[[[{{{,,,:::\"[[[""#, 99).0, 0);
        // Invalid JSON is counted too.
        assert_eq!(counted("]]]}}}{[", 1).0, 2);
    }

    #[test]
    fn token_ids_are_counted_for_themselves() {
        let both = |text: &str| {
            let mut census = JsonCensus::default();
            census.read(text.as_bytes()).expect("it is within limits");
            (census.num_nodes, census.num_numbers)
        };
        assert_eq!(both(r#"{"prompt":[1,2,3]}"#), (3, 2));
        assert_eq!(both(r#"{"prompt":[[1,2],[3,4]]}"#), (5, 3));
        // Strings, objects and deeper values cost more.
        assert_eq!(both(r#"{"stop":["a","b"]}"#), (5, 1));
        assert_eq!(both(r#"{"tools":[{"enum":[1,2,3]}]}"#), (8, 0));
    }

    #[test]
    fn too_much_is_refused_by_its_own_name() {
        let refused = |text: String| {
            let error = JsonCensus::default()
                .read(text.as_bytes())
                .expect_err("too much");
            error.to_json()
        };
        let message = "{\"role\":\"user\",\"content\":\"a\"},";
        let messages = format!("{{\"messages\":[{}", message.repeat(MAX_MESSAGES + 1));
        assert!(refused(messages).contains("more than 10000 messages"));
        let part = "{\"type\":\"text\"},";
        let parts = format!("{{\"x\":[{{\"content\":[{}", part.repeat(MAX_PARTS + 1));
        assert!(refused(parts).contains("more than 10000 parts"));
        assert!(refused("[".repeat(MAX_NODES + 1)).contains("more than 200000 values"));
        let numbers = format!("{{\"prompt\":[1{}", ",1".repeat(MAX_NUMBERS + 1));
        assert!(refused(numbers).contains("more than 1000000 numbers"));
        let most = format!("[1{}", ",1".repeat(MAX_NODES - 1));
        JsonCensus::default()
            .read(most.as_bytes())
            .expect("as many as are taken");
    }
}
