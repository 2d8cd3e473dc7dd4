//! models.toml: every checkpoint of the family, with its numbers; and slips of the pen in it.

use std::num::NonZeroU32;
use std::path::Path;

use medgemma::config::{self, Command};
use medgemma::core::{ImageFit, Thinking, ToolFormat};
use medgemma::model::config::{LayerKind, ModelConfig, RopeParams, VisionConfig};
use medgemma::registry::{Catalog, CatalogEntry, HubModel, ModelSource, SamplingDefaults, resolve};

fn built_in() -> Catalog {
    Catalog::open(None).unwrap()
}

fn hub_model(name: &str) -> HubModel {
    match built_in().get(name) {
        Some((_, CatalogEntry::Hub(model))) => model.as_ref().clone(),
        other => panic!("{name}: {other:?}"),
    }
}

/// A row of the table of checkpoints.
struct Row {
    names: &'static [&'static str],
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    hidden: usize,
    mlp: usize,
    query_pre_attn_scalar: f64,
    window: usize,
    rope_factor: f64,
    context: usize,
    vocab: usize,
    images: bool,
    /// Numbers in the published files.
    parameters: u64,
}

const SIZE_27B: Row = Row {
    names: &["medgemma-27b-it", "gemma-3-27b-it", "gemma-3-27b-pt"],
    layers: 62,
    heads: 32,
    kv_heads: 16,
    head_dim: 128,
    hidden: 5376,
    mlp: 21504,
    query_pre_attn_scalar: 168.0,
    window: 1024,
    rope_factor: 8.0,
    context: 131_072,
    vocab: 262_208,
    images: true,
    parameters: 27_432_406_640,
};
const SIZE_1B: Row = Row {
    names: &["gemma-3-1b-it", "gemma-3-1b-pt"],
    layers: 26,
    heads: 4,
    kv_heads: 1,
    head_dim: 256,
    hidden: 1152,
    mlp: 6912,
    query_pre_attn_scalar: 256.0,
    window: 512,
    rope_factor: 1.0,
    context: 32_768,
    vocab: 262_144,
    images: false,
    parameters: 999_885_952,
};
const ROWS: [Row; 6] = [
    SIZE_27B,
    Row {
        names: &["medgemma-27b-text-it"],
        vocab: 262_144,
        images: false,
        // The multimodal one's without its tower (417 M) and 64 rows of the embedding.
        parameters: 27_009_002_240,
        ..SIZE_27B
    },
    Row {
        names: &["gemma-3-12b-it", "gemma-3-12b-pt"],
        layers: 48,
        heads: 16,
        kv_heads: 8,
        head_dim: 256,
        hidden: 3840,
        mlp: 15360,
        query_pre_attn_scalar: 256.0,
        parameters: 12_187_325_040,
        ..SIZE_27B
    },
    Row {
        names: &[
            "medgemma-4b-it",
            "medgemma-4b-pt",
            "medgemma-1.5-4b-it",
            "gemma-3-4b-it",
            "gemma-3-4b-pt",
        ],
        layers: 34,
        heads: 8,
        kv_heads: 4,
        head_dim: 256,
        hidden: 2560,
        mlp: 10240,
        query_pre_attn_scalar: 256.0,
        parameters: 4_300_079_472,
        ..SIZE_27B
    },
    SIZE_1B,
    Row {
        names: &["gemma-3-270m", "gemma-3-270m-it"],
        layers: 18,
        hidden: 640,
        mlp: 2048,
        parameters: 268_098_176,
        ..SIZE_1B
    },
];

fn check(name: &str, config: &ModelConfig, row: &Row) {
    let text = &config.text;
    let numbers = [
        (text.num_hidden_layers, row.layers),
        (text.num_attention_heads, row.heads),
        (text.num_key_value_heads, row.kv_heads),
        (text.head_dim, row.head_dim),
        (text.hidden_size, row.hidden),
        (text.intermediate_size, row.mlp),
        (text.sliding_window, row.window),
        (text.max_position_embeddings, row.context),
        (text.vocab_size, row.vocab),
    ];
    for (found, expected) in numbers {
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(
        text.query_pre_attn_scalar, row.query_pre_attn_scalar,
        "{name}"
    );
    assert_eq!(text.rms_norm_eps, 1e-6, "{name}");
    let global = RopeParams {
        theta: 1e6,
        factor: row.rope_factor,
    };
    let local = RopeParams {
        theta: 1e4,
        factor: 1.0,
    };
    assert_eq!(
        (text.rope_global, text.rope_local),
        (global, local),
        "{name}"
    );
    for (i, kind) in text.layer_kinds.iter().enumerate() {
        assert_eq!(
            *kind == LayerKind::Global,
            (i + 1) % 6 == 0,
            "{name}, layer {i}"
        );
    }
    let siglip = VisionConfig {
        hidden_size: 1152,
        intermediate_size: 4304,
        num_hidden_layers: 27,
        num_attention_heads: 16,
        image_size: 896,
        patch_size: 14,
        layer_norm_eps: 1e-6,
        mm_tokens_per_image: 256,
    };
    assert_eq!(config.vision, row.images.then_some(siglip), "{name}");
    assert_eq!(
        config.image_token_id,
        row.images.then_some(262_144),
        "{name}"
    );
    assert_eq!(config.eos_token_ids, [1, 106], "{name}");
    assert_eq!(config.num_parameters(), row.parameters, "{name}");
}

#[test]
fn every_checkpoint_has_the_familys_numbers() {
    let mut names = vec!["demo"];
    for row in &ROWS {
        for name in row.names {
            let model = hub_model(name);
            assert_eq!(model.hub, format!("google/{name}"));
            check(name, &model.config, row);
            names.push(name);
        }
    }
    names.sort_unstable();
    let catalog = built_in();
    let known: Vec<&str> = catalog.models().map(|(name, _)| name).collect();
    assert_eq!(known, names);
}

#[test]
fn who_thinks_is_known() {
    for (name, entry) in built_in().models() {
        let CatalogEntry::Hub(model) = entry else {
            continue;
        };
        let expected = match name {
            "medgemma-1.5-4b-it" => Thinking::Unasked,
            "medgemma-27b-it" | "medgemma-27b-text-it" => Thinking::OnRequest,
            _ => Thinking::Never,
        };
        assert_eq!(model.thinking, expected, "{name}");
    }
}

#[test]
fn sampling_is_the_checkpoints() {
    let usual = SamplingDefaults {
        temperature: 1.0,
        top_p: 0.95,
        top_k: NonZeroU32::new(64),
        ..SamplingDefaults::NEUTRAL
    };
    let greedy = SamplingDefaults::GREEDY;
    assert_eq!(hub_model("medgemma-4b-it").sampling, usual);
    assert_eq!(hub_model("gemma-3-270m").sampling, usual);
    assert_eq!(hub_model("medgemma-1.5-4b-it").sampling, greedy);
}

#[test]
fn models_are_found_by_name_and_by_hub_id() {
    let catalog = built_in();
    assert_eq!(
        catalog.get("medgemma-4b-it"),
        catalog.get("google/medgemma-4b-it")
    );
    assert_eq!(
        catalog.get("demo"),
        Some((
            "demo",
            &CatalogEntry::BuiltIn {
                thinking: Thinking::OnRequest
            }
        ))
    );
    assert_eq!(catalog.get("medgemma"), None);
    for (wrong, right) in [
        ("medgema-4b-it", Some("medgemma-4b-it")),
        ("google/medgemma-4b-ti", Some("medgemma-4b-it")),
        ("Medgemma-27B-it", Some("medgemma-27b-it")),
        ("gemma-3-270m-lt", Some("gemma-3-270m-it")),
        ("demmo", Some("demo")),
        ("llama-3-8b", None),
        ("x", None),
    ] {
        assert_eq!(catalog.nearest(wrong), right, "{wrong}");
    }
}

const SMALL: &str = r#"
[models.one]
hub = "me/one"
text = "small"
thinking = "never"
sampling = "plain"

[text.small]
num_hidden_layers = 2
hidden_size = 64

[sampling.plain]
temperature = 0.5
"#;

#[test]
fn a_file_of_ones_own_takes_the_place_of_the_built_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.toml");
    std::fs::write(&file, SMALL).unwrap();
    let catalog = Catalog::open(Some(&file)).unwrap();
    assert_eq!(catalog.models().count(), 1);
    let Some((_, CatalogEntry::Hub(model))) = catalog.get("one") else {
        panic!("the model is there");
    };
    assert_eq!(model.config.text.num_hidden_layers, 2);
    assert_eq!(model.sampling.temperature, 0.5);
    assert!(catalog.get("medgemma-4b-it").is_none());

    let missing = Catalog::open(Some(Path::new("/nowhere/models.toml"))).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("/nowhere/models.toml: cannot be read")
    );
}

#[test]
fn slips_are_named_with_their_line() {
    // What stands there, what is put in its place, and what the message says.
    let cases = [
        (
            "thinking = \"never\"",
            "thinking = \"never\"\ntool_format = \"xml\"",
            "line 6: models.one.tool_format is \"xml\"; it must be \"pythonic\" or \"json\"",
        ),
        (
            "thinking = \"never\"",
            "thinkin = \"never\"",
            "line 2: models.one.thinking is missing",
        ),
        (
            "thinking = \"never\"",
            "thinking = \"maybe\"",
            "line 5: models.one.thinking is \"maybe\"",
        ),
        (
            "hub = \"me/one\"",
            "hub = \"one\"",
            "line 3: models.one.hub is \"one\"",
        ),
        ("hub = \"me/one\"", "", "line 2: models.one.hub is missing"),
        (
            "hub = \"me/one\"",
            "hub = 3",
            "line 3: models.one.hub must be text",
        ),
        (
            "text = \"small\"",
            "text = \"large\"",
            "line 4: models.one.text is \"large\", but there is no [text.large]",
        ),
        (
            "text = \"small\"",
            "text = \"small\"\nvision = \"eye\"",
            "line 5: models.one.vision is \"eye\"",
        ),
        (
            "hidden_size = 64",
            "hiden_size = 64",
            "line 10: text.small.hiden_size is not a field of this file",
        ),
        (
            "hidden_size = 64",
            "hidden_size = 0",
            "line 10: text.small.hidden_size is 0",
        ),
        (
            "temperature = 0.5",
            "temperature = -1",
            "line 13: sampling.plain.temperature is -1",
        ),
        (
            "temperature = 0.5",
            "temprature = 0.5",
            "line 13: sampling.plain.temprature is not a field",
        ),
        (
            "[text.small]",
            "[texts.small]",
            "line 4: models.one.text is \"small\", but there is no",
        ),
        (
            "[sampling.plain]",
            "[colour]\na = 1\n[sampling.plain]",
            "line 12: colour is not a field",
        ),
        ("hidden_size = 64", "hidden_size =", "line 10: "),
        (
            "hidden_size = 64",
            "num_hidden_layers = 3",
            "line 10: duplicate key",
        ),
        (
            "[models.one]",
            "[models]\ntwo = 2\n[models.one]",
            "line 3: models.two must be an object",
        ),
    ];
    for (old, new, says) in cases {
        assert!(SMALL.contains(old), "{old}");
        let text = SMALL.replace(old, new);
        let message = Catalog::parse(Path::new("mine.toml"), &text)
            .map(|_| "it was taken".to_owned())
            .unwrap_or_else(|error| error.to_string());
        assert!(message.starts_with("mine.toml: "), "{message}");
        assert!(message.contains(says), "{old} → {new}: {message}");
    }
}

/// What `serve` would serve with these arguments.
fn served(arguments: &[&str]) -> ModelSource {
    let arguments = [&["medgemma", "serve"], arguments].concat();
    match config::parse(arguments.into_iter().map(Into::into)) {
        Ok(Command::Serve(settings)) => resolve(&settings).expect("it is there"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_thinks_as_its_name_says_unless_a_flag_does() {
    let parent = tempfile::tempdir().unwrap();
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/models/noise/config.json"
    );
    let mut dirs = ["medgemma-27b-text-it", "mine"].map(|name| parent.path().join(name));
    for dir in &mut dirs {
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(config, dir.join("config.json")).unwrap();
    }
    let [known, own] = dirs.each_ref().map(|dir| dir.to_str().expect("UTF-8"));
    for (arguments, thinking, tool_format) in [
        (&["demo"][..], Thinking::OnRequest, ToolFormat::Pythonic),
        (&[own], Thinking::Never, ToolFormat::Pythonic),
        (&[known], Thinking::OnRequest, ToolFormat::Pythonic),
        (
            &[known, "--thinking=never"],
            Thinking::Never,
            ToolFormat::Pythonic,
        ),
        (
            &[own, "--thinking", "unasked"],
            Thinking::Unasked,
            ToolFormat::Pythonic,
        ),
        (
            &["demo", "--thinking=unasked", "--tool-format=json"],
            Thinking::Unasked,
            ToolFormat::Json,
        ),
    ] {
        let source = served(arguments);
        assert_eq!(
            (source.thinking, source.tool_format),
            (thinking, tool_format),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_model_may_say_how_its_images_are_prepared() {
    let with = |table: &str| {
        let text = format!(
            "[models.a]\nhub = \"b/a\"\ntext = \"t\"\nthinking = \"never\"\nsampling = \"s\"\n{table}\n\
             [text.t]\nvocab_size = 9\nhidden_size = 8\nintermediate_size = 8\nnum_hidden_layers = 1\n\
             num_attention_heads = 1\nnum_key_value_heads = 1\nhead_dim = 8\n[sampling.s]\n"
        );
        Catalog::parse(Path::new("models.toml"), &text)
    };
    let catalog = with("[models.a.preparation]\nfit = \"pad\"\ndo_pan_and_scan = true");
    let catalog = catalog.expect("it is sound");
    let Some((_, CatalogEntry::Hub(model))) = catalog.get("a") else {
        panic!("it is on the hub");
    };
    let preparation = model.preparation.clone().resolve();
    assert_eq!(preparation.fit, ImageFit::Pad);
    assert!(preparation.pan_and_scan.is_some());
    for (table, said) in [
        ("preparation = { fitt = \"pad\" }", "preparation.fitt"),
        (
            "preparation = { window = \"spleen\" }",
            "preparation.window",
        ),
        ("preparation = 1", "preparation"),
    ] {
        let error = with(table).expect_err(table).to_string();
        assert!(error.contains("line 6"), "{error}");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn the_nearest_place_says_how_images_are_prepared() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("mine");
    std::fs::create_dir(&dir).unwrap();
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/models/noise/config.json"
    );
    std::fs::copy(config, dir.join("config.json")).unwrap();
    let own = r#"{"do_pan_and_scan": true, "pan_and_scan_max_num_crops": 3}"#;
    std::fs::write(dir.join("preprocessor_config.json"), own).unwrap();
    let models = parent.path().join("models.toml");
    let entry = "[models.mine]\nhub = \"a/mine\"\ntext = \"t\"\nthinking = \"never\"\nsampling = \"s\"\n\
                 preparation = { fit = \"pad\", pan_and_scan_max_num_crops = 2 }\n\
                 [text.t]\nvocab_size = 9\nhidden_size = 8\nintermediate_size = 8\n\
                 num_hidden_layers = 1\nnum_attention_heads = 1\nnum_key_value_heads = 1\n\
                 head_dim = 8\n[sampling.s]\n";
    std::fs::write(&models, entry).unwrap();
    let [dir, models] = [&dir, &models].map(|path| path.to_str().expect("UTF-8"));
    for (arguments, fit, max_num_crops) in [
        (&[dir][..], ImageFit::Squash, 3),
        (&[dir, "--models", models], ImageFit::Pad, 2),
    ] {
        let preparation = served(arguments).preparation.resolve();
        let crops = preparation.pan_and_scan.expect("the checkpoint has them");
        let found = (preparation.fit, crops.max_num_crops);
        assert_eq!(found, (fit, max_num_crops), "{arguments:?}");
    }
}
