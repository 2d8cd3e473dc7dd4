//! A [`Device`] in host memory that runs the kernels' own sources: each is compiled as C++ against
//! `emulate.h`, once per content, and loaded into the test.
//!
//! Knows nothing of what the kernels compute. A machine without a C++ compiler has no emulator.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{env, fs, ptr, slice};

use libloading::Library;
use medgemma::backend::cuda::device::{Arg, Device, DevicePtr, Launch, Source};
use medgemma::backend::cuda::kernels::COMMON;
use medgemma::error::{Error, Result};

const EXECUTION_MODEL: &str = include_str!("emulate.h");
/// The driver's promise for allocations.
const ALIGNMENT: usize = 256;
/// Bytes on both sides of a buffer that nobody may write.
const GUARD_BYTES: usize = 256;
const GUARD: u8 = 0xa5;
/// Fresh memory reads as NaN, in f32 and bf16.
const POISON: u8 = 0xff;

/// Libraries by file. One process runs many tests, and a loaded library runs one block at a time.
static LIBRARIES: Mutex<BTreeMap<PathBuf, Slot>> = Mutex::new(BTreeMap::new());

type Slot = Arc<Mutex<Option<Library>>>;

/// Host memory and kernels compiled as C++.
#[derive(Debug)]
pub(super) struct Emulator {
    compiler: PathBuf,
    /// Where compiled kernels are kept between runs.
    folder: PathBuf,
    /// Length by address of every live buffer.
    live: Arc<Mutex<BTreeMap<u64, usize>>>,
    capturing: Mutex<Option<Vec<Work>>>,
    num_launches: AtomicU32,
}

/// One allocation, guarded on both sides.
#[derive(Debug)]
pub(super) struct Buffer {
    start: *mut u8,
    num_bytes: usize,
    live: Arc<Mutex<BTreeMap<u64, usize>>>,
}

// SAFETY: the pointer is owned, and who may touch the memory when is the device's stream's order,
// which the emulator keeps by running everything at once on the calling thread.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

/// Captured work, ready to be run again.
#[derive(Debug)]
pub(super) struct Graph(Vec<Work>);

#[derive(Clone, Debug)]
enum Work {
    Launch(OwnedLaunch),
    Copy {
        from: DevicePtr,
        to: DevicePtr,
        num_bytes: usize,
    },
    FillZero {
        at: DevicePtr,
        num_bytes: usize,
    },
}

#[derive(Clone, Debug)]
struct OwnedLaunch {
    source: &'static Source,
    function: &'static str,
    defines: Vec<(&'static str, u32)>,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    args: Vec<Arg>,
}

/// As `emulate.h` has it.
#[repr(C)]
struct RawLaunch {
    grid: [u32; 3],
    block: [u32; 3],
    num_shared_bytes: u32,
    seed: u32,
    args: *const u64,
    num_args: u32,
    message: *mut u8,
}

/// What a GPU of compute capability 8.6 to 12.0 can be asked for, the smallest of them.
const MAX_SHARED_BYTES: u32 = 99 * 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed elsewhere must not fail this one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(message: String) -> Error {
    Error::Backend(message)
}

impl Emulator {
    /// `None`, said on stderr, on a machine that cannot compile C++.
    pub(super) fn new() -> Option<Self> {
        let compiler = env::var_os("CXX").map_or_else(|| PathBuf::from("c++"), PathBuf::from);
        let works = Command::new(&compiler)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        if !works {
            eprintln!("skipped: no C++ compiler ({})", compiler.display());
            return None;
        }
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("emulated");
        fs::create_dir_all(&folder).expect("the target's temporary folder can be written");
        Some(Self {
            compiler,
            folder,
            live: Arc::default(),
            capturing: Mutex::default(),
            num_launches: AtomicU32::new(0),
        })
    }

    /// Whether `num_bytes` from `at` on lie in one live buffer.
    fn check(&self, at: DevicePtr, num_bytes: usize) -> Result<()> {
        let live = lock(&self.live);
        let inside = live
            .range(..=at.0)
            .next_back()
            .is_some_and(|(start, len)| at.0 + num_bytes as u64 <= start + *len as u64);
        if inside {
            Ok(())
        } else {
            Err(failure(format!(
                "{num_bytes} bytes at {:#x} are in no buffer",
                at.0
            )))
        }
    }

    /// Adds to the capture if there is one, otherwise runs at once.
    fn submit(&self, work: Work) -> Result<()> {
        if let Some(captured) = lock(&self.capturing).as_mut() {
            captured.push(work);
            return Ok(());
        }
        self.run(&work)
    }

    fn run(&self, work: &Work) -> Result<()> {
        match work {
            Work::Launch(launch) => self.run_launch(launch),
            Work::Copy {
                from,
                to,
                num_bytes,
            } => {
                self.check(*from, *num_bytes)?;
                self.check(*to, *num_bytes)?;
                // SAFETY: both ranges lie in live buffers, as just checked; `copy` allows overlap.
                unsafe { ptr::copy(from.0 as *const u8, to.0 as *mut u8, *num_bytes) };
                Ok(())
            }
            Work::FillZero { at, num_bytes } => {
                self.check(*at, *num_bytes)?;
                // SAFETY: the range lies in a live buffer, as just checked.
                unsafe { ptr::write_bytes(at.0 as *mut u8, 0, *num_bytes) };
                Ok(())
            }
        }
    }

    fn run_launch(&self, launch: &OwnedLaunch) -> Result<()> {
        let OwnedLaunch {
            source, function, ..
        } = launch;
        if launch.shared_bytes > MAX_SHARED_BYTES {
            return Err(failure(format!(
                "{function}: {} bytes of shared memory, over {MAX_SHARED_BYTES}",
                launch.shared_bytes
            )));
        }
        let num_threads: u32 = launch.block.iter().product();
        if num_threads == 0 || num_threads > 1024 || launch.grid.contains(&0) {
            return Err(failure(format!(
                "{function}: grid {:?}, block {:?}",
                launch.grid, launch.block
            )));
        }
        let args: Vec<u64> = launch
            .args
            .iter()
            .map(|arg| match *arg {
                Arg::Ptr(pointer) => pointer.0,
                Arg::U32(number) => u64::from(number),
                Arg::I32(number) => i64::from(number) as u64,
                Arg::F32(number) => u64::from(number.to_bits()),
                Arg::U64(number) => number,
            })
            .collect();
        let mut message = [0_u8; 256];
        let raw = RawLaunch {
            grid: launch.grid,
            block: launch.block,
            num_shared_bytes: launch.shared_bytes,
            seed: self.num_launches.fetch_add(1, Ordering::Relaxed),
            args: args.as_ptr(),
            num_args: args.len() as u32,
            message: message.as_mut_ptr(),
        };
        let slot = self.library(source, &launch.defines)?;
        let library = lock(&slot);
        let library = library.as_ref().expect("`library` loads it");
        let name = format!("emulated_{function}");
        // SAFETY: the emulator wrote the entry points itself, with this signature.
        let entry = unsafe { library.get::<unsafe extern "C" fn(*const RawLaunch) -> i32>(&name) }
            .map_err(|error| failure(format!("{}: {error}", source.name)))?;
        // SAFETY: `raw` and what it points to outlive the call; the kernel's own accesses are what
        // the tests are about: buffers and shared memory are guarded.
        let failed = unsafe { entry(&raw) } != 0;
        if failed {
            let text = String::from_utf8_lossy(&message);
            return Err(failure(format!(
                "{function}: {}",
                text.trim_end_matches('\0')
            )));
        }
        Ok(())
    }

    /// The compiled source, loaded.
    fn library(&self, source: &Source, defines: &[(&str, u32)]) -> Result<Slot> {
        let text = translation_unit(source, defines);
        let hash = blake3::hash(text.as_bytes()).to_hex();
        let path = self
            .folder
            .join(format!("{}-{}.so", source.name, &hash[..32]));
        let slot = lock(&LIBRARIES).entry(path.clone()).or_default().clone();
        let mut library = lock(&slot);
        if library.is_none() {
            if !path.exists() {
                self.compile(source, &text, &path)?;
            }
            // SAFETY: loading runs no code of the library: its statics need no constructors that
            // matter to anybody else.
            let loaded = unsafe { Library::new(&path) }
                .map_err(|error| failure(format!("{}: {error}", source.name)))?;
            *library = Some(loaded);
        }
        drop(library);
        Ok(slot)
    }

    fn compile(&self, source: &Source, text: &str, path: &PathBuf) -> Result<()> {
        // Another process may compile the same: whoever is last to rename wins, with equal content.
        let unique = path.with_extension(format!("{}.cpp", std::process::id()));
        let object = path.with_extension(format!("{}.so", std::process::id()));
        let io = |error: std::io::Error| failure(format!("{}: {error}", source.name));
        fs::write(&unique, text).map_err(io)?;
        let output = Command::new(&self.compiler)
            // Contraction off: the same sums on every machine.
            .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-w"])
            .arg("-ffp-contract=off")
            .arg("-o")
            .arg(&object)
            .arg(&unique)
            .output()
            .map_err(io)?;
        fs::remove_file(&unique).map_err(io)?;
        if !output.status.success() {
            return Err(failure(format!(
                "{} does not compile:\n{}",
                source.name,
                String::from_utf8_lossy(&output.stderr)
            )));
        }
        fs::rename(&object, path).map_err(io)
    }
}

/// The execution model, the defines, the source and an entry point per kernel.
fn translation_unit(source: &Source, defines: &[(&str, u32)]) -> String {
    let mut text = String::from(EXECUTION_MODEL);
    for (name, value) in defines {
        writeln!(text, "#define {name} {value}").expect("a string takes everything");
    }
    text.push_str(COMMON.text);
    writeln!(text, "\n#line 1 \"{}\"", source.name).expect("a string takes everything");
    text.push_str(source.text);
    for rest in source.text.split("\nKERNEL ").skip(1) {
        let declaration = rest.split_once('{').map_or(rest, |(head, _)| head);
        // `__launch_bounds__(N) name(` or `name(`
        let before_parameters = declaration
            .strip_prefix("__launch_bounds__(")
            .and_then(|bounds| bounds.split_once(')'))
            .map_or(declaration, |(_, after)| after);
        let name = before_parameters
            .split('(')
            .next()
            .unwrap_or_default()
            .trim();
        writeln!(
            text,
            "extern \"C\" int emulated_{name}(const emulated::Launch* launch) {{ \
             return emulated::run({name}, *launch); }}"
        )
        .expect("a string takes everything");
    }
    text
}

impl Device for Emulator {
    type Buffer = Buffer;
    type Graph = Graph;

    fn allocate(&self, num_bytes: usize) -> Result<Buffer> {
        let layout = layout(num_bytes);
        // SAFETY: the layout is never empty, since it includes the guards.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return Err(failure(format!("no memory for {num_bytes} bytes")));
        }
        // SAFETY: all three ranges lie in the allocation: guard, buffer, guard.
        let start = unsafe {
            ptr::write_bytes(memory, GUARD, layout.size());
            let start = memory.add(GUARD_BYTES);
            ptr::write_bytes(start, POISON, num_bytes);
            start
        };
        lock(&self.live).insert(start as u64, num_bytes);
        Ok(Buffer {
            start,
            num_bytes,
            live: self.live.clone(),
        })
    }

    fn address(&self, buffer: &Buffer) -> DevicePtr {
        DevicePtr(buffer.start as u64)
    }

    fn upload(&self, data: &[u8], to: DevicePtr) -> Result<()> {
        if lock(&self.capturing).is_some() {
            return Err(failure("an upload cannot be captured".to_owned()));
        }
        self.check(to, data.len())?;
        // SAFETY: the range lies in a live buffer, as just checked.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to.0 as *mut u8, data.len()) };
        Ok(())
    }

    fn download(&self, from: DevicePtr, data: &mut [u8]) -> Result<()> {
        if lock(&self.capturing).is_some() {
            return Err(failure("a download cannot be captured".to_owned()));
        }
        self.check(from, data.len())?;
        // SAFETY: the range lies in a live buffer, as just checked.
        unsafe { ptr::copy_nonoverlapping(from.0 as *const u8, data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    fn copy(&self, from: DevicePtr, to: DevicePtr, num_bytes: usize) -> Result<()> {
        self.submit(Work::Copy {
            from,
            to,
            num_bytes,
        })
    }

    fn fill_zero(&self, at: DevicePtr, num_bytes: usize) -> Result<()> {
        self.submit(Work::FillZero { at, num_bytes })
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.submit(Work::Launch(OwnedLaunch {
            source: launch.kernel.source,
            function: launch.kernel.function,
            defines: launch.kernel.defines.to_vec(),
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            args: launch.args.to_vec(),
        }))
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Graph> {
        *lock(&self.capturing) = Some(Vec::new());
        let outcome = work();
        let captured = lock(&self.capturing).take().unwrap_or_default();
        outcome.map(|()| Graph(captured))
    }

    fn replay(&self, graph: &Graph) -> Result<()> {
        graph.0.iter().try_for_each(|work| self.run(work))
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

fn layout(num_bytes: usize) -> Layout {
    Layout::from_size_align(
        num_bytes.next_multiple_of(ALIGNMENT) + 2 * GUARD_BYTES,
        ALIGNMENT,
    )
    .expect("a test's buffer is no larger than memory")
}

impl Drop for Buffer {
    fn drop(&mut self) {
        lock(&self.live).remove(&(self.start as u64));
        let layout = layout(self.num_bytes);
        // SAFETY: `start` is GUARD_BYTES into the allocation of this layout, all of it initialised.
        let intact = unsafe {
            let memory = self.start.sub(GUARD_BYTES);
            let before = slice::from_raw_parts(memory, GUARD_BYTES);
            let after = slice::from_raw_parts(
                self.start.add(self.num_bytes),
                layout.size() - GUARD_BYTES - self.num_bytes,
            );
            let intact = before.iter().chain(after).all(|byte| *byte == GUARD);
            dealloc(memory, layout);
            intact
        };
        if !intact && !std::thread::panicking() {
            panic!(
                "a kernel wrote outside a buffer of {} bytes",
                self.num_bytes
            );
        }
    }
}
