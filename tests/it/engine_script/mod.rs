//! The engine's planning half, with a device that the test plays and a clock that stands still:
//! faults, time limits, cancellation, drain and the door, each at a moment that the test chooses.
//!
//! Engine and test share one thread, and the clock only moves on, to the next timer, when neither
//! has anything to do.

mod late;
mod optional_start;
mod stage;

use std::time::Duration;

use futures_util::FutureExt;
use medgemma::backend::{Sampled, SampledInput};
use medgemma::core::{
    FinishReason, GenerateRequest, ImageHash, ImageSpan, PixelValues, SchedulingParams, TenantId,
    TokenId,
};
use medgemma::engine::{
    DeviceShape, EngineConfig, EngineExit, EngineState, Stepping, TokenStream, device_channel,
};
use medgemma::error::{Error, Result};
use tokio::time::{Instant, advance, sleep};

use stage::{
    STEPPINGS, STOP, VOCAB, WORD, ask, config, next, rest, sampled, stage, stage_of, within,
};

#[tokio::test(start_paused = true)]
async fn a_stuck_step_ends_everything_in_time() {
    let mut stage = stage(EngineConfig {
        step_timeout: Some(Duration::from_secs(120)),
        ..config()
    });
    let mut streams: Vec<_> = (0..3).map(|_| stage.submit(ask(8, 9))).collect();
    // As slow as is allowed, twice.
    for _ in 0..2 {
        let order = stage.launched().await;
        sleep(Duration::from_secs(119)).await;
        stage.report(vec![sampled(WORD); order.samples.len()]);
        stage.asked().await;
    }
    let begun = Instant::now();
    stage.launched().await;
    assert_eq!(stage.exit().await, EngineExit::Fault);
    assert_eq!(begun.elapsed().as_secs(), 120);
    let waiting = streams.pop().expect("three");
    assert_eq!(stage.handle.state(), EngineState::Dead);
    let refused = stage.handle.submit(ask(1, 1));
    assert!(matches!(refused, Err(Error::EngineDead)));
    for (stream, num_tokens) in streams.into_iter().zip([2, 2]) {
        let events = rest(stream).await;
        assert_eq!(events.len(), num_tokens + 1);
        assert!(matches!(events.last(), Some(Err(Error::EngineDead))));
    }
    assert!(matches!(rest(waiting).await[..], [Err(Error::EngineDead)]));
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_process_is_not_the_devices_fault() {
    let mut stage = stage(EngineConfig {
        step_timeout: Some(Duration::from_secs(10)),
        ..config()
    });
    let stream = stage.submit(ask(8, 2));
    stage.launched().await;
    stage.asked().await;
    stage.settle().await;
    // The clock jumps, and nobody was awake meanwhile: nor was the device.
    advance(Duration::from_secs(30)).await;
    stage.settle().await;
    assert_eq!(stage.handle.state(), EngineState::Ready);
    // The step has its whole time again.
    sleep(Duration::from_secs(9)).await;
    stage.report(vec![sampled(WORD)]);
    stage.launched().await;
    stage.asked().await;
    // From here on it is stuck: paused and then awake for all of its time.
    advance(Duration::from_secs(50)).await;
    let awake = Instant::now();
    assert_eq!(stage.exit().await, EngineExit::Fault);
    assert_eq!(awake.elapsed().as_secs(), 10);
    assert!(matches!(
        rest(stream).await[..],
        [Ok(_), Err(Error::EngineDead)]
    ));
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_step_may_take_any_time() {
    let mut stage = stage(config());
    let mut stream = stage.submit(ask(8, 2));
    stage.launched().await;
    sleep(Duration::from_secs(500_000)).await;
    stage.report(vec![sampled(WORD)]);
    next(&mut stream).await.expect("a token");
    assert_eq!(stage.handle.state(), EngineState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_ends_every_stream_with_an_error() {
    for is_gone in [false, true] {
        let mut stage = stage(config());
        let streams: Vec<_> = (0..3).map(|_| stage.submit(ask(8, 9))).collect();
        stage.step().await;
        stage.launched().await;
        if is_gone {
            stage.device = device_channel(DeviceShape {
                vocab_size: 1,
                image: None,
            })
            .1;
        } else {
            let fault = Error::Backend("out of luck".to_owned());
            stage.device.report(Err(fault));
        }
        assert_eq!(stage.exit().await, EngineExit::Fault);
        for stream in streams {
            assert!(matches!(
                rest(stream).await.last(),
                Some(Err(Error::EngineDead))
            ));
        }
        assert_eq!(stage.handle.state(), EngineState::Dead);
        stage.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn logits_that_are_not_numbers_end_their_request_only() {
    let mut stage = stage(config());
    let faulty = stage.submit(ask(8, 3));
    let neighbour = stage.submit(ask(8, 3));
    let next_in_line = stage.submit(ask(8, 1));
    stage.step().await;
    stage.launched().await;
    stage.asked().await;
    let unsound = Sampled {
        token: TokenId(0),
        logprobs: None,
        is_finite: false,
    };
    stage.report(vec![unsound, sampled(WORD)]);
    let order = stage.step().await;
    assert_eq!(order.samples.len(), 2, "the neighbour and the next in line");
    let events = rest(faulty).await;
    assert!(matches!(events[..], [Ok(_), Err(Error::NotFinite)]));
    for (stream, num_tokens) in [(neighbour, 3), (next_in_line, 1)] {
        let events = rest(stream).await;
        assert_eq!(events.len(), num_tokens);
        let last = events.last().expect("tokens").as_ref();
        assert_eq!(last.expect("no error").finish, Some(FinishReason::Length));
    }
    stage.settle().await;
    stage.assert_empty();
}

fn with_image(start: usize, len: usize, size: usize, num_bytes: usize) -> GenerateRequest {
    let pixels = PixelValues {
        size,
        rgb: vec![0; num_bytes].into(),
        hash: ImageHash([0; 32]),
    };
    GenerateRequest {
        images: vec![ImageSpan { start, len, pixels }],
        ..ask(24, 1)
    }
}

#[tokio::test(start_paused = true)]
async fn inputs_that_no_step_can_take_end_their_request_only() {
    let outside = |token| GenerateRequest {
        prompt: vec![WORD, TokenId(token), WORD],
        ..ask(3, 1)
    };
    let unfit = [
        outside(VOCAB as u32),
        outside(u32::MAX),
        with_image(2, 15, 4, 48),
        with_image(2, 16, 5, 75),
        with_image(2, 16, 4, 47),
        with_image(9, 16, 4, 48),
    ];
    for request in unfit {
        let mut stage = stage(config());
        let neighbour = stage.submit(ask(8, 2));
        let faulty = stage.submit(request);
        assert!(matches!(rest(faulty).await[..], [Err(Error::StepFailed)]));
        stage.step().await;
        stage.step().await;
        assert!(rest(neighbour).await.iter().all(Result::is_ok));
    }

    let mut stage = stage(config());
    let fit = stage.submit(with_image(2, 16, 4, 48));
    assert_eq!(stage.step().await.images.len(), 1);
    assert!(matches!(rest(fit).await[..], [Ok(_)]));

    let no_vision_encoder = DeviceShape {
        vocab_size: VOCAB,
        image: None,
    };
    let stage = stage_of(config(), no_vision_encoder);
    let image = stage.submit(with_image(2, 16, 4, 48));
    assert!(matches!(rest(image).await[..], [Err(Error::StepFailed)]));
}

#[tokio::test(start_paused = true)]
async fn deadlines_hold_in_the_line_and_in_flight() {
    let mut stage = stage(config());
    let start = Instant::now();
    let mut patient = stage.submit(ask(8, 4));
    let mut running = stage.submit(within(Duration::from_secs(40), ask(8, 9)));
    let waiting = stage.submit(within(Duration::from_secs(20), ask(8, 9)));
    let late = stage.submit(within(Duration::ZERO, ask(8, 9)));
    stage.step().await;
    next(&mut running).await.expect("a token");
    next(&mut patient).await.expect("a token");

    // A step goes on for longer than any of them has.
    let order = stage.launched().await;
    assert_eq!(order.samples.len(), 2);
    stage.asked().await;
    assert!(matches!(
        rest(late).await[..],
        [Err(Error::DeadlineExceeded { after_ms: 0 })]
    ));
    assert!(matches!(
        rest(waiting).await[..],
        [Err(Error::DeadlineExceeded { after_ms: 20_000 })]
    ));
    assert_eq!(start.elapsed().as_secs(), 20);
    assert!(matches!(
        rest(running).await[..],
        [Err(Error::DeadlineExceeded { after_ms: 40_000 })]
    ));
    assert_eq!(start.elapsed().as_secs(), 40);
    stage.settle().await;
    assert_eq!(stage.handle.stats().num_running, 1);
    stage.report(vec![sampled(WORD); 2]);
    for _ in 0..2 {
        assert_eq!(stage.step().await.samples.len(), 1);
    }
    let events = rest(patient).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(Result::is_ok));
    stage.settle().await;
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_met_means_nothing() {
    let mut stage = stage(config());
    let stream = stage.submit(within(Duration::from_secs(10), ask(8, 1)));
    stage.step().await;
    assert!(matches!(rest(stream).await[..], [Ok(_)]));
    sleep(Duration::from_secs(20)).await;
    let stream = stage.submit(ask(8, 1));
    stage.step().await;
    assert!(matches!(rest(stream).await[..], [Ok(_)]));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_frees_everything_at_once() {
    for stepping in STEPPINGS {
        let mut stage = stage(EngineConfig {
            stepping,
            ..config()
        });
        let decoding = stage.submit(ask(8, 100));
        stage.see().await;
        stage.answer();
        stage.see().await;
        let long_prompt = stage.submit(ask(200, 1));
        let in_line = [stage.submit(ask(8, 1)), stage.submit(ask(8, 1))];
        stage.settle().await;
        assert!(stage.handle.stats().num_waiting >= 2);
        assert_eq!(stage.handle.num_in_flight(), 4);
        drop(in_line);
        stage.settle().await;
        assert_eq!(stage.handle.num_in_flight(), 2);

        // One within a prompt's chunk, and one that decodes.
        while stage.steps.back().expect("under way").input.sequences.len() < 2 {
            stage.answer();
            stage.see().await;
        }
        let stats = stage.handle.stats();
        assert_eq!((stats.num_running, stats.num_waiting), (2, 0));
        assert!(stats.kv_usage > 0.0);
        drop((long_prompt, decoding));
        stage.settle().await;
        stage.assert_empty();

        // What the device had begun comes too late for anybody, and is in nobody's way.
        let stream = stage.submit(ask(8, 1));
        stage.play().await;
        assert!(matches!(rest(stream).await[..], [Ok(_)]));
        stage.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn ahead_the_next_step_is_there_before_the_tokens_are() {
    let mut stage = stage(EngineConfig {
        stepping: Stepping::Ahead,
        ..config()
    });
    let stream = stage.submit(ask(8, 4));
    let first = stage.launched().await;
    assert_eq!(
        (
            first.input.token_ids.len(),
            first.input.sampled_inputs.len()
        ),
        (8, 0)
    );
    for position in 8..11 {
        // Launched before the one before it is asked for.
        let fed = stage.launched().await;
        stage.asked().await;
        assert_eq!(fed.input.positions, [position]);
        assert_eq!(
            fed.input.sampled_inputs,
            [SampledInput { row: 0, sample: 0 }]
        );
        assert_eq!(fed.samples[0].num_generated, position as usize - 7);
        stage.report(vec![sampled(TokenId(position))]);
    }
    // Its length was known: nothing was planned past its end.
    stage.asked().await;
    stage.report(vec![sampled(TokenId(11))]);
    let tokens: Vec<_> = rest(stream)
        .await
        .into_iter()
        .map(|event| event.expect("a token").token.0)
        .collect();
    assert_eq!(tokens, [8, 9, 10, 11]);
    stage.settle().await;
    assert!(stage.device.recv().now_or_never().is_none());
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn ahead_what_comes_after_a_stop_token_is_dropped() {
    let mut stage = stage(EngineConfig {
        stepping: Stepping::Ahead,
        ..config()
    });
    let stopping = stage.submit(ask(8, 9));
    let going_on = stage.submit(ask(8, 3));
    stage.see().await;
    assert_eq!(stage.steps.len(), 2);
    stage.steps.pop_front();
    stage.is_asked = false;
    stage.report(vec![sampled(STOP), sampled(WORD)]);
    stage.play().await;
    let events = rest(stopping).await;
    assert!(matches!(&events[..], [Ok(event)] if event.finish == Some(FinishReason::Stop)));
    assert_eq!(rest(going_on).await.len(), 3);
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_what_waits_and_finishes_what_runs() {
    let mut stage = stage(config());
    let running: Vec<_> = (0..2).map(|_| stage.submit(ask(8, 3))).collect();
    let waiting: Vec<_> = (0..2).map(|_| stage.submit(ask(8, 3))).collect();
    stage.step().await;
    let order = stage.launched().await;
    stage.asked().await;
    stage.handle.drain();
    assert_eq!(stage.handle.state(), EngineState::Draining);
    assert!(matches!(
        stage.handle.submit(ask(1, 1)),
        Err(Error::Draining)
    ));
    let before = Instant::now();
    for stream in waiting {
        assert!(matches!(rest(stream).await[..], [Err(Error::Draining)]));
    }
    assert_eq!(
        before.elapsed(),
        Duration::ZERO,
        "not even a step is awaited"
    );
    stage.report(vec![sampled(WORD); order.samples.len()]);
    stage.step().await;
    for stream in running {
        let events = rest(stream).await;
        assert_eq!(events.len(), 3);
        assert!(events.iter().all(Result::is_ok));
    }
    assert_eq!(stage.exit().await, EngineExit::Drained);
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_when_its_time_is_up() {
    let mut stage = stage(config());
    let mut stream = stage.submit(ask(8, 3));
    stage.step().await;
    next(&mut stream).await.expect("a token");
    // The device never comes back.
    stage.launched().await;
    sleep(Duration::from_secs(7)).await;
    stage.handle.drain();
    let begun = Instant::now();
    // Asking again changes nothing.
    sleep(Duration::from_secs(20)).await;
    stage.handle.drain();
    let events = rest(stream).await;
    let after = Duration::from_secs(30);
    assert!(matches!(events[..], [Err(Error::ShutdownTimeout { after: said })] if said == after));
    assert_eq!(stage.exit().await, EngineExit::Drained);
    assert_eq!(begun.elapsed(), after);
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn an_idle_engine_drains_at_once() {
    let mut stage = stage(config());
    stage.handle.drain();
    let begun = Instant::now();
    assert_eq!(stage.exit().await, EngineExit::Drained);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded_by_requests_and_by_tokens() {
    let mut stage = stage(config());
    let full = |refused: Result<TokenStream>, in_flight| matches!(refused, Err(Error::QueueFull { queued, .. }) if queued == in_flight);
    let mut streams = vec![stage.submit(ask(240, 9)), stage.submit(ask(240, 9))];
    assert!(
        full(stage.handle.submit(ask(33, 1)), 2),
        "513 tokens would wait"
    );
    // A step begins the first of them, whose tokens wait no longer.
    stage.launched().await;
    streams.push(stage.submit(ask(240, 1)));
    streams.push(stage.submit(ask(32, 1)));
    assert!(full(stage.handle.submit(ask(1, 1)), 4), "a fifth request");
    drop(streams);
    stage.settle().await;
    stage.assert_empty();
}

fn of(tenant: u64, request: GenerateRequest) -> GenerateRequest {
    let scheduling = SchedulingParams {
        tenant: TenantId(tenant),
        ..request.scheduling
    };
    GenerateRequest {
        scheduling,
        ..request
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_has_as_many_places_as_it_leaves_free() {
    let stage = stage(config());
    let refused = |refused: Result<TokenStream>, own| matches!(refused, Err(Error::ShareFull { held, .. }) if held == own);
    let submit = |tenant| stage.handle.submit(of(tenant, ask(8, 9)));
    let first: Vec<_> = (0..2).map(|_| submit(1).expect("half of four")).collect();
    assert!(refused(submit(1), 2));
    let other = submit(2).expect("one of the two that are left");
    assert!(refused(submit(2), 1));
    let last = submit(3).expect("whoever has none");
    assert!(matches!(submit(4), Err(Error::QueueFull { queued: 4, .. })));
    drop((first, other));
    stage.settle().await;
    let again = submit(3).expect("there is room");
    assert!(refused(submit(3), 2));
    drop((last, again));
    // What it may never have.
    let three = vec![of(1, ask(8, 9)); 3];
    assert!(matches!(
        stage.handle.submit_all(three),
        Err(Error::NeverQueued {
            sequences: 3,
            max_sequences: 2,
            ..
        })
    ));
    stage.settle().await;
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn those_of_a_tenant_that_wait_may_be_bounded() {
    let mut config = config();
    config.limits.max_queued_per_tenant = Some(1);
    let mut stage = stage(config);
    let first = stage.submit(ask(8, 9));
    let refused = stage.handle.submit(ask(8, 9));
    assert!(matches!(refused, Err(Error::ShareFull { held: 1, .. })));
    // A step begins it: it waits no longer.
    stage.launched().await;
    let second = stage.submit(ask(8, 9));
    let refused = stage.handle.submit_all(vec![ask(8, 9); 2]);
    assert!(matches!(
        refused,
        Err(Error::NeverQueued {
            max_sequences: 1,
            ..
        })
    ));
    drop((first, second));
    stage.settle().await;
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn all_answers_of_a_request_are_let_in_or_none() {
    let stage = stage(config());
    let (handle, one) = (&stage.handle, stage.submit(ask(8, 9)));
    let refused = handle.submit_all(vec![ask(8, 9); 4]);
    assert!(matches!(refused, Err(Error::QueueFull { queued: 1, .. })));
    assert_eq!(handle.num_in_flight(), 1);
    // Answers to one prompt count it once.
    let three = handle.submit_all(vec![ask(250, 5); 3]).expect("room");
    assert_eq!((three.len(), handle.num_in_flight()), (3, 4));
    drop((one, three));
    stage.settle().await;

    // What could never wait is not told to come back.
    let refused = handle.submit_all(vec![ask(8, 9); 5]);
    assert!(matches!(
        refused,
        Err(Error::NeverQueued {
            sequences: 5,
            max_sequences: 4,
            ..
        })
    ));
    let prompts = (0..3).map(|idx| ask(200 + idx, 1)).collect();
    assert!(matches!(
        handle.submit_all(prompts),
        Err(Error::NeverQueued {
            tokens: 603,
            max_tokens: 512,
            ..
        })
    ));
    // One that cannot be is enough.
    let refused = handle.submit_all(vec![ask(8, 9), ask(256, 9)]);
    assert!(matches!(refused, Err(Error::PromptTooLong { .. })));
    assert_eq!(handle.submit_all(Vec::new()).expect("nothing").len(), 0);
    stage.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_is_told_when_to_come_back() {
    let mut stage = stage(config());
    // 64 tokens in 4 seconds, and answers of one token.
    let stream = stage.submit(ask(64, 1));
    stage.launched().await;
    sleep(Duration::from_secs(4)).await;
    stage.asked().await;
    stage.report(vec![sampled(WORD)]);
    assert!(matches!(rest(stream).await[..], [Ok(_)]));

    let _running: Vec<_> = (0..2).map(|_| stage.submit(ask(32, 9))).collect();
    stage.launched().await;
    let _waiting: Vec<_> = (0..2).map(|_| stage.submit(ask(159, 9))).collect();
    // 2 · (159 + 1) tokens at 16 a second.
    let retry_after = Duration::from_secs(20);
    assert!(matches!(
        stage.handle.submit(ask(1, 1)),
        Err(Error::QueueFull { queued: 4, retry_after: said }) if said == retry_after
    ));
}

#[tokio::test(start_paused = true)]
async fn events_tell_how_long_the_request_waited() {
    let mut stage = stage(config());
    let running: Vec<_> = (0..2).map(|_| stage.submit(ask(8, 1))).collect();
    let waiting = stage.submit(ask(8, 2));
    stage.launched().await;
    sleep(Duration::from_secs(3)).await;
    stage.asked().await;
    stage.report(vec![sampled(WORD); 2]);
    stage.step().await;
    stage.step().await;
    for (stream, seconds) in running.into_iter().map(|s| (s, 0)).chain([(waiting, 3)]) {
        for event in rest(stream).await {
            let queued = event.expect("no error").queued;
            assert_eq!(queued, Duration::from_secs(seconds));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_token_is_the_last() {
    let mut stage = stage(config());
    let stream = stage.submit(ask(8, 9));
    stage.launched().await;
    stage.asked().await;
    stage.report(vec![sampled(STOP)]);
    let events = rest(stream).await;
    assert!(matches!(&events[..], [Ok(event)] if event.finish == Some(FinishReason::Stop)));
    stage.settle().await;
    assert!(
        stage.device.recv().now_or_never().is_none(),
        "nothing to compute"
    );
    stage.assert_empty();
}
