//! Names and forms on the command line of settings that are defined in `core`.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use serde_json::{Map, Value};

use crate::core::{ImageFit, PreparationFields, Thinking, ToolFormat};

/// Reads the settings of images' preparation from a JSON object.
pub(super) fn preparation_fields(text: &str) -> Result<PreparationFields, String> {
    // As vLLM's launchers write it where nothing is given.
    if matches!(text.trim(), "" | "None" | "null") {
        return Ok(PreparationFields::default());
    }
    let settings: Map<String, Value> = serde_json::from_str(text)
        .map_err(|_| "it must be an object like {\"do_pan_and_scan\": true}".to_owned())?;
    PreparationFields::read(&settings).map_err(|error| error.to_string())
}

impl ValueEnum for Thinking {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Never, Self::OnRequest, Self::Unasked]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Never => "never",
            Self::OnRequest => "on-request",
            Self::Unasked => "unasked",
        }))
    }
}

impl ValueEnum for ToolFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Pythonic, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Pythonic => "pythonic",
            Self::Json => "json",
        }))
    }
}

impl ValueEnum for ImageFit {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Squash, Self::Pad]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Squash => "squash",
            Self::Pad => "pad",
        }))
    }
}
