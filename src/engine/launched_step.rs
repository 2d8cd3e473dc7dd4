//! A launched step whose results are not applied yet.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::model_input::{ModelInput, SampleInput};
use crate::core::SeqId;
use crate::scheduler::Batch;

/// The engine's record of a launched step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) batch: Batch,
    /// Inputs of its samples; `None` once they were sent to the device.
    pub(super) unsampled: Option<Vec<SampleInput>>,
    /// Masks that its sample waits for; `None` until they are determined.
    pub(super) wait: Option<MaskWait>,
    /// Sequences that the batch samples but that get no token in this step.
    pub(super) skipped: HashSet<SeqId>,
    /// Those of them whose sample is not a token of the answer, but chooses how it begins.
    pub(super) choices: HashSet<SeqId>,
    /// Time at which its sample was submitted separately.
    pub(super) sampled_at: Option<Instant>,
    /// Prompt tokens that it scores, in the order of the report.
    pub(super) scored: Vec<ScoredTokens>,
}

/// State of a sample that waits for masks.
#[derive(Debug)]
pub(super) struct MaskWait {
    pub(super) since: Instant,
    /// Sequences whose masks are missing, with the index of each one's sample in the step.
    pub(super) pending: HashMap<SeqId, usize>,
}

/// A range of scored prompt tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScoredTokens {
    pub(super) id: SeqId,
    /// Position of the first token.
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
            choices: HashSet::new(),
            sampled_at: None,
            scored: scored.collect(),
        }
    }

    /// Number of sequences of the step that wait for no mask.
    pub(super) fn num_without_pending_mask(&self) -> usize {
        let num_pending = self.wait.as_ref().map_or(0, |wait| wait.pending.len());
        self.batch.chunks.len().saturating_sub(num_pending)
    }

    pub(super) fn num_scored(&self) -> usize {
        self.scored.iter().map(|tokens| tokens.len).sum()
    }
}
