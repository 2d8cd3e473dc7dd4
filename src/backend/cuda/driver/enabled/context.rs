//! An opened GPU: its context and its properties.

use std::ffi::{CStr, c_int};

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute, CUresult};

use super::{check, describe};
use crate::backend::cuda::arch::Arch;
use crate::backend::cuda::driver::GpuInfo;
use crate::error::{Error, Result};

/// Oldest CUDA version whose drivers have all functions that are called here.
const OLDEST_DRIVER: (u32, u32) = (12, 4);

/// A GPU's primary context; released on drop.
#[derive(Debug)]
pub(super) struct Context {
    raw: CUcontext,
    device: CUdevice,
    pub(super) info: GpuInfo,
}

// SAFETY: the driver lets any thread use a context that it has made current.
unsafe impl Send for Context {}
// SAFETY: as above; the driver does its own locking.
unsafe impl Sync for Context {}

impl Context {
    /// Opens GPU `ordinal` and makes it current for the calling thread.
    ///
    /// # Errors
    /// Returns `Config`, naming what is missing or too old, and what to install.
    pub(super) fn open(ordinal: usize) -> Result<Self> {
        let driver = open_driver()?;
        let device = find_gpu(ordinal)?;
        let info = describe_gpu(device, driver)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the driver is initialised and has this GPU.
        let answer = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut raw, device) };
        check(answer, "opening the GPU")?;
        let mut context = Self { raw, device, info };
        (context.info.free_memory, context.info.total_memory) = context.memory()?;
        Ok(context)
    }

    /// Makes the GPU current for the calling thread, as every driver call requires.
    pub(super) fn make_current(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        let answer = unsafe { sys::cuCtxSetCurrent(self.raw) };
        check(answer, "making the GPU current")
    }

    /// Free and total memory in bytes.
    pub(super) fn memory(&self) -> Result<(u64, u64)> {
        self.make_current()?;
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: the driver stores two numbers.
        let answer = unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) };
        check(answer, "asking for the GPU's memory")?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: everything created in the context is gone, since its owners hold the context.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// Initialises the driver and returns the CUDA version that it supports.
fn open_driver() -> Result<(u32, u32)> {
    // SAFETY: opening a library runs its initialisers; this is the intended library.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Config(
            "NVIDIA's driver was not found (libcuda.so.1). Install the driver, version 580 or \
             later; in a container, start it with --gpus all (NVIDIA Container Toolkit)"
                .to_owned(),
        ));
    }
    let mut version: c_int = 0;
    // SAFETY: the library is loaded, and stores a number.
    let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    check(answer, "asking the driver for its version")?;
    let version = u32::try_from(version).unwrap_or(0);
    let version = (version / 1000, version % 1000 / 10);
    if version < OLDEST_DRIVER {
        return Err(Error::Config(format!(
            "NVIDIA's driver is too old: it supports CUDA {}.{}, but {}.{} is needed. Install \
             version 580 or later of the driver",
            version.0, version.1, OLDEST_DRIVER.0, OLDEST_DRIVER.1
        )));
    }
    // SAFETY: the library is loaded.
    match unsafe { sys::cuInit(0) } {
        CUresult::CUDA_SUCCESS => Ok(version),
        CUresult::CUDA_ERROR_NO_DEVICE => Err(Error::Config(
            "NVIDIA's driver finds no GPU that this process may use (is CUDA_VISIBLE_DEVICES \
             set?)"
                .to_owned(),
        )),
        error => Err(Error::Config(format!(
            "NVIDIA's driver does not start: {}. Does `nvidia-smi` work?",
            describe(error)
        ))),
    }
}

fn find_gpu(ordinal: usize) -> Result<CUdevice> {
    let mut num_gpus: c_int = 0;
    // SAFETY: the driver is initialised, and stores a number.
    let answer = unsafe { sys::cuDeviceGetCount(&raw mut num_gpus) };
    check(answer, "counting GPUs")?;
    let wanted = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
    if wanted >= num_gpus {
        return Err(Error::Config(format!(
            "there is no GPU {ordinal}: the driver has {num_gpus}, counted from 0"
        )));
    }
    let mut device: CUdevice = 0;
    // SAFETY: the driver has a GPU with this number.
    let answer = unsafe { sys::cuDeviceGet(&raw mut device, wanted) };
    check(answer, "finding the GPU")?;
    Ok(device)
}

/// Describes the GPU, except for its memory, which needs a context.
fn describe_gpu(device: CUdevice, driver: (u32, u32)) -> Result<GpuInfo> {
    let attribute = |attribute: CUdevice_attribute| -> Result<u32> {
        let mut value: c_int = 0;
        // SAFETY: the GPU exists, and the driver stores a number.
        let answer = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) };
        check(answer, "asking the GPU what it can do")?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0_u8; 128];
    // SAFETY: the driver is given the buffer's length, and the result always ends with NUL.
    let answer =
        unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device) };
    check(answer, "asking the GPU for its name")?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"a GPU");
    let name = name.to_string_lossy().into_owned();
    let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let arch = Arch::of_gpu(major, minor)
        .map_err(|reason| Error::Config(format!("{name} cannot be used: {reason}")))?;
    Ok(GpuInfo {
        name,
        driver,
        arch,
        num_sms: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        total_memory: 0,
        free_memory: 0,
    })
}
