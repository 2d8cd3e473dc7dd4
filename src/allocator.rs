//! The memory allocator of the program, of its tests and of its benches.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The allocator's settings, which it reads under this name: memory of a mebibyte or more goes back
/// to the system when it is freed, and is not kept for seconds. Otherwise a body of megabytes, whose
/// buffers grow, would keep several times its size.
#[used]
#[expect(unsafe_code, reason = "the allocator reads a symbol of this name")]
// SAFETY: No other symbol has this name, and the allocator expects a pointer to a C string there.
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 27] = b"oversize_threshold:1048576\0";
