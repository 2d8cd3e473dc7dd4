//! A client that goes away frees its slot at once.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use medgemma::api::serve;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower::ServiceExt;

use super::server::{End, Plan, TestServer, always, chat_body, tokens};

fn hanging() -> TestServer {
    let plan = Plan {
        script: always(tokens("The heart"), End::Hang),
        ..Plan::for_test()
    };
    plan.start()
}

fn chat(extra: Value) -> Request<Body> {
    Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Body::from(chat_body(extra).to_string()))
        .expect("a plain request")
}

#[tokio::test]
async fn dropping_a_stream_aborts_all_its_answers() {
    let mut server = hanging();
    let request = chat(json!({"stream": true, "n": 3}));
    let response = server
        .router
        .clone()
        .oneshot(request)
        .await
        .expect("an answer");
    assert_eq!(server.engine.num_in_flight(), 3);
    drop(response);
    for _ in 0..3 {
        server.aborted().await;
    }
    assert_eq!(server.engine.num_in_flight(), 0);
}

#[tokio::test]
async fn dropping_a_whole_answer_s_request_aborts_it() {
    let mut server = hanging();
    let answering = server.router.clone().oneshot(chat(json!({"n": 2})));
    let both_asked = async {
        server.request().await;
        server.request().await;
    };
    tokio::select! {
        answer = answering => panic!("the engine hangs, and yet: {answer:?}"),
        () = both_asked => {}
    }
    server.aborted().await;
    server.aborted().await;
    assert_eq!(server.engine.num_in_flight(), 0);
}

#[tokio::test]
async fn a_closed_connection_is_noticed_while_nothing_is_sent() {
    let mut server = hanging();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(serve(listener, server.app.clone(), std::future::pending()));
    for stream in [false, true] {
        let body = chat_body(json!({"stream": stream})).to_string();
        // A client of its own, so that its connection closes with it.
        let client = reqwest::Client::new();
        let request = client
            .post(format!("http://{address}/v1/chat/completions"))
            .header("content-type", "application/json")
            .body(body);
        let sending = tokio::spawn(async move {
            let mut response = request.send().await.expect("an answer");
            while let Ok(Some(_)) = response.chunk().await {}
        });
        server.request().await;
        assert_eq!(server.engine.num_in_flight(), 1);
        drop(client);
        sending.abort();
        let aborted = timeout(Duration::from_secs(20), server.aborted()).await;
        aborted.expect("the client left and the engine was not told");
        assert_eq!(server.engine.num_in_flight(), 0);
    }
}
