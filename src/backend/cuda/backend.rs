//! The backend itself: its memory, its step metadata, and its captured decode steps.
//!
//! The operations are in `operations`.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::arena::{Allocation, Arena};
use super::device::{Device, DevicePtr};
use super::kernels::gemm::Epilogue;
use super::kernels::gemv::{Input, Output};
use super::kernels::kv_args::{HeadShape, PagedRows, Pools};
use super::kernels::norm::AddNormNorm;
use super::kernels::rope::{self, RopeArgs};
use super::memory::{MemoryStats, Standing};
use super::packed_step::{PackedStep, StepLayout, TABLE_STRIDE};
use super::plan::CudaPlan;
use super::tensor::{CudaMatrix, CudaTensor};
use super::{attention, matmul, weights};
use crate::backend::attention::{LayerSpec, QkNorm, Rope};
use crate::backend::operations::{NormPair, StepWork};
use crate::core::{BlockId, Dtype};
use crate::error::{Error, Result};

/// The CUDA backend on one device.
pub struct CudaBackend<D: Device> {
    pub(super) device: D,
    pub(super) plan: CudaPlan,
    pub(super) account: MemoryStats,
    pub(super) standing: Standing<D>,
    /// Rotary frequencies on the device: a few, which never change.
    pub(super) frequencies: Mutex<Vec<Frequencies<D>>>,
    /// Captured graphs by number of rows.
    pub(super) graphs: Mutex<HashMap<usize, CapturedGraph<D>>>,
    /// Whether a graph is being captured; activations are then allocated in the captured steps'
    /// arena.
    pub(super) is_capturing: AtomicBool,
    /// Padding block of each KV group of the latest cache.
    pub(super) padding_blocks: Mutex<Option<Vec<BlockId>>>,
}

pub(super) struct Frequencies<D: Device> {
    rope: Rope,
    at: DevicePtr,
    _buffer: Arc<D::Buffer>,
}

/// A captured decode step that can be replayed.
pub(super) struct CapturedGraph<D: Device> {
    pub(super) graph: D::Graph,
    /// Address of its logits, `(rows, vocab)`.
    pub(super) logits: DevicePtr,
    pub(super) vocab_size: usize,
}

/// Key and value pools of all layers.
pub struct CudaKvCache {
    pub(super) layers: Vec<Pools>,
    pub(super) _owner: Arc<dyn Send + Sync>,
}

/// A step's metadata on the device.
pub struct CudaStep {
    pub(super) layout: StepLayout,
    /// Number of computed rows: those of the input, and padding rows for a captured graph.
    pub(super) num_rows: usize,
    /// Number of rows of the input.
    pub(super) num_real: usize,
    pub(super) num_logit_rows: usize,
    /// Whether every sequence has one row, and every row's logits are requested.
    pub(super) is_decode: bool,
    /// Place and number of its tiles of rows; none if every sequence has one row.
    pub(super) tiles: usize,
    pub(super) num_tiles: usize,
    /// Inverse frequencies, one entry per rope.
    pub(super) frequencies: Vec<DevicePtr>,
    /// Cosines and sines of each, computed by the step's first operation.
    pub(super) cos_sin: OnceCell<Vec<CudaTensor>>,
}

impl<D: Device> CudaBackend<D> {
    /// Allocates the memory that steps need.
    ///
    /// # Errors
    /// Returns `OutOfMemory` when the device has less, and the device's errors.
    pub fn new(device: D, plan: CudaPlan) -> Result<Self> {
        let account = MemoryStats::default();
        let standing = Standing::new(&device, &plan, &account)?;
        Ok(Self {
            device,
            plan,
            account,
            standing,
            frequencies: Mutex::default(),
            graphs: Mutex::default(),
            is_capturing: AtomicBool::new(false),
            padding_blocks: Mutex::default(),
        })
    }

    /// Number of bytes allocated so far, by purpose.
    pub fn account(&self) -> &MemoryStats {
        &self.account
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    pub(super) fn padding_blocks(&self) -> Option<Vec<BlockId>> {
        let blocks = self.padding_blocks.lock();
        blocks.expect("a fault ends the engine").clone()
    }

    pub(super) fn arena(&self) -> &Arena {
        if self.is_capturing.load(Ordering::Relaxed) {
            &self.standing.captured
        } else {
            &self.standing.activations
        }
    }

    pub(super) fn alloc(&self, num_bytes: usize) -> Result<Allocation> {
        self.arena().alloc(num_bytes)
    }

    /// Allocates a result.
    pub(super) fn alloc_tensor(
        &self,
        num_rows: usize,
        width: usize,
        dtype: Dtype,
    ) -> Result<CudaTensor> {
        let region = self.alloc(num_rows * width * dtype.size())?;
        Ok(CudaTensor {
            at: region.at(),
            num_rows,
            width,
            dtype,
            _owner: Arc::new(region),
        })
    }

    pub(super) fn frequencies(&self, rope: &Rope) -> Result<DevicePtr> {
        let mut known = self.frequencies.lock().expect("a fault ends the engine");
        if let Some(found) = known.iter().find(|known| known.rope == *rope) {
            return Ok(found.at);
        }
        let (at, buffer) = weights::constant(&self.device, &self.account, &rope.inv_freq)?;
        known.push(Frequencies {
            rope: rope.clone(),
            at,
            _buffer: buffer,
        });
        Ok(at)
    }

    /// Address of a word of the step's metadata.
    pub(super) fn word(&self, idx: usize) -> DevicePtr {
        self.standing.metadata.at(idx * 4)
    }

    /// Returns the kernels' description of the rows for the layers of this KV group.
    pub(super) fn paged_rows(&self, step: &CudaStep, group: usize) -> PagedRows {
        let layout = step.layout;
        PagedRows {
            num_rows: count(step.num_rows),
            positions: self.word(layout.positions()),
            sequence_of_row: self.word(layout.table_rows(group)),
            key_ranges: self.word(layout.key_ranges(group)),
            tables: PackedStep::tables_at(self.standing.metadata, layout),
            table_stride: TABLE_STRIDE as u32,
            num_released: self.standing.none_released,
        }
    }

    pub(super) fn attention_rows(&self, step: &CudaStep, layer: &LayerSpec) -> attention::Rows {
        attention::Rows {
            paged: self.paged_rows(step, layer.group),
            window: layer.shape.window,
            tiles: self.word(step.tiles),
            num_tiles: step.num_tiles,
        }
    }

    /// Returns the inputs for norm and RoPE of a layer's q, k and v.
    pub(super) fn rope(
        &self,
        step: &CudaStep,
        qkv: &CudaTensor,
        norm: &QkNorm<CudaTensor>,
        layer: &LayerSpec,
    ) -> Result<RopeArgs> {
        self.check_layer(layer)?;
        let shape = &layer.shape;
        Ok(RopeArgs {
            qkv: qkv.typed(Dtype::F32, "q, k and v")?,
            cos_sin: self.cos_sin(step, layer)?.at,
            query_norm: norm.query.parameter(shape.head_dim, "the query's norm")?,
            key_norm: norm.key.parameter(shape.head_dim, "the key's norm")?,
            eps: shape.eps as f32,
        })
    }

    pub(super) fn cos_sin<'a>(
        &self,
        step: &'a CudaStep,
        layer: &LayerSpec,
    ) -> Result<&'a CudaTensor> {
        let all = match step.cos_sin.get() {
            Some(all) => all,
            None => {
                let head_dim = self.plan.heads.head_dim as usize;
                // Only the positions are read, which all groups share.
                let rows = self.paged_rows(step, 0);
                let compute = |frequencies: &DevicePtr| -> Result<CudaTensor> {
                    let out = self.alloc_tensor(step.num_rows, head_dim, Dtype::F32)?;
                    rope::cos_sin(&self.device, &rows, &self.plan.heads, *frequencies, out.at)?;
                    Ok(out)
                };
                let all = step.frequencies.iter().map(compute);
                let all = all.collect::<Result<_>>()?;
                step.cos_sin.get_or_init(|| all)
            }
        };
        all.get(layer.rope).ok_or_else(|| {
            Error::Backend(format!("the step has no rotary frequencies {}", layer.rope))
        })
    }

    /// Checks that a layer is what the kernels were chosen for.
    pub(super) fn check_layer(&self, layer: &LayerSpec) -> Result<()> {
        let shape = &layer.shape;
        let heads = HeadShape {
            num_heads: count(shape.num_heads),
            num_kv_heads: count(shape.num_kv_heads),
            head_dim: count(shape.head_dim),
        };
        let windows = self.plan.groups.windows();
        if heads == self.plan.heads && windows.get(layer.group) == Some(&shape.window) {
            return Ok(());
        }
        Err(Error::Backend(format!(
            "the model's attention {layer:?} is not the plan's {:?}, windows {windows:?}",
            self.plan.heads
        )))
    }

    pub(super) fn add_norm_norm_op(
        &self,
        residual: &CudaTensor,
        branch: &CudaTensor,
        norms: &NormPair<'_, CudaTensor>,
        sum: &CudaTensor,
        out: DevicePtr,
    ) -> Result<AddNormNorm> {
        let width = residual.width;
        if branch.width != width || branch.num_rows != residual.num_rows {
            return Err(Error::Backend(format!(
                "{branch:?} cannot be added to {residual:?}"
            )));
        }
        Ok(AddNormNorm {
            residual: residual.typed(Dtype::F32, "the residual")?,
            branch: branch.typed(Dtype::F32, "the branch")?,
            post: norms.post.parameter(width, "the branch's norm")?,
            next: norms.next.parameter(width, "the next norm")?,
            eps: norms.eps as f32,
            sum: sum.at,
            out,
        })
    }

    /// Computes `add_norm_norm`, then the matmul, in one kernel if there are few rows.
    pub(super) fn add_norm_matmul(
        &self,
        residual: &CudaTensor,
        branch: &CudaTensor,
        norms: &NormPair<'_, CudaTensor>,
        weight: &CudaMatrix,
        output: Output,
    ) -> Result<(CudaTensor, CudaTensor)> {
        if matmul::is_fused(residual.num_rows, residual.width) {
            let sum = self.alloc_tensor(residual.num_rows, residual.width, Dtype::F32)?;
            let op = self.add_norm_norm_op(residual, branch, norms, &sum, sum.at)?;
            let out = matmul::few_rows(self, Input::AddNormNorm(&op), residual, weight, output)?;
            return Ok((sum, out));
        }
        let (sum, normed) = self.add_normed(residual, branch, norms)?;
        let epilogue = match output {
            Output::Geglu => Epilogue::Geglu,
            Output::Bf16 => Epilogue::Bf16,
            Output::F32 => Epilogue::F32,
        };
        let out = matmul::many_rows(self, &normed, weight, None, epilogue)?;
        Ok((sum, out))
    }

    /// Captures what `work` queues for a decode step's full number of rows.
    pub(super) fn capture(
        &self,
        step: CudaStep,
        cache: &mut CudaKvCache,
        work: &mut StepWork<'_, Self>,
    ) -> Result<CapturedGraph<D>> {
        // Run it once first: loading a kernel cannot be captured. The graph computes the same
        // results again.
        let first = CudaStep {
            cos_sin: OnceCell::new(),
            frequencies: step.frequencies.clone(),
            ..step
        };
        let warm = work(&first, cache)?;
        drop((warm, first));
        let mut logits = None;
        let graph = self.device.capture(&mut || {
            logits = work(&step, cache)?;
            Ok(())
        })?;
        let logits =
            logits.ok_or_else(|| Error::Backend("a decode step made no logits".to_owned()))?;
        Ok(CapturedGraph {
            graph,
            logits: logits.at,
            vocab_size: logits.width,
        })
    }
}

/// Converts a count to the kernels' type.
pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).expect("dimensions are far below 4 G")
}
