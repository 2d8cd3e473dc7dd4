//! Keys that define the order of sequences.

use crate::core::TenantId;

/// Sequence number in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ArrivalSeq(pub(super) u64);

/// Sequence number in the order of first admission; a preempted sequence keeps its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AdmissionSeq(pub(super) u64);

/// Order of admitted sequences: the smallest rank is computed and readmitted first, the largest is
/// preempted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: i32,
    pub(super) admission_seq: AdmissionSeq,
}

/// The key by which a sequence is found in the queues.
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
