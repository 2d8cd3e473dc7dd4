//! Measures this machine's memory bandwidth: the upper bound of decoding on the CPU.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

/// Larger than any cache.
const NUM_WORDS: usize = 64 << 20;

/// Bytes a second, by all cores together, the best of a few passes over half a gigabyte.
pub(super) fn read_bandwidth() -> f64 {
    const PASSES: usize = 5;
    // Not zeros, which the kernel would map to one page.
    let words: Vec<u64> = (0..NUM_WORDS as u64).into_par_iter().collect();
    let pass = || {
        let began = Instant::now();
        let sum = words
            .par_chunks(1 << 20)
            .map(|chunk| {
                chunk
                    .iter()
                    .fold(0_u64, |sum, word| sum.wrapping_add(*word))
            })
            .reduce(|| 0, u64::wrapping_add);
        black_box(sum);
        size_of_val(words.as_slice()) as f64 / began.elapsed().as_secs_f64()
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}
