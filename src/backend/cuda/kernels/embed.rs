//! Rows of the embedding table, and the tokens that choose them.

use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `embed.cu`
pub static SOURCE: Source = Source {
    name: "embed.cu",
    text: include_str!("embed.cu"),
};

/// Scaled rows of a table.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// `(rows)` u32
    pub token_ids: DevicePtr,
    /// `(vocab, width)` bf16
    pub table: DevicePtr,
    /// Factor, already rounded as the reference rounds it.
    pub scale: f32,
    /// Rows of the step.
    pub num_rows: u32,
    /// Numbers per row, a multiple of 8.
    pub width: u32,
    /// `(rows, width)` f32
    pub out: DevicePtr,
}

/// Looks the rows up.
///
/// # Errors
/// A width or an address that cannot be read 16 bytes at a time; the device's own.
pub fn embed<D: Device>(device: &D, op: &Embed) -> Result<()> {
    require(op.width.is_multiple_of(8), || {
        format!("embed: width {} is not a multiple of 8", op.width)
    })?;
    require_aligned("embed", &[op.table, op.out])?;
    let kernel = KernelId {
        source: &SOURCE,
        function: "embed",
        defines: &[],
    };
    let args = [
        Arg::Ptr(op.token_ids),
        Arg::Ptr(op.table),
        Arg::F32(op.scale),
        Arg::U32(op.width),
        Arg::Ptr(op.out),
    ];
    launch(device, kernel, Shape::rows(op.num_rows), 0, &args)
}

/// Puts the samples of the step before where this step's tokens are looked up.
///
/// `pairs (fed, 2)` u32 of (row, sample), `samples` u32, `token_ids (rows)` u32.
///
/// # Errors
/// The device's own.
pub fn feed<D: Device>(
    device: &D,
    pairs: DevicePtr,
    num_pairs: u32,
    sampled_tokens: DevicePtr,
    token_ids: DevicePtr,
) -> Result<()> {
    require_aligned("feed", &[pairs])?;
    let kernel = KernelId {
        source: &SOURCE,
        function: "feed",
        defines: &[],
    };
    let args = [
        Arg::Ptr(pairs),
        Arg::U32(num_pairs),
        Arg::Ptr(sampled_tokens),
        Arg::Ptr(token_ids),
    ];
    launch(
        device,
        kernel,
        Shape::numbers(u64::from(num_pairs)),
        0,
        &args,
    )
}
