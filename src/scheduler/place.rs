//! Where a sequence stands among the others.

use crate::core::TenantId;

/// Number of a sequence in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival(pub(super) u64);

/// Number of a sequence in the order of first admission; a preempted one keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

/// Order of those that have been admitted: who is computed first, who is readmitted first and,
/// from its end, who is preempted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: i32,
    pub(super) ticket: Ticket,
}

/// What is needed to find a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: i32,
    pub(super) tenant: TenantId,
    pub(super) arrival: Arrival,
    /// `None` until the first admission.
    pub(super) ticket: Option<Ticket>,
}

impl Place {
    pub(super) fn rank(&self) -> Option<Rank> {
        let priority = self.priority;
        self.ticket.map(|ticket| Rank { priority, ticket })
    }
}
