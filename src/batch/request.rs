//! Sends one request of the input, retries while the server is at capacity, and returns its result.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::sleep;
use tower::ServiceExt;

use super::error::BatchError;
use super::input::InputLine;
use super::result_line::{Responded, ResultLine};

/// The endpoints that a line may request.
const URLS: [&str; 4] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
];

/// The server runs in this process, so its Retry-After, meant for remote clients, is too long.
const MAX_PAUSE: Duration = Duration::from_secs(1);

const TOO_MANY_REQUESTS: u16 = 429;
const UNAVAILABLE: u16 = 503;

#[derive(Deserialize)]
struct RequestLine {
    method: String,
    url: String,
    body: Box<RawValue>,
}

#[derive(Deserialize)]
struct StreamWish {
    stream: Option<bool>,
}

/// The part of a response that all endpoints share.
#[derive(Deserialize)]
struct Answered {
    usage: Option<AnsweredUsage>,
}

#[derive(Deserialize)]
struct AnsweredUsage {
    #[serde(alias = "output_tokens")]
    completion_tokens: Option<u64>,
}

/// # Errors
/// Only an error that ends the whole batch: a server that stopped.
pub(super) async fn answer(
    router: Router,
    line: &InputLine,
    text: &[u8],
) -> Result<ResultLine, BatchError> {
    let place = (line.number, line.custom_id.as_deref());
    let request = match read(line, text) {
        Ok(request) => request,
        Err((code, message)) => return Ok(ResultLine::failed(place, code, &message)),
    };
    let custom_id = (line.custom_id.as_deref()).expect("what was read has an id");
    let body = Bytes::from(String::from(Box::<str>::from(request.body)));
    loop {
        let asked = Request::post(&request.url)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body.clone()))
            .expect("the url is one of ours");
        let response = router.clone().oneshot(asked).await;
        let response = response.unwrap_or_else(|error| match error {});
        if response.status().as_u16() == TOO_MANY_REQUESTS {
            sleep(pause(&response)).await;
            continue;
        }
        return result(custom_id, response).await;
    }
}

/// Parses the line to a request, or returns an error code and message.
fn read(line: &InputLine, text: &[u8]) -> Result<RequestLine, (&'static str, String)> {
    let number = line.number;
    let invalid = |message: String| Err(("invalid_line", message));
    let request: RequestLine = match serde_json::from_slice(text) {
        Ok(request) => request,
        Err(error) => return invalid(format!("Line {number} is not a request: {error}.")),
    };
    if line.custom_id.is_none() {
        return invalid(format!("Line {number} has no 'custom_id'."));
    }
    if request.method != "POST" {
        return Err((
            "invalid_method",
            format!("'method' must be POST, got '{}'.", request.method),
        ));
    }
    if !URLS.contains(&request.url.as_str()) {
        return Err((
            "invalid_url",
            format!(
                "'url' must be one of {}, got '{}'.",
                URLS.join(", "),
                request.url
            ),
        ));
    }
    // Anything else that is wrong with the body is for the server to say.
    let wish: Result<StreamWish, _> = serde_json::from_str(request.body.get());
    if wish.is_ok_and(|wish| wish.stream == Some(true)) {
        return Err((
            "stream_not_supported",
            "A batch has no streams: leave 'stream' out.".to_owned(),
        ));
    }
    Ok(request)
}

fn pause(response: &Response) -> Duration {
    let advised = response.headers().get(RETRY_AFTER);
    let advised = advised.and_then(|value| value.to_str().ok()?.parse().ok());
    advised.map_or(MAX_PAUSE, |seconds| {
        MAX_PAUSE.min(Duration::from_secs(seconds))
    })
}

async fn result(custom_id: &str, response: Response) -> Result<ResultLine, BatchError> {
    let status = response.status().as_u16();
    let request_id = response.headers().get("x-request-id");
    let request_id = request_id.and_then(|id| id.to_str().ok());
    let request_id = request_id.unwrap_or_default().to_owned();
    let body = response.into_body().collect().await;
    let body = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
    let text = String::from_utf8_lossy(&body).into_owned();
    if status == UNAVAILABLE {
        return Err(BatchError::ServerStopped { message: text });
    }
    let Ok(body) = RawValue::from_string(text) else {
        return Err(BatchError::ServerStopped {
            message: format!("it answered '{custom_id}' with something that is not JSON"),
        });
    };
    let usage: Option<Answered> = serde_json::from_str(body.get()).ok();
    let usage = usage.and_then(|answered| answered.usage);
    Ok(ResultLine::responded(
        custom_id,
        Responded {
            status,
            request_id: &request_id,
            body: &body,
            output_tokens: usage.and_then(|usage| usage.completion_tokens).unwrap_or(0),
        },
    ))
}
