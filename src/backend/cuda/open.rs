//! Opens a GPU for this project's own kernels.

use super::driver::{CudaDevice, Nvrtc};
use super::kernel_store::KernelStore;
use crate::config::{ByteSize, ComputeConfig};
use crate::error::Result;

/// Opens the GPU of this number, and logs what it is.
///
/// # Errors
/// Returns `Config` or `Backend` for a GPU that cannot be used, with the reason and what to do.
pub fn open(ordinal: usize, compute: &ComputeConfig) -> Result<CudaDevice> {
    let store = KernelStore::new(compute.kernels.clone(), compute.kernel_cache.clone());
    let gpu = CudaDevice::open(ordinal, store)?;
    let info = gpu.info();
    // Not needed if all kernels were compiled ahead of time.
    let nvrtc = Nvrtc::open().map_or_else(|_| "not found".to_owned(), |nvrtc| nvrtc.version());
    tracing::info!(
        gpu = info.name,
        driver_cuda = format!("{}.{}", info.driver.0, info.driver.1),
        nvrtc,
        arch = %info.arch,
        multiprocessors = info.num_sms,
        memory = %ByteSize(info.total_memory),
        free = %ByteSize(info.free_memory),
        "opened the GPU"
    );
    Ok(gpu)
}

/// Returns the bytes of a GPU that may be used: the given share of its total memory, minus what
/// other programs use already.
///
/// # Errors
/// Returns the driver's errors.
pub fn usable_memory(gpu: &CudaDevice, share: f64) -> Result<u64> {
    let total = gpu.info().total_memory;
    let kept_free = (total as f64 * (1.0 - share)) as u64;
    Ok(gpu.free_memory()?.saturating_sub(kept_free))
}
