//! Random numbers for seeds and ids. They are not for secrets.

use std::hash::{BuildHasher, RandomState};

/// Returns 64 random bits, from the keys with which the standard library seeds its hash maps.
pub(crate) fn random_u64() -> u64 {
    // Every `RandomState` has its own keys, so the hashed value does not matter.
    RandomState::new().hash_one(0_u8)
}

/// Returns `prefix` followed by 32 hexadecimal digits.
pub(crate) fn random_id(prefix: &str) -> String {
    format!("{prefix}{:016x}{:016x}", random_u64(), random_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_equal() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| random_id("x-")).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 34));
    }
}
