//! The register tile that all matmuls share: a few rows times one panel of 16 columns.
//!
//! ```text
//!            panel (depth, 16)
//!            ┌────────────────┐
//! strip      │ w w w … w      │      One step of depth loads 16 columns once and multiplies
//! (depth, h) │                │      them by one broadcast number of each row: an outer product
//! ┌────┐     └────────────────┘      into h · 2 registers.
//! │ x… │  →  tile (h, 16)
//! └────┘
//! ```
//!
//! Each number of a tile is one chain of fused multiply-adds over depth, whatever `h` is. Therefore
//! a row's result does not depend on the rows computed with it.

use std::ops::Range;

use super::lanes::Lanes;

/// Number of columns of a panel: two registers of eight floats.
pub(super) const PANEL: usize = 16;

/// Maximum number of rows of a tile: 6 · 2 sums, 2 columns and 1 broadcast fit 16 registers.
pub(super) const MAX_HEIGHT: usize = 6;

/// A number type in which weights are stored.
pub(super) trait Stored: Copy + Send + Sync + Default {
    /// Whether the numbers need no widening.
    const IS_F32: bool;

    fn load<L: Lanes>(lanes: L, from: &[Self; 8]) -> L::V;
    fn to_f32(self) -> f32;
    fn to_bits(self) -> u32;
}

impl Stored for f32 {
    const IS_F32: bool = true;

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, from: &[f32; 8]) -> L::V {
        lanes.load(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn to_bits(self) -> u32 {
        self.to_bits()
    }
}

/// The upper half of an `f32`: bfloat16.
impl Stored for u16 {
    const IS_F32: bool = false;

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, from: &[u16; 8]) -> L::V {
        lanes.widen(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[inline(always)]
    fn to_bits(self) -> u32 {
        u32::from(self)
    }
}

/// Splits `num_rows` into strips of at most [`MAX_HEIGHT`] rows, as even as possible: `(first row,
/// height)`.
#[inline(always)]
pub(super) fn strips(num_rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let num_strips = num_rows.div_ceil(MAX_HEIGHT);
    let (low, num_higher) = match num_strips {
        0 => (0, 0),
        _ => (num_rows / num_strips, num_rows % num_strips),
    };
    (0..num_strips).map(move |idx| {
        let first = idx * low + idx.min(num_higher);
        (first, low + usize::from(idx < num_higher))
    })
}

/// Interleaves `H` rows: `to[depth][row] = rows[row][depth]`.
#[inline(always)]
fn interleave<const H: usize>(rows: [&[f32]; H], to: &mut [f32]) {
    let (to, _) = to.as_chunks_mut::<H>();
    for (row, numbers) in rows.iter().enumerate() {
        for (to, number) in to.iter_mut().zip(*numbers) {
            to[row] = *number;
        }
    }
}

/// Packs a strip `(depth, height)` from `height` rows.
#[inline(always)]
pub(super) fn pack_strip<'a>(height: usize, row: impl Fn(usize) -> &'a [f32], to: &mut [f32]) {
    match height {
        1 => interleave::<1>([row(0)], to),
        2 => interleave::<2>([row(0), row(1)], to),
        3 => interleave::<3>([row(0), row(1), row(2)], to),
        4 => interleave::<4>([row(0), row(1), row(2), row(3)], to),
        5 => interleave::<5>([row(0), row(1), row(2), row(3), row(4)], to),
        6 => interleave::<6>([row(0), row(1), row(2), row(3), row(4), row(5)], to),
        _ => unreachable!("a strip of {height} rows"),
    }
}

/// A tile: `H` rows of one panel's 16 columns.
pub(super) type Tile<const H: usize> = [[f32; PANEL]; H];

/// Computes `tile += strip · panel` for a strip `(depth, H)` and each of `N` panels `(depth, 16)`.
#[inline(always)]
pub(super) fn multiply<L: Lanes, W: Stored, const H: usize, const N: usize>(
    lanes: L,
    strip: &[f32],
    panels: [&[W]; N],
    tiles: &mut [Tile<H>; N],
) {
    let (strip, _) = strip.as_chunks::<H>();
    let panels = panels.map(|panel| &panel.as_chunks::<PANEL>().0[..strip.len()]);
    // Loops rather than closures: only code that is inlined here is compiled for this machine's
    // instructions.
    let mut sums = [[[lanes.splat(0.0); 2]; H]; N];
    for (sums, tile) in sums.iter_mut().zip(&*tiles) {
        for (sums, columns) in sums.iter_mut().zip(tile) {
            let [left, right] = halves(columns);
            *sums = [lanes.load(left), lanes.load(right)];
        }
    }
    for (depth, rows) in strip.iter().enumerate() {
        for (panel, sums) in panels.iter().zip(&mut sums) {
            let [left, right] = halves(&panel[depth]);
            let (left, right) = (W::load(lanes, left), W::load(lanes, right));
            for (row, sums) in rows.iter().zip(sums) {
                let row = lanes.splat(*row);
                sums[0] = lanes.mul_add(row, left, sums[0]);
                sums[1] = lanes.mul_add(row, right, sums[1]);
            }
        }
    }
    for (sums, tile) in sums.iter().zip(tiles) {
        store(lanes, sums, tile);
    }
}

/// [`multiply`] by one panel, for a strip of as many rows as `tile` has.
#[inline(always)]
pub(super) fn multiply_strip<L: Lanes, W: Stored>(
    lanes: L,
    strip: &[f32],
    panel: &[W],
    tile: &mut [[f32; PANEL]],
) {
    const FITS: &str = "as many rows as were counted";
    match tile.len() {
        1 => one_panel::<L, W, 1>(lanes, strip, panel, tile.first_chunk_mut().expect(FITS)),
        2 => one_panel::<L, W, 2>(lanes, strip, panel, tile.first_chunk_mut().expect(FITS)),
        3 => one_panel::<L, W, 3>(lanes, strip, panel, tile.first_chunk_mut().expect(FITS)),
        4 => one_panel::<L, W, 4>(lanes, strip, panel, tile.first_chunk_mut().expect(FITS)),
        5 => one_panel::<L, W, 5>(lanes, strip, panel, tile.first_chunk_mut().expect(FITS)),
        6 => one_panel::<L, W, 6>(lanes, strip, panel, tile.first_chunk_mut().expect(FITS)),
        height => unreachable!("a strip of {height} rows"),
    }
}

#[inline(always)]
fn one_panel<L: Lanes, W: Stored, const H: usize>(
    lanes: L,
    strip: &[f32],
    panel: &[W],
    tile: &mut Tile<H>,
) {
    multiply::<L, W, H, 1>(lanes, strip, [panel], std::array::from_mut(tile));
}

#[inline(always)]
fn store<L: Lanes, const H: usize>(lanes: L, registers: &[[L::V; 2]; H], tile: &mut Tile<H>) {
    for (registers, columns) in registers.iter().zip(tile) {
        let (halves, _) = columns.as_chunks_mut::<8>();
        lanes.store(registers[0], &mut halves[0]);
        lanes.store(registers[1], &mut halves[1]);
    }
}

/// Number of bytes in a cache line.
const LINE: usize = 64;

/// Prefetches some streams of equal length, reading one number of each cache line in turns. Memory
/// delivers a few parallel streams faster than one, and during multiplications a core prefetches
/// too few lines ahead to keep it busy.
#[inline(always)]
pub(super) fn fetch<W: Stored>(streams: &[&[W]]) {
    let len = streams.first().map_or(0, |stream| stream.len());
    let mut bits = 0;
    for number in (0..len).step_by(LINE / size_of::<W>()) {
        for stream in streams {
            bits ^= stream[number].to_bits();
        }
    }
    // Keeps the compiler from removing the reads.
    std::hint::black_box(bits);
}

/// Computes `sums = sums · decay + weights · panel` for `H` rows and those of a panel's `W` steps
/// that are in `steps`.
#[inline(always)]
pub(super) fn accumulate<L: Lanes, const H: usize, const W: usize>(
    lanes: L,
    weights: &[[f32; W]; H],
    decay: &[f32; H],
    steps: Range<usize>,
    panel: &[[f32; PANEL]; W],
    sums: &mut Tile<H>,
) {
    let zero = lanes.splat(0.0);
    let mut registers = [[zero; 2]; H];
    for ((registers, sums), decay) in registers.iter_mut().zip(&*sums).zip(decay) {
        let decay = lanes.splat(*decay);
        let [left, right] = halves(sums);
        registers[0] = lanes.mul_add(lanes.load(left), decay, zero);
        registers[1] = lanes.mul_add(lanes.load(right), decay, zero);
    }
    for step in steps.start..steps.end.min(W) {
        let [left, right] = halves(&panel[step]);
        let (left, right) = (lanes.load(left), lanes.load(right));
        for (weights, registers) in weights.iter().zip(&mut registers) {
            let weight = lanes.splat(weights[step]);
            registers[0] = lanes.mul_add(weight, left, registers[0]);
            registers[1] = lanes.mul_add(weight, right, registers[1]);
        }
    }
    store(lanes, &registers, sums);
}

/// Splits a panel's row into two registers' worth.
#[inline(always)]
fn halves<T>(columns: &[T; PANEL]) -> [&[T; 8]; 2] {
    match columns.as_chunks::<8>().0 {
        [left, right] => [left, right],
        _ => unreachable!("16 is twice 8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_all_rows_evenly() {
        for num_rows in 0..100 {
            let mut next = 0;
            let mut heights = Vec::new();
            for (first, height) in strips(num_rows) {
                assert_eq!(first, next);
                next += height;
                heights.push(height);
            }
            assert_eq!(next, num_rows);
            let (least, most) = (heights.iter().min(), heights.iter().max());
            if let (Some(least), Some(most)) = (least, most) {
                assert!(*least >= 1 && *most <= MAX_HEIGHT && most - least <= 1);
            }
        }
    }
}
