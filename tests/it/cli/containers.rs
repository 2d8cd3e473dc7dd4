//! The program as containers, panels and vLLM's users start it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use medgemma::backend::BLOCK_SIZE;
use serde_json::{Value, json};

use super::{Server, medgemma, output, stderr};

/// The log of a server that was started so, and has ended.
fn log_of(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let server = Server::start(arguments, variables);
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    log
}

#[test]
fn flags_without_a_command_serve() {
    let command = medgemma(
        &["--model", "demo", "--port=0", "--max_model_len", "600"],
        &[],
    );
    let server = Server::up(command);
    assert_eq!(server.served_names(), ["demo"]);
    let (_, models) = server.get("/v1/models");
    assert!(models.contains("\"max_model_len\":600"), "{models}");
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["--nosuch"], 2),
    ] {
        let output = output(arguments, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    }
}

#[test]
fn flags_that_need_nothing_are_told_in_the_log() {
    let log = log_of(
        &[
            "demo",
            "--trust-remote-code",
            "--tensor-parallel-size",
            "1",
            "--swap-space=4",
            "--block-size",
            "16",
        ],
        &[("MEDGEMMA_DISABLE_LOG_REQUESTS", "true")],
    );
    for told in [
        "--trust-remote-code is",
        "--swap-space 4 is",
        &format!("--block-size 16 is not needed: blocks of the KV cache have {BLOCK_SIZE} tokens"),
        "--disable-log-requests is",
    ] {
        assert!(log.contains(told), "{log}");
    }
    assert!(!log.contains("--tensor-parallel-size"), "{log}");
}

#[test]
fn the_tokenizer_is_told_where_the_flag_says_so() {
    let server = Server::start(&["demo", "--enable-tokenizer-info-endpoint"], &[]);
    let (status, info) = server.get("/tokenizer_info");
    assert_eq!(status, 200, "{info}");
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["tokenizer_class"], "GemmaTokenizerFast");
    assert_eq!(info["bos_token"], "<bos>");
    assert_eq!(info["eos_token"], "<end_of_turn>");
    assert_eq!(info["model_max_length"], 8192);
    let template = info["chat_template"].as_str().unwrap();
    assert!(template.contains("start_of_turn"), "{template}");
    let off = [("MEDGEMMA_ENABLE_TOKENIZER_INFO_ENDPOINT", "true")];
    let server = Server::start(&["demo", "--disable-tokenizer-info-endpoint"], &off);
    assert_eq!(server.get("/tokenizer_info").0, 404);
}

#[test]
fn variables_that_set_nothing_are_told_in_the_log() {
    let variables = [
        ("MEDGEMMA_MAX_MODELLEN", "600"),
        ("MEDGEMMA_PORT", "tcp://10.0.0.1:8000"),
        ("MEDGEMMA_SERVICE_HOST", "10.0.0.1"),
    ];
    let log = log_of(&["demo"], &variables);
    assert!(
        log.contains("MEDGEMMA_MAX_MODELLEN is not a known option"),
        "{log}"
    );
    assert!(log.contains("Kubernetes"), "{log}");
    assert!(!log.contains("MEDGEMMA_SERVICE_HOST"), "{log}");
}

#[test]
fn keys_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    fs::write(&file, "sesame\nmellon\n").unwrap();
    let path = file.to_str().unwrap();
    for (arguments, variables) in [
        (
            &["demo", "--api-key-file", path, "--api-key", "third"][..],
            &[][..],
        ),
        (
            &["demo", "--api-key", "third"],
            &[("MEDGEMMA_API_KEY_FILE", path)],
        ),
    ] {
        let server = Server::start(arguments, variables);
        for (key, status) in [
            ("sesame", 200),
            ("mellon", 200),
            ("third", 200),
            ("other", 401),
        ] {
            let head = format!("GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {key}");
            assert_eq!(server.request(&head, "").0, status, "{key}");
        }
        server.signal("-TERM");
        let (_, log) = server.end();
        assert!(!log.contains("sesame"), "{log}");
    }
    // A file that was left empty must not open the server.
    fs::write(&file, "\n").unwrap();
    let refused = output(&["serve", "demo", "--api-key-file", path], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("holds no key"));
}

#[test]
fn a_health_check_finds_the_server_and_tells_whether_it_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    let path = file.to_str().unwrap();
    let server = Server::start(&["demo", "--host", "0.0.0.0", "--url-file", path], &[]);
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let url = format!("http://127.0.0.1:{port}");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{url}\n"));
    let asked = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = output(&[&["ready"], arguments].concat(), variables);
        (output.status.code(), stderr(&output))
    };
    let ways = [
        (&["--url", &url][..], &[][..]),
        (&["--url-file", path], &[]),
        (&[], &[("MEDGEMMA_URL_FILE", path)]),
        (&[], &[("MEDGEMMA_PORT", port.as_str())]),
        (&["--port", &port, "--url-file", "no/such/file"], &[]),
    ];
    for (arguments, variables) in &ways {
        let (code, said) = asked(arguments, variables);
        assert_eq!(code, Some(0), "{arguments:?} {variables:?}: {said}");
    }
    server.signal("-TERM");
    server.end();
    for (arguments, variables) in &ways {
        let (code, said) = asked(arguments, variables);
        assert_eq!(code, Some(1), "{arguments:?} {variables:?}");
        assert!(
            said.contains(&format!("{url}/ready does not answer")),
            "{said}"
        );
    }
}

#[test]
fn a_server_that_drains_is_not_ready() {
    let (server, _stream) = super::start_streaming(8000, "--shutdown-timeout=600");
    let url = format!("http://{}", server.address);
    server.signal("-TERM");
    while server.get("/ready").0 == 200 {
        std::thread::yield_now();
    }
    let asked = output(&["ready", "--url", &url], &[]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(stderr(&asked).contains("answers 503"), "{}", stderr(&asked));
}

#[test]
fn a_url_file_that_cannot_be_written_stops_nobody() {
    let log = log_of(&["demo", "--url-file", "no/such/folder/url"], &[]);
    assert!(log.contains("--url-file cannot be written"), "{log}");
}

/// What two requests without a seed are answered by a fresh server.
fn answers(option: &str) -> [String; 2] {
    let server = Server::start(&["demo", option], &[]);
    let body = json!({"prompt": "a", "max_tokens": 24, "temperature": 1, "ignore_eos": true});
    [(); 2].map(|()| {
        let (status, answer) = server.complete(&body.to_string());
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    })
}

#[test]
fn a_seed_makes_a_server_repeat_itself() {
    let [first, second] = answers("--seed=7");
    assert_ne!(first, second);
    assert_eq!(answers("--seed=7"), [first.clone(), second]);
    assert_ne!(answers("--seed=8")[0], first);
}

#[test]
fn sampling_settings_come_from_the_checkpoint_or_from_nowhere() {
    // The demo's own are greedy, or nearly so where it has none; vLLM's neutral ones sample.
    let dir = super::copy_of(&[super::NOISE]);
    fs::write(dir.path().join("generation_config.json"), "{}").unwrap();
    let asked = |option: &str| {
        let path = dir.path().to_str().unwrap();
        let server = Server::start(&[path, option], &[]);
        [1, 2, 3].map(|seed| {
            let body = json!({
                "prompt": "a", "max_tokens": 24, "seed": seed, "ignore_eos": true,
            });
            let (status, answer) = server.complete(&body.to_string());
            assert_eq!(status, 200, "{answer}");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            answer["choices"][0]["text"].to_string()
        })
    };
    let [a, b, c] = asked("--generation-config=auto");
    assert!(a == b && b == c, "greedy");
    let [a, b, c] = asked("--generation-config=vllm");
    assert!(a != b || b != c, "sampled");
}

#[test]
fn where_there_is_no_terminal_one_line_is_all() {
    let mut child = medgemma(&["serve", "demo", "--port", "0"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    stdout.read_line(&mut said).unwrap();
    assert!(said.starts_with("listening on http://"), "{said}");
    let server = Server {
        child,
        address: String::new(),
    };
    server.signal("-TERM");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
