//! What the process takes while clients send it much.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{Server, medgemma};

const MIB: usize = 1 << 20;

/// A field of the process's own account of itself, in bytes.
fn status_of(server: &Server, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.unwrap().trim_start_matches(':').trim_end_matches("kB");
    kib.trim().parse::<usize>().unwrap() << 10
}

/// Sends a head that announces more, and as much of a body as is taken.
fn unfinished(server: &Server, announced: usize, sent: usize) -> TcpStream {
    let port = server.address.rsplit(':').next().unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{port}\r\n\
         Content-Type: application/json\r\nContent-Length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b' '; MIB];
    for _ in 0..sent / MIB {
        // Whoever is refused may find the connection closed.
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    stream
}

#[cfg(target_os = "linux")]
#[test]
fn within_a_limit_on_its_memory_large_bodies_do_not_end_the_process() {
    // As `ulimit -v`, which is the shell's.
    let of_serve = medgemma(&[], &[]);
    let mut limited = std::process::Command::new("sh");
    let line =
        format!("ulimit -v {LIMIT_KIB}; exec \"$0\" serve demo --port 0 --kv-cache-memory 16MiB");
    limited.args(["-c", &line]).arg(of_serve.get_program());
    for (name, value) in of_serve.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let server = Server::up(limited);
    // Twice as much as there is, if all of it were kept.
    let held: Vec<_> = (0..30)
        .map(|_| unfinished(&server, 101 * MIB, 100 * MIB))
        .collect();
    let (status, body) = server.complete(r#"{"prompt": "The heart", "max_tokens": 2}"#);
    assert_eq!(status, 200, "{body}");
    let refused = held.into_iter().map(|mut stream| {
        stream
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut answer = [0; 12];
        let read = stream.read_exact(&mut answer);
        read.is_ok_and(|()| answer == *b"HTTP/1.1 503" || answer == *b"HTTP/1.1 413")
    });
    assert!(
        refused.filter(|refused| *refused).count() > 0,
        "all of it was kept"
    );
    let (status, body) = server.complete(r#"{"prompt": "The heart", "max_tokens": 2}"#);
    assert_eq!(status, 200, "{body}");
}

#[cfg(target_os = "linux")]
const LIMIT_KIB: usize = 1_500_000;

/// What the answer to this body takes of a server that has answered one request before.
#[cfg(target_os = "linux")]
fn taken_by(path: &str, body: &str) -> usize {
    let server = Server::start(&["demo", "--kv-cache-memory", "16MiB"], &[]);
    let post = |path: &str, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json");
        server.request(&head, body)
    };
    let first = r#"{"messages":[{"role":"user","content":"a"}],"max_tokens":1}"#;
    post("/v1/chat/completions", first);
    let reset = fs::write(format!("/proc/{}/clear_refs", server.child.id()), "5");
    reset.expect("the peak can be set back");
    let before = status_of(&server, "VmRSS");
    let (status, answer) = post(path, body);
    assert_eq!(status, 400, "{answer}");
    status_of(&server, "VmHWM").saturating_sub(before)
}

/// Memory that a server takes for its first large request, whatever it holds: stacks of threads,
/// and what their allocators keep.
#[cfg(target_os = "linux")]
const ONCE: usize = 4 * MIB;

#[cfg(target_os = "linux")]
#[test]
fn a_large_body_takes_three_times_its_size_at_most() {
    let chat = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
    let text = "word ".repeat(4 * MIB);
    for (what, path, body) in [
        (
            "a text",
            "/v1/chat/completions",
            chat(&format!("\"{text}\"")),
        ),
        (
            "a text with an escape",
            "/v1/chat/completions",
            chat(&format!("\"\\n{text}\"")),
        ),
        (
            "a field that nobody knows",
            "/v1/chat/completions",
            format!(r#"{{"x":["{text}","{text}"],"messages":[]}}"#),
        ),
        (
            "an image",
            "/v1/chat/completions",
            chat(&format!(
                r#"[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]"#,
                "A".repeat(20 * MIB)
            )),
        ),
        (
            "token ids",
            "/v1/completions",
            format!(r#"{{"prompt":[12345{}]}}"#, ",12345".repeat(999_000)),
        ),
        (
            "token ids of a digit",
            "/v1/completions",
            format!(r#"{{"prompt":[5{}]}}"#, ",5".repeat(999_000)),
        ),
        (
            "several prompts of token ids",
            "/v1/completions",
            format!(r#"{{"prompt":[[5{0}],[6{0}]]}}"#, ",12345".repeat(499_000)),
        ),
        ("a text of another API", "/v1/messages", {
            let messages = chat(&format!("\"{text}\""));
            messages.replacen('{', r#"{"max_tokens":1,"#, 1)
        }),
        (
            "a text to answer",
            "/v1/responses",
            format!(r#"{{"store":false,"input":"{text}"}}"#),
        ),
    ] {
        let taken = taken_by(path, &body);
        let most = 3 * body.len() + ONCE;
        let len = body.len();
        assert!(taken <= most, "{what}: {taken} of {most} bytes for {len}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn many_small_values_take_what_their_request_is_charged() {
    let chat = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
    let schema = |value: &str, number: usize| {
        let values = vec![value; number].join(",");
        let tool = format!(
            r#"{{"type":"function","function":{{"name":"f","parameters":{{"enum":[{values}]}}}}}}"#
        );
        format!(r#"{{"messages":[{{"role":"user","content":"a"}}],"tools":[{tool}]}}"#)
    };
    let parts = vec![r#"{"type":"text","text":"a"}"#; 10_000].join(",");
    let messages = [r#"{"role":"user","content":"a"},{"role":"assistant","content":"b"},"#; 4_990];
    let messages = format!(r#"[{}{{"role":"user","content":"a"}}]"#, messages.concat());
    for (what, path, body) in [
        ("parts", "/v1/chat/completions", chat(&format!("[{parts}]"))),
        (
            "values of a schema",
            "/v1/chat/completions",
            schema("1", 199_000),
        ),
        (
            "objects in a schema",
            "/v1/chat/completions",
            schema(r#"{"a":1}"#, 66_000),
        ),
        (
            "messages",
            "/v1/chat/completions",
            format!(r#"{{"messages":{messages}}}"#),
        ),
        (
            "messages of another API",
            "/v1/messages",
            format!(r#"{{"max_tokens":1,"messages":{messages}}}"#),
        ),
        (
            "items",
            "/v1/responses",
            format!(r#"{{"store":false,"input":{messages}}}"#),
        ),
    ] {
        let taken = taken_by(path, &body);
        let num_values = body.matches([',', ':', '[', '{']).count();
        let most = 2 * body.len() + body.len().max(NODE_BYTES * num_values) + ONCE;
        let len = body.len();
        assert!(taken <= most, "{what}: {taken} of {most} bytes for {len}");
    }
}

/// What a request is charged for each value, name and container of its body.
#[cfg(target_os = "linux")]
const NODE_BYTES: usize = 160;
