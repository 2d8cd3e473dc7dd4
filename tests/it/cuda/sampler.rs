//! The device's sampler against the host's, and its penalties against their definition.

use std::num::NonZeroU32;

use medgemma::backend::SampleRow;
use medgemma::backend::cuda::device::Device;
use medgemma::backend::cuda::kernels::sampler::{
    self, Adjust, IN_PROMPT, LogProbabilities, Logits, MAX_TOP, Penalties, RowParams,
};
use medgemma::backend::sampler::sample_row;
use medgemma::core::SamplingParams;

use super::emulated;
use super::workbench::{Random, Workbench, assert_close};

fn plain() -> RowParams {
    RowParams {
        temperature: 1.0,
        top_p: 1.0,
        min_p: 0.0,
        top_k: None,
        seed: 0,
        position: 0,
        penalties: None,
        mask_row: None,
        bans: 0..0,
        biases: 0..0,
        num_top: None,
    }
}

/// Every filter alone and together, at several places of the race.
fn params(random: &mut Random) -> Vec<RowParams> {
    let mut rows = Vec::new();
    // 1200 is more than the kernel moves to shared memory.
    for top_k in [
        None,
        NonZeroU32::new(1),
        NonZeroU32::new(40),
        NonZeroU32::new(1200),
    ] {
        for (top_p, min_p) in [(1.0, 0.0), (0.9, 0.0), (0.3, 0.0), (0.8, 0.05)] {
            for temperature in [0.7, 3.0] {
                rows.push(RowParams {
                    temperature,
                    top_p,
                    min_p,
                    top_k,
                    seed: random.bits(),
                    position: random.below(5000),
                    num_top: Some(rows.len() as u32 % (MAX_TOP + 1)),
                    ..plain()
                });
            }
        }
    }
    rows.push(RowParams {
        temperature: 0.0,
        ..plain()
    });
    rows
}

fn upload<D: Device>(bench: &Workbench<'_, D>, logits: &[f32], rows: &[RowParams]) -> Logits {
    let packed: Vec<u8> = rows.iter().flat_map(RowParams::to_bytes).collect();
    Logits {
        logits: bench.f32(logits),
        params: bench.bytes(&packed),
        num_rows: rows.len() as u32,
        vocab: (logits.len() / rows.len()) as u32,
    }
}

/// `levels` is how many different logits there are: few make ties at every cut.
fn check_draws<D: Device>(device: &D, vocab: usize, levels: usize) {
    let bench = Workbench::new(device);
    let mut random = Random(vocab as u64);
    let rows = params(&mut random);
    let logits: Vec<f32> = (0..rows.len() * vocab)
        .map(|_| random.below(levels) as f32 * 12.0 / levels as f32 - 6.0)
        .collect();
    let of = upload(&bench, &logits, &rows);
    let draws = bench.empty(2 * rows.len() * 4);
    sampler::draw(device, &of, draws, draws).expect("launches");
    let top_len = rows.len() * MAX_TOP as usize;
    let op = LogProbabilities {
        draws,
        chosen: bench.empty(rows.len() * 4),
        top_tokens: bench.empty(top_len * 4),
        top: bench.empty(top_len * 4),
    };
    sampler::log_probabilities(device, &of, &op).expect("launches");

    let drawn = bench.read_u32(draws, 2 * rows.len());
    assert_eq!(drawn[rows.len()..], vec![1; rows.len()]);
    let chosen = bench.read_f32(op.chosen, rows.len());
    let top_tokens = bench.read_u32(op.top_tokens, top_len);
    let top = bench.read_f32(op.top, top_len);
    for (idx, row) in rows.iter().enumerate() {
        let params = SamplingParams {
            temperature: row.temperature,
            top_p: row.top_p,
            top_k: row.top_k,
            min_p: row.min_p,
            seed: row.seed,
            top_logprobs: row.num_top.map(|num_top| num_top as usize),
            ..SamplingParams::greedy(1)
        };
        let expected = sample_row(
            &logits[idx * vocab..(idx + 1) * vocab],
            &SampleRow {
                params: &params,
                position: row.position,
                num_generated: 0,
            },
        );
        assert_eq!(drawn[idx], expected.token.0, "{row:?}");
        let Some(expected) = expected.logprobs else {
            continue;
        };
        // Sums of f32 in another order.
        let tolerance = (1e-5, 2e-5);
        assert_close("chosen", &[chosen[idx]], &[expected.logprob], tolerance);
        let first = idx * MAX_TOP as usize;
        for (place, (token, logprob)) in expected.top.iter().enumerate() {
            assert_eq!(top_tokens[first + place], token.0, "{row:?}");
            assert_close("top", &[top[first + place]], &[*logprob], tolerance);
        }
    }
}

#[test]
fn draws_equal_the_hosts() {
    emulated(|device| {
        check_draws(device, 3000, 1 << 20);
        check_draws(device, 1500, 24);
        check_draws(device, 30, 1 << 20);
    });
}

fn check_greedy<D: Device>(device: &D) {
    let bench = Workbench::new(device);
    let greedy = RowParams {
        temperature: 0.0,
        ..plain()
    };
    let mut logits = vec![-3.0; 2 * 2000];
    (logits[1200], logits[1900]) = (1.0, 1.0);
    // The two zeros are equal, and the first of them wins.
    (logits[2000 + 5], logits[2000 + 1500]) = (-0.0, 0.0);
    let of = upload(&bench, &logits, &[greedy.clone(), greedy]);
    let draws = bench.empty(16);
    sampler::draw(device, &of, draws, draws).expect("launches");
    assert_eq!(bench.read_u32(draws, 2), [1200, 5]);
}

#[test]
fn greedy_takes_the_first_of_equals() {
    emulated(check_greedy);
}

/// What is no distribution is told, and the draw is a token all the same: the next step may look it
/// up before the host has seen it.
fn check_soundness<D: Device>(device: &D) {
    const VOCAB: usize = 1500;
    let bench = Workbench::new(device);
    let mut random = Random(5);
    let mut one_nan: Vec<f32> = (0..VOCAB).map(|_| random.below(100) as f32).collect();
    one_nan[1400] = f32::NAN;
    let mut one_infinite = vec![0.0; VOCAB];
    one_infinite[3] = f32::INFINITY;
    let mut all_but_one_banned = vec![f32::NEG_INFINITY; VOCAB];
    all_but_one_banned[1499] = -5.0;
    let logits = [
        one_nan,
        vec![f32::NAN; VOCAB],
        one_infinite,
        vec![f32::NEG_INFINITY; VOCAB],
        all_but_one_banned,
    ]
    .concat();
    for temperature in [0.0, 1.0] {
        for (top_k, top_p) in [(None, 1.0), (NonZeroU32::new(4), 0.9)] {
            let row = RowParams {
                temperature,
                top_k,
                top_p,
                ..plain()
            };
            let of = upload(&bench, &logits, &vec![row; 5]);
            let draws = bench.empty(40);
            sampler::draw(device, &of, draws, draws).expect("launches");
            let drawn = bench.read_u32(draws, 10);
            assert!(drawn[..5].iter().all(|&token| token < 1500), "{drawn:?}");
            assert_eq!(drawn[5..], [0, 0, 0, 0, 1]);
            assert_eq!(drawn[4], 1499);
        }
    }
}

#[test]
fn what_is_no_distribution_is_told() {
    emulated(check_soundness);
}

fn check_adjust<D: Device>(device: &D) {
    let bench = Workbench::new(device);
    let mut random = Random(3);
    let vocab = 5000_usize;
    let num_words = vocab.div_ceil(32);
    let logits: Vec<f32> = random.numbers(3 * vocab).iter().map(|x| 8.0 * x).collect();
    let counts: Vec<u32> = (0..2 * vocab)
        .map(|_| match random.below(4) {
            0 => IN_PROMPT,
            1 => IN_PROMPT | 2,
            2 => 3,
            _ => 0,
        })
        .collect();
    let masks: Vec<u32> = (0..2 * num_words).map(|_| random.bits() as u32).collect();
    let bans = [7_u32, 1, 4096, 4999, 4095];
    let biases = [(0_u32, 5.0_f32), (4096, -2.5), (4999, 1.0), (12, 100.0)];
    let rows = [
        RowParams {
            penalties: Some(Penalties {
                presence: 0.5,
                frequency: 0.25,
                repetition: 1.5,
                counts_row: 1,
            }),
            bans: 1..5,
            ..plain()
        },
        RowParams {
            mask_row: Some(1),
            biases: 1..4,
            ..plain()
        },
        RowParams {
            temperature: 0.0,
            penalties: Some(Penalties {
                presence: -0.5,
                frequency: 0.0,
                repetition: 1.0,
                counts_row: 0,
            }),
            biases: 3..4,
            ..plain()
        },
    ];
    let of = upload(&bench, &logits, &rows);
    let bias_words: Vec<u32> = biases
        .iter()
        .flat_map(|(token, bias)| [*token, bias.to_bits()])
        .collect();
    let op = Adjust {
        biases: bench.u32(&bias_words),
        bans: bench.u32(&bans),
        masks: bench.u32(&masks),
        counts: bench.u32(&counts),
        adjusted: bench.empty(3 * vocab * 4),
    };
    sampler::adjust(device, &of, &op).expect("launches");
    let actual = bench.read_f32(op.adjusted, 3 * vocab);

    for (idx, row) in rows.iter().enumerate() {
        for token in 0..vocab as u32 {
            let at = token as usize;
            let mut expected = logits[idx * vocab + at];
            for (biased, bias) in &biases[row.biases.start as usize..row.biases.end as usize] {
                expected += if *biased == token { *bias } else { 0.0 };
            }
            let banned = bans[row.bans.start as usize..row.bans.end as usize].contains(&token);
            let masked = row.mask_row.is_some_and(|mask| {
                masks[mask as usize * num_words + at / 32] >> (at % 32) & 1 == 0
            });
            if let Some(penalties) = &row.penalties {
                let count = counts[penalties.counts_row as usize * vocab + at];
                if count != 0 && expected > 0.0 {
                    expected /= penalties.repetition;
                } else if count != 0 {
                    expected *= penalties.repetition;
                }
                let drawn = count & !IN_PROMPT;
                expected -= penalties.frequency * drawn as f32;
                expected -= if drawn > 0 { penalties.presence } else { 0.0 };
            }
            if banned || masked {
                expected = f32::NEG_INFINITY;
            }
            assert_eq!(
                actual[idx * vocab + at],
                expected,
                "row {idx} token {token}"
            );
        }
    }

    // What is forbidden is not drawn, and draws are counted where there are penalties.
    let adjusted = Logits {
        logits: op.adjusted,
        ..of
    };
    let draws = bench.empty(6 * 4);
    sampler::draw(device, &adjusted, op.counts, draws).expect("launches");
    let drawn = bench.read_u32(draws, 3);
    assert!(!bans[1..5].contains(&drawn[0]), "{drawn:?}");
    assert_ne!(
        masks[num_words + drawn[1] as usize / 32] >> (drawn[1] % 32) & 1,
        0
    );
    assert_eq!(drawn[2], 12);
    let mut expected = counts;
    expected[vocab + drawn[0] as usize] += 1;
    expected[drawn[2] as usize] += 1;
    assert_eq!(bench.read_u32(op.counts, 2 * vocab), expected);
}

#[test]
fn biases_bans_masks_and_penalties() {
    emulated(check_adjust);
}
