//! A log that cannot be written costs lines, and no answers.

use std::fs::OpenOptions;
use std::process::Stdio;

use super::{Server, medgemma};

const SERVE: [&str; 6] = ["serve", "--port", "0", "demo", "--log-format", "json"];

/// A request id of the greatest length: the most that a client can make the server log.
fn long_id() -> String {
    format!("X-Request-Id: {}", "i".repeat(128))
}

fn num_dropped(server: &Server) -> f64 {
    server.metric("medgemma:log_lines_dropped_total")
}

/// A chat, a stream, what is not there and what is no request: each leaves a line in the log.
fn every_kind_is_answered(server: &Server) {
    let post = "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json";
    let post = format!("{post}\r\n{}", long_id());
    let chat = |stream: bool| {
        let body = serde_json::json!({
            "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2, "stream": stream,
        });
        server.request(&post, &body.to_string())
    };
    let (status, body) = chat(false);
    assert_eq!(status, 200, "{body}");
    let (status, body) = chat(true);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("data: [DONE]"), "{body}");
    assert_eq!(server.request(&post, "{").0, 400);
    assert_eq!(missing(server), 404);
    assert_eq!(server.get("/health").0, 200);
}

fn missing(server: &Server) -> u16 {
    let head = format!("GET /nope HTTP/1.1\r\n{}", long_id());
    server.request(&head, "").0
}

fn ends_well(mut server: Server) {
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_whose_reader_is_gone_stops_no_answer() {
    let mut server = Server::up(medgemma(&SERVE, &[]));
    drop(server.child.stderr.take());
    for _ in 0..10 {
        every_kind_is_answered(&server);
    }
    assert!(num_dropped(&server) > 0.0);
    ends_well(server);
}

#[test]
fn a_log_whose_reader_stalls_stops_no_answer() {
    // Nobody reads the pipe.
    let server = Server::up(medgemma(&SERVE, &[]));
    let mut num_asked = 0;
    while num_dropped(&server) == 0.0 {
        for _ in 0..50 {
            assert_eq!(missing(&server), 404);
        }
        num_asked += 50;
        assert!(num_asked <= 20_000, "the log takes everything");
    }
    for _ in 0..20 {
        every_kind_is_answered(&server);
    }
    ends_well(server);
}

#[test]
fn a_log_on_a_full_disk_stops_no_answer() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    // It is full from the start, and what the start says is lost too.
    let server = Server::up_with(medgemma(&SERVE, &[]), full().into());
    let at_start = num_dropped(&server);
    assert!(at_start > 0.0);
    every_kind_is_answered(&server);
    assert!(num_dropped(&server) > at_start);
    ends_well(server);
    // A failure has its code where nobody can be told why.
    let arguments = ["serve", "--port", "0", "no-such-model"];
    let mut failing = medgemma(&arguments, &[]);
    let status = failing.stdout(Stdio::null()).stderr(full()).status();
    assert_eq!(status.unwrap().code(), Some(66));
}
