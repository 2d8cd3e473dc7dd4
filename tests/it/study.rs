//! A question on a study of 85 images, and the one that follows it.

use std::sync::Arc;

use medgemma::backend::BLOCK_SIZE;
use medgemma::core::{
    GenerateRequest, ImageHash, ImageSpan, PixelValues, PrefixCaching, SchedulingParams, TokenId,
};
use medgemma::model::config::ModelConfig;
use medgemma::scheduler::SchedulerConfig;

use crate::generation::{Rig, greedy, load, roomy};

/// Slices of a CT as the reference example shows them.
const NUM_IMAGES: usize = 85;
const ANSWER: usize = 40;

fn limits(config: &ModelConfig) -> SchedulerConfig {
    SchedulerConfig {
        max_num_batched_tokens: 512,
        max_model_len: 4096,
        ..roomy(config)
    }
}

/// Words, and one after each image.
fn words(count: usize) -> impl Iterator<Item = TokenId> {
    (0..count).map(|idx| TokenId((idx * 37 % 500 + 20) as u32))
}

/// Images of noise, no two alike, nor like those of another patient.
fn study(config: &ModelConfig, patient: u8) -> GenerateRequest {
    let vision = config.vision.as_ref().expect("it has images");
    let soft = TokenId(config.image_token_id.expect("it has images"));
    let mut prompt: Vec<TokenId> = words(10).collect();
    let mut images = Vec::new();
    let mut noise = u32::from(patient);
    for idx in 0..NUM_IMAGES {
        let rgb: Arc<[u8]> = (0..3 * vision.image_size * vision.image_size)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        let mut hash = [patient; 32];
        hash[0] = idx as u8;
        images.push(ImageSpan {
            start: prompt.len(),
            len: vision.mm_tokens_per_image,
            pixels: PixelValues {
                size: vision.image_size,
                hash: ImageHash(hash),
                rgb,
            },
        });
        prompt.extend(vec![soft; vision.mm_tokens_per_image]);
        prompt.extend(words(1));
    }
    prompt.extend(words(60));
    GenerateRequest {
        prompt,
        images,
        sampling: greedy(ANSWER),
        constraint: None,
        prompt_logprobs: None,
        scheduling: SchedulingParams::default(),
    }
}

#[test]
fn a_follow_up_on_85_images_computes_what_is_new_and_encodes_none() {
    let (config, model) = load("multimodal");
    let mut rig = Rig::new(model, limits(&config)).ahead();
    let first = study(&config, 1);
    let answer = rig.run_alone(first.clone());
    assert_eq!(rig.num_encoded(), NUM_IMAGES as u64);
    let (first_len, computed) = (first.prompt.len(), rig.num_computed);
    assert_eq!(computed, first_len + ANSWER - 1);

    // The last token was sampled and not computed; blocks that are full can be found.
    let found = computed / BLOCK_SIZE * BLOCK_SIZE;
    let new_words = 25;
    let follow_up = GenerateRequest {
        prompt: (first.prompt.iter().copied())
            .chain(answer.iter().map(|event| event.token))
            .chain(words(new_words))
            .collect(),
        sampling: greedy(4),
        ..first
    };
    let warm = rig.run_alone(follow_up.clone());
    assert_eq!(rig.num_encoded(), NUM_IMAGES as u64, "none again");
    let computed = rig.num_computed - computed;
    assert_eq!(computed, follow_up.prompt.len() - found + 4 - 1);
    assert!(computed < new_words + BLOCK_SIZE + 4);

    let (_, model) = load("multimodal");
    let uncached = SchedulerConfig {
        prefix_caching: PrefixCaching::Off,
        ..limits(&config)
    };
    let mut cold = Rig::new(model, uncached);
    assert_eq!(warm, cold.run_alone(follow_up));
    assert_eq!(cold.num_encoded(), NUM_IMAGES as u64);

    // The same words about somebody else's images.
    let other = study(&config, 2);
    let told = rig.run_alone(other.clone());
    assert_eq!(rig.num_encoded(), 2 * NUM_IMAGES as u64);
    assert_ne!(told, answer);
    assert_eq!(told, cold.run_alone(other));
}
