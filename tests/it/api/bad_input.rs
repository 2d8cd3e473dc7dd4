//! What a client can get wrong: the answer names it, and the next request is served.

use serde_json::{Value, json};

use super::server::{Plan, TestServer, chat_body};

/// What an answer must say: status, code, param (`-` for null).
type Expected = (u16, &'static str, &'static str);

async fn check(server: &TestServer, path: &str, body: String, expected: Expected) {
    let reply = server.post(path, body.clone()).await;
    let shown: String = body.chars().take(200).collect();
    let (status, code, param) = reply.error();
    let code = code.unwrap_or_else(|| "-".to_owned());
    let param = param.unwrap_or_else(|| "-".to_owned());
    let (expected_status, expected_code, expected_param) = expected;
    assert_eq!(
        (status, code.as_str(), param.as_str()),
        (expected_status, expected_code, expected_param),
        "{path} {shown}: {}",
        reply.body
    );
    assert!(reply.body.len() < 2000, "a message quotes too much");
    // And goes on.
    server.chat(json!({"max_tokens": 4})).await.ok();
    assert_eq!(server.engine.num_in_flight(), 0);
}

const VALUE: &str = "invalid_value";
const TYPE: &str = "invalid_type";
const JSON: &str = "invalid_json";
const MISSING: &str = "missing_required_parameter";
const REFUSED: &str = "unsupported_parameter";
const CONTRADICTION: &str = "invalid_combination";
const IMAGE: &str = "invalid_image";
const LENGTH: &str = "context_length_exceeded";

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let server = Plan::for_test().start();
    let deep = format!("{{\"messages\": {}", "[".repeat(100_000));
    let deep_neutral = format!(
        "{{\"documents\": {}1{}, \"messages\": []}}",
        "[".repeat(9000),
        "]".repeat(9000)
    );
    let cases: &[(&str, Expected)] = &[
        ("", (400, JSON, "-")),
        ("   ", (400, JSON, "-")),
        ("{", (400, JSON, "-")),
        ("nonsense", (400, JSON, "-")),
        ("{\"messages\": [}", (400, JSON, "messages[0]")),
        ("{\"messages\": [], }", (400, JSON, "-")),
        ("{\"messages\": []} trailing", (400, JSON, "-")),
        ("{'messages': []}", (400, JSON, "-")),
        ("[]", (400, TYPE, "-")),
        ("[[{\"role\": \"user\"}]]", (400, TYPE, "-")),
        ("null", (400, TYPE, "-")),
        ("\"text\"", (400, TYPE, "-")),
        ("17", (400, TYPE, "-")),
        ("{}", (400, MISSING, "messages")),
        ("{\"messages\": null}", (400, TYPE, "messages")),
        (
            "{\"temperature\": NaN, \"messages\": []}",
            (400, JSON, "temperature"),
        ),
        (
            "{\"messages\": [], \"temperature\": NaN}",
            (400, JSON, "temperature"),
        ),
        (
            "{\"messages\": [], \"temperature\": Infinity}",
            (400, JSON, "temperature"),
        ),
        (
            "{\"messages\": [], \"temperature\": -Infinity}",
            (400, JSON, "temperature"),
        ),
        ("{\"messages\": [], \"seed\": 1e400}", (400, JSON, "seed")),
        (
            "{\"messages\": [], \"temperature\": 1e999}",
            (400, JSON, "temperature"),
        ),
        ("{\"messages\": [], \"n\": 1, \"n\": 2}", (400, JSON, "n")),
        (
            "{\"messages\": [], \"messages\": []}",
            (400, JSON, "messages"),
        ),
        (
            "{\"messages\": [{\"role\": \"user\", \"role\": \"user\"}]}",
            (400, JSON, "messages[0].role"),
        ),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}",
            (400, JSON, "messages[0].content"),
        ),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\u{1}b\"}]}",
            (400, JSON, "messages[0].content"),
        ),
        ("\u{feff}{\"messages\": []}", (400, VALUE, "messages")),
        ("\u{feff}\u{feff}{\"messages\": []}", (400, JSON, "-")),
        (&deep, (400, TYPE, "messages[0]")),
        (&deep_neutral, (400, REFUSED, "documents")),
    ];
    for (body, expected) in cases {
        check(
            &server,
            "/v1/chat/completions",
            (*body).to_owned(),
            *expected,
        )
        .await;
    }
    let reply = server
        .post("/v1/chat/completions", b"{\"messages\": \"\xff\"}".to_vec())
        .await;
    assert_eq!(reply.error(), (400, Some(JSON.to_owned()), None));
}

#[tokio::test]
async fn fields_out_of_type_range_or_sense() {
    let server = Plan::for_test().start();
    let cases: Vec<(Value, Expected)> = vec![
        (json!({"model": "gpt-5"}), (404, "model_not_found", "model")),
        (json!({"model": ""}), (404, "model_not_found", "model")),
        (json!({"model": 5}), (400, TYPE, "model")),
        (json!({"temperature": -0.1}), (400, VALUE, "temperature")),
        (json!({"temperature": 2.01}), (400, VALUE, "temperature")),
        (json!({"temperature": "0.5"}), (400, TYPE, "temperature")),
        (json!({"temperature": true}), (400, TYPE, "temperature")),
        (json!({"temperature": [1]}), (400, TYPE, "temperature")),
        (json!({"top_p": 0}), (400, VALUE, "top_p")),
        (json!({"top_p": -0.5}), (400, VALUE, "top_p")),
        (json!({"top_p": 1.1}), (400, VALUE, "top_p")),
        (json!({"top_k": -2}), (400, VALUE, "top_k")),
        (json!({"top_k": 1.5}), (400, TYPE, "top_k")),
        (json!({"min_p": -0.1}), (400, VALUE, "min_p")),
        (json!({"min_p": 1.1}), (400, VALUE, "min_p")),
        (
            json!({"presence_penalty": 2.1}),
            (400, VALUE, "presence_penalty"),
        ),
        (
            json!({"frequency_penalty": -2.1}),
            (400, VALUE, "frequency_penalty"),
        ),
        (
            json!({"repetition_penalty": 0}),
            (400, VALUE, "repetition_penalty"),
        ),
        (
            json!({"repetition_penalty": 10.1}),
            (400, VALUE, "repetition_penalty"),
        ),
        (
            json!({"logit_bias": {"769": 1}}),
            (400, VALUE, "logit_bias"),
        ),
        (json!({"logit_bias": {"-1": 1}}), (400, VALUE, "logit_bias")),
        (
            json!({"logit_bias": {"the": 1}}),
            (400, VALUE, "logit_bias"),
        ),
        (
            json!({"logit_bias": {"5": 100.1}}),
            (400, VALUE, "logit_bias"),
        ),
        (
            json!({"logit_bias": {"5": 1, "05": 2}}),
            (400, VALUE, "logit_bias"),
        ),
        (
            json!({"logit_bias": {"5": "1"}}),
            (400, TYPE, "logit_bias.5"),
        ),
        (json!({"logit_bias": [5]}), (400, TYPE, "logit_bias")),
        (
            json!({"metadata": {"a".repeat(65): "b"}}),
            (400, VALUE, "metadata"),
        ),
        (json!({"metadata": {"a": 5}}), (400, TYPE, "metadata.a")),
        (json!({"metadata": "a"}), (400, TYPE, "metadata")),
        (
            json!({"prompt_logprobs": 21}),
            (400, VALUE, "prompt_logprobs"),
        ),
        (
            json!({"prompt_logprobs": -1}),
            (400, VALUE, "prompt_logprobs"),
        ),
        (
            json!({"prompt_logprobs": 1, "stream": true}),
            (400, CONTRADICTION, "prompt_logprobs"),
        ),
        (json!({"n": 0}), (400, VALUE, "n")),
        (json!({"n": -1}), (400, VALUE, "n")),
        (json!({"n": 129}), (400, VALUE, "n")),
        (json!({"n": "2"}), (400, TYPE, "n")),
        (json!({"max_tokens": 0}), (400, VALUE, "max_tokens")),
        (json!({"max_tokens": -5}), (400, VALUE, "max_tokens")),
        (json!({"max_tokens": 1.5}), (400, TYPE, "max_tokens")),
        (json!({"max_tokens": 1e30}), (400, TYPE, "max_tokens")),
        (
            json!({"max_tokens": 18_446_744_073_709_551_615_u64}),
            (400, TYPE, "max_tokens"),
        ),
        (
            json!({"max_completion_tokens": 0}),
            (400, VALUE, "max_completion_tokens"),
        ),
        (json!({"min_tokens": -1}), (400, VALUE, "min_tokens")),
        (
            json!({"min_tokens": 5, "max_tokens": 4}),
            (400, CONTRADICTION, "min_tokens"),
        ),
        (json!({"seed": 1.5}), (400, TYPE, "seed")),
        (json!({"seed": "1"}), (400, TYPE, "seed")),
        (json!({"seed": 1e20}), (400, TYPE, "seed")),
        (json!({"stop": 5}), (400, TYPE, "stop")),
        (json!({"stop": ""}), (400, VALUE, "stop")),
        (json!({"stop": ["a", ""]}), (400, VALUE, "stop[1]")),
        (json!({"stop": ["a", 5]}), (400, TYPE, "stop[1]")),
        (json!({"stop": ["a", null]}), (400, TYPE, "stop[1]")),
        (json!({"stop": vec!["a"; 33]}), (400, VALUE, "stop")),
        (json!({"stop": "é".repeat(257)}), (400, VALUE, "stop")),
        (
            json!({"stop_token_ids": [-1]}),
            (400, VALUE, "stop_token_ids[0]"),
        ),
        (
            json!({"stop_token_ids": [1, 769]}),
            (400, VALUE, "stop_token_ids[1]"),
        ),
        (
            json!({"stop_token_ids": ["a"]}),
            (400, TYPE, "stop_token_ids[0]"),
        ),
        (json!({"stop_token_ids": 5}), (400, TYPE, "stop_token_ids")),
        (
            json!({"stop_token_ids": vec![1; 1025]}),
            (400, VALUE, "stop_token_ids"),
        ),
        (json!({"ignore_eos": 1}), (400, TYPE, "ignore_eos")),
        (json!({"logprobs": 5}), (400, TYPE, "logprobs")),
        (
            json!({"top_logprobs": 5}),
            (400, CONTRADICTION, "top_logprobs"),
        ),
        (
            json!({"logprobs": false, "top_logprobs": 1}),
            (400, CONTRADICTION, "top_logprobs"),
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            (400, VALUE, "top_logprobs"),
        ),
        (
            json!({"logprobs": true, "top_logprobs": -1}),
            (400, VALUE, "top_logprobs"),
        ),
        (json!({"stream": "yes"}), (400, TYPE, "stream")),
        (
            json!({"stream_options": {"include_usage": true}}),
            (400, CONTRADICTION, "stream_options"),
        ),
        (
            json!({"stream": false, "stream_options": {}}),
            (400, CONTRADICTION, "stream_options"),
        ),
        (
            json!({"stream": true, "stream_options": true}),
            (400, TYPE, "stream_options"),
        ),
        (
            json!({"stream": true, "stream_options": [true]}),
            (400, TYPE, "stream_options"),
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            (400, TYPE, "stream_options.include_usage"),
        ),
        (
            json!({"stream": true, "stream_options": {"continuous_usage_stats": true}}),
            (400, CONTRADICTION, "stream_options.continuous_usage_stats"),
        ),
        (
            json!({"stream": true, "stream_options": {"include_obfuscation": true}}),
            (400, REFUSED, "stream_options.include_obfuscation"),
        ),
        (
            json!({"return_token_ids": "yes"}),
            (400, TYPE, "return_token_ids"),
        ),
        (json!({"user": 5}), (400, TYPE, "user")),
        (json!({"priority": 0.5}), (400, TYPE, "priority")),
        (json!({"priority": "high"}), (400, TYPE, "priority")),
        (
            json!({"priority": 2_147_483_648_i64}),
            (400, VALUE, "priority"),
        ),
        (
            json!({"priority": -2_147_483_649_i64}),
            (400, VALUE, "priority"),
        ),
        (json!({"cache_salt": ""}), (400, VALUE, "cache_salt")),
        (json!({"cache_salt": 5}), (400, TYPE, "cache_salt")),
        (json!({"timeout": 0}), (400, VALUE, "timeout")),
        (json!({"timeout": -1.5}), (400, VALUE, "timeout")),
        (json!({"timeout": "5s"}), (400, TYPE, "timeout")),
    ];
    for (extra, expected) in cases {
        check(
            &server,
            "/v1/chat/completions",
            chat_body(extra).to_string(),
            expected,
        )
        .await;
    }
}

#[tokio::test]
async fn messages_that_cannot_be() {
    let server = Plan::for_test().start();
    let image = |url: &str| json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]);
    let part =
        |part: Value| json!([{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]);
    let user = |field: &str, value: Value| {
        let mut message = json!({"role": "user", "content": "hi"});
        message[field] = value;
        json!([message])
    };
    let far_too_long = json!([{"role": "user", "content": "a".repeat(1_000_000)}]);
    let too_long = json!([{"role": "user", "content": "! ".repeat(300)}]);
    let many_images = {
        let url = "data:image/png;base64,iVBORw0KGgo=";
        let image = json!({"type": "image_url", "image_url": {"url": url}});
        json!([{"role": "user", "content": vec![image; 64]}])
    };
    let cases: Vec<(Value, Expected)> = vec![
        (json!([]), (400, VALUE, "messages")),
        (json!({}), (400, TYPE, "messages")),
        (json!("hi"), (400, TYPE, "messages")),
        (json!(["hi"]), (400, TYPE, "messages[0]")),
        (json!([["user", "hi"]]), (400, TYPE, "messages[0]")),
        (json!([null]), (400, TYPE, "messages[0]")),
        (
            json!([{"content": "hi"}]),
            (400, MISSING, "messages[0].role"),
        ),
        (
            json!([{"role": "user"}]),
            (400, MISSING, "messages[0].content"),
        ),
        (
            user("content", Value::Null),
            (400, MISSING, "messages[0].content"),
        ),
        (
            user("content", json!(5)),
            (400, TYPE, "messages[0].content"),
        ),
        (
            user("content", json!({"type": "text"})),
            (400, TYPE, "messages[0].content"),
        ),
        (
            user("content", json!([])),
            (400, VALUE, "messages[0].content"),
        ),
        (
            user("content", json!(["hi"])),
            (400, TYPE, "messages[0].content[0]"),
        ),
        (
            user("role", json!("wizard")),
            (400, VALUE, "messages[0].role"),
        ),
        (
            user("role", json!("User")),
            (400, VALUE, "messages[0].role"),
        ),
        (user("role", json!(null)), (400, TYPE, "messages[0].role")),
        (
            user("role", json!("tool")),
            (400, MISSING, "messages[0].tool_call_id"),
        ),
        (
            user("role", json!("function")),
            (400, REFUSED, "messages[0].role"),
        ),
        (user("name", json!(7)), (400, TYPE, "messages[0].name")),
        (
            user("tool_calls", json!([{"id": "1"}])),
            (400, REFUSED, "messages[0].tool_calls"),
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"id": "1"}]}]),
            (400, MISSING, "messages[0].tool_calls[0].function"),
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom"}]}]),
            (400, MISSING, "messages[0].tool_calls[0].custom"),
        ),
        (
            user("tool_call_id", json!("1")),
            (400, REFUSED, "messages[0].tool_call_id"),
        ),
        (
            user("function_call", json!({"name": "f"})),
            (400, REFUSED, "messages[0].function_call"),
        ),
        (
            user("audio", json!({"id": "1"})),
            (400, REFUSED, "messages[0].audio"),
        ),
        (
            user("images", json!(["iVBORw0KGgo="])),
            (400, REFUSED, "messages[0].images"),
        ),
        (
            user("reasoning_content", json!("hm")),
            (400, REFUSED, "messages[0].reasoning_content"),
        ),
        (
            user("reasoning", json!("hm")),
            (400, REFUSED, "messages[0].reasoning"),
        ),
        (
            part(json!({"text": "a"})),
            (400, MISSING, "messages[0].content[1].type"),
        ),
        (
            part(json!({"type": 5})),
            (400, TYPE, "messages[0].content[1].type"),
        ),
        (
            part(json!({"type": "text"})),
            (400, MISSING, "messages[0].content[1].text"),
        ),
        (
            part(json!({"type": "text", "text": 5})),
            (400, TYPE, "messages[0].content[1].text"),
        ),
        (
            part(json!({"type": "input_audio"})),
            (400, REFUSED, "messages[0].content[1].type"),
        ),
        (
            part(json!({"type": "video_url"})),
            (400, REFUSED, "messages[0].content[1].type"),
        ),
        (
            part(json!({"type": "file"})),
            (400, MISSING, "messages[0].content[1].file"),
        ),
        (
            part(json!({"type": "image"})),
            (400, MISSING, "messages[0].content[1].image"),
        ),
        (
            part(json!({"type": "image_url"})),
            (400, MISSING, "messages[0].content[1].image_url"),
        ),
        (
            part(json!({"type": "image_url", "image_url": {}})),
            (400, MISSING, "messages[0].content[1].image_url.url"),
        ),
        (
            part(json!({"type": "image_url", "image_url": {"url": 5}})),
            (400, TYPE, "messages[0].content[1].image_url.url"),
        ),
        (
            part(json!({"type": "image_url", "image_url": 5})),
            (400, TYPE, "messages[0].content[1].image_url"),
        ),
        (
            part(json!({"type": "image_url", "image_url": {"url": "data:,", "detail": "best"}})),
            (400, TYPE, "messages[0].content[1].image_url.detail"),
        ),
        (
            part(json!({"type": "image_url", "image_url": "data:,", "uuid": "1"})),
            (400, REFUSED, "messages[0].content[1].uuid"),
        ),
        (
            image("http://localhost/x.png"),
            (400, IMAGE, "messages[0].content[0]"),
        ),
        (
            image("HTTPS://example.com/x.png"),
            (400, IMAGE, "messages[0].content[0]"),
        ),
        (
            image("file:///etc/passwd"),
            (400, IMAGE, "messages[0].content[0]"),
        ),
        (image("/etc/passwd"), (400, IMAGE, "messages[0].content[0]")),
        (
            image("ftp://example.com/x.png"),
            (400, IMAGE, "messages[0].content[0]"),
        ),
        (image(""), (400, IMAGE, "messages[0].content[0]")),
        (image("data:"), (400, IMAGE, "messages[0].content[0]")),
        (
            image("data:image/png;base64,???"),
            (400, IMAGE, "messages[0].content[0]"),
        ),
        (
            image("data:image/png;base64,aGVsbG8="),
            (400, IMAGE, "messages[0].content[0]"),
        ),
        (
            json!([{"role": "system", "content": [{"type": "image_url", "image_url": "data:,"}]}]),
            (400, VALUE, "messages[0].content[0]"),
        ),
        (far_too_long, (400, LENGTH, "messages")),
        (too_long, (400, LENGTH, "messages")),
        (many_images, (400, LENGTH, "messages")),
    ];
    for (messages, expected) in cases {
        let body = chat_body(json!({"messages": messages})).to_string();
        check(&server, "/v1/chat/completions", body, expected).await;
    }
}

#[tokio::test]
async fn completions_that_cannot_be() {
    let server = Plan::for_test().start();
    let cases: Vec<(Value, Expected)> = vec![
        (json!({}), (400, MISSING, "prompt")),
        (json!({"prompt": null}), (400, TYPE, "prompt")),
        (json!({"prompt": 5}), (400, TYPE, "prompt")),
        (json!({"prompt": {}}), (400, TYPE, "prompt")),
        (json!({"prompt": []}), (400, VALUE, "prompt")),
        (json!({"prompt": [[]]}), (400, VALUE, "prompt[0]")),
        (json!({"prompt": [[1], []]}), (400, VALUE, "prompt[1]")),
        (json!({"prompt": ["a", 5]}), (400, TYPE, "prompt[1]")),
        (json!({"prompt": [5, "a"]}), (400, TYPE, "prompt[1]")),
        (json!({"prompt": [5, 1.5]}), (400, TYPE, "prompt[1]")),
        (json!({"prompt": [[5], 5]}), (400, TYPE, "prompt[1]")),
        (json!({"prompt": [[5], ["a"]]}), (400, TYPE, "prompt[1][0]")),
        (json!({"prompt": [null]}), (400, TYPE, "prompt[0]")),
        (json!({"prompt": [-1]}), (400, VALUE, "prompt[0]")),
        (json!({"prompt": [2, 769]}), (400, VALUE, "prompt[1]")),
        (
            json!({"prompt": [[2], [5_000_000_000_i64]]}),
            (400, VALUE, "prompt[1][0]"),
        ),
        (json!({"prompt": vec![5; 256]}), (400, LENGTH, "prompt")),
        (json!({"prompt": "! ".repeat(300)}), (400, LENGTH, "prompt")),
        (
            json!({"prompt": ["ok", "! ".repeat(300)]}),
            (400, LENGTH, "prompt[1]"),
        ),
        (json!({"prompt": vec!["a"; 1025]}), (400, VALUE, "prompt")),
        (
            json!({"prompt": "a", "logprobs": true}),
            (400, TYPE, "logprobs"),
        ),
        (
            json!({"prompt": "a", "logprobs": 21}),
            (400, VALUE, "logprobs"),
        ),
        (
            json!({"prompt": "a", "logprobs": -1}),
            (400, VALUE, "logprobs"),
        ),
        (
            json!({"prompt": "a", "messages": [1]}),
            (400, REFUSED, "messages"),
        ),
        (
            json!({"prompt": "a", "model": "x"}),
            (404, "model_not_found", "model"),
        ),
    ];
    for (body, expected) in cases {
        check(&server, "/v1/completions", body.to_string(), expected).await;
    }
}

#[tokio::test]
async fn tokenizing_what_cannot_be() {
    let server = Plan::for_test().start();
    let messages = json!([{"role": "user", "content": "hi"}]);
    let cases: Vec<(&str, Value, Expected)> = vec![
        ("/tokenize", json!({}), (400, MISSING, "prompt")),
        ("/tokenize", json!({"prompt": 5}), (400, TYPE, "prompt")),
        (
            "/tokenize",
            json!({"prompt": "a", "messages": messages}),
            (400, CONTRADICTION, "messages"),
        ),
        (
            "/tokenize",
            json!({"messages": messages, "add_special_tokens": true}),
            (400, CONTRADICTION, "add_special_tokens"),
        ),
        (
            "/tokenize",
            json!({"messages": messages, "tools": [1]}),
            (400, TYPE, "tools[0]"),
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "tools": [{"type": "function", "function": {"name": "f"}}]}),
            (400, CONTRADICTION, "tools"),
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "add_generation_prompt": false}),
            (400, CONTRADICTION, "add_generation_prompt"),
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "continue_final_message": true}),
            (400, CONTRADICTION, "continue_final_message"),
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "chat_template_kwargs": {"enable_thinking": true}}),
            (400, CONTRADICTION, "chat_template_kwargs"),
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "model": "x"}),
            (404, "model_not_found", "model"),
        ),
        (
            "/tokenize",
            json!({"prompt": "a".repeat(17 << 20)}),
            (400, LENGTH, "prompt"),
        ),
        ("/detokenize", json!({}), (400, MISSING, "tokens")),
        ("/detokenize", json!({"tokens": "a"}), (400, TYPE, "tokens")),
        (
            "/detokenize",
            json!({"tokens": vec![1; 131_073]}),
            (400, VALUE, "tokens"),
        ),
        (
            "/detokenize",
            json!({"tokens": [1, "a"]}),
            (400, TYPE, "tokens[1]"),
        ),
        (
            "/detokenize",
            json!({"tokens": [1, 769]}),
            (400, VALUE, "tokens[1]"),
        ),
        (
            "/detokenize",
            json!({"tokens": [-1]}),
            (400, VALUE, "tokens[0]"),
        ),
        (
            "/detokenize",
            json!({"tokens": [], "model": "x"}),
            (404, "model_not_found", "model"),
        ),
    ];
    for (path, body, expected) in cases {
        check(&server, path, body.to_string(), expected).await;
    }
}

#[tokio::test]
async fn messages_say_what_to_do() {
    let server = Plan::for_test().start();
    let said = async |extra: Value| {
        let reply = server.chat(extra).await;
        reply.json()["error"]["message"]
            .as_str()
            .expect("a message")
            .to_owned()
    };
    assert_eq!(
        said(json!({"model": "gpt-5"})).await,
        "The model 'gpt-5' does not exist. This server serves: tiny, org/tiny."
    );
    // Not 0–1: a client that follows that is refused again.
    for top_p in [0.0, 1.1] {
        assert_eq!(
            said(json!({"top_p": top_p})).await,
            format!("'top_p' must be above 0 and at most 1, got {top_p}.")
        );
    }
    let long = json!({"messages": [{"role": "user", "content": "! ".repeat(300)}]});
    let message = said(long).await;
    assert!(
        message.starts_with(
            "This model's maximum context length is 256 tokens. However, your prompt contains 6"
        ) && message.contains(" input tokens"),
        "{message}"
    );
    assert_eq!(
        said(json!({"temperature": "hot"})).await,
        "Invalid value for 'temperature': invalid type: string \"hot\", expected a number."
    );
    let message = said(json!({"temperature": "hot".repeat(100_000)})).await;
    assert!(
        message.len() < 700 && message.contains("expected a number"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up() {
    let server = Plan::for_test().start();
    let text = format!("{}{}", chat_body(json!({})), " ".repeat(60_000));
    // So many bytes at a time, and a pause that alone would do.
    for (num_bytes, seconds, is_slow) in [(1, 10, true), (5_000, 10, true), (10_300, 10, false)] {
        let pieces = text.as_bytes().chunks(num_bytes).map(<[u8]>::to_vec);
        let pieces: Vec<_> = pieces.collect();
        let dripping =
            futures_util::stream::unfold(pieces.into_iter(), move |mut rest| async move {
                tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
                Some((Ok::<_, std::io::Error>(rest.next()?), rest))
            });
        let begun = tokio::time::Instant::now();
        let reply = server.post(
            "/v1/chat/completions",
            axum::body::Body::from_stream(dripping),
        );
        let reply = reply.await;
        let elapsed = begun.elapsed().as_secs();
        match is_slow {
            true => {
                assert_eq!(reply.error().0, 408, "{num_bytes}");
                assert!((30..=60).contains(&elapsed), "{num_bytes}: {elapsed} s");
            }
            false => {
                assert_eq!(reply.status, 200, "{num_bytes}: {}", reply.body);
            }
        }
    }
}
