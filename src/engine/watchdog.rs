//! Watchdog: tells a stuck device from a paused process. A pause (a stopped container, a debugger,
//! a sleeping laptop) stops both threads, while the clock goes on.
//!
//! ```text
//!   device    ├──── step ─────────── paused ──────────── step ──┤
//!   engine    look  look  look                look  look
//!                           └── far too late ──┘ the step has its whole time again
//! ```
//!
//! Measures the time that a step has had. Knows nothing of steps or devices.

use std::time::Duration;

use tokio::time::Instant;

/// Maximum time between two checks.
const LONGEST_TICK: Duration = Duration::from_secs(1);
/// A thread on a busy host may wake this late without having been paused.
const LEAST_SLACK: Duration = Duration::from_millis(100);

/// Checks periodically, and detects a pause when a check is late.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// `None` disables the watchdog and the detection of pauses.
    timeout: Option<Duration>,
    /// Time since which the device can have worked, corrected for detected pauses.
    busy_since: Instant,
    /// Time at which the next check was due.
    next_check: Instant,
}

impl Watchdog {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            timeout,
            busy_since: now,
            next_check: now,
        }
    }

    /// Records that the device has work from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.busy_since = now;
        self.next_check = now + self.tick();
    }

    /// Records that a step has ended and the next one begins. Returns how long it took.
    pub(super) fn lap(&mut self, now: Instant) -> Duration {
        let took = now - self.busy_since;
        self.begin(now);
        took
    }

    /// Checks for a pause. If this call is far later than planned, the process was paused, and the
    /// step gets its full time again.
    pub(super) fn look(&mut self, now: Instant) {
        if self.timeout.is_none() {
            return;
        }
        let tick = self.tick();
        let late = now.saturating_duration_since(self.next_check);
        if late > tick.max(LEAST_SLACK) {
            self.busy_since = now;
        }
        self.next_check = now + tick;
    }

    /// Returns the time of the next check while the device works.
    pub(super) fn next_check(&self) -> Option<Instant> {
        Some(self.next_check.min(self.busy_since + self.timeout?))
    }

    /// Returns for how long the device has been stuck, if it is.
    pub(super) fn stuck_for(&self, now: Instant) -> Option<Duration> {
        let took = now.saturating_duration_since(self.busy_since);
        self.timeout
            .is_some_and(|most| took >= most)
            .then_some(took)
    }

    fn tick(&self) -> Duration {
        self.timeout.unwrap_or_default().min(8 * LONGEST_TICK) / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the checks on time plus `late` each; returns when the watchdog reports a stuck device,
    /// if within `most` checks.
    fn watched(timeout: f64, late: f64, most: usize) -> Option<Duration> {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Some(Duration::from_secs_f64(timeout)));
        watchdog.begin(start);
        for _ in 0..most {
            let due = watchdog.next_check().expect("it has a timeout");
            let now = due + Duration::from_secs_f64(late);
            watchdog.look(now);
            if watchdog.stuck_for(now).is_some() {
                return Some(now - start);
            }
        }
        None
    }

    #[test]
    fn a_stuck_device_is_found_at_its_time_on_a_busy_host_too() {
        for timeout in [1e-9, 0.01, 1.0, 120.0, 1e6] {
            for late in [1e-6, 0.001, 0.09] {
                let found = watched(timeout, late, 10_000_000).expect("it is stuck");
                let found = found.as_secs_f64();
                assert!(
                    (timeout..timeout * 1.001 + late + 0.01).contains(&found),
                    "{found} s with {timeout} s, {late} s late"
                );
            }
        }
    }

    #[test]
    fn a_pause_gives_the_step_its_whole_time_again() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
        watchdog.begin(start);
        for second in 1..=9 {
            watchdog.look(at(f64::from(second)));
        }
        watchdog.look(at(39.0));
        assert_eq!(watchdog.stuck_for(at(39.0)), None);
        for second in 40..=48 {
            watchdog.look(at(f64::from(second)));
            assert_eq!(watchdog.stuck_for(at(f64::from(second))), None);
        }
        watchdog.look(at(49.0));
        assert_eq!(watchdog.stuck_for(at(49.0)), Some(Duration::from_secs(10)));
        assert_eq!(watchdog.lap(at(49.5)), Duration::from_millis(10_500));
    }

    #[test]
    fn without_a_timeout_it_sleeps() {
        let mut watchdog = Watchdog::new(None);
        let start = Instant::now();
        watchdog.begin(start);
        watchdog.look(start + Duration::from_secs(9));
        let late = start + Duration::from_secs(1_000_000);
        assert_eq!(watchdog.next_check(), None);
        assert_eq!(watchdog.stuck_for(late), None);
        assert_eq!(watchdog.lap(late), Duration::from_secs(1_000_000));
    }
}
