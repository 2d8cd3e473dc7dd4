//! `medgemma selftest`: checks that a device computes what the reference computes.
//!
//! Runs every operation of a backend and of the reference on the same random inputs, then a whole
//! tiny model, and reports the differences. Knows nothing of kernels: whatever a backend fuses or
//! splits is checked through its operations.

mod attention;
mod gpu;
mod model;
mod operations;
mod random;

use std::fmt;

use crate::backend::Backend;
use crate::error::Result;

pub use gpu::{on_device, on_gpu};

/// Result of one comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Name of the operation and its shape.
    pub name: String,
    /// Largest difference, as a fraction of the reference's root mean square.
    pub error: f32,
    /// Largest allowed difference.
    pub limit: f32,
}

impl Check {
    /// Compares `candidate` with `reference`, number by number.
    fn new(name: String, candidate: &[f32], reference: &[f32], limit: f32) -> Self {
        let squares: f64 = reference.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let scale = (squares / reference.len().max(1) as f64).sqrt().max(1e-6) as f32;
        let error = if candidate.len() == reference.len() {
            (candidate.iter().zip(reference))
                .map(|(a, b)| (a - b).abs() / scale)
                // max() would lose a NaN.
                .fold(0.0, |most, error| {
                    if error > most || error.is_nan() {
                        error
                    } else {
                        most
                    }
                })
        } else {
            f32::INFINITY
        };
        Self { name, error, limit }
    }

    /// Whether the difference is within the limit.
    pub fn passed(&self) -> bool {
        self.error <= self.limit
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        write!(
            f,
            "{:<58} {:>9.2e} of {:.0e}  {verdict}",
            self.name, self.error, self.limit
        )
    }
}

/// How far a device's results may be from the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Both compute in f32: only the order of sums differs.
    F32,
    /// The candidate rounds to bf16 between operations: 8 bits, 2^-9 of a number at most each time.
    Bf16,
}

impl Precision {
    /// Allowed difference of a single operation.
    fn operation(self) -> f32 {
        match self {
            Self::F32 => 2e-4,
            // The largest of many thousand numbers is several times the root mean square.
            Self::Bf16 => 4e-2,
        }
    }

    /// Allowed difference of a whole model's logits.
    fn model(self) -> f32 {
        match self {
            Self::F32 => 1e-3,
            Self::Bf16 => 2e-1,
        }
    }
}

/// How much is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Every operation at small sizes: for a device that is itself slow.
    Brief,
    /// Every operation at the models' own sizes.
    Full,
}

/// Attention dimensions, for backends that are configured for one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key and value heads.
    pub num_kv_heads: usize,
    /// Number of values per head.
    pub head_dim: usize,
    /// Number of keys that a sliding layer sees.
    pub window: usize,
}

/// Maximum number of packed rows in the step of any check.
pub const MAX_ROWS: usize = 512;
/// Maximum number of sequences in the step of any check.
pub const MAX_SEQUENCES: usize = 4;

/// Runs all comparisons, passing each result to `report` as it comes. Returns whether all passed.
///
/// # Errors
/// Fails when an operation of either backend fails, which is worse than a wrong number.
pub fn run<C: Backend, R: Backend>(
    candidate: impl Fn(Sizes) -> Result<C>,
    reference: impl Fn() -> Result<R>,
    effort: Effort,
    precision: Precision,
    report: &mut dyn FnMut(&Check),
) -> Result<bool> {
    let mut all_passed = true;
    let mut judge = |name: String, ours: Vec<f32>, theirs: Vec<f32>, limit: f32| {
        let check = Check::new(name, &ours, &theirs, limit);
        all_passed &= check.passed();
        report(&check);
    };
    let theirs = reference()?;
    let ours = candidate(model::sizes()?)?;
    // Steps begin with a cache, although nothing here reads it.
    let layout = operations::cache_layout(model::sizes()?);
    let (_cache, _other) = (ours.kv_cache(&layout)?, theirs.kv_cache(&layout)?);
    for operation in operations::all(effort) {
        judge(
            operation.name(),
            ours.enter(|| operation.run(&ours))?,
            theirs.enter(|| operation.run(&theirs))?,
            precision.operation(),
        );
    }
    for attention in attention::all(effort) {
        let ours = candidate(attention.sizes())?;
        judge(
            attention.name(),
            ours.enter(|| attention.run(&ours))?,
            theirs.enter(|| attention.run(&theirs))?,
            precision.operation(),
        );
    }
    let ours = model::logits(candidate(model::sizes()?)?)?;
    let theirs = model::logits(reference()?)?;
    for ((name, ours), (_, theirs)) in ours.into_iter().zip(theirs) {
        judge(name, ours, theirs, precision.model());
    }
    Ok(all_passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(candidate: &[f32]) -> bool {
        Check::new("a check".into(), candidate, &[1.0, -1.0, 1.0], 0.01).passed()
    }

    #[test]
    fn only_near_numbers_pass() {
        assert!(passes(&[1.0, -1.009, 1.0]));
        assert!(!passes(&[1.0, -1.011, 1.0]));
        assert!(!passes(&[1.0, -1.0]));
        assert!(!passes(&[f32::NAN, -1.0, 1.0]));
        assert!(!passes(&[1.0, f32::INFINITY, 1.0]));
    }
}
