//! The work of one step.

use crate::core::SeqId;

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

    /// Sequences for which a token is sampled, in the order of the samples.
    pub fn sampling(&self) -> impl Iterator<Item = SeqId> {
        self.chunks
            .iter()
            .filter(|chunk| chunk.samples)
            .map(|chunk| chunk.seq)
    }

    /// Tokens in all chunks.
    pub fn num_tokens(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len).sum()
    }
}

/// Positions `start..start + len` of a sequence, to be computed in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Sequence to which the chunk belongs.
    pub seq: SeqId,
    /// First position; everything before it is in the cache.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
    /// The chunk ends with the sequence's last token, so the next one is to be sampled.
    pub samples: bool,
    /// Set if the chunk is one token that is still being sampled by the previous batch, whose
    /// results are not applied yet: the index of that sample among the samples of the previous
    /// batch.
    pub fed: Option<usize>,
}

impl Chunk {
    /// One past the last position.
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}
