//! Order of admission: priorities, tenants, arrival.

use crate::core::TenantId;

use super::*;

fn of(tenant: u64, prompt_len: usize, max_tokens: usize) -> GenerateRequest {
    let mut request = text(prompt_len, max_tokens);
    request.scheduling.tenant = TenantId(tenant);
    request
}

fn urgent(priority: i32, prompt_len: usize, max_tokens: usize) -> GenerateRequest {
    let mut request = text(prompt_len, max_tokens);
    request.scheduling.priority = priority;
    request
}

fn slots(max_num_seqs: usize) -> Scheduler {
    scheduler(SchedulerConfig {
        max_num_seqs,
        ..SchedulerConfig::for_test()
    })
}

/// Runs all sequences to their end and returns them in the order in which they were first computed.
fn admissions(scheduler: &mut Scheduler) -> Vec<u64> {
    let mut order = Vec::new();
    while scheduler.has_work() {
        for (id, _, _) in step(scheduler).0 {
            if !order.contains(&id) {
                order.push(id);
            }
        }
    }
    order
}

#[test]
fn smaller_priorities_go_first_and_equals_in_the_order_of_arrival() {
    let mut scheduler = slots(1);
    for (id, priority) in [(1, 5), (2, 0), (3, -7), (4, 0), (5, 5)] {
        scheduler.add(SeqId(id), urgent(priority, 3, 2)).unwrap();
    }
    assert_eq!(admissions(&mut scheduler), [3, 2, 4, 1, 5]);
}

#[test]
fn a_better_priority_takes_a_slot_and_an_equal_one_does_not() {
    let mut scheduler = slots(2);
    scheduler.add(SeqId(1), urgent(0, 3, 9)).unwrap();
    scheduler.add(SeqId(2), urgent(1, 3, 9)).unwrap();
    scheduler.add(SeqId(3), urgent(1, 3, 9)).unwrap();
    step(&mut scheduler);
    assert_eq!(step(&mut scheduler).0, [(1, 3, 1), (2, 3, 1)]);
    scheduler.add(SeqId(4), urgent(0, 3, 9)).unwrap();
    let batch = scheduler.schedule();
    assert_eq!(batch.preempted, [SeqId(2)]);
    // Sequence 3's decode was planned and is not computed.
    assert_eq!(chunks(&batch), [(1, 4, 1), (4, 0, 3)]);
    scheduler.update(&batch, &words(&batch));
    scheduler.check_integrity();
    // The one that was set back comes before the one that has not begun.
    assert_eq!(admissions(&mut scheduler), [1, 4, 2, 3]);
    assert_eq!(scheduler.stats().num_preemptions, 1);
}

#[test]
fn a_better_priority_takes_blocks_only_where_that_helps() {
    let mut scheduler = scheduler(SchedulerConfig {
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[10]),
        ..SchedulerConfig::for_test()
    });
    scheduler.add(SeqId(1), urgent(0, 16, 9)).unwrap();
    step(&mut scheduler);
    scheduler.add(SeqId(2), urgent(1, 4, 9)).unwrap();
    step(&mut scheduler);
    // Eight blocks: more than come free when the second one goes, which holds two.
    scheduler.add(SeqId(3), urgent(0, 30, 1)).unwrap();
    let (_, _) = step(&mut scheduler);
    assert_eq!(scheduler.stats().num_preemptions, 0);
    scheduler.abort(SeqId(3));
    // Four.
    scheduler.add(SeqId(4), urgent(0, 12, 1)).unwrap();
    let batch = scheduler.schedule();
    assert_eq!(batch.preempted, [SeqId(2)]);
    assert_eq!(chunks(&batch).last(), Some(&(4, 0, 12)));
}

#[test]
fn a_thousand_requests_of_one_tenant_do_not_keep_another_waiting() {
    let mut scheduler = slots(1);
    for id in 0..1000 {
        scheduler.add(SeqId(id), of(1, 5, 2)).unwrap();
    }
    for _ in 0..20 {
        step(&mut scheduler);
    }
    scheduler.add(SeqId(5000), of(2, 5, 2)).unwrap();
    scheduler.add(SeqId(5001), of(2, 5, 2)).unwrap();
    scheduler.add(SeqId(5002), of(2, 5, 2)).unwrap();
    let mut turns = Vec::new();
    while turns.len() < 6 {
        for (id, start, _) in step(&mut scheduler).0 {
            if start == 0 {
                turns.push(id >= 5000);
            }
        }
    }
    assert!(turns[0] || turns[1], "{turns:?}");
    assert_eq!(
        turns.iter().filter(|&&second| second).count(),
        3,
        "{turns:?}"
    );
}

#[test]
fn fair_means_tokens_and_not_requests() {
    let mut scheduler = slots(1);
    for id in 0..10 {
        scheduler.add(SeqId(id), of(1, 48, 1)).unwrap();
        scheduler.add(SeqId(100 + id), of(2, 12, 1)).unwrap();
    }
    let order = admissions(&mut scheduler);
    let first_ten = order[..10].iter().filter(|&&id| id < 100).count();
    assert_eq!(first_ten, 2, "{order:?}");
}

#[test]
fn what_is_generated_is_charged_too() {
    let mut scheduler = slots(1);
    for id in 0..10 {
        scheduler.add(SeqId(id), of(1, 4, 45)).unwrap();
        scheduler.add(SeqId(100 + id), of(2, 4, 9)).unwrap();
    }
    let order = admissions(&mut scheduler);
    let first_ten = order[..10].iter().filter(|&&id| id < 100).count();
    assert_eq!(first_ten, 2, "{order:?}");
}

#[test]
fn who_was_away_is_not_paid_for_it() {
    let mut scheduler = slots(1);
    for id in 0..60 {
        scheduler.add(SeqId(id), of(1, 5, 2)).unwrap();
    }
    steps(&mut scheduler, 60);
    for id in 100..160 {
        scheduler.add(SeqId(id), of(2, 5, 2)).unwrap();
    }
    let order = admissions(&mut scheduler);
    let next = order[1..21].iter().filter(|&&id| id < 100).count();
    assert!((9..=11).contains(&next), "{order:?}");
}

#[test]
fn accounts_of_tenants_that_are_gone_do_not_pile_up() {
    let mut scheduler = slots(1);
    for id in 0..5_000 {
        scheduler.add(SeqId(id), of(id, 2, 1)).unwrap();
        scheduler.add(SeqId(10_000 + id), of(0, 2, 3)).unwrap();
        scheduler.abort(SeqId(id));
        step(&mut scheduler);
    }
    let (_, level) = scheduler.waiting.levels().next().expect("some wait");
    assert!(level.num_accounts() < 200, "{}", level.num_accounts());
}

#[test]
fn one_can_leave_from_the_middle_of_the_line() {
    let mut scheduler = slots(1);
    for id in 0..6 {
        scheduler.add(SeqId(id), of(id % 2, 5, 2)).unwrap();
    }
    step(&mut scheduler);
    for id in [2, 3] {
        assert!(scheduler.abort(SeqId(id)));
        scheduler.check_integrity();
    }
    assert_eq!(admissions(&mut scheduler), [0, 1, 4, 5]);
}

#[test]
fn an_urgent_prompt_goes_before_a_running_one_that_takes_the_whole_budget() {
    let mut scheduler = slots(8);
    scheduler.add(SeqId(1), urgent(0, 20, 9)).unwrap();
    step(&mut scheduler);
    scheduler.add(SeqId(2), urgent(5, 100, 9)).unwrap();
    step(&mut scheduler);
    scheduler.add(SeqId(3), urgent(5, 100, 9)).unwrap();
    scheduler.add(SeqId(4), urgent(0, 20, 9)).unwrap();
    let expected = [
        vec![(1, 20, 1), (4, 0, 15)],
        vec![(1, 21, 1), (4, 15, 5), (2, 12, 10)],
    ];
    assert_eq!(steps(&mut scheduler, 2), expected);
}
