//! How long a step waits for its masks.
//!
//! What is made while the device computes costs nothing. Beyond that the others in the step wait, so
//! there is an account of that: it fills with a share of the time that the device computes, and once
//! it is empty, a step goes on without the masks that are late. Over any length of time the others
//! then keep at least `1 / (1 + SHARE)` of their speed.

use std::time::Duration;

/// What waiting may take, of the time that the device computes.
const SHARE: f64 = 0.2;
/// What is in the account at the beginning, and at most.
const MOST: Duration = Duration::from_millis(50);
/// How long a step waits that nobody else takes part in: not longer, since somebody may come.
const ALONE: Duration = Duration::from_millis(50);

/// The account.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaskPatience {
    left: Duration,
}

impl MaskPatience {
    pub(super) fn new() -> Self {
        Self { left: MOST }
    }

    /// How long from now on a step waits for masks while the device has nothing else to do.
    pub(super) fn for_step(&self, num_others: usize) -> Duration {
        match num_others {
            0 => ALONE,
            _ => self.left,
        }
    }

    /// A step took `took` in all, of which others waited for masks for `waited`.
    pub(super) fn charge(&mut self, took: Duration, waited: Duration) {
        let computed = took.saturating_sub(waited);
        let filled = self.left + computed.mul_f64(SHARE);
        self.left = filled.saturating_sub(waited).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_takes_no_more_than_its_share() {
        let mut patience = MaskPatience::new();
        let step = Duration::from_millis(10);
        let mut waited_in_all = Duration::ZERO;
        for _ in 0..1_000 {
            // Somebody is always late.
            let waited = patience.for_step(3);
            waited_in_all += waited;
            patience.charge(step + waited, waited);
        }
        let most = MOST + step.mul_f64(SHARE) * 1_000;
        assert!(waited_in_all <= most, "{waited_in_all:?}");
        // Who computes without waiting saves up, to a bound.
        for _ in 0..1_000 {
            patience.charge(step, Duration::ZERO);
        }
        assert_eq!(patience.for_step(1), MOST);
        assert_eq!(patience.for_step(0), ALONE);
    }
}
