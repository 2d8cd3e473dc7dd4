//! Wrong keys, weak keys, and who reads the metrics.

use super::Server;
use super::wire::{get, metric_in};

fn with(key: &str) -> String {
    format!("Host: localhost\r\nAuthorization: Bearer {key}\r\n")
}

const RIGHT: &str = "a-right-key-of-this-test";

#[test]
fn wrong_keys_are_slowed_down_and_do_not_fill_the_log() {
    let server = Server::start(&["demo", "--api-key", RIGHT], &[]);
    let asked = |lines: &str| server.answer(&get("/v1/models", lines));
    for _ in 0..10 {
        assert_eq!(asked(&with("wrong")).error().1, "invalid_api_key");
    }
    for _ in 0..90 {
        let answer = asked(&with("wrong"));
        let (status, code, message) = answer.error();
        assert_eq!((status, code.as_str()), (429, "too_many_wrong_keys"));
        assert!(message.contains("correct key"), "{message}");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
    }
    assert_eq!(asked(&with(RIGHT)).status, 200);
    assert_eq!(asked("Host: localhost\r\n").error().1, "invalid_api_key");
    let metrics = server.answer(&get("/metrics", &with(RIGHT))).body;
    assert_eq!(metric_in(&metrics, "medgemma:auth_failures_total"), 101.0);
    server.signal("-TERM");
    let (_, log) = server.end();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("refused for"))
        .collect();
    assert!((1..=5).contains(&told.len()), "{log}");
    assert!(told.iter().all(|line| line.contains("127.0.0.1")), "{log}");
    assert!(!log.contains("wrong ") && !log.contains(RIGHT), "{log}");
}

#[test]
fn a_key_that_can_be_guessed_is_told_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, format!("{RIGHT}\nsesame\n")).unwrap();
    let server = Server::start(
        &["demo", "--api-key-file", file.to_str().unwrap()],
        &[("MEDGEMMA_API_KEY", "zqzq")],
    );
    server.signal("-TERM");
    let (_, log) = server.end();
    for told in [
        "line 2 is a key of 6 characters",
        "MEDGEMMA_API_KEY is a key of 4 characters",
    ] {
        assert_eq!(log.matches(told).count(), 1, "{log}");
    }
    assert_eq!(log.matches("can be guessed").count(), 2, "{log}");
    assert_eq!(log.matches("openssl rand -hex 32").count(), 2, "{log}");
    assert!(!log.contains("sesame") && !log.contains("zqzq"), "{log}");
}

const OTHER: &str = "another-key-of-this-test";
const FOR_METRICS: &str = "a-key-for-metrics-alone";

#[test]
fn with_several_keys_the_metrics_have_their_own() {
    let keys = ["demo", "--api-key", RIGHT, "--api-key", OTHER];
    let server = Server::start(&keys, &[]);
    let asked = |server: &Server, path: &str, key: &str| server.answer(&get(path, &with(key)));
    let (status, code, message) = asked(&server, "/metrics", RIGHT).error();
    assert_eq!((status, code.as_str()), (403, "metrics_key_required"));
    assert!(message.contains("--metrics-key") && message.contains("--metrics-port"));
    assert_eq!(asked(&server, "/metrics", "wrong").status, 401);
    assert_eq!(asked(&server, "/v1/models", RIGHT).status, 200);

    let variables = [("MEDGEMMA_METRICS_KEY", FOR_METRICS)];
    let server = Server::start(&keys, &variables);
    assert_eq!(asked(&server, "/metrics", FOR_METRICS).status, 200);
    assert_eq!(asked(&server, "/metrics", OTHER).status, 403);
    assert_eq!(asked(&server, "/v1/models", FOR_METRICS).status, 401);
    // One key for clients opens the metrics as before.
    let server = Server::start(&["demo", "--api-key", RIGHT], &variables);
    for key in [RIGHT, FOR_METRICS] {
        assert_eq!(asked(&server, "/metrics", key).status, 200);
    }
    assert_eq!(asked(&server, "/v1/models", FOR_METRICS).status, 401);
    // On a server that is open to all else.
    let server = Server::start(&["demo"], &variables);
    assert_eq!(server.get("/metrics").0, 401);
    assert_eq!(asked(&server, "/metrics", FOR_METRICS).status, 200);
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_port_of_their_own_serves_metrics_and_probes_alone() {
    let keys = ["demo", "--api-key", RIGHT, "--api-key", OTHER];
    for (more, status) in [(&[][..], 200), (&["--metrics-key", FOR_METRICS][..], 401)] {
        let port = free_port();
        let number = port.to_string();
        let arguments = [&keys, &["--metrics-port", &number][..], more].concat();
        let mut server = Server::start(&arguments, &[]);
        assert_eq!(server.answer(&get("/metrics", &with(RIGHT))).status, 403);
        server.address = format!("127.0.0.1:{port}");
        assert_eq!(server.get("/health").0, 200);
        assert_eq!(server.get("/ready").0, 200);
        assert_eq!(server.get("/metrics").0, status);
        let answer = server.answer(&get("/metrics", &with(FOR_METRICS)));
        assert!(
            answer.body.contains("vllm:num_requests_running"),
            "{answer:?}"
        );
        let lines = with(FOR_METRICS);
        for path in ["/v1/models", "/", "/openapi.json", "/v1/chat/completions"] {
            assert_eq!(server.answer(&get(path, &lines)).status, 404, "{path}");
        }
        let rebound = get("/metrics", "Host: evil.example\r\n");
        assert_eq!(server.answer(&rebound).status, 403);
    }
}
