//! Cache of image embeddings, reused for requests with the same image and cache salt.
//!
//! Decides what is kept and for how long. Knows nothing of models: embeddings are tensors of the
//! backend.

use std::collections::{BTreeMap, HashMap};

use crate::core::{CacheSalt, ImageHash};

/// Key of cached image embeddings: the image, and the salt of the requests that may use them.
///
/// The salt is that of the prefix cache: a faster answer would reveal to one tenant that another
/// has sent the same image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EmbeddingKey {
    /// Hash of the image's pixels.
    pub pixels: ImageHash,
    /// Cache salt; embeddings are shared only among requests of the same salt.
    pub salt: Option<CacheSalt>,
}

/// LRU cache: the least recently used images are evicted once the embeddings exceed the budget.
///
/// Entries used by the current step are pinned: they may exceed the budget until the step is over.
#[derive(Debug)]
pub(super) struct EncoderCache<T> {
    max_bytes: usize,
    num_bytes: usize,
    entries: HashMap<EmbeddingKey, Entry<T>>,
    /// Keys by the entries' `last_use`.
    oldest: BTreeMap<u64, EmbeddingKey>,
    next_use: u64,
    /// Entries last used at or after this number are used by the current step.
    first_pinned: u64,
    num_shown: u64,
    num_encoded: u64,
}

#[derive(Debug)]
struct Entry<T> {
    features: T,
    num_bytes: usize,
    last_use: u64,
}

/// Number of image lookups since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncoderStats {
    /// Images whose embeddings were cached.
    pub hits: u64,
    /// Images that the vision encoder had to encode.
    pub misses: u64,
}

impl<T: Clone> EncoderCache<T> {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            num_bytes: 0,
            entries: HashMap::new(),
            oldest: BTreeMap::new(),
            next_use: 0,
            first_pinned: 0,
            num_shown: 0,
            num_encoded: 0,
        }
    }

    /// Begins a step: entries used from now on stay until [`end_step`](Self::end_step).
    pub(super) fn begin_step(&mut self) {
        self.first_pinned = self.next_use;
    }

    /// Whether the image's embeddings are cached; if so, they stay until the step is over.
    pub(super) fn pin(&mut self, key: &EmbeddingKey) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        self.oldest.remove(&entry.last_use);
        entry.last_use = self.next_use;
        self.oldest.insert(self.next_use, *key);
        self.next_use += 1;
        true
    }

    /// Inserts new embeddings, which stay at least until the step is over.
    ///
    /// # Panics
    /// Panics when the key is cached already.
    pub(super) fn insert(&mut self, key: EmbeddingKey, features: T, num_bytes: usize) {
        let entry = Entry {
            features,
            num_bytes,
            last_use: self.next_use,
        };
        let before = self.entries.insert(key, entry);
        assert!(before.is_none(), "an image was encoded twice");
        self.oldest.insert(self.next_use, key);
        self.next_use += 1;
        self.num_bytes += num_bytes;
        self.num_encoded += 1;
        self.trim();
    }

    /// Returns the embeddings of a cached image.
    ///
    /// # Panics
    /// Panics when the image is not cached.
    pub(super) fn features(&mut self, key: &EmbeddingKey) -> T {
        self.num_shown += 1;
        let entry = self.entries.get(key);
        entry
            .expect("images are pinned or inserted before they are shown")
            .features
            .clone()
    }

    /// Removes an image's embeddings, if they are cached. Must not be called within a step.
    pub(super) fn forget(&mut self, key: &EmbeddingKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.oldest.remove(&entry.last_use);
            self.num_bytes -= entry.num_bytes;
        }
    }

    /// Ends the step: unpins its entries and evicts down to the budget.
    pub(super) fn end_step(&mut self) {
        self.first_pinned = self.next_use;
        self.trim();
    }

    pub(super) fn stats(&self) -> EncoderStats {
        EncoderStats {
            // A failed step may have encoded images and not used them.
            hits: self.num_shown.saturating_sub(self.num_encoded),
            misses: self.num_encoded,
        }
    }

    fn trim(&mut self) {
        while self.num_bytes > self.max_bytes
            && let Some((&last_use, &key)) = self.oldest.first_key_value()
            && last_use < self.first_pinned
        {
            self.oldest.remove(&last_use);
            let entry = self.entries.remove(&key);
            let entry = entry.expect("each use in the order is an entry's last");
            self.num_bytes -= entry.num_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(idx: u8) -> EmbeddingKey {
        EmbeddingKey {
            pixels: ImageHash([idx; 32]),
            salt: None,
        }
    }

    /// Runs a step that uses these images; returns those that had to be encoded.
    fn step(cache: &mut EncoderCache<u8>, images: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        cache.begin_step();
        for &idx in images {
            if !cache.pin(&image(idx)) {
                cache.insert(image(idx), idx, 10);
                encoded.push(idx);
            }
        }
        for &idx in images {
            assert_eq!(cache.features(&image(idx)), idx);
        }
        cache.end_step();
        encoded
    }

    #[test]
    fn an_image_is_encoded_once() {
        let mut cache = EncoderCache::new(100);
        assert_eq!(step(&mut cache, &[1, 1, 2]), [1, 2]);
        assert!(step(&mut cache, &[2, 1]).is_empty());
        let stats = EncoderStats { hits: 3, misses: 2 };
        assert_eq!(cache.stats(), stats);
    }

    #[test]
    fn an_image_is_found_by_its_own_salt_only() {
        let mut cache = EncoderCache::new(100);
        step(&mut cache, &[1]);
        let salted = |salt: u8| EmbeddingKey {
            salt: Some(CacheSalt([salt; 32])),
            ..image(1)
        };
        cache.begin_step();
        assert!(!cache.pin(&salted(0)));
        cache.insert(salted(0), 7, 10);
        assert!(!cache.pin(&salted(1)));
        assert!(cache.pin(&salted(0)) && cache.pin(&image(1)));
        assert_eq!(cache.features(&salted(0)), 7);
        assert_eq!(cache.features(&image(1)), 1);
    }

    #[test]
    fn what_is_forgotten_is_encoded_again() {
        let mut cache = EncoderCache::new(100);
        step(&mut cache, &[1, 2]);
        cache.forget(&image(1));
        cache.forget(&image(9));
        assert_eq!((cache.num_bytes, cache.oldest.len()), (10, 1));
        assert_eq!(step(&mut cache, &[1, 2]), [1]);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = EncoderCache::new(30);
        step(&mut cache, &[1, 2, 3]);
        step(&mut cache, &[1]);
        assert_eq!(step(&mut cache, &[4]), [4]);
        assert!(step(&mut cache, &[1, 3]).is_empty());
        assert_eq!(step(&mut cache, &[2]), [2]);
        assert!(cache.num_bytes <= 30);
    }

    #[test]
    fn a_step_keeps_what_it_uses_until_it_is_over() {
        let mut cache = EncoderCache::new(20);
        step(&mut cache, &[9]);
        cache.begin_step();
        assert!(cache.pin(&image(9)));
        for idx in 0..5 {
            assert!(!cache.pin(&image(idx)));
            cache.insert(image(idx), idx, 10);
        }
        assert!(
            [9, 0, 1, 2, 3, 4]
                .map(image)
                .iter()
                .all(|hash| cache.pin(hash))
        );
        cache.end_step();
        assert_eq!(cache.num_bytes, 20);
        assert_eq!(cache.entries.len(), cache.oldest.len());
        assert!(step(&mut cache, &[3, 4]).is_empty());
    }

    #[test]
    fn a_budget_of_nothing_keeps_nothing() {
        let mut cache = EncoderCache::new(0);
        assert_eq!(step(&mut cache, &[1, 1]), [1]);
        assert_eq!(step(&mut cache, &[1]), [1]);
        assert_eq!((cache.num_bytes, cache.entries.len()), (0, 0));
    }
}
