//! What a step costs on an H100 with the 4B model: bytes and operations over plausible shares of
//! the GPU's ceilings.

use medgemma::core::{BlockCount, KvGroups};

/// One block of one layer: 32 tokens, 4 KiB each.
const LAYER_BLOCK_BYTES: f64 = 32.0 * 4096.0;
const GLOBAL_LAYERS: f64 = 5.0;
const SLIDING_LAYERS: f64 = 29.0;
const WINDOW: usize = 1024;

/// Bytes of weights that a step reads.
const WEIGHT_BYTES: f64 = 7.76e9;
/// Parameters that each token passes.
const PARAMETERS: f64 = 3.2e9;
/// Multiplications and additions for one query and one key in one layer: 8 heads of 256, scores
/// and values.
const PAIR_FLOP: f64 = 4.0 * 8.0 * 256.0;
/// Bytes a second: 85 % of what copying reaches.
const BANDWIDTH: f64 = 0.85 * 3.0e12;
/// Operations a second: 55 % of the dense ceiling for products, 35 % for attention.
const PRODUCT_RATE: f64 = 0.55 * 798e12;
const ATTENTION_RATE: f64 = 0.35 * 798e12;
/// Encoding an image, in seconds.
const IMAGE: f64 = 10e-3;
/// What is left for KV blocks of 80 GB.
pub(crate) const KV_BYTES: f64 = 60e9;

/// How layers are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// Sliding layers keep the window.
    SlidingApart,
    /// Every layer keeps everything.
    AllAlike,
}

impl Grouping {
    pub(crate) fn groups(self) -> KvGroups {
        match self {
            Self::SlidingApart => KvGroups::new(&[None, Some(WINDOW)]),
            Self::AllAlike => KvGroups::new(&[None]),
        }
    }

    /// Pools of `kv_bytes` for `max_num_seqs` sequences: each its window, and the rest for global
    /// layers.
    pub(crate) fn num_blocks(
        self,
        max_num_seqs: usize,
        max_chunk: usize,
        kv_bytes: f64,
    ) -> BlockCount {
        match self {
            Self::SlidingApart => {
                let sliding = max_num_seqs * (WINDOW / 32 + 1) + 2 * max_chunk.div_ceil(32);
                let sliding_bytes = sliding as f64 * SLIDING_LAYERS * LAYER_BLOCK_BYTES;
                let left = kv_bytes - sliding_bytes;
                let global = (left / (GLOBAL_LAYERS * LAYER_BLOCK_BYTES)) as usize;
                BlockCount::new(&[global, sliding])
            }
            Self::AllAlike => {
                let layers = GLOBAL_LAYERS + SLIDING_LAYERS;
                BlockCount::new(&[(kv_bytes / (layers * LAYER_BLOCK_BYTES)) as usize])
            }
        }
    }
}

/// The work of a step, added up chunk by chunk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    num_tokens: usize,
    num_images: usize,
    /// Keys read by decodes and by chunks as a whole, over all layers.
    keys_read: f64,
    /// Query-key pairs, over all layers.
    pairs: f64,
}

impl Work {
    pub(crate) fn add_chunk(&mut self, start: usize, len: usize, num_images: usize) {
        let end = start + len;
        self.num_tokens += len;
        self.num_images += num_images;
        let seen = end.min(WINDOW + len);
        self.keys_read += end as f64 * GLOBAL_LAYERS + seen as f64 * SLIDING_LAYERS;
        let middle = start as f64 + len as f64 / 2.0;
        let in_window = middle.min(WINDOW as f64);
        self.pairs += len as f64 * (middle * GLOBAL_LAYERS + in_window * SLIDING_LAYERS);
    }

    /// How long the GPU takes, in seconds: bytes and operations overlap.
    pub(crate) fn seconds(&self) -> f64 {
        let bytes = WEIGHT_BYTES + self.keys_read * LAYER_BLOCK_BYTES / 32.0;
        let products = 2.0 * PARAMETERS * self.num_tokens as f64 / PRODUCT_RATE;
        let attention = PAIR_FLOP * self.pairs / ATTENTION_RATE;
        (bytes / BANDWIDTH).max(products + attention) + IMAGE * self.num_images as f64
    }
}
