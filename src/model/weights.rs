//! Where a model's tensors come from: a checkpoint's files, or nowhere.
//!
//! Tensors are asked for by canonical name (see `tensor_names`) and by the shape that the config
//! implies; nothing of another shape is ever handed out.

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
    /// Shapes without numbers worth reading.
    Blank,
    /// Any of these, and somebody who follows what is asked for.
    Watched(Box<Weights>, Watch),
}

/// Is told the bytes of each tensor that is handed out.
pub struct Watch(Box<dyn Fn(u64) + Send + Sync>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch(…)")
    }
}

impl Weights {
    /// The checkpoint in a local directory of the hub's layout.
    ///
    /// # Errors
    /// `Checkpoint` when a file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        Checkpoint::open(dir).map(Self::Checkpoint)
    }

    /// A checkpoint of one file that the program carries within itself.
    ///
    /// # Errors
    /// `Checkpoint` when it is damaged.
    pub fn embedded(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        Checkpoint::embedded(path, bytes).map(Self::Checkpoint)
    }

    /// Random weights; the same seed makes the same ones.
    pub fn dummy(seed: u64) -> Self {
        Self::Dummy(DummyWeights::new(seed))
    }

    /// Zeros of whatever shape is asked for; what nobody reads takes no memory either.
    pub fn blank() -> Self {
        Self::Blank
    }

    /// These, whose bytes `watch` is told as they are handed out.
    #[must_use]
    pub fn watched(self, watch: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self::Watched(Box::new(self), Watch(Box::new(watch)))
    }

    /// The same, of a checkpoint handed out only where all numbers are finite. What is made here is
    /// finite anyway.
    #[must_use]
    pub fn checked(self) -> Self {
        match self {
            Self::Checkpoint(checkpoint) => Self::Checkpoint(checkpoint.checked()),
            Self::Watched(weights, watch) => Self::Watched(Box::new(weights.checked()), watch),
            Self::Dummy(_) | Self::Blank => self,
        }
    }

    /// Looks at every number of the tensors that were asked for.
    ///
    /// # Errors
    /// `Checkpoint` naming file and tensor where the first one is NaN or infinite.
    pub fn check_numbers(&self) -> Result<()> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.check_numbers(),
            Self::Watched(weights, _) => weights.check_numbers(),
            Self::Dummy(_) | Self::Blank => Ok(()),
        }
    }

    /// The tensor `name`, which must have this shape.
    ///
    /// # Errors
    /// `Checkpoint` naming file and tensor when it is missing, of another shape, or of a type
    /// other than bf16 and f32.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.tensor(name, shape),
            Self::Dummy(dummy) => Ok(dummy.tensor(name, shape)),
            Self::Blank => Ok(HostTensor {
                dtype: HostDtype::Bf16,
                shape: shape.to_vec(),
                data: vec![0; shape.iter().product::<usize>() * HostDtype::Bf16.size()].into(),
            }),
            Self::Watched(weights, watch) => {
                let tensor = weights.tensor(name, shape)?;
                (watch.0)(tensor.data.len() as u64);
                Ok(tensor)
            }
        }
    }

    /// Checks that the tensor is there with this shape, without taking it.
    ///
    /// # Errors
    /// As `tensor`.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.check(name, shape),
            Self::Dummy(_) | Self::Blank => Ok(()),
            Self::Watched(weights, _) => weights.check(name, shape),
        }
    }

    /// Whether the tensor is there.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.shape(name).is_some(),
            Self::Dummy(dummy) => dummy.contains(name),
            Self::Blank => name != LM_HEAD,
            Self::Watched(weights, _) => weights.contains(name),
        }
    }

    /// The tensor's shape; `None` when it is missing, or would be whatever is asked for.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.shape(name).map(<[usize]>::to_vec),
            Self::Dummy(_) | Self::Blank => None,
            Self::Watched(weights, _) => weights.shape(name),
        }
    }

    /// Bytes of all tensors, as they are stored; random ones of `num_parameters` are bf16.
    pub fn num_bytes(&self, num_parameters: u64) -> u64 {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.num_bytes(),
            Self::Dummy(_) | Self::Blank => num_parameters * HostDtype::Bf16.size() as u64,
            Self::Watched(weights, _) => weights.num_bytes(num_parameters),
        }
    }

    /// Tensors that nobody asked for so far, as the files call them.
    pub fn unexpected(&self) -> Vec<String> {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.unexpected(),
            Self::Dummy(_) | Self::Blank => Vec::new(),
            Self::Watched(weights, _) => weights.unexpected(),
        }
    }
}
