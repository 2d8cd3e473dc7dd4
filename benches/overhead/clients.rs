//! The other end: all clients, in a process of their own.

use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::script::{Words, unix_ns};
use crate::{Logprobs, Size};

/// When each token came: Unix time in ns, by stream and place.
pub(crate) struct Arrivals(pub(crate) Vec<Vec<u64>>);

/// The process.
pub(crate) struct Clients(Child);

impl Clients {
    pub(crate) fn start(
        address: SocketAddr,
        size: Size,
        logprobs: Logprobs,
        words: &Words,
    ) -> Self {
        let program = std::env::current_exe().expect("this program has a file");
        let child = Command::new(program)
            .arg("clients")
            .arg(address.to_string())
            .args([size.num_streams, size.num_tokens].map(|number| number.to_string()))
            .arg(match logprobs {
                Logprobs::Without => "0",
                Logprobs::With => "1",
            })
            .args(&words.texts)
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("a process can be had"))
    }

    /// Waits for them all.
    ///
    /// # Panics
    /// If any got other tokens than it should, or in another order.
    pub(crate) fn finish(self) -> Arrivals {
        let output = self.0.wait_with_output().expect("it can be waited for");
        assert!(output.status.success(), "a client got what it should not");
        let text = String::from_utf8(output.stdout).expect("numbers");
        let numbers = |line: &str| {
            let numbers = line.split(' ').map(|number| number.parse());
            numbers.collect::<Result<_, _>>().expect("numbers")
        };
        Arrivals(text.lines().map(numbers).collect())
    }
}

/// That process's `main`.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [address, num_streams, num_tokens, logprobs, texts @ ..] = arguments else {
        return ExitCode::FAILURE;
    };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let size = Size {
        num_streams: number(num_streams),
        num_tokens: number(num_tokens),
    };
    let logprobs = match logprobs.as_str() {
        "0" => Logprobs::Without,
        _ => Logprobs::With,
    };
    let words = Words {
        texts: texts.to_vec(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
    let all = runtime.block_on(async {
        let mut clients = JoinSet::new();
        for stream in 0..size.num_streams {
            let request = request(stream, size, logprobs);
            let address: SocketAddr = address.parse().expect("an address");
            let expected: Vec<_> = (0..size.num_tokens)
                .map(|place| words.texts[words.at(stream, place)].clone())
                .collect();
            clients.spawn(async move { (stream, listen(address, request, &expected).await) });
        }
        let mut all = clients.join_all().await;
        all.sort_by_key(|(stream, _)| *stream);
        all
    });
    let mut text = String::new();
    for (_, times) in all {
        let times: Vec<_> = times.iter().map(u64::to_string).collect();
        text.push_str(&times.join(" "));
        text.push('\n');
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn request(stream: usize, size: Size, logprobs: Logprobs) -> String {
    let logprobs = match logprobs {
        Logprobs::Without => "",
        Logprobs::With => r#""logprobs": true, "top_logprobs": 5, "#,
    };
    let body = format!(
        r#"{{"messages": [{{"role": "user", "content": "Is the heart of normal size?"}}], {logprobs}"stream": true, "seed": {stream}, "max_tokens": {}}}"#,
        size.num_tokens
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// One client's answer: when each of its words came.
async fn listen(address: SocketAddr, request: String, expected: &[String]) -> Vec<u64> {
    const CONTENT: &[u8] = br#""content":""#;
    let stream = TcpStream::connect(address)
        .await
        .expect("the server listens");
    let sent = send(&stream, request.as_bytes()).await;
    sent.expect("the server takes requests");
    let mut times = Vec::with_capacity(expected.len());
    let (mut unread, mut is_done) = (Vec::new(), false);
    while receive(&stream, &mut unread).await.expect("it answers") > 0 {
        let now = unix_ns();
        let mut rest = unread.as_slice();
        while let Some(at) = find(rest, b"\n\n") {
            let event = &rest[..at];
            rest = &rest[at + 2..];
            is_done |= find(event, b"data: [DONE]").is_some();
            let Some(at) = find(event, CONTENT) else {
                continue;
            };
            let text = &event[at + CONTENT.len()..];
            let end = text.iter().position(|byte| *byte == b'"');
            let text = &text[..end.expect("a string ends")];
            // The role's chunk has none.
            if !text.is_empty() {
                assert_eq!(text, expected[times.len()].as_bytes(), "another token");
                times.push(now);
            }
        }
        let num_read = unread.len() - rest.len();
        unread.drain(..num_read);
    }
    assert!(is_done, "the stream was cut off");
    assert_eq!(times.len(), expected.len(), "tokens are missing");
    times
}

async fn send(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(num_written) => bytes = &bytes[num_written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn receive(stream: &TcpStream, unread: &mut Vec<u8>) -> io::Result<usize> {
    let mut bytes = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut bytes) {
            Ok(num_read) => {
                unread.extend_from_slice(&bytes[..num_read]);
                return Ok(num_read);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
