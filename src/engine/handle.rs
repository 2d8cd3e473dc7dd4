//! The engine's two ends: handles that submit requests, and the inbox that the engine's thread reads.
//!
//! Owns admission, cancellation and the engine's state as others see it. Knows nothing of
//! tensors or of the HTTP side; a test may read the inbox itself and script the answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::core::{GenerateRequest, SeqId, TokenEvent};
use crate::error::{Error, Result};
use crate::scheduler::SchedulerConfig;

/// What the engine can do for a caller at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EngineState {
    /// Takes requests.
    Ready = 0,
    /// Finishes what it has and takes nothing new.
    Draining = 1,
    /// Stopped: after a drain, or poisoned by a fault.
    Dead = 2,
}

/// What is checked before a request reaches the engine's thread.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// What the scheduler can hold; requests beyond it are refused here.
    pub scheduler: SchedulerConfig,
    /// Requests accepted and not finished, running and waiting together.
    pub max_in_flight: usize,
}

/// What the handles say to the engine's thread.
#[derive(Debug)]
pub enum Command {
    /// Generate, and send each token to `events`.
    Submit(Submission),
    /// The client is gone: free what the sequence holds.
    Abort(SeqId),
    /// Finish what is there, then stop.
    Drain,
}

/// An accepted request on its way to the engine's thread.
#[derive(Debug)]
pub struct Submission {
    /// Identity for `Abort`.
    pub id: SeqId,
    /// What to generate.
    pub request: GenerateRequest,
    /// Where its tokens go; closed when the client is gone.
    pub events: EventSender,
}

/// The engine's end of one request's stream.
#[derive(Debug)]
pub struct EventSender {
    events: mpsc::UnboundedSender<Result<TokenEvent>>,
    // Counts the request as in flight until this end is dropped, however it ended.
    _in_flight: InFlight,
}

impl EventSender {
    /// Sends a token or the error that ends the stream. A client that left is not an error:
    /// its abort is on the way.
    pub fn send(&self, event: Result<TokenEvent>) {
        let _ = self.events.send(event);
    }
}

#[derive(Debug)]
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct Shared {
    limits: EngineLimits,
    state: AtomicU8,
    in_flight: AtomicUsize,
    next_id: AtomicU64,
}

impl Shared {
    fn state(&self) -> EngineState {
        match self.state.load(Ordering::Acquire) {
            0 => EngineState::Ready,
            1 => EngineState::Draining,
            _ => EngineState::Dead,
        }
    }
}

/// Submits requests to the engine's thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

impl EngineHandle {
    /// Accepts a request, or says at once why it cannot be. Never blocks.
    ///
    /// # Errors
    /// What [`SchedulerConfig::check`] refuses, `QueueFull`, `Draining` and `EngineDead`.
    pub fn submit(&self, request: GenerateRequest) -> Result<TokenStream> {
        match self.state() {
            EngineState::Ready => {}
            EngineState::Draining => return Err(Error::Draining),
            EngineState::Dead => return Err(Error::EngineDead),
        }
        let limits = &self.shared.limits;
        limits.scheduler.check(&request)?;
        let queued = self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let in_flight = InFlight(Arc::clone(&self.shared));
        if queued >= limits.max_in_flight {
            return Err(Error::QueueFull { queued });
        }
        let id = SeqId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = mpsc::unbounded_channel();
        let submission = Submission {
            id,
            request,
            events: EventSender {
                events: sender,
                _in_flight: in_flight,
            },
        };
        self.commands
            .send(Command::Submit(submission))
            .map_err(|_| Error::EngineDead)?;
        Ok(TokenStream {
            id,
            events,
            commands: self.commands.clone(),
            ended: false,
        })
    }

    /// The engine's state at this moment.
    pub fn state(&self) -> EngineState {
        self.shared.state()
    }

    /// Longest sequence, prompt and output together, in tokens.
    pub fn max_model_len(&self) -> usize {
        self.shared.limits.scheduler.max_model_len
    }

    /// Requests accepted and not finished.
    pub fn num_in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// Takes no new requests from now on and stops the engine once the accepted ones have ended.
    pub fn drain(&self) {
        let _ = self.shared.state.compare_exchange(
            EngineState::Ready as u8,
            EngineState::Draining as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        let _ = self.commands.send(Command::Drain);
    }
}

/// One request's tokens. Ends after the event that carries `finish`, or after an error.
///
/// Dropping it before that aborts the sequence.
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
            // The engine's end vanished without a last word: it died.
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

/// The engine's end: commands come in here, and the state that handles see is set here.
#[derive(Debug)]
pub struct EngineInbox {
    commands: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
}

impl EngineInbox {
    /// The next command, if one is there.
    pub fn try_recv(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Waits for a command; `None` when every handle and stream is gone.
    pub fn blocking_recv(&mut self) -> Option<Command> {
        self.commands.blocking_recv()
    }

    /// Takes no more commands; what has arrived can still be read.
    pub fn close(&mut self) {
        self.commands.close();
    }

    /// Waits for a command without blocking the thread.
    pub async fn recv(&mut self) -> Option<Command> {
        self.commands.recv().await
    }
}

impl Drop for EngineInbox {
    // Also runs while a panic unwinds, so no handle goes on believing in a dead thread.
    fn drop(&mut self) {
        self.shared
            .state
            .store(EngineState::Dead as u8, Ordering::Release);
    }
}

/// A handle and the inbox it feeds.
pub fn channel(limits: EngineLimits) -> (EngineHandle, EngineInbox) {
    let (sender, commands) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        limits,
        state: AtomicU8::new(EngineState::Ready as u8),
        in_flight: AtomicUsize::new(0),
        next_id: AtomicU64::new(0),
    });
    let handle = EngineHandle {
        shared: Arc::clone(&shared),
        commands: sender,
    };
    (handle, EngineInbox { commands, shared })
}
