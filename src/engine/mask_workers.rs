//! Masks that are being made, beside the engine and the device.
//!
//! Each is made by its own constraint, which computes elsewhere; here they are only waited for.

use tokio::task::{AbortHandle, JoinSet};

use super::host_sampling_state::{Bitmask, BitmaskJob};
use crate::error::{Error, Result};

/// A mask that is being made for somebody who waits for it.
#[derive(Debug)]
pub(super) struct PendingMask(AbortHandle);

impl Drop for PendingMask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All masks that are being made.
#[derive(Debug, Default)]
pub(super) struct MaskWorkers(JoinSet<Bitmask>);

impl MaskWorkers {
    /// Whether no mask is being made.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins to make a mask, which is given up when what is returned is dropped. Must be called
    /// where the engine runs.
    pub(super) fn start(&mut self, job: BitmaskJob) -> PendingMask {
        PendingMask(self.0.spawn(job.run()))
    }

    /// The next mask that is ready; `None` when none is being made any more. Nothing is lost when
    /// this is given up.
    ///
    /// # Errors
    /// `Backend` when one is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Bitmask>> {
        let lost = |reason: String| Error::Backend(format!("masks are not made: {reason}"));
        loop {
            match self.0.join_next().await {
                Some(Ok(made)) => return Ok(Some(made)),
                Some(Err(error)) if error.is_cancelled() => {}
                Some(Err(error)) => return Err(lost(error.to_string())),
                None => return Ok(None),
            }
        }
    }
}
