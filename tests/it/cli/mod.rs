//! The program as people call it: arguments, environment, exit codes, the line that says it is up,
//! and how it stops.

mod batch;
mod checkpoints;
mod connections;
mod containers;
mod grammars;
mod keys;
mod memory;
mod refusals;
mod silenced;
mod sites;
mod templates;
mod tenants;
mod wire;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// The program with `arguments`, and no variables but `variables`. Nothing is asked of the hub, and
/// nobody's cache is looked at.
fn medgemma(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medgemma"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("MEDGEMMA_") || text.starts_with("HF_") {
            command.env_remove(name);
        }
    }
    command.env("HF_HUB_OFFLINE", "1");
    command.env("HF_HUB_CACHE", NO_CACHE);
    command.envs(variables.iter().copied());
    command
}

/// A folder that is not there.
const NO_CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/no-cache");

fn output(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    medgemma(arguments, variables).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that is up; killed when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let line = [&["serve", "--port", "0"], arguments].concat();
        Self::up(medgemma(&line, variables))
    }

    fn up(command: Command) -> Self {
        Self::up_with(command, Stdio::piped())
    }

    fn up_with(mut command: Command, stderr: Stdio) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some(address) = line.trim_end().strip_prefix("listening on http://") else {
            let mut log = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut log)
                .unwrap();
            panic!("it said {line:?} and {log}");
        };
        Self {
            address: address.to_owned(),
            child,
        }
    }

    /// Status and body of one request.
    fn request(&self, head: &str, body: &str) -> (u16, String) {
        let port = self.address.rsplit(':').next().unwrap();
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let length = body.len();
        write!(
            stream,
            "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.request(&format!("GET {path} HTTP/1.1"), "")
    }

    fn complete(&self, body: &str) -> (u16, String) {
        let head = "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json";
        self.request(head, body)
    }

    fn served_names(&self) -> Vec<String> {
        let (status, body) = self.get("/v1/models");
        assert_eq!(status, 200, "{body}");
        let list: Value = serde_json::from_str(&body).unwrap();
        let models = list["data"].as_array().unwrap();
        models
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Exit code and log, once it has ended.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A directory with copies of all files of these folders.
fn copy_of(folders: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in folders {
        for entry in fs::read_dir(repository(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    dir
}

const NOISE: &str = "tests/golden/models/noise";

#[test]
fn it_says_where_it_listens_and_ends_on_request() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::start(&["demo"], &[]);
        assert!(server.address.starts_with("127.0.0.1:"));
        assert_eq!(server.get("/ready").0, 200);
        assert_eq!(server.served_names(), ["demo"]);
        server.signal(signal);
        let (code, log) = server.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("shutting down"), "{log}");
    }
}

/// Asks for a stream of `num_tokens` tokens.
fn ask(server: &Server, num_tokens: usize) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let body = serde_json::json!({
        "model": "demo", "prompt": "a", "max_tokens": num_tokens, "ignore_eos": true,
        "temperature": 0, "stream": true, "stream_options": {"include_usage": true},
    })
    .to_string();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    BufReader::new(stream)
}

/// A server with a stream of `num_tokens` tokens under way.
fn start_streaming(num_tokens: usize, option: &str) -> (Server, BufReader<TcpStream>) {
    let server = Server::start(&["demo", option], &[]);
    let mut stream = ask(&server, num_tokens);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(
            stream.read_line(&mut line).unwrap() > 0,
            "the stream ended early"
        );
    }
    (server, stream)
}

#[test]
fn what_runs_is_finished() {
    let (server, mut stream) = start_streaming(500, "--shutdown-timeout=600");
    server.signal("-TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"completion_tokens\":500"), "{rest}");
    assert!(rest.contains("data: [DONE]"));
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn what_is_not_finished_in_time_ends_with_an_error() {
    let (server, mut stream) = start_streaming(8000, "--shutdown-timeout=0");
    server.signal("-TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("--shutdown-timeout"), "{rest}");
    assert!(!rest.contains("\"completion_tokens\":8000"), "{rest}");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_stuck_step_ends_the_process_with_its_own_code() {
    // No step is this fast.
    let server = Server::start(&["demo", "--step-timeout=1e-9"], &[]);
    let mut answer = String::new();
    ask(&server, 8000).read_to_string(&mut answer).unwrap();
    assert!(answer.contains("engine_dead"), "{answer}");
    let (code, log) = server.end();
    assert_eq!(code, Some(70), "{log}");
    assert!(log.contains("--step-timeout"), "{log}");
}

/// The text in a stream's events.
fn streamed_text(events: &str) -> String {
    let events = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    events
        .filter_map(|event| {
            let event: Value = serde_json::from_str(event).ok()?;
            Some(event["choices"][0]["text"].as_str()?.to_owned())
        })
        .collect()
}

#[test]
fn a_process_that_was_paused_goes_on_where_it_was() {
    let (server, mut stream) = start_streaming(4000, "--step-timeout=3");
    server.signal("-STOP");
    // Longer than a step may take: nothing in here waits for less than that.
    std::thread::sleep(Duration::from_secs(4));
    server.signal("-CONT");
    let mut paused = String::new();
    stream.read_to_string(&mut paused).unwrap();
    assert!(paused.contains("\"completion_tokens\":4000"), "{paused}");
    let mut undisturbed = String::new();
    ask(&server, 4000).read_to_string(&mut undisturbed).unwrap();
    // The first event was read before the pause.
    let whole = streamed_text(&undisturbed);
    let rest = streamed_text(&paused);
    assert!(!rest.is_empty() && whole.ends_with(&rest), "{rest}");
    assert_eq!(server.get("/ready").0, 200);
}

#[test]
fn a_second_signal_stops_at_once() {
    let (server, _stream) = start_streaming(8000, "--shutdown-timeout=600");
    server.signal("-TERM");
    // Not ready: the first signal was seen.
    while server.get("/ready").0 == 200 {
        std::thread::yield_now();
    }
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(130), "{log}");
}

#[test]
fn nothing_named_means_the_demo() {
    let server = Server::start(&[], &[]);
    assert_eq!(server.served_names(), ["demo"]);
    server.signal("-TERM");
    let (_, log) = server.end();
    assert!(
        log.contains("no model given") && log.contains("has no medical use"),
        "{log}"
    );
}

#[test]
fn a_directory_is_served_under_its_name() {
    let dir = copy_of(&[NOISE]);
    let path = dir.path().to_str().unwrap();
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    for arguments in [&[path][..], &["--model", path], &[path, "--model", path]] {
        let server = Server::start(arguments, &[("MEDGEMMA_MODEL", "ignored-beside-a-flag")]);
        assert_eq!(server.served_names(), [name]);
    }
    let server = Server::start(&[], &[("MEDGEMMA_MODEL", path)]);
    assert_eq!(server.served_names(), [name]);
    let (status, answer) = server.complete(&format!(
        r#"{{"model": "{name}", "prompt": "a", "max_tokens": 2}}"#
    ));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn names_come_from_flags_and_variables() {
    let server = Server::start(
        &[
            "demo",
            "--served-model-name",
            "a",
            "--served-model-name",
            "b,c",
        ],
        &[],
    );
    assert_eq!(server.served_names(), ["a", "b", "c"]);
    let server = Server::start(&["demo"], &[("MEDGEMMA_SERVED_MODEL_NAME", "d, e")]);
    assert_eq!(server.served_names(), ["d", "e"]);
}

#[test]
fn empty_variables_count_as_none() {
    let names = [
        "HOST",
        "PORT",
        "API_KEY",
        "MODEL",
        "SERVED_MODEL_NAME",
        "MAX_MODEL_LEN",
        "KV_CACHE_MEMORY",
        "DTYPE",
        "DEVICE",
        "MODELS",
        "CHAT_TEMPLATE",
        "LOG_FORMAT",
        "LOAD_FORMAT",
        "ENABLE_PREFIX_CACHING",
        "NO_ENABLE_PREFIX_CACHING",
        "ENCODER_CACHE_MEMORY",
        "MAX_QUEUED_REQUESTS",
        "REQUEST_TIMEOUT",
        "SHUTDOWN_TIMEOUT",
        "STEP_TIMEOUT",
    ]
    .map(|name| format!("MEDGEMMA_{name}"));
    let variables: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let server = Server::start(&[], &variables);
    assert_eq!(server.served_names(), ["demo"]);
}

#[test]
fn limits_reach_the_model() {
    let server = Server::start(
        &["demo", "--max-model-len", "600"],
        &[("MEDGEMMA_MAX_MODEL_LEN", "700")],
    );
    let (_, models) = server.get("/v1/models");
    assert!(models.contains("\"max_model_len\":600"), "{models}");
    let server = Server::start(&["demo"], &[("MEDGEMMA_MAX_MODEL_LEN", "700")]);
    let (_, models) = server.get("/v1/models");
    assert!(models.contains("\"max_model_len\":700"), "{models}");
}

#[test]
fn a_key_from_either_place_opens_the_server() {
    for (arguments, variables) in [
        (&["demo", "--api-key", "sesame"][..], &[][..]),
        (&["demo"], &[("MEDGEMMA_API_KEY", "sesame")]),
    ] {
        let server = Server::start(arguments, variables);
        assert_eq!(server.get("/v1/models").0, 401);
        assert_eq!(server.get("/health").0, 200);
        let (status, _) = server.request(
            "GET /v1/models HTTP/1.1\r\nAuthorization: Bearer sesame",
            "",
        );
        assert_eq!(status, 200);
        server.signal("-TERM");
        let (_, log) = server.end();
        assert!(!log.contains("sesame"), "{log}");
    }
}

#[test]
fn requests_end_when_the_servers_time_for_them_is_up() {
    let server = Server::start(&["demo"], &[("MEDGEMMA_REQUEST_TIMEOUT", "0.05")]);
    let body = r#"{"prompt": "a", "max_tokens": 8000, "ignore_eos": true}"#;
    let (status, answer) = server.complete(body);
    assert_eq!(status, 504, "{answer}");
    assert!(answer.contains("deadline_exceeded"), "{answer}");
}

#[test]
fn prompts_are_found_again_unless_that_is_turned_off() {
    // Several blocks long.
    let body = format!(r#"{{"prompt": "{}", "max_tokens": 1}}"#, "ab ".repeat(300));
    let cached = |variables: &[(&str, &str)]| {
        let server = Server::start(&["demo"], variables);
        let asked = [server.complete(&body), server.complete(&body)];
        asked.map(|(status, answer)| {
            assert_eq!(status, 200, "{answer}");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let details = &answer["usage"]["prompt_tokens_details"];
            details["cached_tokens"].as_u64().unwrap()
        })
    };
    let [first, again] = cached(&[]);
    assert_eq!(first, 0);
    assert!(again > 0);
    for variable in [
        ("MEDGEMMA_ENABLE_PREFIX_CACHING", "false"),
        ("MEDGEMMA_NO_ENABLE_PREFIX_CACHING", "1"),
    ] {
        assert_eq!(cached(&[variable]), [0, 0], "{variable:?}");
    }
}

#[test]
fn an_open_server_for_the_whole_network_is_warned_of() {
    let log_of = |arguments: &[&str]| {
        let server = Server::start(arguments, &[]);
        server.signal("-TERM");
        server.end().1
    };
    assert!(log_of(&["demo", "--host", "0.0.0.0"]).contains("set --api-key"));
    assert!(!log_of(&["demo", "--host", "0.0.0.0", "--api-key", "k"]).contains("set --api-key"));
    assert!(!log_of(&["demo"]).contains("set --api-key"));
}

#[test]
fn the_log_can_be_json() {
    let server = Server::start(&["demo", "--log-format", "json"], &[]);
    server.signal("-TERM");
    let (_, log) = server.end();
    assert!(log.lines().count() >= 3, "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["timestamp"].is_string());
    }
}

#[test]
fn text_only_checkpoints_in_bf16_are_served() {
    let dir = copy_of(&["tests/golden/models/text27b", "tests/golden/tokenizer"]);
    let server = Server::start(
        &[dir.path().to_str().unwrap(), "--served-model-name", "t"],
        &[],
    );
    let (status, answer) = server.complete(r#"{"model": "t", "prompt": "a", "max_tokens": 3}"#);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn an_architecture_of_ones_own_runs_with_random_weights() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.toml");
    let catalog = r#"
        [models.small]
        hub = "me/small"
        text = "small"
        thinking = "never"
        sampling = "greedy"
        [sampling.greedy]
        [text.small]
        vocab_size = 3000
        hidden_size = 64
        intermediate_size = 128
        num_hidden_layers = 6
        num_attention_heads = 4
        num_key_value_heads = 2
        head_dim = 32
        sliding_window = 32
        max_position_embeddings = 4096
    "#;
    fs::write(&file, catalog).unwrap();
    let arguments = [
        "small",
        "--models",
        file.to_str().unwrap(),
        "--load-format",
        "dummy",
    ];
    let server = Server::start(&arguments, &[]);
    assert_eq!(server.served_names(), ["small"]);
    let body = r#"{"model": "small", "prompt": "ab", "max_tokens": 20, "ignore_eos": true}"#;
    let (status, answer) = server.complete(body);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("\"completion_tokens\":20"), "{answer}");
}

#[test]
fn help_shows_every_option_and_no_secret() {
    let output = output(&["serve", "--help"], &[("MEDGEMMA_API_KEY", "sesame")]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    for option in [
        "--host",
        "--port",
        "--api-key",
        "--api-key-file",
        "--priority-api-key",
        "--url-file",
        "--allowed-hosts",
        "--allowed-origins",
        "--allowed-methods",
        "--allowed-headers",
        "--allow-credentials",
        "--enable-tokenizer-info-endpoint",
        "--max-connections",
        "--max-connections-per-address",
        "--send-timeout",
        "--metrics-key",
        "--metrics-host",
        "--metrics-port",
        "--generation-config",
        "--seed",
        "--limit-mm-per-prompt",
        "--config",
        "--served-model-name",
        "--model",
        "--device",
        "--dtype",
        "--max-model-len",
        "--max-num-seqs",
        "--max-num-batched-tokens",
        "--kv-cache-memory",
        "--encoder-cache-memory",
        "--enable-prefix-caching",
        "--no-enable-prefix-caching",
        "--no-prefix-caching",
        "--max-queued-requests",
        "--max-requests-per-key",
        "--max-waiting-per-key",
        "--max-tokens-per-minute-per-key",
        "--max-request-memory",
        "--request-timeout",
        "--shutdown-timeout",
        "--step-timeout",
        "--gpu-memory-utilization",
        "--kernels",
        "--kernel-cache",
        "--chat-template",
        "--load-format",
        "--revision",
        "--download-dir",
        "--hf-token",
        "--hf-token-file",
        "--models",
        "--log-format",
        "--log-level",
        "Examples:",
        "Exit codes:",
        "MEDGEMMA_",
    ] {
        assert!(help.contains(option), "{option} is not in the help");
    }
    assert!(!help.contains("sesame"));
    assert!(help.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn the_named_models_are_listed() {
    let output = output(&["models"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let list = String::from_utf8(output.stdout).unwrap();
    // Where the cache is may be longer, in the last line.
    let lines: Vec<&str> = list.lines().collect();
    let (_, table) = lines.split_last().unwrap();
    assert!(table.iter().all(|line| line.len() <= 80), "{list}");
    // A title, 16 models, and what the columns mean.
    assert_eq!(list.lines().count(), 1 + 16 + 5, "{list}");
    let line = |name: &str| {
        let line = list
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        line("medgemma-4b-it"),
        "medgemma-4b-it 4.3 B 131072 yes never 10.9 GiB -"
    );
    assert_eq!(
        line("gemma-3-270m"),
        "gemma-3-270m 268 M 32768 no never 1.5 GiB -"
    );
}
