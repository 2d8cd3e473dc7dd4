//! Errors that stop a batch.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// An error that stops a batch. An error of a single line is written as that line's result.
#[derive(Debug, Error)]
pub enum BatchError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// As it was named.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Results could not be matched to requests.
    #[error(
        "{path}: duplicate custom_id '{custom_id}' on lines {first} and {second} ({num_twice} \
         duplicate lines)"
    )]
    Duplicate {
        /// The input.
        path: String,
        /// The first duplicate.
        custom_id: String,
        /// Its first line.
        first: usize,
        /// Its second line.
        second: usize,
        /// Lines whose id occurs on an earlier line.
        num_twice: usize,
    },
    /// The output contains a line that is not a result.
    #[error("{path}: line {line} is not a batch result: choose another output file")]
    Foreign {
        /// The output.
        path: String,
        /// The first such line.
        line: usize,
    },
    /// The output belongs to another input.
    #[error(
        "{path}: contains {num_unknown} results of requests that are not in the input: choose \
         another output file"
    )]
    OtherInput {
        /// The output.
        path: String,
        /// Results without a request.
        num_unknown: usize,
    },
    /// Another process writes the output.
    #[error("{path}: another process is writing it")]
    Busy {
        /// The output.
        path: String,
    },
    /// Input and output are one file.
    #[error("{}: it cannot be input and output at once", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
    },
    /// The server takes no more requests.
    #[error("the server stopped: {message}")]
    ServerStopped {
        /// What it said.
        message: String,
    },
}
