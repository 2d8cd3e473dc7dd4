//! Antialiased bilinear resizing to 8 bits, in torchvision's integer arithmetic.
//!
//! Follows ATen's `native/cpu/UpSampleKernel.cpp` (`upsample_avx_bilinear_bicubic_uint8` and the
//! weights it takes from `_compute_index_ranges_int16_weights`), which transformers'
//! `TorchvisionBackend.resize` ends in: weights as 16-bit integers, the horizontal pass first, 8
//! bits between the passes. Every sum is an integer, so that no order of adding changes a bit.

use std::sync::Arc;

use pulp::Arch;

use super::raster::{Raster, Samples};

/// How one side of the source maps to one side of the result: the source stands inside a longer
/// side of zeros, which is resized as a whole. Zeros add nothing, so they are never made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    /// Pixels that there are.
    pub(super) len: usize,
    /// Zeros before them.
    pub(super) before: usize,
    /// All together, zeros after them too.
    pub(super) padded: usize,
}

impl Side {
    /// A side without padding.
    pub(super) fn whole(len: usize) -> Self {
        Self {
            len,
            before: 0,
            padded: len,
        }
    }

    /// A side in the middle of a longer one; of an odd number of zeros, more come after it.
    pub(super) fn centred(len: usize, padded: usize) -> Self {
        Self {
            len,
            before: (padded - len) / 2,
            padded,
        }
    }
}

/// The weights along one side: result `i` is Σ `weights[i][t] · source[starts[i] + t]`, rounded,
/// over `2^precision`.
struct Weights {
    /// Weights of each result; those it does not need are 0.
    taps: usize,
    /// First source pixel of each result; `taps` more are always there.
    starts: Vec<usize>,
    /// `(results, taps)`
    weights: Vec<i16>,
    precision: u32,
}

impl Weights {
    /// For `side` resized to `out` pixels.
    fn new(side: Side, out: usize) -> Self {
        // The names and the order of operations are the reference's; it computes in f64.
        let scale = side.padded as f64 / out as f64;
        let support = scale.max(1.0);
        let ranges: Vec<(usize, Vec<f64>)> = (0..out)
            .map(|i| {
                let center = scale * (i as f64 + 0.5);
                let low = ((center - support + 0.5) as i64).max(0) as usize;
                let high = ((center + support + 0.5) as usize).min(side.padded);
                let invscale = 1.0 / support;
                let mut weights: Vec<f64> = (low..high)
                    .map(|j| {
                        let distance = (j as f64 - center + 0.5) * invscale;
                        (1.0 - distance.abs()).max(0.0)
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                weights.iter_mut().for_each(|w| *w /= total);
                (low, weights)
            })
            .collect();
        let largest = ranges
            .iter()
            .flat_map(|(_, w)| w)
            .copied()
            .fold(0.0, f64::max);
        let precision = (0..MAX_PRECISION)
            .find(|p| (0.5 + largest * f64::from(1 << (p + 1))) as i64 >= 1 << 15)
            .unwrap_or(MAX_PRECISION);

        // Of each range, the part that lies on pixels and not on zeros.
        let end = side.before + side.len;
        let on_pixels = |low: usize, len: usize| {
            let first = low.clamp(side.before, end);
            (first, (low + len).clamp(first, end) - first)
        };
        let taps = ranges
            .iter()
            .map(|(low, w)| on_pixels(*low, w.len()).1)
            .max()
            .unwrap_or(0);
        let mut starts = Vec::with_capacity(out);
        let mut weights = vec![0; out * taps];
        for ((low, range), row) in ranges.iter().zip(weights.chunks_exact_mut(taps.max(1))) {
            let (first, len) = on_pixels(*low, range.len());
            // Moved back where `taps` pixels from here would leave the source.
            let start = (first - side.before).min(side.len - taps);
            let skip = first - side.before - start;
            for (to, from) in row[skip..]
                .iter_mut()
                .zip(&range[first - low..first - low + len])
            {
                *to = (0.5 + from * f64::from(1 << precision)) as i16;
            }
            starts.push(start);
        }
        starts.resize(out, 0);
        Self {
            taps,
            starts,
            weights,
            precision,
        }
    }

    fn row(&self, i: usize) -> (usize, &[i16]) {
        (
            self.starts[i],
            &self.weights[i * self.taps..(i + 1) * self.taps],
        )
    }

    /// What the sum starts from, so that the shift rounds.
    fn half(&self) -> i32 {
        1 << (self.precision - 1)
    }
}

/// The reference stops looking for a precision here.
const MAX_PRECISION: u32 = 22;

/// Resizes to `out × out` RGB, `(out, out, 3)`.
pub(super) fn resize(raster: &Raster, horizontal: Side, vertical: Side, out: usize) -> Arc<[u8]> {
    let across = Weights::new(horizontal, out);
    let down = Weights::new(vertical, out);
    let mut rgb: Arc<[u8]> = std::iter::repeat_n(0, out * out * 3).collect();
    let to = Arc::get_mut(&mut rgb).expect("nobody else has it yet");
    let arch = Arch::new();
    match &raster.samples {
        Samples::Rgb(rgb) => {
            arch.dispatch(|| two_passes::<3>(rgb, raster.width, &across, &down, to))
        }
        Samples::Grey(grey) => {
            arch.dispatch(|| two_passes::<1>(grey, raster.width, &across, &down, to));
        }
    }
    rgb
}

/// `(height, width, N)` → `(height, out, N)` → `(out, out, N)`, written as `(out, out, 3)`.
///
/// Of the picture in between only the rows are kept that the next row of the result lies over: for
/// a film that is 4 KB in place of 1 MB, and touching fresh memory costs as much as the sums.
#[inline(always)]
fn two_passes<const N: usize>(
    source: &[u8],
    width: usize,
    across: &Weights,
    down: &Weights,
    to: &mut [u8],
) {
    let out = across.starts.len();
    let row_len = out * N;
    let mut narrowed = vec![0; down.taps * row_len];
    let mut num_narrowed = 0;
    let mut line = vec![0; row_len];
    for (i, to) in to.chunks_exact_mut(out * 3).enumerate() {
        let (start, weights) = down.row(i);
        // Starts never go back, so a row that was passed over is not needed again.
        for y in num_narrowed.max(start)..start + down.taps {
            let slot = y % down.taps * row_len;
            let from = &source[y * width * N..(y + 1) * width * N];
            across_row::<N>(from, &mut narrowed[slot..slot + row_len], across);
        }
        num_narrowed = start + down.taps;
        let rows = weights.iter().enumerate().map(|(t, &weight)| {
            let slot = (start + t) % down.taps * row_len;
            (&narrowed[slot..slot + row_len], weight)
        });
        if N == 3 {
            down_row(rows, to, down);
        } else {
            down_row(rows, &mut line, down);
            for (pixel, &v) in to.as_chunks_mut().0.iter_mut().zip(&line) {
                *pixel = [v; 3];
            }
        }
    }
}

/// One row, horizontally. With few taps, their number is known to the compiler and the sums stay in
/// registers.
#[inline(always)]
fn across_row<const N: usize>(from: &[u8], to: &mut [u8], across: &Weights) {
    let (from, to) = (from.as_chunks().0, to.as_chunks_mut().0);
    match across.taps {
        1 => across_few::<N, 1>(from, to, across),
        2 => across_few::<N, 2>(from, to, across),
        3 => across_few::<N, 3>(from, to, across),
        4 => across_few::<N, 4>(from, to, across),
        5 => across_few::<N, 5>(from, to, across),
        6 => across_few::<N, 6>(from, to, across),
        7 => across_few::<N, 7>(from, to, across),
        8 => across_few::<N, 8>(from, to, across),
        _ => across_many::<N>(from, to, across),
    }
}

#[inline(always)]
fn across_few<const N: usize, const TAPS: usize>(
    from: &[[u8; N]],
    to: &mut [[u8; N]],
    across: &Weights,
) {
    let (weights, _) = across.weights.as_chunks::<TAPS>();
    for ((pixel, &start), weights) in to.iter_mut().zip(&across.starts).zip(weights) {
        let source: &[[u8; N]; TAPS] = from[start..start + TAPS]
            .try_into()
            .expect("the slice is TAPS long");
        let mut sums = [across.half(); N];
        for t in 0..TAPS {
            for c in 0..N {
                sums[c] += i32::from(source[t][c]) * i32::from(weights[t]);
            }
        }
        *pixel = sums.map(|sum| clip(sum >> across.precision));
    }
}

#[inline(always)]
fn across_many<const N: usize>(from: &[[u8; N]], to: &mut [[u8; N]], across: &Weights) {
    for (i, pixel) in to.iter_mut().enumerate() {
        let (start, weights) = across.row(i);
        let mut sums = [across.half(); N];
        for (source, &weight) in from[start..start + weights.len()].iter().zip(weights) {
            for (sum, &v) in sums.iter_mut().zip(source) {
                *sum += i32::from(v) * i32::from(weight);
            }
        }
        *pixel = sums.map(|sum| clip(sum >> across.precision));
    }
}

/// One row of the result, vertically: the sum of the rows that it lies over.
#[inline(always)]
fn down_row<'a>(
    rows: impl Iterator<Item = (&'a [u8], i16)> + Clone,
    to: &mut [u8],
    down: &Weights,
) {
    // The sums of one block stay in the nearest cache.
    const BLOCK: usize = 512;
    for (block, to) in to.chunks_mut(BLOCK).enumerate() {
        let mut sums = [down.half(); BLOCK];
        for (row, weight) in rows.clone() {
            let row = &row[block * BLOCK..block * BLOCK + to.len()];
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += i32::from(v) * i32::from(weight);
            }
        }
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = clip(sum >> down.precision);
        }
    }
}

#[inline(always)]
fn clip(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}
