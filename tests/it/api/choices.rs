//! Whole answers: text, stop strings, log-probabilities, ids, usage.

use std::sync::Arc;

use serde_json::{Value, json};

use super::server::{END_OF_TURN, End, Plan, Script, always, says, tokens};

#[tokio::test]
async fn a_chat_has_openais_shape() {
    let server = Plan::for_test().start();
    let mut answer = server.chat(json!({"model": "org/tiny"})).await.ok();
    let id = answer["id"].take();
    assert!(
        id.as_str()
            .is_some_and(|id| id.starts_with("chatcmpl-") && id.len() == 41)
    );
    let created = answer["created"].take();
    assert!(
        created
            .as_u64()
            .is_some_and(|created| created > 1_600_000_000)
    );
    let fingerprint = answer["system_fingerprint"].take();
    assert!(
        fingerprint
            .as_str()
            .is_some_and(|print| print.starts_with("fp_"))
    );
    let prompt =
        "<bos><start_of_turn>user\nIs the heart normal?<end_of_turn>\n<start_of_turn>model\n";
    let num_prompt = tokens(prompt).len();
    assert_eq!(
        answer,
        json!({
            "id": null,
            "object": "chat.completion",
            "created": null,
            "model": "org/tiny",
            "choices": [{
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "The heart is normal.",
                    "reasoning_content": null,
                    "reasoning": null,
                    "refusal": null,
                },
                "logprobs": null,
                "finish_reason": "stop",
                "stop_reason": null,
                "token_ids": null,
            }],
            "usage": {
                "prompt_tokens": num_prompt,
                "completion_tokens": 6,
                "total_tokens": num_prompt + 6,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
            "system_fingerprint": null,
            "prompt_logprobs": null,
            "prompt_token_ids": null,
            "kv_transfer_params": null,
        })
    );
}

#[tokio::test]
async fn a_completion_has_openais_shape() {
    let server = Plan::for_test().start();
    let mut answer = server.complete(json!({})).await.ok();
    let id = answer["id"].take();
    assert!(id.as_str().is_some_and(|id| id.starts_with("cmpl-")));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["model"], "tiny");
    assert_eq!(
        answer["choices"],
        json!([{
            "index": 0,
            "text": "The heart is normal.",
            "logprobs": null,
            "finish_reason": "stop",
            "stop_reason": null,
            "prompt_token_ids": null,
            "prompt_logprobs": null,
            "token_ids": null,
        }])
    );
    assert_eq!(answer["usage"]["prompt_tokens"], 3, "<bos> and two tokens");
    assert_eq!(answer["usage"]["completion_tokens"], 6);
}

#[tokio::test]
async fn several_prompts_and_answers_stand_in_order() {
    // Says which request it answers: the seed's last digit.
    let script = Arc::new(|request: &medgemma::core::GenerateRequest| Script {
        tokens: tokens(&format!(
            "{}/{}",
            request.prompt.len(),
            request.sampling.seed
        )),
        end: End::Length,
    });
    let plan = Plan {
        script,
        ..Plan::for_test()
    };
    let server = plan.start();
    let body =
        json!({"prompt": ["The", "The heart is"], "n": 2, "seed": 7, "return_token_ids": true});
    let answer = server.complete(body).await.ok();
    let choices = answer["choices"].as_array().expect("choices");
    let texts: Vec<_> = choices
        .iter()
        .map(|choice| choice["text"].as_str())
        .collect();
    assert_eq!(texts, [Some("2/7"), Some("2/8"), Some("4/7"), Some("4/8")]);
    let indexes: Vec<_> = choices
        .iter()
        .map(|choice| choice["index"].as_u64())
        .collect();
    assert_eq!(indexes, [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(choices[0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["prompt_tokens"], 6);
    assert_eq!(
        choices[3]["prompt_token_ids"].as_array().map(Vec::len),
        Some(4)
    );
    assert!(
        answer["prompt_token_ids"].is_null(),
        "there are two prompts"
    );

    let answer = server.chat(json!({"n": 3, "seed": -1})).await.ok();
    let texts = answer["choices"].as_array().expect("choices").iter();
    let texts: Vec<_> = texts
        .map(|choice| choice["message"]["content"].clone())
        .collect();
    let num_prompt = &answer["usage"]["prompt_tokens"];
    // −1 is 2⁶⁴ − 1, and the next seed is 0.
    let seeds = [u64::MAX, 0, 1];
    assert_eq!(
        texts,
        seeds.map(|seed| json!(format!("{num_prompt}/{seed}")))
    );
}

/// Answers `said` with `stop`, whole and as a stream, and returns the first choice of the whole
/// answer; both must agree.
async fn stopped(said: &str, end: End, extra: Value) -> Value {
    let plan = Plan {
        script: always(tokens(said), end),
        ..Plan::for_test()
    };
    let server = plan.start();
    let mut streamed = extra.clone();
    streamed["stream"] = json!(true);
    let answer = server.chat(extra).await.ok();
    let chunks = server.chat(streamed).await.chunks();
    let contents = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    let choice = answer["choices"][0].clone();
    assert_eq!(
        json!(contents.collect::<String>()),
        choice["message"]["content"]
    );
    let last = &chunks.last().expect("chunks")["choices"][0];
    assert_eq!(last["finish_reason"], choice["finish_reason"]);
    assert_eq!(last["stop_reason"], choice["stop_reason"]);
    assert_eq!(last["delta"], json!({}));
    choice
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_is_not_in_it() {
    let said = "The heart is normal. The lungs are normal.";
    for (stop, text) in [
        (json!("lungs"), "The heart is normal. The "),
        (json!(["zzz", "al. T"]), "The heart is norm"),
        (json!("T"), ""),
        // The one that ends first counts.
        (json!(["normal. The", "is norm"]), "The heart "),
        (json!(["."]), "The heart is normal"),
    ] {
        // The engine would go on for ever.
        let choice = stopped(said, End::Hang, json!({"stop": stop})).await;
        assert_eq!(choice["message"]["content"], text, "{stop}");
        assert_eq!(choice["finish_reason"], "stop");
        let matched = choice["stop_reason"].as_str().expect("which one");
        assert!(
            stop == matched
                || stop
                    .as_array()
                    .is_some_and(|all| all.contains(&json!(matched)))
        );
    }
}

#[tokio::test]
async fn stop_strings_count_once_min_tokens_are_there() {
    let said = "The heart is normal. The lungs are normal.";
    for (min_tokens, text) in [
        (0, ""),
        (1, "The heart is normal. "),
        (5, "The heart is normal. "),
        (6, said),
    ] {
        let fields = json!({"stop": "The", "min_tokens": min_tokens});
        let choice = stopped(said, End::Length, fields).await;
        assert_eq!(choice["message"]["content"], text, "{min_tokens}");
    }
}

#[tokio::test]
async fn what_only_begins_like_a_stop_string_is_said() {
    for (said, stop) in [
        ("The heart is normal", "normal!"),
        ("The heart is norm normal. n", "normal. no"),
        ("aaab", "aab!"),
    ] {
        for (end, finish) in [(End::TurnMarker, "stop"), (End::Length, "length")] {
            let choice = stopped(said, end, json!({"stop": stop})).await;
            assert_eq!(choice["message"]["content"], said);
            assert_eq!(choice["finish_reason"], finish);
            assert!(choice["stop_reason"].is_null());
        }
    }
}

#[tokio::test]
async fn a_stop_string_aborts_its_answer_only() {
    let script = Arc::new(|request: &medgemma::core::GenerateRequest| {
        if request.sampling.seed == 0 {
            Script {
                tokens: tokens("The heart is"),
                end: End::Hang,
            }
        } else {
            Script {
                tokens: tokens("The lungs are normal."),
                end: End::TurnMarker,
            }
        }
    });
    let plan = Plan {
        script,
        ..Plan::for_test()
    };
    let mut server = plan.start();
    let answer = server
        .chat(json!({"n": 2, "seed": 0, "stop": "heart"}))
        .await
        .ok();
    assert_eq!(answer["choices"][0]["message"]["content"], "The ");
    assert_eq!(
        answer["choices"][1]["message"]["content"],
        "The lungs are normal."
    );
    assert_eq!(answer["usage"]["completion_tokens"], 2 + 6);
    server.aborted().await;
    assert_eq!(server.engine.num_in_flight(), 0);
}

#[tokio::test]
async fn a_clients_stop_token_is_named_and_not_said() {
    let mut said = tokens("The heart");
    said.push(tokens("!")[0]);
    let plan = Plan {
        script: always(said, End::StopToken),
        ..Plan::for_test()
    };
    let answer = plan
        .start()
        .chat(json!({"stop_token_ids": [283]}))
        .await
        .ok();
    assert_eq!(answer["choices"][0]["message"]["content"], "The heart");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["choices"][0]["stop_reason"], 283);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn logprobs_of_a_chat_name_every_token_once() {
    let plan = Plan {
        script: says("heart ſ"),
        ..Plan::for_test()
    };
    let server = plan.start();
    let body = json!({"logprobs": true, "top_logprobs": 2});
    let answer = server.chat(body.clone()).await.ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["refusal"], Value::Null);
    let content = logprobs["content"].as_array().expect("logprobs").clone();
    let mut ids = tokens("heart ſ");
    ids.push(END_OF_TURN);
    assert_eq!(content.len(), ids.len(), "the stop token too");
    assert_eq!(
        content[0],
        json!({
            "token": "he",
            "logprob": -0.25,
            "bytes": [104, 101],
            "top_logprobs": [
                {"token": "he", "logprob": -0.25, "bytes": [104, 101]},
                {"token": "!", "logprob": -1.25, "bytes": [33]},
            ],
        })
    );
    let tokens: Vec<_> = content
        .iter()
        .map(|entry| entry["token"].as_str())
        .collect();
    let n = tokens.len();
    // A character's two bytes, then the stop token.
    assert_eq!(
        tokens[n - 3..],
        [Some("\u{fffd}"), Some("\u{fffd}"), Some("<end_of_turn>")]
    );
    assert_eq!(content[n - 3]["bytes"], json!([0xC5]));
    assert_eq!(content[n - 2]["bytes"], json!([0xBF]));

    // The same entries, in the same order, in a stream; with held-back text too.
    for stop in [Value::Null, json!("heartache"), json!("rt ")] {
        let whole = json!({"logprobs": true, "top_logprobs": 2, "stop": stop});
        let mut streamed = whole.clone();
        streamed["stream"] = json!(true);
        let whole = server.chat(whole).await.ok();
        let chunks = server.chat(streamed).await.chunks();
        let entries: Vec<_> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(
            json!(entries),
            whole["choices"][0]["logprobs"]["content"],
            "{stop}"
        );
    }
    let answer = server.chat(json!({"logprobs": true})).await.ok();
    let content = &answer["choices"][0]["logprobs"]["content"];
    assert_eq!(content[0]["top_logprobs"], json!([]));
    let answer = server
        .chat(json!({"logprobs": false, "top_logprobs": 0}))
        .await
        .ok();
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn logprobs_of_a_completion_are_four_lists() {
    let plan = Plan {
        script: says("is ſ no"),
        ..Plan::for_test()
    };
    let server = plan.start();
    let answer = server.complete(json!({"logprobs": 1})).await.ok();
    let expected = json!({
        // ſ is one character of two tokens.
        "text_offset": [0, 2, 3, 4, 4, 7],
        "token_logprobs": [-0.25, -0.5, -0.75, -1.0, -1.25, -1.5],
        "tokens": ["is", " ", "\u{fffd}", "\u{fffd}", " no", "<end_of_turn>"],
        "top_logprobs": [
            {"is": -0.25}, {" ": -0.5}, {"\u{fffd}": -0.75}, {"\u{fffd}": -1.0}, {" no": -1.25},
            {"<end_of_turn>": -1.5},
        ],
    });
    assert_eq!(answer["choices"][0]["logprobs"], expected);

    let chunks = server
        .complete(json!({"logprobs": 1, "stream": true}))
        .await
        .chunks();
    for list in ["text_offset", "token_logprobs", "tokens", "top_logprobs"] {
        let joined: Vec<_> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["logprobs"][list].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(json!(joined), expected[list], "{list}");
    }
    let answer = server.complete(json!({"logprobs": 2})).await.ok();
    let tops = &answer["choices"][0]["logprobs"]["top_logprobs"];
    assert_eq!(tops[0], json!({"is": -0.25, "!": -1.25}));
    let answer = server.complete(json!({"logprobs": 0})).await.ok();
    let tops = &answer["choices"][0]["logprobs"]["top_logprobs"];
    assert_eq!(tops[0], json!({"is": -0.25}), "the chosen token always");
}

#[tokio::test]
async fn token_ids_come_where_they_are_asked_for() {
    let mut server = Plan::for_test().start();
    let answer = server.chat(json!({"return_token_ids": true})).await.ok();
    let mut ids = tokens("The heart is normal.");
    ids.push(END_OF_TURN);
    assert_eq!(answer["choices"][0]["token_ids"], json!(ids));
    assert_eq!(
        answer["prompt_token_ids"],
        json!(server.request().await.prompt)
    );

    let answer = server
        .complete(json!({"return_token_ids": true}))
        .await
        .ok();
    assert_eq!(answer["choices"][0]["token_ids"], json!(ids));
    assert_eq!(
        answer["prompt_token_ids"],
        json!(server.request().await.prompt)
    );
    assert_eq!(
        answer["choices"][0]["prompt_token_ids"],
        answer["prompt_token_ids"]
    );

    let answer = server.chat(json!({})).await.ok();
    assert!(answer["prompt_token_ids"].is_null());
    assert!(answer["choices"][0]["token_ids"].is_null());
}

#[tokio::test]
async fn a_step_that_fails_is_a_500() {
    for (end, status, code) in [
        (End::Fail, 500, "step_failed"),
        (End::Vanish, 503, "engine_dead"),
    ] {
        let plan = Plan {
            script: always(tokens("The heart"), end),
            ..Plan::for_test()
        };
        let server = plan.start();
        for reply in [
            server.chat(json!({"n": 2})).await,
            server.complete(json!({})).await,
        ] {
            assert_eq!(reply.error(), (status, Some(code.to_owned()), None));
        }
        assert_eq!(server.engine.num_in_flight(), 0);
    }
}

#[tokio::test]
async fn a_full_queue_is_a_429_that_says_when() {
    let plan = Plan {
        max_in_flight: 2,
        script: always(tokens("The heart"), End::Hang),
        ..Plan::for_test()
    };
    let mut server = plan.start();
    let running = server.stream(json!({"n": 1})).await;
    server.request().await;
    // There is room for one of the two, and neither is taken.
    let reply = server.chat(json!({"n": 2})).await;
    assert_eq!(
        reply.error(),
        (429, Some("rate_limit_exceeded".to_owned()), None)
    );
    let retry_after = reply.headers["retry-after"].to_str().expect("a number");
    assert!(retry_after.parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    assert_eq!(server.engine.num_in_flight(), 1);
    drop(running);
    server.aborted().await;
    let running = server.stream(json!({"n": 2})).await;
    assert_eq!(server.engine.num_in_flight(), 2);
    drop(running);
}

#[tokio::test]
async fn more_answers_than_could_ever_wait_are_no_matter_of_time() {
    let plan = Plan {
        max_in_flight: 2,
        ..Plan::for_test()
    };
    let mut server = plan.start();
    let reply = server.chat(json!({"n": 3})).await;
    let too_large = (400, Some("request_too_large".to_owned()), None);
    assert_eq!(reply.error(), too_large);
    assert!(!reply.headers.contains_key("retry-after"));
    let reply = server.complete(json!({"prompt": ["a", "b"], "n": 2})).await;
    assert_eq!(reply.error(), too_large);
    // The engine was told of none of them.
    server.chat(json!({"n": 2, "seed": 5})).await.ok();
    assert_eq!(server.request().await.sampling.seed, 5);
}

#[tokio::test]
async fn cached_tokens_are_those_of_each_prompts_first_answer() {
    // What a real engine does: the first computes, the others find it.
    let plan = Plan {
        cached: |request| match request.sampling.seed {
            7 => request.prompt.len() / 2,
            _ => request.prompt.len() - 1,
        },
        script: says("No."),
        ..Plan::for_test()
    };
    let server = plan.start();
    let body = json!({"prompt": [[5, 6, 7, 8], [9, 10]], "n": 3, "seed": 7});
    let answer = server.complete(body.clone()).await.ok();
    let usage = &answer["usage"];
    assert_eq!(usage["prompt_tokens"], 6);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 3);

    let mut streamed = body;
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let chunks = server.complete(streamed).await.chunks();
    assert_eq!(chunks.last().expect("a chunk")["usage"], *usage);
}

#[tokio::test]
async fn the_service_tier_is_told_to_those_who_speak_of_one() {
    let server = Plan::for_test().start();
    for tier in ["auto", "default"] {
        let fields = json!({"service_tier": tier, "metadata": {"study": "7"}, "store": false});
        assert_eq!(
            server.chat(fields.clone()).await.ok()["service_tier"],
            "default"
        );
        assert_eq!(
            server.complete(fields).await.ok()["service_tier"],
            "default"
        );
        let fields = json!({"service_tier": tier, "stream": true});
        for chunk in server.chat(fields).await.chunks() {
            assert_eq!(chunk["service_tier"], "default");
        }
    }
    let answer = server.chat(json!({})).await.ok();
    assert!(answer.get("service_tier").is_none());
}

#[tokio::test]
async fn an_echoed_prompt_stands_before_its_answers() {
    let server = Plan::for_test().start();
    let ids: Vec<_> = tokens("<bos>The heart").iter().map(|id| id.0).collect();
    for (prompt, echoed) in [
        (json!("The heart"), "The heart"),
        (json!("<bos>The heart"), "<bos>The heart"),
        (json!(ids), "The heart"),
        (json!(ids[1..]), "The heart"),
    ] {
        let body = json!({"prompt": prompt, "echo": true, "n": 2});
        let answer = server.complete(body.clone()).await.ok();
        let expected = format!("{echoed}The heart is normal.");
        for choice in answer["choices"].as_array().expect("choices") {
            assert_eq!(choice["text"], json!(expected), "{prompt}");
            assert_eq!(choice["logprobs"], Value::Null);
        }
        let mut streamed = body;
        streamed["stream"] = json!(true);
        let chunks = server.complete(streamed).await.chunks();
        for index in 0..2 {
            let choices = chunks.iter().map(|chunk| &chunk["choices"][0]);
            let own = choices.filter(|choice| choice["index"] == index);
            let text: String = own.filter_map(|choice| choice["text"].as_str()).collect();
            assert_eq!(text, expected, "{prompt}");
        }
    }
    let answer = server.complete(json!({"echo": false})).await.ok();
    assert_eq!(answer["choices"][0]["text"], "The heart is normal.");
}

#[tokio::test]
async fn an_echoed_prompts_log_probabilities_stand_before_the_answers() {
    let plan = Plan {
        script: says("is no"),
        ..Plan::for_test()
    };
    let server = plan.start();
    let body = json!({"prompt": "he", "echo": true, "logprobs": 1});
    let expected = json!({
        // <bos> is no part of the text.
        "text_offset": [0, 0, 2, 4, 7],
        "token_logprobs": [null, -0.5, -0.25, -0.5, -0.75],
        "tokens": ["<bos>", "he", "is", " no", "<end_of_turn>"],
        "top_logprobs": [
            null, {"he": -0.5, "!": -0.25}, {"is": -0.25}, {" no": -0.5}, {"<end_of_turn>": -0.75},
        ],
    });
    let answer = server.complete(body.clone()).await.ok();
    assert_eq!(answer["choices"][0]["text"], "heis no");
    assert_eq!(answer["choices"][0]["logprobs"], expected);
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let chunks = server.complete(streamed).await.chunks();
    for list in ["text_offset", "token_logprobs", "tokens", "top_logprobs"] {
        let joined: Vec<_> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["logprobs"][list].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(json!(joined), expected[list], "{list}");
    }
}

#[tokio::test]
async fn a_prompts_log_probabilities_are_named_by_id() {
    let mut server = Plan::for_test().start();
    let entry = |logprob: f32, rank: u32, token: &str| json!({"logprob": logprob, "rank": rank, "decoded_token": token});
    let he = tokens("he")[0].0.to_string();
    for (num_top, expected) in [
        (0, json!({&he: entry(-0.5, 3, "he")})),
        (
            1,
            json!({"283": entry(-0.25, 1, "!"), &he: entry(-0.5, 3, "he")}),
        ),
    ] {
        let body = json!({"prompt": "he", "prompt_logprobs": num_top, "n": 2});
        let answer = server.complete(body).await.ok();
        for choice in answer["choices"].as_array().expect("choices") {
            assert_eq!(choice["prompt_logprobs"], json!([null, expected]));
        }
        assert_eq!(server.request().await.prompt_logprobs, Some(num_top));
        assert_eq!(server.request().await.prompt_logprobs, Some(num_top));
    }
    let answer = server.chat(json!({"prompt_logprobs": 2})).await.ok();
    let num_prompt = answer["usage"]["prompt_tokens"].as_u64();
    let entries = answer["prompt_logprobs"].as_array().expect("a list");
    assert_eq!(Some(entries.len() as u64), num_prompt);
    assert_eq!(entries[0], Value::Null);
    assert_eq!(entries[1].as_object().map(serde_json::Map::len), Some(3));
    let answer = server.chat(json!({})).await.ok();
    assert_eq!(answer.get("prompt_logprobs"), Some(&Value::Null));
    // More for the one than for the other: each gets its own.
    let body = json!({"prompt": "he", "echo": true, "logprobs": 0, "prompt_logprobs": 1});
    let answer = server.complete(body).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(choice["logprobs"]["top_logprobs"][1], json!({"he": -0.5}));
    assert_eq!(
        choice["prompt_logprobs"][1]
            .as_object()
            .map(serde_json::Map::len),
        Some(2)
    );
}
