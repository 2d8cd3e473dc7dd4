//! Loading, draining, dying; and the socket.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use medgemma::api::{ApiKeys, AppState, router, serve};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tower::ServiceExt;

use super::server::{End, Plan, always, chat_body, tokens};

async fn status(router: &Router, request: Request<Body>) -> u16 {
    let response = router.clone().oneshot(request).await.expect("an answer");
    response.status().as_u16()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("plain")
}

fn post(path: &str) -> Request<Body> {
    let body = chat_body(json!({})).to_string();
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from(body)).expect("plain")
}

#[tokio::test]
async fn before_the_model_is_there_only_probes_are_answered() {
    let app = AppState::new(ApiKeys::default(), None);
    let router = router(app);
    assert_eq!(status(&router, get("/livez")).await, 200);
    for probe in ["/health", "/ready", "/readyz"] {
        assert_eq!(status(&router, get(probe)).await, 503, "{probe}");
    }
    assert_eq!(status(&router, get("/version")).await, 200);
    assert_eq!(status(&router, get("/v1/models")).await, 503);
    assert_eq!(status(&router, get("/v1/models/tiny")).await, 503);
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/tokenize",
        "/detokenize",
    ] {
        let response = router.clone().oneshot(post(path)).await.expect("an answer");
        assert_eq!(response.status(), 503, "{path}");
        assert!(response.headers().contains_key("retry-after"));
    }
    assert_eq!(status(&router, get("/nowhere")).await, 404);
}

#[tokio::test]
async fn a_dead_engine_is_told_to_probes_and_clients() {
    let mut server = Plan::for_test().start();
    assert_eq!(server.get("/health").await.status, 200);
    server.kill_engine().await;
    let dead = (503, Some("engine_dead".to_owned()), None);
    for probe in ["/health", "/livez", "/ready", "/readyz"] {
        assert_eq!(server.get(probe).await.error(), dead, "{probe}");
    }
    assert_eq!(server.chat(json!({})).await.error(), dead);
    assert_eq!(server.chat(json!({"stream": true})).await.error(), dead);
    assert_eq!(server.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_drained_engine_takes_nothing_new() {
    let server = Plan::for_test().start();
    server.engine.drain();
    let draining = (503, Some("draining".to_owned()), None);
    assert_eq!(server.get("/ready").await.error(), draining);
    for probe in ["/health", "/livez"] {
        assert_eq!(server.get(probe).await.status, 200, "{probe}");
    }
    let reply = server.chat(json!({})).await;
    assert_eq!(reply.error(), draining);
    assert!(reply.headers.contains_key("retry-after"));
}

/// A server at a socket, its address, and what stops it.
async fn at_socket(
    plan: Plan,
) -> (
    String,
    oneshot::Sender<()>,
    tokio::task::JoinHandle<()>,
    super::server::TestServer,
) {
    let server = plan.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (stop, stopped) = oneshot::channel();
    let app = server.app.clone();
    let task = tokio::spawn(serve(listener, app, async {
        let _ = stopped.await;
    }));
    (format!("http://{address}"), stop, task, server)
}

#[tokio::test]
async fn shutdown_finishes_what_runs() {
    // Goes on until the test lets it end.
    let plan = Plan {
        script: always(tokens("The heart"), End::Hang),
        ..Plan::for_test()
    };
    let (address, stop, task, mut server) = at_socket(plan).await;
    let client = medgemma::http_client::without_tls().build().unwrap();
    let chat = || {
        let body = chat_body(json!({"stream": true, "stop": "never said"})).to_string();
        let request = client.post(format!("{address}/v1/chat/completions"));
        request
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let mut streaming = chat().await.expect("an answer");
    let first = streaming.chunk().await.expect("goes on").expect("a chunk");
    assert!(first.starts_with(b"data: {"));

    stop.send(()).expect("it runs");
    let url = |path: &str| format!("{address}{path}");
    // The signal is on its way.
    while client
        .get(url("/ready"))
        .send()
        .await
        .expect("answered")
        .status()
        == 200
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        client
            .get(url("/health"))
            .send()
            .await
            .expect("answered")
            .status(),
        200
    );
    assert_eq!(chat().await.expect("answered").status(), 503, "nothing new");
    assert!(!task.is_finished(), "a stream still runs");

    server.kill_engine().await;
    let mut rest = Vec::new();
    while let Some(chunk) = streaming.chunk().await.expect("ends well") {
        rest.extend_from_slice(&chunk);
    }
    let rest = String::from_utf8(rest).expect("UTF-8");
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    task.await.expect("serve returns");
    assert!(
        client.get(url("/health")).send().await.is_err(),
        "nobody listens"
    );
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let (address, stop, task, _server) = at_socket(Plan::for_test()).await;
    let client = medgemma::http_client::without_tls().build().unwrap();
    // The client keeps this connection.
    client
        .get(format!("{address}/health"))
        .send()
        .await
        .expect("answered");
    let before = std::time::Instant::now();
    stop.send(()).expect("it runs");
    task.await.expect("serve returns");
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn headers_must_come_in_time() {
    let (address, _stop, _task, _server) = at_socket(Plan::for_test()).await;
    let address = address.strip_prefix("http://").expect("a URL");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let before = tokio::time::Instant::now();
    stream.writable().await.expect("it is open");
    let begun = b"GET /health HTTP/1.1\r\nhost: x\r\nslow";
    assert_eq!(stream.try_write(begun).expect("it is open"), begun.len());
    // The paused clock jumps ahead while nothing else can happen.
    stream.readable().await.expect("it is closed");
    assert!(
        before.elapsed() >= Duration::from_secs(30),
        "{:?}",
        before.elapsed()
    );
    let mut answer = [0; 64];
    assert!(
        stream.try_read(&mut answer).map_or(0, |read| read) == 0,
        "no answer"
    );
}

#[tokio::test]
async fn a_client_that_is_refused_early_still_reads_why() {
    let plan = Plan {
        keys: vec!["key"],
        ..Plan::for_test()
    };
    let (address, _stop, _task, _server) = at_socket(plan).await;
    let client = medgemma::http_client::without_tls().build().unwrap();
    let large = || vec![b'x'; 32 << 20];
    for (path, key, content_type, status) in [
        ("/v1/chat/completions", "wrong", "application/json", 401),
        ("/v1/chat/completions", "key", "text/plain", 415),
        ("/nowhere", "key", "application/json", 404),
        ("/v1/models", "key", "application/json", 405),
    ] {
        let request = client.post(format!("{address}{path}")).bearer_auth(key);
        let request = request.header("content-type", content_type).body(large());
        let response = request.send().await.expect("an answer, not a reset");
        assert_eq!(response.status(), status, "{path}");
        let body: serde_json::Value = response.json().await.expect("JSON");
        assert!(body["error"]["message"].is_string());
    }
}
