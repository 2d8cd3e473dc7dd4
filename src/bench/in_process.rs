//! Decode, prefill and load, through the engine as the HTTP side uses it, without HTTP.

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::join_all;

use super::bandwidth::read_bandwidth;
use super::{Report, Row};
use crate::backend::Processor;
use crate::config::{DecodePlan, PrefillPlan, ServeConfig};
use crate::core::{GenerateRequest, SamplingParams, SchedulingParams, TokenId};
use crate::engine::EngineHandle;
use crate::error::{Error, Result};
use crate::model::config::TextConfig;
use crate::registry::{self, ModelSource};

/// A loaded model and what one step of it must read.
struct Rig {
    engine: EngineHandle,
    /// Random prompts are made of these ids, which are ordinary words everywhere.
    words: std::ops::Range<u32>,
    footprint: Footprint,
    processor: Processor,
    prompts: fastrand::Rng,
    runtime: tokio::runtime::Runtime,
}

/// Bytes that a decode step reads.
#[derive(Clone, Debug)]
struct Footprint {
    text: TextConfig,
    weight_bytes_per_parameter: f64,
    kv_bytes_per_number: f64,
}

impl Footprint {
    fn of(source: &ModelSource) -> Result<Self> {
        let num_parameters = source.config.num_parameters();
        let num_bytes = source.weights()?.num_bytes(num_parameters);
        Ok(Self {
            text: source.config.text.clone(),
            weight_bytes_per_parameter: num_bytes as f64 / num_parameters as f64,
            kv_bytes_per_number: size_of::<f32>() as f64,
        })
    }

    /// Bytes that one decoding step reads: `batch` sequences with `context` tokens each.
    fn step_bytes(&self, batch: usize, context: usize) -> f64 {
        use crate::model::config::LayerKind;

        let text = &self.text;
        let attention = text.hidden_size
            * text.head_dim
            * (2 * text.num_attention_heads + 2 * text.num_key_value_heads);
        let mlp = 3 * text.hidden_size * text.intermediate_size;
        let head = text.vocab_size * text.hidden_size;
        let parameters = text.num_hidden_layers * (attention + mlp) + head;
        let keys: usize = (text.layer_kinds.iter())
            .map(|kind| match kind {
                LayerKind::Global => context,
                LayerKind::Sliding => context.min(text.sliding_window),
            })
            .sum();
        let kv = batch * keys * 2 * text.num_key_value_heads * text.head_dim;
        parameters as f64 * self.weight_bytes_per_parameter + kv as f64 * self.kv_bytes_per_number
    }
}

impl Rig {
    fn load(settings: &ServeConfig) -> Result<Self> {
        let source = registry::resolve(settings)?;
        let footprint = Footprint::of(&source)?;
        let loaded = registry::load(settings)?;
        let vocab_size = u32::try_from(loaded.model.vocab_size).unwrap_or(u32::MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| Error::Config(format!("the runtime cannot start: {error}")))?;
        Ok(Self {
            engine: loaded.model.engine,
            words: vocab_size / 4..vocab_size / 2,
            footprint,
            processor: loaded.processor,
            prompts: fastrand::Rng::with_seed(0),
            runtime,
        })
    }

    /// A request that misses the cache and does not end at stop tokens.
    fn request(&mut self, prompt_len: usize, max_tokens: usize) -> GenerateRequest {
        let words = self.words.clone();
        GenerateRequest {
            prompt: (0..prompt_len)
                .map(|_| TokenId(self.prompts.u32(words.clone())))
                .collect(),
            images: Vec::new(),
            sampling: SamplingParams::greedy(max_tokens),
            constraint: None,
            prompt_logprobs: None,
            scheduling: SchedulingParams::default(),
        }
    }

    /// When each request's tokens came.
    fn run(&self, requests: Vec<GenerateRequest>) -> Result<Vec<Vec<Instant>>> {
        let streams = (requests.into_iter())
            .map(|request| self.engine.submit(request))
            .collect::<Result<Vec<_>>>()?;
        let arrivals = streams.into_iter().map(|mut stream| async move {
            let mut times = Vec::new();
            while let Some(event) = stream.next().await {
                event?;
                times.push(Instant::now());
            }
            Ok(times)
        });
        self.runtime
            .block_on(join_all(arrivals))
            .into_iter()
            .collect()
    }
}

/// Tokens a second while `batch` sequences decode together, per batch size, and their share of what
/// reading the weights and the cache once a step allows.
///
/// # Errors
/// Those of loading, and settings under which the sequences cannot run together.
pub fn decode(settings: &ServeConfig, plan: &DecodePlan) -> Result<Report> {
    if plan.output_len < 3 {
        return Err(Error::Config(
            "--output-len must be at least 3: the first token belongs to the prompt and the second \
             warms up"
                .into(),
        ));
    }
    let most = plan.batches.iter().copied().max().unwrap_or(0);
    if most > settings.limits.max_num_seqs {
        return Err(Error::Config(format!(
            "--batch {most} is more than --max-num-seqs {} runs at a time",
            settings.limits.max_num_seqs
        )));
    }
    let mut rig = Rig::load(settings)?;
    // Of the host's memory: what a GPU reads at is not measured here.
    let bandwidth = match rig.processor {
        Processor::Cpu => Some(read_bandwidth()),
        Processor::Gpu => None,
    };
    let mut rows = Vec::new();
    rows.extend(bandwidth.map(|rate| Row::one("memory is read at", rate / 1e9, "GB/s")));
    for &batch in &plan.batches {
        let rates = (0..plan.runs)
            .map(|_| decode_rate(&mut rig, batch, plan))
            .collect::<Result<Vec<f64>>>()?;
        let context = plan.prompt_len + plan.output_len / 2;
        let rate = median(rates);
        let row = Row::one(format!("decode, batch {batch}"), rate, "tok/s");
        rows.push(match bandwidth {
            Some(bandwidth) => {
                let bound = batch as f64 * bandwidth / rig.footprint.step_bytes(batch, context);
                row.of_bound(rate / bound)
            }
            None => row,
        });
    }
    Ok(Report {
        what: format!(
            "{}: decode of {} tokens behind prompts of {}",
            settings.model, plan.output_len, plan.prompt_len
        ),
        rows,
    })
}

/// Over the time in which all of them decode: from the last one's second token to the first one's
/// last.
fn decode_rate(rig: &mut Rig, batch: usize, plan: &DecodePlan) -> Result<f64> {
    let requests = (0..batch)
        .map(|_| rig.request(plan.prompt_len, plan.output_len))
        .collect();
    let times = rig.run(requests)?;
    let began = times.iter().map(|times| times[1]).max();
    let ended = times.iter().map(|times| times[plan.output_len - 1]).min();
    let (Some(began), Some(ended)) = (began, ended) else {
        return Err(Error::Config("--batch must be at least 1".into()));
    };
    let num_tokens = (times.iter().flatten())
        .filter(|time| (began..=ended).contains(*time))
        .count()
        .saturating_sub(batch);
    if num_tokens == 0 {
        return Err(Error::Config(format!(
            "the {batch} sequences never decoded all at the same time; raise --output-len or \
             --max-num-batched-tokens"
        )));
    }
    Ok(num_tokens as f64 / (ended - began).as_secs_f64())
}

/// Tokens a second of one prompt, its first new token included, per length.
///
/// # Errors
/// Those of loading, and prompts that do not fit.
pub fn prefill(settings: &ServeConfig, plan: &PrefillPlan) -> Result<Report> {
    let mut rig = Rig::load(settings)?;
    let mut rows = Vec::new();
    for &prompt_len in &plan.prompt_lens {
        let rates = (0..plan.runs + 1)
            .map(|_| {
                let request = rig.request(prompt_len, 1);
                let began = Instant::now();
                rig.run(vec![request])?;
                Ok(prompt_len as f64 / began.elapsed().as_secs_f64())
            })
            .collect::<Result<Vec<f64>>>()?;
        // The first one warms up.
        let rate = median(rates[1..].to_vec());
        rows.push(Row::one(
            format!("prefill, prompt of {prompt_len}"),
            rate,
            "tok/s",
        ));
    }
    Ok(Report {
        what: format!("{}: prefill", settings.model),
        rows,
    })
}

/// Measures the seconds until the model is ready, and how fast its weights were read.
///
/// # Errors
/// Those of loading.
pub fn load(settings: &ServeConfig) -> Result<Report> {
    let source = registry::resolve(settings)?;
    let num_bytes = source.weights()?.num_bytes(source.config.num_parameters()) as f64;
    let began = Instant::now();
    let loaded = registry::load(settings)?;
    let seconds = began.elapsed().as_secs_f64();
    loaded.model.engine.drain();
    loaded.engine.join();
    Ok(Report {
        what: format!("{}: load", settings.model),
        rows: vec![
            Row::one("ready after", seconds, "s"),
            Row::one("weights", num_bytes / 1e9, "GB"),
            Row::one("weights a second", num_bytes / 1e9 / seconds, "GB/s"),
        ],
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
