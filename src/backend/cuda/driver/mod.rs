//! NVIDIA's libraries, opened at run time: a GPU as a [`super::device::Device`], and the compiler
//! for kernels.
//!
//! Only this module knows whether the program was built with them.

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

/// Kind of kernels that run on GPUs in this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// This project's own kernels.
    Own,
    /// Candle's kernels, as a reference.
    Candle,
    /// No kernels: this build computes on the CPU only.
    Missing,
}

/// The kind of kernels in this build.
pub const KERNELS: Kernels = if cfg!(feature = "cuda") {
    Kernels::Own
} else if cfg!(feature = "candle-cuda") {
    Kernels::Candle
} else {
    Kernels::Missing
};

/// Properties of a GPU, as the driver reports them.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    /// The vendor's name.
    pub name: String,
    /// CUDA version that the driver supports, such as (13, 0).
    pub driver: (u32, u32),
    /// Architecture for which machine code must be compiled.
    pub arch: Arch,
    /// Number of streaming multiprocessors.
    pub num_sms: u32,
    /// Total memory in bytes.
    pub total_memory: u64,
    /// Free memory in bytes.
    pub free_memory: u64,
}
