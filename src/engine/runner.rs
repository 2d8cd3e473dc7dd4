//! From work orders to the model's inputs, and from logits to tokens.
//!
//! Owns the model, its KV cache and its pictures' features. Knows nothing of channels, queues or
//! sequences.

use std::collections::VecDeque;

use super::encoder_cache::{EncoderCache, EncoderStats};
use super::work_order::{ImageAt, WorkOrder};
use crate::backend::{Backend, SampleRow, Sampled};
use crate::core::{PixelValues, SeqId};
use crate::error::Result;
use crate::model::{ImageRows, Model, StepOf};
use crate::scheduler::{Batch, Scheduler};

/// Memory of the pictures' features unless it is told otherwise.
const ENCODER_CACHE_BYTES: usize = 512 << 20;
/// Features are f32 in every backend.
const FEATURE_BYTES: usize = 4;

/// Executes steps on one device, in the order in which they are launched.
pub struct Runner<B: Backend> {
    model: Model<B>,
    cache: B::KvCache,
    encoder_cache: EncoderCache<B::Tensor>,
    /// Draws of the last `num_uncollected` steps, oldest first; at least those of the newest step,
    /// which the next one may be fed from. `None` where nothing was to be drawn.
    draws: VecDeque<Option<B::Draws>>,
    num_uncollected: usize,
}

impl<B: Backend> Runner<B> {
    /// A runner whose cache has this many blocks in each group.
    pub fn new(
        model: Model<B>,
        num_global_blocks: usize,
        num_sliding_blocks: usize,
    ) -> Result<Self> {
        let mut cache = model.kv_cache(num_global_blocks, num_sliding_blocks)?;
        model.rehearse(&mut cache)?;
        Ok(Self {
            model,
            cache,
            encoder_cache: EncoderCache::new(ENCODER_CACHE_BYTES),
            draws: VecDeque::new(),
            num_uncollected: 0,
        })
    }

    /// Keeps at most this many bytes of pictures' features, beyond what a step uses.
    pub fn with_encoder_cache(mut self, max_bytes: usize) -> Self {
        self.encoder_cache = EncoderCache::new(max_bytes);
        self
    }

    /// The model that computes.
    pub fn model(&self) -> &Model<B> {
        &self.model
    }

    /// How often pictures had to be encoded, and how often not.
    pub fn encoder_stats(&self) -> EncoderStats {
        self.encoder_cache.stats()
    }

    /// Begins a step. Its tokens are had by [`collect`](Self::collect), the next step's `fed` rows
    /// may refer to them before.
    pub fn launch(&mut self, order: &WorkOrder) -> Result<()> {
        let Self {
            model,
            cache,
            encoder_cache,
            ..
        } = self;
        let model: &Model<B> = model;
        // Out and in again: draws may change threads, but not be seen by two.
        let previous = self.draws.pop_back();
        let (previous, drawn) = model.backend().enter(move || {
            let drawn = {
                let previous = previous.as_ref().and_then(Option::as_ref);
                compute(model, cache, encoder_cache, order, previous)
            };
            (previous, drawn)
        });
        self.draws.extend(previous);
        self.draws.push_back(drawn?);
        self.num_uncollected += 1;
        self.forget_collected();
        Ok(())
    }

    /// Waits for the oldest step that was launched and not collected; its tokens, in the order of
    /// its `samples`.
    ///
    /// # Panics
    /// When there is no such step.
    pub fn collect(&mut self) -> Result<Vec<Sampled>> {
        assert!(self.num_uncollected > 0, "a step is launched first");
        let oldest = &self.draws[self.draws.len() - self.num_uncollected];
        let sampled = match oldest {
            Some(draws) => self.model.backend().sampled(draws)?,
            None => Vec::new(),
        };
        self.num_uncollected -= 1;
        self.forget_collected();
        Ok(sampled)
    }

    /// One step from beginning to end, for those that step by hand: a token for each chunk that
    /// samples, in the batch's order.
    ///
    /// # Panics
    /// When the batch names a sequence that the scheduler does not have, or a step is uncollected.
    pub fn execute(
        &mut self,
        scheduler: &Scheduler,
        batch: &Batch,
    ) -> Result<Vec<(SeqId, Sampled)>> {
        assert_eq!(
            self.num_uncollected, 0,
            "steps before this one are collected"
        );
        self.launch(&WorkOrder::new(scheduler, batch))?;
        Ok(batch.sampling().zip(self.collect()?).collect())
    }

    fn forget_collected(&mut self) {
        while self.draws.len() > self.num_uncollected.max(1) {
            self.draws.pop_front();
        }
    }
}

/// Runs the packed step and draws where it samples.
fn compute<B: Backend>(
    model: &Model<B>,
    cache: &mut B::KvCache,
    encoder_cache: &mut EncoderCache<B::Tensor>,
    order: &WorkOrder,
    previous: Option<&B::Draws>,
) -> Result<Option<B::Draws>> {
    encoder_cache.begin_step();
    let images = features(model, encoder_cache, &order.images)?;
    let step = StepOf {
        input: &order.input,
        previous,
        images: &images,
    };
    let logits = model.forward(step, cache)?;
    encoder_cache.end_step();
    let Some(logits) = logits else {
        return Ok(None);
    };
    let rows: Vec<_> = order
        .samples
        .iter()
        .map(|sample| SampleRow {
            params: &sample.params,
            position: sample.position,
            num_generated: sample.num_generated,
        })
        .collect();
    model.backend().sample(&logits, &rows).map(Some)
}

/// The pictures' features: from the cache, or made together, each picture once.
fn features<B: Backend>(
    model: &Model<B>,
    cache: &mut EncoderCache<B::Tensor>,
    images: &[ImageAt],
) -> Result<Vec<ImageRows<B::Tensor>>> {
    let mut missing: Vec<PixelValues> = Vec::new();
    for image in images {
        let hash = image.pixels.hash;
        if !cache.pin(&hash) && missing.iter().all(|pixels| pixels.hash != hash) {
            missing.push(image.pixels.clone());
        }
    }
    let num_bytes = model
        .image_shape()
        .map_or(0, |shape| shape.num_features() * FEATURE_BYTES);
    for (pixels, features) in missing.iter().zip(model.encode_images(&missing)?) {
        cache.insert(pixels.hash, features, num_bytes);
    }
    let rows = images.iter().map(|image| ImageRows {
        row: image.row,
        features: cache.features(&image.pixels.hash),
    });
    Ok(rows.collect())
}
