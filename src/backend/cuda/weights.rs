//! Uploads parameters to the device: bf16 for matmuls, f32 for everything else.

use std::sync::Arc;

use half::bf16;
use rayon::prelude::*;

use super::device::{Device, DevicePtr};
use super::memory::{MemoryKind, MemoryStats};
use super::tensor::{CudaMatrix, CudaTensor};
use crate::backend::host_tensor::{HostDtype, HostTensor};
use crate::backend::linear::{HostLinear, LinearSpec, StoredLinear};
use crate::core::Dtype;
use crate::error::{Error, Result};

/// Numbers that are converted at a time: little host memory, and it overlaps with the previous
/// copy.
const CHUNK: usize = 4 << 20;

/// Uploads a small parameter as f32, each number changed by `change`.
pub(super) fn parameter<D: Device>(
    device: &D,
    account: &MemoryStats,
    tensor: &HostTensor<'_>,
    change: impl Fn(f32) -> f32,
) -> Result<CudaTensor> {
    let bytes: Vec<u8> = tensor
        .to_f32()
        .into_iter()
        .flat_map(|number| change(number).to_le_bytes())
        .collect();
    let width = tensor.shape.last().copied().unwrap_or(1);
    let buffer = account.allocate(device, MemoryKind::Weights, bytes.len())?;
    let at = device.address(&buffer);
    device.upload(&bytes, at)?;
    Ok(CudaTensor {
        at,
        num_rows: bytes.len() / 4 / width.max(1),
        width,
        dtype: Dtype::F32,
        _owner: buffer,
    })
}

/// Uploads a weight as bf16, each row padded with zeros to a width that kernels can read.
pub(super) fn linear<D: Device>(
    device: &D,
    account: &MemoryStats,
    weight: &HostLinear<'_>,
) -> Result<CudaMatrix> {
    let spec = weight.spec()?;
    match &weight.stored {
        StoredLinear::Stacked(parts) => stacked(device, account, spec, parts),
        StoredLinear::Transposed(tensor) => {
            let turned = transpose(tensor, spec);
            stacked(device, account, spec, std::slice::from_ref(&turned))
        }
    }
}

/// Uploads matrices `(num_out_i, width)` stacked to one.
fn stacked<D: Device>(
    device: &D,
    account: &MemoryStats,
    spec: LinearSpec,
    parts: &[HostTensor<'_>],
) -> Result<CudaMatrix> {
    let width = spec.num_in;
    let padded = padded_width(width);
    let buffer = account.allocate(device, MemoryKind::Weights, spec.num_out * padded * 2)?;
    let first = device.address(&buffer);
    let mut at = first;
    for part in parts {
        if padded == width {
            send(device, part, at)?;
        } else {
            send_padded(device, part, width, at)?;
        }
        at = at.at(part.shape[0] * padded * 2);
    }
    Ok(CudaMatrix {
        at: first,
        num_out: spec.num_out,
        width: padded,
        num_in: width,
        role: spec.role,
        _owner: buffer,
    })
}

/// Width of a row that matmuls can read: they read eight values at a time.
pub(super) fn padded_width(width: usize) -> usize {
    width.next_multiple_of(8)
}

/// Returns the transpose of a tensor `(num_in, num_out)`, in bf16.
fn transpose(tensor: &HostTensor<'_>, spec: LinearSpec) -> HostTensor<'static> {
    let LinearSpec {
        num_out, num_in, ..
    } = spec;
    let numbers = tensor.to_f32();
    let mut data = vec![0; numbers.len() * 2];
    data.par_chunks_mut(num_in * 2)
        .enumerate()
        .for_each(|(row, out)| {
            for (column, bytes) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *bytes = bf16::from_f32(numbers[column * num_out + row]).to_le_bytes();
            }
        });
    HostTensor {
        dtype: HostDtype::Bf16,
        shape: vec![num_out, num_in],
        data: data.into(),
    }
}

/// Uploads the numbers as bf16; directly from the file if they are stored as bf16.
fn send<D: Device>(device: &D, tensor: &HostTensor<'_>, to: DevicePtr) -> Result<()> {
    match tensor.dtype {
        HostDtype::Bf16 => device.upload(&tensor.data, to),
        HostDtype::F32 => {
            for (idx, chunk) in tensor.data.chunks(CHUNK * 4).enumerate() {
                device.upload(&narrow(chunk), to.at(idx * CHUNK * 2))?;
            }
            Ok(())
        }
    }
}

fn send_padded<D: Device>(
    device: &D,
    tensor: &HostTensor<'_>,
    width: usize,
    to: DevicePtr,
) -> Result<()> {
    let padded = padded_width(width);
    let bytes_of = |width| tensor.dtype.blocks().row_bytes(width);
    let (Some(row_bytes), Some(padded_bytes)) = (bytes_of(width), bytes_of(padded)) else {
        return Err(wrong_shape(&tensor.shape));
    };
    let mut data = vec![0; tensor.shape[0] * padded_bytes];
    let rows = tensor.data.chunks_exact(row_bytes);
    for (out, row) in data.chunks_exact_mut(padded_bytes).zip(rows) {
        out[..row.len()].copy_from_slice(row);
    }
    let tensor = HostTensor {
        dtype: tensor.dtype,
        shape: vec![tensor.shape[0], padded],
        data: data.into(),
    };
    send(device, &tensor, to)
}

/// Converts f32 to bf16, rounded to nearest.
fn narrow(f32s: &[u8]) -> Vec<u8> {
    let mut data = vec![0; f32s.len() / 2];
    data.par_chunks_mut(1 << 16)
        .zip(f32s.par_chunks(1 << 17))
        .for_each(|(to, from)| {
            let from = from.as_chunks::<4>().0;
            for (to, from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from) {
                *to = bf16::from_f32(f32::from_le_bytes(*from)).to_le_bytes();
            }
        });
    data
}

fn wrong_shape(shape: &[usize]) -> Error {
    Error::Backend(format!("a matrix cannot have the shape {shape:?}"))
}

/// Uploads a constant that launches read; its owner keeps it alive.
pub(super) fn constant<D: Device>(
    device: &D,
    account: &MemoryStats,
    numbers: &[f32],
) -> Result<(DevicePtr, Arc<D::Buffer>)> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let buffer = account.allocate(device, MemoryKind::Bookkeeping, bytes.len())?;
    let at = device.address(&buffer);
    device.upload(&bytes, at)?;
    Ok((at, buffer))
}
