//! Connections that bring no good request, and those that come beside them.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::wire::{Answer, get, post, rest_of};
use super::{Server, medgemma};

const CANCELLED: &str = "medgemma:requests_cancelled_total";

/// So much that it is not there at once.
pub(super) fn long(extra: Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 8000, "ignore_eos": true,
    });
    let fields = body.as_object_mut().unwrap();
    fields.extend(extra.as_object().unwrap().clone());
    body
}

/// So much that no test waits for its end.
fn endless(stream: bool) -> Value {
    long(json!({"n": 100, "stream": stream}))
}

fn short(stream: bool) -> Value {
    long(json!({"max_tokens": 2, "stream": stream}))
}

const CHAT: &str = "/v1/chat/completions";

/// Begins a stream, and reads until it has begun.
pub(super) fn streaming(server: &Server, body: &Value) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(server.sent(&post(CHAT, "Connection: close\r\n", body)));
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "it ended early");
    }
    stream
}

#[test]
fn heads_that_no_server_should_take_are_refused_in_our_shape() {
    let server = Server::start(&["demo"], &[]);
    let long_line = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    let many = "X-Many: x\r\n".repeat(10_000);
    let close = "Connection: close\r\n";
    let simple = |line: &str| format!("{line}\r\nHost: localhost\r\n{close}\r\n");
    for (head, status, code) in [
        (
            get("/v1/models", "Host: a\r\nHost: a\r\n"),
            400,
            "invalid_host",
        ),
        (get("/v1/models", ""), 400, "invalid_host"),
        (get("/v1/models", "Host: a b\r\n"), 400, "invalid_host"),
        (
            get("/health", "Host: a\r\nHost: b\r\n"),
            400,
            "invalid_host",
        ),
        (
            get("/v1/models", "Host: localhost\r\nExpect: 200-maybe\r\n"),
            417,
            "unknown_expectation",
        ),
        (
            post(CHAT, "Connection: close\r\n", &json!({})).replacen(
                "Content-Length: 2",
                "Transfer-Encoding: gzip, chunked",
                1,
            ),
            501,
            "unknown_transfer_coding",
        ),
        (simple("nonsense"), 400, "malformed_request"),
        ("\0\0\0\0\r\n\r\n".to_owned(), 400, "malformed_request"),
        (simple("GET / HTTP/9.9"), 400, "malformed_request"),
        (get("/", "Host : localhost\r\n"), 400, "malformed_request"),
        (
            post(CHAT, "Content-Length: 3\r\n", &json!({})),
            400,
            "malformed_request",
        ),
        (get("/", &many), 431, "headers_too_large"),
        (get("/", &long_line), 431, "headers_too_large"),
        (
            get(&format!("/{}", "x".repeat(1 << 17)), ""),
            414,
            "uri_too_long",
        ),
    ] {
        let answer = server.answer(&head);
        let shown = &head[..head.len().min(80)];
        let (told, told_code, _) = answer.error();
        assert_eq!((told, told_code.as_str()), (status, code), "{shown}");
        assert!(answer.header("x-request-id").is_some(), "{shown}");
        assert_eq!(answer.header("connection"), Some("close"), "{shown}");
    }
    // HTTP/1.0 has no Host.
    let old = "GET /v1/models HTTP/1.0\r\n\r\n";
    assert_eq!(server.answer(old).status, 200);
    // What came before on the connection is answered first.
    let both = get("/health", "Host: localhost\r\n").replacen("Connection: close\r\n", "", 1);
    let text = rest_of(server.sent(&format!("{both}nonsense\r\n\r\n")));
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("}HTTP/1.1 400 Bad Request\r\n"), "{text}");
    assert!(text.contains("malformed_request"), "{text}");
}

#[test]
fn no_answer_of_the_api_is_kept_on_the_way() {
    let server = Server::start(&["demo", "--api-key", "sesame"], &[]);
    let lines = "Host: localhost\r\nAuthorization: Bearer sesame\r\n";
    let with_key = "Connection: close\r\nAuthorization: Bearer sesame\r\n";
    for request in [
        get("/health", lines),
        get("/v1/models", lines),
        get("/metrics", lines),
        get("/openapi.json", lines),
        get("/nope", lines),
        get("/v1/models", "Host: localhost\r\n"),
        get("/v1/models", "Host: evil.example\r\n"),
        "nonsense\r\n\r\n".to_owned(),
        post(CHAT, with_key, &short(false)),
        post(CHAT, with_key, &short(true)),
        post("/v1/messages", with_key, &json!({})),
    ] {
        let answer = server.answer(&request);
        assert_eq!(
            answer.header("cache-control"),
            Some("no-store"),
            "{request}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{request}"
        );
    }
    let page = server.answer(&get("/", "Host: localhost\r\n"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
}

#[test]
fn idle_and_slow_connections_keep_nobody_out() {
    let line = ["serve", "--port", "0", "demo"];
    let program = medgemma(&line, &[]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    limited.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let server = Server::up(limited);
    // What runs keeps its connection.
    let stream = streaming(&server, &long(json!({"stream": true, "max_tokens": 500})));
    let mut idle = Vec::new();
    let asked = Instant::now();
    for number in 0..200 {
        let mut connection = server.connect();
        if number % 2 == 0 {
            connection
                .write_all(b"GET /v1/models HTTP/1.1\r\nslow")
                .unwrap();
        }
        idle.push(connection);
        if number % 20 == 19 {
            assert_eq!(server.get("/ready").0, 200);
            assert_eq!(
                server
                    .answer(&post(CHAT, "Connection: close\r\n", &short(false)))
                    .status,
                200
            );
        }
    }
    // Less than idle connections live by themselves.
    assert!(
        asked.elapsed() < Duration::from_secs(25),
        "{:?}",
        asked.elapsed()
    );
    let rest = rest_of(stream.into_inner());
    assert!(rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{rest}");
}

#[test]
fn an_address_has_its_share_of_connections_and_probes_have_theirs() {
    let server = Server::start(&["demo", "--max-connections-per-address", "3"], &[]);
    // As many answers as the queue takes.
    let body = long(json!({"n": 50, "stream": true}));
    let streams: Vec<_> = (0..3).map(|_| streaming(&server, &body)).collect();
    let (status, code, message) = server
        .answer(&get("/v1/models", "Host: localhost\r\n"))
        .error();
    assert_eq!((status, code.as_str()), (503, "too_many_connections"));
    assert!(message.contains("Try again"), "{message}");
    assert_eq!(server.get("/health").0, 200);
    drop(streams);
    // Once they have been missed.
    while server.get("/v1/models").0 != 200 {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let server = Server::start(&["demo", "--send-timeout", "1"], &[]);
    // An answer that costs little and is more than what the system holds for a client.
    let request = post(
        "/tokenize",
        "Connection: close\r\n",
        &json!({"prompt": "heart"}),
    );
    let tokens: Value = serde_json::from_str(&server.answer(&request).body).unwrap();
    let word = tokens["tokens"].as_array().unwrap().last().unwrap().clone();
    let much = json!({"tokens": vec![word; 4_000_000]});
    let mut stuck = server.sent(&post("/detokenize", "", &much));
    let begun = Instant::now();
    // To a connection that is closed nothing can be written for long.
    while stuck.write_all(b"x").is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(50), "it still waits");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_has_said_all_gets_its_answer() {
    let server = Server::start(&["demo"], &[]);
    for (path, body, status) in [
        (CHAT, short(false), 200),
        (CHAT, json!({"messages": 5}), 400),
        ("/nope", json!({}), 404),
    ] {
        let answer = server.answer_to_half(&post(path, "", &body));
        assert_eq!(answer.status, status, "{answer:?}");
        serde_json::from_str::<Value>(&answer.body).expect("it is whole");
    }
    // One that takes its time, and a stream.
    let answer = server.answer_to_half(&post(CHAT, "", &long(json!({"max_tokens": 3000}))));
    assert!(
        answer.body.contains("\"completion_tokens\":3000"),
        "{answer:?}"
    );
    let body = long(json!({"max_tokens": 3000, "stream": true}));
    let answer = server.answer_to_half(&post(CHAT, "", &body));
    assert!(answer.body.contains("data: [DONE]"));
    // Several on one connection, in order.
    let both = [short(false), short(true)]
        .map(|body| post(CHAT, "", &body))
        .concat();
    let text = {
        let stream = server.sent(&both);
        stream.shutdown(Shutdown::Write).unwrap();
        rest_of(stream)
    };
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert!(text.contains("data: [DONE]"), "{text}");
    let answer = server.answer_to_half(&get("/v1/models", "Host: localhost\r\n"));
    assert_eq!(answer.status, 200);
    assert_eq!(server.answer_to_half("nonsense\r\n\r\n").error().0, 400);
    let old = post(CHAT, "", &short(false)).replacen("HTTP/1.1", "HTTP/1.0", 1);
    assert_eq!(server.answer_to_half(&old).status, 200);
    assert_eq!(server.metric(CANCELLED), 0.0);
    // One whose request is not whole waits for nothing.
    let whole = post(CHAT, "", &short(false));
    let stream = server.sent(&whole[..whole.len() - 5]);
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    let _ = BufReader::new(stream).read_line(&mut text);
    assert!(!text.contains("200"), "{text}");
}

/// Sends a request and leaves, until the server has noticed one that left. One that leaves before its
/// request was read has asked for nothing, so each waits a little longer.
fn is_missed(server: &Server, send: impl Fn() -> TcpStream) {
    let before = server.metric(CANCELLED);
    for attempt in 1..20 {
        let stream = send();
        std::thread::sleep(Duration::from_millis(50) * attempt);
        drop(stream);
        let left = Instant::now();
        while left.elapsed() < Duration::from_secs(10) {
            if server.metric(CANCELLED) > before {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("nobody was missed");
}

fn until_cancelled(server: &Server, num_cancelled: f64) {
    let begun = Instant::now();
    while server.metric(CANCELLED) < num_cancelled {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "it was not missed"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_is_gone_is_missed() {
    let server = Server::start(&["demo", "--max-num-seqs", "1"], &[]);
    let running = streaming(&server, &endless(true));
    for waiting in [long(json!({})), long(json!({"stream": true}))] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            // Behind the other answers.
            let request = post(CHAT, "", &waiting).replacen("HTTP/1.1", version, 1);
            is_missed(&server, || server.sent(&request));
        }
    }
    let num_cancelled = server.metric(CANCELLED);
    drop(running);
    until_cancelled(&server, num_cancelled + 1.0);
    let whole = post(CHAT, "", &endless(false));
    is_missed(&server, || server.sent(&whole));
    let answer = Answer::read(&rest_of(server.sent(&post(
        CHAT,
        "Connection: close\r\n",
        &short(false),
    ))));
    assert_eq!(answer.status, 200);
}
