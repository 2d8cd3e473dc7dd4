//! The end of a request whose numbers are not finite: it fails alone, and nobody finds what it
//! computed.

use super::Engine;
use super::device::DeviceCommand;
use super::encoder_cache::FeatureKey;
use crate::core::SeqId;
use crate::error::Error;

impl Engine {
    /// Ends a request whose logits are NaN or infinite, if it has not ended. Its neighbours have
    /// read none of its keys, and whoever gets one of its blocks writes before it reads; but its
    /// full blocks and its images' features could be found by others, so they are forgotten.
    pub(super) fn end_unsound(&mut self, id: SeqId) {
        let Some(sequence) = self.scheduler.sequence(id) else {
            return;
        };
        tracing::error!(%id, "a request's logits are not finite numbers");
        let salt = sequence.scheduling().cache_salt;
        let images = sequence.images().iter().map(|span| FeatureKey {
            pixels: span.pixels.hash,
            salt,
        });
        let images: Vec<_> = images.collect();
        self.scheduler.abort_unsound(id);
        self.requests.fail(id, Error::NotFinite);
        if !images.is_empty() {
            self.device.order(DeviceCommand::Forget(images));
        }
    }
}
