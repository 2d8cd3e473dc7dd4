//! The only place where an error becomes an HTTP status: OpenAI's JSON shape around it, or
//! Anthropic's, and what is told to nobody but the log.

use std::time::Duration;

use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, ImageError};

/// Longest message in bytes: a client's own value may be quoted in it, and that can be an image.
const MAX_MESSAGE: usize = 600;

const INVALID_JSON: &str = "invalid_json";
const INVALID_KEY: &str = "invalid_api_key";

/// An answer that is an error: `{"error": {"message", "type", "param", "code"}}`.
///
/// `code` is a string or null, as OpenAI's specification says.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    // Boxed, since every result carries room for one of these.
    message: Box<str>,
    param: Option<String>,
    code: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    detail: Option<Box<str>>,
    is_logged: bool,
}

/// What a client is told of an error, whatever the shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublicError<'a> {
    pub(super) message: &'a str,
    pub(super) code: Option<&'static str>,
    pub(super) param: Option<&'a str>,
}

/// What the log may know of a refused request: never its message, which can quote a prompt.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) code: Option<&'static str>,
    pub(super) param: Option<String>,
    /// The server's own fault in its own words.
    pub(super) detail: Option<Box<str>>,
}

/// The same in Anthropic's shape.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicError")]
pub(super) struct AnthropicEnvelope<'a> {
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

/// An error as clients get it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct ErrorEnvelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorBody")]
struct Body<'a> {
    /// What is wrong and what to do about it.
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field at fault, as a dotted path.
    param: Option<&'a str>,
    /// For programs.
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

    /// The error as it is told to the client only: the log has it.
    pub(super) fn logged(self) -> Self {
        Self {
            is_logged: true,
            ..self
        }
    }

    /// Names the field at fault by its dotted path.
    pub(super) fn at(self, param: impl Into<String>) -> Self {
        Self {
            param: Some(shorten(param.into())),
            ..self
        }
    }

    /// The same error for a client that knows the field at fault by another name: `rename` tells
    /// the client's, if it differs.
    pub(super) fn renamed(self, rename: impl FnOnce(&str) -> Option<String>) -> Self {
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

    /// A value that the field does not take.
    pub(super) fn invalid_value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_value", message).at(param)
    }

    /// A value of another type than the field's.
    pub(super) fn invalid_type(param: Option<String>, message: impl Into<String>) -> Self {
        let error = Self::bad_request("invalid_type", message);
        match param {
            Some(param) => error.at(param),
            None => error,
        }
    }

    /// A body that is not JSON.
    pub(super) fn invalid_json(param: Option<String>, message: impl Into<String>) -> Self {
        let error = Self::bad_request(INVALID_JSON, message);
        match param {
            Some(param) => error.at(param),
            None => error,
        }
    }

    /// A field that must be there and is not.
    pub(super) fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("Missing required parameter: '{param}'.");
        Self::bad_request("missing_required_parameter", message).at(param)
    }

    /// A field that is known and cannot be served.
    pub(super) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", message).at(param)
    }

    /// More images than this server takes in a prompt; `param` is the first beyond.
    pub(super) fn too_many_images(param: &str, num_images: usize, max_images: usize) -> Self {
        let message = format!(
            "This request has {num_images} images, but this server takes at most {max_images} in \
             a prompt (--limit-mm-per-prompt)."
        );
        Self::bad_request("too_many_images", message).at(param)
    }

    /// Fields that contradict each other.
    pub(super) fn contradiction(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_combination", message).at(param)
    }

    /// A prompt that is too long by its size alone, before its tokens are counted.
    pub(super) fn prompt_far_too_long(max_tokens: usize, least_tokens: usize) -> Self {
        Self::bad_request(
            "context_length_exceeded",
            format!(
                "This model's maximum context length is {max_tokens} tokens. However, your prompt \
                 contains at least {least_tokens} input tokens. Please shorten it."
            ),
        )
    }

    /// The body ended early or did not come in time.
    pub(super) fn incomplete_body() -> Self {
        Self::bad_request(
            "invalid_request",
            "The request's body ended before it was complete.",
        )
    }

    /// The body stood still for longer than `pause`, took longer than `whole`, or came at less than
    /// `rate` bytes a second.
    pub(super) fn slow_body(pause: Duration, whole: Duration, rate: u64) -> Self {
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

    /// The body is larger than is accepted.
    pub(super) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            format!("The request's body is larger than {limit} bytes, the most that is accepted."),
        )
        .with_code("request_too_large")
    }

    /// The body holds more of something than is taken.
    pub(super) fn too_many_values(what: &str, limit: usize) -> Self {
        let message = format!(
            "The request has more than {limit} {what}, the most that is taken. Send fewer, or \
             several requests."
        );
        Self::bad_request("request_too_complex", message)
    }

    /// Requests hold as many bytes as they may.
    pub(super) fn no_memory() -> Self {
        Self::unavailable(
            "request_memory_full",
            "The server holds as many bytes of requests as it may (--max-request-memory). Try \
             again in 1 s.",
        )
        .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// The request needs more bytes than all requests together may hold.
    pub(super) fn never_enough_memory(bytes: u64, limit: u64) -> Self {
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

    /// The body is not declared as JSON.
    pub(super) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            message,
        )
        .with_code("unsupported_media_type")
    }

    /// No key, or a wrong one.
    pub(super) fn unauthorized(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
            .with_code(INVALID_KEY)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Too many wrong keys came from where this one comes from.
    pub(super) fn too_many_wrong_keys(wait: Duration) -> Self {
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

    /// A client's key, where several open the server, for what is about all clients.
    pub(super) fn metrics_are_apart() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "permission_error",
            "Several keys open this server, and its metrics tell what all of them do: start it \
             with --metrics-key for a key that opens /metrics, or with --metrics-port for a port \
             of their own.",
        )
        .with_code("metrics_are_apart")
    }

    /// The head does not say, or says twice, which server it is for.
    pub(super) fn bad_host(message: &'static str) -> Self {
        Self::bad_request("invalid_host", message)
    }

    /// The client used a name for this server that is not its own. 403 rather than 421: clients
    /// know what to make of it, and another connection would not help.
    pub(super) fn foreign_host(host: &str) -> Self {
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

    /// A page of another site wants to use this server.
    pub(super) fn foreign_origin(origin: Option<&str>) -> Self {
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

    /// The client expects something of the server that the server does not know.
    pub(super) fn unknown_expectation() -> Self {
        Self::new(
            StatusCode::EXPECTATION_FAILED,
            "invalid_request_error",
            "Of the header Expect only 100-continue is known. Leave it out.",
        )
        .with_code("unknown_expectation")
    }

    /// The body is coded in a way that the server does not know.
    pub(super) fn unknown_transfer_coding() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "invalid_request_error",
            "Of the header Transfer-Encoding only chunked is known. Send a Content-Length.",
        )
        .with_code("unknown_transfer_coding")
    }

    /// All connections are in use by others' requests.
    pub(super) fn too_many_connections() -> Self {
        Self::unavailable(
            "too_many_connections",
            "This server has as many connections as it takes, or as it takes from one address. \
             Try again, or keep one open and use it for several requests.",
        )
        .with_header(RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// A head that is no HTTP, which is answered with this status; `None` for other statuses.
    pub(super) fn malformed_head(status: u16) -> Option<Self> {
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

    /// A key that may not do what it asks for.
    pub(super) fn forbidden(param: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
            .with_code("permission_denied")
            .at(param)
    }

    /// A key that has used what it may, with what is told of its limits.
    pub(super) fn rate_limited(
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

    /// No such route.
    pub(super) fn unknown_route(method: &Method, path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!("Unknown route: {method} {path}."),
        )
        .with_code("not_found")
    }

    /// The route exists for other methods.
    pub(super) fn wrong_method(method: &Method, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            format!("{path} does not take {method}."),
        )
        .with_code("method_not_allowed")
    }

    /// A model that is not served here.
    pub(super) fn unknown_model(asked: &str, served: &[String]) -> Self {
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

    /// The weights are not there yet.
    pub(super) fn loading() -> Self {
        Self::unavailable("loading", "The model is still loading.")
            .with_header(RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// Other clients' grammars take all places.
    pub(super) fn too_many_grammars(message: &str) -> Self {
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

    /// A fault of ours; `detail` goes to the log, never to the client.
    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "The server had an error while processing this request.",
        )
        .with_code("internal_error")
        .with_detail(detail.into())
    }

    /// The error as JSON, for a stream that has already begun.
    pub(super) fn to_json(&self) -> String {
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

    /// The code and the message, for shapes that the endpoint makes itself.
    pub(super) fn told(&self) -> PublicError<'_> {
        PublicError {
            message: &self.message,
            code: self.code,
            param: self.param.as_deref(),
        }
    }

    /// The error as Anthropic's JSON, which has no place of its own for the field at fault.
    pub(super) fn to_anthropic_json(&self, request_id: Option<&str>) -> String {
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

    /// Whether no key was sent, or a wrong one.
    pub(super) fn is_of_key(&self) -> bool {
        self.code == Some(INVALID_KEY)
    }

    /// Whether the log has been told of it.
    pub(super) fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// What the log may know of it.
    pub(super) fn refusal(&self) -> Refusal {
        Refusal {
            code: self.code,
            // The path through broken JSON can hold any key, that is, anything a client wrote.
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
            // As Anthropic's API and grpc-gateway have it. 408 would say that the client was slow
            // to ask, and makes browsers ask again.
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
            // The request's own rule led here, not a fault of the server's.
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
        // For the log, and for another shape.
        response.extensions_mut().insert(self);
        response
    }
}

/// Keeps both ends of a long message: what is wrong stands at the end, what it is about at the
/// beginning.
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
