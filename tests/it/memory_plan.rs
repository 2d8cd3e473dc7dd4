//! The forecast: it holds for every named model, it fits, and it says what helps.

use medgemma::backend::{BLOCK_SIZE, DeviceMemory};
use medgemma::config::{ByteSize, Limits};
use medgemma::model::config::ModelConfig;
use medgemma::registry::{Catalog, CatalogEntry, MemoryPlan, plan};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

const LIMITS: Limits = Limits {
    max_model_len: None,
    max_num_seqs: 32,
    max_num_batched_tokens: 2048,
    kv_cache_memory: None,
    encoder_cache_memory: ByteSize(512 << 20),
    max_queued_requests: None,
};

fn config(name: &str) -> ModelConfig {
    match Catalog::open(None).unwrap().get(name) {
        Some((_, CatalogEntry::Hub(model))) => model.config.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

/// As their files store them: bf16.
fn weights(name: &str) -> u64 {
    2 * config(name).num_parameters()
}

fn plan_for(name: &str, limits: &Limits, gib: u64) -> Result<MemoryPlan, String> {
    plan(name, &config(name), weights(name), limits, host(gib * GIB)).map_err(|e| e.to_string())
}

fn host(available: u64) -> DeviceMemory {
    DeviceMemory::of_host(Some(available))
}

fn total(plan: &MemoryPlan) -> u64 {
    plan.weights + plan.workspace + plan.kv_cache
}

#[test]
fn a_small_model_gets_its_whole_context_and_all_its_sequences() {
    let plan = plan_for("gemma-3-270m", &LIMITS, 20).unwrap();
    assert_eq!(plan.scheduler.max_model_len, 32_768);
    assert_eq!(plan.scheduler.max_num_seqs, 32);
    // 32 sequences of 4096 tokens, 3 global layers; 15 sliding ones with 512 behind.
    assert_eq!(plan.scheduler.num_blocks[0], 32 * 4096 / BLOCK_SIZE);
    assert!(plan.scheduler.num_blocks[1] >= 32 * (512 / BLOCK_SIZE + 1) + 2048 / BLOCK_SIZE);
    // What it does not need it does not take.
    assert!(plan.kv_cache < 2 * GIB, "{plan}");
    // 131,072 tokens; at full length, 1024 of the global blocks each.
    let said = "(131072 tokens, 4 requests at full length)";
    assert!(plan.to_string().contains(said), "{plan}");
    // Of 4096 tokens it holds all of them: one step of 2048 is one request's or another's.
    let limits = Limits {
        max_model_len: Some(4096),
        ..LIMITS
    };
    let plan = plan_for("gemma-3-270m", &limits, 20).unwrap();
    let said = "(131072 tokens, 32 requests at full length)";
    assert!(plan.to_string().contains(said), "{plan}");
}

#[test]
fn a_context_that_does_not_fit_is_shortened() {
    let roomy = plan_for("medgemma-4b-it", &LIMITS, 64).unwrap();
    assert_eq!(roomy.scheduler.max_model_len, 131_072);
    let tight = plan_for("medgemma-4b-it", &LIMITS, 12).unwrap();
    assert!(tight.scheduler.max_model_len < 131_072);
    assert!(tight.scheduler.max_model_len >= 512);
    assert!(total(&tight) <= 12 * GIB);
    // And then it fits when it is asked for.
    let limits = Limits {
        max_model_len: Some(tight.scheduler.max_model_len),
        ..LIMITS
    };
    assert!(plan_for("medgemma-4b-it", &limits, 12).is_ok());
}

#[test]
fn what_is_short_is_said_with_numbers_and_what_helps() {
    let with = |max_model_len, kv_cache_memory: Option<u64>| Limits {
        max_model_len,
        kv_cache_memory: kv_cache_memory.map(ByteSize),
        ..LIMITS
    };
    let cases = [
        // No option helps.
        (
            "gemma-3-27b-it",
            LIMITS,
            24,
            &["51.1 GiB", "24.0 GiB are available", "smaller model"][..],
        ),
        // Weights fit, nothing else does.
        (
            "medgemma-4b-it",
            Limits {
                max_num_batched_tokens: 8192,
                ..LIMITS
            },
            9,
            &["8.0 GiB", "Lower --max-num-batched-tokens, --max-num-seqs"],
        ),
        (
            "medgemma-4b-it",
            with(Some(131_072), None),
            12,
            &["12.0 GiB are", "--max-model-len "],
        ),
        (
            "medgemma-4b-it",
            with(None, Some(30 * GIB)),
            32,
            &["30.0 GiB for its KV", "at most 2"],
        ),
        (
            "medgemma-4b-it",
            with(None, Some(GIB / 100)),
            32,
            &["--kv-cache-memory 10 MiB is too"],
        ),
        (
            "medgemma-4b-it",
            with(Some(131_072), Some(2 * GIB)),
            32,
            &[
                "131072 tokens needs",
                "--kv-cache-memory is 2.0 GiB",
                "--max-model-len ",
            ],
        ),
        (
            "gemma-3-1b-it",
            with(Some(32_769), None),
            64,
            &["32769", "context of 32768"],
        ),
    ];
    for (name, limits, gib, says) in cases {
        let message = plan_for(name, &limits, gib)
            .map(|plan| format!("taken: {plan}"))
            .unwrap_or_else(|e| e);
        for part in says {
            assert!(message.contains(part), "{name}, {gib} GiB: {message}");
        }
    }
    // What the message proposes works.
    let message = plan_for("medgemma-4b-it", &with(Some(131_072), None), 12).unwrap_err();
    let proposed = message.split("--max-model-len ").nth(1).unwrap();
    let proposed = proposed.split(' ').next().unwrap().parse().unwrap();
    assert!(plan_for("medgemma-4b-it", &with(Some(proposed), None), 12).is_ok());
    assert!(
        plan_for(
            "medgemma-4b-it",
            &with(Some(proposed + BLOCK_SIZE), None),
            12
        )
        .is_err()
    );
}

#[test]
fn a_step_must_hold_an_image() {
    let limits = Limits {
        max_num_batched_tokens: 255,
        ..LIMITS
    };
    let message = plan_for("medgemma-4b-it", &limits, 64).unwrap_err();
    assert!(
        message.contains("255 cannot hold an image, which takes 256"),
        "{message}"
    );
    assert!(plan_for("gemma-3-1b-it", &limits, 64).is_ok());
    let limits = Limits {
        max_num_batched_tokens: 16,
        ..LIMITS
    };
    let message = plan_for("gemma-3-1b-it", &limits, 64).unwrap_err();
    assert!(message.contains("--max-num-seqs 32"), "{message}");
}

#[test]
fn memory_that_was_asked_for_is_used() {
    let with = |gib: u64| Limits {
        kv_cache_memory: Some(ByteSize(gib * GIB)),
        ..LIMITS
    };
    let of = |gib| plan_for("gemma-3-270m", &with(gib), 64).unwrap().kv_cache;
    assert!(of(1) <= GIB && of(1) > GIB * 9 / 10);
    assert!(of(4) <= 4 * GIB && of(4) > 4 * GIB * 9 / 10);
    // 32 sequences of the whole context are all that could ever be used.
    assert_eq!(of(20), of(30));
}

#[test]
fn a_gpu_is_filled_with_cache_of_half_the_width() {
    let name = "medgemma-4b-it";
    let on = |place| plan(name, &config(name), weights(name), &LIMITS, place).unwrap();
    let gpu = on(DeviceMemory::of_gpu(40 * GIB));
    assert_eq!(gpu.scheduler.max_model_len, 131_072);
    assert!(total(&gpu) <= 40 * GIB);
    assert!(total(&gpu) > 36 * GIB, "{gpu}");
    let host = on(host(40 * GIB));
    let per_block = |plan: &MemoryPlan| plan.kv_cache as f64 / plan.scheduler.num_blocks[0] as f64;
    assert!(per_block(&gpu) < 0.8 * per_block(&host));
}

#[test]
fn unknown_memory_is_no_reason_to_refuse() {
    let config = config("gemma-3-1b-it");
    let plan = plan("x", &config, 0, &LIMITS, DeviceMemory::of_host(None)).unwrap();
    assert_eq!(plan.scheduler.max_model_len, 32_768);
}

proptest! {
    /// Whatever is asked for: a plan stays within the memory and holds one sequence of full
    /// length, or there is an error that names an option or the model.
    #[test]
    fn plans_fit(
        name in prop::sample::select(vec!["gemma-3-270m", "gemma-3-1b-it", "medgemma-4b-it"]),
        max_model_len in prop::option::of(1usize..140_000),
        max_num_seqs in 1usize..300,
        max_num_batched_tokens in 1usize..10_000,
        kv_cache_mib in prop::option::of(1u64..40_000),
        available_mib in 1u64..80_000,
    ) {
        let limits = Limits {
            max_model_len,
            max_num_seqs,
            max_num_batched_tokens,
            kv_cache_memory: kv_cache_mib.map(|mib| ByteSize(mib << 20)),
            ..LIMITS
        };
        let available = available_mib << 20;
        match plan(name, &config(name), weights(name), &limits, host(available)) {
            Ok(plan) => {
                prop_assert!(total(&plan) <= available);
                if let Some(kv) = limits.kv_cache_memory {
                    prop_assert!(plan.kv_cache <= kv.0);
                }
                let scheduler = plan.scheduler;
                let longest = scheduler.blocks_for(scheduler.max_model_len);
                prop_assert!(longest.fits_in(scheduler.num_blocks));
                if let Some(wanted) = max_model_len {
                    prop_assert_eq!(scheduler.max_model_len, wanted);
                }
            }
            Err(error) => {
                let message = error.to_string();
                prop_assert!(message.contains("--") || message.contains("smaller model"), "{}", message);
            }
        }
    }
}
