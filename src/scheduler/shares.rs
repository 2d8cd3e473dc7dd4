//! Fair shares of slots and blocks among tenants.
//!
//! Max-min fairness among the tenants of one priority. A tenant takes a slot or blocks from another
//! only if that one still has at least as much as itself afterwards. So each exchange makes the
//! holdings more equal, and no exchange can be undone by another: the reverse exchange fails the
//! same test. In addition:
//!
//! - a sequence's slot is taken only after its turn ([`Sequence::has_had_its_turn`]), so that slots
//!   do not change hands with every step and no work is wasted;
//! - a tenant's best rank is never taken, so that every sequence ends;
//! - the tokens of a step are divided equally between the prompts of several tenants;
//! - free slots and blocks may be used by any tenant, whatever it holds: nothing is left unused.
//!
//! A tenant's `n` answers to one request count as `n` sequences.

use std::collections::{HashMap, HashSet};

use super::admission::Admits;
use super::step::Step;
use super::{Scheduler, Sequence};
use crate::core::{BlockCount, MAX_KV_GROUPS, TenantId};

/// What one tenant holds among the running sequences of a priority.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    num_seqs: usize,
    blocks: BlockCount,
}

/// Holdings of all tenants at one priority.
struct Holdings {
    by_tenant: HashMap<TenantId, Holding>,
}

impl Holdings {
    fn of<'a>(running: impl Iterator<Item = &'a Sequence>) -> Self {
        let mut by_tenant: HashMap<TenantId, Holding> = HashMap::new();
        for seq in running {
            let holding = by_tenant.entry(seq.scheduling().tenant).or_default();
            holding.num_seqs += 1;
            holding.blocks = holding.blocks + seq.kv.num_held();
        }
        Self { by_tenant }
    }

    fn get(&self, tenant: TenantId) -> Holding {
        self.by_tenant.get(&tenant).copied().unwrap_or_default()
    }

    fn without(&mut self, seq: &Sequence) {
        if let Some(holding) = self.by_tenant.get_mut(&seq.scheduling().tenant) {
            holding.num_seqs -= 1;
            holding.blocks = holding.blocks.saturating_sub(seq.kv.num_held());
        }
    }
}

/// The resource that the front of the waiting queue lacks.
#[derive(Clone, Copy)]
enum Lack {
    Slot,
    /// The front's claim, and the number of blocks that are missing in each group: 0 in a group
    /// that has enough.
    Blocks {
        claim: BlockCount,
        missing: BlockCount,
    },
}

impl Lack {
    /// Whether `rich` without `victim` still has as much as `poor` will have.
    fn justifies(self, rich: Holding, victim: &Sequence, poor: Holding) -> bool {
        match self {
            Self::Slot => rich.num_seqs > poor.num_seqs + 1,
            Self::Blocks { claim, missing } => {
                let gives = victim.kv.num_held();
                let left = rich.blocks.saturating_sub(gives);
                let gets = poor.blocks + claim;
                let mut lacking = (0..MAX_KV_GROUPS).filter(|&group| missing[group] > 0);
                lacking.clone().any(|group| gives[group] > 0)
                    && lacking.all(|group| left[group] >= gets[group])
            }
        }
    }
}

impl Scheduler {
    /// Schedules prompts of other tenants than that of the best-ranked prompt, and admits the front
    /// of the queue if it belongs to another tenant. Each tenant gets an equal part of the budget
    /// left by decodes, so that a long prompt delays no other tenant. The best-ranked tenant gets
    /// the rest.
    pub(super) fn schedule_other_tenants(&mut self, step: &mut Step) {
        let reads = |seq: &Sequence| seq.num_missing_tokens() > 1 && seq.num_planned_tokens == 0;
        let Some(first) = self.running.iter().find(|seq| reads(seq)) else {
            return;
        };
        let (priority, tenant) = (first.scheduling().priority, first.scheduling().tenant);
        let others = self.running_at(priority).filter(|seq| reads(seq));
        let mut parts: HashMap<TenantId, usize> = others
            .map(|seq| (seq.scheduling().tenant, 0))
            .filter(|&(other, _)| other != tenant)
            .collect();
        let admits = Admits::Others(priority, tenant);
        if self.front_may_run(admits)
            && let Some(front) = self.waiting.front()
        {
            parts.insert(front.scheduling().tenant, 0);
        }
        let part = step.budget / (parts.len() + 1);
        if parts.is_empty() || part == 0 {
            return;
        }
        parts.values_mut().for_each(|left| *left = part);
        let mut idx = 0;
        // Not a range loop: preemption shortens the list from its end.
        while idx < self.running.len() && step.budget > 0 {
            let seq = &self.running[idx];
            let scheduling = seq.scheduling();
            if scheduling.priority == priority
                && reads(seq)
                && let Some(left) = parts.get_mut(&scheduling.tenant)
                && *left > 0
            {
                let most = (*left).min(step.budget);
                self.schedule_chunk(idx, most, step);
                *left -= self.running[idx].num_planned_tokens;
            }
            idx += 1;
        }
        let front = self.waiting.front().map(|front| front.scheduling().tenant);
        let left = front.and_then(|front| parts.get(&front)).copied();
        let kept = step.budget.saturating_sub(left.unwrap_or(0));
        step.budget -= kept;
        self.admit_waiting(admits, step);
        step.budget += kept;
    }

    /// Whether there is a tenant from which the front of the queue might take a slot.
    pub(super) fn may_claim_share(&self, front: &Sequence) -> bool {
        let scheduling = front.scheduling();
        if self.is_alone(scheduling.priority, scheduling.tenant) {
            return false;
        }
        let holdings = Holdings::of(self.running_at(scheduling.priority));
        let own = holdings.get(scheduling.tenant).num_seqs;
        let most = holdings.by_tenant.values().map(|holding| holding.num_seqs);
        most.max().is_some_and(|most| most > own + 1)
    }

    /// Returns the sequences to set back so that the front of the queue gets its share: indices of
    /// running sequences, the last first. `None` when it has its share already, or would not be
    /// admitted anyway.
    pub(super) fn over_their_share(
        &self,
        claim: BlockCount,
        claimed: BlockCount,
    ) -> Option<Vec<usize>> {
        let front = self.waiting.front()?;
        let scheduling = front.scheduling();
        if self.is_alone(scheduling.priority, scheduling.tenant) {
            return None;
        }
        let mut holdings = Holdings::of(self.running_at(scheduling.priority));
        let eligible = self.eligible(scheduling.priority, scheduling.tenant);
        let poor = holdings.get(scheduling.tenant);
        let mut victims: Vec<usize> = Vec::new();
        let (mut claimed, mut free) = (claimed, self.blocks.num_free());
        loop {
            let wanted = claimed + claim;
            let lack = if self.running.len() - victims.len() >= self.config.max_num_seqs {
                Lack::Slot
            } else if !wanted.fits_in(free) {
                Lack::Blocks {
                    claim,
                    missing: wanted.saturating_sub(free),
                }
            } else {
                break;
            };
            let richest = eligible
                .iter()
                .copied()
                .filter(|idx| !victims.contains(idx))
                .filter(|&idx| {
                    let seq = &*self.running[idx];
                    lack.justifies(holdings.get(seq.scheduling().tenant), seq, poor)
                })
                .max_by_key(|&idx| {
                    let rich = holdings.get(self.running[idx].scheduling().tenant);
                    match lack {
                        Lack::Slot => (rich.num_seqs, idx),
                        Lack::Blocks { .. } => (rich.blocks.total(), idx),
                    }
                })?;
            let seq = &*self.running[richest];
            holdings.without(seq);
            claimed = claimed.saturating_sub(self.claim(seq));
            free = free + seq.kv.num_held();
            victims.push(richest);
        }
        victims.sort_unstable_by(|a, b| b.cmp(a));
        (!victims.is_empty()).then_some(victims)
    }

    /// Sets the given running sequences back, the last first. They wait as if they had not been
    /// admitted, but keep their generated tokens.
    pub(super) fn set_back(&mut self, victims: &[usize], step: &mut Step) {
        for &idx in victims {
            let mut seq = self.take_off(idx, step);
            seq.admission_seq = None;
            self.places.insert(seq.id, seq.place());
            self.waiting.set_back(seq);
        }
    }

    /// Returns the index of the sequence to preempt for the running one at `idx`: the worst rank of
    /// the last priority, chosen from the tenant that holds most among the sequences behind it.
    /// Returns `None` when no sequence is behind it, or only sequences of tenants that hold less
    /// than its own: it then waits for its own tenant's other sequences. The very best rank never
    /// waits.
    pub(super) fn who_gives_way(&self, idx: usize) -> Option<usize> {
        let last = self.running.len() - 1;
        if idx == last {
            return None;
        }
        let asks = self.running[idx].scheduling();
        let priority = self.running[last].scheduling().priority;
        let behind = idx + 1..=last;
        let first = behind.clone().find(|&other| {
            let scheduling = self.running[other].scheduling();
            scheduling.priority == priority && scheduling.tenant != asks.tenant
        });
        if first.is_none() {
            return Some(last);
        }
        let holdings = Holdings::of(self.running_at(priority));
        let held = |tenant| holdings.get(tenant).blocks.total();
        let richest = behind
            .filter(|&other| self.running[other].scheduling().priority == priority)
            .max_by_key(|&other| (held(self.running[other].scheduling().tenant), other))?;
        let gives = self.running[richest].scheduling();
        let must_wait = asks.priority == priority
            && gives.tenant != asks.tenant
            && held(gives.tenant) < held(asks.tenant)
            && idx > 0;
        (!must_wait).then_some(richest)
    }

    /// Indices of sequences whose slot another tenant with less may take: all that have had their
    /// turn, except each tenant's best.
    fn eligible(&self, priority: i32, claimant: TenantId) -> Vec<usize> {
        let mut seen = HashSet::new();
        let mut eligible = Vec::new();
        for (idx, seq) in self.running.iter().enumerate() {
            let scheduling = seq.scheduling();
            if scheduling.priority != priority || scheduling.tenant == claimant {
                continue;
            }
            let is_best = seen.insert(scheduling.tenant);
            if !is_best && seq.has_had_its_turn() {
                eligible.push(idx);
            }
        }
        eligible
    }

    /// Whether no other tenant's sequences run at a priority.
    fn is_alone(&self, priority: i32, tenant: TenantId) -> bool {
        let mut running = self.running_at(priority);
        running.all(|seq| seq.scheduling().tenant == tenant)
    }

    fn running_at(&self, priority: i32) -> impl Iterator<Item = &Sequence> {
        let running = self.running.iter().map(Box::as_ref);
        running.filter(move |seq| seq.scheduling().priority == priority)
    }
}
