//! `run-batch`: a file in, a file out, whatever happens on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::IntoResponse;
use axum::routing::post;
use medgemma::batch::{BatchError, BatchPlan, BatchRun, BatchSummary};
use medgemma::config::Place;
use medgemma::log::Log;
use serde_json::{Value, json};

use super::medgemma;

/// Lines of a batch file; each asks for a few tokens.
fn requests(number: usize) -> Vec<Value> {
    let body = |at: usize| match at % 3 {
        0 => (
            "/v1/chat/completions",
            json!({
                "messages": [{"role": "user", "content": format!("Question {at}?")}],
                "max_completion_tokens": 3 + at % 5, "temperature": 0,
            }),
        ),
        1 => (
            "/v1/completions",
            json!({"prompt": format!("Part {at}"), "max_tokens": 4, "temperature": 0}),
        ),
        _ => (
            "/v1/responses",
            json!({"input": format!("Item {at}"), "max_output_tokens": 5, "temperature": 0}),
        ),
    };
    let line = |at: usize| {
        let (url, body) = body(at);
        json!({"custom_id": format!("id-{at}"), "method": "POST", "url": url, "body": body})
    };
    (0..number).map(line).collect()
}

fn write_lines(path: &Path, lines: &[Value]) {
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn read_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a line is cut off");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a result says that does not differ from run to run.
fn said(line: &Value) -> (String, String) {
    let id = line["custom_id"].as_str().unwrap().to_owned();
    let body = &line["response"]["body"];
    let text = [
        &body["choices"][0]["message"]["content"],
        &body["choices"][0]["text"],
        &body["output"][0]["content"][0]["text"],
    ];
    let text = text.into_iter().find(|text| text.is_string());
    (id, text.unwrap_or_else(|| panic!("{line}")).to_string())
}

fn batch_command(input: &Path, output: &Path) -> Command {
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    medgemma(&["run-batch", "-i", input, "-o", output, "demo"], &[])
}

fn run_batch(input: &Path, output: &Path) -> Output {
    batch_command(input, output).output().unwrap()
}

fn log(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_line_has_a_result_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2});
    let line = |id: &str, url: &str, body: Value| {
        json!({"custom_id": id, "method": "POST", "url": url, "body": body}).to_string()
    };
    let mut streamed = chat.clone();
    streamed["stream"] = json!(true);
    let lines = [
        line("chat", "/v1/chat/completions", chat.clone()),
        line(
            "completion",
            "/v1/completions",
            json!({"prompt": "Hi", "max_tokens": 2}),
        ),
        line(
            "response",
            "/v1/responses",
            json!({"input": "Hi", "max_output_tokens": 2}),
        ),
        line("message", "/v1/messages", chat.clone()),
        String::new(),
        "{\"custom_id\": \"cut off".to_owned(),
        line("embedding", "/v1/embeddings", json!({"input": "Hi"})),
        line("stream", "/v1/chat/completions", streamed),
        line("wrong", "/v1/chat/completions", json!({"messages": []})),
        json!({"custom_id": "get", "method": "GET", "url": "/v1/completions", "body": {}})
            .to_string(),
        json!({"method": "POST", "url": "/v1/completions", "body": {}}).to_string(),
        json!({"custom_id": "bodiless", "method": "POST", "url": "/v1/completions"}).to_string(),
    ];
    fs::write(&input, lines.join("\n")).unwrap();
    let run = run_batch(&input, &output);
    assert_eq!(run.status.code(), Some(3), "{}", log(&run));
    assert!(
        log(&run).contains("11 lines: 4 answered, 7 failed, 0 already done"),
        "{}",
        log(&run)
    );

    let results = read_lines(&output);
    let fields = ["id", "custom_id", "response", "error"];
    let mut outcomes = BTreeMap::new();
    for result in &results {
        assert_eq!(
            result.as_object().unwrap().keys().collect::<Vec<_>>(),
            fields
        );
        assert!(result["id"].as_str().unwrap().starts_with("batch_req_"));
        let key = match result["custom_id"].as_str() {
            Some(id) => id.to_owned(),
            None => format!("line {}", result["error"]["line"]),
        };
        let outcome = match &result["error"] {
            Value::Null => {
                let response = &result["response"];
                assert!(response["request_id"].as_str().unwrap().starts_with("req-"));
                response["status_code"].to_string()
            }
            error => {
                assert_eq!(result["response"], Value::Null);
                error["code"].as_str().unwrap().to_owned()
            }
        };
        assert!(outcomes.insert(key, outcome).is_none());
    }
    let expected = [
        ("bodiless", "invalid_line"),
        ("chat", "200"),
        ("completion", "200"),
        ("embedding", "invalid_url"),
        ("get", "invalid_method"),
        ("line 11", "invalid_line"),
        ("line 6", "invalid_line"),
        ("message", "200"),
        ("response", "200"),
        ("stream", "stream_not_supported"),
        ("wrong", "400"),
    ];
    let expected = expected.map(|(key, outcome)| (key.to_owned(), outcome.to_owned()));
    assert_eq!(outcomes, BTreeMap::from(expected));
    let wrong = results
        .iter()
        .find(|line| line["custom_id"] == "wrong")
        .unwrap();
    assert_eq!(wrong["response"]["body"]["error"]["param"], "messages");

    // Once more: everything is there, and the model does not even load.
    let before = fs::read(&output).unwrap();
    let run = run_batch(&input, &output);
    assert_eq!(run.status.code(), Some(0), "{}", log(&run));
    assert!(log(&run).contains("11 already done"), "{}", log(&run));
    assert_eq!(fs::read(&output).unwrap(), before);
}

/// No line lost, none twice, each the same as if nothing had happened.
#[test]
fn killed_at_any_moment_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
    let lines = requests(90);
    write_lines(&input, &lines);
    let undisturbed = dir.path().join("undisturbed.jsonl");
    let run = run_batch(&input, &undisturbed);
    assert_eq!(run.status.code(), Some(0), "{}", log(&run));
    let expected: BTreeMap<_, _> = read_lines(&undisturbed).iter().map(said).collect();
    assert_eq!(expected.len(), 90);

    // The system kills a process that writes beyond its limit: at this very byte, in the middle of
    // a line or not.
    let size = || fs::metadata(&output).map_or(0, |file| file.len());
    for round in 0..6 {
        let num_blocks = size() / 512 + 3 + 3 * round;
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -f $0 && exec \"$@\"", &num_blocks.to_string()]);
        let batch = batch_command(&input, &output);
        limited.arg(batch.get_program()).args(batch.get_args());
        let run = limited.env_clear().output().unwrap();
        assert_eq!(run.status.code(), None, "it was not killed: {}", log(&run));
    }
    // And from outside, whenever that is.
    for more in [1, 700, 5000] {
        let mut child = batch_command(&input, &output)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let enough = size() + more;
        while size() < enough && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().unwrap();
    }
    let run = run_batch(&input, &output);
    assert_eq!(run.status.code(), Some(0), "{}", log(&run));
    let results = read_lines(&output);
    assert_eq!(results.len(), 90, "none lost, none twice");
    let found: BTreeMap<_, _> = results.iter().map(said).collect();
    assert_eq!(found, expected);
}

#[test]
fn files_that_make_no_sense_are_refused_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let twice = file(
        "twice.jsonl",
        "{\"custom_id\": \"a\"}\n\n{\"custom_id\": \"b\"}\n{\"custom_id\": \"a\"}\n",
    );
    let once = file("once.jsonl", "{\"custom_id\": \"a\"}\n");
    let foreign = file("foreign.jsonl", "{\"custom_id\": \"a\"}\nhello\n");
    let other = file("other.jsonl", "{\"custom_id\": \"z\"}\n");
    let output = dir.path().join("out.jsonl");
    for (input, output, message) in [
        (&twice, &output, "duplicate custom_id 'a' on lines 1 and 4"),
        (&once, &once, "input and output at once"),
        (&once, &foreign, "line 2 is not a batch result"),
        (
            &once,
            &other,
            "contains 1 results of requests that are not in the input",
        ),
        (&dir.path().join("none.jsonl"), &output, "none.jsonl"),
        (&once, &dir.path().join("no/such/folder"), "no/such/folder"),
    ] {
        let run = run_batch(input, output);
        assert_eq!(run.status.code(), Some(1), "{}", log(&run));
        assert!(log(&run).contains(message), "{}", log(&run));
        assert_eq!(log(&run).lines().count(), 1, "{}", log(&run));
    }
    assert!(!output.exists() || fs::read(&output).unwrap().is_empty());
    let arguments = ["run-batch", "-i", "a", "-o", "b", "--port", "80"];
    let run = medgemma(&arguments, &[]).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(log(&run).contains("--port is for servers"), "{}", log(&run));
}

#[test]
fn pipes_do_as_well() {
    let mut child = medgemma(&["run-batch", "-i", "-", "-o", "-", "demo"], &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<_> = requests(5).iter().map(Value::to_string).collect();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.join("\n").as_bytes()).unwrap();
    drop(stdin);
    let run = child.wait_with_output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", log(&run));
    assert!(
        log(&run).contains("starts from the beginning"),
        "{}",
        log(&run)
    );
    let results = String::from_utf8(run.stdout).unwrap();
    let ids: BTreeSet<_> = (results.lines())
        .map(|line| said(&serde_json::from_str(line).unwrap()).0)
        .collect();
    assert_eq!(ids.len(), 5);
}

/// A server of the test's, asked for `number` lines, so many at a time.
async fn asked(
    router: Router,
    number: usize,
    num_at_a_time: usize,
) -> (Result<BatchSummary, BatchError>, Vec<Value>) {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
    write_lines(&input, &requests(number));
    let batch = BatchRun::open(&BatchPlan {
        input: Place::File(input),
        output: Place::File(output.clone()),
        num_at_a_time: num_at_a_time.try_into().unwrap(),
    });
    let log = Log::to(std::io::sink()).unwrap();
    let summary = batch.unwrap().run(router, &log).await;
    (summary, read_lines(&output))
}

fn routes(answer: impl Fn() -> axum::response::Response + Clone + Send + Sync + 'static) -> Router {
    let handler = move || {
        let answer = answer.clone();
        async move { answer() }
    };
    Router::new()
        .route("/v1/chat/completions", post(handler.clone()))
        .route("/v1/completions", post(handler.clone()))
        .route("/v1/responses", post(handler))
}

fn json_answer(status: u16) -> axum::response::Response {
    let body = r#"{"usage": {"completion_tokens": 2}}"#;
    let json = [(CONTENT_TYPE, "application/json")];
    let mut response = (json, body).into_response();
    *response.status_mut() = status.try_into().unwrap();
    response
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_asked_again() {
    let num_asked = Arc::new(AtomicUsize::new(0));
    let answer = {
        let num_asked = Arc::clone(&num_asked);
        move || {
            // Two of three are turned away.
            if num_asked.fetch_add(1, Ordering::SeqCst) % 3 < 2 {
                let mut response = json_answer(429);
                response.headers_mut().insert(RETRY_AFTER, 3600.into());
                return response;
            }
            json_answer(200)
        }
    };
    let (summary, lines) = asked(routes(answer), 10, 4).await;
    let summary = summary.unwrap();
    assert_eq!((summary.num_answered, summary.num_failed), (10, 0));
    assert_eq!(summary.output_tokens, 20);
    assert_eq!(lines.len(), 10);
    assert!(num_asked.load(Ordering::SeqCst) >= 30);
}

#[tokio::test]
async fn a_server_that_stops_ends_the_batch_and_what_is_there_stays() {
    let num_asked = Arc::new(AtomicUsize::new(0));
    let answer = move || match num_asked.fetch_add(1, Ordering::SeqCst) {
        0..6 => json_answer(200),
        _ => json_answer(503),
    };
    let (summary, lines) = asked(routes(answer), 10, 1).await;
    assert!(
        matches!(summary, Err(BatchError::ServerStopped { .. })),
        "{summary:?}"
    );
    assert_eq!(lines.len(), 6);
}

#[tokio::test]
async fn so_many_run_at_a_time_and_no_more() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, most_seen) = (Arc::new(tokio::sync::Barrier::new(4)), Arc::clone(&most));
    let handler = move || {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let gate = Arc::clone(&gate);
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Opens for four together: fewer at a time would wait for ever.
            gate.wait().await;
            running.fetch_sub(1, Ordering::SeqCst);
            json_answer(200)
        }
    };
    let router = Router::new()
        .route("/v1/chat/completions", post(handler.clone()))
        .route("/v1/completions", post(handler.clone()))
        .route("/v1/responses", post(handler));
    let (summary, lines) = asked(router, 12, 4).await;
    assert_eq!(summary.unwrap().num_answered, 12);
    assert_eq!(lines.len(), 12);
    assert_eq!(most_seen.load(Ordering::SeqCst), 4);
}
