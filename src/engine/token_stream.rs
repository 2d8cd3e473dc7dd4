//! The stream of one request's tokens from the engine thread to its reader.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use super::admission::InFlightSlot;
use super::handle::Command;
use crate::core::{SeqId, TokenEvent};
use crate::error::{Error, Result};

/// Creates both ends of the stream of a request that holds the slot `place`.
pub(super) fn token_stream(
    id: SeqId,
    place: InFlightSlot,
    commands: mpsc::UnboundedSender<Command>,
) -> (EventSender, TokenStream) {
    let (sender, events) = mpsc::unbounded_channel();
    let sender = EventSender {
        events: sender,
        place,
    };
    let stream = TokenStream {
        id,
        events,
        commands,
        ended: false,
    };
    (sender, stream)
}

/// The engine's end of one request's stream.
#[derive(Debug)]
pub struct EventSender {
    events: mpsc::UnboundedSender<Result<TokenEvent>>,
    // Counts the request as in flight until this end is dropped, however it ended.
    place: InFlightSlot,
}

impl EventSender {
    /// Sends a token, or the error that ends the stream. A client that has left is not an error:
    /// its abort is on the way.
    pub fn send(&self, event: Result<TokenEvent>) {
        let _ = self.events.send(event);
    }

    /// Marks the request as begun: a step computes something of it.
    pub fn begin(&mut self) {
        self.place.begin();
    }
}

/// Stream of one request's tokens. Ends after the event that carries `finish`, or after an error.
///
/// Dropping it before the end aborts the sequence.
#[derive(Debug)]
pub struct TokenStream {
    id: SeqId,
    events: mpsc::UnboundedReceiver<Result<TokenEvent>>,
    commands: mpsc::UnboundedSender<Command>,
    ended: bool,
}

impl Stream for TokenStream {
    type Item = Result<TokenEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.events.poll_recv(cx);
        match &polled {
            Poll::Ready(Some(Ok(event))) => self.ended = event.finish.is_some(),
            Poll::Ready(Some(Err(_))) => self.ended = true,
            // The sender was dropped without a final event: the engine died.
            Poll::Ready(None) => {
                self.ended = true;
                return Poll::Ready(Some(Err(Error::EngineDead)));
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.commands.send(Command::Abort(self.id));
        }
    }
}
