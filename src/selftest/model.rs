//! Runs a whole tiny model: the built-in demo model, with an image.

use std::sync::Arc;

use super::Sizes;
use crate::backend::{BLOCK_SIZE, Backend, StepInput, StepSequence};
use crate::core::{BlockCount, BlockId, BlockTable, ImageHash, PixelValues, TokenId};
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::{ImageRows, Model, StepOf};
use crate::registry::ModelFiles;

/// Number of text tokens before and after the image.
const NUM_WORDS: usize = 40;
/// Number of decode steps after the prompt.
const NUM_DECODES: usize = 4;

fn config() -> Result<ModelConfig> {
    let files = ModelFiles::Demo;
    ModelConfig::from_json(&files.path("config.json"), &files.require("config.json")?)
}

/// Dimensions of the model's attention.
pub(super) fn sizes() -> Result<Sizes> {
    let text = config()?.text;
    Ok(Sizes {
        num_heads: text.num_attention_heads,
        num_kv_heads: text.num_key_value_heads,
        head_dim: text.head_dim,
        window: text.sliding_window,
    })
}

/// Returns the logits after a prompt with an image, and after each of some further tokens.
pub(super) fn logits<B: Backend>(backend: B) -> Result<Vec<(String, Vec<f32>)>> {
    let config = config()?;
    let model = Model::load(backend, &config, &ModelFiles::Demo.weights()?)?;
    let vision = config.vision.as_ref().expect("the demo takes images");
    let image_len = vision.mm_tokens_per_image;
    let prompt_len = 2 * NUM_WORDS + image_len;
    let total_len = prompt_len + NUM_DECODES;

    let num_blocks = total_len.div_ceil(BLOCK_SIZE);
    let mut cache = model.kv_cache(BlockCount::new(&[num_blocks; 2]))?;
    let mut random = fastrand::Rng::with_seed(3);
    let size = vision.image_size;
    let rgb: Vec<u8> = (0..size * size * 3).map(|_| random.u8(..)).collect();
    let image = PixelValues {
        size,
        rgb: Arc::from(rgb),
        hash: ImageHash([1; 32]),
    };
    let num_words = u32::try_from(config.text.vocab_size / 2).expect("a vocabulary fits in u32");

    let mut all = Vec::new();
    for (start, len) in [(0, prompt_len)]
        .into_iter()
        .chain((prompt_len..total_len).map(|position| (position, 1)))
    {
        let has_image = start == 0;
        // In descending order, so that block ids differ from block indices.
        let table = BlockTable::new(
            BLOCK_SIZE,
            0,
            (0..(start + len).div_ceil(BLOCK_SIZE))
                .map(|idx| BlockId(u32::try_from(num_blocks - 1 - idx).expect("a tiny context")))
                .collect(),
        );
        let span = NUM_WORDS..NUM_WORDS + image_len;
        let input = StepInput {
            token_ids: (0..len)
                .map(|_| TokenId(random.u32(10..num_words)))
                .collect(),
            positions: (start..start + len)
                .map(|position| u32::try_from(position).expect("a tiny context"))
                .collect(),
            sequences: vec![StepSequence {
                row: 0,
                start,
                len,
                tables: vec![table; 2],
                image_spans: if has_image { vec![span] } else { Vec::new() },
            }],
            sampled_inputs: Vec::new(),
            logit_rows: vec![u32::try_from(len - 1).expect("a tiny context")],
        };
        let images = if has_image {
            let features = model.encode_images(std::slice::from_ref(&image))?;
            (features.into_iter())
                .map(|features| ImageRows {
                    row: NUM_WORDS,
                    features,
                })
                .collect()
        } else {
            Vec::new()
        };
        let step = StepOf {
            input: &input,
            previous: None,
            images: &images,
        };
        let logits = model
            .forward(step, &mut cache)?
            .expect("a row asks for logits");
        let name = format!("demo model, logits after token {}", start + len);
        all.push((name, model.backend().read(&logits)?.1));
    }
    Ok(all)
}
