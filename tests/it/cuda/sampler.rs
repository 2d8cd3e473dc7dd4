//! The device's sampler against the host's, and its penalties against their definition.

use std::num::NonZeroU32;
use std::sync::Arc;

use medgemma::backend::cuda::device::Device;
use medgemma::backend::cuda::kernels::kv_args::HeadShape;
use medgemma::backend::cuda::kernels::sampler::{
    self, LogProbabilities, Logits, MAX_TOP, Penalties, RowParams,
};
use medgemma::backend::cuda::{CudaBackend, CudaPlan, Replay};
use medgemma::backend::sampler::{sample_row, score_row};
use medgemma::backend::{
    HostDtype, HostTensor, Loading, SampleRow, Sampled, SamplingOps, ScoreRow, SeenTokens,
};
use medgemma::core::{KvGroups, SamplingParams, TokenId, TokenLogprobs, TokenMask};

use super::emulated;
use super::test_device::TestDevice;
use super::workbench::{Random, Workbench, assert_close};

fn plain() -> RowParams {
    RowParams {
        temperature: 1.0,
        top_p: 1.0,
        min_p: 0.0,
        top_k: None,
        seed: 0,
        position: 0,
        penalties: Penalties::NONE,
        seen: 0..0,
        mask_row: None,
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
pub(super) fn check_samples<D: Device>(device: &D, vocab: usize, levels: usize) {
    let bench = Workbench::new(device);
    let mut random = Random(vocab as u64);
    let rows = params(&mut random);
    let logits: Vec<f32> = (0..rows.len() * vocab)
        .map(|_| random.below(levels) as f32 * 12.0 / levels as f32 - 6.0)
        .collect();
    let of = upload(&bench, &logits, &rows);
    let sampled_tokens = bench.empty(2 * rows.len() * 4);
    sampler::sample(device, &of, sampled_tokens).expect("launches");
    let top_len = rows.len() * MAX_TOP as usize;
    let op = LogProbabilities {
        sampled_tokens,
        chosen: bench.empty(rows.len() * 4),
        ranks: bench.empty(rows.len() * 4),
        top_tokens: bench.empty(top_len * 4),
        top: bench.empty(top_len * 4),
    };
    sampler::log_probabilities(device, &of, &op).expect("launches");

    let sampled = bench.read_u32(sampled_tokens, 2 * rows.len());
    assert_eq!(sampled[rows.len()..], vec![1; rows.len()]);
    let chosen = bench.read_f32(op.chosen, rows.len());
    let ranks = bench.read_u32(op.ranks, rows.len());
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
            &SampleRow::new(&params, row.position, 0),
        );
        assert_eq!(sampled[idx], expected.token.0, "{row:?}");
        let Some(expected) = expected.logprobs else {
            continue;
        };
        // Sums of f32 in another order.
        let tolerance = (1e-5, 2e-5);
        assert_close("chosen", &[chosen[idx]], &[expected.logprob], tolerance);
        assert_eq!(ranks[idx], expected.rank, "{row:?}");
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
        check_samples(device, 3000, 1 << 20);
        check_samples(device, 1500, 24);
        check_samples(device, 30, 1 << 20);
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
    let sampled_tokens = bench.empty(16);
    sampler::sample(device, &of, sampled_tokens).expect("launches");
    assert_eq!(bench.read_u32(sampled_tokens, 2), [1200, 5]);
}

#[test]
fn greedy_takes_the_first_of_equals() {
    emulated(check_greedy);
}

/// What is no distribution is told, and the sample is a token all the same: the next step may look it
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
            let sampled_tokens = bench.empty(40);
            sampler::sample(device, &of, sampled_tokens).expect("launches");
            let sampled = bench.read_u32(sampled_tokens, 10);
            assert!(
                sampled[..5].iter().all(|&token| token < 1500),
                "{sampled:?}"
            );
            assert_eq!(sampled[5..], [0, 0, 0, 0, 1]);
            assert_eq!(sampled[4], 1499);
        }
    }
}

#[test]
fn what_is_no_distribution_is_told() {
    emulated(check_soundness);
}

/// A backend that has only to sample.
fn backend(device: &TestDevice) -> CudaBackend<&TestDevice> {
    let plan = CudaPlan {
        max_rows: 16,
        max_sequences: 8,
        max_model_len: 64,
        heads: HeadShape {
            num_heads: 1,
            num_kv_heads: 1,
            head_dim: 64,
        },
        groups: KvGroups::default(),
        activation_bytes: 16 << 20,
        captured_bytes: 0,
        feature_bytes: 0,
        replay: Replay::Never,
        num_multiprocessors: 3,
    };
    CudaBackend::new(device, plan).expect("host memory")
}

fn tokens(random: &mut Random, count: usize) -> Vec<TokenId> {
    (0..count)
        .map(|_| TokenId(random.below(5000) as u32))
        .collect()
}

/// Masks, biases, bans and penalties alone and together against the host's, which are the
/// specification, and nothing that is forbidden is sampled.
fn check_wishes(device: &TestDevice) {
    const VOCAB: usize = 5000;
    let backend = backend(device);
    let mut random = Random(3);
    let mut mask = TokenMask::none(VOCAB);
    (0..VOCAB as u32)
        .filter(|_| random.below(3) == 0)
        .for_each(|token| mask.allow(TokenId(token)));
    let mut seen = SeenTokens::of_prompt(&tokens(&mut random, 900));
    tokens(&mut random, 700)
        .into_iter()
        .for_each(|t| seen.add(t));
    // At both ends of the kernel's chunks of the vocabulary.
    let bent = SamplingParams {
        logit_bias: [
            (0, 5.0),
            (4095, 30.0),
            (4096, -2.5),
            (4999, 9.0),
            (6000, 1.0),
        ]
        .map(|(token, bias)| (TokenId(token), bias))
        .into(),
        stop_token_ids: [7, 1, 4095].map(TokenId).to_vec(),
        presence_penalty: 0.5,
        frequency_penalty: -0.25,
        repetition_penalty: 1.5,
        ..SamplingParams::greedy(9)
    };
    let mut wishes = Vec::new();
    for min_tokens in [0, 3] {
        for temperature in [0.0, 1.0, 4.0] {
            let top_k = NonZeroU32::new(random.below(60) as u32);
            wishes.push(SamplingParams {
                temperature,
                min_tokens,
                top_k,
                seed: random.bits(),
                top_logprobs: Some(4),
                logprob_token_ids: match temperature {
                    4.0 => Arc::from([3, 4999, 0, 4095].map(TokenId)),
                    _ => Arc::default(),
                },
                ..bent.clone()
            });
        }
    }
    let plain = SamplingParams::greedy(1);
    wishes.push(plain);
    let mut rows = Vec::new();
    for params in &wishes {
        let row = SampleRow::new(params, random.below(5000), 2);
        for mask in [None, Some(&mask)] {
            for seen in [None, Some(&seen)] {
                rows.push(SampleRow { mask, seen, ..row });
            }
        }
    }
    let logits: Vec<f32> = random.numbers(rows.len() * VOCAB);
    let logits: Vec<f32> = logits.iter().map(|x| 8.0 * x).collect();
    let on_device = HostTensor {
        dtype: HostDtype::F32,
        shape: vec![rows.len(), VOCAB],
        data: logits.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    let on_device = backend.parameter(on_device).expect("room");
    let sampled_tokens = backend.sample(&on_device, &rows).expect("launches");
    let sampled = backend.sampled(&sampled_tokens).expect("they come");
    assert_eq!(sampled.len(), rows.len());
    for (idx, (sampled, row)) in sampled.iter().zip(&rows).enumerate() {
        let expected = sample_row(&logits[idx * VOCAB..][..VOCAB], row);
        assert_eq!(sampled.token, expected.token, "{idx} {:?}", row.params);
        assert!(sampled.is_finite);
        assert!(row.mask.is_none_or(|mask| mask.contains(sampled.token)));
        let ranks = |sampled: &Sampled| sampled.logprobs.as_ref().map(|l| l.rank);
        assert_eq!(ranks(sampled), ranks(&expected));
        let top = |sampled: &Sampled| -> (Vec<TokenId>, Vec<f32>) {
            let top = sampled.logprobs.iter().flat_map(|logprobs| &logprobs.top);
            top.copied().unzip()
        };
        let ((ours, ours_logprobs), (theirs, theirs_logprobs)) = (top(sampled), top(&expected));
        assert_eq!(ours, theirs, "{idx}");
        assert_close("top", &ours_logprobs, &theirs_logprobs, (1e-5, 2e-5));
    }

    // Scores are of the model's own distribution.
    let scored: Vec<_> = sampled
        .iter()
        .map(|sampled| ScoreRow {
            token: sampled.token,
            num_top: 4,
        })
        .collect();
    let scores = backend.score(&on_device, &scored).expect("launches");
    let scores = backend.sampled(&scores).expect("they come");
    for (idx, (score, row)) in scores.iter().zip(&scored).enumerate() {
        let expected = score_row(&logits[idx * VOCAB..][..VOCAB], row);
        let (ours, theirs) = (&score.logprobs, &expected.logprobs);
        let (ours, theirs) = (
            ours.as_ref().expect("wanted"),
            theirs.as_ref().expect("wanted"),
        );
        assert_eq!((score.token, ours.rank), (row.token, theirs.rank));
        assert_close("score", &[ours.logprob], &[theirs.logprob], (1e-5, 2e-5));
        let top = |l: &TokenLogprobs| l.top.iter().map(|(t, _)| *t).collect::<Vec<_>>();
        assert_eq!(top(ours), top(theirs));
    }
}

#[test]
fn wishes_bend_the_draws_as_the_hosts() {
    emulated(check_wishes);
}
