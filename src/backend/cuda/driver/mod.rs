//! NVIDIA's libraries, opened at run time: the GPU as a [`super::device::Device`], and the
//! compiler that makes machine code of kernels.
//!
//! The one place that knows whether the program was built with them.

#[cfg(all(feature = "cuda", feature = "candle-cuda"))]
compile_error!(
    "the features cuda and candle-cuda exclude each other, since cudarc is linked one way or the \
     other: use --no-default-features --features candle-cuda"
);

#[cfg(not(feature = "cuda"))]
mod disabled;
#[cfg(feature = "cuda")]
mod enabled;

#[cfg(not(feature = "cuda"))]
pub use disabled::{CudaDevice, Nvrtc};
#[cfg(feature = "cuda")]
pub use enabled::{CudaDevice, Nvrtc};

use super::arch::Arch;

/// Whose kernels run on GPUs in this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Our own.
    Own,
    /// Candle's, as a reference.
    Candle,
    /// Nobody's: it computes on the CPU only.
    Missing,
}

/// Whose kernels run on GPUs in this build.
pub const KERNELS: Kernels = if cfg!(feature = "cuda") {
    Kernels::Own
} else if cfg!(feature = "candle-cuda") {
    Kernels::Candle
} else {
    Kernels::Missing
};

/// What the driver says of a GPU.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    /// As the vendor calls it.
    pub name: String,
    /// CUDA version that the driver brings, such as (13, 0).
    pub driver: (u32, u32),
    /// What machine code must be made for.
    pub arch: Arch,
    /// Streaming multiprocessors.
    pub num_sms: u32,
    /// Bytes of its memory.
    pub total_memory: u64,
    /// Bytes of it that nobody uses.
    pub free_memory: u64,
}
