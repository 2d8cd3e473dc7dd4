//! Pinned host memory for asynchronous copies to and from the GPU.
//!
//! ```text
//! in:   data ─copy─▶ slot ─GPU─▶ device      slots take turns; each is free once its copy is done
//! out:  device ─GPU─▶ buffer ─copy─▶ Vec     buffers (`Letter`) are kept for reuse
//! ```

use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{self, CUevent, CUstream};
use rayon::prelude::*;

use super::check;
use super::context::Context;
use crate::backend::cuda::device::DevicePtr;
use crate::error::Result;

/// Size of an upload slot in bytes.
const SLOT_BYTES: usize = 16 << 20;
/// One slot is filled while another is being copied; a few more keep both sides busy.
const NUM_SLOTS: usize = 4;
/// Bytes that one thread copies: pages of a mapped file are loaded faster by several threads.
const COPY_BYTES: usize = 1 << 20;

/// Page-locked host memory; freed on drop.
#[derive(Debug)]
struct Pinned {
    data: *mut u8,
    num_bytes: usize,
    context: Arc<Context>,
}

// SAFETY: it is plain memory, accessed through `&self` and `&mut self` as usual.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(context: &Arc<Context>, num_bytes: usize) -> Result<Self> {
        let mut data = std::ptr::null_mut();
        // SAFETY: the context is current; the driver stores a pointer to that many bytes.
        let answer = unsafe { sys::cuMemHostAlloc(&raw mut data, num_bytes, 0) };
        check(answer, &format!("locking {num_bytes} bytes of host memory"))?;
        // SAFETY: the memory is ours and has this length; afterwards all of it is initialised.
        unsafe { data.cast::<u8>().write_bytes(0, num_bytes) };
        Ok(Self {
            data: data.cast(),
            num_bytes,
            context: Arc::clone(context),
        })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is initialised and has this length. The GPU writes to it only between
        // a copy's start and its event, and the bytes are not accessed during that time.
        unsafe { std::slice::from_raw_parts(self.data, self.num_bytes) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; the GPU reads it only between a copy's start and its event.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.num_bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: the memory is ours, and every copy from or to it has been waited for.
            let _ = unsafe { sys::cuMemFreeHost(self.data.cast()) };
        }
    }
}

/// A point in the stream that can be waited for.
#[derive(Debug)]
struct Event {
    raw: CUevent,
    context: Arc<Context>,
}

// SAFETY: an event may be used from any thread that has its context current.
unsafe impl Send for Event {}

impl Event {
    fn new(context: &Arc<Context>) -> Result<Self> {
        // Without timestamps, which would take time.
        const FLAGS: u32 = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is current; the driver stores a handle.
        let answer = unsafe { sys::cuEventCreate(&raw mut raw, FLAGS) };
        check(answer, "making an event")?;
        Ok(Self {
            raw,
            context: Arc::clone(context),
        })
    }

    /// Records the event at this point of the stream.
    fn record(&self, stream: CUstream) -> Result<()> {
        // SAFETY: both are alive and of the same context.
        let answer = unsafe { sys::cuEventRecord(self.raw, stream) };
        check(answer, "marking a point of the stream")
    }

    /// Waits until the stream has passed the event; returns at once if it was never recorded.
    fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        let answer = unsafe { sys::cuEventSynchronize(self.raw) };
        check(answer, "waiting for the GPU")
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: the event is ours and not used again.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}

/// Uploads to the GPU through pinned slots.
#[derive(Debug)]
pub(super) struct Inbound {
    slots: Vec<Slot>,
    next: usize,
}

#[derive(Debug)]
struct Slot {
    memory: Pinned,
    /// Recorded at the end of its last copy.
    done: Event,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The GPU may still be reading; if it does not answer, nothing more can be done.
        let _ = self.done.wait();
    }
}

impl Inbound {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self> {
        let slot = |_| {
            Ok(Slot {
                memory: Pinned::new(context, SLOT_BYTES)?,
                done: Event::new(context)?,
            })
        };
        Ok(Self {
            slots: (0..NUM_SLOTS).map(slot).collect::<Result<_>>()?,
            next: 0,
        })
    }

    /// Queues a copy of `data`, which may be reused at once.
    pub(super) fn send(&mut self, data: &[u8], to: DevicePtr, stream: CUstream) -> Result<()> {
        for (idx, part) in data.chunks(SLOT_BYTES).enumerate() {
            let slot = &mut self.slots[self.next];
            self.next = (self.next + 1) % NUM_SLOTS;
            slot.done.wait()?;
            let staged = &mut slot.memory.bytes_mut()[..part.len()];
            staged
                .par_chunks_mut(COPY_BYTES)
                .zip(part.par_chunks(COPY_BYTES))
                .for_each(|(to, from)| to.copy_from_slice(from));
            let to = to.at(idx * SLOT_BYTES);
            // SAFETY: the slot does not change until its event is waited for; the caller owns the
            // device memory from `to` on.
            let answer = unsafe {
                sys::cuMemcpyHtoDAsync_v2(to.0, staged.as_ptr().cast(), part.len(), stream)
            };
            check(answer, "copying to the GPU")?;
            slot.done.record(stream)?;
        }
        Ok(())
    }
}

/// Downloads from the GPU; holds pinned buffers that can be reused.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbound(Arc<Mutex<Vec<Letter>>>);

/// A pinned buffer with bytes on their way from the GPU.
#[derive(Debug)]
pub(super) struct Letter {
    memory: Pinned,
    num_bytes: usize,
    done: Event,
}

impl Drop for Letter {
    fn drop(&mut self) {
        // The GPU may still be writing; if it does not answer, nothing more can be done.
        let _ = self.done.wait();
    }
}

impl Outbound {
    /// Queues a copy.
    pub(super) fn send(
        &self,
        context: &Arc<Context>,
        from: DevicePtr,
        num_bytes: usize,
        stream: CUstream,
    ) -> Result<Letter> {
        let mut letter = self.letter(context, num_bytes)?;
        letter.num_bytes = num_bytes;
        // SAFETY: the buffer is large enough, and is read once its event is waited for; the caller
        // owns the device memory from `from` on.
        let answer = unsafe {
            sys::cuMemcpyDtoHAsync_v2(letter.memory.data.cast(), from.0, num_bytes, stream)
        };
        check(answer, "copying from the GPU")?;
        letter.done.record(stream)?;
        Ok(letter)
    }

    /// Waits for the bytes, and keeps the buffer for reuse.
    pub(super) fn receive(&self, letter: Letter) -> Result<Vec<u8>> {
        letter.done.wait()?;
        let data = letter.memory.bytes()[..letter.num_bytes].to_vec();
        self.letters().push(letter);
        Ok(data)
    }

    fn letter(&self, context: &Arc<Context>, num_bytes: usize) -> Result<Letter> {
        let mut letters = self.letters();
        let fits = |letter: &Letter| letter.memory.num_bytes >= num_bytes;
        if let Some(idx) = letters.iter().position(fits) {
            return Ok(letters.swap_remove(idx));
        }
        Ok(Letter {
            memory: Pinned::new(context, num_bytes.next_power_of_two())?,
            num_bytes,
            done: Event::new(context)?,
        })
    }

    fn letters(&self) -> std::sync::MutexGuard<'_, Vec<Letter>> {
        self.0.lock().expect("nothing panics with the lock held")
    }
}
