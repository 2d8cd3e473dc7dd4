//! Attention without a mask, for the vision encoder.
//!
//! Owns the packing of keys and values and the tiling. Only the scores of a few queries against a
//! few keys exist at a time, never those of a whole image.

use rayon::prelude::*;

use super::lanes::{Kernel, Lanes, dispatch};
use super::softmax::{Running, score};
use super::tile::{PANEL, pack_strip, strips};

/// Number of query rows of a tile.
const TILE_ROWS: usize = 96;

/// Number of keys that a tile processes at once.
const KEY_BLOCK: usize = 128;

/// Computes softmax attention within each image, scaled by `head_dim^-0.5`.
///
/// `qkv (images·patches, 3·heads·head_dim)` holds q, k and v one after another, each
/// `(heads, head_dim)`; `out` is `(images·patches, heads·head_dim)`.
///
/// # Panics
/// Panics if the lengths do not fit together.
pub fn full_attention(
    qkv: &[f32],
    num_images: usize,
    num_heads: usize,
    head_dim: usize,
    out: &mut [f32],
) {
    let hidden = num_heads * head_dim;
    let num_patches = out.len() / (num_images * hidden).max(1);
    assert_eq!(out.len(), num_images * num_patches * hidden, "rows of out");
    assert_eq!(qkv.len(), 3 * out.len(), "rows of q, k and v");
    if out.is_empty() {
        return;
    }
    let images = qkv.chunks_exact(num_patches * 3 * hidden);
    for (qkv, out) in images.zip(out.chunks_exact_mut(num_patches * hidden)) {
        let mut heads: Vec<Vec<&mut [f32]>> = (0..num_heads)
            .map(|_| Vec::with_capacity(num_patches))
            .collect();
        for row in out.chunks_exact_mut(hidden) {
            for (head, row) in heads.iter_mut().zip(row.chunks_exact_mut(head_dim)) {
                head.push(row);
            }
        }
        heads
            .into_par_iter()
            .enumerate()
            .for_each(|(idx, mut out)| {
                let head = Head::pack(qkv, hidden, idx, head_dim);
                out.par_chunks_mut(TILE_ROWS)
                    .enumerate()
                    .for_each(|(tile, out)| {
                        dispatch(TileKernel {
                            head: &head,
                            first_row: tile * TILE_ROWS,
                            out,
                        });
                    });
            });
    }
}

/// One head of one image.
struct Head<'a> {
    qkv: &'a [f32],
    hidden: usize,
    idx: usize,
    head_dim: usize,
    num_patches: usize,
    /// `(⌈patches / 16⌉, head_dim, 16)`, padded to whole key blocks.
    keys: Vec<f32>,
    /// `(key blocks, ⌈head_dim / 16⌉, KEY_BLOCK, 16)`
    values: Vec<f32>,
}

impl<'a> Head<'a> {
    fn pack(qkv: &'a [f32], hidden: usize, idx: usize, head_dim: usize) -> Self {
        let num_patches = qkv.len() / (3 * hidden);
        let num_blocks = num_patches.div_ceil(KEY_BLOCK);
        let value_width = head_dim.next_multiple_of(PANEL);
        let mut head = Self {
            qkv,
            hidden,
            idx,
            head_dim,
            num_patches,
            keys: Vec::new(),
            values: Vec::new(),
        };
        let mut keys = vec![0.0; num_blocks * KEY_BLOCK * head_dim];
        let mut values = vec![0.0; num_blocks * KEY_BLOCK * value_width];
        for patch in 0..num_patches {
            let panel = &mut keys[patch / PANEL * PANEL * head_dim..][..PANEL * head_dim];
            for (key, column) in head
                .part(patch, 1)
                .iter()
                .zip(panel.chunks_exact_mut(PANEL))
            {
                column[patch % PANEL] = *key;
            }
            let block = &mut values[patch / KEY_BLOCK * KEY_BLOCK * value_width..];
            let panels = block.chunks_exact_mut(KEY_BLOCK * PANEL);
            for (value, panel) in head.part(patch, 2).chunks(PANEL).zip(panels) {
                panel[patch % KEY_BLOCK * PANEL..][..value.len()].copy_from_slice(value);
            }
        }
        head.keys = keys;
        head.values = values;
        head
    }

    /// Returns one patch's q (0), k (1) or v (2).
    #[inline(always)]
    fn part(&self, patch: usize, part: usize) -> &'a [f32] {
        let first = (patch * 3 + part) * self.hidden + self.idx * self.head_dim;
        &self.qkv[first..][..self.head_dim]
    }
}

struct TileKernel<'a, 'b> {
    head: &'a Head<'a>,
    first_row: usize,
    out: &'a mut [&'b mut [f32]],
}

impl Kernel for TileKernel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let head = self.head;
        let (num_rows, head_dim) = (self.out.len(), head.head_dim);
        let mut queries = vec![0.0; num_rows * head_dim];
        let mut rest = queries.as_mut_slice();
        for (first, height) in strips(num_rows) {
            let (strip, after) = rest.split_at_mut(height * head_dim);
            pack_strip(
                height,
                |row| head.part(self.first_row + first + row, 0),
                strip,
            );
            rest = after;
        }

        let scale = (head_dim as f32).sqrt().recip();
        let mut scores = vec![[0.0; KEY_BLOCK]; num_rows];
        let mut running = Running::new(num_rows, head_dim);
        let blocks = head.keys.chunks_exact(KEY_BLOCK * head_dim).zip(
            head.values
                .chunks_exact(KEY_BLOCK * head_dim.next_multiple_of(PANEL)),
        );
        for (block, (keys, values)) in blocks.enumerate() {
            score(lanes, &queries, keys, &mut scores);
            let num_keys = KEY_BLOCK.min(head.num_patches - block * KEY_BLOCK);
            if num_keys < KEY_BLOCK {
                for scores in &mut scores {
                    scores[num_keys..].fill(f32::NEG_INFINITY);
                }
            }
            running.weigh(&mut scores, scale);
            running.add_values(lanes, &scores, 0..num_keys, values);
        }
        for (row, out) in self.out.iter_mut().enumerate() {
            running.write(row, out);
        }
    }
}

#[cfg(test)]
mod tests;
