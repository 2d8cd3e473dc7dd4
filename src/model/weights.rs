//! Sources of a model's tensors: a checkpoint's files, or generated values.
//!
//! Tensors are requested by canonical name (see `tensor_names`) and by the shape that the config
//! implies; a tensor of another shape is never returned.

use std::fmt;
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::dummy::DummyWeights;
use super::tensor_names::LM_HEAD;
use crate::backend::{HostDtype, HostTensor};
use crate::error::Result;

/// The source of a model's tensors.
#[derive(Debug)]
pub enum Weights {
    /// Safetensors files.
    Checkpoint(Checkpoint),
    /// Random numbers.
    Dummy(DummyWeights),
    /// Zeros of any shape.
    Blank,
    /// Another source, with a callback for each requested tensor.
    Watched(Box<Weights>, Watch),
}

/// Callback that gets the number of bytes of each returned tensor.
pub struct Watch(Box<dyn Fn(u64) + Send + Sync>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch(…)")
    }
}

impl Weights {
    /// Opens the checkpoint in a local directory with the hub's layout.
    ///
    /// # Errors
    /// Returns `Checkpoint` when a file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        Checkpoint::open(dir).map(Self::Checkpoint)
    }

    /// Opens a checkpoint of one file that is embedded in the program.
    ///
    /// # Errors
    /// Returns `Checkpoint` when it is damaged.
    pub fn embedded(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        Checkpoint::embedded(path, bytes).map(Self::Checkpoint)
    }

    /// Creates random weights; the same seed gives the same weights.
    pub fn dummy(seed: u64) -> Self {
        Self::Dummy(DummyWeights::new(seed))
    }

    /// Creates zeros of any requested shape; what is not read takes no memory.
    pub fn blank() -> Self {
        Self::Blank
    }

    /// Calls `watch` with the bytes of each tensor that is returned.
    #[must_use]
    pub fn watched(self, watch: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self::Watched(Box::new(self), Watch(Box::new(watch)))
    }

    /// Makes a checkpoint check that all numbers are finite. Generated values are always finite.
    #[must_use]
    pub fn checked(self) -> Self {
        match self {
            Self::Checkpoint(checkpoint) => Self::Checkpoint(checkpoint.checked()),
            Self::Watched(weights, watch) => Self::Watched(Box::new(weights.checked()), watch),
            Self::Dummy(_) | Self::Blank => self,
        }
    }

    /// Checks every number of the tensors that were requested.
    ///
    /// # Errors
    /// Returns `Checkpoint`, naming file and tensor of the first number that is NaN or infinite.
    pub fn check_numbers(&self) -> Result<()> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.check_numbers(),
            Self::Watched(weights, _) => weights.check_numbers(),
            Self::Dummy(_) | Self::Blank => Ok(()),
        }
    }

    /// Returns the tensor `name`, which must have this shape.
    ///
    /// # Errors
    /// Returns `Checkpoint`, naming file and tensor, when it is missing, has another shape, or a
    /// type other than bf16, f16 and f32.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.tensor(name, shape),
            Self::Dummy(dummy) => Ok(dummy.tensor(name, shape)),
            Self::Blank => Ok(HostTensor {
                dtype: HostDtype::Bf16,
                shape: shape.to_vec(),
                data: vec![0; num_bytes(shape)].into(),
            }),
            Self::Watched(weights, watch) => {
                let tensor = weights.tensor(name, shape)?;
                (watch.0)(tensor.data.len() as u64);
                Ok(tensor)
            }
        }
    }

    /// Checks that the tensor exists with this shape, without loading it.
    ///
    /// # Errors
    /// Returns the errors of `tensor`.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.check(name, shape),
            Self::Dummy(_) | Self::Blank => Ok(()),
            Self::Watched(weights, _) => weights.check(name, shape),
        }
    }

    /// Whether the tensor exists.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.shape(name).is_some(),
            Self::Dummy(dummy) => dummy.contains(name),
            Self::Blank => name != LM_HEAD,
            Self::Watched(weights, _) => weights.contains(name),
        }
    }

    /// Returns the tensor's shape; `None` when it is missing, or when any shape can be generated.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.shape(name).map(<[usize]>::to_vec),
            Self::Dummy(_) | Self::Blank => None,
            Self::Watched(weights, _) => weights.shape(name),
        }
    }

    /// Total bytes of all tensors, as stored; for `num_parameters` random ones, in bf16.
    pub fn num_bytes(&self, num_parameters: u64) -> u64 {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.num_bytes(),
            Self::Dummy(_) | Self::Blank => num_parameters * num_bytes(&[1]) as u64,
            Self::Watched(weights, _) => weights.num_bytes(num_parameters),
        }
    }

    /// Bytes of the tensors that are stored in F16, which may have twice as many once converted.
    pub fn num_f16_bytes(&self) -> u64 {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.num_f16_bytes(),
            Self::Dummy(_) | Self::Blank => 0,
            Self::Watched(weights, _) => weights.num_f16_bytes(),
        }
    }

    /// Number of requested tensors in F16 with numbers that bf16 does not hold exactly.
    pub fn num_finer_than_bf16(&self) -> usize {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.num_finer_than_bf16(),
            Self::Dummy(_) | Self::Blank => 0,
            Self::Watched(weights, _) => weights.num_finer_than_bf16(),
        }
    }

    /// Returns the names, as in the files, of tensors that were not requested so far.
    pub fn unexpected(&self) -> Vec<String> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.unexpected(),
            Self::Dummy(_) | Self::Blank => Vec::new(),
            Self::Watched(weights, _) => weights.unexpected(),
        }
    }
}

/// Number of bytes of a generated tensor.
fn num_bytes(shape: &[usize]) -> usize {
    let num_bytes = HostDtype::Bf16.blocks().num_bytes(shape);
    num_bytes.expect("a config's sizes are limited")
}
