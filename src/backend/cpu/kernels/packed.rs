//! A matmul's weight, stored in the order in which the register tile reads it.
//!
//! Owns the layout and its loading. Knows nothing of the multiplication.
//!
//! ```text
//! rows of the checkpoint (n, k)         panels of 16 rows, each (k, 16)
//! w[0][0] w[0][1] …                     w[0][0] w[1][0] … w[15][0]
//! w[1][0] w[1][1] …                →    w[0][1] w[1][1] … w[15][1]
//! …                                     …
//! ```
//!
//! One layout is used for one row (a stream) and for thousands (a blocked matmul), so no weight is
//! stored twice. The last panel is padded with zeros.

use rayon::prelude::*;

use super::tile::{PANEL, Stored};
use crate::backend::host_tensor::{HostDtype, HostTensor};

/// Number of depth steps that are packed at a time: 4 KB of a panel.
const FILL_STEPS: usize = 64;

/// A weight `(n, k)`: `n` outputs of `k` inputs each.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    /// Number of outputs: rows of the weight.
    n: usize,
    /// Number of inputs: columns of the weight.
    k: usize,
    pub(super) storage: Storage,
}

/// Panels `(⌈n / 16⌉, k, 16)`, in the file's number type.
#[derive(Clone, Debug)]
pub(super) enum Storage {
    F32(Vec<f32>),
    /// bfloat16: upper halves of `f32`s, widened in registers. Half the memory traffic, the same
    /// numbers.
    Bf16(Vec<u16>),
}

impl PackedMatrix {
    /// Stacks `(n_i, k)` weights to one `(Σ n_i, k)`. Stays bfloat16 if all parts are.
    ///
    /// # Panics
    /// Panics if a part is not a matrix of `k` columns, or its bytes do not fill its shape; the
    /// loader has checked shapes against the model's.
    pub fn stacked(parts: &[HostTensor<'_>]) -> Self {
        let k = parts.first().map_or(0, |part| part.shape[1]);
        for part in parts {
            check_bytes(part);
            assert_eq!(part.shape[1], k, "stacked weights of different widths");
        }
        let n = parts.iter().map(|part| part.shape[0]).sum();
        let rows = StackedRows { parts };
        let all_bf16 = parts.iter().all(|part| part.dtype == HostDtype::Bf16);
        let storage = if all_bf16 {
            Storage::Bf16(pack(n, k, |first, panel| rows.fill_bf16(first, panel)))
        } else {
            Storage::F32(pack(n, k, |first, panel| rows.fill_f32(first, panel)))
        };
        Self { n, k, storage }
    }

    /// Packs a weight stored as its transpose `(k, n)`.
    ///
    /// # Panics
    /// Panics like [`Self::stacked`].
    pub fn transposed(tensor: &HostTensor<'_>) -> Self {
        check_bytes(tensor);
        let (k, n) = (tensor.shape[0], tensor.shape[1]);
        let storage = match tensor.dtype {
            HostDtype::F32 => Storage::F32(pack(n, k, |first, panel| {
                let (numbers, _) = tensor.data.as_chunks::<4>();
                fill_transposed(numbers, n, first, panel, |bytes| f32::from_le_bytes(*bytes));
            })),
            HostDtype::Bf16 => Storage::Bf16(pack(n, k, |first, panel| {
                let (numbers, _) = tensor.data.as_chunks::<2>();
                fill_transposed(numbers, n, first, panel, |bytes| u16::from_le_bytes(*bytes));
            })),
        };
        Self { n, k, storage }
    }

    /// Number of outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Returns the format of the numbers.
    pub fn format(&self) -> HostDtype {
        match &self.storage {
            Storage::F32(_) => HostDtype::F32,
            Storage::Bf16(_) => HostDtype::Bf16,
        }
    }

    /// Number of bytes held.
    pub fn num_bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(numbers) => size_of_val(numbers.as_slice()),
            Storage::Bf16(numbers) => size_of_val(numbers.as_slice()),
        }
    }

    /// Writes row `row` of the weight, times `scale`, to `out (k)`, as an embedding lookup.
    ///
    /// # Panics
    /// Panics if there is no such row or `out` has another length.
    pub fn gather_row(&self, row: usize, scale: f32, out: &mut [f32]) {
        assert!(row < self.n, "row {row} of a weight of {} rows", self.n);
        assert_eq!(out.len(), self.k, "a row of the weight");
        let (panel, column) = (row / PANEL, row % PANEL);
        match &self.storage {
            Storage::F32(numbers) => gather(numbers, panel, column, scale, out),
            Storage::Bf16(numbers) => gather(numbers, panel, column, scale, out),
        }
    }
}

fn gather<W: Stored>(numbers: &[W], panel: usize, column: usize, scale: f32, out: &mut [f32]) {
    let size = out.len() * PANEL;
    let (steps, _) = numbers[panel * size..][..size].as_chunks::<PANEL>();
    for (out, step) in out.iter_mut().zip(steps) {
        *out = step[column].to_f32() * scale;
    }
}

fn check_bytes(tensor: &HostTensor<'_>) {
    let [rows, columns] = tensor.shape[..] else {
        panic!("a weight of shape {:?} is not a matrix", tensor.shape);
    };
    assert_eq!(
        Some(tensor.data.len()),
        tensor.dtype.blocks().num_bytes(&tensor.shape),
        "bytes of a weight {rows} × {columns} of {:?}",
        tensor.dtype
    );
}

/// Creates all panels in parallel, each filled by `fill(first row, panel)`.
fn pack<W: Stored>(n: usize, k: usize, fill: impl Fn(usize, &mut [W]) + Sync) -> Vec<W> {
    let mut numbers = vec![W::default(); n.div_ceil(PANEL) * k * PANEL];
    numbers
        .par_chunks_mut((k * PANEL).max(1))
        .enumerate()
        .for_each(|(panel, numbers)| fill(panel * PANEL, numbers));
    numbers
}

/// Rows of several stacked weights.
struct StackedRows<'a> {
    parts: &'a [HostTensor<'a>],
}

impl StackedRows<'_> {
    /// Returns the type and the bytes of one row; `None` past the last one.
    fn row(&self, mut row: usize) -> Option<(HostDtype, &[u8])> {
        for part in self.parts {
            let num_rows = part.shape[0];
            if row < num_rows {
                let num_bytes = part.data.len() / num_rows;
                return Some((part.dtype, &part.data[row * num_bytes..][..num_bytes]));
            }
            row -= num_rows;
        }
        None
    }

    fn fill_bf16(&self, first: usize, panel: &mut [u16]) {
        self.fill(first, panel, |_, bytes, column, steps| {
            scatter(bytes.as_chunks().0, column, steps, |bytes| {
                u16::from_le_bytes(*bytes)
            });
        });
    }

    fn fill_f32(&self, first: usize, panel: &mut [f32]) {
        self.fill(first, panel, |dtype, bytes, column, steps| match dtype {
            HostDtype::F32 => scatter(bytes.as_chunks().0, column, steps, |bytes| {
                f32::from_le_bytes(*bytes)
            }),
            HostDtype::Bf16 => scatter(bytes.as_chunks().0, column, steps, |bytes| {
                u16::from_le_bytes(*bytes).to_f32()
            }),
        });
    }

    /// Fills a panel by `put(type, bytes of a part of a row, column, part of the panel)`: all rows
    /// for a few depth steps at a time, so that a cache line of the panel is complete before it
    /// leaves the cache.
    fn fill<W>(
        &self,
        first: usize,
        panel: &mut [W],
        put: impl Fn(HostDtype, &[u8], usize, &mut [[W; PANEL]]),
    ) {
        let (panel, _) = panel.as_chunks_mut::<PANEL>();
        for (idx, steps) in panel.chunks_mut(FILL_STEPS).enumerate() {
            for column in 0..PANEL {
                if let Some((dtype, row)) = self.row(first + column) {
                    let blocks = dtype.blocks();
                    let bytes_of = |steps| blocks.row_bytes(steps).expect("whole blocks");
                    let start = idx * bytes_of(FILL_STEPS);
                    put(dtype, &row[start..][..bytes_of(steps.len())], column, steps);
                }
            }
        }
    }
}

/// Writes a part of a row of the weight into one column of its panel.
fn scatter<T, W>(row: &[T], column: usize, steps: &mut [[W; PANEL]], read: impl Fn(&T) -> W) {
    for (number, step) in row.iter().zip(steps) {
        step[column] = read(number);
    }
}

/// Copies 16 columns of a `(k, n)` source, fewer at its edge.
fn fill_transposed<T, W: Stored>(
    source: &[T],
    n: usize,
    first: usize,
    panel: &mut [W],
    read: impl Fn(&T) -> W,
) {
    let num_columns = PANEL.min(n - first);
    for (row, step) in source.chunks_exact(n).zip(panel.as_chunks_mut::<PANEL>().0) {
        for (number, to) in row[first..first + num_columns].iter().zip(step) {
            *to = read(number);
        }
    }
}
