//! Matmuls: chooses between the kernel for few rows and the one for many.

use super::backend::{CudaBackend, count};
use super::device::Device;
use super::kernels::gemm::{self, Epilogue, Gemm, SplitSpace};
use super::kernels::gemv::{self, Gemv, Input, Output};
use super::kernels::{MAX_SHARED_BYTES, elementwise};
use super::tensor::{CudaMatrix, CudaTensor};
use crate::core::Dtype;
use crate::error::{Error, Result};

/// Whether the kernel for few rows can also compute the norms before the matmul.
pub(super) fn is_fused(num_rows: usize, width: usize) -> bool {
    // The rows and the sums of each warp are in shared memory.
    let shared_bytes = num_rows * (width * 2 + 8 * 4 * 4);
    num_rows <= gemv::MAX_ROWS as usize && shared_bytes <= MAX_SHARED_BYTES as usize
}

/// Computes `x · weightᵀ`, f32, plus a bias.
pub(super) fn linear<D: Device>(
    backend: &CudaBackend<D>,
    x: &CudaTensor,
    weight: &CudaMatrix,
    bias: Option<&CudaTensor>,
) -> Result<CudaTensor> {
    let x = &narrowed(backend, x)?;
    if x.width != weight.width {
        return Err(Error::Backend(format!("{x:?} times {weight:?}")));
    }
    if bias.is_none() && x.num_rows <= gemv::MAX_ROWS as usize {
        return few_rows(backend, Input::Given(x.at), x, weight, Output::F32);
    }
    many_rows(backend, x, weight, bias, Epilogue::F32)
}

/// Runs the kernel for up to [`gemv::MAX_ROWS`] rows of `shape`'s size, which come from `input`.
pub(super) fn few_rows<D: Device>(
    backend: &CudaBackend<D>,
    input: Input<'_>,
    shape: &CudaTensor,
    weight: &CudaMatrix,
    output: Output,
) -> Result<CudaTensor> {
    if shape.width != weight.width {
        return Err(Error::Backend(format!("{shape:?} times {weight:?}")));
    }
    let (num_out, dtype) = match output {
        Output::F32 => (weight.num_out, Dtype::F32),
        Output::Bf16 => (weight.num_out, Dtype::Bf16),
        Output::Geglu => (weight.num_out / 2, Dtype::Bf16),
    };
    let out = backend.alloc_tensor(shape.num_rows, num_out, dtype)?;
    let op = Gemv {
        num_rows: count(shape.num_rows),
        width: count(weight.width),
        num_out: count(num_out),
        input,
        weight: weight.at,
        output,
        out: out.at,
        num_multiprocessors: backend.plan.num_multiprocessors,
    };
    gemv::gemv(&backend.device, &op)?;
    Ok(out)
}

/// Returns the same numbers as bf16.
pub(super) fn narrowed<D: Device>(backend: &CudaBackend<D>, x: &CudaTensor) -> Result<CudaTensor> {
    if x.dtype == Dtype::Bf16 {
        return Ok(x.clone());
    }
    let out = backend.alloc_tensor(x.num_rows, x.width, Dtype::Bf16)?;
    let count = (x.num_rows * x.width) as u64;
    elementwise::to_bf16(&backend.device, x.at, count, out.at)?;
    Ok(out)
}

/// Runs the kernel for any number of rows.
pub(super) fn many_rows<D: Device>(
    backend: &CudaBackend<D>,
    x: &CudaTensor,
    weight: &CudaMatrix,
    bias: Option<&CudaTensor>,
    epilogue: Epilogue,
) -> Result<CudaTensor> {
    if x.width != weight.width {
        return Err(Error::Backend(format!("{x:?} times {weight:?}")));
    }
    let (num_out, dtype) = match epilogue {
        Epilogue::F32 => (weight.num_out, Dtype::F32),
        Epilogue::Bf16 | Epilogue::Gelu => (weight.num_out, Dtype::Bf16),
        Epilogue::Geglu => (weight.num_out / 2, Dtype::Bf16),
    };
    let out = backend.alloc_tensor(x.num_rows, num_out, dtype)?;
    let op = Gemm {
        num_rows: count(x.num_rows),
        width: count(weight.width),
        num_out: count(num_out),
        x: x.typed(Dtype::Bf16, "a matmul's rows")?,
        weight: weight.at,
        bias: bias
            .map(|bias| bias.parameter(num_out, "a matmul's bias"))
            .transpose()?,
        addend: None,
        epilogue,
        out: out.at,
        num_multiprocessors: backend.plan.num_multiprocessors,
    };
    if gemm::num_splits(&op) == 1 {
        gemm::gemm(&backend.device, &op)?;
        return Ok(out);
    }
    let partial = backend.alloc(gemm::partial_bytes(&op))?;
    let space = SplitSpace {
        partial: partial.at(),
        counters: backend.standing.counters(gemm::num_counters(&op))?,
    };
    gemm::gemm_split(&backend.device, &op, &space)?;
    Ok(out)
}
