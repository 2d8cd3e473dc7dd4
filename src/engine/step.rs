//! A step that was launched and has not been taken in.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::work_order::{SampleOrder, WorkOrder};
use crate::core::SeqId;
use crate::scheduler::Batch;

/// What the engine must remember of it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) batch: Batch,
    /// What it draws with; `None` once the device knows.
    pub(super) undrawn: Option<Vec<SampleOrder>>,
    /// Masks that its draw waits for; `None` until it is known which.
    pub(super) wait: Option<MaskWait>,
    /// Sampled for in the batch, and left out of the draw: their masks came too late.
    pub(super) skipped: HashSet<SeqId>,
    /// When its draw was ordered apart.
    pub(super) drawn_at: Option<Instant>,
    /// What it scores, in the order of the report.
    pub(super) scored: Vec<ScoredTokens>,
}

/// A draw that waits for masks.
#[derive(Debug)]
pub(super) struct MaskWait {
    pub(super) since: Instant,
    /// Whose masks, and which of the step's draws they are for.
    pub(super) pending: HashMap<SeqId, usize>,
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
            wait: None,
            skipped: HashSet::new(),
            drawn_at: None,
            scored: scored.collect(),
        }
    }

    /// How many sequences of the step wait for nobody's mask.
    pub(super) fn num_unbothered(&self) -> usize {
        let num_pending = self.wait.as_ref().map_or(0, |wait| wait.pending.len());
        self.batch.chunks.len().saturating_sub(num_pending)
    }

    pub(super) fn num_scored(&self) -> usize {
        self.scored.iter().map(|tokens| tokens.len).sum()
    }
}
