//! The waiting sequences of one priority, and fair queueing among their tenants.
//!
//! Start-time fair queueing by tokens of service. Each tenant has a counter of the tokens it was
//! served; the next sequence is the oldest request of the tenant with the smallest counter. A
//! tenant that returns after a pause gets no credit for the pause: its counter is raised to that of
//! the tenant admitted last (the virtual time). So with k tenants waiting, a new tenant's first
//! request is admitted after at most one request of each of the others with the same counter,
//! however many requests those have.
//!
//! Preempted sequences were admitted before, so they come before all other requests of their
//! tenant, but not before another tenant that was served less.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::core::TenantId;

use super::queue_key::{AdmissionSeq, ArrivalSeq, QueueKey};
use super::sequence::Sequence;

/// Number of tenants' counters that are kept without checking whether they are still needed.
const FEW_ACCOUNTS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct PriorityLevel {
    tenants: HashMap<TenantId, Tenant>,
    /// One entry for each tenant with a sequence in the queue.
    fronts: BTreeSet<Front>,
    /// Deferred sequences: out of the queue until a running sequence has computed the shared
    /// blocks.
    deferred: BTreeMap<ArrivalSeq, Box<Sequence>>,
    virtual_time: u64,
    /// Number of tenants kept by the last cleanup.
    num_remembered: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Tokens served, at least the virtual time at which the tenant came.
    served: u64,
    preempted: BTreeMap<AdmissionSeq, Box<Sequence>>,
    waiting: BTreeMap<ArrivalSeq, Box<Sequence>>,
}

/// A tenant's best preempted sequence, else its oldest waiting request; the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Front {
    served: u64,
    turn: Turn,
    tenant: TenantId,
}

/// Among tenants with equal counters, a sequence that was admitted before goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Again(AdmissionSeq),
    First(ArrivalSeq),
}

impl PriorityLevel {
    pub(super) fn is_empty(&self) -> bool {
        self.fronts.is_empty() && self.deferred.is_empty()
    }

    pub(super) fn num_deferred(&self) -> usize {
        self.deferred.len()
    }

    /// Adds a sequence to its tenant's queue: a preempted one before all new ones.
    pub(super) fn add(&mut self, seq: Box<Sequence>) {
        self.add_at(self.virtual_time, seq);
    }

    /// Adds a sequence whose slot was taken for the [front](Self::front). Its tenant had more than
    /// its share, so its counter is raised above the front's.
    pub(super) fn set_back(&mut self, seq: Box<Sequence>) {
        let ahead = self.fronts.first().map_or(0, |front| front.served + 1);
        let id = seq.scheduling().tenant;
        self.change(id, |tenant| tenant.served = tenant.served.max(ahead));
        self.add_at(self.virtual_time.max(ahead), seq);
    }

    /// Adds a sequence; if its tenant's queue was empty, the counter is raised to at least
    /// `virtual_time`.
    fn add_at(&mut self, virtual_time: u64, seq: Box<Sequence>) {
        let id = seq.scheduling().tenant;
        self.change(id, |tenant| {
            if tenant.is_empty() {
                tenant.served = tenant.served.max(virtual_time);
            }
            match seq.admission_seq {
                Some(admission_seq) => tenant.preempted.insert(admission_seq, seq),
                None => tenant.waiting.insert(seq.arrival, seq),
            };
        });
    }

    /// Removes the sequence at `place`, if it is here.
    pub(super) fn remove(&mut self, place: &QueueKey) -> Option<Box<Sequence>> {
        match place.admission_seq {
            Some(admission_seq) => {
                self.change(place.tenant, |t| t.preempted.remove(&admission_seq))
            }
            None => self
                .deferred
                .remove(&place.arrival)
                .or_else(|| self.change(place.tenant, |t| t.waiting.remove(&place.arrival))),
        }
    }

    /// Returns the next sequence; `None` when all are deferred.
    pub(super) fn front(&self) -> Option<&Sequence> {
        let front = self.fronts.first()?;
        self.tenants[&front.tenant].first()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Sequence> {
        let place = self.front()?.place();
        self.get_mut(&place)
    }

    /// Removes the [front](Self::front).
    pub(super) fn pop_front(&mut self) -> Option<Box<Sequence>> {
        let place = self.front()?.place();
        let front = self.fronts.first().expect("there is a front");
        self.virtual_time = self.virtual_time.max(front.served);
        self.remove(&place)
    }

    /// Defers the [front](Self::front), which must be a new sequence.
    pub(super) fn defer_front(&mut self) {
        let place = self.front().expect("who defers it has seen it").place();
        let seq = self.remove(&place).expect("the front is here");
        self.deferred.insert(place.arrival, seq);
    }

    /// Puts a deferred sequence back into the queue. Returns `false` when it is no longer deferred.
    pub(super) fn unpark(&mut self, arrival: ArrivalSeq) -> bool {
        let seq = self.deferred.remove(&arrival);
        let was_deferred = seq.is_some();
        if let Some(seq) = seq {
            self.add(seq);
        }
        was_deferred
    }

    pub(super) fn get(&self, place: &QueueKey) -> Option<&Sequence> {
        let seq = match place.admission_seq {
            Some(admission_seq) => self
                .tenants
                .get(&place.tenant)?
                .preempted
                .get(&admission_seq),
            None => self.deferred.get(&place.arrival).or_else(|| {
                let tenant = self.tenants.get(&place.tenant)?;
                tenant.waiting.get(&place.arrival)
            }),
        };
        seq.map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, place: &QueueKey) -> Option<&mut Sequence> {
        let seq = match place.admission_seq {
            Some(admission_seq) => {
                let tenant = self.tenants.get_mut(&place.tenant)?;
                tenant.preempted.get_mut(&admission_seq)
            }
            None => self.deferred.get_mut(&place.arrival).or_else(|| {
                let tenant = self.tenants.get_mut(&place.tenant)?;
                tenant.waiting.get_mut(&place.arrival)
            }),
        };
        seq.map(Box::as_mut)
    }

    /// Adds `num_tokens` to a tenant's counter.
    pub(super) fn charge(&mut self, tenant: TenantId, num_tokens: usize) {
        let virtual_time = self.virtual_time;
        self.change(tenant, |tenant| {
            tenant.served = tenant.served.max(virtual_time) + num_tokens as u64;
        });
    }

    /// Changes a tenant's counter or queue, and updates its front.
    fn change<R>(&mut self, id: TenantId, change: impl FnOnce(&mut Tenant) -> R) -> R {
        let tenant = self.tenants.entry(id).or_default();
        if let Some(front) = tenant.front(id) {
            self.fronts.remove(&front);
        }
        let result = change(tenant);
        if let Some(front) = tenant.front(id) {
            self.fronts.insert(front);
        } else {
            self.forget_idle_tenants();
        }
        result
    }

    /// Removes counters that are behind the virtual time, since they have no effect any more. The
    /// others belong to tenants that were served recently, which are few. Checks all of them, but
    /// only when there are twice as many as after the last cleanup.
    fn forget_idle_tenants(&mut self) {
        if self.tenants.len() > FEW_ACCOUNTS + 2 * self.num_remembered {
            let now = self.virtual_time;
            self.tenants
                .retain(|_, tenant| !tenant.is_empty() || tenant.served > now);
            self.num_remembered = self.tenants.len();
        }
    }
}

impl Tenant {
    fn is_empty(&self) -> bool {
        self.preempted.is_empty() && self.waiting.is_empty()
    }

    fn first(&self) -> Option<&Sequence> {
        let preempted = self.preempted.values().next();
        let first = preempted.or_else(|| self.waiting.values().next());
        first.map(Box::as_ref)
    }

    fn front(&self, id: TenantId) -> Option<Front> {
        let first = self.first()?;
        Some(Front {
            served: self.served,
            turn: match first.admission_seq {
                Some(admission_seq) => Turn::Again(admission_seq),
                None => Turn::First(first.arrival),
            },
            tenant: id,
        })
    }
}

/// Accessors for `check_integrity`.
#[cfg(test)]
impl PriorityLevel {
    pub(super) fn preempted(&self) -> impl Iterator<Item = &Sequence> {
        let preempted = self.tenants.values().flat_map(|t| t.preempted.values());
        preempted.map(Box::as_ref)
    }

    pub(super) fn deferred(&self) -> impl Iterator<Item = &Sequence> {
        self.deferred.values().map(Box::as_ref)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        let tenants = self.tenants.values();
        let in_line = tenants.flat_map(|t| t.preempted.values().chain(t.waiting.values()));
        in_line.chain(self.deferred.values()).map(Box::as_ref)
    }

    pub(super) fn num_accounts(&self) -> usize {
        self.tenants.len()
    }

    /// # Panics
    /// Panics when a tenant's front is wrong.
    pub(super) fn check_fronts(&self) {
        let fronts: BTreeSet<Front> = self
            .tenants
            .iter()
            .filter_map(|(&id, tenant)| tenant.front(id))
            .collect();
        assert_eq!(fronts, self.fronts, "each tenant's oldest request");
    }
}
