//! Every field that is known and not served is refused by name, and its neutral value is not.
//!
//! The lists are of their own making, from the clients' side, so that a field that is dropped from
//! the server's table is missed here.

use serde_json::{Value, json};

use super::server::{Plan, TestServer, chat_body};

/// A field, a value that asks for something, and values that ask for nothing.
type Case = (&'static str, Value, Vec<Value>);

/// Fields of both endpoints: OpenAI's published ones, vLLM's, and those of other servers.
fn shared() -> Vec<Case> {
    vec![
        (
            "service_tier",
            json!("flex"),
            vec![json!("auto"), json!("default")],
        ),
        ("store", json!(true), vec![json!(false)]),
        ("prompt_cache_options", json!({"mode": "x"}), vec![]),
        (
            "prompt_cache_retention",
            json!("24h"),
            vec![json!("in_memory"), json!("in-memory")],
        ),
        ("moderation", json!({"model": "x"}), vec![]),
        ("use_beam_search", json!(true), vec![json!(false)]),
        ("length_penalty", json!(2), vec![json!(1.0)]),
        ("early_stopping", json!(true), vec![json!(false)]),
        ("best_of", json!(2), vec![json!(1)]),
        (
            "spaces_between_special_tokens",
            json!(false),
            vec![json!(true)],
        ),
        ("logits_processors", json!(["x"]), vec![]),
        ("repetition_detection", json!({"a": 1}), vec![]),
        ("watermarking", json!(true), vec![json!(false)]),
        ("guided_whitespace_pattern", json!(" "), vec![]),
        ("structural_tag", json!("x"), vec![]),
        ("request_id", json!("x"), vec![]),
        ("session_id", json!("x"), vec![]),
        ("return_token_offsets", json!(true), vec![json!(false)]),
        ("return_prompt_text", json!(true), vec![json!(false)]),
        ("stream_interval", json!(5), vec![json!(1)]),
        ("prompt_embeds", json!("x"), vec![]),
        ("kv_transfer_params", json!({"a": 1}), vec![json!({})]),
        ("ec_transfer_params", json!({"a": 1}), vec![]),
        ("vllm_xargs", json!({"a": 1}), vec![json!({})]),
        ("regex", json!("a*"), vec![]),
        ("ebnf", json!("x"), vec![]),
        ("grammar", json!("x"), vec![]),
        ("json_schema", json!({}), vec![]),
        ("repeat_penalty", json!(1.1), vec![json!(1.0)]),
        ("typical_p", json!(0.5), vec![json!(1.0)]),
        ("mirostat", json!(2), vec![json!(0)]),
        ("min_new_tokens", json!(2), vec![json!(0)]),
        ("max_new_tokens", json!(2), vec![]),
        ("n_predict", json!(2), vec![json!(-1)]),
        ("lora_path", json!("x"), vec![]),
    ]
}

fn chat_only() -> Vec<Case> {
    vec![
        ("prompt", json!("x"), vec![]),
        ("images", json!(["x"]), vec![json!([])]),
        ("format", json!("json"), vec![]),
        ("options", json!({"seed": 1}), vec![json!({})]),
        ("system", json!("Be brief."), vec![]),
        ("functions", json!([{"name": "f"}]), vec![json!([])]),
        ("function_call", json!("auto"), vec![json!("none")]),
        ("reasoning", json!({"effort": "low"}), vec![]),
        ("thinking", json!({"type": "enabled"}), vec![]),
        ("enable_thinking", json!(true), vec![]),
        ("verbosity", json!("low"), vec![json!("medium")]),
        (
            "modalities",
            json!(["text", "audio"]),
            vec![json!(["text"])],
        ),
        ("audio", json!({"voice": "x"}), vec![]),
        ("prediction", json!({"type": "content"}), vec![]),
        ("web_search_options", json!({}), vec![]),
        ("add_special_tokens", json!(true), vec![json!(false)]),
        ("documents", json!([{"text": "x"}]), vec![json!([])]),
        ("chat_template", json!("{{ x }}"), vec![]),
        ("media_io_kwargs", json!({"a": {}}), vec![json!({})]),
    ]
}

fn completion_only() -> Vec<Case> {
    vec![
        ("messages", json!([]), vec![]),
        ("tools", json!([{"type": "function"}]), vec![json!([])]),
        ("tool_choice", json!("auto"), vec![json!("none")]),
        ("parallel_tool_calls", json!(false), vec![json!(true)]),
        ("reasoning_effort", json!("none"), vec![]),
        ("thinking_token_budget", json!(5), vec![json!(-1)]),
        ("include_reasoning", json!(false), vec![json!(true)]),
        (
            "chat_template_kwargs",
            json!({"enable_thinking": true}),
            vec![json!({})],
        ),
        ("suffix", json!("x"), vec![json!("")]),
        ("top_logprobs", json!(5), vec![json!(0)]),
        ("add_special_tokens", json!(false), vec![json!(true)]),
    ]
}

async fn check(server: &TestServer, path: &str, body: Value, cases: Vec<Case>) {
    for (name, asks, neutral) in cases {
        let with = |value: &Value| {
            let mut body = body.clone();
            body[name] = value.clone();
            server.post(path, body.to_string())
        };
        let reply = with(&asks).await;
        let expected = (
            400,
            Some("unsupported_parameter".to_owned()),
            Some(name.to_owned()),
        );
        assert_eq!(
            reply.error(),
            expected,
            "{path} {name}: {asks}: {}",
            reply.body
        );
        assert!(reply.body.contains(&format!("'{name}'")), "{}", reply.body);
        for value in neutral.iter().chain([&Value::Null]) {
            assert_eq!(with(value).await.status, 200, "{path} {name}: {value}");
        }
    }
}

#[tokio::test]
async fn of_a_chat() {
    let server = Plan::for_test().start();
    let cases = shared().into_iter().chain(chat_only()).collect();
    check(&server, "/v1/chat/completions", chat_body(json!({})), cases).await;
}

#[tokio::test]
async fn of_a_completion() {
    let server = Plan::for_test().start();
    let cases = shared().into_iter().chain(completion_only()).collect();
    check(&server, "/v1/completions", json!({"prompt": "The"}), cases).await;
}

#[tokio::test]
async fn neither_place_nor_spelling_hides_a_field() {
    let server = Plan::for_test().start();
    for body in [
        r#"{"audio": [1], "messages": [{"role": "user", "content": "hi"}]}"#,
        r#"{"messages": [{"role": "user", "content": "hi"}], "\u0061udio": [1]}"#,
        r#"{"messages": [{"role": "user", "content": "hi"}], "audio": null, "audio": [1]}"#,
    ] {
        let reply = server.post("/v1/chat/completions", body).await;
        assert_eq!(reply.error().2.as_deref(), Some("audio"), "{body}");
    }
    // Inside another field the name means nothing to us.
    let body = r#"{"messages": [{"role": "user", "content": "hi"}], "extra": {"audio": [1]}}"#;
    assert_eq!(server.post("/v1/chat/completions", body).await.status, 200);
}
