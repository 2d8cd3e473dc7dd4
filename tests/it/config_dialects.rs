//! config.json: every dialect means what transformers takes it to mean; what is not Gemma 3 is
//! refused by name.

use std::path::{Path, PathBuf};

use medgemma::model::config::{LayerKind, ModelConfig, RopeParams};
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/configs")
        .join(name)
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(name)).unwrap()).unwrap()
}

fn parse(config: &Value) -> medgemma::error::Result<ModelConfig> {
    ModelConfig::from_json(Path::new("config.json"), config.to_string().as_bytes())
}

/// The config in the words of the golden's `expected.json`.
fn resolved(config: &ModelConfig) -> Value {
    let text = &config.text;
    let global_layers: Vec<usize> = (0..text.num_hidden_layers)
        .filter(|&i| text.layer_kinds[i] == LayerKind::Global)
        .collect();
    let rope = |rope: &RopeParams| json!({"base": rope.theta, "factor": rope.factor});
    let mut resolved = json!({
        "text": {
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "head_dim": text.head_dim,
            "query_pre_attn_scalar": text.query_pre_attn_scalar,
            "max_position_embeddings": text.max_position_embeddings,
            "sliding_window": text.sliding_window,
            "rms_norm_eps": text.rms_norm_eps,
            "global_layers": global_layers,
            "rope_global": rope(&text.rope_global),
            "rope_local": rope(&text.rope_local),
        },
        "eos_token_ids": config.eos_token_ids,
    });
    if let Some(vision) = &config.vision {
        resolved["vision"] = json!({
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "layer_norm_eps": vision.layer_norm_eps,
        });
        resolved["mm_tokens_per_image"] = json!(vision.mm_tokens_per_image);
        resolved["image_token_index"] = json!(config.image_token_id);
    }
    resolved
}

/// Numbers compare by value: Python writes 1000000 where another wrote 1000000.0.
fn as_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(as_floats).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), as_floats(value)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn every_dialect_resolves_as_transformers_resolves_it() {
    let expected = read("expected.json");
    let expected = expected.as_object().unwrap();
    assert!(expected.len() >= 15);
    for (name, expected) in expected {
        let file = format!("{name}.json");
        let config =
            ModelConfig::from_json(Path::new(&file), &std::fs::read(golden(&file)).unwrap())
                .unwrap();
        let mut expected = expected.clone();
        // What the server does not take from config.json: the files' tensors and the tokenizer
        // know their types and ids better.
        for name in ["dtype", "boi_token_index", "eoi_token_index"] {
            expected.as_object_mut().unwrap().remove(name);
        }
        assert_eq!(
            as_floats(&resolved(&config)),
            as_floats(&expected),
            "{name}"
        );
    }
}

/// `config` with the field at a dotted path set; a null removes it.
fn with(mut config: Value, path: &str, value: Value) -> Value {
    let mut at = &mut config;
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        at = &mut at[parent];
    }
    if value.is_null() {
        at.as_object_mut().unwrap().remove(name);
    } else {
        at[name] = value;
    }
    config
}

#[test]
fn the_older_spelling_of_a_rope_type_counts() {
    // As transformers 4 read it. (5.23 takes this one for "default" and drops the factor.)
    let config = with(
        read("pattern.json"),
        "text_config.rope_scaling",
        json!({"type": "linear", "factor": 8.0}),
    );
    assert_eq!(parse(&config).unwrap().text.rope_global.factor, 8.0);
}

#[test]
fn rope_scaling_goes_before_rope_parameters() {
    // As transformers 5.23 resolves a config that has both; the base stays that of the newer form.
    let config = with(
        read("v5.json"),
        "text_config.rope_scaling",
        json!({"rope_type": "linear", "factor": 4.0}),
    );
    let config = with(config, "text_config.rope_theta", json!(7.0));
    let expected = RopeParams {
        theta: 1e6,
        factor: 4.0,
    };
    assert_eq!(parse(&config).unwrap().text.rope_global, expected);
}

#[test]
fn the_private_pattern_counts_where_it_stands_alone() {
    let config = with(
        read("private_pattern.json"),
        "text_config._sliding_window_pattern",
        json!(2),
    );
    let kinds = parse(&config).unwrap().text.layer_kinds;
    assert_eq!(
        kinds[..4],
        [
            LayerKind::Sliding,
            LayerKind::Global,
            LayerKind::Sliding,
            LayerKind::Global
        ]
    );
}

#[test]
fn an_untied_head_is_known_from_either_place() {
    for path in ["tie_word_embeddings", "text_config.tie_word_embeddings"] {
        let config = with(read("pattern.json"), path, json!(false));
        assert!(!parse(&config).unwrap().tie_word_embeddings);
    }
    assert!(parse(&read("pattern.json")).unwrap().tie_word_embeddings);
}

#[test]
fn neutral_values_are_no_reason_to_refuse() {
    let mut config = read("v5.json");
    for (path, value) in [
        ("text_config.use_bidirectional_attention", json!(false)),
        ("text_config.attention_bias", json!(false)),
        ("text_config.hidden_activation", json!("gelu_pytorch_tanh")),
        ("vision_config.hidden_act", json!("gelu_pytorch_tanh")),
        ("vision_config.num_channels", json!(3)),
        ("vision_config.image_size", json!([896, 896])),
        ("something_of_tomorrow", json!({"a": 1})),
    ] {
        config = with(config, path, value);
    }
    config["quantization_config"] = Value::Null;
    config["text_config"]["attn_logit_softcapping"] = Value::Null;
    config["text_config"]["rope_scaling"] = Value::Null;
    let expected = parse(&read("v5.json")).unwrap();
    assert_eq!(parse(&config).unwrap(), expected);
}

#[test]
fn what_cannot_be_is_refused_by_file_and_field() {
    // Field, value (null: the field is taken out), and what the message says besides its name.
    let cases = [
        ("model_type", Value::Null, "is missing"),
        ("model_type", json!("gemma2"), "\"gemma2\""),
        ("model_type", json!(3), "must be text"),
        (
            "architectures",
            json!(["Gemma3ForSequenceClassification"]),
            "ForSequenceClassification",
        ),
        ("text_config", Value::Null, "is missing"),
        ("text_config", json!(7), "must be an object"),
        (
            "text_config.model_type",
            json!("gemma3n_text"),
            "gemma3n_text",
        ),
        ("text_config.hidden_size", json!(0), "between 1 and"),
        ("text_config.hidden_size", json!(-4), "whole number"),
        ("text_config.hidden_size", json!(2.5), "whole number"),
        ("text_config.hidden_size", json!("2560"), "whole number"),
        (
            "text_config.hidden_size",
            json!(1u64 << 60),
            "between 1 and",
        ),
        (
            "text_config.intermediate_size",
            json!(1u64 << 40),
            "between 1 and",
        ),
        (
            "text_config.num_hidden_layers",
            json!(100_000),
            "between 1 and",
        ),
        ("text_config.vocab_size", json!(0), "between 1 and"),
        (
            "text_config.num_key_value_heads",
            json!(5),
            "must divide num_attention_heads",
        ),
        ("text_config.head_dim", json!(127), "must be even"),
        (
            "text_config.query_pre_attn_scalar",
            json!(0),
            "must be above 0",
        ),
        ("text_config.rms_norm_eps", json!(-1e-6), "must be above 0"),
        ("text_config.sliding_window", json!(0), "between 1 and"),
        (
            "text_config.layer_types",
            json!(["full_attention"]),
            "has 1 entries",
        ),
        (
            "text_config.layer_types",
            json!(vec!["chunked_attention"; 62]),
            "chunked_attention",
        ),
        (
            "text_config.sliding_window_pattern",
            json!(0),
            "between 1 and",
        ),
        ("text_config.rope_theta", json!("1e6"), "must be a number"),
        (
            "text_config.rope_scaling",
            json!({"rope_type": "yarn", "factor": 2.0}),
            "yarn",
        ),
        (
            "text_config.rope_scaling",
            json!({"rope_type": "linear"}),
            "is missing",
        ),
        (
            "text_config.rope_scaling",
            json!({"factor": 8.0}),
            "must be \"linear\"",
        ),
        (
            "text_config.rope_scaling",
            json!({"rope_type": "linear", "factor": 0}),
            "above 0",
        ),
        (
            "text_config.rope_parameters",
            json!({"rope_type": "default"}),
            "full_attention",
        ),
        (
            "text_config.rope_parameters",
            json!({"sliding_attention": {"rope_type": "dynamic", "factor": 2}}),
            "dynamic",
        ),
        (
            "text_config.hidden_activation",
            json!("silu"),
            "not supported",
        ),
        ("text_config.attention_bias", json!(true), "not supported"),
        (
            "text_config.attn_logit_softcapping",
            json!(50.0),
            "not supported",
        ),
        (
            "text_config.final_logit_softcapping",
            json!(30.0),
            "not supported",
        ),
        (
            "text_config.use_bidirectional_attention",
            json!(true),
            "not supported",
        ),
        (
            "quantization_config",
            json!({"quant_method": "awq", "bits": 4}),
            "by awq (4 bits), which is not supported: serve",
        ),
        (
            "vision_config.model_type",
            json!("clip_vision_model"),
            "clip_vision_model",
        ),
        (
            "vision_config.hidden_act",
            json!("quick_gelu"),
            "not supported",
        ),
        ("vision_config.num_channels", json!(1), "not supported"),
        (
            "vision_config.num_attention_heads",
            json!(7),
            "must divide hidden_size",
        ),
        (
            "vision_config.patch_size",
            json!(15),
            "must divide image_size",
        ),
        (
            "vision_config.image_size",
            json!([896, 448]),
            "side of a square",
        ),
        ("vision_config.layer_norm_eps", json!(0), "above 0"),
        ("mm_tokens_per_image", json!(255), "square of a divisor"),
        ("mm_tokens_per_image", json!(9), "square of a divisor"),
        ("mm_tokens_per_image", json!(1 << 20), "between 1 and 4096"),
        ("image_token_index", json!("soft"), "token id"),
        ("image_token_index", json!([1, 2]), "one token id"),
        ("eos_token_id", json!([1, -1]), "token id"),
        ("tie_word_embeddings", json!("yes"), "true or false"),
    ];
    for (path, value, says) in cases {
        let config = with(read("pattern.json"), path, value.clone());
        let message = parse(&config)
            .map(|_| format!("{path} = {value} was taken"))
            .unwrap_or_else(|error| error.to_string());
        assert!(
            message.starts_with("config.json: ")
                && message.contains(path)
                && message.contains(says),
            "{path} = {value}: {message}"
        );
    }
}

#[test]
fn what_is_not_a_config_is_refused() {
    for (text, says) in [
        (&b"{\"model_type\": "[..], "not valid JSON"),
        (b"[]", "expected a JSON object, found a list"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
    ] {
        let error = ModelConfig::from_json(Path::new("some/config.json"), text).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("some/config.json: ") && message.contains(says),
            "{message}"
        );
    }
}

/// Bit patterns that torch 2.15 computes for `1.0 / (theta ** (arange(0, dim, 2) / dim)) / factor`.
#[test]
fn rotary_frequencies_are_the_references() {
    let check = |theta: f64, factor: f64, head_dim: usize, expected: &[(usize, u32)]| {
        let inv_freq = RopeParams { theta, factor }.inv_freq(head_dim);
        assert_eq!(inv_freq.len(), head_dim / 2);
        for &(i, bits) in expected {
            assert_eq!(
                inv_freq[i].to_bits(),
                bits,
                "theta {theta}, factor {factor}, head_dim {head_dim}, frequency {i}"
            );
        }
    };
    check(
        1e6,
        8.0,
        256,
        &[
            (0, 0x3e00_0000),
            (1, 0x3de5_ced3),
            (2, 0x3dce_4bad),
            (3, 0x3db9_305c),
            (5, 0x3d95_3ba8),
            (32, 0x3b81_86e3),
            (64, 0x3903_126f),
            (127, 0x3415_83da),
        ],
    );
    check(
        1e4,
        1.0,
        256,
        &[
            (0, 0x3f80_0000),
            (1, 0x3f6e_39f8),
            (2, 0x3f5d_afd7),
            (3, 0x3f4e_4bad),
            (5, 0x3f32_a506),
            (32, 0x3dcc_cccd),
            (64, 0x3c23_d70a),
            (127, 0x38e1_5c91),
        ],
    );
    check(
        1e6,
        8.0,
        128,
        &[
            (1, 0x3dce_4bad),
            (2, 0x3da6_3de0),
            (5, 0x3d2d_fcff),
            (42, 0x3772_2ce2),
            (63, 0x3426_8e4c),
        ],
    );
    check(
        1e6,
        3.0,
        16,
        &[
            (0, 0x3eaa_aaab),
            (1, 0x3d72_cb5f),
            (2, 0x3c2c_b3d9),
            (3, 0x3af5_b0d0),
            (4, 0x39ae_c33f),
            (5, 0x3878_9f19),
            (6, 0x3730_d8ed),
            (7, 0x35fb_9657),
        ],
    );
}
