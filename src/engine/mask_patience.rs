//! How long a step waits for its masks.
//!
//! A mask that is computed while the device computes costs nothing. Beyond that, the other
//! sequences of the step wait, so there is a time budget for waiting: it grows by a fraction of the
//! time that the device computes, and once it is empty, a step continues without the late masks. In
//! the long run the others keep at least `1 / (1 + SHARE)` of their speed.

use std::time::Duration;

/// Waiting time allowed, as a fraction of the time that the device computes.
const SHARE: f64 = 0.2;
/// Initial and maximum waiting budget.
const MOST: Duration = Duration::from_millis(50);
/// Waiting time of a step without other sequences: bounded, since another one may arrive.
const ALONE: Duration = Duration::from_millis(50);

/// The waiting budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaskPatience {
    left: Duration,
}

impl MaskPatience {
    pub(super) fn new() -> Self {
        Self { left: MOST }
    }

    /// Returns how long a step waits for masks from now on while the device has nothing else to do.
    pub(super) fn for_step(&self, num_others: usize) -> Duration {
        match num_others {
            0 => ALONE,
            _ => self.left,
        }
    }

    /// Charges a step that took `took` in total, of which other sequences waited for masks for
    /// `waited`.
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
            // A mask is late in every step.
            let waited = patience.for_step(3);
            waited_in_all += waited;
            patience.charge(step + waited, waited);
        }
        let most = MOST + step.mul_f64(SHARE) * 1_000;
        assert!(waited_in_all <= most, "{waited_in_all:?}");
        // Steps without waiting fill the budget, up to a limit.
        for _ in 0..1_000 {
            patience.charge(step, Duration::ZERO);
        }
        assert_eq!(patience.for_step(1), MOST);
        assert_eq!(patience.for_step(0), ALONE);
    }
}
