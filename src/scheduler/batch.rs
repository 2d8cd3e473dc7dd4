//! The work of one step, and which sequences ended with it.

use std::iter::repeat_n;

use crate::core::{FinishReason, SeqId};

/// The work of one step: at most one chunk per sequence, oldest sequence first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Chunks to compute; concatenated, they are the step's tokens.
    pub chunks: Vec<Chunk>,
    /// Sequences that lost their blocks to older ones and will be computed again from the start,
    /// newest first. For statistics only; the caller need not act on it.
    pub preempted: Vec<SeqId>,
}

impl Batch {
    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The sequence of each sample, in the order of the samples. A sequence whose drafts are
    /// verified has several samples, one behind the other.
    pub fn sampling(&self) -> impl Iterator<Item = SeqId> {
        self.chunks
            .iter()
            .flat_map(|chunk| repeat_n(chunk.seq, chunk.num_samples))
    }

    /// Tokens in all chunks.
    pub fn num_tokens(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len).sum()
    }
}

/// Positions `start..start + len` of a sequence, to be computed in one step. A token is sampled
/// behind each of the last `num_samples` positions:
///
/// ```text
///   0   within the prompt, or of what a preempted sequence computes again
///   1   the chunk ends with the sequence's last token, so the next one is sampled
///   k   the last k − 1 tokens are drafts: each is right if it equals the sample before it
///
///   tokens    … t t t d d d        the last known token and three drafts
///   samples         s s s s        k = 4; the first belongs to the sequence in any case
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Sequence to which the chunk belongs.
    pub seq: SeqId,
    /// First position; everything before it is in the cache.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
    /// Number of tokens that are sampled at most.
    pub num_samples: usize,
    /// Set if the chunk is one token that is still being sampled by the previous batch, whose
    /// results are not applied yet: the index of that sample among the samples of the previous
    /// batch.
    pub sampled_input: Option<usize>,
}

impl Chunk {
    /// One past the last position.
    pub fn end(&self) -> usize {
        self.start + self.len
    }

    /// Number of draft tokens at the end of the chunk.
    pub fn num_drafts(&self) -> usize {
        self.num_samples.saturating_sub(1)
    }
}

/// A sequence that ended when a batch was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The sequence, which the scheduler does not have any more.
    pub seq: SeqId,
    /// Why it ended.
    pub reason: FinishReason,
    /// Number of the batch's tokens that belong to it; those sampled behind its end do not.
    pub num_tokens: usize,
}
