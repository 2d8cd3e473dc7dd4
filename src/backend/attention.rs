//! Descriptions of attention layers, and of the KV cache that they read and write.
//!
//! ```text
//!  LayerSpec ── group ──> StepSequence::tables   the block table that the layer reads
//!            ── rope  ──> ropes of begin_step    the frequencies that turn its queries and keys
//!            ── pool  ──> KvLayout::pools        the keys and values that the tables point into
//! ```
//!
//! Layers of one KV group share block tables, so they have the same window; heads, scale and
//! frequencies may differ from layer to layer.

use crate::error::{Error, Result};

/// Number of positions per KV block, in every group.
pub const BLOCK_SIZE: usize = 32;

/// Dimensions of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Number of values per head.
    pub head_dim: usize,
    /// Factor of the scores, such as `query_pre_attn_scalar^-0.5`, which need not be
    /// `head_dim^-0.5`.
    pub scale: f32,
    /// Number of keys that a query sees, its own included; `None` if it sees all before it.
    pub window: Option<usize>,
    /// Epsilon of the norms over each head of q and k.
    pub eps: f64,
}

/// One attention layer: its dimensions, and where it finds what it shares with others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSpec {
    /// Dimensions of the layer.
    pub shape: AttentionShape,
    /// KV group: an index into the tables of each sequence.
    pub group: usize,
    /// Rotary frequencies: an index into those that a step begins with.
    pub rope: usize,
    /// Keys and values: an index into the cache's pools.
    pub pool: usize,
}

impl LayerSpec {
    /// Returns the dimensions of the layer's keys and values.
    pub fn pool_layout(&self) -> PoolLayout {
        PoolLayout {
            group: self.group,
            num_kv_heads: self.shape.num_kv_heads,
            head_dim: self.shape.head_dim,
        }
    }
}

/// Rotary frequencies of some layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `(head_dim / 2)`: `theta^(-2i/head_dim) / factor`, in f32 as the reference computes it.
    pub inv_freq: Vec<f32>,
}

/// Dimensions of a KV cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// The pools.
    pub pools: Vec<PoolLayout>,
    /// Number of blocks in each pool of a group, by group.
    pub num_blocks: Vec<usize>,
}

/// Dimensions of one layer's keys and values in a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLayout {
    /// KV group whose tables point into the pool.
    pub group: usize,
    /// Number of key and value heads.
    pub num_kv_heads: usize,
    /// Number of values per head.
    pub head_dim: usize,
}

impl KvLayout {
    /// Returns the pools that these layers read and write.
    ///
    /// # Errors
    /// Returns `Backend` for pools that no layer has, and layers that share one but do not agree on
    /// its dimensions.
    pub fn pools_of(layers: &[LayerSpec]) -> Result<Vec<PoolLayout>> {
        let num_pools = layers.iter().map(|layer| layer.pool + 1).max().unwrap_or(0);
        let pools = (0..num_pools).map(|pool| {
            let mut layouts = layers
                .iter()
                .filter(|layer| layer.pool == pool)
                .map(LayerSpec::pool_layout);
            match layouts.next() {
                Some(first) if layouts.all(|other| other == first) => Ok(first),
                _ => Err(Error::Backend(format!(
                    "no layer has the KV pool {pool}, or its layers do not agree"
                ))),
            }
        });
        pools.collect()
    }

    /// Returns each pool with its number of blocks.
    ///
    /// # Errors
    /// Returns `Backend` for a pool of a group that has no number of blocks.
    pub fn sized_pools(&self) -> Result<Vec<(PoolLayout, usize)>> {
        let sized = self.pools.iter().map(|pool| {
            let num_blocks = self.num_blocks.get(pool.group);
            let num_blocks = num_blocks.ok_or_else(|| {
                Error::Backend(format!("the cache has no KV group {}", pool.group))
            })?;
            Ok((*pool, *num_blocks))
        });
        sized.collect()
    }
}

/// Weights of the q and k norms of one decoder layer.
#[derive(Debug)]
pub struct QkNorm<T> {
    /// `(head_dim)`, 1 + weight.
    pub query: T,
    /// `(head_dim)`, 1 + weight.
    pub key: T,
}
