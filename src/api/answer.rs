//! From a running generation to an HTTP answer: whole, or as events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;

use super::error::ApiError;
use super::generation::{AnswerDelta, Finish, Generation};
use super::lower::{Delivery, StreamUsage};
use super::types::Usage;
use crate::core::{FinishReason, TokenEvent};

/// A comment is sent after this long without a token, so that nothing between us and the client
/// takes a long prefill for a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

const DONE: &str = "[DONE]";

/// One endpoint's JSON.
pub(super) trait AnswerFormat: Send + 'static {
    /// Events before the first token.
    fn opening(&self) -> Vec<String>;

    /// Events for a piece of an answer: its text, then how it ended.
    fn delta(&mut self, delta: AnswerDelta) -> Vec<String>;

    /// The event with the usage.
    fn usage(&self, usage: Usage) -> String;

    /// The whole answer.
    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> String;
}

/// An answer from its first token to its last.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) tokens: Vec<TokenEvent>,
    pub(super) finish: Finish,
}

/// `finish_reason` on the wire and in the log.
pub(super) fn finish_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Runs a generation to its end, or hands it to the connection as a stream of events.
///
/// # Errors
/// Of a whole answer: what stopped the engine. A stream carries its error itself.
pub(super) async fn respond(
    generation: Generation,
    format: impl AnswerFormat,
    delivery: Delivery,
) -> Result<Response, ApiError> {
    match delivery {
        Delivery::Whole => whole(generation, format).await,
        Delivery::Stream(usage) => Ok(events(generation, format, usage)),
    }
}

async fn whole(
    mut generation: Generation,
    mut format: impl AnswerFormat,
) -> Result<Response, ApiError> {
    let mut parts: Vec<(String, Vec<TokenEvent>, Option<Finish>)> = Vec::new();
    while let Some(delta) = generation.next().await {
        let delta = delta?;
        if parts.len() <= delta.index {
            parts.resize_with(delta.index + 1, Default::default);
        }
        let (text, tokens, finish) = &mut parts[delta.index];
        text.push_str(&delta.text);
        tokens.extend(delta.tokens);
        *finish = delta.finish;
    }
    let answers = parts.into_iter().map(|(text, tokens, finish)| Answer {
        text,
        tokens,
        finish: finish.expect("an answer's last delta says how it ended"),
    });
    let body = format.whole(answers.collect(), generation.usage());
    Ok(json_response(body))
}

/// JSON, done.
pub(super) fn json_response(body: String) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], body).into_response()
}

/// One of the wire's types as JSON.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the wire's types have string keys only")
}

/// What is left of a stream.
struct Events<F> {
    ready: VecDeque<String>,
    /// `None` once the last event is in `ready`.
    generation: Option<Generation>,
    format: F,
    usage: StreamUsage,
}

impl<F: AnswerFormat> Events<F> {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let generation = self.generation.as_mut()?;
            match generation.next().await {
                Some(Ok(delta)) => self.ready.extend(self.format.delta(delta)),
                Some(Err(error)) => self.end_with(error.to_json()),
                None if self.usage == StreamUsage::Include => {
                    let usage = self.format.usage(generation.usage());
                    self.end_with(usage);
                }
                None => {
                    self.ready.push_back(DONE.to_owned());
                    self.generation = None;
                }
            }
        }
    }

    fn end_with(&mut self, event: String) {
        self.ready.extend([event, DONE.to_owned()]);
        self.generation = None;
    }
}

fn events(generation: Generation, format: impl AnswerFormat, usage: StreamUsage) -> Response {
    let events = Events {
        ready: format.opening().into(),
        generation: Some(generation),
        format,
        usage,
    };
    event_stream(stream::unfold(events, async |mut events| {
        let event = events.next().await?;
        Some((event, events))
    }))
}

fn event_stream(events: impl Stream<Item = String> + Send + 'static) -> Response {
    // A panic must not look like an answer that was cut off.
    let events = AssertUnwindSafe(events).catch_unwind().flat_map(|event| {
        stream::iter(match event {
            Ok(event) => vec![event],
            Err(_) => {
                tracing::error!("a stream panicked");
                let error = ApiError::internal("a stream panicked");
                vec![error.to_json(), DONE.to_owned()]
            }
        })
    });
    let events = events.map(|data| Ok::<_, Infallible>(Event::default().data(data)));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    // nginx would otherwise collect events until its buffer is full.
    let unbuffered = [(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    )];
    (unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_a_stream_with_an_error() {
        let events = stream::iter(0..3).map(|at| {
            assert!(at < 2, "a bug");
            format!("event {at}")
        });
        let body = event_stream(events).into_body();
        let body = body.collect().await.expect("the connection goes on");
        let body = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
        let events: Vec<_> = body.split_terminator("\n\n").collect();
        assert_eq!(events.len(), 4, "{body}");
        assert_eq!(events[..2], ["data: event 0", "data: event 1"]);
        assert!(events[2].contains("\"code\":\"internal_error\""), "{body}");
        assert_eq!(events[3], "data: [DONE]");
    }
}
