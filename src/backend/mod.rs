//! The operations that a model is built from, the types they exchange, and their implementations.
//!
//! Each operation has the granularity that a fused kernel needs. The candle backend is simple and
//! obviously correct: it is the specification of all others. A backend knows nothing of sequences,
//! requests or tensor names: it gets packed rows, block tables and numbers.
//!
//! ```text
//!  operations    the traits: types, loading, text, vision, sampling; `Backend` is all of them
//!  host_tensor   a checkpoint's tensor and its number format (a new weight format begins here)
//!  linear        a weight of a matmul: how it is stored, and how it may be divided
//!  attention     what an attention layer and a KV cache look like
//!  step_input    the packed rows of a step
//!  sampling      inputs and results of sampling
//!  sampler, adjust   sampling on the CPU: changes of logits, then the choice of a token
//!  candle, cpu, cuda   the implementations; `open` chooses one
//! ```

pub mod candle;
pub mod cpu;
pub mod cuda;
pub mod sampler;

mod adjust;
mod attention;
mod device_memory;
mod host_tensor;
mod linear;
mod open;
mod operations;
mod patches;
mod sampling;
mod seen_tokens;
mod sizes;
mod step_input;

pub use attention::{AttentionShape, BLOCK_SIZE, KvLayout, LayerSpec, PoolLayout, QkNorm, Rope};
pub use cuda::precompile::{CompiledKernels, KernelCompiler};
pub use device_memory::{CapturedRows, DeviceMemory, MemorySharing};
pub use host_tensor::{BlockFormat, HostDtype, HostTensor};
pub use linear::{HostLinear, Linear, LinearSpec, Role, StoredLinear};
pub use open::{BackendUser, Opened, Processor, open};
pub use operations::{
    Backend, BackendTypes, Loading, NormPair, SamplingOps, StepWork, TextOps, VisionOps,
};
pub use sampling::{SampleRow, Sampled, ScoreRow};
pub use seen_tokens::{SeenToken, SeenTokens};
pub use sizes::{ModelShape, StepLimits};
pub use step_input::{SampledInput, StepInput, StepSequence};
