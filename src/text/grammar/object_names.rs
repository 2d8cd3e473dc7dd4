//! The names that the open objects of a JSON text have had.

use std::collections::BTreeSet;
use std::sync::Arc;

/// An open object or array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Array,
    Object {
        /// Decoded. Shared by the copies of a cursor until one of them adds a name.
        names: Arc<BTreeSet<String>>,
        /// Whether the next string is a name.
        is_name_next: bool,
    },
}

/// The bytes of a name that has begun, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenName(Vec<u8>);

impl OpenName {
    pub(super) fn push(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Returns the name without escapes.
    fn decoded(&self) -> String {
        let written = String::from_utf8_lossy(&self.0);
        let decoded = serde_json::from_str(&format!("\"{written}\""));
        // Half of a surrogate pair is not a character.
        decoded.unwrap_or_else(|_| written.into_owned())
    }
}

impl Container {
    /// An object without names.
    pub(super) fn object() -> Self {
        Self::Object {
            names: Arc::default(),
            is_name_next: true,
        }
    }

    pub(super) fn has_names(&self) -> bool {
        matches!(self, Self::Object { names, .. } if !names.is_empty())
    }

    /// Begins a string. Returns the name that it is, if it is one.
    pub(super) fn begin_name(&self) -> Option<OpenName> {
        match self {
            Self::Object {
                is_name_next: true, ..
            } => Some(OpenName::default()),
            _ => None,
        }
    }

    /// Adds a name. Returns whether it is new.
    pub(super) fn add(&mut self, name: &OpenName) -> bool {
        match self {
            Self::Array => true,
            Self::Object {
                names,
                is_name_next,
            } => {
                *is_name_next = false;
                Arc::make_mut(names).insert(name.decoded())
            }
        }
    }

    /// Moves to the next property.
    pub(super) fn expect_name(&mut self) {
        if let Self::Object { is_name_next, .. } = self {
            *is_name_next = true;
        }
    }
}
