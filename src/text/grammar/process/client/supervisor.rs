//! Watches a worker: what takes long shares its turns with other long work, and what exceeds its time
//! is ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::{ForkServer, Job, Link, SHORT, locked};
use crate::text::grammar::process::fork_server::Request;

/// Length of a turn when others wait for theirs.
const TURN: Duration = Duration::from_millis(250);
/// How often a turn is checked.
const TICK: Duration = Duration::from_millis(8);

/// Makes a worker with long computations take turns, and limits their total time.
pub(super) struct Supervisor {
    pub(super) server: Arc<ForkServer>,
    pub(super) link: Arc<Link>,
}

/// What the worker may do now.
enum Leave {
    /// Compute without a permit.
    Free,
    /// Compute while it holds a permit for long computations.
    Turn {
        _place: OwnedSemaphorePermit,
        begun: Instant,
    },
}

impl Supervisor {
    pub(super) async fn supervise(self) {
        let mut leave = Leave::Free;
        while let Some(load) = self.next_load().await {
            if load.is_over {
                self.link.close();
                self.server.request(Request::Kill(self.link.pid));
                return;
            }
            let age = load.oldest.elapsed();
            self.link.is_slow.store(age >= SHORT, Ordering::Release);
            if age < SHORT {
                leave = Leave::Free;
                sleep(SHORT - age).await;
                continue;
            }
            let is_up = matches!(&leave, Leave::Turn { begun, .. } if begun.elapsed() > TURN);
            if is_up {
                // Waiting workers get their turns first.
                leave = Leave::Free;
            }
            if let Leave::Free = leave
                && let Some(place) = self.next_turn().await
            {
                leave = Leave::Turn {
                    _place: place,
                    begun: Instant::now(),
                };
            }
            sleep(TICK).await;
            if let Leave::Turn { .. } = leave {
                *locked(&self.link.used) += TICK;
            }
        }
    }

    /// Waits until the worker has work and returns it; `None` when the worker is gone.
    async fn next_load(&self) -> Option<Load> {
        loop {
            if !self.link.is_alive() {
                return None;
            }
            if let Some(load) = self.load() {
                return Some(load);
            }
            self.link.is_slow.store(false, Ordering::Release);
            self.link.changed.notified().await;
        }
    }

    /// Waits for a permit for long computations; the worker is paused meanwhile. `None` if it has
    /// no more work, or must not continue.
    async fn next_turn(&self) -> Option<OwnedSemaphorePermit> {
        let turns = Arc::clone(&self.server.turns);
        if let Ok(permit) = Arc::clone(&turns).try_acquire_owned() {
            return Some(permit);
        }
        self.server.request(Request::Pause(self.link.pid));
        let is_wanted = async {
            while self.load().is_some_and(|load| !load.is_over) {
                sleep(SHORT).await;
            }
        };
        let permit = tokio::select! {
            permit = turns.acquire_owned() => permit.ok(),
            () = is_wanted => None,
        };
        self.server.request(Request::Resume(self.link.pid));
        permit
    }

    /// Returns the worker's current work; `None` if there is none.
    pub(super) fn load(&self) -> Option<Load> {
        let now = Instant::now();
        let mut jobs = locked(&self.link.jobs);
        for job in jobs.values_mut() {
            if now - job.ordered > TURN {
                // From now on it waits like any other long computation.
                job.turn = None;
            }
        }
        let begun = |job: &Job| match job.turn {
            Some(_) => now,
            None => job.ordered,
        };
        let oldest = jobs.values().map(begun).min()?;
        let is_late = jobs.values().any(|job| job.until <= now);
        // Ending the worker would also end answers that wait for no mask right now.
        let is_for_nobody = self.link.num_answers.load(Ordering::Acquire) == 0
            && jobs.values().all(|job| job.reply.is_closed());
        Some(Load {
            oldest,
            is_over: is_late || (is_for_nobody && now - oldest > SHORT),
        })
    }
}

pub(super) struct Load {
    /// When the oldest job arrived, among those without a turn of their own.
    oldest: Instant,
    /// Whether it has exceeded its time, or no receiver waits for it any more.
    pub(super) is_over: bool,
}
