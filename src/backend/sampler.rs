//! Samples a token from one row of logits: the specification of sampling, in plain Rust.
//!
//! The order is vLLM's: bans, biases and penalties (`adjust`), temperature, min-p, top-k, top-p.
//! The sample is the winner of an exponential race: every remaining token gets a waiting time that
//! depends only on seed, position and token. So the result does not depend on the batch, and hardly
//! on rounding.

use std::borrow::Cow;

use crate::backend::adjust::adjusted;
use crate::backend::sampling::{SampleRow, Sampled, ScoreRow, name_tokens};
use crate::core::{SamplingParams, TokenId, TokenLogprobs};

/// Samples the row's next token. Nothing is sampled if the logits are not finite or no token is
/// allowed.
pub fn sample_row(logits: &[f32], row: &SampleRow<'_>) -> Sampled {
    let params = row.params;
    let adjusted_logits = adjusted(logits, row);
    let leaves_something = match &adjusted_logits {
        Cow::Borrowed(_) => true,
        Cow::Owned(adjusted_logits) => are_sound(adjusted_logits),
    };
    if !are_sound(logits) || !leaves_something {
        return Sampled {
            token: TokenId(0),
            logprobs: None,
            is_finite: false,
        };
    }
    let token = if params.temperature == 0.0 {
        greedy(&adjusted_logits)
    } else {
        sample(&adjusted_logits, row)
    };
    let logprobs = params.top_logprobs.map(|num_top| {
        let logprobs = logprobs_of(logits, token, num_top);
        name_tokens(logprobs, token, &params.logprob_token_ids, logits)
    });
    Sampled {
        token,
        logprobs,
        is_finite: true,
    }
}

/// Returns log-probabilities of a row whose next token is known.
pub fn score_row(logits: &[f32], row: &ScoreRow) -> Sampled {
    Sampled {
        token: row.token,
        logprobs: Some(logprobs_of(logits, row.token, row.num_top)),
        is_finite: are_sound(logits),
    }
}

/// Whether softmax of these logits is a distribution: no NaN, and the largest is finite. A logit of
/// −∞ is a token of probability 0.
fn are_sound(logits: &[f32]) -> bool {
    // Not `any`: without an early exit the loop is vectorised.
    let has_nan = logits.iter().fold(false, |nan, logit| nan | logit.is_nan());
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    !has_nan && best.is_finite()
}

/// Returns the first of the largest logits, like `torch.argmax` on the CPU.
fn greedy(logits: &[f32]) -> TokenId {
    let mut best = TokenId(0);
    let mut best_logit = f32::NEG_INFINITY;
    for (idx, &logit) in logits.iter().enumerate() {
        if logit > best_logit {
            best = token(idx);
            best_logit = logit;
        }
    }
    best
}

fn token(idx: usize) -> TokenId {
    TokenId(u32::try_from(idx).expect("a vocabulary fits in u32"))
}

/// A token that may still be sampled, with its logit divided by the temperature.
#[derive(Clone, Copy)]
struct Candidate {
    token: TokenId,
    scaled: f32,
}

fn sample(logits: &[f32], row: &SampleRow<'_>) -> TokenId {
    let params = row.params;
    let mut candidates = candidates(logits, params);
    if let Some(top_k) = params.top_k {
        keep_best(&mut candidates, top_k.get() as usize);
    }
    if params.top_p < 1.0 {
        keep_nucleus(&mut candidates, params.top_p);
    }
    race(&candidates, params.seed, row.position)
}

/// Returns the allowed tokens that pass min-p.
fn candidates(logits: &[f32], params: &SamplingParams) -> Vec<Candidate> {
    let inverse = 1.0 / params.temperature;
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // p / p_best ≥ min_p, in logarithms.
    let floor = if params.min_p > 0.0 {
        best * inverse + params.min_p.ln()
    } else {
        f32::NEG_INFINITY
    };
    logits
        .iter()
        .enumerate()
        .map(|(idx, &logit)| Candidate {
            token: token(idx),
            scaled: logit * inverse,
        })
        .filter(|candidate| candidate.scaled >= floor && candidate.scaled > f32::NEG_INFINITY)
        .collect()
}

/// Orders candidates best first, equal ones by id, so that top-k and top-p do not depend on the
/// sort.
fn best_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.scaled.total_cmp(&a.scaled).then(a.token.cmp(&b.token))
}

/// Keeps the `k` best, in any order.
fn keep_best(candidates: &mut Vec<Candidate>, k: usize) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, best_first);
        candidates.truncate(k);
    }
}

/// Keeps the smallest set of best candidates whose probability sum reaches `top_p`.
fn keep_nucleus(candidates: &mut Vec<Candidate>, top_p: f32) {
    let best = candidates
        .iter()
        .fold(f32::NEG_INFINITY, |best, candidate| {
            best.max(candidate.scaled)
        });
    // f64: the tail of 262k small probabilities must not vanish in the sum.
    let weight = |candidate: &Candidate| f64::from((candidate.scaled - best).exp());
    let target = f64::from(top_p) * candidates.iter().map(weight).sum::<f64>();

    // Few tokens hold most of the probability, so sort few first and more only when needed.
    let mut num_sorted = 0;
    let mut reached = 0.0;
    let mut chunk = 256;
    while num_sorted < candidates.len() {
        let rest = &mut candidates[num_sorted..];
        let num_next = chunk.min(rest.len());
        if num_next < rest.len() {
            rest.select_nth_unstable_by(num_next, best_first);
        }
        let next = &mut rest[..num_next];
        next.sort_unstable_by(best_first);
        for (idx, candidate) in next.iter().enumerate() {
            reached += weight(candidate);
            if reached >= target {
                let num_kept = num_sorted + idx + 1;
                candidates.truncate(num_kept);
                return;
            }
        }
        num_sorted += num_next;
        chunk *= 8;
    }
}

/// Returns the winner of an exponential race: token i wins with probability `softmax(scaled)[i]`.
fn race(candidates: &[Candidate], seed: u64, position: usize) -> TokenId {
    let stream = stream(seed, position);
    let mut winner = TokenId(0);
    let mut best = f32::NEG_INFINITY;
    for candidate in candidates {
        // Waiting times give an advantage of less than 23, so most tokens need no random number.
        if candidate.scaled + 23.0 <= best {
            continue;
        }
        let score = candidate.scaled - waiting_time(stream, candidate.token).ln();
        if score > best {
            best = score;
            winner = candidate.token;
        }
    }
    winner
}

/// Returns the random state from which the numbers of all tokens at this position are derived.
pub(in crate::backend) fn stream(seed: u64, position: usize) -> u64 {
    mix(seed ^ mix(position as u64))
}

/// Returns an exponentially distributed number of rate 1 for this token.
fn waiting_time(stream: u64, token: TokenId) -> f32 {
    let bits = (mix(stream.wrapping_add(u64::from(token.0))) >> 32) as f32;
    // ln_1p keeps short waiting times exact, and these decide the race.
    let uniform = (bits + 0.5) * (1.0 / 4_294_967_296.0);
    -(-uniform.min(0.999_999_94)).ln_1p()
}

/// SplitMix64's step and finaliser: every input bit reaches every output bit.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Log-probabilities of the model's own distribution: without temperature, filters or bans.
fn logprobs_of(logits: &[f32], token: TokenId, num_top: usize) -> TokenLogprobs {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // f64: a sum of 262k terms, compared with the reference to 1e-4.
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from((logit - best).exp()))
        .sum();
    let log_sum = best + sum.ln() as f32;
    let top = best_of(logits, num_top)
        .into_iter()
        .map(|candidate| (candidate.token, candidate.scaled - log_sum))
        .collect();
    let logit = logits[token.0 as usize];
    let rank = logits
        .iter()
        .fold(0, |rank, &other| rank + u32::from(other >= logit));
    TokenLogprobs {
        logprob: logit - log_sum,
        rank,
        top,
    }
}

/// Returns the `k` largest logits, best first, in one pass.
fn best_of(logits: &[f32], k: usize) -> Vec<Candidate> {
    let mut best: Vec<Candidate> = Vec::with_capacity(k + 1);
    for (idx, &logit) in logits.iter().enumerate() {
        if best.len() == k && best.last().is_none_or(|worst| logit <= worst.scaled) {
            continue;
        }
        let candidate = Candidate {
            token: token(idx),
            scaled: logit,
        };
        let place = best.partition_point(|other| best_first(other, &candidate).is_lt());
        best.insert(place, candidate);
        best.truncate(k);
    }
    best
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::backend::seen_tokens::SeenTokens;
    use crate::core::TokenMask;

    fn row(params: &SamplingParams) -> SampleRow<'_> {
        SampleRow::new(params, 7, 0)
    }

    fn warm() -> SamplingParams {
        SamplingParams {
            temperature: 1.0,
            ..SamplingParams::greedy(16)
        }
    }

    /// Returns how often each of `logits`' tokens is sampled over many positions.
    fn shares(logits: &[f32], params: &SamplingParams) -> Vec<f64> {
        let num_sampled_tokens = 20_000;
        let mut counts = vec![0_u32; logits.len()];
        for position in 0..num_sampled_tokens {
            let row = SampleRow {
                position,
                ..row(params)
            };
            counts[sample_row(logits, &row).token.0 as usize] += 1;
        }
        counts
            .iter()
            .map(|&count| f64::from(count) / num_sampled_tokens as f64)
            .collect()
    }

    fn assert_close(shares: &[f64], expected: &[f64]) {
        for (share, expected) in shares.iter().zip(expected) {
            // Four standard deviations of 20,000 samples.
            assert!((share - expected).abs() < 0.015, "{shares:?} {expected:?}");
        }
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let params = SamplingParams::greedy(1);
        assert_eq!(
            sample_row(&[1.0, 3.0, 3.0], &row(&params)).token,
            TokenId(1)
        );
    }

    #[test]
    fn what_is_no_distribution_is_not_sampled_from() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for params in [SamplingParams::greedy(1), warm()] {
            let params = SamplingParams {
                top_logprobs: Some(2),
                ..params
            };
            for logits in [
                [nan, 1.0, 2.0],
                [1.0, 2.0, -nan],
                [nan; 3],
                [-inf; 3],
                [1.0, inf, 2.0],
            ] {
                let sampled = sample_row(&logits, &row(&params));
                assert!(!sampled.is_finite, "{logits:?}");
                assert_eq!((sampled.token, sampled.logprobs), (TokenId(0), None));
            }
            let sampled = sample_row(&[-inf, 1.0, -inf], &row(&params));
            assert!(sampled.is_finite);
            assert_eq!(sampled.token, TokenId(1));
        }
    }

    #[test]
    fn named_tokens_take_the_place_of_the_best() {
        let logits = [0.5_f32, 0.25, 0.125, 0.125].map(f32::ln);
        let params = SamplingParams {
            top_logprobs: Some(2),
            logprob_token_ids: [3, 1].map(TokenId).into(),
            ..SamplingParams::greedy(1)
        };
        let sampled = sample_row(&logits, &row(&params));
        let logprobs = sampled.logprobs.expect("it asks for them");
        assert!((logprobs.logprob - 0.5_f32.ln()).abs() < 1e-6);
        let expected = [(3, 0.125_f32), (1, 0.25)];
        assert_eq!(logprobs.top.len(), 2);
        for ((token, logprob), (id, probability)) in logprobs.top.into_iter().zip(expected) {
            assert_eq!(token, TokenId(id));
            assert!((logprob - probability.ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits: Vec<f32> = [0.5_f32, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        assert_close(&shares(&logits, &warm()), &[0.5, 0.3, 0.2]);
    }

    #[test]
    fn temperature_sharpens() {
        let logits: Vec<f32> = [0.5_f32, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        let params = SamplingParams {
            temperature: 0.5,
            ..warm()
        };
        assert_close(&shares(&logits, &params), &[0.657_9, 0.236_8, 0.105_3]);
    }

    #[test]
    fn filters_cut_and_renormalise() {
        let logits: Vec<f32> = [0.2_f32, 0.5, 0.1, 0.2].iter().map(|p| p.ln()).collect();
        let top_k = SamplingParams {
            top_k: NonZeroU32::new(2),
            ..warm()
        };
        // The first of the two equal tokens is kept.
        assert_close(&shares(&logits, &top_k), &[2.0 / 7.0, 5.0 / 7.0, 0.0, 0.0]);
        let top_p = SamplingParams {
            top_p: 0.6,
            ..warm()
        };
        assert_close(&shares(&logits, &top_p), &[2.0 / 7.0, 5.0 / 7.0, 0.0, 0.0]);
        let min_p = SamplingParams {
            min_p: 0.3,
            ..warm()
        };
        assert_close(
            &shares(&logits, &min_p),
            &[2.0 / 9.0, 5.0 / 9.0, 0.0, 2.0 / 9.0],
        );
    }

    #[test]
    fn nucleus_reaches_past_the_first_sorted_chunk() {
        let logits = vec![0.0_f32; 5_000];
        let mut candidates: Vec<Candidate> = (0..5_000)
            .map(|idx| Candidate {
                token: token(idx),
                scaled: logits[idx],
            })
            .collect();
        keep_nucleus(&mut candidates, 0.5);
        assert_eq!(candidates.len(), 2_500);
        assert!(candidates.iter().all(|candidate| candidate.token.0 < 2_500));
    }

    #[test]
    fn draws_depend_on_seed_and_position_only() {
        let logits = vec![0.0_f32; 1_000];
        let params = warm();
        let at = |seed, position| {
            let params = SamplingParams {
                seed,
                ..params.clone()
            };
            let row = SampleRow {
                position,
                ..row(&params)
            };
            sample_row(&logits, &row).token
        };
        assert_eq!(at(1, 5), at(1, 5));
        assert_ne!(at(1, 5), at(2, 5));
        assert_ne!(at(1, 5), at(1, 6));
    }

    #[test]
    fn stop_tokens_wait_for_min_tokens() {
        for temperature in [0.0, 1.0] {
            let params = SamplingParams {
                temperature,
                min_tokens: 2,
                stop_token_ids: vec![TokenId(1)],
                top_logprobs: Some(1),
                ..warm()
            };
            let mut row = row(&params);
            row.num_generated = 1;
            let sampled = sample_row(&[0.0, 50.0], &row);
            assert_eq!(sampled.token, TokenId(0));
            // The ban does not affect the log-probabilities.
            assert_eq!(sampled.logprobs.expect("asked for").top[0].0, TokenId(1));
            row.num_generated = 2;
            assert_eq!(sample_row(&[0.0, 50.0], &row).token, TokenId(1));
        }
    }

    #[test]
    fn what_leaves_nothing_to_sample_is_not_sampled_from() {
        for temperature in [0.0, 1.0] {
            let params = SamplingParams {
                temperature,
                min_tokens: 2,
                stop_token_ids: vec![TokenId(1)],
                top_k: NonZeroU32::new(2),
                top_p: 0.9,
                ..warm()
            };
            let mut mask = TokenMask::none(4);
            mask.allow(TokenId(1));
            let mut row = SampleRow {
                mask: Some(&mask),
                ..row(&params)
            };
            assert!(!sample_row(&[0.0; 4], &row).is_finite);
            row.num_generated = 2;
            let sampled = sample_row(&[9.0, -9.0, 9.0, 9.0], &row);
            assert!(sampled.is_finite);
            assert_eq!(sampled.token, TokenId(1));
        }
    }

    #[test]
    fn filters_cut_what_is_allowed() {
        // The best two are forbidden, and top-k counts the remaining ones.
        let logits: Vec<f32> = [0.4_f32, 0.3, 0.15, 0.1, 0.05]
            .iter()
            .map(|p| p.ln())
            .collect();
        let mut mask = TokenMask::all(5);
        mask.forbid(TokenId(0));
        mask.forbid(TokenId(1));
        let params = SamplingParams {
            top_k: NonZeroU32::new(2),
            ..warm()
        };
        let mut counts = [0_u32; 5];
        for position in 0..20_000 {
            let row = SampleRow {
                position,
                mask: Some(&mask),
                ..row(&params)
            };
            counts[sample_row(&logits, &row).token.0 as usize] += 1;
        }
        let shares: Vec<f64> = counts.iter().map(|&c| f64::from(c) / 20_000.0).collect();
        assert_close(&shares, &[0.0, 0.0, 0.6, 0.4, 0.0]);
    }

    #[test]
    fn a_scored_token_is_ranked_among_all() {
        let logits: Vec<f32> = [0.2_f32, 0.4, 0.2, 0.15, 0.05]
            .iter()
            .map(|p| p.ln())
            .collect();
        for (token, rank) in [(0, 3), (1, 1), (2, 3), (3, 4), (4, 5)] {
            let row = ScoreRow {
                token: TokenId(token),
                num_top: 1,
            };
            let scored = score_row(&logits, &row);
            let logprobs = scored.logprobs.expect("always");
            assert_eq!((scored.token, logprobs.rank), (TokenId(token), rank));
            assert!((logprobs.logprob - logits[token as usize]).abs() < 1e-6);
            assert_eq!(logprobs.top.len(), 1);
        }
    }

    #[test]
    fn logprobs_are_of_the_models_own_distribution() {
        let logits: Vec<f32> = [0.2_f32, 0.5, 0.3].iter().map(|p| p.ln() + 3.0).collect();
        let params = SamplingParams {
            temperature: 0.25,
            top_k: NonZeroU32::new(1),
            top_logprobs: Some(2),
            logit_bias: [(TokenId(1), 5.0)].into(),
            repetition_penalty: 1.5,
            ..warm()
        };
        let seen = SeenTokens::of_prompt(&[TokenId(1)]);
        let row = SampleRow {
            seen: Some(&seen),
            ..row(&params)
        };
        let sampled = sample_row(&logits, &row);
        let logprobs = sampled.logprobs.expect("asked for");
        assert_eq!(sampled.token, TokenId(1));
        assert!((logprobs.logprob - 0.5_f32.ln()).abs() < 1e-6);
        assert_eq!(logprobs.top[1].0, TokenId(2));
        assert!((logprobs.top[1].1 - 0.3_f32.ln()).abs() < 1e-6);
    }
}
