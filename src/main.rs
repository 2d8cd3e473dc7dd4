//! The `medgemma` binary.
fn main() {}
