//! Converts the memory plan to the CUDA backend's configuration.

use super::memory::MemoryPlan;
use crate::backend::LayerKind;
use crate::backend::cuda::kernels::paged::HeadShape;
use crate::backend::cuda::{CudaPlan, Replay};
use crate::model::config::ModelConfig;

/// Returns the sizes for a GPU with this number of multiprocessors.
pub(super) fn cuda_plan(
    config: &ModelConfig,
    plan: &MemoryPlan,
    num_multiprocessors: u32,
) -> CudaPlan {
    let text = &config.text;
    let narrow = |number: usize| u32::try_from(number).expect("head counts are small");
    let has_sliding = text.num_layers(LayerKind::Sliding) > 0;
    let bytes = |bytes: u64| usize::try_from(bytes).expect("addresses have 64 bits");
    CudaPlan {
        max_rows: plan.scheduler.max_num_batched_tokens,
        max_sequences: plan.scheduler.max_num_seqs,
        max_model_len: plan.scheduler.max_model_len,
        heads: HeadShape {
            num_heads: narrow(text.num_attention_heads),
            num_kv_heads: narrow(text.num_key_value_heads),
            head_dim: narrow(text.head_dim),
        },
        window: has_sliding.then_some(text.sliding_window),
        activation_bytes: bytes(plan.activations),
        recorded_bytes: bytes(plan.recorded),
        feature_bytes: bytes(plan.features),
        replay: Replay::Decode,
        num_multiprocessors,
    }
}
