//! `medgemma selftest` on the emulated GPU: what the command checks on a real one.

use medgemma::selftest::{self, Effort};

use super::emulated;

/// As the emulator divides work: few, so that blocks have several tiles.
const NUM_MULTIPROCESSORS: u32 = 3;

#[test]
fn the_emulated_gpu_passes() {
    emulated(|device| {
        let mut num_checks = 0;
        let mut failed = Vec::new();
        let tell = &mut |check: &selftest::Check| {
            num_checks += 1;
            if !check.passed() {
                failed.push(check.to_string());
            }
        };
        let passed = selftest::on_device(device, NUM_MULTIPROCESSORS, Effort::Brief, tell)
            .expect("every operation runs");
        assert!(passed, "{}", failed.join("\n"));
        assert!(num_checks > 40, "only {num_checks} checks");
    });
}
