//! The model, stage by stage, against transformers.

use std::fs;

use medgemma::backend::candle::CandleBackend;
use medgemma::backend::cpu::CpuBackend;
use medgemma::backend::{Backend, StepInput, StepSequence};
use medgemma::core::{BlockCount, BlockId, BlockTable, ImageFit, PixelValues, TokenId};
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor};
use medgemma::model::config::ModelConfig;
use medgemma::model::weights::Weights;
use medgemma::model::{ImageRows, Model, Projector, Stage, StepOf, VisionEncoder};

use crate::golden::{self, Numbers, assert_close};

// f32 against f32: what differs is the order of sums. See generate.py for how far float64 moves
// the same numbers.
const LOGITS: f32 = 1e-4;
const HIDDEN: f32 = 5e-4;

fn config_of(model: &str) -> ModelConfig {
    let file = golden::path(&format!("models/{model}/config.json"));
    ModelConfig::from_json(&file, &fs::read(&file).expect("goldens are there"))
        .expect("a config that transformers wrote")
}

fn weights_of(model: &str) -> Weights {
    Weights::open(&golden::path(&format!("models/{model}"))).expect("weights are there")
}

pub(crate) fn image(name: &str, size: usize) -> PixelValues {
    let file = fs::read(golden::path(&format!("images/{name}"))).expect("goldens are there");
    let processor = ImageProcessor {
        size,
        resize: ImageFit::Squash,
        limits: ImageLimits::default(),
    };
    processor
        .process(&file, Cancellation::NEVER)
        .expect("an image that can be read")
}

/// One step over the whole prompt, with logits of every token. Blocks are handed out backwards and
/// apart, so that a backend which ignores the tables fails.
pub(crate) fn whole_prompt(
    ids: &[TokenId],
    image_token: Option<u32>,
    tokens_per_image: usize,
) -> StepInput {
    let len = ids.len();
    let num_blocks = len.div_ceil(medgemma::backend::BLOCK_SIZE) as u32;
    let blocks = (0..num_blocks).rev().map(|idx| BlockId(2 * idx));
    let table = BlockTable::new(medgemma::backend::BLOCK_SIZE, 0, blocks.collect());
    let starts = (0..len).filter(|&idx| {
        let is_soft = |idx: usize| Some(ids[idx].0) == image_token;
        is_soft(idx) && (idx == 0 || !is_soft(idx - 1))
    });
    StepInput {
        token_ids: ids.to_vec(),
        sampled_inputs: Vec::new(),
        positions: (0..len as u32).collect(),
        sequences: vec![StepSequence {
            row: 0,
            start: 0,
            len,
            tables: vec![table; 2],
            image_spans: starts
                .map(|start| start..start + tokens_per_image)
                .collect(),
        }],
        logit_rows: (0..len as u32).collect(),
    }
}

fn rows(values: &[f32], width: usize, rows: impl IntoIterator<Item = usize>) -> Vec<f32> {
    rows.into_iter()
        .flat_map(|row| values[row * width..(row + 1) * width].iter().copied())
        .collect()
}

fn check_every_stage<B: Backend>(backend: B, name: &str) {
    let config = config_of(name);
    let numbers = Numbers::of(name);
    let model = Model::load(backend, &config, &weights_of(name)).expect("the model loads");
    assert!(numbers.cases.len() >= 2);
    for (case_name, case) in &numbers.cases {
        let tokens_per_image = config.vision.as_ref().map_or(0, |v| v.mm_tokens_per_image);
        let input = whole_prompt(&case.ids, config.image_token_id, tokens_per_image);
        let spans = &input.sequences[0].image_spans;
        assert_eq!(spans.len(), case.images.len(), "{case_name}");
        let images = case
            .images
            .iter()
            .zip(spans)
            .map(|(image_name, span)| {
                let size = config.vision.as_ref().expect("it has images").image_size;
                let features = model
                    .encode_images(&[image(image_name, size)])
                    .expect("the vision encoder runs")
                    .remove(0);
                ImageRows {
                    row: span.start,
                    features,
                }
            })
            .collect::<Vec<_>>();

        let num_blocks = 2 * case.ids.len().div_ceil(medgemma::backend::BLOCK_SIZE);
        let mut cache = model
            .kv_cache(BlockCount::new(&[num_blocks; 2]))
            .expect("a small cache");
        let mut num_stages = 0;
        let logits = model
            .forward_observed(
                StepOf {
                    input: &input,
                    previous: None,
                    images: &images,
                },
                &mut cache,
                &mut |stage, hidden| {
                    let label = match stage {
                        Stage::Embedded => format!("{case_name}.embedding"),
                        Stage::Layer(index) => format!("{case_name}.layer.{index}"),
                        Stage::Final => format!("{case_name}.norm"),
                    };
                    let (shape, values) = model.backend().read(hidden)?;
                    let (_, reference) = numbers.tensor(&label);
                    let kept = rows(&values, shape[1], case.positions.iter().copied());
                    assert_close(&label, &kept, &reference, HIDDEN);
                    num_stages += 1;
                    Ok(())
                },
            )
            .expect("a step runs")
            .expect("rows were asked for");
        assert_eq!(num_stages, config.text.num_hidden_layers + 2);

        let (shape, values) = model.backend().read(&logits).expect("readable");
        let (_, reference) = numbers.tensor(&format!("{case_name}.logits"));
        let last = case.ids.len() - 3..case.ids.len();
        let label = format!("{case_name}.logits");
        assert_close(&label, &rows(&values, shape[1], last), &reference, LOGITS);
    }
}

fn check_vision_encoder<B: Backend>(backend: &B) {
    let config = config_of("multimodal");
    let vision = config.vision.as_ref().expect("a vision encoder");
    let weights = weights_of("multimodal");
    let numbers = Numbers::of("multimodal");
    let encoder = VisionEncoder::load(backend, vision, &weights).expect("the vision encoder loads");
    let projector = Projector::load(backend, vision, config.text.hidden_size, &weights)
        .expect("the projector loads");

    let images = ["scan_a.png", "scan_b.png"].map(|name| image(name, vision.image_size));
    assert_eq!(*images[0].rgb, *numbers.bytes("vision.scan_a.pixels").1);
    let num_patches = vision.grid() * vision.grid();
    // Two images in one call, so that one that sees its neighbour fails.
    let mut stages = Vec::new();
    let patches = encoder
        .forward_observed(backend, &images, &mut |x| {
            stages.push(backend.read(x)?);
            Ok(())
        })
        .expect("the vision encoder runs");
    let projected = projector.forward(backend, &patches).expect("it runs");

    let first =
        |(shape, values): &(Vec<usize>, Vec<f32>), len: usize| values[..len * shape[1]].to_vec();
    let check = |name: &str, ours: &[f32]| {
        let label = format!("vision.{name}");
        assert_close(&label, ours, &numbers.tensor(&label).1, HIDDEN);
    };
    check("scan_a.embedding", &first(&stages[0], num_patches));
    for (index, stage) in stages[1..].iter().enumerate() {
        check(&format!("scan_a.layer.{index}"), &first(stage, num_patches));
    }
    assert_eq!(stages.len(), vision.num_hidden_layers + 1);
    let patches = backend.read(&patches).expect("readable");
    check("scan_a.post_layernorm", &first(&patches, num_patches));
    let (shape, values) = backend.read(&projected).expect("readable");
    let (of_a, of_b) = values.split_at(vision.mm_tokens_per_image * shape[1]);
    check("scan_a.projector", of_a);
    check("scan_b.projector", of_b);
}

#[test]
fn cpu_multimodal() {
    check_every_stage(CpuBackend, "multimodal");
}

#[test]
fn cpu_text_only() {
    check_every_stage(CpuBackend, "text27b");
    check_every_stage(CpuBackend, "text1b");
}

#[test]
fn cpu_vision_encoder() {
    check_vision_encoder(&CpuBackend);
}

#[test]
fn candle_multimodal() {
    check_every_stage(CandleBackend::cpu(), "multimodal");
}

#[test]
fn candle_text_only() {
    check_every_stage(CandleBackend::cpu(), "text27b");
    check_every_stage(CandleBackend::cpu(), "text1b");
}

#[test]
fn candle_vision_encoder() {
    check_vision_encoder(&CandleBackend::cpu());
}
