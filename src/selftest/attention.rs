//! Checks of attention over the paged cache: written in chunks to scattered blocks, read at the
//! edges of the window and across images.

use super::random::{activations, weight};
use super::{Effort, Sizes};
use crate::backend::{
    AttentionShape, BLOCK_SIZE, Backend, KvLayout, LayerSpec, PoolLayout, QkNorm, Rope, StepInput,
    StepSequence,
};
use crate::core::{BlockId, BlockTable, TokenId};
use crate::error::Result;
use crate::model::config::LayerKind;

const EPS: f64 = 1e-6;

/// A check with one kind of layer, and sequences that were processed chunk by chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    kind: LayerKind,
    window: usize,
    /// Number of the sequence's tokens before the last chunk.
    context: usize,
    /// Number of rows of the last chunk, whose results are compared.
    rows: usize,
    /// Whether the last chunk is mostly an image.
    has_image: bool,
}

/// The models' own head sizes, with one row and many, short and long, for both kinds of layers.
pub(super) fn all(effort: Effort) -> Vec<Attention> {
    let mut all = Vec::new();
    let shapes: &[(usize, usize, usize)] = match effort {
        Effort::Full => &[(8, 4, 256), (4, 1, 256), (4, 2, 128), (4, 2, 16)],
        Effort::Brief => &[(4, 2, 16)],
    };
    for &(heads, kv_heads, head_dim) in shapes {
        for kind in LayerKind::ALL {
            for (context, rows) in [
                (0, 1),
                (0, 77),
                (31, 1),
                (48, 1),
                (100, 1),
                (100, 8),
                (64, 70),
            ] {
                for has_image in [false, true] {
                    if has_image && rows < 8 {
                        continue;
                    }
                    all.push(Attention {
                        heads,
                        kv_heads,
                        head_dim,
                        kind,
                        window: 48,
                        context,
                        rows,
                        has_image,
                    });
                }
            }
        }
    }
    all
}

impl Attention {
    pub(super) fn name(&self) -> String {
        let Self {
            heads,
            kv_heads,
            head_dim,
            kind,
            context,
            rows,
            has_image,
            ..
        } = self;
        let image = if *has_image { ", image" } else { "" };
        format!("{kind:?} {heads}/{kv_heads}×{head_dim}, {rows} rows after {context}{image}")
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            num_heads: self.heads,
            num_kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            window: self.window,
        }
    }

    /// Returns the attention of the last chunk's rows, for two sequences in one step.
    pub(super) fn run<B: Backend>(&self, backend: &B) -> Result<Vec<f32>> {
        let mut random = fastrand::Rng::with_seed(11);
        let random = &mut random;
        let shape = AttentionShape {
            num_heads: self.heads,
            num_kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).sqrt().recip(),
            window: match self.kind {
                LayerKind::Global => None,
                LayerKind::Sliding => Some(self.window),
            },
            eps: EPS,
        };
        let norm = QkNorm {
            query: backend.norm_weight(weight(random, &[self.head_dim], 0.3))?,
            key: backend.norm_weight(weight(random, &[self.head_dim], 0.3))?,
        };
        let num_blocks = 2 * (self.context + self.rows).div_ceil(BLOCK_SIZE) + 1;
        let mut cache = backend.kv_cache(&KvLayout {
            pools: vec![PoolLayout {
                group: self.group(),
                num_kv_heads: self.kv_heads,
                head_dim: self.head_dim,
            }],
            num_blocks: vec![num_blocks; 2],
        })?;
        let layer = LayerSpec {
            shape,
            group: self.group(),
            rope: 0,
            pool: 0,
        };
        let width = (self.heads + 2 * self.kv_heads) * self.head_dim;
        let mut last = None;
        for (start, len) in [(0, self.context), (self.context, self.rows)] {
            if len == 0 {
                continue;
            }
            let input = self.step(start, len);
            let rope = Rope {
                inv_freq: (0..self.head_dim / 2)
                    .map(|idx| 10_000_f32.powf(-2.0 * idx as f32 / self.head_dim as f32))
                    .collect(),
            };
            let qkv = activations(backend, random, 2 * len, width)?;
            let step = backend.begin_step(&input, None, &[rope])?;
            let q = backend.rope_and_cache(&step, &qkv, &norm, &layer, &mut cache)?;
            last = Some(backend.paged_attention(&step, &q, &layer, &cache)?);
        }
        let last = last.expect("the last chunk has rows");
        Ok(backend.read(&last)?.1)
    }

    /// KV group of the layer: the backend is opened for one of each kind.
    fn group(&self) -> usize {
        match self.kind {
            LayerKind::Global => 0,
            LayerKind::Sliding => 1,
        }
    }

    /// Returns a step with two sequences, their blocks interleaved, and those behind the window
    /// freed.
    fn step(&self, start: usize, len: usize) -> StepInput {
        let mut input = StepInput::default();
        for which in 0..2 {
            let num_blocks = (start + len).div_ceil(BLOCK_SIZE);
            let num_released = match self.kind {
                LayerKind::Global => 0,
                LayerKind::Sliding => (start + 1).saturating_sub(self.window) / BLOCK_SIZE,
            };
            let total = (self.context + self.rows).div_ceil(BLOCK_SIZE);
            let table = BlockTable::new(
                BLOCK_SIZE,
                num_released,
                (num_released..num_blocks)
                    .map(|idx| {
                        let block = 2 * (total - 1 - idx) + which;
                        BlockId(u32::try_from(block).expect("a check has few blocks"))
                    })
                    .collect(),
            );
            let is_last = start == self.context;
            let image = start + 2..start + len - 1;
            input.sequences.push(StepSequence {
                row: which * len,
                start,
                len,
                tables: vec![table; 2],
                image_spans: if is_last && self.has_image {
                    vec![image]
                } else {
                    Vec::new()
                },
            });
            for position in start..start + len {
                input.token_ids.push(TokenId(0));
                input
                    .positions
                    .push(u32::try_from(position).expect("a check is short"));
            }
        }
        input
    }
}
