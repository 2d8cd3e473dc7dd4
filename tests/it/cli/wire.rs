//! Requests byte by byte, as no client's library would send them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::Server;

/// What a server answered in the end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    /// The last answer in what was read; interim ones before it are passed over.
    pub(super) fn read(text: &str) -> Self {
        let mut rest = text;
        loop {
            let (head, body) = rest.split_once("\r\n\r\n").expect("a head ends");
            let status = head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok());
            match status.expect("a status") {
                100..200 => rest = body,
                status => {
                    return Self {
                        status,
                        head: head.to_ascii_lowercase(),
                        body: body.to_owned(),
                    };
                }
            }
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Code and message of an error in OpenAI's shape, which must be whole.
    pub(super) fn error(&self) -> (u16, String, String) {
        let length = self.header("content-length").map(str::to_owned);
        assert_eq!(length, Some(self.body.len().to_string()), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_str(&self.body).expect("errors are JSON");
        let text = |field: &str| body["error"][field].as_str().expect("a text").to_owned();
        (self.status, text("code"), text("message"))
    }
}

impl Server {
    pub(super) fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port())).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        stream
    }

    /// A connection over which these bytes were sent.
    pub(super) fn sent(&self, bytes: &str) -> TcpStream {
        let mut stream = self.connect();
        // It may refuse before it has read everything.
        let _ = stream.write_all(bytes.as_bytes());
        stream
    }

    /// The answer to these bytes, for a server that closes the connection then.
    pub(super) fn answer(&self, bytes: &str) -> Answer {
        Answer::read(&rest_of(self.sent(bytes)))
    }

    /// The same for a client that says that it sends no more.
    pub(super) fn answer_to_half(&self, bytes: &str) -> Answer {
        let stream = self.sent(bytes);
        stream.shutdown(Shutdown::Write).unwrap();
        Answer::read(&rest_of(stream))
    }

    /// A series' value at `/metrics`, which must be open.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        metric_in(&text, name)
    }
}

pub(super) fn metric_in(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| {
        let series = line.strip_prefix(name)?.strip_prefix('{')?;
        series.split_once("} ")?.1.parse().ok()
    });
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

pub(super) fn rest_of(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset at the end is no reason to forget what came before it.
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(len) => text.extend_from_slice(&part[..len]),
            Err(error) if text.is_empty() => panic!("{error}"),
            Err(_) => break,
        }
    }
    String::from_utf8(text).unwrap()
}

/// A request with a body of JSON, and with these lines in its head.
pub(super) fn post(path: &str, lines: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{lines}\r\n{body}",
        body.len()
    )
}

/// One that has a name of its own for the server.
pub(super) fn post_to(host: &str, lines: &str, body: &Value) -> String {
    let request = post("/v1/chat/completions", lines, body);
    request.replacen("Host: localhost", &format!("Host: {host}"), 1)
}

pub(super) fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n")
}
