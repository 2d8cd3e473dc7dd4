//! Refuses quantised checkpoints, with the method's name and what to use instead.

use serde_json::Value;

use crate::error::Result;
use crate::files::json_fields::Fields;
use crate::files::shown;

/// Fields of a config.json that say how weights are quantised; `quantization` is MLX's.
const FIELDS: [&str; 2] = ["quantization_config", "quantization"];

/// Refuses a config whose weights are quantised.
///
/// # Errors
/// Returns `Checkpoint`, naming the field, the method as far as the config says it, and what to
/// serve instead.
pub(super) fn refuse_quantised(fields: &Fields<'_>) -> Result<()> {
    let Some((name, value)) = FIELDS
        .iter()
        .find_map(|name| Some((*name, fields.get(name)?)))
    else {
        return Ok(());
    };
    Err(fields.error(
        name,
        format_args!(
            "says that the weights are quantised{}, which is not supported: serve the checkpoint \
             that this one was made from, with weights in BF16, F16 or F32 (as medgemma-4b-it has \
             them)",
            method(name, value)
        ),
    ))
}

/// ` by METHOD (BITS bits)`, as far as it is known.
fn method(name: &str, value: &Value) -> String {
    let is_set = |flag: &str| value[flag] == Value::Bool(true);
    let named = match value["quant_method"].as_str() {
        Some(named) => Some(shown(named)),
        None if is_set("load_in_4bit") || is_set("load_in_8bit") => Some("bitsandbytes".to_owned()),
        // MLX writes its settings under both names, without a method.
        None if name == "quantization" || value["group_size"].is_u64() => Some("MLX".to_owned()),
        None => None,
    };
    let bits = match value["bits"].as_u64() {
        Some(bits) => Some(bits),
        None if is_set("load_in_4bit") => Some(4),
        None if is_set("load_in_8bit") => Some(8),
        None => None,
    };
    let named = named.map_or(String::new(), |named| format!(" by {named}"));
    let bits = bits.map_or(String::new(), |bits| format!(" ({bits} bits)"));
    named + &bits
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_method_is_named_and_what_to_use() {
        for (config, says) in [
            (
                json!({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}),
                "quantization_config says that the weights are quantised by gptq (4 bits), ",
            ),
            (
                json!({"quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}}),
                "quantised by bitsandbytes (4 bits), ",
            ),
            (
                json!({"quantization_config": {"quant_method": "compressed-tensors"}}),
                "quantised by compressed-tensors, ",
            ),
            (
                json!({"quantization": {"group_size": 64, "bits": 4}}),
                "quantization says that the weights are quantised by MLX (4 bits), ",
            ),
            (
                json!({"quantization_config": {}}),
                "the weights are quantised, ",
            ),
            (
                json!({"quantization_config": {"quant_method": "x".repeat(9999)}}),
                "quantised by xxx",
            ),
        ] {
            let fields = Fields::new(Path::new("config.json"), &config).unwrap();
            let error = refuse_quantised(&fields).unwrap_err().to_string();
            for part in ["config.json: ", says, "serve the checkpoint", "BF16"] {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert!(error.len() < 700, "{error}");
        }
    }

    #[test]
    fn what_is_not_quantised_is_taken() {
        for config in [
            json!({}),
            json!({"quantization_config": null, "quantization": null}),
        ] {
            let fields = Fields::new(Path::new("config.json"), &config).unwrap();
            refuse_quantised(&fields).unwrap();
        }
    }
}
