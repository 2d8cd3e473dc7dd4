//! The waiting queue: all waiting sequences, by priority.

use std::collections::BTreeMap;

use super::priority_level::PriorityLevel;
use super::queue_key::{ArrivalSeq, QueueKey};
use super::sequence::Sequence;

/// Waiting sequences by priority level, the smallest value first. An empty level is removed
/// together with its tenants' counters: fairness is among waiting tenants only.
#[derive(Debug, Default)]
pub(super) struct WaitingQueue {
    levels: BTreeMap<i32, PriorityLevel>,
    len: usize,
    num_deferred: usize,
}

impl WaitingQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn num_deferred(&self) -> usize {
        self.num_deferred
    }

    pub(super) fn add(&mut self, seq: Box<Sequence>) {
        let level = self.levels.entry(seq.scheduling().priority).or_default();
        level.add(seq);
        self.len += 1;
    }

    /// Adds a sequence whose slot was taken for the [front](Self::front) of its priority.
    pub(super) fn set_back(&mut self, seq: Box<Sequence>) {
        let level = self.levels.entry(seq.scheduling().priority).or_default();
        level.set_back(seq);
        self.len += 1;
    }

    /// Removes the sequence at `place`, if it waits.
    pub(super) fn remove(&mut self, place: &QueueKey) -> Option<Box<Sequence>> {
        let level = self.levels.get_mut(&place.priority)?;
        let num_deferred = level.num_deferred();
        let seq = level.remove(place)?;
        self.num_deferred -= num_deferred - level.num_deferred();
        self.has_left(place.priority);
        Some(seq)
    }

    /// Returns the next sequence to admit; deferred ones are skipped.
    pub(super) fn front(&self) -> Option<&Sequence> {
        self.levels.values().find_map(PriorityLevel::front)
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Sequence> {
        self.levels.values_mut().find_map(PriorityLevel::front_mut)
    }

    /// Removes the [front](Self::front).
    pub(super) fn pop_front(&mut self) -> Option<Box<Sequence>> {
        let seq = self
            .levels
            .values_mut()
            .find_map(PriorityLevel::pop_front)?;
        self.has_left(seq.scheduling().priority);
        Some(seq)
    }

    /// Defers the [front](Self::front), which must be a new sequence.
    pub(super) fn defer_front(&mut self) {
        let levels = self.levels.values_mut();
        let level = levels.into_iter().find(|level| level.front().is_some());
        level.expect("who defers it has seen it").defer_front();
        self.num_deferred += 1;
    }

    /// Puts a sequence back into the queue, if it is still deferred.
    pub(super) fn unpark(&mut self, priority: i32, arrival: ArrivalSeq) {
        if let Some(level) = self.levels.get_mut(&priority)
            && level.unpark(arrival)
        {
            self.num_deferred -= 1;
        }
    }

    pub(super) fn get(&self, place: &QueueKey) -> Option<&Sequence> {
        self.levels.get(&place.priority)?.get(place)
    }

    pub(super) fn get_mut(&mut self, place: &QueueKey) -> Option<&mut Sequence> {
        self.levels.get_mut(&place.priority)?.get_mut(place)
    }

    /// Adds `num_tokens` to a tenant's counter. Has no effect when no sequence of that priority
    /// waits.
    pub(super) fn charge(&mut self, place: &QueueKey, num_tokens: usize) {
        if let Some(level) = self.levels.get_mut(&place.priority) {
            level.charge(place.tenant, num_tokens);
        }
    }

    fn has_left(&mut self, priority: i32) {
        self.len -= 1;
        if self
            .levels
            .get(&priority)
            .is_some_and(PriorityLevel::is_empty)
        {
            self.levels.remove(&priority);
        }
    }

    #[cfg(test)]
    pub(super) fn levels(&self) -> impl Iterator<Item = (i32, &PriorityLevel)> {
        self.levels
            .iter()
            .map(|(&priority, level)| (priority, level))
    }
}
