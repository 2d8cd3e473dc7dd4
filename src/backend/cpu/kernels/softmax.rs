//! The running softmax of attention: a tile of query rows that meets keys block by block.
//!
//! Owns the arithmetic that paged and full attention share. Knows nothing of masks beyond −∞ and
//! nothing of where keys lie.
//!
//! Each row keeps the largest score so far, the sum of its weights and the weighted sum of values,
//! both relative to that largest score. A score of −∞ changes no bit of the three, so that it does
//! not matter which other rows made a block worth visiting.

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
    /// `(rows)`: what the last block multiplies older sums by.
    decay: Vec<f32>,
    /// `(value panels, rows, 16)`
    values: Vec<[f32; PANEL]>,
}

impl Running {
    /// Before any key, for values of `value_dim` numbers.
    pub(super) fn new(num_rows: usize, value_dim: usize) -> Self {
        Self {
            max: vec![f32::NEG_INFINITY; num_rows],
            sum: vec![0.0; num_rows],
            decay: vec![0.0; num_rows],
            values: vec![[0.0; PANEL]; num_rows * value_dim.div_ceil(PANEL)],
        }
    }

    /// Back to before any key.
    pub(super) fn reset(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.values.fill([0.0; PANEL]);
    }

    /// Turns `scores (rows, width)` of one block into weights.
    #[inline(always)]
    pub(super) fn weigh(&mut self, scores: &mut [f32], width: usize) {
        let state = self.max.iter_mut().zip(&mut self.sum).zip(&mut self.decay);
        for (scores, ((max, sum), decay)) in scores.chunks_exact_mut(width).zip(state) {
            let old = *max;
            let block_max = max_of(scores);
            // A NaN score must reach the result, so this is not `f32::max`.
            *max = if block_max <= old { old } else { block_max };
            // No key seen yet: −∞ minus −∞ would be a NaN.
            let base = if *max == f32::NEG_INFINITY { 0.0 } else { *max };
            for score in &mut *scores {
                *score = exp(*score - base);
            }
            *decay = exp(old - base);
            *sum = *sum * *decay + sum_of(scores, |weight| weight);
        }
    }

    /// Adds the block's values, weighted. `weights` is `(rows, width)`, of which `keys` are not
    /// all zero; `values` is `(value panels, width, 16)`, of which other keys are not read.
    #[inline(always)]
    pub(super) fn add_values<L: Lanes>(
        &mut self,
        lanes: L,
        weights: &[f32],
        width: usize,
        keys: Range<usize>,
        values: &[f32],
    ) {
        let num_rows = self.max.len();
        let panels = values.chunks_exact(width * PANEL);
        for (sums, panel) in self.values.chunks_exact_mut(num_rows).zip(panels) {
            let panel = &panel[keys.start * PANEL..keys.end * PANEL];
            for (first, height) in strips(num_rows) {
                let rows = Weighted {
                    weights: &weights[first * width..][..height * width],
                    width,
                    first_key: keys.start,
                    decay: &self.decay[first..][..height],
                };
                let sums = &mut sums[first..][..height];
                match height {
                    1 => rows.add::<L, 1>(lanes, panel, sums),
                    2 => rows.add::<L, 2>(lanes, panel, sums),
                    3 => rows.add::<L, 3>(lanes, panel, sums),
                    4 => rows.add::<L, 4>(lanes, panel, sums),
                    5 => rows.add::<L, 5>(lanes, panel, sums),
                    6 => rows.add::<L, 6>(lanes, panel, sums),
                    _ => unreachable!("a strip of {height} rows"),
                }
            }
        }
    }

    /// Adds the keys that `other` has seen to the ones that this has seen.
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

    /// One row's result.
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
struct Weighted<'a> {
    /// `(height, width)`
    weights: &'a [f32],
    width: usize,
    first_key: usize,
    /// `(height)`
    decay: &'a [f32],
}

impl Weighted<'_> {
    #[inline(always)]
    fn add<L: Lanes, const H: usize>(&self, lanes: L, panel: &[f32], sums: &mut [[f32; PANEL]]) {
        let rows: [&[f32]; H] =
            std::array::from_fn(|row| &self.weights[row * self.width + self.first_key..]);
        let (Some(decay), Some(sums)) = (self.decay.first_chunk(), sums.first_chunk_mut()) else {
            unreachable!("a strip of {H} rows");
        };
        accumulate::<L, H>(lanes, rows, decay, panel, sums);
    }
}

/// Scores of a block: `scores (rows, width) = scale · queries · keys`, of queries as packed strips
/// `(strips, head_dim, height)` and keys `(width / 16, head_dim, 16)`.
#[inline(always)]
pub(super) fn score<L: Lanes>(
    lanes: L,
    queries: &[f32],
    keys: &[f32],
    head_dim: usize,
    scale: f32,
    scores: &mut [f32],
) {
    let width = keys.len() / head_dim;
    let panel_size = head_dim * PANEL;
    let num_rows = queries.len() / head_dim;
    for (panel, keys) in keys.chunks_exact(panel_size).enumerate() {
        for (first, height) in strips(num_rows) {
            let strip = &queries[first * head_dim..][..height * head_dim];
            let mut products = [[0.0; PANEL]; MAX_HEIGHT];
            let products = &mut products[..height];
            multiply_strip(lanes, strip, keys, products);
            let rows = scores[first * width..].chunks_exact_mut(width);
            for (products, row) in products.iter().zip(rows) {
                let row = &mut row[panel * PANEL..][..PANEL];
                for (score, product) in row.iter_mut().zip(products) {
                    *score = product * scale;
                }
            }
        }
    }
}
