//! Steps that are planned while another one is in flight.

use super::*;

fn stopping(prompt_len: usize, max_tokens: usize) -> GenerateRequest {
    let mut request = text(prompt_len, max_tokens);
    request.sampling.stop_token_ids = vec![STOP];
    request
}

/// Returns a chunk as `(sequence, start, fed)`.
fn fed(batch: &Batch) -> Vec<(u64, usize, Option<usize>)> {
    let chunks = batch.chunks.iter();
    chunks
        .map(|c| (c.seq.0, c.start, c.sampled_input))
        .collect()
}

#[test]
fn a_decode_goes_on_with_the_token_that_the_device_has() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(20, 3)).unwrap();
    scheduler.add(SeqId(2), text(3, 3)).unwrap();
    let first = scheduler.schedule();
    assert_eq!(fed(&first), [(1, 0, None)]);
    // The rest of the prompt does not wait for its beginning.
    let second = scheduler.schedule();
    assert_eq!(fed(&second), [(1, 16, None), (2, 0, None)]);
    scheduler.update(&first, &[]);
    let third = scheduler.schedule();
    assert_eq!(fed(&third), [(1, 20, Some(0)), (2, 3, Some(1))]);
    let generated = |s: &Scheduler| s.sequence(SeqId(2)).unwrap().num_generated_tokens();
    assert_eq!(generated(&scheduler), 1);
    scheduler.update(&second, &words(&second));
    assert_eq!(generated(&scheduler), 1);
    scheduler.check_integrity();
    let fourth = scheduler.schedule();
    assert_eq!(fed(&fourth), [(1, 21, Some(0)), (2, 4, Some(1))]);
    assert_eq!(generated(&scheduler), 2);
    scheduler.update(&third, &words(&third));
    // The third token is the last and needs no step of its own.
    assert!(scheduler.has_work());
    assert!(scheduler.schedule().is_empty());
    let finished = scheduler.update(&fourth, &words(&fourth));
    let length = FinishReason::Length;
    assert_eq!(ends(&finished), [(SeqId(1), length), (SeqId(2), length)]);
    assert!(!scheduler.has_work());
    scheduler.check_integrity();
}

#[test]
fn a_fed_token_is_found_by_the_draws_of_the_batch_before() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    for id in 1..=4 {
        scheduler.add(SeqId(id), text(2, 9)).unwrap();
    }
    let first = scheduler.schedule();
    scheduler.abort(SeqId(2));
    let second = scheduler.schedule();
    let expected = [(1, 2, Some(0)), (3, 2, Some(2)), (4, 2, Some(3))];
    assert_eq!(fed(&second), expected);
    scheduler.update(&first, &words(&first));
    let third = scheduler.schedule();
    let expected = [(1, 3, Some(0)), (3, 3, Some(1)), (4, 3, Some(2))];
    assert_eq!(fed(&third), expected);
}

#[test]
fn a_stop_token_leaves_a_stale_chunk_that_nobody_misses() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    let all = scheduler.num_free_blocks();
    scheduler.add(SeqId(1), stopping(4, 50)).unwrap();
    let first = scheduler.schedule();
    let second = scheduler.schedule();
    let finished = scheduler.update(&first, &[(SeqId(1), &[STOP])]);
    assert_eq!(ends(&finished), [(SeqId(1), FinishReason::Stop)]);
    assert_eq!(scheduler.num_free_blocks(), all);
    assert!(!scheduler.has_work());
    scheduler.add(SeqId(2), text(4, 2)).unwrap();
    let third = scheduler.schedule();
    assert_eq!(fed(&third), [(2, 0, None)]);
    assert_eq!(scheduler.update(&second, &words(&second)), []);
    scheduler.update(&third, &words(&third));
    let seq = scheduler.sequence(SeqId(2)).unwrap();
    assert_eq!(seq.num_generated_tokens(), 1);
    scheduler.check_integrity();
}

#[test]
fn a_preempted_sequence_keeps_the_token_that_is_being_sampled() {
    for (sampled, ends) in [(WORD, false), (STOP, true)] {
        let mut scheduler = scheduler(SchedulerConfig {
            max_num_seqs: 1,
            ..SchedulerConfig::for_test()
        });
        scheduler.add(SeqId(1), stopping(4, 50)).unwrap();
        let first = scheduler.schedule();
        let mut urgent = text(3, 1);
        urgent.scheduling.priority = -1;
        scheduler.add(SeqId(2), urgent).unwrap();
        let second = scheduler.schedule();
        assert_eq!(second.preempted, [SeqId(1)]);
        assert_eq!(fed(&second), [(2, 0, None)]);
        scheduler.check_integrity();
        let finished = scheduler.update(&first, &[(SeqId(1), &[sampled])]);
        assert_eq!(finished.len(), usize::from(ends));
        scheduler.check_integrity();
        scheduler.update(&second, &words(&second));
        if !ends {
            // Prompt and token are computed again.
            assert_eq!(step(&mut scheduler).0, [(1, 0, 5)]);
        }
        assert_eq!(scheduler.has_work(), !ends);
    }
}

#[test]
fn nothing_is_planned_behind_a_skipped_sample() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(4, 50)).unwrap();
    let first = scheduler.schedule();
    scheduler.hold(SeqId(1));
    scheduler.skip_sample(SeqId(1));
    // Its mask arrives before the step has ended.
    scheduler.release(SeqId(1));
    assert!(scheduler.schedule().is_empty());
    scheduler.update(&first, &[(SeqId(1), &[])]);
    scheduler.check_integrity();
    assert_eq!(step(&mut scheduler).0, [(1, 3, 1)]);
    assert_eq!(step(&mut scheduler).0, [(1, 4, 1)]);
}

#[test]
fn decodes_get_their_tokens_while_a_long_prompt_is_read() {
    let config = SchedulerConfig {
        max_model_len: 131_072,
        max_num_batched_tokens: 512,
        block_size: 32,
        groups: KvGroups::new(&[None, Some(1024)]),
        num_blocks: BlockCount::new(&[5000, 300]),
        ..SchedulerConfig::for_test()
    };
    for depth in [0, 1] {
        let mut scheduler = scheduler(config);
        for id in 1..=3 {
            scheduler.add(SeqId(id), text(10, 2000)).unwrap();
        }
        step(&mut scheduler);
        // Adjacent images as long as the budget are the worst case.
        let spans: Vec<_> = (0..200).map(|idx| (idx * 600, 512)).collect();
        let study = with_images(text(128_000, 2), &spans);
        scheduler.add(SeqId(9), study).unwrap();
        let mut in_flight = std::collections::VecDeque::new();
        let mut left_out = [0; 4];
        while scheduler
            .sequence(SeqId(9))
            .is_some_and(|seq| seq.num_generated_tokens() == 0)
        {
            let batch = scheduler.schedule();
            for id in 1..=3 {
                let is_in = batch.chunks.iter().any(|chunk| chunk.seq == SeqId(id));
                let count = &mut left_out[id as usize];
                *count = if is_in { 0 } else { *count + 1 };
                assert!(*count <= 1, "{id} was left out twice, {depth} ahead");
            }
            in_flight.push_back(batch);
            while in_flight.len() > depth {
                let oldest: Batch = in_flight.pop_front().unwrap();
                scheduler.update(&oldest, &words(&oldest));
            }
        }
        let held = scheduler.num_free_blocks()[1];
        assert!(held >= 300 - 4 * (32 + 2 * 16 + 2), "{held} free");
        assert_eq!(scheduler.stats().num_preemptions, 0);
    }
}

#[test]
#[should_panic(expected = "in the order in which they were scheduled")]
fn batches_are_taken_in_in_order() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(2, 5)).unwrap();
    scheduler.schedule();
    scheduler.add(SeqId(2), text(2, 5)).unwrap();
    let second = scheduler.schedule();
    scheduler.update(&second, &words(&second));
}

#[test]
fn a_failed_step_leaves_nothing_in_the_cache() {
    let mut scheduler = scheduler(SchedulerConfig {
        prefix_caching: PrefixCaching::On,
        ..SchedulerConfig::for_test()
    });
    scheduler.add(SeqId(1), text(16, 5)).unwrap();
    let failed = scheduler.schedule();
    scheduler.abort(SeqId(1));
    assert_eq!(scheduler.update(&failed, &[]), []);
    scheduler.add(SeqId(2), text(16, 5)).unwrap();
    assert_eq!(step(&mut scheduler).0, [(2, 0, 16)]);
}
