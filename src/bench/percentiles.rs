//! Summary statistics: mean and percentiles.

use serde::Serialize;

/// Mean and percentiles of measurements, in the unit of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// The arithmetic mean.
    pub mean: f64,
    /// Half are below.
    pub p50: f64,
    /// Nine in ten are below.
    pub p90: f64,
    /// 99 in a hundred are below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// `None` without measurements.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let &max = values.last()?;
        // The smallest measurement that at least this share does not exceed.
        let at = |share: f64| values[((share * values.len() as f64).ceil() as usize).max(1) - 1];
        Some(Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_measurements_themselves() {
        let hundred = (1..=100).rev().map(f64::from).collect();
        let percentiles = Percentiles::of(hundred).expect("there are some");
        assert_eq!(percentiles.p50, 50.0);
        assert_eq!(percentiles.p90, 90.0);
        assert_eq!(percentiles.p99, 99.0);
        assert_eq!(percentiles.max, 100.0);
        assert_eq!(percentiles.mean, 50.5);
    }

    #[test]
    fn one_is_everything_and_none_is_nothing() {
        let one = Percentiles::of(vec![3.0]).expect("there is one");
        assert_eq!((one.p50, one.p99), (3.0, 3.0));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }
}
