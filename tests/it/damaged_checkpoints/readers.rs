//! What reads a checkpoint's files, and what must hold whatever is in them. Shared by the fuzz
//! targets and by the test that mutates the repository's own files.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use medgemma::core::TokenId;
use medgemma::model::config::{ModelConfig, VisionConfig};
use medgemma::model::expected_tensors::expected_tensors;
use medgemma::model::safetensors_header::read_header;
use medgemma::model::shard_index::ShardIndex;
use medgemma::registry::{GenerationConfig, check_processor_config};
use medgemma::text::{
    AddSpecialTokens, ChatTemplate, Content, Message, NamedTokens, Part, Role, SpecialTokens,
    Tokenizer,
};

fn check_error(error: &medgemma::error::Error) {
    let message = error.to_string();
    assert!(
        message.len() < 4000 && !message.contains('\n'),
        "{message:?}"
    );
}

/// Headers of safetensors files, and the index of shards.
pub(super) fn safetensors(bytes: &[u8]) {
    match read_header(Path::new("model.safetensors"), bytes) {
        Ok(tensors) => {
            let mut done = None;
            for tensor in &tensors {
                assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len());
                assert!(done.is_none_or(|done| done == tensor.range.start));
                done = Some(tensor.range.end);
                let count: usize = tensor.shape.iter().product();
                assert_eq!(count * tensor.dtype.bitsize(), tensor.range.len() * 8);
            }
            assert!(done.is_none_or(|done| done == bytes.len()));
        }
        Err(error) => check_error(&error),
    }
    match ShardIndex::from_json(Path::new("index.json"), bytes) {
        Ok(index) => {
            for shard in index.weight_map.values() {
                assert_eq!(
                    Path::new("dir").join(shard).parent(),
                    Some(Path::new("dir"))
                );
            }
        }
        Err(error) => check_error(&error),
    }
}

/// config.json: what is taken has numbers that can be computed with.
pub(super) fn config(bytes: &[u8]) {
    let config = match ModelConfig::from_json(Path::new("config.json"), bytes) {
        Ok(config) => config,
        Err(error) => return check_error(&error),
    };
    let text = &config.text;
    assert_eq!(text.layer_kinds.len(), text.num_hidden_layers);
    assert_eq!(text.num_attention_heads % text.num_key_value_heads, 0);
    assert!((text.query_pre_attn_scalar.powf(-0.5) as f32).is_normal());
    assert!((text.rms_norm_eps as f32).is_normal());
    for rope in [text.rope_global, text.rope_local] {
        let frequencies = rope.inv_freq(text.head_dim.min(512));
        assert!(frequencies.iter().all(|frequency| frequency.is_finite()));
    }
    // Nothing of this overflows.
    let total: u64 = expected_tensors(&config)
        .map(|(_, shape)| shape.iter().map(|dim| *dim as u64).product::<u64>())
        .sum();
    let head = u64::from(!config.tie_word_embeddings);
    let head = head * (text.vocab_size * text.hidden_size) as u64;
    assert_eq!(total - head, config.num_parameters());
}

/// generation_config.json and the processor's two files.
pub(super) fn small_configs(bytes: &[u8]) {
    const VISION: VisionConfig = VisionConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        image_size: 112,
        patch_size: 7,
        layer_norm_eps: 1e-6,
        mm_tokens_per_image: 16,
    };
    match GenerationConfig::from_json(Path::new("generation_config.json"), bytes) {
        Ok(config) => {
            assert!((0.0..=2.0).contains(&config.sampling.temperature));
            assert!(config.sampling.top_p > 0.0 && config.sampling.top_p <= 1.0);
        }
        Err(error) => check_error(&error),
    }
    if let Err(error) = check_processor_config(Path::new("processor_config.json"), bytes, &VISION) {
        check_error(&error);
    }
}

/// tokenizer.json: one that is taken can be used.
pub(super) fn tokenizer(bytes: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(bytes) else {
        return;
    };
    for text in [
        "",
        "a",
        " ab  <a>é\u{1F600}\n\u{FB01}",
        "<start_of_turn>The patient",
    ] {
        for add in [AddSpecialTokens::Yes, AddSpecialTokens::No] {
            if let Ok(ids) = tokenizer.encode_raw(text, add) {
                assert!(ids.len() <= 128 + 128 * text.len());
                tokenizer.decode(&ids, SpecialTokens::Keep);
            }
        }
    }
    for id in (0..tokenizer.vocab_size()).map(|id| TokenId(id as u32)) {
        tokenizer.token_bytes(id);
    }
}

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let json = include_bytes!("../../golden/tokenizer/tokenizer.json");
    Tokenizer::from_bytes(json).expect("the repository's own is whole")
});

/// The program, which renders templates: cargo names it to tests, and the variable to fuzz targets.
fn program() -> PathBuf {
    let program = option_env!("CARGO_BIN_EXE_medgemma").map(PathBuf::from);
    let named = || std::env::var_os("MEDGEMMA").expect("MEDGEMMA names the program");
    program.unwrap_or_else(|| named().into())
}

/// Chat templates: each ends, and what it makes is bounded.
pub(super) fn template(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    let names = NamedTokens([("bos_token".to_owned(), "<bos>".to_owned())].into());
    let Ok(template) = ChatTemplate::new(source, &names, &TOKENIZER, &program()) else {
        return;
    };
    let text = |role, text: &str| Message {
        role,
        content: Content::Text(text.to_owned()),
    };
    let messages = [
        text(Role::System, "Be short."),
        Message {
            role: Role::User,
            content: Content::Parts(vec![Part::Text("a < b".to_owned()), Part::Image]),
        },
        text(Role::Assistant, "c"),
        text(Role::User, "<end_of_turn>"),
    ];
    if let Ok(prompt) = template.render(&messages) {
        // What stood for a character is never longer than three bytes.
        assert!(prompt.text.len() <= 32 << 20);
    }
}
