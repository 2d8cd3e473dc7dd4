//! Element-wise kernels: activations, sums, conversions, row copies, pooling, patches.

use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `elementwise.cu`
pub static SOURCE: Source = Source {
    name: "elementwise.cu",
    text: include_str!("elementwise.cu"),
};

fn each<D: Device>(device: &D, function: &'static str, count: u64, args: &[Arg]) -> Result<()> {
    let kernel = KernelId {
        source: &SOURCE,
        function,
        defines: &[],
    };
    launch(device, kernel, Shape::numbers(count), 0, args)
}

/// Computes `gelu_tanh(gate) · up`: `gate_up (rows, 2·width)` f32, gate first → `out (rows, width)`
/// bf16.
///
/// # Errors
/// Returns the device's errors.
pub fn geglu<D: Device>(
    device: &D,
    gate_up: DevicePtr,
    num_rows: u32,
    width: u32,
    out: DevicePtr,
) -> Result<()> {
    let count = u64::from(num_rows) * u64::from(width);
    let args = [
        Arg::Ptr(gate_up),
        Arg::U64(count),
        Arg::U32(width),
        Arg::Ptr(out),
    ];
    each(device, "geglu", count, &args)
}

/// Computes `x (count)` f32 → `gelu_tanh(x)` bf16.
///
/// # Errors
/// Returns the device's errors.
pub fn gelu<D: Device>(device: &D, x: DevicePtr, count: u64, out: DevicePtr) -> Result<()> {
    each(
        device,
        "gelu",
        count,
        &[Arg::Ptr(x), Arg::U64(count), Arg::Ptr(out)],
    )
}

/// Computes `out = a + b`, f32; `out` may be either.
///
/// # Errors
/// Returns the device's errors.
pub fn add<D: Device>(
    device: &D,
    a: DevicePtr,
    b: DevicePtr,
    count: u64,
    out: DevicePtr,
) -> Result<()> {
    let args = [Arg::Ptr(a), Arg::Ptr(b), Arg::U64(count), Arg::Ptr(out)];
    each(device, "add", count, &args)
}

/// Converts `x (count)` f32 → bf16.
///
/// # Errors
/// Returns the device's errors.
pub fn to_bf16<D: Device>(device: &D, x: DevicePtr, count: u64, out: DevicePtr) -> Result<()> {
    each(
        device,
        "to_bf16",
        count,
        &[Arg::Ptr(x), Arg::U64(count), Arg::Ptr(out)],
    )
}

/// Converts `x (count)` bf16 → f32.
///
/// # Errors
/// Returns the device's errors.
pub fn to_f32<D: Device>(device: &D, x: DevicePtr, count: u64, out: DevicePtr) -> Result<()> {
    each(
        device,
        "to_f32",
        count,
        &[Arg::Ptr(x), Arg::U64(count), Arg::Ptr(out)],
    )
}

/// Arguments of a row selection; the number type does not matter.
#[derive(Clone, Copy, Debug)]
pub struct SelectRows {
    /// `(…, row_bytes)`
    pub x: DevicePtr,
    /// `(selected)` u32
    pub rows: DevicePtr,
    /// Number of selected rows.
    pub num_selected: u32,
    /// Number of bytes per row, a multiple of 16.
    pub row_bytes: u32,
    /// `(selected, row_bytes)`
    pub out: DevicePtr,
}

/// Copies the given rows, in order. (For a contiguous range of rows, use [`Device::copy`].)
///
/// # Errors
/// Fails if rows cannot be copied 16 bytes at a time; returns the device's errors.
pub fn select_rows<D: Device>(device: &D, op: &SelectRows) -> Result<()> {
    require(op.row_bytes.is_multiple_of(16), || {
        format!("select_rows: {} bytes per row, not 16·n", op.row_bytes)
    })?;
    require_aligned("select_rows", &[op.x, op.out])?;
    let row_chunks = op.row_bytes / 16;
    let count = u64::from(op.num_selected) * u64::from(row_chunks);
    let args = [
        Arg::Ptr(op.x),
        Arg::Ptr(op.rows),
        Arg::U64(count),
        Arg::U32(row_chunks),
        Arg::Ptr(op.out),
    ];
    each(device, "select_rows", count, &args)
}

/// Arguments of average pooling over squares of patches.
#[derive(Clone, Copy, Debug)]
pub struct AveragePool {
    /// `(images·grid², width)` f32
    pub x: DevicePtr,
    /// Number of images.
    pub num_images: u32,
    /// Number of patches along an image's side.
    pub grid: u32,
    /// Number of patches along a square's side; divides `grid`.
    pub kernel: u32,
    /// Number of values per patch.
    pub width: u32,
    /// `(images·(grid/kernel)², width)` f32
    pub out: DevicePtr,
}

/// Averages over `kernel × kernel` patches.
///
/// # Errors
/// Fails if the kernel does not divide the grid; returns the device's errors.
pub fn average_pool<D: Device>(device: &D, op: &AveragePool) -> Result<()> {
    require(op.kernel > 0 && op.grid.is_multiple_of(op.kernel), || {
        format!("average_pool: {} over a grid of {}", op.kernel, op.grid)
    })?;
    let pooled = u64::from(op.grid / op.kernel);
    let count = u64::from(op.num_images) * pooled * pooled * u64::from(op.width);
    let args = [
        Arg::Ptr(op.x),
        Arg::U64(count),
        Arg::U32(op.grid),
        Arg::U32(op.kernel),
        Arg::U32(op.width),
        Arg::Ptr(op.out),
    ];
    each(device, "average_pool", count, &args)
}

/// Arguments for splitting one image into patches.
#[derive(Clone, Copy, Debug)]
pub struct Patches {
    /// `(size, size, 3)` u8
    pub rgb: DevicePtr,
    /// Number of pixels along a side.
    pub size: u32,
    /// Number of pixels along a patch's side; divides `size`.
    pub patch: u32,
    /// Number of values per row of `out`, at least 3·patch²; the rest is zero.
    pub padded: u32,
    /// `((size/patch)², padded)` bf16, channel first
    pub out: DevicePtr,
}

/// Computes normalised patches, `(level − 127.5) / 127.5`.
///
/// # Errors
/// Fails if a patch does not divide the image or does not fit its row; returns the device's errors.
pub fn patches<D: Device>(device: &D, op: &Patches) -> Result<()> {
    require(
        op.patch > 0 && op.size.is_multiple_of(op.patch) && op.padded >= 3 * op.patch * op.patch,
        || {
            format!(
                "patches: {} pixels in patches of {}, rows of {}",
                op.size, op.patch, op.padded
            )
        },
    )?;
    let grid = u64::from(op.size / op.patch);
    let count = grid * grid * u64::from(op.padded);
    let args = [
        Arg::Ptr(op.rgb),
        Arg::U64(count),
        Arg::U32(op.size),
        Arg::U32(op.patch),
        Arg::U32(op.padded),
        Arg::Ptr(op.out),
    ];
    each(device, "patches", count, &args)
}
