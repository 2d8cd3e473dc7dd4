//! Chooses the device for a model: the requested GPU, a usable one, or the CPU.

use crate::backend::candle::CandleBackend;
use crate::backend::cuda::driver::{CudaDevice, KERNELS, Kernels, Nvrtc};
use crate::backend::cuda::kernel_store::KernelStore;
use crate::config::{ByteSize, ComputeConfig, DeviceChoice, Dtype};
use crate::error::{Error, Result};

/// The chosen device.
pub(super) enum Chosen {
    /// This machine's CPU.
    Cpu,
    /// A GPU, with this project's own kernels.
    Gpu(Box<CudaDevice>),
    /// A GPU, with candle's kernels.
    Candle(CandleBackend),
}

/// Opens the device that the settings ask for.
///
/// # Errors
/// Returns `Device` for a GPU that cannot be used, with the reason and what to do; `Config` for a
/// number type that the device does not support.
pub(super) fn choose(compute: &ComputeConfig) -> Result<Chosen> {
    let chosen = match compute.device {
        DeviceChoice::Cpu => Chosen::Cpu,
        DeviceChoice::Cuda(ordinal) => open(ordinal, compute).map_err(|error| {
            Error::Device(format!("--device cuda:{ordinal} cannot be used: {error}"))
        })?,
        DeviceChoice::Auto => match open(0, compute) {
            Ok(gpu) => gpu,
            Err(error) => {
                tracing::warn!(reason = %error, "no usable GPU, so the server computes on the CPU; start it with --device cpu to silence this warning");
                Chosen::Cpu
            }
        },
    };
    check_dtype(&chosen, compute.dtype)?;
    Ok(chosen)
}

/// Opens the GPU that the settings name; the first one if there is no number.
///
/// # Errors
/// Returns `Device` for a GPU that cannot be used, with the reason and what to do; `Config` if the
/// settings do not name a GPU.
pub fn open_gpu(compute: &ComputeConfig) -> Result<CudaDevice> {
    let ordinal = match compute.device {
        DeviceChoice::Cuda(ordinal) => ordinal,
        DeviceChoice::Auto => 0,
        DeviceChoice::Cpu => {
            return Err(Error::Config(
                "selftest compares a GPU with the CPU: pass --device cuda or cuda:N".to_owned(),
            ));
        }
    };
    let opened = open(ordinal, compute).map_err(|error| Error::Device(error.to_string()))?;
    match opened {
        Chosen::Gpu(gpu) => Ok(*gpu),
        Chosen::Cpu | Chosen::Candle(_) => Err(Error::Config(
            "this program was built with candle's kernels in place of its own".to_owned(),
        )),
    }
}

fn open(ordinal: usize, compute: &ComputeConfig) -> Result<Chosen> {
    if KERNELS == Kernels::Candle {
        return CandleBackend::cuda(ordinal).map(Chosen::Candle);
    }
    let store = KernelStore::new(compute.kernels.clone(), compute.kernel_cache.clone());
    let gpu = CudaDevice::open(ordinal, store)?;
    let info = gpu.info();
    // Not needed if all kernels were compiled ahead of time.
    let nvrtc = Nvrtc::open().map_or_else(|_| "not found".to_owned(), |nvrtc| nvrtc.version());
    tracing::info!(
        gpu = info.name,
        driver_cuda = format!("{}.{}", info.driver.0, info.driver.1),
        nvrtc,
        arch = %info.arch,
        multiprocessors = info.num_sms,
        memory = %ByteSize(info.total_memory),
        free = %ByteSize(info.free_memory),
        "opened the GPU"
    );
    Ok(Chosen::Gpu(Box::new(gpu)))
}

fn check_dtype(chosen: &Chosen, dtype: Dtype) -> Result<()> {
    match (chosen, dtype) {
        (Chosen::Cpu, Dtype::Bf16) => Err(Error::Config(
            "--dtype bf16 is for GPUs: on the CPU it must be auto or f32".to_owned(),
        )),
        (Chosen::Gpu(_), Dtype::F32) => Err(Error::Config(
            "--dtype f32 is for the CPU (--device cpu): on a GPU it must be auto or bf16"
                .to_owned(),
        )),
        (Chosen::Candle(_), Dtype::Bf16) => Err(Error::Config(
            "--dtype bf16: candle's kernels are built in as a reference, in f32".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Returns the bytes of a GPU that may be used: the given share of its total memory, minus what
/// other programs use already.
pub(super) fn usable_memory(gpu: &CudaDevice, share: f64) -> Result<u64> {
    let total = gpu.info().total_memory;
    let kept_free = (total as f64 * (1.0 - share)) as u64;
    Ok(gpu.free_memory()?.saturating_sub(kept_free))
}
