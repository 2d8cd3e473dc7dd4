//! Options of `medgemma kernels`, which compiles kernels ahead of time.

use std::path::PathBuf;

use clap::Args;

/// What to compile ahead of time.
#[derive(Clone, Debug)]
pub struct KernelsConfig {
    /// Architectures as NVIDIA's tools name them: `sm_90a`.
    pub archs: Vec<String>,
    /// Folder for the machine code; `None` only checks that everything compiles.
    pub out: Option<PathBuf>,
    /// A catalogue in place of the built-in one; its models' kernels are compiled.
    pub models_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct KernelsArguments {
    /// What to compile for: sm_80, sm_89, sm_90a, sm_100a, sm_120 and others; repeat it for several
    #[arg(
        long,
        value_name = "ARCH",
        env = "MEDGEMMA_ARCH",
        value_delimiter = ',',
        required = true
    )]
    arch: Vec<String>,

    /// Where to put the machine code, for `serve --kernels`; without it, it is only compiled
    #[arg(long, value_name = "DIR", env = "MEDGEMMA_OUT")]
    out: Option<PathBuf>,

    /// A catalogue of models in place of the built-in models.toml
    #[arg(long, value_name = "FILE", env = "MEDGEMMA_MODELS")]
    models: Option<PathBuf>,
}

impl KernelsArguments {
    pub(super) fn resolve(self) -> KernelsConfig {
        KernelsConfig {
            archs: self.arch,
            out: self.out,
            models_file: self.models,
        }
    }
}
