//! Which requests are refused, with which numbers, and that nothing else is.

use crate::error::Error;

use super::*;

#[test]
fn limits_that_cannot_work_are_refused() {
    let good = SchedulerConfig::for_test();
    assert!(good.validate().is_ok());
    let bad = [
        (
            SchedulerConfig {
                max_num_seqs: 0,
                ..good
            },
            "--max-num-seqs must",
        ),
        (
            SchedulerConfig {
                max_num_batched_tokens: 7,
                ..good
            },
            "--max-num-batched-tokens 7 is less than --max-num-seqs 8",
        ),
        (
            SchedulerConfig {
                max_model_len: 1,
                ..good
            },
            "--max-model-len 1",
        ),
        (
            SchedulerConfig {
                block_size: 0,
                ..good
            },
            "KV blocks",
        ),
        (
            SchedulerConfig {
                groups: KvGroups::new(&[Some(0)]),
                ..good
            },
            "sliding window",
        ),
        (
            SchedulerConfig {
                num_blocks: BlockCount::new(&[5]),
                ..good
            },
            "5 blocks for global layers and 0 blocks for sliding layers",
        ),
    ];
    for (config, expected) in bad {
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(Scheduler::new(config).is_err());
    }
    let only_sliding = SchedulerConfig {
        groups: KvGroups::new(&[Some(8)]),
        num_blocks: BlockCount::new(&[5]),
        ..good
    };
    assert!(only_sliding.validate().is_ok());
}

#[test]
fn a_prompt_must_leave_room_for_one_token() {
    let config = SchedulerConfig {
        max_model_len: 20,
        ..SchedulerConfig::for_test()
    };
    assert!(config.check(&text(19, 100)).is_ok());
    let refused = config.check(&text(20, 1));
    assert!(matches!(
        refused,
        Err(Error::PromptTooLong {
            max_model_len: 20,
            prompt_len: 20
        })
    ));
}

#[test]
fn an_image_must_fit_in_one_step() {
    let config = SchedulerConfig::for_test();
    let largest = with_images(text(40, 1), &[(3, 16)]);
    assert!(config.check(&largest).is_ok());
    for spans in [vec![(3, 17)], vec![(3, 10), (13, 7)]] {
        let refused = config.check(&with_images(text(40, 1), &spans));
        assert!(matches!(
            refused,
            Err(Error::ImageSpanTooLong {
                needed: 17,
                budget: 16
            })
        ));
    }
}

#[test]
fn what_could_never_fit_is_refused_with_the_numbers() {
    let config = SchedulerConfig {
        num_blocks: BlockCount::new(&[10, 1000]),
        ..SchedulerConfig::for_test()
    };
    // The last token is never computed: 41 tokens need 40 slots.
    assert!(config.check(&text(30, 11)).is_ok());
    let refused = config.check(&text(30, 12));
    assert!(matches!(
        refused,
        Err(Error::NeverFits {
            needed: 11,
            total: 10
        })
    ));
    // The model's length limits what an answer can need.
    let short = SchedulerConfig {
        max_model_len: 41,
        ..config
    };
    assert!(short.check(&text(30, usize::MAX)).is_ok());
}

#[test]
fn the_sliding_group_is_asked_for_the_window_and_a_chunk_only() {
    // 7 keys before a chunk of 16, and 3 more in the block of the first: 26 positions.
    let enough = SchedulerConfig {
        num_blocks: BlockCount::new(&[1000, 7]),
        ..SchedulerConfig::for_test()
    };
    assert!(enough.check(&text(900, 50)).is_ok());
    let scarce = SchedulerConfig {
        num_blocks: BlockCount::new(&[1000, 6]),
        ..enough
    };
    assert!(scarce.check(&text(20, 5)).is_ok());
    let refused = scarce.check(&text(20, 6));
    assert!(matches!(
        refused,
        Err(Error::NeverFits {
            needed: 7,
            total: 6
        })
    ));
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    assert!(scheduler.add(SeqId(1), text(1000, 1)).is_err());
    assert!(!scheduler.has_work());
    assert!(scheduler.sequence(SeqId(1)).is_none());
    scheduler.check_integrity();
    scheduler.add(SeqId(1), text(10, 1)).unwrap();
}
