//! Control tokens: their strings, their places in a text, and the disguise that keeps users' copies
//! of them from being encoded as control tokens.
//!
//! Knows strings and ids only; nothing of templates or of how plain text is tokenized.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::core::TokenId;

/// A token that controls the model, such as `<start_of_turn>`: one that `tokenizer.json` marks as
/// special.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlToken {
    /// Its text.
    pub content: String,
    /// Its id.
    pub id: TokenId,
}

/// The place of a control token in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSpan {
    /// Byte range in the text.
    pub range: Range<usize>,
    /// Id of the token.
    pub id: TokenId,
}

/// All control tokens of a tokenizer.
#[derive(Clone, Debug, Default)]
pub struct ControlTokens {
    /// Sorted by length, longest first, so that the first match at a position is the longest one.
    tokens: Vec<ControlToken>,
    /// For each byte value, whether a token starts with it.
    starts: Vec<bool>,
}

impl ControlTokens {
    /// Creates a set from `tokens` in any order. Tokens with empty contents are ignored.
    pub fn new(mut tokens: Vec<ControlToken>) -> Self {
        tokens.retain(|token| !token.content.is_empty());
        tokens.sort_by_key(|token| std::cmp::Reverse(token.content.len()));
        let mut starts = vec![false; 256];
        for token in &tokens {
            starts[usize::from(token.content.as_bytes()[0])] = true;
        }
        Self { tokens, starts }
    }

    /// Returns the tokens, longest first.
    pub fn tokens(&self) -> &[ControlToken] {
        &self.tokens
    }

    /// Returns the distinct first characters of the tokens.
    pub(super) fn first_characters(&self) -> BTreeSet<char> {
        let firsts = self.tokens.iter().map(|token| token.content.chars().next());
        firsts
            .map(|first| first.expect("never empty, see new"))
            .collect()
    }

    /// Finds all control tokens from left to right, the longest one at each position, as
    /// `tokenizers` finds its added tokens.
    pub fn find(&self, text: &str) -> Vec<ControlSpan> {
        let bytes = text.as_bytes();
        let mut spans = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if self.starts.is_empty() || !self.starts[usize::from(bytes[at])] {
                at += 1;
                continue;
            }
            let longest = self
                .tokens
                .iter()
                .find(|token| bytes[at..].starts_with(token.content.as_bytes()));
            match longest {
                Some(token) => {
                    let end = at + token.content.len();
                    spans.push(ControlSpan {
                        range: at..end,
                        id: token.id,
                    });
                    at = end;
                }
                None => at += 1,
            }
        }
        spans
    }

    /// Chooses stand-ins for the first characters of control tokens. They replace those characters
    /// in users' texts while a template is rendered. None of them occurs in `texts`.
    ///
    /// `None` if the texts contain every noncharacter of U+FDD0..=U+FDEF, which normal text never
    /// does.
    pub fn disguise<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Option<Disguise<'_>> {
        let mut taken = [false; NUM_NONCHARACTERS];
        for c in texts.flat_map(str::chars) {
            if let Some(idx) = (c as u32).checked_sub(FIRST_NONCHARACTER)
                && let Some(taken) = taken.get_mut(idx as usize)
            {
                *taken = true;
            }
        }
        let mut free = (FIRST_NONCHARACTER..)
            .zip(taken)
            .filter(|(_, taken)| !taken)
            .filter_map(|(code, _)| char::from_u32(code));

        let stand_ins = self
            .first_characters()
            .into_iter()
            .map(|first| Some((first, free.next()?)))
            .collect::<Option<Vec<_>>>()?;
        Some(Disguise {
            control: self,
            stand_ins,
            mark: free.next(),
        })
    }
}

/// Unicode reserves these 32 code points for internal use by programs; they are not characters.
const FIRST_NONCHARACTER: u32 = 0xFDD0;
const NUM_NONCHARACTERS: usize = 32;

/// Hides in users' texts the characters that a control token could begin with.
///
/// Hiding only whole control tokens would not be enough: a template may join two texts or cut one,
/// and the result must not read as a control token either. Closed tags that cannot be part of a
/// control token stay visible (`<unused95>`, `</think>`, `<b>`), because templates look for them.
/// Only a template that rewrites the inside of a tag could turn one into a control token.
#[derive(Debug)]
pub struct Disguise<'a> {
    control: &'a ControlTokens,
    /// Pairs of a control token's first character and its stand-in.
    stand_ins: Vec<(char, char)>,
    mark: Option<char>,
}

impl Disguise<'_> {
    /// Returns a character that occurs in none of the texts, to mark a place; `None` if none is
    /// left.
    pub fn mark(&self) -> Option<char> {
        self.mark
    }

    /// Replaces characters of `text` by their stand-ins. A text without any is not copied.
    pub fn hide(&self, text: String) -> String {
        let is_first = |c: char| self.stand_ins.iter().any(|(first, _)| *first == c);
        if !text.contains(is_first) {
            return text;
        }
        let mut hidden = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            let stand_in = self.stand_ins.iter().find(|(first, _)| *first == c);
            match stand_in {
                Some((_, stand_in)) if !self.is_harmless_tag(&text[at..]) => hidden.push(*stand_in),
                _ => hidden.push(c),
            }
        }
        hidden
    }

    /// Returns `rendered` with the original characters in place of their stand-ins, and the control
    /// tokens that were visible in it. A text without stand-ins is not copied.
    pub fn reveal(&self, rendered: String) -> (String, Vec<ControlSpan>) {
        let mut spans = self.control.find(&rendered);
        let is_stand_in = |c: char| self.stand_ins.iter().any(|(_, stand_in)| *stand_in == c);
        if !rendered.contains(is_stand_in) {
            return (rendered, spans);
        }
        let mut text = String::with_capacity(rendered.len());
        let mut done = 0;
        for span in &mut spans {
            self.push_revealed(&mut text, &rendered[done..span.range.start]);
            let start = text.len();
            text.push_str(&rendered[span.range.clone()]);
            done = span.range.end;
            span.range = start..text.len();
        }
        self.push_revealed(&mut text, &rendered[done..]);
        (text, spans)
    }

    fn push_revealed(&self, text: &mut String, hidden: &str) {
        text.extend(hidden.chars().map(|c| {
            let found = self.stand_ins.iter().find(|(_, stand_in)| *stand_in == c);
            found.map_or(c, |(first, _)| *first)
        }));
    }

    /// Whether `rest` begins with a closed tag that neither starts with a control token nor is the
    /// start of one.
    fn is_harmless_tag(&self, rest: &str) -> bool {
        let Some(inside) = rest.strip_prefix('<') else {
            return false;
        };
        let end = inside.find(|c: char| c == '<' || c == '>' || c.is_whitespace());
        let Some(end) = end.filter(|end| *end > 0 && inside[*end..].starts_with('>')) else {
            return false;
        };
        let tag = &rest[..end + 2];
        let control = &self.control.tokens;
        !control
            .iter()
            .any(|token| tag.starts_with(&token.content) || token.content.starts_with(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(contents: &[&str]) -> ControlTokens {
        let tokens = contents
            .iter()
            .zip(100..)
            .map(|(content, id)| ControlToken {
                content: (*content).to_owned(),
                id: TokenId(id),
            });
        ControlTokens::new(tokens.collect())
    }

    fn hidden_as(text: &str, stand_in: char) -> String {
        let control = control(&["<bos>", "<unk>", "<end_of_turn>"]);
        let disguise = control.disguise([text].into_iter()).unwrap();
        disguise
            .hide(text.to_owned())
            .replace('\u{fdd0}', &stand_in.to_string())
    }

    #[test]
    fn the_longest_token_at_the_leftmost_place_is_found() {
        let control = control(&["<a>", "<a><b>", "b>c"]);
        let found: Vec<_> = control
            .find("x<a><b>c<a>ü<a")
            .into_iter()
            .map(|span| (span.range, span.id.0))
            .collect();
        assert_eq!(found, [(1..7, 101), (8..11, 100)]);
        assert!(ControlTokens::default().find("<a>").is_empty());
    }

    #[test]
    fn everything_a_control_token_could_begin_with_is_hidden() {
        for (text, expected) in [
            ("plain", "plain"),
            ("<bos>", "*bos>"),
            ("a <end_of_turn> b", "a *end_of_turn> b"),
            ("<end_of_", "*end_of_"),
            ("x < y", "x * y"),
            ("<", "*"),
            ("<<bos>", "**bos>"),
            ("<</think>bos>", "*</think>bos>"),
            ("<b", "*b"),
            ("<>", "*>"),
        ] {
            assert_eq!(hidden_as(text, '*'), expected);
        }
    }

    #[test]
    fn whole_harmless_tags_stay_in_sight_of_the_template() {
        for text in ["<unused95>answer", "</think>", "<table><tr>", "<b>"] {
            assert_eq!(hidden_as(text, '*'), text);
        }
    }

    #[test]
    fn a_tag_that_begins_a_longer_control_token_is_hidden() {
        let control = control(&["<a><b>", "<foo"]);
        let disguise = control.disguise([].into_iter()).unwrap();
        assert_eq!(disguise.hide("<a>".to_owned()), "\u{fdd0}a>");
        assert_eq!(disguise.hide("<foobar>".to_owned()), "\u{fdd0}foobar>");
    }

    #[test]
    fn each_first_character_has_its_own_stand_in() {
        let control = control(&["<s>", "[INST]", "[/INST]"]);
        let disguise = control.disguise(["[\u{fdd1}"].into_iter()).unwrap();
        let hidden = disguise.hide("[INST] <s> [x".to_owned());
        assert!(!hidden.contains(['<', '[']), "{hidden:?}");
        assert_eq!(
            disguise.reveal(hidden),
            ("[INST] <s> [x".to_owned(), vec![])
        );
    }

    #[test]
    fn only_what_is_in_sight_counts_after_rendering() {
        let control = control(&["<bos>"]);
        let user = "<bos>\u{fdd0}";
        let disguise = control.disguise([user].into_iter()).unwrap();
        let rendered = format!("ü<bos>{}<bos>", disguise.hide(user.to_owned()));
        let (text, spans) = disguise.reveal(rendered);
        assert_eq!(text, "ü<bos><bos>\u{fdd0}<bos>");
        let ranges: Vec<_> = spans.into_iter().map(|span| span.range).collect();
        assert_eq!(ranges, [2..7, 15..20]);
    }

    #[test]
    fn a_text_of_all_noncharacters_leaves_no_stand_in() {
        let all: String = (0xFDD0..=0xFDEF).filter_map(char::from_u32).collect();
        assert!(
            control(&["<bos>"])
                .disguise([all.as_str()].into_iter())
                .is_none()
        );
        let all_but_one = all.replace('\u{fdef}', "");
        let control = control(&["<bos>"]);
        let disguise = control
            .disguise([all_but_one.as_str()].into_iter())
            .unwrap();
        assert_eq!(disguise.hide("<".to_owned()), "\u{fdef}");
    }
}
