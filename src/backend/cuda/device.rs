//! What the CUDA backend needs of a device: memory, kernels and one stream of work in order.
//!
//! Two implementations: the driver's, which is a GPU, and the tests' emulator, which runs the
//! same kernels in host memory. Knows nothing of models, tensors or what a kernel computes.

use crate::error::Result;

/// Memory, kernels and one stream of work in order.
pub trait Device: Send + Sync {
    /// Owns device memory; freed on drop.
    type Buffer: Send + Sync + 'static;
    /// Recorded work.
    type Graph: Send + Sync + 'static;

    /// Memory of `num_bytes`, with whatever happens to be in it; aligned to 256 bytes.
    fn allocate(&self, num_bytes: usize) -> Result<Self::Buffer>;
    /// Where `buffer` begins.
    fn address(&self, buffer: &Self::Buffer) -> DevicePtr;
    /// Copies from the host, in stream order. `data` may be reused at once.
    fn upload(&self, data: &[u8], to: DevicePtr) -> Result<()>;
    /// Copies to the host once the work before it is done; waits for that.
    fn download(&self, from: DevicePtr, data: &mut [u8]) -> Result<()>;
    /// Begins a copy to the host, in stream order, and gives what waits for it: work that is
    /// queued later is not waited for.
    fn fetch(&self, from: DevicePtr, num_bytes: usize) -> Result<Fetch> {
        let mut data = vec![0; num_bytes];
        self.download(from, &mut data)?;
        Ok(Box::new(move || Ok(data)))
    }
    /// Copies on the device, in stream order.
    fn copy(&self, from: DevicePtr, to: DevicePtr, num_bytes: usize) -> Result<()>;
    /// Clears bytes, in stream order.
    fn fill_zero(&self, at: DevicePtr, num_bytes: usize) -> Result<()>;
    /// Queues a kernel.
    fn launch(&self, launch: &Launch<'_>) -> Result<()>;
    /// Records what `work` queues instead of running it.
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Self::Graph>;
    /// Queues recorded work.
    fn replay(&self, graph: &Self::Graph) -> Result<()>;
    /// Waits for everything that is queued.
    fn synchronize(&self) -> Result<()>;
}

/// Waits for bytes on their way to the host.
pub type Fetch = Box<dyn FnOnce() -> Result<Vec<u8>> + Send>;

/// An address in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// The address `num_bytes` further on.
    pub fn at(self, num_bytes: usize) -> Self {
        Self(self.0 + num_bytes as u64)
    }
}

/// One kernel's launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// What runs.
    pub kernel: KernelId<'a>,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// In the order of the kernel's parameters.
    pub args: &'a [Arg],
    /// Whether it may start before the kernel before it has ended.
    pub overlap: Overlap,
}

/// A function of a source that is compiled with these defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelId<'a> {
    /// Where it is written.
    pub source: &'static Source,
    /// Its name, `extern "C"`.
    pub function: &'static str,
    /// What is fixed at compile time.
    pub defines: &'a [(&'static str, u32)],
}

/// A `.cu` file; the common header goes before it when it is compiled.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The file's name, for messages.
    pub name: &'static str,
    /// What it says.
    pub text: &'static str,
}

/// One argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// An address.
    Ptr(DevicePtr),
    /// `unsigned int`
    U32(u32),
    /// `int`
    I32(i32),
    /// `float`
    F32(f32),
    /// `unsigned long long`
    U64(u64),
}

/// How a kernel follows the one before it in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overlap {
    /// Starts when that one has ended.
    Wait,
    /// May start earlier; the kernel itself waits before it reads what that one writes
    /// (programmatic dependent launch).
    Programmatic,
}

impl<D: Device> Device for &D {
    type Buffer = D::Buffer;
    type Graph = D::Graph;

    fn allocate(&self, num_bytes: usize) -> Result<Self::Buffer> {
        D::allocate(self, num_bytes)
    }

    fn address(&self, buffer: &Self::Buffer) -> DevicePtr {
        D::address(self, buffer)
    }

    fn upload(&self, data: &[u8], to: DevicePtr) -> Result<()> {
        D::upload(self, data, to)
    }

    fn download(&self, from: DevicePtr, data: &mut [u8]) -> Result<()> {
        D::download(self, from, data)
    }

    fn fetch(&self, from: DevicePtr, num_bytes: usize) -> Result<Fetch> {
        D::fetch(self, from, num_bytes)
    }

    fn copy(&self, from: DevicePtr, to: DevicePtr, num_bytes: usize) -> Result<()> {
        D::copy(self, from, to, num_bytes)
    }

    fn fill_zero(&self, at: DevicePtr, num_bytes: usize) -> Result<()> {
        D::fill_zero(self, at, num_bytes)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        D::launch(self, launch)
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Self::Graph> {
        D::record(self, work)
    }

    fn replay(&self, graph: &Self::Graph) -> Result<()> {
        D::replay(self, graph)
    }

    fn synchronize(&self) -> Result<()> {
        D::synchronize(self)
    }
}
