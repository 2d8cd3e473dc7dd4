//! The CUDA backend: our own kernels, compiled at run time, over a [`device::Device`].
//!
//! ```text
//!  CudaBackend ── launchers of kernels/ ──> Device ──┬── driver: a GPU
//!   tensors in an arena                              └── the tests' emulator, in host memory
//! ```
//!
//! Nothing outside this module knows of GPUs, and only `driver` knows of NVIDIA's libraries.

#![cfg_attr(feature = "cuda", allow(unsafe_code))]

pub mod arch;
pub mod device;
pub mod driver;
pub mod kernel_store;
pub mod kernels;
pub mod plan;
pub mod precompile;
pub mod survey;

mod arena;
mod attention;
mod backend;
mod matmul;
mod memory;
mod open;
mod operations;
mod packed_step;
mod sample_params;
mod sampled_tokens;
mod tensor;
mod weights;

pub use backend::{CudaBackend, CudaKvCache, CudaStep};
pub use memory::{MemoryKind, MemoryStats};
pub use open::{open, usable_memory};
pub use plan::{CudaPlan, Replay};
pub use sampled_tokens::CudaSampledTokens;
pub use tensor::{CudaMatrix, CudaTensor};
