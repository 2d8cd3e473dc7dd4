//! A weight of a matmul: how it is stored, and how it may be divided over several devices.

use super::host_tensor::{HostDtype, HostTensor};
use crate::error::{Error, Result};

/// How a weight `(out, in)` may be divided over several devices. A backend of one device holds every
/// weight whole, whatever its role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Each device computes some of the outputs from all inputs. The weight is cut along `out`, each
    /// stacked part by itself; bias and activation functions need no exchange.
    Column,
    /// Each device has some of the inputs, which a column weight has computed there. The weight is
    /// cut along `in`, and the devices' outputs are summed.
    Row,
    /// Every device holds the whole weight.
    Replicated,
    /// The vocabulary: rows are looked up as embeddings, or multiplied to logits. The weight is cut
    /// along `out`; looked-up rows are summed, logits concatenated.
    Head,
}

/// What is known of every weight, whatever its layout on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// Number of outputs.
    pub num_out: usize,
    /// Number of inputs.
    pub num_in: usize,
    /// How the weight may be divided.
    pub role: Role,
    /// Format of the numbers on the device.
    pub format: HostDtype,
}

/// A weight of a matmul on a device, `(out, in)`, in the backend's own layout.
pub trait Linear: Send + Sync {
    /// Returns the weight's size, role and format.
    fn spec(&self) -> LinearSpec;
}

/// A weight of a matmul in host memory.
#[derive(Clone, Debug)]
pub struct HostLinear<'a> {
    /// How the weight may be divided.
    pub role: Role,
    /// The numbers.
    pub stored: StoredLinear<'a>,
}

/// How a checkpoint stores a weight.
#[derive(Clone, Debug)]
pub enum StoredLinear<'a> {
    /// `(out_i, in)` each, stacked to one `(Σ out_i, in)` in this order.
    Stacked(Vec<HostTensor<'a>>),
    /// `(in, out)`.
    Transposed(HostTensor<'a>),
}

impl<'a> HostLinear<'a> {
    /// Creates a weight of one tensor `(out, in)`.
    pub fn new(role: Role, tensor: HostTensor<'a>) -> Self {
        Self::stacked(role, vec![tensor])
    }

    /// Creates a weight of several tensors `(out_i, in)`.
    pub fn stacked(role: Role, parts: Vec<HostTensor<'a>>) -> Self {
        let stored = StoredLinear::Stacked(parts);
        Self { role, stored }
    }

    /// Creates a weight of one tensor `(in, out)`.
    pub fn transposed(role: Role, tensor: HostTensor<'a>) -> Self {
        let stored = StoredLinear::Transposed(tensor);
        Self { role, stored }
    }

    /// Returns the tensors that the weight consists of.
    fn tensors(&self) -> &[HostTensor<'a>] {
        match &self.stored {
            StoredLinear::Stacked(parts) => parts,
            StoredLinear::Transposed(tensor) => std::slice::from_ref(tensor),
        }
    }

    /// Returns the weight's size and role, with the format that holds all of its numbers: that of
    /// the tensors if they agree, or else f32.
    ///
    /// # Errors
    /// Returns `Backend` if there is no tensor, a tensor is not a matrix, its bytes do not fill its
    /// shape, or stacked tensors have different widths.
    pub fn spec(&self) -> Result<LinearSpec> {
        let tensors = self.tensors();
        let Some(first) = tensors.first() else {
            return Err(Error::Backend("a weight of no tensors".to_owned()));
        };
        let (mut sum, mut width) = (0, None);
        for tensor in tensors {
            let &[rows, columns] = tensor.shape.as_slice() else {
                return Err(wrong(tensor, "is not a matrix"));
            };
            tensor.check_bytes()?;
            if *width.get_or_insert(columns) != columns {
                return Err(wrong(tensor, "has not the width of the others"));
            }
            sum += rows;
        }
        let width = width.unwrap_or(0);
        let (num_out, num_in) = match &self.stored {
            StoredLinear::Stacked(_) => (sum, width),
            StoredLinear::Transposed(_) => (width, sum),
        };
        let same = tensors.iter().all(|tensor| tensor.dtype == first.dtype);
        Ok(LinearSpec {
            num_out,
            num_in,
            role: self.role,
            format: if same { first.dtype } else { HostDtype::F32 },
        })
    }
}

fn wrong(tensor: &HostTensor<'_>, what: &str) -> Error {
    Error::Backend(format!(
        "a part of a weight, of shape {:?}, {what}",
        tensor.shape
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: HostDtype, shape: &[usize]) -> HostTensor<'static> {
        let num_bytes = dtype.blocks().num_bytes(shape).unwrap();
        HostTensor {
            dtype,
            shape: shape.to_vec(),
            data: vec![0; num_bytes].into(),
        }
    }

    #[test]
    fn a_weight_knows_its_size_before_it_is_loaded() {
        let parts = vec![
            tensor(HostDtype::Bf16, &[6, 4]),
            tensor(HostDtype::Bf16, &[2, 4]),
        ];
        let spec = HostLinear::stacked(Role::Column, parts).spec().unwrap();
        let expected = LinearSpec {
            num_out: 8,
            num_in: 4,
            role: Role::Column,
            format: HostDtype::Bf16,
        };
        assert_eq!(spec, expected);
        let transposed = HostLinear::transposed(Role::Row, tensor(HostDtype::F32, &[4, 6]));
        let spec = transposed.spec().unwrap();
        assert_eq!((spec.num_out, spec.num_in), (6, 4));
        assert_eq!((spec.role, spec.format), (Role::Row, HostDtype::F32));
    }

    #[test]
    fn parts_of_different_formats_become_f32() {
        let parts = vec![
            tensor(HostDtype::Bf16, &[6, 4]),
            tensor(HostDtype::F32, &[2, 4]),
        ];
        let spec = HostLinear::stacked(Role::Column, parts).spec().unwrap();
        assert_eq!(spec.format, HostDtype::F32);
    }

    #[test]
    fn wrong_parts_are_refused() {
        let bf16 = |shape| tensor(HostDtype::Bf16, shape);
        let mut short = bf16(&[2, 4]);
        short.data.to_mut().pop();
        for (parts, message) in [
            (vec![], "no tensors"),
            (vec![bf16(&[8])], "not a matrix"),
            (vec![bf16(&[2, 4]), bf16(&[2, 5])], "width"),
            (vec![short], "15 bytes"),
        ] {
            let error = HostLinear::stacked(Role::Head, parts).spec().unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
