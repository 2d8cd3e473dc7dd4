//! A step that was launched and has not been taken in.

use super::work_order::{SampleOrder, WorkOrder};
use crate::core::SeqId;
use crate::scheduler::Batch;

/// What the engine must remember of it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) batch: Batch,
    /// What it draws with; `None` once the device knows.
    pub(super) undrawn: Option<Vec<SampleOrder>>,
    /// What it scores, in the order of the report.
    pub(super) scored: Vec<ScoredTokens>,
}

/// Tokens of a prompt.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScoredTokens {
    pub(super) id: SeqId,
    /// Position of the first.
    pub(super) position: usize,
    pub(super) len: usize,
}

impl Step {
    pub(super) fn new(batch: Batch, order: &WorkOrder) -> Self {
        let scored = order.scores.iter().map(|run| ScoredTokens {
            id: run.seq,
            position: run.position,
            len: run.rows.len(),
        });
        Self {
            batch,
            undrawn: None,
            scored: scored.collect(),
        }
    }

    pub(super) fn num_scored(&self) -> usize {
        self.scored.iter().map(|tokens| tokens.len).sum()
    }
}
