//! Where a sequence stands among the others.

use crate::core::TenantId;

/// Number of a sequence in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ArrivalSeq(pub(super) u64);

/// Number of a sequence in the order of first admission; a preempted one keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AdmissionSeq(pub(super) u64);

/// Order of those that have been admitted: who is computed first, who is readmitted first and,
/// from its end, who is preempted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: i32,
    pub(super) admission_seq: AdmissionSeq,
}

/// What is needed to find a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueKey {
    pub(super) priority: i32,
    pub(super) tenant: TenantId,
    pub(super) arrival: ArrivalSeq,
    /// `None` until the first admission.
    pub(super) admission_seq: Option<AdmissionSeq>,
}

impl QueueKey {
    pub(super) fn rank(&self) -> Option<Rank> {
        let priority = self.priority;
        self.admission_seq.map(|admission_seq| Rank {
            priority,
            admission_seq,
        })
    }
}
