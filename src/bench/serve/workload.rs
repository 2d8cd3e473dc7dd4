//! What is asked: words at random, and images that no cache has seen.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage, imageops};
use serde_json::{Value, json};

use crate::config::{Endpoint, ServePlan};

/// Short words of the field, most of them one token to most models.
const WORDS: &[&str] = &[
    "chest", "lung", "heart", "left", "right", "upper", "lower", "zone", "clear", "mild", "acute",
    "view", "film", "rib", "node", "mass", "bone", "air", "fluid", "line", "tube", "base", "apex",
    "focal", "large", "small", "new", "old", "stable", "normal",
];

/// Side of an image in pixels: what the models see, so that nothing is hidden in resizing.
const IMAGE_SIZE: u32 = 896;

/// Bodies one after another, each different.
pub(super) struct Workload {
    plan: ServePlan,
    num_words: usize,
    random: fastrand::Rng,
}

impl Workload {
    pub(super) fn new(plan: &ServePlan, tokens_per_word: f64) -> Self {
        Self {
            plan: plan.clone(),
            num_words: ((plan.input_len as f64 / tokens_per_word) as usize).max(1),
            random: fastrand::Rng::with_seed(plan.seed),
        }
    }

    pub(super) fn next_body(&mut self) -> Value {
        let text = words(&mut self.random, self.num_words);
        let images = (0..self.plan.num_images)
            .map(|_| image(&mut self.random))
            .collect();
        body(self.plan.endpoint, text, images, self.plan.output_len)
    }
}

/// A request of so many words and one token of answer.
pub(super) fn probe(plan: &ServePlan, num_words: usize) -> Value {
    let mut random = fastrand::Rng::with_seed(num_words as u64);
    let text = words(&mut random, num_words);
    body(plan.endpoint, text, Vec::new(), 1)
}

fn words(random: &mut fastrand::Rng, num_words: usize) -> String {
    let words: Vec<&str> = (0..num_words)
        .map(|_| WORDS[random.usize(..WORDS.len())])
        .collect();
    words.join(" ")
}

fn body(endpoint: Endpoint, text: String, images: Vec<String>, max_tokens: usize) -> Value {
    let mut body = json!({
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": true,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    match endpoint {
        Endpoint::Completions => body["prompt"] = json!(text),
        Endpoint::Chat => {
            let mut parts = vec![json!({"type": "text", "text": text})];
            parts.extend(
                (images.into_iter())
                    .map(|url| json!({"type": "image_url", "image_url": {"url": url}})),
            );
            body["messages"] = json!([{"role": "user", "content": parts}]);
        }
    }
    body
}

/// A data URI of coarse noise, which is small as PNG and unlike every other.
fn image(random: &mut fastrand::Rng) -> String {
    const GRAINS: u32 = 32;
    let grains = RgbImage::from_fn(GRAINS, GRAINS, |_, _| {
        image::Rgb([random.u8(..), random.u8(..), random.u8(..)])
    });
    let image = imageops::resize(
        &grains,
        IMAGE_SIZE,
        IMAGE_SIZE,
        imageops::FilterType::Nearest,
    );
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .expect("memory takes what is written");
    format!("data:image/png;base64,{}", STANDARD.encode(png.get_ref()))
}
