//! Cosines and sines of a step's positions.

use rayon::prelude::*;

use crate::backend::attention::Rope;

/// Cosines and sines for some layers, each `(tokens, head_dim / 2)`.
#[derive(Debug)]
pub(super) struct CosSin {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
}

impl CosSin {
    /// The angle is a product in f32, as in `Gemma3RotaryEmbedding`: at position 100,000 a wider
    /// type would give visibly different angles.
    pub(super) fn new(rope: &Rope, positions: &[u32]) -> Self {
        let half = rope.inv_freq.len();
        let mut cos = vec![0.0; positions.len() * half];
        let mut sin = vec![0.0; positions.len() * half];
        cos.par_chunks_exact_mut(half)
            .zip(sin.par_chunks_exact_mut(half))
            .zip(positions)
            .for_each(|((cos, sin), &position)| {
                for ((cos, sin), inv_freq) in cos.iter_mut().zip(sin).zip(&rope.inv_freq) {
                    (*sin, *cos) = (position as f32 * inv_freq).sin_cos();
                }
            });
        Self { cos, sin }
    }
}
