//! Defaults for fields that a request does not set, and the limit of images.

use clap::{Args, ValueEnum};
use serde_json::Value;

/// Defaults for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDefaults {
    /// Source of the sampling settings that a request does not give.
    pub sampling: SamplingSource,
    /// First seed for requests without a seed; `None` draws each at random.
    pub seed: Option<u64>,
    /// Most images in one prompt; `None` is as many as fit.
    pub max_images: Option<usize>,
}

/// Source of the sampling settings that a request does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SamplingSource {
    /// The checkpoint's generation_config.json
    #[value(name = "auto")]
    Checkpoint,
    /// None: temperature 1, no top-k, no top-p
    #[value(name = "vllm")]
    Neutral,
}

#[derive(Debug, Args)]
pub(super) struct RequestDefaultArguments {
    /// Source of sampling settings that a request does not give: the checkpoint's
    /// generation_config.json (auto), or temperature 1, no top-k, no top-p (vllm)
    #[arg(
        long,
        value_name = "SOURCE",
        env = "MEDGEMMA_GENERATION_CONFIG",
        default_value = "auto",
        value_enum,
        help_heading = "Requests"
    )]
    generation_config: SamplingSource,

    /// First seed for requests without a seed; the same requests in the same order then get the
    /// same answers [default: drawn at random]
    #[arg(
        long,
        value_name = "NUMBER",
        env = "MEDGEMMA_SEED",
        help_heading = "Requests"
    )]
    seed: Option<u64>,

    /// Most images in one prompt: image=4, or {"image": 4} [default: as many as fit]
    #[arg(
        long,
        value_name = "LIMIT",
        env = "MEDGEMMA_LIMIT_MM_PER_PROMPT",
        value_parser = max_images,
        help_heading = "Requests"
    )]
    limit_mm_per_prompt: Option<usize>,
}

impl RequestDefaultArguments {
    pub(super) fn resolve(&self) -> RequestDefaults {
        RequestDefaults {
            sampling: self.generation_config,
            seed: self.seed,
            max_images: self.limit_mm_per_prompt,
        }
    }
}

/// Images a prompt, in either of vLLM's forms. Other media are never taken, so that any limit on
/// them but 0 asks for what there is not.
fn max_images(text: &str) -> Result<usize, String> {
    const FORM: &str = "it must be image=4 or {\"image\": 4}";
    let limits: Vec<(String, u64)> = if text.trim_start().starts_with('{') {
        let limits: serde_json::Map<String, Value> =
            serde_json::from_str(text).map_err(|_| FORM.to_owned())?;
        let count = |value: &Value| value.as_u64().or_else(|| value.get("count")?.as_u64());
        let limits = limits.into_iter().map(|(medium, value)| {
            let count = count(&value).ok_or(FORM)?;
            Ok((medium, count))
        });
        limits.collect::<Result<_, String>>()?
    } else {
        let limits = text.split(',').map(|limit| {
            let (medium, count) = limit.split_once('=').ok_or(FORM)?;
            let count = count.trim().parse().map_err(|_| FORM)?;
            Ok((medium.trim().to_owned(), count))
        });
        limits.collect::<Result<_, String>>()?
    };
    let mut images = None;
    for (medium, count) in limits {
        match (medium.as_str(), count) {
            ("image", count) => images = Some(usize::try_from(count).unwrap_or(usize::MAX)),
            (_, 0) => {}
            _ => return Err(format!("prompts hold text and images, no {medium}")),
        }
    }
    images.ok_or_else(|| FORM.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_limited_in_either_form() {
        for (text, limit) in [
            ("image=4", 4),
            ("image=0", 0),
            (" image = 16 , video=0", 16),
            ("{\"image\": 4}", 4),
            ("{\"video\": 0, \"image\": 2}", 2),
            ("{\"image\": {\"count\": 3, \"width\": 896}}", 3),
        ] {
            assert_eq!(max_images(text), Ok(limit), "{text}");
        }
        for text in [
            "",
            "4",
            "image",
            "image=",
            "image=-1",
            "image=x",
            "{}",
            "{\"image\": \"4\"}",
            "{\"image\"",
            "video=0",
            "[4]",
        ] {
            let error = max_images(text).expect_err(text);
            assert!(error.contains("image=4"), "{text}: {error}");
        }
        for text in ["image=1,video=1", "{\"audio\": 2}"] {
            assert!(
                max_images(text)
                    .expect_err(text)
                    .contains("text and images")
            );
        }
    }
}
