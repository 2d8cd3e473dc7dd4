//! Tool calls told apart from the text of an answer, as it comes.
//!
//! Gemma 3 has no token for calls: it writes them as text, in the form that the prompt asked for or
//! in another that it knows, alone, in a fence or amid prose. Calls are found wherever they stand,
//! if they name one of the request's tools and their arguments are literals; all else stays text.
//!
//! ```text
//! text ─ CallParser ─ CallReader ─ ArgumentReader ─┐
//!                                └ ObjectReader ───┴ LiteralReader ─▶ JSON
//! ```
//!
//! Each works character by character, so that what comes out does not depend on how the text was
//! cut. Knows nothing of tokens, of prompts or of the wire.

mod arguments;
mod literal;
mod reader;

use std::collections::VecDeque;
use std::sync::Arc;

use super::answer::AnswerPart;
use reader::{CallReader, ReaderState, Step};

/// What must be known of a tool to find its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its parameters in the schema's order, for arguments that come without their names.
    pub properties: Vec<String>,
}

/// How many calls an answer may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallLimit {
    /// As many as it likes.
    Several,
    /// One; the answer ends with it.
    One,
}

/// Where in an answer calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPlace {
    /// Wherever they stand.
    Anywhere,
    /// At the beginning and behind other calls, and only in brackets.
    Beginning,
}

/// Which calls an answer may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSyntax {
    /// Those that may be called.
    pub tools: Arc<[Tool]>,
    /// How often.
    pub limit: CallLimit,
    /// And where.
    pub place: CallPlace,
}

/// Finds calls in the text of one answer.
///
/// Text that may be the beginning of a call is held back while it may be. From the first argument
/// on a call is certain, and its arguments are handed out as they come. Should they break off or
/// prove wrong then, they stay without their closing bracket, which is no JSON, and what follows is
/// text.
///
/// White space before a call and between calls is no text.
#[derive(Debug)]
pub struct CallParser {
    syntax: CallSyntax,
    /// `None` amid text.
    reader: Option<CallReader>,
    /// Whether the reader has handed out anything.
    has_begun: bool,
    /// What the reader took since it last handed something out.
    held: String,
    /// White space that is text only if text follows.
    space: String,
    /// Whether anything but calls and white space was said.
    has_text: bool,
    /// Whether nothing but white space came since the last call.
    is_behind_call: bool,
    has_ended: bool,
}

impl CallParser {
    /// For an answer that may make these calls.
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

    /// Takes the answer's next text and hands out what is certain.
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

    /// Takes notice of the answer's end.
    pub fn finish(&mut self, parts: &mut Vec<AnswerPart>) {
        let mut new = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.reader.take() {
            // Cut off: what there is was handed out.
            Some(reader) if self.has_begun && reader.is_inside() => {}
            // A bracket or backquotes too few, or too many.
            Some(_) if self.has_begun && !held.contains(char::is_alphanumeric) => {}
            _ => held.chars().for_each(|c| self.say(c, &mut new)),
        }
        if !self.is_behind_call && !self.space.is_empty() {
            new.push(AnswerPart::Text(self.space.clone()));
        }
        self.space.clear();
        join(new, parts);
    }

    /// Whether all calls were made that may be: nothing more is handed out.
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
                // Read as a call it would be wrong again.
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

/// Appends parts; those of one kind become one.
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
