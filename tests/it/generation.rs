//! Whole generations on tiny models: against transformers, and against themselves under every
//! way of cutting, mixing and interrupting them.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::num::NonZeroU32;
use std::time::Duration;

use medgemma::backend::BLOCK_SIZE;
use medgemma::backend::cpu::CpuBackend;
use medgemma::core::{
    BlockCount, CacheSalt, GenerateRequest, ImageFit, ImageSpan, KvGroups, PrefixCaching,
    SamplingParams, SchedulingParams, SeqId, TokenEvent, TokenId, TokenLogprobs,
};
use medgemma::engine::{ModelInput, Runner, Stepping};
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor};
use medgemma::model::config::ModelConfig;
use medgemma::model::weights::Weights;
use medgemma::model::{Gemma3, Model};
use medgemma::scheduler::{Batch, Scheduler, SchedulerConfig};

use crate::golden::{self, Case, GreedyToken, Numbers};

const LOGPROBS: f32 = 1e-4;

/// A tiny model under a scheduler, stepped by hand so that a test sees what happens.
pub(crate) struct Rig {
    pub(crate) scheduler: Scheduler,
    runner: Runner<CpuBackend, Gemma3<CpuBackend>>,
    events: HashMap<SeqId, Vec<TokenEvent>>,
    next_id: u64,
    stepping: Stepping,
    launched: VecDeque<Batch>,
    pub(crate) num_preempted: usize,
    pub(crate) num_steps: usize,
    pub(crate) num_fed: usize,
    pub(crate) num_computed: usize,
}

pub(crate) fn load(model: &str) -> (ModelConfig, Model<CpuBackend>) {
    load_with(
        model,
        &Weights::open(&golden::path(&format!("models/{model}"))).expect("weights"),
    )
}

fn load_with(model: &str, weights: &Weights) -> (ModelConfig, Model<CpuBackend>) {
    let file = golden::path(&format!("models/{model}/config.json"));
    let json = fs::read(&file).expect("goldens are there");
    let config = ModelConfig::from_json(&file, &json).expect("transformers wrote it");
    let model = Model::load(CpuBackend, &config, weights).expect("the model loads");
    (config, model)
}

pub(crate) fn roomy(config: &ModelConfig) -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 64,
        max_num_batched_tokens: 2048,
        max_model_len: 1024,
        block_size: BLOCK_SIZE,
        groups: KvGroups::new(&[None, Some(config.text.sliding_window)]),
        num_blocks: BlockCount::new(&[1024, 1024]),
        prefix_caching: PrefixCaching::On,
    }
}

impl Rig {
    pub(crate) fn new(model: Model<CpuBackend>, config: SchedulerConfig) -> Self {
        let num_blocks = config.num_blocks;
        Self {
            runner: Runner::new(model, num_blocks).expect("a cache"),
            scheduler: Scheduler::new(config).expect("limits that work"),
            events: HashMap::new(),
            next_id: 0,
            stepping: Stepping::Alternating,
            launched: VecDeque::new(),
            num_preempted: 0,
            num_steps: 0,
            num_fed: 0,
            num_computed: 0,
        }
    }

    /// Plans each step before the one before it is taken in.
    pub(crate) fn ahead(self) -> Self {
        Self {
            stepping: Stepping::Ahead,
            ..self
        }
    }

    pub(crate) fn add(&mut self, request: GenerateRequest) -> SeqId {
        let id = SeqId(self.next_id);
        self.next_id += 1;
        self.scheduler.add(id, request).expect("it fits");
        id
    }

    /// Plans a step and takes one in: the same one, or, ahead, the one before it.
    pub(crate) fn step(&mut self) {
        let batch = self.scheduler.schedule();
        self.num_preempted += batch.preempted.len();
        let is_empty = batch.is_empty();
        if !is_empty {
            self.num_steps += 1;
            let order = ModelInput::new(&self.scheduler, &batch);
            self.num_fed += order.input.sampled_inputs.len();
            self.num_computed += batch.num_tokens();
            self.runner.launch(&order).expect("a step");
            self.launched.push_back(batch);
        }
        // All that is left may have been aborted since.
        assert!(
            !self.launched.is_empty() || !self.scheduler.has_work(),
            "nothing can be computed"
        );
        let num_ahead = match self.stepping {
            Stepping::Ahead if !is_empty => 1,
            _ => 0,
        };
        while self.launched.len() > num_ahead {
            self.take_in();
        }
    }

    fn take_in(&mut self) {
        let sampled = self.runner.collect().expect("a step").sampled;
        let batch = self.launched.pop_front().expect("one is collected");
        let sampled: Vec<_> = batch.sampling().zip(sampled).collect();
        let tokens: Vec<_> = sampled.iter().map(|(_, sampled)| sampled.token).collect();
        let tokens: Vec<_> = batch.sampling().zip(tokens.chunks(1)).collect();
        let living: Vec<_> = sampled
            .into_iter()
            .filter(|(id, _)| self.scheduler.sequence(*id).is_some())
            .collect();
        self.scheduler.update(&batch, &tokens);
        for (id, sampled) in living {
            assert!(sampled.is_finite);
            self.events.entry(id).or_default().push(TokenEvent {
                token: sampled.token,
                logprobs: sampled.logprobs,
                prompt_logprobs: None,
                finish: None,
                num_cached_tokens: 0,
                queued: Duration::ZERO,
                num_preemptions: 0,
            });
        }
    }

    pub(crate) fn finish(&mut self) {
        while self.scheduler.has_work() {
            self.step();
        }
        while !self.launched.is_empty() {
            self.take_in();
        }
    }

    /// Images that the vision encoder has encoded.
    pub(crate) fn num_encoded(&self) -> u64 {
        self.runner.encoder_stats().misses
    }

    pub(crate) fn events(&self, id: SeqId) -> &[TokenEvent] {
        &self.events[&id]
    }

    /// One request and nothing else.
    pub(crate) fn run_alone(&mut self, request: GenerateRequest) -> Vec<TokenEvent> {
        let id = self.add(request);
        self.finish();
        self.events[&id].clone()
    }
}

pub(crate) fn request(
    config: &ModelConfig,
    case: &Case,
    sampling: SamplingParams,
) -> GenerateRequest {
    let is_soft = |idx: usize| Some(case.ids[idx].0) == config.image_token_id;
    let starts = (0..case.ids.len()).filter(|&idx| is_soft(idx) && !is_soft(idx - 1));
    let images = starts
        .zip(&case.images)
        .map(|(start, name)| {
            let vision = config.vision.as_ref().expect("it has images");
            let processor = ImageProcessor {
                size: vision.image_size,
                resize: ImageFit::Squash,
                limits: ImageLimits::default(),
            };
            let file = fs::read(golden::path(&format!("images/{name}"))).expect("an image");
            ImageSpan {
                start,
                len: vision.mm_tokens_per_image,
                pixels: processor
                    .process(&file, Cancellation::NEVER)
                    .expect("it can be read"),
            }
        })
        .collect();
    GenerateRequest {
        prompt: case.ids.clone(),
        images,
        sampling,
        constraint: None,
        prompt_logprobs: None,
        scheduling: SchedulingParams::default(),
    }
}

pub(crate) fn greedy(max_tokens: usize) -> SamplingParams {
    SamplingParams {
        top_logprobs: Some(5),
        ..SamplingParams::greedy(max_tokens)
    }
}

fn assert_matches(what: &str, events: &[TokenEvent], reference: &[GreedyToken]) {
    assert_eq!(events.len(), reference.len(), "{what}");
    for (idx, (event, reference)) in events.iter().zip(reference).enumerate() {
        let logprobs: &TokenLogprobs = event.logprobs.as_ref().expect("asked for");
        assert_eq!(event.token, reference.token, "{what}: token {idx}");
        let differences = std::iter::once((logprobs.logprob, reference.logprob)).chain(
            logprobs
                .top
                .iter()
                .zip(&reference.top)
                .map(|(ours, theirs)| {
                    assert_eq!(ours.0, theirs.0, "{what}: top tokens at {idx}");
                    (ours.1, theirs.1)
                }),
        );
        for (ours, theirs) in differences {
            assert!(
                (ours - theirs).abs() <= LOGPROBS,
                "{what}: {ours} {theirs} at {idx}"
            );
        }
    }
}

#[test]
fn greedy_tokens_are_the_references() {
    for name in ["multimodal", "text27b", "text1b"] {
        let (config, model) = load(name);
        let mut rig = Rig::new(model, roomy(&config));
        for (case_name, case) in &Numbers::of(name).cases {
            let request = request(&config, case, greedy(case.greedy.len()));
            let events = rig.run_alone(request);
            assert_matches(&format!("{name} {case_name}"), &events, &case.greedy);
        }
    }
}

#[test]
fn tokens_are_fed_on_even_after_they_were_collected() {
    let (config, model) = load("text1b");
    let case = &Numbers::of("text1b").cases["text"];
    let Rig {
        mut scheduler,
        mut runner,
        ..
    } = Rig::new(model, roomy(&config));
    let id = SeqId(0);
    let request = request(&config, case, greedy(3));
    scheduler.add(id, request).expect("it fits");
    let mut token_of = |order: &ModelInput| {
        runner.launch(order).expect("a step");
        runner.collect().expect("a step").sampled[0].token
    };
    let first = scheduler.schedule();
    let first_token = token_of(&ModelInput::new(&scheduler, &first));
    // Planned before the host has seen that token, launched after.
    let second = scheduler.schedule();
    let order = ModelInput::new(&scheduler, &second);
    assert_eq!(order.input.sampled_inputs.len(), 1);
    let second_token = token_of(&order);
    assert_eq!(first_token, case.greedy[0].token);
    assert_eq!(second_token, case.greedy[1].token);
}

#[test]
fn an_untied_head_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let golden = |path: &str| golden::path(&format!("models/{path}"));
    fs::copy(
        golden("multimodal/model.safetensors"),
        folder.path().join("a.safetensors"),
    )
    .and_then(|_| {
        fs::copy(
            golden("untied_head.safetensors"),
            folder.path().join("b.safetensors"),
        )
    })
    .expect("the files can be copied");
    let names = |path: &str| {
        let bytes = fs::read(golden(path)).expect("weights");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        tensors
            .names()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let mut map = serde_json::Map::new();
    for (file, path) in [
        ("a", "multimodal/model.safetensors"),
        ("b", "untied_head.safetensors"),
    ] {
        for name in names(path) {
            map.insert(name, format!("{file}.safetensors").into());
        }
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    fs::write(
        folder.path().join("model.safetensors.index.json"),
        index.to_string(),
    )
    .expect("the index can be written");

    let (config, model) = load_with("multimodal", &Weights::open(folder.path()).expect("shards"));
    let numbers = Numbers::of("multimodal");
    let untied = numbers.untied.as_ref().expect("it was written down");
    let case = &numbers.cases[&untied.case];
    let request = request(&config, case, greedy(untied.greedy.len()));
    let events = Rig::new(model, roomy(&config)).run_alone(request);
    assert_matches("untied head", &events, &untied.greedy);
}

/// Every golden case, greedy and seeded, as one mixed crowd of 32.
pub(crate) fn crowd(config: &ModelConfig) -> Vec<GenerateRequest> {
    let numbers = Numbers::of("multimodal");
    let mut names: Vec<_> = numbers.cases.keys().collect();
    names.sort();
    (0..32)
        .map(|idx| {
            let case = &numbers.cases[names[idx % names.len()]];
            let sampling = if idx % 2 == 0 {
                greedy(4 + idx)
            } else {
                SamplingParams {
                    temperature: 0.9,
                    top_k: NonZeroU32::new(40),
                    top_p: 0.95,
                    seed: idx as u64,
                    ..greedy(4 + idx)
                }
            };
            request(config, case, sampling)
        })
        .collect()
}

/// What each says when it has the server for itself.
pub(crate) fn alone(requests: &[GenerateRequest]) -> Vec<Vec<TokenEvent>> {
    let (config, model) = load("multimodal");
    let limits = SchedulerConfig {
        prefix_caching: PrefixCaching::Off,
        ..roomy(&config)
    };
    let mut rig = Rig::new(model, limits);
    requests
        .iter()
        .map(|request| rig.run_alone(request.clone()))
        .collect()
}

/// A way to run a crowd.
struct Way {
    limits: SchedulerConfig,
    stepping: Stepping,
}

const STEPPINGS: [Stepping; 2] = [Stepping::Alternating, Stepping::Ahead];

impl Way {
    fn rig(&self) -> Rig {
        let (_, model) = load("multimodal");
        let rig = Rig::new(model, self.limits);
        match self.stepping {
            Stepping::Alternating => rig,
            Stepping::Ahead => rig.ahead(),
        }
    }
}

/// Runs all requests at once with `meddle` called before each step; what each says must equal
/// `expected` to the bit.
fn assert_undisturbed(
    rig: &mut Rig,
    requests: &[GenerateRequest],
    expected: &[Vec<TokenEvent>],
    mut meddle: impl FnMut(&mut Rig),
) {
    let ids: Vec<SeqId> = requests
        .iter()
        .map(|request| rig.add(request.clone()))
        .collect();
    while rig.scheduler.has_work() {
        meddle(rig);
        rig.step();
    }
    rig.finish();
    for (idx, (id, expected)) in ids.iter().zip(expected).enumerate() {
        assert_eq!(rig.events(*id), expected.as_slice(), "request {idx}");
    }
    let stats = rig.scheduler.stats();
    let total = rig.scheduler.config().num_blocks;
    assert_eq!((stats.num_free_blocks, stats.kv_usage), (total, 0.0));
}

#[test]
fn neighbours_and_aborts_change_no_bit() {
    let (config, _) = load("multimodal");
    let crowd = crowd(&config);
    let expected = alone(&crowd);
    for stepping in STEPPINGS {
        let way = Way {
            limits: roomy(&config),
            stepping,
        };
        let mut rig = way.rig();
        assert_undisturbed(&mut rig, &crowd, &expected, |_| {});
        assert!(rig.num_steps < 100, "{} steps: no batching", rig.num_steps);
        assert_eq!(rig.num_fed > 0, stepping == Stepping::Ahead);

        // Others come and go all the time.
        let mut guests: Vec<SeqId> = Vec::new();
        let mut num_steps = 0;
        assert_undisturbed(&mut way.rig(), &crowd, &expected, |rig| {
            num_steps += 1;
            if num_steps < 40 {
                guests.push(rig.add(crowd[num_steps % crowd.len()].clone()));
            }
            if num_steps % 2 == 0 && !guests.is_empty() {
                rig.scheduler.abort(guests.remove(0));
            }
        });
    }
}

#[test]
fn chunks_of_every_size_change_no_bit() {
    let (config, _) = load("multimodal");
    let numbers = Numbers::of("multimodal");
    let mut cases: Vec<_> = numbers.cases.iter().collect();
    cases.sort_by_key(|(name, _)| *name);
    let requests: Vec<_> = cases
        .iter()
        .map(|(_, case)| request(&config, case, greedy(2)))
        .collect();
    let expected = alone(&requests);
    let longest = requests.iter().map(|request| request.prompt.len()).max();
    // From the largest image's 16 tokens on, each size cuts somewhere else.
    for budget in 16..=longest.expect("there are cases") {
        let limits = SchedulerConfig {
            max_num_seqs: 16,
            max_num_batched_tokens: budget,
            prefix_caching: [PrefixCaching::On, PrefixCaching::Off][budget / 2 % 2],
            ..roomy(&config)
        };
        let stepping = STEPPINGS[budget % 2];
        let mut rig = Way { limits, stepping }.rig();
        assert_undisturbed(&mut rig, &requests, &expected, |_| {});
    }
}

#[test]
fn cached_prefixes_and_salts_change_no_bit() {
    let (config, _) = load("multimodal");
    let crowd = crowd(&config);
    let expected = alone(&crowd);
    for stepping in STEPPINGS {
        let limits = roomy(&config);
        let mut rig = Way { limits, stepping }.rig();
        assert_undisturbed(&mut rig, &crowd, &expected, |_| {});
        let hits = |rig: &Rig| rig.scheduler.stats().prefix_hit_tokens;
        let (before, encoded) = (hits(&rig), rig.num_encoded());
        assert_undisturbed(&mut rig, &crowd, &expected, |_| {});
        let found = hits(&rig) - before;
        assert!(found > 0, "the second time nothing was found");
        assert_eq!(rig.num_encoded(), encoded, "images were encoded again");

        // With a salt of their own they find nothing of the others', and each other's.
        let salted: Vec<_> = crowd
            .iter()
            .map(|request| GenerateRequest {
                scheduling: SchedulingParams {
                    cache_salt: Some(CacheSalt([7; 32])),
                    ..request.scheduling
                },
                ..request.clone()
            })
            .collect();
        let before = hits(&rig);
        assert_undisturbed(&mut rig, &salted, &expected, |_| {});
        let cold = hits(&rig) - before;
        assert!(cold < found, "{cold} {found}");
    }
}

#[test]
fn a_follow_up_encodes_no_image_and_computes_what_is_new() {
    let (config, model) = load("multimodal");
    let case = &Numbers::of("multimodal").cases["image_first"];
    let mut rig = Rig::new(model, roomy(&config)).ahead();
    // Long enough that the image lies in full blocks.
    let first = request(&config, case, greedy(2 * BLOCK_SIZE));
    let answer = rig.run_alone(first.clone());
    let encoded = rig.num_encoded();
    assert_eq!(encoded, 1);
    let turn = answer.iter().map(|event| event.token);
    let follow_up = GenerateRequest {
        prompt: first
            .prompt
            .iter()
            .copied()
            .chain(turn)
            .chain(case.ids[..3].iter().copied())
            .collect(),
        sampling: greedy(4),
        ..first
    };
    let prompt_len = follow_up.prompt.len();
    let before = rig.num_computed;
    let warm = rig.run_alone(follow_up.clone());
    assert_eq!(rig.num_encoded(), encoded);
    let computed = rig.num_computed - before;
    assert!(computed < prompt_len / 2, "{computed} of {prompt_len}");
    assert_eq!(warm, alone(&[follow_up]).remove(0));
}

#[test]
fn preemption_changes_no_bit() {
    let (config, _) = load("multimodal");
    let case = &Numbers::of("multimodal").cases["image_first"];
    let requests: Vec<_> = (0..8)
        .map(|idx| request(&config, case, greedy(90 + idx)))
        .collect();
    let expected = alone(&requests);
    for prefix_caching in [PrefixCaching::On, PrefixCaching::Off] {
        for stepping in STEPPINGS {
            // Room to begin four of them and to finish two.
            let limits = SchedulerConfig {
                max_num_batched_tokens: 64,
                max_model_len: 256,
                num_blocks: BlockCount::new(&[12, 16]),
                prefix_caching,
                ..roomy(&config)
            };
            let mut rig = Way { limits, stepping }.rig();
            assert_undisturbed(&mut rig, &requests, &expected, |_| {});
            assert!(rig.num_preempted > 0, "nothing was preempted");
        }
    }
}

#[test]
fn stop_tokens_and_lengths_end_a_sequence() {
    let (config, model) = load("text1b");
    let mut rig = Rig::new(
        model,
        SchedulerConfig {
            max_model_len: 128,
            ..roomy(&config)
        },
    );
    let numbers = Numbers::of("text1b");
    let case = &numbers.cases["text"];
    let stop = case.greedy[5].token;
    let first = case
        .greedy
        .iter()
        .position(|t| t.token == stop)
        .expect("it is there");
    let with_stop = SamplingParams {
        stop_token_ids: vec![stop],
        ..greedy(24)
    };
    let events = rig.run_alone(request(&config, case, with_stop.clone()));
    assert_eq!(events.len(), first + 1);
    assert_eq!(events[first].token, stop);

    let later = SamplingParams {
        min_tokens: 12,
        ..with_stop
    };
    let events = rig.run_alone(request(&config, case, later));
    assert!(events.len() >= 12);
    assert!(events[..11].iter().all(|event| event.token != stop));

    let events = rig.run_alone(request(&config, case, greedy(10_000)));
    assert_eq!(events.len(), 128 - case.ids.len());
    assert_eq!(
        events[0].token,
        case.greedy[0].token,
        "the same start: {:?}",
        TokenId(0)
    );
}
