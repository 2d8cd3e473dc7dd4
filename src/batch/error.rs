//! Why a batch cannot begin or go on.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// What stopped a batch; what is wrong with a single line is a result of its own.
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
        /// The first that stands twice.
        custom_id: String,
        /// Its first line.
        first: usize,
        /// Its second line.
        second: usize,
        /// Lines whose id stood before.
        num_twice: usize,
    },
    /// The output holds something that no batch wrote.
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
    /// Somebody else writes the output.
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
