//! Searches for stop strings byte by byte as text arrives, however it is split into pieces.

/// Finds the first place in a stream of bytes where one of several strings ends.
#[derive(Clone, Debug)]
pub(super) struct StopStrings {
    patterns: Vec<Pattern>,
}

/// One string, searched by the Knuth–Morris–Pratt algorithm.
#[derive(Clone, Debug)]
struct Pattern {
    bytes: Vec<u8>,
    /// For each match length, the length of the longest shorter match that the same bytes also
    /// form.
    shorter: Vec<usize>,
    /// Number of bytes of the string that the stream currently ends with.
    matched: usize,
}

/// A stop string that the last byte completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    /// Index of the string.
    pub(super) index: usize,
    /// Its length in bytes.
    pub(super) len: usize,
}

impl StopStrings {
    /// Creates a search for these strings. Empty strings never match.
    pub(super) fn new(strings: &[String]) -> Self {
        Self {
            patterns: strings.iter().map(|string| Pattern::new(string)).collect(),
        }
    }

    /// Takes the stream's next byte. If several strings end with it, the longest one counts, so
    /// that no part of it is shown.
    pub(super) fn push(&mut self, byte: u8) -> Option<Stop> {
        let mut stop: Option<Stop> = None;
        for (index, pattern) in self.patterns.iter_mut().enumerate() {
            let len = pattern.bytes.len();
            if pattern.push(byte) && stop.is_none_or(|stop| stop.len < len) {
                stop = Some(Stop { index, len });
            }
        }
        stop
    }

    /// Returns how many of the stream's last bytes may be the start of a stop string.
    pub(super) fn num_pending(&self) -> usize {
        let matched = self.patterns.iter().map(|pattern| pattern.matched);
        matched.max().unwrap_or(0)
    }
}

impl Pattern {
    fn new(string: &str) -> Self {
        let bytes = string.as_bytes().to_vec();
        let mut shorter = vec![0; bytes.len() + 1];
        let mut len = 0;
        for end in 1..bytes.len() {
            while len > 0 && bytes[len] != bytes[end] {
                len = shorter[len];
            }
            if bytes[len] == bytes[end] {
                len += 1;
            }
            shorter[end + 1] = len;
        }
        Self {
            bytes,
            shorter,
            matched: 0,
        }
    }

    /// Takes a byte and returns whether it completes the string.
    fn push(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes.get(self.matched) != Some(&byte) {
            self.matched = self.shorter[self.matched];
        }
        if self.bytes.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        self.matched > 0 && self.matched == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first_stop(stops: &[&str], text: &str) -> Option<(usize, Stop)> {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stops = StopStrings::new(&stops);
        text.bytes()
            .enumerate()
            .find_map(|(at, byte)| stops.push(byte).map(|stop| (at + 1, stop)))
    }

    #[test]
    fn the_string_that_ends_first_counts_and_of_two_the_longer() {
        let stop = |index, len| Stop { index, len };
        for (stops, text, expected) in [
            (&["b", "abc"][..], "xabc", Some((3, stop(0, 1)))),
            (&["c", "abc", "bc"], "xabc", Some((4, stop(1, 3)))),
            (&["aab"], "aaab", Some((4, stop(0, 3)))),
            (&["abab", "x"], "abaabab", Some((7, stop(0, 4)))),
            (&["né"], "ne né", Some((6, stop(0, 3)))),
            (&["", "a"], "ba", Some((2, stop(1, 1)))),
            (&[""], "ba", None),
            (&[], "ba", None),
        ] {
            assert_eq!(first_stop(stops, text), expected, "{stops:?} in {text:?}");
        }
    }

    #[test]
    fn pending_is_the_longest_start_of_any_string() {
        let mut stops = StopStrings::new(&["abcd".to_owned(), "bce".to_owned()]);
        let pending: Vec<_> = "xabcxbc"
            .bytes()
            .map(|byte| {
                assert_eq!(stops.push(byte), None);
                stops.num_pending()
            })
            .collect();
        assert_eq!(pending, [0, 1, 2, 3, 0, 1, 2]);
    }

    proptest! {
        #[test]
        fn as_a_search_of_the_whole_text(
            stops in proptest::collection::vec("[ab]{1,4}", 0..4),
            text in "[abc]{0,40}",
        ) {
            let ends = (0..=text.len()).find_map(|end| {
                let ending = stops.iter().enumerate().filter(|(_, s)| text[..end].ends_with(*s));
                // `max_by_key` returns the last of equal elements, so the order is reversed to get
                // the first.
                let longest = ending.rev().max_by_key(|(_, stop)| stop.len());
                longest.map(|(index, stop)| (end, Stop { index, len: stop.len() }))
            });
            let stops: Vec<_> = stops.iter().map(String::as_str).collect();
            prop_assert_eq!(first_stop(&stops, &text), ends);
        }
    }
}
