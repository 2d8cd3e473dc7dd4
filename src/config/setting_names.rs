//! Names on the command line of settings that are defined in `core`.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::core::{ImageFit, Thinking, ToolFormat};

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
