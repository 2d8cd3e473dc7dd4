//! Damage to tokenizer.json, tokenizer_config.json and chat templates.

use serde_json::{Value, json};

use super::Damage;
use super::folder::Folder;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

fn pick<T: Clone>(rng: &mut fastrand::Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

fn replace(pattern: &str, content: String) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

fn split(pattern: Value) -> Value {
    json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false})
}

fn template(single: Value) -> Value {
    json!({
        "type": "TemplateProcessing", "single": single, "pair": [],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    })
}

/// A part of tokenizer.json that is wrong.
pub(super) fn tokenizer(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let regex = json!({"Regex": "(a+)+$"});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let bos = json!({"SpecialToken": {"id": "<bos>", "type_id": 0}});
    let what = json!({"SpecialToken": {"id": "<what>", "type_id": 0}});
    let growing = vec![replace("a", "aaaa".to_owned()); 15];
    let (pointer, value, expected) = pick(
        rng,
        &[
            ("/version", json!("2.0"), "version"),
            ("/version", json!(1), "version"),
            ("/model", json!(null), "BpeModel"),
            ("/model", json!({}), "vocab"),
            ("/model/type", json!("Unigram"), "Unigram"),
            ("/model/type", json!("WordPiece"), "WordPiece"),
            ("/model/vocab", json!({}), "is not a token"),
            ("/model/vocab", json!([]), "ids by token"),
            ("/model/vocab/▁the", json!(-1), "▁the"),
            ("/model/vocab/▁the", json!(1.5), "▁the"),
            ("/model/vocab/▁the", json!("7"), "▁the"),
            ("/model/vocab/▁the", json!(null), "▁the"),
            ("/model/vocab/▁the", json!(1u64 << 40), "▁the"),
            ("/model/vocab/▁the", json!(u32::MAX), "▁the"),
            ("/model/vocab/▁the", json!((1 << 24) - 1), "▁the"),
            ("/model/vocab/▁the", json!(3), "same id 3"),
            ("/model/vocab/new", json!(900), "image_soft_token"),
            ("/model/merges", json!([["t"]]), "two tokens"),
            ("/model/merges", json!([["t", "h", "e"]]), "model.merges[0]"),
            ("/model/merges", json!([["nowhere", "t"]]), "nowhere"),
            ("/model/merges", json!(["t h e"]), "t h e"),
            ("/model/merges", json!([3]), "a merge"),
            ("/model/merges", json!("t h"), "sequence"),
            (
                "/model/merges",
                json!([["x".repeat(500), "y"]]),
                "is not a token",
            ),
            ("/model/unk_token", json!("<what>"), "<what>"),
            ("/model/dropout", json!(0.5), "dropout"),
            ("/model/dropout", json!("x"), "f32"),
            ("/model/continuing_subword_prefix", json!("##"), "##"),
            ("/model/ignore_merges", json!(true), "plain text"),
            ("/model/byte_fallback", json!(3), "boolean"),
            ("/added_tokens", json!({}), "sequence"),
            ("/added_tokens/0", json!(3), "added_tokens[0]"),
            ("/added_tokens/0/id", json!(-1), "u32"),
            ("/added_tokens/0/id", json!(3), "same id 3"),
            ("/added_tokens/28/id", json!(999), "999"),
            ("/added_tokens/28/id", json!(u32::MAX), "<image_soft_token>"),
            ("/added_tokens/0/content", json!(""), "same id 0"),
            (
                "/added_tokens/0/content",
                json!("x".repeat(600)),
                "same id 0",
            ),
            (
                "/added_tokens/28/content",
                json!("x".repeat(600)),
                "600 bytes",
            ),
            ("/added_tokens/0/rstrip", json!(true), "<pad>"),
            (
                "/normalizer",
                json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
                "normalizer",
            ),
            (
                "/normalizer",
                json!({"type": "Replace", "pattern": regex, "content": "b"}),
                "normalizer",
            ),
            (
                "/normalizer",
                json!({"type": "Sequence", "normalizers": growing}),
                "normalizer",
            ),
            (
                "/normalizer",
                replace("a", "b".repeat(10_000)),
                "normalizer",
            ),
            ("/normalizer", replace("", "b".to_owned()), "normalizer"),
            ("/normalizer", json!({"type": "Bert"}), "normalizer"),
            ("/normalizer", json!(3), "normalizer"),
            ("/normalizer", json!(vec![0; 20_000]), "too many values"),
            ("/pre_tokenizer", split(regex.clone()), "pre_tokenizer"),
            (
                "/pre_tokenizer",
                split(json!({"Regex": "("})),
                "pre_tokenizer",
            ),
            (
                "/pre_tokenizer",
                split(json!({"String": ""})),
                "pre_tokenizer",
            ),
            (
                "/pre_tokenizer",
                json!({"type": "ByteLevel"}),
                "pre_tokenizer",
            ),
            ("/pre_tokenizer", json!("Split"), "pre_tokenizer"),
            (
                "/post_processor",
                template(json!([text("B")])),
                "post_processor",
            ),
            (
                "/post_processor",
                template(json!([what, text("A")])),
                "<what>",
            ),
            (
                "/post_processor",
                template(json!([bos.clone()])),
                "post_processor",
            ),
            (
                "/post_processor",
                template(json!([vec![bos.clone(); 50], vec![text("A")]].concat())),
                "post_processor",
            ),
            (
                "/post_processor",
                json!({"type": "RobertaProcessing"}),
                "post_processor",
            ),
            ("/post_processor", json!([]), "post_processor"),
            ("/decoder", json!(null), "decoder"),
            ("/decoder", json!({"type": "ByteLevel"}), "decoder"),
            (
                "/decoder",
                json!({"type": "Replace", "pattern": regex, "content": ""}),
                "decoder",
            ),
            ("/decoder", replace("a", "b".repeat(10_000)), "decoder"),
            ("/decoder", json!(3), "decoder"),
        ],
    );
    folder.set_field(TOKENIZER, pointer, value.clone());
    Damage::new(
        format!("{pointer} is {value:.60}"),
        TOKENIZER,
        [expected.to_owned()],
    )
}

/// What tokenizer.json lists twice or leaves out.
pub(super) fn vocabulary(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let (what, file, expected) = match rng.u8(..6) {
        5 => {
            *folder = Folder::golden("multimodal");
            folder.set_field(TOKENIZER, "/added_tokens/28/content", json!("<other>"));
            ("no token for images", TOKENIZER, "<image_soft_token>")
        }
        0 => {
            let text = folder
                .text(TOKENIZER)
                .replace("\"vocab\":{", "\"vocab\":{\"▁the\":5,");
            folder.set(TOKENIZER, text);
            ("a token twice", TOKENIZER, "▁the")
        }
        1 => {
            let text = folder.text(TOKENIZER).replacen("{", "{\"model\":{},", 1);
            folder.set(TOKENIZER, text);
            ("a model twice", TOKENIZER, "model")
        }
        2 => {
            let mut root = folder.json(TOKENIZER);
            root["model"]["vocab"]
                .as_object_mut()
                .unwrap()
                .remove("▁the");
            folder.set(TOKENIZER, root.to_string());
            ("a token that merges make", TOKENIZER, "▁the")
        }
        3 => {
            let mut root = folder.json(TOKENIZER);
            for idx in 0..40u32 {
                let first = char::from_u32(0x3040 + idx).unwrap();
                let token = json!({
                    "id": 769 + idx, "content": format!("{first}x"), "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false, "special": true,
                });
                root["added_tokens"].as_array_mut().unwrap().push(token);
            }
            folder.set(TOKENIZER, root.to_string());
            (
                "special tokens with 40 first characters",
                TOKENIZER,
                "different characters",
            )
        }
        _ => {
            let mut root = folder.json(TOKENIZER);
            for idx in 0..100u32 {
                let token = json!({
                    "id": 769 + idx, "content": format!("word{idx}"), "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false, "special": false,
                });
                root["added_tokens"].as_array_mut().unwrap().push(token);
            }
            folder.set(TOKENIZER, root.to_string());
            ("tokens without a row", TOKENIZER, "but the embedding has")
        }
    };
    Damage::new(what.to_owned(), file, [expected.to_owned()])
}

/// The tokens' names and the template's place.
pub(super) fn names(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let (field, value) = pick(
        rng,
        &[
            ("bos_token", json!(2)),
            ("bos_token", json!(["<bos>"])),
            ("bos_token", json!({"lstrip": false})),
            ("pad_token", json!({"content": 3})),
            ("chat_template", json!(3)),
            ("chat_template", json!({})),
            ("chat_template", json!([])),
            ("chat_template", json!([{"name": "rag", "template": "x"}])),
            ("chat_template", json!([{"name": "default", "template": 3}])),
            ("chat_template", json!(["default"])),
            ("chat_template", json!("a".repeat(300_000))),
        ],
    );
    folder.set_field(TOKENIZER_CONFIG, &format!("/{field}"), value.clone());
    Damage::new(
        format!("{field} is {value:.40}"),
        TOKENIZER_CONFIG,
        [field.to_owned()],
    )
}

/// A template that is broken, has no end, or makes too much.
pub(super) fn templates(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let nested = "{% if true %}".repeat(5000);
    let (source, expected) = pick(
        rng,
        &[
            ("{% if %}", "broken"),
            ("{% for m in messages %}", "broken"),
            ("{{ messages", "broken"),
            ("{{ 'a }}", "broken"),
            ("{% frobnicate %}", "broken"),
            ("{{ messages | frobnicate }}", "frobnicate"),
            ("{{ frobnicate() }}", "frobnicate"),
            ("{{ messages is frobnicate }}", "frobnicate"),
            ("{{ messages.frobnicate() }}", "frobnicate"),
            ("{% include 'other.jinja' %}", "other.jinja"),
            ("{% extends 'other.jinja' %}", "other.jinja"),
            ("{% import 'other.jinja' as other %}", "other.jinja"),
            ("{% include 'chat_template' %}", "recursion limit"),
            (
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                "recursion limit",
            ),
            (
                "{% macro f(x) %}{{ f([x, x]) }}{% endmacro %}{{ f(1) }}",
                "recursion limit",
            ),
            (
                "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                "steps",
            ),
            ("{{ 'a' * 10 ** 10 }}", "steps"),
            ("{{ [0] * 10 ** 10 }}", "a"),
            ("{{ range(10 ** 12) }}", "range"),
            ("{% for i in range(10 ** 12) %}{% endfor %}", "range"),
            ("{{ 10 ** 10 ** 10 }}", "render"),
            ("{{ 1 // 0 }}", "render"),
            ("{{ 1 + 'a' }}", "unsupported"),
            ("{{ '%s' | format }}", "render"),
            (
                "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}\
                 {% endfor %}",
                "steps",
            ),
            (
                "{% set x = 'aaaaaaaa' * 1000000 %}{% for i in range(99999) %}{{ x | trim | upper }}\
                 {% endfor %}",
                "a",
            ),
            (
                "{% set x = 'a' * 1000000 %}{% for i in range(50) %}{{ x }}{% endfor %}",
                "bytes",
            ),
            (deep.as_str(), "broken"),
            (nested.as_str(), "broken"),
        ],
    );
    let file = match rng.u8(..3) {
        0 => {
            folder.set_field(TOKENIZER_CONFIG, "/chat_template", json!(source));
            TOKENIZER_CONFIG
        }
        1 => {
            folder.set(
                "chat_template.json",
                json!({"chat_template": source}).to_string(),
            );
            "chat_template.json"
        }
        _ => {
            folder.set("chat_template.jinja", source);
            "chat_template.jinja"
        }
    };
    Damage::new(
        format!("template {source:.70}"),
        file,
        [expected.to_owned()],
    )
}
