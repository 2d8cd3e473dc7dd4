//! Memory that requests may hold, and how much a request may hold.

use std::time::Duration;

use medgemma::api::serve;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::images::{distinct_images, shown};
use super::server::{End, Plan, TestServer, always, chat_body, tokens};

const HELD: &str = "medgemma:request_memory_bytes{model_name=\"tiny\"}";

/// Longer than anything here takes, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(120);

async fn wait_until(server: &TestServer, holds: impl Fn(f64) -> bool) {
    let waiting = async {
        while !holds(server.metric(HELD).await) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LIMIT, waiting)
        .await
        .expect("memory was not held, or not given back");
}

/// A request on a connection of its own, of whose body only `sent` bytes have come.
async fn begin(address: std::net::SocketAddr, announced: usize, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    stream.write_all(sent).await.expect("it reads");
    stream
}

/// The whole answer, head and body.
async fn answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    timeout(LIMIT, reading)
        .await
        .expect("no answer")
        .expect("it is whole");
    String::from_utf8(answer).expect("answers are UTF-8")
}

#[tokio::test]
async fn beside_giants_small_requests_get_in_and_others_are_told_to_come_again() {
    const MIB: usize = 1 << 20;
    let plan = Plan {
        // 48 MiB for bodies, of which 8 are for small ones; three bytes are counted for each.
        request_memory: Some(64 << 20),
        ..Plan::for_test()
    };
    let server = plan.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(serve(listener, server.app.clone(), std::future::pending()));
    let part = vec![b' '; 6 * MIB];

    let mut giants = Vec::new();
    for number in 1..=2 {
        giants.push(begin(address, 12 * MIB, &part).await);
        wait_until(&server, |held| held >= (number * 18 * MIB) as f64).await;
    }
    for _ in 0..3 {
        let refused = answer(begin(address, 6 * MIB, &part).await).await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(
            refused.to_lowercase().contains("\r\nretry-after: 1\r\n"),
            "{refused}"
        );
        assert!(
            refused.contains("\"code\":\"request_memory_full\""),
            "{refused}"
        );
        assert!(refused.contains("--max-request-memory"), "{refused}");
    }
    let small = chat_body(json!({})).to_string();
    let answered = answer(begin(address, small.len(), small.as_bytes()).await).await;
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert_eq!(server.metric(HELD).await, (2 * 18 * MIB) as f64);

    // They leave, and all of it is there again.
    drop(giants);
    wait_until(&server, |held| held == 0.0).await;
    let read = answer(begin(address, 6 * MIB, &part).await).await;
    assert!(read.starts_with("HTTP/1.1 400"), "{read}");
    wait_until(&server, |held| held == 0.0).await;
}

#[tokio::test]
async fn a_body_that_could_never_be_held_is_too_large() {
    let plan = Plan {
        request_memory: Some(8 << 20),
        ..Plan::for_test()
    };
    let server = plan.start();
    let most = (6 - 1) * (1 << 20) / 3;
    for (len, status) in [(most, 400), (most + 1, 413)] {
        let reply = server.post("/v1/chat/completions", vec![b' '; len]).await;
        assert_eq!(reply.error().0, status, "{}", reply.body);
    }
    // Short, and of many values: what they cost once they are read is counted before.
    let reply = server
        .post("/tokenize", format!("[1{}", ",1".repeat(90_000)))
        .await;
    let expected = (413, Some("request_too_large".to_owned()), None);
    assert_eq!(reply.error(), expected);
    assert!(
        reply.body.contains("--max-request-memory"),
        "{}",
        reply.body
    );
    server.chat(json!({})).await.ok();
    assert_eq!(server.metric(HELD).await, 0.0);
}

#[tokio::test]
async fn a_model_that_takes_text_only_reads_no_bodies_of_images() {
    let plan = Plan {
        takes_images: false,
        ..Plan::for_test()
    };
    let server = plan.start();
    for (len, status) in [(16 << 20, 400), ((16 << 20) + 1, 413)] {
        let reply = server.post("/v1/chat/completions", vec![b' '; len]).await;
        assert_eq!(reply.error().0, status, "{}", reply.body);
    }
}

#[tokio::test]
async fn messages_parts_and_values_are_counted_before_they_are_read() {
    let server = Plan::for_test().start();
    let message = json!({"role": "user", "content": "a"});
    let part = json!({"type": "text", "text": "a"});
    let block = json!({"type": "tool_result", "tool_use_id": "a", "content": vec![&part; 5001]});
    let many_parts: Vec<_> = (0..101)
        .map(|_| json!({"role": "user", "content": vec![&part; 100]}))
        .collect();
    let messages = |messages: Value| json!({"max_tokens": 1, "messages": messages});
    let chats = "/v1/chat/completions";
    for (path, body, what) in [
        (
            chats,
            messages(json!(vec![&message; 10_001])),
            "10000 messages",
        ),
        (
            "/tokenize",
            messages(json!(vec![&message; 10_001])),
            "10000 messages",
        ),
        (
            "/v1/messages",
            messages(json!(vec![&message; 10_001])),
            "10000 messages",
        ),
        (
            "/v1/responses",
            json!({"input": vec![&message; 10_001]}),
            "10000 messages",
        ),
        (
            chats,
            messages(json!([{"role": "user", "content": vec![&part; 10_001]}])),
            "10000 parts",
        ),
        (chats, messages(json!(many_parts)), "10000 parts"),
        (
            "/v1/messages/count_tokens",
            messages(json!([{"role": "user", "content": [block, block]}])),
            "10000 parts",
        ),
        (
            "/v1/completions",
            json!({"prompt": vec![1; 1_000_002]}),
            "1000000 numbers",
        ),
        (
            chats,
            json!({"unknown": vec![[0]; 200_001]}),
            "200000 values",
        ),
    ] {
        let reply = server.post(path, body.to_string()).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.body);
        assert!(
            reply.body.contains(&format!("more than {what}")),
            "{}",
            reply.body
        );
        if path != "/v1/messages" && path != "/v1/messages/count_tokens" {
            let expected = (400, Some("request_too_complex".to_owned()), None);
            assert_eq!(reply.error(), expected);
        }
    }
    // As many as are taken are too long for this model, which is another matter.
    let reply = server
        .post(chats, messages(json!(vec![&message; 10_000])).to_string())
        .await;
    assert_eq!(reply.error().1.as_deref(), Some("context_length_exceeded"));
    assert_eq!(server.metric(HELD).await, 0.0);
}

#[tokio::test]
async fn images_are_held_for_as_long_as_their_request_runs() {
    let plan = Plan {
        script: always(tokens("The heart"), End::Hang),
        ..Plan::for_test()
    };
    let server = plan.start();
    let images = distinct_images(3);
    let [one, two, three] = [0, 1, 2].map(|at| images[at].as_str());
    let stream = server.stream(shown(&[one, two, one, three])).await;
    assert_eq!(server.metric(HELD).await, (3 * 56 * 56 * 3) as f64);
    drop(stream);
    wait_until(&server, |held| held == 0.0).await;
}

#[tokio::test]
async fn images_for_which_there_is_no_memory_are_refused() {
    let plan = Plan {
        // 6,000 bytes for requests, and a prepared image takes 9,408.
        request_memory: Some(8_000),
        ..Plan::for_test()
    };
    let server = plan.start();
    let image = &distinct_images(1)[0];
    let reply = server.chat(shown(&[image])).await;
    assert_eq!(
        reply.error().1.as_deref(),
        Some("request_too_large"),
        "{}",
        reply.body
    );
    server.chat(json!({})).await.ok();
}
