//! The CUDA kernels against the candle backend, in an emulated execution model.
//!
//! Every check is generic over the device, so that a card can run the same ones.

mod attention;
mod emulator;
mod faults;
mod gemm;
mod model;
mod paged;
mod rows;
mod sampler;
mod selftest;
mod workbench;

use emulator::Emulator;

/// Runs a check where kernels can be emulated; says so on stderr where they cannot.
fn emulated(check: impl FnOnce(&Emulator)) {
    if let Some(device) = Emulator::new() {
        check(&device);
    }
}
