//! A sequence: the state of one request while it is scheduled.

use std::ops::Range;
use std::sync::Arc;

use crate::core::{
    BlockTable, FinishReason, GenerateRequest, ImageSpan, SamplingParams, SchedulingParams, SeqId,
    TokenId,
};

use super::batch::Chunk;
use super::block_hash::BlockHash;
use super::block_manager::KvTables;
use super::queue_key::{AdmissionSeq, ArrivalSeq, QueueKey, Rank};

/// Tokens of a request; the first `num_computed_tokens` have their keys and values in the cache.
///
/// The remaining tokens are what is to be computed: the whole prompt at first, one token while
/// decoding, and everything so far after a preemption. While steps are in flight:
///
/// ```text
///   positions      0 ............................................ tokens.len()
///                  [ computed ][ scheduled: in flight ][ planned ]  │ pending
///                                                                   sampled, not yet seen
/// ```
///
/// Drafts are guesses at the tokens behind the known ones. They are planned together with the last
/// known token, and at most one chunk in flight has some: it decides how long the sequence is, so
/// nothing is planned behind it.
#[derive(Debug)]
#[repr(C)]
pub struct Sequence {
    // What every step reads of a sequence comes first, so that it shares cache lines.
    pub(super) id: SeqId,
    pub(super) admission_seq: Option<AdmissionSeq>,
    /// Always less than `tokens.len()`, and never inside an atomic run.
    num_computed_tokens: usize,
    /// Number of tokens in chunks of the batches in flight, of which there are at most two.
    num_scheduled_tokens: usize,
    /// Number of tokens in the chunk of the batch that is being planned.
    pub(super) num_planned_tokens: usize,
    /// Number of tokens that the batches in flight are expected to sample: one for each that
    /// samples, whatever becomes of drafts. A preemption keeps them.
    num_pending_tokens: usize,
    /// Length at which the sequence ends.
    max_len: usize,
    /// Prompt, then the generated tokens; a preemption keeps both.
    tokens: Vec<TokenId>,
    /// Blocks for all positions computed, scheduled and planned.
    pub(super) kv: KvTables,
    /// Number of blocks that are full and computed; others may hold them too.
    pub(super) num_full_blocks: usize,
    /// Index of this sequence's sample in the last batch that samples for it.
    sample_idx: usize,
    /// Tokens proposed to follow the known ones, then those of them that are being verified. Ends
    /// with the next sample.
    drafts: Vec<TokenId>,
    /// Ranges that must be computed in one step. Ascending, not adjacent.
    atomic_runs: Vec<Range<usize>>,
    sampling: Arc<SamplingParams>,
    scheduling: SchedulingParams,
    /// Whether the sequence is left out of plans while it runs.
    pub(super) is_held: bool,
    /// Whether the planned token of the batch in flight is not sampled. Nothing is planned behind
    /// it until that batch is applied.
    pub(super) is_sample_skipped: bool,
    // What only its beginning, its end or a full block reads.
    num_prompt_tokens: usize,
    pub(super) num_cached_tokens: usize,
    pub(super) arrival: ArrivalSeq,
    images: Vec<ImageSpan>,
    prompt_logprobs: Option<usize>,
    /// Hashes of the first full blocks. Computed on first use.
    hashes: Vec<BlockHash>,
    /// Length up to which the tenant has been charged.
    pub(super) num_charged_tokens: usize,
    /// Deferred sequences that wait until this one has filled a block of theirs.
    pub(super) waiters: Vec<Waiter>,
    /// It was admitted and counted before; it may have lost its admission number since.
    pub(super) has_run: bool,
    /// Number of computed tokens from which on its slot may be taken from it.
    turn_end: usize,
}

/// A deferred sequence that will use what a running one is computing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) place: QueueKey,
    /// Number of full blocks of the producer at which it is woken.
    pub(super) num_blocks: usize,
}

impl Sequence {
    pub(super) fn new(
        id: SeqId,
        arrival: ArrivalSeq,
        request: GenerateRequest,
        max_len: usize,
        kv: KvTables,
    ) -> Self {
        Self {
            id,
            arrival,
            admission_seq: None,
            scheduling: request.scheduling,
            num_prompt_tokens: request.prompt.len(),
            num_cached_tokens: 0,
            tokens: request.prompt,
            max_len,
            atomic_runs: atomic_runs(&request.images),
            images: request.images,
            sampling: Arc::new(request.sampling),
            prompt_logprobs: request.prompt_logprobs,
            num_computed_tokens: 0,
            num_scheduled_tokens: 0,
            num_planned_tokens: 0,
            num_pending_tokens: 0,
            sample_idx: 0,
            drafts: Vec::new(),
            is_held: false,
            is_sample_skipped: false,
            kv,
            hashes: Vec::new(),
            num_full_blocks: 0,
            num_charged_tokens: 0,
            waiters: Vec::new(),
            has_run: false,
            turn_end: 0,
        }
    }

    /// Prompt, then the generated tokens whose values the host knows.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Draft tokens, which may follow [`tokens`](Self::tokens). The newest chunk ends with the first
    /// [`Chunk::num_drafts`] of them.
    pub fn drafts(&self) -> &[TokenId] {
        &self.drafts
    }

    /// Length of the prompt, images included.
    pub fn num_prompt_tokens(&self) -> usize {
        self.num_prompt_tokens
    }

    /// Number of tokens sampled before the last one that the newest chunk samples, including drafts
    /// and those that the host has not seen yet.
    pub fn num_generated_tokens(&self) -> usize {
        self.tokens.len().max(self.num_launched_tokens()) - self.num_prompt_tokens
    }

    /// Number of prompt tokens that were found in the cache when the sequence was first admitted.
    pub fn num_cached_tokens(&self) -> usize {
        self.num_cached_tokens
    }

    /// Number of tokens whose keys and values are in the cache, according to the batches that were
    /// applied.
    pub fn num_computed_tokens(&self) -> usize {
        self.num_computed_tokens
    }

    /// The prompt's images, in order.
    pub fn images(&self) -> &[ImageSpan] {
        &self.images
    }

    /// Images within a chunk's positions; chunks never split an image.
    pub fn images_in(&self, positions: Range<usize>) -> &[ImageSpan] {
        let first = self.images.partition_point(|i| i.start < positions.start);
        let end = self.images.partition_point(|i| i.start < positions.end);
        &self.images[first..end]
    }

    /// Sampling parameters of the request.
    pub fn sampling(&self) -> &Arc<SamplingParams> {
        &self.sampling
    }

    /// Number of alternatives to report for each prompt token; `None` if not requested or once the
    /// first token was generated.
    pub fn wanted_prompt_logprobs(&self) -> Option<usize> {
        let has_answered = self.tokens.len() > self.num_prompt_tokens;
        self.prompt_logprobs.filter(|_| !has_answered)
    }

    /// Priority, tenant and cache salt of the request.
    pub fn scheduling(&self) -> &SchedulingParams {
        &self.scheduling
    }

    /// Returns the block table of each KV group.
    pub fn tables(&self) -> &[BlockTable] {
        self.kv.by_group()
    }

    pub(super) fn place(&self) -> QueueKey {
        QueueKey {
            priority: self.scheduling.priority,
            tenant: self.scheduling.tenant,
            arrival: self.arrival,
            admission_seq: self.admission_seq,
        }
    }

    /// # Panics
    /// Panics before the first admission.
    pub(super) fn rank(&self) -> Rank {
        Rank {
            priority: self.scheduling.priority,
            admission_seq: self
                .admission_seq
                .expect("who runs or has run has a admission_seq"),
        }
    }

    /// Length, including tokens that are sampled and not yet seen.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() + self.num_pending_tokens
    }

    #[cfg(test)]
    pub(super) fn num_pending_tokens(&self) -> usize {
        self.num_pending_tokens
    }

    pub(super) fn num_scheduled_tokens(&self) -> usize {
        self.num_scheduled_tokens
    }

    /// Number of positions that are computed or scheduled; the next chunk begins here.
    pub(super) fn num_launched_tokens(&self) -> usize {
        self.num_computed_tokens + self.num_scheduled_tokens
    }

    /// Number of tokens for which a chunk can be planned: 1 while decoding. It is 0 if the token
    /// that a batch in flight samples is known to be the last, or drafts are being verified.
    pub(super) fn num_missing_tokens(&self) -> usize {
        let end = self.len().min(self.max_computed_tokens());
        end.saturating_sub(self.num_launched_tokens())
    }

    /// Number of drafts that can be added to the planned chunk: none unless it ends with the last
    /// token and the host knows that one, and no more than may be accepted.
    pub(super) fn num_possible_drafts(&self) -> usize {
        let end = self.num_launched_tokens() + self.num_planned_tokens;
        if self.drafts.is_empty() || end != self.tokens.len() {
            return 0;
        }
        self.drafts.len().min(self.max_computed_tokens() - end)
    }

    /// Maximum number of tokens that are ever computed: the last one is sampled and needs no KV
    /// slot.
    pub(super) fn max_computed_tokens(&self) -> usize {
        self.max_len - 1
    }

    /// Returns where a chunk of at most `max_chunk` tokens ends. It ends before an atomic run
    /// rather than inside it, so the chunk is empty when the next run alone is longer than
    /// `max_chunk`.
    pub(super) fn chunk_end(&self, max_chunk: usize) -> usize {
        let end = self.num_launched_tokens() + max_chunk.min(self.num_missing_tokens());
        match self.run_around(end) {
            Some(run) => run.start,
            None => end,
        }
    }

    /// Length of the atomic run that begins at the next position, if there is one.
    pub(super) fn next_run_len(&self) -> Option<usize> {
        let next = self.num_launched_tokens();
        let idx = self.atomic_runs.partition_point(|run| run.start < next);
        let run = self.atomic_runs.get(idx)?;
        (run.start == next).then_some(run.len())
    }

    /// Returns the atomic run that a boundary at `position` would split.
    pub(super) fn run_around(&self, position: usize) -> Option<&Range<usize>> {
        let idx = self.atomic_runs.partition_point(|run| run.end <= position);
        self.atomic_runs.get(idx).filter(|run| run.start < position)
    }

    /// Moves the planned chunk into a batch in which `num_sampled_tokens` earlier chunks sample.
    pub(super) fn launch(&mut self, num_sampled_tokens: usize) -> Chunk {
        let start = self.num_launched_tokens();
        let len = std::mem::take(&mut self.num_planned_tokens);
        self.num_scheduled_tokens += len;
        let end = start + len;
        let sampled_input = (start >= self.tokens.len()).then_some(self.sample_idx);
        let num_samples = (end + 1).saturating_sub(self.len());
        if num_samples > 0 {
            self.num_pending_tokens += 1;
            self.sample_idx = num_sampled_tokens;
            self.drafts.truncate(num_samples - 1);
        }
        Chunk {
            seq: self.id,
            start,
            len,
            num_samples,
            sampled_input,
        }
    }

    /// Marks the tokens of a scheduled chunk as computed.
    pub(super) fn advance(&mut self, num_tokens: usize) {
        self.num_computed_tokens += num_tokens;
        self.num_scheduled_tokens -= num_tokens;
    }

    /// Marks the last tokens of a scheduled chunk as to be computed again.
    pub(super) fn unschedule(&mut self, num_tokens: usize) {
        self.num_scheduled_tokens -= num_tokens;
    }

    /// Sets the tokens that may follow the known ones. Without effect while a sample is pending.
    pub(super) fn propose(&mut self, drafts: &[TokenId]) {
        if self.num_pending_tokens == 0 {
            self.drafts.clear();
            self.drafts.extend_from_slice(drafts);
        }
    }

    /// Whether a chunk of this sequence may be planned.
    pub(super) fn is_free(&self) -> bool {
        self.num_planned_tokens == 0 && !self.is_held && !self.is_sample_skipped
    }

    /// Appends the tokens that the oldest batch in flight sampled, up to the sequence's end. Returns
    /// how many there are, and the finish reason if the last of them is the sequence's last.
    pub(super) fn take_samples(&mut self, sampled: &[TokenId]) -> (usize, Option<FinishReason>) {
        self.num_pending_tokens -= 1;
        self.is_sample_skipped = false;
        self.drafts.clear();
        for (idx, &token) in sampled.iter().enumerate() {
            if let Some(reason) = self.push(token) {
                return (idx + 1, Some(reason));
            }
        }
        (sampled.len(), None)
    }

    fn push(&mut self, token: TokenId) -> Option<FinishReason> {
        self.tokens.push(token);
        let num_generated = self.tokens.len() - self.num_prompt_tokens;
        let may_stop = num_generated >= self.sampling.min_tokens;
        if may_stop && self.sampling.stop_token_ids.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.tokens.len() >= self.max_len {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Starts behind a prefix that was found in the cache. Its turn lasts until it has computed its
    /// missing tokens (at most the `max_chunk` tokens of a step) and one block of new ones.
    pub(super) fn begin(&mut self, num_blocks: usize, max_chunk: usize) {
        let block_size = self.kv.block_size();
        self.num_full_blocks = num_blocks;
        self.num_computed_tokens = num_blocks * block_size;
        let first = self.num_missing_tokens().min(max_chunk);
        self.turn_end = self.num_computed_tokens + first + block_size;
    }

    /// Whether it has computed enough since its admission that its slot may be taken without
    /// wasting the work.
    pub(super) fn has_had_its_turn(&self) -> bool {
        self.num_computed_tokens >= self.turn_end
    }

    /// Resets what was computed; generated tokens and pending samples are kept, drafts are not. The
    /// blocks must have been freed.
    pub(super) fn restart(&mut self) {
        self.drafts.clear();
        self.num_computed_tokens = 0;
        self.num_scheduled_tokens = 0;
        self.num_planned_tokens = 0;
        self.num_full_blocks = 0;
    }
}

/// Hashes of full blocks.
impl Sequence {
    /// Hashes all full blocks within the first `num_tokens` tokens.
    pub(super) fn extend_hashes(&mut self, num_tokens: usize) {
        let block_size = self.kv.block_size();
        for idx in self.hashes.len()..num_tokens / block_size {
            let positions = idx * block_size..(idx + 1) * block_size;
            let parent = match self.hashes.last() {
                Some(&parent) => parent,
                None => BlockHash::root(self.scheduling.cache_salt),
            };
            let images = self.images_in(self.runs_reaching_into(&positions));
            let hash = parent.child(positions.start, &self.tokens[positions], images);
            self.hashes.push(hash);
        }
    }

    /// Hashes known so far.
    pub(super) fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }

    /// Hashes of the blocks that another sequence may have filled. The last token is excluded: it
    /// is always computed, since the next token is sampled from its output. When log-probabilities
    /// of the prompt are requested, every position must be computed, so there are no sharable
    /// blocks.
    pub(super) fn sharable_hashes(&self) -> &[BlockHash] {
        if self.wanted_prompt_logprobs().is_some() {
            return &[];
        }
        let most = (self.tokens.len() - 1) / self.kv.block_size();
        &self.hashes[..self.hashes.len().min(most)]
    }

    /// Largest number of blocks, up to `num_blocks`, that does not end inside an atomic run.
    pub(super) fn whole_blocks_within(&self, mut num_blocks: usize) -> usize {
        let block_size = self.kv.block_size();
        while let Some(run) = self.run_around(num_blocks * block_size) {
            num_blocks = run.start / block_size;
        }
        num_blocks
    }

    /// Returns the range from the start of the first to the end of the last atomic run that
    /// overlaps `positions`; all images in between are in such runs. Empty if there is none.
    fn runs_reaching_into(&self, positions: &Range<usize>) -> Range<usize> {
        let runs = &self.atomic_runs;
        let first = runs.partition_point(|run| run.end <= positions.start);
        let end = runs.partition_point(|run| run.start < positions.end);
        match runs.get(first..end) {
            Some([first, .., last]) => first.start..last.end,
            Some([run]) => run.clone(),
            _ => 0..0,
        }
    }
}

/// Returns the ranges of image tokens that attend to one another in both directions. The
/// reference's mask (`token_type_ids_mask_function` in transformers' `modeling_gemma3.py`) treats
/// contiguous image tokens as one group, so images without a token between them are one range.
pub(super) fn atomic_runs(images: &[ImageSpan]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::with_capacity(images.len());
    for image in images {
        let end = image.start + image.len;
        match runs.last_mut() {
            Some(last) if last.end == image.start => last.end = end,
            _ => runs.push(image.start..end),
        }
    }
    runs
}
