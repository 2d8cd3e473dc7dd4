//! Sizes that a backend must know before it loads a model.

use crate::core::KvGroups;

/// Sizes of a model by which a device's kernels are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Number of values per head.
    pub head_dim: usize,
    /// KV groups of the layers.
    pub groups: KvGroups,
}

/// Sizes of the largest step, and of the buffers that are allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Maximum number of packed rows of a step.
    pub max_rows: usize,
    /// Maximum number of sequences of a step.
    pub max_sequences: usize,
    /// Maximum length of a sequence, in tokens.
    pub max_model_len: usize,
    /// Size of the buffer for activations, in bytes.
    pub activation_bytes: u64,
    /// Size of the buffer for activations of captured steps, in bytes.
    pub captured_bytes: u64,
    /// Size of the buffer for image embeddings, in bytes.
    pub feature_bytes: u64,
}
