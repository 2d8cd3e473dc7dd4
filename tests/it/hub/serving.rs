//! `medgemma serve` of a model that has to come first.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::imitation::{Fault, Imitation};
use super::program::{medgemma, signal, stalling, until_here};
use super::{COMMIT, ID, folder, noise};

/// A server that may not be ready yet; killed when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(hub: &Imitation, cache: &Path, arguments: &[&str]) -> Self {
        // Free a moment ago: unlike 0, a number can be known before the model is there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let number = port.to_string();
        let options = ["serve", "--port", &number, "--device", "cpu"];
        let child = medgemma(hub, cache, &[&options, arguments].concat())
            .env("HF_HUB_DOWNLOAD_TIMEOUT", "2")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, port }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::yield_now(),
            }
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Waits for the line that says that it is up.
    fn until_up(&mut self) {
        let mut line = String::new();
        let mut stdout = BufReader::new(self.child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on "), "{line}");
    }

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

#[test]
fn probes_are_answered_while_a_model_comes() {
    let hub = stalling(100_000);
    let cache = tempfile::tempdir().unwrap();
    let mut server = Server::start(&hub, cache.path(), &[ID]);
    until_here(cache.path(), 100_000);
    assert_eq!(server.get("/livez").0, 200);
    for probe in ["/health", "/ready"] {
        assert_eq!(server.get(probe).0, 503, "{probe}");
    }
    // What stalls counts as cut in the end, and then the rest comes.
    hub.behave(|_| Fault::None);
    server.until_up();
    for probe in ["/health", "/livez", "/ready"] {
        assert_eq!(server.get(probe).0, 200, "{probe}");
    }
    let (_, models) = server.get("/v1/models");
    assert!(models.contains(&format!("\"id\":\"{ID}\"")), "{models}");
    signal(&server.child, "-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    for part in [
        "tests/tiny: 7 files, 892 KiB",
        "7 files are here",
        "serving from the cache",
    ] {
        assert!(log.contains(part), "{log}");
    }
}

#[test]
fn a_server_stops_while_a_model_comes_and_goes_on_later() {
    let hub = stalling(100_000);
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&hub, cache.path(), &[ID]);
    until_here(cache.path(), 100_000);
    signal(&server.child, "-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopped while loading"), "{log}");
    until_here(cache.path(), 100_000);
}

#[test]
fn what_is_in_the_cache_is_served_without_the_hub() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let mut server = Server::start(&hub, cache.path(), &["--model", ID]);
    server.until_up();
    drop(server);
    hub.asked();
    for arguments in [
        &[ID][..],
        &[ID, "--revision", "main"],
        &[ID, "--revision", COMMIT],
    ] {
        let mut server = Server::start(&hub, cache.path(), arguments);
        server.until_up();
        signal(&server.child, "-TERM");
        let (_, log) = server.end();
        assert!(log.contains("commit=0123456"), "{log}");
    }
    assert_eq!(hub.num_asked(), 0);
    assert!(folder(cache.path()).exists());
}

#[test]
fn what_does_not_come_ends_the_server_with_one_line() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    for (arguments, expected, says) in [
        (&["tests/none"][..], 66, "there is no tests/none"),
        (&[ID, "--revision", "v9"], 66, "no revision v9"),
        (
            &["demo", "--revision", "v9"],
            78,
            "--revision v9 is for models from the hub",
        ),
        (
            &["tests/none", "--load-format", "dummy"],
            66,
            "neither a model of the catalogue",
        ),
    ] {
        let arguments = [arguments, &["--log-level", "error"]].concat();
        let (code, log) = Server::start(&hub, cache.path(), &arguments).end();
        assert_eq!(code, Some(expected), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.starts_with("medgemma: ") && log.contains(says), "{log}");
    }
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    let nobody = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let pull = medgemma(&nobody, cache.path(), &["pull", ID])
        .env("HF_ENDPOINT", &address)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&pull.stderr);
    assert_eq!(pull.status.code(), Some(68), "{said}");
    assert!(said.contains(&address), "{said}");
}
