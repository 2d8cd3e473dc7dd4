//! Where a model is computed: the GPU that was asked for, one that can be used, or the CPU.

use crate::backend::candle::CandleBackend;
use crate::backend::cuda::driver::{CudaDevice, KERNELS, Kernels, Nvrtc};
use crate::backend::cuda::kernel_store::KernelStore;
use crate::config::{ByteSize, ComputeConfig, DeviceChoice, Dtype};
use crate::error::{Error, Result};

/// Where it is computed.
pub(super) enum Chosen {
    /// On this machine's processor.
    Cpu,
    /// On a GPU, by our own kernels.
    Gpu(Box<CudaDevice>),
    /// On a GPU, by candle's kernels.
    Candle(CandleBackend),
}

/// Opens what the settings ask for.
///
/// # Errors
/// `Device` for a GPU that cannot be used, with why and what to do; `Config` for a type of numbers
/// that the device does not compute in.
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

/// Opens the GPU that the settings name; without a number the first.
///
/// # Errors
/// `Device` for a GPU that cannot be used, with why and what to do; `Config` for what is no GPU.
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
    // Not needed where all kernels were compiled ahead.
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

/// Bytes of a GPU that may be used: the share of all of it, less what others use already.
pub(super) fn usable_memory(gpu: &CudaDevice, share: f64) -> Result<u64> {
    let total = gpu.info().total_memory;
    let kept_free = (total as f64 * (1.0 - share)) as u64;
    Ok(gpu.free_memory()?.saturating_sub(kept_free))
}
