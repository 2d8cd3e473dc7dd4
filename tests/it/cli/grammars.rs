//! Grammars that are made to harm, sent to the running program: each ends with an error or is given
//! up, and nobody else notices.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::Server;

fn server() -> Server {
    Server::start(&["demo"], &[])
}

/// A chain of rules, each of which names the next.
fn rules(num_links: usize) -> String {
    let links = (0..num_links).map(|n| format!("r{n}: \"a{n}\" | r{}\n", n + 1));
    let links: String = links.collect();
    format!("start: r0\n{links}r{num_links}: \"z\"\n")
}

fn terminals(num_links: usize) -> String {
    let links = (0..num_links).map(|n| format!("T{n}: \"a\" T{}\n", n + 1));
    let links: String = links.collect();
    format!("start: T0\n{links}T{num_links}: \"z\"\n")
}

/// A chain of definitions, each of which leads to the next by `link`.
fn schema(num_links: usize, link: impl Fn(Value) -> Value) -> Value {
    let mut definitions: Map<String, Value> = (0..num_links)
        .map(|n| {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            (format!("d{n}"), link(next))
        })
        .collect();
    definitions.insert(format!("d{num_links}"), json!({"type": "string"}));
    json!({"$defs": definitions, "$ref": "#/$defs/d0"})
}

fn chains(num_links: usize) -> Vec<(&'static str, Value)> {
    let chat = |fields: Value| {
        let mut body = json!({
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 2,
        });
        let all = body.as_object_mut().expect("an object");
        all.extend(fields.as_object().expect("an object").clone());
        body
    };
    let object = |next| json!({"type": "object", "properties": {"a": next}, "required": ["a"]});
    let by_ref = schema(num_links, |next| next);
    let by_property = schema(num_links, object);
    let by_all = schema(num_links, |next| json!({"allOf": [next]}));
    let format = |schema: &Value| json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let mut parameters = by_property.clone();
    parameters["type"] = json!("object");
    vec![
        (
            "/v1/chat/completions",
            chat(json!({"structured_outputs": {"grammar": rules(num_links)}})),
        ),
        (
            "/v1/chat/completions",
            chat(json!({"structured_outputs": {"grammar": terminals(num_links)}})),
        ),
        (
            "/v1/chat/completions",
            chat(json!({"response_format": format(&by_ref)})),
        ),
        (
            "/v1/chat/completions",
            chat(json!({"response_format": format(&by_property)})),
        ),
        (
            "/v1/completions",
            json!({"prompt": "x", "max_tokens": 2, "structured_outputs": {"json": by_all}}),
        ),
        (
            "/v1/chat/completions",
            chat(json!({
                "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
                "tool_choice": "required",
            })),
        ),
        (
            "/v1/responses",
            json!({
                "input": "x",
                "max_output_tokens": 16,
                "text": {"format": {"type": "json_schema", "name": "a", "schema": by_property}},
            }),
        ),
        (
            "/v1/messages",
            json!({
                "model": "demo",
                "max_tokens": 2,
                "messages": [{"role": "user", "content": "x"}],
                "tools": [{"name": "f", "input_schema": parameters}],
                "tool_choice": {"type": "any"},
            }),
        ),
    ]
}

impl Server {
    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json");
        let (status, body) = self.request(&head, &body.to_string());
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        (status, body)
    }

    /// A request whose answer is not waited for.
    fn begin(&self, body: &Value) -> TcpStream {
        let port = self.address.rsplit(':').next().unwrap();
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        stream
    }

    /// The processes that work on grammars.
    fn grammar_processes(&self) -> Vec<u32> {
        let fork_servers = children(self.child.id());
        fork_servers.into_iter().flat_map(children).collect()
    }
}

/// The processes that a process has started.
pub(super) fn children(of: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{of}/task"))
        .into_iter()
        .flatten();
    let lists = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let ids = lists.flat_map(|list| {
        let ids = list.split_whitespace().map(|id| id.parse().unwrap());
        ids.collect::<Vec<u32>>()
    });
    ids.collect()
}

/// Waits for what must come, however busy the machine is.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_first_rule_finds_the_vocabulary_prepared() {
    let server = server();
    until("it is ready", || server.get("/ready").0 == 200);
    let prepared = children(server.child.id());
    let is_named =
        |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).unwrap() == "grammars\n";
    assert_eq!(prepared.iter().filter(|id| is_named(id)).count(), 1);
    let (status, body) = server.post(
        "/v1/chat/completions",
        &json!({
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 4,
            "structured_outputs": {"choice": ["a", "b"]},
        }),
    );
    assert_eq!(status, 200, "{body}");
    // It is the same one that has compiled the rule.
    assert_eq!(children(server.child.id()), prepared);
}

#[test]
fn deep_chains_are_refused_at_every_door_and_the_server_lives() {
    let server = server();
    for (path, body) in chains(2_000) {
        let (status, answer) = server.post(path, &body);
        assert_eq!(status, 400, "{path}: {answer}");
        let message = answer["error"]["message"]
            .as_str()
            .expect("an error says what is wrong");
        assert!(message.contains("chain"), "{path}: {message}");
    }
    let brackets = format!("start: {}\"x\"{}", "(".repeat(2_000), ")".repeat(2_000));
    let (status, answer) = server.post(
        "/v1/completions",
        &json!({"prompt": "x", "structured_outputs": {"grammar": brackets}}),
    );
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("brackets"), "{answer}");
    // What has passed the bounds compiles without harm, just below them.
    for (path, body) in chains(230) {
        let (status, answer) = server.post(path, &body);
        assert!(status == 200 || status == 400, "{path}: {answer}");
        assert!(!answer.to_string().contains("chain"), "{path}: {answer}");
    }
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(
        server.complete(r#"{"prompt": "x", "max_tokens": 2}"#).0,
        200
    );
}

/// Numbers that must be multiples of a large prime: more states than there is memory for. Within a
/// grammar, where the bounds on schemas do not look.
fn endless(n: usize) -> Value {
    let grammar =
        format!("start: \"{n}\" %json {{\"type\": \"integer\", \"multipleOf\": 99400891}}");
    json!({
        "messages": [{"role": "user", "content": "x"}],
        "structured_outputs": {"grammar": grammar},
    })
}

#[test]
fn a_schema_that_never_ends_ends_when_its_client_leaves() {
    let server = server();
    let multiples = [9973, 9967, 9949, 9941].map(|of| json!({"multipleOf": of}));
    let known = json!({
        "messages": [{"role": "user", "content": "x"}],
        "structured_outputs": {"json": {"type": "integer", "allOf": multiples}},
    });
    let (status, answer) = server.post("/v1/chat/completions", &known);
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("multipleOf"), "{answer}");
    assert_eq!(
        server.grammar_processes(),
        Vec::<u32>::new(),
        "it was not tried"
    );

    let clients: Vec<TcpStream> = (0..3).map(|n| server.begin(&endless(n))).collect();
    until("they are compiled", || {
        server.grammar_processes().len() == 3
    });
    // Another one's grammar is not held up.
    let body =
        json!({"prompt": "x", "max_tokens": 8, "structured_outputs": {"choice": ["a", "b"]}});
    assert_eq!(server.post("/v1/completions", &body).0, 200);
    drop(clients);
    until("they are given up", || {
        server.grammar_processes().len() == 1
    });
}

#[test]
fn a_process_that_dies_ends_its_own_answers_only() {
    let server = server();
    let bound = |text: &str| {
        json!({
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 3000,
            "stream": true,
            "structured_outputs": {"regex": text},
        })
    };
    let mut lost = server.begin(&bound("[a-f]{5000}"));
    let mut first = [0; 4096];
    // It has begun to answer.
    until("an answer begins", || {
        let len = lost.read(&mut first).unwrap();
        String::from_utf8_lossy(&first[..len]).contains("content")
    });
    let processes = server.grammar_processes();
    assert_eq!(processes.len(), 1);
    let kill = std::process::Command::new("kill")
        .args(["-9", &processes[0].to_string()])
        .status();
    assert!(kill.unwrap().success());
    let mut rest = String::new();
    lost.set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    until("the answer ends with an error", || {
        let mut piece = [0; 4096];
        let len = lost.read(&mut piece).unwrap();
        rest.push_str(&String::from_utf8_lossy(&piece[..len]));
        rest.contains("\"error\"")
    });
    assert!(rest.contains("takes too much time or memory"), "{rest}");
    // The same grammar is compiled again for the next one.
    let mut again = bound("[a-f]{20}");
    again["stream"] = json!(false);
    assert_eq!(server.post("/v1/chat/completions", &again).0, 200);
    assert_eq!(server.post("/v1/chat/completions", &again).0, 200);
}

#[test]
fn slow_grammars_slow_nobody_else() {
    let server = server();
    let plain = json!({"prompt": "The film shows", "max_tokens": 200, "temperature": 0, "ignore_eos": true});
    let (_, alone) = server.post("/v1/completions", &plain);
    let hostile: Vec<TcpStream> = (0..6)
        .map(|n| {
            server.begin(&json!({
                "messages": [{"role": "user", "content": format!("{n}")}],
                "max_tokens": 2000,
                "structured_outputs": {"grammar": format!("start: e\ne: e e | /[a-z ]/ | e e e | \"{n}\"")},
            }))
        })
        .collect();
    // A step waits for such a mask until patience ends, and never again for the same request.
    until("a mask is late", || {
        server.metric("medgemma:skipped_masks_total") > 0.0
    });
    let (status, beside) = server.post("/v1/completions", &plain);
    assert_eq!(status, 200, "{beside}");
    assert_eq!(
        beside["choices"], alone["choices"],
        "not a token is another one"
    );
    drop(hostile);
    until("nothing is left of them", || {
        server.metric("vllm:num_requests_running") == 0.0
    });
}
