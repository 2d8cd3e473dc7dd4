//! An arena: one range of device memory from which short-lived tensors are allocated.
//!
//! Manages addresses only. Freed memory may be allocated again at once, although the device may
//! still have to compute with it: all work is in one stream, so its next user runs later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::device::DevicePtr;
use crate::error::{Error, Result};

/// Alignment of all allocations, sufficient for any access.
const ALIGN: usize = 256;

/// A range of device memory; cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Arena(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Name for messages.
    name: &'static str,
    base: DevicePtr,
    num_bytes: usize,
    /// Offset and length of the free ranges: never empty, overlapping or adjacent.
    free: Mutex<BTreeMap<usize, usize>>,
}

/// A part of an arena; freed on drop.
#[derive(Debug)]
pub(super) struct Allocation {
    arena: Arena,
    offset: usize,
    num_bytes: usize,
}

impl Arena {
    /// Creates an arena over `num_bytes` from `base` on, which is aligned to 256 bytes.
    pub(super) fn new(name: &'static str, base: DevicePtr, num_bytes: usize) -> Self {
        let free = if num_bytes == 0 {
            BTreeMap::new()
        } else {
            BTreeMap::from([(0, num_bytes)])
        };
        Self(Arc::new(Shared {
            name,
            base,
            num_bytes,
            free: Mutex::new(free),
        }))
    }

    /// Allocates from the first free range that is large enough.
    ///
    /// # Errors
    /// Returns `OutOfMemory` with the requested and the free bytes.
    pub(super) fn alloc(&self, num_bytes: usize) -> Result<Allocation> {
        let num_bytes = num_bytes.max(1).next_multiple_of(ALIGN);
        let mut free = self.free();
        let found = free.iter().find(|(_, len)| **len >= num_bytes);
        let Some((&offset, &len)) = found else {
            let total: usize = free.values().sum();
            return Err(Error::OutOfMemory(format!(
                "no {num_bytes} bytes in one piece for {}: {total} of {} are free. Lower \
                 --max-num-batched-tokens or --max-num-seqs",
                self.0.name, self.0.num_bytes
            )));
        };
        free.remove(&offset);
        if len > num_bytes {
            free.insert(offset + num_bytes, len - num_bytes);
        }
        Ok(Allocation {
            arena: self.clone(),
            offset,
            num_bytes,
        })
    }

    /// Number of free bytes.
    #[cfg(test)]
    fn num_free(&self) -> usize {
        self.free().values().sum()
    }

    fn free(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        let free = self.0.free.lock();
        free.expect("nothing panics with the lock held")
    }
}

impl Allocation {
    /// Start address.
    pub(super) fn at(&self) -> DevicePtr {
        self.arena.0.base.at(self.offset)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let (mut offset, mut len) = (self.offset, self.num_bytes);
        let mut free = self.arena.free();
        if let Some((&before, &before_len)) = free.range(..offset).next_back()
            && before + before_len == offset
        {
            free.remove(&before);
            offset = before;
            len += before_len;
        }
        if let Some(after_len) = free.remove(&(offset + len)) {
            len += after_len;
        }
        free.insert(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arena(num_bytes: usize) -> Arena {
        Arena::new("tests", DevicePtr(1 << 20), num_bytes)
    }

    #[test]
    fn what_is_given_back_is_cut_again() {
        let arena = arena(1024);
        let first = arena.alloc(300).unwrap();
        let second = arena.alloc(512).unwrap();
        assert_eq!(first.at(), DevicePtr(1 << 20));
        assert_eq!(second.at(), first.at().at(512));
        let message = arena.alloc(1).unwrap_err().to_string();
        assert!(message.contains("0 of 1024"), "{message}");
        drop(first);
        assert_eq!(arena.alloc(512).unwrap().at(), DevicePtr(1 << 20));
    }

    proptest! {
        /// Allocations never overlap, and when all are freed, the arena is one free range again.
        #[test]
        fn it_keeps_books(sizes in prop::collection::vec((1usize..5000, 0usize..8), 1..60)) {
            let arena = arena(1 << 16);
            let mut held: Vec<Allocation> = Vec::new();
            for (num_bytes, drop_idx) in sizes {
                if let Ok(region) = arena.alloc(num_bytes) {
                    for other in &held {
                        let apart = region.offset + region.num_bytes <= other.offset
                            || other.offset + other.num_bytes <= region.offset;
                        prop_assert!(apart);
                    }
                    held.push(region);
                }
                if drop_idx < held.len() {
                    held.swap_remove(drop_idx);
                }
                let used: usize = held.iter().map(|region| region.num_bytes).sum();
                prop_assert_eq!(used + arena.num_free(), 1 << 16);
            }
            held.clear();
            prop_assert_eq!(arena.alloc(1 << 16).unwrap().at(), DevicePtr(1 << 20));
        }
    }
}
