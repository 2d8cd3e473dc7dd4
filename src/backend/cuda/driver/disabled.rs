//! A build without NVIDIA's libraries: no GPU can be opened, so none ever is.

use super::GpuInfo;
use crate::backend::cuda::arch::Arch;
use crate::backend::cuda::device::{Device, DevicePtr, Fetch, Launch};
use crate::backend::cuda::kernel_store::{KernelStore, Unit};
use crate::error::{Error, Result};

const BUILT_WITHOUT: &str = "this program was built without the feature cuda";

/// No GPU.
#[derive(Debug)]
pub enum CudaDevice {}

impl CudaDevice {
    /// Says why not.
    ///
    /// # Errors
    /// Always.
    pub fn open(_ordinal: usize, _store: KernelStore) -> Result<Self> {
        Err(Error::Config(BUILT_WITHOUT.to_owned()))
    }

    /// What the driver says of it.
    pub fn info(&self) -> &GpuInfo {
        match *self {}
    }

    /// Bytes that nobody uses.
    ///
    /// # Errors
    /// Never.
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

    fn record(&self, _work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        match *self {}
    }

    fn replay(&self, (): &()) -> Result<()> {
        match *self {}
    }

    fn synchronize(&self) -> Result<()> {
        match *self {}
    }
}

/// No compiler.
#[derive(Debug)]
pub enum Nvrtc {}

impl Nvrtc {
    /// Says why not.
    ///
    /// # Errors
    /// Always.
    pub fn open() -> Result<Self> {
        Err(Error::Config(BUILT_WITHOUT.to_owned()))
    }

    /// As `major.minor`.
    pub fn version(&self) -> String {
        match *self {}
    }

    /// Machine code of `unit` for `arch`.
    ///
    /// # Errors
    /// Never.
    pub fn compile(&self, _unit: &Unit<'_>, _arch: &Arch) -> Result<Vec<u8>> {
        match *self {}
    }
}
