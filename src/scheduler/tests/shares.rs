//! What tenants get of slots, blocks and steps while others want more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::core::TenantId;

use super::*;

fn of(tenant: u64, prompt_len: usize, max_tokens: usize) -> GenerateRequest {
    let mut request = text(prompt_len, max_tokens);
    request.scheduling.tenant = TenantId(tenant);
    request
}

/// Ids are `1000 · tenant + number`.
fn tenant_of(id: u64) -> u64 {
    id / 1000
}

fn running(scheduler: &Scheduler) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for seq in &scheduler.running {
        *counts.entry(tenant_of(seq.id.0)).or_default() += 1;
    }
    counts
}

/// A configuration in which slots are scarce.
fn slots(max_num_seqs: usize) -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs,
        max_model_len: 10_000,
        num_blocks: BlockCount::new(&[4_000, 400]),
        ..SchedulerConfig::for_test()
    }
}

/// A configuration in which blocks are scarce.
fn blocks(num_blocks: usize) -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 16,
        max_model_len: 10_000,
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[num_blocks]),
        ..SchedulerConfig::for_test()
    }
}

#[test]
fn who_has_nothing_takes_from_who_has_more() {
    let mut scheduler = scheduler(slots(8));
    for number in 0..340 {
        scheduler
            .add(SeqId(1000 + number), of(1, 4, 1_500))
            .unwrap();
    }
    steps(&mut scheduler, 40);
    assert_eq!(running(&scheduler), BTreeMap::from([(1, 8)]));
    scheduler.add(SeqId(2000), of(2, 4, 5)).unwrap();
    // Its first token is sampled in the step that admits it, the last four steps later.
    let ran: Vec<_> = steps(&mut scheduler, 5);
    let own = |chunks: &&Vec<Computed>| chunks.iter().any(|&(id, ..)| id == 2000);
    assert_eq!(ran.iter().filter(own).count(), 5, "{ran:?}");
    assert!(scheduler.sequence(SeqId(2000)).is_none(), "it has ended");
    // The sequence whose slot it took continues where it was; no other sequence of its tenant was
    // touched.
    assert_eq!(scheduler.stats().num_preemptions, 1);
    step(&mut scheduler);
    assert_eq!(running(&scheduler), BTreeMap::from([(1, 8)]));
    let oldest = scheduler.sequence(SeqId(1000)).expect("it runs");
    assert!(oldest.num_generated_tokens() > 40);
}

#[test]
fn shares_are_even_and_then_nothing_changes_hands() {
    for num_tenants in 2..=5_u64 {
        let mut scheduler = scheduler(slots(8));
        for tenant in 1..=num_tenants {
            for number in 0..20 {
                let id = SeqId(1000 * tenant + number);
                scheduler.add(id, of(tenant, 4, 1_500)).unwrap();
            }
            // The first has all slots before the last comes.
            steps(&mut scheduler, 40);
        }
        steps(&mut scheduler, 60);
        let counts = running(&scheduler);
        let (least, most) = (counts.values().min(), counts.values().max());
        assert_eq!(counts.len() as u64, num_tenants, "{counts:?}");
        assert!(most <= least.map(|least| least + 1).as_ref(), "{counts:?}");
        let before = scheduler.stats().num_preemptions;
        steps(&mut scheduler, 800);
        assert_eq!(scheduler.stats().num_preemptions, before, "{num_tenants}");
    }
}

#[test]
fn a_place_is_not_taken_before_it_was_of_use() {
    let mut scheduler = scheduler(slots(2));
    scheduler.add(SeqId(1000), of(1, 4, 900)).unwrap();
    scheduler.add(SeqId(1001), of(1, 4, 900)).unwrap();
    step(&mut scheduler);
    scheduler.add(SeqId(2000), of(2, 4, 900)).unwrap();
    // Prompt and a block: eight tokens, of which four are behind it.
    for _ in 0..4 {
        step(&mut scheduler);
        assert_eq!(running(&scheduler), BTreeMap::from([(1, 2)]));
    }
    step(&mut scheduler);
    assert_eq!(running(&scheduler), BTreeMap::from([(1, 1), (2, 1)]));
    // The best of its tenant stays.
    assert!(scheduler.running.iter().any(|seq| seq.id == SeqId(1000)));
    assert_eq!(
        scheduler
            .sequence(SeqId(1001))
            .map(|seq| seq.num_generated_tokens()),
        Some(5)
    );
}

#[test]
fn what_is_free_anybody_may_have() {
    let mut scheduler = scheduler(slots(8));
    scheduler.add(SeqId(2000), of(2, 4, 900)).unwrap();
    for number in 0..20 {
        scheduler.add(SeqId(1000 + number), of(1, 4, 900)).unwrap();
    }
    steps(&mut scheduler, 50);
    assert_eq!(running(&scheduler), BTreeMap::from([(1, 7), (2, 1)]));
}

#[test]
fn better_priorities_have_no_shares_to_give() {
    let mut scheduler = scheduler(slots(4));
    for number in 0..8 {
        let mut request = of(1, 4, 200);
        request.scheduling.priority = -1;
        scheduler.add(SeqId(1000 + number), request).unwrap();
    }
    scheduler.add(SeqId(2000), of(2, 4, 5)).unwrap();
    steps(&mut scheduler, 150);
    assert_eq!(running(&scheduler), BTreeMap::from([(1, 4)]));
}

#[test]
fn blocks_are_shared_as_slots_are() {
    let mut scheduler = scheduler(blocks(100));
    // Four that take 20 blocks each at once, and more with every four tokens.
    for number in 0..8 {
        scheduler.add(SeqId(1000 + number), of(1, 76, 200)).unwrap();
    }
    // Until there are no blocks for one more.
    let mut steps_left = 300;
    while scheduler.num_free_blocks()[0] >= 20 {
        step(&mut scheduler);
        steps_left -= 1;
        assert!(steps_left > 0, "{:?}", scheduler.stats());
    }
    steps(&mut scheduler, 30);
    for number in 0..3 {
        scheduler.add(SeqId(2000 + number), of(2, 76, 9)).unwrap();
    }
    let mut ended = BTreeSet::new();
    for _ in 0..80 {
        ended.extend(step(&mut scheduler).1.into_iter().map(|(id, _)| id.0));
    }
    let expected = BTreeSet::from([2000, 2001, 2002]);
    assert!(ended.is_superset(&expected), "{ended:?}");
}

#[test]
fn a_long_prompt_does_not_hold_another_tenant_up() {
    let mut scheduler = scheduler(slots(8));
    for number in 0..4 {
        scheduler.add(SeqId(1000 + number), of(1, 800, 5)).unwrap();
    }
    steps(&mut scheduler, 3);
    scheduler.add(SeqId(2000), of(2, 20, 2)).unwrap();
    scheduler.add(SeqId(3000), of(3, 20, 2)).unwrap();
    // Admitted one after the other; each has a third of 16 tokens then.
    let ran = steps(&mut scheduler, 8);
    for id in [2000, 3000] {
        assert!(scheduler.sequence(SeqId(id)).is_none(), "{ran:?}");
    }
    let first: Vec<_> = ran.iter().map(|chunks| chunks[0]).collect();
    assert!(
        first.iter().all(|&(id, _, len)| id == 1000 && len >= 5),
        "{first:?}"
    );
    // And all of the tokens are used.
    let full = |chunks: &Vec<Computed>| chunks.iter().map(|chunk| chunk.2).sum::<usize>() == 16;
    assert!(ran.iter().all(full), "{ran:?}");
}

#[test]
fn who_holds_most_gives_way_first() {
    let mut scheduler = scheduler(blocks(50));
    for number in 0..4 {
        scheduler.add(SeqId(1000 + number), of(1, 30, 150)).unwrap();
    }
    steps(&mut scheduler, 12);
    // The newest of all, and the smallest.
    scheduler.add(SeqId(2000), of(2, 4, 60)).unwrap();
    let mut preempted = Vec::new();
    while scheduler.sequence(SeqId(2000)).is_some() {
        let batch = scheduler.schedule();
        scheduler.check_integrity();
        preempted.extend(batch.preempted.iter().map(|id| id.0));
        scheduler.update(&batch, &words(&batch));
    }
    assert!(!preempted.is_empty(), "blocks ran out");
    assert!(!preempted.contains(&2000), "{preempted:?}");
}

/// One that always has `backlog` requests of these lengths.
#[derive(Clone, Debug)]
struct Customer {
    prompt_len: usize,
    max_tokens: usize,
    backlog: usize,
}

fn customers() -> impl Strategy<Value = Vec<Customer>> {
    let customer = (1..40usize, 1..40usize, 1..30usize);
    let customer = customer.prop_map(|(prompt_len, max_tokens, backlog)| Customer {
        prompt_len,
        max_tokens,
        backlog,
    });
    vec(customer, 2..5)
}

fn configs() -> impl Strategy<Value = SchedulerConfig> {
    (2..9usize, 8..40usize, 25..120usize).prop_map(|(max_num_seqs, budget, num_blocks)| {
        SchedulerConfig {
            max_num_seqs,
            max_num_batched_tokens: max_num_seqs + budget,
            max_model_len: 90,
            block_size: 4,
            groups: KvGroups::new(&[None]),
            num_blocks: BlockCount::new(&[num_blocks]),
            prefix_caching: PrefixCaching::Off,
        }
    })
}

/// Number of tokens that each customer's sequences have computed after a fixed number of steps,
/// when there are no other customers.
fn computed(config: SchedulerConfig, customers: &[Option<&Customer>], ahead: bool) -> Vec<usize> {
    const STEPS: usize = 1_500;
    const TENANT: u64 = 1_000_000;
    let mut scheduler = scheduler(config);
    let mut num_asked = vec![0_u64; customers.len()];
    let mut living = vec![0_usize; customers.len()];
    let mut computed = vec![0_usize; customers.len()];
    let mut launched = VecDeque::new();
    for _ in 0..STEPS {
        for (idx, customer) in customers.iter().enumerate() {
            let Some(customer) = customer else {
                continue;
            };
            while living[idx] < customer.backlog {
                let id = SeqId(TENANT * (idx as u64 + 1) + num_asked[idx]);
                let request = of(idx as u64 + 1, customer.prompt_len, customer.max_tokens);
                scheduler.add(id, request).unwrap();
                num_asked[idx] += 1;
                living[idx] += 1;
            }
        }
        let batch = scheduler.schedule();
        scheduler.check_integrity();
        let is_empty = batch.is_empty();
        if !is_empty {
            launched.push_back(batch);
        }
        assert!(!launched.is_empty(), "work and none planned");
        if ahead && !is_empty && launched.len() < 2 {
            continue;
        }
        let batch = launched.pop_front().expect("one is there");
        let tokens = words(&batch);
        for chunk in &batch.chunks {
            computed[(chunk.seq.0 / TENANT) as usize - 1] += chunk.len;
        }
        for end in scheduler.update(&batch, &tokens) {
            living[(end.seq.0 / TENANT) as usize - 1] -= 1;
        }
        scheduler.check_integrity();
    }
    computed
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever they ask for, each of k tenants that always have work gets nearly the k-th part of
    /// what it would have had alone, or nearly as much as the others.
    #[test]
    fn over_a_long_window_everybody_gets_a_share(
        config in configs(),
        customers in customers(),
        ahead in any::<bool>(),
    ) {
        let all: Vec<_> = customers.iter().map(Some).collect();
        let together = computed(config, &all, ahead);
        let most = together.iter().copied().max().unwrap_or(0);
        for idx in 0..customers.len() {
            let mut only = vec![None; customers.len()];
            only[idx] = Some(&customers[idx]);
            let alone = computed(config, &only, ahead)[idx];
            let own = 3 * together[idx];
            prop_assert!(
                own * customers.len() >= alone || own >= most,
                "{idx} has {} of the {alone} that it had alone: {together:?}",
                together[idx]
            );
        }
    }
}

#[test]
fn what_is_not_sound_is_forgotten_and_what_is_shared_goes_on() {
    let mut scheduler = scheduler(SchedulerConfig {
        prefix_caching: PrefixCaching::On,
        max_num_batched_tokens: 64,
        ..SchedulerConfig::for_test()
    });
    scheduler.add(SeqId(1), text(20, 50)).unwrap();
    steps(&mut scheduler, 2);
    scheduler.add(SeqId(2), text(20, 50)).unwrap();
    step(&mut scheduler);
    let cached = |scheduler: &Scheduler, id| {
        let seq = scheduler.sequence(SeqId(id)).expect("it runs");
        seq.num_cached_tokens()
    };
    assert_eq!(cached(&scheduler, 2), 16);
    assert!(scheduler.abort_non_finite(SeqId(1)));
    assert!(!scheduler.abort_non_finite(SeqId(1)));
    scheduler.check_integrity();
    scheduler.add(SeqId(3), text(20, 50)).unwrap();
    steps(&mut scheduler, 3);
    assert_eq!(cached(&scheduler, 3), 0);
    scheduler.add(SeqId(4), text(20, 5)).unwrap();
    steps(&mut scheduler, 70);
    assert!(!scheduler.has_work());
    scheduler.check_integrity();
}
