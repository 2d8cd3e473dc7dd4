//! `medgemma selftest`: does this device compute what the reference computes?
//!
//! Runs every operation of a backend on random inputs beside another backend, then a whole tiny
//! model, and says how far apart they are. Knows nothing of kernels: what a backend fuses or
//! splits, it has to answer for here all the same.

mod attention;
mod gpu;
mod model;
mod operations;
mod random;

use std::fmt;

use crate::backend::Backend;
use crate::error::Result;

pub use gpu::{on_device, on_gpu};

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The operation and its shape.
    pub name: String,
    /// Largest difference, as a share of the reference's root mean square.
    pub error: f32,
    /// The largest that is allowed.
    pub limit: f32,
}

impl Check {
    /// `candidate` beside `reference`, number by number.
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

    /// Whether it is near enough.
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
    /// Of a single operation.
    fn operation(self) -> f32 {
        match self {
            Self::F32 => 2e-4,
            // The largest of many thousand numbers is some root mean squares large.
            Self::Bf16 => 4e-2,
        }
    }

    /// Of a whole model's logits.
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

/// What a backend that is fixed to one model's attention is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Keys that a sliding layer sees.
    pub window: usize,
}

/// Most packed rows of any check's step.
pub const MAX_ROWS: usize = 512;
/// Most sequences of any check's step.
pub const MAX_SEQUENCES: usize = 4;

/// Compares everything, telling each result as it comes. The answer is whether all passed.
///
/// # Errors
/// When an operation of either fails, which is worse than a wrong number.
pub fn run<C: Backend, R: Backend>(
    candidate: impl Fn(Sizes) -> Result<C>,
    reference: impl Fn() -> Result<R>,
    effort: Effort,
    precision: Precision,
    tell: &mut dyn FnMut(&Check),
) -> Result<bool> {
    let mut all_passed = true;
    let mut judge = |name: String, ours: Vec<f32>, theirs: Vec<f32>, limit: f32| {
        let check = Check::new(name, &ours, &theirs, limit);
        all_passed &= check.passed();
        tell(&check);
    };
    let theirs = reference()?;
    let ours = candidate(model::sizes()?)?;
    // Steps are begun on a cache, although nothing here reads it.
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
