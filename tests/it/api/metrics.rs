//! What `/metrics` counts.

use medgemma::api::{ApiKeys, AppState, router};
use serde_json::json;

use super::images::{distinct_images, shown};
use super::server::{End, Plan, QUEUED, always, says, tokens};

#[tokio::test]
async fn numbers_move_as_requests_run() {
    let plan = Plan {
        script: says("The heart is normal."),
        ..Plan::for_test()
    };
    let server = plan.start();
    let label = "{model_name=\"tiny\"}";
    let ended = |reason: &str| {
        format!("vllm:request_success_total{{model_name=\"tiny\",finished_reason=\"{reason}\"}}")
    };
    assert_eq!(server.metric(&ended("stop")).await, 0.0);

    let answer = server.chat(json!({"n": 2, "model": "org/tiny"})).await.ok();
    let usage = &answer["usage"];
    let (prompt, output) = (
        usage["prompt_tokens"].as_f64().expect("a number"),
        usage["completion_tokens"].as_f64().expect("a number"),
    );
    server.chat(json!({"stream": true})).await.chunks();

    let metric = async |name: &str| server.metric(&format!("{name}{label}")).await;
    assert_eq!(metric("vllm:prompt_tokens_total").await, 3.0 * prompt);
    assert_eq!(metric("vllm:generation_tokens_total").await, 1.5 * output);
    assert_eq!(server.metric(&ended("stop")).await, 3.0);
    assert_eq!(server.metric(&ended("length")).await, 0.0);
    for once in [
        "vllm:time_to_first_token_seconds_count",
        "vllm:e2e_request_latency_seconds_count",
        "vllm:request_queue_time_seconds_count",
    ] {
        assert_eq!(metric(once).await, 3.0, "{once}");
    }
    let queued = metric("vllm:request_queue_time_seconds_sum").await;
    assert!(
        (queued - 3.0 * QUEUED.as_secs_f64()).abs() < 1e-9,
        "{queued}"
    );
    for gaps in [
        "vllm:inter_token_latency_seconds_count",
        "vllm:time_per_output_token_seconds_count",
    ] {
        assert_eq!(metric(gaps).await, 1.5 * output - 3.0, "{gaps}");
    }
    assert_eq!(metric("medgemma:requests_cancelled_total").await, 0.0);
}

#[tokio::test]
async fn every_end_is_counted_as_what_it_is() {
    let ended = |reason: &str| {
        format!("vllm:request_success_total{{model_name=\"tiny\",finished_reason=\"{reason}\"}}")
    };
    let error = |code: &str| {
        format!("medgemma:request_errors_total{{model_name=\"tiny\",code=\"{code}\"}}")
    };
    let cancelled = "medgemma:requests_cancelled_total{model_name=\"tiny\"}";

    let length = Plan {
        script: always(tokens("The heart"), End::Length),
        ..Plan::for_test()
    };
    let server = length.start();
    server.chat(json!({})).await.ok();
    assert_eq!(server.metric(&ended("length")).await, 1.0);

    let failing = Plan {
        script: always(tokens("The heart"), End::Fail),
        ..Plan::for_test()
    };
    let server = failing.start();
    assert_eq!(server.chat(json!({})).await.status, 500);
    server.chat(json!({"stream": true})).await.chunks();
    assert_eq!(server.metric(&ended("error")).await, 2.0);
    assert_eq!(server.metric(&error("step_failed")).await, 2.0);

    let hanging = Plan {
        script: always(tokens("The heart"), End::Hang),
        max_in_flight: 2,
        ..Plan::for_test()
    };
    let server = hanging.start();
    let stream = server.stream(json!({"n": 2})).await;
    assert_eq!(server.chat(json!({})).await.status, 429);
    drop(stream);
    assert_eq!(server.metric(&ended("abort")).await, 2.0);
    assert_eq!(server.metric(cancelled).await, 1.0);
    assert_eq!(server.metric(&error("rate_limit_exceeded")).await, 1.0);
    assert_eq!(server.chat(json!({"temperature": 9})).await.status, 400);
    server.get("/nowhere").await;
    assert_eq!(server.metric(&error("invalid_value")).await, 1.0);
    assert_eq!(server.metric(&error("not_found")).await, 1.0);
    assert_eq!(server.metric(cancelled).await, 1.0, "a refusal is none");
}

#[tokio::test]
async fn images_are_counted_once_each() {
    let server = Plan::for_test().start();
    let images = distinct_images(2);
    let body = shown(&[&images[0], &images[1], &images[0]]);
    server.chat(body).await.ok();
    let decoded = "medgemma:images_decoded_total{model_name=\"tiny\"}";
    assert_eq!(server.metric(decoded).await, 2.0);
}

#[tokio::test]
async fn labels_hold_nothing_that_a_client_wrote() {
    const SECRET: &str = "pneumothorax";
    let server = Plan::for_test().start();
    server
        .chat(json!({"model": SECRET, "cache_salt": SECRET, "user": SECRET}))
        .await;
    server
        .chat(json!({"cache_salt": SECRET, "stop": SECRET}))
        .await;
    server.chat(json!({"temperature": SECRET})).await;
    server.get(&format!("/{SECRET}")).await;
    let reply = server.get("/metrics").await;
    assert_eq!(
        reply.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(!reply.body.contains(SECRET), "{}", reply.body);
}

#[tokio::test]
async fn there_is_nothing_to_tell_before_the_model_is_there() {
    use tower::ServiceExt;

    let router = router(AppState::new(ApiKeys::default(), None));
    let request = axum::http::Request::get("/metrics").body(axum::body::Body::empty());
    let response = router.oneshot(request.expect("plain")).await;
    assert_eq!(response.expect("an answer").status().as_u16(), 503);
}
