//! An answer's tokens into its parts: what was thought, what is said, which tools are called.
//!
//! ```text
//! token ─ a thought's marker?
//!           no ─▶ Detokenizer ─┬ in a thought ─▶ Reasoning
//!                              └ else, until a stop string ─ CallParser ─▶ Text, calls
//! ```
//!
//! Knows nothing of streams or of who reads.

use std::sync::Arc;

use super::answer::AnswerPart;
use super::detokenizer::{Detokenizer, Piece};
use super::thought::{LABEL, ThoughtMarkers};
use super::tokenizer::Tokenizer;
use super::tool_calls::{CallParser, CallSyntax, join};
use crate::core::TokenId;

/// What is told apart in an answer; by default nothing, all of it is text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerSyntax {
    /// Thoughts, if the model has any.
    pub thoughts: Option<ThoughtSyntax>,
    /// Calls, if it may make any.
    pub calls: Option<CallSyntax>,
}

/// How thoughts are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThoughtSyntax {
    /// By these tokens.
    pub markers: ThoughtMarkers,
    /// Whether they come out.
    pub shown: ThoughtText,
}

/// Whether thoughts come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThoughtText {
    /// As they are thought.
    Shown,
    /// Not at all; they count as thought all the same.
    Hidden,
}

/// Strings that end an answer. They count in what is said, calls included, not in what is thought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopRule {
    /// The strings.
    pub strings: Vec<String>,
    /// Tokens, thoughts included, before which none counts.
    pub min_tokens: usize,
}

/// What a token added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Nothing to come changes them. Often empty.
    pub parts: Vec<AnswerPart>,
    /// The answer ends here, whatever else the model says.
    pub end: Option<ReadEnd>,
    /// The token was thought rather than said; so are the markers.
    pub is_thought: bool,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// By this stop string, in the order given.
    StopString(usize),
    /// By the only call that it may make.
    Call,
}

/// Reads one answer.
#[derive(Debug)]
pub struct AnswerReader {
    detokenizer: Detokenizer,
    thoughts: Option<ThoughtSyntax>,
    calls: Option<CallParser>,
    stop: StopRule,
    num_tokens: usize,
    thought: Thought,
}

/// Where a thought stands.
#[derive(Debug)]
enum Thought {
    /// Nothing is thought.
    Closed,
    /// It has just begun: what there is of its label.
    Label(String),
    /// Past its label.
    Open,
}

impl AnswerReader {
    /// For an answer with this syntax.
    pub fn new(tokenizer: Arc<Tokenizer>, syntax: &AnswerSyntax, stop: StopRule) -> Self {
        Self {
            // Stop strings count once `min_tokens` are there.
            detokenizer: Detokenizer::new(tokenizer, &[]),
            thoughts: syntax.thoughts,
            calls: syntax.calls.clone().map(CallParser::new),
            stop,
            num_tokens: 0,
            thought: Thought::Closed,
        }
    }

    /// Takes the next token. After an end nothing more comes out.
    pub fn push(&mut self, token: TokenId) -> Read {
        let was_thought = self.is_thought();
        if self.num_tokens == self.stop.min_tokens && !was_thought {
            self.detokenizer.look_for(&self.stop.strings);
        }
        self.num_tokens += 1;
        let mut read = Read::default();
        match self.thoughts.map(|thoughts| thoughts.markers) {
            Some(markers) if token == markers.open => {
                let rest = self.detokenizer.finish();
                self.take(rest, &mut read);
                if !was_thought {
                    self.detokenizer.look_for(&[]);
                    self.thought = Thought::Label(String::new());
                }
            }
            Some(markers) if token == markers.close => {
                let rest = self.detokenizer.finish();
                self.take(rest, &mut read);
                self.close_thought(&mut read);
                if self.num_tokens >= self.stop.min_tokens {
                    self.detokenizer.look_for(&self.stop.strings);
                }
            }
            _ => {
                let piece = self.detokenizer.push(token);
                self.take(piece, &mut read);
            }
        }
        read.is_thought = was_thought || self.is_thought();
        read
    }

    /// What was held back, when no more tokens come.
    pub fn finish(&mut self) -> Read {
        let mut read = Read::default();
        let rest = self.detokenizer.finish();
        self.take(rest, &mut read);
        self.close_thought(&mut read);
        if read.end.is_none() {
            self.finish_calls(&mut read);
        }
        read
    }

    fn is_thought(&self) -> bool {
        !matches!(self.thought, Thought::Closed)
    }

    fn take(&mut self, piece: Piece, read: &mut Read) {
        if self.is_thought() {
            return self.reason(&piece.text, read);
        }
        match &mut self.calls {
            None if piece.text.is_empty() => {}
            None => read.parts.push(AnswerPart::Text(piece.text)),
            Some(calls) => calls.push(&piece.text, &mut read.parts),
        }
        if let Some(string_idx) = piece.stopped {
            read.end = Some(ReadEnd::StopString(string_idx));
            self.finish_calls(read);
        } else if self.calls.as_ref().is_some_and(CallParser::has_ended) {
            read.end = Some(ReadEnd::Call);
        }
    }

    fn finish_calls(&mut self, read: &mut Read) {
        if let Some(calls) = &mut self.calls {
            calls.finish(&mut read.parts);
        }
    }

    fn reason(&mut self, text: &str, read: &mut Read) {
        if let Thought::Label(label) = &mut self.thought {
            label.push_str(text);
            if LABEL.starts_with(label.as_str()) && label.len() < LABEL.len() {
                return;
            }
            let label = std::mem::take(label);
            self.thought = Thought::Open;
            let text = label.strip_prefix(LABEL).unwrap_or(&label);
            return self.think(text.to_owned(), read);
        }
        self.think(text.to_owned(), read);
    }

    fn think(&self, text: String, read: &mut Read) {
        let is_shown = self
            .thoughts
            .is_some_and(|thoughts| thoughts.shown == ThoughtText::Shown);
        if is_shown && !text.is_empty() {
            join(vec![AnswerPart::Reasoning(text)], &mut read.parts);
        }
    }

    fn close_thought(&mut self, read: &mut Read) {
        let thought = std::mem::replace(&mut self.thought, Thought::Closed);
        // A label that broke off is thought, unless only its line break is missing.
        if let Thought::Label(label) = thought
            && label != LABEL.trim_end()
        {
            self.think(label, read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::AddSpecialTokens;
    use super::super::tool_calls::{CallLimit, CallPlace, Tool};
    use super::*;

    fn tokenizer() -> Arc<Tokenizer> {
        Arc::new(Tokenizer::for_test())
    }

    fn syntax(tokenizer: &Tokenizer, shown: ThoughtText) -> AnswerSyntax {
        AnswerSyntax {
            thoughts: Some(ThoughtSyntax {
                markers: ThoughtMarkers::new(tokenizer).expect("it has them"),
                shown,
            }),
            calls: Some(CallSyntax {
                tools: Arc::new([Tool {
                    name: "f".to_owned(),
                    properties: vec!["x".to_owned()],
                }]),
                limit: CallLimit::One,
                place: CallPlace::Anywhere,
            }),
        }
    }

    /// All parts, whether a stop string or call ended it, and how many tokens were thought.
    fn read(
        syntax: &AnswerSyntax,
        stop: StopRule,
        tokens: &[TokenId],
    ) -> (Vec<AnswerPart>, Option<ReadEnd>, usize) {
        let mut reader = AnswerReader::new(tokenizer(), syntax, stop);
        let (mut parts, mut num_thought) = (Vec::new(), 0);
        for token in tokens {
            let read = reader.push(*token);
            join(read.parts, &mut parts);
            num_thought += usize::from(read.is_thought);
            if read.end.is_some() {
                return (parts, read.end, num_thought);
            }
        }
        let rest = reader.finish();
        join(rest.parts, &mut parts);
        (parts, rest.end, num_thought)
    }

    fn tokens(text: &str) -> Vec<TokenId> {
        let tokens = tokenizer().encode_raw(text, AddSpecialTokens::No);
        tokens.expect("any text has tokens")
    }

    fn reasoning(text: &str) -> AnswerPart {
        AnswerPart::Reasoning(text.to_owned())
    }

    fn text(text: &str) -> AnswerPart {
        AnswerPart::Text(text.to_owned())
    }

    #[test]
    fn thoughts_are_told_apart_by_their_tokens() {
        let syntax = syntax(&tokenizer(), ThoughtText::Shown);
        for (answer, expected) in [
            (
                "<unused94>thought\nhm, é<unused95>Yes.",
                vec![reasoning("hm, é"), text("Yes.")],
            ),
            ("<unused94>thought\nhm", vec![reasoning("hm")]),
            ("<unused94>thought<unused95>Yes.", vec![text("Yes.")]),
            (
                "<unused94>thorough<unused95>Yes.",
                vec![reasoning("thorough"), text("Yes.")],
            ),
            ("<unused94>tho<unused95>", vec![reasoning("tho")]),
            ("<unused94><unused95>Yes.", vec![text("Yes.")]),
            ("Yes.<unused95> No.", vec![text("Yes. No.")]),
            (
                "A<unused94>b<unused95>c",
                vec![text("A"), reasoning("b"), text("c")],
            ),
        ] {
            let (parts, end, _) = read(&syntax, StopRule::default(), &tokens(answer));
            assert_eq!(parts, expected, "{answer}");
            assert_eq!(end, None);
        }
        // The same letters as plain text.
        let mut plain = Vec::new();
        let encoded = tokenizer().encode_plain("<unused94", &mut plain);
        encoded.expect("any text has tokens");
        plain.extend(tokens(">hm"));
        let (parts, _, num_thought) = read(&syntax, StopRule::default(), &plain);
        assert_eq!((parts, num_thought), (vec![text("<unused94>hm")], 0));
    }

    #[test]
    fn markers_are_text_where_nothing_is_told_apart() {
        let answer = tokens("<unused94>thought\n[f(x=1)]<unused95>");
        let plain = AnswerSyntax::default();
        let (parts, _, num_thought) = read(&plain, StopRule::default(), &answer);
        let expected = text("<unused94>thought\n[f(x=1)]<unused95>");
        assert_eq!((parts, num_thought), (vec![expected], 0));
    }

    #[test]
    fn hidden_thoughts_are_counted() {
        let syntax = syntax(&tokenizer(), ThoughtText::Hidden);
        let thought = tokens("<unused94>thought\nhm<unused95>");
        let all = [thought.clone(), tokens("Yes.")].concat();
        let (parts, _, num_thought) = read(&syntax, StopRule::default(), &all);
        assert_eq!((parts, num_thought), (vec![text("Yes.")], thought.len()));
    }

    #[test]
    fn stop_strings_and_calls_count_in_what_is_said() {
        let syntax = syntax(&tokenizer(), ThoughtText::Shown);
        let stop = |min_tokens| StopRule {
            strings: vec!["no".to_owned()],
            min_tokens,
        };
        let answer = tokens("<unused94>no [f(x=1)]<unused95>Oh, no, yes");
        let (parts, end, _) = read(&syntax, stop(0), &answer);
        assert_eq!(parts, [reasoning("no [f(x=1)]"), text("Oh, ")]);
        assert_eq!(end, Some(ReadEnd::StopString(0)));
        // Not before the least number of tokens, wherever the thought ends.
        let (parts, end, _) = read(&syntax, stop(100), &answer);
        assert_eq!(parts, [reasoning("no [f(x=1)]"), text("Oh, no, yes")]);
        assert_eq!(end, None);

        let answer = tokens("<unused94>hm<unused95>Oh [f(x=1)] and more");
        let (parts, end, _) = read(&syntax, stop(0), &answer);
        let call = AnswerPart::CallBegins {
            name: "f".to_owned(),
        };
        let arguments = AnswerPart::CallArguments("{\"x\":1}".to_owned());
        assert_eq!(parts, [reasoning("hm"), text("Oh"), call, arguments]);
        assert_eq!(end, Some(ReadEnd::Call));
    }
}
