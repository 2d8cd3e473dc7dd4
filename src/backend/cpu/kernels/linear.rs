//! Matmul `y = x · weightᵀ`, for one row and for thousands.
//!
//! Chooses the blocking and divides the work among threads. Depth is split at fixed multiples of
//! `DEPTH_BLOCK`: within a block a number is one chain of fused multiply-adds, and the blocks' sums
//! are added in order. Nothing else affects the rounding, so a row's result has the same bits
//! alone, with other rows and on any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::add_bias;
use super::lanes::{Kernel, Lanes, dispatch};
use super::packed::{PackedMatrix, Storage};
use super::tile::{MAX_HEIGHT, PANEL, Stored, fetch, multiply, multiply_strip, pack_strip, strips};

/// Number of inputs that one register tile runs over: 16 KB of a panel, which fit in the L1 cache.
const DEPTH_BLOCK: usize = 256;

/// Number of rows whose part of a depth block (144 KB) stays in the L2 cache.
const ROW_BLOCK: usize = 144;

/// Number of panels whose sums (72 KB) also stay in the L2 cache.
const PANEL_BLOCK: usize = 8;

/// With fewer multiplications than this, a matmul stays on the calling thread.
const PARALLEL_FROM: usize = 1 << 16;

/// Up to this many rows, the panels of an `f32` weight are processed in turns.
const TURN_ROWS: usize = 16;

/// From this many strips on, a block of bfloat16 is widened once instead of once per strip.
const WIDEN_FROM: usize = 3;

/// Number of panels that are read in turns: memory delivers that many streams faster than one.
const STREAMS: usize = 4;

/// Number of bytes that a stream reads in its turn.
const TURN_BYTES: usize = 2048;

/// Computes `y (m, n) = x (m, k) · weight (n, k)ᵀ`.
///
/// # Panics
/// Panics if the lengths of `x` and `y` do not fit the weight's shape.
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

/// Computes `y (m, n) = x (m, k) · weight (n, k)ᵀ + bias (n)`.
///
/// # Panics
/// Panics like [`linear`].
pub fn linear_bias(x: &[f32], weight: &PackedMatrix, bias: &[f32], y: &mut [f32]) {
    linear(x, weight, y);
    add_bias(y, bias);
}

/// How one matmul is split into tasks.
#[derive(Clone, Copy, Debug)]
struct Plan {
    m: usize,
    n: usize,
    k: usize,
    /// Number of rows of each task, except the last ones.
    rows_per_task: usize,
    /// Number of panels of each task, except the last ones.
    panels_per_task: usize,
}

impl Plan {
    fn new(m: usize, n: usize, k: usize, num_threads: usize) -> Self {
        let num_panels = n.div_ceil(PANEL);
        let num_row_blocks = m.div_ceil(ROW_BLOCK);
        // Several tasks per thread, so that a thread that starts late does not delay the others.
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

/// A task: one rectangle of y.
struct Task<'a> {
    /// `(depth blocks, strips, depth, height)`: the rows, packed.
    x: &'a [f32],
    first_panel: usize,
    /// Each row's part of this rectangle's columns.
    y: Vec<&'a mut [f32]>,
}

fn run<W: Stored>(x: &[f32], weight: &[W], y: &mut [f32], plan: &Plan) {
    // A single row is used as it is.
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
        match self.task.y.len() {
            1 => self.side_by_side::<L, 1, 4>(lanes),
            2 => self.side_by_side::<L, 2, 3>(lanes),
            // With half the bytes per multiplication, memory keeps up without turns.
            3..=TURN_ROWS if W::IS_F32 => self.in_turns(lanes),
            _ => self.blocked(lanes),
        }
    }
}

impl<'a, W: Stored> TaskKernel<'a, W> {
    /// Returns the part of a panel that is in `depths`; panels are counted from the task's first.
    #[inline(always)]
    fn panel(&self, panel: usize, depths: Range<usize>) -> &'a [W] {
        let first = (self.task.first_panel + panel) * self.k;
        &self.weight[(first + depths.start) * PANEL..(first + depths.end) * PANEL]
    }

    fn num_panels(&self) -> usize {
        self.task.y[0].len().div_ceil(PANEL)
    }

    /// Processes `H` rows and `N` panels in registers at once.
    #[inline(always)]
    fn side_by_side<L: Lanes, const H: usize, const N: usize>(mut self, lanes: L) {
        let num_panels = self.num_panels();
        for first in (0..num_panels).step_by(N) {
            for block in depth_blocks(self.k) {
                let x = &self.task.x[block.start * H..block.end * H];
                let mut sums = [[[0.0; PANEL]; H]; N];
                if first + N <= num_panels {
                    let mut panels: [&[W]; N] = [&[]; N];
                    for (idx, panel) in panels.iter_mut().enumerate() {
                        *panel = self.panel(first + idx, block.clone());
                    }
                    multiply::<L, W, H, N>(lanes, x, panels, &mut sums);
                } else {
                    for (panel, sums) in (first..num_panels).zip(&mut sums) {
                        multiply_strip(lanes, x, self.panel(panel, block.clone()), sums);
                    }
                }
                for (panel, sums) in (first..num_panels).zip(&sums) {
                    put(sums, &mut self.task.y, panel, block.start == 0);
                }
            }
        }
    }

    /// Processes [`STREAMS`] panels in turns.
    #[inline(always)]
    fn in_turns<L: Lanes>(mut self, lanes: L) {
        let num_rows = self.task.y.len();
        let num_panels = self.num_panels();
        let mut sums = [[0.0; PANEL]; STREAMS * TURN_ROWS];
        for first in (0..num_panels).step_by(STREAMS) {
            let num_streams = STREAMS.min(num_panels - first);
            let sums = &mut sums[..num_streams * num_rows];
            for block in depth_blocks(self.k) {
                sums.fill([0.0; PANEL]);
                let x = &self.task.x[block.start * num_rows..block.end * num_rows];
                let mut panels: [&[W]; STREAMS] = [&[]; STREAMS];
                for (idx, panel) in panels[..num_streams].iter_mut().enumerate() {
                    *panel = self.panel(first + idx, block.clone());
                }
                take_turns(lanes, x, &panels[..num_streams], num_rows, sums);
                for (idx, sums) in sums.chunks_exact(num_rows).enumerate() {
                    put(sums, &mut self.task.y, first + idx, block.start == 0);
                }
            }
        }
    }

    /// Multiplies each panel's part of a depth block by all rows while it is in the L1 cache; the
    /// sums of [`PANEL_BLOCK`] panels stay in the L2 cache.
    #[inline(always)]
    fn blocked<L: Lanes>(mut self, lanes: L) {
        let num_rows = self.task.y.len();
        let num_panels = self.num_panels();
        let widens = !W::IS_F32 && strips(num_rows).count() >= WIDEN_FROM;
        let mut wide = vec![0.0; if widens { DEPTH_BLOCK * PANEL } else { 0 }];
        let panel_block = if num_rows <= TURN_ROWS {
            1
        } else {
            PANEL_BLOCK
        };
        let mut sums = vec![[0.0; PANEL]; panel_block * num_rows];
        for first in (0..num_panels).step_by(panel_block) {
            let panels = first..num_panels.min(first + panel_block);
            sums.fill([0.0; PANEL]);
            for block in depth_blocks(self.k) {
                let x = &self.task.x[block.start * num_rows..block.end * num_rows];
                for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(num_rows)) {
                    let panel = self.panel(panel, block.clone());
                    if widens {
                        let wide = &mut wide[..panel.len()];
                        widen(lanes, panel, wide);
                        all_strips(lanes, x, wide, sums);
                    } else {
                        all_strips(lanes, x, panel, sums);
                    }
                }
            }
            for (panel, sums) in panels.zip(sums.chunks_exact(num_rows)) {
                put(sums, &mut self.task.y, panel, true);
            }
        }
    }
}

/// Adds the products of all rows with one panel over one block of depth.
#[inline(always)]
fn all_strips<L: Lanes, W: Stored>(lanes: L, x: &[f32], panel: &[W], sums: &mut [[f32; PANEL]]) {
    let depth = panel.len() / PANEL;
    for (row, height) in strips(sums.len()) {
        let strip = &x[row * depth..][..height * depth];
        let mut products = [[0.0; PANEL]; MAX_HEIGHT];
        let products = &mut products[..height];
        multiply_strip(lanes, strip, panel, products);
        for (sums, products) in sums[row..].iter_mut().zip(products) {
            sums.iter_mut()
                .zip(products)
                .for_each(|(sum, product)| *sum += *product);
        }
    }
}

/// Multiplies the rows by several panels, a few depth steps each in turns, and prefetches those
/// steps of all panels: measured a third faster at 4 to 8 rows.
#[inline(always)]
fn take_turns<L: Lanes, W: Stored>(
    lanes: L,
    x: &[f32],
    panels: &[&[W]],
    num_rows: usize,
    sums: &mut [[f32; PANEL]],
) {
    let depth = x.len() / num_rows;
    let turn = TURN_BYTES / (PANEL * size_of::<W>());
    for first in (0..depth).step_by(turn) {
        let len = turn.min(depth - first);
        let mut parts: [&[W]; STREAMS] = [&[]; STREAMS];
        let parts = &mut parts[..panels.len()];
        for (part, panel) in parts.iter_mut().zip(panels) {
            *part = &panel[first * PANEL..][..len * PANEL];
        }
        fetch(parts);
        for (panel, sums) in parts.iter().zip(sums.chunks_exact_mut(num_rows)) {
            for (row, height) in strips(num_rows) {
                let strip = &x[row * depth + first * height..][..len * height];
                multiply_strip(lanes, strip, panel, &mut sums[row..][..height]);
            }
        }
    }
}

/// Returns the depth blocks, which determine how sums are rounded.
#[inline(always)]
fn depth_blocks(k: usize) -> impl Iterator<Item = Range<usize>> {
    (0..k)
        .step_by(DEPTH_BLOCK)
        .map(move |first| first..k.min(first + DEPTH_BLOCK))
}

/// Writes a block's sums, or adds them to those of the previous blocks.
#[inline(always)]
fn put(sums: &[[f32; PANEL]], y: &mut [&mut [f32]], panel: usize, is_first: bool) {
    for (sums, y) in sums.iter().zip(y) {
        let y = &mut y[panel * PANEL..];
        // The last panel may extend past the edge.
        let width = y.len().min(PANEL);
        if is_first {
            y[..width].copy_from_slice(&sums[..width]);
        } else if let Some(y) = y.first_chunk_mut::<PANEL>() {
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
        } else {
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
        }
    }
}

/// Widens `to.len()` numbers.
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
