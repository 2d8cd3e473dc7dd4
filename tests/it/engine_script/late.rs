//! Samples that need the tokens before them: when each order is given, and what becomes of the others.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex};

use futures_util::{FutureExt, StreamExt};
use medgemma::core::{
    BlockCount, Constraint, ConstraintState, FinishReason, GenerateRequest, NextMask,
    SamplingParams, SchedulingParams, TokenId, TokenMask, Urgency,
};
use medgemma::engine::{EngineConfig, SampleInput, Stepping};
use medgemma::error::{Error, Result};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::stage::{STEPPINGS, STOP, Stage, VOCAB, WORD, ask, config, next, rest, sampled, stage};

/// After `n` tokens only the token `10 + n` is allowed; those sampled are told.
#[derive(Debug)]
struct Counting {
    accepted: Mutex<Vec<TokenId>>,
    /// What goes wrong, by the number of tokens before it.
    faults: HashMap<usize, Fault>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Start,
    Refuse,
    Panic,
    Nothing,
    OnlyStop,
    Everything,
}

#[derive(Debug)]
struct Count {
    rule: Arc<Counting>,
    count: usize,
}

#[derive(Debug)]
struct Rule(Arc<Counting>);

impl Constraint for Rule {
    fn start(&self) -> Result<Box<dyn ConstraintState>> {
        if let Some(Fault::Start) = self.0.faults.get(&0) {
            return Err(Error::Config("it cannot begin".to_owned()));
        }
        Ok(Box::new(Count {
            rule: Arc::clone(&self.0),
            count: 0,
        }))
    }
}

impl Count {
    fn mask(&mut self) -> Result<Option<TokenMask>> {
        let only = |token| {
            let mut mask = TokenMask::none(VOCAB);
            mask.allow(token);
            Ok(Some(mask))
        };
        match self.rule.faults.get(&self.count) {
            Some(Fault::Refuse) => Err(Error::Config("it goes no further".to_owned())),
            Some(Fault::Panic) => panic!("a rule with a hole"),
            Some(Fault::Nothing) => Ok(Some(TokenMask::none(VOCAB))),
            Some(Fault::OnlyStop) => only(STOP),
            Some(Fault::Everything) => Ok(None),
            Some(Fault::Start) | None => only(TokenId(10 + self.count as u32)),
        }
    }
}

impl ConstraintState for Count {
    fn next_mask<'a>(&'a mut self, sampled: &'a [TokenId], _: usize, _: Urgency) -> NextMask<'a> {
        self.count += sampled.len();
        self.rule.accepted.lock().expect("alone").extend(sampled);
        let mask = self.mask();
        Box::pin(ready(mask))
    }
}

fn counting(faults: &[(usize, Fault)]) -> Arc<Counting> {
    Arc::new(Counting {
        accepted: Mutex::default(),
        faults: faults.iter().copied().collect(),
    })
}

fn bound(rule: &Arc<Counting>, request: GenerateRequest) -> GenerateRequest {
    GenerateRequest {
        constraint: Some(Arc::new(Rule(Arc::clone(rule)))),
        ..request
    }
}

fn with(stepping: Stepping) -> Stage {
    stage(EngineConfig {
        stepping,
        ..config()
    })
}

/// The only token that a sample allows.
fn only(sample: &SampleInput) -> TokenId {
    let mask = sample.mask.as_ref().expect("it is bound");
    let mut allowed = (0..VOCAB as u32).map(TokenId).filter(|t| mask.contains(*t));
    let token = allowed.next().expect("something is allowed");
    assert_eq!(allowed.next(), None, "only one");
    token
}

impl Stage {
    /// Answers a step: those that are bound get their one token, the others `WORD`.
    fn sample_all(&self, samples: &[SampleInput]) {
        let sampled = samples.iter().map(|sample| match &sample.mask {
            Some(_) => sampled(only(sample)),
            None => sampled(WORD),
        });
        self.report(sampled.collect());
    }
}

fn tokens(events: Vec<Result<medgemma::core::TokenEvent>>) -> Vec<u32> {
    let tokens = events.into_iter();
    tokens
        .map(|event| event.expect("a token").token.0)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_bound_sample_is_ordered_once_its_token_is_known() {
    let rule = counting(&[]);
    let mut stage = with(Stepping::Ahead);
    let stream = stage.submit(bound(&rule, ask(8, 3)));
    // Nothing is waited for before the first token.
    let first = stage.begun().await;
    assert_eq!((first.input.logit_rows.len(), first.samples.len()), (1, 0));
    let mut samples = stage.sampled_tokens().await;
    for position in 9..11 {
        assert_eq!(samples[0].position, position - 1);
        // The next forward is under way before the token is known, its sample is not.
        let fed = stage.begun().await;
        assert_eq!(fed.input.sampled_inputs.len(), 1);
        assert_eq!(fed.input.positions, [position as u32 - 1]);
        stage.asked().await;
        stage.settle().await;
        assert!(stage.is_quiet());
        stage.sample_all(&samples);
        samples = stage.sampled_tokens().await;
    }
    stage.asked().await;
    stage.sample_all(&samples);
    assert_eq!(tokens(rest(stream).await), [10, 11, 12]);
    assert_eq!(*rule.accepted.lock().expect("alone"), [10, 11].map(TokenId));
    stage.settle().await;
    assert!(stage.is_quiet());
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn alternating_a_bound_sample_comes_with_its_step() {
    let rule = counting(&[(1, Fault::Everything)]);
    let mut stage = with(Stepping::Alternating);
    let bound = stage.submit(bound(&rule, ask(8, 3)));
    let free = stage.submit(ask(8, 2));
    for (num_rows, is_masked) in [(2, true), (2, false), (1, true)] {
        let begun = stage.begun().await;
        assert_eq!(begun.input.logit_rows.len(), num_rows);
        let samples = stage.sampled_tokens().await;
        assert_eq!(samples.len(), num_rows);
        assert_eq!(samples[0].mask.is_some(), is_masked);
        assert!(samples[1..].iter().all(|sample| sample.mask.is_none()));
        stage.asked().await;
        stage.sample_all(&samples);
    }
    assert_eq!(tokens(rest(bound).await), [10, WORD.0, 12]);
    assert_eq!(tokens(rest(free).await), [WORD.0; 2]);
    stage.settle().await;
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn only_steps_with_bound_rows_wait_for_tokens() {
    let rule = counting(&[]);
    let mut stage = with(Stepping::Ahead);
    let free = stage.submit(ask(8, 6));
    stage.launched().await;
    stage.launched().await;
    stage.asked().await;
    // It comes while two steps are under way.
    let bound = stage.submit(bound(&rule, ask(8, 2)));
    stage.report(vec![sampled(WORD)]);
    // Planned as far ahead as ever, in one part with nothing of the bound one's to sample …
    let begun = stage.begun().await;
    assert_eq!(begun.input.logit_rows.len(), 2);
    stage.asked().await;
    stage.report(vec![sampled(WORD)]);
    let samples = stage.sampled_tokens().await;
    assert_eq!(samples.len(), 2);
    let second = stage.begun().await;
    assert_eq!(second.input.sampled_inputs.len(), 2);
    stage.asked().await;
    stage.sample_all(&samples);
    let samples = stage.sampled_tokens().await;
    assert_eq!(only(&samples[1]), TokenId(11));
    // … and once it has ended nobody waits any more: the next is whole, before these are known.
    let alone = stage.launched().await;
    assert_eq!(alone.samples.len(), 1);
    stage.asked().await;
    stage.sample_all(&samples);
    assert_eq!(tokens(rest(bound).await), [10, 11]);
    for _ in 0..2 {
        let order = stage.order().await;
        assert!(
            matches!(
                order,
                medgemma::engine::DeviceCommand::Launch(_)
                    | medgemma::engine::DeviceCommand::Collect
            ),
            "{order:?}"
        );
        if let medgemma::engine::DeviceCommand::Launch(_) = order {
            stage.asked().await;
        }
        stage.report(vec![sampled(WORD)]);
    }
    assert_eq!(tokens(rest(free).await), [WORD.0; 6]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_fails_ends_its_own_request_only() {
    for stepping in STEPPINGS {
        for (fault, after) in [
            (Fault::Start, 0),
            (Fault::Refuse, 0),
            (Fault::Refuse, 1),
            (Fault::Panic, 1),
            (Fault::Nothing, 1),
            (Fault::OnlyStop, 1),
        ] {
            let rule = counting(&[(after, fault)]);
            let mut stage = with(stepping);
            let mut request = bound(&rule, ask(8, 4));
            request.sampling.min_tokens = 2;
            let failing = stage.submit(request);
            let neighbour = stage.submit(ask(8, 4));
            stage.play_all().await;
            let events = rest(failing).await;
            assert_eq!(events.len(), after + 1, "{fault:?}");
            let error = events.into_iter().next_back().expect("it ends");
            let error = error.expect_err("it fails");
            match fault {
                Fault::Start | Fault::Refuse => assert!(matches!(error, Error::Config(_))),
                _ => assert!(
                    matches!(error, Error::Constraint { num_tokens, .. } if num_tokens == after),
                    "{error}"
                ),
            }
            assert_eq!(tokens(rest(neighbour).await), [WORD.0; 4]);
            stage.settle().await;
            stage.assert_empty();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bound_answer_stops_where_its_rule_lets_it() {
    for stepping in STEPPINGS {
        let rule = counting(&[(2, Fault::OnlyStop)]);
        let mut stage = with(stepping);
        let stream = stage.submit(bound(&rule, ask(8, 9)));
        stage.play_all().await;
        let events = rest(stream).await;
        let last = events.last().expect("it ends").as_ref().expect("no error");
        assert_eq!(last.finish, Some(FinishReason::Stop));
        assert_eq!(tokens(events), [10, 11, STOP.0]);
        stage.assert_empty();
    }
}

/// Masks that wait until the test lets them go on.
#[derive(Debug)]
struct Gated(Gate);

type Gate = Arc<tokio::sync::Mutex<UnboundedReceiver<()>>>;

#[derive(Debug)]
struct Waiting(Gate);

impl Constraint for Gated {
    fn start(&self) -> Result<Box<dyn ConstraintState>> {
        Ok(Box::new(Waiting(Arc::clone(&self.0))))
    }
}

impl ConstraintState for Waiting {
    fn next_mask<'a>(&'a mut self, _: &'a [TokenId], _: usize, _: Urgency) -> NextMask<'a> {
        Box::pin(async {
            let opened = self.0.lock().await.recv().await;
            opened.expect("the test lets it go on");
            Ok(Some(TokenMask::all(VOCAB)))
        })
    }
}

fn gated(request: GenerateRequest) -> (UnboundedSender<()>, GenerateRequest) {
    let (open, gate) = unbounded_channel();
    let rule = Gated(Arc::new(tokio::sync::Mutex::new(gate)));
    let constraint: Option<Arc<dyn Constraint>> = Some(Arc::new(rule));
    (
        open,
        GenerateRequest {
            constraint,
            ..request
        },
    )
}

#[tokio::test(start_paused = true)]
async fn who_leaves_between_forward_and_sample_is_forgotten() {
    for stepping in STEPPINGS {
        let mut stage = with(stepping);
        let (open, request) = gated(ask(8, 4));
        let leaving = stage.submit(request);
        let neighbour = stage.submit(ask(8, 3));
        assert_eq!(stage.begun().await.input.logit_rows.len(), 2);
        // Its mask is being made; the engine hears of everything else meanwhile.
        drop(leaving);
        let refused = stage.submit(ask(8, 1));
        drop(refused);
        stage.settle().await;
        assert_eq!(stage.handle.num_in_flight(), 1);
        let gone = open.send(());
        assert!(gone.is_err(), "nobody makes a mask for who left");
        // The step is sampled as it was planned, and nobody gets what was for the one that left.
        let samples = stage.sampled_tokens().await;
        assert_eq!(samples.len(), 2);
        match stepping {
            Stepping::Alternating => {}
            Stepping::Ahead => {
                let ahead = stage.launched().await;
                assert_eq!(ahead.samples.len(), 1);
                stage.sampled_tokens.push_back(ahead.samples);
            }
        }
        stage.asked().await;
        stage.report(vec![sampled(WORD); 2]);
        stage.play_all().await;
        assert_eq!(tokens(rest(neighbour).await), [WORD.0; 3]);
        stage.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn penalties_see_every_token_before_theirs() {
    for stepping in STEPPINGS {
        let mut stage = with(stepping);
        let penalised = |sampling: SamplingParams| GenerateRequest {
            sampling,
            ..ask(8, 3)
        };
        let plain = ask(8, 3).sampling;
        let stream = stage.submit(penalised(SamplingParams {
            repetition_penalty: 1.5,
            ..plain.clone()
        }));
        let second = stage.submit(penalised(SamplingParams {
            presence_penalty: -0.5,
            ..plain
        }));
        let mut seen = Vec::new();
        while seen.len() < 3 {
            match stage.order().await {
                medgemma::engine::DeviceCommand::Sample(samples) => {
                    let told = |sample: &SampleInput| {
                        let seen = sample.seen.as_ref().expect("penalties");
                        let seen = seen.as_slice().iter();
                        seen.map(|s| (s.token.0, s.num_sampled, s.in_prompt))
                            .collect::<Vec<_>>()
                    };
                    seen.push((told(&samples[0]), told(&samples[1])));
                    let token = TokenId(6 + seen.len() as u32);
                    stage.report(vec![sampled(token); 2]);
                }
                medgemma::engine::DeviceCommand::Launch(order) => panic!("{order:?}"),
                _ => {}
            }
        }
        // The prompt is eight times 7, and 7, 8, 9 are sampled. It counts for repetition only.
        assert_eq!(
            seen,
            [
                (vec![(7, 0, true)], vec![]),
                (vec![(7, 1, true)], vec![(7, 1, false)]),
                (
                    vec![(7, 1, true), (8, 1, false)],
                    vec![(7, 1, false), (8, 1, false)]
                ),
            ]
        );
        for stream in [stream, second] {
            assert_eq!(tokens(rest(stream).await), [7, 8, 9]);
        }
        stage.settle().await;
        stage.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn a_preempted_answer_goes_on_where_it_was() {
    for stepping in STEPPINGS {
        // Room for either answer.
        let mut config = config();
        config.stepping = stepping;
        config.limits.scheduler.num_blocks = BlockCount::new(&[4, 8]);
        let mut stage = stage(config);
        let (first, second) = (counting(&[]), counting(&[]));
        let early = stage.submit(bound(&second, ask(40, 60)));
        for _ in 0..10 {
            stage.play_step().await;
        }
        let urgent = SchedulingParams {
            priority: -1,
            ..SchedulingParams::default()
        };
        let urgent = GenerateRequest {
            scheduling: urgent,
            ..ask(60, 60)
        };
        let urgent = stage.submit(bound(&first, urgent));
        stage.play_all().await;
        assert!(stage.handle.stats().num_preemptions > 0);
        let expected: Vec<u32> = (10..70).collect();
        for stream in [early, urgent] {
            assert_eq!(tokens(rest(stream).await), expected);
        }
        for rule in [first, second] {
            let accepted = rule.accepted.lock().expect("alone");
            let accepted: Vec<u32> = accepted.iter().map(|token| token.0).collect();
            assert_eq!(
                accepted,
                expected[..59],
                "each once, and the last needs no more"
            );
        }
        stage.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_event_tells_of_the_prompt() {
    let mut stage = stage(config());
    let prompt: Vec<TokenId> = (10..90).map(TokenId).collect();
    let mut stream = stage.submit(GenerateRequest {
        prompt_logprobs: Some(1),
        prompt: prompt.clone(),
        ..ask(80, 2)
    });
    let score = |row: &medgemma::backend::ScoreRow| medgemma::backend::Sampled {
        logprobs: Some(medgemma::core::TokenLogprobs {
            logprob: -(row.token.0 as f32),
            rank: row.token.0,
            top: vec![(row.token, 0.0); row.num_top],
        }),
        ..sampled(row.token)
    };
    // 64 and 16 tokens: what comes behind the first chunk's last row is scored with it.
    for (num_sampled, num_scored) in [(0, 64), (1, 15)] {
        let order = stage.launched().await;
        let scores: Vec<_> = order.scores.iter().flat_map(|run| &run.rows).collect();
        assert_eq!(
            (order.samples.len(), scores.len()),
            (num_sampled, num_scored)
        );
        stage.asked().await;
        let scores = scores.into_iter().map(score).collect();
        stage.report_all(vec![sampled(WORD); num_sampled], scores);
    }
    let event = next(&mut stream).await.expect("a token");
    let told = event.prompt_logprobs.expect("it was asked for");
    let ranks: Vec<_> = told.iter().map(|logprobs| TokenId(logprobs.rank)).collect();
    assert_eq!(ranks, prompt[1..]);
    assert!(stage.step().await.scores.is_empty());
    let event = next(&mut stream).await.expect("a token");
    assert_eq!(event.prompt_logprobs, None);
}

#[tokio::test(start_paused = true)]
async fn a_mask_that_is_late_keeps_only_its_own_request_waiting() {
    for stepping in STEPPINGS {
        let mut stage = with(stepping);
        let (open, request) = gated(ask(8, 4));
        let mut bound = stage.submit(request);
        let neighbour = stage.submit(ask(8, 40));
        // The clock goes on while nobody has anything to do, up to where patience ends.
        assert_eq!(stage.begun().await.input.logit_rows.len(), 2);
        let samples = stage.sampled_tokens().await;
        assert_eq!(samples.len(), 2);
        stage.sampled_tokens.push_back(samples);
        while stage.handle.num_in_flight() == 2 {
            stage.play_step().await;
        }
        // The neighbour has ended, and nothing was sampled for the other one.
        assert_eq!(tokens(rest(neighbour).await), [WORD.0; 40]);
        assert!(next_now(&mut bound).is_none());
        assert_eq!(stage.handle.stats().num_skipped_masks, 1);
        for _ in 0..4 {
            open.send(()).expect("it waits for it");
        }
        stage.play_all().await;
        assert_eq!(
            tokens(rest(bound).await),
            [0; 4],
            "the first that is allowed"
        );
        stage.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_and_slow_is_waited_for() {
    for stepping in STEPPINGS {
        let mut stage = with(stepping);
        let (open, request) = gated(ask(8, 2));
        let bound = stage.submit(request);
        // Given up for this step; nothing else is to be done, and nothing is broken.
        stage.play_step().await;
        stage.settle().await;
        assert!(stage.is_quiet());
        open.send(()).expect("it waits for it");
        open.send(()).expect("it will wait for it");
        stage.play_all().await;
        assert_eq!(tokens(rest(bound).await), [0; 2]);
        stage.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_held_frees_what_it_has() {
    for stepping in STEPPINGS {
        let mut stage = with(stepping);
        let (open, request) = gated(ask(8, 4));
        let bound = stage.submit(request);
        stage.play_step().await;
        drop(bound);
        stage.settle().await;
        stage.assert_empty();
        // Its mask comes when it is gone.
        let _ = open.send(());
        stage.settle().await;
        let next = stage.submit(ask(8, 1));
        stage.play_all().await;
        assert_eq!(tokens(rest(next).await), [WORD.0]);
        stage.assert_empty();
    }
}

/// What has come by now.
fn next_now(
    stream: &mut medgemma::engine::TokenStream,
) -> Option<Result<medgemma::core::TokenEvent>> {
    stream.next().now_or_never().flatten()
}
