//! Stub for a build without NVIDIA's libraries: no GPU can be opened, so no value of these types
//! exists.

use super::GpuInfo;
use crate::backend::cuda::arch::Arch;
use crate::backend::cuda::device::{Device, DevicePtr, Fetch, Launch};
use crate::backend::cuda::kernel_store::{KernelStore, Unit};
use crate::error::{Error, Result};

const BUILT_WITHOUT: &str = "this program was built without the feature cuda";

/// A GPU; never exists in this build.
#[derive(Debug)]
pub enum CudaDevice {}

impl CudaDevice {
    /// Fails, saying that this build has no GPU support.
    ///
    /// # Errors
    /// Always fails.
    pub fn open(_ordinal: usize, _store: KernelStore) -> Result<Self> {
        Err(Error::Config(BUILT_WITHOUT.to_owned()))
    }

    /// Returns the driver's description of the GPU.
    pub fn info(&self) -> &GpuInfo {
        match *self {}
    }

    /// Free memory in bytes.
    ///
    /// # Errors
    /// Never fails.
    pub fn free_memory(&self) -> Result<u64> {
        match *self {}
    }
}

impl Device for CudaDevice {
    type Buffer = ();
    type Graph = ();

    fn allocate(&self, _num_bytes: usize) -> Result<()> {
        match *self {}
    }

    fn address(&self, (): &()) -> DevicePtr {
        match *self {}
    }

    fn upload(&self, _data: &[u8], _to: DevicePtr) -> Result<()> {
        match *self {}
    }

    fn download(&self, _from: DevicePtr, _data: &mut [u8]) -> Result<()> {
        match *self {}
    }

    fn fetch(&self, _from: DevicePtr, _num_bytes: usize) -> Result<Fetch> {
        match *self {}
    }

    fn copy(&self, _from: DevicePtr, _to: DevicePtr, _num_bytes: usize) -> Result<()> {
        match *self {}
    }

    fn fill_zero(&self, _at: DevicePtr, _num_bytes: usize) -> Result<()> {
        match *self {}
    }

    fn launch(&self, _launch: &Launch<'_>) -> Result<()> {
        match *self {}
    }

    fn capture(&self, _work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        match *self {}
    }

    fn replay(&self, (): &()) -> Result<()> {
        match *self {}
    }

    fn synchronize(&self) -> Result<()> {
        match *self {}
    }
}

/// The kernel compiler; never exists in this build.
#[derive(Debug)]
pub enum Nvrtc {}

impl Nvrtc {
    /// Fails, saying that this build has no GPU support.
    ///
    /// # Errors
    /// Always fails.
    pub fn open() -> Result<Self> {
        Err(Error::Config(BUILT_WITHOUT.to_owned()))
    }

    /// Version as `major.minor`.
    pub fn version(&self) -> String {
        match *self {}
    }

    /// Compiles `unit` to machine code for `arch`.
    ///
    /// # Errors
    /// Never fails.
    pub fn compile(&self, _unit: &Unit<'_>, _arch: &Arch) -> Result<Vec<u8>> {
        match *self {}
    }
}
