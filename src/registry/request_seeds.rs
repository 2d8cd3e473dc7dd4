//! Seeds for requests without one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Source of seeds.
#[derive(Debug)]
pub enum RequestSeeds {
    /// Each seed is random.
    Random,
    /// Consecutive seeds: a server that gets the same requests in the same order gives the same
    /// answers.
    Sequence(AtomicU64),
}

impl RequestSeeds {
    /// Creates a sequence that begins at `seed`, or a random source.
    pub fn new(seed: Option<u64>) -> Self {
        match seed {
            Some(seed) => Self::Sequence(AtomicU64::new(seed)),
            None => Self::Random,
        }
    }

    /// Returns the next seed of the sequence; `None` if the caller should choose a random one.
    pub fn draw(&self) -> Option<u64> {
        match self {
            Self::Random => None,
            Self::Sequence(at) => Some(mixed(at.fetch_add(1, Ordering::Relaxed))),
        }
    }
}

/// Maps adjacent numbers to very different ones: the finaliser of SplitMix64.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_the_same_each_time_and_never_stands_still() {
        let drawn = |seed| {
            let seeds = RequestSeeds::new(Some(seed));
            [(); 4].map(|()| seeds.draw().unwrap())
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(1 << 40));
        let [a, b, c, d] = drawn(u64::MAX);
        assert!(a != b && b != c && c != d && a != d);
        assert_eq!(RequestSeeds::new(None).draw(), None);
    }
}
