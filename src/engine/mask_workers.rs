//! Masks being computed in parallel with the engine and the device.
//!
//! Each constraint computes its mask elsewhere; this module only waits for the results.

use tokio::task::{AbortHandle, JoinSet};

use super::host_sampling_state::{Bitmask, BitmaskJob};
use crate::error::{Error, Result};

/// Handle of a mask being computed; dropping it cancels the computation.
#[derive(Debug)]
pub(super) struct PendingMask(AbortHandle);

impl Drop for PendingMask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All masks being computed.
#[derive(Debug, Default)]
pub(super) struct MaskWorkers(JoinSet<Bitmask>);

impl MaskWorkers {
    /// Whether no mask is being computed.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Starts to compute a mask; dropping the returned value cancels it. Must be called on the
    /// engine's runtime.
    pub(super) fn start(&mut self, job: BitmaskJob) -> PendingMask {
        PendingMask(self.0.spawn(job.run()))
    }

    /// Waits for the next mask; `None` when no mask is being computed any more. Cancel-safe: no
    /// mask is lost when the future is dropped.
    ///
    /// # Errors
    /// Returns `Backend` when a computation is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Bitmask>> {
        let lost = |reason: String| Error::Backend(format!("computing masks failed: {reason}"));
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
