//! `/v1/responses`: OpenAI's newer API, as its clients see it.

use serde_json::{Value, json};

use super::images::distinct_images;
use super::server::{END_OF_TURN, End, Plan, Reply, TestServer, always, says, tokens};

const PATH: &str = "/v1/responses";

async fn ask(server: &TestServer, extra: Value) -> Reply {
    let mut body = json!({"model": "tiny", "input": "Is the heart normal?"});
    let fields = body.as_object_mut().unwrap();
    for (name, value) in extra.as_object().unwrap() {
        fields.insert(name.clone(), value.clone());
    }
    server.post(PATH, body.to_string()).await
}

/// A stream's events: name and data, numbered from 0.
fn named_events(reply: &Reply) -> Vec<(String, Value)> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let events = reply.body.split_terminator("\n\n").enumerate();
    let events = events.map(|(at, event)| {
        let (name, data) = event.split_once('\n').expect("two lines");
        let name = name.strip_prefix("event: ").expect("a name");
        let data: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(data["type"], name, "an event's name is its type");
        assert_eq!(data["sequence_number"], at);
        (name.to_owned(), data)
    });
    events.collect()
}

#[tokio::test]
async fn an_answer_is_items_a_status_and_usage() {
    let mut server = Plan {
        cached: |_| 3,
        ..Plan::for_test()
    }
    .start();
    let mut answer = ask(&server, json!({})).await.ok();
    let prompt = server.request().await.prompt;
    let output = answer["output"].take();
    let message = output[0]["id"].as_str().unwrap();
    assert!(message.starts_with("msg_"));
    assert_eq!(
        output,
        json!([{
            "type": "message",
            "id": message,
            "role": "assistant",
            "status": "completed",
            "content": [{
                "type": "output_text",
                "text": "The heart is normal.",
                "annotations": [],
                "logprobs": [],
            }],
        }])
    );
    let id = answer["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("resp_"));
    let created = answer["created_at"].as_u64().unwrap();
    let completed = answer["completed_at"].as_u64().unwrap();
    assert!(created <= completed);
    assert_eq!(
        answer,
        json!({
            "id": id,
            "object": "response",
            "created_at": created,
            "completed_at": completed,
            "status": "completed",
            "error": null,
            "incomplete_details": null,
            "model": "tiny",
            "output": null,
            "usage": {
                "input_tokens": prompt.len(),
                "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
                "output_tokens": 6,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt.len() + 6,
            },
            "instructions": null,
            "max_output_tokens": null,
            "metadata": {},
            "parallel_tool_calls": true,
            "reasoning": {"effort": null, "summary": null},
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "temperature": 1.0,
            "top_p": answer["top_p"],
            "top_logprobs": 0,
            "safety_identifier": null,
            "prompt_cache_key": null,
            "user": null,
            "service_tier": "default",
            "background": false,
            "store": false,
            "truncation": "disabled",
            "max_tool_calls": null,
            "previous_response_id": null,
        })
    );
    // The same conversation as a chat's is the same prompt.
    server.chat(json!({})).await.ok();
    assert_eq!(server.request().await.prompt, prompt);
}

#[tokio::test]
async fn what_was_asked_is_repeated() {
    let server = Plan::for_test().start();
    let asked = json!({
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "metadata": {"a": "b"},
        "parallel_tool_calls": false,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "reasoning": {"summary": "auto"},
        "temperature": 0.5,
        "top_p": 0.25,
        "user": "me",
        "safety_identifier": "someone",
        "prompt_cache_key": "key",
    });
    let answer = ask(&server, asked.clone()).await.ok();
    for (name, value) in asked.as_object().unwrap() {
        assert_eq!(answer[name], *value, "{name}");
    }
}

#[tokio::test]
async fn a_stream_announces_fills_and_finishes_items() {
    let server = Plan::for_test().start();
    let events = named_events(&ask(&server, json!({"stream": true})).await);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    let num_deltas = names.len() - 8;
    let mut expected = vec![
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ];
    expected.extend(vec!["response.output_text.delta"; num_deltas]);
    expected.extend([
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]);
    assert_eq!(names, expected);
    assert_eq!(events[0].1["response"]["status"], "in_progress");
    assert_eq!(events[0].1["response"]["usage"], Value::Null);
    let item = &events[2].1["item"];
    assert_eq!(item["content"], json!([]));
    assert_eq!(item["status"], "in_progress");
    let mut text = String::new();
    for (_, data) in &events[3..names.len() - 2] {
        assert_eq!(data["item_id"], item["id"]);
        assert_eq!(
            (&data["output_index"], &data["content_index"]),
            (&json!(0), &json!(0))
        );
        text.push_str(data["delta"].as_str().unwrap_or_default());
    }
    assert_eq!(text, "The heart is normal.");
    assert_eq!(events[4 + num_deltas].1["text"], "The heart is normal.");
    let response = &events[names.len() - 1].1["response"];
    assert_eq!(response["id"], events[0].1["response"]["id"]);
    assert_eq!(response["output"][0], events[names.len() - 2].1["item"]);
    assert_eq!(
        response["output"][0]["content"][0]["text"],
        "The heart is normal."
    );
    assert_eq!(response["usage"]["output_tokens"], 6);
}

#[tokio::test]
async fn what_is_cut_off_is_incomplete() {
    let plan = Plan {
        script: always(tokens("The heart"), End::Length),
        ..Plan::for_test()
    };
    let server = plan.start();
    let answer = ask(&server, json!({})).await.ok();
    let details = json!({"reason": "max_output_tokens"});
    let check = |answer: &Value| {
        assert_eq!(answer["status"], "incomplete");
        assert_eq!(answer["incomplete_details"], details);
        assert_eq!(answer["completed_at"], Value::Null);
        assert_eq!(answer["output"][0]["status"], "incomplete");
        assert_eq!(answer["output"][0]["content"][0]["text"], "The heart");
    };
    check(&answer);
    let events = named_events(&ask(&server, json!({"stream": true})).await);
    let (name, data) = events.last().unwrap();
    assert_eq!(name, "response.incomplete");
    check(&data["response"]);
}

#[tokio::test]
async fn an_answer_of_nothing_is_an_empty_message() {
    let plan = Plan {
        script: always(vec![END_OF_TURN], End::StopToken),
        ..Plan::for_test()
    };
    let server = plan.start();
    let answer = ask(&server, json!({})).await.ok();
    assert_eq!(answer["output"][0]["content"][0]["text"], "");
    let events = named_events(&ask(&server, json!({"stream": true})).await);
    let response = &events.last().unwrap().1["response"];
    assert_eq!(
        response["output"][0]["content"],
        answer["output"][0]["content"]
    );
}

#[tokio::test]
async fn each_sampling_field_reaches_the_engine() {
    let mut server = Plan::for_test().start();
    ask(
        &server,
        json!({"max_output_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 5, "seed": 9}),
    )
    .await
    .ok();
    let sampling = server.request().await.sampling;
    assert_eq!((sampling.max_tokens, sampling.seed), (7, 9));
    assert_eq!((sampling.temperature, sampling.top_p), (0.5, 0.25));
    assert_eq!(sampling.top_k.unwrap().get(), 5);
    let wrong = [
        ("max_output_tokens", json!(0)),
        ("max_output_tokens", json!("7")),
        ("temperature", json!(2.5)),
        ("top_p", json!(0)),
        ("instructions", json!(5)),
        ("metadata", json!({"a": 5})),
        ("parallel_tool_calls", json!("no")),
        ("input", json!([])),
        ("input", json!(5)),
    ];
    for (name, value) in wrong {
        let (status, _, param) = ask(&server, json!({name: value})).await.error();
        assert_eq!(status, 400);
        assert!(param.is_some_and(|param| param.starts_with(name)), "{name}");
    }
}

#[tokio::test]
async fn log_probabilities_come_where_they_are_asked_for() {
    let server = Plan::for_test().start();
    let include = json!({"include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
                         "top_logprobs": 2});
    let answer = ask(&server, include.clone()).await.ok();
    let logprobs = &answer["output"][0]["content"][0]["logprobs"];
    assert_eq!(logprobs.as_array().unwrap().len(), 6);
    assert_eq!(logprobs[0]["logprob"], -0.25);
    assert_eq!(logprobs[0]["token"], "The");
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let mut streamed = include;
    streamed["stream"] = json!(true);
    let events = named_events(&ask(&server, streamed).await);
    let response = &events.last().unwrap().1["response"];
    assert_eq!(response["output"][0]["content"][0]["logprobs"], *logprobs);
    let first = events
        .iter()
        .find(|(name, _)| name == "response.output_text.delta");
    assert_eq!(first.unwrap().1["logprobs"][0], logprobs[0]);

    let (status, code, param) = ask(&server, json!({"top_logprobs": 2})).await.error();
    assert_eq!(
        (status, code.as_deref()),
        (400, Some("invalid_combination"))
    );
    assert_eq!(param.as_deref(), Some("top_logprobs"));
}

#[tokio::test]
async fn items_are_a_chats_messages() {
    let mut server = Plan::for_test().start();
    let input = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "Is the heart normal?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [],
         "content": [{"type": "reasoning_text", "text": "Hmm."}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "It is.", "annotations": []}]},
        {"role": "user", "content": "And the lungs?"},
    ]);
    ask(
        &server,
        json!({"instructions": "Be brief.", "input": input}),
    )
    .await
    .ok();
    let prompt = server.request().await.prompt;
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Is the heart normal?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is."}]},
        {"role": "user", "content": "And the lungs?"},
    ]);
    server.chat(json!({"messages": messages})).await.ok();
    assert_eq!(server.request().await.prompt, prompt);
}

#[tokio::test]
async fn images_are_data_uris() {
    let mut server = Plan::for_test().start();
    let with = |part: Value| {
        json!({"instructions": "Look.", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, part]},
        ]})
    };
    let image =
        |url: &str| with(json!({"type": "input_image", "image_url": url, "detail": "auto"}));
    let one = distinct_images(1).remove(0);
    ask(&server, image(&one)).await.ok();
    assert_eq!(server.request().await.images.len(), 1);
    let place = "input[0].content[1]";
    for (body, name) in [
        (image("https://example.com/x.png"), ""),
        (image("data:image/png;base64,AAAA"), ""),
        (with(json!({"type": "input_image"})), ".image_url"),
        (
            with(json!({"type": "input_image", "file_id": "x"})),
            ".file_id",
        ),
        (
            with(json!({"type": "input_image", "image_url": one, "detail": "x"})),
            ".detail",
        ),
        (
            with(json!({"type": "input_file", "file_id": "x"})),
            ".file_id",
        ),
        (with(json!({"type": "input_text"})), ".text"),
    ] {
        let (status, _, param) = ask(&server, body).await.error();
        assert_eq!((status, param), (400, Some(format!("{place}{name}"))));
    }
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_name() {
    let server = Plan::for_test().start();
    for (name, value, neutral) in [
        ("background", json!(true), Some(json!(false))),
        ("conversation", json!("x"), None),
        ("previous_response_id", json!("x"), None),
        ("prompt", json!({"id": "x"}), None),
        ("truncation", json!("auto"), Some(json!("disabled"))),
        ("max_tool_calls", json!(3), None),
        ("context_management", json!([{"type": "compaction"}]), None),
        ("moderation", json!({"model": "x"}), None),
        ("store", json!(true), Some(json!(false))),
        ("service_tier", json!("flex"), Some(json!("auto"))),
        ("messages", json!([]), None),
        ("max_tokens", json!(5), None),
        ("max_completion_tokens", json!(5), None),
        ("n", json!(2), Some(json!(1))),
        (
            "response_format",
            json!({"type": "json_object"}),
            Some(json!({"type": "text"})),
        ),
        ("reasoning_effort", json!("low"), None),
        ("logprobs", json!(true), Some(json!(false))),
    ] {
        let (status, code, param) = ask(&server, json!({name: value})).await.error();
        let expected = (
            400,
            Some("unsupported_parameter".to_owned()),
            Some(name.to_owned()),
        );
        assert_eq!((status, code, param), expected);
        for neutral in neutral.into_iter().chain([Value::Null]) {
            ask(&server, json!({name: neutral})).await.ok();
        }
    }
    for (body, place) in [
        (
            json!({"include": ["message.input_image.image_url"]}),
            "include[0]",
        ),
        (
            json!({"reasoning": {"summary": "detailed"}}),
            "reasoning.summary",
        ),
        (json!({"text": {"verbosity": "low"}}), "text.verbosity"),
        (
            json!({"input": [{"type": "item_reference", "id": "x"}]}),
            "input[0].type",
        ),
        (
            json!({"input": [{"type": "computer_call"}]}),
            "input[0].type",
        ),
        (
            json!({"input": [{"role": "tool", "content": "x"}]}),
            "input[0].role",
        ),
        (json!({"input": [{"content": "x"}]}), "input[0].role"),
        (json!({"input": [{"role": "user"}]}), "input[0].content"),
        (
            json!({"stream": true, "stream_options": {"include_obfuscation": true}}),
            "stream_options.include_obfuscation",
        ),
    ] {
        let (status, _, param) = ask(&server, body).await.error();
        assert_eq!((status, param.as_deref()), (400, Some(place)));
    }
}

#[tokio::test]
async fn errors_are_openais_and_speak_of_input() {
    let server = Plan::for_test().start();
    let (status, code, param) = ask(&server, json!({"model": "other"})).await.error();
    assert_eq!((status, code.as_deref()), (404, Some("model_not_found")));
    assert_eq!(param.as_deref(), Some("model"));
    let long = "heart ".repeat(1000);
    let (status, code, param) = ask(&server, json!({"input": long})).await.error();
    assert_eq!(
        (status, code.as_deref()),
        (400, Some("context_length_exceeded"))
    );
    assert_eq!(param.as_deref(), Some("input"));

    let plan = Plan {
        script: always(tokens("The heart"), End::Fail),
        ..Plan::for_test()
    };
    let server = plan.start();
    let (status, _, _) = ask(&server, json!({})).await.error();
    assert_eq!(status, 500);
    let events = named_events(&ask(&server, json!({"stream": true})).await);
    let [.., (error, told), (failed, response)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(
        (error.as_str(), failed.as_str()),
        ("error", "response.failed")
    );
    assert_eq!(told["code"], "step_failed");
    assert_eq!(response["response"]["status"], "failed");
    assert_eq!(response["response"]["error"]["code"], "server_error");
    assert_eq!(response["response"]["error"]["message"], told["message"]);
}

fn weather() -> Value {
    json!([{
        "type": "function",
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
        "strict": false,
    }])
}

/// The same as a chat's tools.
fn chat_weather() -> Value {
    let tool = &weather()[0];
    json!([{"type": "function", "function": {
        "name": tool["name"], "description": tool["description"], "parameters": tool["parameters"],
        "strict": false,
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

#[tokio::test]
async fn calls_are_items() {
    let server = roomy("[get_weather(city=\"Paris\")]");
    let answer = ask(&server, json!({"tools": weather()})).await.ok();
    assert_eq!(answer["tools"], weather());
    assert_eq!(answer["status"], "completed");
    let [item] = &answer["output"].as_array().unwrap()[..] else {
        panic!("{answer}");
    };
    assert!(item["call_id"].as_str().unwrap().starts_with("call_"));
    let arguments = item["arguments"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(arguments).unwrap(),
        json!({"city": "Paris"})
    );
    let expected = json!({
        "type": "function_call", "id": item["id"], "call_id": item["call_id"],
        "name": "get_weather", "arguments": arguments, "status": "completed",
    });
    assert_eq!(*item, expected);

    let events = named_events(&ask(&server, json!({"tools": weather(), "stream": true})).await);
    let data_of = |wanted: &str| -> Vec<&Value> {
        let events = events.iter().filter(|(name, _)| name == wanted);
        events.map(|(_, data)| data).collect()
    };
    let added = &data_of("response.output_item.added")[0]["item"];
    assert_eq!(
        (&added["type"], &added["arguments"]),
        (&json!("function_call"), &json!(""))
    );
    let deltas = data_of("response.function_call_arguments.delta");
    let streamed: String = deltas
        .iter()
        .map(|data| data["delta"].as_str().unwrap())
        .collect();
    assert_eq!(streamed, arguments);
    let done = data_of("response.function_call_arguments.done")[0];
    assert_eq!(
        (&done["arguments"], &done["item_id"]),
        (&json!(arguments), &added["id"])
    );
    let item = &data_of("response.output_item.done")[0]["item"];
    assert_eq!(item["call_id"], added["call_id"]);
    assert_eq!(
        data_of("response.completed")[0]["response"]["output"],
        json!([item])
    );
}

/// Asks for the same in both ways.
async fn same(server: &mut TestServer, response: Value, chat: Value) {
    ask(server, response.clone()).await.ok();
    let asked = server.request().await;
    server.chat(chat).await.ok();
    let expected = server.request().await;
    assert_eq!(asked.prompt, expected.prompt, "{response}");
    assert_eq!(
        asked.constraint.is_some(),
        expected.constraint.is_some(),
        "{response}"
    );
}

#[tokio::test]
async fn tools_choices_and_outputs_are_a_chats() {
    let mut server = roomy("Yes.");
    let question = json!({"role": "user", "content": "The weather?"});
    for (choice, chat_choice) in [
        (Value::Null, Value::Null),
        (json!("auto"), json!("auto")),
        (json!("none"), json!("none")),
        (json!("required"), json!("required")),
        (
            json!({"type": "function", "name": "get_weather"}),
            json!({"type": "function", "function": {"name": "get_weather"}}),
        ),
    ] {
        same(
            &mut server,
            json!({"tools": weather(), "tool_choice": choice, "input": [question]}),
            json!({"tools": chat_weather(), "tool_choice": chat_choice, "messages": [question]}),
        )
        .await;
    }
    let call = |id: &str| {
        json!({"type": "function_call", "id": "fc_1", "call_id": id,
        "name": "get_weather", "arguments": "{\"city\":\"Paris\"}", "status": "completed"})
    };
    let output = |id: &str, output: Value| {
        json!({"type": "function_call_output", "call_id": id,
                                                  "output": output})
    };
    let chat_call = |id: &str| {
        json!({"id": id, "type": "function", "function": {
            "name": "get_weather", "arguments": "{\"city\":\"Paris\"}",
        }})
    };
    same(
        &mut server,
        json!({"tools": weather(), "input": [
            question,
            {"role": "assistant", "content": "Let me see."},
            call("call_1"),
            call("call_2"),
            output("call_1", json!("Sunny.")),
            output("call_2", json!([{"type": "input_text", "text": "Warm."}])),
        ]}),
        json!({"tools": chat_weather(), "messages": [
            question,
            {"role": "assistant", "content": "Let me see.",
             "tool_calls": [chat_call("call_1"), chat_call("call_2")]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."},
            {"role": "tool", "tool_call_id": "call_2",
             "content": [{"type": "text", "text": "Warm."}]},
        ]}),
    )
    .await;
    same(
        &mut server,
        json!({"tools": weather(), "input": [
            question, call("call_1"), output("call_1", json!("Sunny.")),
        ]}),
        json!({"tools": chat_weather(), "messages": [
            question,
            {"role": "assistant", "tool_calls": [chat_call("call_1")]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."},
        ]}),
    )
    .await;
}

/// What a coding agent lists: functions, a custom tool with a grammar, and tools of OpenAI's own.
fn agents_tools() -> Value {
    json!([
        {"type": "function", "name": "shell", "description": "Runs a command.", "strict": false,
         "parameters": {"type": "object", "properties": {
            "command": {"type": "array", "items": {"type": "string"}},
            "timeout_ms": {"type": "number"},
         }, "required": ["command"], "additionalProperties": false}},
        {"type": "web_search", "external_web_access": false},
        {"type": "custom", "name": "apply_patch", "description": "Edits files.",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
        {"type": "local_shell"},
        {"type": "function", "name": "mcp__files.read", "strict": false,
         "parameters": {"type": "object", "properties": {}}},
    ])
}

#[tokio::test]
async fn a_coding_agents_list_is_taken() {
    let mut server = roomy("[apply_patch(\"\"\"*** Begin Patch\n*** End Patch\"\"\")]");
    let body =
        json!({"tools": agents_tools(), "tool_choice": "auto", "parallel_tool_calls": false});
    let answer = ask(&server, body.clone()).await.ok();
    assert_eq!(answer["tools"], agents_tools());
    let prompt = server.request().await.prompt;
    let text = server
        .post("/detokenize", json!({"tokens": prompt}).to_string())
        .await
        .ok();
    let text = text["prompt"].as_str().unwrap();
    for (name, is_told) in [
        ("shell", true),
        ("apply_patch", true),
        ("mcp__files.read", true),
        ("web_search", false),
        ("local_shell", false),
    ] {
        let told = format!("\"name\":\"{name}\"");
        assert_eq!(text.contains(&told), is_told, "{name}: {text}");
    }
    let [item] = &answer["output"].as_array().unwrap()[..] else {
        panic!("{answer}");
    };
    let input = "*** Begin Patch\n*** End Patch";
    let expected = json!({
        "type": "custom_tool_call", "id": item["id"], "call_id": item["call_id"],
        "name": "apply_patch", "input": input, "status": "completed",
    });
    assert_eq!(*item, expected);

    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = named_events(&ask(&server, streamed).await);
    let data_of = |wanted: &str| {
        let event = events.iter().find(|(name, _)| name == wanted);
        event.map(|(_, data)| data.clone()).expect(wanted)
    };
    let added = &data_of("response.output_item.added")["item"];
    assert_eq!(
        (&added["type"], &added["input"]),
        (&json!("custom_tool_call"), &json!(""))
    );
    assert_eq!(
        data_of("response.custom_tool_call_input.delta")["delta"],
        input
    );
    let done = data_of("response.custom_tool_call_input.done");
    assert_eq!(
        (&done["input"], &done["item_id"]),
        (&json!(input), &added["id"])
    );
    assert_eq!(data_of("response.output_item.done")["item"]["input"], input);

    // The next turn.
    let mut server = roomy("Done.");
    let chat_custom =
        json!({"type": "custom", "custom": {"name": "apply_patch", "description": "Edits files."}});
    same(
        &mut server,
        json!({"tools": [{"type": "custom", "name": "apply_patch", "description": "Edits files."}], "input": [
            {"role": "user", "content": "Go."},
            {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "apply_patch",
             "input": "x", "status": "completed"},
            {"type": "custom_tool_call_output", "call_id": "call_1", "output": "Done."},
        ]}),
        json!({"tools": [chat_custom], "messages": [
            {"role": "user", "content": "Go."},
            {"role": "assistant", "tool_calls": [
                {"id": "call_1", "type": "custom", "custom": {"name": "apply_patch", "input": "x"}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Done."},
        ]}),
    )
    .await;
    for (choice, chat_choice) in [
        (
            json!({"type": "custom", "name": "apply_patch"}),
            json!({"type": "custom", "custom": {"name": "apply_patch"}}),
        ),
        (
            json!({"type": "allowed_tools", "mode": "required", "tools": [
                {"type": "custom", "name": "apply_patch"}, {"type": "web_search"},
            ]}),
            json!("required"),
        ),
    ] {
        let custom =
            json!({"type": "custom", "name": "apply_patch", "description": "Edits files."});
        let question = json!({"role": "user", "content": "Go."});
        same(
            &mut server,
            json!({"tools": [custom, {"type": "web_search"}], "tool_choice": choice, "input": [question]}),
            json!({"tools": [chat_custom], "tool_choice": chat_choice, "messages": [question]}),
        )
        .await;
    }
}

#[tokio::test]
async fn wrong_tools_are_refused_in_the_clients_words() {
    let server = roomy("Yes.");
    let tool = |name: &str, value: Value| {
        let mut tools = weather();
        tools[0][name] = value;
        json!({"tools": tools})
    };
    let with = |name: &str, value: Value| json!({"tools": weather(), name: value});
    let items = |item: Value| {
        json!({"tools": weather(), "input": [
            {"role": "user", "content": "The weather?"}, item,
        ]})
    };
    for (body, place) in [
        (tool("type", json!("web_search")), "tools[0].type"),
        (tool("type", json!("file_search")), "tools[0].type"),
        (
            json!({"tools": [{"type": "web_search"}, {"type": "custom"}]}),
            "tools[1].name",
        ),
        (
            json!({"tools": [{"type": "custom", "name": "f", "format": {"type": "grammar", "syntax": "x", "definition": ""}}]}),
            "tools[0].format.syntax",
        ),
        (
            json!({"tools": [{"type": "custom", "name": "f", "format": {"type": "grammar", "syntax": "lark"}}]}),
            "tools[0].format.definition",
        ),
        (
            with("tool_choice", json!({"type": "web_search"})),
            "tool_choice.type",
        ),
        (
            with(
                "tool_choice",
                json!({"type": "allowed_tools", "mode": "auto"}),
            ),
            "tool_choice.tools",
        ),
        (
            with(
                "tool_choice",
                json!({"type": "allowed_tools", "mode": "auto", "tools": [
                    {"type": "function", "name": "other"},
                ]}),
            ),
            "tool_choice.tools[0].name",
        ),
        (tool("name", Value::Null), "tools[0].name"),
        (tool("name", json!("two words")), "tools[0].name"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (with("tool_choice", json!("some")), "tool_choice"),
        (with("tool_choice", json!(5)), "tool_choice"),
        (
            with("tool_choice", json!({"type": "mcp"})),
            "tool_choice.type",
        ),
        (
            with("tool_choice", json!({"type": "function"})),
            "tool_choice.name",
        ),
        (
            with("tool_choice", json!({"type": "function", "name": "other"})),
            "tool_choice.name",
        ),
        (
            items(json!({"type": "function_call_output", "call_id": "call_9", "output": "x"})),
            "input[1]",
        ),
        (
            items(json!({"type": "function_call_output", "call_id": "call_9"})),
            "input[1].output",
        ),
        (
            items(json!({"type": "function_call_output", "output": "x"})),
            "input[1].call_id",
        ),
        (
            items(json!({"type": "function_call", "call_id": "x", "name": "f"})),
            "input[1].arguments",
        ),
        (json!({"reasoning": {"effort": "high"}}), "reasoning.effort"),
        (json!({"reasoning": {"effort": "very"}}), "reasoning.effort"),
    ] {
        let (status, _, param) = ask(&server, body.clone()).await.error();
        assert_eq!((status, param.as_deref()), (400, Some(place)), "{body}");
    }
    ask(&server, json!({"reasoning": {"effort": "none"}}))
        .await
        .ok();
}

#[tokio::test]
async fn what_cannot_be_looked_up_says_what_to_send() {
    let server = roomy("Yes.");
    let reply = ask(
        &server,
        json!({"input": [{"type": "item_reference", "id": "rs_1"}]}),
    )
    .await;
    assert_eq!(reply.status, 400);
    let error = &reply.json()["error"];
    assert_eq!(error["param"], "input[0].type");
    let said = error["message"].as_str().expect("a message");
    assert!(said.contains("'store': false"), "{said}");
    let taken =
        json!({"include": ["reasoning.encrypted_content", "web_search_call.action.sources"]});
    let answer = ask(&server, taken).await.ok();
    assert_eq!(answer["status"], "completed");
}
