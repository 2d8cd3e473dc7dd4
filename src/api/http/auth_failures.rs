//! Counts requests without a valid key by client address. An address that tries many keys is slowed
//! down, and the number of log lines is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Length of the window in which failures are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Wrong keys that an address may send within a window before it has to wait.
const MAX_WRONG: u32 = 10;

/// Maximum number of tracked addresses. Beyond it, the entries with the oldest windows are dropped.
const MAX_ADDRESSES: usize = 4096;

/// Maximum number of log lines within a window: for one address, and for all.
const MAX_LINES_OF_ONE: u32 = 3;
const MAX_LINES: u32 = 60;

/// Recent failures of all addresses.
#[derive(Debug, Default)]
pub(crate) struct AuthFailures {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_address: HashMap<IpAddr, Failures>,
    /// Start of the current log window.
    log_since: Option<Instant>,
    num_lines: u32,
    /// Failures since the last log line.
    num_untold: u64,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Instant,
    num_wrong: u32,
    num_lines: u32,
}

/// What the request had instead of a valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// No key, or no well-formed one.
    Nothing,
    /// A wrong key.
    WrongKey,
}

/// How to handle a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How long the address must wait before its next wrong key is checked.
    pub(crate) wait: Option<Duration>,
    /// `Some` if the failure is to be logged; the value is the number of unlogged failures before
    /// it.
    pub(crate) line: Option<u64>,
}

impl AuthFailures {
    /// Counts one failure of `address`.
    pub(crate) fn count(&self, address: IpAddr, sent: Sent) -> Verdict {
        let now = Instant::now();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        table.make_room(address, now);
        let anew = Failures {
            since: now,
            num_wrong: 0,
            num_lines: 0,
        };
        let failures = table.by_address.entry(address).or_insert(anew);
        if now - failures.since >= WINDOW {
            *failures = anew;
        }
        if sent == Sent::WrongKey {
            failures.num_wrong = failures.num_wrong.saturating_add(1);
        }
        let is_slowed = sent == Sent::WrongKey && failures.num_wrong > MAX_WRONG;
        let wait = is_slowed.then(|| (failures.since + WINDOW) - now);
        if table.log_since.is_none_or(|since| now - since >= WINDOW) {
            table.log_since = Some(now);
            table.num_lines = 0;
        }
        // An address that starts to be slowed down gets one more line.
        let is_news = is_slowed && failures.num_wrong == MAX_WRONG + 1;
        let is_told =
            (failures.num_lines < MAX_LINES_OF_ONE || is_news) && table.num_lines < MAX_LINES;
        let line = is_told.then(|| {
            failures.num_lines += 1;
            table.num_lines += 1;
            std::mem::take(&mut table.num_untold)
        });
        table.num_untold += u64::from(!is_told);
        Verdict { wait, line }
    }
}

impl Table {
    fn make_room(&mut self, address: IpAddr, now: Instant) {
        if self.by_address.len() < MAX_ADDRESSES || self.by_address.contains_key(&address) {
            return;
        }
        self.by_address
            .retain(|_, failures| now - failures.since < WINDOW);
        if self.by_address.len() >= MAX_ADDRESSES {
            // Half of the entries go at once, so that this scan is rare.
            let mut begun: Vec<Instant> = self.by_address.values().map(|f| f.since).collect();
            begun.sort_unstable();
            let middle = begun[begun.len() / 2];
            let mut num_kept = 0;
            self.by_address.retain(|_, failures| {
                num_kept += 1;
                failures.since >= middle && num_kept <= MAX_ADDRESSES / 2
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_keys_of_one_address_are_slowed_down_for_a_window() {
        let failures = AuthFailures::default();
        let wait = |number| failures.count(address(number), Sent::WrongKey).wait;
        for _ in 0..MAX_WRONG {
            assert_eq!(wait(1), None);
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(wait(1), Some(Duration::from_secs(40)));
        assert_eq!(wait(2), None);
        assert_eq!(failures.count(address(1), Sent::Nothing).wait, None);
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(wait(1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_and_the_table_are_bounded() {
        let failures = AuthFailures::default();
        let told = |number| failures.count(address(number), Sent::WrongKey).line;
        let of_one: Vec<_> = (0..100).filter_map(|_| told(0)).collect();
        // The first three, and the one that reports the slow-down.
        assert_eq!(of_one, [0, 0, 0, 7]);
        let of_many: Vec<_> = (1..100_000).filter_map(told).collect();
        assert_eq!(of_many.len(), MAX_LINES as usize - 4);
        assert_eq!(of_many[0], 89);
        let num_addresses = failures.table.lock().unwrap().by_address.len();
        assert!(num_addresses <= MAX_ADDRESSES, "{num_addresses}");
    }
}
