//! The CUDA kernels against the candle backend, in an emulated execution model.
//!
//! A GPU runs the same checks where `MEDGEMMA_TEST_GPU` names one by its number.

mod attention;
mod emulator;
mod faults;
mod gemm;
mod model;
mod paged;
mod rows;
mod sampler;
mod selftest;
mod shapes;
mod test_device;
mod workbench;

use test_device::TestDevice;

/// Runs a check where kernels can be emulated, or on a GPU; says so on stderr where they cannot.
fn emulated(check: impl FnOnce(&TestDevice)) {
    if let Some(device) = TestDevice::open() {
        check(&device);
    }
}
