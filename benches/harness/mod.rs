//! What every bench shares: how it is called, and medians.
//!
//! `cargo bench` measures. `cargo test` calls the same program without `--bench`: then everything
//! runs once, small, so that no bench can rot.

use std::time::{Duration, Instant};

/// Whether to measure or only to show that it still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Measure,
    Smoke,
}

impl Mode {
    pub fn from_arguments() -> Self {
        if std::env::args().any(|argument| argument == "--bench") {
            Self::Measure
        } else {
            Self::Smoke
        }
    }

    /// One of two sizes.
    pub fn pick<T>(self, measure: T, smoke: T) -> T {
        match self {
            Self::Measure => measure,
            Self::Smoke => smoke,
        }
    }
}

/// The median of `runs` timings after one that does not count.
pub fn median(runs: usize, mut work: impl FnMut()) -> Duration {
    work();
    let mut timings: Vec<Duration> = (0..runs)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    timings.sort_unstable();
    timings[runs / 2]
}

/// One line of the table.
pub fn report(what: &str, value: f64, unit: &str) {
    println!("{what:<52} {value:>10.2} {unit}");
}
