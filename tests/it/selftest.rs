//! The program's self test, between the two backends that every machine has.

use medgemma::backend::candle::CandleBackend;
use medgemma::backend::cpu::CpuBackend;
use medgemma::selftest::{self, Effort, Precision};

#[test]
fn the_cpu_backend_passes() {
    let mut num_checks = 0;
    let mut failed = Vec::new();
    let passed = selftest::run(
        |_| Ok(CpuBackend),
        || Ok(CandleBackend::cpu()),
        Effort::Full,
        Precision::F32,
        &mut |check| {
            num_checks += 1;
            if !check.passed() {
                failed.push(check.to_string());
            }
        },
    )
    .expect("every operation runs");
    assert!(passed && failed.is_empty(), "{}", failed.join("\n"));
    assert!(num_checks > 150, "only {num_checks} checks");
}
