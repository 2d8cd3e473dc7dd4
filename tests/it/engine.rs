//! The engine's thread with a tiny model: what a handle sees when clients leave, when the process
//! stops, and when a step fails.

use std::time::Duration;

use futures_util::StreamExt;
use medgemma::core::{FinishReason, GenerateRequest, TokenId};
use medgemma::engine::{
    EngineExit, EngineHandle, EngineState, EngineThread, Runner, TokenStream, start,
};
use medgemma::error::Error;
use medgemma::scheduler::SchedulerConfig;

use crate::generation::{greedy, load, request, roomy};
use crate::golden::Numbers;

fn engine(max_in_flight: usize) -> (EngineHandle, EngineThread) {
    let (config, model) = load("text1b");
    let limits = SchedulerConfig {
        max_num_seqs: 2,
        ..roomy(&config)
    };
    let blocks = limits.num_blocks;
    let runner = Runner::new(model, blocks.global, blocks.sliding).expect("a cache");
    start(runner, limits, max_in_flight).expect("it starts")
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
        Err(Error::QueueFull { queued: 2 })
    ));
    first.next().await.expect("a token").expect("no error");
    drop(first);
    drop(waiting);
    soon("an empty house", || handle.num_in_flight() == 0).await;
    let tokens = read_to_end(handle.submit(ask(3)).expect("there is room again")).await;
    assert_eq!(tokens.len(), 3);
}

#[tokio::test]
async fn a_drain_finishes_what_was_accepted() {
    let (handle, thread) = engine(8);
    let streams: Vec<_> = (0..4)
        .map(|_| handle.submit(ask(12)).expect("there is room"))
        .collect();
    handle.drain();
    // Few tokens: the engine may have come to its end already.
    assert_ne!(handle.state(), EngineState::Ready);
    assert!(matches!(
        handle.submit(ask(1)),
        Err(Error::Draining | Error::EngineDead)
    ));
    for mut stream in streams {
        let mut last = None;
        while let Some(event) = stream.next().await {
            last = event.expect("no error").finish;
        }
        assert_eq!(last, Some(FinishReason::Length));
    }
    assert_eq!(thread.join(), EngineExit::Drained);
    assert!(matches!(handle.submit(ask(1)), Err(Error::EngineDead)));
}

#[tokio::test]
async fn a_failed_step_ends_every_stream_with_an_error() {
    let (handle, thread) = engine(8);
    let neighbour = handle.submit(ask(800)).expect("there is room");
    // The HTTP side never lets such a token through; to the backend it is a fault.
    let outside = GenerateRequest {
        prompt: vec![TokenId(1_000_000)],
        ..ask(1)
    };
    let faulty = handle.submit(outside).expect("the door counts tokens only");
    // The engine may have died by now, and then the door says so.
    let late = handle.submit(ask(1));
    assert!(matches!(late, Ok(_) | Err(Error::EngineDead)));
    for stream in [faulty, neighbour].into_iter().chain(late) {
        let events = read_to_end(stream).await;
        assert!(matches!(events.last(), Some(Err(Error::EngineDead))));
    }
    assert_eq!(thread.join(), EngineExit::Fault);
    assert_eq!(handle.state(), EngineState::Dead);
    assert!(matches!(handle.submit(ask(1)), Err(Error::EngineDead)));
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
