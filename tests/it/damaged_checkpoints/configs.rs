//! Damage to config.json, generation_config.json and the processor's two files.

use serde_json::{Value, json};

use super::Damage;
use super::folder::Folder;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TENSORS: &str = "model.safetensors";

fn pick<T: Clone>(rng: &mut fastrand::Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

/// What is no count of anything.
fn no_count() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1),
        json!(-(1i64 << 60)),
        json!(1u64 << 60),
        json!(1u64 << 63),
        json!(3_000_000_000u32),
        json!(1.5),
        json!(1e300),
        json!("48"),
        json!(true),
        json!(null),
        json!([]),
        json!([48, 48]),
        json!({}),
    ]
}

/// What is no number that anything could be multiplied with.
fn no_number() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1.0),
        json!(1e300),
        json!(1e-300),
        json!("1"),
        json!(true),
        json!(null),
        json!([1.0]),
        json!({}),
    ]
}

/// Where the language model's fields are.
fn text(folder: &Folder) -> &'static str {
    match folder.json(CONFIG).get("text_config") {
        Some(_) => "/text_config",
        None => "",
    }
}

fn set(folder: &mut Folder, file: &str, pointer: &str, value: Value) -> Damage {
    let what = format!("{pointer} is {value:.40}");
    folder.set_field(file, pointer, value);
    let field = pointer.rsplit('/').next().unwrap().to_owned();
    Damage::new(what, file, [field])
}

/// A number of config.json that is none, or absurd.
pub(super) fn numbers(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    const COUNTS: [&str; 10] = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "sliding_window",
        "sliding_window_pattern",
        "max_position_embeddings",
    ];
    const NUMBERS: [&str; 4] = [
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "rope_theta",
        "rope_local_base_freq",
    ];
    const VISION: [&str; 6] = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
    ];
    let text = text(folder);
    match rng.u8(..4) {
        0 | 1 => {
            let pointer = format!("{text}/{}", pick(rng, &COUNTS));
            set(folder, CONFIG, &pointer, pick(rng, &no_count()))
        }
        2 => {
            let pointer = format!("{text}/{}", pick(rng, &NUMBERS));
            set(folder, CONFIG, &pointer, pick(rng, &no_number()))
        }
        _ => {
            let mut multimodal = Folder::golden("multimodal");
            std::mem::swap(folder, &mut multimodal);
            let pointer = format!("/vision_config/{}", pick(rng, &VISION));
            let value = loop {
                // A null side is an absent one.
                let value = pick(rng, &no_count());
                if !value.is_null() {
                    break value;
                }
            };
            set(folder, CONFIG, &pointer, value)
        }
    }
}

/// A field of config.json of another type, or one that asks for what is not Gemma 3.
pub(super) fn fields(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let text = text(folder);
    let config = folder.json(CONFIG);
    let num_layers = &config
        .pointer(&format!("{text}/num_hidden_layers"))
        .unwrap();
    let num_layers = num_layers.as_u64().unwrap() as usize;
    let mut kinds = vec![json!("full_attention"); num_layers];
    kinds[0] = json!("chunked_attention");
    let cases = [
        ("/model_type", json!("llama")),
        ("/model_type", json!(3)),
        ("/model_type", json!(null)),
        ("/model_type", json!("x".repeat(100_000))),
        ("/architectures", json!("Gemma3ForCausalLM")),
        ("/architectures", json!(["LlamaForCausalLM"])),
        ("/architectures", json!([3])),
        ("/architectures", json!(["y".repeat(100_000)])),
        ("/quantization_config", json!({"bits": 4})),
        ("/text_config", json!(3)),
        ("/text_config", json!([])),
        ("/vision_config", json!("x")),
        ("/eos_token_id", json!("x")),
        ("/eos_token_id", json!(-1)),
        ("/eos_token_id", json!([1, "x"])),
        ("/eos_token_id", json!(1.5)),
        ("/eos_token_id", json!(1u64 << 40)),
        ("/tie_word_embeddings", json!("yes")),
        ("TEXT/layer_types", json!("full_attention")),
        ("TEXT/layer_types", json!(["full_attention"])),
        ("TEXT/layer_types", json!(kinds)),
        ("TEXT/layer_types", json!(vec![3; num_layers])),
        ("TEXT/num_key_value_heads", json!(3)),
        ("TEXT/head_dim", json!(15)),
        ("TEXT/head_dim", json!(24)),
        ("TEXT/hidden_activation", json!("relu")),
        ("TEXT/attention_bias", json!(true)),
        ("TEXT/final_logit_softcapping", json!(30.0)),
        ("TEXT/attn_logit_softcapping", json!("50")),
        ("TEXT/use_bidirectional_attention", json!(true)),
        ("TEXT/rope_scaling", json!("linear")),
        ("TEXT/rope_scaling", json!(8)),
        ("TEXT/rope_parameters", json!([])),
        ("TEXT/rope_parameters", json!({"full_attention": 3})),
    ];
    let nested = [
        (
            "TEXT/rope_scaling",
            json!({"rope_type": "yarn", "factor": 8.0}),
            "rope_type",
        ),
        ("TEXT/rope_scaling", json!({"rope_type": 5}), "rope_type"),
        (
            "TEXT/rope_scaling",
            json!({"rope_type": "linear"}),
            "factor",
        ),
        (
            "TEXT/rope_scaling",
            json!({"rope_type": "linear", "factor": "8"}),
            "factor",
        ),
        (
            "TEXT/rope_scaling",
            json!({"rope_type": "linear", "factor": 1e300}),
            "factor",
        ),
        (
            "TEXT/rope_scaling",
            json!({"rope_type": "linear", "factor": 0}),
            "factor",
        ),
        (
            "TEXT/rope_parameters",
            json!({"rope_theta": 1}),
            "rope_theta",
        ),
        (
            "TEXT/rope_parameters",
            json!({"full_attention": {"rope_theta": "1"}}),
            "full_attention.rope_theta",
        ),
    ];
    let idx = rng.usize(..cases.len() + nested.len());
    let (pointer, value, field) = match cases.get(idx) {
        Some((pointer, value)) => (*pointer, value.clone(), pointer.rsplit('/').next().unwrap()),
        None => nested[idx - cases.len()].clone(),
    };
    let mut damage = set(folder, CONFIG, &pointer.replace("TEXT", text), value);
    damage.expected = vec![field.to_owned()];
    damage
}

/// A config.json that is as it could be, but not as the tensors or the tokenizer are.
pub(super) fn mismatches(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let mut multimodal = Folder::golden("multimodal");
    std::mem::swap(folder, &mut multimodal);
    let (pointer, value, file, expected) = pick(
        rng,
        &[
            (
                "/text_config/hidden_size",
                json!(96),
                TENSORS,
                "embed_tokens",
            ),
            (
                "/text_config/hidden_size",
                json!(1 << 18),
                TENSORS,
                "embed_tokens",
            ),
            (
                "/text_config/intermediate_size",
                json!(1 << 18),
                TENSORS,
                "mlp.gate_proj",
            ),
            (
                "/text_config/intermediate_size",
                json!(95),
                TENSORS,
                "mlp.gate_proj",
            ),
            (
                "/text_config/num_hidden_layers",
                json!(9),
                TENSORS,
                "layers.8",
            ),
            (
                "/text_config/num_hidden_layers",
                json!(1024),
                TENSORS,
                "layers.8",
            ),
            (
                "/text_config/num_attention_heads",
                json!(1024),
                TENSORS,
                "q_proj",
            ),
            (
                "/text_config/num_key_value_heads",
                json!(1),
                TENSORS,
                "k_proj",
            ),
            ("/text_config/head_dim", json!(32), TENSORS, "q_norm"),
            ("/text_config/head_dim", json!(1 << 18), TENSORS, "q_norm"),
            (
                "/vision_config/hidden_size",
                json!(1 << 18),
                TENSORS,
                "patch_embedding",
            ),
            (
                "/vision_config/intermediate_size",
                json!(1 << 18),
                TENSORS,
                "mlp.fc1",
            ),
            (
                "/vision_config/num_hidden_layers",
                json!(1024),
                TENSORS,
                "encoder.layers.3",
            ),
            (
                "/vision_config/patch_size",
                json!(14),
                TENSORS,
                "patch_embedding",
            ),
            ("/vision_config/patch_size", json!(9), CONFIG, "patch_size"),
            (
                "/vision_config/num_attention_heads",
                json!(5),
                CONFIG,
                "num_attention_heads",
            ),
            (
                "/vision_config/image_size",
                json!(224),
                "preprocessor_config.json",
                "size.height",
            ),
            (
                "/vision_config/image_size",
                json!([112, 56]),
                CONFIG,
                "image_size",
            ),
            (
                "/mm_tokens_per_image",
                json!(15),
                CONFIG,
                "mm_tokens_per_image",
            ),
            (
                "/mm_tokens_per_image",
                json!(9),
                CONFIG,
                "mm_tokens_per_image",
            ),
            (
                "/mm_tokens_per_image",
                json!(64),
                "preprocessor_config.json",
                "image_seq_length",
            ),
            (
                "/image_token_index",
                json!(5),
                "tokenizer.json",
                "image_token_index is 5",
            ),
            (
                "/image_token_index",
                json!([1, 2]),
                CONFIG,
                "image_token_index",
            ),
            (
                "/image_token_index",
                json!(u64::MAX),
                CONFIG,
                "image_token_index",
            ),
            (
                "/tie_word_embeddings",
                json!(false),
                TENSORS,
                "lm_head.weight",
            ),
        ],
    );
    let mut damage = set(folder, CONFIG, pointer, value);
    damage.file = file.to_owned();
    damage.expected = vec![expected.to_owned()];
    damage
}

/// A file that is no config, whichever it is.
pub(super) fn text_of(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    const FILES: [&str; 6] = [
        CONFIG,
        GENERATION,
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer_config.json",
        "tokenizer.json",
    ];
    let mut multimodal = Folder::golden("multimodal");
    std::mem::swap(folder, &mut multimodal);
    let file = pick(rng, &FILES);
    let whole = folder.text(file).trim_end().to_owned();
    let (what, text, expected): (_, Vec<u8>, Option<&str>) = match rng.u8(..9) {
        0 | 1 => {
            let len = rng.usize(..whole.len());
            (
                format!("cut off at {len}"),
                whole.as_bytes()[..len].to_vec(),
                None,
            )
        }
        2 => {
            let depth = rng.usize(200..200_000);
            let open = pick(rng, &["[", "{\"a\":"]);
            let rest = &whole[1..];
            let text = format!("{{\"deep\":{}{rest}", open.repeat(depth));
            (format!("{depth} deep"), text.into(), None)
        }
        3 => {
            let text = format!(
                "{{\"version\":1,\"model_type\":2,\"version\":3,{}",
                &whole[1..]
            );
            ("a field twice".to_owned(), text.into(), Some("version"))
        }
        4 => {
            let text = pick(
                rng,
                &["[]", "null", "3", "\"a\"", "", "   ", "{}{}", "{a: 1}"],
            );
            (format!("it is {text:?}"), text.into(), None)
        }
        5 => {
            let mut bytes = whole.clone().into_bytes();
            bytes[1 + rng.usize(..whole.len().min(200) - 2)] = 0xFF;
            ("not UTF-8".to_owned(), bytes, None)
        }
        6 => {
            let number = pick(
                rng,
                &["NaN", "Infinity", "-Infinity", "1e999", "0x10", "01", "+1"],
            );
            // Fields that nobody reads may say what they like.
            let number = match number {
                "1e999" if file == "tokenizer.json" => "NaN",
                number => number,
            };
            let text = format!("{{\"a\":{number},{}", &whole[1..]);
            (format!("it has {number}"), text.into(), None)
        }
        7 => {
            let many = "0,".repeat(rng.usize(600_000..700_000));
            let text = format!("{{\"a\":[{many}0],{}", &whole[1..]);
            let is_small = !file.starts_with("tokenizer");
            if is_small {
                (
                    "a list of 600000".to_owned(),
                    text.into(),
                    Some("bytes; at most"),
                )
            } else {
                return numbers(folder, rng);
            }
        }
        _ => {
            let words = whole.encode_utf16().flat_map(u16::to_le_bytes);
            let text: Vec<u8> = [0xff, 0xfe].into_iter().chain(words).collect();
            ("UTF-16".to_owned(), text, Some("UTF-16"))
        }
    };
    folder.set(file, text);
    Damage::new(what, file, expected.map(str::to_owned))
}

/// generation_config.json: what is out of range.
pub(super) fn generation(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let (field, value) = pick(
        rng,
        &[
            ("temperature", json!(-1)),
            ("temperature", json!(1e300)),
            ("temperature", json!("hot")),
            ("top_p", json!(0)),
            ("top_p", json!(1.5)),
            ("top_p", json!([])),
            ("top_k", json!(-1)),
            ("top_k", json!(0.5)),
            ("top_k", json!(1u64 << 40)),
            ("top_k", json!({})),
            ("do_sample", json!(1)),
            ("do_sample", json!("true")),
            ("eos_token_id", json!("x")),
            ("eos_token_id", json!(-1)),
            ("eos_token_id", json!([1, null])),
            ("eos_token_id", json!({})),
            ("eos_token_id", json!(1u64 << 40)),
            ("eos_token_id", json!(4_000_000_000u32)),
            ("eos_token_id", json!([1, 5000])),
        ],
    );
    set(folder, GENERATION, &format!("/{field}"), value)
}

/// The processor's files: what the server would not do.
pub(super) fn processors(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let mut multimodal = Folder::golden("multimodal");
    std::mem::swap(folder, &mut multimodal);
    let (pointer, value) = pick(
        rng,
        &[
            ("/image_seq_length", json!(1u64 << 60)),
            ("/image_seq_length", json!(-1)),
            ("/image_seq_length", json!("16")),
            ("/size/height", json!(0)),
            ("/size/width", json!(1e300)),
            ("/size", json!(112)),
            ("/do_resize", json!(false)),
            ("/do_rescale", json!("yes")),
            ("/do_normalize", json!(0)),
            ("/do_pan_and_scan", json!("sometimes")),
            ("/resample", json!(99)),
            ("/image_mean", json!([0.5, 0.5])),
            ("/image_mean", json!(vec![0.5; 100_000])),
            ("/image_std", json!([0, 0, 0])),
            ("/image_std", json!("z".repeat(100_000))),
            ("/rescale_factor", json!(0)),
            ("/rescale_factor", json!(-1)),
            ("/rescale_factor", json!("1/255")),
        ],
    );
    let mut damage = set(folder, "preprocessor_config.json", pointer, value);
    if rng.bool() {
        // Version 5 of transformers has it inside of the other file.
        let inner = folder.json("preprocessor_config.json");
        folder.files.remove("preprocessor_config.json");
        folder.set(
            "processor_config.json",
            json!({"image_processor": inner}).to_string(),
        );
        damage.file = "processor_config.json".to_owned();
    }
    damage
}
