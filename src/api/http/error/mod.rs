//! The only place where an error becomes an HTTP status. Formats errors as OpenAI's or Anthropic's
//! JSON, and keeps internal details for the log.

use std::time::Duration;

use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, ImageError};

/// Maximum length of a message in bytes. A message may quote a client's value, which can be an
/// image.
const MAX_MESSAGE: usize = 600;

const INVALID_JSON: &str = "invalid_json";
const INVALID_KEY: &str = "invalid_api_key";

/// An error response: `{"error": {"message", "type", "param", "code"}}`.
///
/// `code` is a string or null, as OpenAI's specification says.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    // Boxed, because every `Result` reserves space for its error.
    message: Box<str>,
    param: Option<String>,
    code: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    detail: Option<Box<str>>,
    is_logged: bool,
}

/// The parts of an error that a client sees, in any format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicError<'a> {
    pub(crate) message: &'a str,
    pub(crate) code: Option<&'static str>,
    pub(crate) param: Option<&'a str>,
}

/// What may be logged about a rejected request. The message is left out, because it can quote a
/// prompt.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Option<&'static str>,
    pub(crate) param: Option<String>,
    /// The server's own description of an internal fault.
    pub(crate) detail: Option<Box<str>>,
}

/// An error in Anthropic's format.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicError")]
pub(crate) struct AnthropicEnvelope<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicBody<'a>,
    request_id: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicErrorBody")]
struct AnthropicBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

/// An error in OpenAI's format.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorEnvelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorBody")]
struct Body<'a> {
    /// What is wrong and how to fix it.
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Dotted path of the invalid field.
    param: Option<&'a str>,
    /// Machine-readable error code.
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: shorten(message.into()).into_boxed_str(),
            param: None,
            code: None,
            headers: Vec::new(),
            detail: None,
            is_logged: false,
        }
    }

    fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        error.with_code(code)
    }

    fn with_code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    fn with_header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn with_detail(self, detail: impl Into<Box<str>>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    /// Marks the error as already logged, so that it is only sent to the client.
    pub(crate) fn logged(self) -> Self {
        Self {
            is_logged: true,
            ..self
        }
    }

    /// Sets the dotted path of the invalid field.
    pub(crate) fn at(self, param: impl Into<String>) -> Self {
        Self {
            param: Some(shorten(param.into())),
            ..self
        }
    }

    /// Renames the invalid field for a client that knows it by another name. `rename` returns the
    /// client's name if it differs.
    pub(crate) fn renamed(self, rename: impl FnOnce(&str) -> Option<String>) -> Self {
        let Some(known) = self.param.as_deref() else {
            return self;
        };
        let Some(name) = rename(known) else {
            return self;
        };
        let message = self
            .message
            .replace(&format!("'{known}'"), &format!("'{name}'"));
        Self {
            message: message.into_boxed_str(),
            ..self
        }
        .at(name)
    }

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
                "The request's body came too slowly: it may pause for {} seconds, must bring \
                 {rate} bytes a second after that, and may take {} seconds.",
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
            "The server holds as many bytes of requests as it may (--max-request-memory). Try \
             again in 1 s.",
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
                "Incorrect API key, and too many of them came from your address: wait {seconds} \
                 seconds before you try others. A correct key is answered at any time."
            ),
        )
        .with_code("too_many_wrong_keys")
        .with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// A client's key does not give access to the metrics, because several clients have keys.
    pub(crate) fn metrics_are_apart() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "permission_error",
            "Several keys open this server, and its metrics tell what all of them do: start it \
             with --metrics-key for a key that opens /metrics, or with --metrics-port for a port \
             of their own.",
        )
        .with_code("metrics_are_apart")
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
            "Of the header Expect only 100-continue is known. Leave it out.",
        )
        .with_code("unknown_expectation")
    }

    /// An unknown `Transfer-Encoding`.
    pub(crate) fn unknown_transfer_coding() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "invalid_request_error",
            "Of the header Transfer-Encoding only chunked is known. Send a Content-Length.",
        )
        .with_code("unknown_transfer_coding")
    }

    /// All connections are in use.
    pub(crate) fn too_many_connections() -> Self {
        Self::unavailable(
            "too_many_connections",
            "This server has as many connections as it takes, or as it takes from one address. \
             Try again, or keep one open and use it for several requests.",
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
                "What was sent is not a request of HTTP/1.1.",
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

    fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
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

    /// Returns the error as OpenAI's JSON, for a stream that has already begun.
    pub(crate) fn to_json(&self) -> String {
        let envelope = ErrorEnvelope {
            error: Body {
                message: &self.message,
                kind: self.kind,
                param: self.param.as_deref(),
                code: self.code,
            },
        };
        serde_json::to_string(&envelope).expect("strings always serialise")
    }

    /// Returns the public parts, for endpoints that format errors themselves.
    pub(crate) fn told(&self) -> PublicError<'_> {
        PublicError {
            message: &self.message,
            code: self.code,
            param: self.param.as_deref(),
        }
    }

    /// Returns the error as Anthropic's JSON. That format has no field for `param`, so the message
    /// names it.
    pub(crate) fn to_anthropic_json(&self, request_id: Option<&str>) -> String {
        let message = match &self.param {
            Some(param) if !self.message.contains(param.as_str()) => {
                format!("{param}: {}", self.message)
            }
            _ => self.message.to_string(),
        };
        let envelope = AnthropicEnvelope {
            kind: "error",
            error: AnthropicBody {
                kind: self.anthropic_kind(),
                message: &message,
            },
            request_id,
        };
        serde_json::to_string(&envelope).expect("strings always serialise")
    }

    fn anthropic_kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::GATEWAY_TIMEOUT => "timeout_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        }
    }

    /// Whether the key was missing or wrong.
    pub(crate) fn is_of_key(&self) -> bool {
        self.code == Some(INVALID_KEY)
    }

    /// Whether the error was already logged.
    pub(crate) fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// Returns what may be logged about the error.
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal {
            code: self.code,
            // The path in invalid JSON can contain any key, so any text of the client.
            param: self
                .param
                .clone()
                .filter(|_| self.code != Some(INVALID_JSON)),
            detail: self.detail.clone(),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Template(_) => Self::bad_request("invalid_messages", message).at("messages"),
            Error::Image(error) => error.into(),
            Error::PromptTooLong { .. } => Self::bad_request("context_length_exceeded", message),
            Error::UnbrokenText { .. } => Self::bad_request("text_too_long", message),
            Error::ImageSpanTooLong { .. } => Self::bad_request("image_too_long", message),
            Error::NeverFits { .. } => Self::bad_request("request_too_large", message),
            Error::QueueFull { retry_after, .. } | Error::ShareFull { retry_after, .. } => {
                Self::rate_limited(message, retry_after, Vec::new())
            }
            Error::NeverQueued { .. } => Self::bad_request("request_too_large", message),
            // 504 as in Anthropic's API and grpc-gateway. 408 would say that the client was slow to
            // send its request, and makes browsers retry.
            Error::DeadlineExceeded { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", message)
                    .with_code("deadline_exceeded")
            }
            Error::ShutdownTimeout { .. } => Self::unavailable("shutdown", message)
                .with_header(RETRY_AFTER, HeaderValue::from_static("5")),
            Error::Draining => Self::unavailable("draining", message)
                .with_header(RETRY_AFTER, HeaderValue::from_static("5")),
            Error::EngineDead => Self::unavailable("engine_dead", message)
                .with_header(RETRY_AFTER, HeaderValue::from_static("10"))
                .with_detail("the engine is dead"),
            // The request's own constraint caused this, not a fault of the server.
            Error::Constraint { .. } => Self::bad_request("constraint_failed", message),
            Error::StepFailed => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
                    .with_code("step_failed")
                    .with_detail("a step failed")
            }
            Error::NotFinite => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
                    .with_code("not_finite")
                    .with_detail("logits are not finite")
            }
            Error::Checkpoint { .. }
            | Error::Config(_)
            | Error::NotFound(_)
            | Error::Device(_)
            | Error::Hub { .. }
            | Error::OutOfMemory(_)
            | Error::Backend(_)
            | Error::Tokenizer(_) => Self::internal(message),
        }
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        Self::bad_request("invalid_image", error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = [(
            axum::http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        let mut response = (self.status, json, self.to_json()).into_response();
        for (name, value) in &self.headers {
            response.headers_mut().insert(name, value.clone());
        }
        // Used by the log and by the conversion to Anthropic's format.
        response.extensions_mut().insert(self);
        response
    }
}

/// Shortens a long message but keeps both ends: the beginning says what it is about, the end says
/// what is wrong.
fn shorten(message: String) -> String {
    if message.len() <= MAX_MESSAGE {
        return message;
    }
    let is_boundary = |at: &usize| message.is_char_boundary(*at);
    let head = (0..=MAX_MESSAGE / 2).rev().find(is_boundary);
    let tail = (message.len() - MAX_MESSAGE / 3..=message.len()).find(is_boundary);
    let head = &message[..head.expect("a string begins at a boundary")];
    let tail = &message[tail.expect("a string ends at a boundary")..];
    format!("{head} … {tail}")
}

#[cfg(test)]
mod tests;
