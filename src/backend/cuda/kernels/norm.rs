//! RMS and layer norms over rows.

use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `norm.cu`
pub static SOURCE: Source = Source {
    name: "norm.cu",
    text: include_str!("norm.cu"),
};

/// One float per warp of a block.
const SCRATCH_BYTES: u32 = 8 * 4;

/// Number and width of rows.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Number of rows.
    pub num_rows: u32,
    /// Number of values per row, a multiple of 4.
    pub width: u32,
}

impl Rows {
    fn check(&self, kernel: &str, addresses: &[DevicePtr]) -> Result<()> {
        require(self.width.is_multiple_of(4), || {
            format!("{kernel}: width {} is not a multiple of 4", self.width)
        })?;
        require_aligned(kernel, addresses)
    }
}

/// `out = x / rms(x) · weight`
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// `(rows, width)` f32
    pub x: DevicePtr,
    /// `(width)` f32, 1 + w
    pub weight: DevicePtr,
    /// Added to the mean square.
    pub eps: f32,
    /// `(rows, width)` bf16
    pub out: DevicePtr,
}

/// # Errors
/// Fails for a width or an address that the kernel does not support; returns the device's errors.
pub fn rms_norm<D: Device>(device: &D, rows: Rows, op: &RmsNorm) -> Result<()> {
    rows.check("rms_norm", &[op.x, op.weight, op.out])?;
    let kernel = KernelId {
        source: &SOURCE,
        function: "rms_norm",
        defines: &[],
    };
    let args = [
        Arg::Ptr(op.x),
        Arg::Ptr(op.weight),
        Arg::F32(op.eps),
        Arg::U32(rows.width),
        Arg::Ptr(op.out),
    ];
    launch(
        device,
        kernel,
        Shape::rows(rows.num_rows),
        SCRATCH_BYTES,
        &args,
    )
}

/// `sum = residual + norm(branch, post)`, `out = norm(sum, next)`
#[derive(Clone, Copy, Debug)]
pub struct AddNormNorm {
    /// `(rows, width)` f32
    pub residual: DevicePtr,
    /// `(rows, width)` f32
    pub branch: DevicePtr,
    /// `(width)` f32, 1 + w
    pub post: DevicePtr,
    /// `(width)` f32, 1 + w
    pub next: DevicePtr,
    /// Added to the mean squares.
    pub eps: f32,
    /// `(rows, width)` f32; may be `residual` if the separate kernel computes it.
    pub sum: DevicePtr,
    /// `(rows, width)` bf16
    pub out: DevicePtr,
}

/// # Errors
/// Fails for a width or an address that the kernel does not support; returns the device's errors.
pub fn add_norm_norm<D: Device>(device: &D, rows: Rows, op: &AddNormNorm) -> Result<()> {
    rows.check(
        "add_norm_norm",
        &[op.residual, op.branch, op.post, op.next, op.sum, op.out],
    )?;
    let kernel = KernelId {
        source: &SOURCE,
        function: "add_norm_norm",
        defines: &[],
    };
    let args = [
        Arg::Ptr(op.residual),
        Arg::Ptr(op.branch),
        Arg::Ptr(op.post),
        Arg::Ptr(op.next),
        Arg::F32(op.eps),
        Arg::U32(rows.width),
        Arg::Ptr(op.sum),
        Arg::Ptr(op.out),
    ];
    let shared_bytes = SCRATCH_BYTES + rows.width * 4;
    launch(
        device,
        kernel,
        Shape::rows(rows.num_rows),
        shared_bytes,
        &args,
    )
}

/// Output type of a layer norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOutput {
    /// bf16, as input of a matmul.
    Bf16,
    /// f32, for everything else.
    F32,
}

/// `out = (x − mean) / deviation · weight + bias`
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// `(rows, width)` f32
    pub x: DevicePtr,
    /// `(width)` f32
    pub weight: DevicePtr,
    /// `(width)` f32
    pub bias: DevicePtr,
    /// Added to the variance.
    pub eps: f32,
    /// `(rows, width)`
    pub out: DevicePtr,
    /// Number type of `out`.
    pub output: NormOutput,
}

/// # Errors
/// Fails for a width or an address that the kernel does not support; returns the device's errors.
pub fn layer_norm<D: Device>(device: &D, rows: Rows, op: &LayerNorm) -> Result<()> {
    rows.check("layer_norm", &[op.x, op.weight, op.bias, op.out])?;
    let defines: &[_] = match op.output {
        NormOutput::Bf16 => &[],
        NormOutput::F32 => &[("OUT_F32", 1)],
    };
    let kernel = KernelId {
        source: &SOURCE,
        function: "layer_norm",
        defines,
    };
    let args = [
        Arg::Ptr(op.x),
        Arg::Ptr(op.weight),
        Arg::Ptr(op.bias),
        Arg::F32(op.eps),
        Arg::U32(rows.width),
        Arg::Ptr(op.out),
    ];
    launch(
        device,
        kernel,
        Shape::rows(rows.num_rows),
        SCRATCH_BYTES,
        &args,
    )
}
