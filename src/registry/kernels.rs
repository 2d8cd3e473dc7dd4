//! Ahead-of-time compilation of kernels: every variant that the catalogue's models launch.
//!
//! The variants are found by running the models on a dry-run device that only collects them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::catalog::{Catalog, CatalogEntry};
use super::cuda_plan::cuda_plan;
use super::load::WARM_UP_TOKENS;
use super::memory::{self, Place};
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::arch::Arch;
use crate::backend::cuda::driver::Nvrtc;
use crate::backend::cuda::kernel_store::{Unit, write_whole};
use crate::backend::cuda::kernels::COMMON;
use crate::backend::cuda::survey::{DryRunDevice, Variant};
use crate::config::{ByteSize, KernelsConfig, Limits};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;
use crate::model::{Model, WarmUpImages};

/// Numbers of multiprocessors from the smallest to the largest GPUs: the division of work depends
/// on them.
const MULTIPROCESSORS: [u32; 16] = [
    8, 14, 20, 28, 36, 46, 58, 68, 84, 108, 128, 132, 142, 148, 170, 188,
];

/// Result of the compilation.
#[derive(Clone, Copy, Debug)]
pub struct CompiledKernels {
    /// Number of variants: sources with their compile-time constants.
    pub num_variants: usize,
    /// Number of architectures that each was compiled for.
    pub num_archs: usize,
    /// Total bytes of machine code.
    pub num_bytes: usize,
    /// Time that it took.
    pub elapsed: Duration,
}

/// Compiles all variants, and writes them to the folder in `config`.
///
/// # Errors
/// Returns `Config` for unknown architectures, a missing compiler and a folder that is not
/// writable; `Backend` with the compiler's messages for a kernel that does not compile.
pub fn compile_kernels(config: &KernelsConfig) -> Result<CompiledKernels> {
    let started = Instant::now();
    let archs: Vec<Arch> = config
        .archs
        .iter()
        .map(|name| name.parse().map_err(Error::Config))
        .collect::<Result<_>>()?;
    let compiler = Nvrtc::open()?;
    let variants = variants(&Catalog::open(config.models_file.as_deref())?)?;
    let work: Vec<(&Arch, &Variant)> = archs
        .iter()
        .flat_map(|arch| variants.iter().map(move |variant| (arch, variant)))
        .collect();
    let sizes = work
        .par_iter()
        .map(|(arch, variant)| {
            let text = [COMMON.text, variant.text].concat();
            let unit = Unit {
                name: variant.name,
                text: &text,
                defines: &variant.defines,
            };
            let code = compiler.compile(&unit, arch)?;
            if let Some(folder) = &config.out {
                write_whole(folder, &unit.file_name(arch), &code).map_err(|error| {
                    Error::Config(format!("{} cannot be written: {error}", folder.display()))
                })?;
            }
            Ok(code.len())
        })
        .collect::<Result<Vec<usize>>>()?;
    Ok(CompiledKernels {
        num_variants: variants.len(),
        num_archs: archs.len(),
        num_bytes: sizes.iter().sum(),
        elapsed: started.elapsed(),
    })
}

/// Returns the variants that the catalogue's models launch, on any GPU.
fn variants(catalog: &Catalog) -> Result<BTreeSet<Variant>> {
    let survey = DryRunDevice::default();
    let mut seen: Vec<&ModelConfig> = Vec::new();
    for (name, entry) in catalog.models() {
        let CatalogEntry::Hub(model) = entry else {
            continue;
        };
        if seen.contains(&&model.config) {
            continue;
        }
        seen.push(&model.config);
        for num_multiprocessors in MULTIPROCESSORS {
            launch_all(&survey, name, &model.config, num_multiprocessors)?;
        }
    }
    Ok(survey.variants())
}

/// Warms up one model on a device that computes nothing.
fn launch_all(
    survey: &DryRunDevice,
    name: &str,
    config: &ModelConfig,
    num_multiprocessors: u32,
) -> Result<()> {
    let limits = Limits {
        max_model_len: None,
        max_num_seqs: 64,
        max_num_batched_tokens: 2048,
        kv_cache_memory: None,
        encoder_cache_memory: ByteSize(64 << 20),
        max_queued_requests: None,
    };
    let roomy = Place::Gpu {
        available: u64::MAX / 2,
    };
    let plan = memory::plan(name, config, 0, &limits, roomy)?;
    let sizes = cuda_plan(config, &plan, num_multiprocessors);
    let backend = CudaBackend::new(survey, sizes)?;
    let model = Model::load(backend, config, &Weights::blank())?;
    let blocks = plan.scheduler.num_blocks;
    let mut cache = model.kv_cache(blocks.global, blocks.sliding)?;
    model.warm_up(&mut cache)?;
    // The launches of a server's warm-up. Nothing is computed, so the result is ignored.
    model.computes_finite_numbers(WARM_UP_TOKENS, WarmUpImages::One, &mut cache)?;
    Ok(())
}
