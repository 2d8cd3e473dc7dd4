//! The engine's two ends: handles that submit requests, and the inbox that the engine's thread reads.
//!
//! Owns what is said between them. Knows nothing of tensors or of the HTTP side; a test may read
//! the inbox itself and script the answers.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admission::{self, EngineLimits, EngineState, Report, Shared};
use super::stats::EngineStats;
use super::token_stream::{EventSender, TokenStream, token_stream};
use crate::core::{GenerateRequest, SeqId};
use crate::error::{Error, Result};

/// What the handles say to the engine's thread.
#[derive(Debug)]
pub enum Command {
    /// Generate, and send each token to `events`.
    Submit(Box<Submission>),
    /// The client is gone: free what the sequence holds.
    Abort(SeqId),
    /// Finish what has begun, then stop.
    Drain,
}

/// An accepted request on its way to the engine's thread.
#[derive(Debug)]
pub struct Submission {
    /// Identity for `Abort`.
    pub id: SeqId,
    /// What to generate.
    pub request: GenerateRequest,
    /// When it was accepted.
    pub accepted: Instant,
    /// Where its tokens go; closed when the client is gone.
    pub events: EventSender,
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
    /// Those of [`submit_all`](Self::submit_all).
    pub fn submit(&self, request: GenerateRequest) -> Result<TokenStream> {
        let mut streams = self.submit_all(vec![request])?;
        Ok(streams.pop().expect("as many streams as requests"))
    }

    /// Accepts all requests, or none of them and says why. Streams are in the requests' order;
    /// neighbours with the same prompt count its tokens once. Never blocks.
    ///
    /// # Errors
    /// What [`SchedulerConfig::check`](crate::scheduler::SchedulerConfig::check) refuses;
    /// `NeverQueued` for more than could ever wait; `QueueFull`, `ShareFull`, `Draining` and
    /// `EngineDead`. All are the first one's tenant's.
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

    /// The engine's state at this moment.
    pub fn state(&self) -> EngineState {
        self.shared.state()
    }

    /// What the engine said of itself after its last step. Cheap.
    pub fn stats(&self) -> EngineStats {
        self.shared.report().stats
    }

    /// Longest sequence, prompt and output together, in tokens.
    pub fn max_model_len(&self) -> usize {
        self.shared.limits.scheduler.max_model_len
    }

    /// Requests accepted and not finished.
    pub fn num_in_flight(&self) -> usize {
        self.shared.num_in_flight()
    }

    /// Takes no new requests from now on, refuses those that wait, and stops the engine once the
    /// running ones have ended or their time is up.
    pub fn drain(&self) {
        self.shared.drain();
        let _ = self.commands.send(Command::Drain);
    }
}

/// The engine's end: commands come in here, and what handles see of the engine is set here.
#[derive(Debug)]
pub struct EngineInbox {
    commands: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
    is_retired: bool,
}

impl EngineInbox {
    /// The next command, if one is there.
    pub fn try_recv(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Waits for a command without blocking the thread; `None` when every handle and stream is
    /// gone.
    pub async fn recv(&mut self) -> Option<Command> {
        self.commands.recv().await
    }

    /// Takes no more commands; what has arrived can still be read.
    pub fn close(&mut self) {
        self.commands.close();
    }

    /// The engine has ended as it was told to: to handles it goes on draining, and is not dead.
    pub(super) fn retire(&mut self) {
        self.shared.drain();
        self.is_retired = true;
    }

    /// Changes what handles see.
    pub(super) fn report(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.shared.report());
    }
}

impl Drop for EngineInbox {
    // Also runs while a panic unwinds, so no handle goes on believing in a dead thread.
    fn drop(&mut self) {
        if !self.is_retired {
            self.shared.die();
        }
    }
}

/// A handle and the inbox it feeds.
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
