//! Embedding lookup, and copying of sampled tokens into the next step's inputs.

use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `embed.cu`
pub static SOURCE: Source = Source {
    name: "embed.cu",
    text: include_str!("embed.cu"),
};

/// Arguments of an embedding lookup.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// `(rows)` u32
    pub token_ids: DevicePtr,
    /// `(vocab, width)` bf16
    pub table: DevicePtr,
    /// Factor, already rounded like the reference's.
    pub scale: f32,
    /// Number of rows of the step.
    pub num_rows: u32,
    /// Number of values per row, a multiple of 8.
    pub width: u32,
    /// `(rows, width)` f32
    pub out: DevicePtr,
}

/// Looks up and scales the rows.
///
/// # Errors
/// Fails if the width or an address does not allow reads of 16 bytes; returns the device's errors.
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

/// Copies samples of the previous step into this step's token ids.
///
/// `pairs (fed, 2)` u32 of (row, sample), `samples` u32, `token_ids (rows)` u32.
///
/// # Errors
/// Returns the device's errors.
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
