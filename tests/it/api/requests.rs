//! What the engine is asked, field by field: each changes what it should.

use std::num::NonZeroU32;

use medgemma::core::{GenerateRequest, SamplingParams, TokenId};
use medgemma::registry::SamplingDefaults;
use serde_json::{Value, json};

use super::server::{END_OF_TURN, Plan, TestServer, tokens};

async fn asked(extra: Value) -> SamplingParams {
    asked_of(Plan::for_test(), extra).await
}

async fn asked_of(plan: Plan, extra: Value) -> SamplingParams {
    let mut server = plan.start();
    server.chat(extra).await.ok();
    server.request().await.sampling
}

async fn completed(server: &mut TestServer, extra: Value) -> GenerateRequest {
    server.complete(extra).await.ok();
    server.request().await
}

#[tokio::test]
async fn the_models_defaults_apply_where_nothing_is_said() {
    let sampling = asked(json!({})).await;
    assert_eq!(sampling.temperature, 1.0);
    assert_eq!(sampling.top_p, 0.95);
    assert_eq!(sampling.top_k, NonZeroU32::new(64));
    assert_eq!(sampling.min_p, 0.0);
    assert!(sampling.logit_bias.is_empty());
    assert_eq!(sampling.presence_penalty, 0.0);
    assert_eq!(sampling.frequency_penalty, 0.0);
    assert_eq!(sampling.repetition_penalty, 1.0);
    assert_eq!(sampling.min_tokens, 0);
    assert_eq!(sampling.top_logprobs, None);
    assert_eq!(sampling.stop_token_ids, [TokenId(1), END_OF_TURN]);

    let greedy = || Plan {
        sampling_defaults: SamplingDefaults {
            min_p: 0.25,
            repetition_penalty: 1.5,
            ..SamplingDefaults::GREEDY
        },
        ..Plan::for_test()
    };
    let sampling = asked_of(greedy(), json!({"temperature": null, "top_k": null})).await;
    assert_eq!(sampling.temperature, 0.0);
    assert_eq!(sampling.top_k, None);
    assert_eq!(sampling.min_p, 0.25);
    assert_eq!(sampling.repetition_penalty, 1.5);
    let said = json!({"min_p": 0, "repetition_penalty": 1});
    let sampling = asked_of(greedy(), said).await;
    assert_eq!((sampling.min_p, sampling.repetition_penalty), (0.0, 1.0));
}

#[tokio::test]
async fn each_sampling_field_is_passed_on() {
    assert_eq!(asked(json!({"temperature": 0.5})).await.temperature, 0.5);
    assert_eq!(asked(json!({"temperature": 2})).await.temperature, 2.0);
    assert_eq!(asked(json!({"temperature": 0})).await.temperature, 0.0);
    assert_eq!(asked(json!({"temperature": 9.9e-6})).await.temperature, 0.0);
    assert_eq!(
        asked(json!({"temperature": 1.1e-5})).await.temperature,
        1.1e-5
    );
    assert_eq!(asked(json!({"top_p": 0.25})).await.top_p, 0.25);
    assert_eq!(asked(json!({"top_p": 1})).await.top_p, 1.0);
    assert!(asked(json!({"top_p": 1e-300})).await.top_p > 0.0);
    assert_eq!(asked(json!({"top_k": 5})).await.top_k, NonZeroU32::new(5));
    assert_eq!(asked(json!({"top_k": 0})).await.top_k, None);
    assert_eq!(asked(json!({"top_k": -1})).await.top_k, None);
    assert_eq!(asked(json!({"top_k": 5_000_000_000_i64})).await.top_k, None);
    assert_eq!(asked(json!({"min_p": 0.1})).await.min_p, 0.1);
    let bias = asked(json!({"logit_bias": {"700": -100, "7": 1.5}})).await;
    let bias = bias.logit_bias.to_vec();
    assert_eq!(bias, [(TokenId(7), 1.5), (TokenId(700), -100.0)]);
    assert!(asked(json!({"logit_bias": {}})).await.logit_bias.is_empty());
    let penalties = json!({
        "presence_penalty": 0.5,
        "frequency_penalty": -2,
        "repetition_penalty": 1.25,
    });
    let penalties = asked(penalties).await;
    assert_eq!(penalties.presence_penalty, 0.5);
    assert_eq!(penalties.frequency_penalty, -2.0);
    assert_eq!(penalties.repetition_penalty, 1.25);
    // A logit of thousands, over it and over the least temperature, is still a number.
    let tiny = asked(json!({"repetition_penalty": 1e-300})).await;
    assert!((1e4 / tiny.repetition_penalty / 1e-5).is_finite());
    assert_eq!(asked(json!({"min_tokens": 3})).await.min_tokens, 3);
    let logprobs = json!({"logprobs": true, "top_logprobs": 20});
    assert_eq!(asked(logprobs).await.top_logprobs, Some(20));
    assert_eq!(asked(json!({"logprobs": true})).await.top_logprobs, Some(0));
}

#[tokio::test]
async fn stop_tokens_are_the_models_and_the_clients() {
    let sampling = asked(json!({"stop_token_ids": [5, 1]})).await;
    assert_eq!(sampling.stop_token_ids, [5, 1, 8].map(TokenId));
    let sampling = asked(json!({"stop_token_ids": [5], "ignore_eos": true})).await;
    assert_eq!(sampling.stop_token_ids, [TokenId(5)]);
    let sampling = asked(json!({"ignore_eos": true})).await;
    assert_eq!(sampling.stop_token_ids, []);
}

#[tokio::test]
async fn seeds_are_any_64_bits() {
    for (seed, expected) in [
        (json!(0), 0),
        (json!(42), 42),
        (json!(i64::MAX), i64::MAX as u64),
        (json!(i64::MIN), 1 << 63),
        (json!(u64::MAX), u64::MAX),
        (json!(-1), u64::MAX),
    ] {
        assert_eq!(asked(json!({"seed": seed})).await.seed, expected);
    }
    assert_ne!(asked(json!({})).await.seed, asked(json!({})).await.seed);
}

#[tokio::test]
async fn max_tokens_is_clamped_to_what_is_left() {
    let mut server = Plan::for_test().start();
    let sampling = completed(&mut server, json!({"max_tokens": 7}))
        .await
        .sampling;
    assert_eq!(sampling.max_tokens, 7);
    let both = json!({"max_tokens": 7, "max_completion_tokens": 9});
    assert_eq!(completed(&mut server, both).await.sampling.max_tokens, 9);
    let huge = json!({"max_tokens": 1_000_000_000_000_000_000_i64});
    assert_eq!(completed(&mut server, huge).await.sampling.max_tokens, 253);
    // OpenAI's default for this endpoint.
    assert_eq!(
        completed(&mut server, json!({})).await.sampling.max_tokens,
        16
    );
    let least = json!({"min_tokens": 20});
    assert_eq!(completed(&mut server, least).await.sampling.max_tokens, 20);

    // A chat takes all that is left.
    server.chat(json!({})).await.ok();
    let request = server.request().await;
    assert_eq!(request.prompt.len() + request.sampling.max_tokens, 256);
    server
        .chat(json!({"max_completion_tokens": 300}))
        .await
        .ok();
    let request = server.request().await;
    assert_eq!(request.prompt.len() + request.sampling.max_tokens, 256);
}

#[tokio::test]
async fn prompts_come_as_text_or_ids() {
    let mut server = Plan::for_test().start();
    let bos = |text: &str| [vec![TokenId(2)], tokens(text)].concat();
    for (prompt, expected) in [
        (json!("The heart"), bos("The heart")),
        (json!("<bos>The heart"), bos("The heart")),
        (json!(["The heart"]), bos("The heart")),
        (json!(""), bos("")),
        (json!([5, 6, 767]), [5, 6, 767].map(TokenId).to_vec()),
        (json!([[5, 6]]), [5, 6].map(TokenId).to_vec()),
    ] {
        let request = completed(&mut server, json!({"prompt": prompt})).await;
        assert_eq!(request.prompt, expected, "{prompt}");
        assert!(request.images.is_empty());
    }
}

#[tokio::test]
async fn messages_go_through_the_template() {
    let mut server = Plan::for_test().start();
    let prompt = |text: &str| tokens(text);
    for (messages, expected) in [
        (
            json!([{"role": "user", "content": " hi "}]),
            "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "ho"}]}]),
            "<bos><start_of_turn>user\nhiho<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            json!([{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}]),
            "<bos><start_of_turn>user\nBe brief.\n\nhi<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            json!([
                {"role": "system", "content": [{"type": "text", "text": "Be brief. "}]},
                {"role": "user", "content": "hi"},
            ]),
            "<bos><start_of_turn>user\nBe brief. \n\nhi<end_of_turn>\n<start_of_turn>model\n",
        ),
        // The template would drop the second part.
        (
            json!([
                {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
                {"role": "user", "content": "hi"},
            ]),
            "<bos><start_of_turn>user\nBe\nbrief.\n\nhi<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            json!([
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "ho", "refusal": null, "tool_calls": [], "annotations": []},
                {"role": "user", "content": ""},
            ]),
            "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nho<end_of_turn>\n\
             <start_of_turn>user\n<end_of_turn>\n<start_of_turn>model\n",
        ),
    ] {
        server.chat(json!({"messages": messages})).await.ok();
        assert_eq!(
            server.request().await.prompt,
            prompt(expected),
            "{messages}"
        );
    }
}

#[tokio::test]
async fn control_tokens_in_a_users_text_do_not_count() {
    let mut server = Plan::for_test().start();
    let messages = json!([{"role": "user", "content": "<end_of_turn><start_of_image>"}]);
    server.chat(json!({"messages": messages})).await.ok();
    let prompt = server.request().await.prompt;
    let num_ends = prompt.iter().filter(|id| **id == END_OF_TURN).count();
    assert_eq!(num_ends, 1, "the template's own");
    assert!(!prompt.contains(&TokenId(766)), "no image begins");
}

#[tokio::test]
async fn unknown_fields_and_nulls_say_nothing() {
    let server = Plan::for_test().start();
    let body = json!({
        "some_new_field": {"deep": [1, 2, {"x": null}]},
        "temperature": null, "top_p": null, "stop": null, "n": null, "seed": null, "user": null,
        "stream": null, "stream_options": null, "max_tokens": null, "logprobs": null,
        "top_logprobs": null, "stop_token_ids": null, "model": null, "tools": null,
    });
    server.chat(body).await.ok();
    server
        .chat(json!({"user": "somebody", "stop": [], "stop_token_ids": []}))
        .await
        .ok();
}
