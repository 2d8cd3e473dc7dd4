//! Reads generation_config.json: a checkpoint's sampling defaults and stop tokens.

use std::num::NonZeroU32;
use std::path::Path;

use super::SamplingDefaults;
use crate::error::Result;
use crate::files;
use crate::files::json_fields::Fields;

/// Contents of a generation_config.json.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// Sampling defaults for requests that do not specify them.
    pub sampling: SamplingDefaults,
    /// Tokens that end an answer; empty when the file has none.
    pub eos_token_ids: Vec<u32>,
    /// Fields that would change answers but are not supported.
    pub ignored: Vec<String>,
}

impl Default for GenerationConfig {
    /// Greedy, like transformers without the file.
    fn default() -> Self {
        Self {
            sampling: SamplingDefaults::GREEDY,
            eos_token_ids: Vec::new(),
            ignored: Vec::new(),
        }
    }
}

impl GenerationConfig {
    /// Reads the file's text; `file` is named in errors.
    ///
    /// # Errors
    /// Returns `Checkpoint` for invalid JSON and for values out of range.
    pub fn from_json(file: &Path, text: &[u8]) -> Result<Self> {
        let value = files::json(file, text)?;
        let fields = Fields::new(file, &value)?;
        let mut sampling = sampling_defaults(&fields)?;
        match fields.flag("do_sample")? {
            Some(false) => sampling.temperature = 0.0,
            Some(true) => sampling.temperature = temperature(&fields)?.unwrap_or(1.0),
            // Some files have these settings without do_sample.
            None if fields.get("top_k").is_some() || fields.get("top_p").is_some() => {
                sampling.temperature = temperature(&fields)?.unwrap_or(1.0);
            }
            None => {}
        }
        const NEUTRAL: [(&str, f64); 3] = [
            ("no_repeat_ngram_size", 0.0),
            ("typical_p", 1.0),
            ("length_penalty", 1.0),
        ];
        let ignored = NEUTRAL
            .iter()
            .filter(|(name, neutral)| {
                fields
                    .get(name)
                    .is_some_and(|value| value.as_f64() != Some(*neutral))
            })
            .map(|(name, _)| (*name).to_owned())
            .collect();
        Ok(Self {
            sampling,
            eos_token_ids: fields.token_ids("eos_token_id")?,
            ignored,
        })
    }
}

/// Returns temperature, top_k, top_p, min_p and repetition_penalty from the file; missing ones mean
/// greedy, no limits and no penalty.
pub(super) fn sampling_defaults(fields: &Fields<'_>) -> Result<SamplingDefaults> {
    let top_k = match fields.get("top_k") {
        None => None,
        Some(value) => match value.as_u64().and_then(|k| u32::try_from(k).ok()) {
            Some(k) => NonZeroU32::new(k),
            None => return Err(fields.wrong_type("top_k", "a whole number", value)),
        },
    };
    let top_p = fields
        .number("top_p", f64::from(f32::MIN_POSITIVE), 1.0)?
        .unwrap_or(1.0);
    let min_p = fields.number("min_p", 0.0, 1.0)?.unwrap_or(0.0);
    // The range that requests have.
    let repetition_penalty = fields.number("repetition_penalty", 1e-20, 10.0)?;
    Ok(SamplingDefaults {
        temperature: temperature(fields)?.unwrap_or(0.0),
        top_p: top_p as f32,
        top_k,
        min_p: min_p as f32,
        repetition_penalty: repetition_penalty.unwrap_or(1.0) as f32,
    })
}

fn temperature(fields: &Fields<'_>) -> Result<Option<f32>> {
    let temperature = fields.number("temperature", 0.0, 2.0)?;
    Ok(temperature.map(|temperature| temperature as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GenerationConfig> {
        GenerationConfig::from_json(Path::new("generation_config.json"), text.as_bytes())
    }

    #[test]
    fn what_is_named_counts_and_what_is_not_is_greedy() {
        // Temperature, top_k (0: off), top_p.
        let cases = [
            ("{}", (0.0, 0, 1.0)),
            (r#"{"eos_token_id": 1, "do_sample": false}"#, (0.0, 0, 1.0)),
            // A file of the hub.
            (
                r#"{"do_sample": true, "top_k": 64, "top_p": 0.95}"#,
                (1.0, 64, 0.95),
            ),
            (r#"{"top_k": 64, "top_p": 0.95}"#, (1.0, 64, 0.95)),
            (r#"{"do_sample": true}"#, (1.0, 0, 1.0)),
            (r#"{"temperature": 0.7}"#, (0.7, 0, 1.0)),
            (
                r#"{"temperature": 0.7, "do_sample": true, "top_k": 0}"#,
                (0.7, 0, 1.0),
            ),
            (
                r#"{"temperature": 0.7, "do_sample": false, "top_p": 0.5}"#,
                (0.0, 0, 0.5),
            ),
            (
                r#"{"temperature": null, "top_k": null, "do_sample": null}"#,
                (0.0, 0, 1.0),
            ),
        ];
        for (text, (temperature, top_k, top_p)) in cases {
            let expected = SamplingDefaults {
                temperature,
                top_p,
                top_k: NonZeroU32::new(top_k),
                ..SamplingDefaults::GREEDY
            };
            assert_eq!(read(text).unwrap().sampling, expected, "{text}");
        }
    }

    #[test]
    fn stop_tokens_are_one_or_several() {
        for (text, ids) in [
            ("{}", &[][..]),
            (r#"{"eos_token_id": 106}"#, &[106]),
            (r#"{"eos_token_id": [1, 106]}"#, &[1, 106]),
        ] {
            assert_eq!(read(text).unwrap().eos_token_ids, ids);
        }
    }

    #[test]
    fn wishes_that_are_not_granted_are_known() {
        let text =
            r#"{"no_repeat_ngram_size": 3, "min_p": 0.0, "length_penalty": 2, "typical_p": 1}"#;
        assert_eq!(
            read(text).unwrap().ignored,
            ["no_repeat_ngram_size", "length_penalty"]
        );
    }

    #[test]
    fn penalties_and_min_p_are_defaults_too() {
        let text = r#"{"do_sample": true, "repetition_penalty": 1.25, "min_p": 0.125}"#;
        let GenerationConfig {
            sampling, ignored, ..
        } = read(text).unwrap();
        let expected = SamplingDefaults {
            min_p: 0.125,
            repetition_penalty: 1.25,
            ..SamplingDefaults::NEUTRAL
        };
        assert_eq!((sampling, ignored), (expected, Vec::new()));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (text, field) in [
            (r#"{"temperature": -1}"#, "temperature is -1"),
            (r#"{"temperature": "hot"}"#, "temperature must be a number"),
            (r#"{"top_p": 0}"#, "top_p is 0"),
            (r#"{"top_p": 1.5}"#, "top_p is 1.5"),
            // As f32 it would be 0.
            (r#"{"top_p": 1e-300}"#, "top_p is 0.000"),
            (r#"{"top_k": -1}"#, "top_k must be a whole number"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty is 0"),
            (r#"{"repetition_penalty": 11}"#, "repetition_penalty is 11"),
            (r#"{"min_p": 1.5}"#, "min_p is 1.5"),
            (r#"{"do_sample": 1}"#, "do_sample must be true or false"),
            (
                r#"{"eos_token_id": "x"}"#,
                "eos_token_id must be a token id",
            ),
            ("[", "not valid JSON"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with("generation_config.json: "), "{message}");
            assert!(message.contains(field), "{message}");
        }
    }
}
