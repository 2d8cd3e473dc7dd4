#![no_main]

#[path = "../../it/damaged_checkpoints/readers.rs"]
#[allow(dead_code)]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::config(bytes));
