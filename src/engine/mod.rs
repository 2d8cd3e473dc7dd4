//! The engine: plans steps, has them computed, and tells every request its tokens.
//!
//! ```text
//!  handles ──commands──> Engine { scheduler, requests } ──orders──> device { model, KV cache }
//!  streams <──tokens────                                <──reports──
//!
//!  loop:  commands → deadlines → schedule, launch → wait: a report (update, tokens), masks (draw),
//!         a command, or a timer
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
mod late_row;
mod mask_workers;
mod prompt_scores;
mod requests;
mod runner;
mod stats;
mod step;
mod thread;
mod token_stream;
mod work_order;

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::backend::Sampled;
use crate::core::{FinishReason, SeqId};
use crate::error::{Error, Result};
use crate::scheduler::Scheduler;

use late_row::{MadeMask, MaskJob};
use mask_workers::MaskWorkers;
use requests::{Open, Requests};
use step::Step;

pub use admission::{EngineLimits, EngineState};
pub use device::{DeviceHandle, DeviceInbox, DeviceOrder, DeviceShape, StepReport, device_channel};
pub use encoder_cache::EncoderStats;
pub use handle::{Command, EngineHandle, EngineInbox, Submission, channel};
pub use runner::{Runner, StepOutput};
pub use stats::{EngineStats, PoolStats};
pub use thread::{EngineThread, start};
pub use token_stream::{EventSender, TokenStream};
pub use work_order::{ImageAt, SampleOrder, ScoreOrder, WorkOrder};

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
    /// Launched and not reported, oldest first. Only the newest may be without its draw.
    steps: VecDeque<Step>,
    /// At work for the oldest step, when that has no draw yet.
    masks: MaskWorkers,
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
    Masks(Result<Vec<MadeMask>>),
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
            masks: MaskWorkers::default(),
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
                Event::Masks(masks) => match masks {
                    Ok(masks) => self.take_masks(masks),
                    Err(error) => return self.poison(&error),
                },
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
            masks = self.masks.next(), if !self.masks.is_idle() => Event::Masks(masks),
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
        let open = Open::new(&request, events, accepted);
        match self.scheduler.add(id, request) {
            Ok(()) => self.requests.add(id, open),
            Err(error) => open.refuse(error),
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

    /// Orders all that can be: the draw of a step that waited for tokens, as many steps as may be
    /// under way, and the oldest one's tokens.
    fn launch_steps(&mut self) -> Result<()> {
        self.begin_draw();
        while self.may_launch() && self.scheduler.has_work() {
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
            let mut order = WorkOrder::new(&self.scheduler, &batch);
            let mut step = Step::new(batch, &order);
            if self.requests.is_any_late(step.batch.sampling()) {
                step.undrawn = Some(std::mem::take(&mut order.samples));
                self.device.order(DeviceOrder::Forward(Box::new(order)));
            } else {
                self.device.order(DeviceOrder::Launch(Box::new(order)));
            }
            self.steps.push_back(step);
            self.begin_draw();
        }
        let is_drawn = |step: &Step| step.undrawn.is_none();
        if self.steps.front().is_some_and(is_drawn) && !self.is_collecting {
            self.device.order(DeviceOrder::Collect);
            self.is_collecting = true;
        }
        Ok(())
    }

    /// Whether one step more may be under way. It may need all draws of the one before it.
    fn may_launch(&self) -> bool {
        let is_drawn = |step: &Step| step.undrawn.is_none();
        self.steps.len() < self.config.stepping.max_steps()
            && self.steps.back().is_none_or(is_drawn)
    }

    /// Begins to make what the draw of the oldest step needs, if it has no draw yet: all tokens
    /// before it have been taken in. Without constraints that is nothing, and it is drawn at once.
    fn begin_draw(&mut self) {
        let Some(step) = self.steps.front_mut() else {
            return;
        };
        let Some(samples) = step.undrawn.as_mut().filter(|_| self.masks.is_idle()) else {
            return;
        };
        let mut jobs = Vec::new();
        for (draw, (id, sample)) in step.batch.sampling().zip(samples).enumerate() {
            // One that has ended is drawn for all the same, as the step was planned.
            let Some(late) = self.requests.late_mut(id) else {
                continue;
            };
            sample.seen = late.seen();
            jobs.extend(late.take_way().map(|way| MaskJob {
                id,
                draw,
                way,
                params: Arc::clone(&sample.params),
                num_generated: sample.num_generated,
                vocab_size: self.device.shape().vocab_size,
            }));
        }
        if jobs.is_empty() {
            self.order_draw();
        } else {
            self.masks.start(jobs);
        }
    }

    /// Masks are ready; with the last of them, the oldest step can be drawn.
    fn take_masks(&mut self, masks: Vec<MadeMask>) {
        for made in masks {
            match made.mask {
                Ok(mask) => {
                    let step = self.steps.front_mut();
                    let samples = step.and_then(|step| step.undrawn.as_mut());
                    let samples = samples.expect("masks are made for a step without its draw");
                    samples[made.draw].mask = mask;
                }
                Err(error) => self.end(made.id, error),
            }
            if let (Some(late), Some(way)) = (self.requests.late_mut(made.id), made.way) {
                late.give_back(way);
            }
        }
        if self.masks.is_idle() {
            self.order_draw();
        }
    }

    fn order_draw(&mut self) {
        let step = self.steps.front_mut();
        if let Some(samples) = step.and_then(|step| step.undrawn.take()) {
            self.device.order(DeviceOrder::Draw(samples));
        }
    }

    /// Takes in what the oldest step has computed.
    fn take_report(&mut self, report: StepReport) -> Result<()> {
        let step = self.steps.pop_front();
        let step = step.expect("the device reports what was launched");
        let batch = &step.batch;
        let StepOutput { sampled, scores } = report.output;
        self.is_collecting = false;
        let took = self.busy_since.elapsed();
        self.busy_since += took;

        let num_drawn = sampled.len();
        if num_drawn != batch.sampling().count() || scores.len() != step.num_scored() {
            return Err(Error::Backend(format!(
                "a step drew {num_drawn} tokens for {} sequences and scored {} of {}",
                batch.sampling().count(),
                scores.len(),
                step.num_scored()
            )));
        }
        self.take_scores(&step, scores);
        let drawn: Vec<_> = batch.sampling().zip(sampled).collect();
        for (id, _) in drawn.iter().filter(|(_, sampled)| !sampled.is_sound) {
            tracing::error!(%id, "a request's logits are not numbers");
            self.end(*id, Error::StepFailed);
        }
        let tokens: Vec<_> = drawn
            .iter()
            .map(|(id, sampled)| (*id, sampled.token))
            .collect();
        let finished = self.scheduler.update(batch, &tokens);
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

    /// How probable tokens of prompts are.
    fn take_scores(&mut self, step: &Step, scores: Vec<Sampled>) {
        let mut scores = scores.into_iter();
        for run in &step.scored {
            let scores: Vec<_> = scores.by_ref().take(run.len).collect();
            if scores.iter().all(|score| score.is_sound) {
                self.requests.scored(run.id, run.position, scores);
            } else {
                tracing::error!(id = %run.id, "a prompt's logits are not numbers");
                self.end(run.id, Error::StepFailed);
            }
        }
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
