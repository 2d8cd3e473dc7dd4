//! A chat as the template takes it.

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown.
    pub content: Content,
}

/// Who speaks. Which roles may follow which is the template's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// Any other name, handed to the template as it is.
    Other(String),
}

impl Role {
    /// The name that templates compare with.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Other(name) => name,
        }
    }
}

/// What a message holds. Templates may treat the two forms differently (Gemma's takes a system
/// message's first part only), so the form that the client chose is kept.
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
    /// An image's place; the image itself travels apart.
    Image,
}

impl Message {
    /// Every string in it that a user chose.
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

    /// Bytes of its text.
    pub fn num_bytes(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.len(),
            Content::Parts(parts) => parts.iter().fold(0, |sum, part| match part {
                Part::Text(text) => sum + text.len(),
                Part::Image => sum,
            }),
        }
    }

    /// How many images it shows.
    pub(super) fn num_images(&self) -> usize {
        match &self.content {
            Content::Text(_) => 0,
            Content::Parts(parts) => parts.iter().filter(|part| **part == Part::Image).count(),
        }
    }
}
