//! Device memory by purpose: all of it is allocated at startup, none while serving.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arena::Arena;
use super::device::{Device, DevicePtr};
use super::packed_step::StepLayout;
use super::plan::CudaPlan;
use crate::error::{Error, Result};

/// Purpose of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// The model's parameters.
    Weights,
    /// The KV cache's pools.
    KvCache,
    /// Buffers for the activations of steps.
    Activations,
    /// Buffers for the activations of captured steps.
    Captured,
    /// Image embeddings.
    Features,
    /// Metadata, counters, tables.
    Bookkeeping,
}

impl MemoryKind {
    const ALL: [Self; 6] = [
        Self::Weights,
        Self::KvCache,
        Self::Activations,
        Self::Captured,
        Self::Features,
        Self::Bookkeeping,
    ];
}

/// Number of bytes allocated so far, by purpose.
#[derive(Debug, Default)]
pub struct MemoryStats([AtomicU64; MemoryKind::ALL.len()]);

impl MemoryStats {
    /// Allocates memory for a purpose.
    pub(super) fn allocate<D: Device>(
        &self,
        device: &D,
        purpose: MemoryKind,
        num_bytes: usize,
    ) -> Result<Arc<D::Buffer>> {
        let buffer = device.allocate(num_bytes)?;
        self.0[purpose as usize].fetch_add(num_bytes as u64, Ordering::Relaxed);
        Ok(Arc::new(buffer))
    }

    /// Number of bytes allocated for a purpose.
    pub fn bytes(&self, purpose: MemoryKind) -> u64 {
        self.0[purpose as usize].load(Ordering::Relaxed)
    }
}

impl fmt::Display for MemoryStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, purpose) in MemoryKind::ALL.into_iter().enumerate() {
            let mib = self.bytes(purpose).div_ceil(1 << 20);
            let comma = if idx == 0 { "" } else { ", " };
            write!(f, "{comma}{purpose:?} {mib} MiB")?;
        }
        Ok(())
    }
}

/// Buffers that live as long as the backend.
pub(super) struct Standing<D: Device> {
    /// Activations of steps that are launched.
    pub(super) activations: Arena,
    /// Activations of steps that are captured: their addresses stay in the graphs.
    pub(super) captured: Arena,
    /// Image embeddings, which outlive steps.
    pub(super) features: Arena,
    /// Metadata of the step.
    pub(super) metadata: DevicePtr,
    pub(super) metadata_words: usize,
    /// Zeros, one per table row: the kernels' `num_released`, which is handled elsewhere.
    pub(super) none_released: DevicePtr,
    /// Counters, which are zero between launches.
    counters: DevicePtr,
    num_counters: usize,
    _buffers: Vec<Arc<D::Buffer>>,
}

impl<D: Device> Standing<D> {
    pub(super) fn new(device: &D, plan: &CudaPlan, account: &MemoryStats) -> Result<Self> {
        let mut buffers = Vec::new();
        let mut take = |purpose, num_bytes| -> Result<DevicePtr> {
            let buffer = account.allocate(device, purpose, num_bytes)?;
            let at = device.address(&buffer);
            buffers.push(buffer);
            Ok(at)
        };
        let metadata_words = StepLayout::max_words(
            plan.groups.num_groups(),
            plan.max_rows,
            plan.max_sequences,
            plan.max_model_len,
        );
        let num_tables = StepLayout::max_table_rows(metadata_words);
        // Attention needs one per row and key head; matmuls fewer than two per multiprocessor.
        let num_counters = (plan.max_rows * plan.heads.num_kv_heads as usize)
            .max(2 * plan.num_multiprocessors as usize);
        let activations = take(MemoryKind::Activations, plan.activation_bytes)?;
        let captured = take(MemoryKind::Captured, plan.captured_bytes)?;
        let features = take(MemoryKind::Features, plan.feature_bytes)?;
        let metadata = take(MemoryKind::Bookkeeping, metadata_words * 4)?;
        let none_released = take(MemoryKind::Bookkeeping, num_tables * 4)?;
        let counters = take(MemoryKind::Bookkeeping, num_counters * 4)?;
        device.fill_zero(none_released, num_tables * 4)?;
        device.fill_zero(counters, num_counters * 4)?;
        Ok(Self {
            activations: Arena::new("activations", activations, plan.activation_bytes),
            captured: Arena::new("captured steps", captured, plan.captured_bytes),
            features: Arena::new("images' features", features, plan.feature_bytes),
            metadata,
            metadata_words,
            none_released,
            counters,
            num_counters,
            _buffers: buffers,
        })
    }

    /// Returns at least `count` counters. All launches use the same ones, one after another.
    ///
    /// # Errors
    /// Returns `Backend` when there are fewer.
    pub(super) fn counters(&self, count: usize) -> Result<DevicePtr> {
        if count <= self.num_counters {
            return Ok(self.counters);
        }
        Err(Error::Backend(format!(
            "a launch wants {count} counters, but there are {}",
            self.num_counters
        )))
    }
}
