//! Why a chat template rendered nothing, and what the client is told.

use std::time::Duration;

use minijinja::ErrorKind;

use crate::error::Error;

use super::jinja::{self, FUEL, MAX_RENDERED_BYTES};

/// Maximum time for a rendering. A usual one takes a few milliseconds.
pub(super) const MAX_TIME: Duration = Duration::from_secs(5);

/// Why a rendering failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RenderingFailure {
    /// The template refused the messages in these words, by `raise_exception`.
    Raised(String),
    /// It made more than [`MAX_RENDERED_BYTES`].
    TooMuch,
    /// It did not end within [`FUEL`] and [`MAX_TIME`].
    TooLong,
    /// Its process ended: it needed more memory, or a deeper stack, than it may have.
    TooLarge,
    /// There is no process for it, for this reason. The template is not at fault.
    NoProcess(String),
    /// Any other error of the template, or of the values in it.
    Other(String),
}

impl From<minijinja::Error> for RenderingFailure {
    fn from(error: minijinja::Error) -> Self {
        let cause = jinja::cause(&error);
        match (jinja::raised(&error), cause.kind()) {
            (Some(message), _) => Self::Raised(message.to_owned()),
            (None, ErrorKind::WriteFailure) => Self::TooMuch,
            (None, ErrorKind::OutOfFuel) => Self::TooLong,
            (None, _) => Self::Other(cause.to_string()),
        }
    }
}

impl From<RenderingFailure> for Error {
    fn from(failure: RenderingFailure) -> Self {
        Self::Template(match failure {
            RenderingFailure::Raised(message) => message,
            RenderingFailure::TooMuch => format!(
                "The chat template makes more than {MAX_RENDERED_BYTES} bytes of these messages. \
                 Send fewer or shorter messages."
            ),
            RenderingFailure::TooLong => format!(
                "The chat template did not finish these messages within {FUEL} steps and \
                 {MAX_TIME:?}. Send fewer or shorter messages."
            ),
            RenderingFailure::TooLarge => "The chat template needs too much memory, or too deep a \
                                           stack, for these messages. Send fewer or shorter \
                                           messages."
                .to_owned(),
            RenderingFailure::Other(cause) => {
                format!("The chat template cannot render these messages: {cause}")
            }
            RenderingFailure::NoProcess(reason) => {
                return Self::Config(format!(
                    "no process for the chat template can be had: {reason}"
                ));
            }
        })
    }
}
