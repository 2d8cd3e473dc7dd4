//! What one step computes.

use crate::core::SeqId;

/// The work of one step: at most one chunk a sequence, oldest sequence first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What to compute; packed one after the other, these are the step's tokens.
    pub chunks: Vec<Chunk>,
    /// Sequences that lost their blocks to older ones and will be computed again from the start,
    /// newest first. For counting only: nothing needs to be done about them.
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
    /// Whose.
    pub seq: SeqId,
    /// First position; everything before it is in the cache.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
    /// The chunk ends with the sequence's last token, so the next one is to be sampled.
    pub samples: bool,
    /// The chunk is one token, and that token is sampled by the batch before, which has not been
    /// taken in yet: by this one of its chunks that sample, counted from 0 in the batch's order.
    pub fed: Option<usize>,
}

impl Chunk {
    /// One past the last position.
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}
