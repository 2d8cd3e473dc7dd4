//! The online softmax of attention: a tile of query rows that processes keys block by block.
//!
//! Owns the arithmetic that paged and full attention share. Knows nothing of masks except −∞
//! scores, and nothing of where keys are stored.
//!
//! Each row keeps the largest score so far, the sum of its weights and the weighted sum of values;
//! the last two are relative to that largest score. A score of −∞ changes no bit of the three, so a
//! row's result does not depend on blocks that were visited for other rows.

use std::ops::Range;

use super::elementwise::{max_of, sum_of};
use super::lanes::Lanes;
use super::math::exp;
use super::tile::{MAX_HEIGHT, PANEL, accumulate, multiply_strip, strips};

/// State of a tile of rows between blocks of keys.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// `(rows)`
    max: Vec<f32>,
    /// `(rows)`
    sum: Vec<f32>,
    /// `(rows)`: factor that the last block applies to older sums.
    decay: Vec<f32>,
    /// `(value panels, rows, 16)`
    values: Vec<[f32; PANEL]>,
}

impl Running {
    /// Creates the initial state, for values of `value_dim` numbers.
    pub(super) fn new(num_rows: usize, value_dim: usize) -> Self {
        Self {
            max: vec![f32::NEG_INFINITY; num_rows],
            sum: vec![0.0; num_rows],
            decay: vec![0.0; num_rows],
            values: vec![[0.0; PANEL]; num_rows * value_dim.div_ceil(PANEL)],
        }
    }

    /// Resets to the initial state.
    pub(super) fn reset(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.values.fill([0.0; PANEL]);
    }

    /// Turns the dot products of one block's keys into weights: softmax of `scale` times them,
    /// where `scale` is positive.
    #[inline(always)]
    pub(super) fn weigh<const W: usize>(&mut self, scores: &mut [[f32; W]], scale: f32) {
        let state = self.max.iter_mut().zip(&mut self.sum).zip(&mut self.decay);
        for (scores, ((max, sum), decay)) in scores.iter_mut().zip(state) {
            let old = *max;
            let block_max = max_of(scores) * scale;
            // A NaN score must reach the result, so this is not `f32::max`.
            *max = if block_max <= old { old } else { block_max };
            // If no key was seen yet, −∞ minus −∞ would be NaN.
            let base = if *max == f32::NEG_INFINITY { 0.0 } else { *max };
            for score in &mut *scores {
                *score = exp(*score * scale - base);
            }
            *decay = exp(old - base);
            *sum = *sum * *decay + sum_of(scores, |weight| weight);
        }
    }

    /// Adds the block's values, weighted. Columns of `weights` outside `keys` must be zero; the
    /// values of other keys in `values (value panels, W, 16)` are not read.
    #[inline(always)]
    pub(super) fn add_values<L: Lanes, const W: usize>(
        &mut self,
        lanes: L,
        weights: &[[f32; W]],
        keys: Range<usize>,
        values: &[f32],
    ) {
        let num_rows = self.max.len();
        let (panels, _) = values.as_chunks::<PANEL>().0.as_chunks::<W>();
        for (sums, panel) in self.values.chunks_exact_mut(num_rows).zip(panels) {
            for (first, height) in strips(num_rows) {
                let strip = Weighted {
                    weights: &weights[first..][..height],
                    decay: &self.decay[first..][..height],
                    keys: keys.clone(),
                };
                let sums = &mut sums[first..][..height];
                match height {
                    1 => strip.add::<L, 1>(lanes, panel, sums),
                    2 => strip.add::<L, 2>(lanes, panel, sums),
                    3 => strip.add::<L, 3>(lanes, panel, sums),
                    4 => strip.add::<L, 4>(lanes, panel, sums),
                    5 => strip.add::<L, 5>(lanes, panel, sums),
                    6 => strip.add::<L, 6>(lanes, panel, sums),
                    _ => unreachable!("a strip of {height} rows"),
                }
            }
        }
    }

    /// Merges the state of `other`, which has seen other keys.
    pub(super) fn merge(&mut self, other: &Self) {
        let num_rows = self.max.len();
        for row in 0..num_rows {
            let (a, b) = (self.max[row], other.max[row]);
            if b == f32::NEG_INFINITY {
                continue;
            }
            let max = if b <= a { a } else { b };
            let (own, theirs) = (exp(a - max), exp(b - max));
            self.max[row] = max;
            self.sum[row] = self.sum[row] * own + other.sum[row] * theirs;
            let panels = self.values.iter_mut().zip(&other.values);
            for (sums, others) in panels.skip(row).step_by(num_rows) {
                for (sum, other) in sums.iter_mut().zip(others) {
                    *sum = *sum * own + other * theirs;
                }
            }
        }
    }

    /// Writes one row's result.
    pub(super) fn write(&self, row: usize, out: &mut [f32]) {
        let scale = self.sum[row].recip();
        let panels = self.values[row..].iter().step_by(self.max.len());
        for (out, sums) in out.chunks_mut(PANEL).zip(panels) {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum * scale;
            }
        }
    }
}

/// A strip's weights for one block.
struct Weighted<'a, const W: usize> {
    weights: &'a [[f32; W]],
    decay: &'a [f32],
    keys: Range<usize>,
}

impl<const W: usize> Weighted<'_, W> {
    #[inline(always)]
    fn add<L: Lanes, const H: usize>(
        self,
        lanes: L,
        panel: &[[f32; PANEL]; W],
        sums: &mut [[f32; PANEL]],
    ) {
        let strip = (
            self.weights.first_chunk::<H>(),
            self.decay.first_chunk::<H>(),
            sums.first_chunk_mut::<H>(),
        );
        let (Some(weights), Some(decay), Some(sums)) = strip else {
            unreachable!("a strip of {H} rows");
        };
        accumulate::<L, H, W>(lanes, weights, decay, self.keys, panel, sums);
    }
}

/// Computes the dot products of one block: `scores = queries · keys`, with queries as packed strips
/// `(strips, head_dim, height)` and keys `(W / 16, head_dim, 16)`.
#[inline(always)]
pub(super) fn score<L: Lanes, const W: usize>(
    lanes: L,
    queries: &[f32],
    keys: &[f32],
    scores: &mut [[f32; W]],
) {
    let head_dim = keys.len() / W;
    for (idx, panel) in keys.chunks_exact(head_dim * PANEL).enumerate() {
        for (first, height) in strips(scores.len()) {
            let strip = &queries[first * head_dim..][..height * head_dim];
            let mut products = [[0.0; PANEL]; MAX_HEIGHT];
            let products = &mut products[..height];
            multiply_strip(lanes, strip, panel, products);
            for (products, scores) in products.iter().zip(&mut scores[first..]) {
                scores.as_chunks_mut::<PANEL>().0[idx] = *products;
            }
        }
    }
}
