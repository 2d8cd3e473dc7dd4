//! Thoughts: who thinks, for how long, and where the thought goes.

use futures_util::FutureExt;
use medgemma::core::{Thinking, TokenId, Urgency};
use serde_json::{Value, json};

use super::server::{End, Plan, TestServer, always, says, tokens};

const THOUGHT: &str = "<unused94>thought\nIs it big?<unused95>It is normal.";
const INSTRUCTION: &str = "SYSTEM INSTRUCTION: think silently if needed. ";

fn thinker(when: Thinking) -> TestServer {
    Plan {
        thinking: when,
        script: says(THOUGHT),
        ..Plan::for_test()
    }
    .start()
}

#[tokio::test]
async fn a_thought_comes_beside_the_answer() {
    let server = thinker(Thinking::OnRequest);
    let answer = server.chat(json!({})).await.ok();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "It is normal.");
    assert_eq!(message["reasoning_content"], "Is it big?");
    assert_eq!(message["reasoning"], "Is it big?");
    let num_reasoning = tokens("<unused94>thought\nIs it big?<unused95>").len();
    let usage = &answer["usage"];
    assert_eq!(
        usage["completion_tokens_details"]["reasoning_tokens"],
        num_reasoning
    );
    assert_eq!(usage["completion_tokens"], tokens(THOUGHT).len() + 1);

    // To a model that does not think the markers are text.
    let plain = thinker(Thinking::Never).chat(json!({})).await.ok();
    let message = &plain["choices"][0]["message"];
    assert_eq!(message["content"], THOUGHT);
    assert_eq!(message["reasoning_content"], Value::Null);
}

#[tokio::test]
async fn a_thought_streams_before_the_answer() {
    let server = thinker(Thinking::Unasked);
    let body = json!({"stream": true, "logprobs": true, "return_token_ids": true,
        "stream_options": {"include_usage": true}});
    let chunks = server.chat(body).await.chunks();
    let (mut reasoning, mut content, mut ids, mut num_logprobs) =
        (String::new(), String::new(), Vec::new(), 0);
    for chunk in &chunks {
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        if let Some(text) = delta["reasoning_content"].as_str() {
            assert_eq!(delta["reasoning"], text);
            assert!(content.is_empty(), "the thought comes first");
            reasoning += text;
        }
        content += delta["content"].as_str().unwrap_or_default();
        ids.extend(
            choice["token_ids"]
                .as_array()
                .into_iter()
                .flatten()
                .cloned(),
        );
        let logprobs = choice["logprobs"]["content"].as_array();
        num_logprobs += logprobs.map_or(0, Vec::len);
    }
    assert_eq!(
        (reasoning.as_str(), content.as_str()),
        ("Is it big?", "It is normal.")
    );
    // Every token counts, whatever it was for.
    let expected = [tokens(THOUGHT), vec![TokenId(8)]].concat();
    assert_eq!(json!(ids), json!(expected));
    assert_eq!(num_logprobs, expected.len());
    let usage = &chunks.last().expect("a last chunk")["usage"];
    assert!(usage["completion_tokens_details"]["reasoning_tokens"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_thought_that_is_cut_off_is_all_there_is() {
    let script = always(tokens("<unused94>thought\nIs it"), End::Length);
    let server = Plan {
        thinking: Thinking::Unasked,
        script,
        ..Plan::for_test()
    }
    .start();
    let answer = server.chat(json!({})).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["reasoning_content"], "Is it");
    assert_eq!(choice["message"]["content"], "");
}

#[tokio::test]
async fn a_thought_can_be_left_out() {
    let server = thinker(Thinking::Unasked);
    let answer = server.chat(json!({"include_reasoning": false})).await.ok();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "It is normal.");
    assert_eq!(message["reasoning_content"], Value::Null);
    assert_eq!(message["reasoning"], Value::Null);
    let details = &answer["usage"]["completion_tokens_details"];
    assert!(details["reasoning_tokens"].as_u64() > Some(0), "{answer}");
}

#[tokio::test]
async fn stop_strings_do_not_count_in_a_thought() {
    let server = thinker(Thinking::Unasked);
    let answer = server.chat(json!({"stop": ["big", " normal"]})).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "It is");
    assert_eq!(choice["message"]["reasoning_content"], "Is it big?");
    assert_eq!(choice["stop_reason"], " normal");
}

/// What the prompt says in the user's turn.
async fn prompted(server: &mut TestServer, body: Value) -> String {
    server.chat(body.clone()).await.ok();
    let prompt = server.request().await.prompt;
    let text = server
        .post("/detokenize", json!({"tokens": prompt}).to_string())
        .await
        .ok();
    let text = text["prompt"].as_str().expect("a text").to_owned();
    let turn = text
        .strip_prefix("<bos><start_of_turn>user\n")
        .expect("a prompt");
    turn.split("<end_of_turn>")
        .next()
        .expect("a turn")
        .to_owned()
}

#[tokio::test]
async fn a_wish_to_think_goes_into_the_system_text() {
    let question = "Is the heart normal?";
    let system =
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]);
    let asked = format!("{INSTRUCTION}Be brief.");
    let asks = json!([{"role": "system", "content": asked}, {"role": "user", "content": "hi"}]);
    for when in [Thinking::OnRequest, Thinking::Unasked] {
        let mut server = thinker(when);
        for (body, expected) in [
            (json!({}), question.to_owned()),
            (json!({"reasoning_effort": "none"}), question.to_owned()),
            (
                json!({"chat_template_kwargs": {"enable_thinking": false}}),
                question.to_owned(),
            ),
            (
                json!({"reasoning_effort": "low"}),
                format!("{INSTRUCTION}\n\n{question}"),
            ),
            (
                json!({"thinking_token_budget": 5}),
                format!("{INSTRUCTION}\n\n{question}"),
            ),
            (
                json!({"chat_template_kwargs": {"enable_thinking": true, "other": null}}),
                format!("{INSTRUCTION}\n\n{question}"),
            ),
            (
                json!({"reasoning_effort": "high", "messages": system}),
                format!("{asked}\n\nhi"),
            ),
            (
                json!({"reasoning_effort": "high", "messages": asks}),
                format!("{asked}\n\nhi"),
            ),
        ] {
            assert_eq!(
                prompted(&mut server, body.clone()).await,
                expected,
                "{body}"
            );
        }
        let body = json!({
            "messages": [{"role": "user", "content": "hi"}],
            "chat_template_kwargs": {"enable_thinking": true},
        });
        let counted = server.post("/tokenize", body.to_string()).await.ok();
        server.chat(body).await.ok();
        assert_eq!(counted["tokens"], json!(server.request().await.prompt));
    }
}

#[tokio::test]
async fn a_bound_answer_begins_with_a_thought_only_where_one_was_asked_for() {
    let system = |text: &str| {
        json!({"messages": [
            {"role": "system", "content": text}, {"role": "user", "content": "hi"},
        ]})
    };
    let object = json!({"type": "json_object"});
    for (when, fields, may_think) in [
        (Thinking::OnRequest, json!({}), false),
        (Thinking::OnRequest, system("Be brief."), false),
        (Thinking::OnRequest, system(INSTRUCTION), true),
        (
            Thinking::OnRequest,
            json!({"reasoning_effort": "low"}),
            true,
        ),
        (
            Thinking::OnRequest,
            json!({"thinking_token_budget": 9}),
            true,
        ),
        (Thinking::Unasked, json!({}), true),
        (
            Thinking::Unasked,
            json!({"reasoning_effort": "none"}),
            false,
        ),
    ] {
        let mut body = fields.clone();
        body["response_format"] = object.clone();
        let mut server = thinker(when);
        server.chat(body).await;
        let constraint = server.request().await.constraint.expect("it is bound");
        let mut state = constraint.start().expect("it begins");
        let mask = state.next_mask(&[], 1000, Urgency::Now).now_or_never();
        let mask = mask.expect("it computes here").expect("it goes on");
        let mask = mask.expect("not all may come");
        assert_eq!(
            mask.contains(tokens("<unused94>")[0]),
            may_think,
            "{when:?} {fields}"
        );
    }
}

#[tokio::test]
async fn wishes_that_cannot_be_are_refused() {
    let (never, thinks) = (thinker(Thinking::Never), thinker(Thinking::OnRequest));
    let kwargs = |name: &str, value: Value| json!({"chat_template_kwargs": {name: value}});
    const SWITCH: &str = "chat_template_kwargs.enable_thinking";
    for (server, body, code, param) in [
        (
            &never,
            json!({"reasoning_effort": "low"}),
            "unsupported_parameter",
            "reasoning_effort",
        ),
        (
            &never,
            json!({"thinking_token_budget": 7}),
            "unsupported_parameter",
            "thinking_token_budget",
        ),
        (
            &never,
            kwargs("enable_thinking", json!(true)),
            "unsupported_parameter",
            SWITCH,
        ),
        (
            &thinks,
            json!({"reasoning_effort": "huge"}),
            "invalid_value",
            "reasoning_effort",
        ),
        (
            &never,
            json!({"reasoning_effort": "huge"}),
            "invalid_value",
            "reasoning_effort",
        ),
        (
            &thinks,
            json!({"reasoning_effort": 5}),
            "invalid_type",
            "reasoning_effort",
        ),
        (
            &thinks,
            json!({"thinking_token_budget": 0}),
            "invalid_value",
            "thinking_token_budget",
        ),
        (
            &thinks,
            json!({"thinking_token_budget": -2}),
            "invalid_value",
            "thinking_token_budget",
        ),
        (
            &thinks,
            json!({"reasoning_effort": "none", "thinking_token_budget": 9}),
            "invalid_combination",
            "thinking_token_budget",
        ),
        (
            &thinks,
            json!({"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": false}}),
            "invalid_combination",
            "reasoning_effort",
        ),
        (
            &thinks,
            kwargs("enable_thinking", json!("yes")),
            "invalid_type",
            SWITCH,
        ),
        (
            &thinks,
            kwargs("thinking", json!(true)),
            "unsupported_parameter",
            "chat_template_kwargs.thinking",
        ),
        (
            &thinks,
            json!({"include_reasoning": "no"}),
            "invalid_type",
            "include_reasoning",
        ),
    ] {
        let reply = server.chat(body.clone()).await;
        let expected = (400, Some(code.to_owned()), Some(param.to_owned()));
        assert_eq!(reply.error(), expected, "{body}: {}", reply.body);
    }
    // What asks for no thought asks for nothing here.
    let neutral = json!({
        "reasoning_effort": "none", "thinking_token_budget": -1, "include_reasoning": false,
        "chat_template_kwargs": {"enable_thinking": false},
    });
    never.chat(neutral).await.ok();
}

#[tokio::test]
async fn a_message_has_no_thought_unless_thinking_is_enabled() {
    let phrase = json!({"system": INSTRUCTION});
    for (when, fields, may_think) in [
        (Thinking::Unasked, json!({}), false),
        (
            Thinking::Unasked,
            json!({"output_config": {"effort": "low"}}),
            true,
        ),
        (
            Thinking::Unasked,
            json!({"thinking": {"type": "adaptive"}}),
            true,
        ),
        (
            Thinking::Unasked,
            json!({"thinking": {"type": "disabled"}}),
            false,
        ),
        (Thinking::OnRequest, phrase.clone(), false),
        (
            Thinking::OnRequest,
            json!({"thinking": {"type": "adaptive"}}),
            true,
        ),
    ] {
        let mut body = json!({"model": "tiny", "max_tokens": 20,
                              "messages": [{"role": "user", "content": "hi"}]});
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        let mut server = thinker(when);
        server.post("/v1/messages", body.to_string()).await;
        let Some(constraint) = server.request().await.constraint else {
            assert!(may_think, "{when:?} {fields}");
            continue;
        };
        let mut state = constraint.start().expect("it begins");
        let mask = state.next_mask(&[], 1000, Urgency::Now).now_or_never();
        let mask = mask.expect("it computes here").expect("it goes on");
        let thinks = mask.is_none_or(|mask| mask.contains(tokens("<unused94>")[0]));
        assert_eq!(thinks, may_think, "{when:?} {fields}");
    }
}
