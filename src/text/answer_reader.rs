//! Converts an answer's tokens to its parts: reasoning, text and tool calls.
//!
//! ```text
//! token ─ reasoning marker?
//!           no ─▶ Detokenizer ─┬ in the reasoning ─▶ Reasoning
//!                              └ else, until a stop string ─ CallParser ─▶ Text, calls
//! ```
//!
//! Knows nothing of streams or of the reader.

use std::sync::Arc;

use super::answer::AnswerPart;
use super::detokenizer::{Detokenizer, Piece, TextRule};
use super::reasoning_markers::{LABEL, ReasoningMarkers};
use super::tokenizer::Tokenizer;
use super::tool_calls::{CallParser, CallSyntax, join};
use crate::core::TokenId;

/// Which parts of the output are parsed as reasoning or tool calls. By default none: all of it is
/// text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerSyntax {
    /// How reasoning is recognized, if the model reasons.
    pub reasoning: Option<ReasoningSyntax>,
    /// How tool calls are recognized, if the model may make any.
    pub calls: Option<CallSyntax>,
}

/// How reasoning is recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningSyntax {
    /// The tokens that begin and end it.
    pub markers: ReasoningMarkers,
    /// Whether it is returned.
    pub shown: ReasoningText,
}

/// Whether reasoning is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningText {
    /// It is returned as it is generated.
    Shown,
    /// It is not returned, but its tokens still count as reasoning.
    Hidden,
}

/// Strings that end an answer. They are searched in the text and in calls, not in the reasoning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopRule {
    /// The strings.
    pub strings: Vec<String>,
    /// Number of tokens, including reasoning, before which no stop string counts.
    pub min_tokens: usize,
}

/// What one token added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Final parts: later tokens do not change them. Often empty.
    pub parts: Vec<AnswerPart>,
    /// Set when the answer ends here. Later tokens are ignored.
    pub end: Option<ReadEnd>,
    /// Whether the token is part of the reasoning, markers included.
    pub is_reasoning: bool,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// A stop string, by its index.
    StopString(usize),
    /// The only call that the answer may make is complete.
    Call,
}

/// Reads one answer.
#[derive(Debug)]
pub struct AnswerReader {
    detokenizer: Detokenizer,
    reasoning_syntax: Option<ReasoningSyntax>,
    calls: Option<CallParser>,
    stop: StopRule,
    num_tokens: usize,
    stage: Stage,
}

/// The state of the reasoning.
#[derive(Debug)]
enum Stage {
    /// Outside the reasoning.
    Closed,
    /// At its start, with the part of its label that was read.
    Label(String),
    /// After its label.
    Open,
}

impl AnswerReader {
    /// Creates a reader for an answer with this syntax. The markers of reasoning are never text,
    /// whatever `text` says.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        syntax: &AnswerSyntax,
        stop: StopRule,
        text: TextRule,
    ) -> Self {
        Self {
            // Stop strings are set once `min_tokens` tokens were read.
            detokenizer: Detokenizer::new(tokenizer, &[], text),
            reasoning_syntax: syntax.reasoning,
            calls: syntax.calls.clone().map(CallParser::new),
            stop,
            num_tokens: 0,
            stage: Stage::Closed,
        }
    }

    /// Takes the next token. After an end it returns nothing more.
    pub fn push(&mut self, token: TokenId) -> Read {
        let was_reasoning = self.is_reasoning();
        if self.num_tokens == self.stop.min_tokens && !was_reasoning {
            self.detokenizer.look_for(&self.stop.strings);
        }
        self.num_tokens += 1;
        let mut read = Read::default();
        match self.reasoning_syntax.map(|reasoning| reasoning.markers) {
            Some(markers) if token == markers.open => {
                let rest = self.detokenizer.finish();
                self.take(rest, &mut read);
                if !was_reasoning {
                    self.detokenizer.look_for(&[]);
                    self.stage = Stage::Label(String::new());
                }
            }
            Some(markers) if token == markers.close => {
                let rest = self.detokenizer.finish();
                self.take(rest, &mut read);
                self.close_reasoning(&mut read);
                if self.num_tokens >= self.stop.min_tokens {
                    self.detokenizer.look_for(&self.stop.strings);
                }
            }
            _ => {
                let piece = self.detokenizer.push(token);
                self.take(piece, &mut read);
            }
        }
        read.is_reasoning = was_reasoning || self.is_reasoning();
        read
    }

    /// Returns what was held back, when no more tokens come.
    pub fn finish(&mut self) -> Read {
        let mut read = Read::default();
        let rest = self.detokenizer.finish();
        self.take(rest, &mut read);
        self.close_reasoning(&mut read);
        if read.end.is_none() {
            self.finish_calls(&mut read);
        }
        read
    }

    fn is_reasoning(&self) -> bool {
        !matches!(self.stage, Stage::Closed)
    }

    fn take(&mut self, piece: Piece, read: &mut Read) {
        if self.is_reasoning() {
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
        if let Stage::Label(label) = &mut self.stage {
            label.push_str(text);
            if LABEL.starts_with(label.as_str()) && label.len() < LABEL.len() {
                return;
            }
            let label = std::mem::take(label);
            self.stage = Stage::Open;
            let text = label.strip_prefix(LABEL).unwrap_or(&label);
            return self.think(text.to_owned(), read);
        }
        self.think(text.to_owned(), read);
    }

    fn think(&self, text: String, read: &mut Read) {
        let is_shown = self
            .reasoning_syntax
            .is_some_and(|reasoning| reasoning.shown == ReasoningText::Shown);
        if is_shown && !text.is_empty() {
            join(vec![AnswerPart::Reasoning(text)], &mut read.parts);
        }
    }

    fn close_reasoning(&mut self, read: &mut Read) {
        let stage = std::mem::replace(&mut self.stage, Stage::Closed);
        // An incomplete label is reasoning text, unless only its line break is missing.
        if let Stage::Label(label) = stage
            && label != LABEL.trim_end()
        {
            self.think(label, read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::CallKind;
    use super::super::tokenizer::AddSpecialTokens;
    use super::super::tool_calls::{CallForm, CallLimit, CallPlace, Tool};
    use super::*;

    fn tokenizer() -> Arc<Tokenizer> {
        Arc::new(Tokenizer::for_test())
    }

    fn syntax(tokenizer: &Tokenizer, shown: ReasoningText) -> AnswerSyntax {
        AnswerSyntax {
            reasoning: Some(ReasoningSyntax {
                markers: ReasoningMarkers::new(tokenizer).expect("it has them"),
                shown,
            }),
            calls: Some(CallSyntax {
                tools: Arc::new([Tool {
                    name: "f".to_owned(),
                    kind: CallKind::Function,
                    properties: vec!["x".to_owned()],
                }]),
                limit: CallLimit::One,
                place: CallPlace::Anywhere,
                form: CallForm::Free,
            }),
        }
    }

    /// Returns all parts, the stop string or call that ended the answer, and the number of
    /// reasoning tokens.
    fn read(
        syntax: &AnswerSyntax,
        stop: StopRule,
        tokens: &[TokenId],
    ) -> (Vec<AnswerPart>, Option<ReadEnd>, usize) {
        let mut reader = AnswerReader::new(tokenizer(), syntax, stop, TextRule::default());
        let (mut parts, mut num_reasoning) = (Vec::new(), 0);
        for token in tokens {
            let read = reader.push(*token);
            join(read.parts, &mut parts);
            num_reasoning += usize::from(read.is_reasoning);
            if read.end.is_some() {
                return (parts, read.end, num_reasoning);
            }
        }
        let rest = reader.finish();
        join(rest.parts, &mut parts);
        (parts, rest.end, num_reasoning)
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
    fn reasoning_are_told_apart_by_their_tokens() {
        let syntax = syntax(&tokenizer(), ReasoningText::Shown);
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
        // The same characters as plain text.
        let mut plain = Vec::new();
        let encoded = tokenizer().encode_plain("<unused94", &mut plain);
        encoded.expect("any text has tokens");
        plain.extend(tokens(">hm"));
        let (parts, _, num_reasoning) = read(&syntax, StopRule::default(), &plain);
        assert_eq!((parts, num_reasoning), (vec![text("<unused94>hm")], 0));
    }

    #[test]
    fn markers_are_text_where_nothing_is_told_apart() {
        let answer = tokens("<unused94>thought\n[f(x=1)]<unused95>");
        let plain = AnswerSyntax::default();
        let (parts, _, num_reasoning) = read(&plain, StopRule::default(), &answer);
        let expected = text("<unused94>thought\n[f(x=1)]<unused95>");
        assert_eq!((parts, num_reasoning), (vec![expected], 0));
    }

    #[test]
    fn hidden_reasoning_are_counted() {
        let syntax = syntax(&tokenizer(), ReasoningText::Hidden);
        let reasoning = tokens("<unused94>thought\nhm<unused95>");
        let all = [reasoning.clone(), tokens("Yes.")].concat();
        let (parts, _, num_reasoning) = read(&syntax, StopRule::default(), &all);
        assert_eq!(
            (parts, num_reasoning),
            (vec![text("Yes.")], reasoning.len())
        );
    }

    #[test]
    fn stop_strings_and_calls_count_in_what_is_said() {
        let syntax = syntax(&tokenizer(), ReasoningText::Shown);
        let stop = |min_tokens| StopRule {
            strings: vec!["no".to_owned()],
            min_tokens,
        };
        let answer = tokens("<unused94>no [f(x=1)]<unused95>Oh, no, yes");
        let (parts, end, _) = read(&syntax, stop(0), &answer);
        assert_eq!(parts, [reasoning("no [f(x=1)]"), text("Oh, ")]);
        assert_eq!(end, Some(ReadEnd::StopString(0)));
        // A stop string does not count before `min_tokens`, wherever the reasoning ends.
        let (parts, end, _) = read(&syntax, stop(100), &answer);
        assert_eq!(parts, [reasoning("no [f(x=1)]"), text("Oh, no, yes")]);
        assert_eq!(end, None);

        let answer = tokens("<unused94>hm<unused95>Oh [f(x=1)] and more");
        let (parts, end, _) = read(&syntax, stop(0), &answer);
        let call = AnswerPart::CallBegins {
            name: "f".to_owned(),
            kind: CallKind::Function,
        };
        let arguments = AnswerPart::CallArguments("{\"x\":1}".to_owned());
        assert_eq!(parts, [reasoning("hm"), text("Oh"), call, arguments]);
        assert_eq!(end, Some(ReadEnd::Call));
    }
}
