//! Norm and RoPE of queries and keys, and writing of the KV cache.

use rayon::prelude::*;

use super::elementwise::norm_row;
use super::kv_pool::{KvPool, LayerStep, pool_block};
use super::lanes::vectorised;
use super::tile::PANEL;
use crate::backend::attention::{AttentionShape, BLOCK_SIZE};

/// With fewer tokens than this, all work stays on the calling thread.
const PARALLEL_FROM: usize = 32;

/// Parameters of norm and RoPE for a step's queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct RopeArgs<'a> {
    /// `(head_dim)`: the queries' norm, 1 + weight.
    pub query_norm: &'a [f32],
    /// `(head_dim)`: the keys' norm, 1 + weight.
    pub key_norm: &'a [f32],
    /// `(tokens, head_dim / 2)`: cosines of each token's position.
    pub cos: &'a [f32],
    /// `(tokens, head_dim / 2)`: sines of each token's position.
    pub sin: &'a [f32],
}

/// Applies the norm to q and k of `qkv (tokens, (heads + 2·kv_heads)·head_dim)` per head, then RoPE
/// with the token's angles (neox halves, as `apply_rotary_pos_emb` in `modeling_gemma3.py`). Writes
/// keys and values to the pool and the queries to `q (tokens, heads·head_dim)`.
///
/// # Panics
/// Panics if lengths do not fit together, a table lacks a block, or two sequences write the same
/// block.
pub fn rope_and_cache(
    step: LayerStep<'_>,
    qkv: &[f32],
    rope: RopeArgs<'_>,
    pool: &mut KvPool,
    q: &mut [f32],
) {
    let shape = step.shape;
    let rows = Rows {
        qkv,
        width: (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim,
        rope,
        shape,
    };
    let q_width = shape.num_heads * shape.head_dim;
    let num_tokens = qkv.len() / rows.width;
    assert_eq!(qkv.len(), num_tokens * rows.width, "rows of q, k and v");
    assert_eq!(q.len(), num_tokens * q_width, "rows of q");

    let write_q = |(token, q): (usize, &mut [f32])| {
        vectorised(
            #[inline(always)]
            || rows.queries(token, q),
        );
    };
    let write_block = |share: Share<'_>| {
        vectorised(
            #[inline(always)]
            || rows.store(share),
        );
    };
    let shares = shares(step, pool);
    if num_tokens < PARALLEL_FROM {
        q.chunks_exact_mut(q_width).enumerate().for_each(write_q);
        shares.into_iter().for_each(write_block);
    } else {
        rayon::join(
            || {
                q.par_chunks_exact_mut(q_width)
                    .enumerate()
                    .for_each(write_q)
            },
            || shares.into_par_iter().for_each(write_block),
        );
    }
}

/// The part of one block that a step writes.
struct Share<'a> {
    /// Packed row of the first token.
    row: usize,
    /// Position of that token within the block.
    first: usize,
    /// Number of tokens.
    len: usize,
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

/// Assigns every written block to one task. A block belongs to one sequence, so the tasks' slices
/// are disjoint.
fn shares<'a>(step: LayerStep<'_>, pool: &'a mut KvPool) -> Vec<Share<'a>> {
    // (block in the pool, packed row, position within the block, tokens)
    let mut places = Vec::new();
    for sequence in step.sequences {
        let end = sequence.start + sequence.len;
        let mut position = sequence.start;
        while position < end {
            let first = position % BLOCK_SIZE;
            let len = (BLOCK_SIZE - first).min(end - position);
            let block = pool_block(&sequence.tables[step.group], position / BLOCK_SIZE);
            places.push((block, sequence.row + position - sequence.start, first, len));
            position += len;
        }
    }
    places.sort_unstable();

    let size = pool.block_size();
    let mut keys = pool.keys.chunks_exact_mut(size);
    let mut values = pool.values.chunks_exact_mut(size);
    let mut next_block = 0;
    places
        .into_iter()
        .map(|(block, row, first, len)| {
            let skipped = block
                .checked_sub(next_block)
                .expect("a block is written by one sequence");
            next_block = block + 1;
            Share {
                row,
                first,
                len,
                keys: keys.nth(skipped).expect("a block of the pool"),
                values: values.nth(skipped).expect("a block of the pool"),
            }
        })
        .collect()
}

/// The step's rows and their RoPE parameters.
struct Rows<'a> {
    qkv: &'a [f32],
    width: usize,
    rope: RopeArgs<'a>,
    shape: &'a AttentionShape,
}

impl Rows<'_> {
    /// Returns head `head` of a token's row, counted over q, k and v.
    #[inline(always)]
    fn head(&self, token: usize, head: usize) -> &[f32] {
        let head_dim = self.shape.head_dim;
        &self.qkv[token * self.width + head * head_dim..][..head_dim]
    }

    /// Applies norm and RoPE to one head of one token.
    #[inline(always)]
    fn turn(&self, token: usize, head: usize, weight: &[f32], out: &mut [f32]) {
        norm_row(self.head(token, head), weight, self.shape.eps, out);
        let half = out.len() / 2;
        let cos = &self.rope.cos[token * half..][..half];
        let sin = &self.rope.sin[token * half..][..half];
        let (first, second) = out.split_at_mut(half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }

    #[inline(always)]
    fn queries(&self, token: usize, q: &mut [f32]) {
        for (head, out) in q.chunks_exact_mut(self.shape.head_dim).enumerate() {
            self.turn(token, head, self.rope.query_norm, out);
        }
    }

    #[inline(always)]
    fn store(&self, share: Share<'_>) {
        let AttentionShape {
            num_heads,
            num_kv_heads,
            head_dim,
            ..
        } = *self.shape;
        let head_size = BLOCK_SIZE * head_dim;
        let mut key = vec![0.0; head_dim];
        let heads = share
            .keys
            .chunks_exact_mut(head_size)
            .zip(share.values.chunks_exact_mut(head_size))
            .enumerate();
        for (head, (keys, values)) in heads {
            for idx in 0..share.len {
                let (token, place) = (share.row + idx, share.first + idx);
                self.turn(token, num_heads + head, self.rope.key_norm, &mut key);
                let panel = &mut keys[place / PANEL * PANEL * head_dim..][..PANEL * head_dim];
                for (column, number) in panel.as_chunks_mut::<PANEL>().0.iter_mut().zip(&key) {
                    column[place % PANEL] = *number;
                }
                let value = self.head(token, num_heads + num_kv_heads + head);
                let panels = values.chunks_exact_mut(BLOCK_SIZE * PANEL);
                for (panel, numbers) in panels.zip(value.chunks_exact(PANEL)) {
                    panel[place * PANEL..][..PANEL].copy_from_slice(numbers);
                }
            }
        }
    }
}
