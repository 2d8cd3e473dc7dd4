//! Those who wait at one priority, and whose turn it is among their tenants.
//!
//! Start-time fair queueing by tokens of service. Each tenant has an account of what it was
//! served; the next one is the oldest request of the tenant that was served least. Who comes
//! after a pause is not paid for it: its account is lifted to that of the tenant admitted last
//! (the virtual time). So with k tenants waiting, a new one's first request is admitted after at
//! most one of each of the others that are as far behind, however many those have.
//!
//! Preempted sequences had their turn already and come before all else of their tenant, but not
//! before another tenant that was served less.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::core::TenantId;

use super::queue_key::{AdmissionSeq, ArrivalSeq, QueueKey};
use super::sequence::Sequence;

/// Tenants' accounts that are kept without looking whether they still say something.
const FEW_ACCOUNTS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct PriorityLevel {
    tenants: HashMap<TenantId, Tenant>,
    /// One for each tenant with somebody in the line.
    fronts: BTreeSet<Front>,
    /// Out of the line until a running sequence has computed what they share.
    deferred: BTreeMap<ArrivalSeq, Box<Sequence>>,
    virtual_time: u64,
    /// After the last look for accounts to forget.
    num_remembered: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Tokens, and the virtual time at which it came.
    served: u64,
    preempted: BTreeMap<AdmissionSeq, Box<Sequence>>,
    waiting: BTreeMap<ArrivalSeq, Box<Sequence>>,
}

/// A tenant's best preempted sequence, else its oldest waiting request; the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Front {
    served: u64,
    turn: Turn,
    tenant: TenantId,
}

/// Of those that were served alike, who was admitted before goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Again(AdmissionSeq),
    First(ArrivalSeq),
}

impl PriorityLevel {
    pub(super) fn is_empty(&self) -> bool {
        self.fronts.is_empty() && self.deferred.is_empty()
    }

    pub(super) fn num_parked(&self) -> usize {
        self.deferred.len()
    }

    /// Takes a sequence into its tenant's line: a preempted one before all new ones.
    pub(super) fn add(&mut self, seq: Box<Sequence>) {
        self.add_at(self.virtual_time, seq);
    }

    /// Takes in a sequence whose place was taken for the [front](Self::front): its tenant, which
    /// had more than its share, counts as served more than the front's.
    pub(super) fn set_back(&mut self, seq: Box<Sequence>) {
        let ahead = self.fronts.first().map_or(0, |front| front.served + 1);
        let id = seq.scheduling().tenant;
        self.change(id, |tenant| tenant.served = tenant.served.max(ahead));
        self.add_at(self.virtual_time.max(ahead), seq);
    }

    /// A tenant whose line was empty counts as served at least `virtual_time`.
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

    /// Takes out the sequence at `place`, if it is here.
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

    /// The one whose turn it is; `None` when all are parked.
    pub(super) fn front(&self) -> Option<&Sequence> {
        let front = self.fronts.first()?;
        self.tenants[&front.tenant].first()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Sequence> {
        let place = self.front()?.place();
        self.get_mut(&place)
    }

    /// Takes out the [front](Self::front).
    pub(super) fn pop_front(&mut self) -> Option<Box<Sequence>> {
        let place = self.front()?.place();
        let front = self.fronts.first().expect("there is a front");
        self.virtual_time = self.virtual_time.max(front.served);
        self.remove(&place)
    }

    /// Takes the [front](Self::front), which must be a new one, out of the line for a while.
    pub(super) fn park_front(&mut self) {
        let place = self.front().expect("who parks it has seen it").place();
        let seq = self.remove(&place).expect("the front is here");
        self.deferred.insert(place.arrival, seq);
    }

    /// Back into the line. `false` when it is no longer parked.
    pub(super) fn unpark(&mut self, arrival: ArrivalSeq) -> bool {
        let seq = self.deferred.remove(&arrival);
        let was_parked = seq.is_some();
        if let Some(seq) = seq {
            self.add(seq);
        }
        was_parked
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

    /// A tenant was served so many tokens.
    pub(super) fn charge(&mut self, tenant: TenantId, num_tokens: usize) {
        let virtual_time = self.virtual_time;
        self.change(tenant, |tenant| {
            tenant.served = tenant.served.max(virtual_time) + num_tokens as u64;
        });
    }

    /// Changes a tenant's account or line, and its front with it.
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

    /// Accounts behind the virtual time say nothing any more; of the others there is one for each
    /// tenant that was served lately, and tenants are few. Looks at all of them, but only when
    /// there are twice as many as after the last look.
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

/// For [`check_integrity`](super::Scheduler::check_integrity).
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

    #[cfg(test)]
    pub(super) fn num_accounts(&self) -> usize {
        self.tenants.len()
    }

    /// # Panics
    /// When a tenant's front is not where it belongs.
    pub(super) fn check_fronts(&self) {
        let fronts: BTreeSet<Front> = self
            .tenants
            .iter()
            .filter_map(|(&id, tenant)| tenant.front(id))
            .collect();
        assert_eq!(fronts, self.fronts, "each tenant's oldest request");
    }
}
