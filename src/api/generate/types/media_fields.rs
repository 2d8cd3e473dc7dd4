//! Fields about the files of a request: how they are prepared, and whether the answer says so.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::json_text::ObjectText;
use crate::api::http::error::ApiError;
use crate::core::PreparationFields;
use crate::registry::ServedModel;

/// The field names' common beginning in errors.
const KWARGS: &str = "mm_processor_kwargs";

/// The fields. Absent and null are the same.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct MediaFields {
    /// vLLM's: how images are prepared: `fit` (`squash` or `pad`), `do_pan_and_scan`,
    /// `pan_and_scan_min_crop_size`, `pan_and_scan_max_num_crops`,
    /// `pan_and_scan_min_ratio_to_activate`, `window` (`model`, `header`, a preset such as `lung`,
    /// `{"center", "width"}`, or three of these) and `frames` (`even`, `all`, or numbers from 1).
    pub(crate) mm_processor_kwargs: Option<ObjectText>,
    /// This server's: whether the answer says in `inputs` what became of each file.
    #[schemars(extend("default" = false))]
    pub(crate) return_inputs: Option<bool>,
}

/// Reads `mm_processor_kwargs`.
///
/// # Errors
/// 400 with the path of a setting that is unknown, has a wrong value, or that this model does not
/// take.
pub(crate) fn read_preparation(
    field: Option<ObjectText>,
    model: &ServedModel,
) -> Result<PreparationFields, ApiError> {
    let Some(ObjectText(text)) = field else {
        return Ok(PreparationFields::default());
    };
    let settings: Map<String, Value> = serde_json::from_str(&text).map_err(|_| {
        let message =
            format!("'{KWARGS}' must be an object whose numbers are within their ranges.");
        ApiError::invalid_value(KWARGS, message)
    })?;
    let read = PreparationFields::read(&settings).and_then(|fields| {
        if let Some(images) = &model.images {
            fields.check_size(images.processor.size)?;
        }
        Ok(fields)
    });
    read.map_err(|error| {
        let param = format!("{KWARGS}.{}", error.name);
        let message = format!("'{param}' {}", error.message);
        ApiError::invalid_value(param, message)
    })
}
