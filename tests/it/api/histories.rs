//! Whatever this server answers can be sent back: each answer of each API, whole or streamed, cut off
//! at any token, is taken as a part of the next request's history.

use std::sync::{Arc, Mutex};

use medgemma::core::{GenerateRequest, Thinking, TokenId};
use serde_json::{Map, Value, json};

use super::server::{End, Plan, Script, TestServer, tokens};

/// What the model says, before it is cut off.
const ANSWERS: [&str; 12] = [
    "",
    "The heart is normal. ſ é \u{1fac1}",
    "<unused94>thought\nThe heart?<unused95>It is normal.",
    "<unused94>thought\nThe heart",
    "[get_weather(city='Oslo', days=3)]",
    "Well. [get_weather(city=\"Ös\\\"lo\"), get_time()]",
    "<unused94>thought\nhm<unused95>[patch(\"\"\"- a\n+ \"b\"\n\"\"\")]",
    "```tool_code\nprint(get_weather('Oslo', days=2))\n```",
    "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Os\\n\\\"lo\", \"days\": [1, {\"a\": -2.5}]}}",
    "[{\"name\": \"get_time\", \"parameters\": {}}, {\"name\": \"get_weather\", \"parameters\": {\"city\": \"x\"}}]",
    "{\"name\": \"patch\", \"parameters\": {\"input\": \"- a\\n+ b\"}}",
    "<start_of_image><tool_call>{\"name\": \"no_such\", \"arguments\": {}}</tool_call>",
];

/// A server that says what it is told to, one answer after another.
struct Told {
    server: TestServer,
    next: Arc<Mutex<Script>>,
}

impl Told {
    fn new() -> Self {
        let nothing = Script {
            tokens: Vec::new(),
            end: End::TurnMarker,
        };
        let next = Arc::new(Mutex::new(nothing));
        let said = Arc::clone(&next);
        let plan = Plan {
            max_model_len: 4096,
            thinking: Thinking::Unasked,
            script: Arc::new(move |_: &GenerateRequest| said.lock().expect("held shortly").clone()),
            ..Plan::for_test()
        };
        Self {
            server: plan.start(),
            next,
        }
    }

    fn say(&self, tokens: &[TokenId], end: End) {
        *self.next.lock().expect("held shortly") = Script {
            tokens: tokens.to_vec(),
            end,
        };
    }

    /// Returns the answer to `body`, as a client holds it that puts a stream's events together with
    /// `join`.
    async fn answer(&self, path: &str, body: &Value, join: fn(&str) -> Value) -> Value {
        let reply = self.server.post(path, body.to_string()).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.body);
        match body["stream"] == json!(true) {
            true => join(&reply.body),
            false => reply.json(),
        }
    }
}

/// The data of a stream's events.
fn events(body: &str) -> Vec<Value> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let lines = lines.filter(|data| *data != "[DONE]");
    lines
        .map(|data| serde_json::from_str(data).expect("events are JSON"))
        .collect()
}

/// Adds `delta` to `all` as OpenAI's client does: texts grow, lists are told apart by their indices.
fn accumulate(all: &mut Value, delta: &Value) {
    let (Some(fields), Some(delta)) = (all.as_object_mut(), delta.as_object()) else {
        return;
    };
    for (name, more) in delta {
        match (fields.get_mut(name), more) {
            (None | Some(Value::Null), _) => {
                fields.insert(name.clone(), more.clone());
            }
            (Some(Value::String(text)), Value::String(more)) if name != "id" && name != "type" => {
                text.push_str(more);
            }
            (Some(own @ Value::Object(_)), Value::Object(_)) => accumulate(own, more),
            (Some(Value::Array(list)), Value::Array(more)) => {
                for element in more {
                    let index = element["index"].as_u64();
                    match list.iter_mut().find(|own| own["index"].as_u64() == index) {
                        Some(own) if index.is_some() => accumulate(own, element),
                        _ => list.push(element.clone()),
                    }
                }
            }
            _ => {}
        }
    }
}

fn joined_chat(body: &str) -> Value {
    let mut all = json!({});
    for event in events(body) {
        assert!(event.get("error").is_none(), "{event}");
        if let Some(choice) = event["choices"].get(0) {
            accumulate(&mut all, &choice["delta"]);
        }
    }
    json!({"choices": [{"message": all}]})
}

fn joined_response(body: &str) -> Value {
    let last = events(body).pop().expect("a stream has an end");
    last["response"].clone()
}

fn joined_message(body: &str) -> Value {
    let mut blocks: Vec<Value> = Vec::new();
    let mut json = String::new();
    for event in events(body) {
        match event["type"].as_str() {
            Some("content_block_start") => blocks.push(event["content_block"].clone()),
            Some("content_block_delta") => {
                let block = blocks.last_mut().expect("a block has begun");
                let delta = &event["delta"];
                let text = |name: &str| delta[name].as_str().unwrap_or_default();
                json.push_str(text("partial_json"));
                for name in ["text", "thinking"] {
                    if let Some(Value::String(own)) = block.get_mut(name) {
                        own.push_str(text(name));
                    }
                }
            }
            Some("content_block_stop") => {
                let block = blocks.last_mut().expect("a block has begun");
                let json = std::mem::take(&mut json);
                if block["type"] == "tool_use" && !json.is_empty() {
                    // Clients keep what they can read of a call that was cut off.
                    block["input"] = serde_json::from_str(&json).unwrap_or_else(|_| json!({}));
                }
            }
            Some("error") => panic!("{event}"),
            _ => {}
        }
    }
    json!({"content": blocks})
}

fn chat_tools() -> Value {
    let city = json!({"city": {"type": "string"}, "days": {}});
    json!([
        {"type": "function", "function": {"name": "get_weather", "parameters": {
            "type": "object", "properties": city,
        }}},
        {"type": "function", "function": {"name": "get_time"}},
        {"type": "custom", "custom": {"name": "patch"}},
    ])
}

/// Returns the tools in another API's form: without the object that chats have.
fn flat_tools(schema: &str, with_type: bool) -> Value {
    let tools = chat_tools();
    let tools = tools.as_array().expect("a list").iter().map(|tool| {
        let kind = tool["type"].as_str().expect("a type");
        let mut flat: Map<String, Value> = tool[kind].as_object().expect("an object").clone();
        if let Some(parameters) = flat.remove("parameters") {
            flat.insert(schema.to_owned(), parameters);
        } else if !with_type {
            flat.insert(schema.to_owned(), json!({"type": "object"}));
        }
        if with_type {
            flat.insert("type".to_owned(), json!(kind));
        }
        Value::Object(flat)
    });
    tools.collect()
}

async fn is_taken(told: &Told, path: &str, body: &Value, what: &str) {
    told.say(&tokens("Yes."), End::TurnMarker);
    let reply = told.server.post(path, body.to_string()).await;
    assert_eq!(reply.status, 200, "{what}: {}\n{body}", reply.body);
}

async fn chat_goes_on(told: &Told, extra: &Value, what: &str) {
    let path = "/v1/chat/completions";
    let mut body = extra.clone();
    body["messages"] = json!([{"role": "user", "content": "Rain?"}]);
    body["tools"] = chat_tools();
    let answer = told.answer(path, &body, joined_chat).await;
    let message = answer["choices"][0]["message"].clone();
    let calls = message["tool_calls"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let messages = body["messages"].as_array_mut().expect("a list");
    messages.push(message);
    for call in calls {
        let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "dry"});
        messages.push(result);
    }
    messages.push(json!({"role": "user", "content": "Sure?"}));
    is_taken(told, path, &body, what).await;
}

async fn response_goes_on(told: &Told, extra: &Value, what: &str) {
    let path = "/v1/responses";
    let mut body = extra.clone();
    body["input"] = json!([{"role": "user", "content": "Rain?"}]);
    body["tools"] = flat_tools("parameters", true);
    if body["logprobs"].take() == json!(true) {
        body["include"] = json!(["message.output_text.logprobs"]);
    }
    let answer = told.answer(path, &body, joined_response).await;
    let items = answer["output"].as_array().expect("items").clone();
    let input = body["input"].as_array_mut().expect("a list");
    input.extend(items.clone());
    for item in items {
        if item["call_id"].is_string() {
            let kind = format!("{}_output", item["type"].as_str().expect("a type"));
            input.push(json!({"type": kind, "call_id": item["call_id"], "output": "dry"}));
        }
    }
    input.push(json!({"role": "user", "content": "Sure?"}));
    is_taken(told, path, &body, what).await;
}

async fn message_goes_on(told: &Told, extra: &Value, what: &str) {
    let path = "/v1/messages";
    let mut body = extra.clone();
    body["messages"] = json!([{"role": "user", "content": "Rain?"}]);
    body["tools"] = flat_tools("input_schema", false);
    body["max_tokens"] = json!(500);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 400});
    body["logprobs"].take();
    match body["tool_choice"].take().as_str() {
        Some("required") => {
            body["tool_choice"] = json!({"type": "any"});
            body["thinking"].take();
        }
        _ => body["tool_choice"] = json!({"type": "auto"}),
    }
    let answer = told.answer(path, &body, joined_message).await;
    let blocks = answer["content"].as_array().expect("blocks").clone();
    let used = blocks.iter().filter(|block| block["type"] == "tool_use");
    let results: Vec<_> = used
        .map(|block| json!({"type": "tool_result", "tool_use_id": block["id"], "content": "dry"}))
        .collect();
    let messages = body["messages"].as_array_mut().expect("a list");
    messages.push(json!({"role": "assistant", "content": blocks}));
    let content = match results.is_empty() {
        true => json!("Sure?"),
        false => json!(results),
    };
    messages.push(json!({"role": "user", "content": content}));
    is_taken(told, path, &body, what).await;
}

#[tokio::test]
async fn every_answer_cut_off_anywhere_is_taken_as_history() {
    let told = Told::new();
    for said in ANSWERS {
        let all = tokens(said);
        for cut in 0..=all.len() {
            for (choice, streams) in [
                ("auto", false),
                ("auto", true),
                ("required", false),
                ("required", true),
            ] {
                let extra = json!({
                    "stream": streams, "tool_choice": choice, "logprobs": cut % 2 == 0,
                });
                let what = format!("{:?} {extra}", tokens_text(&all[..cut]));
                let end = match cut < all.len() && cut > 0 {
                    true => End::Length,
                    false => End::TurnMarker,
                };
                told.say(&all[..cut], end);
                chat_goes_on(&told, &extra, &what).await;
                told.say(&all[..cut], end);
                response_goes_on(&told, &extra, &what).await;
                told.say(&all[..cut], end);
                message_goes_on(&told, &extra, &what).await;
            }
        }
    }
}

fn tokens_text(ids: &[TokenId]) -> String {
    use medgemma::text::SpecialTokens;
    super::server::tokenizer().decode(ids, SpecialTokens::Keep)
}

#[tokio::test]
async fn what_other_servers_answer_is_taken_as_history() {
    let told = Told::new();
    for message in [
        json!({"role": "assistant", "content": null, "refusal": "I cannot.", "annotations": [],
            "audio": null, "function_call": null, "tool_calls": null}),
        json!({"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]}),
        json!({"role": "assistant", "content": "Yes.", "reasoning": null, "reasoning_content": "hm",
            "reasoning_details": [{"type": "reasoning.text", "text": "hm"}], "provider": "x"}),
        json!({"role": "assistant", "content": "", "tool_calls": []}),
        json!({"role": "assistant"}),
    ] {
        let body = json!({"messages": [
            {"role": "user", "content": "Rain?"}, message, {"role": "user", "content": "Sure?"},
        ]});
        is_taken(&told, "/v1/chat/completions", &body, "a chat").await;
    }
    for item in [
        json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "incomplete",
            "phase": "final_answer", "content": [{"type": "refusal", "refusal": "I cannot."}]}),
        json!({"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": null}]}),
        json!({"type": "message", "role": "assistant", "content": []}),
        json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "abc", "content": null, "status": null}),
    ] {
        let body = json!({"input": [
            {"role": "user", "content": "Rain?"}, item, {"role": "user", "content": "Sure?"},
        ]});
        is_taken(&told, "/v1/responses", &body, "a response").await;
    }
    for content in [
        json!([{"type": "text", "text": "Yes.", "citations": null}]),
        json!([{"type": "thinking", "thinking": "hm", "signature": "abc"},
            {"type": "redacted_thinking", "data": "abc"}, {"type": "text", "text": "Yes."}]),
        json!([{"type": "text", "text": ""}]),
        json!([{"type": "thinking", "thinking": "hm", "signature": ""}]),
        json!([]),
        json!(""),
    ] {
        let body = json!({"max_tokens": 9, "messages": [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": content},
            {"role": "user", "content": "Sure?"},
        ]});
        is_taken(&told, "/v1/messages", &body, "a message").await;
    }
}
