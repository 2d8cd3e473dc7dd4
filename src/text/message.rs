//! A chat in the form that templates take.

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The author of the message.
    pub role: Role,
    /// Text and images.
    pub content: Content,
}

/// The author of a message. The template decides which order of roles is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The system: instructions to the model.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// Any other name, passed to the template unchanged.
    Other(String),
}

impl Role {
    /// Returns the name that templates compare with.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Other(name) => name,
        }
    }
}

/// The content of a message. Templates may treat the two forms differently (Gemma's uses only the
/// first part of a system message), so the client's form is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A string.
    Text(String),
    /// A list of parts.
    Parts(Vec<Part>),
}

/// One part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// The place of an image. The image itself is passed separately.
    Image,
}

impl Message {
    /// Returns all strings that a user can choose.
    pub(super) fn strings(&self) -> impl Iterator<Item = &str> {
        let (text, parts) = match &self.content {
            Content::Text(text) => (Some(text.as_str()), &[][..]),
            Content::Parts(parts) => (None, parts.as_slice()),
        };
        let parts = parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image => None,
        });
        [self.role.as_str()].into_iter().chain(text).chain(parts)
    }

    /// Returns the size of its text in bytes.
    pub fn num_bytes(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.len(),
            Content::Parts(parts) => parts.iter().fold(0, |sum, part| match part {
                Part::Text(text) => sum + text.len(),
                Part::Image => sum,
            }),
        }
    }

    /// Returns the number of its images.
    pub(super) fn num_images(&self) -> usize {
        match &self.content {
            Content::Text(_) => 0,
            Content::Parts(parts) => parts.iter().filter(|part| **part == Part::Image).count(),
        }
    }
}
