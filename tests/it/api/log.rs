//! What is logged of a request: how much and how long, never what.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use tower::ServiceExt;

use super::server::{End, Plan, QUEUED, always, says, tokens};

thread_local! {
    /// What this thread has logged. A test runs on a thread of its own.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes to the thread's own log.
struct ThreadLog;

impl io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the current thread logs, as JSON.
struct Lines;

impl Lines {
    /// Collects from now on. The subscriber is the process's: one for each thread would race with
    /// other tests, since what tracing knows of a log line's place is shared by all threads.
    fn collect() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .json()
                .with_max_level(tracing::Level::TRACE)
                .with_writer(|| ThreadLog)
                .finish();
            tracing::subscriber::set_global_default(subscriber)
                .expect("no other test sets a subscriber");
        });
        LOGGED.take();
        Self
    }

    fn text(&self) -> String {
        let bytes = LOGGED.with_borrow(Vec::clone);
        String::from_utf8(bytes).expect("logs are UTF-8")
    }

    fn with_message(&self, message: &str) -> Vec<serde_json::Value> {
        let text = self.text();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        lines
            .filter(|line: &serde_json::Value| line["fields"]["message"] == message)
            .collect()
    }
}

const SECRET: &str = "pneumothorax";

fn secret_chat(extra: serde_json::Value) -> serde_json::Value {
    let mut body = json!({"messages": [{"role": "user", "content": SECRET}]});
    for (name, value) in extra.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_request_leaves_one_line_with_its_numbers() {
    let lines = Lines::collect();
    let plan = Plan {
        script: says(SECRET),
        cached: |_| 4,
        ..Plan::for_test()
    };
    let server = plan.start();
    let answer = server.chat(secret_chat(json!({"stop": "x,"}))).await.ok();
    server
        .chat(secret_chat(json!({"stream": true})))
        .await
        .chunks();
    let finished = lines.with_message("request finished");
    assert_eq!(finished.len(), 2, "{}", lines.text());
    for line in finished {
        let fields = &line["fields"];
        assert_eq!(fields["prompt_tokens"], answer["usage"]["prompt_tokens"]);
        assert_eq!(fields["cached_tokens"], 4);
        assert_eq!(fields["queue_ms"], QUEUED.as_millis() as u64);
        assert_eq!(
            fields["output_tokens"],
            answer["usage"]["completion_tokens"]
        );
        assert_eq!(fields["finish"], "stop");
        for time in ["prepare_ms", "first_token_ms", "total_ms"] {
            assert!(fields[time].is_u64(), "{time}: {fields}");
        }
        assert_eq!(line["span"]["name"], "request");
        assert_eq!(line["span"]["model"], "tiny");
        assert!(line["span"]["request_id"].is_string());
    }
    assert!(!lines.text().contains(SECRET));
}

#[tokio::test]
async fn failures_and_departures_are_told_apart() {
    let lines = Lines::collect();
    let failing = Plan {
        script: always(tokens(SECRET), End::Fail),
        ..Plan::for_test()
    };
    let server = failing.start();
    server
        .chat(secret_chat(json!({"stream": true})))
        .await
        .events();
    assert_eq!(server.chat(secret_chat(json!({}))).await.status, 500);
    let late = Plan {
        script: always(tokens(SECRET), End::Late),
        ..Plan::for_test()
    };
    let reply = late.start().chat(secret_chat(json!({}))).await;
    let code = Some("deadline_exceeded".to_owned());
    assert_eq!(reply.error(), (504, code, None));
    let hanging = Plan {
        script: always(tokens(SECRET), End::Hang),
        ..Plan::for_test()
    };
    let server = hanging.start();
    let body = secret_chat(json!({"stream": true})).to_string();
    let request = Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .expect("a plain request");
    let response = server.router.clone().oneshot(request).await;
    // The client leaves before the first token.
    drop(response);
    // Once each, although the second was also answered with a 500.
    let failed = lines.with_message("request failed");
    assert_eq!(failed.len(), 3, "{}", lines.text());
    // Whose fault it is decides how loudly it is said.
    let levels: Vec<_> = failed.iter().map(|line| &line["level"]).collect();
    assert_eq!(levels, ["ERROR", "ERROR", "INFO"]);
    assert!(
        failed
            .iter()
            .all(|line| line["fields"]["finish"] == "error")
    );
    let codes: Vec<_> = failed.iter().map(|line| &line["fields"]["code"]).collect();
    assert_eq!(codes, ["step_failed", "step_failed", "deadline_exceeded"]);
    let finished = lines.with_message("request finished");
    assert_eq!(finished.len(), 1);
    assert_eq!(finished[0]["fields"]["finish"], "client left");
    assert!(!lines.text().contains(SECRET));
}

#[tokio::test]
async fn refusals_are_logged_without_what_they_quote() {
    let lines = Lines::collect();
    let server = Plan::for_test().start();
    for body in [
        secret_chat(json!({"temperature": SECRET})),
        secret_chat(json!({"model": SECRET})),
        json!({"messages": [{"role": SECRET, "content": SECRET}]}),
        json!({"messages": [{"role": "user", "content": [{"type": SECRET}]}]}),
        json!({"messages": [{"role": "tool", "tool_call_id": SECRET, "content": SECRET}]}),
    ] {
        let reply = server.post("/v1/chat/completions", body.to_string()).await;
        assert!(reply.status >= 400);
    }
    server
        .post("/v1/chat/completions", format!("{{\"{SECRET}\""))
        .await;
    server
        .post(
            "/v1/chat/completions",
            format!("{{\"{SECRET}\": {SECRET}}}"),
        )
        .await;
    server.get(&format!("/{SECRET}?{SECRET}={SECRET}")).await;
    let refused = lines.with_message("request refused");
    assert_eq!(refused.len(), 8, "{}", lines.text());
    assert_eq!(refused[0]["fields"]["param"], "temperature");
    assert_eq!(refused[0]["fields"]["status"], 400);
    assert!(!lines.text().contains(SECRET), "{}", lines.text());
}
