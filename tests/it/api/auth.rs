//! Keys.

use axum::body::Body;
use axum::http::Request;
use medgemma::web::ASSETS;
use serde_json::json;

use super::server::{Plan, Reply, TestServer, chat_body};

fn locked() -> TestServer {
    let plan = Plan {
        keys: vec!["first-key", "second-key"],
        ..Plan::for_test()
    };
    plan.start()
}

async fn with_header(server: &TestServer, path: &str, value: Option<&str>) -> Reply {
    let mut request = match path {
        "/v1/chat/completions" | "/v1/completions" | "/tokenize" | "/detokenize" => {
            Request::post(path)
                .header("content-type", "application/json")
                .body(Body::from(chat_body(json!({})).to_string()))
        }
        _ => Request::get(path).body(Body::empty()),
    }
    .expect("a plain request");
    if let Some(value) = value {
        let value = value.parse().expect("a header's value");
        request.headers_mut().insert("authorization", value);
    }
    server.send(request).await
}

#[tokio::test]
async fn every_route_but_the_probes_and_the_pages_needs_a_key() {
    let server = locked();
    let pages = ASSETS.iter().map(|asset| asset.path);
    let open = [
        "/health", "/livez", "/ready", "/readyz", "/docs", "/health/", "//health", "//", "/docs/",
    ];
    for path in open.into_iter().chain(pages) {
        assert_eq!(with_header(&server, path, None).await.status, 200, "{path}");
    }
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/models/tiny",
        "/tokenize",
        "/detokenize",
        "/version",
        "/metrics",
        "/no/such/route",
        "/v1/models/",
        "//v1/models",
        "/health/x",
        "/docs/x",
        "/assets",
        "/assets/",
        "/assets/none.js",
        "/assets/../v1/models",
        "/assets/theme.js/../../v1/models",
        "/openapi.json",
    ] {
        let reply = with_header(&server, path, None).await;
        assert_eq!(
            reply.error(),
            (401, Some("invalid_api_key".to_owned()), None),
            "{path}"
        );
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
        assert!(reply.headers.contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn any_of_the_keys_opens() {
    let server = locked();
    for value in [
        "Bearer first-key",
        "Bearer second-key",
        "bearer  second-key ",
    ] {
        let reply = with_header(&server, "/v1/chat/completions", Some(value)).await;
        assert_eq!(reply.status, 200, "{value}");
    }
    for value in [
        "Bearer wrong",
        "Bearer first-ke",
        "Bearer first-keyy",
        "Bearer First-Key",
        "Bearer ",
        "Bearer",
        "first-key",
        "Basic first-key",
        "",
    ] {
        let reply = with_header(&server, "/v1/models", Some(value)).await;
        assert_eq!(reply.error().0, 401, "{value}");
        assert!(!reply.body.contains("first-key"));
    }
}

#[tokio::test]
async fn without_keys_the_server_is_open() {
    let server = Plan::for_test().start();
    assert_eq!(with_header(&server, "/v1/models", None).await.status, 200);
    let reply = with_header(&server, "/v1/models", Some("Bearer whatever")).await;
    assert_eq!(reply.status, 200, "SDKs always send one");
}
