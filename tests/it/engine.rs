//! The engine's threads with a tiny model: what a handle sees when clients leave, when the process
//! stops, and of images that come again.

use std::time::Duration;

use futures_util::StreamExt;
use medgemma::backend::BLOCK_SIZE;
use medgemma::backend::cpu::CpuBackend;
use medgemma::core::{FinishReason, GenerateRequest, PrefixCaching, TokenId};
use medgemma::engine::{
    EngineConfig, EngineExit, EngineHandle, EngineLimits, EngineState, EngineStats, EngineThread,
    Runner, Stepping, TokenStream, start,
};
use medgemma::error::Error;
use medgemma::model::Model;
use medgemma::scheduler::SchedulerConfig;

use crate::generation::{greedy, load, request, roomy};
use crate::golden::Numbers;

fn engine(max_in_flight: usize) -> (EngineHandle, EngineThread) {
    let (config, model) = load("text1b");
    let limits = SchedulerConfig {
        max_num_seqs: 2,
        ..roomy(&config)
    };
    start_engine(model, limits, max_in_flight)
}

fn start_engine(
    model: Model<CpuBackend>,
    scheduler: SchedulerConfig,
    max_in_flight: usize,
) -> (EngineHandle, EngineThread) {
    let blocks = scheduler.num_blocks;
    let runner = Runner::new(model, blocks).expect("a cache");
    let config = EngineConfig {
        limits: EngineLimits {
            scheduler,
            max_in_flight,
            max_queued_tokens: 1_000_000,
            max_queued_per_tenant: None,
        },
        stepping: Stepping::Alternating,
        step_timeout: None,
        shutdown_timeout: Duration::from_secs(3600),
    };
    start(runner, config).expect("it starts")
}

fn ask(max_tokens: usize) -> GenerateRequest {
    let (config, _) = load("text1b");
    request(
        &config,
        &Numbers::of("text1b").cases["text"],
        greedy(max_tokens),
    )
}

async fn read_to_end(stream: TokenStream) -> Vec<Result<TokenId, Error>> {
    stream
        .map(|event| event.map(|event| event.token))
        .collect()
        .await
}

/// Waits for what must come soon.
async fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let (handle, _thread) = engine(2);
    let mut first = handle.submit(ask(800)).expect("there is room");
    let waiting = handle.submit(ask(800)).expect("there is room");
    assert!(matches!(
        handle.submit(ask(1)),
        Err(Error::QueueFull { queued: 2, .. })
    ));
    first.next().await.expect("a token").expect("no error");
    drop(first);
    drop(waiting);
    soon("an empty house", || handle.num_in_flight() == 0).await;
    let tokens = read_to_end(handle.submit(ask(3)).expect("there is room again")).await;
    assert_eq!(tokens.len(), 3);
}

#[tokio::test]
async fn a_drain_finishes_what_has_begun() {
    let (handle, thread) = engine(8);
    let mut streams: Vec<_> = (0..2)
        .map(|_| handle.submit(ask(12)).expect("there is room"))
        .collect();
    for stream in &mut streams {
        stream.next().await.expect("a token").expect("no error");
    }
    handle.drain();
    assert_eq!(handle.state(), EngineState::Draining);
    assert!(matches!(handle.submit(ask(1)), Err(Error::Draining)));
    for mut stream in streams {
        let mut last = None;
        while let Some(event) = stream.next().await {
            last = event.expect("no error").finish;
        }
        assert_eq!(last, Some(FinishReason::Length));
    }
    assert_eq!(thread.join(), EngineExit::Drained);
    // Not dead: nothing went wrong.
    assert_eq!(handle.state(), EngineState::Draining);
    assert!(matches!(handle.submit(ask(1)), Err(Error::Draining)));
}

/// The first image's case, asked `num_requests` times at once.
async fn with_one_image(handle: &EngineHandle, num_requests: usize) {
    let (config, _) = load("multimodal");
    let case = &Numbers::of("multimodal").cases["image_first"];
    let requests = vec![request(&config, case, greedy(3)); num_requests];
    let streams = handle.submit_all(requests).expect("there is room");
    for stream in streams {
        let tokens = read_to_end(stream).await;
        let tokens: Vec<_> = tokens
            .into_iter()
            .map(|token| token.expect("no error"))
            .collect();
        let expected: Vec<_> = case.greedy[..3].iter().map(|greedy| greedy.token).collect();
        assert_eq!(tokens, expected);
    }
}

#[tokio::test]
async fn an_image_that_comes_again_is_not_encoded_again() {
    let (config, model) = load("multimodal");
    let scheduler = SchedulerConfig {
        prefix_caching: PrefixCaching::Off,
        ..roomy(&config)
    };
    let (handle, _thread) = start_engine(model, scheduler, 64);
    let case = &Numbers::of("multimodal").cases["image_first"];
    assert_eq!(case.images.len(), 1);
    with_one_image(&handle, 10).await;
    let encoder = || (handle.stats().encoder_misses, handle.stats().encoder_hits);
    soon("the statistics", || encoder() == (1, 9)).await;
    with_one_image(&handle, 2).await;
    soon("the statistics", || encoder() == (1, 11)).await;
}

#[tokio::test]
async fn the_statistics_tell_of_work_and_of_rest() {
    let (handle, _thread) = engine(8);
    let pools = |stats: EngineStats| (stats.pools[0], stats.pools[1]);
    let before = handle.stats();
    assert_eq!(before.block_size, BLOCK_SIZE);
    assert_eq!((before.pools[0].total, before.num_steps), (1024, 0));
    assert_eq!(before.pools[0].free, before.pools[0].total);

    let prompt_len = ask(5).prompt.len();
    let tokens = read_to_end(handle.submit(ask(5)).expect("there is room")).await;
    assert_eq!(tokens.len(), 5);
    let at_rest = || handle.stats().num_running == 0 && handle.stats().num_steps == 5;
    soon("rest", at_rest).await;
    let after = handle.stats();
    assert_eq!(after.num_generated_tokens, 5);
    assert_eq!(after.num_computed_tokens, (prompt_len + 4) as u64);
    assert_eq!((after.num_waiting, after.kv_usage), (0, 0.0));
    assert_eq!(pools(after), pools(before));
}

#[tokio::test]
async fn what_never_fits_is_refused_at_the_door() {
    let (handle, _thread) = engine(8);
    let too_long = GenerateRequest {
        prompt: vec![TokenId(9); 2_000],
        ..ask(1)
    };
    assert!(matches!(
        handle.submit(too_long),
        Err(Error::PromptTooLong {
            max_model_len: 1024,
            prompt_len: 2_000
        })
    ));
    assert_eq!(handle.num_in_flight(), 0);
}
