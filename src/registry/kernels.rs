//! Ahead-of-time compilation of the kernels that the catalogue's models launch.

use super::catalog::{Catalog, CatalogEntry};
use super::load::WARM_UP_TOKENS;
use super::memory;
use crate::backend::{CompiledKernels, DeviceMemory, KernelCompiler};
use crate::config::{ByteSize, KernelsConfig, Limits};
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;
use crate::model::{Model, WarmUpImages};

/// Limits of a large server; smaller ones launch the same kernels or fewer.
const LIMITS: Limits = Limits {
    max_model_len: None,
    max_num_seqs: 64,
    max_num_batched_tokens: 2048,
    kv_cache_memory: None,
    encoder_cache_memory: ByteSize(64 << 20),
    max_queued_requests: None,
};

/// Compiles the kernels of all models in the catalogue, and writes them to the folder in `config`.
///
/// # Errors
/// Returns `Config` for unknown architectures, a missing compiler and a folder that is not
/// writable; `Backend` with the compiler's messages for a kernel that does not compile.
pub fn compile_kernels(config: &KernelsConfig) -> Result<CompiledKernels> {
    let compiler = KernelCompiler::open(&config.archs)?;
    let catalog = Catalog::open(config.models_file.as_deref())?;
    let mut seen: Vec<&ModelConfig> = Vec::new();
    for (name, entry) in catalog.models() {
        let CatalogEntry::Hub(model) = entry else {
            continue;
        };
        if seen.contains(&&model.config) {
            continue;
        }
        seen.push(&model.config);
        launch_all(&compiler, name, &model.config)?;
    }
    compiler.compile(config.out.as_deref())
}

/// Warms up one model on devices of every size that compute nothing.
fn launch_all(compiler: &KernelCompiler, name: &str, config: &ModelConfig) -> Result<()> {
    let roomy = DeviceMemory::of_gpu(u64::MAX / 2);
    let plan = memory::plan(name, config, 0, &LIMITS, roomy)?;
    for backend in compiler.backends(&config.shape(), &plan.step_limits()) {
        let model = Model::load(backend?, config, &Weights::blank())?;
        let blocks = plan.scheduler.num_blocks;
        let mut cache = model.kv_cache(blocks)?;
        model.warm_up(&mut cache)?;
        // The launches of a server's warm-up. Nothing is computed, so the result is ignored.
        model.computes_finite_numbers(WARM_UP_TOKENS, WarmUpImages::One, &mut cache)?;
    }
    Ok(())
}
