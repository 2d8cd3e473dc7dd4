//! The device interface of the CUDA backend: memory, kernels and one in-order stream.
//!
//! There are two implementations: the driver's, which is a GPU, and the tests' emulator, which runs
//! the same kernels in host memory. Knows nothing of models, tensors or what a kernel computes.

use crate::error::Result;

/// Memory, kernels and one in-order stream.
pub trait Device: Send + Sync {
    /// Owns device memory; freed on drop.
    type Buffer: Send + Sync + 'static;
    /// A captured graph.
    type Graph: Send + Sync + 'static;

    /// Allocates uninitialised memory of `num_bytes`, aligned to 256 bytes.
    fn allocate(&self, num_bytes: usize) -> Result<Self::Buffer>;
    /// Returns the start address of `buffer`.
    fn address(&self, buffer: &Self::Buffer) -> DevicePtr;
    /// Copies from the host, in stream order. `data` may be reused at once.
    fn upload(&self, data: &[u8], to: DevicePtr) -> Result<()>;
    /// Copies to the host after all earlier work; waits for that.
    fn download(&self, from: DevicePtr, data: &mut [u8]) -> Result<()>;
    /// Begins a copy to the host, in stream order, and returns a function that waits for it, but
    /// not for work queued later.
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
    /// Captures what `work` queues instead of running it.
    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Self::Graph>;
    /// Queues a captured graph.
    fn replay(&self, graph: &Self::Graph) -> Result<()>;
    /// Waits for all queued work.
    fn synchronize(&self) -> Result<()>;
}

/// Waits for bytes on their way to the host and returns them.
pub type Fetch = Box<dyn FnOnce() -> Result<Vec<u8>> + Send>;

/// An address in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// Returns the address `num_bytes` further on.
    pub fn at(self, num_bytes: usize) -> Self {
        Self(self.0 + num_bytes as u64)
    }
}

/// Arguments of a kernel launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Kernel to run.
    pub kernel: KernelId<'a>,
    /// Number of blocks in x, y and z.
    pub grid: [u32; 3],
    /// Number of threads per block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory per block, in bytes.
    pub shared_bytes: u32,
    /// Arguments, in the order of the kernel's parameters.
    pub args: &'a [Arg],
    /// Whether it may start before the previous kernel has ended.
    pub overlap: Overlap,
}

/// A function of a source, compiled with these defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelId<'a> {
    /// Source of the function.
    pub source: &'static Source,
    /// Name of the function, `extern "C"`.
    pub function: &'static str,
    /// Compile-time constants.
    pub defines: &'a [(&'static str, u32)],
}

/// A `.cu` file; the common header goes before it when it is compiled.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The file's name, for messages.
    pub name: &'static str,
    /// The source text.
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
    /// The kernel starts when the previous one has ended.
    Wait,
    /// The kernel may start earlier; it waits by itself before it reads what the previous one
    /// writes (programmatic dependent launch).
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

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Self::Graph> {
        D::capture(self, work)
    }

    fn replay(&self, graph: &Self::Graph) -> Result<()> {
        D::replay(self, graph)
    }

    fn synchronize(&self) -> Result<()> {
        D::synchronize(self)
    }
}
