//! A GPU as a [`Device`].

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{
    self, CUgraphExec, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
    CUlaunchConfig, CUresult, CUstream, CUstreamCaptureMode,
};

use super::context::Context;
use super::module::{Function, Modules};
use super::pinned::{Inbound, Outbound};
use super::{check, describe};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, Fetch, Launch, Overlap};
use crate::backend::cuda::driver::GpuInfo;
use crate::backend::cuda::kernel_store::KernelStore;
use crate::error::{Error, Result};

/// Maximum number of arguments of a kernel.
const MAX_ARGS: usize = 48;

/// One GPU and one stream on it.
#[derive(Debug)]
pub struct CudaDevice {
    modules: Modules,
    inbound: Mutex<Inbound>,
    outbound: Outbound,
    /// Whether a graph is being captured: copies from host memory would be stale on replay.
    capturing: AtomicBool,
    stream: Stream,
}

/// A CUDA stream; destroyed on drop.
#[derive(Debug)]
struct Stream {
    raw: CUstream,
    context: Arc<Context>,
}

// SAFETY: a stream may be used from any thread that has its context current.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver queues one call after another.
unsafe impl Sync for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: the stream is ours and not used again; its work is waited for first.
            unsafe {
                let _ = sys::cuStreamSynchronize(self.raw);
                let _ = sys::cuStreamDestroy_v2(self.raw);
            }
        }
    }
}

/// Memory on the GPU; freed on drop.
#[derive(Debug)]
pub struct CudaBuffer {
    address: DevicePtr,
    context: Arc<Context>,
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: the memory is ours; the driver waits for work that uses it.
            let _ = unsafe { sys::cuMemFree_v2(self.address.0) };
        }
    }
}

/// A captured CUDA graph; destroyed on drop.
#[derive(Debug)]
pub struct CudaGraph {
    raw: CUgraphExec,
    context: Arc<Context>,
}

// SAFETY: a graph may be used from any thread that has its context current.
unsafe impl Send for CudaGraph {}
// SAFETY: as above; it is launched into one stream only, one launch after another.
unsafe impl Sync for CudaGraph {}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: the graph is ours and not launched again.
            let _ = unsafe { sys::cuGraphExecDestroy(self.raw) };
        }
    }
}

impl CudaDevice {
    /// Opens GPU `ordinal`; `store` holds its kernels.
    ///
    /// # Errors
    /// Returns `Config`, naming what is missing or too old, and what to install.
    pub fn open(ordinal: usize, store: KernelStore) -> Result<Self> {
        // A stream of its own, so that other work in the process is not waited for.
        const FLAGS: u32 = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let context = Arc::new(Context::open(ordinal)?);
        context.make_current()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the context is current; the driver stores a handle.
        let answer = unsafe { sys::cuStreamCreate(&raw mut raw, FLAGS) };
        check(answer, "making a stream")?;
        let stream = Stream {
            raw,
            context: Arc::clone(&context),
        };
        let modules = Modules::new(store);
        modules.prepare(&context.info)?;
        Ok(Self {
            modules,
            inbound: Mutex::new(Inbound::new(&context)?),
            outbound: Outbound::default(),
            capturing: AtomicBool::new(false),
            stream,
        })
    }

    /// Returns the driver's description of the GPU at the time it was opened.
    pub fn info(&self) -> &GpuInfo {
        &self.stream.context.info
    }

    /// Free memory in bytes.
    ///
    /// # Errors
    /// Returns `Backend` when the GPU does not answer.
    pub fn free_memory(&self) -> Result<u64> {
        Ok(self.stream.context.memory()?.0)
    }

    fn current(&self) -> Result<&Arc<Context>> {
        self.stream.context.make_current()?;
        Ok(&self.stream.context)
    }

    /// Refuses operations that cannot be captured.
    fn not_capturing(&self, what: &str) -> Result<()> {
        if self.capturing.load(Ordering::Relaxed) {
            return Err(Error::Backend(format!("{what} cannot be captured")));
        }
        Ok(())
    }

    fn launch_function(&self, function: &Function, launch: &Launch<'_>) -> Result<()> {
        let mut attribute = CUlaunchAttribute {
            id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: CUlaunchAttributeValue {
                programmaticStreamSerializationAllowed: 1,
            },
        };
        // Earlier GPUs do not support this overlap; the kernels' wait instructions are empty there.
        let overlaps = launch.overlap == Overlap::Programmatic && self.info().arch.overlaps();
        let config = CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.block[0],
            blockDimY: launch.block[1],
            blockDimZ: launch.block[2],
            sharedMemBytes: launch.shared_bytes,
            hStream: self.stream.raw,
            attrs: &raw mut attribute,
            numAttrs: u32::from(overlaps),
        };
        let num_args = launch.args.len();
        if num_args > MAX_ARGS {
            return Err(Error::Backend(format!(
                "{} takes {num_args} arguments; {MAX_ARGS} is the most",
                launch.kernel.function
            )));
        }
        let mut args = [ptr::null_mut::<c_void>(); MAX_ARGS];
        for (pointer, arg) in args.iter_mut().zip(launch.args) {
            *pointer = match arg {
                Arg::Ptr(DevicePtr(value)) | Arg::U64(value) => {
                    ptr::from_ref(value).cast_mut().cast()
                }
                Arg::U32(value) => ptr::from_ref(value).cast_mut().cast(),
                Arg::I32(value) => ptr::from_ref(value).cast_mut().cast(),
                Arg::F32(value) => ptr::from_ref(value).cast_mut().cast(),
            };
        }
        // SAFETY: function and stream are alive; every argument's value outlives the call, which
        // copies it; the launcher is responsible for matching the kernel's number and types of
        // arguments.
        let answer = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.raw,
                args.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        if answer == CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        Err(Error::Backend(format!(
            "launching {} of {} with grid {:?}, block {:?}, {} bytes of shared memory: {}",
            launch.kernel.function,
            launch.kernel.source.name,
            launch.grid,
            launch.block,
            launch.shared_bytes,
            describe(answer)
        )))
    }
}

impl Device for CudaDevice {
    type Buffer = CudaBuffer;
    type Graph = CudaGraph;

    fn allocate(&self, num_bytes: usize) -> Result<CudaBuffer> {
        let context = self.current()?;
        let mut address = 0;
        // SAFETY: the context is current; the driver stores an address. Zero bytes are never
        // requested.
        match unsafe { sys::cuMemAlloc_v2(&raw mut address, num_bytes.max(1)) } {
            CUresult::CUDA_SUCCESS => Ok(CudaBuffer {
                address: DevicePtr(address),
                context: Arc::clone(context),
            }),
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = context.memory()?;
                Err(Error::OutOfMemory(format!(
                    "{} has no {num_bytes} bytes in one piece: {free} of {total} are free. Lower \
                     --gpu-memory-utilization or --kv-cache-memory, or stop what else uses it",
                    context.info.name
                )))
            }
            error => Err(Error::Backend(format!(
                "allocating {num_bytes} bytes: {}",
                describe(error)
            ))),
        }
    }

    fn address(&self, buffer: &CudaBuffer) -> DevicePtr {
        buffer.address
    }

    fn upload(&self, data: &[u8], to: DevicePtr) -> Result<()> {
        self.not_capturing("a copy from the host")?;
        self.current()?;
        let mut inbound = self
            .inbound
            .lock()
            .map_err(|_| Error::Backend("an earlier copy to the GPU panicked".to_owned()))?;
        inbound.send(data, to, self.stream.raw)
    }

    fn download(&self, from: DevicePtr, data: &mut [u8]) -> Result<()> {
        let fetched = self.fetch(from, data.len())?()?;
        data.copy_from_slice(&fetched);
        Ok(())
    }

    fn fetch(&self, from: DevicePtr, num_bytes: usize) -> Result<Fetch> {
        self.not_capturing("a copy to the host")?;
        let context = self.current()?;
        if num_bytes == 0 {
            return Ok(Box::new(|| Ok(Vec::new())));
        }
        let outbound = self.outbound.clone();
        let letter = outbound.send(context, from, num_bytes, self.stream.raw)?;
        let context = Arc::clone(context);
        Ok(Box::new(move || {
            context.make_current()?;
            outbound.receive(letter)
        }))
    }

    fn copy(&self, from: DevicePtr, to: DevicePtr, num_bytes: usize) -> Result<()> {
        self.current()?;
        // SAFETY: the caller owns both ranges of device memory.
        let answer = unsafe { sys::cuMemcpyDtoDAsync_v2(to.0, from.0, num_bytes, self.stream.raw) };
        check(answer, "copying on the GPU")
    }

    fn fill_zero(&self, at: DevicePtr, num_bytes: usize) -> Result<()> {
        self.current()?;
        // SAFETY: the caller owns the range of device memory.
        let answer = unsafe { sys::cuMemsetD8Async(at.0, 0, num_bytes, self.stream.raw) };
        check(answer, "clearing memory of the GPU")
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let context = self.current()?;
        let function = self.modules.function(context, &launch.kernel)?;
        function.allow_shared(launch.shared_bytes)?;
        self.launch_function(&function, launch)
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<CudaGraph> {
        // Other threads may continue to call the driver.
        const MODE: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let context = self.current()?;
        self.not_capturing("a nested capture")?;
        // SAFETY: the stream is alive and not capturing yet.
        let answer = unsafe { sys::cuStreamBeginCapture_v2(self.stream.raw, MODE) };
        check(answer, "beginning a capture")?;
        self.capturing.store(true, Ordering::Relaxed);
        let outcome = work();
        self.capturing.store(false, Ordering::Relaxed);
        let mut graph = ptr::null_mut();
        // SAFETY: the stream is capturing; the driver stores a handle, or null for an invalid
        // graph.
        let answer = unsafe { sys::cuStreamEndCapture(self.stream.raw, &raw mut graph) };
        outcome?;
        check(answer, "ending a capture")?;
        let mut raw = ptr::null_mut();
        // SAFETY: the graph is complete; it may be destroyed once it is instantiated.
        let answer = unsafe {
            let answer = sys::cuGraphInstantiateWithFlags(&raw mut raw, graph, 0);
            let _ = sys::cuGraphDestroy(graph);
            answer
        };
        check(answer, "preparing a captured graph")?;
        Ok(CudaGraph {
            raw,
            context: Arc::clone(context),
        })
    }

    fn replay(&self, graph: &CudaGraph) -> Result<()> {
        self.current()?;
        // SAFETY: graph and stream are alive and of the same context.
        let answer = unsafe { sys::cuGraphLaunch(graph.raw, self.stream.raw) };
        check(answer, "replaying a captured graph")
    }

    fn synchronize(&self) -> Result<()> {
        self.current()?;
        // SAFETY: the stream is alive.
        let answer = unsafe { sys::cuStreamSynchronize(self.stream.raw) };
        check(answer, "waiting for the GPU")
    }
}
