//! Finds tool calls in the text of an answer as it arrives.
//!
//! Gemma 3 has no token for calls. It writes them as text, in the form that the prompt requested or
//! in another one that it knows; alone, in a code fence or within prose. Calls are found anywhere
//! if they name one of the request's tools and their arguments are literals. Everything else stays
//! text.
//!
//! ```text
//! text ─ CallParser ─ CallReader ─ ArgumentReader ─┐
//!                                └ ObjectReader ───┴ LiteralReader ─▶ JSON
//! ```
//!
//! Each reader works character by character, so that the result does not depend on how the text was
//! split. Knows nothing of tokens, prompts or the API.

mod arguments;
mod literal;
mod reader;

use std::collections::VecDeque;
use std::sync::Arc;

use super::answer::AnswerPart;
use reader::{CallReader, ReaderState, Step};

/// The data of a tool that is needed to find its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name of the tool.
    pub name: String,
    /// Its parameters in the schema's order, for arguments without names.
    pub properties: Vec<String>,
}

/// How many calls an answer may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallLimit {
    /// Any number.
    Several,
    /// One; the answer ends with it.
    One,
}

/// Where in an answer calls are recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPlace {
    /// Anywhere.
    Anywhere,
    /// At the beginning and after other calls, and only in brackets.
    Beginning,
}

/// The calls that an answer may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSyntax {
    /// The tools that may be called.
    pub tools: Arc<[Tool]>,
    /// How many calls are allowed.
    pub limit: CallLimit,
    /// Where calls are recognized.
    pub place: CallPlace,
}

/// Finds calls in the text of one answer.
///
/// Text that may be the beginning of a call is held back until that is decided. A call is certain
/// from its first argument on, and its arguments are then returned as they arrive. If they later
/// break off or turn out to be invalid, they stay without their closing bracket, which is not valid
/// JSON, and what follows is text.
///
/// White space before a call and between calls is dropped.
#[derive(Debug)]
pub struct CallParser {
    syntax: CallSyntax,
    /// `None` outside possible calls.
    reader: Option<CallReader>,
    /// Whether the reader has returned anything.
    has_begun: bool,
    /// What the reader has read since it last returned something.
    held: String,
    /// White space that becomes text only if text follows.
    space: String,
    /// Whether the answer has any text besides calls and white space.
    has_text: bool,
    /// Whether there was only white space since the last call.
    is_behind_call: bool,
    has_ended: bool,
}

impl CallParser {
    /// Creates a parser for an answer that may make these calls.
    pub fn new(syntax: CallSyntax) -> Self {
        Self {
            syntax,
            reader: None,
            has_begun: false,
            held: String::new(),
            space: String::new(),
            has_text: false,
            is_behind_call: false,
            has_ended: false,
        }
    }

    /// Takes the answer's next text and appends the certain parts.
    pub fn push(&mut self, text: &str, parts: &mut Vec<AnswerPart>) {
        let mut new = Vec::new();
        let mut left: VecDeque<char> = text.chars().collect();
        while let Some(c) = left.pop_front()
            && !self.has_ended
        {
            self.take(c, &mut left, &mut new);
        }
        join(new, parts);
    }

    /// Handles the end of the answer.
    pub fn finish(&mut self, parts: &mut Vec<AnswerPart>) {
        let mut new = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.reader.take() {
            // Cut off: everything certain was already returned.
            Some(reader) if self.has_begun && reader.is_inside() => {}
            // Too few or too many brackets or backquotes.
            Some(_) if self.has_begun && !held.contains(char::is_alphanumeric) => {}
            _ => held.chars().for_each(|c| self.say(c, &mut new)),
        }
        if !self.is_behind_call && !self.space.is_empty() {
            new.push(AnswerPart::Text(self.space.clone()));
        }
        self.space.clear();
        join(new, parts);
    }

    /// Whether the last allowed call was made. Nothing more is returned then.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn take(&mut self, c: char, left: &mut VecDeque<char>, parts: &mut Vec<AnswerPart>) {
        let place = match (self.syntax.place, self.has_text) {
            (CallPlace::Anywhere, false) => ReaderState::Start,
            (CallPlace::Anywhere, true) | (CallPlace::Beginning, false) => ReaderState::Inside,
            (CallPlace::Beginning, true) => return self.say(c, parts),
        };
        if self.reader.is_none() && !CallReader::begins(c, place) {
            return self.say(c, parts);
        }
        let reader = self.reader.get_or_insert_with(|| CallReader::new(place));
        let num_parts = parts.len();
        let step = reader.push(c, &self.syntax.tools, parts);
        let handed_out = parts.len() > num_parts;
        if handed_out {
            self.held.clear();
            self.space.clear();
            self.has_begun = true;
            self.is_behind_call = true;
        }
        if !handed_out || matches!(step, Step::Beyond | Step::Wrong) {
            self.held.push(c);
        }
        let is_over = self.has_begun && !reader.is_inside();
        if is_over && self.syntax.limit == CallLimit::One && step != Step::Wrong {
            self.has_ended = true;
        }
        match step {
            Step::Going => {}
            Step::Last => {
                self.leave();
            }
            Step::Beyond => {
                let held = self.leave();
                held.chars().rev().for_each(|c| left.push_front(c));
            }
            Step::Wrong => {
                let held = self.leave();
                let mut held = held.chars();
                // It would fail again if it were read as a call.
                let first = held.next().expect("the character that was wrong");
                held.rev().for_each(|c| left.push_front(c));
                self.say(first, parts);
            }
        }
    }

    fn leave(&mut self) -> String {
        self.reader = None;
        self.has_begun = false;
        std::mem::take(&mut self.held)
    }

    fn say(&mut self, c: char, parts: &mut Vec<AnswerPart>) {
        if c.is_whitespace() {
            return self.space.push(c);
        }
        if self.is_behind_call && !self.has_text {
            self.space.clear();
        }
        self.has_text = true;
        self.is_behind_call = false;
        if !matches!(parts.last(), Some(AnswerPart::Text(_))) {
            parts.push(AnswerPart::Text(String::new()));
        }
        if let Some(AnswerPart::Text(text)) = parts.last_mut() {
            text.push_str(&self.space);
            text.push(c);
        }
        self.space.clear();
    }
}

/// Appends parts, and joins adjacent parts of the same kind.
pub(super) fn join(new: Vec<AnswerPart>, parts: &mut Vec<AnswerPart>) {
    for part in new {
        match (parts.last_mut(), part) {
            (Some(AnswerPart::Text(before)), AnswerPart::Text(text))
            | (Some(AnswerPart::Reasoning(before)), AnswerPart::Reasoning(text))
            | (Some(AnswerPart::CallArguments(before)), AnswerPart::CallArguments(text)) => {
                before.push_str(&text);
            }
            (_, part) => parts.push(part),
        }
    }
}

#[cfg(test)]
mod tests;
