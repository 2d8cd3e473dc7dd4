//! Compiling kernels ahead of time: every variant that the catalogue's models launch.
//!
//! What they launch is found by running them on a device that only writes it down.

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

/// Multiprocessors of GPUs from the smallest to the largest: how work is divided depends on them.
const MULTIPROCESSORS: [u32; 16] = [
    8, 14, 20, 28, 36, 46, 58, 68, 84, 108, 128, 132, 142, 148, 170, 188,
];

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct CompiledKernels {
    /// Sources with what is fixed in them.
    pub num_variants: usize,
    /// Architectures that each was compiled for.
    pub num_archs: usize,
    /// Bytes of machine code.
    pub num_bytes: usize,
    /// What it took.
    pub elapsed: Duration,
}

/// Compiles everything, and writes it where `config` says.
///
/// # Errors
/// `Config` for architectures that do not exist, a compiler that is missing and a folder that
/// cannot be written; `Backend` with the compiler's words for a kernel that does not compile.
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

/// What the models of the catalogue launch, on any GPU.
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

/// Rehearses one model on a device that computes nothing.
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
    // What a server launches before it is ready. Nothing was computed, so nothing is said of it.
    model.computes_finite_numbers(WARM_UP_TOKENS, WarmUpImages::One, &mut cache)?;
    Ok(())
}
