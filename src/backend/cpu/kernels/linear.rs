//! `y = x · weightᵀ` for one row and for thousands.
//!
//! Owns the blocking and the sharing over threads. Depth is cut at fixed multiples of
//! [`DEPTH_BLOCK`]: within a block a number is one chain of fused multiply-adds, and the blocks'
//! sums are added in order. Nothing else decides the rounding, so a row's result is the same bits
//! alone, beside others and on any number of threads.

use rayon::prelude::*;

use super::elementwise::add_bias;
use super::lanes::{Kernel, Lanes, dispatch};
use super::packed::{PackedMatrix, Storage};
use super::tile::{PANEL, Stored, Tile, outer, pack_strip, strips};

/// Inputs that one register tile runs over: 16 KB of a panel, which stay in the first cache.
const DEPTH_BLOCK: usize = 256;

/// Rows whose share of a depth block (96 KB) stays in the second cache.
const ROW_BLOCK: usize = 96;

/// Below this many multiplications a product stays on the calling thread.
const PARALLEL_FROM: usize = 1 << 16;

/// Up to this many bytes of rows are read again for each panel; more of them per depth block.
const STREAM_BYTES: usize = 128 << 10;

/// From this many strips on, a block of bfloat16 is widened once instead of once per strip.
const WIDEN_FROM: usize = 3;

/// `y (m, n) = x (m, k) · weight (n, k)ᵀ`.
///
/// # Panics
/// If the lengths of `x` and `y` do not fit the weight's shape.
pub fn linear(x: &[f32], weight: &PackedMatrix, y: &mut [f32]) {
    let (n, k) = (weight.n(), weight.k());
    if y.is_empty() {
        return;
    }
    let m = y.len() / n;
    assert_eq!(
        (x.len(), y.len()),
        (m * k, m * n),
        "x and y of a product with ({n}, {k})"
    );
    let plan = Plan::new(m, n, k, rayon::current_num_threads());
    match &weight.storage {
        Storage::F32(numbers) => run(x, numbers, y, &plan),
        Storage::Bf16(numbers) => run(x, numbers, y, &plan),
    }
}

/// `y (m, n) = x (m, k) · weight (n, k)ᵀ + bias (n)`.
///
/// # Panics
/// As [`linear`].
pub fn linear_bias(x: &[f32], weight: &PackedMatrix, bias: &[f32], y: &mut [f32]) {
    linear(x, weight, y);
    add_bias(y, bias);
}

/// How one product is cut into tasks.
#[derive(Clone, Copy, Debug)]
struct Plan {
    m: usize,
    n: usize,
    k: usize,
    /// Rows of all tasks but the last row of them.
    rows_per_task: usize,
    /// Panels of all tasks but the last column of them.
    panels_per_task: usize,
}

impl Plan {
    fn new(m: usize, n: usize, k: usize, num_threads: usize) -> Self {
        let num_panels = n.div_ceil(PANEL);
        let num_row_blocks = m.div_ceil(ROW_BLOCK);
        // Several tasks per thread, so that one that started late is no one's wait.
        let num_tasks = match m * n * k {
            work if work < PARALLEL_FROM || num_threads == 1 => 1,
            work => (4 * num_threads).min(work / (PARALLEL_FROM / 4)),
        };
        let num_columns = num_tasks.div_ceil(num_row_blocks).min(num_panels);
        Self {
            m,
            n,
            k,
            rows_per_task: m.div_ceil(num_row_blocks),
            panels_per_task: num_panels.div_ceil(num_columns),
        }
    }
}

/// One rectangle of y.
struct Task<'a> {
    /// `(depth blocks, strips, depth, height)`: the rows, packed.
    x: &'a [f32],
    first_panel: usize,
    /// Each row's share of this rectangle's columns.
    y: Vec<&'a mut [f32]>,
}

fn run<W: Stored>(x: &[f32], weight: &[W], y: &mut [f32], plan: &Plan) {
    // One row is packed as it stands.
    let packed = if plan.m == 1 {
        Vec::new()
    } else {
        pack(x, plan)
    };
    let packed = if plan.m == 1 { x } else { &packed };

    let columns_per_task = plan.panels_per_task * PANEL;
    let num_columns = plan.n.div_ceil(columns_per_task);
    let mut tasks = Vec::with_capacity(num_columns * plan.m.div_ceil(plan.rows_per_task));
    for (x, y) in packed
        .chunks(plan.rows_per_task * plan.k)
        .zip(y.chunks_mut(plan.rows_per_task * plan.n))
    {
        let first_task = tasks.len();
        let num_rows = y.len() / plan.n;
        tasks.extend((0..num_columns).map(|column| Task {
            x,
            first_panel: column * plan.panels_per_task,
            y: Vec::with_capacity(num_rows),
        }));
        for row in y.chunks_mut(plan.n) {
            for (task, part) in tasks[first_task..]
                .iter_mut()
                .zip(row.chunks_mut(columns_per_task))
            {
                task.y.push(part);
            }
        }
    }

    let run_task = |task: Task<'_>| {
        dispatch(TaskKernel {
            task,
            weight,
            k: plan.k,
        })
    };
    match tasks.len() {
        1 => tasks.into_iter().for_each(run_task),
        _ => tasks.into_par_iter().for_each(run_task),
    }
}

/// Packs x for every task row: `(depth blocks, strips, depth, height)` of each.
fn pack(x: &[f32], plan: &Plan) -> Vec<f32> {
    let mut packed = vec![0.0; x.len()];
    let mut pieces = Vec::new();
    let rows_size = plan.rows_per_task * plan.k;
    for (mut to, x) in packed.chunks_mut(rows_size).zip(x.chunks(rows_size)) {
        let num_rows = x.len() / plan.k;
        for first in (0..plan.k).step_by(DEPTH_BLOCK) {
            let depth = DEPTH_BLOCK.min(plan.k - first);
            let (piece, rest) = to.split_at_mut(num_rows * depth);
            pieces.push((x, first, depth, piece));
            to = rest;
        }
    }
    let pack_piece = |(x, first, depth, mut piece): (&[f32], usize, usize, &mut [f32])| {
        for (first_row, height) in strips(x.len() / plan.k) {
            let (strip, rest) = piece.split_at_mut(height * depth);
            pack_strip(
                height,
                |row| &x[(first_row + row) * plan.k + first..][..depth],
                strip,
            );
            piece = rest;
        }
    };
    if x.len() < PARALLEL_FROM {
        pieces.into_iter().for_each(pack_piece);
    } else {
        pieces.into_par_iter().for_each(pack_piece);
    }
    packed
}

struct TaskKernel<'a, W> {
    task: Task<'a>,
    /// The whole weight `(panels, k, 16)`.
    weight: &'a [W],
    k: usize,
}

impl<W: Stored> Kernel for TaskKernel<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Task {
            x,
            first_panel,
            mut y,
        } = self.task;
        let (k, num_rows) = (self.k, y.len());
        let num_panels = y[0].len().div_ceil(PANEL);
        // Few rows: enough panels side by side to hide the latency of an addition.
        let group = match num_rows {
            1 => 4,
            2 => 2,
            _ => 1,
        };
        let mut wide = vec![
            0.0;
            if widens::<W>(num_rows) {
                DEPTH_BLOCK * PANEL
            } else {
                0
            }
        ];
        let mut block = |panel: usize, first: usize| {
            let depth = DEPTH_BLOCK.min(k - first);
            let x = &x[first * num_rows..][..depth * num_rows];
            let place = Place {
                column: panel * PANEL,
                is_first: first == 0,
            };
            let panels: [&[W]; 4] = std::array::from_fn(|idx| {
                let panel = first_panel + (panel + idx).min(num_panels - 1);
                &self.weight[(panel * k + first) * PANEL..][..depth * PANEL]
            });
            let panels = &panels[..group.min(num_panels - panel)];
            if wide.is_empty() {
                block(lanes, x, panels, &mut y, place);
            } else {
                let wide = &mut wide[..depth * PANEL];
                widen(lanes, panels[0], wide);
                block(lanes, x, &[&*wide], &mut y, place);
            }
        };
        if size_of_val(x) <= STREAM_BYTES {
            // The weight is read from front to back, as memory likes it.
            for panel in (0..num_panels).step_by(group) {
                for first in (0..k).step_by(DEPTH_BLOCK) {
                    block(panel, first);
                }
            }
        } else {
            for first in (0..k).step_by(DEPTH_BLOCK) {
                for panel in (0..num_panels).step_by(group) {
                    block(panel, first);
                }
            }
        }
    }
}

/// Where a tile's sums go.
#[derive(Clone, Copy)]
struct Place {
    /// First column within the task.
    column: usize,
    /// The first block of depth sets what the others add to.
    is_first: bool,
}

/// All rows of a task times a few panels, over one block of depth.
#[inline(always)]
fn block<L: Lanes, W: Stored>(
    lanes: L,
    mut x: &[f32],
    panels: &[&[W]],
    y: &mut [&mut [f32]],
    place: Place,
) {
    let depth = panels[0].len() / PANEL;
    for (first_row, height) in strips(y.len()) {
        let (strip, rest) = x.split_at(height * depth);
        x = rest;
        let y = &mut y[first_row..first_row + height];
        match height {
            1 => strip_times_panels::<L, W, 1, 4>(lanes, strip, panels, y, place),
            2 => strip_times_panels::<L, W, 2, 2>(lanes, strip, panels, y, place),
            3 => strip_times_panels::<L, W, 3, 1>(lanes, strip, panels, y, place),
            4 => strip_times_panels::<L, W, 4, 1>(lanes, strip, panels, y, place),
            5 => strip_times_panels::<L, W, 5, 1>(lanes, strip, panels, y, place),
            6 => strip_times_panels::<L, W, 6, 1>(lanes, strip, panels, y, place),
            _ => unreachable!("a strip of {height} rows"),
        }
    }
}

/// `H` rows times `N` panels at once, or one by one where fewer are left.
#[inline(always)]
fn strip_times_panels<L: Lanes, W: Stored, const H: usize, const N: usize>(
    lanes: L,
    strip: &[f32],
    panels: &[&[W]],
    y: &mut [&mut [f32]],
    place: Place,
) {
    let (groups, rest) = panels.as_chunks::<N>();
    let mut column = place.column;
    for panels in groups {
        for tile in outer::<L, W, H, N>(lanes, strip, *panels) {
            put(&tile, y, Place { column, ..place });
            column += PANEL;
        }
    }
    for panel in rest {
        let [tile] = outer::<L, W, H, 1>(lanes, strip, [*panel]);
        put(&tile, y, Place { column, ..place });
        column += PANEL;
    }
}

#[inline(always)]
fn put<const H: usize>(tile: &Tile<H>, y: &mut [&mut [f32]], place: Place) {
    for (sums, y) in tile.iter().zip(y) {
        let y = &mut y[place.column..];
        // The last panel may stand over the edge.
        let width = y.len().min(PANEL);
        if place.is_first {
            y[..width].copy_from_slice(&sums[..width]);
        } else if let Some(y) = y.first_chunk_mut::<PANEL>() {
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
        } else {
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
        }
    }
}

fn widens<W: Stored>(num_rows: usize) -> bool {
    size_of::<W>() < size_of::<f32>() && strips(num_rows).count() >= WIDEN_FROM
}

#[inline(always)]
fn widen<L: Lanes, W: Stored>(lanes: L, from: &[W], to: &mut [f32]) {
    for (from, to) in from
        .as_chunks::<8>()
        .0
        .iter()
        .zip(to.as_chunks_mut::<8>().0)
    {
        lanes.store(W::load(lanes, from), to);
    }
}

#[cfg(test)]
mod tests;
