//! Percentiles of many durations in little memory.

/// Counts durations in buckets that are 2 % wide, from a microsecond to beyond a day.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

const LEAST: f64 = 1e-6;
const WIDTH: f64 = 1.02;

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; 1300],
            total: 0,
        }
    }

    pub(crate) fn add(&mut self, seconds: f64) {
        let bucket = (seconds.max(LEAST) / LEAST).ln() / WIDTH.ln();
        let last = self.counts.len() - 1;
        self.counts[(bucket as usize).min(last)] += 1;
        self.total += 1;
    }

    /// The duration in seconds that a share of all does not exceed; 0 when there are none.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen > rank {
                return LEAST * WIDTH.powf(bucket as f64 + 0.5);
            }
        }
        0.0
    }
}
