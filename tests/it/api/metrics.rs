//! What `/metrics` counts.

use medgemma::api::{ApiKeys, AppState, router};
use serde_json::{Value, json};

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
    for (sum, count, value) in [
        ("vllm:request_prompt_tokens", 3.0, 3.0 * prompt),
        ("vllm:request_generation_tokens", 3.0, 1.5 * output),
        ("vllm:request_num_preemptions", 3.0, 3.0),
        // Once for each prompt.
        ("vllm:request_params_n", 2.0, 3.0),
        ("vllm:request_max_num_generation_tokens", 2.0, output),
    ] {
        assert_eq!(metric(&format!("{sum}_sum")).await, value, "{sum}");
        assert_eq!(metric(&format!("{sum}_count")).await, count, "{sum}");
    }
    for once in ["prefill", "decode", "inference", "queue"] {
        let name = format!("vllm:request_{once}_time_seconds");
        assert_eq!(metric(&format!("{name}_count")).await, 3.0, "{name}");
    }
    let [whole, decode] =
        ["inference", "decode"].map(|name| format!("vllm:request_{name}_time_seconds_sum"));
    assert!(metric(&whole).await >= metric(&decode).await);
    let means = "vllm:request_time_per_output_token_seconds_count";
    assert_eq!(metric(means).await, 3.0);
    let most = metric("vllm:request_params_max_tokens_sum").await;
    assert!(most > 1.5 * output, "{most}");
}

#[tokio::test]
async fn an_answer_that_was_cut_short_says_nothing_of_how_long_answers_are() {
    let failing = Plan {
        script: always(tokens("The heart"), End::Fail),
        ..Plan::for_test()
    };
    let server = failing.start();
    server.chat(json!({"n": 2})).await;
    for name in [
        "request_generation_tokens",
        "request_params_n",
        "request_decode_time_seconds",
    ] {
        let count = format!("vllm:{name}_count{{model_name=\"tiny\"}}");
        assert_eq!(server.metric(&count).await, 0.0, "{name}");
    }
}

/// The series that vLLM 0.33's own dashboards read.
const ON_VLLMS_DASHBOARDS: &[&str] = &[
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_count",
    "vllm:e2e_request_latency_seconds_sum",
    "vllm:generation_tokens_total",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:inter_token_latency_seconds_count",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:iteration_tokens_total_count",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prompt_tokens_total",
    "vllm:request_decode_time_seconds_sum",
    "vllm:request_generation_tokens_bucket",
    "vllm:request_max_num_generation_tokens_sum",
    "vllm:request_prefill_time_seconds_sum",
    "vllm:request_prompt_tokens_bucket",
    "vllm:request_queue_time_seconds_sum",
    "vllm:request_success_total",
    "vllm:request_time_per_output_token_seconds_bucket",
    "vllm:request_time_per_output_token_seconds_count",
    "vllm:request_time_per_output_token_seconds_sum",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:time_to_first_token_seconds_count",
    "vllm:time_to_first_token_seconds_sum",
];

#[tokio::test]
async fn dashboards_find_every_series_that_they_read() {
    let server = Plan::for_test().start();
    server.chat(json!({})).await.ok();
    assert_eq!(server.chat(json!({"temperature": 9})).await.status, 400);
    let text = server.get("/metrics").await.body;
    let exists = |name: &str, labels: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('{'));
        let mut series = lines.filter(|(known, _)| *known == name);
        series.any(|(_, rest)| labels.split(',').all(|label| rest.contains(label)))
    };
    assert!(!exists("vllm:no_such_series", ""), "the check sees nothing");
    for name in ON_VLLMS_DASHBOARDS {
        assert!(exists(name, "model_name=\"tiny\",engine=\"0\""), "{name}");
    }

    let reply = server.get("/dashboard.json").await;
    assert_eq!(reply.headers["content-type"], "application/json");
    let dashboard: Value = serde_json::from_str(&reply.body).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let mut num_read = 0;
    for target in targets.flatten() {
        let expression = target["expr"].as_str().expect("an expression");
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for word in expression.split(|c| !is_of_name(c)) {
            if word.starts_with("vllm:") || word.starts_with("medgemma:") {
                assert!(
                    exists(word, "model_name=\"tiny\""),
                    "{word} in {expression}"
                );
                num_read += 1;
            }
        }
        let by = expression.split_once("by (").map_or("", |(_, by)| by);
        let by = by.split(')').next().expect("a split has a first part");
        for label in by.split(", ").filter(|label| !label.is_empty()) {
            assert!(
                text.contains(&format!("{label}=\"")),
                "{label} in {expression}"
            );
        }
    }
    assert!(num_read > 40, "{num_read}");
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
