//! A step that was launched and has not been taken in.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::model_input::{ModelInput, SampleInput};
use crate::core::SeqId;
use crate::scheduler::Batch;

/// What the engine must remember of it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) batch: Batch,
    /// What it samples with; `None` once the device knows.
    pub(super) unsampled: Option<Vec<SampleInput>>,
    /// Masks that its sample waits for; `None` until it is known which.
    pub(super) wait: Option<MaskWait>,
    /// Sampled for in the batch, and left out of the sample: their masks came too late.
    pub(super) skipped: HashSet<SeqId>,
    /// When its sample was ordered apart.
    pub(super) sampled_at: Option<Instant>,
    /// What it scores, in the order of the report.
    pub(super) scored: Vec<ScoredTokens>,
}

/// A sample that waits for masks.
#[derive(Debug)]
pub(super) struct MaskWait {
    pub(super) since: Instant,
    /// Whose masks, and which of the step's samples they are for.
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
    pub(super) fn new(batch: Batch, order: &ModelInput) -> Self {
        let scored = order.scores.iter().map(|run| ScoredTokens {
            id: run.seq,
            position: run.position,
            len: run.rows.len(),
        });
        Self {
            batch,
            unsampled: None,
            wait: None,
            skipped: HashSet::new(),
            sampled_at: None,
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
