//! The runner: executes model inputs on the device and returns sampled tokens.
//!
//! Owns the model, its KV cache and the encoder cache. Knows nothing of channels, queues or
//! sequences.

use std::collections::VecDeque;

use super::encoder_cache::{EmbeddingKey, EncoderCache, EncoderStats};
use super::model_input::{ImageAt, ModelInput, SampleInput};
use crate::backend::{Backend, SampleRow, Sampled};
use crate::core::{BlockCount, PixelValues, SeqId};
use crate::error::{Error, Result};
use crate::model::{Computed, Forward, ImageRows, Model, ScoredRun, StepOf, WarmUpImages};
use crate::scheduler::{Batch, Scheduler};

/// Default size of the encoder cache in bytes.
const ENCODER_CACHE_BYTES: usize = 512 << 20;
/// Image embeddings are f32 in every backend.
const FEATURE_BYTES: usize = 4;

/// Executes steps on one device, in the order in which they are launched.
pub struct Runner<B: Backend, F: Forward<B>> {
    model: Model<B, F>,
    cache: B::KvCache,
    encoder_cache: EncoderCache<B::Tensor>,
    /// Samples of the last `num_uncollected` steps, oldest first; always includes those of the
    /// newest step, since the next step may use them as input.
    sampled_tokens: VecDeque<StepSamples<B>>,
    num_uncollected: usize,
    /// Outputs of the newest step, if its sample is submitted separately and still missing.
    unsampled: Option<Computed<B>>,
}

/// Results of a step that are still on the device.
struct StepSamples<B: Backend> {
    /// `None` if nothing was sampled.
    sampled_tokens: Option<B::SampledTokens>,
    /// Scores of the prompts' tokens.
    scores: Vec<B::SampledTokens>,
}

/// Results of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// One entry per sample, in their order.
    pub sampled: Vec<Sampled>,
    /// One entry per scored row, in the order of the step's `scores`.
    pub scores: Vec<Sampled>,
}

impl<B: Backend, F: Forward<B>> Runner<B, F> {
    /// Creates a runner whose KV cache has this many blocks in each group.
    pub fn new(model: Model<B, F>, num_blocks: BlockCount) -> Result<Self> {
        let mut cache = model.kv_cache(num_blocks)?;
        model.warm_up(&mut cache)?;
        Ok(Self {
            model,
            cache,
            encoder_cache: EncoderCache::new(ENCODER_CACHE_BYTES),
            sampled_tokens: VecDeque::new(),
            num_uncollected: 0,
            unsampled: None,
        })
    }

    /// Sets the size of the encoder cache in bytes; what a step uses may exceed it.
    pub fn with_encoder_cache(mut self, max_bytes: usize) -> Self {
        self.encoder_cache = EncoderCache::new(max_bytes);
        self
    }

    /// Checks that the model's outputs are finite, with a step of `num_tokens` tokens; see
    /// [`Model::warm_up`]. Must not be called once requests are served.
    ///
    /// # Errors
    /// Returns the backend's errors.
    pub fn computes_finite_numbers(
        &mut self,
        num_tokens: usize,
        images: WarmUpImages,
    ) -> Result<bool> {
        self.model
            .computes_finite_numbers(num_tokens, images, &mut self.cache)
    }

    /// Drops the cached embeddings of these images.
    pub fn forget(&mut self, images: &[EmbeddingKey]) {
        for key in images {
            self.encoder_cache.forget(key);
        }
    }

    /// The model.
    pub fn model(&self) -> &Model<B, F> {
        &self.model
    }

    /// Returns the hit and miss counters of the encoder cache.
    pub fn encoder_stats(&self) -> EncoderStats {
        self.encoder_cache.stats()
    }

    /// Begins a step. [`collect`](Self::collect) returns its tokens; before that, the next step's
    /// `sampled_inputs` may already refer to them.
    ///
    /// # Errors
    /// Returns the backend's errors, and `Backend` while a step waits for its sample.
    pub fn launch(&mut self, order: &ModelInput) -> Result<()> {
        let sampled = self.enter(order, |model, computed| {
            sample(model, computed, &order.samples)
        })?;
        self.push(sampled);
        Ok(())
    }

    /// Begins a step without sampling; [`sample`](Self::sample) completes it.
    ///
    /// # Errors
    /// Returns the errors of [`launch`](Self::launch).
    pub fn forward(&mut self, order: &ModelInput) -> Result<()> {
        self.unsampled = Some(self.enter(order, |_, computed| Ok(computed))?);
        Ok(())
    }

    /// Samples for the step that [`forward`](Self::forward) has begun.
    ///
    /// # Errors
    /// Returns the backend's errors, and `Backend` when no step waits for its sample.
    pub fn sample(&mut self, samples: &[SampleInput]) -> Result<()> {
        let Some(computed) = self.unsampled.take() else {
            let none = "a sample was submitted, and no step waits for one";
            return Err(Error::Backend(none.to_owned()));
        };
        let model = &self.model;
        let sampled = model
            .backend()
            .enter(move || sample(model, computed, samples))?;
        self.push(sampled);
        Ok(())
    }

    /// Computes a step and calls `then` with the outputs, on the thread that the backend requires.
    fn enter<R: Send>(
        &mut self,
        order: &ModelInput,
        then: impl FnOnce(&Model<B, F>, Computed<B>) -> Result<R> + Send,
    ) -> Result<R> {
        if self.unsampled.is_some() {
            let early = "a step was launched before the sample of the previous one";
            return Err(Error::Backend(early.to_owned()));
        }
        let Self {
            model,
            cache,
            encoder_cache,
            ..
        } = self;
        let model: &Model<B, F> = model;
        // Moved out and back in: samples may change threads, but are not `Sync`.
        let previous = self.sampled_tokens.pop_back();
        let (previous, done) = model.backend().enter(move || {
            let computed = {
                let previous = previous
                    .as_ref()
                    .and_then(|step| step.sampled_tokens.as_ref());
                compute(model, cache, encoder_cache, order, previous)
            };
            let done = computed.and_then(|computed| then(model, computed));
            (previous, done)
        });
        self.sampled_tokens.extend(previous);
        done
    }

    fn push(&mut self, sampled: StepSamples<B>) {
        self.sampled_tokens.push_back(sampled);
        self.num_uncollected += 1;
        self.forget_collected();
    }

    /// Waits for the oldest sampled step that was not collected.
    ///
    /// # Panics
    /// Panics when there is no such step.
    pub fn collect(&mut self) -> Result<StepOutput> {
        assert!(self.num_uncollected > 0, "a step is launched first");
        let oldest = &self.sampled_tokens[self.sampled_tokens.len() - self.num_uncollected];
        let backend = self.model.backend();
        let mut output = StepOutput::default();
        if let Some(sampled_tokens) = &oldest.sampled_tokens {
            output.sampled = backend.sampled(sampled_tokens)?;
        }
        for scores in &oldest.scores {
            output.scores.extend(backend.sampled(scores)?);
        }
        self.num_uncollected -= 1;
        self.forget_collected();
        Ok(output)
    }

    /// Runs one whole step, for callers that step synchronously. Returns a token for each chunk
    /// that samples, in the batch's order.
    ///
    /// # Panics
    /// Panics when the batch names a sequence that the scheduler does not have, or a step is
    /// uncollected.
    pub fn execute(
        &mut self,
        scheduler: &Scheduler,
        batch: &Batch,
    ) -> Result<Vec<(SeqId, Sampled)>> {
        assert_eq!(
            self.num_uncollected, 0,
            "steps before this one are collected"
        );
        self.launch(&ModelInput::new(scheduler, batch))?;
        Ok(batch.sampling().zip(self.collect()?.sampled).collect())
    }

    fn forget_collected(&mut self) {
        while self.sampled_tokens.len() > self.num_uncollected.max(1) {
            self.sampled_tokens.pop_front();
        }
    }
}

/// Runs the model on the packed step.
fn compute<B: Backend, F: Forward<B>>(
    model: &Model<B, F>,
    cache: &mut B::KvCache,
    encoder_cache: &mut EncoderCache<B::Tensor>,
    order: &ModelInput,
    previous: Option<&B::SampledTokens>,
) -> Result<Computed<B>> {
    encoder_cache.begin_step();
    let images = features(model, encoder_cache, &order.images)?;
    let step = StepOf {
        input: &order.input,
        previous,
        images: &images,
    };
    let computed = if order.scores.is_empty() {
        Computed {
            logits: model.forward(step, cache)?,
            scores: Vec::new(),
        }
    } else {
        let runs: Vec<_> = order
            .scores
            .iter()
            .map(|run| ScoredRun {
                row: run.row,
                rows: &run.rows,
            })
            .collect();
        model.forward_scored(step, &runs, cache)?
    };
    encoder_cache.end_step();
    Ok(computed)
}

/// Samples the rows that need a token.
fn sample<B: Backend, F: Forward<B>>(
    model: &Model<B, F>,
    computed: Computed<B>,
    samples: &[SampleInput],
) -> Result<StepSamples<B>> {
    let sampled_tokens = match &computed.logits {
        Some(logits) => {
            let rows: Vec<SampleRow<'_>> = samples.iter().map(SampleInput::row).collect();
            Some(model.backend().sample(logits, &rows)?)
        }
        None => None,
    };
    Ok(StepSamples {
        sampled_tokens,
        scores: computed.scores,
    })
}

/// Returns the images' embeddings, from the cache or encoded in one batch. Each image is encoded
/// once per salt: two tenants that send the same image in the same step must not learn of each
/// other.
fn features<B: Backend, F: Forward<B>>(
    model: &Model<B, F>,
    cache: &mut EncoderCache<B::Tensor>,
    images: &[ImageAt],
) -> Result<Vec<ImageRows<B::Tensor>>> {
    let mut missing: Vec<EmbeddingKey> = Vec::new();
    let mut pixels: Vec<PixelValues> = Vec::new();
    for image in images {
        let key = image.key();
        if !cache.pin(&key) && !missing.contains(&key) {
            missing.push(key);
            pixels.push(image.pixels.clone());
        }
    }
    let num_bytes = model
        .image_shape()
        .map_or(0, |shape| shape.num_features() * FEATURE_BYTES);
    for (key, features) in missing.into_iter().zip(model.encode_images(&pixels)?) {
        cache.insert(key, features, num_bytes);
    }
    let rows = images.iter().map(|image| ImageRows {
        row: image.row,
        features: cache.features(&image.key()),
    });
    Ok(rows.collect())
}
