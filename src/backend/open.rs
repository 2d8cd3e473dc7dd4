//! Opens the device that the settings ask for, and answers what it can run.
//!
//! Outside the backends, this is the only place that knows which of them there are.

use super::candle::CandleBackend;
use super::cpu::CpuBackend;
use super::cuda::driver::{CudaDevice, KERNELS, Kernels};
use super::cuda::{self, CudaBackend, CudaPlan};
use super::device_memory::DeviceMemory;
use super::operations::Backend;
use super::sizes::{ModelShape, StepLimits};
use crate::config::{ComputeConfig, DeviceChoice, DtypeChoice};
use crate::core::Dtype;
use crate::error::{Error, Result};

/// A device on which a model can be loaded.
pub struct Opened(Device);

enum Device {
    /// This machine's CPU.
    Cpu,
    /// A GPU, with this project's own kernels.
    Gpu(Box<CudaDevice>),
    /// A GPU, with candle's kernels.
    Candle(CandleBackend),
}

/// Kind of processor that computes a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// This machine's CPU.
    Cpu,
    /// A GPU.
    Gpu,
}

/// Work that is written once for every backend.
pub trait BackendUser {
    /// Result of the work.
    type Output;

    /// Does the work with the backend of the opened device.
    ///
    /// # Errors
    /// Returns the errors of the work.
    fn with<B: Backend + 'static>(self, backend: B) -> Result<Self::Output>;
}

/// Opens the device that the settings ask for: that GPU, a usable one, or the CPU.
///
/// # Errors
/// Returns `Device` for a GPU that cannot be used, with the reason and what to do; `Config` for a
/// number type that is more exact than the device's.
pub fn open(compute: &ComputeConfig) -> Result<Opened> {
    let device = match compute.device {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Cuda(ordinal) => open_gpu(ordinal, compute).map_err(|error| {
            Error::Device(format!("--device cuda:{ordinal} cannot be used: {error}"))
        })?,
        DeviceChoice::Auto => match open_gpu(0, compute) {
            Ok(gpu) => gpu,
            Err(error) => {
                tracing::warn!(reason = %error, "no usable GPU, so the server computes on the CPU; start it with --device cpu to silence this warning");
                Device::Cpu
            }
        },
    };
    check_dtype(&device, compute.dtype)?;
    Ok(Opened(device))
}

fn open_gpu(ordinal: usize, compute: &ComputeConfig) -> Result<Device> {
    if KERNELS == Kernels::Candle {
        return CandleBackend::cuda(ordinal).map(Device::Candle);
    }
    let gpu = cuda::open(ordinal, compute)?;
    Ok(Device::Gpu(Box::new(gpu)))
}

fn check_dtype(device: &Device, dtype: DtypeChoice) -> Result<()> {
    match (device, dtype) {
        (Device::Cpu, DtypeChoice::Only(Dtype::Bf16)) => {
            tracing::warn!(
                "--dtype bf16 is for GPUs: on the CPU weights stay in bf16, and what is computed \
                 from them is f32, which is more exact"
            );
            Ok(())
        }
        (Device::Gpu(_), DtypeChoice::Only(Dtype::F32)) => Err(Error::Config(
            "--dtype f32 is for the CPU (--device cpu): on a GPU it must be auto or bf16"
                .to_owned(),
        )),
        (Device::Candle(_), DtypeChoice::Only(Dtype::Bf16)) => Err(Error::Config(
            "--dtype bf16: candle's kernels are built in as a reference, in f32".to_owned(),
        )),
        _ => Ok(()),
    }
}

impl Opened {
    /// Returns the kind of the device.
    pub fn processor(&self) -> Processor {
        match self.0 {
            Device::Cpu => Processor::Cpu,
            Device::Gpu(_) | Device::Candle(_) => Processor::Gpu,
        }
    }

    /// Whether operations are queued and computed while the host does other work. If not, the
    /// host is the device, or waits for it.
    pub fn is_asynchronous(&self) -> bool {
        matches!(self.0, Device::Gpu(_))
    }

    /// Checks for sizes that the architecture allows but the device's kernels do not support.
    ///
    /// # Errors
    /// Returns a message that names the size and what it must be.
    pub fn check_shape(&self, shape: &ModelShape) -> std::result::Result<(), String> {
        match self.0 {
            Device::Cpu if !shape.head_dim.is_multiple_of(16) => Err(format!(
                "head_dim is {}; on the CPU it must be a multiple of 16",
                shape.head_dim
            )),
            Device::Gpu(_) => CudaPlan::check_shape(shape),
            Device::Cpu | Device::Candle(_) => Ok(()),
        }
    }

    /// Returns the memory that the device's backend allocates from. `gpu_share` is the share of a
    /// GPU's memory that may be used, from 0 to 1; `host_available` is the number of available
    /// bytes of the machine's memory, if known.
    ///
    /// # Errors
    /// Returns the device's error if it does not report its memory.
    pub fn memory(&self, gpu_share: f64, host_available: Option<u64>) -> Result<DeviceMemory> {
        Ok(match &self.0 {
            Device::Cpu => DeviceMemory::of_host(host_available),
            Device::Gpu(gpu) => DeviceMemory::of_gpu(cuda::usable_memory(gpu, gpu_share)?),
            // Candle does not report its memory, and allocates it as needed.
            Device::Candle(_) => DeviceMemory::of_host(None),
        })
    }

    /// Creates the backend for a model of this shape and gives it to `user`.
    ///
    /// # Errors
    /// Returns `OutOfMemory` if the buffers for steps cannot be allocated, and the errors of `user`.
    pub fn start<U: BackendUser>(
        self,
        shape: &ModelShape,
        limits: &StepLimits,
        user: U,
    ) -> Result<U::Output> {
        match self.0 {
            Device::Cpu => user.with(CpuBackend),
            Device::Candle(backend) => user.with(backend),
            Device::Gpu(gpu) => {
                let plan = CudaPlan::new(shape, limits, gpu.info().num_sms);
                user.with(CudaBackend::new(*gpu, plan)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::KvGroups;

    fn cpu(dtype: DtypeChoice) -> Result<Opened> {
        open(&ComputeConfig {
            device: DeviceChoice::Cpu,
            dtype,
            gpu_memory_utilization: 0.9,
            kernels: None,
            kernel_cache: None,
        })
    }

    const SHAPE: ModelShape = ModelShape {
        hidden_size: 640,
        intermediate_size: 2048,
        num_heads: 4,
        num_kv_heads: 1,
        head_dim: 256,
        groups: KvGroups::new(&[None, Some(512)]),
    };

    #[test]
    fn the_cpu_answers_what_it_can_run() {
        let opened = cpu(DtypeChoice::Auto).unwrap();
        assert_eq!(opened.processor(), Processor::Cpu);
        assert!(!opened.is_asynchronous());
        assert_eq!(opened.check_shape(&SHAPE), Ok(()));
        let narrow = ModelShape {
            head_dim: 24,
            ..SHAPE
        };
        let message = opened.check_shape(&narrow).unwrap_err();
        assert_eq!(
            message,
            "head_dim is 24; on the CPU it must be a multiple of 16"
        );
        assert_eq!(
            opened.memory(0.5, Some(7)).unwrap(),
            DeviceMemory::of_host(Some(7))
        );
        // It computes more exactly than was asked for.
        assert!(cpu(DtypeChoice::Only(Dtype::Bf16)).is_ok());
    }

    #[test]
    fn the_backend_of_the_cpu_is_started() {
        struct Name;
        impl BackendUser for Name {
            type Output = &'static str;

            fn with<B: Backend + 'static>(self, _backend: B) -> Result<&'static str> {
                Ok(std::any::type_name::<B>())
            }
        }
        let limits = StepLimits {
            max_rows: 16,
            max_sequences: 4,
            max_model_len: 64,
            activation_bytes: 0,
            captured_bytes: 0,
            feature_bytes: 0,
        };
        let name = cpu(DtypeChoice::Only(Dtype::F32))
            .unwrap()
            .start(&SHAPE, &limits, Name);
        assert!(name.unwrap().ends_with("CpuBackend"));
    }
}
