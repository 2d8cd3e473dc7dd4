//! Random weights of any shape, to measure an architecture's speed and memory without files.
//!
//! Generates a billion parameters within seconds.

use std::borrow::Cow;
use std::f32::consts::TAU;
use std::fmt;

use half::bf16;
use rayon::prelude::*;

use super::tensor_names::LM_HEAD;
use crate::backend::{HostDtype, HostTensor};

/// Standard deviation of every weight, the family's `initializer_range`.
const STANDARD_DEVIATION: f32 = 0.02;
/// Number of precomputed samples that weights are picked from, by 16 random bits each.
const NUM_SAMPLES: usize = 1 << 16;
/// Numbers per unit of parallel work; a multiple of four.
const CHUNK: usize = 1 << 18;

/// Normally distributed bf16 values that depend only on seed, tensor name and index.
pub struct DummyWeights {
    seed: u64,
    sampled_tokens: Vec<f32>,
}

impl fmt::Debug for DummyWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DummyWeights")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl DummyWeights {
    /// Creates the weights of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let sampled_tokens = (0..NUM_SAMPLES)
            .map(|_| {
                // Box-Muller; the first number is above zero, so its logarithm is finite.
                let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
                radius * (TAU * random.unit()).cos() * STANDARD_DEVIATION
            })
            .collect();
        Self {
            seed,
            sampled_tokens,
        }
    }

    /// Returns random values: around one for layer norms, around zero for everything else, since
    /// RMS norms add the one themselves.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> HostTensor<'static> {
        let is_layer_norm = name.contains("layer_norm") || name.contains("layernorm");
        let mean = if is_layer_norm && name.starts_with("vision_tower.") && name.ends_with("weight")
        {
            1.0
        } else {
            0.0
        };
        let values: Vec<[u8; 2]> = self
            .sampled_tokens
            .iter()
            .map(|sample| bf16::from_f32(mean + sample).to_le_bytes())
            .collect();
        let seed = name.bytes().fold(self.seed, |seed, byte| {
            SplitMix(seed ^ u64::from(byte)).next()
        });
        let size = HostDtype::Bf16.blocks().num_bytes;
        let mut data = vec![0; shape.iter().product::<usize>() * size];
        data.par_chunks_mut(CHUNK * size)
            .enumerate()
            .for_each(|(chunk_idx, chunk)| {
                let mut random = SplitMix(seed.wrapping_add((chunk_idx as u64) << 32));
                for four in chunk.chunks_mut(4 * size) {
                    let mut bits = random.next();
                    for value in four.chunks_exact_mut(size) {
                        value.copy_from_slice(&values[bits as usize % NUM_SAMPLES]);
                        bits >>= 16;
                    }
                }
            });
        HostTensor {
            dtype: HostDtype::Bf16,
            shape: shape.to_vec(),
            data: Cow::Owned(data),
        }
    }

    /// Whether the tensor exists: all do except a separate head.
    pub fn contains(&self, name: &str) -> bool {
        name != LM_HEAD
    }
}

/// SplitMix64 by Steele, Lea and Flood: 64 good bits per step, and any seed is suitable.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number in [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}
