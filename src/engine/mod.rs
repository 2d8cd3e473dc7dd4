//! The engine: one thread that owns scheduler, model and KV cache, and steps while there is work.
//!
//! ```text
//! loop:  commands → schedule → execute → update → token events
//! ```
//!
//! Knows nothing of HTTP or text. Every submitted request gets its tokens or one error.

mod handle;
mod runner;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::thread::JoinHandle;

use crate::backend::Backend;
use crate::core::{FinishReason, SeqId, TokenEvent};
use crate::error::{Error, Result};
use crate::scheduler::{Scheduler, SchedulerConfig};

pub use handle::{
    Command, EngineHandle, EngineInbox, EngineLimits, EngineState, EventSender, Submission,
    TokenStream, channel,
};
pub use runner::Runner;

/// How the engine's thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineExit {
    /// Every accepted request had ended.
    Drained,
    /// A step failed; what ran was given an error. The process must be restarted.
    Fault,
}

/// The engine's thread; joined at the end of the process.
#[derive(Debug)]
pub struct EngineThread(JoinHandle<EngineExit>);

impl EngineThread {
    /// Waits for the end. A panic outside a step counts as a fault.
    pub fn join(self) -> EngineExit {
        self.0.join().unwrap_or(EngineExit::Fault)
    }
}

/// Starts the thread.
///
/// # Errors
/// When the scheduler cannot work within `config`, or no thread can be had.
pub fn start<B>(
    runner: Runner<B>,
    config: SchedulerConfig,
    max_in_flight: usize,
) -> Result<(EngineHandle, EngineThread)>
where
    B: Backend + 'static,
    Runner<B>: Send,
{
    let scheduler = Scheduler::new(config)?;
    let (handle, inbox) = channel(EngineLimits {
        scheduler: config,
        max_in_flight,
    });
    let engine = Engine {
        scheduler,
        runner,
        inbox,
        streams: HashMap::new(),
        draining: false,
    };
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || engine.run())
        .map_err(|error| Error::Config(format!("the engine's thread cannot start: {error}")))?;
    Ok((handle, EngineThread(thread)))
}

struct Engine<B: Backend> {
    scheduler: Scheduler,
    runner: Runner<B>,
    inbox: EngineInbox,
    /// One per sequence that the scheduler has.
    streams: HashMap<SeqId, EventSender>,
    draining: bool,
}

impl<B: Backend> Engine<B> {
    fn run(mut self) -> EngineExit {
        loop {
            if !self.take_commands() {
                return EngineExit::Drained;
            }
            if let Err(error) = self.step() {
                tracing::error!(%error, "a step failed; the engine stops");
                self.poison();
                return EngineExit::Fault;
            }
        }
    }

    /// Takes what has arrived, waiting only when there is nothing else to do. `false` at the end.
    fn take_commands(&mut self) -> bool {
        loop {
            let command = if self.scheduler.has_work() {
                match self.inbox.try_recv() {
                    Some(command) => command,
                    None => return true,
                }
            } else if self.draining {
                return false;
            } else {
                match self.inbox.blocking_recv() {
                    Some(command) => command,
                    None => return false,
                }
            };
            self.take(command);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(Submission {
                id,
                request,
                events,
            }) => match self.scheduler.add(id, request) {
                Ok(()) => {
                    self.streams.insert(id, events);
                }
                Err(error) => events.send(Err(error)),
            },
            Command::Abort(id) => {
                self.scheduler.abort(id);
                self.streams.remove(&id);
            }
            Command::Drain => self.draining = true,
        }
    }

    fn step(&mut self) -> Result<()> {
        let batch = self.scheduler.schedule();
        // A panic in a kernel must not leave clients waiting, so it is an error like any other.
        let executed = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.runner.execute(&self.scheduler, &batch)
        }));
        let sampled = executed.map_err(|_| Error::StepFailed)??;

        let tokens: Vec<_> = sampled
            .iter()
            .map(|(id, sampled)| (*id, sampled.token))
            .collect();
        let finished: HashMap<SeqId, FinishReason> =
            self.scheduler.update(&batch, &tokens).into_iter().collect();
        for (id, sampled) in sampled {
            let finish = finished.get(&id).copied();
            if let Some(stream) = self.streams.get(&id) {
                stream.send(Ok(TokenEvent {
                    token: sampled.token,
                    logprobs: sampled.logprobs,
                    finish,
                    num_cached_tokens: 0,
                }));
            }
            if finish.is_some() {
                self.streams.remove(&id);
            }
        }
        Ok(())
    }

    /// Ends every stream with an error: those that are here and those still in the inbox.
    fn poison(&mut self) {
        self.inbox.close();
        for (_, stream) in self.streams.drain() {
            stream.send(Err(Error::EngineDead));
        }
        while let Some(command) = self.inbox.try_recv() {
            if let Command::Submit(submission) = command {
                submission.events.send(Err(Error::EngineDead));
            }
        }
    }
}
