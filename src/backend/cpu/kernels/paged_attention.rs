//! Attention over the paged KV cache.
//!
//! Owns the tiling of queries, the masks and the division of work among threads.
//!
//! The keys' positions are split at fixed multiples of `SEGMENT`, and each segment at blocks. A row
//! processes the blocks of a segment in order, and the segments' results are merged in order. So
//! neither the chunks of a prompt, nor the rows of a tile, nor the number of threads change a bit,
//! and a long sequence's segments can still be computed in parallel.

use std::ops::Range;

use rayon::prelude::*;

use super::kv_pool::{KvPool, LayerStep, pool_block};
use super::lanes::{Kernel, Lanes, dispatch};
use super::softmax::{Running, score};
use super::tile::{fetch, pack_strip, strips};
use crate::backend::attention::BLOCK_SIZE;
use crate::backend::step_input::StepSequence;

/// Number of keys in a segment.
const SEGMENT: usize = 1024;

/// Maximum number of query rows of a tile (larger only for larger groups): with 256 numbers each,
/// they, their sums and a block of keys and values fit in the L2 cache.
const TILE_ROWS: usize = 48;

/// Up to this many query rows, a block is prefetched before it is used.
const FETCH_ROWS: usize = 8;

/// With fewer multiplications than this, a step stays on the calling thread.
const PARALLEL_FROM: usize = 1 << 16;

/// Computes attention of `q (tokens, heads·head_dim)` over the pool: `out (tokens,
/// heads·head_dim)`.
///
/// # Panics
/// Panics if lengths do not fit together or a table lacks a block that a query sees.
pub fn paged_attention(step: LayerStep<'_>, q: &[f32], pool: &KvPool, out: &mut [f32]) {
    assert_eq!(q.len(), out.len(), "rows of q and out");
    let tiles = tiles(step, q, out);
    let run_tile = |tile: Tile<'_>| {
        let mut total = tile.running();
        let mut part = tile.running();
        let queries = tile.queries();
        for segment in tile.segments() {
            part.reset();
            tile.attend(step, &queries, pool, segment, &mut part);
            total.merge(&part);
        }
        tile.write(&total);
    };

    let num_multiplications: usize = tiles.iter().map(Tile::num_multiplications).sum();
    let num_threads = rayon::current_num_threads();
    if num_threads == 1 || num_multiplications < PARALLEL_FROM {
        tiles.into_iter().for_each(run_tile);
    } else if tiles.len() >= 2 * num_threads || tiles.iter().all(|tile| tile.segments().len() == 1)
    {
        tiles.into_par_iter().for_each(run_tile);
    } else {
        // With few tiles over many keys, the segments are the tasks.
        for tile in tiles {
            let queries = tile.queries();
            let parts: Vec<Running> = tile
                .segments()
                .into_par_iter()
                .map(|segment| {
                    let mut part = tile.running();
                    tile.attend(step, &queries, pool, segment, &mut part);
                    part
                })
                .collect();
            let mut total = tile.running();
            parts.iter().for_each(|part| total.merge(part));
            tile.write(&total);
        }
    }
}

/// Query heads of one group, for some tokens; they share each key that is loaded.
struct Tile<'a> {
    sequence: &'a StepSequence,
    /// Index of the key and value head.
    head: usize,
    head_dim: usize,
    /// `(tokens, group·head_dim)`: the queries.
    q: Vec<&'a [f32]>,
    /// `(tokens, group·head_dim)`
    out: Vec<&'a mut [f32]>,
    /// Range of keys that each token sees.
    key_ranges: Vec<Range<usize>>,
}

fn tiles<'a>(step: LayerStep<'a>, q: &'a [f32], out: &'a mut [f32]) -> Vec<Tile<'a>> {
    let shape = step.shape;
    let group = shape.num_heads / shape.num_kv_heads;
    let group_width = group * shape.head_dim;
    let width = shape.num_heads * shape.head_dim;
    let tokens_per_tile = (TILE_ROWS / group).max(1);

    let mut rows = q.chunks_exact(width).zip(out.chunks_exact_mut(width));
    let mut tiles = Vec::new();
    for sequence in step.sequences {
        for first in (0..sequence.len).step_by(tokens_per_tile) {
            let num_tokens = tokens_per_tile.min(sequence.len - first);
            let key_ranges: Vec<_> = (sequence.start + first..)
                .take(num_tokens)
                .map(|position| sequence.key_range(position, shape.window))
                .collect();
            let first_tile = tiles.len();
            tiles.extend((0..shape.num_kv_heads).map(|head| Tile {
                sequence,
                head,
                head_dim: shape.head_dim,
                q: Vec::with_capacity(num_tokens),
                out: Vec::with_capacity(num_tokens),
                key_ranges: key_ranges.clone(),
            }));
            for (q, out) in rows.by_ref().take(num_tokens) {
                let heads = q
                    .chunks_exact(group_width)
                    .zip(out.chunks_exact_mut(group_width));
                for (tile, (q, out)) in tiles[first_tile..].iter_mut().zip(heads) {
                    tile.q.push(q);
                    tile.out.push(out);
                }
            }
        }
    }
    tiles
}

impl Tile<'_> {
    /// Number of query heads per token.
    fn group(&self) -> usize {
        self.q[0].len() / self.head_dim
    }

    fn num_rows(&self) -> usize {
        self.q.len() * self.group()
    }

    fn running(&self) -> Running {
        Running::new(self.num_rows(), self.head_dim)
    }

    /// Returns the range from the first to the last key that any token sees.
    fn keys(&self) -> Range<usize> {
        let start = self.key_ranges.iter().map(|keys| keys.start).min();
        let end = self.key_ranges.iter().map(|keys| keys.end).max();
        start.unwrap_or(0)..end.unwrap_or(0)
    }

    fn segments(&self) -> Range<usize> {
        let keys = self.keys();
        keys.start / SEGMENT..keys.end.div_ceil(SEGMENT)
    }

    fn num_multiplications(&self) -> usize {
        2 * self.num_rows() * self.keys().len() * self.head_dim
    }

    /// Packs the queries in strips `(strips, head_dim, height)`; rows are heads of tokens.
    fn queries(&self) -> Vec<f32> {
        let (group, head_dim) = (self.group(), self.head_dim);
        let mut packed = vec![0.0; self.num_rows() * head_dim];
        let mut rest = packed.as_mut_slice();
        for (first, height) in strips(self.num_rows()) {
            let (strip, after) = rest.split_at_mut(height * head_dim);
            let row = |idx: usize| {
                let row = first + idx;
                &self.q[row / group][row % group * head_dim..][..head_dim]
            };
            pack_strip(height, row, strip);
            rest = after;
        }
        packed
    }

    /// Processes the keys of one segment.
    fn attend(
        &self,
        step: LayerStep<'_>,
        queries: &[f32],
        pool: &KvPool,
        segment: usize,
        part: &mut Running,
    ) {
        dispatch(SegmentKernel {
            tile: self,
            step,
            queries,
            pool,
            segment,
            part,
        });
    }

    fn write(self, total: &Running) {
        let (group, head_dim) = (self.group(), self.head_dim);
        for (token, out) in self.out.into_iter().enumerate() {
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                total.write(token * group + head, out);
            }
        }
    }
}

struct SegmentKernel<'a> {
    tile: &'a Tile<'a>,
    step: LayerStep<'a>,
    queries: &'a [f32],
    pool: &'a KvPool,
    segment: usize,
    part: &'a mut Running,
}

impl Kernel for SegmentKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let tile = self.tile;
        let group = tile.group();
        let table = &tile.sequence.tables[self.step.group];
        let seen = clip(&tile.keys(), self.segment * SEGMENT, SEGMENT);
        let mut scores = vec![[0.0; BLOCK_SIZE]; tile.num_rows()];
        for block in seen.start / BLOCK_SIZE..seen.end.div_ceil(BLOCK_SIZE) {
            let first_key = block * BLOCK_SIZE;
            let (keys, values) = self.pool.head(pool_block(table, block), tile.head);
            if scores.len() <= FETCH_ROWS {
                let half = keys.len() / 2;
                fetch(&[
                    &keys[..half],
                    &keys[half..],
                    &values[..half],
                    &values[half..],
                ]);
            }
            score(lanes, self.queries, keys, &mut scores);

            // Masks what a row must not see, including stale numbers past the sequence's end.
            for (scores, keys) in scores.chunks_exact_mut(group).zip(&tile.key_ranges) {
                let visible = clip(keys, first_key, BLOCK_SIZE);
                if visible.len() < BLOCK_SIZE {
                    for scores in scores {
                        scores[..visible.start - first_key].fill(f32::NEG_INFINITY);
                        scores[visible.end - first_key..].fill(f32::NEG_INFINITY);
                    }
                }
            }

            self.part.weigh(&mut scores, self.step.shape.scale);
            let seen = clip(&seen, first_key, BLOCK_SIZE);
            let seen = seen.start - first_key..seen.end - first_key;
            self.part.add_values(lanes, &scores, seen, values);
        }
    }
}

/// Returns the part of `keys` within `first..first + len`; an empty range inside it if there is
/// none.
fn clip(keys: &Range<usize>, first: usize, len: usize) -> Range<usize> {
    let start = keys.start.clamp(first, first + len);
    start..keys.end.clamp(start, first + len)
}

#[cfg(test)]
mod tests;
