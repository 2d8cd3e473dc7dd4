//! Options of the device and the number type.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::core::Dtype;

/// Where to compute, and what GPUs need for it.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeConfig {
    /// The processor or a GPU.
    pub device: DeviceChoice,
    /// Type of the numbers.
    pub dtype: DtypeChoice,
    /// Fraction of a GPU's memory that may be used, by all programs together.
    pub gpu_memory_utilization: f64,
    /// A folder of kernels that were compiled ahead.
    pub kernels: Option<PathBuf>,
    /// A folder for kernels that are compiled here, in place of the system's.
    pub kernel_cache: Option<PathBuf>,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if one can be used, otherwise the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number, or nothing.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                let ordinal = ordinal.ok_or("it must be auto, cpu, cuda or cuda:N")?;
                Ok(Self::Cuda(ordinal))
            }
        }
    }
}

/// Type of the numbers to compute with; sums are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeChoice {
    /// The type that the device is best at.
    Auto,
    /// This type, or nothing.
    Only(Dtype),
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" | "float32" | "float" => Ok(Self::Only(Dtype::F32)),
            "bf16" | "bfloat16" => Ok(Self::Only(Dtype::Bf16)),
            "f16" | "fp16" | "float16" | "half" => {
                Err("Gemma 3 overflows in half precision; use auto, bf16 or f32".to_owned())
            }
            _ => Err("it must be auto, f32 (CPU) or bf16 (GPUs)".to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct SelfTestArguments {
    /// The GPU: cuda or cuda:N
    #[arg(long, env = "MEDGEMMA_DEVICE", default_value = "cuda")]
    device: DeviceChoice,

    /// A folder of kernels that `medgemma kernels` made
    #[arg(long, value_name = "DIR", env = "MEDGEMMA_KERNELS")]
    kernels: Option<PathBuf>,

    /// A folder for kernels that are compiled here
    #[arg(long, value_name = "DIR", env = "MEDGEMMA_KERNEL_CACHE")]
    kernel_cache: Option<PathBuf>,
}

impl SelfTestArguments {
    pub(super) fn resolve(self) -> ComputeConfig {
        ComputeConfig {
            device: self.device,
            dtype: DtypeChoice::Auto,
            gpu_memory_utilization: 1.0,
            kernels: self.kernels,
            kernel_cache: self.kernel_cache,
        }
    }
}

/// A share of a GPU's memory, as it is written.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("it must be above 0 and at most 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        for (text, device) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(device));
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_of_something() {
        assert_eq!(share("0.9"), Ok(0.9));
        assert_eq!(share("1"), Ok(1.0));
        for text in ["0", "-0.5", "1.01", "90%", "NaN", "inf"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
