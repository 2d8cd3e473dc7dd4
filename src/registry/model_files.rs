//! A checkpoint's files: in a local directory with the hub's layout, or embedded in the program.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{self, MAX_CONFIG_BYTES};
use crate::model::weights::Weights;

/// The demo's files, except the weights.
const DEMO: [(&str, &[u8]); 6] = [
    ("config.json", include_bytes!("demo/config.json")),
    (
        "generation_config.json",
        include_bytes!("demo/generation_config.json"),
    ),
    (
        "preprocessor_config.json",
        include_bytes!("demo/preprocessor_config.json"),
    ),
    (
        "processor_config.json",
        include_bytes!("demo/processor_config.json"),
    ),
    ("tokenizer.json", include_bytes!("demo/tokenizer.json")),
    (
        "tokenizer_config.json",
        include_bytes!("demo/tokenizer_config.json"),
    ),
];
const DEMO_WEIGHTS: &[u8] = include_bytes!("demo/model.safetensors");
/// Used in place of a directory in messages.
const DEMO_PATH: &str = "(built-in demo)";

/// Location of a checkpoint's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFiles {
    /// In this directory.
    Directory(PathBuf),
    /// Embedded in the program.
    Demo,
}

impl ModelFiles {
    /// Returns the file's path for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Directory(dir) => dir.join(name),
            Self::Demo => Path::new(DEMO_PATH).join(name),
        }
    }

    /// Returns a config file's bytes; `None` if there is no such file.
    ///
    /// # Errors
    /// Returns `Checkpoint` when it cannot be read, is not a plain file of the checkpoint, or is
    /// too large.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>> {
        match self {
            Self::Directory(dir) => {
                let bytes = files::read(&dir.join(name), MAX_CONFIG_BYTES)?;
                Ok(bytes.map(Cow::Owned))
            }
            Self::Demo => Ok(DEMO
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, bytes)| Cow::Borrowed(*bytes))),
        }
    }

    /// Returns the bytes of a file that every checkpoint has.
    ///
    /// # Errors
    /// Returns `Checkpoint` when it is missing or cannot be read.
    pub fn require(&self, name: &str) -> Result<Cow<'static, [u8]>> {
        self.read(name)?
            .ok_or_else(|| self.error(name, "there is no such file".to_owned()))
    }

    /// Opens the tensors.
    ///
    /// # Errors
    /// Returns `Checkpoint` when a file is missing or damaged.
    pub fn weights(&self) -> Result<Weights> {
        match self {
            Self::Directory(dir) => Weights::open(dir),
            Self::Demo => Weights::embedded(&self.path("model.safetensors"), DEMO_WEIGHTS),
        }
    }

    fn error(&self, name: &str, message: String) -> Error {
        Error::Checkpoint {
            file: self.path(name),
            message,
        }
    }
}
