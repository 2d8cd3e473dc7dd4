//! Random conversations that share prefixes, in steps one at a time and pipelined, on a device that
//! notices every wrong key.

use std::collections::{BTreeMap, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::core::{CacheSalt, TenantId};

use super::super::Chunk;
use super::device::{Contents, Device};
use super::random_requests::{kv_groups, pools};
use super::*;

/// A prompt of few different pieces, so that beginnings coincide.
#[derive(Clone, Debug)]
struct Ask {
    /// Tokens before each image, the image's length, and which image it is.
    images: Vec<(usize, usize, u8)>,
    tail: usize,
    /// Last token of the tail.
    last: u32,
    answer: Answer,
    scheduling: SchedulingParams,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    max_tokens: usize,
    min_tokens: usize,
    stops: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Add(Ask),
    /// The n-th prompt so far is sent again, this many times.
    Again(usize, usize, SchedulingParams),
    /// A follow-up to the n-th ended conversation, with this many more tokens.
    FollowUp(usize, usize, Answer),
    Launch,
    TakeIn,
    /// Aborts the n-th live sequence (modulo their number).
    Abort(usize),
}

fn scheduling() -> impl Strategy<Value = SchedulingParams> {
    (0..6i32, 0..3u64, 0..8u8).prop_map(|(priority, tenant, salt)| SchedulingParams {
        priority: (priority - 3).max(0),
        tenant: TenantId(tenant),
        cache_salt: (salt < 2).then_some(CacheSalt([salt; 32])),
        deadline: None,
    })
}

fn answers() -> impl Strategy<Value = Answer> {
    (1..20usize, 0..6usize, any::<bool>()).prop_map(|(max_tokens, min_tokens, stops)| Answer {
        max_tokens,
        min_tokens,
        stops,
    })
}

fn asks() -> impl Strategy<Value = Ask> {
    let images = prop_oneof![
        2 => Just(Vec::new()),
        3 => vec((prop_oneof![2 => Just(0usize), 2 => 1..5usize], 3..6usize, 0..2u8), 1..4),
    ];
    let tail = prop_oneof![1..12usize, 8..30usize];
    (images, tail, 0..2u32, answers(), scheduling()).prop_map(
        |(images, tail, last, answer, scheduling)| Ask {
            images,
            tail,
            last,
            answer,
            scheduling,
        },
    )
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        5 => asks().prop_map(Op::Add),
        2 => (0..50usize, 1..4usize, scheduling()).prop_map(|(n, times, t)| Op::Again(n, times, t)),
        2 => (0..50usize, 1..8usize, answers()).prop_map(|(n, more, a)| Op::FollowUp(n, more, a)),
        10 => Just(Op::Launch),
        8 => Just(Op::TakeIn),
        1 => (0..8usize).prop_map(Op::Abort),
    ];
    vec(op, 1..40)
}

fn configs() -> impl Strategy<Value = SchedulerConfig> {
    let limits = (2..7usize, 0..12usize, 20..60usize, 1..6usize, 0..6usize);
    let pool_tokens = (25..150usize, 15..120usize);
    (limits, kv_groups(), pool_tokens).prop_map(|(limits, groups, tokens)| {
        let (max_num_seqs, more_tokens, max_model_len, block_size, caching) = limits;
        SchedulerConfig {
            max_num_seqs,
            max_num_batched_tokens: max_num_seqs + more_tokens,
            max_model_len,
            block_size,
            groups,
            num_blocks: pools(groups, block_size, tokens),
            prefix_caching: if caching > 0 {
                PrefixCaching::On
            } else {
                PrefixCaching::Off
            },
        }
    })
}

impl Answer {
    fn sampling(self) -> SamplingParams {
        SamplingParams {
            min_tokens: self.min_tokens,
            stop_token_ids: if self.stops { vec![STOP] } else { Vec::new() },
            ..SamplingParams::greedy(self.max_tokens)
        }
    }
}

impl Ask {
    fn request(&self) -> GenerateRequest {
        let mut spans = Vec::new();
        let mut len = 0;
        for &(gap, image, _) in &self.images {
            spans.push((len + gap, image));
            len += gap + image;
        }
        let mut request = with_images(text(len + self.tail, 1), &spans);
        for (span, &(_, _, which)) in request.images.iter_mut().zip(&self.images) {
            span.pixels.hash = ImageHash([which; 32]);
        }
        *request.prompt.last_mut().expect("the tail is not empty") = TokenId(10 + self.last);
        request.sampling = self.answer.sampling();
        request.scheduling = self.scheduling;
        request
    }
}

/// What the tests know about a sequence.
struct Record {
    request: GenerateRequest,
    contents: Contents,
    /// Number of tokens that were applied.
    num_known: usize,
    /// Where the next chunk begins; `None` while it waits.
    next: Option<usize>,
    /// Number of positions computed in batches that were applied.
    num_computed: usize,
    num_admissions: usize,
    /// A chunk with drafts is in flight.
    is_verifying: bool,
    num_cached: Option<usize>,
    /// Number of launched batches in a row without it, though it had one token to compute.
    num_left_out: usize,
}

/// A launched batch with its samples, and how often each of its sequences had been admitted.
struct InFlight {
    batch: Batch,
    /// As they are on the device.
    samples: Vec<(SeqId, TokenId)>,
    /// Those of each chunk that follow its drafts.
    accepted: Vec<Vec<TokenId>>,
    num_admissions: Vec<usize>,
}

struct World {
    scheduler: Scheduler,
    device: Device,
    records: BTreeMap<SeqId, Record>,
    in_flight: VecDeque<InFlight>,
    prompts: Vec<GenerateRequest>,
    ended: Vec<GenerateRequest>,
    num_added: u64,
    max_drafts: usize,
}

impl World {
    fn new(config: SchedulerConfig, max_drafts: usize) -> Self {
        Self {
            max_drafts,
            scheduler: scheduler(config),
            device: Device::default(),
            records: BTreeMap::new(),
            in_flight: VecDeque::new(),
            prompts: Vec::new(),
            ended: Vec::new(),
            num_added: 0,
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Add(ask) => self.add(ask.request()),
            Op::Again(nth, times, scheduling) => {
                if !self.prompts.is_empty() {
                    let mut request = self.prompts[nth % self.prompts.len()].clone();
                    request.scheduling = scheduling;
                    (0..times).for_each(|_| self.add(request.clone()));
                }
            }
            Op::FollowUp(nth, more, answer) => {
                if !self.ended.is_empty() {
                    let mut request = self.ended[nth % self.ended.len()].clone();
                    request.prompt.extend(vec![WORD; more]);
                    request.sampling = answer.sampling();
                    self.add(request);
                }
            }
            Op::Launch => self.launch(),
            Op::TakeIn => self.take_in(),
            Op::Abort(nth) => self.abort(nth),
        }
        self.scheduler.check_integrity();
    }

    fn add(&mut self, request: GenerateRequest) {
        let id = SeqId(self.num_added);
        self.num_added += 1;
        if self.scheduler.add(id, request.clone()).is_err() {
            return;
        }
        self.prompts.push(request.clone());
        let record = Record {
            contents: Contents::of_prompt(&request),
            num_known: request.prompt.len(),
            next: None,
            num_computed: 0,
            num_admissions: 0,
            is_verifying: false,
            num_cached: None,
            num_left_out: 0,
            request,
        };
        self.records.insert(id, record);
    }

    fn abort(&mut self, nth: usize) {
        let count = self.records.len().max(1);
        if let Some(&id) = self.records.keys().nth(nth % count) {
            assert!(self.scheduler.abort(id));
            assert!(self.scheduler.sequence(id).is_none());
            self.records.remove(&id);
        }
    }

    fn launch(&mut self) {
        if self.in_flight.len() == 2 {
            self.take_in();
        }
        for (&id, record) in &self.records {
            // Also where they have no effect.
            let drafts = record.guesses(self.max_drafts);
            self.scheduler.propose(id, &drafts);
        }
        let batch = self.scheduler.schedule();
        self.scheduler.check_integrity();
        let config = *self.scheduler.config();
        assert!(batch.num_tokens() <= config.max_num_batched_tokens);
        if self.in_flight.is_empty() {
            assert_eq!(batch.is_empty(), self.records.is_empty(), "work left lying");
        }
        for id in &batch.preempted {
            let record = self.records.get_mut(id).expect("it has not ended");
            record.next = None;
            record.num_computed = 0;
        }
        let previous = self.in_flight.back().map(|last| last.samples.clone());
        for chunk in &batch.chunks {
            self.check_chunk(chunk, previous.as_deref());
        }
        self.check_delays(&batch);
        let contents = |chunk: &Chunk| {
            let sequence = self.scheduler.sequence(chunk.seq).expect("it is scheduled");
            let mut contents = self.records[&chunk.seq].contents.clone();
            let drafts = &sequence.drafts()[..chunk.num_drafts()];
            drafts.iter().for_each(|&token| contents.push(token));
            contents
        };
        let work: Vec<_> = batch.chunks.iter().map(|c| (c, contents(c))).collect();
        self.device.run(&self.scheduler, &work);
        let mut launched = InFlight {
            samples: Vec::new(),
            accepted: Vec::new(),
            num_admissions: Vec::new(),
            batch: batch.clone(),
        };
        for (chunk, contents) in work {
            let samples = (chunk.end() + 1 - chunk.num_samples..=chunk.end())
                .map(|len| (chunk.seq, contents.next_token(len)));
            launched.samples.extend(samples);
            let record = self.records.get_mut(&chunk.seq).expect("it was checked");
            launched.num_admissions.push(record.num_admissions);
            let mut accepted = Vec::new();
            // The last known token, and each draft that equals the sample before it.
            for len in chunk.end() + 1 - chunk.num_samples..=chunk.end() {
                let token = contents.next_token(len);
                accepted.push(token);
                record.contents.push(token);
                if contents.tokens.get(len) != Some(&token) {
                    break;
                }
            }
            if chunk.num_drafts() > 0 {
                record.is_verifying = true;
                record.next = Some(record.contents.tokens.len() - 1);
            }
            launched.accepted.push(accepted);
        }
        if !batch.is_empty() {
            self.in_flight.push_back(launched);
        }
    }

    fn check_chunk(&mut self, chunk: &Chunk, previous: Option<&[(SeqId, TokenId)]>) {
        let block_size = self.scheduler.config().block_size;
        let seq = self.scheduler.sequence(chunk.seq).expect("it is scheduled");
        let record = self.records.get_mut(&chunk.seq).expect("it lives");
        match record.next {
            Some(next) => assert_eq!(chunk.start, next, "{chunk:?}"),
            None => {
                assert_eq!(chunk.start % block_size, 0, "{chunk:?} begins in a block");
                record.num_admissions += 1;
                record.num_computed = chunk.start;
                // It may have been admitted before, and preempted before its first chunk.
                let cached = *record.num_cached.get_or_insert(seq.num_cached_tokens());
                assert_eq!(seq.num_cached_tokens(), cached, "{chunk:?}");
                assert!(cached < record.request.prompt.len(), "{chunk:?}");
            }
        }
        record.next = Some(chunk.end());
        assert!(!record.is_verifying, "{chunk:?} is behind drafts");
        let len = record.contents.tokens.len();
        let end = chunk.end() - chunk.num_drafts();
        assert!(chunk.start < end && end <= len, "{chunk:?} of {len}");
        assert_eq!(chunk.num_samples > 0, end == len, "{chunk:?} of {len}");
        let drafts = &seq.drafts()[..chunk.num_drafts()];
        let proposed = record.guesses(self.max_drafts);
        assert!(proposed.starts_with(drafts), "{chunk:?}: {drafts:?}");
        assert_eq!(
            seq.num_generated_tokens(),
            len.max(chunk.end()) - record.request.prompt.len(),
            "{chunk:?}"
        );
        for image in &record.request.images {
            for edge in [chunk.start, chunk.end()] {
                let cuts = image.start < edge && edge < image.start + image.len;
                assert!(!cuts, "{chunk:?} cuts the image at {}", image.start);
            }
        }
        // The host must know every token that it passes in; the others are pending samples.
        assert_eq!(chunk.sampled_input.is_some(), end > record.num_known);
        if let Some(fed) = chunk.sampled_input {
            assert_eq!(chunk.len, 1, "{chunk:?}");
            let sampled = previous.expect("a batch is in flight")[fed];
            assert_eq!(
                sampled,
                (chunk.seq, record.contents.tokens[chunk.start]),
                "{chunk:?}"
            );
        }
    }

    /// With enough blocks for all, a decode gets its token at least every other step.
    fn check_delays(&mut self, batch: &Batch) {
        let config = self.scheduler.config();
        let most = config.blocks_for(config.max_model_len);
        let windows = config.groups.windows().iter().enumerate();
        let all = windows.fold(true, |all, (group, window)| {
            let each = most[group] * if window.is_some() { 2 } else { 1 };
            all && each * config.max_num_seqs <= config.num_blocks[group]
        });
        for (id, record) in &mut self.records {
            let max_len = config
                .max_model_len
                .min(record.request.prompt.len() + record.request.sampling.max_tokens);
            let len = record.contents.tokens.len();
            let decodes = record.next == Some(len - 1) && len < max_len && !record.is_verifying;
            let is_in = batch.chunks.iter().any(|chunk| chunk.seq == *id);
            if is_in || !decodes {
                record.num_left_out = 0;
            } else {
                record.num_left_out += 1;
                assert!(!all || record.num_left_out < 2, "{id} starves in {batch:?}");
            }
        }
    }

    fn take_in(&mut self) {
        let Some(launched) = self.in_flight.pop_front() else {
            return;
        };
        let max_model_len = self.scheduler.config().max_model_len;
        let batch = launched.batch;
        let mut expected = Vec::new();
        let mut sampled = Vec::new();
        let chunks = batch.chunks.iter().zip(&launched.accepted);
        for ((chunk, accepted), num_admissions) in chunks.zip(launched.num_admissions) {
            let Some(record) = self.records.get_mut(&chunk.seq) else {
                // Stale chunk. The engine may still pass its tokens in.
                if chunk.num_samples > 0 && chunk.seq.0 % 2 == 0 {
                    sampled.push((chunk.seq, &accepted[..]));
                }
                continue;
            };
            if chunk.num_drafts() > 0 {
                record.is_verifying = false;
            }
            if record.next.is_some() && record.num_admissions == num_admissions {
                let num_dropped = chunk.num_samples - accepted.len();
                record.num_computed = chunk.end() - num_dropped;
            }
            if chunk.num_samples == 0 {
                continue;
            }
            sampled.push((chunk.seq, accepted));
            for (idx, &token) in accepted.iter().enumerate() {
                assert_eq!(record.contents.tokens[record.num_known], token);
                record.num_known += 1;
                if let Some(reason) = record.expected_end(max_model_len) {
                    expected.push(Finished {
                        seq: chunk.seq,
                        reason,
                        num_tokens: idx + 1,
                    });
                    break;
                }
            }
        }
        assert_eq!(self.scheduler.update(&batch, &sampled), expected);
        for Finished { seq: id, .. } in expected {
            assert!(self.scheduler.sequence(id).is_none());
            let record = self.records.remove(&id).expect("it has just ended");
            let mut request = record.request;
            request.prompt = record.contents.tokens[..record.num_known].to_vec();
            self.ended.push(request);
        }
        self.check_records();
    }

    fn check_records(&self) {
        assert_eq!(self.scheduler.has_work(), !self.records.is_empty());
        for (&id, record) in &self.records {
            let seq = self.scheduler.sequence(id).expect("it has not ended");
            let known = &record.contents.tokens[..record.num_known];
            assert_eq!(seq.tokens(), known, "{id}");
            // A sequence that was admitted and not yet computed may have a prefix already.
            if record.next.is_some() {
                assert_eq!(seq.num_computed_tokens(), record.num_computed, "{id}");
            }
        }
        let stats = self.scheduler.stats();
        assert_eq!(
            stats.num_running + stats.num_waiting,
            self.records.len(),
            "{stats:?}"
        );
    }

    fn finish(&mut self) {
        let mut steps_left = 20_000;
        while !self.records.is_empty() || !self.in_flight.is_empty() {
            // Some one at a time, some pipelined.
            self.launch();
            self.take_in();
            if steps_left % 3 == 0 {
                self.take_in();
            }
            self.scheduler.check_integrity();
            steps_left -= 1;
            assert!(steps_left > 0, "some request never ends");
        }
        assert!(!self.scheduler.has_work());
        let stats = self.scheduler.stats();
        assert_eq!(stats.num_free_blocks, self.scheduler.config().num_blocks);
        assert_eq!(stats.kv_usage, 0.0);
        assert!(stats.prefix_hit_tokens <= stats.prefix_queried_tokens);
    }
}

impl Record {
    /// At most `max_drafts` guesses at the tokens behind those that the device has; most are right.
    fn guesses(&self, max_drafts: usize) -> Vec<TokenId> {
        let mut contents = self.contents.clone();
        let len = contents.tokens.len();
        for position in len..len + (len * 7 % (max_drafts + 1)) {
            let token = match (len * 3 + position) % 5 {
                0 => WORD,
                _ => contents.next_token(position),
            };
            contents.push(token);
        }
        contents.tokens.split_off(len)
    }

    fn expected_end(&self, max_model_len: usize) -> Option<FinishReason> {
        let sampling = &self.request.sampling;
        let num_generated = self.num_known - self.request.prompt.len();
        let last = self.contents.tokens[self.num_known - 1];
        if sampling.stop_token_ids.contains(&last) && num_generated >= sampling.min_tokens {
            return Some(FinishReason::Stop);
        }
        let at_limit = num_generated == sampling.max_tokens || self.num_known == max_model_len;
        at_limit.then_some(FinishReason::Length)
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        // The smallest failing case is printed; it belongs among the steps worked out by hand.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_query_reads_its_own_keys_whatever_is_shared_and_in_flight(
        config in configs(),
        max_drafts in prop_oneof![Just(0), 1..4usize],
        ops in ops(),
    ) {
        let mut world = World::new(config, max_drafts);
        ops.into_iter().for_each(|op| world.run(op));
        world.finish();
    }
}
