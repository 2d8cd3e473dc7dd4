//! `/v1/messages` and `/v1/messages/count_tokens`: Anthropic's API, as its clients see it.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::images::distinct_images;
use super::server::{END_OF_TURN, End, Plan, Reply, TestServer, always, says, tokens};

const PATH: &str = "/v1/messages";

fn body(extra: Value) -> Value {
    let mut body = json!({
        "model": "tiny",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Is the heart normal?"}],
    });
    let fields = body.as_object_mut().unwrap();
    for (name, value) in extra.as_object().unwrap() {
        fields.insert(name.clone(), value.clone());
    }
    body
}

/// A small image in base64.
fn bmp() -> String {
    let uri = distinct_images(1).remove(0);
    uri.split_once(',').expect("a data URI").1.to_owned()
}

async fn ask(server: &TestServer, extra: Value) -> Reply {
    server.post(PATH, body(extra).to_string()).await
}

/// A stream's events: name and data.
fn named_events(reply: &Reply) -> Vec<(String, Value)> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let events = reply.body.split_terminator("\n\n");
    let events = events.map(|event| {
        let (name, data) = event.split_once('\n').expect("two lines");
        let name = name.strip_prefix("event: ").expect("a name");
        let data: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(data["type"], name, "an event's name is its type");
        (name.to_owned(), data)
    });
    events.collect()
}

/// The error's status, type and message, in Anthropic's shape.
fn refused(reply: &Reply) -> (u16, String, String) {
    let body = reply.json();
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(
        body["request_id"],
        reply.headers["request-id"].to_str().unwrap()
    );
    assert_eq!(reply.headers["content-type"], "application/json");
    let error = body["error"].as_object().expect("an error");
    assert_eq!(error.keys().collect::<Vec<_>>(), ["type", "message"]);
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    (reply.status, text("type"), text("message"))
}

#[tokio::test]
async fn an_answer_is_blocks_a_reason_and_usage() {
    let mut server = Plan {
        cached: |_| 3,
        ..Plan::for_test()
    }
    .start();
    let answer = ask(&server, json!({})).await.ok();
    let prompt = server.request().await.prompt;
    let id = answer["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("msg_"), "{id}");
    assert_eq!(
        answer,
        json!({
            "id": id,
            "type": "message",
            "role": "assistant",
            "model": "tiny",
            "content": [
                {"type": "text", "text": "The heart is normal."},
            ],
            "stop_reason": "end_turn",
            "stop_sequence": null,
            "usage": {
                "input_tokens": prompt.len() - 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 3,
                "output_tokens": 6,
                "output_tokens_details": {"thinking_tokens": 0},
            },
        })
    );
    // The same conversation as a chat's is the same prompt.
    server.chat(json!({})).await.ok();
    assert_eq!(server.request().await.prompt, prompt);
}

#[tokio::test]
async fn a_stream_opens_fills_and_closes_blocks() {
    let server = Plan {
        cached: |_| 3,
        ..Plan::for_test()
    }
    .start();
    let reply = ask(&server, json!({"stream": true})).await;
    let events = named_events(&reply);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..3], ["message_start", "ping", "content_block_start"]);
    let num_deltas = names.len() - 6;
    assert!(
        names[3..3 + num_deltas]
            .iter()
            .all(|name| *name == "content_block_delta")
    );
    assert_eq!(
        names[3 + num_deltas..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let start = &events[0].1["message"];
    assert_eq!(start["content"], json!([]));
    assert_eq!(start["stop_reason"], Value::Null);
    assert_eq!(start["usage"]["output_tokens"], 0);
    let num_prompt = start["usage"]["input_tokens"].as_u64().unwrap();
    assert_eq!(
        events[2].1,
        json!({
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        })
    );
    let text: String = (events[3..3 + num_deltas].iter())
        .map(|(_, data)| {
            assert_eq!(
                (&data["index"], &data["delta"]["type"]),
                (&json!(0), &json!("text_delta"))
            );
            data["delta"]["text"].as_str().unwrap()
        })
        .collect();
    assert_eq!(text, "The heart is normal.");
    let end = &events[events.len() - 2].1;
    assert_eq!(
        end["delta"],
        json!({"stop_reason": "end_turn", "stop_sequence": null})
    );
    assert_eq!(end["usage"]["input_tokens"], num_prompt - 3);
    assert_eq!(end["usage"]["cache_read_input_tokens"], 3);
    assert_eq!(end["usage"]["output_tokens"], 6);
}

#[tokio::test]
async fn the_reason_says_what_ended_it() {
    let server = Plan::for_test().start();
    let answer = ask(&server, json!({"stop_sequences": ["normal", "liver"]}))
        .await
        .ok();
    assert_eq!(answer["stop_reason"], "stop_sequence");
    assert_eq!(answer["stop_sequence"], "normal");
    assert_eq!(answer["content"][0]["text"], "The heart is ");
    let events = named_events(
        &ask(
            &server,
            json!({"stop_sequences": ["normal"], "stream": true}),
        )
        .await,
    );
    let end = &events[events.len() - 2].1["delta"];
    assert_eq!(
        *end,
        json!({"stop_reason": "stop_sequence", "stop_sequence": "normal"})
    );

    let plan = Plan {
        script: always(tokens("The heart"), End::Length),
        ..Plan::for_test()
    };
    let server = plan.start();
    let num_tokens = tokens("The heart").len();
    let answer = ask(&server, json!({"max_tokens": num_tokens})).await.ok();
    assert_eq!(answer["stop_reason"], "max_tokens");
    // The model's own length was reached first.
    let answer = ask(&server, json!({"max_tokens": 10_000})).await.ok();
    assert_eq!(answer["stop_reason"], "model_context_window_exceeded");

    // Nothing was said.
    let server = Plan {
        script: always(vec![END_OF_TURN], End::StopToken),
        ..Plan::for_test()
    }
    .start();
    assert_eq!(ask(&server, json!({})).await.ok()["content"], json!([]));
    let events = named_events(&ask(&server, json!({"stream": true})).await);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["message_start", "ping", "message_delta", "message_stop"]
    );
}

#[tokio::test]
async fn each_sampling_field_reaches_the_engine() {
    let mut server = Plan::for_test().start();
    ask(
        &server,
        json!({"max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 5}),
    )
    .await
    .ok();
    let sampling = server.request().await.sampling;
    assert_eq!(sampling.max_tokens, 7);
    assert_eq!((sampling.temperature, sampling.top_p), (0.5, 0.25));
    assert_eq!(sampling.top_k.unwrap().get(), 5);

    let wrong = [
        ("max_tokens", json!(0), "'max_tokens'"),
        ("max_tokens", json!("7"), "max_tokens"),
        ("temperature", json!(1.5), "'temperature' must be 0–1"),
        ("top_p", json!(0), "'top_p'"),
        ("top_k", json!(-2), "'top_k'"),
        ("stop_sequences", json!([""]), "stop_sequences[0]"),
        ("stop_sequences", json!("x"), "stop_sequences"),
        ("service_tier", json!("flex"), "'service_tier'"),
        ("messages", json!([]), "'messages'"),
        ("stream", json!("yes"), "stream"),
        ("max_tokens", Value::Null, "max_tokens"),
    ];
    for (name, value, message) in wrong {
        let reply = ask(&server, json!({name: value})).await;
        let (status, kind, said) = refused(&reply);
        assert_eq!(
            (status, kind.as_str()),
            (400, "invalid_request_error"),
            "{name}"
        );
        assert!(said.contains(message), "{name}: {said}");
    }
}

#[tokio::test]
async fn system_text_and_blocks_are_what_a_chats_are() {
    let mut server = Plan::for_test().start();
    let question = json!({"role": "user", "content": "And the lungs?"});
    let history = |content: Value| {
        json!([
            {"role": "user", "content": [
                {"type": "text", "text": "Is the heart normal?", "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "assistant", "content": content},
            question,
        ])
    };
    let said = json!([
        {"type": "thinking", "thinking": "Hmm.", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "It is."},
    ]);
    let system =
        json!([{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]);
    ask(
        &server,
        json!({"system": system, "messages": history(said)}),
    )
    .await
    .ok();
    let prompt = server.request().await.prompt;
    let messages = json!([
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": [{"type": "text", "text": "Is the heart normal?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is."}]},
        question,
    ]);
    server.chat(json!({"messages": messages})).await.ok();
    assert_eq!(server.request().await.prompt, prompt);
    ask(
        &server,
        json!({"system": "Be brief.\nBe kind.", "messages": history(json!("It is."))}),
    )
    .await
    .ok();
    assert_eq!(server.request().await.prompt, prompt);
}

#[tokio::test]
async fn images_come_as_base64() {
    let mut server = Plan::for_test().start();
    let with = |source: Value| {
        json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image", "source": source},
        ]}]})
    };
    let url = format!("data:image/bmp;base64,{}", bmp());
    for source in [
        json!({"type": "base64", "media_type": "image/bmp", "data": bmp()}),
        json!({"type": "url", "url": url}),
    ] {
        ask(&server, with(source)).await.ok();
        assert_eq!(server.request().await.images.len(), 1);
    }

    let place = "messages[0].content[1]";
    for (source, name) in [
        (
            json!({"type": "url", "url": "https://example.com/x.png"}),
            ".source.url",
        ),
        (json!({"type": "url"}), ".source.url"),
        (json!({"type": "file", "file_id": "x"}), ".source.type"),
        (
            json!({"type": "base64", "media_type": "image/png", "data": "AAAA"}),
            "",
        ),
        (
            json!({"type": "base64", "data": "AAAA"}),
            ".source.media_type",
        ),
        (
            json!({"type": "base64", "media_type": "image/png"}),
            ".source.data",
        ),
        (
            json!({"type": "base64", "media_type": "image/png,x", "data": "AAAA"}),
            ".source.media_type",
        ),
        (Value::Null, ".source"),
    ] {
        let (status, kind, said) = refused(&ask(&server, with(source)).await);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
        assert!(said.contains(&format!("{place}{name}")), "{name}: {said}");
    }
    let text_only = Plan {
        takes_images: false,
        ..Plan::for_test()
    };
    let source = json!({"type": "base64", "media_type": "image/bmp", "data": bmp()});
    let (_, _, said) = refused(&ask(&text_only.start(), with(source)).await);
    assert!(said.starts_with(place), "{said}");
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_name() {
    let server = Plan::for_test().start();
    for (name, value, neutral) in [
        ("container", json!("x"), None),
        ("context_management", json!({"edits": []}), None),
        ("mcp_servers", json!([{"name": "x"}]), Some(json!([]))),
        ("speed", json!("fast"), Some(json!("standard"))),
        ("inference_geo", json!("eu"), None),
        ("stop", json!("x"), None),
        ("seed", json!(1), None),
        ("n", json!(2), Some(json!(1))),
        ("max_completion_tokens", json!(2), None),
        (
            "response_format",
            json!({"type": "json_object"}),
            Some(json!({"type": "text"})),
        ),
        ("stream_options", json!({"include_usage": true}), None),
    ] {
        let (status, kind, said) = refused(&ask(&server, json!({name: value})).await);
        assert_eq!(
            (status, kind.as_str()),
            (400, "invalid_request_error"),
            "{name}"
        );
        assert!(said.contains(&format!("'{name}'")), "{said}");
        for neutral in neutral.into_iter().chain([Value::Null]) {
            ask(&server, json!({name: neutral})).await.ok();
        }
    }
    for (role, block, kind) in [
        ("user", json!({"type": "search_result"}), "search_result"),
        (
            "user",
            json!({"type": "thinking", "thinking": "x"}),
            "thinking",
        ),
        ("assistant", json!({"type": "image"}), "image"),
        (
            "assistant",
            json!({"type": "server_tool_use"}),
            "server_tool_use",
        ),
    ] {
        let messages = json!([{"role": role, "content": [block]}]);
        let (_, _, said) = refused(&ask(&server, json!({"messages": messages})).await);
        assert!(said.starts_with("messages[0].content[0].type"), "{said}");
        assert!(said.contains(&format!("'{kind}'")), "{said}");
    }
    let messages = json!([{"role": "tool", "content": "x"}]);
    let (_, _, said) = refused(&ask(&server, json!({"messages": messages})).await);
    assert!(said.contains("messages[0].role"), "{said}");
}

#[tokio::test]
async fn errors_have_anthropics_shape_and_types() {
    let server = Plan::for_test().start();
    let (status, kind, said) = refused(&ask(&server, json!({"model": "other"})).await);
    assert_eq!((status, kind.as_str()), (404, "not_found_error"));
    assert!(said.contains("tiny"));
    assert_eq!(refused(&server.get(PATH).await).0, 405);
    for path in ["/v1/messages/batches", "/messages/x"] {
        let reply = server.post(path, "{}").await;
        assert_eq!(refused(&reply).1, "not_found_error");
    }
    let request = Request::post(PATH).body(Body::from("{}")).unwrap();
    let (status, kind, _) = refused(&server.send(request).await);
    assert_eq!((status, kind.as_str()), (415, "invalid_request_error"));
    let (status, _, said) = refused(&server.post(PATH, "{").await);
    assert_eq!(status, 400);
    assert!(said.contains("JSON"));
    let long = "heart ".repeat(1000);
    let messages = json!([{"role": "user", "content": long}]);
    let (status, _, said) = refused(&ask(&server, json!({"messages": messages})).await);
    assert_eq!(status, 400);
    assert!(said.contains("maximum context length"), "{said}");

    let full = Plan {
        max_in_flight: 0,
        ..Plan::for_test()
    };
    let reply = ask(&full.start(), json!({})).await;
    assert!(matches!(refused(&reply).0, 400 | 429));

    for (end, status, kind) in [
        (End::Fail, 500, "api_error"),
        (End::Late, 504, "timeout_error"),
        (End::Vanish, 503, "overloaded_error"),
    ] {
        let plan = Plan {
            script: always(tokens("The heart"), end),
            ..Plan::for_test()
        };
        let server = plan.start();
        let (said, said_kind, _) = refused(&ask(&server, json!({})).await);
        assert_eq!((said, said_kind.as_str()), (status, kind));
        let events = named_events(&ask(&server, json!({"stream": true})).await);
        let (name, error) = events.last().unwrap();
        assert_eq!(name, "error");
        assert_eq!(error["error"]["type"], kind);
    }
}

#[tokio::test]
async fn the_key_may_be_anthropics_header() {
    let plan = Plan {
        keys: vec!["first-key", "second-key"],
        ..Plan::for_test()
    };
    let server = plan.start();
    let send = async |headers: &[(&str, &str)]| {
        let mut request = Request::post(PATH).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Body::from(body(json!({})).to_string());
        server.send(request.body(body).unwrap()).await
    };
    for headers in [
        &[
            ("x-api-key", "first-key"),
            ("anthropic-version", "2023-06-01"),
        ][..],
        &[("x-api-key", "second-key")],
        &[("authorization", "Bearer second-key")],
        &[
            ("authorization", "Bearer wrong"),
            ("x-api-key", "first-key"),
        ],
        &[
            ("authorization", "Bearer first-key"),
            ("x-api-key", "wrong"),
        ],
    ] {
        assert_eq!(send(headers).await.status, 200, "{headers:?}");
    }
    for headers in [
        &[][..],
        &[("x-api-key", "first-ke")],
        &[("x-api-key", "")],
        &[("authorization", "Bearer wrong"), ("x-api-key", "wrong")],
        &[("authorization", "first-key")],
    ] {
        let reply = send(headers).await;
        let (status, kind, _) = refused(&reply);
        assert_eq!(
            (status, kind.as_str()),
            (401, "authentication_error"),
            "{headers:?}"
        );
    }
    // The header counts on every route, and errors elsewhere keep OpenAI's shape.
    let request = Request::get("/v1/models").header("x-api-key", "first-key");
    let reply = server.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(server.get("/v1/models").await.error().0, 401);
}

#[tokio::test]
async fn tokens_are_counted_as_they_are_read() {
    let mut server = Plan::for_test().start();
    let conversation = json!({
        "model": "tiny",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": bmp()}},
        ]}],
    });
    for path in ["/v1/messages/count_tokens", "/messages/count_tokens"] {
        let counted = server.post(path, conversation.to_string()).await.ok();
        ask(&server, conversation.clone()).await.ok();
        let prompt = server.request().await.prompt;
        assert_eq!(counted, json!({"input_tokens": prompt.len()}));
    }
    let reply = server
        .post("/v1/messages/count_tokens", r#"{"model": "tiny"}"#)
        .await;
    let (status, kind, said) = refused(&reply);
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert!(said.contains("'messages'"));
}

#[tokio::test]
async fn every_route_is_there_without_its_prefix() {
    let server = Plan {
        script: says("Yes."),
        ..Plan::for_test()
    }
    .start();
    let messages = json!([{"role": "user", "content": "Is it?"}]);
    let chat = json!({"messages": messages}).to_string();
    let answer = server.post("/chat/completions", chat).await.ok();
    assert_eq!(answer["choices"][0]["message"]["content"], "Yes.");
    let answer = server
        .post("/completions", r#"{"prompt": "Is it?"}"#)
        .await
        .ok();
    assert_eq!(answer["choices"][0]["text"], "Yes.");
    let answer = server
        .post("/messages", body(json!({})).to_string())
        .await
        .ok();
    assert_eq!(answer["content"][0]["text"], "Yes.");
    let list = server.get("/models").await.ok();
    assert_eq!(list, server.get("/v1/models").await.ok());
    assert_eq!(server.get("/models/org/tiny").await.ok()["id"], "org/tiny");
}

fn weather() -> Value {
    json!([{
        "name": "get_weather",
        "description": "The weather in a city.",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }])
}

/// The same as a chat's tools.
fn chat_weather() -> Value {
    let tool = &weather()[0];
    json!([{"type": "function", "function": {
        "name": tool["name"], "description": tool["description"], "parameters": tool["input_schema"],
    }}])
}

/// A server with room for tools that says `text`.
fn roomy(text: &str) -> TestServer {
    let plan = Plan {
        max_model_len: 4096,
        script: says(text),
        ..Plan::for_test()
    };
    plan.start()
}

const CALL: &str = "[get_weather(city=\"Paris\")]";

#[tokio::test]
async fn calls_are_blocks() {
    let server = roomy(CALL);
    let answer = ask(&server, json!({"tools": weather()})).await.ok();
    assert_eq!(answer["stop_reason"], "tool_use");
    let [block] = &answer["content"].as_array().unwrap()[..] else {
        panic!("{answer}");
    };
    assert!(block["id"].as_str().unwrap().starts_with("toolu_"));
    let expected = json!({
        "type": "tool_use", "id": block["id"], "name": "get_weather", "input": {"city": "Paris"},
    });
    assert_eq!(*block, expected);

    let events = named_events(&ask(&server, json!({"tools": weather(), "stream": true})).await);
    let begin = events
        .iter()
        .find(|(name, _)| name == "content_block_start");
    let block = &begin.unwrap().1["content_block"];
    assert_eq!(
        (&block["type"], &block["input"]),
        (&json!("tool_use"), &json!({}))
    );
    assert_eq!(block["name"], "get_weather");
    let input: String = (events.iter())
        .filter(|(_, data)| data["delta"]["type"] == "input_json_delta")
        .map(|(_, data)| data["delta"]["partial_json"].as_str().unwrap())
        .collect();
    assert_eq!(
        serde_json::from_str::<Value>(&input).unwrap(),
        json!({"city": "Paris"})
    );
    assert_eq!(
        events[events.len() - 2].1["delta"]["stop_reason"],
        "tool_use"
    );

    // Without tools it is text like any other.
    let answer = ask(&server, json!({})).await.ok();
    assert_eq!(answer["stop_reason"], "end_turn");
    assert_eq!(answer["content"][0]["text"], CALL);
}

/// Asks for the same in both ways.
async fn same(server: &mut TestServer, anthropic: Value, chat: Value) {
    ask(server, anthropic.clone()).await.ok();
    let asked = server.request().await;
    let mut chat = chat;
    chat["max_tokens"] = json!(64);
    server.chat(chat).await.ok();
    let expected = server.request().await;
    assert_eq!(asked.prompt, expected.prompt, "{anthropic}");
    assert_eq!(
        asked.constraint.is_some(),
        expected.constraint.is_some(),
        "{anthropic}"
    );
}

#[tokio::test]
async fn tools_choices_and_results_are_a_chats() {
    let mut server = roomy("Yes.");
    let question = json!({"role": "user", "content": "The weather?"});
    let plain = json!([question]);
    for (choice, chat_choice) in [
        (Value::Null, Value::Null),
        (json!({"type": "auto"}), json!("auto")),
        (json!({"type": "none"}), json!("none")),
        (json!({"type": "any"}), json!("required")),
        (
            json!({"type": "tool", "name": "get_weather"}),
            json!({"type": "function", "function": {"name": "get_weather"}}),
        ),
    ] {
        same(
            &mut server,
            json!({"tools": weather(), "tool_choice": choice, "messages": plain}),
            json!({"tools": chat_weather(), "tool_choice": chat_choice, "messages": plain}),
        )
        .await;
    }
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "get_weather",
                      "input": {"city": "Paris"}});
    let result = |content: Value| {
        json!({"type": "tool_result", "tool_use_id": "toolu_1",
                                         "content": content})
    };
    let chat_call = json!({"id": "toolu_1", "type": "function", "function": {
        "name": "get_weather", "arguments": "{\"city\":\"Paris\"}",
    }});
    let mut failed = result(json!("no such city"));
    failed["is_error"] = json!(true);
    for (result, said) in [
        (result(json!("Sunny.")), "Sunny."),
        (
            result(json!([{"type": "text", "text": "Sunny,"}, {"type": "text", "text": "warm."}])),
            "Sunny,\nwarm.",
        ),
        (result(Value::Null), ""),
        (failed, "Error: no such city"),
    ] {
        same(
            &mut server,
            json!({"tools": weather(), "messages": [
                question,
                {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, call]},
                {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
            ]}),
            json!({"tools": chat_weather(), "messages": [
                question,
                {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}],
                 "tool_calls": [chat_call]},
                {"role": "tool", "tool_call_id": "toolu_1", "content": said},
                {"role": "user", "content": [{"type": "text", "text": "Well?"}]},
            ]}),
        )
        .await;
    }
    // A last message of the assistant's is gone on with.
    let begun = json!([question, {"role": "assistant", "content": "It is"}]);
    same(
        &mut server,
        json!({"messages": begun}),
        json!({"messages": begun, "continue_final_message": true, "add_generation_prompt": false}),
    )
    .await;
}

#[tokio::test]
async fn a_coding_agents_list_is_taken() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "command": {"type": "string", "description": "The command to execute"},
            "timeout": {"type": "number", "exclusiveMinimum": 0},
            "mode": {"type": "string", "enum": ["acceptEdits", "plan"]},
            "edits": {"type": "array", "minItems": 1, "items": {"type": "object",
                "properties": {"old": {"type": "string"}}, "required": ["old"],
                "additionalProperties": false}},
        },
        "required": ["command"],
        "additionalProperties": false,
    });
    let mut server = roomy("[Bash(command=\"ls\")]");
    let tool = |name: &str| {
        json!({"name": name, "description": "A tool.", "input_schema": schema,
               "cache_control": {"type": "ephemeral"}})
    };
    let search = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 8});
    let custom = json!({"type": "custom", "name": "mcp__x.y", "input_schema": {"type": "object"},
        "eager_input_streaming": true});
    let body = json!({"tools": [tool("Bash"), search, custom]});
    let answer = ask(&server, body).await.ok();
    assert_eq!(answer["content"][0]["input"], json!({"command": "ls"}));
    let told = server.request().await.prompt;
    let body = json!({"tools": [tool("Bash"), custom]});
    ask(&server, body).await.ok();
    assert_eq!(told, server.request().await.prompt);
    // Errors still name the tool's own place.
    let wrong = json!({"tools": [search, tool("two words")]});
    let refused = ask(&server, wrong).await.body;
    assert!(refused.contains("tools[1].name"), "{refused}");
    let forced = json!({"tools": [tool("Bash"), search], "tool_choice": {"type": "any"}});
    ask(&server, forced).await.ok();
}

#[tokio::test]
async fn wrong_tools_are_refused_in_the_clients_words() {
    let server = roomy("Yes.");
    let tool = |name: &str, value: Value| {
        let mut tools = weather();
        tools[0][name] = value;
        json!({"tools": tools})
    };
    let turns = |blocks: Value| {
        json!({"tools": weather(), "messages": [
            {"role": "user", "content": "The weather?"},
            {"role": "user", "content": blocks},
        ]})
    };
    let with = |name: &str, value: Value| json!({"tools": weather(), name: value});
    for (body, place) in [
        (tool("type", json!("web_search_20250305")), "tools[0].type"),
        (tool("input_schema", Value::Null), "tools[0].input_schema"),
        (tool("name", json!("two words")), "tools[0].name"),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
        (
            with("tool_choice", json!({"type": "some"})),
            "tool_choice.type",
        ),
        (
            with("tool_choice", json!({"type": "tool"})),
            "tool_choice.name",
        ),
        (
            with("tool_choice", json!({"type": "tool", "name": "other"})),
            "tool_choice.name",
        ),
        (
            turns(json!([{"type": "tool_result", "tool_use_id": "toolu_9"}])),
            "messages[1].content[0]",
        ),
        (
            turns(json!([{"type": "tool_result"}])),
            "messages[1].content[0].tool_use_id",
        ),
        (
            turns(
                json!([{"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]}]),
            ),
            "messages[1].content[0].content[0].source",
        ),
        (
            json!({"thinking": {"type": "enabled"}}),
            "thinking.budget_tokens",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 64}}),
            "thinking.budget_tokens",
        ),
        (json!({"thinking": {"type": "adaptive"}}), "'thinking'"),
        (
            json!({"thinking": {"type": "adaptive", "display": "omitted"}}),
            "thinking.display",
        ),
        (
            json!({"thinking": {"type": "between_tools"}}),
            "thinking.type",
        ),
        (
            json!({"output_config": {"effort": "high"}}),
            "output_config.effort",
        ),
    ] {
        let (status, kind, said) = refused(&ask(&server, body.clone()).await);
        assert_eq!(
            (status, kind.as_str()),
            (400, "invalid_request_error"),
            "{body}"
        );
        assert!(said.contains(place), "{place}: {said}");
    }
    ask(&server, json!({"thinking": {"type": "disabled"}}))
        .await
        .ok();
}
