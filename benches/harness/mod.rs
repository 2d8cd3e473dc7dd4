//! What every bench shares: how it is called, and medians.
//!
//! `cargo bench` measures. `cargo test` calls the same program without `--bench`: then everything
//! runs once, small, so that no bench can rot.

use std::time::Instant;

/// Whether to measure or only to show that it still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Measure,
    Smoke,
}

impl Mode {
    pub(crate) fn from_arguments() -> Self {
        if std::env::args().any(|argument| argument == "--bench") {
            Self::Measure
        } else {
            Self::Smoke
        }
    }

    /// One of two sizes.
    pub(crate) fn pick<T>(self, measure: T, smoke: T) -> T {
        match self {
            Self::Measure => measure,
            Self::Smoke => smoke,
        }
    }
}

/// The median of `runs` measurements after one that does not count.
pub(crate) fn median(runs: usize, mut measure: impl FnMut() -> f64) -> f64 {
    measure();
    let mut values: Vec<f64> = (0..runs).map(|_| measure()).collect();
    values.sort_by(f64::total_cmp);
    values[runs / 2]
}

/// Seconds that `work` takes.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

/// One line of the table.
pub(crate) fn report(what: &str, value: f64, unit: &str) {
    println!("{what:<52} {value:>10.2} {unit}");
}
