//! Reads a request's body, with limits on size and time, and deserializes it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::ApiError;
use super::json_census::JsonCensus;
use super::object::JsonObject;
use super::request_memory::{Charge, Claim};
use super::state::AppState;

/// Maximum body size: room for 85 slices of a volume, as base64 PNG.
pub const MAX_BODY: usize = 256 << 20;

/// Maximum body size for models without images: room for any text that a model can read.
const MAX_TEXT_BODY: usize = 16 << 20;

/// Maximum total time for a body, and maximum pause within it.
const BODY_TIME: Duration = Duration::from_secs(300);
const BODY_PAUSE: Duration = Duration::from_secs(30);
/// Minimum average rate in bytes per second, after one such pause. Any real connection is much
/// faster.
const MIN_BODY_RATE: u64 = 1024;

/// What some programs write before the first character of a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// How much of a rejected body is read, so that the client gets to read the response.
const MAX_DISCARDED: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// A body that was read.
#[derive(Debug)]
pub(crate) struct JsonBody {
    /// The body as text; not yet checked to be JSON.
    pub(crate) text: String,
    /// The memory charged for the body and for what is deserialized from it. Keep it alive as long
    /// as that data.
    pub(crate) held: Arc<Charge>,
}

/// Reads a body that must be JSON in UTF-8, within the memory limit for requests.
///
/// # Errors
/// 415, 413, 408, 503 when memory is exhausted, or 400 for a body that ends early, is not UTF-8 or
/// contains too many values.
pub(crate) async fn json_body(app: &AppState, request: Request) -> Result<JsonBody, ApiError> {
    let (head, body) = request.into_parts();
    let limit = max_body(app);
    let announced = match check_head(&head.headers, limit) {
        Ok(announced) => announced,
        Err(error) => {
            discard(&head.headers, body).await;
            return Err(error);
        }
    };
    let mut held = app.request_memory().charge();
    let mut census = JsonCensus::default();
    let begun = Instant::now();
    let mut body = body;
    let mut bytes = Vec::new();
    loop {
        let pause = patience(begun, bytes.len());
        let frame = timeout_at(pause, body.frame())
            .await
            .map_err(|_| ApiError::slow_body(BODY_PAUSE, BODY_TIME, MIN_BODY_RATE))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| ApiError::incomplete_body())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let len = bytes.len() + data.len();
        let taken = census.read(&data).and_then(|()| {
            if len > limit {
                return Err(ApiError::body_too_large(limit));
            }
            let claim = Claim::of_body(len.max(announced));
            held.hold_body(claim, len, &census)?;
            let capacity = next_capacity(bytes.capacity(), len, announced);
            bytes
                .try_reserve_exact(capacity - bytes.len())
                .map_err(|_| ApiError::no_memory())
        });
        if let Err(error) = taken {
            drop((bytes, held, data));
            discard(&head.headers, body).await;
            return Err(error);
        }
        bytes.extend_from_slice(&data);
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ApiError::invalid_json(None, format!("The body is not UTF-8: byte {at} is wrong."))
    })?;
    // Some programs of Windows begin a file with a byte order mark.
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(JsonBody {
        text,
        held: Arc::new(held),
    })
}

/// Returns the capacity for a body of which `len` bytes are known: twice as much, which its charge
/// covers, and not more than it announced. An announcement alone reserves nothing.
fn next_capacity(capacity: usize, len: usize, announced: usize) -> usize {
    if len <= capacity {
        return capacity;
    }
    let twice = len.saturating_mul(2);
    if announced < len {
        twice
    } else {
        twice.min(announced)
    }
}

/// Returns the deadline for the next bytes of a body that began at `begun` and of which `num_bytes`
/// have arrived.
fn patience(begun: Instant, num_bytes: usize) -> Instant {
    let earned = Duration::from_secs(num_bytes as u64 / MIN_BODY_RATE);
    let pause = Instant::now() + BODY_PAUSE;
    pause
        .min(begun + BODY_TIME)
        .min(begun + BODY_PAUSE + earned)
}

/// Returns the maximum body size.
fn max_body(app: &AppState) -> usize {
    let takes_images = app.model().is_ok_and(|model| model.images.is_some());
    let limit = if takes_images {
        MAX_BODY
    } else {
        MAX_TEXT_BODY
    };
    limit.min(app.request_memory().max_body())
}

/// Reads and discards the body of a rejected request. Otherwise a client that is still sending
/// would find the connection closed before it reads the error.
pub(crate) async fn discard(headers: &HeaderMap, mut body: Body) {
    // Such a client waits for `100 Continue` before it sends, and reading would send it.
    if headers.contains_key(EXPECT) {
        return;
    }
    let mut left = MAX_DISCARDED;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, |data| data.len());
            match left.checked_sub(len) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // A timeout does not matter: the response is sent in any case.
    let _ = timeout(DISCARD_TIME, reading).await;
}

/// Checks the headers and returns the announced length, or 0 if there is none.
fn check_head(headers: &HeaderMap, limit: usize) -> Result<usize, ApiError> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next());
    if !essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json")) {
        return Err(ApiError::unsupported_media_type(
            "The body must be JSON: send Content-Type: application/json.",
        ));
    }
    let encoding = headers.get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(ApiError::unsupported_media_type(
            "Compressed bodies are not read: send no Content-Encoding.",
        ));
    }
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|value| value.parse::<u64>().ok());
    match usize::try_from(announced.unwrap_or(0)) {
        Ok(announced) if announced <= limit => Ok(announced),
        _ => Err(ApiError::body_too_large(limit)),
    }
}

/// Deserializes one type from a JSON object and ignores unknown fields. Several types can be read
/// from the same body.
///
/// # Errors
/// 400 with the dotted path of the invalid field.
pub(crate) fn parse<'de, T: Deserialize<'de>>(body: &'de str) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    let JsonObject(value) = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| refusal(dotted(error.path()), error.inner()))?;
    deserializer.end().map_err(|error| refusal(None, &error))?;
    Ok(value)
}

/// Returns a path such as `messages[0].content`; `None` at the root.
fn dotted(path: &Path) -> Option<String> {
    let mut dotted = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => dotted.push_str(&format!("[{index}]")),
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                if !dotted.is_empty() {
                    dotted.push('.');
                }
                dotted.push_str(name);
            }
            // A key that could not be read.
            Segment::Unknown => break,
        }
    }
    (!dotted.is_empty()).then_some(dotted)
}

/// Converts serde's error, found at `path`.
fn refusal(path: Option<String>, error: &serde_json::Error) -> ApiError {
    let found = error.to_string();
    if error.classify() != Category::Data {
        return ApiError::invalid_json(path, format!("The body is not valid JSON: {found}."));
    }
    let inside = |name: &str| match &path {
        Some(path) => format!("{path}.{name}"),
        None => name.to_owned(),
    };
    if let Some(name) = quoted(&found, "missing field `") {
        return ApiError::missing(inside(name));
    }
    if let Some(name) = quoted(&found, "duplicate field `") {
        let param = inside(name);
        let message = format!("The parameter '{param}' is given twice.");
        return ApiError::invalid_json(Some(param), message);
    }
    if let Some(path) = &path
        && let Some(id) = quoted(&found, "invalid value: integer `")
        && found.contains("expected i32")
    {
        let message = format!("Token ids are smaller than 2147483648, got {id}.");
        return ApiError::invalid_value(path, message);
    }
    // The path is enough to find the field, so the line and column are removed.
    let found = found.split(" at line ").next().unwrap_or(&found);
    let found = found
        .replace("expected f64", "expected a number")
        .replace("expected i64", "expected an integer")
        .replace("expected i32", "expected a token id")
        .replace("expected a sequence", "expected an array");
    let message = match &path {
        Some(path) => format!("Invalid value for '{path}': {found}."),
        None => format!("The body must be a JSON object: {found}."),
    };
    ApiError::invalid_type(path, message)
}

/// Returns the name between the backquotes that follow `start`.
fn quoted<'m>(message: &'m str, start: &str) -> Option<&'m str> {
    message.strip_prefix(start)?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_moved_seldom_and_an_announcement_alone_reserves_nothing() {
        for (announced, len, num_moves) in [
            (0, 100_000_000, 17),
            (1_000_000, 1_000_000, 11),
            (100_000_000, 100_000_000, 18),
        ] {
            let (mut capacity, mut moves) = (0, 0);
            for len in (1000..=len).step_by(1000) {
                let next = next_capacity(capacity, len, announced);
                assert!(next >= len && next <= 2 * len, "{next} for {len}");
                moves += usize::from(next != capacity);
                capacity = next;
            }
            assert!(announced == 0 || capacity == announced, "{capacity}");
            assert!(moves <= num_moves, "{moves} for {announced}");
        }
    }
}
