//! Tensors on the device: an address, a shape and an owner.

use std::fmt;
use std::sync::Arc;

use super::device::DevicePtr;
use crate::backend::host_tensor::HostDtype;
use crate::backend::linear::{Linear, LinearSpec, Role};
use crate::core::Dtype;
use crate::error::{Error, Result};

/// Keeps device memory from being reused.
pub(super) type Owner = Arc<dyn Send + Sync>;

/// Rows of numbers on the device; cloning shares them.
#[derive(Clone)]
pub struct CudaTensor {
    pub(super) at: DevicePtr,
    pub(super) num_rows: usize,
    pub(super) width: usize,
    pub(super) dtype: Dtype,
    /// Keeps the memory at `at` alive.
    pub(super) _owner: Owner,
}

impl CudaTensor {
    /// Returns the address, if the numbers are of this type.
    ///
    /// # Errors
    /// Returns `Backend` with both types.
    pub(super) fn typed(&self, dtype: Dtype, what: &str) -> Result<DevicePtr> {
        if self.dtype == dtype {
            return Ok(self.at);
        }
        Err(Error::Backend(format!(
            "{what} of {self:?} must be {dtype:?}"
        )))
    }

    /// Returns the address, if it is f32 of this width.
    pub(super) fn parameter(&self, width: usize, what: &str) -> Result<DevicePtr> {
        if self.width != width {
            return Err(Error::Backend(format!(
                "{what} of {self:?} must be {width} wide"
            )));
        }
        self.typed(Dtype::F32, what)
    }

    /// Number of bytes of all rows.
    pub(super) fn num_bytes(&self) -> usize {
        self.num_rows * self.width * self.dtype.size()
    }
}

impl fmt::Debug for CudaTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}) {:?}", self.num_rows, self.width, self.dtype)
    }
}

/// A weight of a matmul, `(num_out, width)` bf16, row-major.
#[derive(Clone)]
pub struct CudaMatrix {
    pub(super) at: DevicePtr,
    pub(super) num_out: usize,
    /// Number of columns, padding included.
    pub(super) width: usize,
    /// Number of columns of the weight itself.
    pub(super) num_in: usize,
    pub(super) role: Role,
    pub(super) _owner: Owner,
}

impl Linear for CudaMatrix {
    fn spec(&self) -> LinearSpec {
        LinearSpec {
            num_out: self.num_out,
            num_in: self.num_in,
            role: self.role,
            format: HostDtype::Bf16,
        }
    }
}

impl fmt::Debug for CudaMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            num_out,
            width,
            role,
            ..
        } = self;
        write!(f, "({num_out}, {width}) bf16 {role:?}")
    }
}
