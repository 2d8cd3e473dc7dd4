//! Turns a running generation into an HTTP response: one JSON body, or a stream of events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::HeaderName;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};

use super::generation::{AnswerDelta, Finish, Generation};
use super::options::Delivery;
use super::types::usage::Usage;
use crate::api::http::error::ApiError;
use crate::api::http::json_response::json_response;
use crate::core::TokenEvent;
use crate::text::{AnswerPart, CallKind};

/// A comment is sent after this time without a token, so that no proxy takes a long prefill for a
/// dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Formats the response of one endpoint as JSON.
pub(crate) trait AnswerFormat: Send + 'static {
    /// Returns the events before the first token.
    fn opening(&mut self) -> Vec<StreamEvent>;

    /// Returns the events for one delta: its parts, then the finish reason. `usage` is the usage so
    /// far.
    fn delta(&mut self, delta: AnswerDelta, usage: Usage) -> Vec<StreamEvent>;

    /// Returns the events after the last token, including the one that ends the stream.
    fn closing(&mut self, usage: Usage) -> Vec<StreamEvent>;

    /// Returns the last events of a stream that ends with an error.
    fn failed(&mut self, error: &ApiError) -> Vec<StreamEvent>;

    /// Returns the body of a response that is not streamed.
    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> String;

    /// Returns the last events of a stream whose formatter panicked.
    fn broken(error: &ApiError) -> Vec<StreamEvent>
    where
        Self: Sized,
    {
        vec![StreamEvent::data(error.to_json()), StreamEvent::done()]
    }
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamEvent {
    /// Value of the `event:` line, for endpoints whose events have names.
    pub(crate) name: Option<&'static str>,
    /// Value of the `data:` line.
    pub(crate) data: String,
}

impl StreamEvent {
    /// Creates an event without a name.
    pub(crate) fn data(data: String) -> Self {
        Self { name: None, data }
    }

    /// Creates a named event, as Anthropic's API and `/v1/responses` use them.
    pub(crate) fn named(name: &'static str, data: String) -> Self {
        Self {
            name: Some(name),
            data,
        }
    }

    /// The event that ends a stream of chat or text completions.
    pub(crate) fn done() -> Self {
        Self::data("[DONE]".to_owned())
    }
}

/// One complete answer (choice).
#[derive(Debug)]
pub(crate) struct Answer {
    /// The model's reasoning, which comes before the text.
    pub(crate) reasoning: String,
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) tokens: Vec<TokenEvent>,
    pub(crate) finish: Finish,
}

/// One call of a tool by the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    pub(crate) kind: CallKind,
    /// A JSON object, or a custom tool's text.
    pub(crate) arguments: String,
}

/// Runs a generation to its end, or returns a response that streams its events.
///
/// # Errors
/// The engine's error, if the response is not streamed. A stream reports errors as events.
pub(crate) async fn respond(
    generation: Generation,
    format: impl AnswerFormat,
    delivery: Delivery,
) -> Result<Response, ApiError> {
    match delivery {
        Delivery::Whole => whole(generation, format).await,
        Delivery::Stream(_) => Ok(events(generation, format)),
    }
}

async fn whole(
    mut generation: Generation,
    mut format: impl AnswerFormat,
) -> Result<Response, ApiError> {
    let mut growing: Vec<AnswerBuilder> = Vec::new();
    while let Some(delta) = generation.next().await {
        let delta = delta?;
        if growing.len() <= delta.index {
            growing.resize_with(delta.index + 1, Default::default);
        }
        growing[delta.index].take(delta);
    }
    let answers = growing.into_iter().map(AnswerBuilder::finish);
    let body = format.whole(answers.collect(), generation.usage());
    Ok(json_response(body))
}

/// An answer under construction.
#[derive(Default)]
struct AnswerBuilder {
    reasoning: String,
    text: String,
    calls: Vec<ToolCall>,
    tokens: Vec<TokenEvent>,
    finish: Option<Finish>,
}

impl AnswerBuilder {
    fn take(&mut self, delta: AnswerDelta) {
        for part in delta.parts {
            match part {
                AnswerPart::Reasoning(text) => self.reasoning.push_str(&text),
                AnswerPart::Text(text) => self.text.push_str(&text),
                AnswerPart::CallBegins { name, kind } => self.calls.push(ToolCall {
                    name,
                    kind,
                    arguments: String::new(),
                }),
                AnswerPart::CallArguments(text) => {
                    let call = self.calls.last_mut();
                    let call = call.expect("a call begins before its arguments");
                    call.arguments.push_str(&text);
                }
            }
        }
        self.tokens.extend(delta.tokens);
        self.finish = delta.finish;
    }

    fn finish(self) -> Answer {
        Answer {
            reasoning: self.reasoning,
            text: self.text,
            calls: self.calls,
            tokens: self.tokens,
            finish: (self.finish).expect("an answer's last delta says how it ended"),
        }
    }
}

/// State of an event stream.
struct Events<F> {
    ready: VecDeque<StreamEvent>,
    /// `None` once the last event is in `ready`.
    generation: Option<Generation>,
    format: F,
}

impl<F: AnswerFormat> Events<F> {
    async fn next(&mut self) -> Option<StreamEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let generation = self.generation.as_mut()?;
            match generation.next().await {
                Some(Ok(delta)) => {
                    let usage = generation.usage();
                    self.ready.extend(self.format.delta(delta, usage));
                }
                Some(Err(error)) => {
                    self.ready.extend(self.format.failed(&error));
                    self.generation = None;
                }
                None => {
                    let usage = generation.usage();
                    self.ready.extend(self.format.closing(usage));
                    self.generation = None;
                }
            }
        }
    }
}

fn events<F: AnswerFormat>(generation: Generation, mut format: F) -> Response {
    let events = Events {
        ready: format.opening().into(),
        generation: Some(generation),
        format,
    };
    let events = stream::unfold(events, async |mut events| {
        let event = events.next().await?;
        Some((event, events))
    });
    event_stream(events, F::broken)
}

fn event_stream(
    events: impl Stream<Item = StreamEvent> + Send + 'static,
    broken: fn(&ApiError) -> Vec<StreamEvent>,
) -> Response {
    // Without this, a panic would look like a truncated answer.
    let events = AssertUnwindSafe(events)
        .catch_unwind()
        .flat_map(move |event| {
            stream::iter(match event {
                Ok(event) => vec![event],
                Err(_) => {
                    tracing::error!("a stream panicked");
                    broken(&ApiError::internal("a stream panicked"))
                }
            })
        });
    let events = events.map(|event| {
        let line = match event.name {
            Some(name) => Event::default().event(name),
            None => Event::default(),
        };
        Ok::<_, Infallible>(line.data(event.data))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    // nginx would otherwise buffer events until its buffer is full.
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
            StreamEvent::data(format!("event {at}"))
        });
        let broken = |error: &ApiError| vec![StreamEvent::data(error.to_json())];
        let body = event_stream(events, broken).into_body();
        let body = body.collect().await.expect("the connection goes on");
        let body = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
        let events: Vec<_> = body.split_terminator("\n\n").collect();
        assert_eq!(events.len(), 3, "{body}");
        assert_eq!(events[..2], ["data: event 0", "data: event 1"]);
        assert!(events[2].contains("\"code\":\"internal_error\""), "{body}");
    }
}
