//! The repository's own files with random bytes changed, cut out, doubled or put in, read as the
//! fuzz targets do (tests/fuzz): short, and without their eye for what is new.

use std::fs;
use std::path::Path;

use super::readers;

/// Mutations of each kind of file, unless the variable NUM_MUTATIONS gives another number.
const NUM_MUTATIONS: u64 = 1000;

/// What is put in.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "0",
    "-1",
    "1e308",
    "1e-308",
    "NaN",
    "null",
    "true",
    "18446744073709551615",
    "4294967296",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "\u{1}",
    "\u{e9}",
    "\u{1F600}",
    "[[[[[[[[",
    "{\"a\":",
    "{{",
    "}}",
    "{%",
    "%}",
    "{% for i in range(9999) %}",
    "{% endfor %}",
    "{% set ns = namespace(x=[]) %}",
    "{% set ns.x = ns.x + [1] %}",
    "{{ ns.x }}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(1) }}",
    " ** 9",
    " * 99999",
    " ~ ",
    " | tojson",
    " | trim",
    ".split('')",
    "[::-1]",
];

fn mutated(seed: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..40)).min(bytes.len());
        match rng.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(..=bytes.len());
                drop(bytes.splice(to..to, copy));
            }
            4 => bytes.truncate(bytes.len().min(at + 50)),
            _ => {
                let word = WORDS[rng.usize(..WORDS.len())].bytes();
                // In the place of a number as often as between.
                let digits = bytes[at..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                let replaced = if rng.bool() { digits } else { 0 };
                drop(bytes.splice(at..at + replaced, word));
            }
        }
    }
    bytes
}

fn read_mutations(files: &[&str], read: fn(&[u8])) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let seeds: Vec<Vec<u8>> = files
        .iter()
        .map(|file| {
            let mut bytes = fs::read(golden.join(file)).unwrap();
            // Tensors behind their header are of no interest.
            bytes.truncate(20_000);
            bytes
        })
        .collect();
    let wanted = std::env::var("NUM_MUTATIONS").ok();
    let num_mutations = wanted.map_or(NUM_MUTATIONS, |wanted| wanted.parse().unwrap());
    for number in 0..num_mutations {
        let mut rng = fastrand::Rng::with_seed(number);
        let seed = &seeds[rng.usize(..seeds.len())];
        let bytes = mutated(seed, &mut rng);
        let read = std::panic::catch_unwind(|| read(&bytes));
        assert!(
            read.is_ok(),
            "mutation {number}: {:.2000}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

#[test]
fn any_safetensors_file_is_read_or_refused() {
    let files = [
        "models/text1b/model.safetensors",
        "models/multimodal/model.safetensors",
    ];
    read_mutations(&files, readers::safetensors);
}

#[test]
fn any_config_is_read_or_refused() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let all = fs::read_dir(golden.join("configs")).unwrap();
    let mut all: Vec<String> = all
        .map(|entry| format!("configs/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| !name.ends_with("expected.json"))
        .collect();
    assert!(!all.is_empty());
    all.sort();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    read_mutations(&all, readers::config);
}

#[test]
fn any_small_config_is_read_or_refused() {
    let files = [
        "models/multimodal/generation_config.json",
        "models/multimodal/preprocessor_config.json",
        "models/multimodal/processor_config.json",
    ];
    read_mutations(&files, readers::small_configs);
}

#[test]
fn any_tokenizer_is_read_or_refused() {
    read_mutations(&["tokenizer/tokenizer.json"], readers::tokenizer);
}

#[test]
fn any_template_ends() {
    read_mutations(&["make/chat_template.jinja"], readers::template);
}
