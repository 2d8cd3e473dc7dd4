//! The self test on a GPU, compared with the CPU backend.

use super::{Check, Effort, MAX_ROWS, MAX_SEQUENCES, Precision, Sizes, run};
use crate::backend::cpu::CpuBackend;
use crate::backend::cuda::device::Device;
use crate::backend::cuda::driver::{CudaDevice, KERNELS, Kernels};
use crate::backend::cuda::kernels::kv_args::HeadShape;
use crate::backend::cuda::plan::{CudaPlan, Replay};
use crate::backend::cuda::{self, CudaBackend};
use crate::config::{ComputeConfig, DeviceChoice};
use crate::core::KvGroups;
use crate::error::{Error, Result};

/// Buffer for the activations of the largest check, in bytes.
const ACTIVATION_BYTES: usize = 512 << 20;
const RECORDED_BYTES: usize = 64 << 20;
const FEATURE_BYTES: usize = 16 << 20;

/// Opens the GPU that the settings name and runs all checks on it.
///
/// # Errors
/// Returns `Config` for a GPU that cannot be used, and the GPU's errors.
pub fn on_gpu(compute: &ComputeConfig, tell: &mut dyn FnMut(&Check)) -> Result<bool> {
    let gpu = open(compute)?;
    let num_multiprocessors = gpu.info().num_sms;
    on_device(&gpu, num_multiprocessors, Effort::Full, tell)
}

fn open(compute: &ComputeConfig) -> Result<CudaDevice> {
    let ordinal = match compute.device {
        DeviceChoice::Cuda(ordinal) => ordinal,
        DeviceChoice::Auto => 0,
        DeviceChoice::Cpu => {
            return Err(Error::Config(
                "selftest compares a GPU with the CPU: pass --device cuda or cuda:N".to_owned(),
            ));
        }
    };
    if KERNELS == Kernels::Candle {
        return Err(Error::Config(
            "this program was built with candle's kernels in place of its own".to_owned(),
        ));
    }
    cuda::open(ordinal, compute).map_err(|error| Error::Device(error.to_string()))
}

/// Runs all checks on any device that runs the GPU kernels.
///
/// # Errors
/// Returns the device's errors.
pub fn on_device<D: Device>(
    device: &D,
    num_multiprocessors: u32,
    effort: Effort,
    tell: &mut dyn FnMut(&Check),
) -> Result<bool> {
    let backend = |sizes| CudaBackend::new(device, plan(sizes, num_multiprocessors));
    run(backend, || Ok(CpuBackend), effort, Precision::Bf16, tell)
}

fn plan(sizes: Sizes, num_multiprocessors: u32) -> CudaPlan {
    let narrow = |number: usize| u32::try_from(number).expect("head counts are small");
    CudaPlan {
        max_rows: MAX_ROWS,
        max_sequences: MAX_SEQUENCES,
        max_model_len: MAX_ROWS,
        heads: HeadShape {
            num_heads: narrow(sizes.num_heads),
            num_kv_heads: narrow(sizes.num_kv_heads),
            head_dim: narrow(sizes.head_dim),
        },
        groups: KvGroups::new(&[None, Some(sizes.window)]),
        activation_bytes: ACTIVATION_BYTES,
        captured_bytes: RECORDED_BYTES,
        feature_bytes: FEATURE_BYTES,
        replay: Replay::Decode,
        num_multiprocessors,
    }
}
