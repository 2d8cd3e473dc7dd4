//! Antialiased bilinear resizing to 8 bits, in torchvision's integer arithmetic.
//!
//! Follows ATen's `native/cpu/UpSampleKernel.cpp` (`upsample_avx_bilinear_bicubic_uint8` and the
//! weights it takes from `_compute_index_ranges_int16_weights`), which transformers'
//! `TorchvisionBackend.resize` ends in: weights as 16-bit integers, the horizontal pass first, 8
//! bits between the passes. Every sum is an integer, so that no order of adding changes a bit.

use std::ops::Range;
use std::sync::Arc;

use pulp::Arch;

use super::cancellation::Cancellation;
use super::raster::{Raster, Samples};
use crate::error::ImageError;

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

/// The triangle under which each result lies, in f64 as the reference has it.
struct Triangle {
    scale: f64,
    /// Half its base.
    support: f64,
    /// Length in pixels of the side that is resized.
    len: usize,
}

impl Triangle {
    /// The source pixels under result `i`.
    fn range(&self, i: usize) -> Range<usize> {
        let center = self.scale * (i as f64 + 0.5);
        let low = (center - self.support + 0.5).max(0.0) as usize;
        low..((center + self.support + 0.5) as usize).min(self.len)
    }

    /// What source pixel `j` adds to result `i`, before the sum is made 1.
    fn height(&self, i: usize, j: usize) -> f64 {
        let center = self.scale * (i as f64 + 0.5);
        let distance = (j as f64 - center + 0.5) * (1.0 / self.support);
        (1.0 - distance.abs()).max(0.0)
    }
}

impl Weights {
    /// For `side` resized to `out` pixels.
    fn new(side: Side, out: usize) -> Self {
        let scale = side.padded as f64 / out as f64;
        let triangle = Triangle {
            scale,
            support: scale.max(1.0),
            len: side.padded,
        };
        let totals: Vec<f64> = (0..out)
            .map(|i| triangle.range(i).map(|j| triangle.height(i, j)).sum())
            .collect();
        let weight = |i: usize, j: usize| triangle.height(i, j) / totals[i];
        let largest = (0..out)
            .flat_map(|i| triangle.range(i).map(move |j| (i, j)))
            .fold(0.0, |largest: f64, (i, j)| largest.max(weight(i, j)));
        let precision = (0..MAX_PRECISION)
            .find(|p| (0.5 + largest * f64::from(1 << (p + 1))) as i64 >= 1 << 15)
            .unwrap_or(MAX_PRECISION);

        // Of each range, the part that lies on pixels and not on zeros.
        let (before, end) = (side.before, side.before + side.len);
        let on_pixels = |i: usize| {
            let range = triangle.range(i);
            range.start.clamp(before, end)..range.end.clamp(before, end)
        };
        let taps = (0..out).map(|i| on_pixels(i).len()).max().unwrap_or(0);
        let mut starts = Vec::with_capacity(out);
        let mut weights = vec![0; out * taps];
        for i in 0..out {
            let range = on_pixels(i);
            // Moved back where `taps` pixels from the first would leave the source.
            let start = (range.start - before).min(side.len - taps);
            for j in range {
                let quantised = 0.5 + weight(i, j) * f64::from(1 << precision);
                weights[i * taps + j - before - start] = quantised as i16;
            }
            starts.push(start);
        }
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
///
/// # Errors
/// [`ImageError::Abandoned`] between rows.
pub(super) fn resize(
    raster: &Raster,
    horizontal: Side,
    vertical: Side,
    out: usize,
    cancellation: Cancellation<'_>,
) -> Result<Arc<[u8]>, ImageError> {
    let across = Weights::new(horizontal, out);
    let down = Weights::new(vertical, out);
    let mut rgb: Arc<[u8]> = std::iter::repeat_n(0, out * out * 3).collect();
    let to = Arc::get_mut(&mut rgb).expect("nobody else has it yet");
    let arch = Arch::new();
    match &raster.samples {
        Samples::Rgb(rgb) => {
            arch.dispatch(|| two_passes::<3>(rgb, raster.width, (&across, &down), to, cancellation))
        }
        Samples::Grey(grey) => arch
            .dispatch(|| two_passes::<1>(grey, raster.width, (&across, &down), to, cancellation)),
    }?;
    Ok(rgb)
}

/// `(height, width, N)` → `(height, out, N)` → `(out, out, N)`, written as `(out, out, 3)`.
///
/// Only those rows of the intermediate image are kept that the next output row needs: for an X-ray
/// that is 4 KB instead of 1 MB, and touching fresh memory costs as much as the sums.
#[inline(always)]
fn two_passes<const N: usize>(
    source: &[u8],
    width: usize,
    (across, down): (&Weights, &Weights),
    to: &mut [u8],
    cancellation: Cancellation<'_>,
) -> Result<(), ImageError> {
    let out = across.starts.len();
    let row_len = out * N;
    let mut narrowed = vec![0; down.taps * row_len];
    let mut num_narrowed = 0;
    let mut line = vec![0; row_len];
    for (i, to) in to.chunks_exact_mut(out * 3).enumerate() {
        let (start, weights) = down.row(i);
        // Starts never go back, so a row that was passed over is not needed again.
        for y in num_narrowed.max(start)..start + down.taps {
            cancellation.check()?;
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
    Ok(())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grey_row(source: &[u8], out: usize) -> Vec<u8> {
        let raster = Raster::grey(source.len(), 1, source.to_vec());
        let (across, down) = (Side::whole(source.len()), Side::whole(1));
        let rgb = resize(&raster, across, down, out, Cancellation::NEVER).unwrap();
        rgb[..out * 3].chunks(3).map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn small_cases_by_hand() {
        // Centres at 1/4, 3/4, 5/4, 7/4 of a source pixel: quarters of 255, rounded.
        assert_eq!(grey_row(&[0, 255], 4), [0, 64, 191, 255]);
        // Each result lies over its two pixels and half of the next: weights 1 : 3 : 3 : 1.
        assert_eq!(grey_row(&[0, 0, 255, 255], 2), [36, 219]);
        assert_eq!(grey_row(&[7], 3), [7, 7, 7]);
        assert_eq!(grey_row(&[1, 2, 254, 255], 4), [1, 2, 254, 255]);
    }

    #[test]
    fn weights_of_the_precision_that_16_bits_hold() {
        for (len, out, precision) in [
            (1, 1, 14),
            (896, 896, 14),
            (1792, 896, 16),
            (200_000, 1, 22),
        ] {
            let weights = Weights::new(Side::whole(len), out);
            assert_eq!(weights.precision, precision, "{len} to {out}");
            assert!(weights.weights.iter().all(|&w| w >= 0), "{len} to {out}");
        }
    }

    /// Pads, makes every weight and every row, and adds in 64 bits: slow and plain.
    fn plainly(raster: &Raster, horizontal: Side, vertical: Side, out: usize) -> Vec<u8> {
        let pixel = |x: usize, y: usize, c: usize| match &raster.samples {
            Samples::Grey(grey) => grey[y * raster.width + x],
            Samples::Rgb(rgb) => rgb[(y * raster.width + x) * 3 + c],
        };
        let padded = |x: usize, y: usize, c: usize| {
            let (x, y) = (
                x.checked_sub(horizontal.before),
                y.checked_sub(vertical.before),
            );
            match (x, y) {
                (Some(x), Some(y)) if x < raster.width && y < raster.height => pixel(x, y, c),
                _ => 0,
            }
        };
        let (across, p) = plain_weights(horizontal.padded, out);
        let (down, q) = plain_weights(vertical.padded, out);
        let rounded = |sum: i64, p: u32| ((sum + (1 << (p - 1))) >> p).clamp(0, 255);
        let mut result = Vec::new();
        for down in &down {
            for across in &across {
                for c in 0..3 {
                    let sum = (0..vertical.padded).filter(|&y| down[y] != 0).map(|y| {
                        let sum = (0..horizontal.padded)
                            .map(|x| across[x] * i64::from(padded(x, y, c)))
                            .sum();
                        down[y] * rounded(sum, p)
                    });
                    result.push(rounded(sum.sum(), q) as u8);
                }
            }
        }
        result
    }

    /// One row of weights a result, zeros included.
    fn plain_weights(len: usize, out: usize) -> (Vec<Vec<i64>>, u32) {
        let scale = len as f64 / out as f64;
        let fs = scale.max(1.0);
        let rows: Vec<Vec<f64>> = (0..out)
            .map(|i| {
                let center = (i as f64 + 0.5) * scale;
                let low = (center - fs + 0.5).floor().max(0.0);
                let high = (center + fs + 0.5).floor().min(len as f64);
                let row: Vec<f64> = (0..len)
                    .map(|j| match j as f64 {
                        j if j < low || j >= high => 0.0,
                        j => (1.0 - ((j - center + 0.5) / fs).abs()).max(0.0),
                    })
                    .collect();
                let total: f64 = row.iter().sum();
                row.iter().map(|w| w / total).collect()
            })
            .collect();
        let largest = rows.iter().flatten().copied().fold(0.0, f64::max);
        let fits = |p: &u32| (0.5 + largest * 2f64.powi(*p as i32 + 1)).floor() >= 32768.0;
        let precision = (0..22).find(fits).unwrap_or(22);
        let quantised = |w: &f64| (0.5 + w * 2f64.powi(precision as i32)).floor() as i64;
        (
            rows.iter()
                .map(|row| row.iter().map(quantised).collect())
                .collect(),
            precision,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_the_plain_way(
            width in 1usize..60,
            height in 1usize..60,
            out in 1usize..24,
            grey: bool,
            pad: bool,
            seed: u32,
        ) {
            let mut state = seed | 1;
            let mut noise = |len: usize| -> Vec<u8> {
                (0..len)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        // Extremes are where rounding and clipping show.
                        [0, 255, (state >> 24) as u8][(state >> 16) as usize % 3]
                    })
                    .collect()
            };
            let raster = if grey {
                Raster::grey(width, height, noise(width * height))
            } else {
                Raster::rgb(width, height, noise(width * height * 3))
            };
            let side = if pad { width.max(height) + out % 3 } else { 0 };
            let (horizontal, vertical) = if pad {
                (Side::centred(width, side), Side::centred(height, side))
            } else {
                (Side::whole(width), Side::whole(height))
            };
            let fast = resize(&raster, horizontal, vertical, out, Cancellation::NEVER).unwrap();
            prop_assert_eq!(&*fast, plainly(&raster, horizontal, vertical, out));
        }
    }
}
