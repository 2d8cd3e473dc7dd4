//! The register tile that all products share: a few rows times one panel of 16 columns.
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
//! Each number of a tile is one chain of fused multiply-adds over depth, whatever `h` is. That is
//! why a row's result does not depend on the rows beside it.

use super::lanes::Lanes;

/// Columns of a panel: two registers of eight floats.
pub(super) const PANEL: usize = 16;

/// Rows of the highest tile: 6 · 2 sums, 2 columns and 1 broadcast fit 16 registers.
pub(super) const MAX_HEIGHT: usize = 6;

/// A number as weights are stored.
pub(super) trait Stored: Copy + Send + Sync + Default {
    fn load<L: Lanes>(lanes: L, from: &[Self; 8]) -> L::V;
    fn to_f32(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<L: Lanes>(lanes: L, from: &[f32; 8]) -> L::V {
        lanes.load(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// The upper half of an `f32`: bfloat16.
impl Stored for u16 {
    #[inline(always)]
    fn load<L: Lanes>(lanes: L, from: &[u16; 8]) -> L::V {
        lanes.widen(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
}

/// Cuts `num_rows` into strips of at most [`MAX_HEIGHT`] rows, as even as can be:
/// `(first row, height)`.
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
    let rows = rows.map(|row| &row[..to.len()]);
    for (depth, to) in to.iter_mut().enumerate() {
        *to = std::array::from_fn(|row| rows[row][depth]);
    }
}

/// Packs a strip `(depth, height)` out of `height` rows.
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

/// `H` rows of one panel's 16 columns.
pub(super) type Tile<const H: usize> = [[f32; PANEL]; H];

/// Products of a strip `(depth, H)` with `N` panels `(depth, 16)`.
///
/// Several panels at once keep the multipliers busy where `H` is small.
#[inline(always)]
pub(super) fn outer<L: Lanes, W: Stored, const H: usize, const N: usize>(
    lanes: L,
    strip: &[f32],
    panels: [&[W]; N],
) -> [Tile<H>; N] {
    let (strip, _) = strip.as_chunks::<H>();
    let panels = panels.map(|panel| &panel.as_chunks::<PANEL>().0[..strip.len()]);
    let mut sums = [[[lanes.splat(0.0); 2]; H]; N];
    for (depth, rows) in strip.iter().enumerate() {
        for (panel, sums) in panels.iter().zip(&mut sums) {
            let [left, right] = halves(&panel[depth]).map(|half| W::load(lanes, half));
            for (row, sums) in rows.iter().zip(sums) {
                let row = lanes.splat(*row);
                sums[0] = lanes.mul_add(row, left, sums[0]);
                sums[1] = lanes.mul_add(row, right, sums[1]);
            }
        }
    }
    sums.map(|sums| {
        sums.map(|sums| {
            let mut columns = [0.0; PANEL];
            for (sum, half) in sums.into_iter().zip(columns.as_chunks_mut::<8>().0) {
                lanes.store(sum, half);
            }
            columns
        })
    })
}

/// `sums = sums · decay + rows · panel` of `H` rows over a panel `(depth, 16)`.
#[inline(always)]
pub(super) fn accumulate<L: Lanes, const H: usize>(
    lanes: L,
    rows: [&[f32]; H],
    decay: &[f32; H],
    panel: &[f32],
    sums: &mut Tile<H>,
) {
    let (panel, _) = panel.as_chunks::<PANEL>();
    let rows = rows.map(|row| &row[..panel.len()]);
    let zero = lanes.splat(0.0);
    let mut registers: [[L::V; 2]; H] = std::array::from_fn(|row| {
        let decay = lanes.splat(decay[row]);
        halves(&sums[row]).map(|half| lanes.mul_add(lanes.load(half), decay, zero))
    });
    for (depth, columns) in panel.iter().enumerate() {
        let [left, right] = halves(columns).map(|half| lanes.load(half));
        for (row, registers) in rows.iter().zip(&mut registers) {
            let row = lanes.splat(row[depth]);
            registers[0] = lanes.mul_add(row, left, registers[0]);
            registers[1] = lanes.mul_add(row, right, registers[1]);
        }
    }
    for (registers, sums) in registers.into_iter().zip(sums) {
        for (register, half) in registers.into_iter().zip(sums.as_chunks_mut::<8>().0) {
            lanes.store(register, half);
        }
    }
}

/// The two registers' worth of a panel's row.
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
