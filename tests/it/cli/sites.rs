//! Which names and which pages a server answers to.

use serde_json::{Value, json};

use super::Server;
use super::connections::{long, streaming};
use super::wire::{Answer, get, post, post_to};

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1})
}

fn refused_host(server: &Server, path: &str, lines: &str) {
    let (status, code, message) = server.answer(&get(path, lines)).error();
    assert_eq!(
        (status, code.as_str()),
        (403, "host_not_allowed"),
        "{lines}"
    );
    assert!(message.contains("--allowed-hosts"), "{message}");
}

#[test]
fn a_loopback_address_answers_to_its_own_names() {
    let server = Server::start(
        &["demo", "--allowed-hosts", "med.example.org,*.local.example"],
        &[],
    );
    let port = server.port();
    for host in [
        "localhost",
        "med.example.org",
        "x.local.example",
        "127.0.0.1",
        &format!("127.0.0.1:{port}"),
        &format!("localhost:{port}"),
        &format!("[::1]:{port}"),
        "LocalHost",
        "a.localhost",
    ] {
        let lines = format!("Host: {host}\r\n");
        for path in ["/v1/models", "/"] {
            assert_eq!(server.answer(&get(path, &lines)).status, 200, "{host}");
        }
        let lines = "Connection: close\r\n";
        assert_eq!(
            server.answer(&post_to(host, lines, &chat())).status,
            200,
            "{host}"
        );
    }
    // What a page sends whose name was made to lead here.
    let rebound = "Connection: close\r\nOrigin: http://evil.example\r\n";
    let (status, code, _) = server
        .answer(&post_to("evil.example", rebound, &chat()))
        .error();
    assert_eq!((status, code.as_str()), (403, "host_not_allowed"));
    for host in [
        "evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "local.example",
    ] {
        for path in [
            "/v1/models",
            "/metrics",
            "/",
            "/docs",
            "/nope",
            "/openapi.json",
        ] {
            refused_host(&server, path, &format!("Host: {host}:{port}\r\n"));
        }
        // Probes come by any name.
        for path in ["/health", "/ready"] {
            let answer = server.answer(&get(path, &format!("Host: {host}\r\n")));
            assert_eq!(answer.status, 200, "{host}");
        }
    }
    // The name in the target is the one that counts.
    refused_host(
        &server,
        "http://evil.example/v1/models",
        "Host: localhost\r\n",
    );
}

#[test]
fn other_addresses_answer_to_any_name_until_some_are_given() {
    let arguments = ["demo", "--host", "0.0.0.0"];
    let server = Server::start(&arguments, &[]);
    let foreign = get("/v1/models", "Host: med.example.org\r\n");
    assert_eq!(server.answer(&foreign).status, 200);
    let variables = [("MEDGEMMA_ALLOWED_HOSTS", "gpu.example.org")];
    let server = Server::start(&arguments, &variables);
    refused_host(&server, "/v1/models", "Host: med.example.org\r\n");
    for host in ["gpu.example.org", "127.0.0.1"] {
        let request = get("/v1/models", &format!("Host: {host}\r\n"));
        assert_eq!(server.answer(&request).status, 200, "{host}");
    }
}

#[test]
fn pages_of_other_sites_may_not_post_unless_they_are_allowed() {
    let allowed = r#"["https://app.example.org"]"#;
    let server = Server::start(
        &[
            "demo",
            "--allowed-origins",
            allowed,
            "--allowed-hosts",
            "med.example.org",
        ],
        &[],
    );
    let port = server.port();
    let asked = |host: &str, lines: &str| {
        let lines = format!("Connection: close\r\n{lines}");
        server.answer(&post_to(host, &lines, &chat()))
    };
    for (host, lines) in [
        ("localhost", String::new()),
        ("localhost:1", "Origin: http://localhost:1\r\n".to_owned()),
        (
            "[::1]:1",
            "Origin: http://[::1]:1\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
        ),
        // Behind a proxy, with TLS, that keeps the name or does not.
        (
            "med.example.org",
            "Origin: https://med.example.org\r\n".to_owned(),
        ),
        (
            "127.0.0.1",
            "Origin: https://med.example.org\r\n".to_owned(),
        ),
    ] {
        let answer = asked(host, &lines);
        assert_eq!(answer.status, 200, "{lines}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    for lines in [
        "Origin: http://evil.example\r\n".to_owned(),
        "Origin: null\r\n".to_owned(),
        "Sec-Fetch-Site: cross-site\r\n".to_owned(),
        format!(
            "Origin: http://127.0.0.1:{}\r\nSec-Fetch-Site: same-site\r\n",
            port ^ 1
        ),
    ] {
        let answer = asked(&format!("127.0.0.1:{port}"), &lines);
        let (status, code, message) = answer.error();
        assert_eq!(
            (status, code.as_str()),
            (403, "origin_not_allowed"),
            "{lines}"
        );
        assert!(message.contains("--allowed-origins"), "{message}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let app = "Origin: https://app.example.org\r\nSec-Fetch-Site: cross-site\r\n";
    let answer = asked("127.0.0.1", app);
    assert_eq!(answer.status, 200, "{answer:?}");
    let may = answer.header("access-control-allow-origin");
    assert_eq!(may, Some("https://app.example.org"));
    assert_eq!(answer.header("vary"), Some("origin"));
}

#[test]
fn browsers_are_told_which_sites_may_ask() {
    let arguments = [
        "demo",
        "--allowed-origins",
        "https://app.example.org",
        "--api-key",
        "sesame",
    ];
    let server = Server::start(&arguments, &[]);
    let preflight = |origin: &str| {
        server.answer(&format!(
            "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,x-stainless-os\r\n\r\n"
        ))
    };
    let answer = preflight("https://app.example.org");
    // It cannot bring a key.
    assert_eq!(answer.status, 200, "{answer:?}");
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example.org"),
        ("access-control-allow-methods", "get, post"),
        (
            "access-control-allow-headers",
            "authorization,x-stainless-os",
        ),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let answer = preflight("https://evil.example");
    let (status, code, _) = answer.error();
    assert_eq!((status, code.as_str()), (403, "origin_not_allowed"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
    // What went wrong can be read by the page, too.
    let refused = "Connection: close\r\nOrigin: https://app.example.org\r\n";
    let answer = server.answer(&post_to("localhost", refused, &chat()));
    assert_eq!(answer.status, 401);
    assert!(answer.header("access-control-allow-origin").is_some());
}

const APP: &str = "https://app.example.org";

/// What a browser asks before a page of that site may send a `method` to `path`.
fn preflight(server: &Server, path: &str, method: &str) -> Answer {
    server.answer(&format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: {APP}\r\n\
         Access-Control-Request-Method: {method}\r\n\
         Access-Control-Request-Headers: authorization\r\n\r\n"
    ))
}

#[test]
fn a_page_can_read_whatever_it_is_answered() {
    let arguments = ["demo", "--allowed-origins", APP];
    let key = ("MEDGEMMA_API_KEY", "a-key-of-16-char");
    let server = Server::start(&arguments, &[key]);
    let origin = format!("Origin: {APP}\r\n");
    let lines = format!(
        "Connection: close\r\n{origin}Authorization: Bearer {}\r\n",
        key.1
    );
    let with_host = format!("Host: localhost\r\n{lines}");
    let mut stream = chat();
    stream["stream"] = true.into();
    let mut broken = chat();
    broken["max_tokens"] = (-1).into();
    let cases = [
        (200, get("/v1/models", &with_host)),
        (200, post("/v1/chat/completions", &lines, &stream)),
        (200, get("/health", &format!("Host: localhost\r\n{origin}"))),
        (200, get("/docs", &format!("Host: localhost\r\n{origin}"))),
        (400, post("/v1/chat/completions", &lines, &broken)),
        (
            401,
            get("/v1/models", &format!("Host: localhost\r\n{origin}")),
        ),
        (
            403,
            get("/v1/models", &format!("Host: evil.example\r\n{lines}")),
        ),
        (404, get("/nope", &with_host)),
        (405, get("/v1/chat/completions", &with_host)),
        (
            417,
            get("/v1/models", &format!("{with_host}Expect: more\r\n")),
        ),
    ];
    let read = |answer: &Answer| {
        answer
            .header("access-control-allow-origin")
            .map(str::to_owned)
    };
    for (status, request) in cases {
        let answer = server.answer(&request);
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(read(&answer).as_deref(), Some(APP), "{request}");
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["x-request-id", "retry-after", "x-ratelimit-reset-tokens"] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
    // One that no page sent is answered as ever, but says on what the headers depend.
    let answer = server.answer(&get("/health", "Host: localhost\r\n"));
    assert_eq!(
        (read(&answer), answer.header("vary")),
        (None, Some("origin"))
    );

    let arguments = [
        "demo",
        "--allowed-origins",
        APP,
        "--max-connections-per-address",
        "1",
    ];
    let server = Server::start(&arguments, &[]);
    let _busy = streaming(&server, &long(json!({"n": 50, "stream": true})));
    let answer = server.answer(&get("/v1/models", &format!("Host: localhost\r\n{origin}")));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(read(&answer).as_deref(), Some(APP));
}

#[test]
fn pages_may_use_what_the_flags_say() {
    let allowed = |arguments: &[&str]| {
        let server = Server::start(
            &[&["demo", "--allowed-origins", "*"], arguments].concat(),
            &[],
        );
        let answer = preflight(&server, "/v1/chat/completions", "POST");
        assert_eq!(answer.status, 200, "{answer:?}");
        // Never "*", which browsers do not take together with credentials.
        let origin = answer.header("access-control-allow-origin");
        assert_eq!(origin, Some(APP));
        ["methods", "headers", "credentials"].map(|name| {
            let value = answer.header(&format!("access-control-allow-{name}"));
            value.map(str::to_owned)
        })
    };
    let some = |text: &str| Some(text.to_owned());
    let all = [some("get, post"), some("authorization"), None];
    assert_eq!(allowed(&[]), all);
    let stars = ["--allowed-methods", "[\"*\"]", "--allowed-headers", "*"];
    assert_eq!(allowed(&stars), all);
    let chosen = [
        "--allowed-methods",
        "[\"GET\"]",
        "--allowed-headers",
        "Authorization,X-Mine",
        "--allow-credentials",
    ];
    let headers = "accept, accept-language, content-language, content-type, authorization, x-mine";
    assert_eq!(allowed(&chosen), [some("get"), some(headers), some("true")]);
    let off = ["--allow-credentials=false", "--allowed-headers", "[]"];
    let headers = "accept, accept-language, content-language, content-type";
    assert_eq!(allowed(&off), [some("get, post"), some(headers), None]);
}

#[test]
fn nothing_is_allowed_unasked() {
    let server = Server::start(&["demo"], &[]);
    let answer = preflight(&server, "/v1/chat/completions", "POST");
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let origin = format!("Host: localhost\r\nOrigin: {APP}\r\n");
    let answer = server.answer(&get("/v1/models", &origin));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("vary"), None);
}
