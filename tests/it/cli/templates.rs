//! A chat template that harms, in the running program: the request that it harms fails, and nobody
//! else notices.

use std::fs;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use super::Server;
use super::grammars::children;

/// Harms only where the last message says how.
const HARMFUL: &str = "{% set text = messages[-1].content %}\
    {% set ns = namespace(x=[1]) %}\
    {% if text == 'double' %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}\
    {{ ns.x | tojson | length }}{% endif %}\
    {% if text == 'deep' %}{% set ns.x = ns %}{{ ns }}{% endif %}\
    {% if text == 'loop' %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}\
    {% endfor %}{% endif %}\
    {{ bos_token }}<start_of_turn>user\n{{ text }}<end_of_turn>\n<start_of_turn>model\n";

fn chat(server: &Server, text: &str) -> (u16, Value) {
    let head = "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json";
    let body = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 2});
    let (status, body) = server.request(head, &body.to_string());
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn a_harmful_template_harms_its_request_alone() {
    let server = Server::start(&["demo", "--chat-template", HARMFUL], &[]);
    let (status, body) = chat(&server, "Hello");
    assert_eq!(status, 200, "{body}");
    thread::scope(|scope| {
        for text in ["double", "deep", "loop"] {
            let server = &server;
            scope.spawn(move || {
                let (status, body) = chat(server, text);
                assert_eq!(status, 400, "{text}: {body}");
                assert_eq!(body["error"]["code"], "invalid_messages", "{body}");
            });
        }
        for _ in 0..10 {
            assert_eq!(server.get("/health").0, 200);
            let (status, body) = chat(&server, "Hello");
            assert_eq!(status, 200, "{body}");
        }
    });
    let (status, body) = chat(&server, "Hello");
    assert_eq!(status, 200, "{body}");
}

#[test]
fn a_templates_process_that_was_killed_is_started_again() {
    let server = Server::start(&["demo", "--chat-template", HARMFUL], &[]);
    let processes = || {
        let named = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        let mut processes = children(server.child.id());
        processes.retain(|id| named(id).trim() == "template");
        processes
    };
    for _ in 0..2 {
        assert_eq!(chat(&server, "Hello").0, 200);
        let [process] = processes()[..] else {
            panic!("one at a time needs one process: {:?}", processes());
        };
        let kill = Command::new("kill")
            .args(["-9", &process.to_string()])
            .status();
        assert!(kill.unwrap().success());
    }
    let (status, body) = chat(&server, "Hello");
    assert_eq!(status, 200, "{body}");
    assert_eq!(processes().len(), 1);
}
