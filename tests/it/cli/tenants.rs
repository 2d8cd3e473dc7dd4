//! Several keys at one server, over the wire: what one may do to the others. Judged by what has
//! ended and what has not, never by time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::Server;

const EVIL: &str = "evil-key-of-a-department";
const GOOD: &str = "good-key-of-a-department";
/// Opens the metrics, which are closed to those of clients where there are several.
const METRICS: &str = "key-of-who-watches-all";

/// More tokens than are sampled while a test runs.
const ENDLESS: usize = 8_000;

fn shared(options: &[&str]) -> Server {
    let keys = [
        "--api-key",
        EVIL,
        "--api-key",
        GOOD,
        "--metrics-key",
        METRICS,
    ];
    Server::start(&[&["demo"], &keys[..], options].concat(), &[])
}

fn completion(max_tokens: usize, more: Value) -> Value {
    let mut body = json!({
        "model": "demo", "prompt": "a", "max_tokens": max_tokens, "ignore_eos": true,
        "temperature": 0,
    });
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    body
}

/// Sends a request; its answer is to be read.
fn send(server: &Server, key: &str, body: &Value) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(&server.address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a timeout can be set");
    let body = body.to_string();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {key}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it reads");
    BufReader::new(stream)
}

/// An answer as it stands on the wire.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn num_tokens(&self) -> u64 {
        let tokens = &self.body["usage"]["completion_tokens"];
        tokens.as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }
}

fn ask(server: &Server, key: &str, body: &Value) -> Answer {
    let mut text = String::new();
    send(server, key, body)
        .read_to_string(&mut text)
        .expect("an answer comes");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    Answer {
        status: head
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("digits"),
        head: head.to_owned(),
        body: serde_json::from_str(body).expect("JSON"),
    }
}

/// Waits until a stream has begun.
fn first_event(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        let read = stream.read_line(&mut line).expect("it goes on");
        assert!(read > 0, "the stream ended early");
    }
}

/// All that the metrics say under names that begin so.
fn sum_of_metrics(server: &Server, names: &[&str]) -> f64 {
    let mut stream = TcpStream::connect(&server.address).expect("it listens");
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {METRICS}\r\n\
         Connection: close\r\n\r\n"
    )
    .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer comes");
    let lines = text
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// While `evil` has all places and more of its answers wait, `good` gets its own: it came last, and
/// is not served after all of them.
fn good_is_served(server: &Server) {
    for _ in 0..10 {
        let answer = ask(server, GOOD, &completion(20, json!({})));
        assert_eq!((answer.status, answer.num_tokens()), (200, 20));
        let num_waiting = sum_of_metrics(server, &["vllm:num_requests_waiting{"]);
        assert!(num_waiting > 0.0, "it was served when no other waited");
    }
}

#[test]
fn endless_streams_of_one_key_leave_the_other_its_share() {
    let server = shared(&["--max-num-seqs", "4"]);
    let endless = completion(ENDLESS, json!({"stream": true}));
    let mut streams: Vec<_> = (0..40).map(|_| send(&server, EVIL, &endless)).collect();
    streams[..2].iter_mut().for_each(first_event);
    good_is_served(&server);
}

#[test]
fn one_request_for_many_answers_is_many_requests() {
    let server = shared(&["--max-num-seqs", "4"]);
    let many = completion(ENDLESS, json!({"stream": true, "n": 128, "temperature": 1}));
    let mut stream = send(&server, EVIL, &many);
    first_event(&mut stream);
    good_is_served(&server);
}

#[test]
fn one_key_cannot_have_all_of_the_queue() {
    let server = shared(&["--max-num-seqs", "4", "--max-queued-requests", "96"]);
    let many = completion(ENDLESS, json!({"stream": true, "n": 25, "temperature": 1}));
    // Of a hundred places it gets those that it leaves free.
    let _held: Vec<_> = (0..2).map(|_| send(&server, EVIL, &many)).collect();
    // All are in, whoever of them has a slot.
    while sum_of_metrics(
        &server,
        &["vllm:num_requests_running{", "vllm:num_requests_waiting{"],
    ) < 50.0
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    for n in [1, 25, 50] {
        let answer = ask(
            &server,
            EVIL,
            &completion(5, json!({"n": n, "temperature": 1})),
        );
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.body["error"]["code"], "rate_limit_exceeded");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    // What it could never have it is told at once.
    let answer = ask(
        &server,
        EVIL,
        &completion(5, json!({"n": 51, "temperature": 1})),
    );
    assert_eq!(answer.status, 400, "{answer:?}");
    let answer = ask(
        &server,
        GOOD,
        &completion(5, json!({"n": 20, "temperature": 1})),
    );
    assert_eq!((answer.status, answer.num_tokens()), (200, 100));
}

#[test]
fn a_key_has_so_many_requests_at_a_time() {
    let server = shared(&["--max-requests-per-key", "3", "--max-waiting-per-key", "2"]);
    let endless = completion(ENDLESS, json!({"stream": true, "n": 2, "temperature": 1}));
    let mut held = send(&server, EVIL, &endless);
    first_event(&mut held);
    let answer = ask(
        &server,
        EVIL,
        &completion(5, json!({"n": 2, "temperature": 1})),
    );
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.body["error"]["code"], "rate_limit_exceeded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    for (name, value) in [("limit", "3"), ("remaining", "1"), ("reset", "0s")] {
        let header = format!("x-ratelimit-{name}-requests");
        assert_eq!(answer.header(&header), Some(value), "{answer:?}");
    }
    let answer = ask(&server, EVIL, &completion(5, json!({})));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), None);
    // Three at once may never wait.
    let answer = ask(
        &server,
        GOOD,
        &completion(5, json!({"n": 3, "temperature": 1})),
    );
    assert_eq!(answer.status, 400, "{answer:?}");
    // With the last event of an answer its place is free.
    for _ in 0..20 {
        let two = completion(2, json!({"n": 2, "temperature": 1, "stream": true}));
        let mut text = String::new();
        let mut stream = send(&server, GOOD, &two);
        stream.read_to_string(&mut text).expect("it ends");
        assert!(text.contains("[DONE]"), "{text}");
    }
    drop(held);
}

#[test]
fn a_key_has_so_many_tokens_a_minute() {
    let server = shared(&["--max-tokens-per-minute-per-key", "200"]);
    let answer = ask(&server, EVIL, &completion(150, json!({})));
    assert_eq!((answer.status, answer.num_tokens()), (200, 150));
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("200"));
    let answer = ask(&server, EVIL, &completion(150, json!({})));
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.body["error"]["code"], "rate_limit_exceeded");
    let after = answer.header("retry-after").expect("when to come again");
    assert!((1..=60).contains(&after.parse::<u64>().expect("seconds")));
    assert!(answer.header("x-ratelimit-reset-tokens").is_some());
    let answer = ask(&server, GOOD, &completion(150, json!({})));
    assert_eq!(answer.status, 200, "{answer:?}");
    // Nothing is told of limits that there are not.
    assert_eq!(answer.header("x-ratelimit-limit-requests"), None);
}

#[test]
fn going_before_others_needs_a_permission() {
    let server = shared(&["--priority-api-key", "the-emergency-room-s"]);
    for (key, priority, status) in [
        (EVIL, -1, 403),
        (EVIL, 0, 200),
        (EVIL, 5, 200),
        ("the-emergency-room-s", -1, 200),
        ("the-emergency-room-s", -1_000_000, 200),
    ] {
        let answer = ask(&server, key, &completion(2, json!({"priority": priority})));
        assert_eq!(answer.status, status, "{key} {priority}: {answer:?}");
        if status == 403 {
            let error = &answer.body["error"];
            assert_eq!(error["param"], "priority");
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains("--priority-api-key"), "{message}");
        }
    }
    let open = Server::start(&["demo"], &[]);
    let answer = ask(&open, "any", &completion(2, json!({"priority": -1})));
    assert_eq!(answer.status, 200);
}

#[test]
fn no_key_sees_anothers_images() {
    let server = shared(&["--no-prefix-caching"]);
    let film = super::repository("tests/golden/films/0003.png");
    let film = std::fs::read(film).expect("it is in the repository");
    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&film));
    let body = json!({
        "model": "demo", "max_tokens": 1, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "What is it?"},
        ]}],
    })
    .to_string();
    let show = |key: &str| {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {key}"
        );
        let (status, answer) = server.request(&head, &body);
        assert_eq!(status, 200, "{answer}");
    };
    let cache = || {
        let head = format!("GET /metrics HTTP/1.1\r\nAuthorization: Bearer {METRICS}");
        let (_, text) = server.request(&head, "");
        ["hits", "misses"].map(|kind| {
            let name = format!("medgemma:encoder_cache_{kind}_total");
            let line = text.lines().find(|line| line.starts_with(&name));
            let value = line.and_then(|line| line.rsplit(' ').next());
            value
                .and_then(|value| value.parse::<f64>().ok())
                .expect(&name)
        })
    };
    for (key, expected) in [
        (EVIL, [0.0, 1.0]),
        // It could tell by the count, or by the time, that the film was shown before.
        (GOOD, [0.0, 2.0]),
        (EVIL, [1.0, 2.0]),
        (GOOD, [2.0, 2.0]),
    ] {
        show(key);
        // Answers come before the numbers of their last step.
        let told = (0..1_000).find_map(|_| {
            let told = cache();
            std::thread::sleep(Duration::from_millis(2));
            (told[0] + told[1] == expected[0] + expected[1]).then_some(told)
        });
        assert_eq!(told, Some(expected), "{key}");
    }
}
