//! Memory for what requests bring, until the engine has taken it: bodies, what is read out of
//! them, images.
//!
//! One budget for all of it. Bytes are counted as they arrive and given back when nothing holds
//! them any more; where there are none left, a request is refused rather than kept waiting, since
//! it may be what others wait for. Decoders alone wait: whoever decodes has all that it needs, and
//! ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::json_census::JsonCensus;
use crate::error::ImageError;

/// What a body costs besides itself: its text as it was read out of it, and once more as it is
/// copied, decoded or written into a prompt.
const COPIES: u64 = 2;
/// Each value of a body that is read, name or container: the dearest are objects of one field in a
/// tool's schema, of which there are two copies.
const NODE_BYTES: u64 = 384;
/// Each token id of a prompt, in a list that grows.
const NUMBER_BYTES: u64 = 24;

/// Bodies up to this long may use the reserve too, so that chats get in beside giants.
const SMALL_BODY: usize = 64 << 10;

/// The shares of the whole: what is kept for small bodies, and what decoders work in.
const RESERVE: u64 = 8;
const ROOM: u64 = 4;

/// Room is counted in these.
const KIB: u64 = 1 << 10;

/// The budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestMemory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes that requests may hold.
    capacity: u64,
    /// Of these, bytes that only small bodies may take.
    reserve: u64,
    held: AtomicU64,
    /// Where decoders work, in KiB.
    room: Arc<Semaphore>,
    room_kib: u64,
}

/// Bytes that one request holds, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    memory: RequestMemory,
    bytes: u64,
}

/// Room that one decoder works in.
#[derive(Debug)]
pub(super) struct DecodingRoom {
    _permit: OwnedSemaphorePermit,
}

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A small body's.
    Small,
    /// Anything else's.
    Large,
}

impl Claim {
    /// A body's that is `len` long, as far as that is known.
    pub(super) fn of_body(len: usize) -> Self {
        if len <= SMALL_BODY {
            Self::Small
        } else {
            Self::Large
        }
    }
}

impl Default for RequestMemory {
    fn default() -> Self {
        Self::unbounded()
    }
}

impl RequestMemory {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        let room_kib = (total / ROOM / KIB).clamp(1, Semaphore::MAX_PERMITS as u64);
        let shared = Shared {
            capacity: total - total / ROOM,
            reserve: total / RESERVE,
            held: AtomicU64::new(0),
            room: Arc::new(Semaphore::new(room_kib as usize)),
            room_kib,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A budget that is never spent: for a caller that bounds its requests itself.
    pub fn unbounded() -> Self {
        Self::new(u64::MAX / 2)
    }

    /// The longest body that can be read when nobody else holds anything.
    pub fn max_body(&self) -> usize {
        let most = self.shared.capacity - self.shared.reserve;
        usize::try_from(most / (1 + COPIES)).unwrap_or(usize::MAX)
    }

    /// Bytes that are held now, those of decoders among them.
    pub(super) fn held(&self) -> u64 {
        let free = self.shared.room.available_permits() as u64;
        let working = (self.shared.room_kib - free.min(self.shared.room_kib)) * KIB;
        self.shared.held.load(Ordering::Relaxed) + working
    }

    /// Nothing yet; bytes are claimed as they come.
    pub(super) fn charge(&self) -> Charge {
        Charge {
            memory: self.clone(),
            bytes: 0,
        }
    }

    /// Waits, on a thread that may be blocked, for room to decode in. What needs more than there is
    /// gets all of it, alone.
    ///
    /// # Errors
    /// [`ImageError::Abandoned`] once `token` is cancelled.
    pub(super) fn wait_for_room(
        &self,
        bytes: u64,
        token: &CancellationToken,
    ) -> Result<DecodingRoom, ImageError> {
        let kib = bytes.div_ceil(KIB).min(self.shared.room_kib);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.room).acquire_many_owned(kib);
        let room = Handle::current().block_on(token.run_until_cancelled(room));
        let permit = room.ok_or(ImageError::Abandoned)?;
        Ok(DecodingRoom {
            _permit: permit.expect("the semaphore is never closed"),
        })
    }
}

impl Charge {
    /// Holds what a body costs of which `len` bytes have come, with what `census` has counted in them.
    ///
    /// # Errors
    /// 503 where the budget is spent, 413 where it could never be enough.
    pub(super) fn hold_body(
        &mut self,
        claim: Claim,
        len: usize,
        census: &JsonCensus,
    ) -> Result<(), ApiError> {
        let len = len as u64;
        let nodes = census.num_nodes() as u64 * NODE_BYTES;
        let numbers = census.num_numbers() as u64 * NUMBER_BYTES;
        self.grow_to(claim, len * COPIES + len.max(nodes + numbers))
    }

    /// Holds `bytes` besides what it holds already.
    ///
    /// # Errors
    /// Those of [`Self::hold_body`].
    pub(super) fn hold_more(&mut self, bytes: u64) -> Result<(), ApiError> {
        self.grow_to(Claim::Large, self.bytes + bytes)
    }

    fn grow_to(&mut self, claim: Claim, bytes: u64) -> Result<(), ApiError> {
        let Shared {
            capacity,
            reserve,
            held,
            ..
        } = &*self.memory.shared;
        let limit = match claim {
            Claim::Small => *capacity,
            Claim::Large => capacity - reserve,
        };
        if bytes > limit {
            return Err(ApiError::never_enough_memory(bytes, limit));
        }
        let more = bytes.saturating_sub(self.bytes);
        let taken = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            Some(held + more).filter(|held| *held <= limit)
        });
        if more > 0 && taken.is_err() {
            return Err(ApiError::no_memory());
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let held = &self.memory.shared.held;
        held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 800 bytes: 600 are held by requests, 100 of them by small ones only.
    fn memory() -> RequestMemory {
        RequestMemory::new(800)
    }

    fn nothing() -> JsonCensus {
        JsonCensus::default()
    }

    fn status(refused: Result<(), ApiError>) -> Option<u16> {
        use axum::response::IntoResponse;
        let error = refused.err()?;
        Some(error.into_response().status().as_u16())
    }

    #[test]
    fn small_bodies_have_a_reserve_and_everything_is_given_back() {
        let memory = memory();
        let (mut giant, mut small) = (memory.charge(), memory.charge());
        assert_eq!(status(giant.hold_body(Claim::Large, 160, &nothing())), None);
        assert_eq!(memory.held(), 480);
        assert_eq!(status(giant.hold_body(Claim::Large, 166, &nothing())), None);
        // Another large one finds nothing, a small one what is kept for it.
        assert_eq!(
            status(memory.charge().hold_body(Claim::Large, 1, &nothing())),
            Some(503)
        );
        assert_eq!(status(small.hold_body(Claim::Small, 30, &nothing())), None);
        assert_eq!(
            status(memory.charge().hold_body(Claim::Small, 30, &nothing())),
            Some(503)
        );
        assert_eq!(memory.held(), 498 + 90);
        drop(giant);
        assert_eq!(memory.held(), 90);
        drop(small);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn what_could_never_be_held_is_not_asked_to_come_again() {
        let memory = memory();
        assert_eq!(memory.max_body(), 166);
        assert_eq!(
            status(memory.charge().hold_body(Claim::Large, 167, &nothing())),
            Some(413)
        );
        assert_eq!(
            status(memory.charge().hold_body(Claim::Large, 166, &nothing())),
            None
        );
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn many_small_values_cost_what_they_take() {
        let memory = RequestMemory::new(8000);
        let mut charge = memory.charge();
        let mut census = JsonCensus::default();
        let read = census.read(br#"{"prompt":[1,2,3,4],"a":"b"}"#);
        read.expect("it is within the limits");
        charge
            .hold_body(Claim::Large, 100, &census)
            .expect("it fits");
        let most = 2 * 100 + 5 * NODE_BYTES + 3 * NUMBER_BYTES;
        assert_eq!(memory.held(), most);
        charge.hold_more(300).expect("it fits");
        assert_eq!(memory.held(), most + 300);
    }

    #[tokio::test]
    async fn decoders_wait_for_room_until_they_are_not_wanted() {
        let memory = RequestMemory::new(16 * KIB);
        let wanted = CancellationToken::new();
        let room = tokio::task::spawn_blocking({
            let (memory, wanted) = (memory.clone(), wanted.clone());
            move || memory.wait_for_room(1 << 40, &wanted)
        });
        let room = room.await.expect("it does not panic").expect("it is alone");
        assert_eq!(memory.held(), 4 * KIB);
        let waiting = tokio::task::spawn_blocking({
            let (memory, wanted) = (memory.clone(), wanted.clone());
            move || memory.wait_for_room(1, &wanted).err()
        });
        wanted.cancel();
        let given_up = waiting.await.expect("it does not panic");
        assert_eq!(given_up, Some(ImageError::Abandoned));
        drop(room);
        assert_eq!(memory.held(), 0);
    }
}
