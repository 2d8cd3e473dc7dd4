//! How the process ends, as one number: what scripts and orchestrators act on.
//!
//! The one place where an error becomes an exit code. The codes are sysexits' where one fits.

use std::fmt;

use crate::error::{Error, HubProblem};

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Success.
    Success = 0,
    /// Any other failure.
    Failure = 1,
    /// Invalid option or environment variable; nothing was started.
    Usage = 2,
    /// `run-batch`: every line has a result, some of them errors.
    SomeFailed = 3,
    /// A checkpoint's file is damaged, or not what the architecture needs.
    DamagedCheckpoint = 65,
    /// The model, directory or file does not exist.
    NotFound = 66,
    /// The hub did not respond, or its response was unusable.
    HubUnreachable = 68,
    /// The requested device cannot be used.
    NoDevice = 69,
    /// A fault of the device or of this program; it can be restarted.
    Fault = 70,
    /// Not enough memory for the settings.
    NoMemory = 71,
    /// Listening on the address failed.
    NoAddress = 73,
    /// A file cannot be written: disk full or no permission.
    NoDisk = 74,
    /// The hub requires a token, or acceptance of its terms.
    NoAccess = 77,
    /// Settings that are invalid for this model.
    Settings = 78,
    /// Stopped from outside before it was done.
    Interrupted = 130,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

impl From<&Error> for ExitCode {
    fn from(error: &Error) -> Self {
        match error {
            Error::Checkpoint { .. } | Error::Tokenizer(_) => Self::DamagedCheckpoint,
            Error::NotFound(_) => Self::NotFound,
            Error::Device(_) => Self::NoDevice,
            Error::OutOfMemory(_) => Self::NoMemory,
            Error::Config(_) => Self::Settings,
            Error::Hub { problem, .. } => match problem {
                HubProblem::Access => Self::NoAccess,
                HubProblem::NotFound => Self::NotFound,
                // What answers, but not as a hub does, is none.
                HubProblem::Network | HubProblem::Damaged => Self::HubUnreachable,
                HubProblem::Disk => Self::NoDisk,
            },
            Error::Backend(_) | Error::EngineDead | Error::StepFailed | Error::NotFinite => {
                Self::Fault
            }
            // These answer requests; a program that calls the engine directly may still end with one.
            Error::Template(_)
            | Error::Image(_)
            | Error::PromptTooLong { .. }
            | Error::ImageSpanTooLong { .. }
            | Error::UnbrokenText { .. }
            | Error::NeverFits { .. }
            | Error::QueueFull { .. }
            | Error::ShareFull { .. }
            | Error::NeverQueued { .. }
            | Error::DeadlineExceeded { .. }
            | Error::Draining
            | Error::ShutdownTimeout { .. }
            | Error::Constraint { .. } => Self::Failure,
        }
    }
}

/// Why the process fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code, for scripts.
    pub code: ExitCode,
    /// The message for people: what is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure that no [`Error`] describes.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(ExitCode::from(&error), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_codes_of_their_own() {
        let text = String::new;
        let hub = |problem| Error::Hub {
            problem,
            message: text(),
        };
        for (error, code) in [
            (
                Error::Checkpoint {
                    file: "f".into(),
                    message: text(),
                },
                65,
            ),
            (Error::Tokenizer(text()), 65),
            (Error::NotFound(text()), 66),
            (Error::Device(text()), 69),
            (Error::Backend(text()), 70),
            (Error::EngineDead, 70),
            (Error::OutOfMemory(text()), 71),
            (Error::Config(text()), 78),
            (hub(HubProblem::Access), 77),
            (hub(HubProblem::NotFound), 66),
            (hub(HubProblem::Network), 68),
            (hub(HubProblem::Damaged), 68),
            (hub(HubProblem::Disk), 74),
            (Error::Draining, 1),
        ] {
            assert_eq!(ExitCode::from(&error) as u8, code, "{error:?}");
        }
    }

    #[test]
    fn each_code_is_explained() {
        let explained = include_str!("../README.md");
        for code in [
            ExitCode::Success,
            ExitCode::Failure,
            ExitCode::Usage,
            ExitCode::DamagedCheckpoint,
            ExitCode::NotFound,
            ExitCode::HubUnreachable,
            ExitCode::NoDevice,
            ExitCode::Fault,
            ExitCode::NoMemory,
            ExitCode::NoAddress,
            ExitCode::NoDisk,
            ExitCode::NoAccess,
            ExitCode::Settings,
            ExitCode::Interrupted,
        ] {
            let row = format!("\n| {} | ", code as u8);
            assert!(explained.contains(&row), "{code:?}");
        }
    }
}
