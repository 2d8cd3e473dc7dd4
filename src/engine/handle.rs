//! Handles that submit requests, and the inbox that the engine thread reads.
//!
//! Defines the messages between them. Knows nothing of tensors or HTTP; a test may read the inbox
//! itself and script the answers.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admission::{self, EngineLimits, EngineState, Report, Shared};
use super::stats::EngineStats;
use super::token_stream::{EventSender, TokenStream, token_stream};
use crate::core::{GenerateRequest, SeqId};
use crate::error::{Error, Result};

/// Messages from the handles to the engine thread.
#[derive(Debug)]
pub enum Command {
    /// Generate, and send each token to the submission's `events`.
    Submit(Box<Submission>),
    /// Free what the sequence holds, because the client is gone.
    Abort(SeqId),
    /// Finish what has begun, then stop.
    Drain,
}

/// An accepted request on its way to the engine thread.
#[derive(Debug)]
pub struct Submission {
    /// Id of the sequence; also used for `Abort`.
    pub id: SeqId,
    /// The request.
    pub request: GenerateRequest,
    /// Time at which it was accepted.
    pub accepted: Instant,
    /// Channel for its tokens; closed when the client is gone.
    pub events: EventSender,
}

/// Submits requests to the engine thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

impl EngineHandle {
    /// Accepts a request, or returns at once why it is refused. Never blocks.
    ///
    /// # Errors
    /// Returns the errors of [`submit_all`](Self::submit_all).
    pub fn submit(&self, request: GenerateRequest) -> Result<TokenStream> {
        let mut streams = self.submit_all(vec![request])?;
        Ok(streams.pop().expect("as many streams as requests"))
    }

    /// Accepts all requests, or none and returns why. Streams are in the requests' order; the
    /// tokens of a prompt shared by consecutive requests are counted once. Never blocks.
    ///
    /// # Errors
    /// Returns the errors of [`SchedulerConfig::check`](crate::scheduler::SchedulerConfig::check);
    /// `NeverQueued` for more than could ever wait; `QueueFull`, `ShareFull`, `Draining` and
    /// `EngineDead`. All requests are counted for the first one's tenant.
    pub fn submit_all(&self, requests: Vec<GenerateRequest>) -> Result<Vec<TokenStream>> {
        let places = admission::admit(&self.shared, &requests)?;
        let accepted = Instant::now();
        let mut streams = Vec::with_capacity(requests.len());
        for (request, place) in requests.into_iter().zip(places) {
            let id = self.shared.next_id();
            let (events, stream) = token_stream(id, place, self.commands.clone());
            let submission = Submission {
                id,
                request,
                accepted,
                events,
            };
            self.commands
                .send(Command::Submit(Box::new(submission)))
                .map_err(|_| Error::EngineDead)?;
            streams.push(stream);
        }
        Ok(streams)
    }

    /// Returns the engine's present state.
    pub fn state(&self) -> EngineState {
        self.shared.state()
    }

    /// Returns the engine's statistics after its last step. Cheap.
    pub fn stats(&self) -> EngineStats {
        self.shared.report().stats
    }

    /// Maximum length of a sequence, prompt and output together, in tokens.
    pub fn max_model_len(&self) -> usize {
        self.shared.limits.scheduler.max_model_len
    }

    /// Number of accepted, unfinished requests.
    pub fn num_in_flight(&self) -> usize {
        self.shared.num_in_flight()
    }

    /// Accepts no new requests from now on, refuses those that wait, and stops the engine once the
    /// running ones have ended or the shutdown timeout has passed.
    pub fn drain(&self) {
        self.shared.drain();
        let _ = self.commands.send(Command::Drain);
    }
}

/// The engine's end: receives commands and sets the state that handles see.
#[derive(Debug)]
pub struct EngineInbox {
    commands: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
    is_retired: bool,
}

impl EngineInbox {
    /// Returns the next command, if there is one.
    pub fn try_recv(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Waits for a command without blocking the thread; `None` when all handles and streams are
    /// gone.
    pub async fn recv(&mut self) -> Option<Command> {
        self.commands.recv().await
    }

    /// Accepts no more commands; those that have arrived can still be read.
    pub fn close(&mut self) {
        self.commands.close();
    }

    /// Marks a regular end of the engine: handles see it as draining, not as dead.
    pub(super) fn retire(&mut self) {
        self.shared.drain();
        self.is_retired = true;
    }

    /// Changes the report that handles see.
    pub(super) fn report(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.shared.report());
    }
}

impl Drop for EngineInbox {
    // Also runs while a panic unwinds, so that handles do not keep waiting for a dead thread.
    fn drop(&mut self) {
        if !self.is_retired {
            self.shared.die();
        }
    }
}

/// Creates a handle and its inbox.
pub fn channel(limits: EngineLimits) -> (EngineHandle, EngineInbox) {
    let (sender, commands) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::new(limits));
    let handle = EngineHandle {
        shared: Arc::clone(&shared),
        commands: sender,
    };
    let inbox = EngineInbox {
        commands,
        shared,
        is_retired: false,
    };
    (handle, inbox)
}
