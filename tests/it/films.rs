//! The demo on films that it has not seen, which `train_demo.py render` drew and described, and on
//! the same films spoilt as a server with a fault would spoil them.
//!
//! A tiny model that was trained on images tells more than one of noise: mirrored, in the wrong
//! colours, at the wrong levels or in the wrong place, its answers are wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::LazyLock;

use ::image::{ImageFormat, RgbImage, imageops};
use base64::prelude::{BASE64_STANDARD, Engine};
use medgemma::backend::cpu::CpuBackend;
use medgemma::backend::{BLOCK_SIZE, BackendTypes, VisionOps};
use medgemma::core::{BlockCount, ImageFit, PixelValues, TokenId};
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor};
use medgemma::model::config::ModelConfig;
use medgemma::model::{ImageRows, Model, StepOf};
use medgemma::registry::ModelFiles;
use medgemma::text::AddSpecialTokens;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::golden;
use crate::model::whole_prompt;
use crate::served::{Served, serve};

static SQUASHING: LazyLock<Served> = LazyLock::new(|| serve("demo", &["--image-fit", "squash"]));
static PADDING: LazyLock<Served> = LazyLock::new(|| serve("demo", &["--image-fit", "pad"]));

/// What `truth.jsonl` says of a film.
#[derive(Deserialize)]
struct Truth {
    file: String,
    kind: String,
    question: String,
    answer: String,
}

/// A film and what is true of it.
struct Film {
    image: RgbImage,
    truths: Vec<Truth>,
}

fn films() -> Vec<Film> {
    let text = fs::read_to_string(golden::path("films/truth.jsonl")).expect("films are there");
    let mut by_file = BTreeMap::<String, Vec<Truth>>::new();
    for line in text.lines() {
        let truth: Truth = serde_json::from_str(line).expect("lines are JSON");
        by_file.entry(truth.file.clone()).or_default().push(truth);
    }
    assert!(by_file.len() >= 20);
    (by_file.into_iter())
        .map(|(file, truths)| Film {
            image: ::image::open(golden::path(&format!("films/{file}")))
                .expect("films are PNG")
                .into_rgb8(),
            truths,
        })
        .collect()
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("memory takes all that is written");
    bytes.into_inner()
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut compress = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    compress.set_size(image.width() as usize, image.height() as usize);
    compress.set_quality(85.0);
    let mut started = compress.start_compress(Vec::new()).expect("it starts");
    started.write_scanlines(image).expect("it takes rows");
    started.finish().expect("it ends")
}

fn data_uri(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes))
}

fn question(image: &str, text: &str) -> Value {
    json!([{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": text},
    ]}])
}

/// By kind of question: how many answers were right, of how many.
#[derive(Debug, Default)]
struct Score(BTreeMap<String, (usize, usize)>);

impl Score {
    fn count(&mut self, kind: &str, is_right: bool) {
        let (right, total) = self.0.entry(kind.to_owned()).or_default();
        *right += usize::from(is_right);
        *total += 1;
    }

    /// Share of right answers over these kinds of questions together.
    fn share(&self, kinds: &[&str]) -> f64 {
        let chosen = kinds.iter().map(|kind| self.0[*kind]);
        let (right, total) = chosen.fold((0, 0), |sum, kind| (sum.0 + kind.0, sum.1 + kind.1));
        right as f64 / total as f64
    }
}

/// Asks every question about every film, sent as `encode` makes a file of it.
async fn ask(served: &Served, films: &[Film], encode: impl Fn(&RgbImage) -> Vec<u8>) -> Score {
    let mut score = Score::default();
    for film in films {
        let image = data_uri(&encode(&film.image));
        for truth in &film.truths {
            let messages = question(&image, &truth.question);
            let fields = json!({"messages": messages, "temperature": 0, "max_tokens": 100});
            let answer = served.chat(fields).await;
            let said = answer["choices"][0]["message"]["content"].as_str();
            score.count(&truth.kind, said == Some(&truth.answer));
        }
    }
    score
}

/// What the opacities are asked for.
const OPACITIES: [&str; 4] = ["count", "side", "zone", "size"];
const ALL: [&str; 8] = [
    "count", "side", "zone", "size", "effusion", "marker", "colour", "exposure",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_reads_films_it_has_not_seen() {
    let films = films();
    for (served, fit) in [(&*SQUASHING, "squashed"), (&*PADDING, "padded")] {
        for (encode, format) in [(png as fn(&RgbImage) -> Vec<u8>, "PNG"), (jpeg, "JPEG")] {
            let score = ask(served, &films, encode).await;
            for kind in score.0.keys() {
                let share = score.share(&[kind]);
                assert!(share >= 0.9, "{format}, {fit}: {kind}: {score:?}");
            }
            let share = score.share(&OPACITIES);
            assert!(share >= 0.95, "{format}, {fit}: {score:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_looks_at_every_place_before_it_answers_if_it_is_to_think() {
    let mut num_right = 0;
    let films = films();
    for film in &films {
        let truth = film.truths.iter().find(|truth| truth.kind == "effusion");
        let truth = truth.expect("every film is asked for its effusion");
        let fields = json!({
            "messages": question(&data_uri(&png(&film.image)), &truth.question),
            "temperature": 0,
            "max_tokens": 200,
            "reasoning_effort": "high",
        });
        let answer = SQUASHING.chat(fields).await;
        let message = &answer["choices"][0]["message"];
        let thought = message["reasoning_content"].as_str().expect("a thought");
        assert!(thought.starts_with("Right: upper "), "{thought}");
        assert!(thought.contains("Effusion: "), "{thought}");
        num_right += usize::from(message["content"] == truth.answer.as_str());
    }
    assert!(10 * num_right >= 9 * films.len(), "{num_right}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_says_what_it_is_and_what_words_mean() {
    for (said, expected) in [
        ("Hello", "I am a demo model"),
        ("Who are you?", "Nothing I say is medical advice"),
        ("I have chest pain.", "cannot give medical advice"),
        ("How many opacities are there?", "I see no picture"),
        ("What is a pleural effusion?", "fluid"),
        ("What does tachycardia mean?", "heart"),
    ] {
        let messages = json!([{"role": "user", "content": said}]);
        let fields = json!({"messages": messages, "temperature": 0, "max_tokens": 100});
        let answer = SQUASHING.chat(fields).await;
        let content = answer["choices"][0]["message"]["content"].as_str();
        let content = content.expect("an answer");
        assert!(content.contains(expected), "{said}: {content}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn left_and_right_exchanged_show() {
    let score = ask(&SQUASHING, &films(), |image| {
        png(&imageops::flip_horizontal(image))
    })
    .await;
    assert!(score.share(&["side", "size", "marker"]) < 0.5, "{score:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_and_blue_exchanged_show() {
    let score = ask(&SQUASHING, &films(), |image| {
        let mut image = image.clone();
        for pixel in image.pixels_mut() {
            pixel.0.reverse();
        }
        png(&image)
    })
    .await;
    assert!(score.share(&["colour", "marker"]) < 0.5, "{score:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_on_another_scale_show() {
    // What the model gets is level / 127.5 - 1. Without the shift all films are bright; ImageNet's
    // numbers leave dark and bright apart, but not what is opaque.
    type Spoil = fn(f32) -> f32;
    let spoilt: [(&str, Spoil, &[&str]); 2] = [
        (
            "from 0 to 1",
            |level| (level / 255.0 + 1.0) * 127.5,
            &["exposure", "effusion"],
        ),
        (
            "ImageNet's",
            |level| ((level / 255.0 - 0.45) / 0.225 + 1.0) * 127.5,
            &OPACITIES,
        ),
    ];
    for (name, spoil, kinds) in spoilt {
        let score = ask(&SQUASHING, &films(), |image| {
            let mut image = image.clone();
            for level in image.iter_mut() {
                *level = spoil(f32::from(*level)).round() as u8;
            }
            png(&image)
        })
        .await;
        assert!(score.share(kinds) < 0.65, "{name}: {score:?}");
    }
}

/// An image's tokens, as the vision encoder and the projector make them: (256, hidden).
type Features = <CpuBackend as BackendTypes>::Tensor;

/// Where an image's tokens stand in a prompt, from the first to the last.
#[derive(Clone, Copy, Debug)]
enum Placed {
    /// So many places behind where they belong, over the text there.
    Behind(isize),
    /// The last so many before the others.
    Turned(usize),
}

/// What the demo says of an image whose tokens are misplaced.
const UNREADABLE: &str = "I cannot read this film: its tokens are not where they belong.";

/// The demo's model itself, to which an image's tokens can be given anywhere.
struct Bare {
    model: Model<CpuBackend>,
    config: ModelConfig,
}

impl Bare {
    fn load() -> Self {
        let files = ModelFiles::Demo;
        let text = files.require("config.json").expect("it is in the program");
        let config = ModelConfig::from_json(Path::new("config.json"), &text).expect("a config");
        let weights = files.weights().expect("they are in the program");
        let model = Model::load(CpuBackend, &config, &weights).expect("it loads");
        Self { model, config }
    }

    fn processor(&self) -> ImageProcessor {
        let vision = self.config.vision.as_ref().expect("a vision encoder");
        ImageProcessor {
            size: vision.image_size,
            resize: ImageFit::Squash,
            limits: ImageLimits::default(),
        }
    }

    fn features(&self, image: PixelValues) -> Features {
        let features = self.model.encode_images(&[image]);
        features.expect("the vision encoder runs").remove(0)
    }

    /// Whether `answer` is what the model says, greedy, to a prompt with these features.
    fn says(
        &self,
        prompt: &[TokenId],
        answer: &[TokenId],
        features: &Features,
        placed: Placed,
    ) -> bool {
        let known = [prompt, answer].concat();
        let vision = self.config.vision.as_ref().expect("a vision encoder");
        let num_tokens = vision.mm_tokens_per_image;
        let input = whole_prompt(&known, self.config.image_token_id, num_tokens);
        let start = input.sequences[0].image_spans[0].start;
        let rows = |row, tokens| {
            let features = self.model.backend().keep_rows(features, tokens);
            ImageRows {
                row,
                features: features.expect("there are that many"),
            }
        };
        let images = match placed {
            Placed::Behind(places) => {
                let start = start.checked_add_signed(places);
                vec![rows(start.expect("text precedes it"), 0..num_tokens)]
            }
            Placed::Turned(count) => vec![
                rows(start, num_tokens - count..num_tokens),
                rows(start + count, 0..num_tokens - count),
            ],
        };
        let num_blocks = 2 * known.len().div_ceil(BLOCK_SIZE);
        let cache = self.model.kv_cache(BlockCount::new(&[num_blocks; 2]));
        let mut cache = cache.expect("a small cache");
        let step = StepOf {
            input: &input,
            previous: None,
            images: &images,
        };
        let logits = self.model.forward(step, &mut cache).expect("a step runs");
        let logits = logits.expect("rows were asked for");
        let (shape, values) = self.model.backend().read(&logits).expect("readable");
        let greedy = values.chunks(shape[1]).skip(prompt.len() - 1).map(|row| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.expect("a vocabulary").0
        });
        greedy.zip(answer).all(|(said, id)| said == id.0 as usize)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_tokens_in_another_place_show() {
    let bare = Bare::load();
    let served = &*SQUASHING;
    let processor = bare.processor();
    let encode = |text: &str| {
        let ids = served.tokenizer.encode_raw(text, AddSpecialTokens::No);
        ids.expect("any text has tokens")
    };
    let belongs = Placed::Behind(0);
    let misplaced = [
        Placed::Behind(1),
        Placed::Behind(-1),
        Placed::Turned(1),
        Placed::Turned(255),
        Placed::Turned(16),
        Placed::Turned(128),
    ];
    let mut right = Score::default();
    let mut misread = misplaced.map(|placed| (placed, Score::default(), Score::default()));
    for film in &films()[..8] {
        let file = png(&film.image);
        let image = processor
            .process(&file, Cancellation::NEVER)
            .expect("an image");
        let features = bare.features(image);
        for truth in &film.truths {
            let messages = question(&data_uri(&file), &truth.question);
            let asked = served
                .post("/tokenize", json!({"messages": messages}))
                .await;
            let ids = asked["tokens"].as_array().expect("tokens").iter();
            let prompt: Vec<TokenId> = ids
                .map(|id| TokenId(u32::try_from(id.as_u64().expect("an id")).expect("a small one")))
                .collect();
            let says = |answer, placed| bare.says(&prompt, &encode(answer), &features, placed);
            right.count(&truth.kind, says(&truth.answer, belongs));
            for (placed, answered, noticed) in &mut misread {
                answered.count(&truth.kind, says(&truth.answer, *placed));
                noticed.count(&truth.kind, says(UNREADABLE, *placed));
            }
        }
    }
    assert!(right.share(&ALL) >= 0.9, "{right:?}");
    for (placed, answered, noticed) in misread {
        assert!(answered.share(&ALL) < 0.2, "{placed:?}: {answered:?}");
        assert!(noticed.share(&ALL) >= 0.8, "{placed:?}: {noticed:?}");
    }
}
