//! Threads that make masks, beside the engine's and the device's.
//!
//! A mask takes from microseconds to milliseconds of the host, so it is made where it keeps
//! nobody waiting but the step that it is for.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tokio::task::JoinSet;

use super::late_row::{MadeMask, MaskJob};
use crate::error::{Error, Result};

/// Most masks that are made at a time: a step has no more use for more threads.
pub(super) const MAX_WORKERS: usize = 8;

/// The masks of one step.
#[derive(Debug, Default)]
pub(super) struct MaskWorkers(JoinSet<Vec<MadeMask>>);

impl MaskWorkers {
    /// Whether no mask is being made.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins to make masks. Must be called where the engine runs, which lends its blocking threads.
    pub(super) fn start(&mut self, mut jobs: Vec<MaskJob>) {
        let num_workers = available_parallelism().map_or(1, NonZeroUsize::get);
        let num_workers = num_workers.clamp(1, MAX_WORKERS);
        let share = jobs.len().div_ceil(num_workers).max(1);
        while !jobs.is_empty() {
            let rest = jobs.split_off(share.min(jobs.len()));
            let mine = std::mem::replace(&mut jobs, rest);
            self.0
                .spawn_blocking(move || mine.into_iter().map(MaskJob::run).collect());
        }
    }

    /// The next masks that are ready. Nothing is lost when this is given up.
    ///
    /// # Errors
    /// `Backend` when the threads are gone.
    pub(super) async fn next(&mut self) -> Result<Vec<MadeMask>> {
        match self.0.join_next().await {
            Some(Ok(masks)) => Ok(masks),
            Some(Err(error)) => Err(Error::Backend(format!("masks are not made: {error}"))),
            None => Ok(Vec::new()),
        }
    }
}
