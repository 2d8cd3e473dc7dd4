//! A matmul for one to eight rows, with a fused prologue and epilogue.

use super::norm::AddNormNorm;
use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `gemv.cu`
pub static SOURCE: Source = Source {
    name: "gemv.cu",
    text: include_str!("gemv.cu"),
};

/// Maximum number of rows that the kernel supports.
pub const MAX_ROWS: u32 = 8;

/// Constants of the kernel.
const NUM_WARPS: u32 = 8;
const COLUMNS: u32 = 4;

/// Source of a matmul's rows.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// `(rows, width)` bf16
    Given(DevicePtr),
    /// Computed by every block for itself; `out` is not written, and `sum` must be another buffer
    /// than `residual`.
    AddNormNorm(&'a AddNormNorm),
}

/// Output of a matmul.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `(rows, out)` f32
    F32,
    /// `(rows, out)` bf16
    Bf16,
    /// The weight is `(2·out, width)`, gate first: `gelu_tanh(gate) · up (rows, out)` bf16
    Geglu,
}

/// `out = x · weightᵀ`
#[derive(Clone, Copy, Debug)]
pub struct Gemv<'a> {
    /// Number of rows, 1 to [`MAX_ROWS`].
    pub num_rows: u32,
    /// Number of values per row, a multiple of 8.
    pub width: u32,
    /// Number of values per row of `out`.
    pub num_out: u32,
    /// Source of the rows.
    pub input: Input<'a>,
    /// `(num_out, width)` bf16, or twice as many rows for [`Output::Geglu`]
    pub weight: DevicePtr,
    /// Kind of output.
    pub output: Output,
    /// `(rows, num_out)`
    pub out: DevicePtr,
    /// Number of multiprocessors of the device, all of which should have work.
    pub num_multiprocessors: u32,
}

/// # Errors
/// Fails for shapes or addresses that the kernel does not support; returns the device's errors.
pub fn gemv<D: Device>(device: &D, op: &Gemv<'_>) -> Result<()> {
    require((1..=MAX_ROWS).contains(&op.num_rows), || {
        format!("gemv: {} rows, not 1 to {MAX_ROWS}", op.num_rows)
    })?;
    require(op.width > 0 && op.width.is_multiple_of(8), || {
        format!("gemv: width {} is not a multiple of 8", op.width)
    })?;
    require_aligned("gemv", &[op.weight, op.out])?;
    let group_out = match op.output {
        Output::Geglu => COLUMNS / 2,
        Output::F32 | Output::Bf16 => COLUMNS,
    };
    let tiles = |warps_k: u32| op.num_out.div_ceil(NUM_WARPS / warps_k * group_out);
    // As few warps per sum as possible while every multiprocessor gets two blocks.
    let warps_k = [1, 2, 4, 8]
        .into_iter()
        .find(|&warps_k| tiles(warps_k) >= 2 * op.num_multiprocessors)
        .unwrap_or(NUM_WARPS);
    let mut shared_bytes = NUM_WARPS * COLUMNS * op.num_rows * 4;
    let (given, norm) = match op.input {
        Input::Given(rows) => {
            require_aligned("gemv", &[rows])?;
            (rows, None)
        }
        Input::AddNormNorm(norm) => {
            require(norm.sum != norm.residual, || {
                "gemv: the sum would overwrite the residual that other blocks read".to_owned()
            })?;
            shared_bytes += op.num_rows * op.width * 2;
            (norm.residual, Some(norm))
        }
    };
    let defines = [
        ("ROWS", op.num_rows),
        ("WARPS_K", warps_k),
        ("PROLOGUE", u32::from(norm.is_some())),
        (
            "EPILOGUE",
            match op.output {
                Output::F32 => 0,
                Output::Bf16 => 1,
                Output::Geglu => 2,
            },
        ),
    ];
    let kernel = KernelId {
        source: &SOURCE,
        function: "gemv",
        defines: &defines,
    };
    // Without a prologue the kernel never reads its arguments.
    let none = (given, given, given, given, 0.0, given);
    let (residual, branch, post, next, eps, sum) = norm.map_or(none, |norm| {
        (
            norm.residual,
            norm.branch,
            norm.post,
            norm.next,
            norm.eps,
            norm.sum,
        )
    });
    let args = [
        Arg::Ptr(given),
        Arg::Ptr(op.weight),
        Arg::U32(op.width),
        Arg::U32(op.num_out),
        Arg::Ptr(residual),
        Arg::Ptr(branch),
        Arg::Ptr(post),
        Arg::Ptr(next),
        Arg::F32(eps),
        Arg::Ptr(sum),
        Arg::Ptr(op.out),
    ];
    let num_blocks = tiles(warps_k).min(2 * op.num_multiprocessors);
    let shape = Shape {
        grid: [num_blocks, 1, 1],
        threads: NUM_WARPS * 32,
    };
    launch(device, kernel, shape, shared_bytes, &args)
}
