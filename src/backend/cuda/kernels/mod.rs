//! The kernels: each `.cu` file with a launcher that checks its arguments and computes the grid.
//!
//! Launchers are generic over the [`Device`] and take addresses; they own no memory and know
//! nothing of tensors or models. Numbers are bf16 where their docs say so and f32 elsewhere; every
//! address must be 16-byte aligned.

pub mod attention;
pub mod decode_attention;
pub mod elementwise;
pub mod embed;
pub mod gemm;
pub mod gemv;
pub mod kv_args;
pub mod norm;
pub mod rope;
pub mod sampler;

use super::device::{Arg, Device, DevicePtr, KernelId, Launch, Overlap, Source};
use crate::error::{Error, Result};

/// The common header, which is put before every source.
pub static COMMON: Source = Source {
    name: "common.cuh",
    text: include_str!("common.cuh"),
};

/// Shared memory that every GPU of compute capability 8.0 to 12.0 gives a block on request.
pub const MAX_SHARED_BYTES: u32 = 99 * 1024;

/// Number of threads per block of the element-wise kernels.
const THREADS: u32 = 256;
/// Enough blocks to occupy any GPU; each loops over several elements.
const MAX_BLOCKS: u64 = 8192;

fn require(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Backend(message()))
    }
}

/// Refuses addresses at which 16 bytes cannot be read at once.
fn require_aligned(kernel: &str, addresses: &[DevicePtr]) -> Result<()> {
    for address in addresses {
        require(address.0.is_multiple_of(16), || {
            format!(
                "{kernel}: the address {:#x} is not 16-byte aligned",
                address.0
            )
        })?;
    }
    Ok(())
}

/// Launches a kernel that waits by itself for earlier kernels.
fn launch<D: Device>(
    device: &D,
    kernel: KernelId<'_>,
    shape: Shape,
    shared_bytes: u32,
    args: &[Arg],
) -> Result<()> {
    require(shared_bytes <= MAX_SHARED_BYTES, || {
        format!(
            "{}: needs {shared_bytes} bytes of shared memory, over {MAX_SHARED_BYTES}",
            kernel.function
        )
    })?;
    // Skipped if there is nothing to do, since a grid must not be empty.
    if shape.grid.contains(&0) {
        return Ok(());
    }
    device.launch(&Launch {
        kernel,
        grid: shape.grid,
        block: [shape.threads, 1, 1],
        shared_bytes,
        args,
        overlap: Overlap::Programmatic,
    })
}

/// Number of blocks and threads of a launch.
#[derive(Clone, Copy, Debug)]
struct Shape {
    grid: [u32; 3],
    threads: u32,
}

impl Shape {
    /// Creates a shape with one block per row.
    fn rows(num_rows: u32) -> Self {
        Self {
            grid: [num_rows, 1, 1],
            threads: THREADS,
        }
    }

    /// Creates a shape with one thread per number, up to a maximum number of blocks.
    fn numbers(count: u64) -> Self {
        let num_blocks = count.div_ceil(u64::from(THREADS)).min(MAX_BLOCKS);
        Self {
            grid: [num_blocks as u32, 1, 1],
            threads: THREADS,
        }
    }
}
