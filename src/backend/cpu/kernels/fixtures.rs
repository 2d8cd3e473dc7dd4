//! Helpers for the tests of several operations.

/// Returns numbers in [-1, 1) that depend only on the seed.
pub(super) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Computes softmax attention of one query in f64.
pub(super) fn attention(q: &[f32], keys: &[&[f32]], values: &[&[f32]], scale: f32) -> Vec<f64> {
    let scores: Vec<f64> = keys
        .iter()
        .map(|key| {
            let products = q
                .iter()
                .zip(*key)
                .map(|(q, k)| f64::from(*q) * f64::from(*k));
            products.sum::<f64>() * f64::from(scale)
        })
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..q.len())
        .map(|dim| {
            let terms = weights.iter().zip(values);
            terms
                .map(|(w, value)| w * f64::from(value[dim]))
                .sum::<f64>()
                / sum
        })
        .collect()
}

/// Fails if any number of `got` differs from the truth by more than `tolerance`.
pub(super) fn check_close(got: &[f32], truth: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), truth.len(), "{what}");
    for (idx, (got, truth)) in got.iter().zip(truth).enumerate() {
        let error = (f64::from(*got) - truth).abs();
        assert!(
            error <= tolerance,
            "{what}: {got} at {idx}, not {truth}: off by {error:e}"
        );
    }
}
