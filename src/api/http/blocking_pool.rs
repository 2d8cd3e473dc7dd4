//! Runs blocking work (image decoding, tokenization, large bodies) on tokio's blocking threads, at
//! most one job per core.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;

/// Below this number of bytes, deserializing or tokenizing a text takes at most a few milliseconds.
const SMALL: usize = 16 << 10;

/// Runs at most as many jobs at a time as there are cores, so that memory is bounded however many
/// requests bring images.
#[derive(Clone, Debug)]
pub(crate) struct BlockingPool {
    places: Arc<Semaphore>,
    num_places: usize,
}

impl BlockingPool {
    /// Creates one place for each core.
    pub(crate) fn new() -> Self {
        let num_places = available_parallelism().map_or(1, usize::from);
        Self {
            places: Arc::new(Semaphore::new(num_places)),
            num_places,
        }
    }

    /// Returns how many jobs run at a time.
    pub(crate) fn num_places(&self) -> usize {
        self.num_places
    }

    /// Runs `work` on `num_bytes` of text: on this thread if the text is short, else on another
    /// one.
    ///
    /// # Errors
    /// 500 if it panics there.
    pub(crate) async fn run_sized<T: Send + 'static>(
        &self,
        num_bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if num_bytes <= SMALL {
            return Ok(work());
        }
        self.run(work).await
    }

    /// Runs `work` on another thread once a place is free. Dropping the future before that drops
    /// the work; work that has begun runs to its end, and its result is discarded.
    ///
    /// # Errors
    /// 500 if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.run_cancellable(move |_| work()).await
    }

    /// Does the same for work that can end early: its token is cancelled when the future is
    /// dropped.
    ///
    /// # Errors
    /// 500 if it panics.
    pub(crate) async fn run_cancellable<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let token = CancellationToken::new();
        let _cancels_when_dropped = token.clone().drop_guard();
        let done = spawn_blocking(move || {
            let result = work(&token);
            drop(place);
            result
        });
        done.await
            .map_err(|_| ApiError::internal("a worker panicked"))
    }
}
