//! Row-wise operations: norms, activations, sums, and reductions over logits.
//!
//! Plain loops in f32 that the compiler vectorises. Sums run in `CHAINS` parallel chains over fixed
//! positions, so a row's result does not depend on the rows computed with it.

use rayon::prelude::*;

use super::lanes::vectorised;
use super::math::{exp, gelu_tanh};

/// Number of chains of a sum: four registers of eight.
const CHAINS: usize = 32;

/// With fewer numbers than this, an operation stays on the calling thread: it takes less time than
/// waking another one.
const PARALLEL_FROM: usize = 1 << 15;

/// Minimum number of values per task.
const TASK_NUMBERS: usize = 1 << 13;

/// Number of exponentials that are summed in f32 before the sum is added in f64.
const EXP_BLOCK: usize = 1024;

/// Number of values whose maximum is found at once.
const ARGMAX_BLOCK: usize = 1024;

/// Computes `out = x / rms(x) · weight`, per row of `weight.len()` numbers. `weight` is `1 + w`
/// already.
///
/// # Panics
/// Panics, like the functions below, if lengths do not fit together.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f64, out: &mut [f32]) {
    let width = weight.len();
    assert_eq!(x.len(), out.len(), "x and out of a norm");
    for_rows(
        width,
        x.chunks_exact(width).zip(out.chunks_exact_mut(width)),
        #[inline(always)]
        |(x, out)| norm_row(x, weight, eps, out),
    );
}

/// Computes `sum = residual + norm(branch, post)` and `normed = norm(sum, next)`, per row.
pub fn add_norm_norm(
    [residual, branch]: [&[f32]; 2],
    [post, next]: [&[f32]; 2],
    eps: f64,
    [sum, normed]: [&mut [f32]; 2],
) {
    let width = post.len();
    let lens = [branch.len(), sum.len(), normed.len()];
    assert_eq!(lens, [residual.len(); 3], "operands of a residual sum");
    assert_eq!(next.len(), width, "weights of a pair of norms");
    let inputs = residual.chunks_exact(width).zip(branch.chunks_exact(width));
    let outputs = sum
        .chunks_exact_mut(width)
        .zip(normed.chunks_exact_mut(width));
    for_rows(
        width,
        inputs.zip(outputs),
        #[inline(always)]
        |((residual, branch), (sum, normed))| {
            norm_row(branch, post, eps, sum);
            add_to(residual, sum);
            norm_row(sum, next, eps, normed);
        },
    );
}

/// Computes layer norm with bias, per row: `(x − mean) / √(variance + eps) · weight + bias`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f64, out: &mut [f32]) {
    let width = weight.len();
    assert_eq!(x.len(), out.len(), "x and out of a norm");
    assert_eq!(bias.len(), width, "weight and bias of a norm");
    for_rows(
        width,
        x.chunks_exact(width).zip(out.chunks_exact_mut(width)),
        #[inline(always)]
        |(x, out)| {
            let mean = sum_of(x, |x| x) / width as f32;
            // A second pass: the difference of squares would lose precision.
            let variance = sum_of(x, |x| (x - mean) * (x - mean)) / width as f32;
            let scale = (f64::from(variance) + eps).sqrt().recip() as f32;
            for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = ((x - mean) * scale).mul_add(*weight, *bias);
            }
        },
    );
}

/// Computes `gelu_tanh(gate) · up` of rows `(2 · width)`, gate first: rows of `width`.
pub fn geglu(gate_up: &[f32], width: usize, out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "gate and up");
    for_rows(
        width,
        gate_up
            .chunks_exact(2 * width)
            .zip(out.chunks_exact_mut(width)),
        #[inline(always)]
        |(gate_up, out)| {
            let (gate, up) = gate_up.split_at(width);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gelu_tanh(*gate) * up;
            }
        },
    );
}

/// Computes `gelu_tanh(x)` in place.
pub fn gelu(x: &mut [f32]) {
    for_rows(
        TASK_NUMBERS,
        x.chunks_mut(TASK_NUMBERS),
        #[inline(always)]
        |x| {
            for x in x {
                *x = gelu_tanh(*x);
            }
        },
    );
}

/// Computes `a + b` into `a`.
pub fn add(a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "operands of a sum");
    for_rows(
        TASK_NUMBERS,
        b.chunks(TASK_NUMBERS).zip(a.chunks_mut(TASK_NUMBERS)),
        #[inline(always)]
        |(b, a)| add_to(b, a),
    );
}

/// Adds `bias` to every row of `x`.
pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    for_rows(
        bias.len(),
        x.chunks_exact_mut(bias.len()),
        #[inline(always)]
        |x| add_to(bias, x),
    );
}

/// Computes softmax over each row of `width` numbers, in place.
pub fn softmax(x: &mut [f32], width: usize) {
    for_rows(
        width,
        x.chunks_exact_mut(width),
        #[inline(always)]
        |x| {
            let max = max_of(x);
            for x in &mut *x {
                *x = exp(*x - max);
            }
            let scale = sum_of(x, |x| x).recip();
            for x in x {
                *x *= scale;
            }
        },
    );
}

/// Returns `ln Σ e^x`; −∞ for an empty slice.
pub fn log_sum_exp(x: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let max = max_of(x);
            if max == f32::NEG_INFINITY {
                return max;
            }
            let mut sum = 0.0;
            for x in x.chunks(EXP_BLOCK) {
                sum += f64::from(sum_of(
                    x,
                    #[inline(always)]
                    |x| exp(x - max),
                ));
            }
            (f64::from(max) + sum.ln()) as f32
        },
    )
}

/// Returns the index of the largest number, the first one if several are equal. NaNs are never the
/// largest.
///
/// # Panics
/// Panics if `x` is empty.
pub fn argmax(x: &[f32]) -> usize {
    assert!(!x.is_empty(), "the largest of no numbers");
    vectorised(
        #[inline(always)]
        || {
            // The maxima of blocks vectorise; only the best block is searched number by number.
            let (mut first, mut largest) = (0, f32::NEG_INFINITY);
            for (idx, block) in x.chunks(ARGMAX_BLOCK).enumerate() {
                let max = max_of(block);
                if max > largest {
                    (first, largest) = (idx * ARGMAX_BLOCK, max);
                }
            }
            let place = x[first..].iter().position(|x| *x == largest);
            first + place.unwrap_or(0)
        },
    )
}

/// Runs `op` on every row of `width` numbers, on several threads if that is worthwhile.
fn for_rows<T: Send>(width: usize, rows: impl ExactSizeIterator<Item = T>, op: impl Fn(T) + Sync) {
    if rows.len() * width < PARALLEL_FROM || rows.len() == 1 {
        return vectorised(
            #[inline(always)]
            || rows.for_each(op),
        );
    }
    let rows: Vec<T> = rows.collect();
    rows.into_par_iter()
        .with_min_len((TASK_NUMBERS / width).max(1))
        .for_each(|row| {
            vectorised(
                #[inline(always)]
                || op(row),
            );
        });
}

/// Normalises one row in f32, as the reference does before its cast.
#[inline(always)]
pub(super) fn norm_row(x: &[f32], weight: &[f32], eps: f64, out: &mut [f32]) {
    let mean_square = sum_of(x, |x| x * x) / x.len() as f32;
    let scale = (f64::from(mean_square) + eps).sqrt().recip() as f32;
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
fn add_to(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// Returns `Σ term(x)`, in an order that depends only on the length.
#[inline(always)]
pub(super) fn sum_of(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = x.as_chunks::<CHAINS>();
    let mut sums = [0.0f32; CHAINS];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += term(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += term(*x);
    }
    fold(sums, |a, b| a + b)
}

/// Returns the largest number; −∞ for an empty slice.
#[inline(always)]
pub(super) fn max_of(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (blocks, rest) = x.as_chunks::<CHAINS>();
    let mut most = [f32::NEG_INFINITY; CHAINS];
    for block in blocks {
        for (most, x) in most.iter_mut().zip(block) {
            *most = larger(*most, *x);
        }
    }
    for (most, x) in most.iter_mut().zip(rest) {
        *most = larger(*most, *x);
    }
    fold(most, larger)
}

/// Folds the upper half onto the lower one until one number is left.
#[inline(always)]
fn fold(chains: [f32; CHAINS], op: impl Fn(f32, f32) -> f32) -> f32 {
    // Eight at a time first, in registers; shorter halves would be single numbers.
    let mut lanes = [0.0; 8];
    for (idx, lane) in lanes.iter_mut().enumerate() {
        let (a, b) = (
            op(chains[idx], chains[idx + 16]),
            op(chains[idx + 8], chains[idx + 24]),
        );
        *lane = op(a, b);
    }
    let mut four = [0.0; 4];
    for (idx, lane) in four.iter_mut().enumerate() {
        *lane = op(lanes[idx], lanes[idx + 4]);
    }
    op(op(four[0], four[2]), op(four[1], four[3]))
}

#[cfg(test)]
mod tests;
