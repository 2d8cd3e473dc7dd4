//! Drafts: tokens that are guessed and verified, several in one step.

use super::*;

const OTHER: TokenId = TokenId(8);

/// A scheduler whose sequence 1 has a prompt of 8 tokens and one of the answer, computed so far as
/// the answer's token.
fn decoding(config: SchedulerConfig, request: GenerateRequest) -> Scheduler {
    let mut scheduler = scheduler(config);
    scheduler.add(SeqId(1), request).unwrap();
    assert_eq!(step(&mut scheduler).0, [(1, 0, 8)]);
    scheduler
}

/// The chunk of the only sequence: start, length and samples.
fn only(batch: &Batch) -> (usize, usize, usize) {
    let [chunk] = batch.chunks[..] else {
        panic!("{batch:?}");
    };
    (chunk.start, chunk.len, chunk.num_samples)
}

#[test]
fn right_drafts_are_kept_and_wrong_ones_computed_again() {
    for num_right in 0..=3 {
        let mut scheduler = decoding(SchedulerConfig::for_test(), text(8, 50));
        let free = scheduler.num_free_blocks();
        scheduler.propose(SeqId(1), &[WORD; 3]);
        let batch = scheduler.schedule();
        assert_eq!(only(&batch), (8, 4, 4));
        let drafts = scheduler.sequence(SeqId(1)).unwrap().drafts();
        assert_eq!(drafts, [WORD; 3]);
        scheduler.check_integrity();
        let mut sampled = vec![WORD; num_right];
        sampled.push(OTHER);
        assert_eq!(scheduler.update(&batch, &[(SeqId(1), &sampled)]), []);
        scheduler.check_integrity();
        let sequence = scheduler.sequence(SeqId(1)).unwrap();
        assert_eq!(sequence.tokens()[9..], sampled);
        assert_eq!(sequence.num_computed_tokens(), 9 + num_right);
        assert!(sequence.drafts().is_empty());
        // Position 8 needs a block of its own, as do the first and the second after it.
        assert_eq!(scheduler.num_free_blocks()[0], free[0] - 1);
        assert_eq!(step(&mut scheduler).0, [(1, 9 + num_right, 1)]);
    }
}

#[test]
fn a_sequence_ends_within_its_drafts() {
    let mut request = text(8, 50);
    request.sampling.stop_token_ids = vec![STOP];
    let mut scheduler = decoding(SchedulerConfig::for_test(), request);
    scheduler.propose(SeqId(1), &[WORD, STOP, WORD]);
    let batch = scheduler.schedule();
    let finished = scheduler.update(&batch, &[(SeqId(1), &[WORD, STOP, WORD, WORD])]);
    let end = Finished {
        seq: SeqId(1),
        reason: FinishReason::Stop,
        num_tokens: 2,
    };
    assert_eq!(finished, [end]);
    assert!(!scheduler.has_work());
    scheduler.check_integrity();
}

#[test]
fn no_more_is_drafted_than_the_answer_may_have() {
    let mut scheduler = decoding(SchedulerConfig::for_test(), text(8, 3));
    scheduler.propose(SeqId(1), &[WORD; 5]);
    let batch = scheduler.schedule();
    assert_eq!(only(&batch), (8, 2, 2));
    let finished = scheduler.update(&batch, &[(SeqId(1), &[WORD; 2])]);
    let end = Finished {
        seq: SeqId(1),
        reason: FinishReason::Length,
        num_tokens: 2,
    };
    assert_eq!(finished, [end]);
}

#[test]
fn drafts_take_only_tokens_and_blocks_that_are_left() {
    let config = SchedulerConfig {
        max_num_batched_tokens: 9,
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[6]),
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = decoding(config, text(8, 17));
    scheduler.add(SeqId(2), text(5, 3)).unwrap();
    scheduler.propose(SeqId(1), &[WORD; 7]);
    // The decode and a prompt of 5: of the budget of 9 three tokens are left.
    let batch = scheduler.schedule();
    assert_eq!(chunks(&batch), [(1, 8, 4), (2, 0, 5)]);
    assert_eq!(scheduler.num_free_blocks()[0], 1);
    scheduler.update(&batch, &[(SeqId(1), &[WORD]), (SeqId(2), &[WORD])]);
    // Positions 9 to 16 would need two more blocks.
    scheduler.propose(SeqId(1), &[WORD; 7]);
    let batch = scheduler.schedule();
    assert_eq!(chunks(&batch), [(1, 9, 1), (2, 5, 1)]);
    assert!(batch.preempted.is_empty());
    scheduler.update(&batch, &words(&batch));
    scheduler.propose(SeqId(1), &[WORD; 1]);
    assert_eq!(chunks(&scheduler.schedule()), [(1, 10, 2), (2, 6, 1)]);
    scheduler.check_integrity();
}

#[test]
fn nothing_is_planned_behind_drafts_and_fed_samples_are_found_beside_them() {
    let mut scheduler = decoding(SchedulerConfig::for_test(), text(8, 50));
    scheduler.add(SeqId(2), text(3, 50)).unwrap();
    scheduler.propose(SeqId(1), &[WORD; 2]);
    let first = scheduler.schedule();
    assert_eq!(chunks(&first), [(1, 8, 3), (2, 0, 3)]);
    let samples: Vec<_> = first.sampling().map(|id| id.0).collect();
    assert_eq!(samples, [1, 1, 1, 2]);
    let second = scheduler.schedule();
    assert_eq!(chunks(&second), [(2, 3, 1)]);
    assert_eq!(second.chunks[0].sampled_input, Some(3));
    // They would belong behind the token that is being sampled.
    scheduler.propose(SeqId(2), &[WORD]);
    scheduler.update(&first, &[(SeqId(1), &[WORD; 3]), (SeqId(2), &[WORD])]);
    let third = scheduler.schedule();
    assert_eq!(chunks(&third), [(1, 11, 1), (2, 4, 1)]);
    assert_eq!(third.chunks[1].sampled_input, Some(0));
    scheduler.check_integrity();
}

#[test]
fn a_preempted_sequence_keeps_the_drafts_that_were_right() {
    let config = SchedulerConfig {
        max_num_seqs: 1,
        ..SchedulerConfig::for_test()
    };
    let mut scheduler = decoding(config, text(8, 50));
    scheduler.propose(SeqId(1), &[WORD; 3]);
    let first = scheduler.schedule();
    let mut urgent = text(3, 1);
    urgent.scheduling.priority = -1;
    scheduler.add(SeqId(2), urgent).unwrap();
    let second = scheduler.schedule();
    assert_eq!(second.preempted, [SeqId(1)]);
    scheduler.update(&first, &[(SeqId(1), &[WORD, WORD, OTHER])]);
    scheduler.check_integrity();
    scheduler.update(&second, &words(&second));
    assert_eq!(step(&mut scheduler).0, [(1, 0, 12)]);
}

#[test]
#[should_panic(expected = "has 3 tokens of 2 samples")]
fn more_tokens_than_samples_are_noticed() {
    let mut scheduler = decoding(SchedulerConfig::for_test(), text(8, 50));
    scheduler.propose(SeqId(1), &[WORD]);
    let batch = scheduler.schedule();
    scheduler.update(&batch, &[(SeqId(1), &[WORD; 3])]);
}
