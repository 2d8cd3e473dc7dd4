//! What a block's keys and values depend on, as 256 bits.
//!
//! ```text
//!   salt ──> root ──> block 0 ──> block 1 ──> …     each: hash(parent, 32 tokens, their images)
//! ```
//!
//! Equal hashes mean equal contents, so the chain must take in all that the model sees up to the
//! block's end. An image's tokens attend to one another in both directions, so the keys of its
//! first token depend on its last: each image of a run that reaches into a block counts, also
//! one that begins behind it.
//!
//! The model is not hashed: a scheduler has pools of its own and serves one model.

use crate::core::{CacheSalt, ImageSpan, TokenId};

/// Identity of a full block's contents and of everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockHash([u8; 32]);

impl BlockHash {
    /// The parent of a sequence's first block.
    pub(super) fn root(salt: Option<CacheSalt>) -> Self {
        match salt {
            None => Self([0; 32]),
            Some(CacheSalt(salt)) => {
                let mut hasher = blake3::Hasher::new_derive_key("medgemma prefix cache salt");
                hasher.update(&salt);
                Self(*hasher.finalize().as_bytes())
            }
        }
    }

    /// The hash of the block at positions `start..start + tokens.len()` behind this one. `images`
    /// are those of the runs that reach into it. Every part but the last has a fixed length, so
    /// no two inputs are the same bytes.
    pub(super) fn child(self, start: usize, tokens: &[TokenId], images: &[ImageSpan]) -> Self {
        let mut bytes = Vec::with_capacity(32 + 4 * tokens.len() + 48 * images.len());
        bytes.extend_from_slice(&self.0);
        for token in tokens {
            bytes.extend_from_slice(&token.0.to_le_bytes());
        }
        for image in images {
            let offset = image.start as i64 - start as i64;
            bytes.extend_from_slice(&image.pixels.hash.0);
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&(image.len as u64).to_le_bytes());
        }
        Self(*blake3::hash(&bytes).as_bytes())
    }
}
