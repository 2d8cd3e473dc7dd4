//! What the kernels' tests run on: the emulator, or a GPU where one is named.

use medgemma::backend::cuda::device::{Device, DevicePtr, Fetch, Launch};
use medgemma::backend::cuda::driver::CudaDevice;
use medgemma::backend::cuda::kernel_store::KernelStore;
use medgemma::error::Result;

use super::emulator::Emulator;

/// Names a GPU by its number: `MEDGEMMA_TEST_GPU=0 cargo test --release --test it cuda::`.
const GPU: &str = "MEDGEMMA_TEST_GPU";

pub(super) enum TestDevice {
    Emulated(Box<Emulator>),
    Gpu(Box<CudaDevice>),
}

impl TestDevice {
    /// `None` where nothing can run kernels; the emulator has said so.
    pub(super) fn open() -> Option<Self> {
        let Ok(ordinal) = std::env::var(GPU) else {
            return Emulator::new().map(|device| Self::Emulated(Box::new(device)));
        };
        let ordinal = ordinal.parse().expect("a GPU has a number");
        let gpu = CudaDevice::open(ordinal, KernelStore::new(None, None));
        Some(Self::Gpu(Box::new(gpu.expect("the GPU can be used"))))
    }
}

/// Either device's: never given to the other.
pub(super) enum Either<E, C> {
    Emulated(E),
    Gpu(C),
}

type Buffer = Either<<Emulator as Device>::Buffer, <CudaDevice as Device>::Buffer>;
type Graph = Either<<Emulator as Device>::Graph, <CudaDevice as Device>::Graph>;

/// The same call on whichever device it is.
macro_rules! on_either {
    ($self:ident, $device:ident => $call:expr) => {
        match $self {
            Self::Emulated($device) => $call,
            Self::Gpu($device) => $call,
        }
    };
}

impl Device for TestDevice {
    type Buffer = Buffer;
    type Graph = Graph;

    fn allocate(&self, num_bytes: usize) -> Result<Buffer> {
        match self {
            Self::Emulated(device) => device.allocate(num_bytes).map(Either::Emulated),
            Self::Gpu(device) => device.allocate(num_bytes).map(Either::Gpu),
        }
    }

    fn address(&self, buffer: &Buffer) -> DevicePtr {
        match (self, buffer) {
            (Self::Emulated(device), Either::Emulated(buffer)) => device.address(buffer),
            (Self::Gpu(device), Either::Gpu(buffer)) => device.address(buffer),
            _ => unreachable!("a test has one device"),
        }
    }

    fn upload(&self, data: &[u8], to: DevicePtr) -> Result<()> {
        on_either!(self, device => device.upload(data, to))
    }

    fn download(&self, from: DevicePtr, data: &mut [u8]) -> Result<()> {
        on_either!(self, device => device.download(from, data))
    }

    fn fetch(&self, from: DevicePtr, num_bytes: usize) -> Result<Fetch> {
        on_either!(self, device => device.fetch(from, num_bytes))
    }

    fn copy(&self, from: DevicePtr, to: DevicePtr, num_bytes: usize) -> Result<()> {
        on_either!(self, device => device.copy(from, to, num_bytes))
    }

    fn fill_zero(&self, at: DevicePtr, num_bytes: usize) -> Result<()> {
        on_either!(self, device => device.fill_zero(at, num_bytes))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        on_either!(self, device => device.launch(launch))
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Graph> {
        match self {
            Self::Emulated(device) => device.capture(work).map(Either::Emulated),
            Self::Gpu(device) => device.capture(work).map(Either::Gpu),
        }
    }

    fn replay(&self, graph: &Graph) -> Result<()> {
        match (self, graph) {
            (Self::Emulated(device), Either::Emulated(graph)) => device.replay(graph),
            (Self::Gpu(device), Either::Gpu(graph)) => device.replay(graph),
            _ => unreachable!("a test has one device"),
        }
    }

    fn synchronize(&self) -> Result<()> {
        on_either!(self, device => device.synchronize())
    }
}
