//! The document at `/openapi.json` against what is served.

use std::collections::{BTreeMap, BTreeSet};

use medgemma::core::GenerateRequest;
use serde_json::{Value, json};

use super::server::{Plan, Reply, TestServer, chat_body};

async fn document(server: &TestServer) -> Value {
    let reply = server.get("/openapi.json").await;
    assert_eq!(reply.status, 200);
    serde_json::from_str(&reply.body).expect("the document is JSON")
}

/// `get /v1/models`, … of the document.
fn described(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    let methods = |(path, item): (&String, &Value)| {
        let item = item.as_object().expect("a path item");
        let names = item.keys().map(|method| format!("{method} {path}"));
        names.collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

/// The same of the router's source: a router cannot be asked for its routes.
fn routed() -> BTreeSet<String> {
    let source = include_str!("../../../src/api/router.rs");
    let mut routes = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        // `at` puts a path below each prefix.
        let prefixes: &[&str] = match route.starts_with("&at(") {
            true => &["/v1", ""],
            false => &[""],
        };
        let mut quoted = route.split('"');
        let path = quoted.nth(1).expect("a route has a path");
        let path = path.replace("{*", "{");
        let handlers = quoted.next().expect("a route has a handler");
        for method in ["get", "post", "put", "delete", "patch", "any"] {
            let calls = handlers.matches(&format!("{method}(")).count();
            assert!(calls <= 1, "{path}: {handlers}");
            if calls == 1 {
                routes.extend(
                    prefixes
                        .iter()
                        .map(|prefix| format!("{method} {prefix}{path}")),
                );
            }
        }
    }
    assert!(source.contains("[\"/v1\", \"\"]"), "other prefixes");
    // The pages, for people: `pages` tests them. The routes of probes are in the same file.
    let merged = source.matches(".merge(").count() + source.matches(".nest").count();
    let others = merged - source.matches(".merge(probes())").count();
    assert_eq!(
        (
            others,
            source.matches(".merge(pages::pages(OPERATIONS))").count()
        ),
        (1, 1)
    );
    assert!(routes.len() >= 10, "the walk found only {routes:?}");
    routes
}

#[tokio::test]
async fn what_is_served_is_described_and_nothing_else() {
    let server = Plan::for_test().start();
    let document = document(&server).await;
    assert_eq!(described(&document), routed());
}

#[tokio::test]
async fn each_operation_is_there_and_behind_the_key_unless_it_says_otherwise() {
    let server = Plan {
        keys: vec!["key"],
        ..Plan::for_test()
    }
    .start();
    let reply = server.get("/openapi.json").await;
    assert_eq!(reply.status, 401);
    let open = Plan::for_test().start();
    let document = document(&open).await;
    for operation in described(&document) {
        let (method, path) = operation.split_once(' ').expect("two words");
        let described = &document["paths"][path][method];
        let is_open = described["security"] == json!([]);
        let path = path.replace("{id}", "tiny");
        let reply = match method {
            "get" => server.get(&path).await,
            _ => server.post(&path, "{}").await,
        };
        assert_eq!(is_open, reply.status == 200, "{operation}");
        assert_eq!(!is_open, reply.status == 401, "{operation}");
        assert_eq!(
            !is_open,
            described["responses"]["401"].is_object(),
            "{operation}"
        );
        let status = match method {
            "get" => open.get(&path).await.status,
            _ => open.post(&path, "{}").await.status,
        };
        // It is off here.
        assert_eq!(status == 404, path == "/tokenizer_info", "{operation}");
        assert_ne!(status, 405, "{operation}");
    }
}

/// Where `value` is not as `schema` says; the parts of JSON Schema that the document uses.
fn mismatches(document: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        let target = target.unwrap_or_else(|| panic!("{reference} leads nowhere"));
        found.extend(mismatches(document, target, value, path));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |kinds: &Value| {
        let names = match kinds {
            Value::Array(names) => names.clone(),
            name => vec![name.clone()],
        };
        names
            .iter()
            .any(|name| name == kind || (name == "number" && kind == "integer"))
    };
    if schema.get("type").is_some_and(|kinds| !fits(kinds)) {
        found.push(format!("{path} is of type {kind}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{path} is {value}"));
    }
    let among = |values: &Value| {
        values
            .as_array()
            .is_some_and(|values| values.contains(value))
    };
    if schema.get("enum").is_some_and(|values| !among(values)) {
        found.push(format!("{path} is {value}"));
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        found.extend(mismatches(document, part, value, path));
    }
    let choices = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    // What stands beside the choices is no part of any.
    let mut rest = value.clone();
    if let (Some(fields), Some(own)) = (rest.as_object_mut(), schema["properties"].as_object()) {
        fields.retain(|name, _| !own.contains_key(name));
    }
    if let Some(choices) = choices
        && choices
            .iter()
            .all(|choice| !mismatches(document, choice, &rest, path).is_empty())
    {
        found.push(format!("{path} is none of its choices: {value}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema["items"].is_object() {
            let path = format!("{path}[{index}]");
            found.extend(mismatches(document, &schema["items"], item, &path));
        }
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().expect("names are strings")) {
                found.push(format!("{path} has no {name}"));
            }
        }
        // Otherwise the rest of its fields are described elsewhere.
        let is_whole = schema["properties"].is_object()
            && ["$ref", "allOf", "anyOf", "oneOf"]
                .iter()
                .all(|other| schema.get(other).is_none());
        for (name, field) in fields {
            let inside = format!("{path}.{name}");
            match (
                schema["properties"].get(name),
                schema.get("additionalProperties"),
            ) {
                (Some(property), _) | (None, Some(property)) => {
                    found.extend(mismatches(document, property, field, &inside));
                }
                (None, None) if is_whole => {
                    found.push(format!("{inside} is not described"));
                }
                (None, None) => {}
            }
        }
    }
    found
}

#[tokio::test]
async fn answers_are_as_described() {
    let server = Plan::for_test().start();
    let document = document(&server).await;
    let rich = json!({"logprobs": true, "top_logprobs": 2, "n": 2, "return_token_ids": true});
    let chat = chat_body(rich.clone()).to_string();
    let text = json!({"prompt": "The", "logprobs": 2, "return_token_ids": true}).to_string();
    let message = json!({"messages": [{"role": "user", "content": "The"}], "max_tokens": 9});
    let message = message.to_string();
    let bodies = BTreeMap::from([
        (
            "/v1/chat/completions",
            vec![chat_body(json!({})).to_string(), chat],
        ),
        (
            "/v1/completions",
            vec![json!({"prompt": "The"}).to_string(), text],
        ),
        (
            "/v1/responses",
            vec![
                json!({"input": "The"}).to_string(),
                json!({
                    "input": "The", "top_logprobs": 2,
                    "include": ["message.output_text.logprobs"],
                })
                .to_string(),
            ],
        ),
        ("/v1/messages", vec![message.clone()]),
        ("/v1/messages/count_tokens", vec![message]),
        (
            "/tokenize",
            vec![json!({"prompt": "The", "return_token_strs": true}).to_string()],
        ),
        ("/detokenize", vec![json!({"tokens": [5]}).to_string()]),
    ]);
    let check = |path: &str, method: &str, status: u16, body: &str| {
        let value: Value = serde_json::from_str(body).expect("answers are JSON");
        let response = &document["paths"][path][method]["responses"][status.to_string()];
        let schema = &response["content"]["application/json"]["schema"];
        assert!(
            schema.is_object(),
            "{method} {path}: {status} is not described"
        );
        let found = mismatches(&document, schema, &value, path);
        assert!(found.is_empty(), "{found:?} in {body}");
    };
    for (path, bodies) in bodies {
        for body in bodies {
            let reply = server.post(path, body).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
            check(path, "post", 200, &reply.body);
        }
        for wrong in ["{}", "[", "{\"model\": \"other\"}"] {
            let reply = server.post(path, wrong).await;
            check(path, "post", reply.status, &reply.body);
        }
    }
    for path in [
        "/v1/models",
        "/v1/models/{id}",
        "/health",
        "/livez",
        "/ready",
        "/readyz",
        "/version",
    ] {
        for id in ["tiny", "nothing"] {
            let reply = server.get(&path.replace("{id}", id)).await;
            check(path, "get", reply.status, &reply.body);
        }
    }
}

#[tokio::test]
async fn chunks_are_as_described() {
    let server = Plan::for_test().start();
    let document = document(&server).await;
    let rich = json!({
        "stream": true, "stream_options": {"include_usage": true}, "n": 2, "return_token_ids": true,
        "logprobs": true, "top_logprobs": 2,
    });
    let text = json!({
        "prompt": "The", "stream": true, "stream_options": {"include_usage": true}, "logprobs": 2,
    });
    let plain = chat_body(json!({"stream": true}));
    for (path, body) in [
        ("/v1/chat/completions", chat_body(rich)),
        ("/v1/chat/completions", plain),
        ("/v1/completions", text),
        ("/v1/responses", json!({"input": "The", "stream": true})),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": "The"}], "max_tokens": 9, "stream": true}),
        ),
    ] {
        let reply = server.post(path, body.to_string()).await;
        let content = &document["paths"][path]["post"]["responses"]["200"]["content"];
        let data = &content["text/event-stream"]["schema"]["properties"]["data"];
        let ends_with_done = data["anyOf"][0] == json!({"const": "[DONE]"});
        assert_eq!(
            ends_with_done,
            reply.body.contains("data: [DONE]"),
            "{path}"
        );
        let schema = match ends_with_done {
            true => &data["anyOf"][1]["contentSchema"],
            false => &data["contentSchema"],
        };
        let lines = reply
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let mut num_chunks = 0;
        for chunk in lines.filter(|data| *data != "[DONE]") {
            let value: Value = serde_json::from_str(chunk).expect("chunks are JSON");
            let found = mismatches(&document, schema, &value, path);
            assert!(found.is_empty(), "{found:?} in {chunk}");
            num_chunks += 1;
        }
        assert!(num_chunks >= 3, "{}", reply.body);
    }
}

#[tokio::test]
async fn examples_are_answered() {
    // Room for tools.
    let plan = Plan {
        max_model_len: 4096,
        ..Plan::for_test()
    };
    let server = plan.start();
    let document = document(&server).await;
    let mut num_examples = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let examples = &item["post"]["requestBody"]["content"]["application/json"]["examples"];
        for (name, example) in examples.as_object().into_iter().flatten() {
            let mut body = example["value"].clone();
            assert_eq!(body["model"], "demo");
            body["model"] = json!("tiny");
            let reply = server.post(path, body.to_string()).await;
            assert_eq!(reply.status, 200, "{path} {name}: {}", reply.body);
            num_examples += 1;
        }
    }
    assert!(num_examples >= 10, "only {num_examples} examples");
}

/// An answer without what is each answer's own.
fn without_ids(reply: &Reply) -> Value {
    let mut answer = reply.json();
    answer["id"].take();
    answer["created"].take();
    answer
}

/// What the engine is asked for, for a chat, and what comes of it.
async fn asked(server: &mut TestServer, body: &Value) -> String {
    let reply = server.post("/v1/chat/completions", body.to_string()).await;
    assert_eq!(reply.status, 200, "{body}: {}", reply.body);
    let GenerateRequest {
        prompt,
        sampling,
        prompt_logprobs,
        scheduling,
        ..
    } = server.request().await;
    format!(
        "{prompt:?} {sampling:?} {prompt_logprobs:?} {scheduling:?} {}",
        without_ids(&reply)
    )
}

#[tokio::test]
async fn defaults_are_what_holds_without_them() {
    let mut server = Plan::for_test().start();
    let document = document(&server).await;
    let properties = &document["components"]["schemas"]["ChatCompletionRequest"]["properties"];
    let bare = chat_body(json!({"seed": 1}));
    let expected = asked(&mut server, &bare).await;
    let mut num_defaults = 0;
    for (name, property) in properties.as_object().expect("properties") {
        let Some(default) = property.get("default") else {
            continue;
        };
        let mut body = bare.clone();
        body[name] = default.clone();
        assert_eq!(asked(&mut server, &body).await, expected, "{name}");
        num_defaults += 1;
    }
    assert!(num_defaults >= 10, "only {num_defaults} defaults");
}

#[tokio::test]
async fn ranges_are_those_that_hold() {
    // `n` at its most asks for more answers than a test server usually takes.
    let server = Plan {
        max_in_flight: 128,
        ..Plan::for_test()
    }
    .start();
    let document = document(&server).await;
    let properties = &document["components"]["schemas"]["ChatCompletionRequest"]["properties"];
    let mut num_bounds = 0;
    for (name, property) in properties.as_object().expect("properties") {
        let is_integer = property["type"].to_string().contains("integer");
        for (bound, outside) in [("minimum", -1.0), ("maximum", 1.0)] {
            let Some(limit) = property[bound].as_f64().filter(|limit| limit.abs() < 1e6) else {
                continue;
            };
            let value = |number: f64| match is_integer {
                true => json!(number as i64),
                false => json!(number),
            };
            let mut body = chat_body(json!({"logprobs": true}));
            body[name] = value(limit + outside);
            let reply = server.post("/v1/chat/completions", body.to_string()).await;
            assert_eq!(
                reply.error().2.as_ref(),
                Some(name),
                "{bound}: {}",
                reply.body
            );
            // The script is short of what `min_tokens` may ask for, not of its least value.
            body[name] = value(limit);
            let reply = server.post("/v1/chat/completions", body.to_string()).await;
            assert_eq!(reply.status, 200, "{name} at its {bound}: {}", reply.body);
            num_bounds += 1;
        }
    }
    assert!(num_bounds >= 10, "only {num_bounds} bounds");
}
