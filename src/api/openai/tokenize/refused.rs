//! Fields that `/tokenize` knows but does not support.

use crate::api::http::refused_fields::{RefusedField, field};

/// The fields with their neutral values.
pub(crate) const REFUSED: &[RefusedField] = &[
    field(
        "chat_template",
        &[],
        "A template is chosen when the server starts.",
    ),
    field("media_io_kwargs", &["{}"], ""),
];
