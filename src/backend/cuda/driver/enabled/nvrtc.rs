//! NVRTC: compiles kernels' sources to machine code. Needs no GPU.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

use crate::backend::cuda::arch::Arch;
use crate::backend::cuda::kernel_store::Unit;
use crate::error::{Error, Result};

const MISSING: &str = "NVRTC, which compiles the kernels, was not found (libnvrtc.so). Install \
                       CUDA's nvrtc package, or: pip install \"nvidia-cuda-nvrtc==13.0.*\" and put \
                       the folder of its libnvrtc.so.13 into LD_LIBRARY_PATH. Kernels that were \
                       compiled ahead by `medgemma kernels --out DIR` need none: --kernels DIR";

/// The compiler.
#[derive(Debug)]
pub struct Nvrtc {
    version: (c_int, c_int),
}

impl Nvrtc {
    /// Opens the library.
    ///
    /// # Errors
    /// Returns `Config`, naming what to install, when the library is missing.
    pub fn open() -> Result<Self> {
        // SAFETY: opening a library runs its initialisers; this is the intended library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::Config(MISSING.to_owned()));
        }
        let mut version = (0, 0);
        // SAFETY: the library is loaded, and stores two numbers.
        let answer = unsafe { sys::nvrtcVersion(&raw mut version.0, &raw mut version.1) };
        check(answer, "asking NVRTC for its version")?;
        Ok(Self { version })
    }

    /// Version as `major.minor`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// CUDA's major version, which the driver must support to run the compiled code.
    pub(super) fn major(&self) -> u32 {
        u32::try_from(self.version.0).unwrap_or(0)
    }

    /// Compiles `unit` to machine code for `arch`.
    ///
    /// # Errors
    /// Returns `Backend` with the compiler's messages.
    pub fn compile(&self, unit: &Unit<'_>, arch: &Arch) -> Result<Vec<u8>> {
        let program = Program::new(unit)?;
        let mut options = vec![
            format!("--gpu-architecture={arch}"),
            "--std=c++17".to_owned(),
            // Makes functions without an execution space, such as lambdas, device functions.
            "--device-as-default-execution-space".to_owned(),
        ];
        let defines = unit.defines.iter();
        options.extend(defines.map(|(name, value)| format!("--define-macro={name}={value}")));
        let options: Vec<CString> = options
            .into_iter()
            .map(|option| CString::new(option).expect("options hold no NUL"))
            .collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let num_options = c_int::try_from(pointers.len()).expect("a handful");
        // SAFETY: the program is alive, and `options` outlives the pointers into it.
        let answer = unsafe { sys::nvrtcCompileProgram(program.0, num_options, pointers.as_ptr()) };
        if answer != nvrtcResult::NVRTC_SUCCESS {
            return Err(Error::Backend(format!(
                "NVRTC {} cannot compile {} for {arch} with {:?}: {}\n{}",
                self.version(),
                unit.name,
                unit.defines,
                describe(answer),
                program.log()
            )));
        }
        program.code()
    }
}

/// A source in the compiler.
struct Program(nvrtcProgram);

impl Program {
    fn new(unit: &Unit<'_>) -> Result<Self> {
        let text = CString::new(unit.text).expect("sources hold no NUL");
        let name = CString::new(unit.name).expect("names hold no NUL");
        let mut program = ptr::null_mut();
        // SAFETY: both strings outlive the call, which copies them; there are no headers.
        let answer = unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                text.as_ptr(),
                name.as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        check(answer, "handing a kernel to NVRTC")?;
        Ok(Self(program))
    }

    fn log(&self) -> String {
        let mut size = 0;
        // SAFETY: the program is alive; the library stores a number.
        let answer = unsafe { sys::nvrtcGetProgramLogSize(self.0, &raw mut size) };
        if answer != nvrtcResult::NVRTC_SUCCESS {
            return String::new();
        }
        let mut log = vec![0_u8; size];
        // SAFETY: the buffer has the size that the library reported.
        let answer = unsafe { sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()) };
        if answer != nvrtcResult::NVRTC_SUCCESS {
            return String::new();
        }
        String::from_utf8_lossy(&log)
            .trim_end_matches('\0')
            .to_owned()
    }

    fn code(&self) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: the program is alive and compiled; the library stores a number.
        let answer = unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) };
        check(answer, "asking NVRTC for machine code")?;
        let mut code = vec![0_u8; size];
        // SAFETY: the buffer has the size that the library reported.
        let answer = unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()) };
        check(answer, "asking NVRTC for machine code")?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is alive and not used again.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

fn check(answer: nvrtcResult, what: &str) -> Result<()> {
    match answer {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        error => Err(Error::Backend(format!("{what}: {}", describe(error)))),
    }
}

fn describe(error: nvrtcResult) -> String {
    // SAFETY: the library returns a string of its own for any code.
    let text = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(error)) };
    text.to_string_lossy().into_owned()
}
