//! The door of the engine: how much may be in the house, counted where requests come in and where
//! they end.
//!
//! Owns the counters that handles and the engine's thread share. Knows nothing of steps.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::stats::{EngineStats, ServiceRate};
use crate::core::{GenerateRequest, SeqId};
use crate::error::{Error, Result};
use crate::scheduler::SchedulerConfig;

/// What the engine can do for a caller at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EngineState {
    /// Takes requests.
    Ready = 0,
    /// Finishes what it has begun and takes nothing new.
    Draining = 1,
    /// Stopped: after a drain, or poisoned by a fault.
    Dead = 2,
}

/// What is checked before a request reaches the engine's thread.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// What the scheduler can hold; requests beyond it are refused here.
    pub scheduler: SchedulerConfig,
    /// Requests accepted and not finished: as many as may run, and those that may wait.
    pub max_in_flight: usize,
    /// Tokens in the prompts of requests that no step has begun. At least `max_model_len`.
    pub max_queued_tokens: usize,
}

/// What handles and the engine's thread both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: EngineLimits,
    state: AtomicU8,
    next_id: AtomicU64,
    load: Mutex<Load>,
    report: Mutex<Report>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Accepted and not ended.
    in_flight: usize,
    /// Those of them that no step has begun.
    queued: usize,
    /// Their prompts.
    queued_tokens: usize,
}

/// What the engine's thread says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) stats: EngineStats,
    pub(super) rate: ServiceRate,
}

impl Shared {
    pub(super) fn new(limits: EngineLimits) -> Self {
        let report = Report {
            stats: EngineStats::at_start(&limits.scheduler),
            rate: ServiceRate::default(),
        };
        Self {
            limits,
            state: AtomicU8::new(EngineState::Ready as u8),
            next_id: AtomicU64::new(0),
            load: Mutex::default(),
            report: Mutex::new(report),
        }
    }

    pub(super) fn state(&self) -> EngineState {
        match self.state.load(Ordering::Acquire) {
            0 => EngineState::Ready,
            1 => EngineState::Draining,
            _ => EngineState::Dead,
        }
    }

    pub(super) fn drain(&self) {
        let _ = self.state.compare_exchange(
            EngineState::Ready as u8,
            EngineState::Draining as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    pub(super) fn die(&self) {
        self.state.store(EngineState::Dead as u8, Ordering::Release);
    }

    pub(super) fn next_id(&self) -> SeqId {
        SeqId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn num_in_flight(&self) -> usize {
        self.load().in_flight
    }

    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        // Plain numbers, right after every statement: a panic elsewhere breaks none of them.
        self.report
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        self.load
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Lets all of `requests` in, or none.
///
/// # Errors
/// What [`SchedulerConfig::check`] refuses, `NeverQueued`, `QueueFull`, `Draining`, `EngineDead`.
pub(super) fn admit(shared: &Arc<Shared>, requests: &[GenerateRequest]) -> Result<Vec<Place>> {
    match shared.state() {
        EngineState::Ready => {}
        EngineState::Draining => return Err(Error::Draining),
        EngineState::Dead => return Err(Error::EngineDead),
    }
    let limits = &shared.limits;
    for request in requests {
        limits.scheduler.check(request)?;
    }
    let tokens: Vec<usize> = (0..requests.len())
        .map(|idx| match idx.checked_sub(1) {
            // Answers to one prompt share its computation.
            Some(before) if requests[before].prompt == requests[idx].prompt => 0,
            _ => requests[idx].prompt.len(),
        })
        .collect();
    let (num_sequences, num_tokens) = (requests.len(), tokens.iter().sum());
    if num_sequences > limits.max_in_flight || num_tokens > limits.max_queued_tokens {
        return Err(Error::NeverQueued {
            sequences: num_sequences,
            max_sequences: limits.max_in_flight,
            tokens: num_tokens,
            max_tokens: limits.max_queued_tokens,
        });
    }
    {
        let mut load = shared.load();
        if load.in_flight + num_sequences > limits.max_in_flight
            || load.queued_tokens + num_tokens > limits.max_queued_tokens
        {
            let ahead = *load;
            drop(load);
            return Err(Error::QueueFull {
                queued: ahead.in_flight,
                retry_after: shared
                    .report()
                    .rate
                    .time_for(ahead.queued, ahead.queued_tokens),
            });
        }
        load.in_flight += num_sequences;
        load.queued += num_sequences;
        load.queued_tokens += num_tokens;
    }
    let place = |tokens| Place {
        shared: Arc::clone(shared),
        queued_tokens: Some(tokens),
    };
    Ok(tokens.into_iter().map(place).collect())
}

/// A request's place in the house; free again when this is dropped, however the request ended.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    /// `None` once a step has begun it.
    queued_tokens: Option<usize>,
}

impl Place {
    /// It waits no longer.
    pub(super) fn begin(&mut self) {
        if let Some(tokens) = self.queued_tokens.take() {
            let mut load = self.shared.load();
            load.queued -= 1;
            load.queued_tokens -= tokens;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.begin();
        self.shared.load().in_flight -= 1;
    }
}
