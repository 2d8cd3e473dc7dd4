//! vLLM's routes beside the answers: what a prompt is, what the tokenizer is, how much there is to
//! do; and what is said of routes that others have.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::images::shown;
use super::server::{End, Plan, always, chat_body, says, tokens};

#[tokio::test]
async fn a_rendered_chat_is_the_prompt_of_its_answer() {
    let plan = Plan {
        script: says("Normal."),
        ..Plan::for_test()
    };
    let server = plan.start();
    let fields = json!({
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Heart?"}],
        "temperature": 0.5, "top_k": 7, "n": 2, "stop": ["x"], "stop_token_ids": [5],
        "max_tokens": 9, "logit_bias": {"3": -1.0}, "cache_salt": "mine", "priority": 2,
    });
    let mut answered = fields.clone();
    answered["return_token_ids"] = true.into();
    let answer = server.chat(answered).await.ok();
    for prefix in ["/v1", ""] {
        let path = format!("{prefix}/chat/completions/render");
        let reply = server.post(&path, fields.to_string()).await.ok();
        assert_eq!(reply["token_ids"], answer["prompt_token_ids"], "{reply}");
        assert_eq!(reply["model"], "tiny");
        assert!(
            reply["request_id"]
                .as_str()
                .expect("an id")
                .starts_with("chatcmpl-")
        );
        assert_eq!(reply["features"], Value::Null);
        assert_eq!(reply["stream"], false);
        assert_eq!(
            (&reply["cache_salt"], &reply["priority"]),
            (&json!("mine"), &json!(2))
        );
        let sampling = &reply["sampling_params"];
        for (name, value) in [
            ("temperature", json!(0.5)),
            ("top_k", json!(7)),
            ("n", json!(2)),
            ("stop", json!(["x"])),
            ("stop_token_ids", json!([5])),
            ("max_tokens", json!(9)),
            ("logit_bias", json!({"3": -1.0})),
            ("ignore_eos", json!(false)),
        ] {
            assert_eq!(sampling[name], value, "{name}");
        }
    }
    // Rendering generates nothing.
    let ended = "vllm:generation_tokens_total{model_name=\"tiny\"}";
    let generated = answer["usage"]["completion_tokens"].as_f64();
    assert_eq!(Some(server.metric(ended).await), generated);
}

#[tokio::test]
async fn images_are_told_by_their_hashes_and_places() {
    let server = Plan::for_test().start();
    let images = ["0000.png", "0003.png"].map(|name| {
        let film = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/films/").to_owned() + name;
        let bytes = std::fs::read(film).expect("it is in the repository");
        format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes))
    });
    let body = chat_body(shown(&[&images[0], &images[1], &images[0]]));
    let reply = server
        .post("/v1/chat/completions/render", body.to_string())
        .await
        .ok();
    let hashes = reply["features"]["mm_hashes"]["image"]
        .as_array()
        .expect("a list");
    assert_eq!(hashes.len(), 3);
    assert_eq!(hashes[0], hashes[2]);
    assert_ne!(hashes[0], hashes[1]);
    let ids = reply["token_ids"].as_array().expect("a list");
    let places = reply["features"]["mm_placeholders"]["image"]
        .as_array()
        .expect("a list");
    let mut end = 0;
    for place in places {
        let (offset, length) = (&place["offset"], &place["length"]);
        let offset = offset.as_u64().expect("a number") as usize;
        let length = length.as_u64().expect("a number") as usize;
        assert!(offset >= end && length > 0);
        end = offset + length;
        assert!(ids[offset..end].iter().all(|id| *id == ids[offset]));
    }
    assert_eq!(places.len(), 3);
}

#[tokio::test]
async fn what_cannot_be_answered_cannot_be_rendered() {
    let server = Plan::for_test().start();
    for extra in [
        json!({"temperature": 9}),
        json!({"messages": []}),
        json!({"audio": {"voice": "a"}}),
    ] {
        let body = chat_body(extra).to_string();
        let answered = server.post("/v1/chat/completions", body.clone()).await;
        let rendered = server.post("/v1/chat/completions/render", body).await;
        assert_eq!((rendered.status, &rendered.body), (400, &answered.body));
    }
    let body = chat_body(json!({"model": "other"})).to_string();
    let reply = server.post("/v1/chat/completions/render", body).await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn the_load_is_the_requests_that_are_answered() {
    let hanging = Plan {
        script: always(tokens("The heart"), End::Hang),
        ..Plan::for_test()
    };
    let server = hanging.start();
    let load = async || server.get("/load").await.ok()["server_load"].clone();
    assert_eq!(load().await, 0);
    let first = server.stream(json!({"n": 2})).await;
    let _second = server.stream(json!({})).await;
    assert_eq!(load().await, 2);
    drop(first);
    assert_eq!(load().await, 1);
}

#[tokio::test]
async fn the_tokenizer_is_told_only_where_the_operator_says_so() {
    let server = Plan::for_test().start();
    let reply = server.get("/tokenizer_info").await;
    assert_eq!(reply.status, 404);
    assert!(
        reply.body.contains("--enable-tokenizer-info-endpoint"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn routes_of_others_are_refused_by_name() {
    let server = Plan::for_test().start();
    for path in [
        "/v1/embeddings",
        "/v1/score",
        "/score",
        "/v1/rerank",
        "/v2/rerank",
        "/pooling",
        "/classify",
        "/v1/audio/transcriptions",
        "/v1/images/generations",
        "/v1/completions/render",
    ] {
        let reply = server
            .post(path, json!({"model": "tiny", "input": "a"}).to_string())
            .await;
        assert_eq!(reply.status, 404, "{path}");
        let error: Value = serde_json::from_str(&reply.body).expect("JSON");
        let error = &error["error"];
        assert_eq!(error["code"], "route_not_served", "{error}");
        assert_eq!(error["type"], "invalid_request_error");
        let message = error["message"].as_str().expect("a text");
        assert!(
            message.starts_with(&format!("POST {path} is not served: ")),
            "{message}"
        );
    }
}
