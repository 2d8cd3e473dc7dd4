//! What single steps compute, in cases small enough to work out by hand.

use super::*;

#[test]
fn a_prompt_is_read_in_chunks_and_then_decoded_token_by_token() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(40, 3)).unwrap();
    let expected = [vec![(1, 0, 16)], vec![(1, 16, 16)], vec![(1, 32, 8)]];
    assert_eq!(steps(&mut scheduler, 3), expected);
    let seq = scheduler.sequence(SeqId(1)).unwrap();
    assert_eq!(seq.num_generated_tokens(), 1);
    assert_eq!(step(&mut scheduler), (vec![(1, 40, 1)], vec![]));
    let last = step(&mut scheduler);
    assert_eq!(
        last,
        (vec![(1, 41, 1)], vec![(SeqId(1), FinishReason::Length)])
    );
    assert!(!scheduler.has_work());
    assert!(scheduler.schedule().is_empty());
    assert_eq!(scheduler.num_free_blocks(), scheduler.config().num_blocks);
}

#[test]
fn only_the_chunk_that_reaches_the_last_token_samples() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(17, 1)).unwrap();
    let first = scheduler.schedule();
    assert_eq!(first.chunks[0].num_samples, 0);
    scheduler.update(&first, &[]);
    let second = scheduler.schedule();
    assert_eq!(second.chunks[0].num_samples, 1);
    assert_eq!((second.chunks[0].start, second.chunks[0].end()), (16, 17));
}

#[test]
fn a_long_prompt_gets_what_decodes_leave() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(3, 50)).unwrap();
    scheduler.add(SeqId(2), text(3, 50)).unwrap();
    step(&mut scheduler);
    scheduler.add(SeqId(3), text(100, 50)).unwrap();
    for start in [0, 14, 28] {
        let (chunks, _) = step(&mut scheduler);
        assert_eq!(chunks[2], (3, start, 14));
        assert_eq!((chunks[0].2, chunks[1].2), (1, 1));
    }
}

#[test]
fn a_decode_goes_before_an_older_prompt_that_takes_the_whole_budget() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    // The older one's image leaves budget for the newer one, which is then ahead of it.
    let long = with_images(text(100, 5), &[(6, 16)]);
    scheduler.add(SeqId(1), long).unwrap();
    scheduler.add(SeqId(2), text(5, 50)).unwrap();
    let expected = [
        vec![(1, 0, 6), (2, 0, 5)],
        // The image does not fit beside the decode …
        vec![(2, 5, 1)],
        // … so it goes first in the next step, once.
        vec![(1, 6, 16)],
        vec![(1, 22, 15), (2, 6, 1)],
        vec![(1, 37, 15), (2, 7, 1)],
    ];
    assert_eq!(steps(&mut scheduler, 5), expected);
}

#[test]
fn images_as_large_as_the_budget_take_turns_with_decodes() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(5, 50)).unwrap();
    step(&mut scheduler);
    let album = with_images(text(40, 5), &[(0, 16), (17, 16)]);
    scheduler.add(SeqId(2), album).unwrap();
    let expected = [
        vec![(1, 5, 1)],
        vec![(2, 0, 16)],
        vec![(1, 6, 1), (2, 16, 1)],
        // Found not to fit beside the decode only now: the step before ended right before it.
        vec![(1, 7, 1)],
        vec![(2, 17, 16)],
        vec![(1, 8, 1), (2, 33, 7)],
    ];
    assert_eq!(steps(&mut scheduler, 6), expected);
}

#[test]
fn of_two_images_that_do_not_fit_the_older_goes_first() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(5, 50)).unwrap();
    step(&mut scheduler);
    for id in [2, 3] {
        let scan = with_images(text(20, 5), &[(0, 16)]);
        scheduler.add(SeqId(id), scan).unwrap();
    }
    let expected = [
        vec![(1, 5, 1)],
        vec![(2, 0, 16)],
        vec![(1, 6, 1), (2, 16, 4)],
        vec![(3, 0, 16)],
        vec![(1, 7, 1), (2, 20, 1), (3, 16, 4)],
    ];
    assert_eq!(steps(&mut scheduler, 5), expected);
}

#[test]
fn a_chunk_stops_before_an_image_that_does_not_fit() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    let request = with_images(text(40, 1), &[(2, 8), (12, 8), (25, 12)]);
    scheduler.add(SeqId(1), request).unwrap();
    let expected = [vec![(1, 0, 12)], vec![(1, 12, 13)], vec![(1, 25, 15)]];
    assert_eq!(steps(&mut scheduler, 3), expected);
}

#[test]
fn images_without_a_token_between_them_are_computed_together() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    let request = with_images(text(20, 1), &[(4, 7), (11, 7)]);
    scheduler.add(SeqId(1), request).unwrap();
    let expected = [vec![(1, 0, 4)], vec![(1, 4, 16)]];
    assert_eq!(steps(&mut scheduler, 2), expected);
}

#[test]
fn a_chunk_knows_its_images() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    let request = with_images(text(40, 1), &[(2, 8), (12, 8), (25, 12)]);
    scheduler.add(SeqId(1), request).unwrap();
    let seq = scheduler.sequence(SeqId(1)).unwrap();
    let starts = |positions| -> Vec<usize> {
        let images = seq.images_in(positions).iter();
        images.map(|image| image.start).collect()
    };
    assert_eq!(starts(0..12), [2]);
    assert_eq!(starts(12..25), [12]);
    assert_eq!(starts(0..40), [2, 12, 25]);
    assert!(starts(37..40).is_empty());
}

#[test]
fn no_more_sequences_run_than_may() {
    let config = SchedulerConfig {
        max_num_seqs: 2,
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = scheduler(config);
    for id in 1..=3 {
        scheduler.add(SeqId(id), text(2, 2)).unwrap();
    }
    assert_eq!(step(&mut scheduler).0, [(1, 0, 2), (2, 0, 2)]);
    assert_eq!((scheduler.num_running(), scheduler.num_waiting()), (2, 1));
    assert_eq!(step(&mut scheduler).1.len(), 2);
    assert_eq!(step(&mut scheduler).0, [(3, 0, 2)]);
}

#[test]
fn who_came_first_is_admitted_first_even_if_a_later_one_would_fit() {
    let config = SchedulerConfig {
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[10]),
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = scheduler(config);
    scheduler.add(SeqId(1), text(16, 9)).unwrap();
    scheduler.add(SeqId(2), text(30, 1)).unwrap();
    scheduler.add(SeqId(3), text(1, 1)).unwrap();
    assert_eq!(step(&mut scheduler).0, [(1, 0, 16)]);
    // Four blocks are held and one is claimed; the second one needs eight.
    assert_eq!(step(&mut scheduler).0, [(1, 16, 1)]);
    assert_eq!((scheduler.num_running(), scheduler.num_waiting()), (1, 2));
}

/// A model with global layers only and a pool of `num_blocks` blocks of four tokens.
fn with_blocks(num_blocks: usize) -> Scheduler {
    scheduler(SchedulerConfig {
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[num_blocks]),
        ..SchedulerConfig::for_test()
    })
}

#[test]
fn the_newest_gives_way_and_is_computed_again_with_what_it_had_said() {
    let mut scheduler = with_blocks(6);
    scheduler.add(SeqId(1), text(7, 16)).unwrap();
    scheduler.add(SeqId(2), text(7, 16)).unwrap();
    assert_eq!(step(&mut scheduler).0, [(1, 0, 7), (2, 0, 7)]);
    // Both decode until each holds three blocks, full at 12 tokens.
    for position in 7..12 {
        assert_eq!(step(&mut scheduler).0, [(1, position, 1), (2, position, 1)]);
    }
    let batch = scheduler.schedule();
    assert_eq!(batch.preempted, [SeqId(2)]);
    assert_eq!(chunks(&batch), [(1, 12, 1)]);
    scheduler.update(&batch, &words(&batch));
    let seq = scheduler.sequence(SeqId(2)).unwrap();
    assert_eq!((seq.tokens().len(), seq.num_computed_tokens()), (13, 0));
    assert_eq!(seq.num_generated_tokens(), 6);

    // It waits, in front of one that came later, until the older one is done.
    scheduler.add(SeqId(3), text(1, 1)).unwrap();
    for position in 13..21 {
        assert_eq!(step(&mut scheduler).0, [(1, position, 1)]);
    }
    let (chunks, finished) = step(&mut scheduler);
    assert_eq!(chunks, [(1, 21, 1)]);
    assert_eq!(finished, [(SeqId(1), FinishReason::Length)]);
    assert_eq!(step(&mut scheduler).0, [(2, 0, 13), (3, 0, 1)]);
}

#[test]
fn the_newest_sits_out_when_it_is_the_one_that_asks() {
    let mut scheduler = with_blocks(6);
    scheduler.add(SeqId(1), text(5, 8)).unwrap();
    scheduler.add(SeqId(2), text(7, 16)).unwrap();
    assert_eq!(step(&mut scheduler).0, [(1, 0, 5), (2, 0, 7)]);
    for (older, newer) in (5..10).zip(7..) {
        assert_eq!(step(&mut scheduler).0, [(1, older, 1), (2, newer, 1)]);
    }
    // Three blocks each. The newer one needs a fourth and has none to take it from; a sequence that
    // came later must not get it either.
    scheduler.add(SeqId(3), text(1, 1)).unwrap();
    assert_eq!(steps(&mut scheduler, 2), [[(1, 10, 1)], [(1, 11, 1)]]);
    // The older one has ended: nothing is computed twice.
    assert_eq!(step(&mut scheduler).0, [(2, 12, 1), (3, 0, 1)]);
}

#[test]
fn a_prompt_takes_its_blocks_from_newer_sequences_even_when_those_have_been_scheduled() {
    let mut scheduler = with_blocks(94);
    // Images delay the older ones at first, so that the newest decodes beside them.
    let oldest = with_images(text(325, 4), &[(4, 16)]);
    scheduler.add(SeqId(1), oldest).unwrap();
    let second = with_images(text(30, 4), &[(3, 10)]);
    scheduler.add(SeqId(2), second).unwrap();
    scheduler.add(SeqId(3), text(8, 50)).unwrap();
    let expected = [
        vec![(1, 0, 4), (2, 0, 3), (3, 0, 8)],
        vec![(2, 3, 15), (3, 8, 1)],
        vec![(1, 4, 16)],
    ];
    assert_eq!(steps(&mut scheduler, 3), expected);
    for (prompt, answer) in (20..320).step_by(15).zip(9..) {
        assert_eq!(step(&mut scheduler).0, [(1, prompt, 15), (3, answer, 1)]);
    }
    // 80, 5 and 8 blocks are held. The decode is planned first, then the oldest asks for two
    // more, and then the second gets what is left of the budget, the decode's token included.
    assert_eq!(scheduler.num_free_blocks()[0], 1);
    let batch = scheduler.schedule();
    scheduler.check_integrity();
    assert_eq!(chunks(&batch), [(1, 320, 5), (2, 18, 11)]);
    assert_eq!(batch.preempted, [SeqId(3)]);
}

#[test]
fn waiting_prompts_are_not_admitted_into_blocks_that_others_will_need() {
    let mut scheduler = with_blocks(12);
    scheduler.add(SeqId(1), text(36, 4)).unwrap();
    scheduler.add(SeqId(2), text(8, 4)).unwrap();
    // After its first chunk the older one holds four blocks of ten that it will hold.
    let expected = [
        vec![(1, 0, 16)],
        vec![(1, 16, 16)],
        vec![(1, 32, 4)],
        vec![(1, 36, 1)],
        vec![(1, 37, 1)],
        vec![(1, 38, 1)],
        vec![(2, 0, 8)],
    ];
    assert_eq!(steps(&mut scheduler, 7), expected);
}

#[test]
fn an_image_is_whole_when_it_is_computed_again() {
    let mut scheduler = with_blocks(9);
    scheduler.add(SeqId(1), text(8, 20)).unwrap();
    let scan = with_images(text(20, 8), &[(10, 8)]);
    scheduler.add(SeqId(2), scan).unwrap();
    let mut seen = Vec::new();
    while scheduler.has_work() {
        let (chunks, _) = step(&mut scheduler);
        seen.extend(
            chunks
                .into_iter()
                .filter(|&(id, _, len)| id == 2 && len > 1),
        );
    }
    // First beside the other's prompt, then alone and with its generated tokens.
    assert_eq!(seen, [(2, 0, 8), (2, 8, 12), (2, 0, 10), (2, 10, 14)]);
}

#[test]
fn abort_frees_at_once_wherever_the_sequence_is() {
    let config = SchedulerConfig {
        max_num_seqs: 2,
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = scheduler(config);
    let all = scheduler.num_free_blocks();
    for id in 1..=3 {
        scheduler.add(SeqId(id), text(6, 5)).unwrap();
    }
    step(&mut scheduler);
    assert!(scheduler.abort(SeqId(3)), "waits");
    assert!(scheduler.abort(SeqId(2)), "runs");
    scheduler.check_integrity();
    let batch = scheduler.schedule();
    assert!(scheduler.abort(SeqId(1)), "is being computed");
    assert_eq!(scheduler.num_free_blocks(), all);
    assert_eq!(scheduler.update(&batch, &words(&batch)), []);
    assert!(!scheduler.abort(SeqId(1)), "is gone");
    assert!(scheduler.sequence(SeqId(1)).is_none());
    assert!(!scheduler.has_work());
    scheduler.check_integrity();
}

#[test]
fn neighbours_of_an_aborted_sequence_get_their_own_tokens() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    for id in 1..=3 {
        scheduler.add(SeqId(id), text(2, 5)).unwrap();
    }
    let batch = scheduler.schedule();
    scheduler.abort(SeqId(2));
    let tokens = [101, 102, 103].map(TokenId);
    let ids = [1, 2, 3].map(SeqId);
    let sampled: Vec<_> = ids.into_iter().zip(tokens.chunks(1)).collect();
    scheduler.update(&batch, &sampled);
    for id in [1, 3] {
        let seq = scheduler.sequence(SeqId(id)).unwrap();
        assert_eq!(seq.tokens().last(), Some(&TokenId(100 + id as u32)));
    }
}

#[test]
#[should_panic(expected = "each chunk that samples has its tokens")]
fn a_token_that_is_missing_is_noticed() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(2, 5)).unwrap();
    let batch = scheduler.schedule();
    scheduler.update(&batch, &[]);
}

#[test]
#[should_panic(expected = "one of the 2 batches in flight is updated before")]
fn no_more_than_two_steps_are_in_flight() {
    let mut scheduler = scheduler(SchedulerConfig::for_test());
    scheduler.add(SeqId(1), text(2, 5)).unwrap();
    for _ in 0..3 {
        scheduler.schedule();
    }
}

/// Runs one sequence on the given tokens until it ends; returns how many it took and why it ended.
fn end_of(request: GenerateRequest, sampled: &[TokenId]) -> (usize, FinishReason) {
    let config = SchedulerConfig {
        max_model_len: 10,
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = scheduler(config);
    scheduler.add(SeqId(1), request).unwrap();
    for (idx, &token) in sampled.iter().enumerate() {
        let batch = scheduler.schedule();
        if let [end] = scheduler.update(&batch, &[(SeqId(1), &[token])])[..] {
            return (idx + 1, end.reason);
        }
    }
    panic!("did not end within {} tokens", sampled.len());
}

#[test]
fn a_sequence_ends_at_a_stop_token_at_its_limit_and_at_the_models() {
    let stopping = |max_tokens, min_tokens| {
        let mut request = text(4, max_tokens);
        request.sampling.stop_token_ids = vec![TokenId(2), STOP];
        request.sampling.min_tokens = min_tokens;
        request
    };
    let late = [WORD, WORD, STOP, WORD, STOP, WORD, WORD];
    assert_eq!(end_of(stopping(5, 0), &late), (3, FinishReason::Stop));
    assert_eq!(end_of(stopping(5, 3), &late), (3, FinishReason::Stop));
    assert_eq!(end_of(stopping(9, 4), &late), (5, FinishReason::Stop));
    assert_eq!(end_of(stopping(2, 0), &late), (2, FinishReason::Length));
    // At the limit and a stop token at once: it had come to its end by itself.
    assert_eq!(end_of(stopping(3, 0), &late), (3, FinishReason::Stop));
    // Four of prompt, six of answer: ten is as long as the model goes.
    assert_eq!(
        end_of(text(4, usize::MAX), &[STOP; 9]),
        (6, FinishReason::Length)
    );
}
