//! Number of retries and the pauses between them.

use std::time::Duration;

use super::response_error::Failure;
use crate::config::Retries;
use crate::error::{Error, HubProblem};

/// Counts failed attempts.
#[derive(Debug)]
pub(super) struct RetryPolicy {
    retries: Retries,
    num_failed: u32,
}

impl RetryPolicy {
    pub(super) fn new(retries: Retries) -> Self {
        Self {
            retries,
            num_failed: 0,
        }
    }

    /// Resets the count after progress: earlier failures no longer matter.
    pub(super) fn restore(&mut self) {
        self.num_failed = 0;
    }

    /// Returns the pause before the next attempt.
    ///
    /// # Errors
    /// Returns the failure itself when it is final, or when the retries are used up.
    pub(super) fn pause(
        &mut self,
        failure: Failure,
        asked: &str,
    ) -> Result<(Duration, String), Error> {
        let (what, wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Part(what) => (what.to_owned(), None),
            Failure::Transient { what, wait } => (what, wait),
        };
        let Retries {
            max_attempts,
            first_pause,
            longest_pause,
        } = self.retries;
        self.num_failed += 1;
        // The hint is of no use where a proxy is in use already.
        let hint = if what.starts_with("the proxy ") {
            "Without"
        } else {
            "Behind a proxy, set HTTPS_PROXY; without"
        };
        let given_up = |why: String| Error::Hub {
            problem: HubProblem::Network,
            message: format!(
                "{asked}: {what}{why}. Downloaded data is kept. {hint} a network, \
                 HF_HUB_OFFLINE=1 uses only the cache."
            ),
        };
        if self.num_failed >= max_attempts {
            return Err(given_up(format!(" ({max_attempts} attempts)")));
        }
        match wait {
            Some(wait) if wait > longest_pause => Err(given_up(format!(
                ", and asks to retry in {} s",
                wait.as_secs()
            ))),
            Some(wait) => Ok((wait, what)),
            None => {
                let doubled = first_pause.saturating_mul(1 << (self.num_failed - 1).min(16));
                // Random, so that clients that failed together do not retry together.
                let share = 0.75 + fastrand::f64() / 2.0;
                Ok((doubled.min(longest_pause).mul_f64(share), what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::new(Retries {
            max_attempts: 4,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(3),
        })
    }

    #[test]
    fn pauses_double_and_end() {
        let mut retry_policy = retry_policy();
        let mut pause = |restore: bool| {
            if restore {
                retry_policy.restore();
            }
            let pause = retry_policy.pause(Failure::transient("cut"), "x.bin");
            pause
                .map(|(pause, _)| pause.as_secs_f64())
                .map_err(|error| error.to_string())
        };
        for seconds in [1.0, 2.0, 3.0] {
            let pause = pause(false).unwrap();
            assert!(
                (seconds * 0.75..=seconds * 1.25).contains(&pause),
                "{pause}"
            );
        }
        let error = pause(false).unwrap_err();
        assert!(error.starts_with("x.bin: cut (4 attempts)"), "{error}");
        // Progress in between resets the count.
        assert!(pause(true).unwrap() <= 1.25);
    }

    #[test]
    fn the_server_says_how_long_to_wait_within_reason() {
        let asks = |seconds| Failure::Transient {
            what: "busy".to_owned(),
            wait: Some(Duration::from_secs(seconds)),
        };
        let (pause, _) = retry_policy().pause(asks(3), "x").unwrap();
        assert_eq!(pause, Duration::from_secs(3));
        let error = retry_policy().pause(asks(4), "x").unwrap_err().to_string();
        assert!(error.contains("retry in 4 s"), "{error}");
    }
}
