//! Admission control: counts in-flight requests and queued prompt tokens; shared by all handles and
//! the engine thread.
//!
//! If tenants are distinguished, a tenant may hold at most as many requests as it leaves free:
//! alone it may hold half of the capacity, beside another tenant that holds as much a third. So
//! there is always capacity for a tenant that holds nothing yet, no request is ever evicted for it,
//! and the number of tenants need not be known in advance.
//!
//! Owns the counters that handles and the engine thread share. Knows nothing of steps.

use std::collections::HashMap;
use std::ops::Add;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::stats::{EngineStats, ServiceRate};
use crate::core::{GenerateRequest, SeqId, TenantId};
use crate::error::{Error, Result};
use crate::scheduler::SchedulerConfig;

/// Whether the engine accepts requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EngineState {
    /// The engine accepts requests.
    Ready = 0,
    /// The engine finishes what it has begun and accepts nothing new.
    Draining = 1,
    /// The engine has stopped: after a drain, or because of a fault.
    Dead = 2,
}

/// Limits that are checked before a request reaches the engine thread.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// Limits of the scheduler; requests beyond them are refused here.
    pub scheduler: SchedulerConfig,
    /// Maximum number of accepted, unfinished requests, running and waiting.
    pub max_in_flight: usize,
    /// Maximum number of prompt tokens of requests that no step has begun. At least
    /// `max_model_len`.
    pub max_queued_tokens: usize,
    /// Maximum number of requests of one tenant that no step has begun; `None` leaves only the
    /// tenant's share as the limit.
    pub max_queued_per_tenant: Option<usize>,
}

/// State shared by handles and the engine thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: EngineLimits,
    state: AtomicU8,
    next_id: AtomicU64,
    load: Mutex<Load>,
    report: Mutex<Report>,
}

#[derive(Debug, Default)]
struct Load {
    total: Part,
    /// Entries of the tenants that have requests in flight.
    by_tenant: HashMap<TenantId, Part>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Number of accepted, unfinished requests.
    in_flight: usize,
    /// Number of these that no step has begun.
    queued: usize,
    /// Number of prompt tokens of the queued requests.
    queued_tokens: usize,
}

/// What the engine thread reports about itself.
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
        self.load().total.in_flight
    }

    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        // Each statement leaves these plain numbers valid, so a panic elsewhere does not corrupt
        // them.
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

/// Admits all of `requests`, or none.
///
/// # Errors
/// Returns the errors of [`SchedulerConfig::check`], `NeverQueued`, `QueueFull`, `ShareFull`,
/// `Draining` or `EngineDead`.
pub(super) fn admit(
    shared: &Arc<Shared>,
    requests: &[GenerateRequest],
) -> Result<Vec<InFlightSlot>> {
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
    let Some(first) = requests.first() else {
        return Ok(Vec::new());
    };
    let tenant = first.scheduling.tenant;
    let asked = Part {
        in_flight: requests.len(),
        queued: requests.len(),
        queued_tokens: tokens.iter().sum(),
    };
    let (max_sequences, max_tokens) = limits.most_of(tenant);
    if asked.in_flight > max_sequences || asked.queued_tokens > max_tokens {
        return Err(Error::NeverQueued {
            sequences: asked.in_flight,
            max_sequences,
            tokens: asked.queued_tokens,
            max_tokens,
        });
    }
    {
        let mut load = shared.load();
        let held = load.by_tenant.get(&tenant).copied().unwrap_or_default();
        let (total, own) = (load.total + asked, held + asked);
        let is_full = total.in_flight > limits.max_in_flight
            || total.queued_tokens > limits.max_queued_tokens;
        if is_full || limits.is_beyond_share(tenant, total, own) {
            let ahead = load.total;
            drop(load);
            let rate = shared.report().rate;
            let retry_after = rate.time_for(ahead.queued, ahead.queued_tokens);
            return Err(match is_full {
                true => Error::QueueFull {
                    queued: ahead.in_flight,
                    retry_after,
                },
                false => Error::ShareFull {
                    held: held.in_flight,
                    retry_after,
                },
            });
        }
        load.total = total;
        load.by_tenant.insert(tenant, own);
    }
    let place = |tokens| InFlightSlot {
        shared: Arc::clone(shared),
        tenant,
        queued_tokens: Some(tokens),
    };
    Ok(tokens.into_iter().map(place).collect())
}

impl EngineLimits {
    /// Maximum number of requests and queued tokens that one tenant can ever have.
    fn most_of(&self, tenant: TenantId) -> (usize, usize) {
        let most_queued = self.max_queued_per_tenant.unwrap_or(usize::MAX);
        let (requests, tokens) = match tenant == TenantId::default() {
            true => (self.max_in_flight, self.max_queued_tokens),
            false => (self.max_in_flight.div_ceil(2), self.max_queued_tokens),
        };
        (requests.min(most_queued), tokens)
    }

    /// Whether a tenant that then has `own` of `total` holds more than it leaves free, or has more
    /// queued requests than allowed.
    fn is_beyond_share(&self, tenant: TenantId, total: Part, own: Part) -> bool {
        if self
            .max_queued_per_tenant
            .is_some_and(|most| own.queued > most)
        {
            return true;
        }
        // Tenants are not distinguished: the only one may use everything.
        if tenant == TenantId::default() {
            return false;
        }
        let free = self.max_in_flight - total.in_flight;
        let free_tokens = self.max_queued_tokens - total.queued_tokens;
        let is_first = own.in_flight == 1;
        !is_first && (own.in_flight > free || (own.queued > 1 && own.queued_tokens > free_tokens))
    }
}

impl Add for Part {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            in_flight: self.in_flight + other.in_flight,
            queued: self.queued + other.queued,
            queued_tokens: self.queued_tokens + other.queued_tokens,
        }
    }
}

impl Load {
    /// Changes one tenant's counts and the totals.
    fn change(&mut self, tenant: TenantId, change: impl Fn(&mut Part)) {
        change(&mut self.total);
        if let Some(part) = self.by_tenant.get_mut(&tenant) {
            change(part);
            if part.in_flight == 0 {
                self.by_tenant.remove(&tenant);
            }
        }
    }
}

/// A request's slot in the counts; released when dropped, however the request ended.
#[derive(Debug)]
pub(super) struct InFlightSlot {
    shared: Arc<Shared>,
    tenant: TenantId,
    /// `None` once a step has begun the request.
    queued_tokens: Option<usize>,
}

impl InFlightSlot {
    /// Marks the request as begun: it is no longer queued.
    pub(super) fn begin(&mut self) {
        if let Some(tokens) = self.queued_tokens.take() {
            self.shared.load().change(self.tenant, |part| {
                part.queued -= 1;
                part.queued_tokens -= tokens;
            });
        }
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        self.begin();
        let mut load = self.shared.load();
        load.change(self.tenant, |part| part.in_flight -= 1);
    }
}
