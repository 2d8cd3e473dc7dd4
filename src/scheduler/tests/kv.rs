//! Blocks: how many are needed, where positions lie in them, and in which order they are reused.

use crate::core::BlockId;

use super::*;

/// The most blocks that any chunk of at most `max_chunk` tokens touches, tried one by one.
pub(super) fn most_touched(
    window: usize,
    num_tokens: usize,
    max_chunk: usize,
    block_size: usize,
) -> usize {
    let mut most = 0;
    for start in 0..num_tokens {
        for end in start + 1..=num_tokens.min(start + max_chunk) {
            let first_seen = (start + 1).saturating_sub(window);
            most = most.max((end - 1) / block_size - first_seen / block_size + 1);
        }
    }
    most
}

#[test]
fn the_blocks_foreseen_are_those_of_the_worst_chunk() {
    for block_size in 1..=5 {
        for window in 1..=9 {
            for max_chunk in 1..=9 {
                for num_tokens in 1..=40 {
                    let groups = KvGroups::new(&[None, Some(window)]);
                    let foreseen = groups.blocks_for(num_tokens, max_chunk, block_size);
                    let worst = most_touched(window, num_tokens, max_chunk, block_size);
                    assert_eq!(
                        foreseen[1], worst,
                        "window {window}, {num_tokens} tokens in chunks of {max_chunk}, blocks of \
                         {block_size}"
                    );
                    assert_eq!(foreseen[0], num_tokens.div_ceil(block_size));
                }
            }
        }
    }
}

#[test]
fn a_group_that_the_model_lacks_needs_nothing() {
    let global = KvGroups::new(&[None]).blocks_for(100, 16, 32);
    assert_eq!((global[0], global[1]), (4, 0));
    let sliding = KvGroups::new(&[Some(10)]).blocks_for(100, 1, 32);
    assert_eq!((sliding[0], sliding[1]), (2, 0));
}

/// Gemma 3 4B at its full length, with figures worked out by hand: 131072 / 32, and 1024 keys
/// that begin anywhere in a block.
#[test]
fn gemma_at_full_length() {
    let groups = KvGroups::new(&[None, Some(1024)]);
    let decoding = groups.blocks_for(131_072, 1, 32);
    assert_eq!((decoding[0], decoding[1]), (4096, 33));
    let reading = groups.blocks_for(131_072, 2048, 32);
    assert_eq!((reading[0], reading[1]), (4096, 97));
}

#[test]
fn positions_are_found_until_the_window_has_passed_them() {
    let config = SchedulerConfig {
        groups: KvGroups::new(&[None, Some(6)]),
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = scheduler(config);
    scheduler.add(SeqId(1), text(9, 50)).unwrap();
    step(&mut scheduler);
    // Position 9 sees 4..=9: block 0 is freed.
    let seq = scheduler.sequence(SeqId(1)).unwrap();
    let table = &seq.tables()[1];
    assert_eq!(table.num_released(), 1);
    assert_eq!(table.blocks(), [BlockId(1), BlockId(2)]);
    assert_eq!((table.first_position(), table.end_position()), (4, 12));
    assert_eq!(table.slot(3), None);
    assert_eq!(table.slot(4), Some((BlockId(1), 0)));
    assert_eq!(table.slot(11), Some((BlockId(2), 3)));
    assert_eq!(table.slot(12), None);
    let global = &seq.tables()[0];
    assert_eq!(global.blocks(), [BlockId(0), BlockId(1), BlockId(2)]);
    assert_eq!(global.slot(3), Some((BlockId(0), 3)));

    // Position 12 sees 7..=12, and position 13 sees 8..=13.
    steps(&mut scheduler, 3);
    let released = |s: &Scheduler| s.sequence(SeqId(1)).unwrap().tables()[1].num_released();
    assert_eq!(released(&scheduler), 1);
    step(&mut scheduler);
    assert_eq!(released(&scheduler), 2);
}

#[test]
fn blocks_come_back_in_the_order_of_their_freeing_and_a_sequences_end_first() {
    let config = SchedulerConfig {
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[5]),
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = scheduler(config);
    scheduler.add(SeqId(1), text(12, 1)).unwrap();
    step(&mut scheduler);
    // 3 and 4 have never been used, then 1's blocks, its last one first.
    scheduler.add(SeqId(2), text(15, 5)).unwrap();
    step(&mut scheduler);
    let held = scheduler.sequence(SeqId(2)).unwrap().tables()[0].blocks();
    assert_eq!(held, [BlockId(3), BlockId(4), BlockId(2), BlockId(1)]);
}

#[test]
fn usage_is_that_of_the_fuller_group() {
    let config = SchedulerConfig {
        num_blocks: BlockCount::new(&[20, 10]),
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = scheduler(config);
    assert_eq!(scheduler.kv_usage(), 0.0);
    scheduler.add(SeqId(1), text(60, 5)).unwrap();
    step(&mut scheduler);
    // Four blocks in each group, less those that the window has left: position 16 sees 9..=16.
    assert_eq!(scheduler.kv_usage(), 0.2);
    steps(&mut scheduler, 3);
    assert_eq!(scheduler.kv_usage(), 0.75);
}
