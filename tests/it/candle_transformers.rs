//! Our model beside candle-transformers' Gemma 3 and SigLIP, which others wrote in Rust.
//!
//! Its Gemma 3 reads no RoPE factor and lets a sliding layer see one key more than transformers
//! does, so it is compared on a checkpoint without a factor, within the window. The goldens of
//! transformers cover the rest.

use std::fs;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma3, siglip};
use medgemma::backend::cpu::CpuBackend;
use medgemma::backend::{BackendTypes, StepInput};
use medgemma::core::{BlockCount, TokenId};
use medgemma::model::config::ModelConfig;
use medgemma::model::weights::Weights;
use medgemma::model::{Model, StepOf, VisionEncoder};

use crate::golden::{self, assert_close};
use crate::model::{image, whole_prompt};

// f32 against f32: the order of sums differs.
const TOLERANCE: f32 = 5e-4;

fn config(model: &str) -> ModelConfig {
    let file = golden::path(&format!("models/{model}/config.json"));
    let text = fs::read(&file).expect("goldens are there");
    ModelConfig::from_json(&file, &text).expect("a config that transformers wrote")
}

fn weights(model: &str) -> Weights {
    Weights::open(&golden::path(&format!("models/{model}"))).expect("weights are there")
}

/// The same weights for candle-transformers, in f32.
fn variables(model: &str) -> VarBuilder<'static> {
    let file = golden::path(&format!("models/{model}/model.safetensors"));
    let bytes = fs::read(file).expect("goldens are there");
    VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).expect("safetensors")
}

/// Returns the logits of every position, `(tokens, vocab)`, by our model.
fn our_logits(model: &str, ids: &[TokenId]) -> Vec<f32> {
    let config = config(model);
    let model = Model::load(CpuBackend, &config, &weights(model)).expect("the model loads");
    let mut cache = model
        .kv_cache(BlockCount::new(&[4; 2]))
        .expect("a small cache");
    let input: StepInput = whole_prompt(ids, None, 0);
    let step = StepOf {
        input: &input,
        previous: None,
        images: &[],
    };
    let logits = model.forward(step, &mut cache).expect("a step runs");
    let logits = logits.expect("rows were asked for");
    CpuBackend.read(&logits).expect("readable").1
}

#[test]
fn gemma_answers_as_candle_transformers_does() {
    let file = golden::path("models/text1b/config.json");
    let fields = fs::read(file).expect("goldens are there");
    let config: gemma3::Config = serde_json::from_slice(&fields).expect("its own fields");
    let window = config.sliding_window;
    let ids: Vec<TokenId> = (0..window as u32)
        .map(|n| TokenId(2 + 47 * n % 760))
        .collect();
    let ours = our_logits("text1b", &ids);
    let vocab = config.vocab_size;
    assert_eq!(ours.len(), window * vocab);

    let mut theirs = gemma3::Model::new(false, &config, variables("text1b")).expect("it loads");
    // A prompt of several tokens first, then one token at a time from its cache.
    let prompt_len = window / 2;
    let steps = [(0, prompt_len)].into_iter();
    for (start, len) in steps.chain((prompt_len..window).map(|position| (position, 1))) {
        let step: Vec<u32> = ids[start..start + len].iter().map(|id| id.0).collect();
        let step = Tensor::new(step, &Device::Cpu).and_then(|step| step.unsqueeze(0));
        let logits = theirs.forward(&step.expect("a row of ids"), start);
        let logits = logits.and_then(|logits| logits.flatten_all()?.to_vec1::<f32>());
        let position = start + len - 1;
        assert_close(
            &format!("logits at {position}"),
            &ours[position * vocab..(position + 1) * vocab],
            &logits.expect("it runs"),
            TOLERANCE,
        );
    }
}

#[test]
fn siglip_sees_as_candle_transformers_does() {
    let vision = config("multimodal").vision.expect("a vision encoder");
    let encoder =
        VisionEncoder::load(&CpuBackend, &vision, &weights("multimodal")).expect("it loads");
    let image = image("scan_a.png", vision.image_size);
    let patches = encoder.forward(&CpuBackend, std::slice::from_ref(&image));
    let (shape, ours) = CpuBackend
        .read(&patches.expect("it runs"))
        .expect("readable");
    assert_eq!(shape, [vision.grid() * vision.grid(), vision.hidden_size]);

    let config = siglip::VisionConfig {
        hidden_size: vision.hidden_size,
        intermediate_size: vision.intermediate_size,
        num_hidden_layers: vision.num_hidden_layers,
        num_attention_heads: vision.num_attention_heads,
        num_channels: 3,
        image_size: vision.image_size,
        patch_size: vision.patch_size,
        hidden_act: candle_nn::Activation::GeluPytorchTanh,
        layer_norm_eps: vision.layer_norm_eps,
    };
    let variables = variables("multimodal").pp("vision_tower.vision_model");
    let theirs = siglip::VisionModel::new(&config, false, variables).expect("it loads");
    let side = vision.image_size;
    let pixels: Vec<f32> = image
        .rgb
        .iter()
        .map(|byte| (f32::from(*byte) - 127.5) / 127.5)
        .collect();
    let pixels = Tensor::from_vec(pixels, (1, side, side, 3), &Device::Cpu)
        .and_then(|pixels| pixels.permute((0, 3, 1, 2))?.contiguous());
    let patches = theirs.forward(&pixels.expect("an image"));
    let patches = patches.and_then(|patches| patches.flatten_all()?.to_vec1::<f32>());
    assert_close("patches", &ours, &patches.expect("it runs"), TOLERANCE);
}
