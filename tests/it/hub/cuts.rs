//! A hundred downloads over lines that are cut at random bytes, by programs that end at random
//! moments.

use std::sync::Mutex;

use fastrand::Rng;
use medgemma::error::{Error, HubProblem};
use medgemma::registry;

use super::imitation::{Fault, Imitation};
use super::{ID, assert_whole, is_for_bytes, settings, sharded};

const NUM_RUNS: u64 = 100;

#[test]
fn random_cuts_end_with_the_right_files() {
    let (mut num_cuts, mut num_resumed, mut num_starts) = (0, 0, 0);
    for seed in 0..NUM_RUNS {
        let hub = Imitation::start();
        let cache = tempfile::tempdir().unwrap();
        let mut random = Rng::with_seed(seed);
        let shard_len = 1 << random.u32(4..19);
        let repo = sharded(seed, shard_len);
        hub.put(ID, repo.clone());
        let mut settings = settings(&hub, cache.path());
        // Some give up at the first trouble, as if they were killed; the next one goes on.
        settings.hub.retries.max_attempts = random.u32(1..8);

        let dice = Mutex::new(Rng::with_seed(!seed));
        hub.behave(move |ask| {
            let mut dice = dice.lock().unwrap();
            if !is_for_bytes(ask) {
                // Lists, descriptions and redirects fail too.
                return match dice.u32(..20) {
                    0 => Fault::Status(503, vec![]),
                    _ => Fault::None,
                };
            }
            match dice.u32(..10) {
                0..=4 => Fault::CutAfter(dice.usize(..shard_len)),
                5 => Fault::CutAfter(0),
                6 => Fault::WholeFile,
                7 => Fault::Shorter(dice.usize(..shard_len)),
                _ => Fault::None,
            }
        });
        let mut num_left = 400;
        let pulled = loop {
            num_starts += 1;
            num_left -= 1;
            match registry::pull(&settings) {
                Ok(pulled) => break pulled,
                Err(Error::Hub {
                    problem: HubProblem::Network,
                    ..
                }) if num_left > 0 => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        };
        assert_whole(&pulled, &repo, cache.path());
        let asked = hub.asked();
        num_cuts += asked.iter().filter(|ask| is_for_bytes(ask)).count() - 10;
        num_resumed += asked.iter().filter(|ask| ask.range.is_some()).count();
    }
    eprintln!("{num_starts} starts, {num_cuts} requests too many, {num_resumed} for parts");
    // Otherwise nothing was tried.
    assert!(num_starts > NUM_RUNS && num_cuts > 250 && num_resumed > 80);
}
