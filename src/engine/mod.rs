//! The engine: plans steps, has them computed, and tells every request its tokens.
//!
//! ```text
//!  handles ──commands──> Engine { scheduler, requests } ──orders──> device { model, KV cache }
//!  streams <──tokens────                                <──reports──
//!
//!  loop:  commands → deadlines → schedule, launch → wait: a report (update, tokens), a command,
//!         or a timer
//! ```
//!
//! Two threads: this one waits for nothing but what it is told, so that a step that takes long, or
//! for ever, keeps nobody from being refused, cancelled or told that it is over.
//!
//! Knows nothing of HTTP, text or tensors. Every submitted request gets its tokens or one error.

mod admission;
mod deadlines;
mod device;
mod encoder_cache;
mod handle;
mod requests;
mod runner;
mod stats;
mod thread;
mod token_stream;
mod work_order;

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::core::{FinishReason, SeqId};
use crate::error::{Error, Result};
use crate::scheduler::{Batch, Scheduler};

use requests::Requests;

pub use admission::{EngineLimits, EngineState};
pub use device::{DeviceHandle, DeviceInbox, DeviceOrder, DeviceShape, StepReport, device_channel};
pub use encoder_cache::EncoderStats;
pub use handle::{Command, EngineHandle, EngineInbox, Submission, channel};
pub use runner::Runner;
pub use stats::{EngineStats, PoolStats};
pub use thread::{EngineThread, start};
pub use token_stream::{EventSender, TokenStream};
pub use work_order::{ImageAt, SampleOrder, WorkOrder};

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What it takes.
    pub limits: EngineLimits,
    /// When it plans.
    pub stepping: Stepping,
    /// Longest time for a step before the device counts as stuck; `None` waits for ever.
    pub step_timeout: Option<Duration>,
    /// In a drain, the time for what has begun.
    pub shutdown_timeout: Duration,
}

/// When a step is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepping {
    /// After the one before it: what has just come is in the very next step. Right where the host
    /// is the device.
    Alternating,
    /// While the one before it is computed, so that the device never waits for the host. Tokens
    /// are fed on before the host has seen them.
    Ahead,
}

impl Stepping {
    fn max_steps(self) -> usize {
        match self {
            Self::Alternating => 1,
            Self::Ahead => 2,
        }
    }
}

/// How an engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineExit {
    /// It was told to stop, and every accepted request has ended.
    Drained,
    /// A step failed or did not end; all requests were given an error. The process must be
    /// restarted.
    Fault,
}

/// The planning half. Runs on any executor that has timers; [`start`] gives it a thread.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    scheduler: Scheduler,
    inbox: EngineInbox,
    requests: Requests,
    device: DeviceHandle,
    /// Launched and not reported, oldest first.
    steps: VecDeque<Batch>,
    /// The device was told to report the oldest step.
    is_collecting: bool,
    /// Since when the device can have worked on the oldest step.
    busy_since: Instant,
    draining_since: Option<Instant>,
    stats: EngineStats,
}

/// What the engine waits for.
enum Event {
    Report(Result<StepReport>),
    Command(Command),
    /// Every handle and stream is gone.
    Abandoned,
    Timer,
}

impl Engine {
    /// An engine that has its steps computed by `device`, and a handle to it.
    ///
    /// # Errors
    /// When the scheduler cannot work within the limits.
    pub fn new(config: EngineConfig, device: DeviceHandle) -> Result<(EngineHandle, Self)> {
        let scheduler = Scheduler::new(config.limits.scheduler)?;
        let (handle, inbox) = channel(config.limits.clone());
        let engine = Self {
            stats: handle.stats(),
            config,
            scheduler,
            inbox,
            requests: Requests::default(),
            device,
            steps: VecDeque::new(),
            is_collecting: false,
            busy_since: Instant::now(),
            draining_since: None,
        };
        Ok((handle, engine))
    }

    /// Works until it is drained, abandoned or poisoned by a fault.
    pub async fn run(mut self) -> EngineExit {
        loop {
            while let Some(command) = self.inbox.try_recv() {
                self.take(command);
            }
            self.give_up_overdue();
            if self.draining_since.is_some() && self.requests.is_empty() {
                self.tell();
                self.inbox.retire();
                return EngineExit::Drained;
            }
            if let Err(error) = self.launch_steps() {
                return self.poison(&error);
            }
            self.tell();
            match self.next_event().await {
                Event::Report(report) => {
                    if let Err(error) = report.and_then(|report| self.take_report(report)) {
                        return self.poison(&error);
                    }
                }
                Event::Command(command) => self.take(command),
                Event::Abandoned => {
                    self.inbox.retire();
                    return EngineExit::Drained;
                }
                Event::Timer if self.stuck_at().is_some_and(|at| at <= Instant::now()) => {
                    let took = self.busy_since.elapsed().as_secs();
                    let stuck = format!("a step has not ended for {took} s (--step-timeout)");
                    return self.poison(&Error::Backend(stuck));
                }
                Event::Timer => {}
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let timers = [
            self.requests.next_deadline(),
            self.stuck_at(),
            self.shutdown_at(),
        ];
        let next_timer = timers.into_iter().flatten().min();
        let timer = async {
            match next_timer {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // Reports first: one that is there ends a step in time, however late it is read.
            biased;
            report = self.device.report(), if self.is_collecting => Event::Report(report),
            command = self.inbox.recv() => command.map_or(Event::Abandoned, Event::Command),
            () = timer => Event::Timer,
        }
    }

    fn stuck_at(&self) -> Option<Instant> {
        let timeout = self.config.step_timeout?;
        (!self.steps.is_empty()).then(|| self.busy_since + timeout)
    }

    fn shutdown_at(&self) -> Option<Instant> {
        Some(self.draining_since? + self.config.shutdown_timeout)
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => self.submit(*submission),
            Command::Abort(id) => {
                self.scheduler.abort(id);
                self.requests.forget(id);
            }
            Command::Drain if self.draining_since.is_none() => {
                self.draining_since = Some(Instant::now());
                for id in self.requests.waiting() {
                    self.end(id, Error::Draining);
                }
            }
            Command::Drain => {}
        }
    }

    fn submit(&mut self, submission: Submission) {
        let Submission {
            id,
            request,
            accepted,
            events,
        } = submission;
        // It was on its way when the drain began.
        if self.draining_since.is_some() {
            events.send(Err(Error::Draining));
            return;
        }
        // A step with such inputs would fail for its neighbours too.
        if !self.device.shape().takes(&request) {
            tracing::error!(%id, "a request's inputs are not the model's");
            events.send(Err(Error::StepFailed));
            return;
        }
        let deadline = request.terms.deadline.map(Instant::from_std);
        match self.scheduler.add(id, request) {
            Ok(()) => self.requests.add(id, events, accepted, deadline),
            Err(error) => events.send(Err(error)),
        }
    }

    /// Ends a request with an error, wherever it is, and frees what it holds.
    fn end(&mut self, id: SeqId, error: Error) {
        self.scheduler.abort(id);
        self.requests.fail(id, error);
    }

    /// Requests whose own time is up, and all when the time to shut down is.
    fn give_up_overdue(&mut self) {
        let now = Instant::now();
        while let Some(id) = self.requests.give_up_overdue(now) {
            self.scheduler.abort(id);
        }
        if self.shutdown_at().is_some_and(|at| at <= now) && !self.requests.is_empty() {
            let left = self.requests.ids();
            tracing::warn!(requests = left.len(), "the time to shut down is up");
            for id in left {
                let after = self.config.shutdown_timeout;
                self.end(id, Error::ShutdownTimeout { after });
            }
        }
    }

    /// Plans and launches as many steps as may be under way, and asks for the oldest one's tokens.
    fn launch_steps(&mut self) -> Result<()> {
        while self.steps.len() < self.config.stepping.max_steps() && self.scheduler.has_work() {
            let batch = self.scheduler.schedule();
            if batch.is_empty() {
                if self.steps.is_empty() {
                    let stalled = "requests wait and none of them can be computed";
                    return Err(Error::Backend(stalled.to_owned()));
                }
                break;
            }
            let now = Instant::now();
            for chunk in &batch.chunks {
                let sequence = self.scheduler.sequence(chunk.seq);
                let sequence = sequence.expect("it has just been scheduled");
                self.requests
                    .begin(chunk.seq, now, sequence.num_cached_tokens());
            }
            if self.steps.is_empty() {
                self.busy_since = now;
            }
            let order = WorkOrder::new(&self.scheduler, &batch);
            self.device.order(DeviceOrder::Launch(Box::new(order)));
            self.steps.push_back(batch);
        }
        if !self.steps.is_empty() && !self.is_collecting {
            self.device.order(DeviceOrder::Collect);
            self.is_collecting = true;
        }
        Ok(())
    }

    /// Takes in what the oldest step has computed.
    fn take_report(&mut self, report: StepReport) -> Result<()> {
        let batch = self.steps.pop_front();
        let batch = batch.expect("the device reports what was launched");
        self.is_collecting = false;
        let took = self.busy_since.elapsed();
        self.busy_since += took;

        let num_drawn = report.sampled.len();
        if num_drawn != batch.sampling().count() {
            return Err(Error::Backend(format!(
                "a step drew {num_drawn} tokens for {} sequences",
                batch.sampling().count()
            )));
        }
        let drawn: Vec<_> = batch.sampling().zip(report.sampled).collect();
        for (id, _) in drawn.iter().filter(|(_, sampled)| !sampled.is_sound) {
            tracing::error!(%id, "a request's logits are not numbers");
            self.end(*id, Error::StepFailed);
        }
        let tokens: Vec<_> = drawn
            .iter()
            .map(|(id, sampled)| (*id, sampled.token))
            .collect();
        let finished = self.scheduler.update(&batch, &tokens);
        let finished: HashMap<SeqId, FinishReason> = finished.into_iter().collect();
        for (id, sampled) in drawn {
            let finish = finished.get(&id).copied();
            if let Some(num_tokens) = self.requests.token(id, sampled, finish) {
                self.inbox.report(|report| report.rate.answer(num_tokens));
            }
        }

        let num_tokens = batch.num_tokens();
        self.inbox
            .report(|report| report.rate.step(num_tokens, took));
        self.stats.num_steps += 1;
        self.stats.num_computed_tokens += num_tokens as u64;
        self.stats.num_generated_tokens += num_drawn as u64;
        self.stats.encoder_hits = report.encoder.hits;
        self.stats.encoder_misses = report.encoder.misses;
        Ok(())
    }

    /// Shows handles how things stand.
    fn tell(&mut self) {
        let now = self.scheduler.stats();
        let stats = &mut self.stats;
        stats.num_running = now.num_running;
        stats.num_waiting = now.num_waiting;
        stats.kv_usage = now.kv_usage;
        stats.num_preemptions = now.num_preemptions;
        stats.prefix_queried_tokens = now.prefix_queried_tokens;
        stats.prefix_hit_tokens = now.prefix_hit_tokens;
        stats.global_blocks.free = now.num_free_blocks.global;
        stats.sliding_blocks.free = now.num_free_blocks.sliding;
        let stats = self.stats;
        self.inbox.report(|report| report.stats = stats);
    }

    /// Ends every request with an error: those that are here and those still in the inbox.
    fn poison(mut self, fault: &Error) -> EngineExit {
        tracing::error!(%fault, "the engine stops");
        self.inbox.close();
        for id in self.requests.ids() {
            self.end(id, Error::EngineDead);
        }
        while let Some(command) = self.inbox.try_recv() {
            if let Command::Submit(submission) = command {
                submission.events.send(Err(Error::EngineDead));
            }
        }
        self.tell();
        EngineExit::Fault
    }
}
