//! Settings with few values that several modules share: one enum for each, from the command line to
//! the code that follows it.

use std::fmt;

/// Number types that a model is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit IEEE.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

impl Dtype {
    /// Number of bytes per number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// When answers begin with a chain of thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// Never; the model was not trained to.
    Never,
    /// When the system message asks for it.
    OnRequest,
    /// Also without being asked.
    Unasked,
}

impl Thinking {
    /// Returns the value in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnRequest => "on request",
            Self::Unasked => "unasked",
        }
    }
}

impl fmt::Display for Thinking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The format in which a model writes tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `[f(a=1, b="x"), g()]`
    Pythonic,
    /// `{"name": "f", "parameters": {"a": 1, "b": "x"}}`, or a list of such objects.
    Json,
}

/// Handling of turns in an order that templates do not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolePolicy {
    /// Consecutive turns of one role are merged, and so are several system messages; an empty user
    /// turn is inserted where only a user's turn may be.
    Merge,
    /// Turns are not changed: the template refuses them with its own message.
    Strict,
}

/// How an image that is not square becomes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFit {
    /// Each side is scaled for itself, as in transformers' `Gemma3ImageProcessor`.
    Squash,
    /// The image is scaled as a whole and stands in the middle of a black square, as in MedGemma's
    /// own serving container ("as in training"). If the number of black rows or columns is odd, the
    /// extra one comes after the image.
    Pad,
}

/// Whether a sequence may begin with blocks of another sequence that has the same prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixCaching {
    /// Blocks are reused if both sequences have the same salt or none.
    On,
    /// Each sequence computes all of its tokens.
    Off,
}
