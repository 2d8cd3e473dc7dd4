//! The only place where an error becomes an HTTP status. Formats errors as OpenAI's or Anthropic's
//! JSON, and keeps internal details for the log.

mod envelope;
mod reasons;

use axum::http::StatusCode;
use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};

use self::envelope::{AnthropicBody, Body};
pub(crate) use self::envelope::{AnthropicEnvelope, ErrorEnvelope};
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
    pub(crate) fn public(&self) -> PublicError<'_> {
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
