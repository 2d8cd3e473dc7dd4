//! Loaded machine code and its functions.
//!
//! Turns a kernel's source into a function that can be launched: from precompiled code, from the
//! cache on disk, or by compiling it now.

use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute, CUmodule};

use super::check;
use super::context::Context;
use super::nvrtc::Nvrtc;
use crate::backend::cuda::arch::Arch;
use crate::backend::cuda::device::KernelId;
use crate::backend::cuda::driver::GpuInfo;
use crate::backend::cuda::kernel_store::{KernelStore, Unit};
use crate::backend::cuda::kernels::COMMON;
use crate::error::{Error, Result};

/// Dynamic shared memory that a function may use without requesting it.
const FREE_SHARED_BYTES: u32 = 48 << 10;

type Defines = Box<[(&'static str, u32)]>;
/// The variants of one source or function, by their defines; there are only a few.
type Variants<T> = Vec<(Defines, Arc<T>)>;

/// All modules and functions loaded so far.
#[derive(Debug)]
pub(super) struct Modules {
    store: KernelStore,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    /// Functions by source and name.
    functions: HashMap<(&'static str, &'static str), Variants<Function>>,
    /// Modules by source: the functions of one source share its machine code.
    modules: HashMap<&'static str, Variants<Module>>,
    /// Opened when something must be compiled.
    compiler: Option<Arc<Nvrtc>>,
}

/// A loaded module of machine code; unloaded on drop.
#[derive(Debug)]
struct Module {
    raw: CUmodule,
    context: Arc<Context>,
}

// SAFETY: a module may be used from any thread that has its context current.
unsafe impl Send for Module {}
// SAFETY: as above; it does not change once it is loaded.
unsafe impl Sync for Module {}

/// A kernel function that can be launched.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) raw: CUfunction,
    /// Dynamic shared memory that it may use.
    max_shared_bytes: AtomicU32,
    /// Keeps the code loaded.
    _module: Arc<Module>,
}

// SAFETY: a function may be used from any thread that has its context current.
unsafe impl Send for Function {}
// SAFETY: as above; changes are protected by the driver's own lock.
unsafe impl Sync for Function {}

impl Modules {
    pub(super) fn new(store: KernelStore) -> Self {
        Self {
            store,
            loaded: Mutex::default(),
        }
    }

    /// Checks that kernels are available: precompiled, or with a working compiler.
    ///
    /// # Errors
    /// Returns `Config`, naming what to install, when neither is possible.
    pub(super) fn prepare(&self, info: &GpuInfo) -> Result<()> {
        if self.store.has_precompiled() {
            return Ok(());
        }
        let mut loaded = self
            .loaded
            .lock()
            .expect("nothing panics with the lock held");
        open_compiler(&mut loaded.compiler, info).map(|_| ())
    }

    /// Returns the kernel; loads it on first use.
    ///
    /// # Errors
    /// Returns `Config` when it must be compiled and there is no compiler; `Backend` for a kernel
    /// that does not compile or load.
    pub(super) fn function(
        &self,
        context: &Arc<Context>,
        kernel: &KernelId<'_>,
    ) -> Result<Arc<Function>> {
        let mut loaded = self
            .loaded
            .lock()
            .expect("nothing panics with the lock held");
        let key = (kernel.source.name, kernel.function);
        if let Some(found) = find(loaded.functions.get(&key), kernel.defines) {
            return Ok(found);
        }
        let module = match find(loaded.modules.get(key.0), kernel.defines) {
            Some(module) => module,
            None => {
                let code = self.code(&mut loaded.compiler, context, kernel)?;
                let module = Arc::new(Module::load(context, &code)?);
                let modules = loaded.modules.entry(key.0).or_default();
                modules.push((kernel.defines.into(), Arc::clone(&module)));
                module
            }
        };
        let function = Arc::new(Function::find(module, kernel.function)?);
        let functions = loaded.functions.entry(key).or_default();
        functions.push((kernel.defines.into(), Arc::clone(&function)));
        Ok(function)
    }

    fn code(
        &self,
        compiler: &mut Option<Arc<Nvrtc>>,
        context: &Context,
        kernel: &KernelId<'_>,
    ) -> Result<Vec<u8>> {
        let info = &context.info;
        let text = [COMMON.text, kernel.source.text].concat();
        let unit = Unit {
            name: kernel.source.name,
            text: &text,
            defines: kernel.defines,
        };
        if let Some(code) = self.store.precompiled(&unit, &info.arch) {
            return Ok(code);
        }
        let compiler = open_compiler(compiler, info)?;
        let version = compiler.version();
        if let Some(code) = self.store.cached(&unit, &info.arch, &version) {
            return Ok(code);
        }
        let code = compile(compiler, &unit, &info.arch)?;
        self.store.keep(&unit, &info.arch, &version, &code);
        Ok(code)
    }
}

/// Returns the compiler; opens it on first use.
fn open_compiler<'a>(slot: &'a mut Option<Arc<Nvrtc>>, info: &GpuInfo) -> Result<&'a Nvrtc> {
    let compiler = match slot {
        Some(compiler) => compiler,
        None => {
            let opened = Nvrtc::open()?;
            if opened.major() > info.driver.0 {
                return Err(Error::Config(format!(
                    "NVRTC is of CUDA {}, but the driver knows CUDA {}.{} only: install driver \
                     580 or later, or an older NVRTC",
                    opened.version(),
                    info.driver.0,
                    info.driver.1
                )));
            }
            slot.insert(Arc::new(opened))
        }
    };
    Ok(compiler)
}

fn compile(compiler: &Nvrtc, unit: &Unit<'_>, arch: &Arch) -> Result<Vec<u8>> {
    let code = compiler.compile(unit, arch)?;
    tracing::debug!(
        kernel = unit.name,
        defines = ?unit.defines,
        bytes = code.len(),
        "compiled"
    );
    Ok(code)
}

fn find<T>(variants: Option<&Variants<T>>, defines: &[(&str, u32)]) -> Option<Arc<T>> {
    let (_, found) = variants?.iter().find(|(known, _)| **known == *defines)?;
    Some(Arc::clone(found))
}

impl Module {
    fn load(context: &Arc<Context>, code: &[u8]) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is current; the driver checks the image, whose header gives its
        // length, and copies it.
        let answer = unsafe { sys::cuModuleLoadData(&raw mut raw, code.as_ptr().cast()) };
        check(answer, "loading a kernel")?;
        Ok(Self {
            raw,
            context: Arc::clone(context),
        })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: no function of it is left, since each holds it.
            let _ = unsafe { sys::cuModuleUnload(self.raw) };
        }
    }
}

impl Function {
    fn find(module: Arc<Module>, name: &str) -> Result<Self> {
        let c_name = CString::new(name).expect("names hold no NUL");
        let mut raw = std::ptr::null_mut();
        // SAFETY: the module is loaded, and the name ends with NUL.
        let answer = unsafe { sys::cuModuleGetFunction(&raw mut raw, module.raw, c_name.as_ptr()) };
        check(answer, &format!("finding the kernel {name}"))?;
        Ok(Self {
            raw,
            max_shared_bytes: AtomicU32::new(FREE_SHARED_BYTES),
            _module: module,
        })
    }

    /// Allows it this much dynamic shared memory.
    ///
    /// # Errors
    /// Returns `Backend` when the GPU has less.
    pub(super) fn allow_shared(&self, bytes: u32) -> Result<()> {
        if bytes <= self.max_shared_bytes.load(Ordering::Relaxed) {
            return Ok(());
        }
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let value = c_int::try_from(bytes).expect("far below 2 GiB");
        // SAFETY: the function is loaded; the driver refuses what the GPU does not support.
        let answer = unsafe { sys::cuFuncSetAttribute(self.raw, attribute, value) };
        check(
            answer,
            &format!("asking for {bytes} bytes of shared memory"),
        )?;
        self.max_shared_bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}
