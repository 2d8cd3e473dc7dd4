//! Fields of requests and responses that several endpoints share.
//!
//! Defines names, types and formats. Knows nothing of ranges or of what a model supports, nor of how
//! known but unsupported fields are refused (see `refused_fields`).

pub(crate) mod id_list;
pub(crate) mod inputs;
pub(crate) mod json_text;
pub(crate) mod label_fields;
pub(crate) mod logprobs;
pub(crate) mod media_fields;
pub(crate) mod output_format;
pub(crate) mod presence;
pub(crate) mod sampling_fields;
pub(crate) mod scheduling_fields;
pub(crate) mod seed;
pub(crate) mod stop_reason;
pub(crate) mod text_or;
mod token_id;
pub(crate) mod usage;
