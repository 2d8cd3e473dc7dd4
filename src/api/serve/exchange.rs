//! The state of a connection's current request, shared by the socket below the HTTP library and the
//! service above it.
//!
//! ```text
//!          head read          answer begins            its body ends         all of it is written
//!  Idle ─────────────▶ Asked ───────────────▶ Answered ──────────────▶ Flushing ──────────▶ Idle
//! ```
//! The HTTP library between the two does not pass this state on. The socket must know whether a
//! client that has closed its sending half still waits for a response; the table of connections
//! must know which connections are idle.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::api::http::connections::Slot;

/// An SSE comment. Clients ignore it; a reset in reply shows that the client is gone.
const COMMENT: &[u8] = b": keep-alive\n\n";

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    slot: Slot,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Whether the client understands interim (1xx) responses.
    takes_interim: bool,
    /// The client has closed the connection, or its sending half.
    is_ended: bool,
    /// The service waited for more of the request's body after that.
    is_starved: bool,
    /// Whether a comment is to be inserted in the event stream that is being sent.
    comment_due: bool,
    /// Wakers of the task that waits for more bytes, and of the one that waits for the body.
    socket: Option<Waker>,
    body: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Asked,
    Answered(Answer),
    Flushing,
}

/// The kind of response that is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// A stream of events.
    Events,
    /// A complete body.
    Whole,
}

/// How to find out whether a client that sends no more still listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Send an interim response, which clients ignore.
    Interim,
    /// Wait for the reaction to bytes that are already being sent.
    Underway,
    /// Nothing can be sent.
    Impossible,
}

impl Exchange {
    pub(crate) fn new(slot: Slot) -> Arc<Self> {
        Arc::new(Self {
            slot,
            state: Mutex::default(),
        })
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a request's head has been read.
    pub(crate) fn asked(&self, version: Version) {
        let mut state = self.lock();
        state.phase = Phase::Asked;
        state.takes_interim = version >= Version::HTTP_11;
        state.is_starved = false;
        state.comment_due = false;
        drop(state);
        self.slot.mark_busy();
    }

    /// Records that the response begins.
    pub(crate) fn answered(&self, headers: &HeaderMap) {
        let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        let is_stream = content_type.is_some_and(|value| value.starts_with(b"text/event-stream"));
        self.lock().phase = Phase::Answered(match is_stream {
            true => Answer::Events,
            false => Answer::Whole,
        });
    }

    /// Records that all response bytes were passed to the operating system.
    pub(crate) fn flushed(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Flushing {
            state.phase = Phase::Idle;
            let socket = state.socket.take();
            drop(state);
            self.slot.mark_idle();
            socket.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether no request is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().phase == Phase::Idle
    }

    /// Records that the client sends no more, and returns whether to report it to the HTTP library.
    /// It is not reported while a response is pending, unless the request is incomplete. If this
    /// returns false, `socket` is woken when the result may change.
    pub(crate) fn tells_of_end(&self, socket: &Waker) -> bool {
        let mut state = self.lock();
        if !state.is_ended {
            state.is_ended = true;
            // The waiter for the body must check again: the body may already have arrived.
            state.body.take().into_iter().for_each(Waker::wake);
        }
        if state.phase == Phase::Idle || state.is_starved {
            return true;
        }
        state.socket = Some(socket.clone());
        false
    }

    /// Returns how to find out now whether the client still listens. In an event stream, schedules
    /// a comment.
    pub(crate) fn probe(&self) -> Probe {
        let mut state = self.lock();
        match state.phase {
            Phase::Asked if state.takes_interim => Probe::Interim,
            Phase::Asked => Probe::Impossible,
            Phase::Answered(Answer::Events) => {
                state.comment_due = true;
                Probe::Underway
            }
            Phase::Answered(Answer::Whole) | Phase::Flushing | Phase::Idle => Probe::Underway,
        }
    }

    fn body_waits(&self, body: &Waker) {
        let mut state = self.lock();
        if state.is_ended && state.phase != Phase::Idle {
            state.is_starved = true;
            state.socket.take().into_iter().for_each(Waker::wake);
        } else {
            state.body = Some(body.clone());
        }
    }

    fn takes_comment(&self) -> bool {
        std::mem::take(&mut self.lock().comment_due)
    }

    fn body_ended(&self) {
        self.lock().phase = Phase::Flushing;
    }
}

/// A request's body that records when the service waits for it.
pub(crate) struct RequestBody {
    inner: Incoming,
    exchange: Arc<Exchange>,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, exchange: Arc<Exchange>) -> Self {
        Self { inner, exchange }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if frame.is_pending() {
            self.exchange.body_waits(cx.waker());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body that records when it has ended.
pub(crate) struct AnswerBody {
    inner: Body,
    exchange: Arc<Exchange>,
}

impl AnswerBody {
    pub(crate) fn new(inner: Body, exchange: Arc<Exchange>) -> Self {
        Self { inner, exchange }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        // Each frame of a stream is a whole event, so a comment fits between two frames.
        match self.exchange.takes_comment() {
            true => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT))))),
            false => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.exchange.body_ended();
    }
}
