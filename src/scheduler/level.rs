//! Those who wait at one priority, and whose turn it is among their tenants.
//!
//! Start-time fair queueing by tokens of service. Each tenant has an account of what it was
//! served; the next one is the oldest request of the tenant that was served least. Who comes
//! after a pause is not paid for it: its account is lifted to that of the tenant admitted last
//! (the virtual time). So with k tenants waiting, a new one's first request is admitted after at
//! most one of each of the others that are as far behind, however many those have.
//!
//! Preempted sequences had their turn already and come before everybody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::core::TenantId;

use super::place::{Arrival, Place, Ticket};
use super::sequence::Sequence;

/// Tenants' accounts that are kept without looking whether they still say something.
const FEW_ACCOUNTS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Level {
    preempted: BTreeMap<Ticket, Box<Sequence>>,
    tenants: HashMap<TenantId, Tenant>,
    /// One for each tenant with a waiting request.
    fronts: BTreeSet<Front>,
    /// Out of the line until a running sequence has computed what they share.
    parked: BTreeMap<Arrival, Box<Sequence>>,
    virtual_time: u64,
    /// After the last look for accounts to forget.
    num_remembered: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Tokens, and the virtual time at which it came.
    served: u64,
    waiting: BTreeMap<Arrival, Box<Sequence>>,
}

/// A tenant's oldest waiting request; the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Front {
    served: u64,
    arrival: Arrival,
    tenant: TenantId,
}

impl Level {
    pub(super) fn is_empty(&self) -> bool {
        self.preempted.is_empty() && self.fronts.is_empty() && self.parked.is_empty()
    }

    pub(super) fn num_parked(&self) -> usize {
        self.parked.len()
    }

    /// Takes in a sequence: a new one into its tenant's line, a preempted one before all of them.
    pub(super) fn add(&mut self, seq: Box<Sequence>) {
        if let Some(ticket) = seq.ticket {
            self.preempted.insert(ticket, seq);
            return;
        }
        let id = seq.terms().tenant;
        let virtual_time = self.virtual_time;
        self.change(id, |tenant| {
            if tenant.waiting.is_empty() {
                tenant.served = tenant.served.max(virtual_time);
            }
            tenant.waiting.insert(seq.arrival, seq);
        });
    }

    /// Takes out the sequence at `place`, if it is here.
    pub(super) fn remove(&mut self, place: &Place) -> Option<Box<Sequence>> {
        match place.ticket {
            Some(ticket) => self.preempted.remove(&ticket),
            None => self
                .parked
                .remove(&place.arrival)
                .or_else(|| self.change(place.tenant, |t| t.waiting.remove(&place.arrival))),
        }
    }

    /// The one whose turn it is; `None` when all are parked.
    pub(super) fn front(&self) -> Option<&Sequence> {
        let preempted = self.preempted.values().next();
        preempted
            .or_else(|| {
                let front = self.fronts.first()?;
                self.tenants[&front.tenant].waiting.values().next()
            })
            .map(Box::as_ref)
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Sequence> {
        let place = self.front()?.place();
        self.get_mut(&place)
    }

    /// Takes out the [front](Self::front).
    pub(super) fn pop_front(&mut self) -> Option<Box<Sequence>> {
        let place = self.front()?.place();
        if place.ticket.is_none() {
            let front = self.fronts.first().expect("the front has no ticket");
            self.virtual_time = self.virtual_time.max(front.served);
        }
        self.remove(&place)
    }

    /// Takes the [front](Self::front), which must be a new one, out of the line for a while.
    pub(super) fn park_front(&mut self) {
        let place = self.front().expect("who parks it has seen it").place();
        let seq = self.remove(&place).expect("the front is here");
        self.parked.insert(place.arrival, seq);
    }

    /// Back into the line. `false` when it is no longer parked.
    pub(super) fn unpark(&mut self, arrival: Arrival) -> bool {
        let seq = self.parked.remove(&arrival);
        let was_parked = seq.is_some();
        if let Some(seq) = seq {
            self.add(seq);
        }
        was_parked
    }

    pub(super) fn get(&self, place: &Place) -> Option<&Sequence> {
        let seq = match place.ticket {
            Some(ticket) => self.preempted.get(&ticket),
            None => self.parked.get(&place.arrival).or_else(|| {
                let tenant = self.tenants.get(&place.tenant)?;
                tenant.waiting.get(&place.arrival)
            }),
        };
        seq.map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, place: &Place) -> Option<&mut Sequence> {
        let seq = match place.ticket {
            Some(ticket) => self.preempted.get_mut(&ticket),
            None => self.parked.get_mut(&place.arrival).or_else(|| {
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
                .retain(|_, tenant| !tenant.waiting.is_empty() || tenant.served > now);
            self.num_remembered = self.tenants.len();
        }
    }
}

impl Tenant {
    fn front(&self, id: TenantId) -> Option<Front> {
        let (&arrival, _) = self.waiting.first_key_value()?;
        Some(Front {
            served: self.served,
            arrival,
            tenant: id,
        })
    }
}

/// For [`check_integrity`](super::Scheduler::check_integrity).
impl Level {
    pub(super) fn preempted(&self) -> impl Iterator<Item = &Sequence> {
        self.preempted.values().map(Box::as_ref)
    }

    pub(super) fn parked(&self) -> impl Iterator<Item = &Sequence> {
        self.parked.values().map(Box::as_ref)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        let new = self.tenants.values().flat_map(|t| t.waiting.values());
        let all = self.preempted.values().chain(self.parked.values());
        all.chain(new).map(Box::as_ref)
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
