//! How far a connection is with its current request: shared by the socket below HTTP and the
//! service above it.
//!
//! ```text
//!          head read          answer begins            its body ends         all of it is written
//!  Idle ─────────────▶ Asked ───────────────▶ Answered ──────────────▶ Flushing ──────────▶ Idle
//! ```
//! HTTP lies between the two and tells neither of the other. The socket must know whether a client
//! that sends no more is still owed an answer, the table of connections which of them are idle.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::connections::Seat;

/// Says nothing to the client, and whether it is there to us.
const COMMENT: &[u8] = b": keep-alive\n\n";

/// One connection's.
#[derive(Debug)]
pub(super) struct Exchange {
    seat: Seat,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Whether answers may be announced before they begin.
    takes_interim: bool,
    /// The client sends no more: it has closed the connection, or its half of it.
    is_ended: bool,
    /// The request's body was waited for after that.
    is_starved: bool,
    /// The stream of events that is being sent should have a comment in it.
    comment_due: bool,
    /// Whoever waits for the client's next bytes, or for the request's body.
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

/// What is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Events, as they come.
    Events,
    /// Something that is whole.
    Whole,
}

/// How to find out whether a client that sends no more still listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// By an interim answer, which clients pass over.
    Interim,
    /// By what is on its way to it.
    Underway,
    /// There is no way.
    Impossible,
}

impl Exchange {
    pub(super) fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            seat,
            state: Mutex::default(),
        })
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's head has come.
    pub(super) fn asked(&self, version: Version) {
        let mut state = self.lock();
        state.phase = Phase::Asked;
        state.takes_interim = version >= Version::HTTP_11;
        state.is_starved = false;
        state.comment_due = false;
        drop(state);
        self.seat.works();
    }

    /// Its answer begins.
    pub(super) fn answered(&self, headers: &HeaderMap) {
        let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        let is_stream = content_type.is_some_and(|value| value.starts_with(b"text/event-stream"));
        self.lock().phase = Phase::Answered(match is_stream {
            true => Answer::Events,
            false => Answer::Whole,
        });
    }

    /// All that there was to write is with the system.
    pub(super) fn flushed(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Flushing {
            state.phase = Phase::Idle;
            let socket = state.socket.take();
            drop(state);
            self.seat.rests();
            socket.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().phase == Phase::Idle
    }

    /// The client sends no more. Is HTTP to be told? Not while the client is owed an answer, except
    /// that its request is not whole. Where not, `socket` is woken when it may be otherwise.
    pub(super) fn tells_of_end(&self, socket: &Waker) -> bool {
        let mut state = self.lock();
        if !state.is_ended {
            state.is_ended = true;
            // Who waits for the body must look once more: what they wait for may have come before.
            state.body.take().into_iter().for_each(Waker::wake);
        }
        if state.phase == Phase::Idle || state.is_starved {
            return true;
        }
        state.socket = Some(socket.clone());
        false
    }

    /// How to find out now whether the client still listens. A comment is on its way if that will
    /// do.
    pub(super) fn probe(&self) -> Probe {
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

/// A request's body, which tells when it is waited for.
pub(super) struct RequestBody {
    inner: Incoming,
    exchange: Arc<Exchange>,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, exchange: Arc<Exchange>) -> Self {
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

/// An answer's body, which tells when it has ended.
pub(super) struct AnswerBody {
    inner: Body,
    exchange: Arc<Exchange>,
}

impl AnswerBody {
    pub(super) fn new(inner: Body, exchange: Arc<Exchange>) -> Self {
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
        // Each frame of a stream is a whole event, so a comment fits between two.
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
