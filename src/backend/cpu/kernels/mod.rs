//! The fast CPU operations: functions over plain `f32` slices.
//!
//! Owns weight packing, register-blocked matmuls, paged and full attention, and the row-wise
//! operations. Knows nothing of candle's tensors, models or requests.
//!
//! One rule holds everywhere: the arithmetic of a row, and its order, depend only on that row and
//! on absolute positions. The number of rows computed with it, the split of a prompt into chunks
//! and the number of threads change no bit of the result.
//!
//! - `lanes`: eight floats at a time, chosen at run time
//! - `tile`: the register tile that all matmuls share
//! - [`packed`], `linear`: weights and `x · weightᵀ`
//! - [`kv_pool`], [`rope`], [`paged_attention()`]: the cache, what writes it, what reads it
//! - [`full_attention()`]: attention without a mask, for the vision encoder
//! - `softmax`: the online softmax that both attentions share
//! - [`elementwise`]: norms, activations, reductions

pub mod elementwise;
#[cfg(test)]
mod fixtures;
pub mod full_attention;
pub mod kv_pool;
mod lanes;
pub mod linear;
mod math;
pub mod packed;
pub mod paged_attention;
pub mod rope;
mod softmax;
mod tile;

pub use elementwise::{
    add, add_bias, add_norm_norm, argmax, geglu, gelu, layer_norm, log_sum_exp, rms_norm,
};
pub use full_attention::full_attention;
pub use kv_pool::{KvPool, LayerStep};
pub use linear::{linear, linear_bias};
pub use packed::PackedMatrix;
pub use paged_attention::paged_attention;
pub use rope::{RopeArgs, rope_and_cache};
