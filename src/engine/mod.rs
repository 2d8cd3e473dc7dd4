//! The engine: plans steps, has the device compute them, and sends each request its tokens.
//!
//! ```text
//!  handles ──commands──> Engine { scheduler, requests } ──commands──> device { model, KV cache }
//!  streams <──tokens────                                <──reports──
//!
//!  loop:  commands → deadlines → schedule, launch → wait: a report (update, tokens), masks
//!         (sample), a command, or a timer
//! ```
//!
//! There are two threads. This one waits for messages only, so that even if a step takes very long,
//! or forever, requests can still be refused, cancelled or failed.
//!
//! Knows nothing of HTTP, text or tensors. Every submitted request gets its tokens or one error.

mod admission;
mod device;
mod encoder_cache;
mod handle;
mod host_sampling_state;
mod launched_step;
mod mask_patience;
mod mask_workers;
mod model_input;
mod non_finite;
mod requests;
mod runner;
mod stats;
mod thread;
mod token_stream;
mod watchdog;

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::backend::Sampled;
use crate::core::{FinishReason, SeqId, Urgency};
use crate::error::{Error, Result};
use crate::scheduler::Scheduler;

use host_sampling_state::{Bitmask, BitmaskJob, MaskNeed};
use launched_step::{MaskWait, Step};
use mask_patience::MaskPatience;
use mask_workers::MaskWorkers;
use requests::{InFlight, Requests};
use watchdog::Watchdog;

pub use admission::{EngineLimits, EngineState};
pub use device::{
    DeviceCommand, DeviceHandle, DeviceInbox, DeviceShape, StepReport, device_channel,
};
pub use encoder_cache::{EmbeddingKey, EncoderStats};
pub use handle::{Command, EngineHandle, EngineInbox, Submission, channel};
pub use model_input::{ImageAt, ModelInput, SampleInput, ScoreOrder};
pub use runner::{Runner, StepOutput};
pub use stats::{EngineStats, PoolStats, StepSizes};
pub use thread::{EngineThread, start};
pub use token_stream::{EventSender, TokenStream};

/// What is added to the position of a sample that only chooses how an answer begins, so that its
/// random number is no token's: sequences are far shorter.
const CHOICE: usize = 1 << 30;

/// Configuration of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Limits for requests.
    pub limits: EngineLimits,
    /// When steps are planned.
    pub stepping: Stepping,
    /// Maximum time of a step before the device counts as stuck; `None` waits forever.
    pub step_timeout: Option<Duration>,
    /// Maximum time of a drain for requests that have begun.
    pub shutdown_timeout: Duration,
}

/// When a step is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepping {
    /// After the one before it has ended: a new request is in the very next step. Best if host and
    /// device are the same processor.
    Alternating,
    /// While the one before it is computed, so that the device never waits for the host. Sampled
    /// tokens stay on the device as the next step's input, before the host has seen them.
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
    /// The engine was drained: every accepted request has ended.
    Drained,
    /// A step failed or did not end; all requests were given an error. The process must be
    /// restarted.
    Fault,
}

/// The planning part of the engine. Runs on any executor that has timers; [`start`] gives it a
/// thread.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    scheduler: Scheduler,
    inbox: EngineInbox,
    requests: Requests,
    device: DeviceHandle,
    /// Steps launched and not reported, oldest first. Only the newest may lack its sample.
    steps: VecDeque<Step>,
    /// Masks being computed: for the oldest step, if it has no sample yet, and for held sequences.
    masks: MaskWorkers,
    /// How long steps wait for masks.
    patience: MaskPatience,
    /// Moving average of the time that the device needs before sampling.
    forward_time: Duration,
    /// Whether the device was asked to report the oldest step.
    is_collecting: bool,
    /// Watches the time that the device has worked on the oldest step.
    watchdog: Watchdog,
    draining_since: Option<Instant>,
    stats: EngineStats,
}

/// Events that the engine waits for.
enum Event {
    Report(Result<StepReport>),
    Mask(Result<Option<Bitmask>>),
    Command(Command),
    /// All handles and streams are gone.
    Abandoned,
    Timer,
}

impl Engine {
    /// Creates an engine whose steps are computed by `device`, and a handle to it.
    ///
    /// # Errors
    /// Fails when the scheduler cannot work within the limits.
    pub fn new(config: EngineConfig, device: DeviceHandle) -> Result<(EngineHandle, Self)> {
        let scheduler = Scheduler::new(config.limits.scheduler)?;
        let (handle, inbox) = channel(config.limits.clone());
        let engine = Self {
            stats: handle.stats(),
            watchdog: Watchdog::new(config.step_timeout),
            config,
            scheduler,
            inbox,
            requests: Requests::default(),
            device,
            steps: VecDeque::new(),
            masks: MaskWorkers::default(),
            patience: MaskPatience::new(),
            forward_time: Duration::ZERO,
            is_collecting: false,
            draining_since: None,
        };
        Ok((handle, engine))
    }

    /// Runs until the engine is drained, abandoned or stopped by a fault.
    pub async fn run(mut self) -> EngineExit {
        loop {
            while let Some(command) = self.inbox.try_recv() {
                self.take(command);
            }
            self.give_up_overdue();
            if self.draining_since.is_some() && self.requests.is_empty() {
                self.publish_stats();
                self.inbox.retire();
                return EngineExit::Drained;
            }
            if let Err(error) = self.launch_steps() {
                return self.poison(&error);
            }
            self.publish_stats();
            let event = self.next_event().await;
            let now = Instant::now();
            self.watchdog.look(now);
            match event {
                Event::Report(report) => {
                    if let Err(error) = report.and_then(|report| self.take_report(report)) {
                        return self.poison(&error);
                    }
                }
                Event::Mask(made) => match made {
                    Ok(Some(made)) => self.take_mask(made),
                    Ok(None) => {}
                    Err(error) => return self.poison(&error),
                },
                Event::Command(command) => self.take(command),
                Event::Abandoned => {
                    self.inbox.retire();
                    return EngineExit::Drained;
                }
                Event::Timer => {
                    let busy = (!self.steps.is_empty()).then_some(&self.watchdog);
                    if let Some(took) = busy.and_then(|watchdog| watchdog.stuck_for(now)) {
                        let took = took.as_secs();
                        let stuck = format!("a step has not ended for {took} s (--step-timeout)");
                        return self.poison(&Error::Backend(stuck));
                    }
                    if self.mask_deadline().is_some_and(|at| at <= Instant::now()) {
                        self.skip_late_masks();
                    }
                }
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let timers = [
            self.requests.next_deadline(),
            self.next_check(),
            self.shutdown_at(),
            self.mask_deadline(),
        ];
        let next_timer = timers.into_iter().flatten().min();
        let timer = async {
            match next_timer {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // Reports first: a report that has arrived ends its step in time, however late it is
            // read.
            biased;
            report = self.device.report(), if self.is_collecting => Event::Report(report),
            made = self.masks.next(), if !self.masks.is_idle() => Event::Mask(made),
            command = self.inbox.recv() => command.map_or(Event::Abandoned, Event::Command),
            () = timer => Event::Timer,
        }
    }

    fn next_check(&self) -> Option<Instant> {
        let is_busy = !self.steps.is_empty();
        is_busy.then(|| self.watchdog.next_check())?
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
        // The request was on its way when the drain began.
        if self.draining_since.is_some() {
            events.send(Err(Error::Draining));
            return;
        }
        // A step with such inputs would fail for the other sequences too.
        if !self.device.shape().takes(&request) {
            tracing::error!(%id, "a request's inputs are not the model's");
            events.send(Err(Error::StepFailed));
            return;
        }
        let open = InFlight::new(&request, events, accepted);
        match self.scheduler.add(id, request) {
            Ok(()) => self.requests.add(id, open),
            Err(error) => open.refuse(error),
        }
    }

    /// Ends a request with an error, in whatever state it is, and frees what it holds.
    fn end(&mut self, id: SeqId, error: Error) {
        self.scheduler.abort(id);
        self.requests.fail(id, error);
    }

    /// Ends requests whose deadline has passed, and all of them once the shutdown timeout has
    /// passed.
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

    /// Sends all commands that are possible now: the sample of a step that waited for tokens, as
    /// many steps as may be in flight, and the collection of the oldest one's tokens.
    fn launch_steps(&mut self) -> Result<()> {
        self.begin_sampling();
        self.sample_if_ready();
        while self.may_launch() && self.scheduler.has_work() {
            let batch = self.scheduler.schedule();
            for id in &batch.preempted {
                self.requests.preempted(*id);
            }
            if batch.is_empty() {
                if self.steps.is_empty() && self.masks.is_idle() {
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
                self.watchdog.begin(now);
            }
            let mut order = ModelInput::new(&self.scheduler, &batch);
            let mut step = Step::new(batch, &order);
            if self.requests.is_any_late(step.batch.sampling()) {
                for id in step.batch.sampling() {
                    if self.requests.is_slow(id) {
                        self.scheduler.hold(id);
                    }
                }
                step.unsampled = Some(std::mem::take(&mut order.samples));
                self.device.send(DeviceCommand::Forward(Box::new(order)));
            } else {
                self.device.send(DeviceCommand::Launch(Box::new(order)));
            }
            self.steps.push_back(step);
            self.begin_sampling();
        }
        let is_sampled = |step: &Step| step.unsampled.is_none();
        if self.steps.front().is_some_and(is_sampled) && !self.is_collecting {
            self.device.send(DeviceCommand::Collect);
            self.is_collecting = true;
        }
        Ok(())
    }

    /// Whether one more step may be in flight. It may need all samples of the one before it.
    fn may_launch(&self) -> bool {
        let is_sampled = |step: &Step| step.unsampled.is_none();
        self.steps.len() < self.config.stepping.max_steps()
            && self.steps.back().is_none_or(is_sampled)
    }

    /// Starts to compute the masks for the oldest step, if it has no sample yet; all tokens before
    /// it have been applied. Without constraints there are none, and the step is sampled at once.
    fn begin_sampling(&mut self) {
        let Some(step) = self.steps.front_mut().filter(|step| step.wait.is_none()) else {
            return;
        };
        let Some(samples) = &mut step.unsampled else {
            return;
        };
        let mut pending = HashMap::new();
        for (idx, (id, sample)) in step.batch.sampling().zip(samples).enumerate() {
            // A sequence that has ended is still sampled for, as the step was planned so.
            let Some(late) = self.requests.late_mut(id) else {
                continue;
            };
            sample.seen = late.seen();
            if late.chooses_start() {
                // Its own random number: the answer's first token is independent of the choice.
                sample.position += CHOICE;
                step.skipped.insert(id);
                step.choices.insert(id);
                self.scheduler.hold(id);
                self.scheduler.skip_sample(id);
                continue;
            }
            match late.need_mask() {
                MaskNeed::Free => {}
                MaskNeed::Ready(mask) => {
                    sample.mask = late.with_choice(mask, self.device.shape().vocab_size);
                }
                MaskNeed::Missing(grammar_state, sampled) => {
                    late.set_pending(self.masks.start(BitmaskJob {
                        id,
                        grammar_state,
                        sampled,
                        urgency: Urgency::Now,
                        params: Arc::clone(&sample.params),
                        num_generated: sample.num_generated,
                        vocab_size: self.device.shape().vocab_size,
                    }));
                    pending.insert(id, idx);
                }
                MaskNeed::Pending => drop(pending.insert(id, idx)),
            }
        }
        let is_ready = pending.is_empty();
        step.wait = Some(MaskWait {
            since: Instant::now(),
            pending,
        });
        if is_ready {
            self.submit_sampling();
        }
    }

    /// Starts to compute the masks of held sequences.
    fn begin_slow_masks(&mut self, ids: impl Iterator<Item = SeqId>) {
        for id in ids {
            // Fast path: slow masks are rare.
            if !self.requests.is_slow(id) {
                continue;
            }
            let Some(sequence) = self.scheduler.sequence(id) else {
                continue;
            };
            let num_generated = sequence.tokens().len() - sequence.num_prompt_tokens();
            let params = Arc::clone(sequence.sampling());
            let Some(late) = self.requests.late_mut(id) else {
                continue;
            };
            match late.need_mask() {
                MaskNeed::Free => {}
                MaskNeed::Ready(mask) => {
                    late.keep(mask);
                    self.scheduler.release(id);
                }
                MaskNeed::Missing(grammar_state, sampled) => {
                    late.set_pending(self.masks.start(BitmaskJob {
                        id,
                        grammar_state,
                        sampled,
                        urgency: Urgency::Background,
                        params,
                        num_generated,
                        vocab_size: self.device.shape().vocab_size,
                    }))
                }
                MaskNeed::Pending => {}
            }
        }
    }

    /// Takes a computed mask: for the sample of the oldest step, which is submitted once its last
    /// mask is there, or for a held sequence.
    fn take_mask(&mut self, made: Bitmask) {
        let Bitmask {
            id,
            grammar_state,
            mask,
            took,
        } = made;
        let step = self.steps.front_mut();
        let waiting = step.and_then(|step| {
            let sample = step.wait.as_mut()?.pending.remove(&id)?;
            step.unsampled.as_mut()?.get_mut(sample)
        });
        let late = self.requests.late_mut(id);
        match (mask, waiting, late) {
            (Err(error), _, _) => self.end(id, error),
            (Ok(mask), Some(sample), late) => {
                sample.mask = match late {
                    Some(late) => late.with_choice(mask, self.device.shape().vocab_size),
                    None => mask,
                };
            }
            (Ok(mask), None, Some(late)) => {
                late.keep(mask);
                if took <= self.forward_time {
                    // The device's computation would have hidden this time.
                    late.set_slow(false);
                }
                self.scheduler.release(id);
            }
            // The request has ended.
            (Ok(_), None, None) => {}
        }
        if let (Some(late), Some(grammar_state)) = (self.requests.late_mut(id), grammar_state) {
            late.give_back(grammar_state);
        }
        self.sample_if_ready();
    }

    /// Orders the sample of the oldest step once no mask of an unfinished request is missing.
    fn sample_if_ready(&mut self) {
        let wait = self.steps.front_mut().and_then(|step| step.wait.as_mut());
        if let Some(wait) = wait {
            wait.pending
                .retain(|id, _| self.requests.late_mut(*id).is_some());
            if wait.pending.is_empty() {
                self.submit_sampling();
            }
        }
    }

    /// Returns when the oldest step continues without the missing masks.
    fn mask_deadline(&self) -> Option<Instant> {
        let step = self.steps.front().filter(|step| step.unsampled.is_some())?;
        let wait = step.wait.as_ref()?;
        let patience = self.patience.for_step(step.num_without_pending_mask());
        Some(wait.since + self.forward_time + patience)
    }

    /// Samples the oldest step without the sequences whose masks are missing. These skip this step,
    /// and from now on every step for which their mask is not ready.
    fn skip_late_masks(&mut self) {
        let Some(step) = self.steps.front_mut() else {
            return;
        };
        let wait = step.wait.as_mut();
        let pending = wait.map(|wait| std::mem::take(&mut wait.pending));
        for id in pending.into_iter().flatten().map(|(id, _)| id) {
            // Sequences that have ended are not in `requests` any more.
            if let Some(late) = self.requests.late_mut(id) {
                late.set_slow(true);
                self.scheduler.hold(id);
                self.scheduler.skip_sample(id);
                step.skipped.insert(id);
                self.stats.num_skipped_masks += 1;
            }
        }
        self.submit_sampling();
    }

    fn submit_sampling(&mut self) {
        let Some(step) = self.steps.front_mut() else {
            return;
        };
        if let Some(samples) = step.unsampled.take() {
            step.sampled_at = Some(Instant::now());
            self.device.send(DeviceCommand::Sample(samples));
        }
    }

    /// Charges the time that the other sequences of a step waited for masks.
    fn charge_waiting(&mut self, step: &Step, report: &StepReport, took: Duration) {
        let (Some(wait), Some(sampled_at)) = (&step.wait, step.sampled_at) else {
            return;
        };
        // Smoothed, since a single slow step says little about the next.
        self.forward_time = self.forward_time.mul_f64(0.75) + report.forward.mul_f64(0.25);
        let masks = sampled_at - wait.since;
        // If the masks were there in time, an asynchronous device still computed for long after the
        // sample was submitted.
        let is_hidden = sampled_at.elapsed() > took / 4;
        let is_alone = step.batch.chunks.len() == 1;
        let waited = match is_hidden || is_alone {
            true => Duration::ZERO,
            false => masks.saturating_sub(report.forward),
        };
        self.patience.charge(took, waited);
    }

    /// Applies the results of the oldest step.
    fn take_report(&mut self, report: StepReport) -> Result<()> {
        let step = self.steps.pop_front();
        let step = step.expect("the device reports what was launched");
        let batch = &step.batch;
        self.is_collecting = false;
        let took = self.watchdog.lap(Instant::now());
        self.charge_waiting(&step, &report, took);
        let StepOutput { sampled, scores } = report.output;

        let num_sampled = sampled.len();
        if num_sampled != batch.sampling().count() || scores.len() != step.num_scored() {
            return Err(Error::Backend(format!(
                "a step sampled {num_sampled} tokens for {} sequences and scored {} of {}",
                batch.sampling().count(),
                scores.len(),
                step.num_scored()
            )));
        }
        self.take_scores(&step, scores);
        let sampled: Vec<_> = batch.sampling().zip(sampled).collect();
        for (id, _) in sampled.iter().filter(|(_, sampled)| !sampled.is_finite) {
            self.end_non_finite(*id);
        }
        let num_sampled = num_sampled - step.skipped.len();
        // No drafts are proposed, so each sequence has one sample.
        let tokens: Vec<_> = sampled
            .iter()
            .map(|(id, sampled)| match step.skipped.contains(id) {
                true => (*id, [].as_slice()),
                false => (*id, slice::from_ref(&sampled.token)),
            })
            .collect();
        let finished = self.scheduler.update(batch, &tokens);
        let finished: HashMap<SeqId, FinishReason> =
            finished.iter().map(|end| (end.seq, end.reason)).collect();
        // Before any token is passed on: who has an answer finds it counted.
        let num_tokens = batch.num_tokens();
        self.inbox
            .report(|report| report.rate.step(num_tokens, took));
        self.stats.num_steps += 1;
        self.stats.num_computed_tokens += num_tokens as u64;
        self.stats.step_sizes.add(num_tokens);
        self.stats.num_generated_tokens += num_sampled as u64;
        self.stats.encoder_hits = report.encoder.hits;
        self.stats.encoder_misses = report.encoder.misses;
        self.publish_stats();
        for (id, sampled) in sampled {
            if step.skipped.contains(&id) {
                if step.choices.contains(&id)
                    && let Some(late) = self.requests.late_mut(id)
                {
                    late.choose_start(sampled.token);
                    self.scheduler.release(id);
                }
                continue;
            }
            let finish = finished.get(&id).copied();
            if let Some(num_tokens) = self.requests.token(id, sampled, finish) {
                self.inbox.report(|report| report.rate.answer(num_tokens));
            }
        }

        self.begin_slow_masks(batch.sampling().filter(|id| !step.skipped.contains(id)));
        Ok(())
    }

    /// Records the log-probabilities of prompt tokens.
    fn take_scores(&mut self, step: &Step, scores: Vec<Sampled>) {
        let mut scores = scores.into_iter();
        for run in &step.scored {
            let scores: Vec<_> = scores.by_ref().take(run.len).collect();
            if scores.iter().all(|score| score.is_finite) {
                self.requests.scored(run.id, run.position, scores);
            } else {
                self.end_non_finite(run.id);
            }
        }
    }

    /// Updates the statistics that handles see.
    fn publish_stats(&mut self) {
        let now = self.scheduler.stats();
        let stats = &mut self.stats;
        stats.num_running = now.num_running;
        stats.num_waiting = now.num_waiting;
        stats.kv_usage = now.kv_usage;
        stats.num_preemptions = now.num_preemptions;
        stats.prefix_queried_tokens = now.prefix_queried_tokens;
        stats.prefix_hit_tokens = now.prefix_hit_tokens;
        let free = now.num_free_blocks.by_group();
        for (pool, free) in stats.pools.iter_mut().zip(free) {
            pool.free = free;
        }
        let stats = self.stats;
        self.inbox.report(|report| report.stats = stats);
    }

    /// Stops the engine: ends every request with an error, including those still in the inbox.
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
        self.publish_stats();
        EngineExit::Fault
    }
}
