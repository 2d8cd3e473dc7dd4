//! Checks preprocessor_config.json and processor_config.json: they must describe preprocessing that
//! the server does.
//!
//! Only pan and scan is taken from these files: sizes follow from config.json. A checkpoint that
//! needs other preprocessing is refused, since it would give wrong answers.

use std::path::Path;

use serde_json::{Value, json};

use super::model_files::ModelFiles;
use crate::core::PreparationFields;
use crate::error::Result;
use crate::files::json_fields::Fields;
use crate::model::config::VisionConfig;

/// Checks both files, if they exist, and returns what they say of pan and scan.
///
/// # Errors
/// Returns `Checkpoint`, naming the file and field that differ from what the server does.
pub(super) fn check(files: &ModelFiles, vision: &VisionConfig) -> Result<PreparationFields> {
    let mut preparation = PreparationFields::default();
    for name in ["preprocessor_config.json", "processor_config.json"] {
        let Some(text) = files.read(name)? else {
            continue;
        };
        let fields = check_processor_config(&files.path(name), &text, vision)?;
        preparation = preparation.or(&fields);
    }
    Ok(preparation)
}

/// Checks the text of either file, which is named in errors, and returns what it says of pan and
/// scan.
///
/// # Errors
/// Returns `Checkpoint`, naming the file and field that differ from what the server does.
pub fn check_processor_config(
    file: &Path,
    text: &[u8],
    vision: &VisionConfig,
) -> Result<PreparationFields> {
    check_value(file, &crate::files::json(file, text)?, vision)
}

fn check_value(file: &Path, value: &Value, vision: &VisionConfig) -> Result<PreparationFields> {
    let root = Fields::new(file, value)?;
    let preparation = check_fields(&root, vision)?;
    // Version 5 of transformers writes one file that contains the image settings.
    match root.section("image_processor")? {
        Some(inner) => Ok(preparation.or(&check_fields(&inner, vision)?)),
        None => Ok(preparation),
    }
}

fn check_fields(fields: &Fields<'_>, vision: &VisionConfig) -> Result<PreparationFields> {
    let tokens = vision.mm_tokens_per_image;
    expect(fields, "image_seq_length", &json!(tokens))?;
    if let Some(size) = fields.section("size")? {
        expect(&size, "height", &json!(vision.image_size))?;
        expect(&size, "width", &json!(vision.image_size))?;
    }
    for name in ["do_resize", "do_rescale", "do_normalize"] {
        expect(fields, name, &json!(true))?;
    }
    expect(fields, "resample", &json!(2))?; // bilinear
    for name in ["image_mean", "image_std"] {
        expect(fields, name, &json!([0.5, 0.5, 0.5]))?;
    }
    match fields.number("rescale_factor", 0.0, 1.0)? {
        Some(factor) if (factor * 255.0 - 1.0).abs() > 1e-6 => Err(fields.error(
            "rescale_factor",
            format_args!("is {factor}; only 1/255 is supported"),
        )),
        _ => pan_and_scan(fields),
    }
}

fn pan_and_scan(fields: &Fields<'_>) -> Result<PreparationFields> {
    const NAMES: [&str; 4] = [
        "do_pan_and_scan",
        "pan_and_scan_min_crop_size",
        "pan_and_scan_max_num_crops",
        "pan_and_scan_min_ratio_to_activate",
    ];
    let settings = NAMES.iter().filter_map(|name| {
        let value = fields.get(name)?.clone();
        Some(((*name).to_owned(), value))
    });
    PreparationFields::read(&settings.collect())
        .map_err(|error| fields.error(&error.name, error.message))
}

fn expect(fields: &Fields<'_>, name: &str, expected: &Value) -> Result<()> {
    match fields.get(name) {
        Some(found) if found != expected => Err(fields.error(
            name,
            format_args!("is {found}; with this config.json only {expected} is supported"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISION: VisionConfig = VisionConfig {
        hidden_size: 1152,
        intermediate_size: 4304,
        num_hidden_layers: 27,
        num_attention_heads: 16,
        image_size: 896,
        patch_size: 14,
        layer_norm_eps: 1e-6,
        mm_tokens_per_image: 256,
    };

    fn check(value: &Value) -> Result<PreparationFields> {
        check_value(Path::new("preprocessor_config.json"), value, &VISION)
    }

    /// The values of the hub's checkpoints.
    fn usual() -> Value {
        json!({
            "do_convert_rgb": null, "do_normalize": true, "do_pan_and_scan": null,
            "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5], "image_seq_length": 256, "resample": 2,
            "rescale_factor": 0.00392156862745098, "size": {"height": 896, "width": 896},
            "processor_class": "Gemma3Processor"
        })
    }

    #[test]
    fn the_familys_preparation_is_taken() {
        check(&usual()).unwrap();
        check(&json!({})).unwrap();
        check(&json!({"image_seq_length": 256, "image_processor": usual()})).unwrap();
    }

    #[test]
    fn pan_and_scan_is_heeded() {
        let mut config = usual();
        assert_eq!(check(&config).unwrap(), PreparationFields::default());
        config["do_pan_and_scan"] = json!(true);
        config["pan_and_scan_max_num_crops"] = json!(3);
        for config in [config.clone(), json!({"image_processor": config})] {
            let preparation = check(&config).unwrap().resolve();
            let crops = preparation.pan_and_scan.expect("it is switched on");
            assert_eq!((crops.max_num_crops, crops.min_crop_size), (3, 256));
        }
    }

    #[test]
    fn another_preparation_is_refused_by_name() {
        for (field, value) in [
            ("image_seq_length", json!(64)),
            ("size", json!({"height": 896, "width": 448})),
            ("do_resize", json!(false)),
            ("do_rescale", json!(false)),
            ("do_normalize", json!(false)),
            ("do_pan_and_scan", json!("sometimes")),
            ("pan_and_scan_max_num_crops", json!(0)),
            ("resample", json!(3)),
            ("image_mean", json!([0.48, 0.46, 0.41])),
            ("image_std", json!([0.5, 0.5, 0.4])),
            ("rescale_factor", json!(0.5)),
        ] {
            let mut config = usual();
            config[field] = value;
            for config in [config.clone(), json!({"image_processor": config})] {
                let message = check(&config).unwrap_err().to_string();
                assert!(message.contains(field), "{message}");
            }
        }
    }
}
