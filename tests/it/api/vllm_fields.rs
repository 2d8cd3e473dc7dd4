//! Request fields that vLLM added to OpenAI's, each with vLLM's meaning.

use std::sync::Arc;

use medgemma::core::{Thinking, TokenId};
use serde_json::{Value, json};

use super::server::{END_OF_TURN, End, Plan, TestServer, always, says, tokens};

fn content(answer: &Value) -> &str {
    let content = answer["choices"][0]["message"]["content"].as_str();
    content.expect("an answer has content")
}

/// The text of a stream's answer.
fn streamed(chunks: &[Value], index: usize) -> String {
    let choices = chunks.iter().map(|chunk| &chunk["choices"][0]);
    let own = choices.filter(|choice| choice["index"] == index);
    own.filter_map(|choice| choice["delta"]["content"].as_str())
        .collect()
}

fn saying(text: &str) -> TestServer {
    Plan {
        script: says(text),
        ..Plan::for_test()
    }
    .start()
}

#[tokio::test]
async fn an_echo_in_a_chat_is_the_assistants_last_message() {
    let mut server = saying(" is normal.");
    let parts = json!([{"type": "text", "text": "The"}, {"type": "text", "text": "heart"}]);
    for (last, more, expected) in [
        (
            json!({"role": "assistant", "content": "The heart"}),
            json!({}),
            "The heart is normal.",
        ),
        (
            json!({"role": "assistant", "content": "The heart"}),
            json!({"continue_final_message": true, "add_generation_prompt": false}),
            "The heart is normal.",
        ),
        (
            json!({"role": "assistant", "content": parts}),
            json!({}),
            "The\nheart is normal.",
        ),
        (
            json!({"role": "user", "content": "The heart"}),
            json!({"add_generation_prompt": false}),
            "The heart is normal.",
        ),
        // The answer is another's than the last message.
        (
            json!({"role": "user", "content": "The heart"}),
            json!({}),
            " is normal.",
        ),
    ] {
        let mut body = json!({
            "messages": [{"role": "user", "content": "hi"}, last],
            "echo": true,
            "n": 2,
        });
        for (name, value) in more.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let answer = server.chat(body.clone()).await.ok();
        for choice in answer["choices"].as_array().expect("choices") {
            assert_eq!(choice["message"]["content"], expected, "{body}");
        }
        body["stream"] = json!(true);
        let chunks = server.chat(body).await.chunks();
        assert_eq!(streamed(&chunks, 0), expected);
        assert_eq!(streamed(&chunks, 1), expected);
        // The whole chat and the streamed one, of two answers each.
        for _ in 0..4 {
            server.request().await;
        }
    }
    // As on vLLM, the prompt's log-probabilities come with it.
    let body = json!({"echo": true, "logprobs": true, "top_logprobs": 2});
    let answer = server.chat(body).await.ok();
    assert!(answer["prompt_logprobs"].is_array());
    assert_eq!(server.request().await.prompt_logprobs, Some(2));
}

#[tokio::test]
async fn a_long_prompt_is_cut_off_where_the_request_says() {
    let mut server = Plan::for_test().start();
    let whole = tokens("<bos>The heart is");
    for (extra, expected) in [
        (json!({"truncate_prompt_tokens": 2}), &whole[2..]),
        (
            json!({"truncate_prompt_tokens": 2, "truncation_side": "left"}),
            &whole[2..],
        ),
        (
            json!({"truncate_prompt_tokens": 2, "truncation_side": "right"}),
            &whole[..2],
        ),
        (json!({"truncate_prompt_tokens": 200}), &whole[..]),
        (json!({"truncate_prompt_tokens": -1}), &whole[..]),
        (json!({"truncation_side": "right"}), &whole[..]),
    ] {
        for prompt in [json!("The heart is"), json!(whole)] {
            let mut body = extra.clone();
            body["prompt"] = prompt;
            let answer = server.complete(body).await.ok();
            assert_eq!(server.request().await.prompt, expected, "{extra}");
            assert_eq!(answer["usage"]["prompt_tokens"], expected.len());
        }
    }
    // What is echoed is what the model was given.
    let body = json!({"prompt": "The heart is", "truncate_prompt_tokens": 2, "echo": true});
    let answer = server.complete(body).await.ok();
    let text = answer["choices"][0]["text"].as_str();
    assert_eq!(text, Some(" heart isThe heart is normal."));
    server.request().await;

    // Longer than the model takes.
    let long = "! ".repeat(400);
    let body = json!({"prompt": long, "truncate_prompt_tokens": -1});
    assert_eq!(server.complete(body).await.status, 200);
    assert_eq!(server.request().await.prompt.len(), 255);
    let messages = json!([{"role": "user", "content": long}]);
    let body = json!({"messages": messages, "truncate_prompt_tokens": 7});
    assert_eq!(server.chat(body).await.status, 200);
    let kept = server.request().await.prompt;
    let end = tokens("<end_of_turn>\n<start_of_turn>model\n");
    assert_eq!(kept.len(), 7);
    assert!(kept.ends_with(&end[end.len() - 5..]), "{kept:?}");
}

#[tokio::test]
async fn images_are_not_cut_off() {
    let server = Plan::for_test().start();
    let parts = json!([
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,never decoded"}},
        {"type": "text", "text": "What is it?"},
    ]);
    let messages = json!([{"role": "user", "content": parts}]);
    for truncation in [5, 14] {
        let body = json!({"messages": messages, "truncate_prompt_tokens": truncation});
        let reply = server.chat(body).await;
        let param = "truncate_prompt_tokens".to_owned();
        assert_eq!(reply.error().2, Some(param), "{}", reply.body);
        assert!(reply.body.contains("image"), "{}", reply.body);
    }
}

#[tokio::test]
async fn tokens_can_be_named_by_their_ids() {
    let server = saying("heart ſ");
    let mut ids = tokens("heart ſ");
    ids.push(END_OF_TURN);
    let names: Vec<_> = ids.iter().map(|id| format!("token_id:{}", id.0)).collect();
    let body = json!({"logprobs": true, "top_logprobs": 2, "return_tokens_as_token_ids": true});
    let answer = server.chat(body).await.ok();
    let entries = answer["choices"][0]["logprobs"]["content"].as_array();
    let entries = entries.expect("logprobs");
    let tokens: Vec<_> = entries.iter().map(|entry| &entry["token"]).collect();
    assert_eq!(json!(tokens), json!(names));
    assert_eq!(entries[0]["bytes"], json!(b"he"));
    assert_eq!(entries[0]["top_logprobs"][0]["token"], json!(names[0]));
    assert_eq!(entries[0]["top_logprobs"][1]["token"], "token_id:283");

    let body = json!({"logprobs": 1, "return_tokens_as_token_ids": true});
    let answer = server.complete(body).await.ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(names));
    assert_eq!(logprobs["top_logprobs"][0], json!({&names[0]: -0.25}));
    assert_eq!(logprobs["text_offset"], json!([0, 2, 5, 6, 7, 7]));
}

#[tokio::test]
async fn log_probabilities_of_named_tokens_stand_behind_the_chosen_ones() {
    let mut server = saying("heart");
    let he = tokens("he")[0].0;
    let ids = [283, he, 5];
    let body = json!({"logprobs": true, "top_logprobs": 3, "logprob_token_ids": ids});
    let answer = server.chat(body).await.ok();
    let request = server.request().await;
    assert_eq!(*request.sampling.logprob_token_ids, ids.map(TokenId));
    let entries = &answer["choices"][0]["logprobs"]["content"];
    let of = |entry: &Value| -> Vec<(Value, Value)> {
        let top = entry["top_logprobs"].as_array().expect("a list");
        let pair = |top: &Value| (top["token"].clone(), top["logprob"].clone());
        top.iter().map(pair).collect()
    };
    let pair = |token: &str, logprob: f32| (json!(token), json!(logprob));
    // The chosen token is one of them.
    let expected = [
        pair("he", -0.25),
        pair("!", -283.0),
        pair("<unused94>", -5.0),
    ];
    assert_eq!(of(&entries[0]), expected);
    assert_eq!(of(&entries[1]).len(), 4);

    let body = json!({"logprobs": 0, "logprob_token_ids": [283]});
    let answer = server.complete(body).await.ok();
    let top = &answer["choices"][0]["logprobs"]["top_logprobs"];
    assert_eq!(top[0], json!({"he": -0.25, "!": -283.0}));

    for (body, param) in [
        (json!({"logprob_token_ids": [5]}), "logprob_token_ids"),
        (
            json!({"logprobs": true, "logprob_token_ids": [5, 769]}),
            "logprob_token_ids[1]",
        ),
        (
            json!({"logprobs": true, "logprob_token_ids": vec![5; 129]}),
            "logprob_token_ids",
        ),
    ] {
        let reply = server.chat(body).await;
        assert_eq!(reply.error().2.as_deref(), Some(param), "{}", reply.body);
    }
    let body = json!({"logprobs": 1, "logprob_token_ids": [5], "echo": true});
    let reply = server.complete(body).await;
    assert_eq!(reply.error().2.as_deref(), Some("logprob_token_ids"));
}

#[tokio::test]
async fn what_ends_an_answer_can_be_part_of_it() {
    let server = Plan::for_test().start();
    for (extra, text, reason) in [
        (json!({"stop": "is"}), "The heart ", json!("is")),
        (
            json!({"stop": "is", "include_stop_str_in_output": true}),
            "The heart is",
            json!("is"),
        ),
        (
            json!({"include_stop_str_in_output": true}),
            "The heart is normal.",
            Value::Null,
        ),
        (
            json!({"include_stop_str_in_output": true, "skip_special_tokens": false}),
            "The heart is normal.<end_of_turn>",
            Value::Null,
        ),
        (
            json!({"skip_special_tokens": false}),
            "The heart is normal.",
            Value::Null,
        ),
    ] {
        let answer = server.chat(extra.clone()).await.ok();
        assert_eq!(content(&answer), text, "{extra}");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert_eq!(answer["choices"][0]["stop_reason"], reason);
        let mut body = extra;
        body["stream"] = json!(true);
        let chunks = server.chat(body.clone()).await.chunks();
        assert_eq!(streamed(&chunks, 0), text);
        body["stream"] = json!(false);
        let answer = server.complete(body).await.ok();
        assert_eq!(answer["choices"][0]["text"], text);
    }
    // A stop token of the client's is text.
    let heart = tokens("The heart");
    let last = *heart.last().expect("some");
    let plan = Plan {
        script: always(heart, End::StopToken),
        ..Plan::for_test()
    };
    let server = plan.start();
    for (includes, text) in [(false, "The"), (true, "The heart")] {
        let body = json!({"stop_token_ids": [last], "include_stop_str_in_output": includes});
        let answer = server.chat(body).await.ok();
        assert_eq!(content(&answer), text);
        assert_eq!(answer["choices"][0]["stop_reason"], json!(last));
    }
}

#[tokio::test]
async fn control_tokens_can_be_part_of_an_answer_but_markers_of_reasoning_are_not() {
    let said = "<unused94>thought\nhm<unused95>The<start_of_image> heart";
    let plan = Plan {
        script: says(said),
        thinking: Thinking::Unasked,
        ..Plan::for_test()
    };
    let server = plan.start();
    for (skips, text) in [(true, "The heart"), (false, "The<start_of_image> heart")] {
        let answer = server
            .chat(json!({"skip_special_tokens": skips}))
            .await
            .ok();
        assert_eq!(content(&answer), text);
        assert_eq!(answer["choices"][0]["message"]["reasoning"], "hm");
    }
}

#[tokio::test]
async fn the_bytes_of_all_tokens_are_those_of_the_content() {
    // The last character is of two tokens, and a control token stands within.
    let server = saying("The heart<start_of_image> ſ é");
    for extra in [
        json!({}),
        json!({"skip_special_tokens": false}),
        json!({"skip_special_tokens": false, "include_stop_str_in_output": true}),
        json!({"return_tokens_as_token_ids": true}),
    ] {
        let mut body = extra.clone();
        body["logprobs"] = json!(true);
        let answer = server.chat(body).await.ok();
        let entries = answer["choices"][0]["logprobs"]["content"].as_array();
        let bytes = entries.expect("logprobs").iter().flat_map(|entry| {
            let bytes = entry["bytes"].as_array().expect("bytes");
            bytes
                .iter()
                .map(|byte| byte.as_u64().expect("a byte") as u8)
        });
        let bytes: Vec<u8> = bytes.collect();
        assert_eq!(
            String::from_utf8(bytes).as_deref(),
            Ok(content(&answer)),
            "{extra}"
        );
    }
}

#[tokio::test]
async fn an_echo_of_no_new_tokens_scores_the_prompt() {
    let plan = Plan {
        script: always(tokens("is"), End::Length),
        ..Plan::for_test()
    };
    let mut server = plan.start();
    let body = json!({"prompt": "he", "echo": true, "logprobs": 1, "max_tokens": 0});
    let expected = json!({
        "text_offset": [0, 0],
        "token_logprobs": [null, -0.5],
        "tokens": ["<bos>", "he"],
        "top_logprobs": [null, {"he": -0.5, "!": -0.25}],
    });
    let answer = server.complete(body.clone()).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "he");
    assert_eq!(choice["logprobs"], expected);
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    assert_eq!(answer["usage"]["total_tokens"], 2);
    assert_eq!(server.request().await.sampling.max_tokens, 1);

    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    streamed["return_token_ids"] = json!(true);
    let chunks = server.complete(streamed).await.chunks();
    assert_eq!(chunks.len(), 2, "{chunks:?}");
    let choice = &chunks[0]["choices"][0];
    assert_eq!(choice["text"], "he");
    assert_eq!(choice["logprobs"], expected);
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["token_ids"], json!([]));
    assert_eq!(chunks[1]["usage"]["completion_tokens"], 0);

    let reply = server.complete(json!({"max_tokens": 0})).await;
    assert_eq!(reply.error().2.as_deref(), Some("max_tokens"));
    assert!(reply.body.contains("echo"), "{}", reply.body);
}

#[tokio::test]
async fn the_whole_vocabulary_is_refused_with_what_to_send() {
    let server = Plan::for_test().start();
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "hi"}], "prompt_logprobs": -1}),
        ),
        (
            "/v1/completions",
            json!({"prompt": "hi", "prompt_logprobs": -1}),
        ),
        ("/v1/completions", json!({"prompt": "hi", "logprobs": -1})),
    ] {
        let reply = server.post(path, body.to_string()).await;
        let (status, _, param) = reply.error();
        assert_eq!(status, 400);
        assert!(param.is_some_and(|param| param.ends_with("logprobs")));
        assert!(reply.body.contains("Send 20"), "{}", reply.body);
    }
}

#[tokio::test]
async fn fields_that_vllm_sends_as_null_are_in_whole_answers() {
    let server = Plan::for_test().start();
    let has = |value: &Value, names: &[&str]| {
        for name in names {
            assert_eq!(value.get(name), Some(&Value::Null), "{name} in {value}");
        }
    };
    let answer = server.chat(json!({})).await.ok();
    has(
        &answer,
        &["prompt_logprobs", "prompt_token_ids", "kv_transfer_params"],
    );
    has(&answer["choices"][0], &["stop_reason", "token_ids"]);
    has(
        &answer["choices"][0]["message"],
        &["reasoning", "reasoning_content"],
    );
    let answer = server.complete(json!({})).await.ok();
    has(&answer, &["prompt_token_ids", "kv_transfer_params"]);
    has(
        &answer["choices"][0],
        &[
            "stop_reason",
            "prompt_logprobs",
            "prompt_token_ids",
            "token_ids",
        ],
    );
    // In a stream they would be repeated with each token.
    let chunks = server.complete(json!({"stream": true})).await.chunks();
    for chunk in chunks {
        assert!(chunk.get("kv_transfer_params").is_none());
        assert!(chunk["choices"][0].get("token_ids").is_none());
    }
}

#[tokio::test]
async fn one_of_several_stop_strings_is_kept_with_calls_in_the_text() {
    let plan = Plan {
        script: Arc::new(|_| super::server::Script {
            tokens: tokens("The heart is normal."),
            end: End::TurnMarker,
        }),
        ..Plan::for_test()
    };
    let server = plan.start();
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
    let body =
        json!({"stop": ["mal", "is n"], "include_stop_str_in_output": true, "tools": [tool]});
    let answer = server.chat(body).await.ok();
    assert_eq!(content(&answer), "The heart is n");
    assert_eq!(answer["choices"][0]["stop_reason"], "is n");
}
