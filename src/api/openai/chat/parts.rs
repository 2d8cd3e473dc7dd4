//! Converts the parts of a message: texts, and the places of images.

use std::fmt::Display;

use super::message::{FilePart, ImageUrl, Part};
use crate::api::generate::media::WireMedia;
use crate::api::generate::types::presence::Presence;
use crate::api::http::error::ApiError;
use crate::error::ImageError;
use crate::text;

/// Converts the parts of a message's content, at `path`, and adds their files to `media`.
///
/// # Errors
/// 400 with the path of a part that a message of this role cannot hold.
pub(super) fn convert_parts(
    path: &str,
    role: &text::Role,
    wire: Vec<Part>,
    media: &mut Vec<WireMedia>,
) -> Result<Vec<text::Part>, ApiError> {
    if wire.is_empty() {
        return Err(ApiError::invalid_value(
            path,
            format!("'{path}' must not be empty."),
        ));
    }
    let mut parts = Vec::with_capacity(wire.len());
    for (part_idx, part) in wire.into_iter().enumerate() {
        let param = format!("{path}[{part_idx}]");
        match read_part(&param, part)? {
            PartContent::Text(text) => match (role, parts.last_mut()) {
                (text::Role::System, Some(text::Part::Text(before))) => {
                    before.push('\n');
                    before.push_str(&text);
                }
                _ => parts.push(text::Part::Text(text)),
            },
            PartContent::Refusal(refusal) if *role == text::Role::Assistant => {
                parts.push(text::Part::Text(refusal));
            }
            PartContent::Refusal(_) => return Err(unknown_part(&param, "refusal")),
            PartContent::Image(_) if *role == text::Role::System => {
                return Err(ApiError::invalid_value(
                    param,
                    "A system message cannot hold images. Put them into a user message.",
                ));
            }
            PartContent::Image(image) => parts.push(place_image(param, image, media)?),
        }
    }
    Ok(parts)
}

/// What a part holds, under whichever of its names.
#[derive(Debug)]
pub(super) enum PartContent {
    Text(String),
    Refusal(String),
    Image(ImageUrl),
}

/// Reads the part at `path`.
///
/// # Errors
/// 400 with the path of a field that is missing, or known and not supported.
pub(super) fn read_part(path: &str, part: Part) -> Result<PartContent, ApiError> {
    if part.uuid == Presence::Set {
        return Err(not_served(format!("{path}.uuid")));
    }
    match part.kind.as_str() {
        "text" | "input_text" | "output_text" => {
            let text = part.text.ok_or_else(|| missing(&path, "text"))?;
            Ok(PartContent::Text(text))
        }
        "refusal" => {
            let refusal = part.refusal.ok_or_else(|| missing(&path, "refusal"))?;
            Ok(PartContent::Refusal(refusal))
        }
        "image_url" | "input_image" => {
            let image = part.image_url.ok_or_else(|| missing(&path, "image_url"))?;
            Ok(PartContent::Image(image))
        }
        "image" => {
            let image = part.image.or(part.image_url);
            let image = image.or_else(|| part.url.map(|url| ImageUrl { url }));
            let image = image.ok_or_else(|| missing(&path, "image"))?;
            Ok(PartContent::Image(image))
        }
        "file" => {
            let file = part.file.ok_or_else(|| missing(&path, "file"))?;
            read_file(&format!("{path}.file"), file.0).map(PartContent::Image)
        }
        kind => Err(unknown_part(path, kind)),
    }
}

/// Reads the file at `path`, whose content says later what it is.
fn read_file(path: &str, file: FilePart) -> Result<ImageUrl, ApiError> {
    if file.file_id == Presence::Set {
        let param = format!("{path}.file_id");
        let message = format!(
            "There are no uploaded files here: send the file itself in '{path}.file_data', as a data \
             URI."
        );
        return Err(ApiError::unsupported(param, message));
    }
    let mut url = (file.file_data).ok_or_else(|| missing(&path, "file_data"))?;
    // OpenAI's documentation has it bare, too.
    if !url.contains(':') {
        url.insert_str(0, "data:;base64,");
    }
    Ok(ImageUrl { url })
}

fn unknown_part(path: &str, kind: &str) -> ApiError {
    let message = format!(
        "A part's type must be text, image_url or file; '{kind}' is not supported by this server."
    );
    ApiError::unsupported(format!("{path}.type"), message)
}

/// Adds the file of the image part at `param` to `media`, and returns its place in the prompt.
///
/// # Errors
/// 400 for a part without a data URI.
pub(super) fn place_image(
    param: String,
    image: ImageUrl,
    media: &mut Vec<WireMedia>,
) -> Result<text::Part, ApiError> {
    check_url(&param, &image.url)?;
    media.push(WireMedia {
        param,
        url: image.url,
    });
    Ok(text::Part::Image)
}

/// Rejects URLs that decoding would certainly reject, before anything is decoded.
fn check_url(param: &str, url: &str) -> Result<(), ApiError> {
    let is_scheme = |scheme: &str| {
        let start = url.trim_start().get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if is_scheme("http:") || is_scheme("https:") {
        return Err(ApiError::from(ImageError::Remote).at(param));
    }
    if !is_scheme("data:") {
        return Err(ApiError::from(ImageError::BadDataUri).at(param));
    }
    Ok(())
}

/// Returns the error of a field of a message that is known and not supported.
pub(super) fn not_served(param: String) -> ApiError {
    let message = format!("The parameter '{param}' is not supported by this server. Leave it out.");
    ApiError::unsupported(param, message)
}

/// Returns the error of a part without the field `name`.
pub(super) fn missing(path: &dyn Display, name: &str) -> ApiError {
    ApiError::missing(format!("{path}.{name}"))
}
