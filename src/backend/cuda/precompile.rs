//! Ahead-of-time compilation of kernels.
//!
//! The variants that models launch are found by running them on a dry-run device that only
//! collects them; which models is the caller's choice.

use std::path::Path;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::CudaBackend;
use super::arch::Arch;
use super::driver::Nvrtc;
use super::kernel_store::{Unit, write_whole};
use super::kernels::COMMON;
use super::plan::CudaPlan;
use super::survey::{DryRunDevice, Variant};
use crate::backend::operations::Backend;
use crate::backend::sizes::{ModelShape, StepLimits};
use crate::error::{Error, Result};

/// Numbers of multiprocessors from the smallest to the largest GPUs: the division of work depends
/// on them.
const MULTIPROCESSORS: [u32; 16] = [
    8, 14, 20, 28, 36, 46, 58, 68, 84, 108, 128, 132, 142, 148, 170, 188,
];

/// Collects the kernels that models launch, and compiles them.
pub struct KernelCompiler {
    archs: Vec<Arch>,
    compiler: Nvrtc,
    survey: DryRunDevice,
    started: Instant,
}

/// Result of the compilation.
#[derive(Clone, Copy, Debug)]
pub struct CompiledKernels {
    /// Number of variants: sources with their compile-time constants.
    pub num_variants: usize,
    /// Number of architectures that each was compiled for.
    pub num_archs: usize,
    /// Total bytes of machine code.
    pub num_bytes: usize,
    /// Time that it took, from the opening of the compiler.
    pub elapsed: Duration,
}

impl KernelCompiler {
    /// Opens the compiler for architectures in NVIDIA's notation, such as `sm_90a`.
    ///
    /// # Errors
    /// Returns `Config` for unknown architectures and a missing compiler.
    pub fn open(archs: &[String]) -> Result<Self> {
        let started = Instant::now();
        Ok(Self {
            archs: archs
                .iter()
                .map(|name| name.parse().map_err(Error::Config))
                .collect::<Result<_>>()?,
            compiler: Nvrtc::open()?,
            survey: DryRunDevice::default(),
            started,
        })
    }

    /// Returns one backend per size of GPU; each collects what is launched on it, and computes
    /// nothing.
    pub fn backends(
        &self,
        shape: &ModelShape,
        limits: &StepLimits,
    ) -> impl Iterator<Item = Result<impl Backend>> {
        MULTIPROCESSORS.iter().map(|num_multiprocessors| {
            let plan = CudaPlan::new(shape, limits, *num_multiprocessors);
            CudaBackend::new(&self.survey, plan)
        })
    }

    /// Compiles all collected variants, and writes the machine code to `folder`, if there is one.
    ///
    /// # Errors
    /// Returns `Config` for a folder that is not writable; `Backend` with the compiler's messages
    /// for a kernel that does not compile.
    pub fn compile(&self, folder: Option<&Path>) -> Result<CompiledKernels> {
        let variants = self.survey.variants();
        let work: Vec<(&Arch, &Variant)> = self
            .archs
            .iter()
            .flat_map(|arch| variants.iter().map(move |variant| (arch, variant)))
            .collect();
        let sizes = work
            .par_iter()
            .map(|(arch, variant)| self.compile_one(arch, variant, folder))
            .collect::<Result<Vec<usize>>>()?;
        Ok(CompiledKernels {
            num_variants: variants.len(),
            num_archs: self.archs.len(),
            num_bytes: sizes.iter().sum(),
            elapsed: self.started.elapsed(),
        })
    }

    fn compile_one(&self, arch: &Arch, variant: &Variant, folder: Option<&Path>) -> Result<usize> {
        let text = [COMMON.text, variant.text].concat();
        let unit = Unit {
            name: variant.name,
            text: &text,
            defines: &variant.defines,
        };
        let code = self.compiler.compile(&unit, arch)?;
        if let Some(folder) = folder {
            write_whole(folder, &unit.file_name(arch), &code).map_err(|error| {
                Error::Config(format!("{} cannot be written: {error}", folder.display()))
            })?;
        }
        Ok(code.len())
    }
}
