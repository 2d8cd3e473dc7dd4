//! Routes, methods, content types, sizes, request ids.

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures_util::stream::{self, StreamExt};
use medgemma::api::MAX_BODY;
use serde_json::json;

use super::server::{Plan, chat_body};

#[tokio::test]
async fn models_are_listed_with_their_length() {
    let server = Plan::for_test().start();
    let entry = |id: &str| {
        json!({
            "id": id,
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "medgemma-server",
            "root": "tiny",
            "max_model_len": 256,
        })
    };
    let list = server.get("/v1/models").await.ok();
    assert_eq!(
        list,
        json!({"object": "list", "data": [entry("tiny"), entry("org/tiny")]})
    );
    assert_eq!(server.get("/v1/models/tiny").await.ok(), entry("tiny"));
    assert_eq!(
        server.get("/v1/models/org/tiny").await.ok(),
        entry("org/tiny")
    );
    assert_eq!(
        server.get("/v1/models/org%2Ftiny").await.ok(),
        entry("org/tiny")
    );
    let reply = server.get("/v1/models/other").await;
    let expected = (
        404,
        Some("model_not_found".to_owned()),
        Some("model".to_owned()),
    );
    assert_eq!(reply.error(), expected);
    assert_eq!(server.get("/v1/models/a%FFb").await.error().0, 400);
}

#[tokio::test]
async fn version_is_the_packages() {
    let server = Plan::for_test().start();
    let version = json!({"version": env!("CARGO_PKG_VERSION")});
    assert_eq!(server.get("/version").await.ok(), version);
}

#[tokio::test]
async fn unknown_routes_and_methods_answer_in_openais_shape() {
    let server = Plan::for_test().start();
    for path in ["/assets/", "/v1", "/v1/chat", "/v2/models", "/v1/nope"] {
        let reply = server.get(path).await;
        assert_eq!(
            reply.error(),
            (404, Some("not_found".to_owned()), None),
            "{path}"
        );
        let reply = server.post(path, "{}").await;
        assert_eq!(reply.error().0, 404, "{path}");
    }
    for (method, path, allow) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("DELETE", "/v1/models", "GET,HEAD"),
        ("POST", "/health", "GET,HEAD"),
        ("POST", "/", "GET,HEAD"),
        ("DELETE", "/docs", "GET,HEAD"),
        ("GET", "/tokenize", "POST"),
        ("PATCH", "/detokenize", "POST"),
        ("OPTIONS", "/v1/models/tiny", "GET,HEAD"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty());
        let reply = server.send(request.expect("a plain request")).await;
        assert_eq!(
            reply.error(),
            (405, Some("method_not_allowed".to_owned()), None),
            "{path}"
        );
        assert_eq!(reply.headers["allow"], allow, "{path}");
    }
}

#[tokio::test]
async fn bodies_must_be_declared_as_json() {
    let server = Plan::for_test().start();
    let body = chat_body(json!({})).to_string();
    for (header, value, status) in [
        ("content-type", Some("application/json"), 200),
        ("content-type", Some("Application/JSON; charset=utf-8"), 200),
        ("content-type", Some("application/json;charset=utf-8"), 200),
        ("content-type", None, 415),
        ("content-type", Some("text/plain"), 415),
        (
            "content-type",
            Some("application/x-www-form-urlencoded"),
            415,
        ),
        ("content-type", Some("multipart/form-data"), 415),
        ("content-type", Some("application/jsonp"), 415),
        ("content-encoding", Some("gzip"), 415),
        ("content-encoding", Some("identity"), 200),
    ] {
        let mut request = Request::post("/v1/chat/completions");
        if header != "content-type" {
            request = request.header("content-type", "application/json");
        }
        if let Some(value) = value {
            request = request.header(header, value);
        }
        let reply = server
            .send(request.body(Body::from(body.clone())).expect("plain"))
            .await;
        assert_eq!(reply.status, status, "{value:?}");
        if status == 415 {
            assert_eq!(reply.error().1.as_deref(), Some("unsupported_media_type"));
        }
    }
}

#[tokio::test]
async fn large_bodies_are_refused_however_they_come() {
    let server = Plan::for_test().start();
    let post = || Request::post("/v1/chat/completions").header("content-type", "application/json");
    let announced = post().header("content-length", MAX_BODY + 1);
    let reply = server
        .send(announced.body(Body::empty()).expect("plain"))
        .await;
    assert_eq!(
        reply.error(),
        (413, Some("request_too_large".to_owned()), None)
    );

    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let pieces = stream::repeat(piece).take(MAX_BODY / (1 << 20) + 1);
    let unannounced = Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>));
    let reply = server.send(post().body(unannounced).expect("plain")).await;
    assert_eq!(
        reply.error(),
        (413, Some("request_too_large".to_owned()), None)
    );
    server.chat(json!({})).await.ok();
}

#[tokio::test(start_paused = true)]
async fn bodies_must_come_in_time() {
    let server = Plan::for_test().start();
    let post = || Request::post("/v1/chat/completions").header("content-type", "application/json");
    let begun = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from("{"))]);
    let stuck = Body::from_stream(begun.chain(stream::pending()));
    let reply = server.send(post().body(stuck).expect("plain")).await;
    assert_eq!(
        reply.error(),
        (408, Some("request_timeout".to_owned()), None)
    );

    // A byte now and then does not help for ever.
    let drip = stream::unfold((), async |()| {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(" ")), ()))
    });
    let reply = server
        .send(post().body(Body::from_stream(drip)).expect("plain"))
        .await;
    assert_eq!(reply.error().0, 408);

    let broken = [Ok(Bytes::from("{")), Err(std::io::Error::other("gone"))];
    let broken = Body::from_stream(stream::iter(broken));
    let reply = server.send(post().body(broken).expect("plain")).await;
    assert_eq!(
        reply.error(),
        (400, Some("invalid_request".to_owned()), None)
    );
}

#[tokio::test]
async fn request_ids_are_kept_or_made_and_always_returned() {
    let server = Plan::for_test().start();
    let returned = async |sent: Option<&str>, path: &str| {
        let mut request = Request::get(path);
        if let Some(sent) = sent {
            request = request.header("x-request-id", sent);
        }
        let reply = server
            .send(request.body(Body::empty()).expect("plain"))
            .await;
        reply.headers["x-request-id"]
            .to_str()
            .expect("ASCII")
            .to_owned()
    };
    let longest = "a".repeat(128);
    for id in ["abc-123_X.y:z/1+2=@", "0", &longest] {
        assert_eq!(returned(Some(id), "/v1/models").await, id);
        assert_eq!(returned(Some(id), "/nowhere").await, id);
    }
    let too_long = "a".repeat(129);
    for id in ["", "two words", "a\tb", "<script>", "a,b", "\"", &too_long] {
        let made = returned(Some(id), "/health").await;
        assert_ne!(made, id);
        assert!(made.starts_with("req-"), "{made}");
    }
    let (one, other) = (
        returned(None, "/ready").await,
        returned(None, "/ready").await,
    );
    assert!(one.starts_with("req-") && one != other);
}

#[tokio::test]
async fn slashes_too_many_find_the_route() {
    let server = Plan::for_test().start();
    for path in ["//v1/models", "/v1/models/", "/v1//models", "/models//"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for path in ["/v1/chat/completions/", "//v1//chat/completions"] {
        let reply = server.post(path, chat_body(json!({})).to_string()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_byte_order_mark_before_a_body_is_skipped() {
    let server = Plan::for_test().start();
    let body = chat_body(json!({})).to_string();
    let marked = format!("\u{feff}{body}");
    let reply = server.post("/v1/chat/completions", marked).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let twice = format!("\u{feff}\u{feff}{body}");
    let reply = server.post("/v1/chat/completions", twice).await;
    assert_eq!(reply.status, 400, "{}", reply.body);
}
