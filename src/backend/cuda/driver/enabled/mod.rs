//! NVIDIA's libraries through cudarc, which opens them on first use.

mod context;
mod gpu;
mod module;
mod nvrtc;
mod pinned;

pub use gpu::CudaDevice;
pub use nvrtc::Nvrtc;

use std::ffi::CStr;

use cudarc::driver::sys::{self, CUresult};

use crate::error::{Error, Result};

/// Converts a driver's return code into a result that says what failed.
fn check(answer: CUresult, what: &str) -> Result<()> {
    match answer {
        CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(Error::Backend(format!("{what}: {}", describe(error)))),
    }
}

/// Returns the driver's name and description of an error.
fn describe(error: CUresult) -> String {
    let text = |get: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: the driver stores a pointer to a string of its own, which lives as long as the
        // process, or leaves null for an unknown code.
        unsafe {
            if get(error, &raw mut text) != CUresult::CUDA_SUCCESS || text.is_null() {
                return None;
            }
            Some(CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    let name = text(sys::cuGetErrorName).unwrap_or_else(|| format!("error {}", error as u32));
    match text(sys::cuGetErrorString) {
        Some(words) => format!("{name} ({words})"),
        None => name,
    }
}
