//! Limits the memory that requests use until the engine has taken them: bodies, deserialized data
//! and images.
//!
//! All of it shares one budget. Bytes are charged as they arrive and released when nothing holds
//! them any more. When the budget is exhausted, a request is rejected rather than kept waiting,
//! because it may hold what others wait for. Only image decoders wait: a running decoder already
//! has all that it needs, so it always ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::json_census::JsonCensus;
use crate::error::ImageError;

/// Copies of a body's text besides the body itself: the deserialized text, and one more that is
/// copied, decoded or written into a prompt.
const COPIES: u64 = 2;
/// Bytes for each value, name or container of a body. The most expensive are small content blocks,
/// which are converted to another API's parts. Schemas and arguments stay text.
const NODE_BYTES: u64 = 160;
/// Bytes for each token id of a prompt, in a growing list.
const NUMBER_BYTES: u64 = 16;

/// Bodies up to this length may also use the reserve, so that chats are accepted beside very large
/// requests.
const SMALL_BODY: usize = 64 << 10;

/// Divisors of the total: the part reserved for small bodies, and the part for decoders.
const RESERVE: u64 = 8;
const ROOM: u64 = 4;

/// Unit of the decoders' memory.
const KIB: u64 = 1 << 10;

/// The memory budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestMemory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes that requests may hold.
    capacity: u64,
    /// The part of these that only small bodies may use.
    reserve: u64,
    held: AtomicU64,
    /// Memory for decoders, in KiB.
    room: Arc<Semaphore>,
    room_kib: u64,
}

/// Bytes that one request holds. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: RequestMemory,
    bytes: u64,
}

/// Memory that one decoder works in.
#[derive(Debug)]
pub(crate) struct DecodingRoom {
    _permit: OwnedSemaphorePermit,
}

/// The kind of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A small body.
    Small,
    /// Anything else.
    Large,
}

impl Claim {
    /// Returns the claim of a body of `len` bytes, as far as its length is known.
    pub(crate) fn of_body(len: usize) -> Self {
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
    /// Creates a budget of `total` bytes, of which a quarter is for decoders.
    pub fn new(total: u64) -> Self {
        Self::with_room(total - total / ROOM, total, total / ROOM)
    }

    /// Creates the budget of [`Self::new`], with `room` bytes beside it for decoders.
    pub fn with_image_memory(total: u64, room: u64) -> Self {
        Self::with_room(total, total, room)
    }

    fn with_room(capacity: u64, total: u64, room: u64) -> Self {
        let room_kib = (room / KIB).clamp(1, Semaphore::MAX_PERMITS as u64);
        let shared = Shared {
            capacity,
            reserve: total / RESERVE,
            held: AtomicU64::new(0),
            room: Arc::new(Semaphore::new(room_kib as usize)),
            room_kib,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Creates a budget that is never exhausted, for a caller that bounds its requests itself.
    pub fn unbounded() -> Self {
        Self::new(u64::MAX / 2)
    }

    /// Returns the longest body that can be read when nothing else is held.
    pub fn max_body(&self) -> usize {
        let most = self.shared.capacity - self.shared.reserve;
        usize::try_from(most / (1 + COPIES)).unwrap_or(usize::MAX)
    }

    /// Returns the bytes that are held now, including those of decoders.
    pub(crate) fn held(&self) -> u64 {
        let free = self.shared.room.available_permits() as u64;
        let working = (self.shared.room_kib - free.min(self.shared.room_kib)) * KIB;
        self.shared.held.load(Ordering::Relaxed) + working
    }

    /// Creates an empty charge; bytes are added as they arrive.
    pub(crate) fn charge(&self) -> Charge {
        Charge {
            memory: self.clone(),
            bytes: 0,
        }
    }

    /// Waits for memory to decode in; call it on a thread that may block. A decoder that needs more
    /// than the total gets all of it, alone.
    ///
    /// # Errors
    /// [`ImageError::Abandoned`] once `token` is cancelled.
    pub(crate) fn wait_for_room(
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
    /// Charges a body of which `len` bytes have arrived, with the counts in `census`.
    ///
    /// # Errors
    /// 503 if the budget is exhausted, 413 if even an empty budget would be too small.
    pub(crate) fn hold_body(
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

    /// Charges `bytes` more.
    ///
    /// # Errors
    /// The errors of [`Self::hold_body`].
    pub(crate) fn hold_more(&mut self, bytes: u64) -> Result<(), ApiError> {
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

    /// A budget of 800 bytes: 600 for requests, of which 100 only for small ones.
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
        // Another large body is rejected, a small one gets the reserve.
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

    #[test]
    fn decoders_may_have_memory_of_their_own() {
        let memory = RequestMemory::with_image_memory(800, 64 * KIB);
        assert_eq!(memory.max_body(), 233);
        assert_eq!(memory.shared.room_kib, 64);
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
