//! The reasons for which the API itself rejects a request, each with its status and code.

use std::time::Duration;

use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};

use super::{ApiError, INVALID_JSON, INVALID_KEY};

impl ApiError {
    /// A value that the field does not accept.
    pub(crate) fn invalid_value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_value", message).at(param)
    }

    /// A value of the wrong type.
    pub(crate) fn invalid_type(param: Option<String>, message: impl Into<String>) -> Self {
        let error = Self::bad_request("invalid_type", message);
        match param {
            Some(param) => error.at(param),
            None => error,
        }
    }

    /// A body that is not JSON.
    pub(crate) fn invalid_json(param: Option<String>, message: impl Into<String>) -> Self {
        let error = Self::bad_request(INVALID_JSON, message);
        match param {
            Some(param) => error.at(param),
            None => error,
        }
    }

    /// A required field that is missing.
    pub(crate) fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("Missing required parameter: '{param}'.");
        Self::bad_request("missing_required_parameter", message).at(param)
    }

    /// A known field that is not supported.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", message).at(param)
    }

    /// More images in a prompt than the server accepts. `param` names the first one beyond the
    /// limit.
    pub(crate) fn too_many_images(param: &str, num_images: usize, max_images: usize) -> Self {
        let message = format!(
            "This request has {num_images} images, but this server takes at most {max_images} in \
             a prompt (--limit-mm-per-prompt)."
        );
        Self::bad_request("too_many_images", message).at(param)
    }

    /// Fields that contradict each other.
    pub(crate) fn contradiction(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_combination", message).at(param)
    }

    /// A prompt that is certainly too long, judged by its size before it is tokenized.
    pub(crate) fn prompt_far_too_long(max_tokens: usize, least_tokens: usize) -> Self {
        Self::bad_request(
            "context_length_exceeded",
            format!(
                "This model's maximum context length is {max_tokens} tokens. However, your prompt \
                 contains at least {least_tokens} input tokens. Please shorten it."
            ),
        )
    }

    /// A body that ended early.
    pub(crate) fn incomplete_body() -> Self {
        Self::bad_request(
            "invalid_request",
            "The request's body ended before it was complete.",
        )
    }

    /// A body that paused for longer than `pause`, took longer than `whole`, or arrived at less
    /// than `rate` bytes per second.
    pub(crate) fn slow_body(pause: Duration, whole: Duration, rate: u64) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            format!(
                "The request's body arrived too slowly: it may pause for {} seconds, must then \
                 arrive at {rate} bytes per second or more, and may take {} seconds in all.",
                pause.as_secs(),
                whole.as_secs()
            ),
        )
        .with_code("request_timeout")
    }

    /// A body that is larger than the limit.
    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            format!("The request's body is larger than {limit} bytes, the most that is accepted."),
        )
        .with_code("request_too_large")
    }

    /// A body with too many values of one kind.
    pub(crate) fn too_many_values(what: &str, limit: usize) -> Self {
        let message = format!(
            "The request has more than {limit} {what}, the most that is taken. Send fewer, or \
             several requests."
        );
        Self::bad_request("request_too_complex", message)
    }

    /// The memory for requests is exhausted.
    pub(crate) fn no_memory() -> Self {
        Self::unavailable(
            "request_memory_full",
            "The server's memory for requests is full (--max-request-memory). Try again in 1 s.",
        )
        .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// A request that needs more memory than all requests together may hold.
    pub(crate) fn never_enough_memory(bytes: u64, limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            format!(
                "This request takes {bytes} bytes of memory to read, and the server may use \
                 {limit} for it (--max-request-memory). Send less in one request."
            ),
        )
        .with_code("request_too_large")
    }

    /// A body whose content type is not JSON.
    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            message,
        )
        .with_code("unsupported_media_type")
    }

    /// A missing or wrong key.
    pub(crate) fn unauthorized(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
            .with_code(INVALID_KEY)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Too many wrong keys from the client's address.
    pub(crate) fn too_many_wrong_keys(wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            format!(
                "Incorrect API key, and too many incorrect keys from your address: wait {seconds} \
                 seconds before trying another. A correct key is always accepted."
            ),
        )
        .with_code("too_many_wrong_keys")
        .with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// A client's key does not give access to the metrics, because several clients have keys.
    pub(crate) fn metrics_key_required() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "permission_error",
            "This server has several API keys, and /metrics covers all clients. Start it with \
             --metrics-key, or serve metrics on a separate port with --metrics-port.",
        )
        .with_code("metrics_key_required")
    }

    /// A request whose `Host` is missing where one is needed, repeated or invalid.
    pub(crate) fn bad_host(message: &'static str) -> Self {
        Self::bad_request("invalid_host", message)
    }

    /// A request to a host name that is not this server's. The status is 403 rather than 421:
    /// clients handle it well, and another connection would not help.
    pub(crate) fn foreign_host(host: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "permission_error",
            format!(
                "This server is not known as '{host}'. If that name is right, start the server \
                 with --allowed-hosts {host}."
            ),
        )
        .with_code("host_not_allowed")
    }

    /// A request from a web page of another site.
    pub(crate) fn foreign_origin(origin: Option<&str>) -> Self {
        let message = match origin {
            Some(origin) => format!(
                "Pages of {origin} may not use this server. If they should, start the server with \
                 --allowed-origins {origin}."
            ),
            None => "Pages of other sites may not use this server. If they should, start the \
                     server with --allowed-origins and the site's origin, such as \
                     https://app.example.org."
                .to_owned(),
        };
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
            .with_code("origin_not_allowed")
    }

    /// An unknown value of the `Expect` header.
    pub(crate) fn unknown_expectation() -> Self {
        Self::new(
            StatusCode::EXPECTATION_FAILED,
            "invalid_request_error",
            "The header Expect supports only 100-continue. Leave it out.",
        )
        .with_code("unknown_expectation")
    }

    /// An unknown `Transfer-Encoding`.
    pub(crate) fn unknown_transfer_coding() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "invalid_request_error",
            "The header Transfer-Encoding supports only chunked. Send a Content-Length.",
        )
        .with_code("unknown_transfer_coding")
    }

    /// All connections are in use.
    pub(crate) fn too_many_connections() -> Self {
        Self::unavailable(
            "too_many_connections",
            "This server has reached its limit of connections, in all or from your address. Try \
             again, or keep one connection open and use it for several requests.",
        )
        .with_header(RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// A request head that is not valid HTTP, by the status with which it is answered. `None` for
    /// other statuses.
    pub(crate) fn malformed_head(status: u16) -> Option<Self> {
        let status = StatusCode::from_u16(status).ok()?;
        let (code, message) = match status {
            StatusCode::BAD_REQUEST => (
                "malformed_request",
                "The data is not a valid HTTP/1.1 request.",
            ),
            StatusCode::URI_TOO_LONG => ("uri_too_long", "The request's target is too long."),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
                "headers_too_large",
                "The request's headers are too large or too many.",
            ),
            _ => return None,
        };
        Some(Self::new(status, "invalid_request_error", message).with_code(code))
    }

    /// A key without permission for what the request asks.
    pub(crate) fn forbidden(param: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
            .with_code("permission_denied")
            .at(param)
    }

    /// A key that has reached a limit. `limits` are the rate limit headers.
    pub(crate) fn rate_limited(
        message: impl Into<String>,
        retry_after: Duration,
        limits: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
            .with_code("rate_limit_exceeded")
            .with_header(RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
        error.headers.extend(limits);
        error
    }

    /// An unknown route.
    pub(crate) fn unknown_route(method: &Method, path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!("Unknown route: {method} {path}."),
        )
        .with_code("not_found")
    }

    /// A route that others have, and what there is in its place.
    pub(crate) fn route_not_served(method: &Method, path: &str, instead: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!("{method} {path} is not served: {instead}."),
        )
        .with_code("route_not_served")
    }

    /// A known route with an unsupported method.
    pub(crate) fn wrong_method(method: &Method, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            format!("{path} does not take {method}."),
        )
        .with_code("method_not_allowed")
    }

    /// A model that is not served here.
    pub(crate) fn unknown_model(asked: &str, served: &[String]) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!(
                "The model '{asked}' does not exist. This server serves: {}.",
                served.join(", ")
            ),
        )
        .with_code("model_not_found")
        .at("model")
    }

    /// The model is not loaded yet.
    pub(crate) fn loading() -> Self {
        Self::unavailable("loading", "The model is still loading.")
            .with_header(RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// All slots for compiling grammars are taken.
    pub(crate) fn too_many_grammars(message: &str) -> Self {
        Self::unavailable(
            "grammars_busy",
            format!("The answer's format was not read: {message}."),
        )
        .with_header(RETRY_AFTER, HeaderValue::from_static("5"))
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            message,
        )
        .with_code(code)
    }

    /// A fault of the server. `detail` is logged and never sent to the client.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "The server had an error while processing this request.",
        )
        .with_code("internal_error")
        .with_detail(detail.into())
    }
}
