//! Converts tokens to text as they arrive. Each returned piece is final.
//!
//! Text that is not certain yet is held back: bytes of an incomplete character, and what may be the
//! start of a stop string. Knows nothing of streams or of the reader.

use std::sync::Arc;

use crate::core::TokenId;

use super::decoder::ByteRun;
use super::stop_strings::StopStrings;
use super::tokenizer::{SpecialTokens, Tokenizer};
use super::vocabulary::TokenText;

/// Whether what ended an answer, a stop string or a stop token, is part of its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopText {
    /// It is left out.
    #[default]
    Removed,
    /// It is the text's end.
    Kept,
}

/// Which tokens of an answer are part of its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextRule {
    /// Whether control tokens are.
    pub special: SpecialTokens,
    /// Whether what ends the answer is.
    pub stop: StopText,
}

/// The text that one token added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Final text: whole characters that later tokens cannot change. Often empty.
    pub text: String,
    /// Index of the stop string that ended the text. No piece contains the stop string, unless it is
    /// kept.
    pub stopped: Option<usize>,
}

/// Converts one sequence's tokens to text.
///
/// All pieces together equal `decode` of all tokens, up to the stop string that ends first (the longest of those that end at the same place), however the text is
/// split into tokens.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    rule: TextRule,
    /// Byte tokens whose text is not known yet.
    run: ByteRun,
    stop: StopStrings,
    /// Text that is held back because it may be the start of a stop string.
    held: String,
    stopped: Option<usize>,
}

impl Detokenizer {
    /// Creates a detokenizer for a sequence that ends at any string of `stop`. Empty strings never
    /// match.
    pub fn new(tokenizer: Arc<Tokenizer>, stop: &[String], rule: TextRule) -> Self {
        Self {
            tokenizer,
            rule,
            run: ByteRun::default(),
            stop: StopStrings::new(stop),
            held: String::new(),
            stopped: None,
        }
    }

    /// Replaces the stop strings from here on. Earlier text, returned or held back, is not part of
    /// a match.
    pub fn look_for(&mut self, stop: &[String]) {
        self.stop = StopStrings::new(stop);
    }

    /// Takes the next token. After a stop string it returns no more text.
    pub fn push(&mut self, token: TokenId) -> Piece {
        let checked = self.held.len();
        match self.tokenizer.vocabulary().get(token) {
            TokenText::Ordinary(text) => {
                self.run.end(&mut self.held);
                self.held.push_str(text);
            }
            TokenText::Byte(byte) => self.run.push(byte),
            TokenText::Special(text) if self.rule.special == SpecialTokens::Keep => {
                self.run.end(&mut self.held);
                self.held.push_str(text);
            }
            TokenText::Special(_) | TokenText::Unknown => {}
        }
        let pending = self.check_from(checked);
        self.hand_out(pending)
    }

    /// Returns the text that was held back, when no more tokens come.
    pub fn finish(&mut self) -> Piece {
        let checked = self.held.len();
        self.run.end(&mut self.held);
        self.check_from(checked);
        self.hand_out(0)
    }

    /// Searches the held text for stop strings from byte `checked` on, and cuts it off before a
    /// match. Returns the number of trailing bytes that may be the start of a stop string.
    fn check_from(&mut self, checked: usize) -> usize {
        if self.stopped.is_some() {
            self.held.clear();
            return 0;
        }
        for at in checked..self.held.len() {
            if let Some(stop) = self.stop.push(self.held.as_bytes()[at]) {
                self.held.truncate(match self.rule.stop {
                    StopText::Removed => at + 1 - stop.len,
                    StopText::Kept => at + 1,
                });
                self.stopped = Some(stop.index);
                return 0;
            }
        }
        match self.rule.stop {
            StopText::Removed => self.stop.num_pending(),
            // It is text, whether it becomes a stop string or not.
            StopText::Kept => 0,
        }
    }

    fn hand_out(&mut self, pending: usize) -> Piece {
        let held = self.held.split_off(self.held.len() - pending);
        Piece {
            text: std::mem::replace(&mut self.held, held),
            stopped: self.stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tokenizer::AddSpecialTokens;
    use super::*;

    /// Returns the pieces of all tokens and of the end, and the stop string that was found.
    fn detokenize(
        tokenizer: &Arc<Tokenizer>,
        tokens: &[TokenId],
        stop: &[&str],
    ) -> (Vec<String>, Option<usize>) {
        detokenize_by(TextRule::default(), tokenizer, tokens, stop)
    }

    fn detokenize_by(
        rule: TextRule,
        tokenizer: &Arc<Tokenizer>,
        tokens: &[TokenId],
        stop: &[&str],
    ) -> (Vec<String>, Option<usize>) {
        let stop: Vec<String> = stop.iter().map(|stop| (*stop).to_owned()).collect();
        let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer), &stop, rule);
        let mut pieces: Vec<_> = tokens.iter().map(|id| detokenizer.push(*id)).collect();
        pieces.push(detokenizer.finish());
        let stopped = pieces.iter().find_map(|piece| piece.stopped);
        (
            pieces.into_iter().map(|piece| piece.text).collect(),
            stopped,
        )
    }

    fn tokens(tokenizer: &Tokenizer, contents: &[&str]) -> Vec<TokenId> {
        let id = |content: &&str| tokenizer.token_id(content).expect(content);
        contents.iter().map(id).collect()
    }

    #[test]
    fn characters_come_whole_and_control_tokens_not_at_all() {
        let tokenizer = Arc::new(Tokenizer::for_test());
        let tokens = tokens(
            &tokenizer,
            &[
                "<bos>",
                "▁the",
                "<0xF0>",
                "<0x9F>",
                "<end_of_turn>",
                "<0xAB>",
                "<0x81>",
                "a",
                "<0xF0>",
                "\n",
                "<0xE2>",
            ],
        );
        let (pieces, _) = detokenize(&tokenizer, &tokens, &[]);
        assert_eq!(
            pieces,
            [
                "",
                " the",
                "",
                "",
                "",
                "",
                "",
                "🫁a",
                "",
                "\u{fffd}\n",
                "",
                "\u{fffd}"
            ]
        );
    }

    #[test]
    fn stop_strings_can_begin_to_count_later() {
        let tokenizer = Arc::new(Tokenizer::for_test());
        let tokens = tokens(&tokenizer, &["a", "b", "a", "b", "c"]);
        let stop = ["ab".to_owned(), "bab".to_owned()];
        for (start, expected) in [(0, ""), (1, "a"), (2, "ab"), (3, "ababc")] {
            let rule = TextRule::default();
            let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer), &[], rule);
            let mut text = String::new();
            for (token_idx, token) in tokens.iter().enumerate() {
                if token_idx == start {
                    detokenizer.look_for(&stop);
                }
                text += &detokenizer.push(*token).text;
            }
            text += &detokenizer.finish().text;
            assert_eq!(text, expected, "from token {start}");
        }
    }

    #[test]
    fn a_stop_string_ends_the_text_before_itself() {
        let tokenizer = Arc::new(Tokenizer::for_test());
        for (contents, stop, expected, stopped) in [
            // over several tokens
            (
                &["a", "b", "c", "d"][..],
                &["bc"][..],
                &["a", "", "", "", ""][..],
                Some(0),
            ),
            // held back, but no match
            (
                &["a", "b", "d", "e"],
                &["bc"],
                &["a", "", "bd", "e", ""],
                None,
            ),
            // held back to the end
            (&["a", "b"], &["bc"], &["a", "", "b"], None),
            // inside a token that continues after it
            (&["x", "▁the", "y"], &["h"], &["x", " t", "", ""], Some(0)),
            // the one that ends first; of two that end together, the longer one
            (&["▁the"], &["e", "th", "h"], &[" ", ""], Some(1)),
            (&["▁the"], &["e", "he"], &[" t", ""], Some(1)),
            // completed by bytes that were held back, and known only at the end
            (
                &["a", "<0xE2>", "<0x82>", "<0xAC>"],
                &["€"],
                &["a", "", "", "", ""],
                Some(0),
            ),
            (
                &["a", "<0xE2>", "b"],
                &["\u{fffd}"],
                &["a", "", "", ""],
                Some(0),
            ),
            // a start that overlaps with itself
            (
                &["a", "a", "b", "a", "a", "c"],
                &["aac"],
                &["", "", "aab", "", "", "", ""],
                Some(0),
            ),
        ] {
            let (pieces, met) = detokenize(&tokenizer, &tokens(&tokenizer, contents), stop);
            assert_eq!(pieces, expected, "{contents:?}");
            assert_eq!(met, stopped, "{contents:?}");
        }
    }

    #[test]
    fn a_stop_string_that_is_kept_is_the_texts_end_and_holds_nothing_back() {
        let tokenizer = Arc::new(Tokenizer::for_test());
        let rule = TextRule {
            stop: StopText::Kept,
            ..TextRule::default()
        };
        for (contents, stop, expected, stopped) in [
            (
                &["a", "b", "c", "d"][..],
                &["bc"][..],
                &["a", "b", "c", "", ""][..],
                Some(0),
            ),
            (&["x", "▁the", "y"], &["h"], &["x", " th", "", ""], Some(0)),
            (&["a", "b"], &["bc"], &["a", "b", ""], None),
            (
                &["a", "<0xE2>", "<0x82>", "<0xAC>", "b"],
                &["€"],
                &["a", "", "", "", "€", ""],
                Some(0),
            ),
        ] {
            let tokens = tokens(&tokenizer, contents);
            let (pieces, met) = detokenize_by(rule, &tokenizer, &tokens, stop);
            assert_eq!(pieces, expected, "{contents:?}");
            assert_eq!(met, stopped, "{contents:?}");
        }
    }

    #[test]
    fn the_pieces_together_are_the_whole_text() {
        let tokenizer = Arc::new(Tokenizer::for_test());
        let ids = prop_oneof![0_u32..900, 26_u32..282];
        proptest!(|(ids in proptest::collection::vec(ids, 0..60))| {
            let ids: Vec<_> = ids.into_iter().map(TokenId).collect();
            for special in [SpecialTokens::Skip, SpecialTokens::Keep] {
                let rule = TextRule { special, ..TextRule::default() };
                let (pieces, _) = detokenize_by(rule, &tokenizer, &ids, &[]);
                prop_assert_eq!(pieces.concat(), tokenizer.decode(&ids, special));
            }
        });
    }

    #[test]
    fn however_a_text_is_cut_it_stops_at_the_same_place() {
        let tokenizer = Arc::new(Tokenizer::for_test());
        let cuts = proptest::collection::vec(0..30_usize, 0..6);
        let stop = proptest::collection::vec("[abc é€]{1,3}", 0..4);
        proptest!(|(text in "[abc é€🫁]{0,30}", cuts in cuts, stop in stop)| {
            // Cut at any places, the text becomes other tokens.
            let chars: Vec<char> = text.chars().collect();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(chars.len())).collect();
            cuts.extend([0, chars.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|cut| String::from_iter(&chars[cut[0]..cut[1]]));
            let ids: Vec<_> = parts
                .flat_map(|part| tokenizer.encode_raw(&part, AddSpecialTokens::No).unwrap())
                .collect();
            let stop: Vec<_> = stop.iter().map(String::as_str).collect();
            let (pieces, stopped) = detokenize(&tokenizer, &ids, &stop);

            let ends = |end: &usize| stop.iter().any(|stop| text[..*end].ends_with(stop));
            let end = (0..=text.len()).filter(|end| text.is_char_boundary(*end)).find(ends);
            prop_assert_eq!(stopped.is_some(), end.is_some());
            let expected = match (end, stopped) {
                (Some(end), Some(index)) => &text[..end - stop[index].len()],
                _ => &text[..],
            };
            prop_assert_eq!(pieces.concat(), expected);
        });
    }
}
