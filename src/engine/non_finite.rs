//! Ends a request whose logits are not finite: only this request fails, and its cached results are
//! dropped.

use super::Engine;
use super::device::DeviceCommand;
use super::encoder_cache::EmbeddingKey;
use crate::core::SeqId;
use crate::error::Error;

impl Engine {
    /// Ends a request whose logits are NaN or infinite, if it has not ended. Other sequences have
    /// read none of its keys, and a sequence that gets one of its blocks writes before it reads.
    /// But others could find its full blocks and its images' embeddings, so these are dropped from
    /// the caches.
    pub(super) fn end_non_finite(&mut self, id: SeqId) {
        let Some(sequence) = self.scheduler.sequence(id) else {
            return;
        };
        tracing::error!(%id, "a request's logits are not finite numbers");
        let salt = sequence.scheduling().cache_salt;
        let images = sequence.images().iter().map(|span| EmbeddingKey {
            pixels: span.pixels.hash,
            salt,
        });
        let images: Vec<_> = images.collect();
        self.scheduler.abort_non_finite(id);
        self.requests.fail(id, Error::NotFinite);
        if !images.is_empty() {
            self.device.send(DeviceCommand::Forget(images));
        }
    }
}
