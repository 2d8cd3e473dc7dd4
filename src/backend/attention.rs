//! Descriptions of attention layers, and of the KV cache that they read and write.

/// Kinds of attention layers, by the keys that a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// All positions up to the query's.
    Global,
    /// The last `window` positions, the query's own included.
    Sliding,
}

/// The constants of attention in one model; the layers differ only in their kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// `query_pre_attn_scalar^-0.5`, which need not be `head_dim^-0.5`.
    pub scale: f32,
    /// Keys that a sliding layer sees, the query's own included.
    pub window: Option<usize>,
    /// Epsilon of the norms over each head of q and k.
    pub eps: f64,
}

/// Rotary frequencies of one kind of layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `(head_dim / 2)`: `theta^(-2i/head_dim) / factor`, in f32 as the reference computes it.
    pub inv_freq: Vec<f32>,
}

/// Rotary frequencies of both kinds of layers.
#[derive(Clone, Copy, Debug)]
pub struct Ropes<'a> {
    /// Rotary frequencies of the global layers.
    pub global: &'a Rope,
    /// Rotary frequencies of the sliding layers.
    pub sliding: &'a Rope,
}

/// Dimensions of a KV cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// One entry per layer.
    pub layers: Vec<LayerKind>,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Blocks in each global layer's pool.
    pub num_global_blocks: usize,
    /// Blocks in each sliding layer's pool.
    pub num_sliding_blocks: usize,
}

/// Weights of the q and k norms of one decoder layer.
#[derive(Debug)]
pub struct QkNorm<T> {
    /// `(head_dim)`, 1 + weight.
    pub query: T,
    /// `(head_dim)`, 1 + weight.
    pub key: T,
}

/// Identifies an attention layer: it selects the cache and the rotary frequencies.
#[derive(Clone, Copy, Debug)]
pub struct LayerRef {
    /// Index in `KvLayout::layers`.
    pub index: usize,
    /// Kind of the layer.
    pub kind: LayerKind,
}
