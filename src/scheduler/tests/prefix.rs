//! What is found in the prefix cache, and which sequences wait for which.

use crate::core::CacheSalt;

use super::*;

fn caching() -> SchedulerConfig {
    SchedulerConfig {
        prefix_caching: PrefixCaching::On,
        ..SchedulerConfig::for_test()
    }
}

/// Runs all sequences to their end.
fn drain(scheduler: &mut Scheduler) {
    while scheduler.has_work() {
        step(scheduler);
    }
}

/// Returns the number of tokens of a request that were found after `before` had been answered.
fn found_after(before: GenerateRequest, request: GenerateRequest) -> usize {
    let mut scheduler = scheduler(caching());
    scheduler.add(SeqId(1), before).unwrap();
    drain(&mut scheduler);
    scheduler.add(SeqId(2), request).unwrap();
    let (chunks, _) = step(&mut scheduler);
    let stats = scheduler.stats();
    assert_eq!(chunks[0].1 as u64, stats.prefix_hit_tokens);
    chunks[0].1
}

#[test]
fn whole_blocks_are_found_and_the_last_token_is_always_computed() {
    // With 12 tokens, three blocks are full, and the third holds the last token.
    assert_eq!(found_after(text(12, 1), text(12, 1)), 8);
    assert_eq!(found_after(text(12, 1), text(13, 1)), 12);
    assert_eq!(found_after(text(12, 1), text(30, 1)), 12);
    assert_eq!(found_after(text(30, 1), text(12, 1)), 8);
    assert_eq!(found_after(text(3, 1), text(12, 1)), 0);
}

#[test]
fn a_follow_up_finds_the_answer_too() {
    // 10 of prompt and 6 of answer, of which the last was sampled and not computed.
    assert_eq!(found_after(text(10, 6), text(30, 1)), 12);
    assert_eq!(found_after(text(10, 7), text(30, 1)), 16);
}

#[test]
fn another_token_or_salt_is_another_prefix() {
    let mut other = text(20, 1);
    other.prompt[5] = TokenId(8);
    assert_eq!(found_after(text(20, 1), other), 4);
    let salted = |salt| {
        let mut request = text(20, 1);
        request.scheduling.cache_salt = salt;
        request
    };
    let (a, b) = (Some(CacheSalt([1; 32])), Some(CacheSalt([2; 32])));
    assert_eq!(found_after(salted(a), salted(a)), 16);
    assert_eq!(found_after(salted(a), salted(b)), 0);
    assert_eq!(found_after(salted(None), salted(a)), 0);
    assert_eq!(found_after(salted(a), salted(None)), 0);
}

/// Images of four tokens at the given places, each with what it shows.
fn images(places: &[(usize, u8)]) -> GenerateRequest {
    let spans: Vec<_> = places.iter().map(|&(start, _)| (start, 4)).collect();
    let mut request = with_images(text(30, 1), &spans);
    for (image, &(_, shows)) in request.images.iter_mut().zip(places) {
        image.pixels.hash = ImageHash([shows; 32]);
    }
    request
}

#[test]
fn images_are_part_of_the_prefix() {
    let shown = || images(&[(6, 1), (17, 2)]);
    assert_eq!(found_after(shown(), shown()), 28);
    assert_eq!(found_after(shown(), images(&[(6, 1), (17, 3)])), 16);
    assert_eq!(found_after(shown(), images(&[(6, 3), (17, 2)])), 4);
    // The same image a little later, in text of the same length.
    assert_eq!(found_after(shown(), images(&[(7, 1), (17, 2)])), 4);
}

#[test]
fn an_image_is_never_half_found() {
    // Found up to 8 by tokens and images, but the second image would be cut there.
    let shorter = || {
        let mut request = images(&[(5, 1)]);
        request.prompt.truncate(9);
        request
    };
    let mut longer = images(&[(5, 1)]);
    longer.prompt[9] = TokenId(8);
    assert_eq!(found_after(longer, shorter()), 4);
}

#[test]
fn an_image_that_touches_another_depends_on_it() {
    // Two side by side attend to each other: the first one's keys are not those it has alone.
    let one = |shows| images(&[(4, 1), (8, shows)]);
    let mut scheduler = scheduler(caching());
    for (id, shows) in [(1, 2), (2, 3), (3, 3)] {
        scheduler.add(SeqId(id), one(shows)).unwrap();
        let (chunks, _) = step(&mut scheduler);
        let expected = [0, 4, 28][id as usize - 1];
        assert_eq!(chunks[0].1, expected, "{id}");
        drain(&mut scheduler);
    }
}

#[test]
fn the_sliding_group_needs_the_last_window_only() {
    // 40 tokens: the next query at 40 sees 33..=40, in blocks 8 and 9. Others had long been
    // released when those were filled, and given to others when 30 of the pool's 11 were asked for.
    let config = SchedulerConfig {
        num_blocks: BlockCount::new(&[100, 11]),
        ..caching()
    };
    let mut scheduler = scheduler(config);
    scheduler.add(SeqId(1), text(41, 1)).unwrap();
    drain(&mut scheduler);
    scheduler.add(SeqId(2), text(60, 1)).unwrap();
    assert_eq!(step(&mut scheduler).0, [(2, 40, 16)]);
    let table = &scheduler.sequence(SeqId(2)).unwrap().tables()[1];
    // After 56 tokens the next query sees 49..=56.
    assert_eq!(table.num_released(), 12);
    drain(&mut scheduler);

    // Another prompt takes the blocks that were free for the longest: here the window at 40.
    let mut other = text(33, 1);
    other.prompt[0] = TokenId(8);
    scheduler.add(SeqId(3), other).unwrap();
    drain(&mut scheduler);
    let mut shorter = text(44, 1);
    shorter.prompt[42] = TokenId(8);
    scheduler.add(SeqId(4), shorter).unwrap();
    let (chunks, _) = step(&mut scheduler);
    assert_eq!(chunks[0].1, 0, "global blocks alone are not enough");
}

#[test]
fn a_cached_block_is_given_away_after_blank_ones_and_a_sequences_end_first() {
    let config = SchedulerConfig {
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[8]),
        ..caching()
    };
    let mut scheduler = scheduler(config);
    let other = |first, len| {
        let mut request = text(len, 1);
        request.prompt[0] = TokenId(first);
        request
    };
    scheduler.add(SeqId(1), text(16, 1)).unwrap();
    drain(&mut scheduler);
    assert_eq!(scheduler.stats().num_cached_blocks[0], 4);
    assert_eq!(scheduler.kv_usage(), 0.0);
    // Four blank blocks are enough.
    scheduler.add(SeqId(2), other(8, 14)).unwrap();
    drain(&mut scheduler);
    assert_eq!(scheduler.stats().num_cached_blocks[0], 7);
    // One blank, then the last two of the first one.
    scheduler.add(SeqId(3), other(9, 12)).unwrap();
    drain(&mut scheduler);
    scheduler.add(SeqId(4), text(16, 1)).unwrap();
    assert_eq!(step(&mut scheduler).0, [(4, 8, 8)]);
}

#[test]
fn without_caching_nothing_is_found_nor_kept() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    for id in 1..=2 {
        scheduler.add(SeqId(id), text(12, 1)).unwrap();
        assert_eq!(step(&mut scheduler).0, [(id, 0, 12)]);
    }
    let stats = scheduler.stats();
    assert_eq!(
        (stats.prefix_queried_tokens, stats.prefix_hit_tokens),
        (0, 0)
    );
    assert_eq!(stats.num_cached_blocks, BlockCount::default());
}

#[test]
fn of_ten_at_once_one_computes_the_prompt_and_the_others_wait_for_it() {
    let config = SchedulerConfig {
        max_num_seqs: 10,
        ..caching()
    };
    let mut scheduler = scheduler(config);
    for id in 1..=10 {
        scheduler.add(SeqId(id), text(40, 3)).unwrap();
    }
    let mut other = text(3, 3);
    other.prompt[0] = TokenId(8);
    scheduler.add(SeqId(11), other).unwrap();
    assert_eq!(step(&mut scheduler).0, [(1, 0, 16)]);
    assert_eq!((scheduler.num_running(), scheduler.num_waiting()), (1, 10));
    assert_eq!(step(&mut scheduler).0, [(1, 16, 16)]);
    // It is not delayed by those that wait.
    assert_eq!(step(&mut scheduler).0, [(1, 32, 8), (11, 0, 3)]);
    // 36 tokens are full blocks before the last token.
    let (chunks, _) = step(&mut scheduler);
    assert_eq!(chunks[..3], [(1, 40, 1), (11, 3, 1), (2, 36, 4)]);
    drain(&mut scheduler);
    let stats = scheduler.stats();
    assert_eq!(stats.prefix_queried_tokens, 403);
    assert_eq!(stats.prefix_hit_tokens, 9 * 36);
}

#[test]
fn when_the_one_that_computes_goes_the_next_takes_over() {
    let mut scheduler = scheduler(caching());
    for id in 1..=3 {
        scheduler.add(SeqId(id), text(40, 3)).unwrap();
    }
    step(&mut scheduler);
    scheduler.abort(SeqId(1));
    scheduler.check_integrity();
    // It begins with what the first one has left behind.
    assert_eq!(step(&mut scheduler).0, [(2, 16, 16)]);
    assert!(scheduler.abort(SeqId(3)), "deferred");
    scheduler.check_integrity();
    drain(&mut scheduler);
}

#[test]
fn nobody_waits_for_a_sequence_of_a_worse_priority() {
    let mut scheduler = scheduler(SchedulerConfig {
        max_num_batched_tokens: 32,
        ..caching()
    });
    scheduler.add(SeqId(1), text(100, 3)).unwrap();
    step(&mut scheduler);
    let mut urgent = text(100, 3);
    urgent.scheduling.priority = -1;
    scheduler.add(SeqId(2), urgent).unwrap();
    step(&mut scheduler);
    assert_eq!(scheduler.num_running(), 2);
}

#[test]
fn what_was_preempted_finds_its_blocks() {
    let config = SchedulerConfig {
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[6]),
        ..caching()
    };
    let mut scheduler = scheduler(config);
    let mut other = text(7, 16);
    other.prompt[0] = TokenId(8);
    scheduler.add(SeqId(1), text(7, 7)).unwrap();
    scheduler.add(SeqId(2), other).unwrap();
    let mut again = None;
    while scheduler.has_work() {
        let num_preemptions = scheduler.stats().num_preemptions;
        let (chunks, _) = step(&mut scheduler);
        if num_preemptions == 1 {
            again = again.or(chunks.iter().find(|chunk| chunk.0 == 2).copied());
        }
    }
    // It had 12 tokens in three blocks, one of which the other one took.
    assert_eq!(again, Some((2, 8, 5)));
    assert_eq!(scheduler.stats().num_preemptions, 1);
}

#[test]
fn a_waiting_request_costs_little_until_its_turn_comes() {
    assert!(size_of::<Sequence>() <= 640, "{}", size_of::<Sequence>());
    let mut scheduler = scheduler(SchedulerConfig {
        max_num_seqs: 2,
        ..caching()
    });
    for id in 0..50 {
        let mut request = text(100, 3);
        request.prompt[0] = TokenId(id as u32 + 10);
        scheduler.add(SeqId(id), request).unwrap();
    }
    steps(&mut scheduler, 3);
    let hashed = (0..50).filter(|&id| !scheduler.sequence(SeqId(id)).unwrap().hashes().is_empty());
    assert!(
        hashed.count() <= 3,
        "hashes of sequences far from their turn"
    );
}

#[test]
fn an_image_is_computed_when_what_left_it_no_room_was_preempted_in_vain() {
    let mut scheduler = scheduler(SchedulerConfig {
        max_num_seqs: 4,
        max_num_batched_tokens: 7,
        block_size: 1,
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[14]),
        ..caching()
    });
    let of = |priority, request: GenerateRequest| GenerateRequest {
        scheduling: SchedulingParams {
            priority,
            ..request.scheduling
        },
        ..request
    };
    scheduler.add(SeqId(1), of(5, text(4, 9))).unwrap();
    step(&mut scheduler);
    // It begins like the first, whose next token leaves no budget for an image as long as the
    // budget.
    let image = with_images(text(11, 1), &[(3, 7)]);
    scheduler.add(SeqId(2), of(0, image)).unwrap();
    // Would fit if the two shared nothing.
    let mut other = of(0, text(5, 1));
    other.scheduling.cache_salt = Some(CacheSalt([1; 32]));
    scheduler.add(SeqId(3), other).unwrap();
    let (chunks, _) = step(&mut scheduler);
    assert_eq!(chunks, [(2, 3, 7)]);
    assert_eq!(scheduler.stats().num_preemptions, 1);
    drain(&mut scheduler);
}
