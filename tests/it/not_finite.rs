//! Weights that are NaN or infinite: which are found before anything is served, by what name, and
//! what becomes of a request that meets one that was not found.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use medgemma::backend::cpu::CpuBackend;
use medgemma::core::{
    BlockCount, GenerateRequest, PrefixCaching, SamplingParams, SchedulingParams, TokenEvent,
    TokenId,
};
use medgemma::engine::{
    EngineConfig, EngineHandle, EngineLimits, EngineThread, Runner, Stepping, start,
};
use medgemma::error::{Error, Result};
use medgemma::model::config::ModelConfig;
use medgemma::model::weights::Weights;
use medgemma::model::{Model, WarmUpImages};
use medgemma::scheduler::SchedulerConfig;
use tempfile::TempDir;

use crate::generation::{greedy, request, roomy};
use crate::golden::{self, Numbers};

const FILE: &str = "model.safetensors";
const EMBEDDING: &str = "embed_tokens";

/// A checkpoint's file whose numbers can be changed.
struct Numbered {
    bytes: Vec<u8>,
    /// Name, bytes per number, and where its data lie in the file.
    tensors: Vec<(String, usize, std::ops::Range<usize>)>,
}

impl Numbered {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).expect("goldens are there");
        let (len, rest) = bytes.split_first_chunk::<8>().expect("a header");
        let len = u64::from_le_bytes(*len) as usize;
        let header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&rest[..len]).expect("a header");
        let tensors = header
            .into_iter()
            .filter(|(name, _)| name != "__metadata__");
        let tensors = tensors.map(|(name, entry)| {
            let size = match entry["dtype"].as_str() {
                Some("F32") => 4,
                Some("BF16") => 2,
                other => panic!("{name} is {other:?}"),
            };
            let offset = |idx: usize| {
                let offset = entry["data_offsets"][idx].as_u64().expect("an offset");
                8 + len + offset as usize
            };
            (name, size, offset(0)..offset(1))
        });
        Self {
            tensors: tensors.collect(),
            bytes,
        }
    }

    /// The numbers of a tensor, from `first` on, are `value`.
    fn set(&mut self, name: &str, numbers: std::ops::Range<usize>, value: f32) {
        let (_, size, place) = self
            .tensors
            .iter()
            .find(|(other, ..)| other.contains(name))
            .expect("it has such a tensor");
        for idx in numbers {
            let at = place.start + idx * size;
            let bits = value.to_bits().to_le_bytes();
            self.bytes[at..at + size].copy_from_slice(&bits[4 - size..]);
        }
    }

    fn num_numbers(&self, name: &str) -> usize {
        let found = self.tensors.iter().find(|(other, ..)| other == name);
        let (_, size, place) = found.expect("it has such a tensor");
        place.len() / size
    }
}

/// A folder with these weights and all else of the model's and the tokenizer's.
fn folder(model: &str, weights: &Numbered) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for from in [format!("models/{model}"), "tokenizer".to_owned()] {
        for entry in fs::read_dir(golden::path(&from)).expect("goldens are there") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name");
            fs::copy(&path, dir.path().join(name)).expect("it can be copied");
        }
    }
    fs::write(dir.path().join(FILE), &weights.bytes).expect("it can be written");
    dir
}

fn config(dir: &Path) -> ModelConfig {
    let file = dir.join("config.json");
    let json = fs::read(&file).expect("it was copied");
    ModelConfig::from_json(&file, &json).expect("transformers wrote it")
}

/// Loaded without a look at the numbers, as on a GPU.
fn warmed_up(dir: &Path) -> (bool, Result<()>) {
    let config = config(dir);
    let weights = Weights::open(dir).expect("weights");
    let model = Model::load(CpuBackend, &config, &weights).expect("the model loads");
    let mut runner = Runner::new(model, BlockCount::new(&[8; 2])).expect("a cache");
    let is_finite = runner
        .computes_finite_numbers(4, WarmUpImages::One)
        .expect("a step");
    (is_finite, weights.check_numbers())
}

#[test]
fn whatever_weight_is_not_finite_is_found_by_name() {
    let golden = Numbered::read(&golden::path("models/multimodal/model.safetensors"));
    let whole = folder("multimodal", &golden);
    let (is_finite, numbers) = warmed_up(whole.path());
    assert!(is_finite && numbers.is_ok(), "{numbers:?}");

    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN];
    for (idx, (name, ..)) in golden.tensors.iter().enumerate() {
        let mut damaged = Numbered {
            bytes: golden.bytes.clone(),
            tensors: golden.tensors.clone(),
        };
        let at = (idx * 7919) % golden.num_numbers(name);
        damaged.set(name, at..at + 1, values[idx % 4]);
        let dir = folder("multimodal", &damaged);
        let (is_finite, numbers) = warmed_up(dir.path());
        assert!(!is_finite, "{name} at {at} does no harm");
        let weights = Weights::open(dir.path()).expect("weights").checked();
        let loaded = Model::load(CpuBackend, &config(dir.path()), &weights).map(drop);
        for error in [numbers, loaded] {
            let error = error.expect_err("it is damaged").to_string();
            let file = dir.path().join(FILE);
            let says = format!("{}: tensor {name} has numbers", file.display());
            assert!(error.starts_with(&says), "{error}");
            assert!(error.contains("not finite") && error.contains(&format!("at {at} of ")));
        }
    }
}

#[test]
fn a_server_refuses_them_by_the_tensors_name() {
    let golden = Numbered::read(&golden::path("models/multimodal/model.safetensors"));
    for (name, value) in [
        ("layers.0.input_layernorm", f32::NAN),
        ("layers.1.mlp.down_proj", f32::INFINITY),
        (
            "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight",
            f32::NAN,
        ),
        (EMBEDDING, f32::NEG_INFINITY),
    ] {
        let mut damaged = Numbered {
            bytes: golden.bytes.clone(),
            tensors: golden.tensors.clone(),
        };
        damaged.set(name, 9..10, value);
        let dir = folder("multimodal", &damaged);
        // One that serves after all must not keep the test waiting for ever.
        let output = Command::new("timeout")
            .args(["120", env!("CARGO_BIN_EXE_medgemma")])
            .args(["serve", "--port", "0", "--device", "cpu"])
            .args(["--kv-cache-memory", "64MB"])
            .arg(dir.path())
            .output()
            .expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{log}");
        assert!(log.contains(name) && log.contains(FILE), "{log}");
        assert!(log.contains("not finite"), "{log}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("listening"));
    }
}

/// A token that no prompt of the goldens has.
const POISON: TokenId = TokenId(77);

/// An engine whose model has NaN in the embedding's row of [`POISON`], and a head of its own: only
/// who says that token finds out.
fn poisoned(limits: impl Fn(&ModelConfig) -> SchedulerConfig) -> (EngineHandle, EngineThread) {
    let mut weights = Numbered::read(&golden::path("models/multimodal/model.safetensors"));
    let config = config(&golden::path("models/multimodal"));
    let hidden = config.text.hidden_size;
    let row = POISON.0 as usize * hidden;
    weights.set(EMBEDDING, row..row + 1, f32::NAN);
    let dir = folder("multimodal", &weights);
    fs::rename(dir.path().join(FILE), dir.path().join("a.safetensors")).expect("renamed");
    let head = golden::path("models/untied_head.safetensors");
    fs::copy(&head, dir.path().join("b.safetensors")).expect("copied");
    let head = Numbered::read(&head);
    let of = |names: &Numbered, file: &str| -> Vec<(String, serde_json::Value)> {
        let names = names.tensors.iter();
        names
            .map(|(name, ..)| (name.clone(), file.into()))
            .collect()
    };
    let map = [of(&weights, "a.safetensors"), of(&head, "b.safetensors")].concat();
    let map: serde_json::Map<_, _> = map.into_iter().collect();
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    let index_file = dir.path().join("model.safetensors.index.json");
    fs::write(index_file, index.to_string()).expect("written");

    let weights = Weights::open(dir.path()).expect("weights");
    let model = Model::load(CpuBackend, &config, &weights).expect("the model loads");
    let scheduler = limits(&config);
    let blocks = scheduler.num_blocks;
    let mut runner = Runner::new(model, blocks).expect("a cache");
    // It misses what nobody says.
    assert!(
        runner
            .computes_finite_numbers(4, WarmUpImages::One)
            .expect("a step")
    );
    let config = EngineConfig {
        limits: EngineLimits {
            scheduler,
            max_in_flight: 64,
            max_queued_tokens: 1_000_000,
            max_queued_per_tenant: None,
        },
        stepping: Stepping::Alternating,
        step_timeout: None,
        shutdown_timeout: Duration::from_secs(3600),
    };
    start(runner, config).expect("it starts")
}

fn limits(config: &ModelConfig) -> SchedulerConfig {
    SchedulerConfig {
        // Prompts are read in several steps.
        max_num_batched_tokens: 64,
        ..roomy(config)
    }
}

/// A prompt of `len` different tokens, with [`POISON`] where that is said.
fn ask(len: u32, poison: Option<usize>, max_tokens: usize) -> GenerateRequest {
    let mut prompt: Vec<TokenId> = (0..len).map(|idx| TokenId(100 + idx * 3 % 90)).collect();
    if let Some(at) = poison {
        prompt[at] = POISON;
    }
    GenerateRequest {
        prompt,
        images: Vec::new(),
        sampling: SamplingParams {
            top_logprobs: Some(5),
            ..greedy(max_tokens)
        },
        constraint: None,
        prompt_logprobs: None,
        scheduling: SchedulingParams::default(),
    }
}

async fn answer(handle: &EngineHandle, request: GenerateRequest) -> Vec<Result<TokenEvent>> {
    let stream = handle.submit(request).expect("there is room");
    stream.collect().await
}

/// Everything of an answer but how long it waited.
fn told(events: &[Result<TokenEvent>]) -> Vec<TokenEvent> {
    let events = events.iter().map(|event| event.as_ref().expect("a token"));
    events
        .map(|event| TokenEvent {
            queued: Duration::ZERO,
            ..event.clone()
        })
        .collect()
}

#[tokio::test]
async fn a_request_that_meets_nan_fails_alone() {
    let (alone, _thread) = poisoned(limits);
    let good = told(&answer(&alone, ask(40, None, 60)).await);
    assert_eq!(good.len(), 60);

    let (handle, _thread) = poisoned(limits);
    let mut neighbour = handle.submit(ask(40, None, 60)).expect("there is room");
    let mut events = vec![neighbour.next().await.expect("a token")];
    for at in [0, 20, 63, 64, 99] {
        let failed = answer(&handle, ask(100, Some(at), 4)).await;
        assert!(matches!(failed[..], [Err(Error::NotFinite)]), "{failed:?}");
    }
    let scored = GenerateRequest {
        prompt_logprobs: Some(0),
        ..ask(100, Some(50), 4)
    };
    let failed = answer(&handle, scored).await;
    assert!(matches!(failed[..], [Err(Error::NotFinite)]), "{failed:?}");
    events.extend(neighbour.collect::<Vec<_>>().await);
    assert_eq!(told(&events), good, "to the bit");
    // Whoever gets the blocks of those that failed.
    let again = told(&answer(&handle, ask(40, None, 60)).await);
    let texts = |events: &[TokenEvent]| -> Vec<_> {
        let events = events.iter();
        events
            .map(|event| (event.token, event.logprobs.clone()))
            .collect()
    };
    assert_eq!(texts(&again), texts(&good));
}

#[tokio::test]
async fn what_a_failed_request_computed_is_never_found() {
    let (alone, _thread) = poisoned(limits);
    let good = told(&answer(&alone, ask(90, None, 5)).await);
    let (handle, _thread) = poisoned(limits);
    // Its first block is full, and known, before it fails; the poison comes behind it.
    let failed = answer(&handle, ask(90, Some(40), 5)).await;
    assert!(matches!(failed[..], [Err(Error::NotFinite)]), "{failed:?}");
    let next = told(&answer(&handle, ask(90, None, 5)).await);
    assert_eq!(next[0].num_cached_tokens, 0);
    assert_eq!(next, good);
    // What is sound is found as ever.
    let again = told(&answer(&handle, ask(90, None, 5)).await);
    assert_eq!(again[0].num_cached_tokens, 64);
}

#[tokio::test]
async fn nor_are_its_images() {
    let case = &Numbers::of("multimodal").cases["image_first"];
    let config = config(&golden::path("models/multimodal"));
    let good = request(&config, case, greedy(2));
    let mut bad = good.clone();
    bad.prompt.push(POISON);
    let (handle, _thread) = poisoned(|config| SchedulerConfig {
        prefix_caching: PrefixCaching::Off,
        ..roomy(config)
    });
    let encoder = |handle: &EngineHandle| {
        let stats = handle.stats();
        (stats.encoder_misses, stats.encoder_hits)
    };
    let first = told(&answer(&handle, good.clone()).await);
    let failed = answer(&handle, bad).await;
    assert!(matches!(failed[..], [Err(Error::NotFinite)]), "{failed:?}");
    let second = told(&answer(&handle, good.clone()).await);
    assert_eq!(second, first);
    let third = told(&answer(&handle, good).await);
    assert_eq!(third, first);
    // Shown four times: the failed one found it, the next one did not.
    for _ in 0..2_000 {
        if encoder(&handle) == (2, 2) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?}", encoder(&handle));
}
