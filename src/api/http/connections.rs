//! The table of open connections: how many may be open, and which one is closed to make room.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Upper bound of the default number of connections. More would only cost memory.
const MAX_DEFAULT: usize = 16_384;

/// File descriptors that are not for clients: for the model, the device, the log, the async runtime
/// and the spare connections.
const RESERVED_FILES: std::ops::RangeInclusive<usize> = 32..=256;

/// Number of connections beyond the limit. On these, only probes are answered.
const NUM_SPARE: usize = 8;

/// Limits on the number of connections and on stalled ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of open connections.
    pub total: usize,
    /// Maximum number from one address (for IPv6, from one /64 network).
    pub per_address: Option<usize>,
    /// How long a client may receive nothing of what is sent to it.
    pub send_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: default_total(),
            per_address: None,
            send_timeout: Duration::from_secs(60),
        }
    }
}

/// Returns the default limit, derived from the limit on open files.
fn default_total() -> usize {
    #[cfg(unix)]
    let num_files = {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.and_then(|limit| usize::try_from(limit).ok())
    };
    #[cfg(not(unix))]
    let num_files = None;
    num_files.map_or(MAX_DEFAULT, within)
}

fn within(num_files: usize) -> usize {
    let reserved = (num_files / 8).clamp(*RESERVED_FILES.start(), *RESERVED_FILES.end());
    num_files.saturating_sub(reserved).clamp(1, MAX_DEFAULT)
}

/// The connections of one listening socket.
#[derive(Debug)]
pub(crate) struct Connections {
    total: usize,
    per_address: Option<usize>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    open: HashMap<u64, Open>,
    /// Connections without a request, by a counter value from the moment when each became idle: the
    /// one that has been idle longest comes first.
    idle: BTreeMap<u64, u64>,
    num_by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Open {
    address: IpAddr,
    /// Its key in `idle`.
    idle_since: Option<u64>,
    stop: Arc<Notify>,
}

/// What a slot allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotKind {
    /// All requests.
    Regular,
    /// Only probes; all other requests are rejected.
    Spare,
}

/// A connection's slot. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Slot {
    connections: Arc<Connections>,
    id: u64,
    stop: Arc<Notify>,
    kind: SlotKind,
}

impl Connections {
    pub(crate) fn new(total: usize, per_address: Option<usize>) -> Self {
        Self {
            total,
            per_address,
            table: Mutex::default(),
        }
    }

    /// Returns a slot for a connection from `address`. If all slots are taken, the connection that
    /// has been idle longest is closed; if none is idle, a spare slot is given. `None` if no spare
    /// slot is left either.
    pub(crate) fn take_slot(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let mut table = self.lock();
        let of_address = |table: &Table| table.num_by_address.get(&address).copied();
        let mut kind = SlotKind::Regular;
        if let Some(most) = self.per_address {
            let is_full = |table: &Table| of_address(table).is_some_and(|number| number >= most);
            // While spare slots are in use too, a freed one may still leave the address at its
            // limit.
            if is_full(&table) {
                table.evict_idle(|open| open.address == address);
            }
            if is_full(&table) {
                kind = SlotKind::Spare;
            }
        }
        if table.open.len() >= self.total {
            table.evict_idle(|_| true);
        }
        if table.open.len() >= self.total {
            kind = SlotKind::Spare;
        }
        let num_beyond = match self.per_address {
            Some(most) => of_address(&table).map_or(0, |number| number.saturating_sub(most)),
            None => 0,
        };
        let num_beyond = num_beyond.max(table.open.len().saturating_sub(self.total));
        if kind == SlotKind::Spare && num_beyond >= NUM_SPARE {
            return None;
        }
        let id = table.next_id;
        table.next_id += 1;
        let stop = Arc::new(Notify::new());
        table.open.insert(
            id,
            Open {
                address,
                idle_since: None,
                stop: Arc::clone(&stop),
            },
        );
        *table.num_by_address.entry(address).or_default() += 1;
        table.mark_idle(id);
        Some(Slot {
            connections: Arc::clone(self),
            id,
            stop,
            kind,
        })
    }

    /// Closes the connection that has been idle longest, and returns whether there was one.
    pub(crate) fn evict_idle(&self) -> bool {
        self.lock().evict_idle(|_| true)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn evict_idle(&mut self, may_go: impl Fn(&Open) -> bool) -> bool {
        let mut idle = self.idle.values();
        let Some(id) = idle.find(|id| may_go(&self.open[id])).copied() else {
            return false;
        };
        let open = self.remove(id).expect("what is idle is open");
        open.stop.notify_one();
        true
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        if let Some(since) = open.idle_since {
            self.idle.remove(&since);
        }
        let number = self.num_by_address.get_mut(&open.address);
        let number = number.expect("its address was counted");
        *number -= 1;
        if *number == 0 {
            self.num_by_address.remove(&open.address);
        }
        Some(open)
    }

    fn mark_idle(&mut self, id: u64) {
        let now = self.next_id;
        self.next_id += 1;
        if let Some(open) = self.open.get_mut(&id) {
            let before = open.idle_since.replace(now);
            if let Some(before) = before {
                self.idle.remove(&before);
            }
            self.idle.insert(now, id);
        }
    }

    fn mark_busy(&mut self, id: u64) {
        let since = self
            .open
            .get_mut(&id)
            .and_then(|open| open.idle_since.take());
        if let Some(since) = since {
            self.idle.remove(&since);
        }
    }
}

impl Slot {
    pub(crate) fn kind(&self) -> SlotKind {
        self.kind
    }

    /// Marks the connection as busy: a request has begun.
    pub(crate) fn mark_busy(&self) {
        self.connections.lock().mark_busy(self.id);
    }

    /// Marks the connection as idle: its response is complete.
    pub(crate) fn mark_idle(&self) {
        self.connections.lock().mark_idle(self.id);
    }

    /// Waits until the connection must be closed to make room for another.
    pub(crate) async fn evicted(&self) {
        self.stop.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // An evicted connection is no longer in the table; removing it twice is harmless.
        self.connections.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_evicted(slot: &Slot) -> bool {
        slot.evicted().now_or_never().is_some()
    }

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn the_longest_idle_makes_room() {
        let connections = Arc::new(Connections::new(3, None));
        let slots = [A, A, B].map(|address| connections.take_slot(address).expect("room"));
        slots[0].mark_busy();
        slots[1].mark_busy();
        slots[1].mark_idle();
        let fourth = connections.take_slot(A).expect("room");
        assert_eq!(fourth.kind(), SlotKind::Regular);
        assert_eq!(slots.each_ref().map(is_evicted), [false, false, true]);
        let fifth = connections.take_slot(A).expect("room");
        assert_eq!(fifth.kind(), SlotKind::Regular);
        assert_eq!(slots.each_ref().map(is_evicted), [false, true, false]);
        fourth.mark_busy();
        fifth.mark_busy();
        // No connection is idle: spare slots are given, for probes. They can be evicted like all
        // others.
        let spare = (0..NUM_SPARE).filter_map(|_| {
            let slot = connections.take_slot(B)?;
            slot.mark_busy();
            Some(slot)
        });
        let spare: Vec<_> = spare.collect();
        assert!(spare.iter().all(|slot| slot.kind() == SlotKind::Spare));
        assert_eq!(spare.len(), NUM_SPARE);
        assert!(connections.take_slot(B).is_none());
        assert!(!connections.evict_idle());
        drop(spare);
        drop(slots);
        fifth.mark_idle();
        let next = connections.take_slot(B).expect("room");
        assert_eq!(next.kind(), SlotKind::Regular);
        drop((fourth, fifth, next));
        let table = connections.lock();
        assert!(table.open.is_empty() && table.idle.is_empty());
        assert!(table.num_by_address.is_empty());
    }

    #[test]
    fn an_address_makes_room_for_itself() {
        let connections = Arc::new(Connections::new(10, Some(2)));
        let first = connections.take_slot(A).expect("room");
        let others = [B, A].map(|address| connections.take_slot(address).expect("room"));
        let third = connections.take_slot(A).expect("room");
        assert!(is_evicted(&first));
        assert!(!others.iter().any(is_evicted));
        third.mark_busy();
        others[1].mark_busy();
        assert_eq!(
            connections.take_slot(A).expect("one").kind(),
            SlotKind::Spare
        );
        assert_eq!(
            connections.take_slot(B).expect("room").kind(),
            SlotKind::Regular
        );
    }

    #[test]
    fn some_files_are_kept_for_ourselves() {
        for (num_files, total) in [
            (0, 1),
            (64, 32),
            (1024, 896),
            (4096, 3840),
            (1 << 20, 16_384),
        ] {
            assert_eq!(within(num_files), total, "{num_files}");
        }
    }
}
